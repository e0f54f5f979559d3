// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pure stages in a row: from what the kernel wrote to finished spans of named services.
//!
//! In: ring records, facts about processes, and the time, as [`Input`]s. Out: [`ServiceSpan`]s. It has no clock, file,
//! socket, task or global: the same inputs give the same spans, byte for byte, which is what replay rests on.

mod fuzz;

use std::{hint::black_box, mem, sync::Arc, time::Duration};

use spantap_common::{
    abi::{self, FARTHEST_END, LONG_BODY},
    endpoint::Endpoint,
    event::{data::Direction, process::Life},
    loss::Reason,
};

use crate::{
    enrich::{HostFacts, Resource, ServiceSpan, process::Resources, route::Routes, sdk, target::Targets},
    event::{self, Event, Process, Socket, SocketId},
    pairing::{ExchangeId, Pairing, Step},
    process::ProcessFacts,
    protocol::{Cause, Link, Message, Parser, Progress, Side, TABLE, common::Common, disclosure::Disclosure},
    stream::{Assembler, Piece},
    table::Table,
    time::{Moment, Timestamp},
    trace::{self, Opened, Span, SpanKind, Tracer},
    vitals::{Fill, Vitals},
};

pub use fuzz::fuzz_pipeline;

/// Everything that can happen to the pipeline.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The kernel wrote a record.
    Record(&'a [u8]),
    /// `/proc` was read. It comes before the first record that needs it.
    Facts(&'a ProcessFacts, Watch),
    /// A batch is over and it is this late now.
    Tick(Timestamp),
}

/// Whether a process is traced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Watch {
    /// Yes.
    Trace,
    /// No: its records are dropped, which is no loss.
    Ignore,
}

/// The pipeline's bounds. The defaults are for one host; tests choose smaller ones.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Connections followed at one time: both ends of 10,000 on one host, three times over.
    pub connections: usize,
    /// Exchanges that are not settled: those connections with one request each.
    pub exchanges: usize,
    /// How long a connection may be silent. Nothing but a lost close leaves one behind, so this is only to be longer
    /// than anybody keeps an idle connection: an hour is twelve times nginx's and a hundred times Node's default.
    pub silence: Duration,
    /// How long a connection between unix sockets may be silent while no request is open. Nobody sees most of them close;
    /// the probes introduce one again that goes on after half of this time.
    pub unix_silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64 << 10,
            exchanges: 64 << 10,
            silence: Duration::from_secs(3600),
            unix_silence: UNIX_SILENCE,
        }
    }
}

/// The stages and what they remember.
pub struct Pipeline {
    limits: Limits,
    /// Law: connections.len() <= limits.connections.
    ///
    /// Boxed: a table has up to twice as many places as it has entries, and is copied when it grows.
    connections: Table<SocketId, Box<Connection>>,
    /// Connections whose assembler waits for a record.
    waiting: Vec<SocketId>,
    /// Connections whose parser waits for silence. Law: those that did at the last look, and no more than records since then.
    silent: Vec<SocketId>,
    /// Bodies whose end the probes may know, since the last tick. Law: no more than records since then.
    bodies: Vec<LongBody>,
    /// Connections of no use, since the last tick. Law: no more than records since then.
    unwanted: Vec<SocketId>,
    /// Processes that have facts, and whether they are traced.
    known: Table<u32, Watch>,
    behind: Behind,
    resources: Resources,
    routes: Routes,
    common: Arc<Common>,
    parsers_ticked: Timestamp,
    expiry_ticked: Timestamp,
    now: Timestamp,
}

struct Connection {
    assembler: Assembler,
    talk: Talk,
    used: Timestamp,
}

impl Connection {
    /// See [`Pipeline::prefetch`]: something of each cache line.
    fn prefetch(&self) {
        black_box((self.used, self.assembler.is_waiting(), self.talk.role, self.talk.client));
        black_box(self.talk.pairing.newest());
        if let Some(parser) = &self.talk.parser {
            parser.prefetch();
        }
    }

