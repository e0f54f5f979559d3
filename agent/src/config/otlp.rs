// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The OTLP exporter's settings, by the specification's rules.
//!
//! In: `--otlp` and the variables `OTEL_EXPORTER_OTLP_*`, `OTEL_TRACES_EXPORTER`, `OTEL_SDK_DISABLED`. Out:
//! [`Destination`], or none when no endpoint is configured, or the mistake that keeps an endpoint from being one. It opens no
//! connection, and no warning repeats a header's value: it may be a secret.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;

use super::{Destination, Mistake, Protocol, Tls, environment::Variables};
use crate::export::{Limits, SpanLimits};

/// The settings; `given` is the endpoint from the command line or its twin, with the name it came by.
pub(super) fn settings(
    given: Option<(&'static str, String)>,
    variables: &mut Variables<'_>,
) -> Result<Option<Destination>, Mistake> {
    warn_of_unsupported(variables);
    let exporters = exporters(variables);
    let endpoint = match given {
        Some((name, text)) => Some(Endpoint { name, text, form: Form::Friendly }),
        None if exporters.otlp == Some(false) => None,
        None => from_variables(variables).or_else(|| exporters.otlp.map(|_| Endpoint::default())),
    };
    let Some(endpoint) = endpoint else { return Ok(None) };
    if variables.boolean("OTEL_SDK_DISABLED") {
        variables.warn(format!("OTEL_SDK_DISABLED=true: nothing is exported, although {} is set", endpoint.name));
        return Ok(None);
    }
    let protocol = protocol(&endpoint, variables);
    let path = |variables: &mut Variables<'_>, suffix| {
        per_signal(variables, suffix, |variables, name| variables.text(name)).map(PathBuf::from)
    };
    Ok(Some(Destination {
        headers: per_signal(variables, "HEADERS", headers).unwrap_or_default(),
        timeout: timeout(per_signal(variables, "TIMEOUT", Variables::milliseconds), variables),
        gzip: per_signal(variables, "COMPRESSION", |variables, name| {
            variables.choice(name, &[("gzip", true), ("none", false)])
        })
        .unwrap_or(false),
        tls: Tls {
            certificate: path(variables, "CERTIFICATE"),
            client_certificate: path(variables, "CLIENT_CERTIFICATE"),
            client_key: path(variables, "CLIENT_KEY"),
        },
        ..Destination::new(url(&endpoint, protocol, variables)?, protocol)
    }))
}

