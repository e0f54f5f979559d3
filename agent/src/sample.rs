// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which traces are exported.
//!
//! In: finished spans, and the time. Out: those that are exported, with the probability of that in their `tracestate`;
//! of a trace the ones or the others. It neither counts requests nor forgets anything: metrics and the local view are
//! made of every span, and what is not exported is counted in
//! [`Vitals::unsampled`](crate::vitals::Vitals::unsampled). `docs/sampling.md` says what each strategy is for and how it
//! is biased.
//!
//! Where the id and the flags of a trace decide, spans pass at once. Where more matters (which service and route it
//! began with, whether something failed), they wait until the trace is over, within the bounds of [`settings::Hold`].
//!
//! ```text
//! span ─ decided before? ──────────────── yes ─► as then
//!        │ no       └ by id and flags alone ───► at once
//!        └ hold ─ quiet, its first span among them ─► decide for all ─► remember for those that come later
//!                 held for too long, or no room ────┘
//! ```

mod jaeger;
mod policy;
mod rates;
pub mod settings;
pub mod threshold;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    slice,
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;
use opentelemetry_semantic_conventions::attribute::{
    HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, SERVER_PORT, URL_PATH,
};

pub use self::{
    jaeger::Remote,
    policy::{By, is_like},
    settings::Settings,
};
use self::{
    jaeger::Strategies,
    policy::{Entry, Question, Verdict, decide},
    rates::{Key, Rates},
    settings::{Delegate, Instrumented, JaegerRemote, Strategy},
    threshold::{Claim, Randomness, Threshold, claimed},
};
use crate::{
    attribute::{Attribute, Value},
    context::{SpanId, TraceFlags, TraceId},
    enrich::{Resource, ServiceSpan},
    time::Timestamp,
    trace::{Begun, LinkMethod},
    vitals::Fill,
};

/// Decides about traces, and holds those back that are not decided yet.
#[derive(Debug)]
pub struct Sampler {
    settings: Settings,
    /// Whether a span's trace id and flags say everything.
    at_once: bool,
    /// Traces that wait. Law: their spans are `held` together.
    traces: HashMap<TraceId, Waiting, FixedState>,
    held: usize,
    /// When to look at a trace again.
    due: BinaryHeap<Reverse<(Timestamp, TraceId)>>,
    /// What was decided, for spans that come later. Law: decided.len() == order.len() <= MOST_DECIDED.
    decided: HashMap<TraceId, Verdict, FixedState>,
    order: VecDeque<TraceId>,
    rates: Rates,
    remote: Strategies,
    /// Services whose strategy somebody else knows. Law: at most [`MOST_SERVICES`].
    services: HashSet<Arc<str>>,
    /// What every trace has to pass besides: more than [`Threshold::ALWAYS`] while the agent has to do less.
    floor: Threshold,
    /// The last state that was made of a threshold alone, which most traces share.
    plain: Option<(Threshold, Arc<str>)>,
    counts: Counts,
}

/// What became of the spans. Law: offered = exported + unsampled + thinned + held.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Spans that left.
    pub exported: u64,
    /// Spans that are not exported.
    pub unsampled: u64,
    /// Those of them whose process exports its own.
    pub instrumented: u64,
    /// Spans that would have been exported, had the agent not to do less.
    pub thinned: u64,
    /// Spans that wait for the end of their trace.
    pub held: u64,
    /// Traces that were decided about before their end: held for too long.
    pub overdue: u64,
    /// Traces that were decided about before their end: no room.
    pub crowded: u64,
    /// Traces whose service and route had no limit of their own, because there are too many.
    pub unlisted: u64,
    /// Traces (spans where each is decided at once) that were kept, by what decided, in the order of [`By::ALL`].
    pub kept: [u64; By::ALL.len()],
    /// The same for those that were not.
    pub dropped: [u64; By::ALL.len()],
}

/// A trace that waits.
#[derive(Debug)]
struct Waiting {
    spans: Vec<ServiceSpan>,
    first: Timestamp,
    last: Timestamp,
}

