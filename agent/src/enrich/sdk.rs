// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a process exports spans of its own.
//!
//! In: the spans of its calls. Out: the one that is an export. It knows OTLP over HTTP/1 alone: what goes over gRPC or TLS
//! is not seen here, and `targets/sdk.rs` recognises the SDK itself.

use opentelemetry_semantic_conventions::attribute::URL_FULL;

use crate::{
    attribute::Value,
    trace::{Span, SpanKind},
};

/// Whether the call hands spans to a collector.
pub(crate) fn is_export(span: &Span) -> bool {
    // A client's name is its method.
    if span.kind != SpanKind::Client || &*span.name != "POST" {
        return false;
    }
    let url = span.attributes.iter().find(|attribute| attribute.key == URL_FULL).and_then(|url| match &url.value {
        Value::Text(url) => Some(url.as_str()),
        _ => None,
    });
    url.is_some_and(|url| url.split(['?', '#']).next().is_some_and(|url| url.ends_with(TRACES)))
}

/// "The default URL path for requests that carry trace data is `/v1/traces`", below whatever base an operator names
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-request>).
const TRACES: &str = "/v1/traces";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::Attribute;

    #[test]
    fn a_call_that_hands_over_spans_is_known_by_its_path() {
        for (kind, name, url, expected) in [
            (SpanKind::Client, "POST", "http://collector:4318/v1/traces", true),
            (SpanKind::Client, "POST", "http://collector/otlp/v1/traces?tenant=7", true),
            (SpanKind::Client, "POST", "http://collector:4318/v1/metrics", false),
            (SpanKind::Client, "POST", "http://shop/v1/traces/9", false),
            (SpanKind::Client, "GET", "http://shop/v1/traces", false),
            (SpanKind::Client, "POST", "http://shop/?next=/v1/traces", false),
            (SpanKind::Server, "POST", "http://collector:4318/v1/traces", false),
        ] {
            let attributes = vec![Attribute::new(URL_FULL, url.to_owned())];
            let span = Span { kind, name: name.into(), attributes, ..Span::blank() };
            assert_eq!(is_export(&span), expected, "{kind:?} {name} {url}");
        }
    }
}
