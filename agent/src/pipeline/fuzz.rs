// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The whole pure core under any input.
//!
//! In: any bytes, read as a play of two processes with four sockets: records that come, that are lost, that nobody
//! wrote, and time that passes. Out: nothing but the claims that hold for every play. It looks at no single span.

use std::collections::HashSet;

use spantap_common::{
    endpoint::Endpoint,
    event::{
        data::{Direction, Path},
        process::Life,
        socket::{Origin, Shut},
    },
    sniff::Guess,
};

use super::{Input, Pipeline, Watch};
use crate::{
    enrich::{HostFacts, ServiceSpan},
    event::{Data, End, Process, Socket, SocketId, wire},
    process::{ProcessFacts, ProcessId, Runtime},
    time::{Moment, Task, Timestamp},
};

/// A fuzz target: any bytes are a play, and the books are right after every line of it.
///
/// A line is an opcode, a length and so many bytes of payload. The opcode's lowest two bits name the socket: 0 and 1 are
/// the two ends of one connection between two processes, 2 and 3 lead elsewhere.
///
/// # Panics
///
/// When a request is neither a span, nor open, nor counted as lost; when a span ends before it begins; or when two spans
/// share an id.
pub fn fuzz_pipeline(data: &[u8]) {
    let mut play = Play::new();
    let mut rest = data;
    while let [op, length, after @ ..] = rest {
        let (payload, after) = after.split_at(usize::from(*length).min(after.len()));
        play.line(*op, *length, payload);
        play.audit();
        rest = after;
    }
    play.pipeline.finish(&mut play.spans);
    play.audit();
    assert_eq!(play.pipeline.open(), 0, "something is open after the end");
}

struct Play {
    pipeline: Pipeline,
    ends: [Wire; 4],
    now: Timestamp,
    spans: Vec<ServiceSpan>,
    /// Spans that were looked at already.
    audited: usize,
    ids: HashSet<([u8; 16], [u8; 8])>,
}

/// One socket, and how far its streams have come.
#[derive(Clone, Copy)]
struct Wire {
    id: SocketId,
    pid: u32,
    local: Endpoint,
    peer: Endpoint,
    requests: Direction,
    read: u32,
    write: u32,
}

impl Play {
    fn new() -> Self {
        let mut pipeline = Pipeline::new([1; 32], HostFacts::default());
        let mut spans = Vec::new();
        for (pid, runtime) in [(FRONT, Runtime::Native), (BACK, Runtime::Go)] {
            let id = ProcessId { pid, started: 1 };
            let facts = ProcessFacts { id, runtime, ..ProcessFacts::default() };
            pipeline.feed(Input::Facts(&facts, Watch::Trace), &mut spans);
        }
        let at = |host, port| Endpoint::v4([127, 0, 0, host], port);
        let wire = |id, pid, local, peer, requests, read, write| Wire {
            id: SocketId(id),
            pid,
            local,
            peer,
            requests,
            read,
            write,
        };
        let ends = [
            wire(1, FRONT, at(1, 40_000), at(1, 80), Direction::Write, NEAR_WRAP, 7),
            wire(2, BACK, at(1, 80), at(1, 40_000), Direction::Read, 7, NEAR_WRAP),
            wire(3, FRONT, at(1, 8080), at(2, 50_000), Direction::Read, 0, 0),
            wire(4, BACK, at(1, 50_001), at(3, 80), Direction::Write, 1, NEAR_WRAP),
        ];
        Self { pipeline, ends, now: Timestamp(MILLISECOND), spans, audited: 0, ids: HashSet::new() }
    }

    fn line(&mut self, op: u8, length: u8, payload: &[u8]) {
        self.now.0 += MILLISECOND;
        let index = usize::from(op & 0b11);
        let wire = self.ends[index];
        // Two threads a process.
        let task = Task { pid: wire.pid, tid: wire.pid + u32::from(op >> 7), ..Task::default() };
        let moment = Moment { at: self.now, task };
        let direction = if op & 0b100 == 0 { Direction::Read } else { Direction::Write };
        match op >> 3 & 0b1111 {
            0..=6 => self.moved(index, moment, direction, payload, 0, 0),
            // Bytes that were only counted, the last of them known.
            7 => self.moved(index, moment, direction, payload, u32::from(op), payload.len().min(TAIL)),
            8 => self.moved(index, moment, direction, payload, u32::from(length), 0),
            9 => self.advance(index, direction, u32::from(length)),
            10 => self.record(&wire::socket(&Socket {
                moment,
                id: wire.id,
                cgroup: 0,
                connected: None,
                local: wire.local,
                peer: wire.peer,
                netns: 1,
                read_position: wire.read,
                write_position: wire.write,
                origin: Origin::Accepted,
                requests: wire.requests,
                protocol: Guess::Http1,
                midway: false,
                unix: None,
            })),
            11 => {
                let how = [Shut::ReadEnd, Shut::WriteEnd, Shut::Closed][usize::from(length) % 3];
                let errno = if direction == Direction::Read { 0 } else { u16::from(length) };
                let (read_position, write_position) = (wire.read, wire.write);
                let end = End { moment, socket: wire.id, read_position, write_position, how, errno };
                self.record(&wire::shut(&end));
            }
            12 => self.record(payload),
            13 => {
                let life = [Life::Fork, Life::Exec, Life::Exit][usize::from(length) % 3];
                let pid = wire.pid;
                let process = Process { moment, pid, parent: 1, started: 1, life, command: b"play", path: b"" };
                self.record(&wire::process(&process));
            }
            14 => self.pipeline.stop_opening(),
            _ => {
                self.now.0 += u64::from(length) * 10 * MILLISECOND;
                self.pipeline.feed(Input::Tick(self.now), &mut self.spans);
            }
        }
    }

