// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Numbers of all requests, sampled or not.
//!
//! In: every finished span, and those that are exported once more, for their ids. Out: [`Family`]s of series: the HTTP
//! conventions' durations and sizes, the service graph, the collector's span metrics; and quantiles for the local view. It reads
//! no clock, sends nothing, and never has more series than its bounds.

mod exponential;
mod graph;
pub mod openmetrics;
pub mod own;
mod series;
pub mod settings;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_BODY_SIZE, HTTP_REQUEST_METHOD, HTTP_RESPONSE_BODY_SIZE, HTTP_RESPONSE_STATUS_CODE,
    HTTP_ROUTE, NETWORK_PROTOCOL_VERSION, SERVER_ADDRESS, SERVER_PORT, URL_SCHEME,
};

pub(crate) use self::series::OVERFLOW;
pub use self::{
    exponential::Exponential,
    series::{Data, Exemplar, Histogram, Labels, Point},
    settings::Settings,
};
use self::{
    graph::Graph,
    series::{Instrument, Limits},
    settings::Exemplars,
};
use crate::{attribute::Value, enrich::ServiceSpan, time::Timestamp, trace::SpanKind, vitals::Fill};

/// A metric with all of its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// The name, as OpenTelemetry writes it; a name without dots is Prometheus's own.
    pub name: &'static str,
    /// The unit by UCUM: `s`, `ms`, `By`, or empty.
    pub unit: &'static str,
    /// What it is, in one sentence.
    pub help: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Its series.
    pub points: Vec<Point>,
}

/// What a metric does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Is a distribution.
    Histogram,
}

/// Everything that is measured of requests.
#[derive(Debug)]
pub struct Metrics {
    settings: Settings,
    server: Ends,
    client: Ends,
    graph: Graph,
    calls: Instrument,
    durations: Instrument,
    looked: Timestamp,
}

/// What is measured at one end of HTTP requests.
#[derive(Debug)]
struct Ends {
    seconds: Instrument,
    /// Of requests.
    asked: Instrument,
    /// Of responses.
    answered: Instrument,
}

/// Rate, errors and duration of one service's route.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The service.
    pub service: Arc<str>,
    /// `{method} {route}`.
    pub route: String,
    /// Requests served.
    pub requests: u64,
    /// Of these, with an `error.type`.
    pub errors: u64,
    /// In seconds, 50, 95 and 99 %.
    pub quantiles: [f64; 3],
}