/// `OTEL_TRACES_EXPORTER=zipkin`, with its variables
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#zipkin-exporter>).
pub(super) fn zipkin(variables: &mut Variables<'_>) -> Result<Option<Destination>, Mistake> {
    if !exporters(variables).zipkin || disabled(variables) {
        return Ok(None);
    }
    let text = variables.text(ZIPKIN_ENDPOINT).unwrap_or_else(|| "http://localhost:9411/api/v2/spans".to_owned());
    let mistake = |why: &str| Mistake {
        what: format!("{ZIPKIN_ENDPOINT} {why}"),
        fix: "give the whole URL: http://localhost:9411/api/v2/spans".to_owned(),
    };
    let url = Url::parse(&text).map_err(|error| mistake(&format!("is not a URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(mistake("is neither http:// nor https://"));
    }
    let own = variables.milliseconds("OTEL_EXPORTER_ZIPKIN_TIMEOUT");
    Ok(Some(Destination { timeout: timeout(own, variables), ..Destination::new(url, Protocol::Zipkin) }))
}

/// Whether `OTEL_SDK_DISABLED` wants nothing to leave.
pub(super) fn disabled(variables: &mut Variables<'_>) -> bool {
    variables.boolean("OTEL_SDK_DISABLED")
}

/// The batch processor's and the spans' limits
/// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor>,
/// [attribute-limits](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#attribute-limits)).
pub(super) fn limits(variables: &mut Variables<'_>) -> Limits {
    let usual = Limits::default();
    let queue_spans = variables.count("OTEL_BSP_MAX_QUEUE_SIZE", 1).unwrap_or(usual.queue_spans);
    let mut batch_spans = variables.count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 1).unwrap_or(usual.batch_spans);
    if batch_spans > queue_spans {
        // "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: Must be less than or equal to OTEL_BSP_MAX_QUEUE_SIZE".
        variables.warn(format!(
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE={batch_spans} is more than the queue holds; batches have {queue_spans} spans"
        ));
        batch_spans = queue_spans;
    }
    let mut either =
        |specific: &str, general: &str| variables.count(specific, 0).or_else(|| variables.count(general, 0));
    let attributes = either("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT");
    let characters = either("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT");
    let link_attributes = either("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT");
    let span = SpanLimits {
        attributes: attributes.unwrap_or(usual.span.attributes),
        characters: characters.unwrap_or(usual.span.characters),
        links: variables.count("OTEL_SPAN_LINK_COUNT_LIMIT", 0).unwrap_or(usual.span.links),
        link_attributes: link_attributes.unwrap_or(usual.span.link_attributes),
    };
    let delay = variables.milliseconds("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(usual.delay);
    Limits { queue_spans, batch_spans, delay, span, ..usual }
}

/// The bound on one request with its retries: an exporter's own, within the batch processor's.
fn timeout(own: Option<Duration>, variables: &mut Variables<'_>) -> Duration {
    let own = own.unwrap_or(DEFAULT_TIMEOUT);
    variables.milliseconds("OTEL_BSP_EXPORT_TIMEOUT").map_or(own, |most| own.min(most))
}

/// What `OTEL_TRACES_EXPORTER` asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Exporters {
    /// Whether the list has `otlp`; none without a list.
    otlp: Option<bool>,
    console: bool,
    json_lines: bool,
    zipkin: bool,
}

impl Exporters {
    /// Whether nobody is to get spans.
    pub(super) fn silent(self) -> bool {
        self.otlp == Some(false) && !self.console && !self.json_lines && !self.zipkin
    }

    /// Whether spans are to be printed as lines of OTLP JSON.
    pub(super) fn json_lines(self) -> bool {
        self.json_lines
    }

    /// Whether traces are to be printed.
    pub(super) fn console(self) -> bool {
        self.console
    }
}

/// Reads `OTEL_TRACES_EXPORTER`: "a comma-separated list enables setting multiple exporters".
pub(super) fn exporters(variables: &mut Variables<'_>) -> Exporters {
    const NAME: &str = "OTEL_TRACES_EXPORTER";
    let mut exporters = Exporters::default();
    for exporter in variables.text(NAME).unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match exporter.to_ascii_lowercase().as_str() {
            "otlp" => exporters.otlp = Some(true),
            "console" => exporters.console = true,
            // <https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/>
            "otlp/stdout" => exporters.json_lines = true,
            "zipkin" => exporters.zipkin = true,
            "none" => {}
            _ => {
                variables.warn(format!(
                    "{NAME}={} is none of otlp, otlp/stdout, console, zipkin, none and was ignored",
                    exporter.escape_debug()
                ));
                continue;
            }
        }
        exporters.otlp = exporters.otlp.or(Some(false));
    }
    exporters
}

/// `url` without user name, password and query: the parts that hold credentials.
pub(super) fn without_credentials(url: &str) -> String {
    match Url::parse(url) {
        Ok(parsed) if parsed.username().is_empty() && parsed.password().is_none() && parsed.query().is_none() => {
            url.to_owned()
        }
        Ok(mut parsed) => {
            // Refused only for URLs that have no host, and those are no endpoints.
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.into()
        }
        Err(_) => "(not a URL)".to_owned(),
    }
}

/// An endpoint as it was written.
struct Endpoint {
    name: &'static str,
    text: String,
    form: Form,
}

impl Default for Endpoint {
    /// `OTEL_TRACES_EXPORTER=otlp` without an endpoint asks for the specification's default.
    fn default() -> Self {
        Self { name: "OTEL_TRACES_EXPORTER", text: String::new(), form: Form::Base }
    }
}

