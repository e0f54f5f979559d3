// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Spans as Zipkin has them.
//!
//! In: an encoded OTLP request. Out: a JSON list of Zipkin's spans, version 2
//! (<https://zipkin.io/zipkin-api/#/default/post_spans>), by OpenTelemetry's rules
//! (<https://opentelemetry.io/docs/specs/otel/trace/sdk_exporters/zipkin/>). What Zipkin has no place for is left out:
//! links, and the trace's state.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde_json::{Map, Value as Json, json};

/// The list; nothing where `request` is none.
pub(super) fn list(request: &[u8]) -> Option<Vec<u8>> {
    let request = ExportTraceServiceRequest::decode(request).ok()?;
    let mut spans = Vec::new();
    for resource in &request.resource_spans {
        let described = resource.resource.as_ref().map(|resource| resource.attributes.as_slice()).unwrap_or_default();
        for scope in &resource.scope_spans {
            // The scope becomes tags of every span: Zipkin knows no scopes.
            let (name, version) = scope.scope.as_ref().map(|scope| (&*scope.name, &*scope.version)).unwrap_or_default();
            spans.extend(scope.spans.iter().map(|span| zipkin(span, described, name, version)));
        }
    }
    serde_json::to_vec(&spans).ok()
}

fn zipkin(span: &Span, resource: &[KeyValue], scope: &str, version: &str) -> Json {
    let mut out = Map::new();
    out.insert("traceId".into(), hex(&span.trace_id).into());
    out.insert("id".into(), hex(&span.span_id).into());
    if !span.parent_span_id.is_empty() {
        out.insert("parentId".into(), hex(&span.parent_span_id).into());
    }
    out.insert("name".into(), span.name.as_str().into());
    // Other kinds than these two are never made here, and have none in Zipkin.
    let client = span.kind == SpanKind::Client as i32;
    // "SpanKind.INTERNAL: null".
    if client || span.kind == SpanKind::Server as i32 {
        out.insert("kind".into(), if client { "CLIENT" } else { "SERVER" }.into());
    }
    // Whole microseconds; "duration: minimum 1", and a time that is rounded down to 0 would count as unknown.
    out.insert("timestamp".into(), (span.start_time_unix_nano / 1_000).into());
    let duration = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
    out.insert("duration".into(), duration.div_ceil(1_000).max(1).into());
    if let Some(service) = text_of(resource, "service.name") {
        // "Zipkin service name MUST be set to the value of the resource attribute `service.name`."
        out.insert("localEndpoint".into(), json!({ "serviceName": service }));
    }
    if let Some(endpoint) = remote(span, client) {
        out.insert("remoteEndpoint".into(), endpoint);
    }
    let mut tags = Map::new();
    for KeyValue { key, value, .. } in resource.iter().filter(|fact| fact.key != "service.name").chain(&span.attributes)
    {
        tags.insert(key.clone(), shown(value.as_ref()).into());
    }
    tags.insert("otel.scope.name".into(), scope.into());
    tags.insert("otel.scope.version".into(), version.into());
    if span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32) {
        // `error` holds the status's description, and an empty text where there is none: here `error.type` says why.
        tags.insert("otel.status_code".into(), "ERROR".into());
        tags.insert("error".into(), "".into());
    }
    out.insert("tags".into(), tags.into());
    out.into()
}

/// The other end, as far as the conventions name it: the server of a client span, the client of a server span.
fn remote(span: &Span, client: bool) -> Option<Json> {
    let address = text_of(&span.attributes, "network.peer.address");
    let port =
        span.attributes.iter().find(|fact| fact.key == "network.peer.port").map(|fact| shown(fact.value.as_ref()));
    let name = client.then(|| text_of(&span.attributes, "server.address")).flatten();
    let mut endpoint = Map::new();
    if let Some(name) = name {
        endpoint.insert("serviceName".into(), name.into());
    }
    if let Some(address) = address {
        endpoint.insert(if address.contains(':') { "ipv6" } else { "ipv4" }.into(), address.into());
    }
    if let Some(port) = port.and_then(|port| port.parse::<u16>().ok()) {
        endpoint.insert("port".into(), port.into());
    }
    (!endpoint.is_empty()).then(|| endpoint.into())
}

fn text_of<'a>(facts: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let fact = facts.iter().find(|fact| fact.key == key)?;
    match fact.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

/// Zipkin's tags are texts; a list becomes the text of a JSON list.
fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::ArrayValue(array)) => {
            let texts: Vec<_> = array.values.iter().map(|value| shown(Some(value))).collect();
            Json::from(texts).to_string()
        }
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::{ArrayValue, InstrumentationScope},
        resource::v1::Resource,
        trace::v1::{ResourceSpans, ScopeSpans, Status},
    };

    use super::*;

    fn fact(key: &str, value: Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
    }

    fn text(value: &str) -> Value {
        Value::StringValue(value.into())
    }

    #[test]
    fn a_span_is_written_as_the_specification_maps_it() {
        let header = Value::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(text("a")) }] });
        let span = Span {
            trace_id: vec![0xab; 16],
            span_id: vec![1, 2, 3, 4, 5, 6, 7, 8],
            parent_span_id: vec![9; 8],
            name: "GET".into(),
            kind: SpanKind::Client.into(),
            start_time_unix_nano: 1_700_000_000_000_001_999,
            end_time_unix_nano: 1_700_000_000_000_002_001,
            attributes: vec![
                fact("server.address", text("cart")),
                fact("network.peer.address", text("127.0.0.1")),
                fact("network.peer.port", Value::IntValue(8080)),
                fact("http.response.status_code", Value::IntValue(503)),
                fact("http.request.header.x", header),
                fact("error.type", text("503")),
            ],
            status: Some(Status { code: StatusCode::Error.into(), message: String::new() }),
            ..Span::default()
        };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: vec![fact("service.name", text("shop"))],
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(InstrumentationScope {
                        name: "spantap/http".into(),
                        version: "1".into(),
                        ..InstrumentationScope::default()
                    }),
                    spans: vec![span],
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        };
        let written: Json = serde_json::from_slice(&list(&request.encode_to_vec()).expect("a request")).expect("JSON");
        assert_eq!(
            written,
            json!([{
                "traceId": "abababababababababababababababab",
                "id": "0102030405060708",
                "parentId": "0909090909090909",
                "name": "GET",
                "kind": "CLIENT",
                "timestamp": 1_700_000_000_000_001_u64,
                "duration": 1,
                "localEndpoint": {"serviceName": "shop"},
                "remoteEndpoint": {"serviceName": "cart", "ipv4": "127.0.0.1", "port": 8080},
                "tags": {
                    "server.address": "cart",
                    "network.peer.address": "127.0.0.1",
                    "network.peer.port": "8080",
                    "http.response.status_code": "503",
                    "http.request.header.x": "[\"a\"]",
                    "error.type": "503",
                    "otel.scope.name": "spantap/http",
                    "otel.scope.version": "1",
                    "otel.status_code": "ERROR",
                    "error": "",
                },
            }])
        );
    }

    #[test]
    fn what_is_no_request_becomes_no_list() {
        assert_eq!(list(b"\xff"), None);
        assert_eq!(list(b"").as_deref(), Some(b"[]".as_slice()));
    }
}
