// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `turn` and `reply`: what a thread does between two reads belongs to what it read first.
//!
//! In: who reads, calls, connects and answers. Out: for a call, the request in whose turn it was made (`turn`), if the
//! answer to that request was written in the turn of the call's response (`reply`); or `reply` alone. Both are exact for
//! an event loop without timers and queues, and neither can see those: so each process is believed only while every
//! answer proves it, and only by proofs that could have failed, which takes two open requests. It refuses to say anything
//! about calls of which only one way is known, but for those that were made in one breath with a proven one.
//!
//! ```text
//! reads R ── turn of R ── connects, or writes c ─┐ forward: c is R's
//! reads c's response ── turn of c ── writes d ───┤          d is c's owner's
//! reads d's response ── turn of d ── answers R ──┘ backward: d, and so c, is R's
//! ```

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::{
    act::{Act, What},
    source::{Claims, Source},
    trust::Trust,
};
use crate::{
    pairing::ExchangeId,
    table::Table,
    time::{Task, Timestamp},
    trace::LinkMethod,
};

/// The turns of one process.
#[derive(Debug)]
pub(super) struct Turns {
    /// By thread id. Law: threads.len() <= MOST_THREADS.
    threads: Table<u32, VecDeque<Turn>>,
    /// Turns begun so far.
    begun: u64,
    requests: Table<ExchangeId, Request>,
    calls: Table<ExchangeId, Call>,
    /// That both ways agree.
    agreement: Trust,
    /// That each response is followed by one answer, or another call, in its turn.
    reply: Trust,
    /// That a request makes as many calls beside its last one as the request before did.
    siblings: Trust,
    /// How many those were.
    beside: Option<usize>,
    /// Whether proofs are of use: for runtimes known to work otherwise only a request without rivals is believed.
    provable: bool,
}

/// What a thread has done since it read something.
#[derive(Clone, Copy, Debug)]
struct Turn {
    since: Timestamp,
    /// Which of the process's turns.
    number: u64,
    /// What it read. None: it cannot be said.
    read: Option<ExchangeId>,
    /// Answers that it began to write since.
    answers: u32,
}

#[derive(Debug, Default)]
struct Request {
    calls: SmallVec<[ExchangeId; 4]>,
}

#[derive(Debug)]
struct Call {
    /// The turn in which it was made.
    turn: u64,
    /// The call whose response was read at the beginning of that turn.
    after: Option<ExchangeId>,
    /// The request in whose turn it was made, directly or through `after`.
    forward: Option<ExchangeId>,
    /// The response is complete.
    ended: bool,
    /// Something was written in the turn of its response.
    used: bool,
    decided: bool,
}

impl Turns {
    /// Turns of a process that may be an event loop.
    pub(super) fn of_a_loop() -> Self {
        Self {
            threads: Table::default(),
            begun: 0,
            requests: Table::default(),
            calls: Table::default(),
            agreement: Trust::after(PROOFS, LinkMethod::Turn),
            reply: Trust::after(LONE_PROOFS, LinkMethod::Reply),
            siblings: Trust::after(PROOFS, LinkMethod::Turn),
            beside: None,
            provable: true,
        }
    }

    /// Turns of a process that keeps queues and timers of its own.
    pub(super) fn of_a_scheduler() -> Self {
        Self { provable: false, ..Self::of_a_loop() }
    }
}

impl Source for Turns {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, by, .. } => {
                self.requests.insert(request, Request::default());
                self.reads(Some(request), by, act.at, claims);
            }
            What::Read { exchange, by } => self.reads(exchange, by, act.at, claims),
            What::Called { call, by, connected, .. } => match connected {
                Some(moment) => self.called(call, moment.task, moment.at),
                None => self.called(call, by, act.at),
            },
            What::Answering { request, by, crowded } => self.answering(request, by, act.at, crowded, claims),
            What::Over { request, .. } => {
                for call in self.requests.remove(&request).unwrap_or_default().calls {
                    if self.calls.get(&call).is_some_and(|call| call.decided) {
                        self.calls.remove(&call);
                    }
                }
            }
            What::Ended { call, by } => self.ended(call, by, act.at, claims),
            What::Decided { call, request } => self.decided(call, request, claims),
            What::Began { .. } | What::Left { .. } | What::Exited => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.agreement.holds(call) || self.siblings.holds(call) || self.reply.holds(call)
    }
}

