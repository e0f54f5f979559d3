// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `runtime`, for Node: which callback made a call, and which callbacks followed from its response.
//!
//! In: acts of the main thread with Node's async ids, as the probes read them; what they mean is said in
//! `spantap_common::identity`. Out: for a call, the request from whose callbacks the connection was taken for it, if the answer to
//! that request was written in a callback that followed from the call's response. Ids are given out in a row, so those that were
//! given between two acts of the thread were given to what followed from the first; that is wrong where a timer creates something
//! before it acts. So a process is believed only while both ways agree about every answer that can be followed, and nothing is said
//! about calls that only one way leads to, but for those made in the same callback as a proven one. Continuations of promises have
//! no ids: about them it says nothing.
//!
//! ```text
//! reads R ─ ids 10..19 ─ timer 12: takes a connection for c ─┐ forward: 12 is R's, so c is
//! reads c's response ─ ids 30..34 ─ timer 33: answers R ─────┘ backward: 33 is c's, so c is R's
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

/// The callbacks of one process.
#[derive(Debug)]
pub(super) struct Callbacks {
    given: Given,
    requests: Table<ExchangeId, Request>,
    calls: Table<ExchangeId, Call>,
    /// The request that was last read on a connection, by the ids of those of its callbacks that serve many requests. Law: two
    /// entries for each open request, at most.
    connections: Table<u64, ExchangeId>,
    /// That both ways agree.
    agreement: Trust,
}

#[derive(Debug)]
struct Request {
    since: Timestamp,
    /// The async id of its connection.
    connection: u64,
    calls: SmallVec<[ExchangeId; 4]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    at: Timestamp,
    /// The callback that took the connection; 0 where unknown.
    taker: u64,
    /// The call from whose response that callback followed.
    after: Option<ExchangeId>,
    /// The request from which it followed, directly or through `after`.
    forward: Option<ExchangeId>,
    /// An answer has followed from its response.
    answered: bool,
    decided: bool,
    ended: bool,
}

/// What the probes have read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ids {
    first: u64,
    second: u64,
    given: u64,
}

impl Ids {
    /// None in other threads, and where nothing was read.
    fn of(by: Task) -> Option<Self> {
        let [first, second, given] = by.identity.map(f64::from_bits).map(|number| number as u64);
        (given > 0).then_some(Self { first, second, given })
    }
}

impl Default for Callbacks {
    fn default() -> Self {
        Self {
            given: Given::default(),
            requests: Table::default(),
            calls: Table::default(),
            connections: Table::default(),
            agreement: Trust::after(PROOFS, LinkMethod::Runtime),
        }
    }
}

impl Source for Callbacks {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, by, .. } => self.received(request, by, act.at),
            What::Read { exchange, by } => self.read(exchange, by),
            What::Called { call, by, .. } => self.called(call, by, act.at),
            What::Answering { request, by, crowded } => self.answering(request, by, crowded, claims),
            What::Over { request, .. } => self.over(request),
            What::Ended { call, by } => {
                if let Some(by) = by {
                    self.read(Some(call), by);
                }
                if let Some(known) = self.calls.get_mut(&call) {
                    known.ended = true;
                }
                self.forget(call);
            }
            What::Decided { call, request } => self.decided(call, request, claims),
            What::Began { .. } | What::Left { .. } | What::Exited => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.agreement.holds(call)
    }
}

impl Callbacks {
    fn received(&mut self, request: ExchangeId, by: Task, at: Timestamp) {
        let Some(ids) = Ids::of(by) else { return };
        self.given.act(ids.given, Some(request));
        // 0 where unknown; nothing else has it.
        for id in [ids.first, ids.first + PARSER].into_iter().filter(|_| ids.first != 0) {
            self.connections.insert(id, request);
        }
        self.requests.insert(request, Request { since: at, connection: ids.first, calls: SmallVec::new() });
    }