impl Sampler {
    /// A sampler that has seen nothing. `seed` must be unpredictable, as peers choose trace ids.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let at_once = is_at_once(&settings);
        Self {
            settings,
            at_once,
            traces: HashMap::with_hasher(FixedState::with_seed(seed)),
            held: 0,
            due: BinaryHeap::new(),
            decided: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: VecDeque::new(),
            rates: Rates::new(seed),
            remote: Strategies::default(),
            services: HashSet::new(),
            floor: Threshold::ALWAYS,
            plain: None,
            counts: Counts::default(),
        }
    }

    /// Other settings from now on. Traces that wait are decided by them.
    pub fn reconfigure(&mut self, settings: Settings) {
        self.at_once = is_at_once(&settings);
        self.settings = settings;
    }

    /// From now on at most this share of all traces leaves, whatever the settings say: the same ids on every machine.
    pub fn at_most(&mut self, share: f64) {
        self.floor = Threshold::of_probability(share);
    }

    /// Whether the share of [`at_most`](Self::at_most) has room for the span's trace.
    pub fn has_room(&self, span: &ServiceSpan) -> bool {
        self.floor == Threshold::ALWAYS || self.floor.keeps(Randomness::of(span.span.trace, span.span.state.as_deref()))
    }

    /// Takes finished spans; those that are exported are appended to `out`, now or at a later call.
    pub fn take(&mut self, spans: impl Into<Vec<ServiceSpan>>, now: Timestamp, out: &mut Vec<ServiceSpan>) {
        let mut spans = spans.into();
        if self.at_once {
            // Most often all of them pass, and none has to be moved.
            spans.retain_mut(|span| {
                let verdict = self.decide(slice::from_ref(span), now);
                self.settle(span, verdict, None)
            });
            if out.is_empty() {
                *out = spans;
            } else {
                out.append(&mut spans);
            }
        } else {
            for span in spans {
                match self.decided.get(&span.span.trace).copied() {
                    Some(verdict) => self.late(span, verdict, out),
                    None => self.hold(span, now, out),
                }
            }
        }
        self.tick(now, out);
    }

    /// Time has come to `now`: what is over is decided about.
    fn tick(&mut self, now: Timestamp, out: &mut Vec<ServiceSpan>) {
        while let Some(Reverse((at, _))) = self.due.peek()
            && *at <= now
        {
            let Some(Reverse((_, trace))) = self.due.pop() else { return };
            let Some(waiting) = self.traces.get(&trace) else { continue };
            let overdue = now.since(waiting.first) >= self.longest();
            let quiet = now.since(waiting.last) >= self.settle_time();
            if overdue || (quiet && is_over(&waiting.spans)) {
                self.counts.overdue += u64::from(overdue);
                self.release(trace, now, out);
            }
        }
    }

    /// Nothing more will come: decides about everything that waits.
    pub fn finish(&mut self, now: Timestamp, out: &mut Vec<ServiceSpan>) {
        let mut waiting: Vec<_> = self.traces.iter().map(|(trace, waiting)| (waiting.first, *trace)).collect();
        waiting.sort_unstable();
        for (_, trace) in waiting {
            self.release(trace, now, out);
        }
    }

    /// How full the table of spans that wait for the end of their trace is.
    pub fn fill(&self) -> Fill {
        let each = size_of::<ServiceSpan>() + SPAN_HEAP;
        Fill::of("spans_held", self.held, self.settings.hold.most_spans, each)
    }

    /// Whether the spans of a process are left to the SDK in it.
    pub fn leaves(&self, resource: &Resource) -> bool {
        resource.instrumented && self.settings.instrumented == Instrumented::Leave
    }

    /// The numbers so far.
    pub fn counts(&self) -> Counts {
        Counts { held: self.held as u64, unlisted: self.rates.crowded(), ..self.counts.clone() }
    }

    /// Services whose strategy a Jaeger collector is to be asked for.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<str>> {
        self.services.iter()
    }

    /// What the collector answered about `service`.
    pub fn learned(&mut self, service: Arc<str>, remote: Remote) {
        if self.services.contains(&service) {
            self.remote.learn(service, remote);
        }
    }

    /// Whom it wants to be asked, if anybody.
    pub fn remote(&self) -> Option<&JaegerRemote> {
        match &self.settings.root {
            Strategy::JaegerRemote(remote) => Some(remote),
            _ => None,
        }
    }

    // --- Waiting ---

    fn hold(&mut self, span: ServiceSpan, now: Timestamp, out: &mut Vec<ServiceSpan>) {
        while self.held >= self.settings.hold.most_spans.max(1) {
            // The longest waiting, as far as the queue of appointments knows: its first one is its earliest.
            let Some(Reverse((_, trace))) = self.due.pop() else { break };
            if self.traces.contains_key(&trace) {
                self.counts.crowded += 1;
                self.release(trace, now, out);
            }
        }
        let trace = span.span.trace;
        let (settle, longest) = (self.settle_time(), self.longest());
        let waiting = self.traces.entry(trace).or_insert_with(|| {
            self.due.push(Reverse((now.plus(longest), trace)));
            Waiting { spans: Vec::with_capacity(1), first: now, last: now }
        });
        waiting.last = now;
        waiting.spans.push(span);
        self.held += 1;
        // One appointment for each time that something came.
        self.due.push(Reverse((now.plus(settle), trace)));
    }

    fn release(&mut self, trace: TraceId, now: Timestamp, out: &mut Vec<ServiceSpan>) {
        let Some(waiting) = self.traces.remove(&trace) else { return };
        self.held -= waiting.spans.len();
        let verdict = self.decide(&waiting.spans, now);
        if self.order.len() >= MOST_DECIDED
            && let Some(oldest) = self.order.pop_front()
        {
            self.decided.remove(&oldest);
        }
        self.order.push_back(trace);
        self.decided.insert(trace, verdict);
        let ids: HashSet<SpanId> = waiting.spans.iter().map(|span| span.span.id).collect();
        out.extend(waiting.spans.into_iter().filter_map(|mut span| {
            let is_local = span.span.parent.is_some_and(|parent| ids.contains(&parent.id));
            let delegate = is_local.then(|| self.delegate(verdict));
            self.settle(&mut span, verdict, delegate).then_some(span)
        }));
    }

    /// A span whose trace was decided about before: all that is known is that it has not come alone.
    fn late(&mut self, mut span: ServiceSpan, verdict: Verdict, out: &mut Vec<ServiceSpan>) {
        let delegate = self.delegate(verdict);
        if self.settle(&mut span, verdict, Some(delegate)) {
            out.push(span);
        }
    }

    /// Who decides about a span under one that `verdict` was about.
    fn delegate(&self, verdict: Verdict) -> Delegate {
        if verdict.kept.is_some() { self.settings.local_parent_sampled } else { self.settings.local_parent_not_sampled }
    }

    /// The end of every span: whether it is exported.
    fn settle(&mut self, span: &mut ServiceSpan, verdict: Verdict, delegate: Option<Delegate>) -> bool {
        if self.leaves(&span.resource) {
            self.counts.unsampled += 1;
            self.counts.instrumented += 1;
            return false;
        }
        let randomness = Randomness::of(span.span.trace, span.span.state.as_deref());
        let claim = match (verdict.kept, delegate.map(policy::threshold_of)) {
            (kept, None) => kept,
            // As its parent: the usual two.
            (Some(claim), Some(Threshold::ALWAYS)) => Some(claim),
            (None, Some(Threshold::NEVER)) => None,
            (_, Some(threshold)) if threshold == Threshold::NEVER || !threshold.keeps(randomness) => None,
            (Some(Claim::Threshold(parents)), Some(own)) => Some(Claim::Threshold(parents.max(own))),
            (_, Some(_)) => Some(Claim::Unknown),
        };
        let Some(claim) = claim else {
            self.counts.unsampled += 1;
            return false;
        };
        if self.floor > Threshold::ALWAYS && !self.floor.keeps(randomness) {
            self.counts.thinned += 1;
            return false;
        }
        let claim = self.raised(claim, span.span.state.as_deref());
        span.span.state = match (&span.span.state, claim) {
            (None, Claim::Threshold(threshold)) => self.plain(threshold, randomness),
            (state, claim) => claimed(state.as_ref(), claim, randomness),
        };
        self.counts.exported += 1;
        true
    }

    /// The state of a trace that has none but the threshold.
    fn plain(&mut self, threshold: Threshold, randomness: Randomness) -> Option<Arc<str>> {
        if let Some((known, state)) = &self.plain
            && *known == threshold
        {
            return Some(Arc::clone(state));
        }
        let state = claimed(None, Claim::Threshold(threshold), randomness)?;
        self.plain = Some((threshold, Arc::clone(&state)));
        Some(state)
    }

    /// The claim of a span that has passed the floor as well: "a sampler that reduces the number of spans raises the
    /// threshold".
    fn raised(&self, claim: Claim, state: Option<&str>) -> Claim {
        match claim {
            _ if self.floor == Threshold::ALWAYS => claim,
            Claim::Threshold(own) => Claim::Threshold(own.max(self.floor)),
            Claim::AsReceived => match threshold::received(state) {
                Some(theirs) => Claim::Threshold(theirs.max(self.floor)),
                None => Claim::Unknown,
            },
            Claim::Unknown => Claim::Unknown,
        }
    }

    // --- Deciding ---

    fn decide(&mut self, spans: &[ServiceSpan], now: Timestamp) -> Verdict {
        let entry = entry(spans);
        let span = &entry.span;
        let slowest = self.settings.keep.slower_than_ms.map(Duration::from_millis);
        if let Strategy::JaegerRemote(_) = self.settings.root
            && self.services.len() < MOST_SERVICES
            && !self.services.contains(&entry.resource.service)
        {
            self.services.insert(Arc::clone(&entry.resource.service));
        }
        let question = Question {
            randomness: Randomness::of(span.trace, span.state.as_deref()),
            caller: (span.begun == Begun::Elsewhere && !span.flags.contains(TraceFlags::DEFERRED))
                .then(|| span.flags.contains(TraceFlags::SAMPLED)),
            state: span.state.as_deref(),
            entry: facts(entry, self.at_once),
            spans: spans.len(),
            asked: spans.iter().any(|span| attribute(span, ASKED).is_some()),
            failed: spans.iter().any(|span| span.span.failed),
            slow: slowest.is_some_and(|most| spans.iter().any(|span| span.span.end.since(span.span.start) >= most)),
        };
        let verdict = decide(&question, &self.settings, &self.remote, &mut self.rates, now);
        let counts = if verdict.kept.is_some() { &mut self.counts.kept } else { &mut self.counts.dropped };
        counts[verdict.by.index()] += 1;
        verdict
    }

    fn settle_time(&self) -> Duration {
        Duration::from_millis(self.settings.hold.settle_ms)
    }

    fn longest(&self) -> Duration {
        Duration::from_millis(self.settings.hold.longest_ms)
    }
}

