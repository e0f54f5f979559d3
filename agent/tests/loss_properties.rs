// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What holds for the whole core whatever records are lost on the way.
//!
//! In: random conversations, cut into records of both ends, some of which never arrive. Out: claims about the spans and
//! the books. Truth is in the bytes: an answer's status is the number in its request's path, so that a wrong pairing
//! shows.

use std::collections::BTreeSet;

use proptest::{
    collection::vec,
    prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, proptest},
    sample::select,
};
use spantap::{
    attribute::Value,
    enrich::{HostFacts, ServiceSpan},
    event::{Data, End, Socket, SocketId, wire},
    pipeline::{Input, Limits, Pipeline, Watch},
    process::{ProcessFacts, ProcessId},
    time::{Moment, Task, Timestamp},
    trace::SpanKind,
    vitals::Vitals,
};
use spantap_common::{
    endpoint::Endpoint,
    event::{
        data::{Direction, Path},
        socket::{Origin, Shut},
    },
    loss::Reason,
    sniff::Guess,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_is_anothers_and_the_books_balance(
        talks in vec(vec(call(), 1..12), 1..4),
        losses in vec(0..6_u8, 1..120),
    ) {
        let heard = play(&talks, &losses, Pace::Turns, Limits::default());
        for span in &heard.spans {
            if let Some(status) = &span.status {
                prop_assert_eq!(&span.path, &format!("/{status}"), "{:?}", heard.spans);
            }
            if let Some(parent) = &span.parent {
                prop_assert_eq!(parent, &span.path, "a parent is the other end of the same request");
            }
        }
        let distinct: BTreeSet<_> = heard.spans.iter().map(|span| (span.server, &span.path)).collect();
        prop_assert_eq!(distinct.len(), heard.spans.len(), "no request has two spans");
        prop_assert!(heard.vitals.balance(0), "{:?}", heard.vitals);
        prop_assert_eq!(heard.vitals.spans, heard.spans.len() as u64);
        let made = 2 * talks.iter().map(Vec::len).sum::<usize>() as u64;
        prop_assert!(heard.vitals.requests <= made, "{} of {made}: {:?}", heard.vitals.requests, heard.vitals);
        for end in heard.unharmed {
            prop_assert!(
                heard.spans.iter().any(|span| (span.server, span.path.as_str()) == (end.0, end.1.as_str()) && span.status.is_some()),
                "{end:?} lost nothing: {:?}", heard.spans
            );
        }
    }

    #[test]
    fn the_books_balance_for_clients_that_send_ahead(
        talks in vec(vec(call(), 1..12), 1..3),
        losses in vec(0..6_u8, 1..120),
    ) {
        let heard = play(&talks, &losses, Pace::Ahead, Limits::default());
        prop_assert!(heard.vitals.balance(0), "{:?}", heard.vitals);
        prop_assert_eq!(heard.vitals.spans, heard.spans.len() as u64);
    }

    #[test]
    fn the_books_balance_in_tiny_tables(
        talks in vec(vec(call(), 1..6), 1..6),
        losses in vec(0..6_u8, 1..60),
        connections in 1..4_usize,
        exchanges in 1..4_usize,
        silence in select(vec![300_u64, 3_600_000]),
    ) {
        let silence = std::time::Duration::from_millis(silence);
        let limits = Limits { connections, exchanges, silence, unix_silence: silence / 2 };
        let heard = play(&talks, &losses, Pace::Turns, limits);
        for span in &heard.spans {
            if let Some(status) = &span.status {
                prop_assert_eq!(&span.path, &format!("/{status}"), "{:?}", heard.spans);
            }
        }
        prop_assert!(heard.vitals.balance(0), "{:?}", heard.vitals);
    }

    #[test]
    fn losing_nothing_makes_a_span_at_each_end(talks in vec(vec(call(), 1..12), 1..4), ahead in any::<bool>()) {
        let pace = if ahead { Pace::Ahead } else { Pace::Turns };
        let heard = play(&talks, &[1], pace, Limits::default());
        let made = 2 * talks.iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!(heard.spans.len(), made);
        prop_assert!(heard.spans.iter().all(|span| span.status.as_deref() == Some(&span.path[1..])));
        prop_assert_eq!(heard.vitals.lost, spantap::vitals::Losses::default());
    }
}

