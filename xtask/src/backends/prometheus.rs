// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Prometheus, which scrapes the agent and is asked over its own API.
//!
//! In: a collector's program, that there be exported traces, and the agent's. Out: whether Prometheus has every series of
//! the agent's page, whether durations add up to those of the spans, series by series and bucket by bucket, whether
//! each exemplar names a span that was exported and has its value, and whether the agent's own numbers are those of the
//! visit. Prometheus itself is the machine's.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    collector::Receiver,
    compare::{Seen, Spans, list, text},
    http,
    server::{Server, ports, until},
    shop::{CALLED_A_ROUND, Headers, SERVED_A_ROUND, Shop},
    written,
};
use crate::command::{answer, find};

/// Scrapes the agent while it lives, and compares with what it had printed at its end.
pub(super) fn test(collector: &Path, agent: &Path) -> Result<String> {
    let program = find("prometheus").context("prometheus is not on the path")?;
    let folder = tempfile::tempdir()?;
    let receiver = Receiver::start(collector, folder.path(), include_str!("collector.yaml"))?;
    let [page, query] = ports()?;
    let config = written(&folder, "prometheus.yml", include_str!("prometheus.yaml"), &[("page", page.to_string())])?;
    let arguments = [
        format!("--config.file={config}"),
        format!("--storage.tsdb.path={}", folder.path().join("store").display()),
        format!("--web.listen-address=127.0.0.1:{query}"),
        "--enable-feature=exemplar-storage".to_owned(),
    ];
    let server = folder.path().join("prometheus");
    std::fs::create_dir(&server)?;
    let _server = Server::start(&program, &arguments.each_ref().map(String::as_str), &[], &server)?;
    until("Prometheus to be ready", || Ok(http::get(query, "/-/ready").is_ok()))?;

    let mut variables = receiver.variables("grpc");
    variables.push(("OTEL_METRICS_EXPORTER", "prometheus".to_owned()));
    variables.push(("OTEL_EXPORTER_PROMETHEUS_PORT", page.to_string()));
    let shop = Shop::open(agent)?;
    let traced = shop.traced(agent, &variables)?;
    shop.visit(Headers::States, ROUNDS)?;
    let prometheus = Prometheus { port: query };
    until("Prometheus to have counted every request", || {
        let served: f64 = prometheus.values("http_server_request_duration_seconds_count")?.values().sum();
        let called: f64 = prometheus.values("http_client_request_duration_seconds_count")?.values().sum();
        ensure!(
            (served, called) == ((ROUNDS * SERVED_A_ROUND) as f64, (ROUNDS * CALLED_A_ROUND) as f64),
            "{served} served and {called} made"
        );
        Ok(true)
    })?;
    // Everything that the page says, as of one and the same scrape: nothing happens any more.
    let (lines, _) = http::text(page, "/metrics").map(|page| (samples(&page), page))?;
    until("Prometheus to have every series of the page", || {
        let scraped: f64 = prometheus.values("scrape_samples_scraped")?.values().sum();
        ensure!(scraped == lines as f64, "{scraped} samples of {lines}");
        Ok(true)
    })?;
    let mut durations = BTreeMap::new();
    let mut exemplars = Vec::new();
    for side in ["server", "client"] {
        let family = format!("http_{side}_request_duration_seconds");
        for part in ["count", "sum", "bucket"] {
            durations.extend(prometheus.values(&format!("{family}_{part}"))?);
        }
        exemplars.extend(prometheus.exemplars(&format!("{family}_bucket"))?);
    }

    let mut own = Own::of(&prometheus)?;
    until("the collector to have taken every span", || {
        own = Own::of(&prometheus)?;
        let made: f64 = own.created.values().sum();
        ensure!(own.exported == made && own.timed == own.requests, "{own:?}");
        Ok(true)
    })?;

    let spans = traced.stop(ROUNDS)?;
    let due = expected(&spans);
    for (series, due) in &due {
        let found = durations.get(series).with_context(|| format!("no series {series}"))?;
        ensure!((found - due).abs() < 1e-6, "{series} is {found}, due {due}");
    }
    if let Some(series) = durations.keys().find(|series| !due.contains_key(*series)) {
        anyhow::bail!("{series} is of no span");
    }
    own.agrees(&spans)?;
    ensure!(!exemplars.is_empty(), "there are no exemplars");
    for Exemplar { trace, span, value } in &exemplars {
        let seen = spans.get(&(trace.clone(), span.clone()));
        let seen =
            seen.with_context(|| format!("an exemplar of span {span} of trace {trace}, which is not exported"))?;
        ensure!((seconds(seen) - value).abs() < 1e-9, "an exemplar of {value}, of a span of {}", seconds(seen));
    }
    let version = answer(std::process::Command::new(&program).arg("--version")).unwrap_or_default();
    Ok(format!(
        "{}, {lines} samples scraped, {} series of durations equal to those of {} spans, {} exemplars of exported spans, own numbers of the visit",
        version.split_whitespace().nth(2).unwrap_or("of unknown version"),
        durations.len(),
        spans.len(),
        exemplars.len()
    ))
}

/// Its API, <https://prometheus.io/docs/prometheus/latest/querying/api/>.
struct Prometheus {
    port: u16,
}

struct Exemplar {
    trace: String,
    span: String,
    value: f64,
}