/// Whether the trace's id and flags decide alone, so that all its spans get the same answer without waiting for each
/// other.
fn is_at_once(settings: &Settings) -> bool {
    let by_id = matches!(settings.root, Strategy::AlwaysOn | Strategy::AlwaysOff | Strategy::Probability(_));
    let follows =
        settings.local_parent_sampled == Delegate::AlwaysOn && settings.local_parent_not_sampled == Delegate::AlwaysOff;
    by_id
        && follows
        && settings.rules.is_empty()
        && settings.targets.is_empty()
        && !settings.keep.errors
        && settings.keep.slower_than_ms.is_none()
}

/// Whether nothing more is known to come: no span lacks its parent but one that can have none here.
fn is_over(spans: &[ServiceSpan]) -> bool {
    let is_here = |id: SpanId| spans.iter().any(|span| span.span.id == id);
    spans.iter().all(|span| match span.span.parent {
        None => true,
        // A header may name a span of another machine.
        Some(parent) => (parent.remote && parent.method == LinkMethod::Header) || is_here(parent.id),
    })
}

/// The first span of a trace on this machine: the earliest of those whose parent is not here.
fn entry(spans: &[ServiceSpan]) -> &ServiceSpan {
    let is_here = |id: SpanId| spans.iter().any(|span| span.span.id == id);
    let is_entry = |span: &&ServiceSpan| span.span.parent.is_none_or(|parent| !is_here(parent.id));
    let earliest = |span: &&ServiceSpan| (span.span.start, span.span.id);
    // Ids that name each other in a circle leave no entry; then the earliest of all will do.
    spans
        .iter()
        .filter(is_entry)
        .min_by_key(earliest)
        .or_else(|| spans.iter().min_by_key(earliest))
        .unwrap_or(&spans[0])
}

