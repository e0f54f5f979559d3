// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where spans are sent, by the specification's rules.
//!
//! In: the settings, and in which layers they were written. Out: [`Destination`]s, none when no endpoint is configured,
//! or the mistake that keeps an endpoint from being one. It opens no connection.

use std::time::Duration;

use reqwest::Url;

use super::{
    Destination, Mistake, Protocol, Tls,
    layers::{Layers, Origin},
    leaf::{self, Address, Exporter, Flag, Speech},
    tree::{More, Otlp, Settings, Signal, Spool},
};
use crate::export::{Limits, SpanLimits};

/// What `export.traces` may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// OTLP to an endpoint.
    Otlp,
    /// Lines of OTLP JSON (<https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/>).
    JsonLines,
    /// Traces for people.
    Console,
    /// Zipkin's API.
    Zipkin,
    /// Nothing.
    None,
}

/// The names of exporters, as variables have them and as files do.
pub(super) const EXPORTERS: &[(&str, &str)] =
    &[("otlp", "otlp"), ("otlp/stdout", "otlp/stdout"), ("console", "console"), ("zipkin", "zipkin"), ("none", "none")];

/// The exporters by their names.
pub(super) const KINDS: &[(&str, Kind)] = &[
    ("otlp", Kind::Otlp),
    ("otlp/stdout", Kind::JsonLines),
    ("console", Kind::Console),
    ("zipkin", Kind::Zipkin),
    ("none", Kind::None),
];

/// Whether `export.traces` names `kind`.
pub(super) fn names(settings: &Settings, kind: Kind) -> bool {
    settings.export.traces.iter().any(|Exporter(named)| *named == kind)
}

/// Every destination there is; mistakes and warnings are told to whom they concern.
pub(super) fn destinations(settings: &Settings, layers: &mut Layers, warnings: &mut Vec<String>) -> Vec<Destination> {
    let (mut destinations, mut mistakes) = (Vec::new(), Vec::new());
    let mut take = |path: &str, made: Result<Option<Destination>, Mistake>| match made {
        Ok(destination) => destinations.extend(destination),
        Err(mistake) => mistakes.push((layers.origin(path), mistake)),
    };
    let path = endpoint(settings, layers).map(|endpoint| endpoint.path).unwrap_or_default();
    take(&path, collector(settings, layers, warnings));
    take("export.zipkin.endpoint", zipkin(settings, layers));
    for (index, more) in settings.export.destinations.iter().enumerate() {
        take(&format!("export.destinations[{index}]"), another(more, index, layers).map(Some));
    }
    mistakes.into_iter().for_each(|(origin, mistake)| layers.mistaken(origin, mistake));
    let Spool { path, size } = &settings.export.spool;
    for destination in &mut destinations {
        let folder = path.as_ref().map(|path| path.0.clone());
        destination.spool = folder.map(|folder| super::Spool { folder, most_bytes: size.0 });
    }
    for (index, destination) in destinations.iter().enumerate() {
        if destinations[..index].iter().any(|other| other.name == destination.name) {
            let origin = layers.origin(&format!("export.destinations[{index}]"));
            let what = format!("has two destinations called {}", destination.name);
            let mistake = origin.mistake("export.destinations", &what, "give each a name of its own".to_owned());
            layers.mistaken(origin, mistake);
        }
    }
    if !destinations.is_empty() && settings.disabled == Some(Flag(true)) {
        let why = match layers.origin("disabled") {
            Origin::Standard(name) | Origin::Variable(name) => format!("{name}=true"),
            origin => format!("disabled: true ({origin})"),
        };
        let endpoints: Vec<_> = destinations.iter().map(Destination::endpoint_shown).collect();
        warnings.push(format!("{why}: nothing is exported, although {} is set", endpoints.join(" and ")));
        destinations.clear();
    }
    destinations
}

