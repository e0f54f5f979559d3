// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a finished span is exported.
//!
//! In: a finished span. Out: a [`Decision`], the same for every span of a trace, so that a trace is exported whole or
//! not at all. It neither counts nor forgets anything: the local view shows every span, and the caller counts what is
//! not exported in [`Vitals::unsampled`](crate::vitals::Vitals::unsampled).

use crate::{context::TraceFlags, trace::Span};

/// What becomes of a span.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Decision {
    /// It is exported.
    Export,
    /// It stays on this machine.
    Drop,
}

/// The specification's default, `parentbased_always_on`: whoever began the trace has decided, and traces that begin
/// here are all sampled. The flags carry both, since they belong to the trace and not to the span: a received context
/// brings its caller's, and a root that the agent begins is given [`TraceFlags::SAMPLED`]
/// (<https://opentelemetry.io/docs/specs/otel/trace/sdk/#parentbased>).
///
/// A strategy that depends on time or chance takes `now` and its random number as further arguments, so that a
/// recorded event stream always replays to the same decisions.
pub fn decide(span: &Span) -> Decision {
    if span.flags.contains(TraceFlags::SAMPLED) { Decision::Export } else { Decision::Drop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::{SpanId, TraceId},
        time::{Task, Timestamp},
        trace::{Begun, LinkMethod, ParentSpan, SpanKind},
    };

    #[test]
    fn the_sampled_flag_of_the_trace_decides() {
        let remote = Some(ParentSpan { id: SpanId([2; 8]), remote: true, method: LinkMethod::Header });
        for (claim, flags, parent, expected) in [
            ("a root of the agent's own", 0x03, None, Decision::Export),
            ("the caller sampled it", 0x01, remote, Decision::Export),
            ("the caller sampled it, and its id is random", 0x03, remote, Decision::Export),
            ("the caller did not sample it", 0x00, remote, Decision::Drop),
            ("a random id says nothing about sampling", 0x02, remote, Decision::Drop),
            ("the call of an unsampled trace whose own id came from its header", 0x00, None, Decision::Drop),
        ] {
            assert_eq!(decide(&span(TraceFlags(flags), parent)), expected, "{claim}");
        }
    }

    fn span(flags: TraceFlags, parent: Option<ParentSpan>) -> Span {
        Span {
            trace: TraceId([1; 16]),
            id: SpanId([1; 8]),
            parent,
            begun: Begun::Here,
            flags,
            state: None,
            kind: SpanKind::Server,
            name: "GET".into(),
            protocol: "http",
            start: Timestamp(0),
            answered: None,
            end: Timestamp(1),
            failed: false,
            attributes: Vec::new(),
            links: Vec::new(),
            task: Task::default(),
        }
    }
}