/// What rules and limits know a trace by; of one that is decided about at once they ask nothing.
fn facts(span: &ServiceSpan, at_once: bool) -> Entry<'_> {
    if at_once {
        let empty = || Arc::clone(&span.resource.service);
        let key = Key { service: empty(), route: empty() };
        let (method, status, port, target) = (None, None, None, None);
        return Entry { key, name: "", method, status, port, failed: false, target, headers: Vec::new() };
    }
    let number = |key| match attribute(span, key) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    };
    let text = |key| attribute(span, key).and_then(Value::as_str);
    let route = text(HTTP_ROUTE).or_else(|| text(URL_PATH)).unwrap_or(&span.span.name);
    let headers = span.span.attributes.iter().filter_map(|Attribute { key, value }| {
        let name = key.strip_prefix(REQUEST_HEADER)?;
        if let Value::Texts(values) = value { Some((name, values.as_slice())) } else { None }
    });
    Entry {
        key: Key { service: Arc::clone(&span.resource.service), route: route.into() },
        name: &span.span.name,
        method: text(HTTP_REQUEST_METHOD),
        status: number(HTTP_RESPONSE_STATUS_CODE),
        port: number(SERVER_PORT),
        failed: span.span.failed,
        target: span.target.as_deref(),
        headers: headers.collect(),
    }
}

fn attribute<'a>(span: &'a ServiceSpan, key: &str) -> Option<&'a Value> {
    span.span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

/// Who asked for the request to be kept.
const ASKED: &str = "spantap.sampling.asked";

/// Before the name of a captured header.
const REQUEST_HEADER: &str = "http.request.header.";

/// Traces whose verdict is remembered: those of the last seconds at 2,000 traces a second, at some 80 bytes each.
const MOST_DECIDED: usize = 16 << 10;

/// Services that a Jaeger collector is asked about: more than a node has.
const MOST_SERVICES: usize = 1_024;

/// What a span has outside of its own place: a dozen attributes with their texts.
const SPAN_HEAP: usize = 1 << 10;

#[cfg(test)]
mod tests;
