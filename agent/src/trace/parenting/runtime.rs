// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `runtime`: the task that writes the answer made the calls that were made under its identity meanwhile.
//!
//! In: acts whose tasks carry an identity, as the probes read it from the process's memory; what it means is said in
//! `spantap_common::identity`. Out: the request whose answer a call's task has written, or the task that waited for it, or one
//! that shares its variables, or the goroutine that has started the caller while it worked on that request, or that waited at the channel
//! which the caller kept for its result. Identities are used again when their task is
//! gone: only the time between request and answer makes them mean one request. It says nothing where an identity is missing,
//! and nothing more about a process in which one task was seen to answer two requests at once.
//!
//! ```text
//! reads R ·········· task T: writes c ·········· task T: answers R      c is R's, whatever else happened in between
//! ```

use std::{collections::VecDeque, time::Duration};

use spantap_common::identity::{self, Batch, Virtual};

use super::{
    act::{Act, What},
    goroutines::{Goroutines, Start},
    source::{Claims, Source},
};
use crate::{
    event::SocketId,
    pairing::ExchangeId,
    process::Runtime,
    table::Table,
    time::{Task, Timestamp},
    trace::LinkMethod,
};

/// The tasks of one process.
#[derive(Debug)]
pub(super) struct Tasks {
    reading: Reading,
    /// Open requests.
    requests: Table<ExchangeId, Request>,
    /// Undecided calls, oldest first. Law: calls.len() <= MOST_CALLS.
    calls: VecDeque<Call>,
    /// What each connection's last answer was. Law: answers.len() <= MOST_ANSWERS.
    answers: Table<SocketId, Answer>,
    /// What each task was last seen to answer. Law: as for `answers`.
    answered: Table<u64, Answered>,
    /// Variables that are older than any request. Law: older.len() <= MOST_OLDER.
    older: Table<u64, ()>,
    /// Open requests of each connection.
    open: Table<SocketId, u32>,
    /// Until when nothing is said: a task was seen to answer two requests at once.
    silent_until: Timestamp,
    /// tokio: the thread that was seen to do a blocking work. Law: as for `answers`.
    works: Table<u64, u32>,
    /// Go: what is believed of goroutines that call and do not answer.
    goroutines: Goroutines,
}

/// How an identity is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reading {
    Cpython,
    Go,
    /// The address of the running task, and nothing of others.
    Scheduled,
    /// The task that answers, and of a call the one that waits for the response.
    Tokio,
    /// The number of the virtual thread that runs, and nothing of threads of the system.
    Virtual,
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Request {
    since: Timestamp,
    /// Ids of tasks that had been given out when it came; 0 where unknown.
    generated: u64,
    /// CPython: the variables of whoever read it, which all requests may share; 0 where unknown.
    variables: u64,
    /// Go: ids that nobody had been given when it came.
    fresh: Batch,
}

/// A call that nobody has decided on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) call: ExchangeId,
    pub(super) at: Timestamp,
    /// Whose call it is; 0 while unknown.
    pub(super) task: u64,
    /// Go: who started that task. CPython: the variables of its context. 0 where there are none.
    pub(super) kin: u64,
    /// CPython: the task that waits for that one. Go: the goroutine that waits for its result. 0 where there is none, or it is not
    /// known.
    pub(super) waits: u64,
    /// Go: the channel at which that goroutine waits.
    pub(super) channel: u64,
    /// When that was seen.
    pub(super) seen: Timestamp,
    pub(super) ended: bool,
    /// Two looks have shown two callers.
    torn: bool,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Timestamp,
    variables: u64,
}

#[derive(Clone, Copy, Debug)]
struct Answered {
    at: Timestamp,
    socket: SocketId,
    /// When it made the last call before that; zero where it made none.
    called: Timestamp,
}

/// Who acts, in the words of its runtime.
#[derive(Clone, Copy, Debug, Default)]
struct Who {
    task: u64,
    kin: u64,
    waits: u64,
    /// Go: at which channel it waits.
    channel: u64,
    generated: u64,
}