    /// What follows from a read belongs to what was read.
    fn read(&mut self, exchange: Option<ExchangeId>, by: Task) {
        let Some(ids) = Ids::of(by) else { return };
        if let Some(call) = exchange {
            self.taken(call, ids);
        }
        self.given.act(ids.given, exchange);
    }

    fn called(&mut self, call: ExchangeId, by: Task, at: Timestamp) {
        let Some(ids) = Ids::of(by) else { return };
        if self.calls.len() < MOST_CALLS {
            self.calls.insert(call, Call { at, ..Call::default() });
        }
        self.given.act(ids.given, Some(call));
        self.taken(call, ids);
    }

    /// The connection of a call shows who took it. A new one does not when its first request is written, since libuv does not
    /// watch it then, but when the response is read.
    fn taken(&mut self, call: ExchangeId, Ids { first: connection, second: taker, .. }: Ids) {
        if taker == 0 || self.calls.get(&call).is_none_or(|known| known.taker != 0) {
            return;
        }
        let (after, forward) = match self.owner(taker) {
            Some(Owner::Request(request)) => (None, Some(request)),
            Some(Owner::Call(after)) => (Some(after), self.calls.get(&after).and_then(|after| after.forward)),
            None => (None, None),
        };
        // Ownership ends with the response.
        let forward = forward.filter(|request| self.requests.contains_key(request));
        if let Some(request) = forward.and_then(|request| self.requests.get_mut(&request)) {
            request.calls.push(call);
        }
        if let Some(known) = self.calls.get_mut(&call) {
            *known = Call { taker, after, forward, ..*known };
        }
        // The callback that takes a connection gives it an id, and goes on with the call.
        self.given.assign(connection, call);
    }

    fn answering(&mut self, request: ExchangeId, by: Task, crowded: bool, claims: &mut Claims) {
        let Some(ids) = Ids::of(by) else { return };
        let owner = self.follows_from(ids);
        self.given.act(ids.given, owner.map(Owner::exchange));
        let Some(since) = self.requests.get(&request).map(|request| request.since) else { return };
        let last = match owner {
            None => return,
            Some(Owner::Request(other)) => {
                if other != request {
                    self.agreement.failed(claims);
                }
                return;
            }
            Some(Owner::Call(last)) => last,
        };
        let Some(call) = self.calls.get_mut(&last) else { return };
        let is_possible = call.at >= since && !call.answered;
        call.answered = true;
        match call.forward {
            _ if !is_possible => return self.agreement.failed(claims),
            None => return,
            Some(forward) if forward != request => return self.agreement.failed(claims),
            Some(_) => {}
        }
        if crowded {
            self.agreement.proved(claims);
        }
        for id in self.proven(last, request) {
            if self.calls.get(&id).is_some_and(|call| call.decided) {
                continue;
            }
            if crowded {
                self.agreement.claim(id, request, claims);
            } else {
                claims.is(id, request, LinkMethod::Runtime);
            }
        }
    }

    /// The calls that led to `last`, and those that were made by the same callbacks.
    fn proven(&self, last: ExchangeId, request: ExchangeId) -> SmallVec<[ExchangeId; 8]> {
        let mut proven = SmallVec::<[ExchangeId; 8]>::new();
        let mut takers = SmallVec::<[u64; 8]>::new();
        let mut next = Some(last);
        while let Some(id) = next.filter(|_| proven.len() < LONGEST_CHAIN) {
            let Some(call) = self.calls.get(&id).filter(|call| call.forward == Some(request)) else { break };
            proven.push(id);
            takers.push(call.taker);
            next = call.after;
        }
        let made = self.requests.get(&request).into_iter().flat_map(|request| request.calls.iter().copied());
        let beside = made.filter(|id| self.calls.get(id).is_some_and(|call| takers.contains(&call.taker)));
        let beside: SmallVec<[ExchangeId; 8]> = beside.filter(|id| !proven.contains(id)).collect();
        proven.extend(beside);
        proven
    }

