// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `runtime`, for Ruby: the fiber that writes the answer made the calls, or waited for whoever made them.
//!
//! In: acts with the fiber that did them, those that wait for it, and the thread. Out: the request whose answer a call's fiber has
//! written, or a fiber that waited for that one: because it has just started it, or joins its thread. Every thread of Ruby's begins with
//! a fiber of its own, so this is about pools of threads as well, whatever thread of the system theirs is on.
//! A fiber does one thing at a time if it serves one request at a time. One that reads a request is watched for that: it is not believed any
//! more once it reads another one meanwhile, or calls while it has none. One that answers what another has read (a
//! pool) is believed while the process proves that such fibers call for nobody but whom they answer next.
//!
//! ```text
//! fiber F: reads R ····· calls a ····· starts G (G: calls b) · ····· joins a thread (H: calls c) ····· answers R      a, b and c are R's
//! ```

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::{
    act::{Act, What},
    source::{Claims, Source},
    trust::Trust,
};
use crate::{
    event::SocketId,
    pairing::ExchangeId,
    table::Table,
    time::{Task, Timestamp},
    trace::LinkMethod,
};

/// The fibers of one process.
#[derive(Debug)]
pub(super) struct Fibers {
    /// Open requests.
    requests: Table<ExchangeId, Request>,
    /// Undecided calls, oldest first. Law: calls.len() <= MOST_CALLS.
    calls: VecDeque<Call>,
    /// The connections of open requests, by the fiber that has read them.
    reading: Table<u64, SmallVec<[SocketId; 2]>>,
    /// When each fiber last answered. Law: answered.len() <= MOST_FIBERS.
    answered: Table<u64, Timestamp>,
    /// Fibers that do several things at a time. Law: as for `answered`.
    loops: Table<u64, ()>,
    /// The only fiber that each thread was seen to run; none where there were several. Law: as for `answered`.
    only: Table<u32, Option<u64>>,
    /// That fibers which answer what others have read call for that alone.
    pool: Trust,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Request {
    since: Timestamp,
    /// The fiber that has read it.
    reader: u64,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    call: ExchangeId,
    at: Timestamp,
    fiber: u64,
    /// Those that waited for it, nearest first; 0 where none did.
    waiting: [u64; 2],
}

impl Default for Fibers {
    fn default() -> Self {
        Self {
            requests: Table::default(),
            calls: VecDeque::new(),
            reading: Table::default(),
            answered: Table::default(),
            loops: Table::default(),
            only: Table::default(),
            pool: Trust::after(PROOFS, LinkMethod::Runtime),
        }
    }
}

impl Source for Fibers {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, by, .. } => self.received(request, by, act.at),
            What::Called { call, by, .. } => self.called(call, by, act.at, claims),
            What::Read { exchange: Some(exchange), by } => self.heard(exchange, by),
            What::Ended { call, by: Some(by) } => self.heard(call, by),
            What::Answering { request, by, .. } => self.answering(request, by, act.at, claims),
            What::Over { request, .. } => self.over(request),
            What::Decided { call, .. } => {
                self.calls.retain(|known| known.call != call);
                self.pool.forget(call);
            }
            _ => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.pool.holds(call)
    }
}

impl Fibers {
    fn received(&mut self, request: ExchangeId, by: Task, at: Timestamp) {
        let reader = self.running(by);
        self.requests.insert(request, Request { since: at, reader });
        if reader == 0 {
            return;
        }
        let reading = self.reading.entry(reader).or_default();
        let is_another = reading.iter().any(|socket| *socket != request.socket);
        reading.push(request.socket);
        if is_another {
            self.loops.insert(reader, ());
        }
    }

    fn called(&mut self, call: ExchangeId, by: Task, at: Timestamp, claims: &mut Claims) {
        let fiber = self.running(by);
        if fiber == 0 {
            return;
        }
        let [_, first, second] = by.identity;
        let call = Call { call, at, fiber, waiting: [first, second] };
        // Nothing is open: whoever answers requests and calls now calls for itself, and may do so while it has one.
        if self.requests.is_empty() {
            for own in call.owners().filter(|own| self.answered.contains_key(own)) {
                self.loops.insert(own, ());
                self.pool.failed(claims);
            }
        }
        if self.calls.len() >= MOST_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(call);
    }

    /// Something of a call's response was read. A thread that was not joined when it called may be by now.
    fn heard(&mut self, call: ExchangeId, by: Task) {
        let [fiber, first, second] = by.identity;
        self.running(by);
        if let Some(known) = self.calls.iter_mut().rfind(|known| known.call == call)
            && known.fiber == fiber
            && known.waiting == [0; 2]
        {
            known.waiting = [first, second];
        }
    }

