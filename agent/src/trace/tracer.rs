// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives every exchange its ids and its parent, and lets it go as a span once both are settled.
//!
//! An exchange waits for three things: its end; its parent; and its trace, which is its parent's. Each is waited for
//! only as long as evidence can still come (the constants at the end), so a span is never late by more than a second.
//!
//! ```text
//! SERVER   header ─► trace known ─┐          the peer's CLIENT end shows up ─► its parent
//!          no header ─────────────┴─ Seeking ──────────────── JOIN_WAIT over ─► header's parent, or root
//! CLIENT   header ─► its id is the header's parent id, its parent the open request of that trace
//!          one request on its thread ─ Answer ─ answered by that thread ─► its parent;  by another ─► unknown
//!                                             └─ EVIDENCE_WAIT over ─► its parent while the thread is trusted
//!          nothing served ─► root;  anything else ─► unknown (a root, counted)
//! ```

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;
use spantap_common::{endpoint::Endpoint, loss::Reason};

use super::{
    Begun, LinkMethod, ParentSpan, Span, SpanKind,
    ids::Ids,
    parenting::{Serving, Verdict},
};
use crate::{
    attribute::Attribute,
    context::{SpanId, TraceContext, TraceFlags, TraceId},
    pairing::{Closed, ExchangeId},
    process::Runtime,
    protocol::Request,
    table::Table,
    time::{Task, Timestamp},
    vitals::Vitals,
};

/// A request that was just made or received.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The exchange it opens.
    pub id: ExchangeId,
    /// The part of the observed process.
    pub kind: SpanKind,
    /// The protocol's name.
    pub protocol: &'static str,
    /// The end that sends requests.
    pub client: Endpoint,
    /// The end that answers.
    pub server: Endpoint,
    /// What was asked.
    pub request: Request,
}

/// All exchanges that are not spans yet.
#[derive(Debug)]
pub struct Tracer {
    ids: Ids,
    most: usize,
    /// Law: nodes.len() <= most.
    ///
    /// Boxed: one that is let go leaves room that is still in the processor's cache to the next; a place in the table
    /// hardly ever is.
    nodes: Table<ExchangeId, Box<Node>>,
    /// Room of nodes that were let go. Law: spare.len() <= MOST_SPARE.
    spare: Vec<Box<Node>>,
    serving: Serving,
    /// CLIENT ends whose SERVER end has not shown up.
    clients: HashMap<Join, ExchangeId, FixedState>,
    /// SERVER ends whose CLIENT end has not shown up.
    servers: HashMap<Join, ExchangeId, FixedState>,
    adopted: Adopted,
    deadlines: BinaryHeap<Reverse<(Timestamp, ExchangeId)>>,
}

/// Both ends of one request see it on the same connection, beginning at the same TCP sequence number.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Join {
    client: Endpoint,
    server: Endpoint,
    position: u32,
}

#[derive(Debug)]
struct Node {
    kind: SpanKind,
    protocol: &'static str,
    join: Join,
    request: Request,
    closed: Option<Closed>,
    span: SpanId,
    /// Known once the parent's is; at once where a header names it.
    trace: Option<Trace>,
    parent: Parent,
    /// Exchanges that take their trace from this one.
    children: Vec<ExchangeId>,
    /// Calls that this request's answer decides about.
    calls: Vec<ExchangeId>,
    /// The span is out; the node stays a while so that the other end can find it.
    emitted: bool,
}