    /// How long it may be silent.
    fn silence(&self, limits: &Limits) -> Duration {
        if self.talk.is_left_in_silence() { limits.unix_silence } else { limits.silence }
    }
}

/// What is said on one connection.
struct Talk {
    /// None once the protocol cannot be followed any further: bytes are ignored until the connection closes.
    parser: Option<Box<dyn Parser + Send>>,
    pairing: Pairing,
    /// The part of the observed process.
    role: Side,
    client: Endpoint,
    server: Endpoint,
    protocol: &'static str,
    /// Who connected, and when, where that was seen: until the first request.
    connected: Option<Box<Moment>>,
    /// The end of a body that the probes were told of last, and its direction.
    told: Option<(Direction, u32)>,
}

/// A connection is in the middle of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LongBody {
    /// Whose bytes they are.
    pub socket: SocketId,
    /// Which way they go.
    pub direction: Direction,
    /// Position behind the last of them, modulo 2^32; or of one in between, [`FARTHEST_END`] from where it stands.
    pub end: u32,
    /// When the call ended that showed it.
    pub seen: Timestamp,
}

/// The stages behind a connection, which all connections share.
struct Behind {
    tracer: Tracer,
    vitals: Vitals,
    /// New requests are not looked at any more.
    stopping: bool,
    // Filled and emptied within one call; kept for their memory.
    messages: Vec<Message>,
    spans: Vec<Span>,
}

impl Pipeline {
    /// A pipeline that has seen nothing; ids come from `seed`.
    pub fn new(seed: [u8; 32], host: HostFacts) -> Self {
        Self::with_limits(seed, host, Limits::default())
    }

    /// Attributes of every resource, where its process does not declare another value.
    pub fn describe_resources(&mut self, attributes: &[(String, String)]) {
        self.resources.also(attributes);
    }

    /// Takes likely requests for parents by these settings from now on.
    pub fn trust(&mut self, settings: trace::Settings) {
        self.behind.tracer.trust(settings);
    }

    /// Rules for kinds of processes. Who is known already stays under the rules of before.
    pub fn classify(&mut self, targets: Targets) {
        self.resources.classify(targets);
    }

    /// [`new`](Self::new) with other bounds.
    pub fn with_limits(seed: [u8; 32], host: HostFacts, limits: Limits) -> Self {
        Self {
            limits,
            connections: Table::default(),
            waiting: Vec::new(),
            silent: Vec::new(),
            bodies: Vec::new(),
            unwanted: Vec::new(),
            known: Table::default(),
            behind: Behind {
                tracer: Tracer::new(seed, limits.exchanges),
                vitals: Vitals::default(),
                stopping: false,
                messages: Vec::new(),
                spans: Vec::new(),
            },
            resources: Resources::new(host),
            routes: Routes::default(),
            common: Arc::default(),
            parsers_ticked: Timestamp::default(),
            expiry_ticked: Timestamp::default(),
            now: Timestamp::default(),
        }
    }

    /// Whether `pid` was introduced by [`Input::Facts`], as it must be before its first socket can be understood.
    pub fn knows(&self, pid: u32) -> bool {
        self.known.contains_key(&pid)
    }

