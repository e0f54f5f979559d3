// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Plays in one process: who reads, calls and answers, and what follows for each call.

use super::*;
use crate::{
    context::TraceId,
    event::SocketId,
    protocol::PassedId,
    time::{Moment, Task},
};

/// A process. Requests are named by capitals, calls by small letters; each has a connection of its own, unless it says
/// otherwise.
pub(super) struct Play {
    parenting: Parenting,
    links: Links,
    now: u64,
    /// What the tasks of the next acts are.
    identity: [u64; 3],
    verdicts: Vec<(ExchangeId, Verdict)>,
    released: usize,
}

pub(super) fn play(runtime: Runtime) -> Play {
    played(runtime, None)
}

/// One whose operator wants to know likely requests as well.
fn guessing(runtime: Runtime) -> Play {
    played(runtime, Some(Confidence::new(0.99)))
}

fn played(runtime: Runtime, likely: Option<Confidence>) -> Play {
    let mut parenting = Parenting::new(likely);
    parenting.learned(PID, runtime);
    Play { parenting, links: Links::default(), now: 1_000_000_000, identity: [0; 3], verdicts: Vec::new(), released: 0 }
}

pub(super) fn id(name: u64) -> ExchangeId {
    ExchangeId { socket: SocketId(name), since: Timestamp(0), ordinal: 0 }
}

impl Play {
    fn task(&self, tid: u32) -> Task {
        Task { pid: PID, tid, identity: self.identity }
    }

    /// What follows is done by the task of this identity.
    pub(super) fn of_task(self, identity: [u64; 3]) -> Self {
        Self { identity, ..self }
    }

    pub(super) fn receives_nth(self, connection: char, ordinal: u64, tid: u32) -> Self {
        self.receives_on(ExchangeId { ordinal, ..id(connection.into()) }, tid, None)
    }

    pub(super) fn answers_nth(self, connection: char, ordinal: u64, tid: u32) -> Self {
        self.answers_on(ExchangeId { ordinal, ..id(connection.into()) }, tid)
    }

    fn act(mut self, what: What) -> Self {
        self.now += 1_000;
        let act = Act { at: Timestamp(self.now), pid: PID, what };
        self.parenting.take(act, &mut self.links);
        self.collect()
    }

    fn collect(mut self) -> Self {
        while let Some(outcome) = self.parenting.outcome() {
            match outcome {
                Outcome::Decided(call, verdict) => self.verdicts.push((call, verdict)),
                Outcome::Released(_) => self.released += 1,
            }
        }
        self
    }

    pub(super) fn receives(self, request: impl Into<u64>, tid: u32) -> Self {
        self.receives_on(id(request.into()), tid, None)
    }

    fn receives_on(self, request: ExchangeId, tid: u32, trace: Option<u8>) -> Self {
        let trace = trace.map(|byte| TraceId([byte; 16]));
        let by = self.task(tid);
        self.act(What::Received { request, by, trace, ids: SmallVec::new(), digest: 0, operation: 0 })
    }

    pub(super) fn calls(self, call: impl Into<u64>, tid: u32) -> Self {
        let by = self.task(tid);
        self.act(What::Called {
            call: id(call.into()),
            by,
            connected: None,
            trace: None,
            ids: SmallVec::new(),
            digest: 1,
            operation: 0,
        })
    }

    /// Writes the first call on a connection that `tid` connected `ago` nanoseconds before.
    pub(super) fn calls_over_connection(self, call: impl Into<u64>, tid: u32, ago: u64) -> Self {
        self.calls_over_connection_of(call, tid, tid, ago)
    }

    /// The same, connected by another thread.
    pub(super) fn calls_over_connection_of(self, call: impl Into<u64>, tid: u32, connector: u32, ago: u64) -> Self {
        let connected = Some(Moment { at: Timestamp(self.now + 1_000 - ago), task: self.task(connector) });
        let by = self.task(tid);
        self.act(What::Called {
            call: id(call.into()),
            by,
            connected,
            trace: None,
            ids: SmallVec::new(),
            digest: 1,
            operation: 0,
        })
    }

    pub(super) fn hears(self, call: impl Into<u64>, tid: u32) -> Self {
        let by = Some(self.task(tid));
        self.act(What::Ended { call: id(call.into()), by })
    }

    pub(super) fn answers(self, request: impl Into<u64>, tid: u32) -> Self {
        self.answers_on(id(request.into()), tid)
    }

