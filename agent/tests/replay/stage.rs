// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A stage for dialogues: every line is a ring record of one process's socket; virtual time passes 1 ms a line.
//!
//! A connection is a letter. `accept` and `connect` make its first end; `other_end` turns to the end of the process
//! that was connected to, and back.

use std::collections::HashMap;

use spantap::{
    capture::{Preamble, Recorder, Replayer},
    enrich::{HostFacts, ServiceSpan},
    event::{Data, End, Socket, SocketId, wire},
    export::stdout::JsonLines,
    pipeline::{Input, Pipeline, Watch},
    process::{ProcessFacts, ProcessId},
    time::{Moment, Task, Timestamp, WallOffset},
    trace::SpanKind,
    vitals::Vitals,
};
use spantap_common::{
    endpoint::Endpoint,
    event::{
        data::{Direction, Path},
        socket::{Origin, Shut},
    },
    sniff::Guess,
};

/// A process of one thread, named for its pid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Actor(u32, &'static str);

pub(crate) const CURL: Actor = Actor(100, "curl");
pub(crate) const SHOP: Actor = Actor(200, "shop");
pub(crate) const STOCK: Actor = Actor(300, "stock");

pub(crate) fn stage() -> Stage {
    let preamble = Preamble { seed: [3; 32], host: HostFacts::default() };
    let mut stage = Stage {
        pipeline: Pipeline::new(preamble.seed, preamble.host.clone()),
        recorder: Recorder::new(Vec::new(), &preamble).expect("a vector takes everything"),
        spans: Vec::new(),
        ends: HashMap::new(),
        turned: HashMap::new(),
        now_ms: 1_000,
    };
    for actor in [CURL, SHOP, STOCK] {
        stage.introduce(actor, Watch::Trace);
    }
    stage
}

pub(crate) struct Stage {
    pipeline: Pipeline,
    recorder: Recorder<Vec<u8>>,
    spans: Vec<ServiceSpan>,
    /// By letter and by whether it is the other end.
    ends: HashMap<(char, bool), EndOf>,
    turned: HashMap<char, bool>,
    now_ms: u64,
}

/// One end of a connection.
#[derive(Clone, Copy)]
struct EndOf {
    actor: Actor,
    socket: SocketId,
    local: Endpoint,
    peer: Endpoint,
    origin: Origin,
    announced: bool,
    read: u32,
    write: u32,
}

const WALL: WallOffset = WallOffset(1_700_000_000_000_000_000);

impl Stage {
    pub(crate) fn ignore(mut self, actor: Actor) -> Self {
        self.introduce(actor, Watch::Ignore);
        self
    }

    pub(crate) fn accept(mut self, letter: char, actor: Actor) -> Self {
        let (local, peer) = (Endpoint::v4([10, 0, 0, 1], 8080), Endpoint::v4([10, 1, 2, 3], letter as u16));
        self.make_end(letter, false, actor, local, peer, Origin::Accepted);
        self
    }

    pub(crate) fn connect(mut self, letter: char, from: Actor, to: Actor) -> Self {
        let (local, peer) = (Endpoint::v4([127, 0, 0, 1], letter as u16), Endpoint::v4([127, 0, 0, 1], 8080));
        self.make_end(letter, false, from, local, peer, Origin::Connected);
        self.make_end(letter, true, to, peer, local, Origin::Accepted);
        self
    }

    pub(crate) fn other_end(mut self, letter: char) -> Self {
        let turned = self.turned.entry(letter).or_default();
        *turned = !*turned;
        self
    }

    pub(crate) fn reads(self, letter: char, bytes: &str) -> Self {
        self.moves(letter, Direction::Read, bytes, length_of(bytes))
    }

    pub(crate) fn writes(self, letter: char, bytes: &str) -> Self {
        self.moves(letter, Direction::Write, bytes, length_of(bytes))
    }

    /// A call writes so many bytes, of which none are copied.
    pub(crate) fn writes_uncopied(self, letter: char, length: u32) -> Self {
        self.moves(letter, Direction::Write, "", length)
    }

