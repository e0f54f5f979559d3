// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Spans for tests, in one line each.

use std::sync::Arc;

use crate::{
    attribute::Attribute,
    context::{SpanId, TraceFlags, TraceId},
    enrich::{Resource, ServiceSpan},
    process::ProcessId,
    time::{Task, Timestamp, WallOffset},
    trace::{Begun, LinkMethod, ParentSpan, Span, SpanKind},
};

/// 12:01:07 UTC of some day, for spans that start at 0.
pub(super) const NOON: WallOffset = WallOffset(1_795_262_467_000_000_000);

pub(super) fn trace_id(n: u8) -> TraceId {
    let mut id = [0x4b; 16];
    id[15] = n;
    TraceId(id)
}

pub(super) fn span_id(n: u8) -> SpanId {
    SpanId([0xa0, 0, 0, 0, 0, 0, 0, n])
}

/// A SERVER span of `service`.
pub(super) fn server(trace: u8, id: u8, service: &str, method: &'static str, path: &str) -> Sample {
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let mut attributes = vec![Attribute::new("url.path", path.to_owned())];
    attributes.extend(query.map(|query| Attribute::new("url.query", query.to_owned())));
    Sample::new(trace, id, SpanKind::Server, service, method, attributes)
}

/// A CLIENT span of `service`, calling `callee:8080`.
pub(super) fn client(trace: u8, id: u8, service: &str, method: &'static str, path: &str) -> Sample {
    let attributes = vec![
        Attribute::new("url.full", format!("http://callee:8080{path}")),
        Attribute::new("server.address", "callee".to_owned()),
        Attribute::new("server.port", 8080_u16),
    ];
    Sample::new(trace, id, SpanKind::Client, service, method, attributes)
}

/// A span that is being described.
#[derive(Clone)]
pub(super) struct Sample(ServiceSpan);

impl Sample {
    fn new(
        trace: u8,
        id: u8,
        kind: SpanKind,
        service: &str,
        method: &'static str,
        mut attributes: Vec<Attribute>,
    ) -> Self {
        attributes.insert(0, Attribute::new("http.request.method", method));
        let span = Span {
            trace: trace_id(trace),
            id: span_id(id),
            parent: None,
            begun: Begun::Elsewhere,
            flags: TraceFlags::SAMPLED,
            state: None,
            kind,
            name: method.into(),
            protocol: "http",
            start: Timestamp(0),
            answered: None,
            end: Timestamp(0),
            failed: false,
            attributes,
            links: Vec::new(),
            task: Task::default(),
            port: 0,
        };
        let process = ProcessId { pid: 1, started: 1 };
        Self(ServiceSpan {
            span,
            resource: Arc::new(Resource {
                process,
                service: service.into(),
                attributes: Vec::new(),
                instrumented: false,
            }),
            target: None,
        })
    }

    /// From `start` to `end`, in microseconds.
    pub(super) fn at(mut self, start: u64, end: u64) -> Self {
        self.0.span.start = Timestamp(start * 1000);
        self.0.span.end = Timestamp(end * 1000);
        self
    }

    pub(super) fn status(mut self, code: i64) -> Self {
        self.0.span.attributes.push(Attribute::new("http.response.status_code", code));
        if code >= 500 || (code >= 400 && self.0.span.kind == SpanKind::Client) {
            self = self.error(&code.to_string());
        }
        self
    }

    pub(super) fn error(mut self, kind: &str) -> Self {
        self.0.span.failed = true;
        self.0.span.attributes.push(Attribute::new("error.type", kind.to_owned()));
        self
    }

    /// A child of a span of this machine.
    pub(super) fn under(mut self, parent: u8, method: LinkMethod) -> Self {
        self.0.span.parent = Some(ParentSpan { id: span_id(parent), remote: false, method });
        self
    }

    /// A child of a span that a header named.
    pub(super) fn remote(mut self, parent: u8) -> Self {
        self.0.span.parent = Some(ParentSpan { id: span_id(parent), remote: true, method: LinkMethod::Header });
        self
    }
}

impl From<Sample> for ServiceSpan {
    fn from(sample: Sample) -> Self {
        sample.0
    }
}

/// One call seen from both ends: the CLIENT span `id` under `parent` and the SERVER span `id + 1`, 100 µs inside it.
pub(super) fn call(
    trace: u8,
    id: u8,
    parent: u8,
    (caller, callee): (&str, &str),
    (method, path): (&'static str, &str),
    (start, end): (u64, u64),
    status: i64,
) -> [Sample; 2] {
    [
        client(trace, id, caller, method, path).at(start, end).status(status).under(parent, LinkMethod::Thread),
        server(trace, id + 1, callee, method, path)
            .at(start + 100, end - 100)
            .status(status)
            .under(id, LinkMethod::Socket),
    ]
}
