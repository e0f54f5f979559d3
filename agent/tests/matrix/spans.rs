// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OTLP JSON lines, as a receiver would read them.
//!
//! In: a line of the agent's standard output. Out: [`Span`]s with what the tests ask about. It is written from the
//! specification of OTLP/JSON, not with the agent's own types: what both got wrong alike would go unseen. A line with an
//! attribute that the documentation does not have is refused.

#[path = "../support/vocabulary.rs"]
mod vocabulary;

use serde::Deserialize;
use serde_json::Value;

/// A span, and who made it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    /// `process.pid` of its resource.
    pub(crate) pid: u32,
    /// SERVER or CLIENT.
    pub(crate) kind: Kind,
    /// `url.path`, or the path in `url.full`; empty where there is none.
    pub(crate) path: String,
    /// `server.address`; empty where there is none.
    pub(crate) host: String,
    /// `http.request.method`; empty where there is none.
    pub(crate) method: String,
    /// `http.request.method_original`.
    pub(crate) original: Option<String>,
    /// `http.response.status_code`.
    pub(crate) status: Option<u64>,
    /// Whether the span's status is Error.
    pub(crate) failed: bool,
    /// `error.type`.
    pub(crate) error: Option<String>,
    /// Hex.
    pub(crate) trace: String,
    /// Hex.
    pub(crate) id: String,
    /// Hex; none for a root.
    pub(crate) parent: Option<String>,
    /// `spantap.link.method`.
    pub(crate) evidence: Option<String>,
    /// `spantap.link.confidence`.
    pub(crate) confidence: Option<f64>,
    /// Spans that are linked with a confidence: parents that were not sure enough.
    pub(crate) candidates: Vec<Candidate>,
    /// Nanoseconds since the Unix epoch.
    pub(crate) start: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) end: u64,
}

/// A link to what may be the parent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// Hex.
    pub(crate) span: String,
    /// `spantap.link.confidence`.
    pub(crate) confidence: f64,
}

/// OTLP's number for what a process did.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    /// 2.
    Server,
    /// 3.
    Client,
}