    /// Has what the next records need brought from memory, all of it at the same time: connections are many, and each is used
    /// seldom. Nothing changes (2026-11: 0.6 µs of an exchange where there are 10,000 connections, nothing where there are 100).
    pub fn prefetch<'a>(&self, records: impl Iterator<Item = &'a [u8]>) {
        for id in records.filter_map(event::socket_of) {
            if let Some(connection) = self.connections.get(&id) {
                connection.prefetch();
            }
        }
    }

    /// Takes one input; finished spans are appended to `out`.
    pub fn feed(&mut self, input: Input<'_>, out: &mut Vec<ServiceSpan>) {
        match input {
            Input::Record(record) => {
                self.behind.vitals.records += 1;
                match event::decode(record) {
                    Ok(event) => self.event(&event),
                    Err(_) => self.behind.vitals.lost.records.add(Reason::BadRecord, 1),
                }
            }
            Input::Facts(facts, watch) => self.introduce(facts, watch),
            Input::Tick(now) => self.tick(now),
        }
        self.name_services(out);
    }

    /// Routes are named by these from now on; by default they are guessed.
    pub fn set_routes(&mut self, routes: Routes) {
        self.routes = routes;
    }

    /// Parsers of connections that are new from now on tell and hide what `disclosure` says.
    pub fn disclose(&mut self, disclosure: Disclosure) {
        self.common = Arc::new(Common::new(disclosure));
    }

    /// From now on new requests are not looked at: what is under way may end.
    pub fn stop_opening(&mut self) {
        self.behind.stopping = true;
    }

    /// The probes are gone for a while: what is under way ends as truncated, and nobody is known afterwards, for who comes
    /// and goes is not seen any more.
    pub fn leave(&mut self, out: &mut Vec<ServiceSpan>) {
        self.truncate();
        let now = self.now;
        let known: Vec<u32> = self.known.keys().copied().collect();
        for pid in known {
            self.known.remove(&pid);
            self.behind.tracer.forgot(pid, now, &mut self.behind.vitals);
            self.resources.forget(pid, now);
        }
        self.name_services(out);
    }

    fn truncate(&mut self) {
        let open: Vec<SocketId> = self.connections.keys().copied().collect();
        for id in open {
            if let Some(mut connection) = self.connections.remove(&id) {
                // What came since the last tick is later than it.
                let at = Moment { at: self.now.max(connection.used), ..Moment::default() };
                connection.talk.close(at, Cause::Truncated, &mut self.behind);
            }
        }
    }

    /// Ends everything that is still under way as truncated.
    pub fn finish(&mut self, out: &mut Vec<ServiceSpan>) {
        self.truncate();
        self.behind.tracer.finish(&mut self.behind.vitals, &mut self.behind.spans);
        debug_assert!(self.behind.vitals.balance(0), "the books at the end: {:?}", self.behind.vitals);
        self.name_services(out);
    }

    /// Sockets whose bytes are of no use any more, such as those of an upgraded connection: the kernel need not copy them.
    /// What nobody asks for before the next tick is forgotten.
    pub fn unwanted(&mut self) -> impl Iterator<Item = SocketId> + '_ {
        self.unwanted.drain(..)
    }

    /// Long bodies under way: the kernel need not report each call that moves some of them. What nobody asks for before the
    /// next tick is forgotten.
    pub fn long_bodies(&mut self) -> impl Iterator<Item = LongBody> + '_ {
        self.bodies.drain(..)
    }

    /// Processes that were found to export spans of their own since the last call.
    pub fn instrumented(&mut self) -> impl Iterator<Item = Arc<Resource>> + '_ {
        self.resources.instrumented()
    }

    /// What was counted so far.
    pub fn vitals(&self) -> &Vitals {
        &self.behind.vitals
    }

    /// How full the tables are.
    pub fn tables(&self) -> [Fill; 3] {
        // One connection is like the other, and all of them would be too many to ask.
        let parser = self.connections.values().find_map(|connection| connection.talk.parser.as_deref());
        let connection = size_of::<Connection>() + parser.map_or(0, size_of_val);
        [
            Fill::of("connections", self.connections.len(), self.limits.connections, connection),
            self.behind.tracer.fill(),
            Fill::of("processes", self.known.len(), MOST_PROCESSES, PROCESS_BYTES),
        ]
    }

    /// Processes that showed a socket and are alive, by what becomes of their requests: those of `traced` ones become
    /// spans, `instrumented` ones export spans of their own, `ignored` ones were met before the probes left them alone.
    /// Looks at all of them.
    pub fn targets(&self) -> [(&'static str, u64); 3] {
        let (mut traced, mut instrumented, mut ignored) = (0, 0, 0);
        for (pid, watch) in &self.known {
            match watch {
                Watch::Ignore => ignored += 1,
                Watch::Trace if self.resources.is_instrumented(*pid) => instrumented += 1,
                Watch::Trace => traced += 1,
            }
        }
        [("traced", traced), ("instrumented", instrumented), ("ignored", ignored)]
    }

    /// Requests under way, and spans that wait for their parent.
    pub fn open(&self) -> usize {
        self.behind.tracer.open()
    }

    // --- Events ---

    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Socket(socket) => self.socket(socket),
            Event::Data(data) => self.on(data.socket, data.moment, |assembler, sink| assembler.data(data, sink)),
            Event::Shut(shut) => self.on(shut.socket, shut.moment, |assembler, sink| assembler.shut(shut, sink)),
            Event::Process(process) => self.process(process),
            Event::Thread(thread) => {
                if self.known.get(&thread.moment.task.pid) == Some(&Watch::Trace) {
                    self.behind.tracer.threaded(thread, &mut self.behind.vitals);
                }
            }
        }
    }

    fn introduce(&mut self, facts: &ProcessFacts, watch: Watch) {
        if self.known.len() >= MOST_PROCESSES {
            // Exits were lost with a full ring: everybody is introduced again when it next shows a socket.
            self.known.clear();
        }
        self.known.insert(facts.id.pid, watch);
        self.behind.tracer.learned(facts.id.pid, facts.runtime);
        self.resources.learn(facts, self.now);
    }

    fn process(&mut self, process: &Process<'_>) {
        match process.life {
            Life::Fork => {}
            // Another program is another service: its facts are read again when it next shows a socket.
            Life::Exec => {
                self.known.remove(&process.pid);
            }
            Life::Exit => {
                self.known.remove(&process.pid);
                self.behind.tracer.forgot(process.pid, process.moment.at, &mut self.behind.vitals);
                self.resources.forget(process.pid, process.moment.at);
            }
        }
    }

    fn socket(&mut self, socket: &Socket) {
        if self.known.get(&socket.moment.task.pid) == Some(&Watch::Ignore) {
            // The process was faster than the verdict on it.
            self.unwanted.push(socket.id);
            return;
        }
        self.behind.vitals.sockets += 1;
        let Some(protocol) = TABLE.iter().find(|protocol| protocol.guess == socket.protocol) else { return };
        let Socket { local, peer, unix, .. } = *socket;
        // Whoever sends requests is the client, whatever the ports and whoever connected.
        let (role, client, server) = match socket.requests {
            Direction::Write => (Side::Client, local, peer),
            Direction::Read => (Side::Server, peer, local),
        };
        let same = |known: &Connection| known.talk.is_between(role, client, server) || known.assembler.is_at(socket);
        match self.connections.get(&socket.id).map(|known| same(known)) {
            // Announced twice: the first introduction did not get through, as far as the kernel knew; or the answer's
            // record comes after the close that it provoked, when the kernel may have given the port away already.
            Some(true) => return,
            // The socket carries another connection now, and the close of the first was lost.
            Some(false) => self.give_up(socket.id, socket.moment),
            None => {}
        }
        if self.connections.len() >= self.limits.connections {
            self.evict();
        }
        let connection = Box::new(Connection {
            assembler: Assembler::new(socket),
            talk: Talk {
                parser: Some((protocol.parser)(Link { role, local, peer, unix }, &self.common)),
                pairing: Pairing::new(socket.id, socket.moment.at),
                role,
                client,
                server,
                protocol: protocol.name,
                connected: socket.connected.map(Box::new),
                told: None,
            },
            used: socket.moment.at,
        });
        self.connections.insert(socket.id, connection);
        self.behind.vitals.older += u64::from(socket.origin.is_older());
        self.behind.vitals.midway += u64::from(socket.midway);
    }

    /// Lets a connection's assembler take an event, and works through what has become next.
    fn on(&mut self, id: SocketId, at: Moment, take: impl FnOnce(&mut Assembler, &mut dyn FnMut(Piece<'_>))) {
        let Some(connection) = self.connections.get_mut(&id) else {
            if self.known.get(&at.task.pid) != Some(&Watch::Ignore) {
                self.behind.vitals.strays += 1;
            }
            return;
        };
        let Connection { assembler, talk, used } = &mut **connection;
        *used = at.at;
        let mut open = true;
        let followed = talk.parser.is_some();
        let mut left_out = None;
        take(assembler, &mut |piece| {
            if let Piece::Gap { direction, lost: false, at, .. } = piece {
                left_out = Some((direction, at.at));
            }
            open &= talk.piece(piece, &mut self.behind) == Talking::Open;
        });
        if let Some((direction, seen)) = left_out
            && let Some(end) = talk.long_body(direction, assembler.reached(direction))
        {
            self.bodies.push(LongBody { socket: id, direction, end, seen });
        }
        if open && followed && talk.parser.is_none() {
            self.unwanted.push(id);
        }
        if !open {
            self.connections.remove(&id);
            return;
        }
        if assembler.is_waiting() {
            self.waiting.push(id);
        }
        if talk.waits_for_silence() {
            self.silent.push(id);
        }
    }

    fn tick(&mut self, now: Timestamp) {
        let now = now.max(self.now);
        self.now = now;
        self.unwanted.clear();
        self.bodies.clear();
        let mut waiting = mem::take(&mut self.waiting);
        waiting.sort_unstable();
        waiting.dedup();
        for id in waiting {
            if let Some(at) = self.connections.get(&id).map(|connection| connection.used) {
                self.on(id, Moment { at, ..Moment::default() }, |assembler, sink| assembler.tick(now, sink));
            }
        }
        if now.since(self.parsers_ticked) >= PARSER_TICK {
            self.parsers_ticked = now;
            self.silent.sort_unstable();
            self.silent.dedup();
            let Self { silent, connections, behind, .. } = self;
            silent.retain(|id| connections.get_mut(id).is_some_and(|connection| connection.talk.tick(now, behind)));
        }
        if now.since(self.expiry_ticked) >= EXPIRY_TICK {
            self.expiry_ticked = now;
            self.expire(now);
        }
        let seen = self.seen();
        self.behind.tracer.tick(now, seen, &mut self.behind.vitals, &mut self.behind.spans);
        debug_assert!(self.behind.vitals.balance(self.open()), "the books: {:?}", self.behind.vitals);
    }

    /// Gives up connections on which nothing was said for long.
    fn expire(&mut self, now: Timestamp) {
        let is_silent = |connection: &Connection| now.since(connection.used) >= connection.silence(&self.limits);
        let silent = self.connections.iter().filter(|(_, connection)| is_silent(connection));
        let expired: Vec<_> = silent.map(|(id, connection)| (*id, connection.used)).collect();
        for (id, used) in expired {
            self.behind.vitals.expired += 1;
            self.give_up(id, Moment { at: used, ..Moment::default() });
        }
    }

    /// Until when everything that happened has become known: a record that a connection holds back may be of any time since
    /// it was made.
    fn seen(&self) -> Timestamp {
        let held = self.waiting.iter().filter_map(|id| self.connections.get(id)?.assembler.oldest());
        held.min().map_or(self.now, |oldest| oldest.min(self.now))
    }

    /// Makes room for connections by giving up those that were quiet for longest: many at once, since looking for them
    /// means looking at all.
    fn evict(&mut self) {
        let mut quietest: Vec<_> = self.connections.iter().map(|(id, connection)| (connection.used, *id)).collect();
        let many = (self.limits.connections / EVICTED_SHARE).max(1).min(quietest.len());
        if let Some(last) = many.checked_sub(1) {
            quietest.select_nth_unstable(last);
        }
        quietest.truncate(many);
        quietest.sort_unstable();
        for (used, id) in quietest {
            if self.connections.get(&id).is_some_and(|connection| connection.talk.is_left_in_silence()) {
                self.behind.vitals.expired += 1;
            } else {
                self.behind.vitals.lost.parts.add(Reason::TableFull, 1);
            }
            self.give_up(id, Moment { at: used, ..Moment::default() });
        }
    }

    /// Stops following a connection whose end was not seen.
    fn give_up(&mut self, id: SocketId, at: Moment) {
        if let Some(mut connection) = self.connections.remove(&id) {
            connection.talk.close(at, Cause::Truncated, &mut self.behind);
        }
    }

    fn name_services(&mut self, out: &mut Vec<ServiceSpan>) {
        out.extend(self.behind.spans.drain(..).map(|mut span| {
            let made = self.behind.vitals.protocols.of(span.protocol);
            match span.kind {
                SpanKind::Server => made.served += 1,
                SpanKind::Client => made.called += 1,
            }
            if sdk::is_export(&span) {
                self.resources.exports(span.task.pid);
            }
            let resource = self.resources.resource(span.task.pid, span.end);
            self.routes.name(&mut span, &resource.service);
            let target = self.resources.target(span.task.pid, span.port);
            ServiceSpan { span, resource, target }
        }));
    }
}

// --- One connection ---

/// Whether anything more can come on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Talking {
    Open,
    Closed,
}