#[derive(Clone, Debug)]
struct Trace {
    id: TraceId,
    begun: Begun,
    flags: TraceFlags,
    state: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
enum Parent {
    /// A SERVER end whose CLIENT end may still show up.
    Seeking,
    /// A CLIENT end that belongs to this request if its thread answers it.
    Answer(ExchangeId),
    /// Decided.
    Is(Option<ParentSpan>),
}

impl Tracer {
    /// A tracer that knows nothing, and at most `most` exchanges at one time; ids come from `seed`.
    pub fn new(seed: [u8; 32], most: usize) -> Self {
        // Peers choose ports, sequence numbers and ids in headers: what they do not know of the seed keeps them from
        // choosing keys that collide. The other tables' keys are the kernel's.
        let [a, b, c, d, e, f, g, h, ..] = seed;
        let hasher = || FixedState::with_seed(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        Self {
            ids: Ids::new(seed),
            most,
            nodes: Table::default(),
            spare: Vec::new(),
            serving: Serving::default(),
            clients: HashMap::with_hasher(hasher()),
            servers: HashMap::with_hasher(hasher()),
            adopted: Adopted { known: HashMap::with_hasher(hasher()), order: VecDeque::new() },
            deadlines: BinaryHeap::new(),
        }
    }

    /// Process `pid` runs on `runtime`.
    pub fn learned(&mut self, pid: u32, runtime: Runtime) {
        self.serving.learned(pid, runtime);
    }

    /// Process `pid` has ended.
    pub fn forgot(&mut self, pid: u32) {
        self.serving.forgot(pid);
    }

    /// A request was made or received.
    pub fn opened(&mut self, opened: Opened, vitals: &mut Vitals, out: &mut Vec<Span>) {
        if self.nodes.len() >= self.most {
            vitals.lost.requests.add(Reason::TableFull, 1);
            return;
        }
        let Opened { id, kind, protocol, client, server, request } = opened;
        let join = Join { client, server, position: request.position };
        let node = Node {
            kind,
            protocol,
            join,
            closed: None,
            span: self.ids.span(),
            trace: request.context.as_ref().map(Trace::from),
            parent: Parent::Seeking,
            children: Vec::new(),
            calls: Vec::new(),
            emitted: false,
            request,
        };
        let node = match self.spare.pop() {
            Some(mut room) => {
                *room = node;
                room
            }
            None => Box::new(node),
        };
        match kind {
            SpanKind::Server => self.server_opened(id, node, vitals, out),
            SpanKind::Client => self.client_opened(id, node, vitals, out),
        }
    }

    /// The exchange is over.
    pub fn closed(&mut self, id: ExchangeId, closed: Closed, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (by, answered_by) = (node.request.first.task, closed.answered.map(|moment| moment.task));
        let last = closed.last.at;
        node.closed = Some(closed);
        match node.kind {
            SpanKind::Server => {
                let calls = mem::take(&mut node.calls);
                self.serving.closed(id, by, answered_by);
                for call in calls {
                    self.answered(call, id, answered_by, vitals, out);
                }
            }
            SpanKind::Client => {
                if matches!(node.parent, Parent::Answer(_)) {
                    self.deadlines.push(Reverse((last.plus(EVIDENCE_WAIT), id)));
                }
            }
        }
        self.emit(id, vitals, out);
    }

    /// Time has come to `now`: stops waiting for what is overdue.
    pub fn tick(&mut self, now: Timestamp, vitals: &mut Vitals, out: &mut Vec<Span>) {
        while let Some(Reverse((at, _))) = self.deadlines.peek() {
            if *at > now {
                return;
            }
            if let Some(Reverse((_, id))) = self.deadlines.pop() {
                self.overdue(id, vitals, out);
            }
        }
    }

    /// Nothing more will come: settles everything that is over.
    pub fn finish(&mut self, vitals: &mut Vitals, out: &mut Vec<Span>) {
        self.tick(Timestamp(u64::MAX), vitals, out);
    }

    /// Requests that are not spans yet.
    pub fn open(&self) -> usize {
        self.nodes.values().filter(|node| !node.emitted).count()
    }

    // --- Opening ---

    fn server_opened(&mut self, id: ExchangeId, node: Box<Node>, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let (join, first) = (node.join, node.request.first);
        self.serving.opened(id, first.task);
        self.nodes.insert(id, node);
        match self.clients.remove(&join) {
            Some(client) => self.join(id, client, vitals, out),
            None => {
                self.servers.insert(join, id);
                self.deadlines.push(Reverse((first.at.plus(JOIN_WAIT), id)));
            }
        }
    }

    fn client_opened(&mut self, id: ExchangeId, mut node: Box<Node>, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let join = node.join;
        match node.request.context.clone() {
            Some(context) => self.call_with_header(id, &mut node, &context, vitals),
            None => match self.caller(&node) {
                Verdict::IfAnsweredBy(request) => self.await_answer(id, &mut node, request),
                Verdict::Nobody => {
                    vitals.links.root += 1;
                    self.begin_trace(&mut node);
                }
                Verdict::Unknown => {
                    vitals.links.unknown += 1;
                    self.begin_trace(&mut node);
                }
            },
        }
        self.nodes.insert(id, node);
        match self.servers.remove(&join) {
            Some(server) => self.join(server, id, vitals, out),
            None => {
                self.clients.insert(join, id);
            }
        }
    }

    /// The process wrote a context into the call. The parent id in it is the call's own, if the process minted it.
    fn call_with_header(&mut self, id: ExchangeId, node: &mut Node, context: &TraceContext, vitals: &mut Vitals) {
        let by = node.request.first.task;
        let is_of_trace = |request: &ExchangeId| self.trace_of(*request) == Some(context.trace);
        let forwarded = self.serving.open(by.pid).filter(is_of_trace).any(|request| {
            let of_request = self.nodes.get(&request).and_then(|node| node.request.context.as_ref());
            of_request.is_some_and(|received| received.parent == context.parent)
        });
        let of_trace = {
            let mut requests = self.serving.open(by.pid).filter(is_of_trace);
            (requests.next(), requests.next())
        };
        let minted = !forwarded && self.adopted.insert(context.trace, context.parent);
        if minted {
            node.span = context.parent;
        }
        match of_trace {
            (Some(request), None) => {
                vitals.links.header += 1;
                node.parent = Parent::Is(self.parent_in(request, LinkMethod::Header));
            }
            (None, _) if minted => {
                vitals.links.root += 1;
                node.parent = Parent::Is(None);
            }
            // Forwarded from somewhere else: what the header says is all that is known.
            (None, _) => {
                vitals.links.header += 1;
                node.parent =
                    Parent::Is(Some(ParentSpan { id: context.parent, remote: true, method: LinkMethod::Header }));
            }
            // The process serves the trace twice at this moment: the thread has to say for which of the two.
            (Some(_), Some(_)) => match self.caller(node) {
                Verdict::IfAnsweredBy(request) if self.trace_of(request) == Some(context.trace) => {
                    self.await_answer(id, node, request);
                }
                _ => {
                    vitals.links.unknown += 1;
                    node.parent = Parent::Is(None);
                }
            },
        }
    }

    /// Whose call `node` is, by its thread.
    fn caller(&self, node: &Node) -> Verdict {
        let first = node.request.first;
        match self.serving.caller(first.task) {
            // Two connections' records may come out of order: what was read later did not cause the call. It might even
            // be the call's own other end, and each would wait for the other for ever.
            Verdict::IfAnsweredBy(request)
                if self.nodes.get(&request).is_some_and(|node| node.request.first.at >= first.at) =>
            {
                Verdict::Unknown
            }
            verdict => verdict,
        }
    }

    fn await_answer(&mut self, id: ExchangeId, node: &mut Node, request: ExchangeId) {
        node.parent = Parent::Answer(request);
        if let Some(request) = self.nodes.get_mut(&request) {
            request.calls.push(id);
        }
    }

    fn begin_trace(&mut self, node: &mut Node) {
        node.parent = Parent::Is(None);
        node.trace.get_or_insert_with(|| Trace {
            id: self.ids.trace(),
            begun: Begun::Here,
            flags: Ids::ROOT_FLAGS,
            state: None,
        });
    }

    // --- Deciding ---

    /// The two ends of one request have found each other.
    fn join(&mut self, server: ExchangeId, client: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(caller) = self.nodes.get(&client) else { return };
        let (span, emitted) = (caller.span, caller.emitted);
        let Some(node) = self.nodes.get_mut(&server) else { return };
        let named = node.request.context.as_ref().map(|context| context.parent);
        if named.is_some_and(|parent| parent == span) {
            vitals.links.header += 1;
            node.parent = Parent::Is(Some(ParentSpan { id: span, remote: true, method: LinkMethod::Header }));
        } else {
            vitals.links.socket += 1;
            node.parent = Parent::Is(Some(ParentSpan { id: span, remote: true, method: LinkMethod::Socket }));
            if named.is_some() {
                node.request.attributes.push(Attribute::new(CONTEXT_SOURCE, "passthrough"));
            }
        }
        self.inherit(server, client, vitals, out);
        if emitted {
            self.let_go(client);
        }
        self.emit(server, vitals, out);
    }

    /// The request that `call` may belong to was answered.
    fn answered(
        &mut self,
        call: ExchangeId,
        request: ExchangeId,
        answered_by: Option<Task>,
        vitals: &mut Vitals,
        out: &mut Vec<Span>,
    ) {
        let Some(node) = self.nodes.get(&call) else { return };
        if !matches!(node.parent, Parent::Answer(of) if of == request) {
            return;
        }
        let proven = self.serving.is_proven(node.request.first.task, answered_by);
        self.decide(call, proven.then_some(request), vitals, out);
    }

    /// Settles a call: it belongs to `request`, or to nothing that can be known.
    fn decide(&mut self, call: ExchangeId, request: Option<ExchangeId>, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let parent = request.and_then(|request| self.parent_in(request, LinkMethod::Thread));
        let Some(mut node) = self.nodes.remove(&call) else { return };
        match (request, parent) {
            (Some(request), Some(parent)) => {
                vitals.links.thread += 1;
                node.parent = Parent::Is(Some(parent));
                self.nodes.insert(call, node);
                self.inherit(call, request, vitals, out);
            }
            _ => {
                vitals.links.contradicted += 1;
                self.begin_trace(&mut node);
                let trace = node.trace.clone();
                self.nodes.insert(call, node);
                if let Some(trace) = trace {
                    self.pass_on(call, &trace, vitals, out);
                }
            }
        }
        self.emit(call, vitals, out);
    }

    /// Nothing more is worth waiting for.
    fn overdue(&mut self, id: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        match node.parent {
            Parent::Seeking => {
                if self.servers.get(&node.join) == Some(&id) {
                    self.servers.remove(&node.join);
                }
                match &node.request.context {
                    Some(context) => {
                        vitals.links.header += 1;
                        node.parent = Parent::Is(Some(ParentSpan {
                            id: context.parent,
                            remote: true,
                            method: LinkMethod::Header,
                        }));
                    }
                    None => {
                        vitals.links.root += 1;
                        node.parent = Parent::Is(None);
                        let trace =
                            Trace { id: self.ids.trace(), begun: Begun::Here, flags: Ids::ROOT_FLAGS, state: None };
                        node.trace = Some(trace.clone());
                        self.pass_on(id, &trace, vitals, out);
                    }
                }
                self.emit(id, vitals, out);
            }
            Parent::Answer(request) => {
                let trusted = self.serving.is_trusted(node.request.first.task);
                self.decide(id, trusted.then_some(request), vitals, out);
            }
            Parent::Is(_) if node.emitted => {
                if self.clients.get(&node.join) == Some(&id) {
                    self.clients.remove(&node.join);
                }
                self.let_go(id);
            }
            Parent::Is(_) => {}
        }
    }

    // --- Traces ---

    fn trace_of(&self, id: ExchangeId) -> Option<TraceId> {
        self.nodes.get(&id)?.trace.as_ref().map(|trace| trace.id)
    }

    fn parent_in(&self, request: ExchangeId, method: LinkMethod) -> Option<ParentSpan> {
        self.nodes.get(&request).map(|node| ParentSpan { id: node.span, remote: false, method })
    }

    /// `child` is of `parent`'s trace, now or as soon as that is known.
    fn inherit(&mut self, child: ExchangeId, parent: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&parent) else { return };
        match node.trace.clone() {
            Some(trace) => self.pass_on_to(child, &trace, vitals, out),
            None => node.children.push(child),
        }
    }