impl Turns {
    fn reads(&mut self, exchange: Option<ExchangeId>, by: Task, at: Timestamp, claims: &mut Claims) {
        let known = exchange.filter(|id| self.requests.contains_key(id) || self.calls.contains_key(id));
        if !self.threads.contains_key(&by.tid) && self.threads.len() >= MOST_THREADS {
            self.threads.clear();
        }
        let turns = self.threads.entry(by.tid).or_default();
        if let Some(last) = turns.back().copied() {
            if exchange.is_some() && last.read == exchange {
                return;
            }
            self.over(last, claims);
        }
        self.begun += 1;
        let turn = Turn { since: at, number: self.begun, read: known, answers: 0 };
        let turns = self.threads.entry(by.tid).or_default();
        if turns.len() >= MOST_TURNS {
            turns.pop_front();
        }
        turns.push_back(turn);
    }

    fn ended(&mut self, id: ExchangeId, by: Option<Task>, at: Timestamp, claims: &mut Claims) {
        if let Some(by) = by {
            self.reads(Some(id), by, at, claims);
        }
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.ended = true;
        if call.decided && call.forward.is_none_or(|request| !self.requests.contains_key(&request)) {
            self.calls.remove(&id);
        }
    }

    /// A turn is over. A response that was good for nothing was kept for a timer, or in a queue.
    fn over(&mut self, turn: Turn, claims: &mut Claims) {
        if turn.read.and_then(|read| self.calls.get(&read)).is_some_and(|call| call.ended && !call.used) {
            self.reply.failed(claims);
        }
    }

    fn called(&mut self, call: ExchangeId, by: Task, at: Timestamp) {
        let turn = self.threads.get(&by.tid).and_then(|turns| turns.iter().rfind(|turn| turn.since <= at));
        let mut made = Call { turn: 0, after: None, forward: None, ended: false, used: false, decided: false };
        if let Some(turn) = turn {
            made.turn = turn.number;
            match turn.read {
                Some(read) if self.requests.contains_key(&read) => made.forward = Some(read),
                Some(read) => {
                    if let Some(after) = self.calls.get_mut(&read) {
                        after.used = true;
                        made.after = Some(read);
                        made.forward = after.forward;
                    }
                }
                None => {}
            }
        }
        // Ownership ends with the response.
        made.forward = made.forward.filter(|request| self.requests.contains_key(request));
        if let Some(request) = made.forward.and_then(|request| self.requests.get_mut(&request)) {
            request.calls.push(call);
        }
        if self.calls.len() < MOST_CALLS {
            self.calls.insert(call, made);
        }
    }

    fn answering(&mut self, request: ExchangeId, by: Task, at: Timestamp, crowded: bool, claims: &mut Claims) {
        let Some(made) = self.requests.get(&request).map(|known| known.calls.clone()) else { return };
        let turn = self.threads.get_mut(&by.tid).and_then(|turns| turns.iter_mut().rfind(|turn| turn.since <= at));
        let Some(turn) = turn else {
            self.disagreed(claims);
            return;
        };
        turn.answers += 1;
        let (answers, read) = (turn.answers, turn.read);
        if read == Some(request) {
            return;
        }
        let Some((read, last)) = read.and_then(|read| Some((read, self.calls.get_mut(&read)?))) else {
            // An answer in the turn of something else: a timer, a queue, another thread. But not if it was given up
            // waiting for a call.
            let waiting = made.iter().any(|call| self.calls.get(call).is_some_and(|call| !call.ended));
            if !waiting {
                self.disagreed(claims);
            }
            return;
        };
        if answers > 1 {
            self.disagreed(claims);
            return;
        }
        last.used = true;
        let (forward, open) = (last.forward, !last.decided);
        if crowded && self.provable {
            self.reply.proved(claims);
        }
        if forward != Some(request) {
            if forward.is_some() {
                // One of the two is wrong, and which cannot be said if both were believed.
                if self.agreement.is_proven() {
                    self.reply.failed(claims);
                }
                self.agreement.failed(claims);
            }
            if crowded && self.provable && open && !self.agreement.is_proven() {
                self.reply.claim(read, request, claims);
            }
            return;
        }
        if crowded && self.provable {
            self.agreement.proved(claims);
        }
        let mut chain = SmallVec::<[ExchangeId; 8]>::new();
        let mut next = Some(read);
        while let Some(id) = next.filter(|_| chain.len() < LONGEST_CHAIN) {
            let Some(call) = self.calls.get(&id).filter(|call| call.forward == Some(request)) else { break };
            chain.push(id);
            next = call.after;
        }
        self.beside(&made, &chain, crowded, claims);
        for id in chain {
            if self.calls.get(&id).is_some_and(|call| call.decided) {
                continue;
            }
            if !crowded {
                claims.is(id, request, LinkMethod::Turn);
            } else if self.provable {
                self.agreement.claim(id, request, claims);
            }
        }
    }

