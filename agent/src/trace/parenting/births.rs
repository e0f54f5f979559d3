// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls of threads that the thread of a request has started, directly or by others that it started, and that are gone
//! when the request is over: they worked for nobody else.
//!
//! In: threads that begin and end, and of `thread` which request the starter holds, and how that ends. Out: claims. A
//! thread that outlives its request says nothing: pools start their threads on demand and give them anybody's work. A
//! process in which such threads make calls is a process with pools, and is not believed until many others have ended in
//! time. Nor does a second call say anything of a thread, unless all of them make as many. A thread whose end was not seen
//! makes its whole request doubtful.
//!
//! ```text
//! T reads R ── T starts U ············ U ends ── T answers R, to the last byte      c is R's
//!                  U writes c ── U reads c's response ─┘
//! ```

use std::{collections::VecDeque, mem, time::Duration};

use smallvec::SmallVec;

use super::{source::Claims, trust::Trust};
use crate::{pairing::ExchangeId, table::Table, time::Timestamp, trace::LinkMethod};

/// The threads of one process that were started for requests.
#[derive(Debug)]
pub(super) struct Births {
    /// Those that may still work for their request, by thread id. Law: living.len() <= MOST_LIVING; each is in the
    /// family of its request.
    living: Table<u32, Born>,
    /// Of requests that are open, or over since a moment.
    families: Table<ExchangeId, Family>,
    /// Undecided calls of such threads. Law: calls.len() <= MOST_CALLS.
    calls: Table<ExchangeId, Made>,
    /// Requests that were over before a thread of theirs that has called, and until when that is expected to end.
    lingering: VecDeque<(Timestamp, ExchangeId)>,
    /// Threads so far.
    born: u64,
    trust: Trust,
    usual: Usual,
}

#[derive(Clone, Copy, Debug)]
struct Born {
    request: ExchangeId,
    /// With its id, its identity.
    started: u64,
    /// How many came before.
    ordinal: u64,
    /// How many calls it has made.
    calls: u32,
}

/// What was started for one request.
#[derive(Debug, Default)]
struct Family {
    /// By how many came before, and their ids.
    living: SmallVec<[(u64, u32); 2]>,
    /// Calls of all of them, oldest first, some of which are decided by now. Law: calls.len() <= MOST_CALLS.
    calls: VecDeque<ExchangeId>,
    /// A thread that has called has ended.
    ended: bool,
    /// A thread of it is not what it seemed to be.
    doubtful: bool,
    over: Option<Over>,
}

#[derive(Clone, Copy, Debug)]
struct Made {
    request: ExchangeId,
    /// By which thread.
    ordinal: u64,
    /// It is what the thread was started for: its first; or any, where all threads make as many.
    own: bool,
}

/// How many calls the threads of this process make, as long as that is always the same.
#[derive(Clone, Copy, Debug, Default)]
struct Usual {
    calls: u32,
    /// Threads in a row.
    row: u32,
}

/// How a request was over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    /// When.
    pub(super) at: Timestamp,
    /// Another request was open meanwhile.
    pub(super) crowded: bool,
}

impl Default for Births {
    fn default() -> Self {
        Self {
            living: Table::default(),
            families: Table::default(),
            calls: Table::default(),
            lingering: VecDeque::new(),
            born: 0,
            trust: Trust::after(PROOFS, LinkMethod::Thread),
            usual: Usual::default(),
        }
    }
}

impl Births {
    /// A thread was started by one that works for `request`.
    pub(super) fn began(&mut self, tid: u32, started: u64, request: ExchangeId, claims: &mut Claims) {
        self.doubt(tid);
        if self.living.len() >= MOST_LIVING {
            claims.unfollowed();
            return;
        }
        self.living.insert(tid, Born { request, started, ordinal: self.born, calls: 0 });
        self.families.entry(request).or_default().living.push((self.born, tid));
        self.born += 1;
    }

    /// The open request that the thread was started for.
    pub(super) fn request_of(&self, tid: u32) -> Option<ExchangeId> {
        let request = self.living.get(&tid)?.request;
        self.families.get(&request).is_some_and(|family| family.over.is_none()).then_some(request)
    }

    /// The thread is not what it seemed to be: the end of one with this id was not seen, or it serves requests itself.
    pub(super) fn doubt(&mut self, tid: u32) {
        if let Some(born) = self.living.remove(&tid)
            && let Some(family) = self.families.get_mut(&born.request)
        {
            family.doubtful = true;
            family.living.retain(|(ordinal, _)| *ordinal != born.ordinal);
        }
    }