    /// The trace of `parent` is known: everything that waits for it learns it. Iterative, for a chain of services may
    /// be as deep as it likes.
    fn pass_on(&mut self, parent: ExchangeId, trace: &Trace, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let mut heirs = match self.nodes.get_mut(&parent) {
            Some(node) => mem::take(&mut node.children),
            None => return,
        };
        while let Some(heir) = heirs.pop() {
            let Some(node) = self.nodes.get_mut(&heir) else { continue };
            if node.trace.is_none() {
                node.trace = Some(trace.clone());
            }
            heirs.append(&mut node.children);
            self.emit(heir, vitals, out);
        }
    }

    fn pass_on_to(&mut self, child: ExchangeId, trace: &Trace, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&child) else { return };
        if node.trace.is_none() {
            node.trace = Some(trace.clone());
        }
        self.pass_on(child, trace, vitals, out);
    }

    // --- Letting go ---

    /// Emits the exchange if it is over and settled.
    fn emit(&mut self, id: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (Parent::Is(parent), Some(trace), false) = (node.parent, &node.trace, node.emitted) else { return };
        let Some(closed) = node.closed.take() else { return };
        // A probe runs when its call returns. By then another thread may have read the answer to what this one wrote.
        let answered = closed.answered.map(|moment| moment.at);
        let start = node.request.first.at.min(answered.unwrap_or(closed.last.at)).min(closed.last.at);
        let mut attributes = mem::take(&mut node.request.attributes);
        attributes.extend(closed.attributes);
        vitals.spans += 1;
        out.push(Span {
            trace: trace.id,
            id: node.span,
            parent,
            begun: trace.begun,
            flags: trace.flags,
            state: trace.state.clone(),
            kind: node.kind,
            name: node.request.name.clone(),
            protocol: node.protocol,
            start,
            answered,
            end: closed.last.at,
            failed: closed.failed,
            attributes,
            links: Vec::new(),
            task: node.request.first.task,
        });
        let still_sought = node.kind == SpanKind::Client && self.clients.get(&node.join) == Some(&id);
        if still_sought {
            node.emitted = true;
            self.deadlines.push(Reverse((closed.last.at.plus(JOIN_WAIT), id)));
        } else {
            self.let_go(id);
        }
    }