/// The one of `otlp` and `export.otlp`.
fn collector(settings: &Settings, layers: &Layers, warnings: &mut Vec<String>) -> Result<Option<Destination>, Mistake> {
    let Some(endpoint) = endpoint(settings, layers) else { return Ok(None) };
    let otlp = &settings.export.otlp;
    let collector = of_signal(&endpoint, TRACES_PATH, &otlp.traces, otlp, warnings)?;
    let timeout =
        settings.export.batch.timeout.as_ref().map_or(collector.timeout, |most| collector.timeout.min(most.0));
    Ok(Some(Destination { timeout, ..collector }))
}

/// Who gets metrics: the collector of `export.otlp`, as far as `export.otlp.metrics` says nothing else, and the more
/// collectors of `spans`. Without any endpoint it is the specification's default, if metrics are asked for.
pub(super) fn of_metrics(
    settings: &Settings,
    spans: &[Destination],
    layers: &mut Layers,
    warnings: &mut Vec<String>,
) -> Vec<Destination> {
    let otlp = &settings.export.otlp;
    let own = highest(
        layers,
        [
            ("otlp", &settings.otlp, Form::Friendly),
            ("export.otlp.metrics.endpoint", &otlp.metrics.endpoint, Form::Whole),
            ("export.otlp.endpoint", &otlp.endpoint, Form::Friendly),
        ],
    );
    let more = settings.export.destinations.iter().map(|more| more.name.0.as_str());
    let more: Vec<_> = more.filter_map(|name| spans.iter().find(|known| known.name == name)?.for_metrics()).collect();
    // An endpoint of traces alone says where that collector is: its metrics go there too, as they always have.
    let beside = spans.iter().find(|known| known.name == super::OTLP).and_then(Destination::for_metrics);
    let asked = settings.metrics.otlp && more.is_empty() && beside.is_none();
    let usual = || {
        let path = "metrics.otlp";
        Endpoint { path: path.to_owned(), origin: layers.origin(path), text: String::new(), form: Form::Base }
    };
    let collector = match own.or_else(|| asked.then(usual)) {
        Some(_) if settings.disabled == Some(Flag(true)) => None,
        Some(endpoint) => {
            // What is said of the endpoint of traces is said once.
            let mut told = Vec::new();
            let made = of_signal(&endpoint, METRICS_PATH, &otlp.metrics, otlp, &mut told);
            warnings.extend(told.into_iter().filter(|_| endpoint.form == Form::Whole));
            match made {
                Ok(collector) => Some(collector),
                Err(_) if endpoint.form != Form::Whole && beside.is_none() && !settings.metrics.otlp => None,
                Err(mistake) => {
                    layers.mistaken(endpoint.origin, mistake);
                    None
                }
            }
        }
        None => beside,
    };
    collector.into_iter().chain(more).collect()
}

/// The collector at `endpoint` for one signal: `own` says what is different from `all`.
fn of_signal(
    endpoint: &Endpoint,
    path: &str,
    own: &Signal,
    all: &Otlp,
    warnings: &mut Vec<String>,
) -> Result<Destination, Mistake> {
    let protocol = own.protocol.as_ref().or(all.protocol.as_ref()).map(|Speech(protocol)| *protocol);
    let protocol = protocol.unwrap_or_else(|| usual_protocol(endpoint, warnings));
    let insecure = own.insecure.as_ref().or(all.insecure.as_ref()) == Some(&Flag(true));
    let headers = own.headers.as_ref().or(all.headers.as_ref());
    let file =
        |one: &Option<leaf::File>, other: &Option<leaf::File>| one.as_ref().or(other.as_ref()).map(|f| f.0.clone());
    Ok(Destination {
        headers: headers.map(pairs).unwrap_or_default(),
        timeout: own.timeout.as_ref().or(all.timeout.as_ref()).map_or(DEFAULT_TIMEOUT, |time| time.0),
        gzip: own.compression.as_ref().or(all.compression.as_ref()).is_some_and(|gzip| gzip.0),
        tls: Tls {
            certificate: file(&own.certificate, &all.certificate),
            client_certificate: file(&own.client_certificate, &all.client_certificate),
            client_key: file(&own.client_key, &all.client_key),
        },
        ..Destination::new(url(endpoint, path, protocol, insecure)?, protocol)
    })
}

