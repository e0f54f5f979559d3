// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which request a process was serving when it made a call.
//!
//! In: what processes do, roughly in order. Out: for every call one [`Verdict`]: *that one, because*; *nobody's*; or
//! *cannot be known*. It knows neither spans nor protocols, and never guesses: where sources of evidence contradict each
//! other, no request is taken.
//!
//! ```text
//! acts ─► in kernel-time order, once nothing is to overtake them (SKEW)
//!      ─► the process's sources, best first ([`evidence`]): header · runtime · thread · content · turn and reply · assigned
//!      ─► the first exact answer decides; none, once all requests that were open are over: unknown
//! ```
//!
//! Much evidence comes only with the answer to a request, so a call waits for it, at most [`EVIDENCE_WAIT`] beyond its
//! own end.

mod act;
mod assigned;
mod births;
mod callbacks;
mod content;
mod fibers;
mod goroutines;
mod handoff;
mod header;
mod order;
mod platform;
mod relay;
mod runtime;
mod source;
mod thread;
mod trust;
mod turn;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use smallvec::SmallVec;

pub(crate) use self::act::{Act, What};
pub use self::assigned::{Confidence, Likely};
use self::{
    assigned::Assigned,
    callbacks::Callbacks,
    content::Content,
    fibers::Fibers,
    handoff::Handoffs,
    header::Header,
    order::Order,
    platform::Platform,
    relay::Relay,
    runtime::Tasks,
    source::{Claim, Claims, Source},
    thread::Thread,
    turn::Turns,
};
use super::LinkMethod;
use crate::{pairing::ExchangeId, process::Runtime, table::Table, time::Timestamp, vitals::Links};

/// The sources that can say something about a process, best first; `assigned` is the last of them, if it is wanted.
fn evidence(runtime: Runtime, assigned: bool) -> Vec<Box<dyn Source>> {
    let header = || Box::new(Header::default()) as Box<dyn Source>;
    let thread = || Box::new(Thread::default()) as Box<dyn Source>;
    let content = || Box::new(Content::default()) as Box<dyn Source>;
    let relay = || Box::new(Relay::default()) as Box<dyn Source>;
    let turns = || Box::new(Turns::of_a_loop()) as Box<dyn Source>;
    let tasks = || Tasks::of(runtime).map(|tasks| Box::new(tasks) as Box<dyn Source>);
    let mut sources: Vec<Box<dyn Source>> = match runtime {
        // Go runs goroutines on whichever thread is free: 71 of 86 calls were wrong by thread at 8 connections (2026-11).
        Runtime::Go => [header()].into_iter().chain(tasks()).chain([content(), relay()]).collect(),
        // One thread runs everything.
        Runtime::Node => vec![header(), Box::new(Callbacks::default()), content(), turns()],
        // Its tasks wait in a queue, and are taken out of it in an order of their own.
        Runtime::Haproxy => [header()].into_iter().chain(tasks()).chain([thread(), content(), turns()]).collect(),
        // Its tasks move between threads, or all are on one; but a program may use it for little.
        Runtime::Tokio => {
            [header()].into_iter().chain(tasks()).chain([thread(), content(), relay(), turns()]).collect()
        }
        // asyncio has queues of its own, and everything that is woken by one response is answered in one go.
        Runtime::Python => {
            let turns = Box::new(Turns::of_a_scheduler()) as Box<dyn Source>;
            [header()].into_iter().chain(tasks()).chain([thread(), content(), turns]).collect()
        }
        // Pools of threads, whose wakes the probes follow; and virtual threads, which the probes name.
        Runtime::Java => {
            let thread = Box::new(Platform(Thread::default())) as Box<dyn Source>;
            let handoffs = Box::new(Handoffs::default()) as Box<dyn Source>;
            let turns = Box::new(Platform(Turns::of_a_loop())) as Box<dyn Source>;
            [header()].into_iter().chain(tasks()).chain([thread, content(), handoffs, turns]).collect()
        }
        // Threads, and fibers that take turns on one.
        Runtime::Ruby => {
            vec![header(), Box::new(Fibers::default()), thread(), content(), relay(), turns()]
        }
        Runtime::Native | Runtime::Php | Runtime::Dotnet => {
            vec![header(), thread(), content(), relay(), turns()]
        }
    };
    if assigned {
        sources.push(Box::new(Assigned::default()));
    }
    sources
}

