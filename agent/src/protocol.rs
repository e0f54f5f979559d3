// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From ordered bytes to messages.
//!
//! In: the two directions of one connection, in order, with gaps of known length. Out: [`Message`]s with neutral
//! attributes. Everything right of here is ignorant of protocols; a protocol is one file and one line in [`TABLE`].

pub mod common;
pub mod disclosure;
pub mod http1;

use std::{hash::BuildHasher, sync::Arc};

use foldhash::fast::FixedState;
use smallvec::SmallVec;
use spantap_common::{endpoint::Endpoint, loss::Reason, sniff::Guess};

use self::common::Common;
use crate::{
    attribute::{Attribute, FewAttributes},
    context::{TraceContext, vendors::Named},
    event::Unix,
    time::{Moment, Timestamp},
};

/// One end's parser of one connection. Total: no input makes it panic, and incomplete input is not an error.
pub trait Parser {
    /// Bytes sent by `side`, in order. They start at `position` of that side's stream (modulo 2^32).
    fn bytes(&mut self, side: Side, bytes: &[u8], position: u32, at: Moment, out: &mut Vec<Message>) -> Progress;

    /// `missing` bytes sent by `side` were moved at or before `at` but not seen; `tail` is the last few of them where
    /// they are known. Resynchronise or give up; never guess.
    fn gap(&mut self, side: Side, missing: u64, tail: &[u8], at: Moment, out: &mut Vec<Message>) -> Progress;

    /// `side` will send nothing more: an orderly end, which completes a message that is delimited by it.
    fn end(&mut self, side: Side, at: Moment, out: &mut Vec<Message>);

    /// The connection is gone: a message under way is cut off.
    fn closed(&mut self, at: Moment, out: &mut Vec<Message>);

    /// Time has passed (some multiple of the consumer's tick): a message whose end can be seen only by silence may end.
    fn tick(&mut self, now: Timestamp, out: &mut Vec<Message>);

    /// Whether there is such a message. It is worth a tick only then.
    fn waits_for_silence(&self) -> bool;

    /// Bytes that `side` is known to send before anything of them matters again: the rest of a body, up to its last byte.
    /// `u64::MAX` where only the end of the connection ends it.
    fn left(&self, side: Side) -> u64;

    /// Something is about to come: reads from each of its cache lines, so that they are here by then. Nothing changes.
    fn prefetch(&self);
}

/// Who sent something: the side that asks, or the side that answers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Side {
    /// Sends requests.
    Client,
    /// Sends responses.
    Server,
}

impl Side {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Whether the parser wants to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Yes: complete or incomplete, it is this protocol.
    More,
    /// No: this is another protocol, or one it cannot follow any further. Nothing more of this connection is wanted.
    NotMine,
}

/// What the parser is told of its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Link {
    /// The part that the observed process plays: its spans are SERVER or CLIENT spans accordingly.
    pub role: Side,
    /// The observed process's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// What only unix sockets have.
    pub unix: Option<Unix>,
}

/// A complete thing that one side said.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A request whose head is complete. Its body may still be under way.
    Request(Request),
    /// A response that is complete, or was cut off.
    Response(Response),
    /// A request was made that will not be handed out: one that is counted instead of having a span.
    Lost(Reason),
    /// Something else that was said is lost: of an exchange that has its span all the same, or of none that is known.
    Damaged(Reason),
}

impl Message {
    /// Why the parser could not follow what was said, where it could not.
    pub fn error(&self) -> Option<Reason> {
        match self {
            Self::Lost(reason) | Self::Damaged(reason) => Some(*reason),
            Self::Response(Response { outcome: Outcome::Broken(Cause::ProtocolError), .. }) => {
                Some(Reason::ProtocolError)
            }
            Self::Request(_) | Self::Response(_) => None,
        }
    }
}

/// How requests and responses of a connection belong together.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Key {
    /// The n-th response answers the n-th request (HTTP/1, Redis, Postgres).
    InOrder,
    /// The response names the request (HTTP/2 stream, Kafka correlation id).
    Id(u64),
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What its response is found by.
    pub key: Key,
    /// The span's name: low cardinality.
    pub name: Arc<str>,
    /// Its first byte.
    pub first: Moment,
    /// Position of its first byte in the client's stream: the same number at both ends of the connection.
    pub position: u32,
    /// Of the bytes that both ends see of it: equal at both, and hardly ever for two different requests.
    pub digest: u64,
    /// The trace it says it belongs to.
    pub context: Option<TraceContext>,
    /// What else it says about where it comes from; most requests say nothing.
    pub passed: Passed,
    /// Attributes for a span of [`Link::role`]'s kind, known from the request.
    pub attributes: Vec<Attribute>,
}

/// What a request says about where it comes from, beside its context.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Passed {
    /// Ids that applications give to a request and pass on with the calls they make for it. No secrets, and no numbers
    /// that repeat: at least [`SHORTEST_ID`] characters.
    pub ids: SmallVec<[PassedId; 2]>,
    /// Contexts of other traces, and the format of each.
    pub others: Vec<Named>,
}

/// An id that an application gave to a request. Ids are compared and nothing else, so that a digest of its text is enough:
/// two of a million differ in it but for one chance in 10^7, and whoever can make two that do not could as well send the
/// same one twice.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PassedId(u64);

impl PassedId {
    /// The id with this text.
    pub fn of(text: &str) -> Self {
        Self(FixedState::default().hash_one(text))
    }
}

/// Shorter ids are counters, which repeat.
pub const SHORTEST_ID: usize = 8;

/// Longer ones are something else. A UUID has 36 characters, a trace header 55.
pub const LONGEST_ID: usize = 128;

/// A response.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// What its request is found by.
    pub key: Key,
    /// Its first byte.
    pub first: Moment,
    /// The byte that completed it, or the last one seen.
    pub last: Moment,
    /// Whether the exchange failed, as the conventions judge it for [`Link::role`].
    pub outcome: Outcome,
    /// Attributes known from the response, `error.type` of a failed status included.
    pub attributes: FewAttributes,
}

/// How an exchange went.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Nothing to say: the span's status stays unset.
    Unset,
    /// It failed, and the attributes say how.
    Error,
    /// It ended without a complete response: `error.type` follows from the cause.
    Broken(Cause),
}

/// Why there is no complete response: our documented values of `error.type`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    /// `timeout`: the connection timed out.
    Timeout,
    /// `connection_reset`: a side reset the connection.
    ConnectionReset,
    /// `connection_closed`: a side closed the connection before the response.
    ConnectionClosed,
    /// `protocol_error`: what came was no response of this protocol.
    ProtocolError,
    /// `truncated`: the response began and did not end, or the agent stopped watching first.
    Truncated,
}

impl Cause {
    /// The value of `error.type`.
    pub fn error_type(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ConnectionReset => "connection_reset",
            Self::ConnectionClosed => "connection_closed",
            Self::ProtocolError => "protocol_error",
            Self::Truncated => "truncated",
        }
    }
}

/// A protocol the agent follows.
pub struct Protocol {
    /// The instrumentation scope is `spantap/<name>`.
    pub name: &'static str,
    /// The kernel's guess that selects it.
    pub guess: Guess,
    /// Makes the parser of one connection.
    pub parser: fn(Link, &Arc<Common>) -> Box<dyn Parser + Send>,
}

/// Every protocol, in no particular order: the guess decides.
pub const TABLE: &[Protocol] = &[Protocol {
    name: "http",
    guess: Guess::Http1,
    parser: |link, common| Box::new(http1::Http1::with(link, Arc::clone(common))),
}];
