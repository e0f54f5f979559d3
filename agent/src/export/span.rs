// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Our spans and resources in OTLP's own terms.
//!
//! In: a finished [`Span`], a [`Resource`], and the offset that turns kernel time into wall time. Out: the fields of
//! OTLP's messages, written once, straight from what the parsers made. It renames, reorders and redacts nothing: that
//! happened before a span came here. It leaves out what is beyond the limits, and says how much.

use opentelemetry_proto::tonic::trace::v1::{SpanFlags, span::SpanKind as ProtoKind, status::StatusCode};
use opentelemetry_semantic_conventions::SCHEMA_URL;

use super::{SpanLimits, field, protobuf::Message};
use crate::{
    attribute::{Attribute, Value},
    enrich::Resource,
    time::WallOffset,
    trace::{LINK_METHOD, ParentSpan, Span, SpanKind, SpanLink},
};

/// Writes the fields of a `Span`.
pub(super) fn write_span(span: &Span, offset: WallOffset, limits: &SpanLimits, out: &mut Message) {
    out.bytes(field::span::TRACE_ID, &span.trace.0);
    out.bytes(field::span::SPAN_ID, &span.id.0);
    if let Some(state) = &span.state {
        out.bytes(field::span::TRACE_STATE, state.as_bytes());
    }
    if let Some(parent) = &span.parent {
        out.bytes(field::span::PARENT_SPAN_ID, &parent.id.0);
    }
    out.fixed32(field::span::FLAGS, u32::from(span.flags.on_the_wire()) | span.parent.map_or(0, remoteness));
    out.bytes(field::span::NAME, span.name.as_bytes());
    let kind = match span.kind {
        SpanKind::Server => ProtoKind::Server,
        SpanKind::Client => ProtoKind::Client,
    };
    out.varint(field::span::KIND, kind as u64);
    out.fixed64(field::span::START_TIME, offset.unix_nanos(span.start));
    out.fixed64(field::span::END_TIME, offset.unix_nanos(span.end));
    let method = span.parent.as_ref().map(|parent| Attribute::new(LINK_METHOD, parent.method.label()));
    let attributes = span.attributes.iter().chain(&method);
    let dropped = write_attributes(field::span::ATTRIBUTES, attributes, limits.attributes, limits.characters, out);
    write_count(field::span::DROPPED_ATTRIBUTES, dropped, out);
    for link in span.links.iter().take(limits.links) {
        out.message(field::span::LINKS, |out| write_link(link, limits, out));
    }
    write_count(field::span::DROPPED_LINKS, span.links.len().saturating_sub(limits.links), out);
    // "Don't set the span status description if the reason can be inferred from `http.response.status_code`"
    // (https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status); else `error.type` says it.
    let code = if span.failed { StatusCode::Error } else { StatusCode::Unset };
    out.message(field::span::STATUS, |out| out.varint(field::status::CODE, code as u64));
}

/// Writes the fields of a `ResourceSpans`, but for its scopes.
pub(super) fn write_resource(resource: &Resource, out: &mut Message) {
    out.message(field::resource_spans::RESOURCE, |out| {
        // No limit of the specification is for resources.
        write_attributes(field::resource::ATTRIBUTES, &resource.attributes, usize::MAX, usize::MAX, out);
    });
    out.bytes(field::resource_spans::SCHEMA_URL, SCHEMA_URL.as_bytes());
}

/// Writes the fields of a `ScopeSpans`, but for its spans.
pub(super) fn write_scope(protocol: &str, out: &mut Message) {
    out.message(field::scope_spans::SCOPE, |out| {
        out.bytes(field::scope::NAME, format!("spantap/{protocol}").as_bytes());
        out.bytes(field::scope::VERSION, env!("CARGO_PKG_VERSION").as_bytes());
    });
    out.bytes(field::scope_spans::SCHEMA_URL, SCHEMA_URL.as_bytes());
}

/// "Bits 8 and 9 represent the 3 states of whether a span's parent is remote. The states are (unknown, is not remote,
/// is remote)" (trace.proto). A root leaves them unknown: no parent is no local one.
fn remoteness(parent: ParentSpan) -> u32 {
    let known = SpanFlags::ContextHasIsRemoteMask as u32;
    if parent.remote { known | SpanFlags::ContextIsRemoteMask as u32 } else { known }
}

fn write_link(link: &SpanLink, limits: &SpanLimits, out: &mut Message) {
    out.bytes(field::link::TRACE_ID, &link.trace.0);
    out.bytes(field::link::SPAN_ID, &link.span.0);
    let most = limits.link_attributes;
    let dropped = write_attributes(field::link::ATTRIBUTES, &link.attributes, most, limits.characters, out);
    write_count(field::link::DROPPED_ATTRIBUTES, dropped, out);
}

