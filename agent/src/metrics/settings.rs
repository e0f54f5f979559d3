// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an operator says about metrics.
//!
//! In: values from the configuration. Out: [`Settings`]. It neither measures nor exports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which metrics are made of the requests, and where they go. All requests count, whatever is sampled.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `http.server.request.duration` and `http.client.request.duration`.
    pub http: bool,
    /// Adds `server.address` and `server.port` to the server's metric. They are what clients write into a header, so
    /// that anybody can make series.
    pub http_server_address: bool,
    /// `http.server.request.body.size` and the three like it, of requests of which all of the body was seen.
    pub http_body_sizes: bool,
    /// `traces_service_graph_request_*`, as Grafana Tempo makes them.
    pub service_graph: Graph,
    /// `traces.span.metrics.*`, as the collector's spanmetrics connector makes them.
    pub span_metrics: bool,
    /// Series of one metric; what is beyond is counted in `otel.metric.overflow`. 2,000 is the specification's limit; a
    /// series takes some 1.5 KiB.
    pub max_series: usize,
    /// Values of one label of one metric.
    pub max_values: usize,
    /// Minutes after which a silent series is forgotten: its process has most often ended.
    pub idle_minutes: u64,
    /// Whether they are sent over OTLP to where spans go. Many backends take spans only, so that it has to be asked for.
    pub otlp: bool,
    /// The address where Prometheus may ask for them, such as `127.0.0.1:9464`; also for `/livez` and `/readyz`.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Milliseconds between two exports over OTLP.
    pub export_interval_ms: u64,
    /// The longest that one export over OTLP may take, in milliseconds, whatever the destination's own timeout allows each
    /// of its requests.
    pub export_timeout_ms: u64,
    /// Which requests may be the example of a bucket, by their trace id.
    pub exemplars: Exemplars,
    /// Whether OTLP carries sums since the start, or since the last export.
    pub temporality: Temporality,
    /// How OTLP carries distributions.
    pub histograms: Histograms,
}

/// The service graph.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Graph {
    /// Whether it is made.
    pub enabled: bool,
    /// Milliseconds that one end of a request waits for the other: Tempo's `wait`.
    pub wait_ms: u64,
    /// Ends that wait at one time: Tempo's `max_items`. 10,000 take 2 MiB.
    pub max_items: usize,
    /// The attributes of a CLIENT span that name a virtual node, where the server's span was not seen: the first that
    /// there is. Tempo's own list is `peer.service`, `db.name`, `db.system`; the last one here gives hosts that are not
    /// traced a name.
    pub peer_attributes: Vec<String>,
}

/// What a sum is a sum of (`OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Temporality {
    /// Everything since the series began.
    #[default]
    Cumulative,
    /// What is new since the last export.
    Delta,
}

/// How a distribution is carried (`OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Histograms {
    /// In the buckets that the convention advises.
    #[default]
    ExplicitBucketHistogram,
    /// As an exponential histogram.
    #[serde(rename = "base2_exponential_bucket_histogram")]
    Exponential,
}

/// Which requests may be examples (`OTEL_METRICS_EXEMPLAR_FILTER`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exemplars {
    /// Those whose trace is exported: who follows the id finds something.
    #[default]
    TraceBased,
    /// All of them.
    AlwaysOn,
    /// None of them.
    AlwaysOff,
}

impl Settings {
    /// Whether anybody gets them.
    pub fn is_wanted(&self) -> bool {
        self.otlp || self.listen.is_some()
    }

    /// Everything that can never work, in words.
    pub fn mistakes(&self) -> Vec<String> {
        let bounds = [
            ("metrics.max_series", self.max_series as u64),
            ("metrics.max_values", self.max_values as u64),
            ("metrics.idle_minutes", self.idle_minutes),
            ("metrics.export_interval_ms", self.export_interval_ms),
            ("metrics.export_timeout_ms", self.export_timeout_ms),
        ];
        let zero = bounds.into_iter().filter(|(_, value)| *value == 0);
        zero.map(|(path, _)| format!("{path} is a number from 1 on, not 0")).collect()
    }

