// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often the pure core asks for memory, and how often it must not.
//!
//! In: keep-alive connections as ring records, with the heads that common clients and servers send. Out: allocations
//! per exchange, from a record's bytes to a `ServiceSpan`, held to the budget. It counts neither the records, which the
//! kernel writes, nor what an exporter makes of the spans.
//!
//! An exchange is one request with its response, seen at one end. The steady state is reached after [`WARM_UP`] of them:
//! tables have grown to their size, and what a connection says again and again was said.

use spantap::{
    enrich::{HostFacts, ServiceSpan},
    event::{Data, Socket, SocketId, wire},
    pipeline::{Input, Pipeline, Watch},
    process::{ProcessFacts, ProcessId},
    time::{Moment, Task, Timestamp},
};
use spantap_common::{
    endpoint::Endpoint,
    event::{
        data::{Direction, Path},
        socket::Origin,
    },
    sniff::Guess,
};

/// Allocations that one exchange may cost in the steady state.
const BUDGET: f64 = 5.0;

/// Rounds before anything is counted.
const WARM_UP: usize = 2_000;

/// Rounds that are counted.
const COUNTED: usize = 2_000;

/// The request of `curl`.
const PLAIN: &str = "GET /users/42 HTTP/1.1\r\nHost: shop:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// The request of a browser behind a proxy that takes part in the trace. It is not sampled, for one header in so many requests
/// would not be believed otherwise.
const RICH: &str = "GET /search?q=shoes&page=2&token=abc HTTP/1.1\r\nHost: shop.example\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en\r\n\
    X-Forwarded-For: 203.0.113.7, 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
    traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02\r\ntracestate: vendor=value\r\n\
    Cookie: session=0123456789abcdef\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_request_served() {
    within_budget("served", |wires| wires.server(2, SHOP, PLAIN, OK), 1);
}

#[test]
fn a_request_served_with_everything_a_head_can_say() {
    within_budget("served, rich", |wires| wires.server(2, SHOP, RICH, OK), 1);
}

#[test]
fn a_request_served_badly() {
    within_budget("served, 503", |wires| wires.server(2, SHOP, PLAIN, UNAVAILABLE), 1);
}

#[test]
fn a_call_made() {
    within_budget("called", |wires| wires.client(0, CURL, PLAIN, OK), 1);
}

#[test]
fn a_call_made_with_everything_a_head_can_say() {
    within_budget("called, rich", |wires| wires.client(0, CURL, RICH, OK), 1);
}

#[test]
fn a_call_seen_at_both_ends() {
    let both = |wires: &mut Wires| {
        wires.moves(0, CURL, Direction::Write, PLAIN);
        wires.moves(1, SHOP, Direction::Read, PLAIN);
        wires.moves(1, SHOP, Direction::Write, OK);
        wires.moves(0, CURL, Direction::Read, OK);
    };
    within_budget("both ends", both, 2);
}

#[test]
fn a_request_served_with_the_help_of_another_service() {
    let chain = |wires: &mut Wires| {
        wires.moves(2, SHOP, Direction::Read, PLAIN);
        wires.client(3, SHOP, PLAIN, OK);
        wires.moves(2, SHOP, Direction::Write, OK);
    };
    within_budget("served with a call", chain, 2);
}

/// Plays `round` again and again and holds the average to the budget. `exchanges` is how many there are in a round.
fn within_budget(name: &str, round: impl Fn(&mut Wires), exchanges: usize) {
    let mut wires = Wires::new();
    wires.introduce();
    for _ in 0..WARM_UP + COUNTED {
        round(&mut wires);
        wires.tick();
    }
    let lines = (wires.lines.len() - INTRODUCTIONS) / (WARM_UP + COUNTED);
    let (before, counted) = wires.lines.split_at(INTRODUCTIONS + lines * WARM_UP);

    let mut play = Play::new();
    play.all(before);
    // One batch after another leaves through the same vector.
    play.spans.clear();
    let spans_before = play.pipeline.vitals().spans;
    let mut spans = 0;
    let measured = allocation_counter::measure(|| {
        for batch in counted.chunks(lines) {
            play.all(batch);
            spans += play.spans.len();
            play.spans.clear();
        }
    });
    assert_eq!(play.pipeline.vitals().lost.by_reason().total(), 0);
    assert_eq!(spans as u64, play.pipeline.vitals().spans - spans_before);
    assert_eq!(spans, COUNTED * exchanges, "the steady state: what comes in goes out");
    let each = measured.count_total as f64 / spans as f64;
    let bytes = measured.bytes_total as f64 / spans as f64;
    println!("{name}: {each:.2} allocations and {bytes:.0} bytes an exchange");
    assert!(each <= BUDGET, "{name}: {each:.2} allocations an exchange, {BUDGET} are allowed");
}