#[test]
fn a_socket_that_carries_another_connection_begins_anew() {
    // `connect` to AF_UNSPEC, and then to somebody else; the first close is lost.
    let mut stage = Stage::new(Limits::default());
    let mut first = Wire::client(1, 8080);
    stage.says(&mut first, Direction::Write, b"GET /201 HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut second = Wire::client(1, 9090);
    second.written = 77_000;
    stage.says(&mut second, Direction::Write, b"GET /202 HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.says(&mut second, Direction::Read, b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n");
    let heard = stage.finish();
    let said: BTreeSet<_> = heard.spans.iter().map(|span| (span.path.as_str(), span.status.as_deref())).collect();
    assert_eq!(said, BTreeSet::from([("/201", None), ("/202", Some("202"))]));
}

#[test]
fn a_connection_that_is_silent_for_too_long_is_given_up_and_counted() {
    let limits = Limits { silence: std::time::Duration::from_secs(60), ..Limits::default() };
    let mut stage = Stage::new(limits);
    let mut wire = Wire::client(1, 8080);
    stage.says(&mut wire, Direction::Write, b"GET /201 HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.wait(59_000);
    assert_eq!((stage.pipeline.vitals().expired, stage.pipeline.open()), (0, 1));
    stage.wait(2_000);
    assert_eq!((stage.pipeline.vitals().expired, stage.pipeline.open()), (1, 0));
    stage.says(&mut wire, Direction::Read, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
    let heard = stage.finish();
    assert_eq!((heard.spans.len(), heard.vitals.strays), (1, 1));
    assert_eq!(heard.spans[0].status, None);
}

#[test]
fn a_silent_unix_connection_is_forgotten_unless_a_request_is_open() {
    let mut stage = Stage::new(Limits { unix_silence: std::time::Duration::from_secs(20), ..Limits::default() });
    let unix = |id| Wire { local: Endpoint::unix(id), peer: Endpoint::unix(id + 100), ..Wire::client(id, 0) };
    let (mut idle, mut asking) = (unix(1), unix(2));
    stage.says(&mut idle, Direction::Write, b"GET /201 HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.says(&mut idle, Direction::Read, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
    stage.says(&mut asking, Direction::Write, b"GET /202 HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.wait(21_000);
    assert_eq!((stage.pipeline.vitals().expired, stage.pipeline.open()), (1, 1));
    // The probes introduce it again.
    idle.introduced = false;
    stage.says(&mut idle, Direction::Write, b"GET /203 HTTP/1.1\r\nHost: x\r\n\r\n");
    stage.says(&mut idle, Direction::Read, b"HTTP/1.1 203 OK\r\nContent-Length: 0\r\n\r\n");
    stage.says(&mut asking, Direction::Read, b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n");
    let heard = stage.finish();
    assert_eq!((heard.spans.len(), heard.vitals.strays), (3, 0));
    assert!(heard.spans.iter().all(|span| span.status.as_deref() == Some(&span.path[1..])), "{:?}", heard.spans);
}

#[test]
fn idle_unix_connections_make_room_and_are_no_loss() {
    let mut stage = Stage::new(Limits { connections: 2, ..Limits::default() });
    for id in 1..=3 {
        let mut wire = Wire { local: Endpoint::unix(id), peer: Endpoint::unix(id + 100), ..Wire::client(id, 0) };
        stage.says(&mut wire, Direction::Write, b"GET /201 HTTP/1.1\r\nHost: x\r\n\r\n");
        stage.says(&mut wire, Direction::Read, b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n");
    }
    let heard = stage.finish();
    assert_eq!((heard.spans.len(), heard.vitals.expired, heard.vitals.lost.parts.total()), (3, 1, 0));
}

#[test]
fn a_full_table_gives_up_the_quietest() {
    let mut stage = Stage::new(Limits { connections: 2, ..Limits::default() });
    let mut wires: Vec<_> = (1..=3).map(|id| Wire::client(id, 8080)).collect();
    for (wire, status) in wires.iter_mut().zip(201..) {
        stage.says(wire, Direction::Write, format!("GET /{status} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
    }
    assert_eq!(stage.pipeline.vitals().lost.parts.of(Reason::TableFull), 1);
    let heard = stage.finish();
    assert_eq!(heard.spans.len(), 3, "what it had seen of the first is a span");
}

#[test]
fn records_that_are_none_are_counted_and_harm_nobody() {
    let mut stage = Stage::new(Limits::default());
    let mut wire = Wire::client(1, 8080);
    stage.says(&mut wire, Direction::Write, b"GET /201 HTTP/1.1\r\nHost: x\r\n\r\n");
    let (nothing, noise) = ([0; 0], [0xff; 200]);
    for record in [&nothing[..], &noise[..7], &noise] {
        stage.arrives(&mut wire, record);
    }
    stage.says(&mut wire, Direction::Read, b"HTTP/1.1 201 X\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(stage.pipeline.vitals().lost.records.of(Reason::BadRecord), 3);
    let heard = stage.finish();
    assert_eq!((heard.spans.len(), heard.vitals.lost.requests.total()), (1, 0));
}

// --- Conversations ---

/// One exchange.
#[derive(Clone, Debug)]
struct Call {
    request_body: Body,
    response_body: Body,
    /// Into how many records the writer and the reader cut each message.
    cuts: (usize, usize),
    /// Whether only the first bytes of a record are copied, and its tail.
    copied: Option<usize>,
    /// Time before it.
    pause_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    None,
    Length(usize),
    Chunked(usize),
}

/// Whether a client waits for its answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Pace {
    Turns,
    Ahead,
}

fn call() -> impl Strategy<Value = Call> {
    let body = || {
        (0..3_u8, 0..300_usize).prop_map(|(kind, size)| match kind {
            0 => Body::None,
            1 => Body::Length(size),
            _ => Body::Chunked(size),
        })
    };
    let copied = proptest::option::weighted(0.2, 100..200_usize);
    let parts = (body(), body(), (1..4_usize, 1..4_usize), copied, select(vec![0, 0, 1, 20, 150, 1_200_u64]));
    parts.prop_map(|(request_body, response_body, cuts, copied, pause_ms)| Call {
        request_body,
        response_body,
        cuts,
        copied,
        pause_ms,
    })
}

impl Call {
    fn request(&self, number: usize) -> Vec<u8> {
        let method = if matches!(self.request_body, Body::None) { "GET" } else { "POST" };
        self.request_body.after(format!("{method} /{number} HTTP/1.1\r\nHost: x\r\n"))
    }

    fn response(&self, number: usize) -> Vec<u8> {
        match self.response_body {
            Body::None => format!("HTTP/1.1 {number} OK\r\nContent-Length: 0\r\n\r\n").into_bytes(),
            body => body.after(format!("HTTP/1.1 {number} OK\r\n")),
        }
    }
}

impl Body {
    fn after(self, head: String) -> Vec<u8> {
        let mut bytes = head.into_bytes();
        match self {
            Self::None => bytes.extend_from_slice(b"\r\n"),
            Self::Length(size) => {
                bytes.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
                bytes.extend(std::iter::repeat_n(b'b', size));
            }
            Self::Chunked(size) => {
                bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                if size > 0 {
                    bytes.extend_from_slice(format!("{size:x}\r\n{}\r\n", "c".repeat(size)).as_bytes());
                }
                bytes.extend_from_slice(b"0\r\n\r\n");
            }
        }
        bytes
    }
}

/// What came of a conversation.
struct Heard {
    spans: Vec<Told>,
    vitals: Vitals,
    /// Whether it is the server's end, and the path: of connections whose end lost no record.
    unharmed: Vec<(bool, String)>,
}

#[derive(Debug)]
struct Told {
    server: bool,
    path: String,
    status: Option<String>,
    /// The path of its parent, if that is a span here.
    parent: Option<String>,
}

/// Plays all of `talks` at once, a connection each. The record number n is lost where `losses[n % len]` is 0.
fn play(talks: &[Vec<Call>], losses: &[u8], pace: Pace, limits: Limits) -> Heard {
    let mut stage = Stage::new(limits);
    stage.losses = losses.to_vec();
    let mut ends: Vec<(Wire, Wire)> =
        (0..talks.len() as u64).map(|n| (Wire::client(n, 80), Wire::server(n, 80))).collect();
    // Any status but those that end a response without a body, or begin another one.
    let mut numbers = (200..).filter(|number| ![204, 304].contains(number));
    let numbers: Vec<Vec<usize>> = talks.iter().map(|talk| numbers.by_ref().take(talk.len()).collect()).collect();
    let longest = talks.iter().map(Vec::len).max().unwrap_or_default();
    let passes: &[&[bool]] = if pace == Pace::Ahead { &[&[true], &[false]] } else { &[&[true, false]] };
    for pass in passes {
        for turn in 0..longest {
            for ((talk, numbers), (client, server)) in talks.iter().zip(&numbers).zip(&mut ends) {
                let (Some(call), Some(number)) = (talk.get(turn), numbers.get(turn)) else { continue };
                stage.wait(call.pause_ms);
                for asks in *pass {
                    let (bytes, from, to) = if *asks {
                        (call.request(*number), &mut *client, &mut *server)
                    } else {
                        (call.response(*number), &mut *server, &mut *client)
                    };
                    stage.carry(from, Direction::Write, &bytes, call.cuts.0, call.copied);
                    stage.carry(to, Direction::Read, &bytes, call.cuts.1, call.copied);
                }
            }
        }
    }
    let mut unharmed = Vec::new();
    for ((client, server), numbers) in ends.iter().zip(&numbers) {
        for (wire, is_server) in [(client, false), (server, true)] {
            stage.closes(wire);
            if wire.lost == 0 {
                unharmed.extend(numbers.iter().map(|number| (is_server, format!("/{number}"))));
            }
        }
    }
    Heard { unharmed, ..stage.finish() }
}

// --- The stage ---

/// A pipeline, and what its records say.
struct Stage {
    pipeline: Pipeline,
    spans: Vec<ServiceSpan>,
    losses: Vec<u8>,
    record: usize,
    now_ms: u64,
}

/// One end of a connection.
struct Wire {
    socket: SocketId,
    pid: u32,
    local: Endpoint,
    peer: Endpoint,
    requests: Direction,
    introduced: bool,
    read: u32,
    written: u32,
    lost: usize,
}

const CLIENT: u32 = 100;
const SERVER: u32 = 200;

impl Wire {
    fn client(number: u64, port: u16) -> Self {
        let ends = (Endpoint::v4([127, 0, 0, 1], 40_000 + number as u16), Endpoint::v4([127, 0, 0, 1], port));
        let (read, written) = (2_000, u32::MAX - 300);
        let requests = Direction::Write;
        let socket = SocketId(2 * number);
        Self { socket, pid: CLIENT, local: ends.0, peer: ends.1, requests, introduced: false, read, written, lost: 0 }
    }

    fn server(number: u64, port: u16) -> Self {
        let other = Self::client(number, port);
        Self {
            socket: SocketId(2 * number + 1),
            pid: SERVER,
            local: other.peer,
            peer: other.local,
            requests: Direction::Read,
            read: other.written,
            written: other.read,
            ..other
        }
    }
}

impl Stage {
    fn new(limits: Limits) -> Self {
        let pipeline = Pipeline::with_limits([5; 32], HostFacts::default(), limits);
        let mut stage = Self { pipeline, spans: Vec::new(), losses: Vec::new(), record: 0, now_ms: 1_000 };
        for pid in [CLIENT, SERVER] {
            let facts = ProcessFacts { id: ProcessId { pid, started: 1 }, ..ProcessFacts::default() };
            stage.pipeline.feed(Input::Facts(&facts, Watch::Trace), &mut stage.spans);
        }
        stage
    }

    /// Bytes that move in one call, whose record is not lost.
    fn says(&mut self, wire: &mut Wire, direction: Direction, bytes: &[u8]) {
        self.carry(wire, direction, bytes, 1, None);
    }

    /// Moves bytes in `cuts` calls.
    fn carry(&mut self, wire: &mut Wire, direction: Direction, bytes: &[u8], cuts: usize, copied: Option<usize>) {
        if !wire.introduced {
            wire.introduced = true;
            let introduction = Socket {
                moment: self.moment(wire.pid),
                id: wire.socket,
                cgroup: 0,
                connected: None,
                local: wire.local,
                peer: wire.peer,
                netns: 1,
                read_position: wire.read,
                write_position: wire.written,
                origin: Origin::Connected,
                requests: wire.requests,
                protocol: Guess::Http1,
                midway: false,
                unix: None,
            };
            // The probes announce a socket until it has got through.
            self.pipeline.feed(Input::Record(&wire::socket(&introduction)), &mut self.spans);
        }
        for piece in bytes.chunks(bytes.len().div_ceil(cuts)) {
            let (position, opposite) = match direction {
                Direction::Read => (wire.read, wire.written),
                Direction::Write => (wire.written, wire.read),
            };
            let length = u32::try_from(piece.len()).expect("short");
            let seen = copied.unwrap_or(piece.len()).min(piece.len());
            let tail = &piece[seen..];
            let data = Data {
                moment: self.moment(wire.pid),
                socket: wire.socket,
                direction,
                path: Path::Memory,
                position,
                opposite,
                length,
                bytes: &piece[..seen],
                tail: &tail[tail.len().saturating_sub(8)..],
            };
            self.arrives(wire, &wire::data(&data));
            match direction {
                Direction::Read => wire.read = wire.read.wrapping_add(length),
                Direction::Write => wire.written = wire.written.wrapping_add(length),
            }
        }
    }

    fn closes(&mut self, wire: &Wire) {
        let end = End {
            moment: self.moment(wire.pid),
            socket: wire.socket,
            read_position: wire.read,
            write_position: wire.written,
            how: Shut::Closed,
            errno: 0,
        };
        if !self.loses_this() {
            self.pipeline.feed(Input::Record(&wire::shut(&end)), &mut self.spans);
        }
    }

    fn arrives(&mut self, wire: &mut Wire, record: &[u8]) {
        if self.loses_this() {
            wire.lost += 1;
        } else {
            self.pipeline.feed(Input::Record(record), &mut self.spans);
        }
    }

    fn loses_this(&mut self) -> bool {
        self.record += 1;
        !self.losses.is_empty() && self.losses[self.record % self.losses.len()] == 0
    }

    /// Time passes, in the consumer's steps.
    fn wait(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while self.now_ms < until {
            self.now_ms = (self.now_ms + 50).min(until);
            self.pipeline.feed(Input::Tick(Timestamp(self.now_ms * 1_000_000)), &mut self.spans);
        }
    }

    fn moment(&mut self, pid: u32) -> Moment {
        self.now_ms += 1;
        Moment { at: Timestamp(self.now_ms * 1_000_000), task: Task { pid, tid: pid, ..Task::default() } }
    }

    fn finish(mut self) -> Heard {
        self.wait(1_500);
        self.pipeline.finish(&mut self.spans);
        let spans = &self.spans;
        let told = |of: &ServiceSpan| {
            let parent = of.span.parent.and_then(|parent| spans.iter().find(|other| other.span.id == parent.id));
            Told {
                server: of.span.kind == SpanKind::Server,
                path: path_of(of),
                status: text(of, "http.response.status_code"),
                parent: parent.map(path_of),
            }
        };
        Heard { spans: spans.iter().map(told).collect(), vitals: self.pipeline.vitals().clone(), unharmed: Vec::new() }
    }
}

fn path_of(span: &ServiceSpan) -> String {
    let path = text(span, "url.path").or_else(|| {
        let url = text(span, "url.full")?;
        let (_, rest) = url.split_once("://")?;
        Some(rest[rest.find('/')?..].to_owned())
    });
    path.unwrap_or_default()
}

fn text(of: &ServiceSpan, key: &str) -> Option<String> {
    of.span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| match &attribute.value {
        Value::Static(text) => (*text).to_owned(),
        Value::Text(text) => text.to_string(),
        Value::Int(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}
