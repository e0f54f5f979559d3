// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From messages to exchanges: which response answers which request.
//!
//! In: the messages of one connection, and its end. Out: [`Step`]s that open and close exchanges; every request that
//! opens one closes it exactly once. It does not know protocols: a [`Key`] says how the two belong together.

use std::collections::VecDeque;

use opentelemetry_semantic_conventions::attribute::ERROR_TYPE;
use spantap_common::loss::Reason;

use crate::{
    attribute::{Attribute, FewAttributes},
    event::SocketId,
    protocol::{Cause, Key, Message, Outcome, Request, Response},
    time::{Moment, Timestamp},
    vitals::Vitals,
};

/// One request of one connection.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ExchangeId {
    /// The connection, as this process's socket.
    pub socket: SocketId,
    /// When the socket was introduced: it may carry several connections, one after the other.
    pub since: Timestamp,
    /// Which of its requests, counted from 0.
    pub ordinal: u64,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// It was made.
    Opened(ExchangeId, Request),
    /// It is over.
    Closed(ExchangeId, Closed),
}

/// The end of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// First byte of the response, if one began.
    pub answered: Option<Moment>,
    /// When it was over.
    pub last: Moment,
    /// Whether it failed.
    pub failed: bool,
    /// Attributes known from the response, or from its absence.
    pub attributes: FewAttributes,
}

/// Pairs one connection.
#[derive(Debug)]
pub struct Pairing {
    socket: SocketId,
    since: Timestamp,
    /// Requests made so far.
    requests: u64,
    /// Unanswered requests by their ordinals, oldest first. Law: open.len() <= MOST_OPEN.
    open: VecDeque<(u64, Key)>,
    /// Requests that found the bound reached and whose responses are still to come; all of them were made after the
    /// open ones, so answers in order stay with their requests.
    refused: u64,
}

impl Pairing {
    /// Nothing was asked yet on `socket`, which was introduced at `since`.
    pub fn new(socket: SocketId, since: Timestamp) -> Self {
        // Most clients wait for each answer: a queue that grows from nothing makes room for four.
        Self { socket, since, requests: 0, open: VecDeque::with_capacity(1), refused: 0 }
    }

    /// Takes one message.
    pub fn message(&mut self, message: Message, vitals: &mut Vitals) -> Option<Step> {
        match message {
            Message::Request(request) => self.requested(request, vitals),
            Message::Response(response) => self.responded(response, vitals),
            Message::Lost(reason) => {
                vitals.requests += 1;
                vitals.lost.requests.add(reason, 1);
                None
            }
            Message::Damaged(reason) => {
                vitals.lost.parts.add(reason, 1);
                None
            }
        }
    }

    /// Ends the oldest open exchange without a response; call it until nothing is left.
    pub fn abandoned(&mut self, cause: Cause, at: Moment) -> Option<Step> {
        let id = self.open.pop_front().map(|(ordinal, _)| self.id(ordinal))?;
        let attributes = [error_type(cause)].into_iter().collect();
        Some(Step::Closed(id, Closed { answered: None, last: at, failed: true, attributes }))
    }

    /// The request that is to be answered first.
    pub fn oldest(&self) -> Option<ExchangeId> {
        self.open.front().map(|(ordinal, _)| self.id(*ordinal))
    }

    /// The request that was made last, unless it has its response.
    pub fn newest(&self) -> Option<ExchangeId> {
        self.open.back().map(|(ordinal, _)| self.id(*ordinal))
    }

    /// Requests made so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Whether every request has its response.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    fn id(&self, ordinal: u64) -> ExchangeId {
        ExchangeId { socket: self.socket, since: self.since, ordinal }
    }

    fn requested(&mut self, request: Request, vitals: &mut Vitals) -> Option<Step> {
        vitals.requests += 1;
        if self.open.len() >= MOST_OPEN || self.refused > 0 {
            self.refused += 1;
            vitals.lost.requests.add(Reason::TableFull, 1);
            return None;
        }
        let ordinal = self.requests;
        self.requests += 1;
        self.open.push_back((ordinal, request.key));
        Some(Step::Opened(self.id(ordinal), request))
    }

    fn responded(&mut self, response: Response, vitals: &mut Vitals) -> Option<Step> {
        let Some(index) = self.open.iter().position(|(_, key)| *key == response.key) else {
            if self.refused > 0 {
                self.refused -= 1;
                return None;
            }
            vitals.lost.parts.add(Reason::Unpaired, 1);
            return None;
        };
        let id = self.open.remove(index).map(|(ordinal, _)| self.id(ordinal))?;
        let mut attributes = response.attributes;
        if let Outcome::Broken(cause) = response.outcome {
            attributes.push(error_type(cause));
        }
        Some(Step::Closed(
            id,
            Closed {
                answered: Some(response.first).filter(|first| first.at != Timestamp::default()),
                last: response.last,
                failed: response.outcome != Outcome::Unset,
                attributes,
            },
        ))
    }
}