    fn answers_on(self, request: ExchangeId, tid: u32) -> Self {
        let answered = Some(Moment { at: Timestamp(self.now + 1_000), task: self.task(tid) });
        self.act(What::Over { request, answered, crowded: false })
    }

    /// Nobody answers `request` any more.
    pub(super) fn gives_up(self, request: impl Into<u64>) -> Self {
        self.act(What::Over { request: id(request.into()), answered: None, crowded: false })
    }

    /// `tid` starts a thread.
    pub(super) fn starts(self, tid: u32, thread: u32) -> Self {
        self.act(What::Began { thread, started: thread.into(), by: tid })
    }

    /// A thread ends.
    pub(super) fn ends(self, thread: u32) -> Self {
        self.act(What::Left { thread, started: thread.into() })
    }

    /// Another thread ends, which has the id of one that was started.
    pub(super) fn ends_another(self, thread: u32) -> Self {
        self.act(What::Left { thread, started: u64::MAX })
    }

    /// Threads that nobody followed.
    pub(super) fn unfollowed(&self) -> u64 {
        self.links.unfollowed
    }

    pub(super) fn waits_ms(mut self, ms: u64) -> Self {
        self.now += ms * 1_000_000;
        self.parenting.settle(Timestamp(self.now), &mut self.links);
        self.collect()
    }

    /// What became of a call.
    pub(super) fn verdict(&self, call: impl Into<u64>) -> Option<Verdict> {
        let call = id(call.into());
        let of: Vec<Verdict> =
            self.verdicts.iter().filter(|(of, _)| *of == call).map(|(_, verdict)| *verdict).collect();
        assert!(of.len() <= 1, "a call is decided once");
        of.first().copied()
    }

    /// Whether nothing is said of a call, not even what is likely.
    pub(super) fn is_unknown(&self, call: impl Into<u64>) -> bool {
        self.verdict(call) == Some(Verdict::Unknown)
    }

    /// Every verdict in order, as `call<request(method)`, `call<-` for nobody's, `call<?` for unknown, `call<!`.
    pub(super) fn says(self, expected: &str) -> Self {
        let play = self.waits_ms(200);
        let lines: Vec<String> = play
            .verdicts
            .iter()
            .map(|(call, verdict)| {
                let name = |id: &ExchangeId| char::from_u32(id.socket.0 as u32).unwrap_or('?');
                match verdict {
                    Verdict::Is(request, method) => format!("{}<{}({})", name(call), name(request), method.label()),
                    Verdict::Likely(likely, _) => {
                        let names: String = likely.iter().flatten().map(|(request, _)| name(request)).collect();
                        format!("{}<?{names}", name(call))
                    }
                    Verdict::Nobody => format!("{}<-", name(call)),
                    Verdict::Unknown => format!("{}<?", name(call)),
                    Verdict::Contradicted => format!("{}<!", name(call)),
                }
            })
            .collect();
        assert_eq!(lines.join(" "), expected);
        play
    }
}

const PID: u32 = 1;
const T: u32 = 10;
const U: u32 = 11;

// --- thread ---

#[test]
fn a_thread_with_one_request_calls_for_it() {
    let play = play(Runtime::Ruby).receives('A', T).receives('B', U).calls('a', T).calls('b', U);
    let play = play.hears('a', T).hears('b', U).answers('A', T).answers('B', U).says("");
    // Two requests at a time: the threads have to prove themselves first.
    assert_eq!(play.verdicts, []);
    let mut play = play;
    for n in 0u64..8 {
        play = play.receives(1_000 + n, T).receives(2_000 + n, U).answers(1_000 + n, T).answers(2_000 + n, U);
    }
    play.says("a<A(thread) b<B(thread)");
}

#[test]
fn a_request_alone_needs_no_proof() {
    play(Runtime::Ruby).receives('A', T).calls('a', T).hears('a', T).answers('A', T).says("a<A(thread)");
}

#[test]
fn a_thread_with_two_requests_says_nothing() {
    let play = play(Runtime::Ruby).receives('A', T).receives('B', T).calls('c', T).hears('c', T);
    play.answers('A', T).answers('B', T).says("c<?");
}