    /// Bytes go out, and their record is lost.
    pub(crate) fn loses_written(mut self, letter: char, length: usize) -> Self {
        self.now_ms += 1;
        let end = self.end(letter);
        end.write = end.write.wrapping_add(length as u32);
        self
    }

    pub(crate) fn breaks(self, letter: char, errno: i32) -> Self {
        self.shuts(letter, Shut::Closed, errno)
    }

    /// The peer has said its last, and this end has read that.
    pub(crate) fn reads_end(self, letter: char) -> Self {
        self.shuts(letter, Shut::ReadEnd, 0)
    }

    /// This end has said its last.
    pub(crate) fn writes_end(self, letter: char) -> Self {
        self.shuts(letter, Shut::WriteEnd, 0)
    }

    pub(crate) fn wait_ms(mut self, ms: u64) -> Self {
        for _ in 0..ms / 10 {
            self.now_ms += 10;
            let now = Timestamp(self.now_ms * 1_000_000);
            self.feed(&Input::Tick(now));
        }
        self
    }

    pub(crate) fn finish(mut self) -> Self {
        self.pipeline.finish(&mut self.spans);
        self
    }

    /// How many sockets turned out to be of no use since the last tick.
    pub(crate) fn unwanted(&mut self) -> usize {
        self.pipeline.unwanted().count()
    }

    /// What the probes are told of long bodies, as bytes that this end has still to write.
    pub(crate) fn left_to_write(&mut self, letter: char) -> Vec<u32> {
        let EndOf { socket, write, .. } = *self.end(letter);
        let told = self.pipeline.long_bodies().inspect(|told| {
            assert_eq!((told.socket, told.direction), (socket, Direction::Write));
        });
        told.map(|told| told.end.wrapping_sub(write)).collect()
    }