impl Talk {
    /// Whether this is what is said in these parts, between these ends.
    fn is_between(&self, role: Side, client: Endpoint, server: Endpoint) -> bool {
        (self.role, self.client, self.server) == (role, client, server)
    }

    /// Whether it may have been closed without a word: nothing is under way, and its close would not be seen.
    fn is_left_in_silence(&self) -> bool {
        self.client.is_unix() && self.pairing.is_idle()
    }

    /// The end of the body which `direction` is in the middle of, if it is worth telling and was not told. Bytes have come up
    /// to `reached`.
    fn long_body(&mut self, direction: Direction, reached: u32) -> Option<u32> {
        let left = self.parser.as_ref()?.left(sender(self.role, direction));
        let is_told = self
            .told
            .is_some_and(|(told, end)| told == direction && (1..=FARTHEST_END).contains(&end.wrapping_sub(reached)));
        if left < LONG_BODY || is_told {
            return None;
        }
        let end = reached.wrapping_add(left.min(FARTHEST_END.into()) as u32);
        self.told = Some((direction, end));
        Some(end)
    }

    fn piece(&mut self, piece: Piece<'_>, behind: &mut Behind) -> Talking {
        let role = self.role;
        let sender = |direction| sender(role, direction);
        if let Piece::Gap { lost: true, .. } = piece {
            behind.vitals.gaps += 1;
        }
        if let Piece::Closed { at, errno } = piece {
            self.close(at, cause_of(errno), behind);
            return Talking::Closed;
        }
        let Some(parser) = &mut self.parser else {
            behind.vitals.unread += 1;
            return Talking::Open;
        };
        let (oldest, requests) = (self.pairing.oldest(), self.pairing.requests());
        let messages = &mut behind.messages;
        let (progress, at) = match piece {
            Piece::Bytes { direction, bytes, position, at } => {
                (parser.bytes(sender(direction), bytes, position, at, messages), at)
            }
            Piece::Gap { direction, missing, tail, at, .. } => {
                (parser.gap(sender(direction), missing, tail, at, messages), at)
            }
            Piece::End { direction, at } => {
                parser.end(sender(direction), at, messages);
                (Progress::More, at)
            }
            Piece::Closed { at, .. } => (Progress::NotMine, at),
        };
        self.pair(behind);
        if let Piece::Bytes { direction, .. } | Piece::Gap { direction, .. } = piece {
            self.moved(direction, at, oldest, self.pairing.requests() - requests, behind);
        }
        if let Piece::End { direction, at } = piece
            && sender(direction) == Side::Server
        {
            // Whoever is not answered by now never will be, however long the client keeps its end open.
            self.abandon(Cause::ConnectionClosed, at, behind);
        }
        if progress == Progress::NotMine {
            self.parser = None;
            self.abandon(Cause::Truncated, at, behind);
        }
        Talking::Open
    }