    /// What the running callback follows from: it was created by something that the table knows, or else what triggered it was.
    fn follows_from(&self, ids: Ids) -> Option<Owner> {
        let Ids { first: running, second: trigger, .. } = ids;
        if running == 0 {
            // A continuation of a promise: nothing tells of which.
            return None;
        }
        if self.given.is_settled(running) || self.connections.contains_key(&running) {
            return self.owner(running);
        }
        if self.given.is_settled(trigger) || self.connections.contains_key(&trigger) {
            return self.owner(trigger);
        }
        // Both began after the last act, and so most likely with it.
        self.given.last.and_then(|exchange| self.known(exchange))
    }

    /// What the callback with this id followed from.
    fn owner(&self, id: u64) -> Option<Owner> {
        let exchange = self.connections.get(&id).copied().or_else(|| self.given.to(id));
        exchange.and_then(|exchange| self.known(exchange))
    }

    fn known(&self, exchange: ExchangeId) -> Option<Owner> {
        if self.requests.contains_key(&exchange) {
            return Some(Owner::Request(exchange));
        }
        self.calls.contains_key(&exchange).then_some(Owner::Call(exchange))
    }

    fn over(&mut self, id: ExchangeId) {
        let Some(request) = self.requests.remove(&id) else { return };
        for connection in [request.connection, request.connection + PARSER] {
            if self.connections.get(&connection) == Some(&id) {
                self.connections.remove(&connection);
            }
        }
        for call in request.calls {
            self.forget(call);
        }
    }

    /// Better evidence has spoken, or none.
    fn decided(&mut self, id: ExchangeId, request: Option<ExchangeId>, claims: &mut Claims) {
        self.agreement.forget(id);
        let Some(call) = self.calls.get_mut(&id) else { return };
        call.decided = true;
        if let (Some(request), Some(forward)) = (request, call.forward)
            && request != forward
        {
            self.agreement.failed(claims);
        }
        self.forget(id);
    }

    /// Lets go of a call that nothing more can follow from.
    fn forget(&mut self, id: ExchangeId) {
        let is_over = self.calls.get(&id).is_some_and(|call| {
            call.ended && call.decided && call.forward.is_none_or(|request| !self.requests.contains_key(&request))
        });
        if is_over {
            self.calls.remove(&id);
        }
    }
}

/// What a callback follows from.
#[derive(Clone, Copy, Debug)]
enum Owner {
    Request(ExchangeId),
    Call(ExchangeId),
}

impl Owner {
    fn exchange(self) -> ExchangeId {
        match self {
            Self::Request(exchange) | Self::Call(exchange) => exchange,
        }
    }
}

// --- Ids ---

/// To what ids were given: each entry holds for the ids from its own to the next entry's.
#[derive(Debug, Default)]
struct Given {
    /// In order. Law: entries.len() <= MOST_ENTRIES.
    entries: VecDeque<(u64, Option<ExchangeId>)>,
    /// The count at the last act.
    count: u64,
    /// What the last act was about.
    last: Option<ExchangeId>,
}

impl Given {
    /// The thread acts, about `exchange`, when `count` ids have been given. Those since the last act were given to that.
    fn act(&mut self, count: u64, exchange: Option<ExchangeId>) {
        if count < self.count {
            // Another program in the same process: its ids begin again.
            self.entries.clear();
        } else if count > self.count {
            // Also behind an entry of the same exchange: what was given after its request was written, among which are the ids of other
            // connections, is not what was given after its response was read.
            self.push((self.count + 1, self.last));
        }
        (self.count, self.last) = (count, exchange);
    }

    /// The ids of one entry from `id` on were given to `call`.
    fn assign(&mut self, id: u64, call: ExchangeId) {
        let index = self.entries.partition_point(|(first, _)| *first <= id);
        let is_held = index > 0 && id <= self.count;
        if is_held && self.entries.len() < MOST_ENTRIES {
            self.entries.insert(index, (id, Some(call)));
        }
    }

