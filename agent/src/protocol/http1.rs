// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112).
//!
//! In: the bytes of both directions of one connection, or the number of those that were not seen. Out: a request when
//! its head is complete, a response when all of it is, with attributes by the HTTP conventions and without secrets. It
//! never decodes or keeps a body, knows no routes, and does not join requests with responses: it only guarantees that
//! the n-th response it hands out answers the n-th request it handed out.
//!
//! # What two parties might read differently
//!
//! Each case has one outcome; the sentence of the RFC stands at the branch.
//!
//! | input | outcome |
//! |---|---|
//! | Transfer-Encoding and Content-Length | Transfer-Encoding wins |
//! | several Content-Lengths, all equal | that length |
//! | different or invalid ones, in a request | the request counts, nothing after it on this side is read |
//! | … in a response | `protocol_error`, the connection is left |
//! | Transfer-Encoding not ending in chunked, in a request | the request counts, nothing after it is read |
//! | … in a response | the body ends with the connection |
//! | Transfer-Encoding in HTTP/1.0 | as if it did not end in chunked |
//! | a field that is none, in a request or a response | that line is skipped |
//! | … that begins like one of the two lengths | as an invalid Content-Length |
//! | obs-fold | blanks |
//! | a bare LF | a line end, in heads and in chunked framing |
//! | blank lines before a start line | skipped |
//! | no chunked coding where it was announced | request: nothing after it is read; response: `protocol_error` |
//! | no status line where one has to be | `protocol_error` for the oldest request, the connection is left |
//! | no request line where one has to be | what was asked before is still answered, then the connection is left |
//! | a response before its request's head is complete | both are counted as `unpaired` |
//! | a response that nothing asked for | counted as `unpaired`, skipped up to the next request |
//!
//! # When bytes are missing
//!
//! Inside a body of known length, or a chunk, they are only counted. A chunked body whose sizes are hidden is *blind*: it
//! ends with the last chunk's bytes at the end of a call, with the next request, with silence, or with its side, and the
//! response says which in `spantap.response.end`. A head that is hit is *lost*: a request's is counted and its response
//! swallowed; a response's is reported at its end, without a status that was not seen. In both cases the next request
//! line at the start of a call is a fresh start: whatever came before has been answered, because a client that did not
//! send requests ahead of their responses (pipelining) is taken not to begin with that during a loss. That is the one
//! thing taken on trust. A connection on which requests *were* sent ahead is left at the first loss.

mod asked;
mod attributes;
mod body;
mod head;
mod propagation;
mod redact;
mod seen;
mod uri;

use std::{collections::VecDeque, hash::BuildHasher, hint::black_box, mem, sync::Arc, time::Duration};

use foldhash::fast::FixedState;
use spantap_common::{endpoint::Endpoint, loss::Reason};

pub use self::seen::Seen;
use self::{
    attributes::{BodySizes, Called},
    body::{Advance, Body, Chunks, Framing},
    head::{
        Collected, Head, HeadError, Look, RequestHead, ResponseHead, blank_lines, looks_like_request,
        looks_like_response, method_of, status_of,
    },
};
use super::{Cause, Key, Link, Message, Parser, Progress, Request, Response, Side, common::Common};
use crate::{
    attribute::Attribute,
    time::{Moment, Timestamp},
};

/// The parser of one connection.
#[derive(Debug)]
pub struct Http1 {
    connection: attributes::Connection,
    client: Direction,
    server: Direction,
    /// Requests without a complete response, oldest first. Law: at most [`MAX_WAITING`].
    waiting: VecDeque<Waiting>,
    /// The response to the oldest of them, once it has begun.
    answer: Option<Answer>,
    /// A response came before the head of its request was complete: that head will not count.
    overtaken: bool,
    /// A request line was seen.
    recognised: bool,
    /// A response was seen to begin after a further request had been sent.
    pipelined: bool,
    /// The oldest request that waits was a fresh start after a loss, and no status line has confirmed it yet.
    fresh: bool,
    /// The name of the last request's span: most connections carry one method.
    name: Option<(Method, Arc<str>)>,
}

/// A request method, as far as the conventions know it: "Method names are case-sensitive".
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Method {
    Connect,
    Delete,
    Get,
    Head,
    Options,
    Patch,
    Post,
    Put,
    Query,
    Trace,
    Other,
}

/// How the end of a response became known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum EndedBy {
    /// It says so itself.
    Framing,
    /// The client went on.
    NextRequest,
    /// Nothing came for [`SILENCE`].
    Silence,
    /// Its side ended in good order.
    Close,
    /// It did not end.
    Cut(Cause),
}

