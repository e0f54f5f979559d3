// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Goroutines that call and do not answer: those that a request has started, and workers that are older than it.
//!
//! In: calls of [`super::runtime`] whose goroutine is not the one that answers. Out: claims that it is the call of the goroutine that
//! waits for its result, or of the one that has started it. Both can be otherwise: a channel may be that of many, such as one that hands out permits to
//! call, and a goroutine that a request has started may go on to work for all. So each is believed about one process, while it proves
//! itself, and needs no proof where no other request was open. It refuses to know how goroutines are found.
//!
//! ```text
//! request ─▶ goroutine H ─job─▶ worker W: calls c      H waits at the channel that W keeps for the result: c is of H's request
//! request ─▶ goroutine H ─go──▶ child  W: calls c      W began after the request came, and works for nobody else: the same
//! ```

use std::{collections::VecDeque, time::Duration};

use super::{runtime::Call, source::Claims, trust::Trust};
use crate::{pairing::ExchangeId, table::Table, time::Timestamp, trace::LinkMethod};

/// What is believed of one process's goroutines.
#[derive(Debug)]
pub(super) struct Goroutines {
    /// That those which a request's goroutine starts to make a call are waited for.
    waited_for: Trust,
    /// That those which a request's goroutine starts work for it alone.
    own: Trust,
    /// That a channel which goroutines keep while they call is that of one result.
    results: Trust,
    /// Those that have worked for a request that is answered. Law: worked.len() <= MOST_WORKED.
    worked: Table<u64, ()>,
    /// The same, while there is something to prove, by when it is proved: oldest first. Law: as for `worked`.
    watched: VecDeque<(Timestamp, u64)>,
}

/// When a goroutine began that another one has started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Start {
    /// While the request was open.
    During,
    /// Then, or before.
    InDoubt,
    /// Nobody knows.
    Unknown,
}

impl Default for Goroutines {
    fn default() -> Self {
        let trust = || Trust::after(PROOFS, LinkMethod::Runtime);
        Self { waited_for: trust(), own: trust(), results: trust(), worked: Table::default(), watched: VecDeque::new() }
    }
}

impl Goroutines {
    /// `task` has made a call.
    pub(super) fn called(&mut self, task: u64, at: Timestamp, claims: &mut Claims) {
        while let Some((_, watched)) = self.watched.pop_front_if(|(due, _)| *due <= at) {
            if self.worked.contains_key(&watched) {
                self.own.proved(claims);
            }
        }
        // Whatever it calls for now, the request that had started it is over.
        if self.worked.remove(&task).is_some() {
            self.own.failed(claims);
        }
    }

    /// A goroutine has called while the one that had started it served no request.
    pub(super) fn left_behind(&mut self, claims: &mut Claims) {
        self.waited_for.failed(claims);
    }

    /// Somebody waits for the result of `call`'s goroutine, one of `others`, latest first. Whether that answers requests itself, and the one that has
    /// started it. A channel that two keep at one time, for two that wait, is none of one result; two channels prove the contrary.
    pub(super) fn awaited<'a>(
        &mut self,
        call: &Call,
        others: impl Iterator<Item = &'a Call>,
        answers: bool,
        starter_answers: bool,
        claims: &mut Claims,
    ) {
        if call.kin != call.waits && starter_answers {
            self.own.failed(claims);
        }
        // When this one called it had the channel, and the other one had not yet let go of its own: it is not the same memory again.
        let is_other = |other: &&Call| other.channel != 0 && other.waits != call.waits && other.seen > call.at;
        let mut others = others.take(MOST_COMPARED).filter(is_other).peekable();
        let differs = others.peek().is_some();
        if answers || others.any(|other| other.channel == call.channel) {
            self.results.failed(claims);
        } else if differs {
            self.results.proved(claims);
        }
    }

    /// The goroutine `by` answers `request`, which `call` may have been made for. Whether another request was open meanwhile.
    pub(super) fn answered(
        &mut self,
        call: &Call,
        (request, by): (ExchangeId, u64),
        at: Timestamp,
        start: Start,
        crowded: bool,
        claims: &mut Claims,
    ) {
        let (is_awaited, is_child) = (call.waits == by, call.kin == by);
        if is_awaited && call.ended {
            // Whom it has started it waits for: there is nothing to prove.
            if (is_child || !crowded) && !self.results.has_fallen() {
                claims.is(call.call, request, LinkMethod::Runtime);
            } else {
                self.results.claim(call.call, request, claims);
            }
        }
        // What another one waits for is not this one's.
        if !is_child || (call.waits != 0 && !is_awaited) {
            return;
        }
        if !call.ended {
            self.waited_for.failed(claims);
        } else if start == Start::During {
            self.waited_for.proved(claims);
        }
        match start {
            Start::During if crowded => self.own.claim(call.call, request, claims),
            Start::During => claims.is(call.call, request, LinkMethod::Runtime),
            Start::InDoubt if call.ended && (self.own.is_proven() || !crowded) => {
                self.waited_for.claim(call.call, request, claims);
            }
            Start::InDoubt | Start::Unknown => {}
        }
        if start == Start::During {
            self.watch(call.task, at, crowded);
        }
    }

    /// A goroutine has worked for a request that is answered now. Alone, a worker would have nothing to do either.
    fn watch(&mut self, task: u64, at: Timestamp, crowded: bool) {
        if self.worked.len() >= MOST_WORKED || self.watched.len() >= MOST_WORKED {
            self.worked.clear();
            self.watched.clear();
        }
        if self.worked.insert(task, ()).is_none() && crowded {
            self.watched.push_back((at.plus(QUIET), task));
        }
    }

    /// Whether something is to be claimed of `call` as soon as it is believed.
    pub(super) fn holds(&self, call: ExchangeId) -> bool {
        self.waited_for.holds(call) || self.own.holds(call) || self.results.holds(call)
    }

    /// `call` is decided.
    pub(super) fn forget(&mut self, call: ExchangeId) {
        self.waited_for.forget(call);
        self.own.forget(call);
        self.results.forget(call);
    }
}

