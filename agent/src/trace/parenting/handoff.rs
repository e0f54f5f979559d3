// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `handoff`: a thread that holds a request was woken by one that had read the response to a call.
//!
//! In: acts of processes whose threads' wakes are followed: a read has a name, and a write names the reads that led to it
//! (`spantap_common::identity::Kind::Wakes`). Out: the request whose thread, between reading and answering it, was told of the
//! call's response, directly or from thread to thread. Threads are also woken for locks, and take work off queues without being
//! woken: so a call is claimed only once every request that it could belong to is answered and one alone was told of it. How
//! often two were is what the process is judged by. It says nothing about requests that one thread reads and another answers, or
//! that a virtual thread serves: of what its carrier was told, it may know nothing.
//!
//! ```text
//! W reads R ── W waits ········································ W goes on ── W answers R      c is R's
//!              P writes c ── P reads c's response ── P wakes W ─┘
//! ```

use std::collections::{BTreeMap, VecDeque};

use smallvec::SmallVec;
use spantap_common::identity::Virtual;

use super::{
    act::{Act, What},
    platform::moves,
    source::{Claims, Source},
};
use crate::{
    pairing::ExchangeId,
    table::Table,
    time::{Task, Timestamp},
    trace::LinkMethod,
};

/// Who was told of what in one process.
#[derive(Debug, Default)]
pub(super) struct Handoffs {
    /// Open requests, by how many came before.
    requests: BTreeMap<u64, Request>,
    ordinals: Table<ExchangeId, u64>,
    /// Requests so far.
    received: u64,
    /// The open requests that each thread has read, by how many came before.
    holding: Table<u32, SmallVec<[u64; 2]>>,
    /// What was read under each name: responses to calls. Law: reads.len() <= MOST_READS.
    reads: Table<u64, ExchangeId>,
    /// Their names, oldest first, some of which are forgotten by now.
    names: VecDeque<u64>,
    calls: Table<ExchangeId, Call>,
    /// Calls that are not final, in the order in which they were made. Law: waiting.len() <= MOST_CALLS.
    waiting: VecDeque<ExchangeId>,
    record: Record,
    /// Final claims that wait for more proof. Law: held.len() <= MOST_HELD.
    held: Vec<(ExchangeId, ExchangeId)>,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    id: ExchangeId,
    since: Timestamp,
    /// Who read it.
    tid: u32,
}

#[derive(Debug)]
struct Call {
    at: Timestamp,
    /// Requests that came before it.
    requests: u64,
    /// The requests whose threads were told of its response.
    told: SmallVec<[ExchangeId; 2]>,
    /// Whether one of them had rivals.
    crowded: bool,
    /// Whether somebody else was told of it.
    rivals: bool,
}

impl Source for Handoffs {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, by, .. } => {
                self.requests.insert(self.received, Request { id: request, since: act.at, tid: by.tid });
                self.ordinals.insert(request, self.received);
                if !moves(by) {
                    self.holding.entry(by.tid).or_default().push(self.received);
                }
                self.received += 1;
            }
            What::Called { call, by, .. } => {
                // Its thread begins anew here, too.
                if let Some(request) = self.alone_of(by.tid).filter(|_| !moves(by)) {
                    self.told(request, by, self.requests.len() > 1, claims);
                }
                if self.waiting.len() < MOST_CALLS {
                    let made = Call {
                        at: act.at,
                        requests: self.received,
                        told: SmallVec::new(),
                        crowded: false,
                        rivals: false,
                    };
                    self.calls.insert(call, made);
                    self.waiting.push_back(call);
                }
            }
            What::Read { exchange: Some(exchange), by } => self.heard(exchange, by),
            What::Ended { call, by: Some(by) } => self.heard(call, by),
            What::Answering { request, by, crowded } => self.answering(request, by, crowded, claims),
            What::Over { request, .. } => self.over(request, claims),
            What::Decided { call, .. } => {
                self.calls.remove(&call);
                self.held.retain(|(held, _)| *held != call);
            }
            _ => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.held.iter().any(|(held, _)| *held == call)
    }

    fn overdue(&self, call: ExchangeId) -> Option<(ExchangeId, LinkMethod)> {
        let call = self.calls.get(&call)?;
        match call.told.as_slice() {
            [request] if self.record.is_good() && !call.rivals => Some((*request, LinkMethod::Handoff)),
            _ => None,
        }
    }
}

