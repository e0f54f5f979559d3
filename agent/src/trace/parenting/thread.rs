// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `thread`: a thread that has read one request, and answers it, made the calls in between for it.
//!
//! In: who reads requests, makes calls and writes answers, and which threads begin and end. Out: the request that the
//! calling thread holds, once that thread has answered it; or, where the calling one holds none, that of the thread which has connected
//! for the call. That of the thread which has started the calling one is [`super::births`]' business. It is exact where a thread serves one request at a time and never hands one over. Both are
//! watched: a thread that reads a request of another connection while it holds one, or that answers what another has
//! read, ends the trust in all threads of the process; a thread that goes to and fro between connections of its own is an
//! event loop, about which [`super::turn`] knows more.

use smallvec::SmallVec;

use super::{
    act::{Act, What},
    births::{self, Births},
    source::{Claims, Source},
    trust::Trust,
};
use crate::{
    event::SocketId,
    pairing::ExchangeId,
    table::Table,
    time::{Moment, Task, Timestamp},
    trace::LinkMethod,
};

/// The requests that the threads of one process hold.
#[derive(Debug)]
pub(super) struct Thread {
    /// By thread id, oldest request first.
    holding: Table<u32, SmallVec<[ExchangeId; 2]>>,
    requests: Table<ExchangeId, Held>,
    /// Undecided calls, and the request that the calling thread held.
    calls: Table<ExchangeId, ExchangeId>,
    trust: Trust,
    habit: Habit,
    births: Births,
}

#[derive(Debug)]
struct Held {
    tid: u32,
    since: Timestamp,
    /// That thread has begun to answer it.
    answered: bool,
    calls: SmallVec<[ExchangeId; 4]>,
}

impl Default for Thread {
    fn default() -> Self {
        Self {
            holding: Table::default(),
            requests: Table::default(),
            calls: Table::default(),
            trust: Trust::after(PROOFS, LinkMethod::Thread),
            habit: Habit::default(),
            births: Births::default(),
        }
    }
}

impl Source for Thread {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        self.births.expire(act.at, claims);
        match act.what {
            What::Received { request, by, .. } => self.received(request, by, act.at, claims),
            What::Called { call, by, connected, .. } => {
                match self.held_by(by.tid).or_else(|| self.connected(connected?)) {
                    Some(request) => {
                        self.calls.insert(call, request);
                        if let Some(held) = self.requests.get_mut(&request) {
                            held.calls.push(call);
                        }
                    }
                    None => self.births.called(call, by.tid, claims),
                }
            }
            What::Began { thread, started, by } => match self.held_by(by).or_else(|| self.births.request_of(by)) {
                Some(request) => self.births.began(thread, started, request, claims),
                None => self.births.doubt(thread),
            },
            What::Left { thread, started } => self.births.ended(thread, started, claims),
            What::Answering { request, by, crowded } => self.answering(request, Some(by), crowded, claims),
            What::Over { request, crowded, .. } => {
                // Without an answer the thread's word has to do.
                self.answering(request, None, crowded, claims);
                self.over(request, births::Over { at: act.at, crowded }, claims);
            }
            What::Decided { call, .. } => {
                self.calls.remove(&call);
                self.trust.forget(call);
                self.births.forget(call);
            }
            _ => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.trust.holds(call) || self.births.holds(call)
    }

    fn overdue(&self, call: ExchangeId) -> Option<(ExchangeId, LinkMethod)> {
        if self.trust.has_fallen() || self.habit.is_loop() {
            return None;
        }
        let request = self.calls.get(&call).copied().or_else(|| self.births.overdue(call))?;
        self.requests.contains_key(&request).then_some((request, LinkMethod::Thread))
    }
}

impl Thread {
    fn received(&mut self, request: ExchangeId, by: Task, at: Timestamp, claims: &mut Claims) {
        self.habit.reads(request.socket, by.tid);
        let holding = self.holding.entry(by.tid).or_default();
        if holding.iter().any(|other| other.socket != request.socket) {
            self.trust.failed(claims);
            self.births.failed(claims);
        }
        holding.push(request);
        self.requests.insert(request, Held { tid: by.tid, since: at, answered: false, calls: SmallVec::new() });
        self.births.doubt(by.tid);
    }