    fn let_go(&mut self, id: ExchangeId) {
        if let Some(node) = self.nodes.remove(&id)
            && self.spare.len() < MOST_SPARE
        {
            self.spare.push(node);
        }
    }
}

impl From<&TraceContext> for Trace {
    fn from(context: &TraceContext) -> Self {
        Self { id: context.trace, begun: Begun::Elsewhere, flags: context.flags, state: context.state.clone() }
    }
}

/// Span ids that CLIENT spans have taken from the headers they sent, newest last. A second call with the same header
/// must not take the same id.
#[derive(Debug)]
struct Adopted {
    known: HashMap<(TraceId, SpanId), (), FixedState>,
    order: VecDeque<(TraceId, SpanId)>,
}

impl Adopted {
    /// Whether the id was free, and is taken from now on.
    fn insert(&mut self, trace: TraceId, span: SpanId) -> bool {
        if self.known.insert((trace, span), ()).is_some() {
            return false;
        }
        self.order.push_back((trace, span));
        if self.order.len() > MOST_ADOPTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// How long the other end of a connection on this host may take to show up after a request was read: its probe runs
/// when the write returns, which a busy machine can put off by some tens of milliseconds, and its record may wait
/// [`crate::stream::assembler::PATIENCE`] for another.
const JOIN_WAIT: Duration = Duration::from_millis(300);

/// How long a finished call waits for its request to be answered before the thread's word alone is taken: a span is to
/// be visible 1.5 s after its end.
const EVIDENCE_WAIT: Duration = Duration::from_secs(1);

/// Adopted ids remembered: those of the last second at 10,000 calls a second, with room.
const MOST_ADOPTED: usize = 16 << 10;

/// Room kept for nodes to come: what 10,000 requests/s begin between two looks at the ring, in some 100 KiB.
const MOST_SPARE: usize = 200;

/// Where a context came from when it was not written for this request.
const CONTEXT_SOURCE: &str = "spantap.context.source";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::SocketId, protocol::Key, time::Moment};

