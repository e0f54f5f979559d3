// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which spans form a trace, and when it is finished.
//!
//! In: spans in any order, and the time. Out: [`Finished`] traces. It drops nothing: where a bound is reached, a trace
//! is finished early, and what comes after it is a part of its own; it does not know what a span says.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

use crate::{
    context::{SpanId, TraceId},
    enrich::ServiceSpan,
    time::Timestamp,
};

/// A trace, or the part of it that came together.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Which.
    pub trace: TraceId,
    /// In the order of arrival; never empty.
    pub spans: Vec<ServiceSpan>,
    /// How much of the trace this is.
    pub part: Part,
}

/// How much of a trace came together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// As far as this machine saw it: all.
    Whole,
    /// The beginning: a bound was reached, or the agent stops. More may follow.
    Early,
    /// What came after a part of the same trace had been finished.
    Supplement,
}

/// Bounds of [`Traces`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Traces under way at one time.
    pub traces: usize,
    /// Spans of one trace.
    pub spans_per_trace: usize,
    /// Spans of all traces under way.
    pub spans: usize,
    /// Finished traces that are remembered, so that what comes later is known as a supplement.
    pub remembered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // 10,000 requests/s, half of them a trace of their own, for the 300 ms of [`QUIET`], with room for slow ones.
            traces: 4096,
            // More is no picture any more; the largest honest trace we met had some hundreds.
            spans_per_trace: 1000,
            // At about 1 KiB a span: 16 MiB, of an agent that is to stay within 40.
            spans: 16 << 10,
            // 16 bytes each: 256 KiB for the traces of the last second or more.
            remembered: 16 << 10,
        }
    }
}

/// Traces under way.
#[derive(Debug)]
pub struct Traces {
    limits: Limits,
    /// The time of the last tick: spans count as added then.
    now: Timestamp,
    open: HashMap<TraceId, Open>,
    /// When each open trace is finished if nothing more comes. Law: one entry for each of `open`.
    deadlines: BTreeSet<(Timestamp, TraceId)>,
    /// Spans of all open traces. Law: the sum of their lengths.
    held: usize,
    finished: Remembered,
    /// Traces that were finished because a bound was reached.
    early: u64,
}

impl Traces {
    /// No traces, within `limits`.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            now: Timestamp::default(),
            open: HashMap::new(),
            deadlines: BTreeSet::new(),
            held: 0,
            finished: Remembered::default(),
            early: 0,
        }
    }

    /// Takes one span. Traces that have to go for it come out.
    pub fn add(&mut self, span: ServiceSpan, out: &mut Vec<Finished>) {
        let trace = span.span.trace;
        let open = self.open.entry(trace).or_insert_with(|| Open::new(self.finished.contains(trace)));
        self.deadlines.remove(&(open.deadline, trace));
        self.held += 1;
        open.add(span, self.now);
        self.deadlines.insert((open.deadline, trace));

        if open.spans.len() >= self.limits.spans_per_trace {
            self.end_early(trace, out);
        }
        while self.open.len() > self.limits.traces || self.held > self.limits.spans {
            // The one that is nearest to its end loses least.
            let Some(&(_, nearest)) = self.deadlines.first() else { break };
            self.end_early(nearest, out);
        }
    }

    /// The time is `now`: traces whose time has come come out, oldest first.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Finished>) {
        self.now = self.now.max(now);
        while let Some(&(deadline, trace)) = self.deadlines.first()
            && deadline <= self.now
        {
            self.end(trace, Part::Whole, out);
        }
    }

    /// Nothing more will come: every trace comes out.
    pub fn finish(&mut self, out: &mut Vec<Finished>) {
        while let Some(&(_, trace)) = self.deadlines.first() {
            let complete = self.open.get(&trace).is_some_and(|open| open.awaited.is_empty());
            self.end(trace, if complete { Part::Whole } else { Part::Early }, out);
        }
    }

    /// Traces that were finished because a bound was reached.
    pub fn early(&self) -> u64 {
        self.early
    }

    fn end_early(&mut self, trace: TraceId, out: &mut Vec<Finished>) {
        self.early += 1;
        self.end(trace, Part::Early, out);
    }

    fn end(&mut self, trace: TraceId, part: Part, out: &mut Vec<Finished>) {
        let Some(open) = self.open.remove(&trace) else { return };
        self.deadlines.remove(&(open.deadline, trace));
        self.held -= open.spans.len();
        self.finished.insert(trace, self.limits.remembered);
        let part = if open.supplement { Part::Supplement } else { part };
        out.push(Finished { trace, spans: open.spans, part });
    }
}