/// `export.zipkin`, where `export.traces` asks for it.
fn zipkin(settings: &Settings, layers: &Layers) -> Result<Option<Destination>, Mistake> {
    if !names(settings, Kind::Zipkin) {
        return Ok(None);
    }
    const PATH: &str = "export.zipkin.endpoint";
    let usual = || "http://localhost:9411/api/v2/spans".to_owned();
    let text = settings.export.zipkin.endpoint.as_ref().map_or_else(usual, |address| address.0.clone());
    let mistake = |why: &str| layers.origin(PATH).mistake(PATH, why, format!("give the whole URL: {}", usual()));
    let url = Url::parse(&text).map_err(|error| mistake(&format!("is not a URL ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(mistake("is neither http:// nor https://"));
    }
    let timeout = timeout(settings.export.zipkin.timeout.as_ref(), settings);
    Ok(Some(Destination { timeout, ..Destination::new(url, Protocol::Zipkin) }))
}

/// One of `export.destinations`.
fn another(more: &More, index: usize, layers: &Layers) -> Result<Destination, Mistake> {
    let path = format!("export.destinations[{index}].endpoint");
    let origin = layers.origin(&path);
    let endpoint = Endpoint { path, origin, text: more.endpoint.0.clone(), form: Form::Friendly };
    let protocol = more.protocol.as_ref().map(|Speech(protocol)| *protocol);
    let protocol = protocol.unwrap_or_else(|| usual_protocol(&endpoint, &mut Vec::new()));
    let file = |file: &Option<leaf::File>| file.as_ref().map(|file| file.0.clone());
    Ok(Destination {
        name: more.name.0.clone(),
        headers: pairs(&more.headers),
        timeout: more.timeout.as_ref().map_or(DEFAULT_TIMEOUT, |time| time.0),
        gzip: more.compression.as_ref().is_some_and(|gzip| gzip.0),
        tls: Tls {
            certificate: file(&more.certificate),
            client_certificate: file(&more.client_certificate),
            client_key: file(&more.client_key),
        },
        ..Destination::new(url(&endpoint, TRACES_PATH, protocol, false)?, protocol)
    })
}

fn pairs(headers: &std::collections::BTreeMap<String, leaf::Secret>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.0.clone())).collect()
}

/// The batch processor's and the spans' limits.
pub(super) fn limits(settings: &Settings, warnings: &mut Vec<String>) -> Limits {
    let (batch, span) = (&settings.export.batch, &settings.export.limits);
    let (queue_spans, mut batch_spans) = (batch.queue.0, batch.spans.0);
    if batch_spans > queue_spans {
        // "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: Must be less than or equal to OTEL_BSP_MAX_QUEUE_SIZE".
        warnings.push(format!(
            "export.batch.spans of {batch_spans} is more than export.batch.queue holds; batches have {queue_spans} spans"
        ));
        batch_spans = queue_spans;
    }
    let span = SpanLimits {
        attributes: span.attributes.0,
        characters: span.characters.as_ref().map_or(usize::MAX, |count| count.0),
        links: span.links.0,
        link_attributes: span.link_attributes.0,
    };
    Limits { queue_spans, batch_spans, delay: batch.delay.0, span, ..Limits::default() }
}

/// The bound on one request with its retries: an exporter's own, within the batch processor's.
fn timeout(own: Option<&leaf::Time>, settings: &Settings) -> Duration {
    let own = own.map_or(DEFAULT_TIMEOUT, |time| time.0);
    settings.export.batch.timeout.as_ref().map_or(own, |most| own.min(most.0))
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
    path: String,
    origin: Origin,
    text: String,
    form: Form,
}