    /// A stage on which exchanges open and close. An exchange is named by a letter; `wire` numbers the request both of
    /// whose ends carry it.
    struct Play {
        tracer: Tracer,
        vitals: Vitals,
        spans: Vec<Span>,
        now_ms: u64,
    }

    fn play() -> Play {
        Play { tracer: Tracer::new([7; 32], 1024), vitals: Vitals::default(), spans: Vec::new(), now_ms: 1_000 }
    }

    fn task(pid: u32, tid: u32) -> Task {
        Task { pid, tid, ..Task::default() }
    }

    fn id(letter: char) -> ExchangeId {
        ExchangeId { socket: SocketId(letter.into()), since: Timestamp(0), ordinal: 0 }
    }

    fn context(trace: u8, parent: u8) -> Option<TraceContext> {
        Some(TraceContext {
            trace: TraceId([trace; 16]),
            parent: SpanId([parent; 8]),
            flags: TraceFlags::SAMPLED,
            state: None,
        })
    }

    impl Play {
        fn at(&mut self) -> Timestamp {
            self.now_ms += 1;
            Timestamp(self.now_ms * 1_000_000)
        }

        fn open(mut self, kind: SpanKind, letter: char, by: Task, wire: u32, context: Option<TraceContext>) -> Self {
            let at = self.at();
            let opened = Opened {
                id: id(letter),
                kind,
                protocol: "http",
                client: Endpoint::v4([127, 0, 0, 1], 40_000),
                server: Endpoint::v4([127, 0, 0, 1], 80),
                request: Request {
                    key: Key::InOrder,
                    name: letter.to_string().into(),
                    first: Moment { at, task: by },
                    position: wire,
                    context,
                    attributes: Vec::new(),
                },
            };
            self.tracer.opened(opened, &mut self.vitals, &mut self.spans);
            self
        }