    fn answering(&mut self, request: ExchangeId, by: Task, at: Timestamp, claims: &mut Claims) {
        let fiber = self.running(by);
        let Some(Request { since, reader }) = self.requests.get(&request).copied().filter(|_| fiber != 0) else {
            return;
        };
        let before = self.answered.insert(fiber, at);
        if self.loops.contains_key(&fiber) {
            return;
        }
        let is_reader = reader == fiber;
        // Which of several fibers of a thread did what is not known: their addresses are used again.
        let is_alone = self.only.get(&by.tid) == Some(&Some(fiber));
        if is_alone && let Some(before) = before.filter(|before| *before < since) {
            if self.calls.iter().any(|call| call.is_of(fiber) && call.at > before && call.at < since) {
                self.pool.failed(claims);
            } else {
                self.pool.proved(claims);
            }
        }
        if !is_reader && !is_alone {
            return;
        }
        let since = before.map_or(since, |before| since.max(before));
        for call in self.calls.iter().filter(|call| call.is_of(fiber) && call.at >= since && call.at <= at) {
            if is_reader {
                claims.is(call.call, request, LinkMethod::Runtime);
            } else {
                self.pool.claim(call.call, request, claims);
            }
        }
    }

    fn over(&mut self, request: ExchangeId) {
        let Some(Request { reader, .. }) = self.requests.remove(&request) else { return };
        if let Some(reading) = self.reading.get_mut(&reader) {
            if let Some(index) = reading.iter().position(|socket| *socket == request.socket) {
                reading.swap_remove(index);
            }
            if reading.is_empty() {
                self.reading.remove(&reader);
            }
        }
    }

    /// The fiber that acts; 0 where it is not known. It is noted which thread runs it.
    fn running(&mut self, by: Task) -> u64 {
        let [fiber, ..] = by.identity;
        if self.answered.len() >= MOST_FIBERS || self.only.len() >= MOST_FIBERS || self.loops.len() >= MOST_FIBERS {
            self.answered.clear();
            self.only.clear();
            self.loops.clear();
        }
        if fiber != 0 {
            let only = self.only.entry(by.tid).or_insert(Some(fiber));
            *only = only.filter(|only| *only == fiber);
        }
        fiber
    }
}

impl Call {
    /// The fibers that it may have been made for.
    fn owners(&self) -> impl Iterator<Item = u64> + use<> {
        let [first, second] = self.waiting;
        [self.fiber, first, second].into_iter().filter(|fiber| *fiber != 0)
    }

    fn is_of(&self, fiber: u64) -> bool {
        self.owners().any(|own| own == fiber)
    }
}

/// Answers by fibers that had called for nobody between their answer before and the request: what a pool's thread does beside its
/// requests, such as to report what it did, shows in the first of them.
const PROOFS: u32 = 16;

/// Calls of one process that wait for the answer.
const MOST_CALLS: usize = 4 << 10;