    /// The request that `tid` works on. Requests of one connection are answered, and by a thread that does one thing at a
    /// time also served, in their order.
    fn held_by(&self, tid: u32) -> Option<ExchangeId> {
        let holding = self.holding.get(&tid)?;
        let oldest = holding.first()?;
        holding.iter().all(|other| other.socket == oldest.socket).then_some(*oldest)
    }

    /// The request for which a thread has connected. It did so for what is written first; a client library's own thread may do the writing.
    fn connected(&self, Moment { at, task }: Moment) -> Option<ExchangeId> {
        let request = self.held_by(task.tid)?;
        self.requests.get(&request).filter(|held| held.since <= at).map(|_| request)
    }

    fn answering(&mut self, request: ExchangeId, by: Option<Task>, crowded: bool, claims: &mut Claims) {
        let Some(held) = self.requests.get_mut(&request) else { return };
        let calls = std::mem::take(&mut held.calls);
        if by.is_some_and(|by| by.tid != held.tid) {
            self.trust.failed(claims);
            self.births.failed(claims);
            return;
        }
        held.answered |= by.is_some();
        if crowded && by.is_some() {
            self.trust.proved(claims);
        }
        if self.habit.is_loop() {
            return;
        }
        for call in calls {
            if self.calls.get(&call) != Some(&request) {
                continue;
            }
            // Alone in its process, a request has no rival whose call this could be.
            if !crowded && !self.trust.has_fallen() {
                claims.is(call, request, LinkMethod::Thread);
            } else {
                self.trust.claim(call, request, claims);
            }
        }
    }

    fn over(&mut self, request: ExchangeId, over: births::Over, claims: &mut Claims) {
        let Some(held) = self.requests.remove(&request) else { return };
        if let Some(holding) = self.holding.get_mut(&held.tid) {
            holding.retain(|of| *of != request);
            if holding.is_empty() {
                self.holding.remove(&held.tid);
            }
        }
        // Nobody waited for its threads where it was given up; and which threads hold what is known only where threads are
        // believed.
        let believed = !self.habit.is_loop() && (!self.trust.has_fallen() || self.trust.is_proven());
        if held.answered && believed {
            self.births.over(request, over, claims);
        } else {
            self.births.dropped(request);
        }
    }
}

/// Whether threads keep connections, and go to and fro between them: what event loops do, and pools of workers do not.
#[derive(Debug, Default)]
struct Habit {
    /// Who reads a connection. Law: readers.len() <= MOST_READERS.
    readers: Table<SocketId, u32>,
    /// The connection that each thread read last. Law: no more than `readers`, between two clearings.
    last: Table<u32, SocketId>,
    /// Times a thread came back to a connection of its own.
    returns: u32,
    /// A connection was read by two threads: whoever is free serves.
    shared: bool,
}

impl Habit {
    fn is_loop(&self) -> bool {
        !self.shared && self.returns >= RETURNS
    }

    fn reads(&mut self, socket: SocketId, tid: u32) {
        if self.shared {
            return;
        }
        if self.readers.len() >= MOST_READERS {
            self.readers.clear();
            self.last.clear();
        }
        let last = self.last.insert(tid, socket);
        match self.readers.insert(socket, tid) {
            Some(reader) if reader != tid => {
                *self = Self { shared: true, ..Self::default() };
            }
            Some(_) if last.is_some_and(|last| last != socket) => {
                self.returns = self.returns.saturating_add(1);
            }
            _ => {}
        }
    }
}

/// Answers by the thread that had read the request, while others were open, before threads are believed: a runtime that
/// moves tasks between threads shows itself within a few.
const PROOFS: u32 = 8;

/// Times a thread returns to a connection before it counts as a loop: a pool of workers does it by chance.
const RETURNS: u32 = 3;

/// Connections whose reader is remembered: enough to see the habit of a process.
const MOST_READERS: usize = 256;