impl Prometheus {
    /// The series of `metric` with their values now.
    fn values(&self, metric: &str) -> Result<BTreeMap<String, f64>> {
        let answer = http::get(self.port, &format!("/api/v1/query?query={metric}"))?;
        let series = list(&answer["data"]["result"]).iter();
        series.map(|series| Ok((named(&series["metric"]), text(&series["value"][1]).parse()?))).collect()
    }

    /// The exemplars of the last hour.
    fn exemplars(&self, metric: &str) -> Result<Vec<Exemplar>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let path = format!("/api/v1/query_exemplars?query={metric}&start={}&end={}", now - 3_600, now + 60);
        let answer = http::get(self.port, &path)?;
        let all = list(&answer["data"]).iter().flat_map(|series| list(&series["exemplars"]));
        all.map(|exemplar| {
            let label = |name: &str| text(&exemplar["labels"][name]);
            Ok(Exemplar { trace: label("trace_id"), span: label("span_id"), value: text(&exemplar["value"]).parse()? })
        })
        .collect()
    }
}

/// What the agent says about itself, where a visit decides what it is.
#[derive(Debug)]
struct Own {
    /// Spans, by protocol and kind.
    created: BTreeMap<String, f64>,
    exported: f64,
    /// Requests to the collector that it took, all of them, and how many have a duration.
    taken: f64,
    requests: f64,
    timed: f64,
    traced: f64,
}

impl Own {
    fn of(prometheus: &Prometheus) -> Result<Self> {
        let sum = |metric: &str| prometheus.values(metric).map(|series| series.values().sum::<f64>());
        Ok(Self {
            created: prometheus.values("spantap_spans_created_total")?,
            exported: sum("spantap_spans_exported_total")?,
            taken: sum("spantap_export_requests_total%7Boutcome=%22taken%22%7D")?,
            requests: sum("spantap_export_requests_total")?,
            timed: sum("spantap_export_duration_seconds_count")?,
            traced: sum("spantap_targets%7Bstate=%22traced%22%7D")?,
        })
    }

    fn agrees(&self, spans: &Spans) -> Result<()> {
        for (kind, number) in [("server", "2"), ("client", "3")] {
            let due = spans.values().filter(|seen| seen.fact("kind") == number).count() as f64;
            let of_kind = self.created.iter().filter(|(series, _)| series.contains(&format!("\"kind\": \"{kind}\"")));
            let created: f64 = of_kind.map(|(_, created)| created).sum();
            ensure!(created == due, "{created} spans of kind {kind} were made, due {due}: {self:?}");
        }
        ensure!(self.taken >= 1.0 && self.taken == self.requests, "the collector takes everything: {self:?}");
        ensure!(self.timed == self.requests, "each request has its duration: {self:?}");
        // The shop's three services.
        ensure!(self.traced >= 3.0, "the services are traced: {self:?}");
        Ok(())
    }
}

/// What the spans' durations add up to, by the names that Prometheus has for their series.
fn expected(spans: &Spans) -> BTreeMap<String, f64> {
    let mut due = BTreeMap::new();
    for seen in spans.values() {
        let (family, labels): (_, &[&str]) = match seen.fact("kind") {
            "2" => ("http_server_request_duration_seconds", &SERVER_LABELS),
            _ => ("http_client_request_duration_seconds", &CLIENT_LABELS),
        };
        let mut series: BTreeMap<String, String> = BTreeMap::new();
        for label in labels.iter().filter(|label| !seen.fact(label).is_empty()) {
            series.insert(label.replace('.', "_"), seen.fact(label).to_owned());
        }
        for label in ["service.name", "service.instance.id", "service.namespace"] {
            let value = seen.fact(&format!("resource.{label}"));
            if !value.is_empty() {
                series.insert(label.replace('.', "_"), value.to_owned());
            }
        }
        let mut add = |part: &str, bound: Option<&str>, value: f64| {
            let mut series = series.clone();
            series.insert("__name__".to_owned(), format!("{family}_{part}"));
            series.extend(bound.map(|bound| ("le".to_owned(), bound.to_owned())));
            *due.entry(format!("{series:?}")).or_insert(0.0) += value;
        };
        add("count", None, 1.0);
        add("sum", None, seconds(seen));
        for bound in BOUNDS {
            let is_within = bound.parse().is_ok_and(|bound: f64| seconds(seen) <= bound);
            add("bucket", Some(bound), f64::from(u8::from(is_within)));
        }
    }
    due
}

fn seconds(seen: &Seen) -> f64 {
    Duration::from_nanos(seen.end().saturating_sub(seen.start())).as_secs_f64()
}

/// A series by its labels, without those that Prometheus adds for the place it scraped.
fn named(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let labels: BTreeMap<_, _> = labels
        .filter(|(label, _)| !["job", "instance"].contains(&label.as_str()))
        .map(|(label, value)| (label.clone(), text(value)))
        .collect();
    format!("{labels:?}")
}

/// How many samples a page has.
fn samples(page: &str) -> usize {
    page.lines().filter(|line| !line.starts_with('#')).count()
}

const SERVER_LABELS: [&str; 6] = [
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "network.protocol.version",
    "url.scheme",
];
const CLIENT_LABELS: [&str; 6] = [
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "network.protocol.version",
    "server.address",
    "server.port",
];

/// Those of the HTTP conventions, as OpenMetrics writes numbers.
const BOUNDS: [&str; 15] = [
    "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0", "+Inf",
];

const ROUNDS: usize = 8;