        fn serve(self, letter: char, by: Task, wire: u32) -> Self {
            self.open(SpanKind::Server, letter, by, wire, None)
        }

        fn call(self, letter: char, by: Task, wire: u32) -> Self {
            self.open(SpanKind::Client, letter, by, wire, None)
        }

        fn end(mut self, letter: char, by: Task) -> Self {
            let at = Moment { at: self.at(), task: by };
            let closed = Closed { answered: Some(at), last: at, failed: false, attributes: Default::default() };
            self.tracer.closed(id(letter), closed, &mut self.vitals, &mut self.spans);
            self
        }

        /// What comes next happened earlier: records of two connections come in any order.
        fn back_ms(mut self, ms: u64) -> Self {
            self.now_ms -= ms;
            self
        }

        fn wait_ms(mut self, ms: u64) -> Self {
            self.now_ms += ms;
            let now = self.at();
            self.tracer.tick(now, &mut self.vitals, &mut self.spans);
            self
        }

        fn go(mut self, pid: u32) -> Self {
            self.tracer.learned(pid, Runtime::Go);
            self
        }

        /// Every span as `name<parent(method)`, `name<-` for a root, `name<?` for a parent that is no span here.
        fn says(&self, expected: &str) {
            let mut lines: Vec<String> = self
                .spans
                .iter()
                .map(|span| match &span.parent {
                    None => format!("{}<-", span.name),
                    Some(parent) => {
                        let of = self.spans.iter().find(|other| other.id == parent.id);
                        if let Some(of) = of {
                            assert_eq!(of.trace, span.trace, "a parent is of the same trace");
                        }
                        let name = of.map_or("?", |of| &of.name);
                        format!("{}<{name}({})", span.name, parent.method.label())
                    }
                })
                .collect();
            lines.sort();
            assert_eq!(lines.join(" "), expected);
        }
    }