/// One side's bytes.
///
/// ```text
///         head complete           framing contradicts itself, no head, side ends
///  Head ───────────────> Body                    any ──> Over
///   ^ <──── complete ─────┘
///   │   head hit by a gap
///   └ <────────────────── Lost
///     fresh start
/// ```
#[derive(Debug, Default)]
struct Direction {
    stage: Stage,
    head: Head,
    /// Bytes of the body under way, where its head said so.
    announced: u64,
    /// Position in the stream of the next byte, modulo 2^32.
    position: u32,
}

#[derive(Debug, Default)]
enum Stage {
    /// Between messages, or in a head.
    #[default]
    Head,
    Body(Body),
    /// Somewhere; a fresh start is waited for.
    Lost,
    /// Nothing more is read.
    Over,
}

/// What is known of a request whose response is to come.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// It decides whether the response has a body.
    method: Option<Method>,
    /// Whether it was handed out; else its response is swallowed.
    reported: bool,
    /// Its first byte: the one before it was answered by then, if the client does not pipeline.
    first: Moment,
    /// Bytes of its body, once all of it was seen.
    body: Option<u64>,
}

/// A response under way.
#[derive(Debug)]
struct Answer {
    /// First byte of the head, of the final one after interim ones.
    first: Moment,
    last: Moment,
    status: Option<u16>,
    /// What its header fields say that an operator asks for.
    captured: Vec<Attribute>,
    /// Bytes of its body, once all of it was seen.
    body: Option<u64>,
}

impl Answer {
    /// A response whose first byte came at `at`.
    fn at(at: Moment) -> Self {
        Self { first: at, last: at, status: None, captured: Vec::new(), body: None }
    }
}

/// The connection is of no more use.
struct GiveUp;

/// After this time without a byte a response whose framing is out of sight has ended. Design: a span is visible within
/// 1.5 s of its end, and half a second is left for everything after the parser.
pub const SILENCE: Duration = Duration::from_secs(1);

/// Requests that may wait for their responses. Pipelining clients send tens at a time (wrk's and TechEmpower's scripts
/// 16, tests of servers 100); the full queue is 48 KiB, as much as one and a half heads. Beyond it requests are
/// counted as [`Reason::TableFull`].
pub const MAX_WAITING: usize = 1024;

// --- Http1 ---

impl Http1 {
    /// A parser that has seen nothing, and tells what spans have anyway.
    pub fn new(link: Link) -> Self {
        Self::with(link, Arc::default())
    }

    /// A parser that has seen nothing, of a connection that shares `common` with others.
    pub fn with(link: Link, common: Arc<Common>) -> Self {
        Self {
            connection: attributes::Connection::new(&link, common),
            client: Direction::default(),
            server: Direction::default(),
            // Most clients wait for each answer: a queue that grows from nothing makes room for four.
            waiting: VecDeque::with_capacity(1),
            answer: None,
            overtaken: false,
            recognised: false,
            pipelined: false,
            fresh: false,
            name: None,
        }
    }

    /// Bytes it holds of heads that are not complete: at most one header budget a side.
    pub fn held(&self) -> usize {
        self.client.head.bytes().len() + self.server.head.bytes().len()
    }

    /// Ends a call: whether the connection is worth another one.
    fn settle(&mut self, step: Result<(), GiveUp>) -> Progress {
        if step.is_ok() && !self.is_drained() {
            return Progress::More;
        }
        self.stop();
        Progress::NotMine
    }

    /// Whether nothing more can be asked, and everything that was is answered.
    fn is_drained(&self) -> bool {
        matches!(self.client.stage, Stage::Over) && !self.waiting.iter().any(|request| request.reported)
    }

    fn stop(&mut self) {
        self.client = Direction { stage: Stage::Over, ..Direction::default() };
        self.server = Direction { stage: Stage::Over, ..Direction::default() };
        self.waiting = VecDeque::new();
        self.answer = None;
    }
}

impl Parser for Http1 {
    fn bytes(&mut self, side: Side, bytes: &[u8], position: u32, at: Moment, out: &mut Vec<Message>) -> Progress {
        self.direction(side).position = position;
        let step = match side {
            Side::Client => self.client_sent(bytes, at, out),
            Side::Server => self.server_sent(bytes, at, out),
        };
        self.settle(step)
    }

    fn gap(&mut self, side: Side, missing: u64, tail: &[u8], at: Moment, out: &mut Vec<Message>) -> Progress {
        let known = usize::try_from(missing).unwrap_or(usize::MAX).min(tail.len());
        let tail = &tail[tail.len() - known..];
        let step = match side {
            Side::Client => self.client_lost(missing, tail, at, out),
            Side::Server => self.server_lost(missing, tail, at, out),
        };
        self.settle(step)
    }