/// What the evidence says about a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was made for this request.
    Is(ExchangeId, LinkMethod),
    /// It was made for the first of these, which is certain enough; or else for one of them, or for none.
    Likely(Likely, Certainty),
    /// The process served nothing: the call begins a trace.
    Nobody,
    /// It served something, but nothing proves that the call was part of it.
    Unknown,
    /// Two sources contradict each other.
    Contradicted,
}

/// Whether the likeliest request is a call's parent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Certainty {
    /// It reaches the threshold.
    Enough,
    /// It does not.
    Little,
}

/// What becomes of exchanges.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// A call's verdict.
    Decided(ExchangeId, Verdict),
    /// No call that is to come, or to be decided, can belong to this request.
    Released(ExchangeId),
}

/// What is known of the processes of this host.
#[derive(Debug)]
pub struct Parenting {
    /// Acts that others may still overtake. Law: waiting.len() <= MOST_WAITING.
    waiting: Order,
    /// Until when everything was judged.
    judged: Timestamp,
    runtimes: Table<u32, Runtime>,
    /// A process that does nothing at the moment keeps its entry: it will again, and what was learned about it is dear.
    /// Law: at most [`MOST_IDLE`] are idle.
    processes: Table<u32, Process>,
    /// Calls that are over, by when they have waited long enough: oldest first.
    deadlines: VecDeque<(Timestamp, u32, ExchangeId)>,
    /// Emptied after every act.
    claims: Claims,
    outcomes: VecDeque<Outcome>,
}

#[derive(Debug)]
struct Process {
    sources: Vec<Box<dyn Source>>,
    /// Requests opened so far.
    requests: u64,
    /// Open requests, by how many came before.
    open: BTreeMap<u64, Held>,
    ordinals: Table<ExchangeId, u64>,
    undecided: Table<ExchangeId, Call>,
    /// Undecided calls, oldest first, and some that are decided by now.
    calls: VecDeque<ExchangeId>,
    /// Requests that are over and may still get a call, oldest first. Law: over.len() <= MOST_OVER.
    over: VecDeque<(Timestamp, ExchangeId)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    request: ExchangeId,
    /// Another request was open at some time since this one came.
    crowded: bool,
    answering: bool,
}

#[derive(Debug)]
struct Call {
    at: Timestamp,
    /// Requests that the process had received before.
    requests: u64,
    /// Requests that it was said not to belong to.
    not: SmallVec<[ExchangeId; 1]>,
    /// All requests it could belong to are over, and a source still holds it.
    held: bool,
    /// What it may belong to, unless something better is heard.
    likely: Option<Likely>,
}

impl Parenting {
    /// Parenting that takes a likely request for a call's parent from this confidence on; without one it looks for none.
    pub fn new(likely: Option<Confidence>) -> Self {
        let mut claims = Claims::default();
        claims.threshold = likely;
        Self {
            waiting: Order::default(),
            judged: Timestamp::default(),
            runtimes: Table::default(),
            processes: Table::default(),
            deadlines: VecDeque::new(),
            claims,
            outcomes: VecDeque::new(),
        }
    }

    /// [`new`](Self::new) with another confidence, of processes that are met from now on.
    pub fn trust(&mut self, likely: Option<Confidence>) {
        self.claims.threshold = likely;
    }

    /// Whether anything follows from what calls ask for.
    pub fn looks_for_likely(&self) -> bool {
        self.claims.threshold.is_some()
    }

    /// `pid` runs on `runtime`.
    pub fn learned(&mut self, pid: u32, runtime: Runtime) {
        if runtime == Runtime::Native {
            self.runtimes.remove(&pid);
        } else {
            self.runtimes.insert(pid, runtime);
        }
        let assigned = self.looks_for_likely();
        if let Some(process) = self.processes.get_mut(&pid) {
            // Another program in the same process: nothing that was learned about the first holds.
            process.sources = evidence(runtime, assigned);
        }
    }

    /// Takes an act in; acts may come in any order within [`SKEW`].
    pub(crate) fn take(&mut self, act: Act, links: &mut Links) {
        links.late += u64::from(act.at < self.judged);
        self.waiting.push(act);
        if self.waiting.len() > MOST_WAITING
            && let Some(first) = self.waiting.pop()
        {
            links.hurried += 1;
            self.step(&first, links);
        }
    }

