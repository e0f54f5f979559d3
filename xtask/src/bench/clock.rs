// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The CPU time of a thread: what other programs on the machine hardly touch, unlike the time on the wall.
//!
//! In: nothing. Out: nanoseconds. It measures the thread that asks.

use rustix::time::{ClockId, clock_gettime};

/// CPU time of this thread so far, in nanoseconds.
pub(super) fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0)
}