/// Writes how many were dropped, if any were.
fn write_count(field: u8, dropped: usize, out: &mut Message) {
    if dropped > 0 {
        out.varint(field, dropped as u64);
    }
}

/// Writes a `KeyValue` for each of the first `most` of `attributes`, and returns how many more there are.
fn write_attributes<'a>(
    field: u8,
    attributes: impl IntoIterator<Item = &'a Attribute>,
    most: usize,
    characters: usize,
    out: &mut Message,
) -> usize {
    let mut attributes = attributes.into_iter();
    for Attribute { key, value } in attributes.by_ref().take(most) {
        out.message(field, |out| {
            out.bytes(field::key_value::KEY, key.as_bytes());
            out.message(field::key_value::VALUE, |out| write_value(value, characters, out));
        });
    }
    attributes.count()
}

/// Writes the one field of an `AnyValue`.
fn write_value(value: &Value, characters: usize, out: &mut Message) {
    let string =
        |text: &str, out: &mut Message| out.bytes(field::any_value::STRING, first(text, characters).as_bytes());
    match value {
        Value::Static(text) => string(text, out),
        Value::Text(text) => string(text, out),
        Value::Shared(text) => string(text, out),
        Value::Int(number) => out.varint(field::any_value::INT, number.cast_unsigned()),
        Value::Share(share) => out.fixed64(field::any_value::DOUBLE, share.to_bits()),
        Value::Texts(texts) => out.message(field::any_value::ARRAY, |out| {
            for text in texts {
                out.message(field::array_value::VALUES, |out| string(text, out));
            }
        }),
    }
}