    /// Looks at everything that happened until a while before `seen`, until when everything has come but what was held up.
    pub fn settle(&mut self, seen: Timestamp, links: &mut Links) {
        let horizon = Timestamp(seen.0.saturating_sub(SKEW.as_nanos() as u64));
        self.judged = self.judged.max(horizon);
        while let Some(next) = self.waiting.pop_until(horizon) {
            self.step(&next, links);
        }
        self.expire(horizon, links);
    }

    /// Nothing more will come: decides everything.
    pub fn finish(&mut self, links: &mut Links) {
        while let Some(next) = self.waiting.pop() {
            self.step(&next, links);
        }
        self.expire(Timestamp(u64::MAX), links);
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        for pid in pids {
            self.exited(pid, links);
        }
    }

    /// What has become of exchanges, in order.
    pub fn outcome(&mut self) -> Option<Outcome> {
        self.outcomes.pop_front()
    }

    // --- Acts ---

    /// Looks at the next act.
    fn step(&mut self, act: &Act, links: &mut Links) {
        let pid = act.pid;
        match act.what {
            What::Received { request, .. } => {
                self.process(pid).received(request);
                self.show(act, links);
            }
            What::Called { call, .. } => {
                // Whoever has served nothing so far calls for nobody, and evidence has to do without what was before the agent
                // anyway. A mere client costs nothing more.
                let Some(process) = self.processes.get_mut(&pid) else {
                    return self.outcomes.push_back(Outcome::Decided(call, Verdict::Nobody));
                };
                process.called(call, act.at);
                let nobody = process.open.is_empty();
                self.show(act, links);
                if nobody {
                    self.decide(pid, call, act.at, Verdict::Nobody, links);
                }
            }
            What::Answering { request, by, .. } => self.answering(pid, request, act.at, by, links),
            What::Over { request, answered, .. } => {
                if let Some(first) = answered {
                    self.answering(pid, request, first.at, first.task, links);
                }
                self.over(act, request, links);
            }
            What::Ended { call, .. } => {
                self.show(act, links);
                if self.processes.get(&pid).is_some_and(|process| process.undecided.contains_key(&call)) {
                    self.deadlines.push_back((act.at.plus(EVIDENCE_WAIT), pid, call));
                }
            }
            What::Read { .. } | What::Began { .. } | What::Left { .. } => self.show(act, links),
            What::Exited => {
                self.exited(pid, links);
                self.runtimes.remove(&pid);
            }
            // Said by this file, to the sources.
            What::Decided { .. } => {}
        }
    }

    fn process(&mut self, pid: u32) -> &mut Process {
        if self.processes.len() >= MOST_IDLE && !self.processes.contains_key(&pid) {
            self.processes.retain(|_, process| !process.is_idle());
        }
        let runtime = self.runtimes.get(&pid).copied().unwrap_or_default();
        let assigned = self.looks_for_likely();
        self.processes.entry(pid).or_insert_with(|| Process::new(evidence(runtime, assigned)))
    }

    fn answering(&mut self, pid: u32, request: ExchangeId, at: Timestamp, by: crate::time::Task, links: &mut Links) {
        let Some(held) = self.processes.get_mut(&pid).and_then(|process| process.held(request)) else { return };
        if held.answering {
            return;
        }
        held.answering = true;
        let what = What::Answering { request, by, crowded: held.crowded };
        self.show(&Act { at, pid, what }, links);
    }