impl Tasks {
    /// Tasks of a process that runs on `runtime`; none where identities are not known.
    pub(super) fn of(runtime: Runtime) -> Option<Self> {
        let reading = match runtime {
            Runtime::Python => Reading::Cpython,
            Runtime::Go => Reading::Go,
            Runtime::Haproxy => Reading::Scheduled,
            Runtime::Tokio => Reading::Tokio,
            Runtime::Java => Reading::Virtual,
            _ => return None,
        };
        Some(Self {
            reading,
            requests: Table::default(),
            calls: VecDeque::new(),
            answers: Table::default(),
            answered: Table::default(),
            older: Table::default(),
            open: Table::default(),
            silent_until: Timestamp::default(),
            works: Table::default(),
            goroutines: Goroutines::default(),
        })
    }

    fn who(&self, by: Task) -> Who {
        let [first, second, third] = by.identity;
        match (self.reading, first) {
            (Reading::Scheduled, task) => Who { task, ..Who::default() },
            (Reading::Virtual, _) => match Virtual::from_word(third) {
                Some(Virtual::Moved(task)) => Who { task, ..Who::default() },
                Some(Virtual::Connected(_)) | None => Who::default(),
            },
            (Reading::Cpython, task) => Who { task, kin: second, waits: third, ..Who::default() },
            (Reading::Tokio, 0) => Who { task: second, waits: third, ..Who::default() },
            (Reading::Tokio, task) => Who { task, ..Who::default() },
            // In a connection's goroutine: of the one that waits.
            (Reading::Go, 0) => Who { task: second, kin: third, ..Who::default() },
            (Reading::Go, word) if word & identity::Go::AWAITED != 0 => {
                Who { task: second, waits: third, channel: word ^ identity::Go::AWAITED, ..Who::default() }
            }
            // A number that is below an id that was given out is no count of them.
            (Reading::Go, task) => {
                Who { task, kin: third, generated: if second >= task { second } else { 0 }, ..Who::default() }
            }
        }
    }
}

impl Source for Tasks {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, by, .. } => {
                let Who { kin, generated, .. } = self.who(by);
                let fresh = Batch::from_word(if self.reading == Reading::Go { by.identity[2] } else { 0 });
                self.requests.insert(request, Request { since: act.at, generated, variables: kin, fresh });
                *self.open.entry(request.socket).or_default() += 1;
                if self.reading == Reading::Cpython && kin != 0 {
                    self.grow_older(kin);
                }
            }
            What::Called { call, by, connected, .. } => self.called(call, by, connected.is_some(), act.at, claims),
            What::Read { exchange: Some(exchange), by } => self.heard(exchange, by, false, act.at, claims),
            What::Ended { call, by } => self.heard(call, by.unwrap_or_default(), true, act.at, claims),
            What::Answering { request, by, crowded } => self.answering(request, by, crowded, act.at, claims),
            What::Over { request, .. } => {
                if self.requests.remove(&request).is_some()
                    && let Some(open) = self.open.get_mut(&request.socket)
                {
                    *open -= 1;
                    if *open == 0 {
                        self.open.remove(&request.socket);
                    }
                }
            }
            What::Decided { call, .. } => {
                self.calls.retain(|known| known.call != call);
                self.goroutines.forget(call);
            }
            What::Read { exchange: None, .. } | What::Began { .. } | What::Left { .. } | What::Exited => {}
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.goroutines.holds(call)
    }
}

impl Tasks {
    fn called(&mut self, call: ExchangeId, by: Task, is_first: bool, at: Timestamp, claims: &mut Claims) {
        let Who { mut task, kin, waits, channel, .. } = self.who(by);
        self.works(task, by, at, claims);
        // Nobody's task has written what was waiting for the connection: whoever connected did so to write it.
        if is_first && task == 0 {
            task = match (self.reading, Virtual::from_word(by.identity[2])) {
                (Reading::Scheduled, _) => by.identity[1],
                (Reading::Virtual, Some(Virtual::Connected(task))) => task,
                _ => 0,
            };
        }
        if self.reading == Reading::Go {
            self.goroutines.called(task, at, claims);
            // A goroutine whose starter is between two requests was left behind by the first.
            if self.is_between(task, kin) {
                self.goroutines.left_behind(claims);
            }
        }
        if self.calls.len() >= MOST_CALLS {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { call, at, task, kin, waits, channel, seen: at, ended: false, torn: false });
    }

