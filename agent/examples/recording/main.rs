// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes a recording for the bench: `cargo run --example recording -- FILE EXCHANGES`, then `spantap replay FILE`.
//!
//! In: a number of exchanges. Out: what the probes would have written about keep-alive connections between two processes
//! of one host, the same for the same number. It is made up rather than recorded, so that it follows the record format,
//! and figures of two commits are about the same traffic.

mod stream;

use std::{env, error::Error, fs};

use spantap::{
    capture::{Preamble, Recorder},
    enrich::HostFacts,
};

fn main() -> Result<(), Box<dyn Error>> {
    let [file, exchanges] = <[String; 2]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: recording FILE EXCHANGES")?;
    fs::write(file, recording(exchanges.parse()?))?;
    Ok(())
}

/// The stream as `spantap record` would have written it.
fn recording(exchanges: u32) -> Vec<u8> {
    let mut recorder = Recorder::new(
        Vec::new(),
        &Preamble { seed: [3; 32], host: HostFacts { name: "bench".into(), ..HostFacts::default() } },
    )
    .expect("a vector takes everything");
    stream::play(exchanges, |input, wall| recorder.input(input, wall).expect("a vector takes everything"));
    recorder.finish().expect("a vector takes everything")
}