/// What happens to the pipeline, made before anything is counted.
enum Line {
    Record(Vec<u8>),
    Tick(Timestamp),
}

struct Play {
    pipeline: Pipeline,
    spans: Vec<ServiceSpan>,
}

impl Play {
    fn new() -> Self {
        let (mut pipeline, mut spans) = (Pipeline::new([5; 32], HostFacts::default()), Vec::new());
        for pid in [CURL, SHOP] {
            let facts = ProcessFacts { id: ProcessId { pid, started: 1 }, ..ProcessFacts::default() };
            pipeline.feed(Input::Facts(&facts, Watch::Trace), &mut spans);
        }
        Self { pipeline, spans }
    }

    fn all(&mut self, lines: &[Line]) {
        for line in lines {
            let input = match line {
                Line::Record(record) => Input::Record(record),
                Line::Tick(now) => Input::Tick(*now),
            };
            self.pipeline.feed(input, &mut self.spans);
        }
    }
}

/// Sockets and what crosses them: 0 and 1 are the two ends of one connection, 2 is accepted from elsewhere, 3 leads
/// elsewhere.
struct Wires {
    lines: Vec<Line>,
    now: Timestamp,
    /// Positions: read, written.
    positions: [(u32, u32); 4],
}

const CURL: u32 = 100;
const SHOP: u32 = 200;

/// One record a socket.
const INTRODUCTIONS: usize = 4;

impl Wires {
    fn new() -> Self {
        Self { lines: Vec::new(), now: Timestamp(1_000_000_000), positions: [(0, 0); 4] }
    }

    fn introduce(&mut self) {
        let (here, there) = (Endpoint::v4([127, 0, 0, 1], 8080), Endpoint::v4([127, 0, 0, 1], 40_000));
        let (outside, elsewhere) = (Endpoint::v4([10, 0, 0, 1], 8080), Endpoint::v4([10, 1, 2, 3], 51_234));
        let (own, stock) = (Endpoint::v4([10, 0, 0, 1], 40_001), Endpoint::v4([10, 9, 9, 9], 80));
        for (index, (pid, local, peer, requests)) in [
            (CURL, there, here, Direction::Write),
            (SHOP, here, there, Direction::Read),
            (SHOP, outside, elsewhere, Direction::Read),
            (SHOP, own, stock, Direction::Write),
        ]
        .into_iter()
        .enumerate()
        {
            let record = wire::socket(&Socket {
                moment: self.moment(pid),
                id: SocketId(index as u64),
                cgroup: 0,
                connected: None,
                local,
                peer,
                netns: 1,
                read_position: 0,
                write_position: 0,
                origin: Origin::Accepted,
                requests,
                protocol: Guess::Http1,
                midway: false,
                unix: None,
            });
            self.lines.push(Line::Record(record));
        }
    }

    fn server(&mut self, socket: usize, pid: u32, request: &str, response: &str) {
        self.moves(socket, pid, Direction::Read, request);
        self.moves(socket, pid, Direction::Write, response);
    }

    fn client(&mut self, socket: usize, pid: u32, request: &str, response: &str) {
        self.moves(socket, pid, Direction::Write, request);
        self.moves(socket, pid, Direction::Read, response);
    }

    fn moves(&mut self, socket: usize, pid: u32, direction: Direction, text: &str) {
        let moment = self.moment(pid);
        let length = u32::try_from(text.len()).expect("a head is short");
        let (read, written) = &mut self.positions[socket];
        let (ours, opposite) = match direction {
            Direction::Read => (read, *written),
            Direction::Write => (written, *read),
        };
        let position = *ours;
        *ours = position.wrapping_add(length);
        self.lines.push(Line::Record(wire::data(&Data {
            moment,
            socket: SocketId(socket as u64),
            direction,
            path: Path::Memory,
            position,
            opposite,
            length,
            bytes: text.as_bytes(),
            tail: &[],
        })));
    }

    /// Long enough for every wait of the pipeline to be over: a round leaves nothing behind.
    fn tick(&mut self) {
        self.now.0 += 2_000_000_000;
        self.lines.push(Line::Tick(self.now));
    }

    fn moment(&mut self, pid: u32) -> Moment {
        self.now.0 += 100_000;
        Moment { at: self.now, task: Task { pid, tid: pid, ..Task::default() } }
    }
}