    /// Blocking work is done by one thread from its beginning to its end: what two threads seem to do is not what they do.
    fn works(&mut self, task: u64, by: Task, at: Timestamp, claims: &mut Claims) {
        if self.reading != Reading::Tokio || task & identity::Tokio::WORK == 0 {
            return;
        }
        if self.works.len() >= MOST_ANSWERS {
            self.works.clear();
        }
        if *self.works.entry(task).or_insert(by.tid) != by.tid {
            claims.fell();
            self.silent_until = at.plus(SILENCE);
        }
    }

    /// Whether `starter` has answered requests, none of which is open, and `task` is not one of those that answer.
    fn is_between(&self, task: u64, starter: u64) -> bool {
        let answered = self.answered.get(&starter).filter(|_| starter != 0 && !self.answered.contains_key(&task));
        answered.is_some_and(|last| !self.open.contains_key(&last.socket))
    }

    /// Something of a call's response was read. Of a goroutine that had not begun to wait when the call was written, this is
    /// the first that is seen.
    fn heard(&mut self, call: ExchangeId, by: Task, ended: bool, at: Timestamp, claims: &mut Claims) {
        let who = self.who(by);
        let Some(known) = self.calls.iter_mut().rfind(|known| known.call == call) else { return };
        known.ended |= ended;
        if !matches!(self.reading, Reading::Go | Reading::Tokio) || who.task == 0 {
            return;
        }
        // Read by the goroutine that keeps the connection, or the task that does: it says who waits.
        let is_kept = by.identity[0] == 0 || who.channel != 0;
        if is_kept && known.task == 0 {
            (known.task, known.kin, known.waits) = (who.task, who.kin, who.waits);
        } else if is_kept && known.task != who.task {
            known.torn = true;
        }
        if who.channel != 0 {
            (known.waits, known.channel, known.seen) = (who.waits, who.channel, at);
            let call = *known;
            let answers = |task: u64| self.answered.contains_key(&task);
            let others = self.calls.iter().rev();
            self.goroutines.awaited(&call, others, answers(call.task), answers(call.kin), claims);
        }
    }

    fn answering(&mut self, request: ExchangeId, by: Task, crowded: bool, at: Timestamp, claims: &mut Claims) {
        let Some(Request { since, generated, variables, fresh }) = self.requests.get(&request).copied() else { return };
        let who = self.who(by);
        let socket = request.socket;
        let before = self.note(socket, at, who);
        if who.task == 0 {
            return;
        }
        // Requests of one connection are answered in their order: work on one begins when the one before was answered. What
        // had begun by then is not known.
        let is_late = before.is_some_and(|before| before.at > since);
        let (generated, fresh) = if is_late { (0, Batch::from_word(0)) } else { (generated, fresh) };
        let mut since = before.map_or(since, |before| since.max(before.at));
        let own = |call: &&Call| (call.task == who.task || call.waits == who.task) && call.at <= at;
        let called = self.calls.iter().filter(own).map(|call| call.at).max().unwrap_or_default();
        if let Some(last) = self.answered.insert(who.task, Answered { at, socket, called })
            && last.socket != socket
            && last.at > since
        {
            // A task that ends leaves its address to the next, whose request may have been read by then. But a call that was
            // made while both were open may have been made for either.
            if last.called > since {
                claims.fell();
                self.silent_until = at.plus(SILENCE);
            }
            since = last.at;
        }
        if at < self.silent_until {
            return;
        }
        // Where it is not known what the request began with, it may still have just that.
        let own_variables = self.reading == Reading::Cpython
            && who.kin != 0
            && variables != 0
            && !self.older.contains_key(&who.kin)
            && before.is_none_or(|before| before.variables != who.kin);
        for index in 0..self.calls.len() {
            let Some(call) = self.calls.get(index).copied() else { break };
            if call.at < since || call.at > at || call.torn || call.task == 0 {
                continue;
            }
            if call.task == who.task {
                claims.is(call.call, request, LinkMethod::Runtime);
                continue;
            }
            match self.reading {
                // It waited for the one that called: what that did, it did for what this one is doing.
                Reading::Cpython if call.waits == who.task => claims.is(call.call, request, LinkMethod::Runtime),
                Reading::Cpython if own_variables && call.kin == who.kin => {
                    claims.is(call.call, request, LinkMethod::Runtime);
                }
                // Of one that was left behind it would be said too; but who waits has the response first.
                Reading::Tokio if call.waits == who.task && call.ended => {
                    claims.is(call.call, request, LinkMethod::Runtime);
                }
                Reading::Go => {
                    let is_new = fresh.contains(call.task) || (generated != 0 && call.task > generated);
                    let start = if is_new {
                        Start::During
                    } else if generated == 0 {
                        Start::Unknown
                    } else {
                        Start::InDoubt
                    };
                    self.goroutines.answered(&call, (request, who.task), at, start, crowded, claims);
                }
                Reading::Cpython | Reading::Scheduled | Reading::Tokio | Reading::Virtual => {}
            }
        }
    }