    fn end(&mut self, side: Side, at: Moment, out: &mut Vec<Message>) {
        match side {
            Side::Client => self.client_ended(out),
            // "A response that has neither chunked transfer coding nor Content-Length is terminated by closure of the
            // connection and, if the header section was received intact, is considered complete".
            // https://www.rfc-editor.org/rfc/rfc9112#section-8
            Side::Server => self.server_ended(EndedBy::Close, at, out),
        }
    }

    fn closed(&mut self, at: Moment, out: &mut Vec<Message>) {
        self.client_ended(out);
        self.server_ended(EndedBy::Cut(Cause::Truncated), at, out);
        self.stop();
    }

    fn tick(&mut self, now: Timestamp, out: &mut Vec<Message>) {
        let silent = self.answer.as_ref().is_some_and(|answer| now.since(answer.last.at) >= SILENCE);
        if silent && self.server.is_out_of_sight() {
            self.answered(EndedBy::Silence, None, out);
            self.server.stage = Stage::Lost;
        }
    }

    fn waits_for_silence(&self) -> bool {
        self.answer.is_some() && self.server.is_out_of_sight()
    }

    fn left(&self, side: Side) -> u64 {
        let sent = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        match &sent.stage {
            Stage::Body(body) => body.left(),
            Stage::Head | Stage::Lost | Stage::Over => 0,
        }
    }

    fn prefetch(&self) {
        self.connection.prefetch();
        black_box((self.client.position, self.server.position, self.answer.is_some(), self.fresh));
        black_box((self.waiting.front().map(|request| request.reported), self.name.is_some()));
    }
}

/// A fuzz target: any bytes, read as a sequence of what can happen to a parser.
///
/// # Panics
///
/// When a response is handed out without a request, when a budget does not hold, or when the parser goes on after it gave
/// up.
pub fn fuzz_http1(data: &[u8]) {
    let link = Link { role: Side::Server, local: Endpoint::v4([0; 4], 80), peer: Endpoint::v4([0; 4], 1), unix: None };
    let mut parser = Http1::new(link);
    let (mut out, mut position, mut waiting, mut over) = (Vec::new(), 0_u32, 0_usize, false);
    let mut rest = data;
    while let [op, length, after @ ..] = rest {
        let side = if op & 1 == 0 { Side::Client } else { Side::Server };
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        let at = Moment { at: Timestamp(u64::from(position) * 1_000_000), ..Moment::default() };
        let progress = match op >> 1 & 0x07 {
            0 => Some(parser.gap(side, u64::from(*length), &payload[payload.len().saturating_sub(8)..], at, &mut out)),
            1 => Some(parser.gap(side, u64::from(*length) << (op >> 4), &[], at, &mut out)),
            2 => {
                parser.end(side, at, &mut out);
                None
            }
            3 => {
                parser.tick(at.at.plus(SILENCE), &mut out);
                None
            }
            _ => Some(parser.bytes(side, payload, position, at, &mut out)),
        };
        position = position.wrapping_add(u32::from(*length));
        rest = after;
        assert!(parser.held() <= 2 * spantap_common::abi::HEADER_BUDGET, "a head over its budget");
        assert!(parser.waiting.len() <= MAX_WAITING, "a queue over its bound");
        assert!(!over || out.is_empty() && progress != Some(Progress::More), "more after giving up");
        over |= progress == Some(Progress::NotMine);
        for message in out.drain(..) {
            match message {
                Message::Request(_) => waiting += 1,
                Message::Response(_) => {
                    waiting = waiting.checked_sub(1).expect("a response answers a request that was handed out");
                }
                Message::Lost(_) | Message::Damaged(_) => {}
            }
        }
    }
    parser.closed(Moment::default(), &mut out);
}

// --- Http1: what the client sent ---