/// How the URL that spans are sent to follows from the endpoint.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Form {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`: a base URL for every signal.
    Base,
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`: as is.
    Whole,
    /// `--otlp`, and files: a base URL; one that has the signal's path already is as welcome.
    Friendly,
}

/// The endpoint of the highest layer that has one; within a layer the more special.
fn endpoint(settings: &Settings, layers: &Layers) -> Option<Endpoint> {
    const LIST: &str = "export.traces";
    let otlp = &settings.export.otlp;
    let best = highest(
        layers,
        [
            ("otlp", &settings.otlp, Form::Friendly),
            ("export.otlp.traces.endpoint", &otlp.traces.endpoint, Form::Whole),
            ("export.otlp.endpoint", &otlp.endpoint, Form::Friendly),
        ],
    );
    let (listed, wanted) = (!settings.export.traces.is_empty(), names(settings, Kind::Otlp));
    let list = layers.origin(LIST);
    match best {
        // The list names other exporters only; an endpoint of a higher layer was written in spite of it.
        Some(best) if listed && !wanted => Some(best).filter(|best| best.origin.rank() > list.rank()),
        None if wanted => {
            // `OTEL_TRACES_EXPORTER=otlp` without an endpoint asks for the specification's default.
            Some(Endpoint { path: LIST.to_owned(), origin: list, text: String::new(), form: Form::Base })
        }
        best => best,
    }
}

/// The one of `written` that stands in the highest layer; of a layer's, the first.
fn highest(layers: &Layers, written: [(&str, &Option<Address>, Form); 3]) -> Option<Endpoint> {
    let mut best: Option<Endpoint> = None;
    for (path, address, form) in written {
        let Some(Address(text)) = address else { continue };
        let origin = layers.origin(path);
        let form = if form == Form::Friendly && matches!(origin, Origin::Standard(_)) { Form::Base } else { form };
        if best.as_ref().is_none_or(|best| best.origin.rank() < origin.rank()) {
            best = Some(Endpoint { path: path.to_owned(), origin, text: text.clone(), form });
        }
    }
    best
}

fn usual_protocol(endpoint: &Endpoint, warnings: &mut Vec<String>) -> Protocol {
    if Url::parse(&endpoint.text).ok().and_then(|url| url.port()) == Some(GRPC_PORT) {
        if endpoint.form == Form::Friendly {
            return Protocol::Grpc;
        }
        // "Default: http/protobuf": obeyed, although 4317 is where collectors speak gRPC.
        warnings.push(format!(
            "{} has port 4317, where collectors speak gRPC, but the default protocol is http/protobuf; \
             set OTEL_EXPORTER_OTLP_PROTOCOL=grpc or use port 4318",
            endpoint.origin.name(&endpoint.path)
        ));
    }
    Protocol::HttpProtobuf
}

/// Where a signal with the path `signal` is sent to.
fn url(endpoint: &Endpoint, signal: &str, protocol: Protocol, insecure: bool) -> Result<String, Mistake> {
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
        text = format!("{}://{text}", if insecure { "http" } else { "https" });
    }
    let mistake = |why: &str| {
        let fix = "give scheme, host and port: http://localhost:4318, or http://localhost:4317 for grpc";
        endpoint.origin.mistake(&endpoint.path, why, fix.to_owned())
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
        // Somebody has named the collector by the path of one signal.
        (_, Form::Friendly) if url.path().ends_with(TRACES_PATH) => {
            let base = url.path().trim_end_matches(TRACES_PATH).to_owned();
            let mut url = url;
            url.set_path(&base);
            signal_url(url, signal)
        }
        (_, Form::Base | Form::Friendly) => signal_url(url, signal),
    })
}

/// "if the endpoint is http://collector:4318/mycollector/, traces are sent to
/// http://collector:4318/mycollector/v1/traces".
fn signal_url(mut base: Url, signal: &str) -> String {
    let path = format!("{}{signal}", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base.into()
}

/// The signals' paths in OTLP/HTTP.
const TRACES_PATH: &str = "/v1/traces";
const METRICS_PATH: &str = "/v1/metrics";

/// Where collectors speak gRPC.
const GRPC_PORT: u16 = 4317;

/// The specification's default.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