    /// Processes by what becomes of their requests.
    pub(crate) fn targets(&self) -> [(&'static str, u64); 3] {
        self.pipeline.targets()
    }

    pub(crate) fn vitals(&self) -> &Vitals {
        self.pipeline.vitals()
    }

    /// Every span as one line, sorted.
    pub(crate) fn said(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.spans.iter().map(|span| self.render(span)).collect();
        lines.sort();
        lines
    }

    pub(crate) fn becomes(self, expected: &[&str]) {
        assert_eq!(self.said(), expected);
    }

    pub(crate) fn json(&self) -> String {
        json(self.spans.clone())
    }

    /// What comes out when the recording of this stage is played.
    pub(crate) fn replayed_json(&self) -> String {
        let recording = self.recorder.written();
        let mut replayer = Replayer::new(&recording[..]).expect("it was just recorded");
        let Preamble { seed, host } = replayer.preamble().clone();
        let (mut pipeline, mut spans) = (Pipeline::new(seed, host), Vec::new());
        while let Some(frame) = replayer.next_frame().expect("it was just recorded") {
            pipeline.feed(frame.input(), &mut spans);
        }
        pipeline.finish(&mut spans);
        json(spans)
    }

    // --- Behind the stage ---

    fn introduce(&mut self, actor: Actor, watch: Watch) {
        let facts = ProcessFacts {
            id: ProcessId { pid: actor.0, started: 1 },
            command: actor.1.into(),
            executable: format!("/usr/bin/{}", actor.1),
            ..ProcessFacts::default()
        };
        self.feed(&Input::Facts(&facts, watch));
    }

    fn make_end(&mut self, letter: char, other: bool, actor: Actor, local: Endpoint, peer: Endpoint, origin: Origin) {
        let socket = SocketId(u64::from(letter) * 2 + u64::from(other));
        // The other end's positions are these, the other way round.
        let (ours, theirs) = (u32::from(letter) * 1_000, u32::from(letter) * 2_000);
        let (read, write) = if other { (ours, theirs) } else { (theirs, ours) };
        self.ends.insert((letter, other), EndOf { actor, socket, local, peer, origin, announced: false, read, write });
    }

    fn end(&mut self, letter: char) -> &mut EndOf {
        let turned = self.turned.get(&letter).copied().unwrap_or_default();
        self.ends.get_mut(&(letter, turned)).expect("the connection was made before")
    }

    fn shuts(mut self, letter: char, how: Shut, errno: i32) -> Self {
        let EndOf { actor, socket, read, write, .. } = *self.end(letter);
        let moment = self.moment(actor);
        let errno = u16::try_from(errno).expect("an errno is small");
        let shut = End { moment, socket, read_position: read, write_position: write, how, errno };
        self.feed(&Input::Record(&wire::shut(&shut)));
        self
    }

    fn moves(mut self, letter: char, direction: Direction, bytes: &str, length: u32) -> Self {
        let EndOf { actor, socket, local, peer, origin, announced, read, write } = *self.end(letter);
        let moment = self.moment(actor);
        if !announced {
            self.end(letter).announced = true;
            let introduction = Socket {
                moment,
                id: socket,
                cgroup: 0,
                connected: None,
                local,
                peer,
                netns: 1,
                read_position: read,
                write_position: write,
                origin,
                requests: direction,
                protocol: Guess::Http1,
                midway: false,
                unix: None,
            };
            self.feed(&Input::Record(&wire::socket(&introduction)));
        }
        let (position, opposite) = match direction {
            Direction::Read => (read, write),
            Direction::Write => (write, read),
        };
        let data = Data {
            moment,
            socket,
            direction,
            path: Path::Memory,
            position,
            opposite,
            length,
            bytes: bytes.as_bytes(),
            tail: &[],
        };
        self.feed(&Input::Record(&wire::data(&data)));
        let end = self.end(letter);
        match direction {
            Direction::Read => end.read = read.wrapping_add(length),
            Direction::Write => end.write = write.wrapping_add(length),
        }
        self
    }

    fn moment(&mut self, actor: Actor) -> Moment {
        self.now_ms += 1;
        let task = Task { pid: actor.0, tid: actor.0, ..Task::default() };
        Moment { at: Timestamp(self.now_ms * 1_000_000), task }
    }

    fn feed(&mut self, input: &Input<'_>) {
        self.recorder.input(input, WALL).expect("a vector takes everything");
        self.pipeline.feed(*input, &mut self.spans);
    }

    fn render(&self, of: &ServiceSpan) -> String {
        let ServiceSpan { span, resource, .. } = of;
        let text = |key: &str| {
            span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.to_string())
        };
        let path = text("url.path").or_else(|| {
            let url = text("url.full")?;
            let (_, rest) = url.split_once("://")?;
            Some(rest[rest.find('/')?..].to_owned())
        });
        let status = text("http.response.status_code").map(|status| format!(" {status}")).unwrap_or_default();
        let error = text("error.type").filter(|_| span.failed).map(|error| format!(" {error}!")).unwrap_or_default();
        let parent = match &span.parent {
            None => "root".to_owned(),
            Some(parent) => match self.spans.iter().find(|other| other.span.id == parent.id) {
                Some(of) => {
                    assert_eq!(of.span.trace, span.trace, "a parent is of the same trace");
                    format!("under {} {} ({})", of.resource.service, kind(of.span.kind), parent.method.label())
                }
                None => format!("under {} ({}) of {}", parent.id, parent.method.label(), span.trace),
            },
        };
        let path = path.unwrap_or_default();
        let method = text("http.request.method").unwrap_or_else(|| span.name.to_string());
        format!("{} {} {method} {path}{status}{error} · {parent}", resource.service, kind(span.kind))
    }
}

fn length_of(bytes: &str) -> u32 {
    u32::try_from(bytes.len()).expect("a line is short")
}

fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Server => "SERVER",
        SpanKind::Client => "CLIENT",
    }
}

fn json(spans: Vec<ServiceSpan>) -> String {
    let mut out = Vec::new();
    JsonLines::new(&mut out).write(spans, WALL).expect("a vector takes everything");
    String::from_utf8(out).expect("JSON is UTF-8")
}
