// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A row that is recorded first, and judged from the recording.
//!
//! In: the ports to watch and a file. Out: the file, and what the agent makes of it: whoever looks into a wrong parent
//! replays the same events and gets the same spans. Evidence that must be asked of the kernel while events happen is in
//! the recording as far as the agent's own recorder holds it.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use crate::{
    agent::{Report, SIGHT_PATH, command, exchange, summary},
    process::{Process, wait_until},
    spans,
};

/// A recorder at work.
pub(crate) struct Recording {
    process: Process,
    file: PathBuf,
}

impl Recording {
    /// Starts it and waits until it sees requests; the first of `ports` is where it is shown some.
    pub(crate) fn start(file: &Path, ports: &[u16]) -> Result<Self, String> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(|e| format!("make {}: {e}", folder.display()))?;
        }
        let log = File::create(file.with_extension("log")).map_err(|e| format!("log of {}: {e}", file.display()))?;
        let mut record = command(&["record"], ports);
        record.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Process::start("spantap record", &mut record)?;
        let recording = Self { process, file: file.to_owned() };

        let port = ports.first().copied().unwrap_or_default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| format!("listen: {e}"))?;
        // The recorder writes in blocks: the first requests appear once enough of them were seen.
        let sees = || exchange(&listener).is_ok() && contains(file, SIGHT_PATH.as_bytes());
        if wait_until(SIGHT_DEADLINE, sees) {
            return Ok(recording);
        }
        Err(format!("nothing is recorded after {SIGHT_DEADLINE:?}"))
    }

    /// Asks it to end, and replays what it has.
    pub(crate) fn stop(mut self) -> Result<Report, String> {
        self.process.signal(libc::SIGINT);
        match self.process.await_end(STOP_DEADLINE) {
            Some(status) if status.success() => replayed(&self.file),
            Some(status) => Err(format!("the recorder ended with {status}")),
            None => Err("the recorder does not end on SIGINT".to_owned()),
        }
    }
}

/// What the agent makes of a recording.
fn replayed(file: &Path) -> Result<Report, String> {
    let replay = command(&["replay", "--print", "json"], &[]).arg(file).stdin(Stdio::null()).output();
    let replay = replay.map_err(|e| format!("start spantap replay: {e}"))?;
    let said = String::from_utf8_lossy(&replay.stderr);
    if !replay.status.success() {
        return Err(format!("the replay ended with {}\n{said}", replay.status));
    }
    let lines = String::from_utf8_lossy(&replay.stdout);
    let spans = lines.lines().map(spans::parse).collect::<Result<Vec<_>, _>>()?;
    Ok(Report { spans: spans.concat(), summary: summary(&said)? })
}

fn contains(file: &Path, wanted: &[u8]) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.windows(wanted.len()).any(|window| window == wanted))
}

/// Loading the probes takes a second; the machine may be busy.
const SIGHT_DEADLINE: Duration = Duration::from_secs(30);

/// The agent gives requests in flight 2 s.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