#[test]
fn pipelined_requests_are_served_in_their_order() {
    let (first, second) =
        (ExchangeId { ordinal: 0, ..id(u64::from('A')) }, ExchangeId { ordinal: 1, ..id(u64::from('A')) });
    let mut play = play(Runtime::Ruby);
    for n in 0u64..10 {
        play = play.receives(1_000 + n, U).receives(2_000 + n, 12).answers(1_000 + n, U).answers(2_000 + n, 12);
    }
    let play = play.receives_on(first, T, None).receives_on(second, T, None);
    let play = play.calls('a', T).hears('a', T).answers_on(first, T);
    let play = play.calls('b', T).hears('b', T).answers_on(second, T).waits_ms(200);
    assert_eq!(play.verdict('a'), Some(Verdict::Is(first, LinkMethod::Thread)));
    assert_eq!(play.verdict('b'), Some(Verdict::Is(second, LinkMethod::Thread)));
}

#[test]
fn another_thread_of_a_serving_process_is_unknown() {
    play(Runtime::Ruby).receives('A', T).calls('a', U).hears('a', U).answers('A', T).says("a<?");
}

#[test]
fn who_has_connected_for_a_call_made_it_whoever_writes() {
    let mut play = play(Runtime::Ruby);
    for n in 0u64..8 {
        play = play.receives(1_000 + n, T).receives(2_000 + n, U).answers(1_000 + n, T).answers(2_000 + n, U);
    }
    let play = play.receives('A', T).receives('B', U).calls_over_connection_of('a', 30, T, 500);
    // Connected before that thread had the request; and by one that has none.
    let play = play.calls_over_connection_of('b', 30, U, 5_000).calls_over_connection_of('c', 30, 31, 500);
    // Who serves a request calls for that one, whoever has connected.
    let play = play.calls_over_connection_of('d', U, T, 500);
    let play = play.answers('A', T).answers('B', U).waits_ms(6_000);
    assert_eq!(play.verdict('a'), Some(Verdict::Is(id('A'.into()), LinkMethod::Thread)));
    assert_eq!(play.verdict('d'), Some(Verdict::Is(id('B'.into()), LinkMethod::Thread)));
    assert!(play.is_unknown('b') && play.is_unknown('c'));
}

#[test]
fn a_call_after_the_response_is_nobodys() {
    play(Runtime::Ruby).receives('A', T).answers('A', T).calls('a', T).says("a<-");
}

#[test]
fn threads_of_go_say_nothing() {
    play(Runtime::Go).receives('A', T).calls('a', T).hears('a', T).answers('A', T).says("a<?");
}

#[test]
fn one_request_that_changes_threads_disproves_all_threads() {
    let play = play(Runtime::Ruby).receives('A', T).receives('B', U).answers('A', 12);
    play.calls('b', U).hears('b', U).answers('B', U).says("b<?");
}

#[test]
fn a_thread_that_goes_to_and_fro_between_its_connections_is_a_loop() {
    let mut play = play(Runtime::Ruby);
    for n in 1u64..6 {
        for socket in ['A', 'B'] {
            let request = ExchangeId { ordinal: n, ..id(socket.into()) };
            play = play.receives_on(request, T, None).answers_on(request, T);
        }
    }
    // Made by a thread that holds one request, which it answers: but what a loop does meanwhile may be anything.
    let play = play.receives('C', T).calls('c', T).answers('C', T).hears('c', T);
    play.says("c<?");
}

#[test]
fn the_answer_is_not_waited_for_for_ever() {
    let play = play(Runtime::Ruby).receives('A', T).calls('a', T).hears('a', T).waits_ms(4_800).says("");
    let play = play.waits_ms(400).says("a<A(thread)");
    assert_eq!(play.links.overdue, 1);
}

// --- header ---

#[test]
fn a_header_names_the_request_of_its_trace() {
    let call = |play: Play, call: char, trace: u8| {
        let trace = Some(TraceId([trace; 16]));
        play.act(What::Called {
            call: id(call.into()),
            by: Task { pid: PID, tid: T, ..Task::default() },
            connected: None,
            trace,
            ids: SmallVec::new(),
            digest: 0,
            operation: 0,
        })
    };
    let play = play(Runtime::Go).receives_on(id('A'.into()), T, Some(1)).receives_on(id('B'.into()), T, Some(2));
    let play = call(call(play, 'a', 1), 'b', 2);
    play.says("a<A(header) b<B(header)");
}

#[test]
fn a_thread_that_contradicts_the_header_is_no_evidence() {
    let play = play(Runtime::Ruby).receives_on(id('A'.into()), T, Some(1));
    let trace = Some(TraceId([2; 16]));
    let play = play.act(What::Called {
        call: id('a'.into()),
        by: Task { pid: PID, tid: T, ..Task::default() },
        connected: None,
        trace,
        ids: SmallVec::new(),
        digest: 0,
        operation: 0,
    });
    play.hears('a', T).answers('A', T).says("a<!");
}