    /// A thread has made a call.
    pub(super) fn called(&mut self, call: ExchangeId, tid: u32, claims: &mut Claims) {
        let Some(born) = self.living.get_mut(&tid) else { return };
        let Some(family) = self.families.get_mut(&born.request) else { return };
        if family.over.is_some() {
            // It goes on when its request is over: whose work that is nobody knows, nor whose it was before.
            let request = born.request;
            self.outlived(request, claims);
            return;
        }
        born.calls = born.calls.saturating_add(1);
        if self.calls.len() >= MOST_CALLS || family.calls.len() >= MOST_CALLS {
            claims.unfollowed();
        } else {
            self.calls.insert(call, Made { request: born.request, ordinal: born.ordinal, own: born.calls == 1 });
            family.calls.push_back(call);
        }
    }

    /// A thread has ended.
    pub(super) fn ended(&mut self, tid: u32, started: u64, claims: &mut Claims) {
        let Some(born) = self.living.get(&tid).copied() else { return };
        if born.started != started {
            self.doubt(tid);
            return;
        }
        self.living.remove(&tid);
        let Some(family) = self.families.get_mut(&born.request) else { return };
        family.living.retain(|(ordinal, _)| *ordinal != born.ordinal);
        family.ended |= born.calls > 0;
        // Where threads take work off a queue before they end, what follows the first call may be another request's; but then
        // it is not with each of them that there is as much to do.
        if born.calls > 0 && self.usual.is(born.calls) && born.calls > 1 {
            for call in &family.calls {
                if let Some(made) = self.calls.get_mut(call).filter(|made| made.ordinal == born.ordinal) {
                    made.own = true;
                }
            }
        }
        if let Some(over) = family.over {
            self.claim(born.request, over, claims);
        }
    }

    /// A request is over, answered by the thread that had read it, in a process whose threads do one thing at a time.
    pub(super) fn over(&mut self, request: ExchangeId, over: Over, claims: &mut Claims) {
        let Some(family) = self.families.get_mut(&request) else { return };
        family.over = Some(over);
        // A thread that has not called so far has told nothing, and will not.
        let living = &mut self.living;
        family.living.retain(|(_, tid)| {
            let called = living.get(tid).is_some_and(|born| born.calls > 0);
            if !called {
                living.remove(tid);
            }
            called
        });
        if !family.living.is_empty() {
            self.lingering.push_back((over.at.plus(GRACE), request));
        } else if over.crowded && family.ended && !family.doubtful {
            self.trust.proved(claims);
        }
        self.claim(request, over, claims);
    }

    /// A request is over, and nothing is known of those that worked for it.
    pub(super) fn dropped(&mut self, request: ExchangeId) {
        let Some(family) = self.families.remove(&request) else { return };
        for (_, tid) in family.living {
            self.living.remove(&tid);
        }
        for call in family.calls {
            self.calls.remove(&call);
        }
    }

    /// It is `now`: threads that are still there will not end.
    pub(super) fn expire(&mut self, now: Timestamp, claims: &mut Claims) {
        while let Some((until, request)) = self.lingering.front().copied() {
            if until >= now {
                break;
            }
            self.lingering.pop_front();
            if self.families.contains_key(&request) {
                self.outlived(request, claims);
            }
        }
    }

    /// Threads of this process hand requests over: those that they start do as well.
    pub(super) fn failed(&mut self, claims: &mut Claims) {
        self.trust.failed(claims);
    }

    /// `call` is decided.
    pub(super) fn forget(&mut self, call: ExchangeId) {
        self.trust.forget(call);
        let Some(made) = self.calls.remove(&call) else { return };
        let Some(family) = self.families.get_mut(&made.request) else { return };
        while family.calls.front().is_some_and(|call| !self.calls.contains_key(call)) {
            family.calls.pop_front();
        }
    }

    /// Whether it may still come to know whose `call` is.
    pub(super) fn holds(&self, call: ExchangeId) -> bool {
        self.trust.holds(call) || (self.trust.may_claim() && self.calls.contains_key(&call))
    }

    /// The request of a call whose thread has ended, while the request is open.
    pub(super) fn overdue(&self, call: ExchangeId) -> Option<ExchangeId> {
        let made = self.calls.get(&call)?;
        let family = self.families.get(&made.request)?;
        let is_told = made.own && family.over.is_none() && family.has_ended(made) && self.trust.is_proven();
        is_told.then_some(made.request)
    }