    /// Remembers an answer; the one before it on its connection comes back.
    fn note(&mut self, socket: SocketId, at: Timestamp, who: Who) -> Option<Answer> {
        if self.answers.len() >= MOST_ANSWERS || self.answered.len() >= MOST_ANSWERS {
            self.answers.clear();
            self.answered.clear();
        }
        self.answers.insert(socket, Answer { at, variables: who.kin })
    }

    fn grow_older(&mut self, variables: u64) {
        if self.older.len() >= MOST_OLDER {
            self.older.clear();
        }
        self.older.insert(variables, ());
    }
}

/// How long nothing is said about a process one of whose tasks answered two requests at once: what does so will do it again.
const SILENCE: Duration = Duration::from_secs(60);

/// Calls of one process that wait for the answer.
const MOST_CALLS: usize = 4 << 10;

/// Connections and tasks whose last answer is known: more than a process has open at a time. Where they are cleared, a task
/// that answers two requests at once may be missed once.
const MOST_ANSWERS: usize = 16 << 10;

/// Contexts that connections were accepted in: a server has one or a few.
const MOST_OLDER: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Verdict,
            tests::{Play, play},
        },
        *,
    };

    fn with(play: Play, identity: [u64; 3]) -> Play {
        play.of_task(identity)
    }

    #[test]
    fn the_task_that_answers_made_the_calls() {
        // One thread, three requests at a time, answers in another order than anything else.
        let play = play(Runtime::Python).receives('A', 1).receives('B', 1).receives('C', 1);
        let play = with(play, [0xb0, 5, 0]).calls('b', 1);
        let play = with(play, [0xa0, 5, 0]).calls('a', 1);
        let play = with(play, [0xc0, 5, 0]).calls('c', 1);
        let play = with(play, [0, 0, 0]).hears('a', 1).hears('b', 1).hears('c', 1);
        let play = with(play, [0xc0, 5, 0]).answers('C', 1);
        let play = with(play, [0xa0, 5, 0]).answers('A', 1);
        let play = with(play, [0xb0, 5, 0]).answers('B', 1);
        play.says("c<C(runtime) a<A(runtime) b<B(runtime)");
    }

    #[test]
    fn an_address_that_is_used_again_means_the_request_of_its_time() {
        let mut play = play(Runtime::Python).receives('Z', 1);
        for (request, call) in [('A', 'a'), ('B', 'b')] {
            play = with(play, [0, 0, 0]).receives(request, 1);
            play = with(play, [0xa0, 5, 0]).calls(call, 1).hears(call, 1).answers(request, 1);
        }
        play.says("a<A(runtime) b<B(runtime)");
    }

    #[test]
    fn an_address_is_used_again_by_the_task_of_a_request_that_was_read_before() {
        let play = with(play(Runtime::Python), [0, 0, 0]).receives('A', 1);
        let play = with(play, [0xa0, 5, 0]).calls('a', 1).hears('a', 1);
        // Read in the same round of the loop in which the first is answered; its task begins in the next.
        let play = with(play, [0, 0, 0]).receives('B', 1);
        let play = with(play, [0xa0, 5, 0]).answers('A', 1).calls('b', 1).hears('b', 1).answers('B', 1);
        let play = with(play, [0, 0, 0]).receives('C', 1).receives('D', 1);
        with(play, [0xc0, 5, 0])
            .calls('c', 1)
            .hears('c', 1)
            .answers('C', 1)
            .says("a<A(runtime) b<B(runtime) c<C(runtime)");
    }

    #[test]
    fn a_task_that_answers_two_requests_at_once_proves_nothing() {
        let play =
            with(play(Runtime::Python).receives('A', 1).receives('B', 1), [0xa0, 5, 0]).calls('a', 1).hears('a', 1);
        let play = play.answers('A', 1).answers('B', 1).receives('C', 1).receives('D', 2).calls('c', 1).hears('c', 1);
        assert!(!matches!(play.answers('C', 1).answers('D', 2).waits_ms(200).verdict('c'), Some(Verdict::Is(..))));
    }

    #[test]
    fn child_tasks_are_known_by_variables_that_began_with_their_request() {
        let accepts = |play: Play| with(play, [0x10, 0xee, 0]);
        let play = accepts(play(Runtime::Python)).receives('A', 1).receives('B', 1);
        // The child of A has a context of its own, with the variables that A has set.
        let play = with(play, [0xa1, 0xaa, 0]).calls('a', 1).hears('a', 1);
        // That of B has set none: what it shares, everybody shares.
        let play = with(play, [0xb1, 0xee, 0]).calls('b', 1).hears('b', 1);
        let play = with(play, [0xa0, 0xaa, 0]).answers('A', 1);
        let play = with(play, [0xb0, 0xee, 0]).answers('B', 1);
        play.says("a<A(runtime) b<?");
    }

    #[test]
    fn the_task_that_waits_for_a_child_is_its_caller() {
        let accepts = |play: Play| with(play, [0x10, 0xee, 0]);
        let play = accepts(play(Runtime::Python)).receives('A', 1).receives('B', 1);
        let play = with(play, [0xb1, 0xee, 0xb0]).calls('b', 1);
        let play = with(play, [0xa1, 0xee, 0xa0]).calls('a', 1);
        // Nobody waits for this one.
        let play = with(play, [0xc1, 0xee, 0]).calls('c', 1);
        let play = with(play, [0, 0, 0]).hears('a', 1).hears('b', 1).hears('c', 1);
        let play = with(play, [0xb0, 0xee, 0]).answers('B', 1);
        let play = with(play, [0xa0, 0xee, 0]).answers('A', 1);
        play.says("b<B(runtime) a<A(runtime) c<?");
    }

    #[test]
    fn the_task_that_waits_for_the_work_of_a_thread_is_its_caller() {
        let play = with(play(Runtime::Python), [0x10, 0xee, 0]).receives('A', 1).receives('B', 1);
        let play = with(play, [0xb1, 0xbb, 0xb0]).calls('b', 2).hears('b', 2);
        let play = with(play, [0xa1, 0xaa, 0xa0]).calls('a', 3).hears('a', 3);
        let play = with(play, [0xa0, 0xee, 0]).answers('A', 1);
        let play = with(play, [0xb0, 0xee, 0]).answers('B', 1);
        play.says("a<A(runtime) b<B(runtime)");
    }

    #[test]
    fn variables_that_outlive_an_answer_prove_nothing_on_their_connection() {
        let mut play = play(Runtime::Python).receives('Z', 1);
        for (ordinal, call) in [(0, 'a'), (1, 'b')] {
            play = with(play, [0x10, 0xee, 0]).receives_nth('A', ordinal, 1);
            play = with(play, [0xa1, 0xaa, 0]).calls(call, 1).hears(call, 1);
            play = with(play, [0xa0, 0xaa, 0]).answers_nth('A', ordinal, 1);
        }
        play.waits_ms(6_000).says("a<A(runtime) b<?");
    }

    #[test]
    fn a_scheduled_task_that_calls_and_answers_owns_its_calls_in_any_order() {
        let play = play(Runtime::Haproxy).receives('A', 1).receives('B', 1);
        let play = with(play, [0xb0, 0, 0]).calls('b', 1);
        let play = with(play, [0xa0, 0, 0]).calls('a', 1);
        let play = with(play, [0, 0, 0]).hears('a', 1).hears('b', 1);
        let play = with(play, [0xb0, 0, 0]).answers('B', 1);
        let play = with(play, [0xa0, 0, 0]).answers('A', 1);
        play.says("b<B(runtime) a<A(runtime)");
    }

    #[test]
    fn who_connected_owns_the_first_call_on_a_connection_that_no_task_has_written() {
        let play = play(Runtime::Haproxy).receives('A', 1).receives('B', 1);
        let play = with(play, [0, 0xa0, 0]).calls_over_connection('a', 1, 1);
        // Another task has taken the connection: whoever connected is of no account.
        let play = with(play, [0xb0, 0xa0, 0]).calls_over_connection('b', 1, 1);
        // Not the first on its connection.
        let play = with(play, [0, 0xa0, 0]).calls('c', 1);
        let play = with(play, [0, 0, 0]).hears('a', 1).hears('b', 1).hears('c', 1);
        let play = with(play, [0xb0, 0, 0]).answers('B', 1);
        let play = with(play, [0xa0, 0, 0]).answers('A', 1);
        play.waits_ms(6_000).says("b<B(runtime) a<A(runtime) c<?");
    }

    #[test]
    fn a_task_of_tokio_owns_what_it_waits_for_on_any_thread() {
        let play = play(Runtime::Tokio).receives('A', 1).receives('B', 2);
        let play = with(play, [0, 21, 0]).calls('b', 1);
        // A's task had not begun to wait when the call was written.
        let play = with(play, [0, 0, 0]).calls('a', 2);
        let play = with(play, [0, 20, 0]).hears('a', 1);
        let play = with(play, [0, 21, 0]).hears('b', 2);
        let play = with(play, [21, 0, 0]).answers('B', 1);
        let play = with(play, [20, 0, 0]).answers('A', 2);
        play.says("b<B(runtime) a<A(runtime)");
    }

    #[test]
    fn a_task_of_tokio_owns_what_the_task_that_it_waits_for_has_heard() {
        let play = play(Runtime::Tokio).receives('A', 1).receives('B', 2);
        let play = with(play, [0, 30, 20]).calls('a', 1).hears('a', 1);
        // It was left behind: whoever waited for it once has gone on.
        let play = with(play, [0, 31, 21]).calls('b', 1);
        let play = with(play, [20, 0, 0]).answers('A', 1);
        let play = with(play, [21, 0, 0]).answers('B', 2);
        play.waits_ms(6_000).says("a<A(runtime) b<?");
    }

    #[test]
    fn blocking_work_is_of_the_task_that_waits_for_it() {
        let work = |id: u64, waiting: u64| [0, id | identity::Tokio::WORK, waiting];
        let play = play(Runtime::Tokio).receives('A', 1).receives('B', 2);
        let play = with(play, work(31, 21)).calls('b', 4);
        let play = with(play, work(30, 20)).calls('a', 3).hears('a', 3);
        let play = with(play, work(31, 21)).hears('b', 4);
        let play = with(play, [20, 0, 0]).answers('A', 1);
        let play = with(play, [21, 0, 0]).answers('B', 2);
        play.says("a<A(runtime) b<B(runtime)");
    }

    #[test]
    fn work_that_two_threads_seem_to_do_is_nobodys() {
        let work = |id: u64, waiting: u64| [0, id | identity::Tokio::WORK, waiting];
        let play = play(Runtime::Tokio).receives('A', 1).receives('B', 2);
        let play = with(play, work(30, 20)).calls('a', 3).calls('b', 4).hears('b', 4).hears('a', 3);
        let play = with(play, [20, 0, 0]).answers('A', 1);
        let play = with(play, [21, 0, 0]).answers('B', 2);
        play.waits_ms(6_000).says("a<? b<?");
    }

    #[test]
    fn two_tasks_that_wait_for_one_call_are_torn() {
        let play = play(Runtime::Tokio).receives('A', 1).receives('B', 2);
        let play = with(play, [0, 20, 0]).calls('a', 1);
        let play = with(play, [0, 21, 0]).hears('a', 1);
        let play = with(play, [20, 0, 0]).answers('A', 1);
        let play = with(play, [21, 0, 0]).answers('B', 2);
        play.waits_ms(6_000).says("a<?");
    }

    #[test]
    fn a_goroutine_that_waits_is_the_caller() {
        let play = play(Runtime::Go).receives('A', 1).receives('B', 2);
        let play = with(play, [0, 21, 1]).calls('b', 3);
        // That of A had not begun to wait when the call was written.
        let play = with(play, [0, 0, 0]).calls('a', 3);
        let play = with(play, [0, 20, 1]).hears('a', 4);
        let play = with(play, [0, 21, 1]).hears('b', 4);
        let play = with(play, [20, 64, 1]).answers('A', 5);
        let play = with(play, [21, 64, 1]).answers('B', 6);
        play.says("a<A(runtime) b<B(runtime)");
    }
}
