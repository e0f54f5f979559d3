// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was seen lately: a bounded memory that forgets the oldest first.
//!
//! In: keys, and the times at which they were seen. Out: whether one is known, and what was kept with it; of a header's
//! context, whether it has been used up. It gives nothing back that it has forgotten, and says nothing about parents.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

use foldhash::fast::FixedState;

use crate::{
    context::{SpanId, TraceContext, TraceFlags, TraceId},
    time::Timestamp,
};

/// Keys that were seen lately, and a value for each.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    known: HashMap<K, V, FixedState>,
    /// Newest last. Law: order.len() == known.len() <= MOST.
    order: VecDeque<K>,
}

impl<K: Copy + Eq + Hash, V> Recent<K, V> {
    /// Nothing was seen yet.
    pub(super) fn new(hasher: FixedState) -> Self {
        Self { known: HashMap::with_hasher(hasher), order: VecDeque::new() }
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.known.contains_key(key)
    }

    /// Whether the key was new, which it is no more.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        if self.known.contains_key(&key) {
            return false;
        }
        self.known.insert(key, value);
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.known.get_mut(key)
    }

    pub(super) fn hasher(&self) -> &FixedState {
        self.known.hasher()
    }
}

/// How often each context has come in a header. A sender that writes the same header into everything, such as a load
/// generator or a job that never ends its span, would make one trace of it all, which no backend can show.
#[derive(Debug)]
pub(super) struct Reuse(Recent<(TraceId, SpanId), Use>);

#[derive(Clone, Copy, Debug)]
struct Use {
    times: u32,
    /// From here on it is spent.
    until: Timestamp,
}

impl Reuse {
    /// Nothing was seen yet.
    pub(super) fn new(hasher: FixedState) -> Self {
        Self(Recent::new(hasher))
    }

    /// Whether a request of `at` with this context begins a trace of its own. A trace that is not sampled is shown nowhere,
    /// and its sender's decision holds. The CLIENT end of a request goes on for `grace` longer than the SERVER end: who
    /// joins the two finds them in one trace, whichever was heard of first.
    pub(super) fn is_spent(&mut self, context: &TraceContext, at: Timestamp, grace: Duration) -> bool {
        if !context.flags.contains(TraceFlags::SAMPLED) && !context.flags.contains(TraceFlags::DEFERRED) {
            return false;
        }
        let key = (context.trace, context.parent);
        let Some(known) = self.0.get_mut(&key) else {
            self.0.insert(key, Use { times: 1, until: at.plus(LONGEST_USE) });
            return false;
        };
        known.times = known.times.saturating_add(1);
        if known.times > MOST_USES {
            known.until = known.until.min(at);
        }
        at >= known.until.plus(grace)
    }
}

/// Ends of requests that one context is the parent of. A page of a fan-out has tens; from some thousands of spans on
/// viewers of traces give up.
pub(super) const MOST_USES: u32 = 1_000;

/// How long a context is a parent: longer than requests are waited for.
pub(super) const LONGEST_USE: Duration = Duration::from_secs(3600);

/// Keys remembered: those of the last second at 10,000 requests a second, with room.
const MOST: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::new(FixedState::with_seed(1));
        assert!((0..MOST).all(|key| recent.insert(key, ())));
        assert!(!recent.insert(0, ()));
        assert!(recent.insert(MOST, ()));
        assert_eq!((recent.contains(&0), recent.contains(&1), recent.order.len()), (false, true, MOST));
    }

    #[test]
    fn a_context_is_spent_by_use_and_by_time_unless_it_is_not_sampled() {
        let context = |parent, flags| TraceContext {
            trace: TraceId([7; 16]),
            parent: SpanId([parent; 8]),
            flags: TraceFlags(flags),
            state: None,
        };
        let mut reuse = Reuse::new(FixedState::with_seed(1));
        let start = Timestamp(5);
        let grace = Duration::from_millis(300);
        let mut spent = |parent, flags, at, grace| reuse.is_spent(&context(parent, flags), at, grace);
        let used = (0..=MOST_USES).filter(|_| spent(1, 1, start, Duration::ZERO)).count();
        assert_eq!(used, 1, "the one beyond");
        assert!(
            !spent(1, 1, start, grace) && spent(1, 1, start.plus(grace), grace),
            "its CLIENT end goes on for a while"
        );
        assert!((0..2 * MOST_USES).all(|_| !spent(2, 0, start, Duration::ZERO)));
        let deferred = TraceFlags::DEFERRED.0;
        let used = (0..=MOST_USES).filter(|_| spent(4, deferred, start, Duration::ZERO)).count();
        assert_eq!(used, 1, "nobody has decided against it");
        let end = start.plus(LONGEST_USE);
        assert!(!spent(3, 1, start, Duration::ZERO));
        assert!(!spent(3, 1, Timestamp(end.0 - 1), Duration::ZERO) && spent(3, 1, end, Duration::ZERO));
    }
}