    /// Ownership ends with the response.
    fn over(&mut self, act: &Act, request: ExchangeId, links: &mut Links) {
        let pid = act.pid;
        let Some(held) = self.processes.get_mut(&pid).and_then(|process| process.held(request)).copied() else {
            // Of a process that has ended, or a request that came later than its end.
            self.outcomes.push_back(Outcome::Released(request));
            return;
        };
        let what = What::Over { request, answered: None, crowded: held.crowded };
        self.show(&Act { at: act.at, pid, what }, links);
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if let Some(ordinal) = process.ordinals.remove(&request) {
            process.open.remove(&ordinal);
        }
        process.over.push_back((act.at, request));
        let oldest = process.open.first_key_value().map_or(process.requests, |(ordinal, _)| *ordinal);
        // Calls all of whose requests are over: only what a source holds can still be decided.
        let mut without = SmallVec::<[ExchangeId; 8]>::new();
        for id in &process.calls {
            let Some(call) = process.undecided.get_mut(id) else { continue };
            if call.requests > oldest {
                break;
            }
            if call.held {
                continue;
            }
            if process.sources.iter().any(|source| source.holds(*id)) {
                call.held = true;
                self.deadlines.push_back((act.at.plus(EVIDENCE_WAIT), pid, *id));
            } else {
                without.push(*id);
            }
        }
        for call in without {
            self.decide(pid, call, act.at, Verdict::Unknown, links);
        }
        self.release(pid);
    }

    /// Lets the sources of the process see an act, and decides what they know by it.
    fn show(&mut self, act: &Act, links: &mut Links) {
        let Some(process) = self.processes.get_mut(&act.pid) else { return };
        for source in &mut process.sources {
            source.saw(act, &mut self.claims);
        }
        links.distrusted += std::mem::take(&mut self.claims.falls);
        links.unassigned += std::mem::take(&mut self.claims.skipped);
        links.unfollowed += std::mem::take(&mut self.claims.unfollowed);
        while let Some((call, claims)) = self.claims.next() {
            let Some(process) = self.processes.get_mut(&act.pid) else { return };
            let Some(known) = process.undecided.get_mut(&call) else { continue };
            let verdict = match known.judge(&claims) {
                // Whoever still waits for better evidence may find it.
                None if known.likely.is_some() => {
                    let sources = process.sources.iter().rev().skip(1);
                    (!sources.into_iter().any(|source| source.holds(call))).then_some(Verdict::Unknown)
                }
                verdict => verdict,
            };
            if let Some(verdict) = verdict {
                self.decide(act.pid, call, act.at, verdict, links);
            }
        }
    }

    // --- Decisions ---

    fn decide(&mut self, pid: u32, call: ExchangeId, at: Timestamp, verdict: Verdict, links: &mut Links) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let Some(known) = process.undecided.remove(&call) else { return };
        let verdict = match (verdict, known.likely) {
            (Verdict::Unknown, Some(likely)) => known.weigh(likely, self.claims.threshold),
            (verdict, _) => verdict,
        };
        let request = match verdict {
            Verdict::Is(request, _) | Verdict::Likely([Some((request, _)), ..], Certainty::Enough) => Some(request),
            Verdict::Likely(..) | Verdict::Nobody | Verdict::Unknown | Verdict::Contradicted => None,
        };
        self.outcomes.push_back(Outcome::Decided(call, verdict));
        let act = Act { at, pid, what: What::Decided { call, request } };
        for source in &mut process.sources {
            source.saw(&act, &mut self.claims);
        }
        links.distrusted += std::mem::take(&mut self.claims.falls);
        self.release(pid);
    }

    /// Lets go of requests that are over and that no undecided call can belong to.
    fn release(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        while process.calls.front().is_some_and(|call| !process.undecided.contains_key(call)) {
            process.calls.pop_front();
        }
        let oldest = process.calls.front().and_then(|call| process.undecided.get(call)).map(|call| call.at);
        while let Some((at, request)) = process.over.front().copied() {
            if oldest.is_some_and(|oldest| oldest <= at) && process.over.len() <= MOST_OVER {
                break;
            }
            process.over.pop_front();
            self.outcomes.push_back(Outcome::Released(request));
        }
    }

    /// Decides calls that have waited long enough.
    fn expire(&mut self, now: Timestamp, links: &mut Links) {
        while let Some((at, pid, call)) = self.deadlines.front().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop_front();
            let Some(process) = self.processes.get(&pid) else { continue };
            if !process.undecided.contains_key(&call) {
                continue;
            }
            links.overdue += 1;
            let word = process.sources.iter().find_map(|source| source.overdue(call));
            let verdict = word.map_or(Verdict::Unknown, |(request, method)| Verdict::Is(request, method));
            self.decide(pid, call, at, verdict, links);
        }
    }

    fn exited(&mut self, pid: u32, links: &mut Links) {
        let Some(process) = self.processes.get(&pid) else { return };
        let calls: Vec<ExchangeId> = process.calls.iter().copied().collect();
        for call in calls {
            self.decide(pid, call, Timestamp(u64::MAX), Verdict::Unknown, links);
        }
        let Some(process) = self.processes.remove(&pid) else { return };
        let open = process.open.values().map(|held| held.request);
        let released = process.over.iter().map(|(_, request)| *request).chain(open);
        self.outcomes.extend(released.map(Outcome::Released));
    }
}