    /// Claims what the threads have called that have ended by now, and forgets the family when all of them have.
    fn claim(&mut self, request: ExchangeId, over: Over, claims: &mut Claims) {
        let Some(family) = self.families.get_mut(&request) else { return };
        for call in mem::take(&mut family.calls) {
            let Some(made) = self.calls.get(&call) else { continue };
            if !family.has_ended(made) {
                family.calls.push_back(call);
                continue;
            }
            let made = *made;
            self.calls.remove(&call);
            // Alone in its process, a request has no rival whose call this could be.
            if !over.crowded && !self.trust.has_fallen() {
                claims.is(call, request, LinkMethod::Thread);
            } else if made.own {
                self.trust.claim(call, request, claims);
            }
        }
        if family.living.is_empty() {
            self.dropped(request);
        }
    }

    /// A thread that had called for the request was still there when it was over.
    fn outlived(&mut self, request: ExchangeId, claims: &mut Claims) {
        self.trust.failed(claims);
        self.dropped(request);
    }
}

impl Usual {
    /// Whether a thread that has made this many calls is like those before it.
    fn is(&mut self, calls: u32) -> bool {
        if calls == self.calls {
            self.row = self.row.saturating_add(1);
        } else {
            *self = Self { calls, row: 1 };
        }
        self.row >= PROOFS
    }
}

impl Family {
    /// Whether the thread that made this call has ended, as it was seen to.
    fn has_ended(&self, made: &Made) -> bool {
        !self.doubtful && self.living.iter().all(|(ordinal, _)| *ordinal != made.ordinal)
    }
}

/// Requests whose threads had called and were gone in time, while others were open, before such threads are believed; and
/// threads with equally many calls. A pool whose threads end after 2 ms without work looks like that for more than 16 requests
/// in a row where two are open at once (2026-11); nobody has one whose threads wait for less than half a second.
const PROOFS: u32 = 64;

/// How long after its request a thread may take to end that has nothing more to do but that. Whoever waits for a thread is
/// often told by it before it has ended, and then on a busy machine is first; nobody lets an idle thread of a pool go so
/// soon (the shortest that are known wait for half a second).
const GRACE: Duration = Duration::from_millis(100);

/// Threads of one process that are followed at one time: as many as a thousand requests at once start, a few each.
const MOST_LIVING: usize = 4 << 10;