// --- content ---

impl Play {
    fn receives_with(self, request: char, name: &str, tid: u32) -> Self {
        let ids = [PassedId::of(name)].into_iter().collect();
        let by = self.task(tid);
        self.act(What::Received { request: id(request.into()), by, trace: None, ids, digest: 0, operation: 0 })
    }

    fn calls_with(self, call: char, name: &str, tid: u32) -> Self {
        let ids = [PassedId::of(name)].into_iter().collect();
        let by = self.task(tid);
        self.act(What::Called { call: id(call.into()), by, connected: None, trace: None, ids, digest: 1, operation: 0 })
    }
}

#[test]
fn an_id_that_is_passed_on_names_the_request() {
    let play = play(Runtime::Go).receives_with('A', "first-id", T).receives_with('B', "second-id", T);
    play.calls_with('b', "second-id", U).calls_with('a', "first-id", 12).says("b<B(content) a<A(content)");
}

#[test]
fn an_id_of_several_requests_names_none() {
    let play = play(Runtime::Go).receives_with('A', "session-7", T).answers('A', T).receives_with('B', "session-7", T);
    play.calls_with('c', "session-7", U).answers('B', T).says("c<?");
}

#[test]
fn an_id_of_an_answered_request_keeps_its_call_from_others() {
    let play = play(Runtime::Ruby).receives_with('A', "first-id", T).answers('A', T).receives_with('B', "second-id", T);
    // Made too late, by a thread that holds another request by now.
    play.calls_with('a', "first-id", T).hears('a', T).answers('B', T).says("a<!");
}

// --- turn and reply ---

/// Two requests at a time, each with one call, as nginx serves them; `rounds` of it.
fn proxy(mut play: Play, rounds: u64) -> Play {
    for n in 0u64..rounds {
        let (a, b) = (10_000 + 4 * n, 10_002 + 4 * n);
        play = play.receives(a, T).calls(a + 1, T).receives(b, T).calls(b + 1, T);
        play = play.hears(b + 1, T).answers(b, T).hears(a + 1, T).answers(a, T);
    }
    play
}

fn all_right(play: &Play, rounds: u64) -> bool {
    (0..2 * rounds).all(|n| play.verdict(10_001 + 2 * n) == Some(Verdict::Is(id(10_000 + 2 * n), LinkMethod::Turn)))
}

#[test]
fn turns_are_believed_once_both_ways_have_agreed_often_enough() {
    let play = proxy(play(Runtime::Native), 4).waits_ms(200);
    assert_eq!(play.verdicts, [], "they could be wrong");
    let play = proxy(play, 0).waits_ms(6_000);
    assert!(play.verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Unknown), "and are not waited for for ever");
    let play = proxy(self::play(Runtime::Native), 20).waits_ms(200);
    assert!(all_right(&play, 20), "{:?}", play.verdicts);
    assert_eq!(play.released, 40, "nothing is kept");
}

#[test]
fn a_connection_is_made_in_the_turn_of_connect() {
    let play = proxy(play(Runtime::Native), 10).receives('A', T).receives('B', T);
    // Connected for A, before B was read; written afterwards.
    let play = play.calls_over_connection('a', T, 1_500).calls('b', T);
    let play = play.hears('a', T).answers('A', T).hears('b', T).answers('B', T).waits_ms(200);
    assert_eq!(play.verdict('a'), Some(Verdict::Is(id('A'.into()), LinkMethod::Turn)));
    assert_eq!(play.verdict('b'), Some(Verdict::Is(id('B'.into()), LinkMethod::Turn)));
}

#[test]
fn one_disagreement_ends_the_trust() {
    let play = proxy(play(Runtime::Native), 10).receives('A', T).receives('B', T);
    // A timer: the call was made for A, in the turn of B.
    let play = play.calls('a', T).hears('a', T).answers('A', T).answers('B', T);
    let play = play.receives('C', T).receives('D', T).calls('d', T).hears('d', T).answers('D', T).answers('C', T);
    let play = play.waits_ms(6_000);
    assert!(play.is_unknown('a') && play.is_unknown('d'));
    assert!(play.links.distrusted >= 1);
}