impl Handoffs {
    /// A read of a call's response has a name.
    fn heard(&mut self, call: ExchangeId, by: Task) {
        let [name, ..] = by.identity;
        if name == 0 || !self.calls.contains_key(&call) {
            return;
        }
        if self.names.len() >= MOST_READS
            && let Some(oldest) = self.names.pop_front()
        {
            self.reads.remove(&oldest);
        }
        if self.reads.insert(name, call).is_none() {
            self.names.push_back(name);
        }
    }

    /// The only open request that the thread has read.
    fn alone_of(&self, tid: u32) -> Option<Request> {
        match self.holding.get(&tid)?.as_slice() {
            [ordinal] => self.requests.get(ordinal).copied(),
            _ => None,
        }
    }

    fn answering(&mut self, request: ExchangeId, by: Task, crowded: bool, claims: &mut Claims) {
        let Some(ordinal) = self.ordinals.get(&request) else { return };
        let Some(known) = self.requests.get(ordinal).copied() else { return };
        // A thread that has several requests, or answers what another one has read, waits for nothing in particular: this is
        // another kind of process. But it is a rival of those that do.
        if moves(by) && crowded {
            // So may the carrier of a virtual thread be, for that.
            self.rival(known, by);
        } else if moves(by) || self.alone_of(by.tid).is_some_and(|alone| alone.id == request) {
            self.told(known, by, crowded, claims);
        } else {
            self.record.several();
            self.rival(known, by);
        }
    }

    /// Whoever has written for this request was told of responses, and none of the calls can be claimed for it.
    fn rival(&mut self, request: Request, by: Task) {
        for name in names(by) {
            let call = self.reads.get(&name).and_then(|id| self.calls.get_mut(id));
            if let Some(call) = call.filter(|call| call.at >= request.since) {
                call.rivals = true;
            }
        }
    }

    /// The thread that serves this request has written, and was told of what stands in its identity.
    fn told(&mut self, request: Request, by: Task, crowded: bool, claims: &mut Claims) {
        for name in names(by) {
            let Some(id) = self.reads.get(&name).copied() else { continue };
            let Some(call) = self.calls.get_mut(&id).filter(|call| call.at >= request.since) else { continue };
            if !call.told.contains(&request.id) {
                call.told.push(request.id);
            }
            call.crowded |= crowded;
            // It had the process to itself: there is nobody else whose call this could be.
            if !crowded {
                claims.is(id, request.id, LinkMethod::Handoff);
            }
        }
    }

    fn over(&mut self, request: ExchangeId, claims: &mut Claims) {
        let Some(ordinal) = self.ordinals.remove(&request) else { return };
        let Some(known) = self.requests.remove(&ordinal) else { return };
        if let Some(holding) = self.holding.get_mut(&known.tid) {
            holding.retain(|other| *other != ordinal);
            if holding.is_empty() {
                self.holding.remove(&known.tid);
            }
        }
        let oldest = self.requests.first_key_value().map_or(self.received, |(ordinal, _)| *ordinal);
        while let Some(id) = self.waiting.front().copied() {
            match self.calls.get(&id) {
                Some(call) if call.requests > oldest => break,
                Some(_) => self.is_final(id, claims),
                None => {}
            }
            self.waiting.pop_front();
        }
    }