/// A trace under way.
#[derive(Debug)]
struct Open {
    spans: Vec<ServiceSpan>,
    ids: HashSet<SpanId>,
    /// Parents on this machine that have not ended yet: a span comes when it has ended, its children may come before.
    awaited: HashSet<SpanId>,
    deadline: Timestamp,
    supplement: bool,
}

impl Open {
    fn new(supplement: bool) -> Self {
        Self {
            spans: Vec::new(),
            ids: HashSet::new(),
            awaited: HashSet::new(),
            deadline: Timestamp::default(),
            supplement,
        }
    }

    fn add(&mut self, span: ServiceSpan, now: Timestamp) {
        self.awaited.remove(&span.span.id);
        self.ids.insert(span.span.id);
        // A parent that a header named may be on any machine: [`QUIET`] is all the time it gets. In a supplement the
        // parent was most likely printed with the first part.
        if let Some(parent) = span.span.parent
            && !parent.remote
            && !self.supplement
            && !self.ids.contains(&parent.id)
        {
            self.awaited.insert(parent.id);
        }
        let added = now.max(span.span.end);
        self.deadline = added.plus(if self.awaited.is_empty() { QUIET } else { PATIENCE });
        self.spans.push(span);
    }
}

/// The last traces that were finished.
#[derive(Debug, Default)]
struct Remembered {
    order: VecDeque<TraceId>,
    known: HashSet<TraceId>,
}

impl Remembered {
    fn contains(&self, trace: TraceId) -> bool {
        self.known.contains(&trace)
    }

