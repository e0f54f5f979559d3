// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The traffic that the bench counts and measures by.
//!
//! In: a number of exchanges. Out: what the probes would have written about them, input by input. It is the same for the
//! same number, and knows nothing of recordings.

use spantap::{
    event::{Data, Socket, SocketId, wire},
    pipeline::{Input, Watch},
    process::{ProcessFacts, ProcessId},
    time::{Moment, Task, Timestamp, WallOffset},
};
use spantap_common::{
    endpoint::Endpoint,
    event::{
        data::{Direction, Path},
        socket::Origin,
    },
    sniff::Guess,
};

/// Hands every input of `exchanges` exchanges to `take`, with the wall offset that goes with it.
pub(super) fn play(exchanges: u32, mut take: impl FnMut(&Input<'_>, WallOffset)) {
    for (pid, name) in [(CLIENT, "shop"), (SERVER, "stock")] {
        let facts = ProcessFacts {
            id: ProcessId { pid, started: 1 },
            command: name.into(),
            executable: format!("/usr/bin/{name}"),
            ..ProcessFacts::default()
        };
        take(&Input::Facts(&facts, Watch::Trace), WALL);
    }
    let mut now = 1_000_000_000;
    let mut ticked = now;
    for exchange in 0..exchanges {
        let (connection, turn) = (exchange % CONNECTIONS, exchange / CONNECTIONS);
        let ends = [End::of_client(connection), End::of_server(connection)];
        if turn == 0 {
            for end in ends {
                take(&Input::Record(&end.introduction(now)), WALL);
            }
        }
        // Positions of this exchange: all before it on this connection were as long.
        let begun = begin(connection);
        let request = request(exchange);
        let (asked, answered) =
            (begun.wrapping_add(turn * length(&request)), begun.wrapping_add(turn * length(RESPONSE)));
        let after = asked.wrapping_add(length(&request));
        for (end, direction, bytes, position, opposite) in [
            (ends[0], Direction::Write, &*request, asked, answered),
            (ends[1], Direction::Read, &request, asked, answered),
            (ends[1], Direction::Write, RESPONSE, answered, after),
            (ends[0], Direction::Read, RESPONSE, answered, after),
        ] {
            now += STEP_NS;
            take(&Input::Record(&end.moved(now, direction, bytes, position, opposite)), WALL);
        }
        if now - ticked >= TICK_NS {
            ticked = now;
            take(&Input::Tick(Timestamp(now)), WALL);
        }
    }
    // Past every wait, so that the last spans come out like the others.
    take(&Input::Tick(Timestamp(now + 10_000_000_000)), WALL);
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct End {
    pid: u32,
    socket: SocketId,
    local: Endpoint,
    peer: Endpoint,
    origin: Origin,
    requests: Direction,
    /// Where both of its streams begin.
    begun: u32,
}

impl End {
    fn of_client(connection: u32) -> Self {
        let (local, peer) = ends(connection);
        let socket = SocketId(2 * u64::from(connection) + 1);
        Self {
            pid: CLIENT,
            socket,
            local,
            peer,
            origin: Origin::Connected,
            requests: Direction::Write,
            begun: begin(connection),
        }
    }

    fn of_server(connection: u32) -> Self {
        let (peer, local) = ends(connection);
        let socket = SocketId(2 * u64::from(connection) + 2);
        Self {
            pid: SERVER,
            socket,
            local,
            peer,
            origin: Origin::Accepted,
            requests: Direction::Read,
            begun: begin(connection),
        }
    }

    fn introduction(&self, now: u64) -> Vec<u8> {
        wire::socket(&Socket {
            moment: self.moment(now),
            id: self.socket,
            cgroup: 0,
            connected: None,
            local: self.local,
            peer: self.peer,
            netns: 1,
            read_position: self.begun,
            write_position: self.begun,
            origin: self.origin,
            requests: self.requests,
            protocol: Guess::Http1,
            midway: false,
            unix: None,
        })
    }

    fn moved(&self, now: u64, direction: Direction, bytes: &[u8], position: u32, opposite: u32) -> Vec<u8> {
        wire::data(&Data {
            moment: self.moment(now),
            socket: self.socket,
            direction,
            path: Path::Memory,
            position,
            opposite,
            length: length(bytes),
            bytes,
            tail: &[],
        })
    }

    fn moment(&self, now: u64) -> Moment {
        Moment { at: Timestamp(now), task: Task { pid: self.pid, tid: self.pid, ..Task::default() } }
    }
}

/// Where the streams of a connection begin: no two in the same place, as with TCP's sequence numbers.
fn begin(connection: u32) -> u32 {
    // 2^32 divided by the golden ratio, which spreads neighbours.
    connection.wrapping_mul(0x9E37_79B1)
}

fn ends(connection: u32) -> (Endpoint, Endpoint) {
    let port = u16::try_from(connection).expect("few connections") + 40_000;
    (Endpoint::v4([127, 0, 0, 1], port), Endpoint::v4([127, 0, 0, 1], 8080))
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a short message")
}

/// The request of a service's client library, without a trace context: the longer way through the stages. No two are alike,
/// and all are of one length.
fn request(exchange: u32) -> Vec<u8> {
    format!(
        "GET /users/{exchange:06}?page=3 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\n\
         X-Request-Id: 4d5e9d0c-7a33-4d36-9f2a-1b1a{exchange:08x}\r\n\r\n"
    )
    .into_bytes()
}

/// Its answer, as nginx writes it.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 03:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n";

const CLIENT: u32 = 100;
const SERVER: u32 = 200;

/// As many as the budgets' lighter case has.
const CONNECTIONS: u32 = 100;

/// Four steps an exchange: 10,000 exchanges a second.
const STEP_NS: u64 = 25_000;

/// How often the run loop tells the time.
const TICK_NS: u64 = 5_000_000;

const WALL: WallOffset = WallOffset(1_700_000_000_000_000_000);
