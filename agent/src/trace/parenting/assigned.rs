// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `assigned`: where several requests were open and nothing else can tell, which one a call fits best.
//!
//! In: acts of one process, and what better evidence has decided about them. Out: for a call the requests it may belong
//! to, each with the share of cases in which such a word was right. It refuses to be sure of itself: how often it is
//! right is measured on this process's own work, one while laid over another ([`practice`]); until enough of it was seen,
//! it says which request is likeliest, with no confidence at all.
//!
//! ```text
//! acts ─► requests and calls of a while; over when no request is open, or enough calls wait ([`Assigned::close`])
//!      ─► a walk through the assignments of all its calls at once ([`solve`]), by how this process works ([`model`])
//!      ─► shares and doubts ─► confidence ([`practice`]) ─► claims
//!      ─► what the walks found is learned
//! ```
//!
//! A process whose calls are all found by better evidence never wakes this: it listens only after the first call that
//! nothing could decide.

mod model;
mod practice;
mod scene;
mod solve;
mod threads;

use std::{collections::VecDeque, time::Duration};

use self::{
    model::Model,
    practice::Practice,
    scene::{Call, Calls, Candidates, Point, Request},
    solve::Scene,
};
use super::{
    act::{Act, What},
    source::{Claims, Source},
};
use crate::{
    pairing::ExchangeId,
    table::Table,
    time::{Task, Timestamp},
};

/// How sure a word is: the share of such words that were right.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Confidence(u16);

impl Confidence {
    /// `share` of one, to four digits; rounded down, for more is never claimed than was measured.
    pub fn new(share: f64) -> Self {
        Self((share.clamp(0.0, 1.0) * f64::from(Self::WHOLE)) as u16)
    }

    /// As a share of one.
    pub fn share(self) -> f64 {
        f64::from(self.0) / f64::from(Self::WHOLE)
    }

    const WHOLE: u16 = 10_000;
}

/// The requests that a call may belong to, likeliest first.
pub type Likely = [Option<(ExchangeId, Confidence)>; MOST_NAMED];

/// What one process has open, and what is known of its ways.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    /// A call was left undecided: from then on everything is looked at.
    awake: bool,
    /// Requests under way.
    open: u32,
    /// Those among them that were open when it woke. While there are any, calls may be theirs.
    older: u32,
    woke: Timestamp,
    /// A call that was made while none was: nobody's.
    nobodys: Option<ExchangeId>,
    kinds: Numbers,
    classes: Numbers,
    requests: VecDeque<Asked>,
    calls: VecDeque<Made>,
    /// Where they stand in the two rows, counted from the first that ever did.
    places: Table<ExchangeId, usize>,
    gone_requests: usize,
    gone_calls: usize,
    /// When each thread last did anything. Law: threads.len() <= MOST_THREADS.
    threads: Table<u32, u64>,
    model: Model,
    practice: Practice,
    background: Background,
    looked: Timestamp,
    /// Calls that may still be assigned in this while.
    budget: Budget,
    walks: u64,
}

#[derive(Debug)]
struct Asked {
    id: ExchangeId,
    request: Request,
    /// Some of its calls were not looked at.
    torn: bool,
}

#[derive(Debug)]
struct Made {
    id: ExchangeId,
    call: Call,
    /// Nothing more is to be said about it.
    decided: bool,
    /// What better evidence says.
    known: Option<ExchangeId>,
    /// What was said here.
    said: Option<ExchangeId>,
}