/// "if it is a string, if it exceeds that limit (counting any character in it as 1), SDKs MUST truncate that value, so
/// that its length is at most equal to the limit" (<https://opentelemetry.io/docs/specs/otel/common/#attribute-limits>).
fn first(text: &str, characters: usize) -> &str {
    if text.len() <= characters {
        return text;
    }
    text.char_indices().nth(characters).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, ArrayValue, KeyValue, any_value},
        trace::v1::{Span as ProtoSpan, Status, span::Link},
    };
    use proptest::{collection::vec, prelude::*};
    use prost::Message as _;

    use super::*;
    use crate::{
        context::{SpanId, TraceFlags, TraceId},
        time::Timestamp,
        trace::LinkMethod,
    };

    proptest! {
        #[test]
        fn what_is_written_is_what_the_published_messages_say(span in any_span(), offset in any::<i64>()) {
            let offset = WallOffset(offset);
            prop_assert_eq!(written(&span, offset), message(span, offset));
        }
    }

    #[test]
    fn the_flags_say_whether_a_parent_is_remote_and_nothing_of_no_parent() {
        let parent = |remote| Some(ParentSpan { id: SpanId([9; 8]), remote, method: LinkMethod::Thread });
        for (claim, parent, expected) in
            [("a root", None, 0x003), ("local", parent(false), 0x103), ("remote", parent(true), 0x303)]
        {
            assert_eq!(written(&Span { parent, ..Span::blank() }, WallOffset(0)).flags, expected, "{claim}");
        }
    }

    #[test]
    fn the_state_is_verbatim() {
        for state in [
            "ot=th:0,fw529a3039@dt=FfAAAA,rojo=00f067aa0ba902b7",
            "a=1 ,\tb=2,,c=3",
            "ot=th:8,tenant@a-long-system-name=1,b=2",
        ] {
            let span = Span { state: Some(state.into()), ..Span::blank() };
            assert_eq!(written(&span, WallOffset(0)).trace_state, state);
        }
        assert_eq!(written(&Span::blank(), WallOffset(0)).trace_state, "");
    }

    #[test]
    fn what_is_beyond_the_limits_is_left_out_and_counted() {
        let text = |key, value: &str| Attribute::new(key, value.to_owned());
        let attributes = vec![text("a", "žluťoučký"), text("b", "kůň"), text("c", "")];
        let link = SpanLink { trace: TraceId([3; 16]), span: SpanId([4; 8]), attributes: attributes.clone() };
        let span = Span { attributes, links: vec![link.clone(), link], ..Span::blank() };
        let limits = SpanLimits { attributes: 2, characters: 3, links: 1, link_attributes: 0 };
        let mut out = Message::default();
        write_span(&span, WallOffset(0), &limits, &mut out);
        let written = ProtoSpan::decode(&*out.finish()).expect("it is a span");
        let kept = [text("a", "žlu"), text("b", "kůň")].map(key_value);
        assert_eq!((written.attributes.as_slice(), written.dropped_attributes_count), (kept.as_slice(), 1));
        assert_eq!((written.links.len(), written.dropped_links_count), (1, 1));
        assert_eq!((written.links[0].attributes.len(), written.links[0].dropped_attributes_count), (0, 3));
    }

    /// `span`, written and read back.
    fn written(span: &Span, offset: WallOffset) -> ProtoSpan {
        let mut out = Message::default();
        write_span(span, offset, &SpanLimits::default(), &mut out);
        ProtoSpan::decode(&*out.finish()).expect("it is a span")
    }

    /// `span` in the published messages, the long way.
    fn message(span: Span, offset: WallOffset) -> ProtoSpan {
        let method = span.parent.map(|parent| Attribute::new(LINK_METHOD, parent.method.label()));
        let kind = match span.kind {
            SpanKind::Server => ProtoKind::Server,
            SpanKind::Client => ProtoKind::Client,
        };
        let code = if span.failed { StatusCode::Error } else { StatusCode::Unset };
        ProtoSpan {
            trace_id: span.trace.0.to_vec(),
            span_id: span.id.0.to_vec(),
            trace_state: span.state.as_deref().unwrap_or_default().to_owned(),
            parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.id.0.to_vec()),
            flags: u32::from(span.flags.on_the_wire()) | span.parent.map_or(0, remoteness),
            name: (*span.name).to_owned(),
            kind: kind.into(),
            start_time_unix_nano: offset.unix_nanos(span.start),
            end_time_unix_nano: offset.unix_nanos(span.end),
            attributes: span.attributes.into_iter().chain(method).map(key_value).collect(),
            links: span.links.into_iter().map(link).collect(),
            status: Some(Status { code: code.into(), message: String::new() }),
            ..ProtoSpan::default()
        }
    }

    fn link(link: SpanLink) -> Link {
        Link {
            trace_id: link.trace.0.to_vec(),
            span_id: link.span.0.to_vec(),
            attributes: link.attributes.into_iter().map(key_value).collect(),
            ..Link::default()
        }
    }

    fn key_value(attribute: Attribute) -> KeyValue {
        let value = match attribute.value {
            Value::Static(text) => any_value::Value::StringValue(text.to_owned()),
            Value::Text(text) => any_value::Value::StringValue(text),
            Value::Shared(text) => any_value::Value::StringValue((*text).to_owned()),
            Value::Int(number) => any_value::Value::IntValue(number),
            Value::Share(share) => any_value::Value::DoubleValue(share),
            Value::Texts(texts) => {
                let text = |text: Box<str>| AnyValue { value: Some(any_value::Value::StringValue(text.into())) };
                any_value::Value::ArrayValue(ArrayValue { values: texts.into_iter().map(text).collect() })
            }
        };
        KeyValue {
            key: attribute.key.into_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        }
    }

    fn any_span() -> impl Strategy<Value = Span> {
        let link = vec(any_attribute(), 0..3).prop_map(|attributes| SpanLink {
            trace: TraceId([3; 16]),
            span: SpanId([4; 8]),
            attributes,
        });
        let texts = (".{0,200}", proptest::option::of("[ -~]{1,200}"));
        let ids = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>());
        let parts = (texts, ids, vec(any_attribute(), 0..12), vec(link, 0..3));
        (parts, any::<[bool; 4]>(), any::<[u64; 2]>()).prop_map(
            |(((name, state), (trace, id, flags), attributes, links), [failed, server, root, remote], [start, end])| {
                Span {
                    trace: TraceId(trace),
                    id: SpanId(id),
                    parent: (!root).then_some(ParentSpan { id: SpanId([9; 8]), remote, method: LinkMethod::Header }),
                    flags: TraceFlags(flags),
                    state: state.map(Into::into),
                    kind: if server { SpanKind::Server } else { SpanKind::Client },
                    name: name.into(),
                    start: Timestamp(start),
                    end: Timestamp(end),
                    failed,
                    attributes,
                    links,
                    ..Span::blank()
                }
            },
        )
    }

    fn any_attribute() -> impl Strategy<Value = Attribute> {
        let value = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            ".{0,300}".prop_map(Value::Text),
            ".{0,300}".prop_map(|text| Value::Shared(text.into())),
            (0.0..1.0).prop_map(Value::Share),
            vec(".{0,30}".prop_map(Box::from), 0..5).prop_map(Value::Texts),
            Just(Value::Static("http")),
        ];
        (prop_oneof![Just("http.request.method"), Just("url.full"), Just("k")], value)
            .prop_map(|(key, value)| Attribute { key: key.into(), value })
    }
}
