// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From exchanges to spans: identifiers and parents.
//!
//! In: exchanges as they open and close. Out: [`Span`]s whose trace, parent and links are settled. It does not know
//! what was said in an exchange, nor to which service a process belongs.

pub mod ids;
pub mod parenting;
mod recent;
mod tracer;

use std::sync::Arc;

pub use tracer::{Opened, Tracer};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    attribute::Attribute,
    context::{SpanId, TraceFlags, TraceId},
    time::{Task, Timestamp},
    vitals::Links,
};

/// One finished unit of work of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The trace it belongs to.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// The span that caused it; none makes it a root.
    pub parent: Option<ParentSpan>,
    /// Whether the agent gave the trace its id, or a header did.
    pub begun: Begun,
    /// W3C flags of the trace.
    pub flags: TraceFlags,
    /// `tracestate` as received, verbatim.
    pub state: Option<Arc<str>>,
    /// Whether the process served or made the request.
    pub kind: SpanKind,
    /// Low cardinality.
    pub name: Arc<str>,
    /// The protocol's name; the scope is `spantap/<protocol>`.
    pub protocol: &'static str,
    /// First byte of the request.
    pub start: Timestamp,
    /// First byte of the response, if there was one.
    pub answered: Option<Timestamp>,
    /// The byte that completed the response.
    pub end: Timestamp,
    /// `Error` or unset; a description is never needed, the attributes say it.
    pub failed: bool,
    /// Facts by the conventions of its protocol.
    pub attributes: Vec<Attribute>,
    /// Other spans that have to do with this one.
    pub links: Vec<SpanLink>,
    /// The task that read the request (SERVER) or wrote it (CLIENT).
    pub task: Task,
    /// The server's TCP port, whoever it is that was seen; 0 over a unix socket.
    pub port: u16,
}

/// The attribute that names the evidence for a parent, or for a link.
pub const LINK_METHOD: &str = "spantap.link.method";

/// What an operator says about parents.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Finds the likely requests of calls that nothing exact can tell, by the delays of the process's other calls. It takes
    /// up to half a millisecond of a core for each such call, at most 500 a second in each process.
    pub assigned: bool,
    /// The confidence, from 0.5 to 1, from which on a request that is only likely to have made a call becomes its parent.
    /// Below, the call is a root that links to the likeliest ones.
    pub confidence: f64,
}

impl Default for Settings {
    fn default() -> Self {
        // One wrong parent in a hundred is the most that is promised.
        Self { assigned: false, confidence: 0.99 }
    }
}

impl Settings {
    /// What cannot be followed.
    pub fn mistakes(&self) -> Vec<String> {
        // Below a half the likeliest of two is as often wrong as right.
        if (0.5..=1.0).contains(&self.confidence) {
            return Vec::new();
        }
        vec![format!("parents.confidence is a share from 0.5 to 1, not {}", self.confidence)]
    }
}

/// A span's parent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ParentSpan {
    /// Its id, in the same trace.
    pub id: SpanId,
    /// Whether it is a span of another process (`has_is_remote`, `is_remote` of OTLP's flags).
    pub remote: bool,
    /// The evidence.
    pub method: LinkMethod,
}

/// Where a trace's id, flags and state come from: who has decided about its sampling.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Begun {
    /// The agent made them: nobody has decided.
    #[default]
    Here,
    /// From a header, whoever wrote it: the flags carry that one's decision.
    Elsewhere,
}

/// The evidence for a parent: the value of `spantap.link.method`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkMethod {
    /// A context header: of the request itself, or equal to that of an open server request of the process.
    Header,
    /// The other end of the same connection is on this host.
    Socket,
    /// The task of the runtime that wrote the answer made the call.
    Runtime,
    /// The calling thread held one request and answered it.
    Thread,
    /// A request id that the process passed on.
    Content,
    /// What the event loop was working on when it made the call, in agreement with what it answered afterwards.
    Turn,
    /// The answer that the event loop wrote after the call's response.
    Reply,
    /// Chains of threads that woke each other.
    Handoff,
    /// Statistics of delays, with a confidence.
    Assigned,
}

impl LinkMethod {
    /// The attribute's value.
    pub fn label(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Socket => "socket",
            Self::Runtime => "runtime",
            Self::Thread => "thread",
            Self::Content => "content",
            Self::Turn => "turn",
            Self::Reply => "reply",
            Self::Handoff => "handoff",
            Self::Assigned => "assigned",
        }
    }

    /// One more parent was found by this evidence.
    fn count(self, links: &mut Links) {
        let count = match self {
            Self::Header => &mut links.header,
            Self::Socket => &mut links.socket,
            Self::Runtime => &mut links.runtime,
            Self::Thread => &mut links.thread,
            Self::Content => &mut links.content,
            Self::Turn => &mut links.turn,
            Self::Reply => &mut links.reply,
            Self::Handoff => &mut links.handoff,
            Self::Assigned => &mut links.assigned,
        };
        *count += 1;
    }
}

/// The part a process played.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SpanKind {
    /// It served the request.
    Server,
    /// It made the request.
    Client,
}

/// A reference to a span that is not the parent.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanLink {
    /// The other trace.
    pub trace: TraceId,
    /// The other span.
    pub span: SpanId,
    /// Why.
    pub attributes: Vec<Attribute>,
}

#[cfg(test)]
impl Span {
    /// A span of nothing, for tests to fill in what they are about.
    pub(crate) fn blank() -> Self {
        Self {
            trace: TraceId([1; 16]),
            id: SpanId([2; 8]),
            parent: None,
            begun: Begun::Elsewhere,
            flags: TraceFlags(3),
            state: None,
            kind: SpanKind::Server,
            name: "GET".into(),
            protocol: "http",
            start: Timestamp(0),
            answered: None,
            end: Timestamp(0),
            failed: false,
            attributes: Vec::new(),
            links: Vec::new(),
            task: Task::default(),
            port: 0,
        }
    }
}
