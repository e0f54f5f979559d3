// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Replays what others have published of real services, with its truth hidden, and judges what `assigned` says.
//!
//! In: files of two kinds ([`data`]), how often to lay each over itself. Out: a row for each, and the bins of what was
//! claimed against what was right. It asks the tracer that the agent has; no other source of evidence is told anything.

extern crate spantap_core as spantap;

mod data;
mod judge;
mod replay;

use std::{env, error::Error, path::PathBuf};

use self::{
    data::Recording,
    judge::{Bins, Row},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let usage = "usage: spantap-assigned JSON|- OVERLAYS ROUNDS KNOWN_PERCENT FILE...";
    let json = arguments.next().ok_or(usage)?;
    let overlays = arguments.next().ok_or(usage)?;
    let overlays = overlays.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let rounds: u32 = arguments.next().ok_or(usage)?.parse()?;
    let known = arguments.next().ok_or(usage)?;
    let known = known.split(',').map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    let read = |file: PathBuf| Recording::read(&file).map_err(|error| format!("{}: {error}", file.display()));
    let recordings = arguments.map(PathBuf::from).map(read).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    for known in known {
        let mut bins = Bins::default();
        println!("{known} of 100 requests pass an id on\n{}", Row::HEAD);
        for recording in &recordings {
            for overlay in &overlays {
                let stream = replay::lay_over(recording, *overlay, rounds, known);
                let mut row = Row::new(&recording.name, *overlay, known, &stream);
                for said in replay::play(&stream) {
                    row.add(&said);
                    bins.add(&said);
                }
                println!("{row}");
                rows.push(row);
            }
        }
        println!("{bins}");
    }
    if json != "-" {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        std::fs::write(&json, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}