/// Calls of one process by threads that are followed: the same.
const MOST_CALLS: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{
            Verdict,
            tests::{Play, id, play},
        },
        *,
    };
    use crate::process::Runtime;

    const T: u32 = 10;
    const V: u32 = 20;
    const U: u32 = 30;
    const W: u32 = 31;

    /// A process in which threads that requests have started were gone in time, while another request was open.
    fn believed() -> Play {
        proven(play(Runtime::Python), u64::from(PROOFS))
    }

    fn proven(mut play: Play, times: u64) -> Play {
        for n in 0..times {
            let (a, b, c) = (1_000 + n, 2_000 + n, 3_000 + n);
            play = play.receives(a, T).receives(b, V).starts(T, U).calls(c, U).hears(c, U).ends(U);
            play = play.answers(a, T).answers(b, V);
        }
        play
    }

    fn is(request: char) -> Option<Verdict> {
        Some(Verdict::Is(id(request.into()), LinkMethod::Thread))
    }

    #[test]
    fn a_thread_that_is_gone_in_time_called_for_the_request_of_its_starter() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).starts(V, W);
        let play = play.calls('b', W).calls('a', U).hears('a', U).ends(U).hears('b', W).ends(W);
        let play = play.answers('A', T).answers('B', V).waits_ms(200);
        assert_eq!((play.verdict('a'), play.verdict('b')), (is('A'), is('B')));
    }

    #[test]
    fn a_request_alone_needs_no_proof() {
        let play = play(Runtime::Python).receives('A', T).starts(T, U).calls('a', U).hears('a', U).ends(U);
        play.answers('A', T).says("a<A(thread)");
        let play = super::super::tests::play(Runtime::Python).receives('A', T).starts(T, U).calls('a', U).hears('a', U);
        play.calls('b', U).hears('b', U).ends(U).answers('A', T).says("a<A(thread) b<A(thread)");
    }

    #[test]
    fn a_process_is_believed_after_some_proofs_and_then_from_the_first() {
        let few = proven(play(Runtime::Python), u64::from(PROOFS) - 1).waits_ms(200);
        assert_eq!(few.verdict(3_000_u64), None);
        let play = proven(few, 1).waits_ms(200);
        assert_eq!(play.verdict(3_000_u64), Some(Verdict::Is(id(1_000), LinkMethod::Thread)));
    }

    #[test]
    fn a_thread_that_does_more_than_the_others_may_have_taken_it_off_a_queue() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U);
        let play = play.calls('b', U).hears('b', U).ends(U).answers('A', T).answers('B', V).waits_ms(200);
        assert_eq!(play.verdict('a'), is('A'), "it was started for that");
        assert!(play.is_unknown('b'));
    }

    #[test]
    fn threads_that_all_do_the_same_may_do_several_things() {
        let mut play = play(Runtime::Python);
        for n in 0..u64::from(PROOFS) {
            let (a, b, c, d) = (1_000 + n, 2_000 + n, 3_000 + n, 4_000 + n);
            play = play.receives(a, T).receives(b, V).starts(T, U).calls(c, U).hears(c, U).calls(d, U).hears(d, U);
            play = play.ends(U).answers(a, T).answers(b, V);
        }
        let play = play.receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U);
        let play = play.calls('b', U).hears('b', U).ends(U).answers('A', T).answers('B', V).waits_ms(200);
        assert_eq!((play.verdict('a'), play.verdict('b')), (is('A'), is('A')));
        assert!(play.is_unknown(4_000_u64), "that was not known yet");
    }

    #[test]
    fn threads_of_threads_follow_the_chain() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).starts(U, W).ends(U);
        let play = play.calls('a', W).hears('a', W).ends(W).answers('A', T).answers('B', V).waits_ms(200);
        assert_eq!(play.verdict('a'), is('A'));
    }

    #[test]
    fn a_thread_that_outlives_its_request_says_nothing() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U);
        let play = play.answers('A', T).waits_ms(150).answers('B', V).ends(U).waits_ms(6_000);
        assert!(play.is_unknown('a'));
        // Nor does one that has ended in time, from then on.
        let play = play.receives('C', T).receives('D', V).starts(T, U).calls('c', U).hears('c', U).ends(U);
        let play = play.answers('C', T).answers('D', V).waits_ms(6_000);
        assert!(play.is_unknown('c'));
    }

    #[test]
    fn a_thread_may_take_a_moment_to_end() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U);
        let play = play.answers('A', T).answers('B', V).waits_ms(50);
        assert_eq!(play.verdict('a'), None);
        assert_eq!(play.ends(U).waits_ms(50).verdict('a'), is('A'));
    }

    #[test]
    fn a_thread_of_a_pool_is_nobodys() {
        // T starts a thread of the pool, which then works for V's request, and for one that nobody knows.
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('b', U).hears('b', U);
        let play = play.answers('A', T).calls('c', U).hears('c', U).answers('B', V).ends(U).waits_ms(6_000);
        assert!(play.is_unknown('b') && play.is_unknown('c'));
    }

    #[test]
    fn a_pool_that_grows_is_never_believed() {
        let mut play = play(Runtime::Python);
        // One request at a time starts a thread, which stays; the next two are served by it.
        for n in 0_u64..20 {
            let thread = 100 + n as u32;
            play = play.receives(1_000 + n, T).receives(2_000 + n, V).starts(T, thread);
            play = play.calls(3_000 + n, thread).hears(3_000 + n, thread);
            play = play.answers(2_000 + n, V).answers(1_000 + n, T).waits_ms(150);
        }
        for n in 0_u64..20 {
            play = play.ends(100 + n as u32);
        }
        let play = play.waits_ms(6_000);
        for n in 0_u64..20 {
            assert!(play.is_unknown(3_000 + n), "{n}");
        }
    }

    #[test]
    fn a_thread_without_calls_may_stay() {
        // One that flushes a log, begun with the first request that had something to log.
        let play = believed().receives('A', T).receives('B', V).starts(T, W).starts(T, U);
        let play = play.calls('a', U).hears('a', U).ends(U).answers('A', T).answers('B', V).waits_ms(200);
        assert_eq!(play.verdict('a'), is('A'));
        let play = play.receives('C', T).receives('D', V).starts(T, U).calls('c', U).hears('c', U).ends(U);
        let play = play.calls('x', W).hears('x', W).answers('C', T).answers('D', V).waits_ms(200);
        assert_eq!(play.verdict('c'), is('C'));
        assert!(play.is_unknown('x'), "it was begun for a request that is over");
    }

    #[test]
    fn an_end_that_was_not_seen_leaves_the_whole_request_in_doubt() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U);
        // Another thread of the same id: neither the end of the first nor its own beginning came through.
        let play = play.ends_another(U).answers('A', T).answers('B', V).waits_ms(200);
        assert!(play.is_unknown('a'));
        let play = play.receives('C', T).receives('D', V).starts(T, U).calls('c', U).hears('c', U).starts(V, U);
        let play = play.calls('d', U).hears('d', U).ends(U).answers('C', T).answers('D', V).waits_ms(200);
        assert!(play.is_unknown('c'));
        assert_eq!(play.verdict('d'), is('D'));
    }

    #[test]
    fn a_beginning_that_was_not_seen_is_no_evidence() {
        let play = believed().receives('A', T).receives('B', V).calls('a', U).hears('a', U).ends(U);
        assert!(play.answers('A', T).answers('B', V).waits_ms(200).is_unknown('a'));
    }

    #[test]
    fn a_thread_that_serves_requests_itself_helps_nobody() {
        let play = believed().receives('A', T).starts(T, U).receives('B', U).calls('b', U).hears('b', U);
        let play = play.answers('B', U).calls('x', U).hears('x', U).ends(U).answers('A', T).waits_ms(200);
        assert_eq!(play.verdict('b'), is('B'));
        assert!(play.is_unknown('x'));
    }

    #[test]
    fn a_request_that_another_thread_answers_has_no_threads_of_its_own() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U).ends(U);
        assert!(play.answers('A', W).answers('B', V).waits_ms(200).is_unknown('a'));
    }

    #[test]
    fn a_process_that_ends_has_proven_nothing() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U).ends(U);
        assert!(play.gives_up('A').gives_up('B').waits_ms(200).is_unknown('a'));
    }

    #[test]
    fn a_call_does_not_wait_for_ever_for_the_answer() {
        let play = believed().receives('A', T).receives('B', V).starts(T, U).calls('a', U).hears('a', U);
        let living = play.starts(T, W).calls('b', W).hears('b', W).ends(U).waits_ms(6_000);
        assert_eq!(living.verdict('a'), is('A'), "its thread has ended");
        assert!(living.is_unknown('b'), "its thread may still do anything");
    }

    #[test]
    fn threads_beyond_the_bound_are_counted_and_not_followed() {
        let mut play = believed().receives('A', T).receives('B', V);
        for n in 0..=MOST_LIVING as u32 {
            play = play.starts(T, 1_000 + n);
        }
        let last = 1_000 + MOST_LIVING as u32;
        let play = play.calls('a', last).hears('a', last).ends(last).answers('A', T).answers('B', V).waits_ms(200);
        assert!(play.is_unknown('a'));
        assert_eq!(play.unfollowed(), 1);
    }

    fn keeps_its_laws(births: &Births) {
        assert!(births.living.len() <= MOST_LIVING && births.calls.len() <= MOST_CALLS);
        for (tid, born) in &births.living {
            let family = births.families.get(&born.request).expect("the family of a thread");
            assert!(family.living.contains(&(born.ordinal, *tid)), "{tid} is in its family");
        }
        let members = births.families.values().map(|family| family.living.len()).sum::<usize>();
        assert_eq!(members, births.living.len());
        for (call, made) in &births.calls {
            let family = births.families.get(&made.request).expect("the family of a call");
            assert!(family.calls.contains(call));
        }
    }

    proptest! {
        #[test]
        fn nothing_is_left_behind(
            steps in prop::collection::vec((0..8_u8, 0..6_u32, 0..4_u64, 0..60_u64), 0..300)
        ) {
            let (mut births, mut claims) = (Births::default(), Claims::default());
            let mut now = Timestamp(0);
            for (call, (step, tid, request, wait)) in (1_000..).zip(steps) {
                now = now.plus(Duration::from_millis(wait));
                births.expire(now, &mut claims);
                let request = id(request);
                let is_open = births.families.get(&request).is_none_or(|family| family.over.is_none());
                match step {
                    0 | 1 if is_open => births.began(tid, 7, request, &mut claims),
                    2 | 3 => births.called(id(call), tid, &mut claims),
                    4 => births.ended(tid, 7, &mut claims),
                    5 => births.ended(tid, 8, &mut claims),
                    6 if is_open => births.over(request, Over { at: now, crowded: tid % 2 == 0 }, &mut claims),
                    7 => births.forget(id(call - wait)),
                    _ => births.doubt(tid),
                }
                keeps_its_laws(&births);
            }
            for request in 0..4 {
                births.over(id(request), Over { at: now, crowded: true }, &mut claims);
            }
            births.expire(now.plus(2 * GRACE), &mut claims);
            keeps_its_laws(&births);
            prop_assert_eq!((births.living.len(), births.families.len(), births.calls.len()), (0, 0, 0));
            prop_assert_eq!(births.lingering.len(), 0);
        }
    }
}