/// Fibers and threads of which something is known: more than a process has at a time. Where they are cleared, a fiber that does several
/// things at a time is believed until it shows that again.
const MOST_FIBERS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::super::tests::{Play, play};
    use crate::process::Runtime;

    fn ruby() -> Play {
        play(Runtime::Ruby)
    }

    /// What follows is done by `fiber`, for which these wait.
    fn on(play: Play, fiber: u64, waiting: [u64; 2]) -> Play {
        play.of_task([fiber, waiting[0], waiting[1]])
    }

    #[test]
    fn the_fiber_that_answers_what_it_has_read_made_the_calls() {
        let play = on(ruby(), 0xa0, [0x10, 0]).receives('A', 1);
        let play = on(play, 0xb0, [0x10, 0]).receives('B', 1).calls('b', 1);
        let play = on(play, 0xa0, [0x10, 0]).calls('a', 1).hears('a', 1);
        let play = on(play, 0xb0, [0x10, 0]).hears('b', 1).answers('B', 1);
        on(play, 0xa0, [0x10, 0]).answers('A', 1).says("b<B(runtime) a<A(runtime)");
    }

    #[test]
    fn a_fiber_owns_the_calls_of_those_that_it_has_started() {
        let play = on(ruby(), 0xa0, [0x10, 0]).receives('A', 1);
        let play = on(play, 0xb0, [0x10, 0]).receives('B', 1);
        let play = on(play, 0xa1, [0xa0, 0x10]).calls('a', 1);
        let play = on(play, 0xb2, [0xb1, 0xb0]).calls('b', 1);
        // Resumed by the loop, for whomever.
        let play = on(play, 0xa3, [0x10, 0]).calls('c', 1);
        let play = on(play, 0xa1, [0x10, 0]).hears('a', 1);
        let play = on(play, 0xb2, [0x10, 0]).hears('b', 1);
        let play = on(play, 0xb0, [0x10, 0]).answers('B', 1);
        let play = on(play, 0xa0, [0x10, 0]).answers('A', 1);
        play.waits_ms(6_000).says("b<B(runtime) a<A(runtime) c<?");
    }

    #[test]
    fn a_thread_that_is_joined_by_the_time_of_the_response_calls_for_who_waits() {
        let play = on(ruby(), 0xa0, [0; 2]).receives('A', 1);
        let play = on(play, 0xb0, [0; 2]).receives('B', 2);
        let play = on(play, 0xb1, [0; 2]).calls('b', 4);
        let play = on(play, 0xa1, [0; 2]).calls('a', 3);
        // One that nobody joins before its response came.
        let play = on(play, 0xa2, [0; 2]).calls('c', 5).hears('c', 5);
        let play = on(play, 0xa1, [0xa0, 0]).hears('a', 3);
        let play = on(play, 0xb1, [0xb0, 0]).hears('b', 4);
        let play = on(play, 0xa0, [0; 2]).answers('A', 1);
        let play = on(play, 0xb0, [0; 2]).answers('B', 2);
        play.waits_ms(6_000).says("a<A(runtime) b<B(runtime) c<?");
    }

    #[test]
    fn a_fiber_that_reads_two_requests_at_a_time_owns_nothing() {
        let play = on(ruby(), 0x10, [0; 2]).receives('A', 1).receives('B', 1);
        let play = on(play, 0xa1, [0x10, 0]).calls('a', 1).hears('a', 1);
        let play = on(play, 0x10, [0; 2]).calls('b', 1).hears('b', 1).answers('B', 1).answers('A', 1);
        play.waits_ms(6_000).says("a<? b<?");
    }

    #[test]
    fn a_fiber_that_calls_with_nothing_open_owns_nothing_later() {
        let play = on(ruby(), 0x10, [0; 2]).receives('A', 1).answers('A', 1).calls('x', 1).hears('x', 1);
        let play = on(play, 0xb0, [0x10, 0]).receives('B', 1);
        let play = on(play, 0x10, [0; 2]).receives('C', 1).calls('c', 1).hears('c', 1).answers('C', 1);
        let play = on(play, 0xb0, [0x10, 0]).answers('B', 1);
        play.waits_ms(6_000).says("x<- c<?");
    }

    /// A pool: what fiber 0x10 reads is answered by one of two others, each on a thread of its own.
    fn pool(mut play: Play, rounds: u64) -> Play {
        for n in 0..rounds {
            let request = 1_000 + 2 * n;
            play = on(play, 0x10, [0; 2]).receives(request, 1);
            play = on(play, 0xa0, [0; 2]).answers(request, 2);
            play = on(play, 0x10, [0; 2]).receives(request + 1, 1);
            play = on(play, 0xb0, [0; 2]).answers(request + 1, 3);
        }
        play
    }

    fn two_of_a_pool(play: Play) -> Play {
        let play = on(play, 0x10, [0; 2]).receives('A', 1).receives('B', 1);
        let play = on(play, 0xb1, [0xb0, 0]).calls('b', 5);
        let play = on(play, 0xa1, [0xa0, 0]).calls('a', 4).hears('a', 4);
        let play = on(play, 0xb1, [0xb0, 0]).hears('b', 5);
        let play = on(play, 0xb0, [0; 2]).answers('B', 3);
        on(play, 0xa0, [0; 2]).answers('A', 2).waits_ms(6_000)
    }

    #[test]
    fn fibers_of_a_pool_are_believed_once_they_call_for_nobody_else() {
        two_of_a_pool(pool(ruby(), 4)).says("a<? b<?");
        two_of_a_pool(pool(ruby(), 9)).says("b<B(runtime) a<A(runtime)");
    }

    #[test]
    fn a_fiber_that_a_believed_pool_has_made_is_believed_too() {
        let play = on(pool(ruby(), 9), 0x10, [0; 2]).receives('A', 1).receives('B', 1);
        let play = on(play, 0xa0, [0; 2]).calls('a', 2).hears('a', 2);
        let play = on(play, 0xd0, [0; 2]).calls('b', 9).hears('b', 9).answers('B', 9);
        on(play, 0xa0, [0; 2]).answers('A', 2).says("b<B(runtime) a<A(runtime)");
    }

    #[test]
    fn a_pool_that_calls_between_its_requests_is_not_believed() {
        let play = on(pool(ruby(), 9), 0xc0, [0; 2]).receives('C', 6);
        // Another request is open, so that this may have been for that.
        let play = on(play, 0xa0, [0; 2]).calls('x', 2).hears('x', 2);
        let play = on(play, 0x10, [0; 2]).receives('D', 1);
        let play = on(play, 0xa0, [0; 2]).answers('D', 2);
        let play = on(play, 0xc0, [0; 2]).answers('C', 6);
        two_of_a_pool(play.waits_ms(6_000)).says("x<? b<? a<?");
    }

    #[test]
    fn a_thread_of_a_pool_that_runs_several_fibers_is_not_believed() {
        let play = on(pool(ruby(), 9), 0xa9, [0xa0, 0]).receives('C', 2).answers('C', 2);
        let play = on(play, 0x10, [0; 2]).receives('A', 1).receives('B', 1);
        let play = on(play, 0xa1, [0xa0, 0]).calls('a', 4).hears('a', 4);
        let play = on(play, 0xa0, [0; 2]).answers('A', 2);
        let play = on(play, 0xb0, [0; 2]).answers('B', 3);
        play.waits_ms(6_000).says("a<?");
    }
}
