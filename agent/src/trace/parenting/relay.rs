// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `content` of a process that passes on what it does not change: whoever forwards a port, or balances connections.
//!
//! In: digests of the heads that were received, and of those that calls began with. Out: the open request whose head a call
//! repeats byte for byte, once; nothing where several have the same. The process is believed when [`PROOF`] calls in a row
//! were repetitions, and until one is not.

use smallvec::SmallVec;

use super::{
    act::{Act, What},
    source::{Claims, Source},
};
use crate::{pairing::ExchangeId, table::Table, trace::LinkMethod};

/// What one process repeats.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Open requests that no call is known to have repeated, by the digests of their heads.
    heads: Table<u64, Alike>,
    /// The same, by themselves.
    open: Table<ExchangeId, u64>,
    /// Calls in a row that repeated a request.
    repetitions: u32,
}

/// Open requests with the same head.
#[derive(Debug, Default)]
struct Alike {
    requests: SmallVec<[ExchangeId; 1]>,
    /// One of those that were among them was repeated, and nobody knows which.
    doubtful: bool,
}

impl Source for Relay {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, digest, .. } => {
                self.heads.entry(digest).or_default().requests.push(request);
                self.open.insert(request, digest);
            }
            What::Called { call, digest, .. } => {
                let Some(alike) = self.heads.get_mut(&digest) else {
                    // It says something of its own: whatever it repeated was by chance.
                    self.repetitions = 0;
                    return;
                };
                self.repetitions = self.repetitions.saturating_add(1);
                if let ([request], false) = (alike.requests.as_slice(), alike.doubtful) {
                    let request = *request;
                    self.close(request);
                    if self.repetitions > PROOF {
                        claims.is(call, request, LinkMethod::Content);
                    }
                } else {
                    alike.doubtful = true;
                }
            }
            What::Over { request, .. } => self.close(request),
            _ => {}
        }
    }
}

impl Relay {
    fn close(&mut self, request: ExchangeId) {
        let Some(digest) = self.open.remove(&request) else { return };
        if let Some(alike) = self.heads.get_mut(&digest) {
            alike.requests.retain(|open| *open != request);
            if alike.requests.is_empty() {
                self.heads.remove(&digest);
            }
        }
    }
}

/// A service that calls with what it was called with, by chance and eight times in a row, has nothing else to say.
const PROOF: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::SocketId,
        time::{Task, Timestamp},
    };

    /// A process, and what is claimed of its calls: `call<request`.
    #[derive(Default)]
    struct Play {
        relay: Relay,
        said: Vec<String>,
    }

    fn exchange(connection: u64, ordinal: u64) -> ExchangeId {
        ExchangeId { socket: SocketId(connection), since: Timestamp(1), ordinal }
    }

    impl Play {
        fn act(mut self, what: What) -> Self {
            let mut claims = Claims::default();
            self.relay.saw(&Act { at: Timestamp(1), pid: 1, what }, &mut claims);
            while let Some((call, claim)) = claims.next() {
                let Some(super::super::source::Claim::Is(request, LinkMethod::Content)) = claim.first() else {
                    panic!("{claim:?}")
                };
                self.said.push(format!("{}.{}<{}.{}", call.socket.0, call.ordinal, request.socket.0, request.ordinal));
            }
            self
        }

        fn receives(self, connection: u64, ordinal: u64, digest: u64) -> Self {
            let request = exchange(connection, ordinal);
            let (by, ids) = (Task::default(), SmallVec::new());
            self.act(What::Received { request, by, trace: None, ids, digest, operation: 0 })
        }

        fn calls(self, connection: u64, ordinal: u64, digest: u64) -> Self {
            let (call, by, ids) = (exchange(connection, ordinal), Task::default(), SmallVec::new());
            self.act(What::Called { call, by, connected: None, trace: None, ids, digest, operation: 0 })
        }

        /// Enough to be believed, on connections from 1000.
        fn proven() -> Self {
            (0..u64::from(PROOF))
                .fold(Self::default(), |play, turn| play.receives(1000, turn, 500 + turn).calls(1001, turn, 500 + turn))
        }

        fn says(&self, expected: &str) {
            assert_eq!(self.said.join(" "), expected);
        }
    }

    #[test]
    fn who_repeats_everything_is_believed_after_a_while() {
        let play = Play::proven();
        play.says("");
        let play = play.receives(1, 0, 7).receives(2, 0, 8).calls(12, 0, 8).calls(11, 0, 7);
        play.says("12.0<2.0 11.0<1.0");
    }

    #[test]
    fn who_says_something_of_its_own_is_believed_no_more() {
        let play = Play::proven().receives(1, 0, 7).calls(11, 0, 9).receives(1, 1, 7).calls(11, 1, 7);
        play.says("");
    }

    #[test]
    fn of_requests_that_are_alike_none_is_guessed() {
        let play = Play::proven().receives(1, 0, 7).receives(2, 0, 7).calls(11, 0, 7);
        let over = |connection| What::Over { request: exchange(connection, 0), answered: None, crowded: false };
        // Which one is left is not known to be the one that was not repeated.
        let play = play.act(over(1)).calls(12, 0, 7).act(over(2));
        play.says("");
        play.receives(3, 0, 7).calls(13, 0, 7).says("13.0<3.0");
    }

    #[test]
    fn a_request_is_repeated_once_and_while_it_is_open() {
        let play = Play::proven().receives(1, 0, 7).calls(11, 0, 7).calls(12, 0, 7);
        play.says("11.0<1.0");
        let over = What::Over { request: exchange(1, 0), answered: None, crowded: false };
        Play::proven().receives(1, 0, 7).act(over).calls(11, 0, 7).says("");
    }
}
