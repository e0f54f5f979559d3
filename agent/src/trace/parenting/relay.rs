// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `content` of a process that does not read what it passes on: whoever forwards a port, or balances connections.
//!
//! In: digests of the heads that were received, and of those that calls began with. Out: the open request whose head a call
//! repeats byte for byte, once. The process is believed when [`PROOF`] calls in a row were repetitions, and until one is
//! not. Of several requests with the same head it is the one from whose connection the call's connection has repeated
//! before; where that is not known, nobody's.

use smallvec::SmallVec;

use super::{
    act::{Act, What},
    source::{Claims, Source},
};
use crate::{event::SocketId, pairing::ExchangeId, table::Table, time::Timestamp, trace::LinkMethod};

/// What one process repeats.
#[derive(Debug, Default)]
pub(super) struct Relay {
    /// Open requests that no call has repeated yet, by the digests of their heads.
    heads: Table<u64, SmallVec<[ExchangeId; 1]>>,
    /// The same, by themselves.
    open: Table<ExchangeId, u64>,
    /// Connections of requests, by the connection on which they are repeated. Law: pairs.len() <= MOST_PAIRS.
    pairs: Table<Connection, Connection>,
    /// The other way round.
    taken: Table<Connection, Connection>,
    /// Calls in a row that repeated a request.
    repetitions: u32,
}

/// A socket, and when it was introduced.
type Connection = (SocketId, Timestamp);

impl Source for Relay {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, digest, .. } => {
                self.heads.entry(digest).or_default().push(request);
                self.open.insert(request, digest);
            }
            What::Called { call, digest, .. } => {
                let Some(repeated) = self.repeated(call, digest) else { return };
                if let Some(request) = repeated
                    && self.repetitions > PROOF
                {
                    claims.is(call, request, LinkMethod::Content);
                }
            }
            What::Over { request, .. } => self.close(request),
            _ => {}
        }
    }
}

impl Relay {
    /// Whether the call repeats a request, and which where that is known.
    fn repeated(&mut self, call: ExchangeId, digest: u64) -> Option<Option<ExchangeId>> {
        let alike = self.heads.get(&digest).map(SmallVec::as_slice).unwrap_or_default();
        let connection = connection_of(call);
        let request = match self.pairs.get(&connection) {
            Some(pair) => alike.iter().find(|request| connection_of(**request) == *pair).map(|request| Some(*request)),
            None => {
                let mut free = alike.iter().filter(|request| !self.taken.contains_key(&connection_of(**request)));
                let first = free.next();
                first.map(|first| free.next().is_none().then_some(*first))
            }
        };
        let Some(request) = request else {
            // It says something of its own: whatever it repeated was by chance.
            (self.repetitions, self.pairs, self.taken) = (0, Table::default(), Table::default());
            return None;
        };
        self.repetitions = self.repetitions.saturating_add(1);
        if let Some(request) = request {
            self.close(request);
            if self.pairs.len() >= MOST_PAIRS {
                // Most of them are of connections that are gone: nobody says so here.
                (self.pairs, self.taken) = (Table::default(), Table::default());
            }
            self.pairs.insert(connection, connection_of(request));
            self.taken.insert(connection_of(request), connection);
        }
        Some(request)
    }

    fn close(&mut self, request: ExchangeId) {
        let Some(digest) = self.open.remove(&request) else { return };
        if let Some(alike) = self.heads.get_mut(&digest) {
            alike.retain(|open| *open != request);
            if alike.is_empty() {
                self.heads.remove(&digest);
            }
        }
    }
}

fn connection_of(exchange: ExchangeId) -> Connection {
    (exchange.socket, exchange.since)
}

/// A service that calls with what it was called with, by chance and eight times in a row, has nothing else to say.
const PROOF: u32 = 8;

/// As many connections as one process has at a time where it is built for many.
const MOST_PAIRS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Task;

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
                self.said.push(format!(
                    "{}.{}<{}.{}",
                    call.socket.0, call.ordinal, request.socket.0, request.ordinal
                ));
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
            (0..u64::from(PROOF)).fold(Self::default(), |play, turn| {
                play.receives(1000, turn, 500 + turn).calls(1001, turn, 500 + turn)
            })
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
    fn of_requests_that_are_alike_connections_tell() {
        let play = Play::proven().receives(1, 0, 7).receives(2, 0, 7).calls(11, 0, 7);
        play.says("");
        let play = Play::proven().receives(1, 0, 7).calls(11, 0, 7).receives(2, 0, 8).calls(12, 0, 8);
        let play = play.receives(1, 1, 9).receives(2, 1, 9).calls(12, 1, 9).calls(11, 1, 9);
        play.says("11.0<1.0 12.0<2.0 12.1<2.1 11.1<1.1");
    }

    #[test]
    fn a_request_is_repeated_once_and_while_it_is_open() {
        let play = Play::proven().receives(1, 0, 7).calls(11, 0, 7).calls(12, 0, 7);
        play.says("11.0<1.0");
        let over = What::Over { request: exchange(1, 0), answered: None, crowded: false };
        Play::proven().receives(1, 0, 7).act(over).calls(11, 0, 7).says("");
    }
}