impl Source for Assigned {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        if !self.awake {
            self.listen(act);
            return;
        }
        match act.what {
            What::Received { request, by, operation, .. } => {
                self.background.open(act.at, self.open);
                self.open += 1;
                let came = self.point(act.at, by);
                let class = self.classes.of(operation);
                let read = Request { class, came, answered: None, over: u64::MAX };
                let asked = Asked { id: request, request: read, torn: self.older > 0 };
                self.places.insert(request, self.gone_requests + self.requests.len());
                self.requests.push_back(asked);
                if self.requests.len() >= MOST_REQUESTS {
                    self.close(act.at, claims);
                    self.clear();
                }
            }
            What::Called { call, by, operation, .. } => {
                let made = self.point(act.at, by);
                let kind = self.kinds.of(operation);
                if self.open == 0 {
                    self.background.called();
                }
                if self.open == 0 || self.older > 0 {
                    return;
                }
                self.places.insert(call, self.gone_calls + self.calls.len());
                let call_made = Call { kind, made, heard: None };
                self.calls.push_back(Made { id: call, call: call_made, decided: false, known: None, said: None });
                if self.calls.len() >= MOST_CALLS {
                    self.close(act.at, claims);
                    self.clear();
                }
            }
            What::Answering { request, by, .. } => {
                let point = self.point(act.at, by);
                if let Some(asked) = self.asked(request) {
                    asked.request.answered.get_or_insert(point);
                }
            }
            What::Ended { call, by } => {
                let heard = by.map(|by| self.point(act.at, by));
                if let Some(made) = self.made(call) {
                    made.call.heard = heard;
                }
            }
            What::Read { by, .. } => {
                self.point(act.at, by);
            }
            What::Over { request, .. } => {
                self.open = self.open.saturating_sub(1);
                self.background.over(act.at, self.open);
                match self.asked(request) {
                    Some(asked) => asked.request.over = act.at.0,
                    None => self.older = self.older.saturating_sub(1),
                }
                if act.at.since(self.woke) > OLDEST {
                    self.older = 0;
                }
                if self.open == 0 {
                    self.close(act.at, claims);
                    self.clear();
                } else if act.at.since(self.looked) >= EVERY {
                    self.looked = act.at;
                    if self.calls.len() >= ENOUGH_CALLS || self.is_old(act.at) {
                        self.close(act.at, claims);
                        self.drop_what_is_done();
                    }
                }
            }
            What::Decided { call, request } => {
                if let Some(made) = self.made(call) {
                    made.decided = true;
                    made.known = request.filter(|request| made.said != Some(*request));
                }
            }
            What::Began { .. } | What::Left { .. } | What::Exited => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.awake && self.places.contains_key(&call)
    }
}

impl Assigned {
    /// Asleep: only whether anything is left undecided.
    fn listen(&mut self, act: &Act) {
        match act.what {
            What::Received { .. } => self.open += 1,
            What::Over { .. } => self.open = self.open.saturating_sub(1),
            What::Called { call, .. } if self.open == 0 => self.nobodys = Some(call),
            What::Decided { call, request: None } if self.nobodys != Some(call) => {
                self.awake = true;
                // They are not in the rows: what is theirs would go to others.
                self.older = self.open;
                self.woke = act.at;
            }
            _ => {}
        }
    }

    fn point(&mut self, at: Timestamp, by: Task) -> Point {
        if self.threads.len() >= MOST_THREADS && !self.threads.contains_key(&by.tid) {
            self.threads.clear();
        }
        let before = self.threads.insert(by.tid, at.0).unwrap_or_default();
        Point { at: at.0, tid: by.tid, before, after: u64::MAX }
    }

    fn asked(&mut self, request: ExchangeId) -> Option<&mut Asked> {
        let place = self.places.get(&request)?.checked_sub(self.gone_requests)?;
        self.requests.get_mut(place).filter(|asked| asked.id == request)
    }

    fn made(&mut self, call: ExchangeId) -> Option<&mut Made> {
        let place = self.places.get(&call)?.checked_sub(self.gone_calls)?;
        self.calls.get_mut(place).filter(|made| made.id == call)
    }

    /// Whether what lies in the rows has waited long enough.
    fn is_old(&self, now: Timestamp) -> bool {
        self.requests
            .front()
            .is_some_and(|first| now.0.saturating_sub(first.request.came.at) >= LONGEST.as_nanos() as u64)
    }

    // --- Assigning ---