    const T1: Task = Task { pid: 1, tid: 10, identity: [0; 3] };
    const T2: Task = Task { pid: 1, tid: 11, identity: [0; 3] };
    const OTHER: Task = Task { pid: 2, tid: 20, identity: [0; 3] };

    #[test]
    fn a_chain_of_services_is_one_trace() {
        let play = play()
            .call('a', OTHER, 1)
            .serve('A', T1, 1)
            .call('b', T1, 2)
            .serve('B', task(3, 30), 2)
            .end('B', task(3, 30))
            .end('b', T1)
            .end('A', T1)
            .end('a', OTHER)
            .wait_ms(2_000);
        play.says("A<a(socket) B<b(socket) a<- b<A(thread)");
        assert_eq!(play.tracer.open(), 0);
        assert!(play.spans.iter().all(|span| span.trace == play.spans[0].trace));
        assert_eq!((play.vitals.links.root, play.vitals.links.socket, play.vitals.links.thread), (1, 2, 1));
    }

    #[test]
    fn the_ends_of_a_connection_may_show_up_in_any_order() {
        play().serve('A', T1, 1).call('a', OTHER, 1).end('A', T1).end('a', OTHER).wait_ms(0).says("A<a(socket) a<-");
        play().call('a', OTHER, 1).end('a', OTHER).serve('A', T1, 1).end('A', T1).wait_ms(0).says("A<a(socket) a<-");
    }

    #[test]
    fn a_call_to_oneself_is_not_caused_by_its_own_other_end() {
        let play = play().serve('A', T1, 1).back_ms(2).call('a', T1, 1).end('A', T1).end('a', T1).wait_ms(2_000);
        play.says("A<a(socket) a<-");
        assert_eq!(play.tracer.open(), 0);
    }

    #[test]
    fn an_answer_that_was_read_before_the_write_returned_does_not_end_before_it_began() {
        let play = play().call('a', T1, 1).back_ms(3).end('a', T2).wait_ms(400);
        play.says("a<-");
        assert!(play.spans[0].start <= play.spans[0].answered.expect("it was answered"));
        assert!(play.spans[0].start <= play.spans[0].end);
    }

    #[test]
    fn a_request_from_elsewhere_is_a_root_as_soon_as_its_peer_is_overdue() {
        let waiting = play().serve('A', T1, 1).end('A', T1).wait_ms(200);
        waiting.says("");
        waiting.wait_ms(150).says("A<-");
    }

    #[test]
    fn a_header_names_the_parent_and_the_trace() {
        let play = play().open(SpanKind::Server, 'A', T1, 1, context(7, 8)).end('A', T1).wait_ms(400);
        play.says("A<?(header)");
        assert_eq!((play.spans[0].trace, play.spans[0].flags), (TraceId([7; 16]), TraceFlags::SAMPLED));
    }

    #[test]
    fn a_call_takes_the_id_that_it_wrote_into_its_header() {
        let play = play()
            .open(SpanKind::Client, 'a', OTHER, 1, context(7, 8))
            .open(SpanKind::Server, 'A', T1, 1, context(7, 8))
            .end('A', T1)
            .end('a', OTHER)
            .wait_ms(400);
        play.says("A<a(header) a<-");
        assert_eq!(play.spans.iter().find(|span| &*span.name == "a").map(|span| span.id), Some(SpanId([8; 8])));
    }

    #[test]
    fn a_call_of_an_open_trace_belongs_to_the_request_of_that_trace() {
        play()
            .go(1)
            .open(SpanKind::Server, 'A', T1, 1, context(7, 8))
            .open(SpanKind::Server, 'B', T1, 2, context(9, 8))
            .open(SpanKind::Client, 'b', T2, 3, context(9, 5))
            .end('b', T2)
            .end('B', T1)
            .end('A', T1)
            .wait_ms(400)
            .says("A<?(header) B<?(header) b<B(header)");
    }