#[test]
fn calls_in_sequence_belong_to_the_request_of_the_first() {
    let play = proxy(play(Runtime::Native), 10).receives('A', T).calls('a', T).receives('B', T).calls('b', T);
    let play = play.hears('a', T).calls('c', T).hears('b', T).answers('B', T).hears('c', T).answers('A', T);
    let play = play.waits_ms(200);
    for call in ['a', 'c'] {
        assert_eq!(play.verdict(call), Some(Verdict::Is(id('A'.into()), LinkMethod::Turn)), "{call}");
    }
}

#[test]
fn calls_made_in_one_breath_are_one_requests_if_they_always_are() {
    let mut play = play(Runtime::Native);
    for n in 0u64..40 {
        let (a, b) = (10_000 + 8 * n, 10_004 + 8 * n);
        play = play.receives(a, T).calls(a + 1, T).calls(a + 2, T).receives(b, T).calls(b + 1, T).calls(b + 2, T);
        play = play.hears(b + 1, T).hears(a + 2, T).hears(a + 1, T).answers(a, T).hears(b + 2, T).answers(b, T);
    }
    let play = play.waits_ms(200);
    let wrong: Vec<_> = play
        .verdicts
        .iter()
        .filter(|(call, verdict)| match verdict {
            Verdict::Is(request, _) => request.socket.0 != call.socket.0 / 4 * 4,
            _ => false,
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(matches!(play.verdict(10_000_u64 + 8 * 39 + 2), Some(Verdict::Is(..))));
}

#[test]
fn an_answer_alone_is_believed_where_each_response_is_good_for_one() {
    // A timer before each call: calls are made in any turn, but answered in that of their response.
    let mut play = play(Runtime::Node);
    for n in 0u64..200 {
        let (a, b) = (10_000 + 4 * n, 10_002 + 4 * n);
        play = play.receives(a, T).receives(b, T).calls(a + 1, T).calls(b + 1, T);
        play = play.hears(a + 1, T).answers(a, T).hears(b + 1, T).answers(b, T);
    }
    let play = play.waits_ms(200);
    let wrong = play.verdicts.iter().filter(|(call, verdict)| match verdict {
        Verdict::Is(request, _) => request.socket.0 != call.socket.0 - 1,
        _ => false,
    });
    assert_eq!(wrong.count(), 0);
    assert_eq!(play.verdict(10_000_u64 + 4 * 199 + 1), Some(Verdict::Is(id(10_000 + 4 * 199), LinkMethod::Reply)));
}

#[test]
fn timers_before_and_after_leave_nothing() {
    let mut play = play(Runtime::Node);
    for n in 0u64..300 {
        let (a, b) = (10_000 + 4 * n, 10_002 + 4 * n);
        play = play.receives(a, T).receives(b, T).calls(a + 1, T).calls(b + 1, T);
        play = play.hears(a + 1, T).hears(b + 1, T).answers(a, T).answers(b, T);
    }
    let play = play.waits_ms(10_000);
    let unknown = play.verdicts.iter().all(|(call, _)| play.is_unknown(call.socket.0));
    assert!(unknown && play.verdicts.len() == 600, "{:?}", play.verdicts);
}

// --- the engine ---

#[test]
fn acts_are_judged_in_the_order_in_which_they_happened() {
    let mut play = play(Runtime::Ruby).calls('a', T).answers('A', T);
    // Its record came last.
    play.now -= 3_000;
    play.receives('A', T).waits_ms(1).says("a<A(thread)");
}

#[test]
fn processes_are_forgotten_with_their_end_and_up_to_a_bound() {
    let play = play(Runtime::Ruby).receives('A', T).calls('a', T);
    let play = play.act(What::Exited).says("a<?");
    assert_eq!((play.parenting.processes.len(), play.released), (0, 1));
    let mut play = play;
    for pid in 2..3 * MOST_IDLE as u32 {
        play.now += 1_000;
        let (request, at) = (id(pid.into()), Timestamp(play.now));
        let by = Task { pid, tid: pid, ..Task::default() };
        let acts = [
            What::Received { request, by, trace: None, ids: SmallVec::new(), digest: 0, operation: 0 },
            What::Over { request, answered: None, crowded: false },
        ];
        for what in acts {
            play.parenting.take(Act { at, pid, what }, &mut play.links);
        }
        play = play.waits_ms(200);
        assert!(play.parenting.processes.len() <= MOST_IDLE);
    }
}

#[test]
fn nothing_is_left_behind() {
    let play = proxy(play(Runtime::Native), 50).waits_ms(10_000);
    let process = &play.parenting.processes[&PID];
    assert!(process.is_idle() && process.calls.is_empty() && process.ordinals.is_empty(), "{process:?}");
    assert!(play.parenting.deadlines.is_empty());
}

// --- assigned ---

/// Requests that overlap by pairs, each with one call 3 ms after it came; the answer takes `answer_ms` more. All of it is
/// done by threads that change.
fn pairs(mut play: Play, from: u64, pairs: u64, apart_ms: u64) -> Play {
    for pair in from..from + pairs {
        let [first, second] = [10_000 + 2 * pair, 10_001 + 2 * pair];
        let [call, other] = [first + 1_000_000, second + 1_000_000];
        play = play.receives(first, 1).later(apart_ms).receives(second, 2).later(3 - apart_ms);
        play = play.calls(call, 3).later(apart_ms).calls(other, 4).later(3 - apart_ms);
        play = play.hears(call, 5).later(apart_ms).hears(other, 6).later(2 - apart_ms).answers(first, 7);
        play = play.later(apart_ms).answers(second, 8).later(20);
    }
    play.waits_ms(200)
}

impl Play {
    fn later(mut self, ms: u64) -> Self {
        self.now += ms * 1_000_000;
        self
    }

    /// One request at a time, with its one call.
    fn alone(mut self, from: u64, count: u64) -> Self {
        for request in from..from + count {
            let call = request + 1_000_000;
            self = self.receives(request, 1).later(3).calls(call, 3).later(3).hears(call, 5).later(2);
            self = self.answers(request, 7).later(20);
        }
        self.waits_ms(200)
    }
}

#[test]
fn what_was_seen_often_enough_tells_whose_call_it_is() {
    // The first call that nobody can tell wakes it; then one request at a time shows how the process works.
    let play = pairs(guessing(Runtime::Go), 0, 1, 2).alone(100, 200);
    let play = pairs(play, 1_000, 1_000, 2);
    for pair in 1_980..2_000 {
        for request in [10_000 + 2 * pair, 10_001 + 2 * pair] {
            let verdict = play.verdict(request + 1_000_000);
            let Some(Verdict::Likely([Some((of, confidence)), ..], Certainty::Enough)) = verdict else {
                panic!("{verdict:?} of {request}")
            };
            assert_eq!(of, id(request));
            assert!(confidence.share() >= 0.99 && confidence.share() < 1.0, "{confidence:?}");
        }
    }
}

#[test]
fn who_cannot_be_told_apart_is_linked_to() {
    let play = pairs(guessing(Runtime::Go), 0, 1, 2).alone(100, 200);
    let play = pairs(play, 1_000, 40, 0);
    let verdict = play.verdict(1_010_000 + 2 * 1_030_u64);
    let Some(Verdict::Likely([Some((_, first)), Some((_, second)), None], Certainty::Little)) = verdict else {
        panic!("{verdict:?}")
    };
    assert!(first.share() < 0.99 && first >= second, "{first:?} {second:?}");
}

#[test]
fn a_process_that_has_hardly_been_seen_gets_links_without_confidence() {
    let play = pairs(guessing(Runtime::Go), 0, 60, 2);
    let verdict = play.verdict(1_010_000 + 2 * 50_u64);
    let Some(Verdict::Likely([Some((_, confidence)), ..], Certainty::Little)) = verdict else { panic!("{verdict:?}") };
    assert_eq!(confidence, Confidence::default());
}

#[test]
fn a_process_whose_calls_are_all_found_is_not_looked_at() {
    // Threads that serve one request each.
    let mut play = guessing(Runtime::Native);
    for round in 0..20_u64 {
        let [first, second] = [10_000 + 2 * round, 10_001 + 2 * round];
        play = play.receives(first, 1).receives(second, 2).calls(first + 1_000_000, 1).calls(second + 1_000_000, 2);
        play = play.hears(first + 1_000_000, 1).hears(second + 1_000_000, 2).answers(first, 1).answers(second, 2);
    }
    let play = play.waits_ms(6_000);
    let said = play.verdict(1_010_000 + 2 * 19_u64);
    assert_eq!(said, Some(Verdict::Is(id(10_038), LinkMethod::Thread)));
    let sources = play.parenting.processes.values().flat_map(|process| &process.sources);
    let assigned: Vec<String> =
        sources.map(|source| format!("{source:?}")).filter(|source| source.starts_with("Assigned")).collect();
    assert!(assigned.len() == 1 && assigned[0].contains("awake: false"), "{assigned:?}");
}