impl Process {
    fn new(sources: Vec<Box<dyn Source>>) -> Self {
        Self {
            sources,
            requests: 0,
            open: BTreeMap::new(),
            ordinals: Table::default(),
            undecided: Table::default(),
            calls: VecDeque::new(),
            over: VecDeque::new(),
        }
    }

    fn is_idle(&self) -> bool {
        self.open.is_empty() && self.undecided.is_empty() && self.over.is_empty()
    }

    fn received(&mut self, request: ExchangeId) {
        if self.open.len() == 1
            && let Some(mut first) = self.open.first_entry()
        {
            first.get_mut().crowded = true;
        }
        let crowded = !self.open.is_empty();
        self.open.insert(self.requests, Held { request, crowded, answering: false });
        self.ordinals.insert(request, self.requests);
        self.requests += 1;
    }

    fn called(&mut self, call: ExchangeId, at: Timestamp) {
        self.undecided
            .insert(call, Call { at, requests: self.requests, not: SmallVec::new(), held: false, likely: None });
        self.calls.push_back(call);
    }

    fn held(&mut self, request: ExchangeId) -> Option<&mut Held> {
        self.open.get_mut(self.ordinals.get(&request)?)
    }
}

impl Call {
    /// What follows from `claims`, which come best first.
    fn judge(&mut self, claims: &[Claim]) -> Option<Verdict> {
        let mut word = None;
        for claim in claims {
            match (*claim, word) {
                (Claim::Not(request), _) => self.not.push(request),
                (Claim::Likely(likely), _) => self.likely = Some(likely),
                (Claim::Is(request, method), None) => word = Some((request, method)),
                (Claim::Is(other, _), Some((request, _))) if other != request => return Some(Verdict::Contradicted),
                (Claim::Is(..), Some(_)) => {}
            }
        }
        let (request, method) = word?;
        if self.not.contains(&request) {
            return Some(Verdict::Contradicted);
        }
        Some(Verdict::Is(request, method))
    }

    /// What follows from what is likely, when nothing better is to come.
    fn weigh(&self, likely: Likely, threshold: Option<Confidence>) -> Verdict {
        let possible = |(request, _): &(ExchangeId, Confidence)| !self.not.contains(request);
        match likely[0] {
            Some((first, _)) if self.not.contains(&first) => Verdict::Contradicted,
            Some((_, confidence)) => {
                let certainty = if threshold.is_some_and(|least| confidence >= least) {
                    Certainty::Enough
                } else {
                    Certainty::Little
                };
                Verdict::Likely(likely.map(|named| named.filter(possible)), certainty)
            }
            None => Verdict::Unknown,
        }
    }
}

/// How long acts are kept so that an earlier one can overtake. Records stand in the ring in the order in which room was taken
/// for them, a moment after each was dated; between the two an interrupt or the host of a virtual machine may hold a probe up.
/// Longer costs: what waits leaves the processor's caches (2026-11: with 120 ms an exchange took the agent a third more).
const SKEW: Duration = Duration::from_millis(10);

/// How long a call waits, after its end, for the evidence that comes with the answer to its request.
const EVIDENCE_WAIT: Duration = Duration::from_secs(5);

/// Acts that wait to be overtaken: 10,000 exchanges a second have some ten thousand in the longest
/// that one connection holds up the others, [`crate::stream::assembler::PATIENCE`]. At 128 bytes 16 MiB.
const MOST_WAITING: usize = 128 << 10;

/// Processes that are remembered while they do nothing: only a machine on which exits were lost comes near to it.
const MOST_IDLE: usize = 4 << 10;

/// Requests of one process that are kept for a call beyond their end: those of a second at 4,000 a second. Calls that
/// would have belonged to older ones become unknown.
const MOST_OVER: usize = 4 << 10;

#[cfg(test)]
mod tests;