    /// Every request that the call could belong to is over.
    fn is_final(&mut self, id: ExchangeId, claims: &mut Claims) {
        let Some(call) = self.calls.remove(&id) else { return };
        let was_good = self.record.is_good();
        match call.told.as_slice() {
            [] => {}
            [request] if !call.rivals => {
                if call.crowded {
                    self.record.one();
                }
                if self.record.is_good() {
                    claims.is(id, *request, LinkMethod::Handoff);
                } else if self.held.len() < MOST_HELD {
                    self.held.push((id, *request));
                }
            }
            _ => self.record.several(),
        }
        match (was_good, self.record.is_good()) {
            (true, false) => {
                claims.fell();
                self.held.clear();
            }
            (false, true) => {
                for (call, request) in self.held.drain(..) {
                    claims.is(call, request, LinkMethod::Handoff);
                }
            }
            _ => {}
        }
    }
}

/// The reads that led to what a thread has written.
fn names(by: Task) -> impl Iterator<Item = u64> {
    by.identity.into_iter().filter(|word| *word != 0 && Virtual::from_word(*word).is_none())
}

/// How often one thread alone was told of a response, lately.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    one: u32,
    several: u32,
}

impl Record {
    fn is_good(self) -> bool {
        self.one >= PROOFS && self.several * MOST_DOUBTFUL <= self.one
    }

    fn one(&mut self) {
        self.one += 1;
        self.age();
    }

    fn several(&mut self) {
        self.several += 1;
        self.age();
    }

    fn age(&mut self) {
        if self.one + self.several >= MEMORY {
            self.one /= 2;
            self.several /= 2;
        }
    }
}

/// Responses of which one thread alone was told, while other requests were open, before wakes are believed.
const PROOFS: u32 = 16;

/// Of so many responses, two threads may have been told of one.
const MOST_DOUBTFUL: u32 = 8;

/// Responses that a process is judged by.
const MEMORY: u32 = 256;

/// Reads whose names are known: those of a second at 16,000 a second. A thread is told of a read within milliseconds.
const MOST_READS: usize = 16 << 10;

/// Calls of one process that wait for the requests that they could belong to.
const MOST_CALLS: usize = 16 << 10;