/// Proofs that each takes: goroutines that began in their request and that it has waited for, that were quiet when it was over, or whose
/// channels differed.
const PROOFS: u32 = 16;

/// A worker that has nothing to do for so long while other requests are open is none. It is a hundred times what a call takes at the
/// other end of a host.
const QUIET: Duration = Duration::from_millis(100);

/// Goroutines of a process that are remembered when their request is over: those of some seconds. Where they are cleared, one that works
/// on for others may be missed once.
const MOST_WORKED: usize = 16 << 10;

/// Undecided calls that one is compared with: those under way at the same time, of most processes all of them.
const MOST_COMPARED: usize = 256;

#[cfg(test)]
mod tests {
    use spantap_common::identity::{Batch, Go};

    use super::{
        super::{
            Verdict,
            tests::{Play, id, play},
        },
        *,
    };
    use crate::process::Runtime;

    fn with(play: Play, identity: [u64; 3]) -> Play {
        play.of_task(identity)
    }

    /// A process of whose goroutines nothing is known.
    fn fresh() -> Play {
        play(Runtime::Go)
    }

    /// One whose requests were seen to start goroutines that were quiet afterwards, and to wait for them.
    fn proven() -> Play {
        let mut play = fresh();
        for round in 0..u64::from(PROOFS) {
            play = with(play, [30, 64, 1]).receives_nth('Y', round, 1);
            play = with(play, [31, 64, 1]).receives_nth('Z', round, 2);
            play = with(play, [0, 100 + round, 30]).calls(1000 + round, 3).hears(1000 + round, 3);
            play = with(play, [30, 120, 1]).answers_nth('Y', round, 1);
            play = with(play, [31, 120, 1]).answers_nth('Z', round, 2);
        }
        play.waits_ms(QUIET.as_millis() as u64)
    }

    /// `worker` reads the response of `call`, and `waits` waits at `channel` for what it makes of that.
    fn awaited(play: Play, call: impl Into<u64>, worker: u64, channel: u64, waits: u64) -> Play {
        with(play, [channel | Go::AWAITED, worker, waits]).hears(call, 3)
    }

    fn answered(play: Play) -> Play {
        let play = with(play, [20, 280, 1]).answers('A', 1);
        with(play, [21, 280, 1]).answers('B', 2).waits_ms(200)
    }

    fn received(play: Play) -> Play {
        let play = with(play, [20, 264, 1]).receives('A', 1);
        with(play, [21, 264, 1]).receives('B', 2)
    }

    fn is(request: char) -> Option<Verdict> {
        Some(Verdict::Is(id(request.into()), LinkMethod::Runtime))
    }

    #[test]
    fn a_goroutine_that_began_after_the_request_is_its_own() {
        let play = received(proven());
        let play = with(play, [0, 270, 20]).calls('a', 3).hears('a', 3);
        assert_eq!(answered(play).verdict('a'), is('A'));
    }

    #[test]
    fn a_number_that_was_set_aside_when_the_request_came_is_new() {
        // 16 numbers are taken at a time: most goroutines get one of those that were counted long before. Without trust in that, the
        // request is the only one.
        let batch = Batch { next: 255, end: 265 }.to_word();
        for (number, verdict) in [(260, is('A')), (254, Some(Verdict::Unknown))] {
            let play = with(fresh(), [20, 264, batch]).receives('A', 1);
            let play = with(play, [0, number, 20]).calls('a', 3).hears('a', 3);
            let play = with(play, [20, 280, 1]).answers('A', 1).waits_ms(6_000);
            assert_eq!(play.verdict('a'), verdict, "{number}");
        }
    }

    #[test]
    fn a_pipelined_request_may_have_come_before_the_goroutines_of_the_one_ahead() {
        let play = with(proven(), [20, 264, 1]).receives('A', 1).receives_nth('A', 1, 1);
        let play = with(play, [21, 264, 1]).receives('B', 2);
        let play = with(play, [20, 280, 1]).answers('A', 1);
        let play = with(play, [0, 270, 20]).calls('a', 3).hears('a', 3);
        let play = with(play, [20, 280, 1]).answers_nth('A', 1, 1);
        let play = with(play, [21, 280, 1]).answers('B', 2);
        assert!(play.waits_ms(6_000).is_unknown('a'));
    }

