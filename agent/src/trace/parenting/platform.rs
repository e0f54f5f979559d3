// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keeps what virtual threads do away from evidence that goes by threads.
//!
//! In: acts of a process of the JVM, and a source that takes whoever acts for the thread that it does it on. Out: that source's claims,
//! made without the acts of virtual threads: those are one after the other on the thread that carries them, whatever they work for. It
//! claims nothing itself.

use spantap_common::identity::Virtual;

use super::{
    act::{Act, What},
    source::{Claims, Source},
};
use crate::{pairing::ExchangeId, time::Task, trace::LinkMethod};

/// A source that sees only what threads of the system do.
#[derive(Debug)]
pub(super) struct Platform<S>(pub(super) S);

impl<S: Source> Source for Platform<S> {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match &act.what {
            What::Received { by, .. } | What::Read { by, .. } if moves(*by) => {}
            What::Called { by, .. } if Virtual::from_word(by.identity[2]).is_some() => {}
            What::Ended { call, by: Some(by) } if moves(*by) => {
                self.0.saw(&Act { what: What::Ended { call: *call, by: None }, ..act.clone() }, claims);
            }
            // An answer to what a thread of the system has read tells the source that this thread does not answer itself.
            _ => self.0.saw(act, claims),
        }
    }

    fn holds(&self, call: ExchangeId) -> bool {
        self.0.holds(call)
    }

    fn overdue(&self, call: ExchangeId) -> Option<(ExchangeId, LinkMethod)> {
        self.0.overdue(call)
    }
}

/// Whether a virtual thread has moved the bytes of an act.
pub(super) fn moves(by: Task) -> bool {
    matches!(Virtual::from_word(by.identity[2]), Some(Virtual::Moved(_)))
}

#[cfg(test)]
mod tests {
    use spantap_common::identity::Virtual;

    use super::super::{
        Verdict,
        tests::{Play, id, play},
    };
    use crate::{process::Runtime, trace::LinkMethod};

    fn on(play: Play, virtual_thread: u64) -> Play {
        play.of_task([0, 0, Virtual::Moved(virtual_thread).to_word()])
    }

    fn on_none(play: Play) -> Play {
        play.of_task([0; 3])
    }

    #[test]
    fn the_virtual_thread_that_answers_made_the_calls_on_whichever_carrier() {
        let play = on(on(play(Runtime::Java), 100).receives('A', 1), 101).receives('B', 2);
        let play = on(on(play, 101).calls('b', 1).hears('b', 2), 100).calls('a', 2).hears('a', 1);
        let play = on(on(play, 101).answers('B', 1), 100).answers('A', 2);
        play.says("b<B(runtime) a<A(runtime)");
    }

    #[test]
    fn carriers_are_no_evidence() {
        // Each request is read and answered on one carrier, all the time, and the call in between is another's.
        let mut play = play(Runtime::Java);
        for n in 0..20_u64 {
            let (a, b, c) = (1_000 + n, 2_000 + n, 3_000 + n);
            play = on(on(play, a).receives(a, 1), b).receives(b, 2);
            play = on(play, 7).calls(c, 1).hears(c, 1);
            play = on(on(play, a).answers(a, 1), b).answers(b, 2);
        }
        let play = play.waits_ms(6_000);
        assert!((0..20_u64).all(|n| play.is_unknown(3_000 + n)));
    }

    #[test]
    fn threads_of_the_system_are_believed_beside_virtual_ones() {
        let mut play = on_none(play(Runtime::Java));
        for n in 0..10_u64 {
            let (a, b, c) = (1_000 + n, 2_000 + n, 3_000 + n);
            play = on_none(on(play, b).receives(b, 9)).receives(a, 1).calls(c, 1).hears(c, 1).answers(a, 1);
            play = on_none(on(play, b).answers(b, 8));
        }
        let (play, last) = (play.waits_ms(200), 1_009_u64);
        assert_eq!(play.verdict(2_000 + last), Some(Verdict::Is(id(last), LinkMethod::Thread)));
    }

    #[test]
    fn a_connection_was_made_for_what_is_written_to_it_first() {
        let play = on(on(play(Runtime::Java), 100).receives('A', 1), 101).receives('B', 2);
        let play = play.of_task([0, 0, Virtual::Connected(100).to_word()]).calls_over_connection('a', 30, 500);
        // What comes second on it is anybody's.
        let play = play.calls('x', 30);
        let play = on(on(play, 100).answers('A', 2), 101).answers('B', 1).waits_ms(6_000);
        assert!(play.is_unknown('x'));
        assert_eq!(play.verdict('a'), Some(Verdict::Is(id('A'.into()), LinkMethod::Runtime)));
    }
}