    #[test]
    fn a_header_that_is_passed_on_unchanged_is_not_adopted() {
        let play = play()
            .open(SpanKind::Server, 'A', T1, 1, context(7, 8))
            .open(SpanKind::Client, 'b', T1, 2, context(7, 8))
            .open(SpanKind::Server, 'B', OTHER, 2, context(7, 8))
            .end('B', OTHER)
            .end('b', T1)
            .end('A', T1)
            .wait_ms(400);
        play.says("A<?(header) B<b(socket) b<A(header)");
        let server = play.spans.iter().find(|span| &*span.name == "B").expect("B was emitted");
        assert_eq!(server.attributes, [Attribute::new(CONTEXT_SOURCE, "passthrough")]);
    }

    #[test]
    fn the_same_header_twice_makes_two_spans_of_different_ids() {
        let play = play()
            .open(SpanKind::Client, 'a', OTHER, 1, context(7, 8))
            .end('a', OTHER)
            .open(SpanKind::Client, 'b', OTHER, 2, context(7, 8))
            .end('b', OTHER)
            .wait_ms(400);
        play.says("a<- b<a(header)");
        assert_ne!(play.spans[0].id, play.spans[1].id);
    }

    #[test]
    fn a_call_on_a_thread_with_two_requests_has_no_parent() {
        let play = play()
            .serve('A', T1, 1)
            .serve('B', T1, 2)
            .call('c', T1, 3)
            .end('c', T1)
            .end('A', T1)
            .end('B', T1)
            .wait_ms(2_000);
        play.says("A<- B<- c<-");
        assert_eq!(play.vitals.links.unknown, 1);
    }

    #[test]
    fn a_call_whose_request_is_answered_by_another_thread_has_no_parent() {
        let play = play().serve('A', T1, 1).call('b', T1, 2).end('b', T1).end('A', T2).wait_ms(2_000);
        play.says("A<- b<-");
        assert_eq!(play.vitals.links.contradicted, 1);
    }

    #[test]
    fn a_call_after_the_response_begins_a_trace() {
        play().serve('A', T1, 1).end('A', T1).call('b', T1, 2).end('b', T1).wait_ms(2_000).says("A<- b<-");
    }

    #[test]
    fn a_call_does_not_wait_for_ever_for_the_answer() {
        let play = play().serve('A', T1, 1).call('b', T1, 2).end('b', T1).wait_ms(1_100);
        assert_eq!(play.spans.len(), 1, "b is out while A still runs");
        play.end('A', T1).wait_ms(10).says("A<- b<A(thread)");
    }

    #[test]
    fn a_parent_never_comes_from_a_thread_of_go() {
        play().go(1).serve('A', T1, 1).call('b', T1, 2).end('b', T1).end('A', T1).wait_ms(400).says("A<- b<-");
    }

    #[test]
    fn a_request_that_never_ends_is_still_open() {
        let play = play().serve('A', T1, 1).wait_ms(5_000);
        play.says("");
        assert_eq!(play.tracer.open(), 1);
    }

    #[test]
    fn exchanges_beyond_the_bound_are_counted_and_do_no_harm() {
        let mut play = play();
        play.tracer.most = 1;
        let play = play.serve('A', T1, 1).call('b', T1, 2).end('b', T1).end('A', T1).wait_ms(400);
        play.says("A<-");
        assert_eq!(play.vitals.lost.requests.of(Reason::TableFull), 1);
    }

    #[test]
    fn nothing_is_left_behind() {
        let mut play = play();
        for (index, (call, request)) in ('\u{1000}'..).zip('\u{2000}'..).take(100).enumerate() {
            let wire = 2 * index as u32;
            play = play.call(call, OTHER, wire).end(call, OTHER).serve(request, T1, wire + 1).end(request, T1);
        }
        let play = play.wait_ms(2_000);
        let Tracer { nodes, clients, servers, deadlines, .. } = &play.tracer;
        assert_eq!((nodes.len(), clients.len(), servers.len(), deadlines.len()), (0, 0, 0, 0));
    }
}