    /// Says what can be said about the calls all of whose requests are over.
    fn close(&mut self, now: Timestamp, claims: &mut Claims) {
        if self.calls.is_empty() {
            return;
        }
        self.budget.refill(now);
        let mut requests: Vec<Request> = self.requests.iter().map(|asked| asked.request.clone()).collect();
        let mut calls: Vec<Call> = self.calls.iter().map(|made| made.call.clone()).collect();
        scene::weave(&mut requests, &mut calls);
        let background = self.background.likelihood();
        let mut nobody = vec![background; calls.len()];
        let candidates: Vec<Candidates> = self
            .calls
            .iter()
            .zip(&mut nobody)
            .map(|(made, nobody)| match made.known.or(made.said).and_then(|request| self.place_of(request)) {
                Some(request) => {
                    *nobody = NEVER;
                    Candidates::from_elem(request, 1)
                }
                None => scene::candidates(&requests, &made.call),
            })
            .collect();
        let scene = Scene { requests: &requests, calls: &calls, candidates: &candidates, nobody: &nobody };
        let undecided = self.calls.iter().filter(|made| !made.decided).count();
        if !self.budget.take(undecided) {
            claims.skipped += undecided as u64;
            return;
        }
        self.walks += 1;
        let seed = self.walks;
        let solution = solve::solve(&scene, &self.model, seed);
        if undecided > 0 {
            self.practice.cross(&requests, &calls, background, &self.model, seed);
            self.hide(&requests, &calls, &candidates, seed);
        }
        for (index, shares) in solution.shares.iter().enumerate() {
            let made = &self.calls[index];
            let ripe = candidates[index].iter().all(|request| requests[usize::from(*request)].over <= now.0);
            if made.decided || !ripe {
                continue;
            }
            let call = made.id;
            let mut likely: Likely = [None; MOST_NAMED];
            let doubts = shares.iter().map(|(_, share)| 1.0 - f64::from(*share));
            let doubts = std::iter::once(solution.doubts[index]).chain(doubts.skip(1));
            for ((place, (request, _)), doubt) in likely.iter_mut().zip(shares).zip(doubts) {
                let confidence = self.practice.confidence(doubt);
                *place = Some((self.requests[usize::from(*request)].id, confidence));
            }
            let Some((first, _)) = likely[0] else { continue };
            if claims.likely(call, likely) {
                self.calls[index].said = Some(first);
            }
        }
        self.learn(&requests, &calls, &candidates, &solution);
    }

    /// Whether better evidence says what would have been said without it.
    fn hide(&mut self, requests: &[Request], calls: &[Call], candidates: &[Candidates], seed: u64) {
        let owners: Vec<Option<u16>> =
            self.calls.iter().map(|made| made.known.and_then(|request| self.place_of(request))).collect();
        let candidates: Vec<Candidates> = (owners.iter().zip(calls).zip(candidates))
            .map(|((owner, call), of)| owner.map_or_else(|| of.clone(), |_| scene::candidates(requests, call)))
            .collect();
        if owners.iter().zip(&candidates).any(|(owner, of)| owner.is_some() && of.len() > 1) {
            let nobody = vec![self.background.likelihood(); calls.len()];
            let scene = Scene { requests, calls, candidates: &candidates, nobody: &nobody };
            self.practice.hide(&scene, &owners, &self.model, seed);
        }
    }

    fn place_of(&self, request: ExchangeId) -> Option<u16> {
        let place = self.places.get(&request)?.checked_sub(self.gone_requests)?;
        u16::try_from(place).ok().filter(|_| place < self.requests.len())
    }

    /// Learns from every assignment that a walk ended with: in what they disagree, each counts a part.
    fn learn(&mut self, requests: &[Request], calls: &[Call], candidates: &[Candidates], found: &solve::Solution) {
        for sample in &found.samples {
            self.learn_one(requests, calls, candidates, (found, sample));
        }
    }

    fn learn_one(
        &mut self,
        requests: &[Request],
        calls: &[Call],
        candidates: &[Candidates],
        (found, sample): (&solve::Solution, &[Calls]),
    ) {
        let part = 1.0 / found.samples.len() as f32;
        for (index, of) in sample.iter().enumerate() {
            let request = &requests[index];
            if request.over == u64::MAX || self.requests[index].torn {
                continue;
            }
            let index = index as u16;
            // Known as a whole: every call of it by better evidence, or because nothing else was open, and no other call
            // that might be its.
            let is_known = |call: &u16| {
                let made = &self.calls[usize::from(*call)];
                made.known.is_some() || candidates[usize::from(*call)].len() == 1
            };
            let exact = of.iter().all(is_known)
                && found.shares.iter().zip(candidates).enumerate().all(|(call, (shares, candidates))| {
                    of.contains(&(call as u16))
                        || !candidates.contains(&index)
                        || shares.iter().all(|(other, share)| *other != index || *share < A_TRACE)
                });
            self.model.learn(request, of, calls, part * if exact { 1.0 } else { GUESSED });
            for call in of {
                for other in candidates[usize::from(*call)].iter().filter(|other| **other != index) {
                    let made = calls[usize::from(*call)].made;
                    let other = usize::from(*other);
                    let last = scene::last_before(&requests[other], &sample[other], calls, made.at);
                    self.model.learn_other(last, made, part);
                }
            }
        }
    }

    // --- Letting go ---