    /// Bytes were moved by `at`, of which `brought` requests came: says whose they were. `oldest` was the oldest exchange
    /// before.
    fn moved(&self, direction: Direction, at: Moment, oldest: Option<ExchangeId>, brought: u64, behind: &mut Behind) {
        let Behind { tracer, vitals, .. } = behind;
        match (self.role, direction) {
            // Of several requests in one read nobody can say which the reader goes on with.
            (Side::Server, Direction::Read) => tracer.read(self.pairing.newest().filter(|_| brought <= 1), at, vitals),
            (Side::Client, Direction::Read) => tracer.read(oldest, at, vitals),
            (Side::Server, Direction::Write) => {
                if let Some(request) = oldest {
                    tracer.answering(request, at, vitals);
                }
            }
            // The first byte of a call is part of it.
            (Side::Client, Direction::Write) => {}
        }
    }

    /// Ends what silence ends; whether something is left that it may end later.
    fn tick(&mut self, now: Timestamp, behind: &mut Behind) -> bool {
        if self.waits_for_silence()
            && let Some(parser) = &mut self.parser
        {
            parser.tick(now, &mut behind.messages);
            self.pair(behind);
        }
        self.waits_for_silence()
    }

    fn waits_for_silence(&self) -> bool {
        !self.pairing.is_idle() && self.parser.as_ref().is_some_and(|parser| parser.waits_for_silence())
    }