/// Claims that wait for proof: no more than a few calls for each.
const MOST_HELD: usize = 64;

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Verdict,
            tests::{Play, id, play},
        },
        *,
    };
    use crate::process::Runtime;

    const W: u32 = 20;
    const V: u32 = 21;
    const P: u32 = 30;

    /// `call` is made by one thread, and its response read under this name.
    fn made(play: Play, call: char, name: u64) -> Play {
        play.of_task([0; 3]).calls(call, P).of_task([name, 0, 0]).hears(call, P).of_task([0; 3])
    }

    /// `request` is answered by a thread that was told of reads.
    fn answered(play: Play, request: char, tid: u32, told: [u64; 3]) -> Play {
        play.of_task(told).answers(request, tid).of_task([0; 3])
    }

    /// Two requests at a time, each with a call on another thread, until the process is believed.
    fn believed() -> Play {
        let mut play = play(Runtime::Java);
        for n in 0..u64::from(PROOFS / 2) {
            let (a, b, c, d) = (1_000 + n, 2_000 + n, 3_000 + n, 4_000 + n);
            play = play.receives(a, W).receives(b, V).calls(c, P).calls(d, P);
            play = play.of_task([c, 0, 0]).hears(c, P).of_task([d, 0, 0]).hears(d, P);
            play = play.of_task([c, 0, 0]).answers(a, W).of_task([d, 0, 0]).answers(b, V).of_task([0; 3]);
        }
        play
    }

    #[test]
    fn a_thread_that_was_told_of_a_response_waited_for_it() {
        let play = believed().receives('A', W).receives('B', V);
        let play = made(made(made(play, 'b', 1), 'a', 2), 'c', 3);
        let play = answered(answered(play, 'A', W, [3, 2, 0]), 'B', V, [1, 0, 0]).waits_ms(200);
        for (call, request) in [('a', 'A'), ('b', 'B'), ('c', 'A')] {
            assert_eq!(play.verdict(call), Some(Verdict::Is(id(request.into()), LinkMethod::Handoff)), "{call}");
        }
    }

    #[test]
    fn a_process_is_believed_after_some_proofs() {
        let play = believed().waits_ms(200);
        for n in 0..u64::from(PROOFS / 2) {
            let is = Verdict::Is(id(1_000 + n), LinkMethod::Handoff);
            assert_eq!(play.verdict(3_000 + n), Some(is), "what was held is said in the end");
        }
        let few = answered(
            made(super::super::tests::play(Runtime::Java).receives('A', W).receives('B', V), 'a', 1),
            'A',
            W,
            [1, 0, 0],
        );
        assert!(answered(few, 'B', V, [0; 3]).waits_ms(6_000).is_unknown('a'));
    }

    #[test]
    fn of_two_that_were_told_neither_is_taken() {
        let play = made(believed().receives('A', W).receives('B', V), 'a', 1);
        let play = answered(answered(play, 'A', W, [1, 0, 0]), 'B', V, [1, 0, 0]).waits_ms(200);
        assert!(play.is_unknown('a'));
    }

    #[test]
    fn nothing_is_said_before_everybody_could_have_been_told() {
        let play = made(believed().receives('B', V).receives('A', W), 'a', 1);
        let play = answered(play, 'A', W, [1, 0, 0]).waits_ms(200);
        assert_eq!(play.verdict('a'), None);
        let play = answered(play, 'B', V, [0; 3]).waits_ms(200);
        assert_eq!(play.verdict('a'), Some(Verdict::Is(id('A'.into()), LinkMethod::Handoff)));
    }

    #[test]
    fn a_call_that_is_older_than_the_request_is_not_its() {
        let play = made(believed().receives('B', V), 'b', 1).receives('A', W);
        let play = answered(answered(play, 'A', W, [1, 0, 0]), 'B', V, [0; 3]).waits_ms(200);
        assert!(play.is_unknown('b'));
    }

    #[test]
    fn a_thread_that_has_read_the_response_itself_is_a_rival() {
        // C was read by a thread that hands requests over; A's was told of the response when it got a lock.
        let play = made(believed().receives('A', W).receives('C', V), 'c', 1);
        let play = answered(answered(play, 'A', W, [1, 0, 0]), 'C', 22, [1, 0, 0]).waits_ms(200);
        assert_eq!(play.verdict('c'), Some(Verdict::Unknown));
    }

    #[test]
    fn a_request_that_another_thread_answers_is_told_nothing() {
        let play = made(believed().receives('A', W).receives('B', V), 'a', 1);
        let play = answered(answered(play, 'A', 22, [1, 0, 0]), 'B', V, [0; 3]).waits_ms(200);
        assert!(play.is_unknown('a'));
    }

    #[test]
    fn a_request_alone_needs_no_proof() {
        let play = made(play(Runtime::Java).receives('A', W), 'a', 1);
        answered(play, 'A', W, [1, 0, 0]).says("a<A(handoff)");
    }

    #[test]
    fn a_process_that_tells_everybody_everything_is_not_believed() {
        let mut play = believed();
        for n in 0..u64::from(PROOFS) {
            let (a, b, c) = (5_000 + n, 6_000 + n, 7_000 + n);
            play = play.receives(a, W).receives(b, V).calls(c, P).of_task([c, 0, 0]).hears(c, P);
            play = play.answers(a, W).answers(b, V).of_task([0; 3]);
        }
        let play = made(play.receives('A', W).receives('B', V), 'a', 1);
        let play = answered(answered(play, 'A', W, [1, 0, 0]), 'B', V, [0; 3]).waits_ms(6_000);
        assert!(play.is_unknown('a'));
    }
}
