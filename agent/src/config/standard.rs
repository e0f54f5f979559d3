// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The variables that OpenTelemetry defines, as settings.
//!
//! In: the environment. Out: the layer that they make. What cannot be understood is a warning and counts as unset, as
//! the specification wants it; no warning repeats a header's value: it may be a secret.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>

use super::{
    environment::Variables,
    layers::{Layers, Node, Origin, Value},
    otlp::EXPORTERS,
};
use crate::enrich::process::declared;

/// Lays the standard variables over what there is.
pub(super) fn lay(variables: &mut Variables<'_>, layers: &mut Layers) {
    for (name, instead) in WITHOUT_EFFECT {
        if variables.text(name).is_some() {
            variables.warn(format!("{name} has no effect here: {instead}"));
        }
    }
    if variables.text("OTEL_LOGS_EXPORTER").is_some_and(|name| !name.eq_ignore_ascii_case("none")) {
        variables.warn("OTEL_LOGS_EXPORTER has no effect here: there are no logs".to_owned());
    }
    for (name, path, kind) in TABLE {
        put(variables, layers, name, path, *kind);
    }
    for (signal, below) in [("", ""), ("TRACES_", "traces."), ("METRICS_", "metrics.")] {
        for (suffix, key, kind) in OTLP {
            let (name, path) = (format!("OTEL_EXPORTER_OTLP_{signal}{suffix}"), format!("export.otlp.{below}{key}"));
            put(variables, layers, &name, &path, *kind);
        }
    }
}

/// How a variable is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Truth,
    Milliseconds,
    /// A number from this one on.
    Count(u32),
    Choice(&'static [(&'static str, &'static str)]),
    /// Those of the choices that a list names.
    Choices(&'static [(&'static str, &'static str)]),
    /// Texts between commas.
    List,
    Headers,
    Attributes,
}

fn put(variables: &mut Variables<'_>, layers: &mut Layers, name: &str, path: &str, kind: Kind) {
    let origin = Origin::Standard(name.to_owned());
    let text = |text: String| Node::text(origin.clone(), text);
    let pairs = |pairs: Vec<(String, String)>| {
        let keys = pairs.into_iter().map(|(key, value)| (key, Node::text(origin.clone(), value))).collect();
        Node { origin: origin.clone(), value: Value::Keys(keys) }
    };
    let node = match kind {
        Kind::Text => variables.text(name).map(text),
        Kind::Truth => variables.text(name).is_some().then(|| text(variables.boolean(name).to_string())),
        Kind::Milliseconds => variables.milliseconds(name).map(|time| text(format!("{}ms", time.as_millis()))),
        Kind::Count(least) => variables.count(name, least).map(|count| text(count.to_string())),
        Kind::Choice(choices) => variables.choice(name, choices).map(|choice| text(choice.to_owned())),
        Kind::Choices(choices) => variables.choices(name, choices).map(|chosen| Node::list(&origin, chosen)),
        Kind::List => variables.text(name).map(|list| Node::list(&origin, [list.as_str()])),
        Kind::Headers => headers(variables, name).map(pairs),
        Kind::Attributes => attributes(variables, name).map(pairs),
    };
    if let Some(node) = node {
        layers.put(path, node);
    }
}

/// The variables with one meaning. A later one wins over an earlier one.
const TABLE: &[(&str, &str, Kind)] = &[
    ("OTEL_SDK_DISABLED", "disabled", Kind::Truth),
    ("OTEL_LOG_LEVEL", "log", Kind::Choice(LOG_LEVELS)),
    ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "capture.server.known_methods", Kind::List),
    ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "capture.client.known_methods", Kind::List),
    ("OTEL_RESOURCE_ATTRIBUTES", "resource", Kind::Attributes),
    ("OTEL_TRACES_EXPORTER", "export.traces", Kind::Choices(EXPORTERS)),
    ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "export.zipkin.endpoint", Kind::Text),
    ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "export.zipkin.timeout", Kind::Milliseconds),
    ("OTEL_BSP_SCHEDULE_DELAY", "export.batch.delay", Kind::Milliseconds),
    ("OTEL_BSP_EXPORT_TIMEOUT", "export.batch.timeout", Kind::Milliseconds),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "export.batch.queue", Kind::Count(1)),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "export.batch.spans", Kind::Count(1)),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "export.limits.attributes", Kind::Count(0)),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "export.limits.attributes", Kind::Count(0)),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "export.limits.characters", Kind::Count(0)),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "export.limits.characters", Kind::Count(0)),
    ("OTEL_SPAN_LINK_COUNT_LIMIT", "export.limits.links", Kind::Count(0)),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", "export.limits.link_attributes", Kind::Count(0)),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "export.limits.link_attributes", Kind::Count(0)),
];

