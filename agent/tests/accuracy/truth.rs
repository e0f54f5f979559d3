// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a case knows to be true of a span.
//!
//! In: system calls made by the case itself, with the clock read before and after. Out: a [`Truth`] a span, whose times
//! are [`Window`]s that hold however long the machine keeps us waiting between two calls. It knows nothing of the agent.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::spans::Kind;

/// Something happened no earlier than `from` and no later than `to`: nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Window {
    /// The clock before.
    pub(crate) from: u64,
    /// The clock after.
    pub(crate) to: u64,
}

impl Window {
    /// The time that `act` takes.
    pub(crate) fn around<T>(act: impl FnOnce() -> T) -> (T, Self) {
        let from = now();
        let out = act();
        (out, Self { from, to: now() })
    }

    /// From its beginning to the end of `later`.
    pub(crate) fn until(self, later: Self) -> Self {
        Self { from: self.from, to: later.to }
    }

    /// How far `at` lies outside.
    pub(crate) fn distance(self, at: u64) -> Duration {
        Duration::from_nanos(self.from.saturating_sub(at).max(at.saturating_sub(self.to)))
    }
}

/// Nanoseconds since the Unix epoch, by the clock that the agent converts kernel time to.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// One span that has to be there, once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Truth {
    /// Unique; part of the path, or of the host where the target has no path.
    pub(crate) id: String,
    /// Which side's span it is.
    pub(crate) kind: Kind,
    /// The whole path.
    pub(crate) path: String,
    /// As the conventions name it.
    pub(crate) method: &'static str,
    /// The token, where the conventions do not know it.
    pub(crate) original: Option<&'static str>,
    /// As the status line said.
    pub(crate) status: Option<u64>,
    /// `error.type`; the span failed where there is one.
    pub(crate) error: Option<&'static str>,
    /// The request's first byte.
    pub(crate) start: Window,
    /// The byte that completed the response, or the event that ended the wait for it.
    pub(crate) end: Window,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_zero_inside_and_grows_on_both_sides() {
        let window = Window { from: 100, to: 200 };
        let distances = [90, 100, 150, 200, 207].map(|at| window.distance(at).as_nanos());
        assert_eq!(distances, [10, 0, 0, 0, 7]);
    }
}