impl Metrics {
    /// Nothing was measured. `seed` must be unpredictable, as peers choose labels.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let limits = Limits { series: settings.max_series, values: settings.max_values };
        let instrument = |bounds| Instrument::new(bounds, limits, seed);
        let ends =
            || Ends { seconds: instrument(SECONDS), asked: instrument(BODY_BYTES), answered: instrument(BODY_BYTES) };
        Self {
            server: ends(),
            client: ends(),
            graph: Graph::new(settings.service_graph.clone(), limits, seed),
            calls: instrument(&[]),
            durations: instrument(SPAN_MILLISECONDS),
            looked: Timestamp::default(),
            settings,
        }
    }

    /// Counts a finished span.
    pub fn observe(&mut self, span: &ServiceSpan, now: Timestamp) {
        let seconds = span.span.end.since(span.span.start).as_secs_f64();
        let Settings { http, http_body_sizes, http_server_address, .. } = self.settings;
        if http || http_body_sizes {
            with_http_labels(span, http_server_address, |labels| {
                let ends = self.http(span.span.kind);
                if http {
                    ends.seconds.record(Some(&span.resource), labels, seconds, now);
                }
                if http_body_sizes {
                    for (sizes, bytes) in ends.sizes(span) {
                        sizes.record(Some(&span.resource), labels, bytes, now);
                    }
                }
            });
        }
        if self.settings.service_graph.enabled {
            self.graph.observe(span, now);
        }
        if self.settings.span_metrics {
            with_span_labels(span, |labels| {
                self.calls.record(Some(&span.resource), labels, 1.0, now);
                self.durations.record(Some(&span.resource), labels, seconds * 1_000.0, now);
            });
        }
        if self.settings.exemplars == Exemplars::AlwaysOn {
            self.take_for_example(span);
        }
    }

    /// A span that was counted is exported: whoever sees its number may look at its trace.
    pub fn exemplify(&mut self, span: &ServiceSpan) {
        if self.settings.exemplars == Exemplars::TraceBased {
            self.take_for_example(span);
        }
    }

    fn take_for_example(&mut self, span: &ServiceSpan) {
        let seconds = span.span.end.since(span.span.start).as_secs_f64();
        let exemplar = |value| Exemplar { trace: span.span.trace, span: span.span.id, value, at: span.span.end };
        let Settings { http, http_body_sizes, http_server_address, .. } = self.settings;
        if http || http_body_sizes {
            with_http_labels(span, http_server_address, |labels| {
                let ends = self.http(span.span.kind);
                if http {
                    ends.seconds.exemplify(Some(&span.resource), labels, exemplar(seconds));
                }
                if http_body_sizes {
                    for (sizes, bytes) in ends.sizes(span) {
                        sizes.exemplify(Some(&span.resource), labels, exemplar(bytes));
                    }
                }
            });
        }
        if self.settings.span_metrics {
            with_span_labels(span, |labels| {
                self.durations.exemplify(Some(&span.resource), labels, exemplar(seconds * 1_000.0));
            });
        }
    }

    /// Time has come to `now`: what waited for too long is given up, what was silent for long is forgotten.
    pub fn tick(&mut self, now: Timestamp) {
        self.graph.tick(now);
        if now.since(self.looked) >= LOOK {
            self.looked = now;
            let idle = Duration::from_secs(60 * self.settings.idle_minutes);
            let Self { server, client, calls, durations, graph, .. } = self;
            let http = [server, client].into_iter().flat_map(|ends| {
                let Ends { seconds, asked, answered } = ends;
                [seconds, asked, answered]
            });
            let all = http.chain([calls, durations]).chain(graph.instruments());
            all.for_each(|instrument| instrument.expire(now, idle));
        }
    }

    /// Every metric that has something to say.
    pub fn families(&self) -> Vec<Family> {
        let Graph { requests, failed, server_seconds, client_seconds, unpaired, dropped, .. } = &self.graph;
        let all = [
            (HTTP_SERVER, "s", "Duration of HTTP server requests.", Kind::Histogram, &self.server.seconds),
            (SERVER_ASKED, "By", "Size of HTTP server request bodies.", Kind::Histogram, &self.server.asked),
            (SERVER_ANSWERED, "By", "Size of HTTP server response bodies.", Kind::Histogram, &self.server.answered),
            (HTTP_CLIENT, "s", "Duration of HTTP client requests.", Kind::Histogram, &self.client.seconds),
            (CLIENT_ASKED, "By", "Size of HTTP client request bodies.", Kind::Histogram, &self.client.asked),
            (CLIENT_ANSWERED, "By", "Size of HTTP client response bodies.", Kind::Histogram, &self.client.answered),
            ("traces_service_graph_request", "", "Requests between two services.", Kind::Counter, requests),
            ("traces_service_graph_request_failed", "", "Failed requests between two services.", Kind::Counter, failed),
            (
                "traces_service_graph_request_server",
                "s",
                "Time for a request between two services as seen from the server.",
                Kind::Histogram,
                server_seconds,
            ),
            (
                "traces_service_graph_request_client",
                "s",
                "Time for a request between two services as seen from the client.",
                Kind::Histogram,
                client_seconds,
            ),
            ("traces_service_graph_unpaired_spans", "", "Spans whose other end was not seen.", Kind::Counter, unpaired),
            ("traces_service_graph_dropped_spans", "", "Spans for which there was no room.", Kind::Counter, dropped),
            ("traces.span.metrics.calls", "", "Spans.", Kind::Counter, &self.calls),
            ("traces.span.metrics.duration", "ms", "Duration of spans.", Kind::Histogram, &self.durations),
        ];
        let families = all.into_iter().map(|(name, unit, help, kind, instrument)| {
            let mut points: Vec<Point> = instrument.points().cloned().collect();
            // A table's order is nobody's business.
            points.sort_by_cached_key(|point| {
                (point.resource.as_ref().map(|of| of.process), format!("{:?}", point.labels))
            });
            Family { name, unit, help, kind, points }
        });
        families.filter(|family| !family.points.is_empty()).collect()
    }

    /// How often something was counted in an overflow series, by metric.
    pub fn overflown(&self) -> Vec<(&'static str, u64)> {
        let Graph { requests, unpaired, .. } = &self.graph;
        let all = [
            (HTTP_SERVER, &self.server.seconds),
            (SERVER_ASKED, &self.server.asked),
            (SERVER_ANSWERED, &self.server.answered),
            (HTTP_CLIENT, &self.client.seconds),
            (CLIENT_ASKED, &self.client.asked),
            (CLIENT_ANSWERED, &self.client.answered),
            ("traces_service_graph_request_total", requests),
            ("traces_service_graph_unpaired_spans_total", unpaired),
            ("traces.span.metrics.calls", &self.calls),
        ];
        all.map(|(name, instrument)| (name, instrument.overflown())).to_vec()
    }

    /// How full the tables of series are, all together.
    pub fn fill(&self) -> Fill {
        let Self { server, client, graph, calls, durations, .. } = self;
        let Graph { requests, failed, server_seconds, client_seconds, unpaired, dropped, .. } = graph;
        let http = [server, client].into_iter().flat_map(|ends| [&ends.seconds, &ends.asked, &ends.answered]);
        let others = [requests, failed, server_seconds, client_seconds, unpaired, dropped, calls, durations];
        let all = http.chain(others).map(Instrument::fill);
        let (entries, capacity) = all.fold((0, 0), |(entries, room), (one, most)| (entries + one, room + most));
        Fill::of("series", entries, capacity, SERIES_BYTES)
    }

    /// Requests served, by service and route, of all of a service's processes together.
    pub fn summaries(&self) -> Vec<Summary> {
        let mut merged: BTreeMap<(Arc<str>, String), (u64, u64, Exponential)> = BTreeMap::new();
        for point in self.server.seconds.points() {
            let Data::Histogram(histogram) = &point.data else { continue };
            let find = |key| point.labels.iter().find(|(name, _)| *name == key).map(|(_, value)| value.to_string());
            let route = match (find(HTTP_REQUEST_METHOD), find(HTTP_ROUTE)) {
                (Some(method), Some(route)) => format!("{method} {route}"),
                (Some(method), None) => method,
                (None, _) => OVERFLOW.to_owned(),
            };
            let service = point.resource.as_ref().map_or_else(|| "".into(), |resource| Arc::clone(&resource.service));
            let (requests, errors, sketch) = merged.entry((service, route)).or_default();
            *requests += histogram.count();
            *errors += if find(ERROR_TYPE).is_some() { histogram.count() } else { 0 };
            sketch.merge(&histogram.sketch);
        }
        let summaries = merged.into_iter().map(|((service, route), (requests, errors, sketch))| {
            let quantiles = [0.5, 0.95, 0.99].map(|quantile| sketch.quantile(quantile).unwrap_or_default());
            Summary { service, route, requests, errors, quantiles }
        });
        summaries.collect()
    }

    fn http(&mut self, kind: SpanKind) -> &mut Ends {
        match kind {
            SpanKind::Server => &mut self.server,
            SpanKind::Client => &mut self.client,
        }
    }
}

