// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel knows of a process: the CPU time it took and the memory it holds.
//!
//! In: a process id. Out: nanoseconds and KiB from `/proc`. It starts and ends nothing.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};

/// CPU time that the threads of process `pid` have taken so far.
///
/// `/proc/<pid>/stat` counts in ticks of 10 ms, which is a percent of a second; `schedstat` counts nanoseconds. It
/// lacks threads that have ended, so a process is measured while its threads stay.
pub(super) fn cpu(pid: u32) -> Result<Duration> {
    let folder = format!("/proc/{pid}/task");
    let mut total = 0;
    for task in fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
        let file = task.with_context(|| format!("read {folder}"))?.path().join("schedstat");
        total += first_number(&file).unwrap_or(0);
    }
    Ok(Duration::from_nanos(total))
}

/// CPU time of the children of this process that it has waited for, in ticks of 10 ms.
pub(super) fn children() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The second field is the program's name, in parentheses: it may hold anything.
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks = |index| fields.split_whitespace().nth(index)?.parse::<u64>().ok();
    let (user, system) = ticks(13).zip(ticks(14)).context("/proc/self/stat is too short")?;
    Ok(Duration::from_millis(10 * (user + system)))
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// Now.
    pub(super) resident: u64,
    /// At most since its start.
    pub(super) peak: u64,
}

/// Memory of process `pid`.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let file = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let field = |name| kib(&status, name).with_context(|| format!("{file} has no {name}"));
    Ok(Memory { resident: field("VmRSS:")?, peak: field("VmHWM:")? })
}

/// None when the thread has ended meanwhile.
fn first_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.split_whitespace().next()?.parse().ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_cpu_and_memory() {
        let pid = std::process::id();
        assert!(cpu(pid).expect("it runs") > Duration::ZERO);
        let memory = memory(pid).expect("it runs");
        assert!(memory.resident > 0 && memory.peak >= memory.resident);
    }

    #[test]
    fn a_status_line_is_found_by_its_name() {
        assert_eq!(kib("Name:\tx\nVmRSS:\t   1234 kB\n", "VmRSS:"), Some(1234));
        assert_eq!(kib("Name:\tx\n", "VmRSS:"), None);
    }
}
