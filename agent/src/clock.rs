// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the machine's clocks.
//!
//! In: nothing. Out: the present moment on the probes' clock, and the offsets that turn it into wall time. It keeps no
//! state and converts nothing: `time.rs` has the arithmetic, and the stages get what they need as arguments.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::time::{Timestamp, WallOffset};

/// Now, on the clock of `bpf_ktime_get_ns`.
pub fn now() -> Timestamp {
    Timestamp(u64::try_from(nanos(clock_gettime(ClockId::Monotonic))).unwrap_or(0))
}

/// What to add to a [`Timestamp`] to get wall time, as of now. Taken anew for every batch, it follows the corrections
/// of NTP.
pub fn wall_offset() -> WallOffset {
    WallOffset(offset(|| nanos(clock_gettime(ClockId::Monotonic)), || nanos(clock_gettime(ClockId::Realtime))))
}

/// When the machine booted, in nanoseconds since the Unix epoch: the zero of `/proc/<pid>/stat`'s start times.
pub fn booted() -> u64 {
    let offset = offset(|| nanos(clock_gettime(ClockId::Boottime)), || nanos(clock_gettime(ClockId::Realtime)));
    u64::try_from(offset).unwrap_or(0)
}

/// `there` − `here`. `there` is read between two readings of `here`; of a few tries the one with the narrowest gap
/// counts, because only there nothing (a preemption, a hypervisor) came in between.
fn offset(here: impl Fn() -> i64, there: impl Fn() -> i64) -> i64 {
    let mut best = (i64::MAX, 0);
    for _ in 0..OFFSET_TRIES {
        let before = here();
        let other = there();
        let gap = here().saturating_sub(before);
        if gap < best.0 {
            best = (gap, other.saturating_sub(before.saturating_add(gap / 2)));
        }
    }
    best.1
}

/// Nanoseconds since the clock's zero; an i64 of them lasts until the year 2262.
fn nanos(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// A reading takes some 30 ns and is rarely disturbed; five disturbed in a row do not happen by chance.
const OFFSET_TRIES: usize = 5;

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        time::{SystemTime, UNIX_EPOCH},
    };

    use super::*;

    #[test]
    fn the_narrowest_reading_decides() {
        // before, after of each try; `there` always reads 1,000.
        let here = RefCell::new([0, 900, 100, 104, 200, 500, 300, 700, 400, 600].into_iter());
        let offset = offset(|| here.borrow_mut().next().expect("two readings a try"), || 1_000);
        assert_eq!(offset, 1_000 - 102);
    }

    #[test]
    fn monotonic_time_plus_the_offset_is_wall_time() {
        let before = unix_nanos();
        let offset = wall_offset();
        let converted = offset.unix_nanos(now());
        let after = unix_nanos();
        // The offset's own error is half of its narrowest gap: far below a millisecond.
        let slack = 1_000_000;
        assert!((before - slack..=after + slack).contains(&converted), "{before} {converted} {after}");
    }

    #[test]
    fn the_machine_booted_before_now_by_its_uptime() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let uptime: f64 = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("seconds");
        let age = (unix_nanos() - booted()) as f64 / 1e9;
        assert!((age - uptime).abs() < 1.0, "{age} {uptime}");
    }

    fn unix_nanos() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        u64::try_from(since.as_nanos()).expect("before 2554")
    }
}