    /// Calls that were made in one breath with one of `chain`, whose responses were read in time, and that no answer
    /// names: as long as every request has as many of them, they are its.
    fn beside(&mut self, made: &[ExchangeId], chain: &[ExchangeId], crowded: bool, claims: &mut Claims) {
        let breath: SmallVec<[u64; 8]> =
            chain.iter().filter_map(|id| self.calls.get(id)).map(|call| call.turn).collect();
        let beside: SmallVec<[(ExchangeId, ExchangeId); 4]> = made
            .iter()
            .filter(|id| !chain.contains(id))
            .filter_map(|id| Some((*id, self.calls.get(id)?)))
            .filter(|(_, call)| call.ended && !call.decided && breath.contains(&call.turn))
            .filter_map(|(id, call)| Some((id, call.forward?)))
            .collect();
        match self.beside.replace(beside.len()) {
            Some(before) if before != beside.len() => self.siblings.failed(claims),
            _ if crowded => self.siblings.proved(claims),
            _ => {}
        }
        if self.agreement.is_proven() {
            for (call, request) in beside {
                self.siblings.claim(call, request, claims);
            }
        }
    }

    /// Better evidence has spoken, or none: a turn that says otherwise is wrong.
    fn decided(&mut self, id: ExchangeId, request: Option<ExchangeId>, claims: &mut Claims) {
        self.agreement.forget(id);
        self.reply.forget(id);
        self.siblings.forget(id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.decided = true;
        let turn = call.forward;
        call.forward = request.or(turn);
        if turn.is_some() && call.forward != turn {
            self.agreement.failed(claims);
        }
        match call.forward.and_then(|request| self.requests.get_mut(&request)) {
            Some(request) if call.forward != turn => request.calls.push(id),
            Some(_) => {}
            None if call.ended => {
                self.calls.remove(&id);
            }
            None => {}
        }
    }

    fn disagreed(&mut self, claims: &mut Claims) {
        self.agreement.failed(claims);
        self.reply.failed(claims);
        self.siblings.failed(claims);
    }
}

/// Answers in a row that both ways agree about, while there were other requests, before turns are believed. In a process
/// with timers 54 of the first 400 disagreed, and 4 of the few agreements were wrong (2026-11).
const PROOFS: u32 = 16;

/// The same for answers alone, which prove less: 100 % of the calls were claimed by exactly one answer where that was
/// right, 8 to 42 % where it was wrong (2026-11).
const LONE_PROOFS: u32 = 64;

/// Threads whose turns are known: event loops have one or a few for each CPU.
const MOST_THREADS: usize = 256;

/// Turns of a thread that are known: a connection over a network stands some milliseconds after the call to connect(2).
const MOST_TURNS: usize = 256;

/// Calls of one process that are known: those that are open, and those that wait for the answer.
const MOST_CALLS: usize = 16 << 10;

/// Calls in sequence for one request that are followed back.
const LONGEST_CHAIN: usize = 256;
