// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernel time, and when-and-by-whom. Values only: reading a clock is `clock.rs`'s business.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// Nanoseconds of CLOCK_MONOTONIC, taken in the kernel at the event.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Time passed since `earlier`; zero when `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `later` after this one.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(later.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Nanoseconds to add to a [`Timestamp`] to get nanoseconds since the Unix epoch. One offset converts a whole batch,
/// so that arithmetic never moves a child out of its parent.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct WallOffset(pub i64);

impl WallOffset {
    /// `at` in nanoseconds since the Unix epoch.
    pub fn unix_nanos(self, at: Timestamp) -> u64 {
        at.0.saturating_add_signed(self.0)
    }
}

/// Who was running: a thread, and within it the task of its runtime where that is known.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Task {
    /// Process id (tgid) in the root pid namespace.
    pub pid: u32,
    /// Thread id in the root pid namespace.
    pub tid: u32,
    /// What the probe read from the process's memory; all zero when nothing was asked for.
    pub identity: [u64; 3],
}

/// When something happened, and by whose hand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Moment {
    /// Kernel time.
    pub at: Timestamp,
    /// The current task of the event.
    pub task: Task,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pid, self.tid)
    }
}