    /// Follows the variables of the OpenTelemetry specification, which `value` looks up; says what it could not follow
    /// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
    pub fn follow(&mut self, value: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let mut warnings = Vec::new();
        let text = |name: &str| value(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        for exporter in text("OTEL_METRICS_EXPORTER").iter().flat_map(|list| list.split(',')) {
            match exporter.trim().to_ascii_lowercase().as_str() {
                "otlp" => self.otlp = true,
                "prometheus" => self.listen = Some(prometheus(&text, &mut warnings)),
                "none" => (self.otlp, self.listen) = (false, None),
                other => warnings.push(format!(
                    "OTEL_METRICS_EXPORTER={} is none of otlp, prometheus, none and was ignored",
                    other.escape_debug()
                )),
            }
        }
        for (name, setting) in [
            ("OTEL_METRIC_EXPORT_INTERVAL", &mut self.export_interval_ms),
            ("OTEL_METRIC_EXPORT_TIMEOUT", &mut self.export_timeout_ms),
        ] {
            let Some(time) = text(name) else { continue };
            match time.parse() {
                Ok(time) if time > 0 => *setting = time,
                _ => warnings.push(ignored(name, &time, "no number of milliseconds above 0")),
            }
        }
        const EXEMPLARS: &str = "OTEL_METRICS_EXEMPLAR_FILTER";
        if let Some(filter) = text(EXEMPLARS) {
            match filter.to_ascii_lowercase().as_str() {
                "trace_based" => self.exemplars = Exemplars::TraceBased,
                "always_on" => self.exemplars = Exemplars::AlwaysOn,
                "always_off" => self.exemplars = Exemplars::AlwaysOff,
                _ => warnings.push(ignored(EXEMPLARS, &filter, "none of trace_based, always_on, always_off")),
            }
        }
        const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        if let Some(preference) = text(TEMPORALITY) {
            match preference.to_ascii_lowercase().as_str() {
                "cumulative" => self.temporality = Temporality::Cumulative,
                // Low memory differs for instruments that are observed, of which there is none with a sum here.
                "delta" | "lowmemory" => self.temporality = Temporality::Delta,
                _ => warnings.push(ignored(TEMPORALITY, &preference, "none of cumulative, delta, lowmemory")),
            }
        }
        const HISTOGRAMS: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        if let Some(aggregation) = text(HISTOGRAMS) {
            match aggregation.to_ascii_lowercase().as_str() {
                "explicit_bucket_histogram" => self.histograms = Histograms::ExplicitBucketHistogram,
                "base2_exponential_bucket_histogram" => self.histograms = Histograms::Exponential,
                _ => {
                    let known = "none of explicit_bucket_histogram, base2_exponential_bucket_histogram";
                    warnings.push(ignored(HISTOGRAMS, &aggregation, known));
                }
            }
        }
        warnings
    }
}

/// `OTEL_EXPORTER_PROMETHEUS_HOST` and `_PORT`: localhost:9464 where they are not set.
fn prometheus(text: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> SocketAddr {
    let host = text("OTEL_EXPORTER_PROMETHEUS_HOST").filter(|host| !host.eq_ignore_ascii_case("localhost"));
    let host = host.and_then(|host| {
        let address = host.parse().ok();
        if address.is_none() {
            warnings.push(ignored("OTEL_EXPORTER_PROMETHEUS_HOST", &host, "no address of an interface"));
        }
        address
    });
    let port = text("OTEL_EXPORTER_PROMETHEUS_PORT").and_then(|port| {
        let number = port.parse().ok();
        if number.is_none() {
            warnings.push(ignored("OTEL_EXPORTER_PROMETHEUS_PORT", &port, "no port"));
        }
        number
    });
    SocketAddr::new(host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port.unwrap_or(PROMETHEUS_PORT))
}

fn ignored(name: &str, value: &str, why: &str) -> String {
    format!("{name}={} is {why} and was ignored", value.escape_debug())
}

/// "OTEL_EXPORTER_PROMETHEUS_PORT: 9464".
const PROMETHEUS_PORT: u16 = 9464;

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: true,
            http_server_address: false,
            http_body_sizes: false,
            service_graph: Graph::default(),
            span_metrics: false,
            max_series: 2_000,
            max_values: 500,
            idle_minutes: 15,
            otlp: false,
            listen: None,
            export_interval_ms: 60_000,
            export_timeout_ms: 30_000,
            exemplars: Exemplars::TraceBased,
            temporality: Temporality::Cumulative,
            histograms: Histograms::ExplicitBucketHistogram,
        }
    }
}

impl Default for Graph {
    fn default() -> Self {
        let peer_attributes =
            ["peer.service", "db.name", "db.system", "db.namespace", "db.system.name", "server.address"];
        Self {
            enabled: true,
            wait_ms: 10_000,
            max_items: 10_000,
            peer_attributes: peer_attributes.map(str::to_owned).to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_variables_are_followed() {
        let followed = |variables: &[(&str, &str)]| {
            let mut settings = Settings::default();
            let find =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            let warnings = settings.follow(find);
            (settings, warnings)
        };
        assert_eq!(followed(&[]), (Settings::default(), vec![]));
        let (settings, warnings) = followed(&[
            ("OTEL_METRICS_EXPORTER", "otlp, Prometheus"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "2000"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "ALWAYS_OFF"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "Delta"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram"),
        ]);
        assert_eq!(warnings, [""; 0]);
        assert!(settings.otlp && settings.is_wanted());
        assert_eq!(settings.listen, Some(SocketAddr::from(([127, 0, 0, 1], 9464))));
        assert_eq!((settings.export_interval_ms, settings.export_timeout_ms), (5_000, 2_000));
        assert_eq!(settings.exemplars, Exemplars::AlwaysOff);
        assert_eq!((settings.temporality, settings.histograms), (Temporality::Delta, Histograms::Exponential));

        let prometheus = ("OTEL_METRICS_EXPORTER", "prometheus");
        let at = [prometheus, ("OTEL_EXPORTER_PROMETHEUS_HOST", "0.0.0.0"), ("OTEL_EXPORTER_PROMETHEUS_PORT", "9000")];
        assert_eq!(followed(&at).0.listen, Some(SocketAddr::from(([0, 0, 0, 0], 9000))));

        let (settings, warnings) = followed(&[
            ("OTEL_METRICS_EXPORTER", "prometheus,statsd"),
            ("OTEL_EXPORTER_PROMETHEUS_HOST", "metrics.example"),
            ("OTEL_EXPORTER_PROMETHEUS_PORT", "http"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_METRIC_EXPORT_TIMEOUT", "long"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "some"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "some"),
            ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "none"),
        ]);
        assert_eq!(warnings.len(), 8, "{warnings:?}");
        assert_eq!(settings.listen, Some(SocketAddr::from(([127, 0, 0, 1], 9464))), "loopback, whatever was meant");
    }
}