    fn close(&mut self, at: Moment, cause: Cause, behind: &mut Behind) {
        if let Some(mut parser) = self.parser.take() {
            parser.closed(at, &mut behind.messages);
            self.pair(behind);
        }
        self.abandon(cause, at, behind);
    }

    fn pair(&mut self, behind: &mut Behind) {
        let mut messages = mem::take(&mut behind.messages);
        for message in messages.drain(..) {
            if behind.stopping && matches!(message, Message::Request(_)) {
                // Nothing new is looked at, and without its request nothing later on this connection can be paired.
                self.parser = None;
                break;
            }
            if let Some(reason) = message.error() {
                behind.vitals.protocols.of(self.protocol).errors.add(reason, 1);
            }
            let step = self.pairing.message(message, &mut behind.vitals);
            self.trace(step, behind);
        }
        behind.messages = messages;
    }

    fn abandon(&mut self, cause: Cause, at: Moment, behind: &mut Behind) {
        while let Some(step) = self.pairing.abandoned(cause, at) {
            self.trace(Some(step), behind);
        }
    }

    fn trace(&mut self, step: Option<Step>, behind: &mut Behind) {
        let Behind { tracer, vitals, spans, .. } = behind;
        match step {
            Some(Step::Opened(id, request)) => {
                let kind = match self.role {
                    Side::Client => SpanKind::Client,
                    Side::Server => SpanKind::Server,
                };
                let connected = self.connected.take().map(|connected| *connected);
                let Self { client, server, protocol, .. } = *self;
                tracer.opened(Opened { id, kind, protocol, client, server, connected, request }, vitals, spans);
            }
            Some(Step::Closed(id, closed)) => tracer.closed(id, closed, vitals, spans),
            None => {}
        }
    }
}