impl Ends {
    /// Where the sizes of a span's bodies belong, of which all was seen.
    fn sizes<'a>(&'a mut self, span: &ServiceSpan) -> impl Iterator<Item = (&'a mut Instrument, f64)> {
        let size = |key: &str| {
            let attribute = span.span.attributes.iter().find(|attribute| attribute.key == key)?;
            match attribute.value {
                Value::Int(bytes) => Some(bytes as f64),
                _ => None,
            }
        };
        let (asked, answered) = (size(HTTP_REQUEST_BODY_SIZE), size(HTTP_RESPONSE_BODY_SIZE));
        [(&mut self.asked, asked), (&mut self.answered, answered)]
            .into_iter()
            .filter_map(|(sizes, bytes)| Some((sizes, bytes?)))
    }
}

/// The labels of an HTTP request's metrics, if the span is of one
/// (<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>).
fn with_http_labels(span: &ServiceSpan, server_address: bool, count: impl FnOnce(&[(&'static str, &Value)])) {
    const SERVER: [&str; 6] =
        [HTTP_REQUEST_METHOD, URL_SCHEME, HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE, HTTP_ROUTE, NETWORK_PROTOCOL_VERSION];
    const CLIENT: [&str; 4] = [HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, ERROR_TYPE, NETWORK_PROTOCOL_VERSION];
    const ADDRESS: [&str; 2] = [SERVER_ADDRESS, SERVER_PORT];
    let find = |key: &str| span.span.attributes.iter().find(|attribute| attribute.key == key);
    if find(HTTP_REQUEST_METHOD).is_none() {
        return;
    }
    let (own, address): (&[&'static str], &[&'static str]) = match span.span.kind {
        SpanKind::Server if server_address => (&SERVER, &ADDRESS),
        SpanKind::Server => (&SERVER, &[]),
        SpanKind::Client => (&CLIENT, &ADDRESS),
    };
    let mut labels = smallvec::SmallVec::<[(&'static str, &Value); 8]>::new();
    labels.extend(own.iter().chain(address).filter_map(|key| Some((*key, &find(key)?.value))));
    count(&labels);
}

/// The labels of the collector's span metrics, by their values' names in OTLP.
fn with_span_labels(span: &ServiceSpan, count: impl FnOnce(&[(&'static str, &Value)])) {
    let name = Value::Shared(Arc::clone(&span.span.name));
    let kind = Value::Static(match span.span.kind {
        SpanKind::Server => "SPAN_KIND_SERVER",
        SpanKind::Client => "SPAN_KIND_CLIENT",
    });
    let status = Value::Static(if span.span.failed { "STATUS_CODE_ERROR" } else { "STATUS_CODE_UNSET" });
    count(&[("span.name", &name), ("span.kind", &kind), ("status.code", &status)]);
}

const HTTP_SERVER: &str = "http.server.request.duration";
const HTTP_CLIENT: &str = "http.client.request.duration";

const SERVER_ASKED: &str = "http.server.request.body.size";
const SERVER_ANSWERED: &str = "http.server.response.body.size";
const CLIENT_ASKED: &str = "http.client.request.body.size";
const CLIENT_ANSWERED: &str = "http.client.response.body.size";

/// "this metric SHOULD be specified with ExplicitBucketBoundaries of [ 0.005, … 10 ]".
pub const SECONDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The convention advises none for sizes, so these are the specification's for every histogram: series of services that
/// measure themselves can be added up with ours
/// (<https://opentelemetry.io/docs/specs/otel/metrics/sdk/#explicit-bucket-histogram-aggregation>).
const BODY_BYTES: &[f64] =
    &[0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1_000.0, 2_500.0, 5_000.0, 7_500.0, 10_000.0];

/// The spanmetrics connector's default, in milliseconds.
const SPAN_MILLISECONDS: &[f64] = &[
    2.0, 4.0, 6.0, 8.0, 10.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1_000.0, 1_400.0, 2_000.0, 5_000.0, 10_000.0, 15_000.0,
];

/// What a series takes, most of it buckets and a sketch.
const SERIES_BYTES: usize = 1536;

/// How often silent series are looked for.
const LOOK: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