/// How the URL that spans are sent to follows from the endpoint.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Form {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: a base URL for every signal.
    Base,
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`: as is.
    Whole,
    /// `--otlp`: a base URL; one that has the signal's path already is as welcome.
    Friendly,
}

fn from_variables(variables: &Variables<'_>) -> Option<Endpoint> {
    [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Form::Whole), ("OTEL_EXPORTER_OTLP_ENDPOINT", Form::Base)]
        .into_iter()
        .find_map(|(name, form)| variables.text(name).map(|text| Endpoint { name, text, form }))
}

fn protocol(endpoint: &Endpoint, variables: &mut Variables<'_>) -> Protocol {
    let configured = per_signal(variables, "PROTOCOL", |variables, name| {
        let protocols = [Protocol::Grpc, Protocol::HttpProtobuf, Protocol::HttpJson];
        variables.choice(name, &protocols.map(|protocol| (protocol.name(), protocol)))
    });
    if let Some(protocol) = configured {
        return protocol;
    }
    if Url::parse(&endpoint.text).ok().and_then(|url| url.port()) == Some(GRPC_PORT) {
        if endpoint.form == Form::Friendly {
            return Protocol::Grpc;
        }
        // "Default: http/protobuf": obeyed, although 4317 is where collectors speak gRPC.
        variables.warn(format!(
            "{} has port 4317, where collectors speak gRPC, but the default protocol is http/protobuf; \
             set OTEL_EXPORTER_OTLP_PROTOCOL=grpc or use port 4318",
            endpoint.name
        ));
    }
    Protocol::HttpProtobuf
}

fn url(endpoint: &Endpoint, protocol: Protocol, variables: &mut Variables<'_>) -> Result<String, Mistake> {
    let mut text = endpoint.text.clone();
    if text.is_empty() {
        text = match protocol {
            Protocol::Grpc => "http://localhost:4317".to_owned(),
            _ => "http://localhost:4318".to_owned(),
        };
    }
    if protocol == Protocol::Grpc && !text.contains("://") {
        // "OTEL_EXPORTER_OTLP_INSECURE: Whether to enable client transport security for the exporter's gRPC connection.
        // This option only applies to OTLP/gRPC when an endpoint is provided without the http or https scheme".
        let insecure = ["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"]
            .into_iter()
            .find(|name| variables.text(name).is_some())
            .is_some_and(|name| variables.boolean(name));
        text = format!("{}://{text}", if insecure { "http" } else { "https" });
    }
    let mistake = |why: &str| Mistake {
        what: format!("{} {why}", endpoint.name),
        fix: "give scheme, host and port: http://localhost:4318, or http://localhost:4317 for grpc".to_owned(),
    };
    if !text.contains("://") {
        return Err(mistake("has no http:// or https:// in front"));
    }
    let url = Url::parse(&text).map_err(|error| mistake(&format!("is not a URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(mistake("is neither http:// nor https://"));
    }
    Ok(match (protocol, endpoint.form) {
        // "Endpoint MUST be […] accepting an URL with a scheme of http or https" and no path has a meaning for gRPC.
        (Protocol::Grpc, _) => text,
        // "the only exception is that if an URL contains no path part, the root path / MUST be used".
        (_, Form::Whole) => url.into(),
        (_, Form::Friendly) if url.path().ends_with(TRACES_PATH) => url.into(),
        (_, Form::Base | Form::Friendly) => signal_url(url),
    })
}

/// "if the endpoint is http://collector:4318/mycollector/, traces are sent to
/// http://collector:4318/mycollector/v1/traces".
fn signal_url(mut base: Url) -> String {
    let path = format!("{}{TRACES_PATH}", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base.into()
}

/// `OTEL_EXPORTER_OTLP_TRACES_<suffix>` when it is set to something that can be understood, else the general form.
fn per_signal<'a, T>(
    variables: &mut Variables<'a>,
    suffix: &str,
    read: impl Fn(&mut Variables<'a>, &str) -> Option<T>,
) -> Option<T> {
    read(variables, &format!("OTEL_EXPORTER_OTLP_TRACES_{suffix}"))
        .or_else(|| read(variables, &format!("OTEL_EXPORTER_OTLP_{suffix}")))
}

/// "the W3C Baggage HTTP header format, except that additional semi-colon delimited metadata is not supported, i.e.:
/// key1=value1,key2=value2. All attribute values MUST be considered strings."
fn headers(variables: &mut Variables<'_>, name: &str) -> Option<Vec<(String, String)>> {
    let text = variables.text(name)?;
    let mut headers = Vec::new();
    for (index, pair) in text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty()) {
        match header(pair) {
            Some(header) => headers.push(header),
            None => variables.warn(format!("{name}: entry {} is not name=value and was ignored", index + 1)),
        }
    }
    Some(headers)
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

/// Settings of the specification that change what an exporter does, and that are not obeyed here: said, not ignored in
/// silence.
fn warn_of_unsupported(variables: &mut Variables<'_>) {
    const UNSUPPORTED: &[(&str, &str)] = &[
        ("OTEL_CONFIG_FILE", "flags and variables are the whole configuration"),
        ("OTEL_SERVICE_NAME", "services are named after their own environment, unit, script or executable"),
    ];
    for (name, instead) in UNSUPPORTED {
        if variables.text(name).is_some() {
            variables.warn(format!("{name} has no effect here: {instead}"));
        }
    }
}

/// The signal's path in OTLP/HTTP.
const TRACES_PATH: &str = "/v1/traces";

/// Where collectors speak gRPC.
const GRPC_PORT: u16 = 4317;

/// The specification's default.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

const ZIPKIN_ENDPOINT: &str = "OTEL_EXPORTER_ZIPKIN_ENDPOINT";
