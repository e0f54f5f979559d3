// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Spans as anybody tells them, side by side.
//!
//! In: OTLP JSON, from the agent, a collector's file or Jaeger's API, or Zipkin's JSON. Out: the same neutral facts from
//! each, and the first difference in words.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

/// Trace id and span id, in hexadecimal.
pub(super) type Key = (String, String);

/// The spans of somebody.
pub(super) type Spans = BTreeMap<Key, Seen>;

/// What is told of a span.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Seen {
    /// Every fact as text: `name`, `kind`, `parent`, `start`, `end`, `status`, `state`, `flags`, attributes, `resource.*`.
    facts: BTreeMap<String, String>,
}

impl Seen {
    /// The span failed.
    pub(super) fn failed(&self) -> bool {
        self.facts.get("status").is_some_and(|status| status == "2")
    }

    /// When it began, in nanoseconds.
    pub(super) fn start(&self) -> u64 {
        self.number("start")
    }

    /// When it ended.
    pub(super) fn end(&self) -> u64 {
        self.number("end")
    }

    /// A fact by its key, or nothing.
    pub(super) fn fact(&self, key: &str) -> &str {
        self.facts.get(key).map_or("", String::as_str)
    }

    fn number(&self, fact: &str) -> u64 {
        self.facts.get(fact).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// The first fact that is different.
    pub(super) fn difference(&self, other: &Self) -> String {
        let keys = self.facts.keys().chain(other.facts.keys());
        let different = keys.into_iter().find(|key| self.facts.get(*key) != other.facts.get(*key));
        let shown = |seen: &Self, key: &str| seen.facts.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
        different.map_or_else(String::new, |key| format!("{key}: {} / {}", shown(self, key), shown(other, key)))
    }

    /// What Zipkin has a place for: names in lower case, microseconds, no state and no flags.
    pub(super) fn as_zipkin_has_it(&self) -> Self {
        let (start, end) = (self.number("start"), self.number("end"));
        let mut facts = BTreeMap::new();
        for (key, value) in &self.facts {
            let (key, value) = match key.as_str() {
                "name" => (key.clone(), value.to_lowercase()),
                "resource.service.name" => ("service.name".to_owned(), value.to_lowercase()),
                "kind" => (key.clone(), if value == "3" { "CLIENT" } else { "SERVER" }.to_owned()),
                "start" => (key.clone(), (start / 1_000).to_string()),
                "end" => ("duration".to_owned(), (end - start).div_ceil(1_000).max(1).to_string()),
                "status" if value == "2" => ("otel.status_code".to_owned(), "ERROR".to_owned()),
                "status" | "state" | "flags" | "scope.schema" => continue,
                "scope" => ("otel.scope.name".to_owned(), value.clone()),
                "scope.version" => ("otel.scope.version".to_owned(), value.clone()),
                resource if resource.starts_with("resource.") => {
                    (resource.trim_start_matches("resource.").to_owned(), value.clone())
                }
                _ => (key.clone(), value.clone()),
            };
            facts.insert(key, value);
        }
        Self { facts }
    }
}

/// What is printed, as it is exported: the sampler, which stands between the two, keeps everything by default and says so
/// with a threshold of 0 (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>) where the
/// trace begins here. Of one that came with a header nobody knows the probability.
pub(super) fn as_exported(mut printed: Spans) -> Spans {
    let is_known = |(trace, span): &Key, spans: &Spans| spans.contains_key(&(trace.clone(), span.clone()));
    let is_remote = |((trace, _), seen): (&Key, &Seen)| {
        let parent = seen.facts.get("parent")?;
        (!is_known(&(trace.clone(), parent.clone()), &printed)).then(|| trace.clone())
    };
    let remote: BTreeSet<String> = printed.iter().filter_map(is_remote).collect();
    for ((trace, _), seen) in &mut printed {
        if !remote.contains(trace) {
            seen.facts.entry("state".to_owned()).or_insert_with(|| "ot=th:0".to_owned());
        }
    }
    printed
}

/// The spans of a message of OTLP in JSON.
pub(super) fn otlp(message: &Value) -> Spans {
    let mut all = BTreeMap::new();
    for resource in list(&message["resourceSpans"]) {
        for scope in list(&resource["scopeSpans"]) {
            for span in list(&scope["spans"]) {
                let mut facts = BTreeMap::new();
                let mut fact = |key: &str, value: String| {
                    if !value.is_empty() {
                        facts.insert(key.to_owned(), value);
                    }
                };
                for (key, field) in [
                    ("name", "name"),
                    ("kind", "kind"),
                    ("parent", "parentSpanId"),
                    ("start", "startTimeUnixNano"),
                    ("end", "endTimeUnixNano"),
                    ("state", "traceState"),
                ] {
                    fact(key, text(&span[field]));
                }
                // Jaeger's model has no flags; what they say is compared elsewhere.
                fact("status", text(&span["status"]["code"]).replace('0', ""));
                fact("scope", text(&scope["scope"]["name"]));
                fact("scope.version", text(&scope["scope"]["version"]));
                // Jaeger writes remarks of its own beside them, such as that it does not have a parent.
                let own = |attribute: &&Value| !text(&attribute["key"]).starts_with("@jaeger@");
                for attribute in list(&span["attributes"]).iter().filter(own) {
                    fact(&text(&attribute["key"]), any(&attribute["value"]));
                }
                for attribute in list(&resource["resource"]["attributes"]) {
                    fact(&format!("resource.{}", text(&attribute["key"])), any(&attribute["value"]));
                }
                all.insert((text(&span["traceId"]), text(&span["spanId"])), Seen { facts });
            }
        }
    }
    all
}

/// The spans of a list of Zipkin's traces.
pub(super) fn zipkin(traces: &Value) -> Spans {
    let mut all = BTreeMap::new();
    for span in list(traces).iter().flat_map(list) {
        let mut facts = BTreeMap::new();
        for (key, field) in [
            ("name", "name"),
            ("kind", "kind"),
            ("parent", "parentId"),
            ("start", "timestamp"),
            ("duration", "duration"),
        ] {
            let value = text(&span[field]);
            if !value.is_empty() {
                facts.insert(key.to_owned(), value);
            }
        }
        facts.insert("service.name".to_owned(), text(&span["localEndpoint"]["serviceName"]));
        for (key, value) in span["tags"].as_object().into_iter().flatten().filter(|(key, _)| *key != "error") {
            facts.insert(key.clone(), text(value));
        }
        all.insert((text(&span["traceId"]), text(&span["id"])), Seen { facts });
    }
    all
}

/// Whether both tell the same.
pub(super) fn same(own: &Spans, other: &Spans) -> Result<()> {
    for (key, seen) in own {
        match other.get(key) {
            None => bail!("span {key:?} is missing"),
            Some(other) if other != seen => bail!("span {key:?} differs: {}", seen.difference(other)),
            Some(_) => {}
        }
    }
    match other.keys().find(|key| !own.contains_key(*key)) {
        Some(key) => bail!("span {key:?} was never sent"),
        None => Ok(()),
    }
}

/// The items of a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text, or a number as one: 64-bit integers are texts in protobuf's JSON, and may be numbers.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// An `AnyValue`.
fn any(value: &Value) -> String {
    let Some((kind, held)) = value.as_object().and_then(|fields| fields.iter().next()) else { return String::new() };
    if kind == "arrayValue" {
        let texts: Vec<_> = list(&held["values"]).iter().map(any).collect();
        return Value::from(texts).to_string();
    }
    text(held)
}