    fn insert(&mut self, trace: TraceId, limit: usize) {
        if self.known.insert(trace) {
            self.order.push_back(trace);
        }
        while self.order.len() > limit {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }
}

/// How long nothing must have been added to a trace: the caller's span comes within the consumer's tick (10 ms) after
/// the callee's on one machine; 300 ms also cover a client that reads its response in its own time.
pub const QUIET: Duration = Duration::from_millis(300);

/// How long a trace waits for a parent that is known to be open on this machine. A minute is longer than the usual
/// timeouts of proxies (nginx: 60 s) let a request take; after it the parent counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::any, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::{
        live::sample::{client, server, span_id, trace_id},
        trace::LinkMethod,
    };

    const SMALL: Limits = Limits { traces: 2, spans_per_trace: 3, spans: 4, remembered: 2 };

    fn ms(at: u64) -> Timestamp {
        Timestamp(at * 1_000_000)
    }

    /// `trace: ids part`, in the order they came out.
    fn shown(finished: &[Finished]) -> String {
        let line = |finished: &Finished| {
            let ids: Vec<_> = finished.spans.iter().map(|span| span.span.id.0[7].to_string()).collect();
            format!("{}: {} {:?}", finished.trace.0[15], ids.join(" "), finished.part)
        };
        finished.iter().map(line).collect::<Vec<_>>().join(" · ")
    }

    #[test]
    fn a_trace_is_finished_when_nothing_came_for_300_ms() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        traces.tick(ms(10), &mut out);
        traces.add(server(1, 1, "web", "GET", "/").into(), &mut out);
        traces.tick(ms(309), &mut out);
        assert_eq!(shown(&out), "");
        traces.tick(ms(310), &mut out);
        assert_eq!(shown(&out), "1: 1 Whole");
    }

    #[test]
    fn a_trace_waits_for_a_parent_that_is_open_on_this_machine() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        traces.add(client(1, 2, "web", "GET", "/").under(1, LinkMethod::Thread).into(), &mut out);
        traces.tick(ms(5_000), &mut out);
        assert_eq!(shown(&out), "");
        traces.add(server(1, 1, "web", "GET", "/").into(), &mut out);
        traces.tick(ms(5_300), &mut out);
        assert_eq!(shown(&out), "1: 2 1 Whole");
    }

    #[test]
    fn a_parent_that_never_comes_is_given_up() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        traces.add(client(1, 2, "web", "GET", "/").under(1, LinkMethod::Thread).into(), &mut out);
        traces.tick(Timestamp::default().plus(PATIENCE), &mut out);
        assert_eq!(shown(&out), "1: 2 Whole");
    }

    #[test]
    fn nobody_waits_for_a_parent_on_another_machine() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        traces.add(server(1, 2, "web", "GET", "/").remote(1).into(), &mut out);
        traces.tick(ms(300), &mut out);
        assert_eq!(shown(&out), "1: 2 Whole");
    }

    #[test]
    fn late_spans_are_a_supplement() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        traces.add(server(1, 1, "web", "GET", "/").into(), &mut out);
        traces.tick(ms(300), &mut out);
        traces.add(client(1, 2, "web", "GET", "/").under(1, LinkMethod::Thread).into(), &mut out);
        traces.tick(ms(600), &mut out);
        assert_eq!(shown(&out), "1: 1 Whole · 1: 2 Supplement");
    }

    #[test]
    fn a_bound_ends_a_trace_early_and_loses_nothing() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        for id in 1..=4 {
            traces.add(server(1, id, "web", "GET", "/").into(), &mut out);
        }
        assert_eq!(shown(&out), "1: 1 2 3 Early", "more spans than a trace may have");
        out.clear();
        traces.add(server(2, 5, "web", "GET", "/").into(), &mut out);
        traces.add(server(3, 6, "web", "GET", "/").into(), &mut out);
        assert_eq!(shown(&out), "1: 4 Supplement", "more traces than fit");
        out.clear();
        traces.add(server(3, 7, "web", "GET", "/").into(), &mut out);
        traces.add(server(2, 8, "web", "GET", "/").into(), &mut out);
        assert_eq!(shown(&out), "");
        traces.add(server(2, 9, "web", "GET", "/").into(), &mut out);
        assert_eq!(shown(&out), "2: 5 8 9 Early");
        assert_eq!(traces.early(), 3);
        out.clear();
        traces.finish(&mut out);
        assert_eq!(shown(&out), "3: 6 7 Whole");
        assert_eq!((traces.open.len(), traces.deadlines.len(), traces.held), (0, 0, 0));
    }

    #[test]
    fn what_waits_at_the_end_comes_out_as_early() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        traces.add(client(1, 2, "web", "GET", "/").under(1, LinkMethod::Thread).into(), &mut out);
        traces.finish(&mut out);
        assert_eq!(shown(&out), "1: 2 Early");
    }

    #[test]
    fn only_so_many_finished_traces_are_remembered() {
        let (mut traces, mut out) = (Traces::new(SMALL), Vec::new());
        for trace in [1, 2, 3, 1] {
            traces.add(server(trace, 1, "web", "GET", "/").into(), &mut out);
            traces.finish(&mut out);
        }
        assert_eq!(shown(&out), "1: 1 Whole · 2: 1 Whole · 3: 1 Whole · 1: 1 Whole");
        assert_eq!(trace_id(1).0[15], span_id(1).0[7]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_bounds_hold(
            inputs in vec((0..6_u8, 1..9_u8, 0..9_u8, any::<bool>(), 0..400_u64), 0..200),
        ) {
            let (mut traces, mut out, mut now) = (Traces::new(SMALL), Vec::new(), 0);
            for (trace, id, parent, remote, later) in &inputs {
                let span = server(*trace, *id, "web", "GET", "/");
                let span = match (parent, remote) {
                    (0, _) => span,
                    (_, true) => span.remote(*parent),
                    (_, false) => span.under(*parent, LinkMethod::Socket),
                };
                traces.add(span.into(), &mut out);
                now += later;
                traces.tick(ms(now), &mut out);
                prop_assert!(traces.open.len() <= SMALL.traces && traces.held <= SMALL.spans);
                prop_assert_eq!(traces.deadlines.len(), traces.open.len());
                prop_assert_eq!(traces.held, traces.open.values().map(|open| open.spans.len()).sum::<usize>());
                prop_assert!(traces.finished.order.len() <= SMALL.remembered);
            }
            traces.finish(&mut out);
            prop_assert_eq!(out.iter().map(|finished| finished.spans.len()).sum::<usize>(), inputs.len());
        }
    }
}
