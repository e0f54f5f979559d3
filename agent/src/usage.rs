// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent's process takes of the machine.
//!
//! In: nothing. Out: its processor time and resident memory, now, and of how many processors. It judges nothing: `ladder.rs` does.

use std::{fs, time::Duration};

use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

/// Processor time of all threads so far.
pub fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// Processors of the machine, whether the agent may use them or not; 1 where it cannot be told.
pub fn processors() -> u64 {
    aya::util::online_cpus().map_or(1, |processors| processors.len() as u64)
}

/// Resident bytes; 0 where `/proc` is not to be read.
pub fn resident() -> u64 {
    // "size resident shared …", in pages: https://man7.org/linux/man-pages/man5/proc_pid_statm.5.html
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * page_size() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_takes_both() {
        let before = cpu();
        while cpu() == before {
            std::hint::spin_loop();
        }
        assert!(cpu() > before);
        assert!(resident() > page_size() as u64);
        assert!(processors() > 0);
    }
}