    fn push(&mut self, entry: (u64, Option<ExchangeId>)) {
        if self.entries.len() >= MOST_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    /// Whether the id was given before the last act.
    fn is_settled(&self, id: u64) -> bool {
        0 < id && id <= self.count
    }

    /// To what the id was given.
    fn to(&self, id: u64) -> Option<ExchangeId> {
        if !self.is_settled(id) {
            return None;
        }
        let index = self.entries.partition_point(|(first, _)| *first <= id);
        self.entries.get(index.checked_sub(1)?)?.1
    }
}

/// Between the id of a server's connection and that of the callbacks of its parser: they are made one after the other.
const PARSER: u64 = 1;

/// Answers in a row about which both ways agree, while there were other requests, before a process is believed.
const PROOFS: u32 = 16;

/// Entries of the table of ids: at 10,000 requests a second with a call each, of half a second; timers that are older lead nowhere.
/// At 32 bytes 512 KiB.
const MOST_ENTRIES: usize = 16 << 10;

/// Calls of one process that are known: those that are open, and those that wait for the answer.
const MOST_CALLS: usize = 16 << 10;

/// Calls in sequence for one request that are followed back.
const LONGEST_CHAIN: usize = 256;

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

    /// What follows is done under these ids, when so many are given.
    fn under(play: Play, first: u32, second: u32, given: u32) -> Play {
        play.of_task([first, second, given].map(|number| f64::from(number).to_bits()))
    }

    fn nth(name: char, ordinal: u64) -> ExchangeId {
        ExchangeId { ordinal, ..id(name.into()) }
    }

    /// Two requests at a time over the connections 3 and 5, each with timers around a call over 7 or 8: `rounds` times. Ids begin at
    /// 100; each round has 100 of them.
    fn rounds(rounds: u32) -> Play {
        let mut play = play(Runtime::Node);
        for round in 0..rounds {
            play = round_of(play, round, [11, 21]);
        }
        play
    }

    /// One of them, in which the timers with the ids `first` make the calls.
    fn round_of(mut play: Play, round: u32, first: [u32; 2]) -> Play {
        let (ordinal, base) = (u64::from(round), 100 * (1 + round));
        let [a, b] = [0, 1].map(|n| 10_000 + 2 * ordinal + n);
        play = under(play, 3, 1, base + 10).receives_nth('A', ordinal, 1);
        play = under(play, 5, 1, base + 20).receives_nth('B', ordinal, 1);
        // The timers of both run before anything else is read, in another order.
        play = under(play, base + 31, base + first[1], base + 35).calls(b, 1);
        play = under(play, base + 36, base + first[0], base + 40).calls(a, 1);
        play = under(play, base + 36, base + first[0], base + 40).hears(a, 1);
        play = under(play, base + 31, base + first[1], base + 50).hears(b, 1);
        play = under(play, base + 52, base + 51, base + 60).answers_nth('B', ordinal, 1);
        under(play, base + 41, base + 40, base + 60).answers_nth('A', ordinal, 1)
    }

    #[test]
    fn both_ways_through_timers_lead_to_the_same_request() {
        let play = rounds(PROOFS / 2).waits_ms(200);
        for round in 0..u64::from(PROOFS / 2) {
            for (call, name) in [(10_000 + 2 * round, 'A'), (10_001 + 2 * round, 'B')] {
                let expected = Verdict::Is(nth(name, round), LinkMethod::Runtime);
                assert_eq!(play.verdict(call), Some(expected), "of round {round}");
            }
        }
    }

    #[test]
    fn one_disagreement_silences_it() {
        let play = round_of(rounds(PROOFS / 2), PROOFS / 2, [21, 11]);
        let play = round_of(play, PROOFS / 2 + 1, [11, 21]).waits_ms(6_000);
        let last = 10_000 + u64::from(PROOFS);
        for call in [last, last + 1, last + 2, last + 3] {
            assert!(play.is_unknown(call));
        }
    }