    /// `payload` moved, and after it `more` bytes of which at most the last `tail` are known.
    fn moved(&mut self, index: usize, moment: Moment, direction: Direction, payload: &[u8], more: u32, tail: usize) {
        let Wire { id, read, write, .. } = self.ends[index];
        let (position, opposite) = match direction {
            Direction::Read => (read, write),
            Direction::Write => (write, read),
        };
        let (bytes, known) = payload.split_at(payload.len() - tail);
        let length = payload.len() as u32 + more;
        let path = Path::Memory;
        let data = Data { moment, socket: id, direction, path, position, opposite, length, bytes, tail: known };
        self.record(&wire::data(&data));
        self.advance(index, direction, length);
    }

    fn advance(&mut self, index: usize, direction: Direction, length: u32) {
        let wire = &mut self.ends[index];
        match direction {
            Direction::Read => wire.read = wire.read.wrapping_add(length),
            Direction::Write => wire.write = wire.write.wrapping_add(length),
        }
    }

    fn record(&mut self, record: &[u8]) {
        self.pipeline.feed(Input::Record(record), &mut self.spans);
    }

    fn audit(&mut self) {
        for ServiceSpan { span, .. } in &self.spans[self.audited..] {
            assert!(span.start <= span.end, "a span ends before it begins: {span:?}");
            assert!(span.answered.is_none_or(|answered| span.start <= answered), "answered before asked: {span:?}");
            assert!(self.ids.insert((span.trace.0, span.id.0)), "two spans share an id: {span:?}");
        }
        self.audited = self.spans.len();
        let vitals = self.pipeline.vitals();
        assert_eq!(vitals.spans, self.spans.len() as u64, "spans are counted");
        let by_kind: u64 = vitals.protocols.iter().map(|parsed| parsed.served + parsed.called).sum();
        assert_eq!(vitals.spans, by_kind, "each is of a protocol and a kind: {vitals:?}");
        assert!(vitals.balance(self.pipeline.open()), "{} open: {vitals:?}", self.pipeline.open());
    }
}

const FRONT: u32 = 100;
const BACK: u32 = 200;

/// A sequence number from which every play soon crosses the wrap.
const NEAR_WRAP: u32 = u32::MAX - 100;

const MILLISECOND: u64 = 1_000_000;

/// Bytes of a tail that a data record has room for.
const TAIL: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const OK_LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 57\r\n\r\nbegin";

    const INTRODUCED: u8 = 10 << 3;
    const READ: u8 = 0;
    const WRITE: u8 = 0b100;
    const COUNTED: u8 = 8 << 3;
    const LOST: u8 = 9 << 3;
    const SHUT: u8 = 11 << 3;
    const PROCESS: u8 = 13 << 3;
    const TICK: u8 = 15 << 3;

    fn line(op: u8, text: &str) -> Vec<u8> {
        [&[op, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
    }

    #[test]
    fn a_call_between_two_processes_keeps_the_books() {
        fuzz_pipeline(
            &[
                vec![INTRODUCED, 0],
                line(WRITE, GET),
                vec![INTRODUCED | 1, 0],
                line(READ | 1, GET),
                line(WRITE | 1, OK),
                line(READ, OK),
                vec![TICK, 200],
            ]
            .concat(),
        );
    }

    #[test]
    fn losses_ends_and_nonsense_keep_the_books() {
        let asked = [vec![INTRODUCED | 2, 0], line(READ | 2, GET)].concat();
        for end in [
            vec![],
            vec![0xff; 64],
            [vec![COUNTED | WRITE | 2, 40], vec![40; 40]].concat(),
            [line(WRITE | 2, OK_LONG), vec![LOST | WRITE | 2, 52], line(READ | 2, GET)].concat(),
            [vec![LOST | WRITE | 2, 9], line(READ | 2, GET), vec![TICK, 255], line(WRITE | 2, OK)].concat(),
            vec![SHUT | 2, 2],
            vec![SHUT | 2, 0, SHUT | 2, 1],
            vec![PROCESS | 2, 2, TICK, 255],
            vec![PROCESS | 2, 1, 12 << 3, 3, 1, 2, 3],
            [vec![14 << 3, 0], line(READ | 2, GET)].concat(),
        ] {
            fuzz_pipeline(&[asked.clone(), end].concat());
        }
    }
}