/// The suffixes of `OTEL_EXPORTER_OTLP_`, and of its forms for one signal.
const OTLP: &[(&str, &str, Kind)] = &[
    ("ENDPOINT", "endpoint", Kind::Text),
    (
        "PROTOCOL",
        "protocol",
        Kind::Choice(&[("grpc", "grpc"), ("http/protobuf", "http/protobuf"), ("http/json", "http/json")]),
    ),
    ("HEADERS", "headers", Kind::Headers),
    ("TIMEOUT", "timeout", Kind::Milliseconds),
    ("COMPRESSION", "compression", Kind::Choice(&[("gzip", "gzip"), ("none", "none")])),
    ("INSECURE", "insecure", Kind::Truth),
    ("CERTIFICATE", "certificate", Kind::Text),
    ("CLIENT_CERTIFICATE", "client_certificate", Kind::Text),
    ("CLIENT_KEY", "client_key", Kind::Text),
];

/// Settings of the specification that are not obeyed here: said, not ignored in silence.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("OTEL_SERVICE_NAME", "services are named after their own environment, unit, script or executable"),
    ("OTEL_ENTITIES", "resources are made of what each process shows; OTEL_RESOURCE_ATTRIBUTES adds to them"),
    ("OTEL_PROPAGATORS", "every format is read, and none is written"),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", "its name is OTEL_CONFIG_FILE now"),
];

/// "Log level used by the SDK internal logger", in the words that SDKs have for levels, and ours.
const LOG_LEVELS: &[(&str, &str)] = &[
    ("none", "off"),
    ("error", "error"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("verbose", "trace"),
    ("trace", "trace"),
    ("all", "trace"),
];

/// "the W3C Baggage HTTP header format, except that additional semi-colon delimited metadata is not supported, i.e.:
/// key1=value1,key2=value2. All attribute values MUST be considered strings."
fn headers(variables: &mut Variables<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let (headers, bad) = headers_of(&variables.text(name)?);
    for entry in bad {
        variables.warn(format!("{name}: entry {entry} is not name=value and was ignored"));
    }
    Some(headers)
}

/// The headers of such a list, and which entries are none, counted from 1.
pub(super) fn headers_of(text: &str) -> (Vec<(String, String)>, Vec<usize>) {
    let (mut headers, mut bad) = (Vec::new(), Vec::new());
    for (index, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        match header(pair) {
            Some(header) => headers.push(header),
            None => bad.push(index + 1),
        }
    }
    (headers, bad)
}

/// `key=value` pairs with percent-encoded values, if the text is such a list.
pub(super) fn attributes_of(text: &str) -> Option<Vec<(String, String)>> {
    declared::parse(text)
}

fn header(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    let name = name.trim();
    // RFC 9110 5.6.2: a field name is a token.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return None;
    }
    let value = percent_decoded(value.trim())?;
    // RFC 9110 5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
    value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)).then(|| (name.to_ascii_lowercase(), value))
}

/// Nothing when a `%` is not followed by two hexadecimal digits, or what comes out is no UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high << 4 | low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

/// "In case of any error, e.g. failure during the decoding process, the entire environment variable value SHOULD be
/// discarded and an error SHOULD be reported"
/// (<https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable>).
fn attributes(variables: &mut Variables<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let parsed = attributes_of(&variables.text(name)?);
    if parsed.is_none() {
        variables.warn(format!("{name} is not a list of key=value with percent-encoded values and was ignored"));
    }
    parsed
}