    #[test]
    fn continuations_of_promises_say_nothing() {
        let mut play = rounds(PROOFS / 2);
        let last = u64::from(PROOFS / 2);
        play = under(play, 3, 1, 9_010).receives_nth('A', last, 1);
        play = under(play, 5, 1, 9_020).receives_nth('B', last, 1);
        play = under(play, 9_031, 9_011, 9_040).calls('a', 1).hears('a', 1);
        play = under(play, 0, 0, 9_050).answers_nth('A', last, 1);
        play = under(play, 0, 0, 9_050).answers_nth('B', last, 1);
        assert_eq!(play.waits_ms(6_000).verdict('a'), Some(Verdict::Unknown));
    }

    #[test]
    fn a_new_connection_shows_who_took_it_when_the_response_is_read() {
        let mut play = rounds(PROOFS / 2);
        let last = u64::from(PROOFS / 2);
        play = under(play, 3, 1, 9_010).receives_nth('A', last, 1);
        play = under(play, 5, 1, 9_020).receives_nth('B', last, 1);
        play = under(play, 0, 0, 9_040).calls('a', 1);
        play = under(play, 9_031, 9_011, 9_040).hears('a', 1);
        play = under(play, 9_042, 9_041, 9_050).answers_nth('A', last, 1);
        let play = under(play, 9_051, 5, 9_050).answers_nth('B', last, 1).waits_ms(6_000);
        assert_eq!(play.verdict('a'), Some(Verdict::Is(nth('A', last), LinkMethod::Runtime)));
    }

    #[test]
    fn calls_of_one_callback_belong_together() {
        let mut play = rounds(PROOFS / 2);
        let last = u64::from(PROOFS / 2);
        play = under(play, 3, 1, 9_010).receives_nth('A', last, 1);
        play = under(play, 5, 1, 9_020).receives_nth('B', last, 1);
        // Two of the timer that A has started, one of another one, whose response nothing follows from.
        play = under(play, 9_031, 9_011, 9_040).calls('a', 1);
        play = under(play, 9_036, 9_011, 9_040).calls('b', 1);
        play = under(play, 9_038, 9_012, 9_040).calls('c', 1);
        play = under(play, 9_038, 9_012, 9_040).hears('c', 1);
        play = under(play, 9_036, 9_011, 9_040).hears('b', 1);
        play = under(play, 9_031, 9_011, 9_040).hears('a', 1);
        play = under(play, 9_042, 9_041, 9_050).answers_nth('A', last, 1);
        let play = under(play, 9_051, 5, 9_050).answers_nth('B', last, 1).waits_ms(6_000);
        for call in ['a', 'b'] {
            assert_eq!(play.verdict(call), Some(Verdict::Is(nth('A', last), LinkMethod::Runtime)));
        }
        assert_eq!(play.verdict('c'), Some(Verdict::Unknown));
    }

    #[test]
    fn ids_belong_to_what_came_before_them() {
        let (a, b, c) = (Some(nth('A', 0)), Some(nth('B', 0)), nth('c', 0));
        let mut given = Given::default();
        for (count, exchange) in [(10, a), (20, b), (20, a), (30, None), (35, b), (40, a)] {
            given.act(count, exchange);
        }
        let to = |given: &Given| [10, 11, 20, 21, 30, 31, 36, 40, 41].map(|id| given.to(id));
        assert_eq!(to(&given), [None, a, a, a, a, None, b, b, None]);
        given.assign(25, c);
        assert_eq!(to(&given), [None, a, a, a, Some(c), None, b, b, None], "to the end of its entry");
        given.act(5, a);
        assert_eq!(given.to(5), None, "the program is another one");
    }

    #[test]
    fn what_follows_from_a_response_is_not_anothers_whose_connection_was_made_before_it() {
        let (a, b, c) = (Some(nth('A', 0)), Some(nth('B', 0)), nth('c', 0));
        let mut given = Given::default();
        // A is written, and read when 20 ids have been given.
        for (count, exchange) in [(10, a), (20, a), (30, b)] {
            given.act(count, exchange);
        }
        given.assign(15, c);
        assert_eq!([14, 15, 20, 21, 30].map(|id| given.to(id)), [a, Some(c), Some(c), a, a]);
    }
}
