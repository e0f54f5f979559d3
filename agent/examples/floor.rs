// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attaches programs that do nothing, for the bench: `cargo run --example floor -- OBJECT nothing|record`.
//!
//! In: the object that `agent-ebpf/src/floor.rs` becomes, and which of its programs. Out: a line on standard output once
//! they are attached; then it empties their ring as often as the agent would, until its standard input ends.

use std::{
    env,
    error::Error,
    io::{self, Read as _},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use aya::{Btf, Ebpf, maps::RingBuf, programs::BtfTracePoint};

fn main() -> Result<(), Box<dyn Error>> {
    let [object, kind] = <[String; 2]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: floor OBJECT nothing|record")?;
    let mut programs = Ebpf::load_file(object)?;
    let btf = Btf::from_sys_fs()?;
    for (way, tracepoint) in [("sent", "sock_send_length"), ("received", "sock_recv_length")] {
        let name = format!("{kind}_{way}");
        let program: &mut BtfTracePoint =
            programs.program_mut(&name).ok_or_else(|| format!("there is no program {name}"))?.try_into()?;
        program.load(tracepoint, &btf)?;
        program.attach()?;
    }
    let mut ring = RingBuf::try_from(programs.take_map("RING").ok_or("there is no ring")?)?;
    println!("attached");

    let (end, ended) = channel();
    thread::spawn(move || {
        // Whatever ends it, nobody is there any more.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        drop(end);
    });
    while ended.recv_timeout(BETWEEN_LOOKS) == Err::<(), _>(RecvTimeoutError::Timeout) {
        while ring.next().is_some() {}
    }
    Ok(())
}

/// As the agent's own pace.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);