/// The spans of a line: all of them, or what is wrong with it.
pub(crate) fn parse(line: &str) -> Result<Vec<Span>, String> {
    let export: Export = serde_json::from_str(line).map_err(|e| format!("not OTLP JSON: {e}: {line}"))?;
    let mut spans = Vec::new();
    for resource in export.resource_spans {
        let pid = integer(&resource.resource.attributes, "process.pid").and_then(|pid| u32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| format!("no process.pid in {line}"))?;
        hold("resource", &resource.resource.attributes).map_err(|what| format!("{what} in {line}"))?;
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(span.read(pid).map_err(|what| format!("{what} in {line}"))?);
        }
    }
    Ok(spans)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Export {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
struct Resource {
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct ScopeSpans {
    spans: Vec<WireSpan>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSpan {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    kind: u64,
    start_time_unix_nano: Value,
    end_time_unix_nano: Value,
    #[serde(default)]
    attributes: Vec<KeyValue>,
    #[serde(default)]
    links: Vec<Link>,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    span_id: String,
    #[serde(default)]
    attributes: Vec<KeyValue>,
}

#[derive(Deserialize)]
struct KeyValue {
    key: String,
    value: AnyValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue {
    string_value: Option<String>,
    int_value: Option<Value>,
    double_value: Option<f64>,
    array_value: Option<Value>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u64,
}

impl WireSpan {
    fn read(self, pid: u32) -> Result<Span, String> {
        let kind = match self.kind {
            2 => Kind::Server,
            3 => Kind::Client,
            _ => return Err("neither SERVER nor CLIENT".to_owned()),
        };
        hold(if kind == Kind::Server { "SERVER" } else { "CLIENT" }, &self.attributes)?;
        self.links.iter().try_for_each(|link| hold("link", &link.attributes))?;
        let path = match kind {
            Kind::Server => text(&self.attributes, "url.path"),
            Kind::Client => text(&self.attributes, "url.full").map(path_of),
        };
        let parent = Some(self.parent_span_id).filter(|id| !id.is_empty());
        if !is_id(&self.trace_id, 32) || !is_id(&self.span_id, 16) || parent.as_ref().is_some_and(|id| !is_id(id, 16)) {
            return Err("an id that is no lower-case hex of its length, or zero".to_owned());
        }
        Ok(Span {
            pid,
            kind,
            path: path.unwrap_or_default().to_owned(),
            host: text(&self.attributes, "server.address").unwrap_or_default().to_owned(),
            method: text(&self.attributes, "http.request.method").unwrap_or_default().to_owned(),
            original: text(&self.attributes, "http.request.method_original").map(str::to_owned),
            status: integer(&self.attributes, "http.response.status_code"),
            failed: self.status.is_some_and(|status| status.code == 2),
            error: text(&self.attributes, "error.type").map(str::to_owned),
            evidence: text(&self.attributes, "spantap.link.method").map(str::to_owned),
            confidence: confidence(&self.attributes),
            candidates: self.links.into_iter().filter_map(Link::candidate).collect(),
            trace: self.trace_id,
            id: self.span_id,
            parent,
            start: number(&self.start_time_unix_nano).ok_or("no start")?,
            end: number(&self.end_time_unix_nano).ok_or("no end")?,
        })
    }
}

impl Link {
    fn candidate(self) -> Option<Candidate> {
        confidence(&self.attributes).map(|confidence| Candidate { span: self.span_id, confidence })
    }
}

/// Whether all of `attributes` may stand at a `kind`, and are of the documented types.
fn hold(kind: &str, attributes: &[KeyValue]) -> Result<(), String> {
    let objection = |KeyValue { key, value }: &KeyValue| {
        let of = match value {
            AnyValue { string_value: Some(_), .. } => "string",
            AnyValue { int_value: Some(_), .. } => "int",
            AnyValue { double_value: Some(_), .. } => "double",
            AnyValue { array_value: Some(_), .. } => "string[]",
            _ => "nothing",
        };
        vocabulary::objection(kind, key, of)
    };
    attributes.iter().find_map(objection).map_or(Ok(()), Err)
}

fn confidence(attributes: &[KeyValue]) -> Option<f64> {
    value(attributes, "spantap.link.confidence")?.double_value
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a AnyValue> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    value(attributes, key)?.string_value.as_deref()
}

fn integer(attributes: &[KeyValue], key: &str) -> Option<u64> {
    number(value(attributes, key)?.int_value.as_ref()?)
}

/// "JSON value will be a decimal string. Either numbers or strings are accepted."
/// (64-bit integers, <https://protobuf.dev/programming-guides/json/>)
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::String(digits) => digits.parse().ok(),
        other => other.as_u64(),
    }
}

/// `scheme://authority/path?query` without all but the path.
fn path_of(url: &str) -> &str {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = after_scheme.find('/').map_or("", |slash| &after_scheme[slash..]);
    path.split(['?', '#']).next().unwrap_or_default()
}

fn is_id(id: &str, length: usize) -> bool {
    id.len() == length
        && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && id.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification has it: hex ids, enums as numbers, 64-bit integers as strings.
    fn line(span: &str) -> String {
        format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"process.pid","value":{{"intValue":"42"}}}}]}},"scopeSpans":[{{"scope":{{"name":"spantap/http"}},"spans":[{span}]}}]}}]}}"#
        )
    }

    const CLIENT: &str = r#"{"traceId":"4bf92f3577b34da6a3ce929d0e0e4736","spanId":"00f067aa0ba902b7","parentSpanId":"","kind":3,
        "startTimeUnixNano":"1700000000000000001","endTimeUnixNano":"1700000000000000009","status":{"code":2},"attributes":[
        {"key":"url.full","value":{"stringValue":"http://127.0.0.1:80/b/x-1?q=/z"}},{"key":"http.request.method","value":{"stringValue":"GET"}},
        {"key":"http.response.status_code","value":{"intValue":"404"}},{"key":"error.type","value":{"stringValue":"404"}}]}"#;

    #[test]
    fn a_client_span_is_read() {
        let expected = Span {
            pid: 42,
            kind: Kind::Client,
            path: "/b/x-1".into(),
            host: String::new(),
            method: "GET".into(),
            original: None,
            status: Some(404),
            failed: true,
            error: Some("404".into()),
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            id: "00f067aa0ba902b7".into(),
            parent: None,
            evidence: None,
            confidence: None,
            candidates: Vec::new(),
            start: 1_700_000_000_000_000_001,
            end: 1_700_000_000_000_000_009,
        };
        assert_eq!(parse(&line(CLIENT)), Ok(vec![expected]));
    }

    #[test]
    fn a_server_span_is_read() {
        let server = CLIENT
            .replace(r#""parentSpanId":"","kind":3"#, r#""parentSpanId":"00f067aa0ba902b8","kind":2"#)
            .replace("url.full", "url.path")
            .replace("http://127.0.0.1:80/b/x-1?q=/z", "/b/x-1")
            .replace("error.type", "spantap.link.method");
        let span = parse(&line(&server)).expect("well-formed").remove(0);
        assert_eq!((span.kind, span.path.as_str()), (Kind::Server, "/b/x-1"));
        assert_eq!((span.parent.as_deref(), span.evidence.as_deref()), (Some("00f067aa0ba902b8"), Some("404")));
    }

    #[test]
    fn confidences_are_read_from_spans_and_their_links() {
        let value = r#"{"key":"spantap.link.confidence","value":{"doubleValue":0.9}}"#;
        let linked = CLIENT.replace(
            r#""attributes":["#,
            &format!(r#""links":[{{"traceId":"t","spanId":"00f067aa0ba902b9","attributes":[{value}]}},{{"spanId":"x"}}],"attributes":[{value},"#),
        );
        let span = parse(&line(&linked)).expect("well-formed").remove(0);
        assert_eq!(span.confidence, Some(0.9));
        assert_eq!(span.candidates, [Candidate { span: "00f067aa0ba902b9".into(), confidence: 0.9 }]);
    }

    #[test]
    fn what_is_no_otlp_is_refused() {
        for (broken, why) in [
            ("{".to_owned(), "cut off"),
            (line(&CLIENT.replace("00f067aa0ba902b7", "00F067AA0BA902B7")), "upper case"),
            (line(&CLIENT.replace("00f067aa0ba902b7", "0000000000000000")), "zero"),
            (line(&CLIENT.replace("00f067aa0ba902b7", "APBnqgupArc=")), "base64"),
            (line(&CLIENT.replace(r#""kind":3"#, r#""kind":1"#)), "internal"),
            (line(CLIENT).replace("process.pid", "process.owner"), "nobody's"),
        ] {
            assert!(parse(&broken).is_err(), "{why}");
        }
    }
}
