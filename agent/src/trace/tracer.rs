// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Gives every exchange its ids and its parent, and lets it go as a span once both are settled.
//!
//! An exchange waits for three things: its end; its parent; and its trace, which is its parent's. Each is waited for
//! only as long as evidence can still come: the other end of a connection for the constants at the end of this file, the
//! request that a call was made for as long as [`super::parenting`] says.
//!
//! ```text
//! SERVER   header ─► trace known ─┐          the peer's CLIENT end shows up ─► its parent
//!          no header ─────────────┴─ Seeking ──────────────── JOIN_WAIT over ─► header's parent, or root
//! CLIENT   Evidence ─► the verdict on whose call it is: its parent; none, which makes it a root
//!          header   ─► its id is the header's parent id, unless that was forwarded
//! ```

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::BuildHasher,
    mem,
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;
use smallvec::SmallVec;
use spantap_common::{endpoint::Endpoint, event::thread::Step, loss::Reason};

use super::{
    Begun, LINK_METHOD, LinkMethod, ParentSpan, Settings, Span, SpanKind, SpanLink,
    ids::Ids,
    parenting::{Act, Certainty, Confidence, Likely, Outcome, Parenting, Verdict, What},
    recent::{Recent, Reuse},
};
use crate::{
    attribute::Attribute,
    context::{SpanId, TraceContext, TraceFlags, TraceId, vendors::Named},
    event::Thread,
    pairing::{Closed, ExchangeId},
    process::Runtime,
    protocol::{Passed, Request},
    table::Table,
    time::{Moment, Timestamp},
    vitals::{Fill, Vitals},
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
    /// Who connected and when, if this is the first request on a connection that this process made.
    pub connected: Option<Moment>,
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
    #[expect(clippy::vec_box, reason = "it holds the boxes themselves, for `nodes`")]
    spare: Vec<Box<Node>>,
    parenting: Parenting,
    /// CLIENT ends whose SERVER end has not shown up.
    clients: HashMap<Join, ExchangeId, FixedState>,
    /// SERVER ends whose CLIENT end has not shown up.
    servers: HashMap<Join, ExchangeId, FixedState>,
    /// Span ids that CLIENT spans have taken from the headers they sent, each with the lower half of its trace: a second
    /// call with the same header must not take the same id.
    adopted: Recent<(u64, SpanId), ()>,
    /// Contexts that processes have received, likewise: one that a process sends on unchanged, in whatever format, is not
    /// its own.
    received: Recent<(u32, u64, SpanId), ()>,
    reuse: Reuse,
    deadlines: BinaryHeap<Reverse<(Timestamp, ExchangeId)>>,
}

/// What both ends of one request see alike.
///
/// Of TCP that is the sequence number at which it begins, a number drawn anew for each connection, and its bytes. Addresses
/// do not count: between a process and a Kubernetes service, or another port of a container's host, the kernel rewrites
/// them on the way. Of unix sockets, whose bytes are counted from 0, it is the two sockets themselves.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Join {
    position: u32,
    digest: u64,
}