fn error_type(cause: Cause) -> Attribute {
    Attribute::new(ERROR_TYPE, cause.error_type())
}

/// Requests that one connection may have open: HTTP/2's usual limit of concurrent streams is 100 to 250, and HTTP/1
/// pipelines are shorter.
const MOST_OPEN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: Key) -> Message {
        Message::Request(Request {
            key,
            name: "GET".into(),
            first: Moment::default(),
            position: 0,
            digest: 0,
            context: None,
            passed: crate::protocol::Passed::default(),
            attributes: vec![],
        })
    }

    fn response(key: Key, at: u64, outcome: Outcome) -> Message {
        let moment = Moment { at: Timestamp(at), ..Moment::default() };
        Message::Response(Response { key, first: moment, last: moment, outcome, attributes: FewAttributes::new() })
    }

    /// Plays messages and renders the steps: `+n` opened, `-n@time` closed, `!` failed.
    fn play(messages: Vec<Message>) -> (String, Vitals) {
        let (mut pairing, mut vitals) = (Pairing::new(SocketId(1), Timestamp::default()), Vitals::default());
        let mut said: Vec<String> = messages
            .into_iter()
            .filter_map(|message| pairing.message(message, &mut vitals))
            .map(|step| match step {
                Step::Opened(id, _) => format!("+{}", id.ordinal),
                Step::Closed(id, closed) => {
                    format!("-{}@{}{}", id.ordinal, closed.last.at.0, if closed.failed { "!" } else { "" })
                }
            })
            .collect();
        while let Some(Step::Closed(id, _)) = pairing.abandoned(Cause::ConnectionReset, Moment::default()) {
            said.push(format!("x{}", id.ordinal));
        }
        assert!(pairing.is_idle());
        (said.join(" "), vitals)
    }

    #[test]
    fn responses_in_order_answer_the_oldest_request() {
        let (said, _) = play(vec![
            request(Key::InOrder),
            request(Key::InOrder),
            response(Key::InOrder, 5, Outcome::Unset),
            response(Key::InOrder, 6, Outcome::Error),
        ]);
        assert_eq!(said, "+0 +1 -0@5 -1@6!");
    }

    #[test]
    fn responses_with_an_id_answer_their_request() {
        let (said, _) = play(vec![request(Key::Id(1)), request(Key::Id(3)), response(Key::Id(3), 5, Outcome::Unset)]);
        assert_eq!(said, "+0 +1 -1@5 x0");
    }

    #[test]
    fn a_response_without_a_request_is_counted_and_opens_nothing() {
        let (said, vitals) = play(vec![response(Key::InOrder, 5, Outcome::Unset)]);
        assert_eq!((said.as_str(), vitals.lost.parts.of(Reason::Unpaired)), ("", 1));
        assert!(vitals.balance(0), "nobody knows of a request");
    }

    #[test]
    fn a_lost_request_was_seen_and_a_damaged_answer_was_none() {
        let (said, vitals) = play(vec![Message::Lost(Reason::Gap), Message::Damaged(Reason::Gap)]);
        assert_eq!((said.as_str(), vitals.requests), ("", 1));
        assert_eq!((vitals.lost.requests.of(Reason::Gap), vitals.lost.parts.of(Reason::Gap)), (1, 1));
        assert!(vitals.balance(0));
    }

    #[test]
    fn requests_beyond_the_bound_are_counted() {
        let (_, vitals) = play((0..=MOST_OPEN).map(|_| request(Key::InOrder)).collect());
        assert_eq!((vitals.requests, vitals.lost.requests.of(Reason::TableFull)), (MOST_OPEN as u64 + 1, 1));
        assert!(vitals.balance(MOST_OPEN), "the open ones had no end here");
    }

    #[test]
    fn responses_to_refused_requests_answer_nobody_else() {
        let mut messages: Vec<_> = (0..=MOST_OPEN).map(|_| request(Key::InOrder)).collect();
        messages.extend((0..=MOST_OPEN).map(|_| response(Key::InOrder, 5, Outcome::Unset)));
        messages.extend([request(Key::InOrder), response(Key::InOrder, 9, Outcome::Unset)]);
        let (said, vitals) = play(messages);
        assert!(said.ends_with(&format!("-{}@5 +{MOST_OPEN} -{MOST_OPEN}@9", MOST_OPEN - 1)), "{said}");
        assert_eq!(vitals.lost.parts.total(), 0);
    }
}