impl Http1 {
    fn client_sent(&mut self, mut bytes: &[u8], at: Moment, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        let end = self.client.position.wrapping_add(length(bytes));
        self.client.position = end;
        if self.client.is_out_of_sight() {
            self.look_for_a_fresh_start(bytes, out);
        }
        while !bytes.is_empty() {
            let used = match &mut self.client.stage {
                Stage::Head => self.request_head(bytes, end.wrapping_sub(length(bytes)), at, out)?,
                Stage::Body(body) => match body.advance(bytes) {
                    Advance::More => break,
                    Advance::Done(used) => {
                        self.request_complete();
                        used
                    }
                    Advance::Broken => {
                        out.push(Message::Damaged(Reason::ProtocolError));
                        self.client.stage = Stage::Over;
                        break;
                    }
                },
                Stage::Lost | Stage::Over => break,
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Bytes at the start of a call, somewhere in the client's stream.
    fn look_for_a_fresh_start(&mut self, bytes: &[u8], out: &mut Vec<Message>) {
        // A whole request line: less would do for a chance hit in a body.
        if looks_like_request(bytes) != Look::Line {
            return;
        }
        let everyone_answered = !self.waiting.iter().any(|request| request.reported);
        let possible = match (&self.client.stage, &self.server.stage) {
            // Responses that did not come yet are among bytes whose loss did not come out yet; or the client pipelines,
            // which comes out with the next status line.
            (Stage::Lost, Stage::Head) => self.server.head.is_empty(),
            // It might be a line of the body of a request that is not answered.
            (_, Stage::Head) => self.server.head.is_empty() && everyone_answered,
            // The response is somewhere, too, and nobody else is waiting.
            (_, Stage::Lost | Stage::Body(Body::Blind(_))) => self.waiting.len() <= 1,
            (_, Stage::Body(_) | Stage::Over) => false,
        };
        if possible && !self.pipelined {
            if self.server.is_out_of_sight() || everyone_answered {
                self.start_afresh(out);
            }
            self.client.stage = Stage::Head;
        } else if matches!(self.client.stage, Stage::Lost) {
            // Sent ahead of a response, or not a request at all: which response is whose cannot be known any more.
            out.push(Message::Damaged(Reason::Gap));
            self.client.stage = Stage::Over;
        }
    }

    /// A request begins, and everything before it is over.
    fn start_afresh(&mut self, out: &mut Vec<Message>) {
        self.answered(EndedBy::NextRequest, None, out);
        debug_assert!(!self.waiting.iter().any(|request| request.reported), "a request is forgotten");
        self.waiting.clear();
        self.server.stage = Stage::Head;
        self.server.head = Head::default();
        self.fresh = true;
    }

    /// Bytes of a head, or before one; `position` is that of the first. How many of them are done with.
    fn request_head(
        &mut self,
        bytes: &[u8],
        position: u32,
        at: Moment,
        out: &mut Vec<Message>,
    ) -> Result<usize, GiveUp> {
        if self.client.head.is_empty() {
            let blank = blank_lines(bytes);
            if blank > 0 {
                return Ok(blank);
            }
            self.request_begins(out);
        }
        let mut head = mem::take(&mut self.client.head);
        let (first, position) = head.start().unwrap_or((at, position));
        match head.collect(bytes, (first, position)) {
            Collected::Complete { head: text, used } => {
                self.request(text, first, position, out)?;
                Ok(used)
            }
            Collected::More(text) if looks_like_request(text) != Look::No => {
                self.client.head = head;
                Ok(bytes.len())
            }
            Collected::OverBudget(text) if looks_like_request(text) != Look::No => {
                self.request_lost(Reason::OverBudget, method_of(text), first, out);
                Ok(bytes.len())
            }
            Collected::More(_) | Collected::OverBudget(_) => {
                self.no_request(out)?;
                Ok(bytes.len())
            }
        }
    }

    /// The first byte of a request was sent.
    fn request_begins(&mut self, out: &mut Vec<Message>) {
        // The client would not go on if it had not got its response.
        if self.server.is_out_of_sight() {
            self.start_afresh(out);
        }
    }

    /// A request's head is complete.
    fn request(&mut self, text: &[u8], first: Moment, position: u32, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        let connection = &mut self.connection;
        let common = Arc::clone(&connection.common);
        let told = !common.disclosure.of_request(connection.role).is_empty();
        let digest = FixedState::default().hash_one(text);
        let read = |head: &mut RequestHead<'_>| {
            let attributes = attributes::of_request(head, connection);
            let named = match Called::of(head, connection) {
                Called::Conventional(method) => Ok(method),
                Called::Chosen => Err(head.token.into()),
                Called::Other => Ok(Method::Other),
            };
            let said = (head.context.take(), mem::take(&mut head.passed));
            (head.method, named, Framing::of_request(head), said, attributes)
        };
        let read = if told { head::request(text, read) } else { common.heads.request(text, digest, read) };
        let (method, named, framing, (context, passed), attributes) = match read {
            Ok(read) => read,
            Err(HeadError::TooManyFields) => {
                self.request_lost(Reason::OverBudget, method_of(text), first, out);
                return Ok(());
            }
            Err(HeadError::Malformed) => return self.no_request(out),
        };
        self.recognised = true;
        self.client.stage = match framing {
            Framing::None | Framing::Unknown => Stage::Head,
            Framing::Length(length) => {
                self.client.announced = length;
                Stage::Body(Body::Length(length))
            }
            Framing::Chunked => Stage::Body(Body::Chunked(Chunks::new())),
            Framing::UntilClose | Framing::Tunnel | Framing::Faulty => Stage::Over,
        };
        if mem::take(&mut self.overtaken) {
            return Ok(());
        }
        if self.waiting.len() == MAX_WAITING {
            out.push(Message::Lost(Reason::TableFull));
            self.client.stage = Stage::Over;
            return Ok(());
        }
        // It began before bytes of the server were lost, which may belong to its response as well as to the one before.
        let doubtful = self.server.is_out_of_sight();
        if doubtful {
            self.start_afresh(out);
        }
        let body = (framing == Framing::None).then_some(0);
        self.waiting.push_back(Waiting { method: Some(method), reported: true, first, body });
        let name = named.map_or_else(|chosen| chosen, |method| self.name_of(method));
        let request = Request { key: Key::InOrder, name, first, position, digest, context, passed, attributes };
        out.push(Message::Request(request));
        if doubtful {
            self.answer = Some(Answer::at(first));
            self.response_lost(Reason::Gap, None, out)?;
        }
        Ok(())
    }

    /// A request's body is complete. It is the last request that was made, unless its response did not wait for that.
    fn request_complete(&mut self) {
        if let (Stage::Body(body), Some(last)) = (&self.client.stage, self.waiting.back_mut()) {
            last.body = body.size(self.client.announced);
        }
        self.client.stage = Stage::Head;
    }

    /// Something came where a request line has to be.
    fn no_request(&mut self, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        if !self.recognised {
            // Another protocol from the start: nothing of ours is lost.
            return Err(GiveUp);
        }
        out.push(self.uncounted(Reason::ProtocolError));
        self.client.stage = Stage::Over;
        Ok(())
    }

    /// A request's head will never be complete.
    fn request_lost(&mut self, reason: Reason, method: Option<Method>, first: Moment, out: &mut Vec<Message>) {
        let overtaken = self.overtaken;
        out.push(self.uncounted(reason));
        self.client.head = Head::default();
        if !overtaken && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back(Waiting { method, reported: false, first, body: None });
        }
        // Nobody knows how many a client that pipelines sent behind it: those before it get their answers, nobody else.
        self.client.stage = if self.pipelined { Stage::Over } else { Stage::Lost };
    }

    /// The request under way will not be handed out. One that its response has overtaken was counted then.
    fn uncounted(&mut self, reason: Reason) -> Message {
        if mem::take(&mut self.overtaken) { Message::Damaged(reason) } else { Message::Lost(reason) }
    }

    fn client_lost(&mut self, missing: u64, tail: &[u8], at: Moment, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        let mut left = missing;
        if let Stage::Body(body) = &mut self.client.stage {
            let (rest, done) = body.skip(missing);
            left = rest;
            if done {
                self.request_complete();
            }
        }
        // What the last bytes show was not missed: an end of a chunk, a whole short head.
        if let Some(seen) = seen(left, tail)
            && !self.client.is_out_of_sight()
        {
            self.client.position = self.client.position.wrapping_add(wrapped(missing - left));
            return self.client_sent(seen, at, out);
        }
        self.client.position = self.client.position.wrapping_add(wrapped(missing));
        match &mut self.client.stage {
            _ if left == 0 => {}
            Stage::Head => {
                if self.client.head.is_empty() {
                    self.request_begins(out);
                }
                let (first, _) = self.client.head.start().unwrap_or((at, 0));
                self.request_lost(Reason::Gap, method_of(self.client.head.bytes()), first, out);
            }
            Stage::Body(body) => {
                if body.lose(left, tail) {
                    self.client.stage = Stage::Head;
                } else if self.pipelined {
                    out.push(Message::Damaged(Reason::Gap));
                    self.client.stage = Stage::Over;
                }
            }
            Stage::Lost | Stage::Over => {}
        }
        Ok(())
    }

    fn client_ended(&mut self, out: &mut Vec<Message>) {
        // A request that was never finished; before the first one, anything that does not even have a request line was
        // none.
        let begun = !self.client.head.is_empty()
            && (self.recognised || looks_like_request(self.client.head.bytes()) == Look::Line);
        if begun && !mem::take(&mut self.overtaken) {
            out.push(Message::Lost(Reason::ProtocolError));
        }
        self.client.head = Head::default();
        self.client.stage = Stage::Over;
    }

    /// What a span with this `method` is called, which is [`Method::Other`] where it has no name.
    fn name_of(&mut self, method: Method) -> Arc<str> {
        match &self.name {
            Some((last, name)) if *last == method => Arc::clone(name),
            _ => {
                // "HTTP span names SHOULD be {method} {target} if there is a (low-cardinality) target available. If
                // there is no (low-cardinality) {target} available, HTTP span names SHOULD be {method}. […] The
                // {method} MUST be {http.request.method} if the method represents the original method known to the
                // instrumentation. In other cases, {method} MUST be set to HTTP."
                // https://opentelemetry.io/docs/specs/semconv/http/http-spans/#name
                let name = self.connection.common.text(if method == Method::Other { "HTTP" } else { method.label() });
                self.name = Some((method, Arc::clone(&name)));
                name
            }
        }
    }
}

// --- Http1: what the server sent ---

impl Http1 {
    fn server_sent(&mut self, mut bytes: &[u8], at: Moment, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        self.server.position = self.server.position.wrapping_add(length(bytes));
        while !bytes.is_empty() && !self.is_drained() {
            let used = match &mut self.server.stage {
                Stage::Head => self.response_head(bytes, at, out)?,
                Stage::Body(body) => {
                    let advance = body.advance(bytes);
                    self.answer_continues(at);
                    match advance {
                        Advance::More => break,
                        Advance::Done(used) => {
                            self.response_complete(at, out);
                            used
                        }
                        Advance::Broken => {
                            self.answered(EndedBy::Cut(Cause::ProtocolError), None, out);
                            return Err(GiveUp);
                        }
                    }
                }
                Stage::Lost => {
                    self.answer_continues(at);
                    return self.still_aligned(out);
                }
                Stage::Over => break,
            };
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// Bytes of a head, or before one. How many of them are done with.
    fn response_head(&mut self, bytes: &[u8], at: Moment, out: &mut Vec<Message>) -> Result<usize, GiveUp> {
        if self.server.head.is_empty() {
            let blank = blank_lines(bytes);
            if blank > 0 {
                return Ok(blank);
            }
            if !self.response_begins(Reason::Unpaired, out) {
                return Ok(bytes.len());
            }
            self.answer = Some(Answer::at(at));
        }
        self.answer_continues(at);
        let mut head = mem::take(&mut self.server.head);
        match head.collect(bytes, (at, self.server.position)) {
            Collected::Complete { head: text, used } => {
                self.response(text, at, out)?;
                Ok(used)
            }
            Collected::More(text) if looks_like_response(text) != Look::No => {
                self.server.head = head;
                Ok(bytes.len())
            }
            Collected::OverBudget(text) if looks_like_response(text) != Look::No => {
                self.response_lost(Reason::OverBudget, status_of(text), out)?;
                Ok(bytes.len())
            }
            Collected::More(_) | Collected::OverBudget(_) => {
                self.no_response(out)?;
                Ok(bytes.len())
            }
        }
    }

    /// The first byte of a response was sent: whether somebody is waiting for it.
    fn response_begins(&mut self, reason: Reason, out: &mut Vec<Message>) -> bool {
        if !self.waiting.is_empty() {
            return true;
        }
        if self.client.head.is_empty() || self.overtaken {
            out.push(Message::Damaged(reason));
            self.server.stage = Stage::Lost;
            return false;
        }
        // An answer to a request whose head is still under way: too long, or too late.
        out.push(Message::Lost(reason));
        self.overtaken = true;
        let method = method_of(self.client.head.bytes());
        let (first, _) = self.client.head.start().unwrap_or_default();
        self.waiting.push_back(Waiting { method, reported: false, first, body: None });
        true
    }

    /// A response's head is complete.
    fn response(&mut self, text: &[u8], at: Moment, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        let method = self.waiting.front().and_then(|request| request.method);
        let attributes::Connection { role, common, .. } = &self.connection;
        let disclosure = &common.disclosure;
        let told = disclosure.of_response(*role);
        let read = |head: &ResponseHead<'_>| {
            let captured = attributes::captured(told, head.headers, disclosure);
            (head.status, Framing::of_response(head, method), captured)
        };
        let read = if told.is_empty() {
            common.heads.response(text, FixedState::default().hash_one(text), read)
        } else {
            head::response(text, read)
        };
        let (status, framing, captured) = match read {
            Ok(read) => read,
            Err(HeadError::TooManyFields) => return self.response_lost(Reason::OverBudget, status_of(text), out),
            Err(HeadError::Malformed) => return self.no_response(out),
        };
        self.fresh = false;
        if self.waiting.len() > 1 {
            self.pipelined = true;
            // Behind a request that was lost nobody knows which response is whose.
            if let Some(lost) = self.waiting.iter().skip(1).position(|request| !request.reported) {
                self.waiting.truncate(lost + 1);
                self.client.stage = Stage::Over;
            }
        }
        // "A client MUST be able to parse one or more 1xx responses received prior to a final response".
        // https://www.rfc-editor.org/rfc/rfc9110#section-15.2
        if let 100 | 102..=199 = status {
            self.answer = None;
            return Ok(());
        }
        if let Some(answer) = &mut self.answer {
            (answer.status, answer.captured) = (Some(status), captured);
            answer.body = (framing == Framing::None).then_some(0);
        }
        self.server.stage = match framing {
            Framing::None => {
                self.response_complete(at, out);
                return Ok(());
            }
            Framing::Tunnel => {
                self.response_complete(at, out);
                return Err(GiveUp);
            }
            Framing::Faulty => {
                self.answered(EndedBy::Cut(Cause::ProtocolError), None, out);
                return Err(GiveUp);
            }
            Framing::Length(length) => {
                self.server.announced = length;
                Stage::Body(Body::Length(length))
            }
            Framing::Chunked => Stage::Body(Body::Chunked(Chunks::new())),
            Framing::UntilClose => Stage::Body(Body::UntilClose),
            Framing::Unknown => Stage::Lost,
        };
        Ok(())
    }

    fn response_complete(&mut self, at: Moment, out: &mut Vec<Message>) {
        if let (Stage::Body(body), Some(answer)) = (&self.server.stage, &mut self.answer) {
            answer.body = body.size(self.server.announced);
        }
        self.answered(EndedBy::Framing, Some(at), out);
        self.server.stage = Stage::Head;
    }

    /// Something came where a status line has to be.
    fn no_response(&mut self, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        if self.fresh {
            // It was we who said that a response begins here.
            return self.response_lost(Reason::Gap, None, out);
        }
        if self.waiting.front().is_some_and(|request| request.reported) {
            self.answered(EndedBy::Cut(Cause::ProtocolError), None, out);
        } else {
            out.push(Message::Damaged(Reason::ProtocolError));
        }
        Err(GiveUp)
    }

    /// A response's head will never be complete.
    fn response_lost(&mut self, reason: Reason, status: Option<u16>, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        if self.waiting.front().is_some_and(|request| request.reported) {
            out.push(Message::Damaged(reason));
        }
        if let Some(answer) = &mut self.answer {
            // An interim response says nothing about the final one behind it.
            answer.status = status.filter(|status| *status >= 200);
        }
        self.server.head = Head::default();
        self.server.stage = Stage::Lost;
        self.still_aligned(out)
    }

    /// With one request waiting, all that comes belongs to it. With more of them, the next response may have begun.
    fn still_aligned(&mut self, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        if self.waiting.len() <= 1 && !self.pipelined {
            return Ok(());
        }
        self.answered(EndedBy::NextRequest, None, out);
        Err(GiveUp)
    }

    fn server_lost(&mut self, missing: u64, tail: &[u8], at: Moment, out: &mut Vec<Message>) -> Result<(), GiveUp> {
        let mut left = missing;
        if let Stage::Body(body) = &mut self.server.stage {
            let (rest, done) = body.skip(missing);
            left = rest;
            self.answer_continues(at);
            if done {
                self.response_complete(at, out);
            }
        }
        if let Some(seen) = seen(left, tail)
            && !self.server.is_out_of_sight()
        {
            return self.server_sent(seen, at, out);
        }
        match &mut self.server.stage {
            _ if left == 0 => Ok(()),
            Stage::Head => {
                if self.server.head.is_empty() {
                    if !self.pipelined {
                        self.answers_lost(out);
                    }
                    if !self.response_begins(Reason::Gap, out) {
                        return Ok(());
                    }
                    self.answer = Some(Answer::at(at));
                }
                self.answer_continues(at);
                self.response_lost(Reason::Gap, status_of(self.server.head.bytes()), out)
            }
            Stage::Body(body) => {
                let ends = body.lose(left, tail);
                match self.waiting.len() {
                    0 | 1 if ends => self.response_complete(at, out),
                    0 | 1 if !self.pipelined => {}
                    // The next request was sent since: the end is among the missing bytes, and came before it.
                    _ if !self.pipelined => {
                        let next = self.waiting.get(1).map(|next| next.first);
                        self.answered(EndedBy::NextRequest, next, out);
                        self.server.stage = Stage::Head;
                        return self.server_lost(left, &[], at, out);
                    }
                    _ => {
                        out.push(Message::Damaged(Reason::Gap));
                        return self.still_aligned(out);
                    }
                }
                Ok(())
            }
            Stage::Lost => {
                self.answer_continues(at);
                self.still_aligned(out)
            }
            Stage::Over => Ok(()),
        }
    }

    /// Missing bytes hold the responses to all but the last request that waits: each was complete when the next request
    /// began.
    fn answers_lost(&mut self, out: &mut Vec<Message>) {
        while let [oldest, next, ..] = self.waiting.make_contiguous() {
            let (reported, at) = (oldest.reported, next.first);
            out.extend(reported.then_some(Message::Damaged(Reason::Gap)));
            self.answer = Some(Answer::at(at));
            self.answered(EndedBy::NextRequest, None, out);
        }
    }

    fn server_ended(&mut self, by: EndedBy, at: Moment, out: &mut Vec<Message>) {
        let by = match (&self.server.stage, by) {
            (Stage::Body(Body::UntilClose), EndedBy::Close) => EndedBy::Framing,
            // It was lost before, and may well have been complete.
            (Stage::Lost, _) => EndedBy::Close,
            (Stage::Body(Body::Blind(_)), by) => by,
            // "A message body that uses the chunked transfer coding is incomplete if the zero-sized chunk that
            // terminates the encoding has not been received. A message that uses a valid Content-Length is incomplete
            // if the size of the message body received (in octets) is less than the value given by Content-Length."
            // https://www.rfc-editor.org/rfc/rfc9112#section-8
            (Stage::Head | Stage::Body(_) | Stage::Over, _) => EndedBy::Cut(Cause::Truncated),
        };
        // A response that is cut off took until then: whoever waited for the rest of it waited so long.
        let exact = matches!(by, EndedBy::Framing | EndedBy::Cut(_));
        self.answered(by, exact.then_some(at), out);
        self.server = Direction { stage: Stage::Over, ..Direction::default() };
    }

    fn answer_continues(&mut self, at: Moment) {
        if let Some(answer) = &mut self.answer {
            answer.last = at;
        }
    }

    /// The response under way is over, at `last` or with the last byte that is known of.
    fn answered(&mut self, by: EndedBy, last: Option<Moment>, out: &mut Vec<Message>) {
        let Some(answer) = self.answer.take() else {
            return;
        };
        if let Some(Waiting { reported: true, body, .. }) = self.waiting.pop_front() {
            let attributes::Connection { role, common, .. } = &self.connection;
            let told = common.disclosure.body_sizes();
            let sizes = if told { BodySizes { request: body, response: answer.body } } else { BodySizes::default() };
            let (mut attributes, outcome) = attributes::of_response(answer.status, by, *role, sizes);
            attributes.extend(answer.captured);
            out.push(Message::Response(Response {
                key: Key::InOrder,
                first: answer.first,
                last: last.unwrap_or(answer.last),
                outcome,
                attributes,
            }));
        }
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }
}

// --- Method, EndedBy, Direction ---

impl Method {
    fn parse(token: &str) -> Self {
        match token {
            "CONNECT" => Self::Connect,
            "DELETE" => Self::Delete,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "QUERY" => Self::Query,
            "TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// The value of `http.request.method`.
    fn label(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Query => "QUERY",
            Self::Trace => "TRACE",
            Self::Other => "_OTHER",
        }
    }
}

impl EndedBy {
    /// The value of `spantap.response.end`, where the end is not exact.
    fn label(self) -> Option<&'static str> {
        match self {
            Self::NextRequest => Some("next_request"),
            Self::Silence => Some("silence"),
            Self::Close => Some("close"),
            Self::Framing | Self::Cut(_) => None,
        }
    }
}

impl Direction {
    /// Whether the current message's end cannot be seen coming.
    fn is_out_of_sight(&self) -> bool {
        matches!(self.stage, Stage::Lost | Stage::Body(Body::Blind(_)))
    }
}

/// The last `left` bytes of what was missing, if `tail` shows them all.
fn seen(left: u64, tail: &[u8]) -> Option<&[u8]> {
    let left = usize::try_from(left).ok().filter(|left| *left > 0)?;
    tail.len().checked_sub(left).map(|start| &tail[start..])
}

/// A length as positions count it.
fn length(bytes: &[u8]) -> u32 {
    wrapped(bytes.len() as u64)
}

/// `bytes` modulo 2^32.
fn wrapped(bytes: u64) -> u32 {
    (bytes & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