    fn clear(&mut self) {
        self.gone_requests += self.requests.len();
        self.gone_calls += self.calls.len();
        self.requests.clear();
        self.calls.clear();
        self.places.clear();
    }

    /// Requests that no call waits for, and calls of such.
    fn drop_what_is_done(&mut self) {
        let wanted = self.calls.iter().filter(|made| !made.decided).map(|made| made.call.made.at).min();
        let oldest_open = self
            .requests
            .iter()
            .filter(|asked| asked.request.over == u64::MAX)
            .map(|asked| asked.request.came.at)
            .min();
        let since = wanted.into_iter().chain(oldest_open).min().unwrap_or(u64::MAX);
        while let Some(first) = self.requests.front().filter(|first| first.request.over < since) {
            self.places.remove(&first.id);
            self.requests.pop_front();
            self.gone_requests += 1;
        }
        let since = self.requests.front().map_or(u64::MAX, |first| first.request.came.at);
        while let Some(first) = self.calls.front().filter(|first| first.decided && first.call.made.at < since) {
            self.places.remove(&first.id);
            self.calls.pop_front();
            self.gone_calls += 1;
        }
    }
}

/// Small numbers for names.
#[derive(Debug, Default)]
struct Numbers(Table<u64, u8>);

impl Numbers {
    /// Names beyond the first 255 share a number.
    fn of(&mut self, name: u64) -> u8 {
        let next = u8::try_from(self.0.len()).unwrap_or(u8::MAX);
        if next == u8::MAX {
            return self.0.get(&name).copied().unwrap_or(u8::MAX);
        }
        *self.0.entry(name).or_insert(next)
    }
}

/// How often the process calls when it serves nothing.
#[derive(Debug, Default)]
struct Background {
    calls: f64,
    idle_ns: f64,
    since: Option<Timestamp>,
}

impl Background {
    fn open(&mut self, at: Timestamp, open: u32) {
        if open == 0
            && let Some(since) = self.since.take()
        {
            self.idle_ns += at.since(since).as_nanos() as f64;
        }
    }

    fn over(&mut self, at: Timestamp, open: u32) {
        if open == 0 {
            self.since = Some(at);
        }
    }

    fn called(&mut self) {
        self.calls += 1.0;
    }

    /// The logarithm of the chance of such a call in a nanosecond. At first one in some minutes.
    fn likelihood(&self) -> f64 {
        ((self.calls + 0.1) / (self.idle_ns + 60e9)).ln()
    }
}

/// Calls that may be assigned: at 0.1 ms with three candidates each, and 0.25 ms with eleven, these are 5 to 13 % of a processor,
/// and twice that while practice is not rare yet (2026-11).
#[derive(Debug)]
struct Budget {
    left: f64,
    at: Timestamp,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MOST_CALLS as f64, at: Timestamp::default() }
    }
}

impl Budget {
    fn refill(&mut self, now: Timestamp) {
        let more = now.since(self.at).as_secs_f64() * CALLS_A_SECOND;
        self.left = (self.left + more).min(MOST_CALLS as f64);
        self.at = now;
    }

    fn take(&mut self, calls: usize) -> bool {
        let enough = self.left >= calls as f64;
        if enough {
            self.left -= calls as f64;
        }
        enough
    }
}

/// Requests that a call is told to be likely of.
const MOST_NAMED: usize = 3;

/// Requests in the rows: those of a second at 1,000 a second. At some 100 bytes 100 KiB.
const MOST_REQUESTS: usize = 1 << 10;

/// Calls in the rows: two for each of those requests.
const MOST_CALLS: usize = 2 << 10;

/// Threads that are told apart: more than run at one time on most machines.
const MOST_THREADS: usize = 1 << 10;

/// Calls that are worth a walk while requests are open.
const ENOUGH_CALLS: usize = 128;

/// How long a call waits for company.
const LONGEST: Duration = Duration::from_millis(500);

/// How often to look whether that is so.
const EVERY: Duration = Duration::from_millis(50);

/// How long a request that was open at the waking can keep this from looking: longer ones wait for events, and call
/// nobody.
const OLDEST: Duration = Duration::from_secs(5);

/// See [`Budget`].
const CALLS_A_SECOND: f64 = 500.0;

/// The logarithm of no chance at all.
const NEVER: f64 = -1e9;

/// A share that may be chance.
const A_TRACE: f32 = 0.02;

/// What a request counts whose calls were assigned, beside one whose calls are known.
const GUESSED: f32 = 0.5;
