// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Acts in the order of kernel time.
//!
//! In: acts nearly in order, as they are read off the ring. Out: the earliest of them; of one moment, the one that came
//! first. It knows no clock: who asks knows how long to wait for one that is late.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
};

use super::act::Act;
use crate::time::Timestamp;

/// Acts that wait.
///
/// Nearly all come in order and stand in a row, which costs a copy each. A heap of all of them would move a dozen for each
/// that is taken out (2026-11: a tenth of everything that the pure core does).
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Law: sorted.
    row: VecDeque<Waiting>,
    /// Those that came too late for the row.
    late: BinaryHeap<Reverse<Waiting>>,
    /// Acts taken in so far: what happened at one moment stays in order.
    taken: u64,
}

#[derive(Debug)]
struct Waiting {
    act: Act,
    order: u64,
}

impl Order {
    /// Takes an act in.
    pub(super) fn push(&mut self, act: Act) {
        self.taken += 1;
        let waiting = Waiting { order: self.taken, act };
        if self.row.back().is_none_or(|last| last.act.at <= waiting.act.at) {
            self.row.push_back(waiting);
        } else {
            self.late.push(Reverse(waiting));
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.row.len() + self.late.len()
    }

    /// The earliest, taken out.
    pub(super) fn pop(&mut self) -> Option<Act> {
        self.pop_until(Timestamp(u64::MAX))
    }

    /// The earliest, taken out, unless it is later than `horizon`.
    pub(super) fn pop_until(&mut self, horizon: Timestamp) -> Option<Act> {
        let is_late = match (self.row.front(), self.late.peek()) {
            (Some(first), Some(Reverse(late))) => late < first,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        let next = if is_late { self.late.peek().map(|Reverse(late)| late) } else { self.row.front() };
        next.filter(|next| next.act.at <= horizon)?;
        let next = if is_late { self.late.pop().map(|Reverse(late)| late) } else { self.row.pop_front() };
        next.map(|next| next.act)
    }
}

impl Waiting {
    fn key(&self) -> (Timestamp, u64) {
        (self.act.at, self.order)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::parenting::act::What;

    /// An act that tells when it was taken in by its process id.
    fn act(at: u64, pid: u32) -> Act {
        Act { at: Timestamp(at), pid, what: What::Exited }
    }

    #[test]
    fn what_is_later_than_the_horizon_stays() {
        let mut order = Order::default();
        for (pid, at) in [(0, 5), (1, 9), (2, 7)] {
            order.push(act(at, pid));
        }
        assert_eq!(order.pop_until(Timestamp(4)).map(|act| act.pid), None);
        assert_eq!(order.pop_until(Timestamp(7)).map(|act| act.pid), Some(0));
        assert_eq!(order.pop_until(Timestamp(7)).map(|act| act.pid), Some(2), "it came late");
        assert_eq!(order.pop_until(Timestamp(7)).map(|act| act.pid), None);
        assert_eq!(order.len(), 1);
    }

    proptest! {
        #[test]
        fn acts_come_out_as_a_stable_sort_has_them(steps in prop::collection::vec((0..50_u64, any::<bool>()), 0..200)) {
            let mut order = Order::default();
            let mut expected: Vec<(u64, u32)> = Vec::new();
            for (pid, (at, take)) in (0_u32..).zip(steps) {
                order.push(act(at, pid));
                expected.push((at, pid));
                if take {
                    expected.sort_by_key(|(at, _)| *at);
                    let first = expected.remove(0);
                    prop_assert_eq!(order.pop().map(|act| (act.at.0, act.pid)), Some(first));
                }
                prop_assert_eq!(order.len(), expected.len());
            }
        }
    }
}