/// Who sends what goes this way, where the observed process has the part `role`.
fn sender(role: Side, direction: Direction) -> Side {
    match direction {
        Direction::Write => role,
        Direction::Read => role.opposite(),
    }
}

/// `sk_err` of a connection that is gone, by Linux's numbers: 104 is ECONNRESET, 110 ETIMEDOUT.
fn cause_of(errno: u16) -> Cause {
    match errno {
        104 => Cause::ConnectionReset,
        110 => Cause::Timeout,
        _ => Cause::ConnectionClosed,
    }
}

/// Twice what the probes take for silence, by a clock of 2^30 ns.
const UNIX_SILENCE: Duration = Duration::from_secs(2 * abi::UNIX_SILENCE as u64 + 2);

/// How often parsers are asked whether silence has ended something: a fraction of the second that a span may be late.
const PARSER_TICK: Duration = Duration::from_millis(250);

/// How often connections are looked through for those that are silent: a fraction of the shortest silence, and all of them
/// have to be fetched from memory.
const EXPIRY_TICK: Duration = Duration::from_secs(2);

/// The part of a full table that makes room at once: at 10,000 new connections a second the table is looked through
/// every 0.4 s.
const EVICTED_SHARE: usize = 16;

/// What is remembered of a process: some ten attributes of 60 bytes with their texts, and its command line.
const PROCESS_BYTES: usize = 2 << 10;

/// Processes known at one time: twice Linux's default pid limit, so that only lost exits can fill it.
const MOST_PROCESSES: usize = 64 << 10;