    #[test]
    fn older_goroutines_are_believed_once_requests_were_seen_to_wait_for_theirs() {
        let old = |play: Play| answered(with(received(play), [0, 260, 20]).calls('a', 3).hears('a', 3));
        assert_eq!(old(proven()).verdict('a'), is('A'));
        assert!(old(fresh()).waits_ms(6_000).is_unknown('a'));
    }

    #[test]
    fn a_goroutine_that_works_on_when_its_request_is_over_is_a_worker() {
        let mut play = fresh();
        // A pool that grows: each request starts a worker, which then has a job of the next.
        for round in 0..2 * u64::from(PROOFS) {
            play = with(play, [30, 64, 1]).receives_nth('Y', round, 1);
            play = with(play, [31, 64, 1]).receives_nth('Z', round, 2);
            play = with(play, [0, 100 + round, 30]).calls(1000 + round, 3).hears(1000 + round, 3);
            play = with(play, [0, 99 + round, 30]).calls(2000 + round, 3).hears(2000 + round, 3);
            play = with(play, [30, 64, 1]).answers_nth('Y', round, 1).waits_ms(QUIET.as_millis() as u64);
            play = with(play, [31, 64, 1]).answers_nth('Z', round, 2);
        }
        for call in (1000_u64..).take(32).chain((2000_u64..).take(32)) {
            assert!(!matches!(play.verdict(call), Some(Verdict::Is(..))), "{call}");
        }
    }

    #[test]
    fn what_another_goroutine_waits_for_is_not_the_starters() {
        let play = with(received(proven()), [0, 270, 20]).calls('a', 3);
        let play = awaited(play, 'a', 270, 0xc0, 21);
        assert!(answered(play).waits_ms(6_000).is_unknown('a'), "which of both it is takes proof");
    }

    #[test]
    fn a_worker_works_for_the_goroutine_that_waits_for_its_result() {
        let mut play = fresh();
        for round in 0..u64::from(PROOFS) {
            play = with(play, [20, 64, 1]).receives_nth('A', round, 1);
            play = with(play, [21, 64, 1]).receives_nth('B', round, 2);
            play = with(play, [0, 5, 1]).calls(1000 + round, 3);
            play = with(play, [0, 6, 1]).calls(2000 + round, 3);
            play = awaited(play, 1000 + round, 5, 0xc0, 21);
            play = awaited(play, 2000 + round, 6, 0xc8, 20);
            play = with(play, [20, 64, 1]).answers_nth('A', round, 1);
            play = with(play, [21, 64, 1]).answers_nth('B', round, 2);
        }
        let play = play.waits_ms(200);
        for round in 0..u64::from(PROOFS) {
            let of = |connection: char| {
                let request = ExchangeId { ordinal: round, ..id(connection.into()) };
                Some(Verdict::Is(request, LinkMethod::Runtime))
            };
            assert_eq!((play.verdict(1000 + round), play.verdict(2000 + round)), (of('B'), of('A')), "{round}");
        }
    }

    #[test]
    fn a_worker_of_the_only_request_needs_no_proof() {
        let play = with(fresh(), [20, 64, 1]).receives('A', 1);
        let play = awaited(with(play, [0, 5, 1]).calls('a', 3), 'a', 5, 0xc0, 20);
        // The goroutine that waits is gone before the response has come.
        let play = with(play, [0, 6, 1]).calls('b', 3);
        let play = with(play, [20, 64, 1]).answers('A', 1).waits_ms(6_000);
        assert_eq!(play.verdict('a'), is('A'));
        assert!(play.is_unknown('b'));
    }

    #[test]
    fn a_channel_at_which_goroutines_of_two_requests_wait_is_nobodys_result() {
        let mut play = fresh();
        for round in 0..4 * u64::from(PROOFS) {
            play = with(play, [20, 64, 1]).receives_nth('A', round, 1);
            play = with(play, [21, 64, 1]).receives_nth('B', round, 2);
            play = with(play, [0, 5, 1]).calls(1000 + round, 3);
            play = with(play, [0, 6, 1]).calls(2000 + round, 3);
            // Permits to call: whoever waits gets the next.
            play = awaited(play, 1000 + round, 5, 0xc0, 21);
            play = awaited(play, 2000 + round, 6, 0xc0, 20);
            play = with(play, [20, 64, 1]).answers_nth('A', round, 1);
            play = with(play, [21, 64, 1]).answers_nth('B', round, 2);
        }
        let play = play.waits_ms(6_000);
        for call in (1000_u64..).take(64).chain((2000_u64..).take(64)) {
            assert!(play.is_unknown(call), "{call}");
        }
    }

    #[test]
    fn a_child_that_its_request_waits_for_needs_no_proof() {
        let play = with(received(fresh()), [0, 60, 20]).calls('a', 3);
        assert_eq!(answered(awaited(play, 'a', 60, 0xc0, 20)).verdict('a'), is('A'));
    }
}
