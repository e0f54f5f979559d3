// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The books of what was said to one collector: how often, how it ended, how long it took.
//!
//! In: attempts at a request, each from its beginning to its answer, or to whatever ended it without one. Out: counts by
//! [`OUTCOMES`] and a distribution of seconds. It sends nothing and knows no spans: those are the queue's.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::retry::Answer;
use crate::metrics::{Histogram, SECONDS};

/// How an attempt can end.
///
/// - `taken`: the collector took all of it.
/// - `partial`: it took it, but for some of what was in it.
/// - `refused`: it never will.
/// - `unavailable`: it asked for another attempt, it was not reached, or there was no answer in time.
pub const OUTCOMES: [&str; 4] = ["taken", "partial", "refused", "unavailable"];

/// What was said to one collector.
#[derive(Debug)]
pub(crate) struct Requests {
    /// By [`OUTCOMES`].
    ended: [AtomicU64; OUTCOMES.len()],
    /// Law: `seconds.count()` = Σ `ended`.
    seconds: Mutex<Histogram>,
}

/// The numbers at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestStats {
    /// Attempts, by [`OUTCOMES`].
    pub ended: [u64; OUTCOMES.len()],
    /// From the first byte of an attempt to the end of its answer.
    pub seconds: Histogram,
}

/// An attempt under way. Dropped without an answer it counts as unavailable, so that none is forgotten when a deadline or
/// the agent's end cuts it off.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    requests: &'a Requests,
    began: Instant,
    outcome: usize,
}

impl Requests {
    /// Nothing was said.
    pub(super) fn new() -> Self {
        Self { ended: [const { AtomicU64::new(0) }; OUTCOMES.len()], seconds: Mutex::new(Histogram::new(SECONDS)) }
    }

    /// An attempt begins.
    pub(super) fn begin(&self) -> Attempt<'_> {
        Attempt { requests: self, began: Instant::now(), outcome: UNAVAILABLE }
    }

    /// The numbers so far.
    pub(crate) fn stats(&self) -> RequestStats {
        RequestStats {
            ended: self.ended.each_ref().map(|count| count.load(Relaxed)),
            seconds: self.seconds.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    fn ended(&self, outcome: usize, took: Duration) {
        self.ended[outcome].fetch_add(1, Relaxed);
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).record(took.as_secs_f64());
    }
}

impl Attempt<'_> {
    /// It has its answer.
    pub(super) fn answered(mut self, answer: &Answer) {
        self.outcome = match answer {
            Answer::Taken { rejected: 0, .. } => TAKEN,
            Answer::Taken { .. } => PARTIAL,
            Answer::Refused(_) => REFUSED,
            Answer::Later { .. } => UNAVAILABLE,
        };
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.requests.ended(self.outcome, self.began.elapsed());
    }
}

// Places in `OUTCOMES`.
const TAKEN: usize = 0;
const PARTIAL: usize = 1;
const REFUSED: usize = 2;
const UNAVAILABLE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_ends_in_one_way_and_has_its_time() {
        let requests = Requests::new();
        let taken = |rejected| Answer::Taken { rejected, message: None };
        for (answer, outcome) in [
            (taken(0), "taken"),
            (taken(2), "partial"),
            (Answer::Refused("no".to_owned()), "refused"),
            (Answer::Later { why: "busy".to_owned(), after: None }, "unavailable"),
        ] {
            let before = requests.stats().ended;
            requests.begin().answered(&answer);
            let after = requests.stats().ended;
            let grown: Vec<_> =
                (0..OUTCOMES.len()).filter(|at| after[*at] > before[*at]).map(|at| OUTCOMES[at]).collect();
            assert_eq!(grown, [outcome]);
        }
        drop(requests.begin());
        let stats = requests.stats();
        assert_eq!(stats.ended, [1, 1, 1, 2], "who never heard an answer had none");
        assert_eq!(stats.seconds.count(), 5);
    }
}