#[derive(Debug)]
struct Node {
    kind: SpanKind,
    protocol: &'static str,
    join: Join,
    server: Endpoint,
    request: Request,
    closed: Option<Closed>,
    span: SpanId,
    /// Known once the parent's is; at once where a header names it.
    trace: Option<Trace>,
    parent: Parent,
    /// Exchanges that take their trace from this one.
    children: SmallVec<[ExchangeId; 1]>,
    /// Spans that it may belong to, likeliest first.
    links: Vec<SpanLink>,
    /// How many of those are of traces that are not known yet.
    unlinked: usize,
    /// Calls that wait to know this one's trace, and which of their links it is for.
    linked_by: Vec<(ExchangeId, usize)>,
    /// The process made up the parent id that it wrote into the call's header.
    minted: bool,
    /// A request: no call that is to come, or to be decided, belongs to it.
    released: bool,
    /// The span is out; the node stays a while so that its other end, or its calls, can find it.
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
    /// A CLIENT end whose request is not known yet.
    Evidence,
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
            parenting: Parenting::new(likely_from(Settings::default())),
            clients: HashMap::with_hasher(hasher()),
            servers: HashMap::with_hasher(hasher()),
            adopted: Recent::new(hasher()),
            received: Recent::new(hasher()),
            reuse: Reuse::new(hasher()),
            deadlines: BinaryHeap::new(),
        }
    }

    /// Takes likely requests for parents by these settings from now on.
    pub fn trust(&mut self, settings: Settings) {
        self.parenting.trust(likely_from(settings));
    }

    /// Process `pid` runs on `runtime`.
    pub fn learned(&mut self, pid: u32, runtime: Runtime) {
        self.parenting.learned(pid, runtime);
    }

    /// Process `pid` ended at `at`.
    pub fn forgot(&mut self, pid: u32, at: Timestamp, vitals: &mut Vitals) {
        self.parenting.take(Act { at, pid, what: What::Exited }, &mut vitals.links);
    }

    /// A thread of a process began, by the hand of another one, or ended.
    pub fn threaded(&mut self, thread: &Thread, vitals: &mut Vitals) {
        let Thread { moment, tid, started, step } = *thread;
        let what = match step {
            Step::Begins => What::Began { thread: tid, started, by: moment.task.tid },
            Step::Ends => What::Left { thread: tid, started },
        };
        self.parenting.take(Act { at: moment.at, pid: moment.task.pid, what }, &mut vitals.links);
    }

    /// A request was made or received.
    pub fn opened(&mut self, opened: Opened, vitals: &mut Vitals, out: &mut Vec<Span>) {
        if self.nodes.len() >= self.most {
            vitals.lost.requests.add(Reason::TableFull, 1);
            return;
        }
        let Opened { id, kind, protocol, client, server, connected, mut request } = opened;
        let grace = if kind == SpanKind::Client { JOIN_WAIT } else { Duration::ZERO };
        let at = request.first.at;
        if let Some(spent) = request.context.take_if(|context| self.reuse.is_spent(context, at, grace)) {
            vitals.links.reused += 1;
            request.passed.others.push((REUSED, spent));
        }
        let ends = client.is_unix().then_some((client, server));
        let digest = ends.map_or(request.digest, |ends| self.adopted.hasher().hash_one((ends, request.digest)));
        let node = Node {
            kind,
            protocol,
            join: Join { position: request.position, digest },
            server,
            closed: None,
            span: self.ids.span(),
            trace: request.context.as_ref().map(Trace::from),
            parent: Parent::Seeking,
            children: SmallVec::new(),
            links: Vec::new(),
            unlinked: 0,
            linked_by: Vec::new(),
            minted: false,
            released: false,
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
            SpanKind::Client => self.client_opened(id, node, connected, vitals, out),
        }
    }

    /// More of a message was read by `by`: of `exchange`, where that is only one.
    pub fn read(&mut self, exchange: Option<ExchangeId>, by: Moment, vitals: &mut Vitals) {
        let what = What::Read { exchange, by: by.task };
        self.parenting.take(Act { at: by.at, pid: by.task.pid, what }, &mut vitals.links);
    }

    /// `by` wrote some of the response to `request`.
    pub fn answering(&mut self, request: ExchangeId, by: Moment, vitals: &mut Vitals) {
        let what = What::Answering { request, by: by.task, crowded: false };
        self.took(request, by.at, what, vitals);
    }

    /// The exchange is over.
    pub fn closed(&mut self, id: ExchangeId, closed: Closed, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (last, answered) = (closed.last, closed.answered);
        node.closed = Some(closed);
        let what = match node.kind {
            SpanKind::Server => What::Over { request: id, answered, crowded: false },
            SpanKind::Client => What::Ended { call: id, by: answered.map(|_| last.task) },
        };
        self.took(id, last.at, what, vitals);
        self.emit(id, vitals, out);
    }

    /// Time has come to `now`: stops waiting for what is overdue. Everything that happened until `seen` has been told.
    pub fn tick(&mut self, now: Timestamp, seen: Timestamp, vitals: &mut Vitals, out: &mut Vec<Span>) {
        self.parenting.settle(seen, &mut vitals.links);
        self.outcomes(vitals, out);
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
        self.parenting.finish(&mut vitals.links);
        self.outcomes(vitals, out);
        let end = Timestamp(u64::MAX);
        self.tick(end, end, vitals, out);
    }

    /// Requests that are not spans yet.
    pub fn open(&self) -> usize {
        self.nodes.values().filter(|node| !node.emitted).count()
    }

    /// Exchanges that are remembered: those under way, and those that others may still refer to.
    pub fn fill(&self) -> Fill {
        Fill::of("exchanges", self.nodes.len(), self.most, size_of::<Node>() + NODE_HEAP)
    }

    // --- Opening ---

    fn server_opened(&mut self, id: ExchangeId, node: Box<Node>, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let (join, first) = (node.join, node.request.first);
        let context = node.request.context.as_ref();
        if let Some(context) = context {
            self.received.insert((first.task.pid, context.trace.lower_half(), context.parent), ());
        }
        let what = What::Received {
            request: id,
            by: first.task,
            trace: context.map(|context| context.trace),
            ids: node.request.passed.ids.clone(),
            digest: node.request.digest,
            operation: self.operation(&node),
        };
        self.nodes.insert(id, node);
        self.took(id, first.at, what, vitals);
        match self.clients.remove(&join) {
            Some(client) => self.join(id, client, vitals, out),
            None => {
                self.servers.insert(join, id);
                self.deadlines.push(Reverse((first.at.plus(JOIN_WAIT), id)));
            }
        }
    }

    fn client_opened(
        &mut self,
        id: ExchangeId,
        mut node: Box<Node>,
        connected: Option<Moment>,
        vitals: &mut Vitals,
        out: &mut Vec<Span>,
    ) {
        let (join, first) = (node.join, node.request.first);
        let context = node.request.context.as_ref();
        if let Some(TraceContext { trace, parent, .. }) = context {
            // The parent id in the header is the call's own, if the process minted it.
            let forwarded = self.received.contains(&(first.task.pid, trace.lower_half(), *parent));
            node.minted = !forwarded && self.adopted.insert((trace.lower_half(), *parent), ());
            if node.minted {
                node.span = *parent;
            }
            if trace.is_half() {
                // The request that it is made for may know the other half.
                node.trace = None;
            }
        }
        let trace = context.map(|context| context.trace);
        let ids = node.request.passed.ids.clone();
        node.parent = Parent::Evidence;
        let (digest, operation) = (node.request.digest, self.operation(&node));
        self.nodes.insert(id, node);
        let what = What::Called { call: id, by: first.task, connected, trace, ids, digest, operation };
        self.took(id, first.at, what, vitals);
        match self.servers.remove(&join) {
            Some(server) => self.join(server, id, vitals, out),
            None => {
                self.clients.insert(join, id);
            }
        }
    }

    /// A number for what is asked of whom, if anybody wants to know.
    fn operation(&self, node: &Node) -> u64 {
        if !self.parenting.looks_for_likely() {
            return 0;
        }
        self.adopted.hasher().hash_one((node.kind, node.protocol, &node.request.name, node.server))
    }

    /// Tells parenting what the process of an exchange did. The process is the one that read the request, or made the
    /// call: what another one does on the same connection, such as a child that inherited it, happens to that exchange.
    fn took(&mut self, exchange: ExchangeId, at: Timestamp, what: What, vitals: &mut Vitals) {
        let Some(node) = self.nodes.get(&exchange) else { return };
        let pid = node.request.first.task.pid;
        self.parenting.take(Act { at, pid, what }, &mut vitals.links);
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

    /// Takes in what parenting has found.
    fn outcomes(&mut self, vitals: &mut Vitals, out: &mut Vec<Span>) {
        while let Some(outcome) = self.parenting.outcome() {
            match outcome {
                Outcome::Decided(call, verdict) => self.decide(call, verdict, vitals, out),
                Outcome::Released(request) => self.release(request),
            }
        }
    }

    /// Settles a call.
    fn decide(&mut self, call: ExchangeId, verdict: Verdict, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get(&call) else { return };
        let verdict = match verdict {
            Verdict::Is(request, _) | Verdict::Likely([Some((request, _)), ..], Certainty::Enough)
                if !self.can_be_parent(request, node) =>
            {
                Verdict::Contradicted
            }
            verdict => verdict,
        };
        let is = match verdict {
            Verdict::Is(request, method) => self.parent_in(request, method).map(|parent| (request, parent)),
            Verdict::Likely([Some((request, _)), ..], Certainty::Enough) => {
                self.parent_in(request, LinkMethod::Assigned).map(|parent| (request, parent))
            }
            Verdict::Likely(..) | Verdict::Nobody | Verdict::Unknown | Verdict::Contradicted => None,
        };
        let context = node.request.context.as_ref().filter(|_| !node.minted);
        let forwarded =
            context.map(|context| ParentSpan { id: context.parent, remote: true, method: LinkMethod::Header });
        match (is, verdict) {
            (Some((request, parent)), verdict) => {
                if let Verdict::Likely([Some((_, confidence)), ..], _) = verdict {
                    self.say(call, Attribute::new(LINK_CONFIDENCE, confidence.share()));
                }
                parent.method.count(&mut vitals.links);
                self.settle(call, Some(parent));
                self.inherit(call, request, vitals, out);
                self.emit(call, vitals, out);
                return;
            }
            // Forwarded from somewhere else: what the header says is all that is known.
            (None, Verdict::Nobody) if forwarded.is_some() => LinkMethod::Header.count(&mut vitals.links),
            (None, Verdict::Nobody) => vitals.links.root += 1,
            (None, Verdict::Likely(likely, _)) => {
                vitals.links.unknown += 1;
                self.link(call, &likely, vitals);
            }
            (None, Verdict::Unknown | Verdict::Is(..)) => vitals.links.unknown += 1,
            (None, Verdict::Contradicted) => vitals.links.contradicted += 1,
        }
        self.settle(call, forwarded);
        self.begin_trace_of(call, vitals, out);
        self.emit(call, vitals, out);
    }

    fn say(&mut self, id: ExchangeId, attribute: Attribute) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.request.attributes.push(attribute);
        }
    }

    /// What a call may belong to.
    fn link(&mut self, call: ExchangeId, likely: &Likely, vitals: &mut Vitals) {
        for (request, confidence) in likely.iter().flatten() {
            let Some(node) = self.nodes.get_mut(request) else {
                vitals.links.unlinked += 1;
                continue;
            };
            let (span, trace) = (node.span, node.trace.as_ref().map(|trace| trace.id));
            let mut attributes = vec![Attribute::new(LINK_METHOD, LinkMethod::Assigned.label())];
            if *confidence > Confidence::default() {
                attributes.push(Attribute::new(LINK_CONFIDENCE, confidence.share()));
            }
            let Some(node) = self.nodes.get_mut(&call) else { return };
            let place = node.links.len();
            node.links.push(SpanLink { trace: trace.unwrap_or(TraceId([0; 16])), span, attributes });
            if trace.is_none() {
                node.unlinked += 1;
                if let Some(request) = self.nodes.get_mut(request) {
                    request.linked_by.push((call, place));
                }
            }
        }
    }

    /// The trace of `request` is known: calls that may belong to it can say so.
    fn complete_links(&mut self, request: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&request) else { return };
        let Some(trace) = node.trace.as_ref().map(|trace| trace.id) else { return };
        for (call, place) in mem::take(&mut node.linked_by) {
            let Some(node) = self.nodes.get_mut(&call) else { continue };
            if let Some(link) = node.links.get_mut(place) {
                link.trace = trace;
            }
            node.unlinked -= 1;
            self.emit(call, vitals, out);
        }
    }

    /// Whether `call` can have been made for `request`, whatever the evidence says: not if its header names another
    /// trace, and not if it is what brought the request about.
    fn can_be_parent(&self, request: ExchangeId, call: &Node) -> bool {
        let Some(node) = self.nodes.get(&request) else { return false };
        let same_trace = match (&call.request.context, &node.trace) {
            (Some(context), Some(trace)) => context.trace.is_same(trace.id),
            // The request's trace is still to come, all of it or half; the call's is known already.
            (Some(context), None) => node.request.context.as_ref().is_some_and(|own| own.trace.is_same(context.trace)),
            (None, _) => true,
        };
        // An end of the same exchange is no cause of the other; nor is what came later.
        same_trace && node.join != call.join && node.request.first.at <= call.request.first.at
    }

    fn settle(&mut self, id: ExchangeId, parent: Option<ParentSpan>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.parent = Parent::Is(parent);
        }
    }

    /// The exchange begins a trace, unless a header has named one.
    fn begin_trace_of(&mut self, id: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let named = node.request.context.as_ref().map(Trace::from);
        let begun = || Trace { id: self.ids.trace(), begun: Begun::Here, flags: Ids::ROOT_FLAGS, state: None };
        let trace = node.trace.get_or_insert_with(|| named.unwrap_or_else(begun));
        let trace = trace.clone();
        self.complete_links(id, vitals, out);
        self.pass_on(id, &trace, vitals, out);
    }

    /// No call needs the request any more.
    fn release(&mut self, request: ExchangeId) {
        let Some(node) = self.nodes.get_mut(&request) else { return };
        node.released = true;
        if node.emitted {
            self.let_go(request);
        }
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
                        self.begin_trace_of(id, vitals, out);
                    }
                }
                self.emit(id, vitals, out);
            }
            // Parenting says when that is over.
            Parent::Evidence => {}
            Parent::Is(_) if node.emitted && node.kind == SpanKind::Client => {
                if self.clients.get(&node.join) == Some(&id) {
                    self.clients.remove(&node.join);
                }
                self.let_go(id);
            }
            Parent::Is(_) => {}
        }
    }

    // --- Traces ---

    fn parent_in(&self, request: ExchangeId, method: LinkMethod) -> Option<ParentSpan> {
        self.nodes.get(&request).map(|node| ParentSpan { id: node.span, remote: false, method })
    }

    /// `child` is of `parent`'s trace, now or as soon as that is known.
    fn inherit(&mut self, child: ExchangeId, parent: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&parent) else { return };
        match node.trace.clone() {
            Some(trace) => self.pass_on_to(child, &trace, vitals, out),
            None => {
                node.children.push(child);
                // What it was told itself is as little as its parent was.
                if let Some(node) = self.nodes.get_mut(&child) {
                    node.trace = None;
                }
            }
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
            self.complete_links(heir, vitals, out);
            self.emit(heir, vitals, out);
        }
    }

    fn pass_on_to(&mut self, child: ExchangeId, trace: &Trace, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&child) else { return };
        if node.trace.is_none() {
            node.trace = Some(trace.clone());
        }
        self.complete_links(child, vitals, out);
        self.pass_on(child, trace, vitals, out);
    }

    // --- Letting go ---

    /// Emits the exchange if it is over and settled.
    fn emit(&mut self, id: ExchangeId, vitals: &mut Vitals, out: &mut Vec<Span>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (Parent::Is(parent), Some(trace), false) = (node.parent, &node.trace, node.emitted) else { return };
        if node.unlinked > 0 {
            return;
        }
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
            links: links(mem::take(&mut node.request.passed)).into_iter().chain(mem::take(&mut node.links)).collect(),
            task: node.request.first.task,
            port: node.server.port,
        });
        let still_sought = node.kind == SpanKind::Client && self.clients.get(&node.join) == Some(&id);
        if still_sought {
            node.emitted = true;
            self.deadlines.push(Reverse((closed.last.at.plus(JOIN_WAIT), id)));
        } else if node.kind == SpanKind::Server && !node.released {
            node.emitted = true;
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

/// The confidence from which on a likely request is a parent; none where nobody is to look for likely ones.
fn likely_from(settings: Settings) -> Option<Confidence> {
    settings.assigned.then(|| Confidence::new(settings.confidence))
}

/// Links to the spans that other headers name as the one which sent the request.
fn links(passed: Passed) -> Vec<SpanLink> {
    let link = |(format, context): Named| SpanLink {
        trace: context.trace,
        span: context.parent,
        attributes: vec![Attribute::new(CONTEXT_SOURCE, format)],
    };
    passed.others.into_iter().map(link).collect()
}

/// How long the other end of a connection on this host may take to show up after a request was read: its probe runs
/// when the write returns, which a busy machine can put off by some tens of milliseconds, and its record may wait
/// [`crate::stream::assembler::PATIENCE`] for another.
const JOIN_WAIT: Duration = Duration::from_millis(300);

/// Room kept for nodes to come: what 10,000 requests/s begin between two looks at the ring, in some 100 KiB.
const MOST_SPARE: usize = 200;

/// What an exchange has outside of its place in the table: a dozen attributes with their texts, and a link or two.
const NODE_HEAP: usize = 1 << 10;

/// Where a context came from when it was not written for this request, or which format a link was written in.
const CONTEXT_SOURCE: &str = "spantap.context.source";

/// The value of [`CONTEXT_SOURCE`] for a header that was used for too many requests.
const REUSED: &str = "reused";

/// How sure a parent or a link is that was assigned: the share of such words that were right.
const LINK_CONFIDENCE: &str = "spantap.link.confidence";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::SocketId, protocol::Key, time::Task, trace::recent::MOST_USES};

    /// A stage on which exchanges open and close. An exchange is named by a letter; `wire` numbers the request both of
    /// whose ends carry it.
    struct Play {
        tracer: Tracer,
        vitals: Vitals,
        spans: Vec<Span>,
        now_ms: u64,
        /// Addresses of the client and the server of what is opened next.
        ends: (Endpoint, Endpoint),
    }

    fn play() -> Play {
        let ends = (Endpoint::v4([127, 0, 0, 1], 40_000), Endpoint::v4([127, 0, 0, 1], 80));
        Play { tracer: Tracer::new([7; 32], 1024), vitals: Vitals::default(), spans: Vec::new(), now_ms: 1_000, ends }
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
                client: self.ends.0,
                server: self.ends.1,
                connected: None,
                request: Request {
                    key: Key::InOrder,
                    name: letter.to_string().into(),
                    first: Moment { at, task: by },
                    position: wire,
                    digest: 7,
                    context,
                    passed: Passed::default(),
                    attributes: Vec::new(),
                },
            };
            self.tracer.opened(opened, &mut self.vitals, &mut self.spans);
            self
        }

        /// What comes next is on connections between `client` and `server`.
        fn between(mut self, client: Endpoint, server: Endpoint) -> Self {
            self.ends = (client, server);
            self
        }

        /// `by` starts a thread of its process.
        fn start(mut self, by: Task, tid: u32) -> Self {
            let moment = Moment { at: self.at(), task: by };
            self.tracer.threaded(&Thread { moment, tid, started: 7, step: Step::Begins }, &mut self.vitals);
            self
        }

        /// A thread that was started ends.
        fn leave(mut self, by: Task) -> Self {
            let moment = Moment { at: self.at(), task: by };
            self.tracer.threaded(&Thread { moment, tid: by.tid, started: 7, step: Step::Ends }, &mut self.vitals);
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
            self.tracer.tick(now, now, &mut self.vitals, &mut self.spans);
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
        play().serve('A', T1, 1).call('a', OTHER, 1).end('A', T1).end('a', OTHER).wait_ms(150).says("A<a(socket) a<-");
        play().call('a', OTHER, 1).end('a', OTHER).serve('A', T1, 1).end('A', T1).wait_ms(150).says("A<a(socket) a<-");
    }

    #[test]
    fn addresses_may_be_rewritten_between_the_two_ends() {
        let [inner, outer, service, pod] = [40_000, 41_000, 80, 8080].map(|port| Endpoint::v4([10, 0, 0, 1], port));
        play()
            .between(inner, service)
            .call('a', OTHER, 1)
            .between(outer, pod)
            .serve('A', T1, 1)
            .end('A', T1)
            .end('a', OTHER)
            .wait_ms(150)
            .says("A<a(socket) a<-");
    }

    #[test]
    fn unix_sockets_that_count_from_the_same_place_are_told_apart_by_themselves() {
        let [a, b, c, d] = [1, 2, 3, 4].map(Endpoint::unix);
        play()
            .between(a, b)
            .call('a', OTHER, 1)
            .between(c, d)
            .call('b', OTHER, 1)
            .between(a, b)
            .serve('A', T1, 1)
            .between(c, d)
            .serve('B', T2, 1)
            .end('A', T1)
            .end('B', T2)
            .end('a', OTHER)
            .end('b', OTHER)
            .wait_ms(150)
            .says("A<a(socket) B<b(socket) a<- b<-");
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
    fn a_header_that_stands_in_everything_does_not_make_one_trace_of_it() {
        let mut play = play();
        for wire in 1..=MOST_USES + 1 {
            play = play.open(SpanKind::Server, 'A', T1, wire, context(7, 8)).end('A', T1).wait_ms(400);
        }
        let [.., before, last] = &play.spans[..] else { panic!("spans") };
        assert_eq!((before.trace, before.parent.map(|parent| parent.id)), (TraceId([7; 16]), Some(SpanId([8; 8]))));
        assert_eq!((last.trace == before.trace, last.parent, last.begun), (false, None, Begun::Here));
        let link = SpanLink {
            trace: TraceId([7; 16]),
            span: SpanId([8; 8]),
            attributes: vec![Attribute::new(CONTEXT_SOURCE, REUSED)],
        };
        assert_eq!((&last.links, play.vitals.links.reused), (&vec![link], 1));
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
        assert_eq!(play.vitals.links.unknown, 1);
    }

    #[test]
    fn a_call_after_the_response_begins_a_trace() {
        play().serve('A', T1, 1).end('A', T1).call('b', T1, 2).end('b', T1).wait_ms(2_000).says("A<- b<-");
    }

    #[test]
    fn a_call_of_a_thread_that_the_request_has_started_is_its_child() {
        let started = play().serve('A', T1, 1).start(T1, T2.tid).call('b', T2, 2).end('b', T2);
        started.leave(T2).end('A', T1).wait_ms(400).says("A<- b<A(thread)");
        // Where nobody saw it begin, it says nothing.
        let play = play().serve('A', T1, 1).call('b', T2, 2).end('b', T2).leave(T2).end('A', T1).wait_ms(2_000);
        play.says("A<- b<-");
    }

    #[test]
    fn a_call_does_not_wait_for_ever_for_the_answer() {
        let play = play().serve('A', T1, 1).call('b', T1, 2).end('b', T1).wait_ms(5_500);
        assert_eq!(play.spans.len(), 1, "b is out while A still runs");
        play.end('A', T1).wait_ms(150).says("A<- b<A(thread)");
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
