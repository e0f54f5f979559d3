// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often the operator hears of a collector that does not take spans.
//!
//! In: how each request ended, and when. Out: now and then a sentence to log: one for trouble at most once a minute,
//! one for its end. It logs nothing itself, and what is counted elsewhere does not depend on it.

use std::time::{Duration, Instant};

/// One kind of trouble with one collector.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    /// When it was last complained about.
    last: Option<Instant>,
    /// Whether the complaint still stands: its end is worth a line.
    standing: bool,
    /// Spans lost since the trouble began, or ended last.
    lost: u64,
    /// How many of them no line has told of yet. Law: `untold <= lost`.
    untold: u64,
}

impl Complaint {
    /// `spans` were lost. The number of spans lost since the last line, if a line is due.
    pub(super) fn lost(&mut self, now: Instant, spans: u64) -> Option<u64> {
        self.lost += spans;
        self.untold += spans;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE) {
            return None;
        }
        self.last = Some(now);
        self.standing = true;
        Some(std::mem::take(&mut self.untold))
    }

    /// A request went through. The number of spans lost in all, if a complaint stood until now.
    pub(super) fn over(&mut self) -> Option<u64> {
        if !std::mem::take(&mut self.standing) {
            return None;
        }
        self.untold = 0;
        Some(std::mem::take(&mut self.lost))
    }
}

/// Between two complaints. A minute: often enough to be seen beside anything else, rare enough to bury nothing.
const PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_one_line_a_minute_and_one_at_its_end() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);

        assert_eq!(complaint.lost(at(0), 5), Some(5), "the first loss is told at once");
        for second in 1..60 {
            assert_eq!(complaint.lost(at(second), 1), None, "second {second}");
        }
        assert_eq!(complaint.lost(at(60), 1), Some(60), "what was lost meanwhile");
        assert_eq!(complaint.over(), Some(65), "what was lost in all");
        assert_eq!(complaint.over(), None, "the end is told once");
    }

    #[test]
    fn a_collector_that_flaps_is_not_told_of_more_often() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        assert_eq!(complaint.lost(start, 1), Some(1));
        assert_eq!(complaint.over(), Some(1));
        for second in 1..60 {
            assert_eq!(complaint.lost(start + Duration::from_secs(second), 1), None);
            assert_eq!(complaint.over(), None, "no complaint stood");
        }
        assert_eq!(complaint.lost(start + Duration::from_secs(60), 1), Some(60));
    }

    #[test]
    fn a_collector_that_works_is_not_mentioned() {
        assert_eq!(Complaint::default().over(), None);
    }
}
