// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Jaeger, asked over its API of version 3.
//!
//! In: its program and the agent's. Out: whether it has every span as it was sent, and whether the agent samples as it is
//! told to over `/api/sampling`. The dependencies that it draws from the spans are asked for, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    compare::{Spans, otlp, same},
    http,
    server::{Server, ports, until},
    shop::{Headers, Shop},
    written,
};

/// The same back by each protocol.
pub(super) fn test(program: &Path, agent: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let [grpc, otlp_http, query, query_grpc, health, sampling, sampling_grpc] = ports()?;
    let strategies = written(&folder, "strategies.json", STRATEGIES, &[])?;
    let words = [
        ("grpc", grpc.to_string()),
        ("http", otlp_http.to_string()),
        ("query", query.to_string()),
        ("query_grpc", query_grpc.to_string()),
        ("health", health.to_string()),
        ("sampling", sampling.to_string()),
        ("sampling_grpc", sampling_grpc.to_string()),
        ("strategies", strategies),
    ];
    let config = written(&folder, "jaeger.yaml", include_str!("jaeger.yaml"), &words)?;
    let _server = Server::start(program, &["--config", &config], &[], folder.path())?;
    until("Jaeger to be ready", || Ok(http::get(health, "/status").is_ok()))?;

    let shop = Shop::open(agent)?;
    let mut said = Vec::new();
    for (protocol, port) in [("http/protobuf", otlp_http), ("grpc", grpc)] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ];
        let own = shop.spans(agent, &variables, Headers::States, ROUNDS)?;
        let traces: BTreeSet<_> = own.keys().map(|(trace, _)| trace).collect();
        same(&own, &await_spans(query, &own)?)?;
        said.push(format!("{} spans of {} traces by {protocol}", own.len(), traces.len()));
    }

    // Both protocols' together, by the service of a parent and of its child: a service's own calls are its children.
    let edges = dependencies(query)?;
    let calls = 2 * ROUNDS as u64;
    let due = [
        (("cart", "cart"), 10),
        (("cart", "stock"), 10),
        (("web", "cart"), 2),
        (("web", "stock"), 1),
        (("web", "web"), 3),
    ];
    let due: BTreeMap<_, _> =
        due.iter().map(|((from, to), n)| (((*from).to_owned(), (*to).to_owned()), n * calls)).collect();
    ensure!(edges == due, "Jaeger's dependencies are {edges:?}, due {due:?}");
    let sampled = follows_strategies(&shop, agent, otlp_http, query, sampling)?;
    Ok(format!(
        "2.13.0, {} sent, the same read back by /api/v3/traces; its dependencies are the shop's calls; {sampled}",
        said.join(" and ")
    ))
}

/// What Jaeger has of the traces of `due`, as soon as it has as many spans.
fn await_spans(query: u16, due: &Spans) -> Result<Spans> {
    let traces: BTreeSet<_> = due.keys().map(|(trace, _)| trace).collect();
    let mut seen = Spans::new();
    until("every span in Jaeger", || {
        seen.clear();
        for trace in &traces {
            seen.extend(spans_of(query, trace));
        }
        Ok(seen.len() >= due.len())
    })?;
    Ok(seen)
}

/// The spans of a trace; none where Jaeger does not know it.
fn spans_of(query: u16, trace: &str) -> Spans {
    let answer = http::get(query, &format!("/api/v3/traces/{trace}"));
    answer.map(|answer| otlp(&answer["result"]).into_iter().collect()).unwrap_or_default()
}

/// The agent asks at `sampling` about each service that begins a trace, and holds to the answer: [`STRATEGIES`].
fn follows_strategies(shop: &Shop, agent: &Path, otlp_http: u16, query: u16, sampling: u16) -> Result<String> {
    let [page] = ports()?;
    let argument = format!("endpoint=http://127.0.0.1:{sampling},pollingIntervalMs=1000,initialSamplingRate=0");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{otlp_http}")),
        ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote".to_owned()),
        ("OTEL_TRACES_SAMPLER_ARG", argument),
        ("OTEL_METRICS_EXPORTER", "prometheus".to_owned()),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", page.to_string()),
    ];
    let traced = shop.traced(agent, &variables)?;
    // Nobody has asked about `web` before its first trace is over: that one gets the initial share.
    shop.visit(Headers::Context, 1)?;
    until("Jaeger to have said how web is sampled", || {
        let page = http::text(page, "/metrics")?;
        let answered = "spantap_sampling_strategies_total{result=\"answered\"} ";
        let answered = page.lines().find_map(|line| line.strip_prefix(answered)?.parse::<f64>().ok());
        Ok(answered.context("no such number")? >= 1.0)
    })?;
    shop.visit(Headers::Context, ROUNDS)?;
    let own = traced.stop(1 + ROUNDS)?;

    // Pages by what was visited, each trace at its beginning.
    let mut pages: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    for ((trace, _), seen) in &own {
        if seen.fact("kind") == "2" && seen.fact("resource.service.name") == "web" {
            pages.entry(seen.fact("url.path")).or_default().push((seen.start(), trace));
        }
    }
    pages.values_mut().for_each(|visits| visits.sort_unstable());
    let mut kept = BTreeSet::new();
    for (path, visits) in &pages {
        ensure!(visits.len() == 1 + ROUNDS, "{path} was visited {} times", visits.len());
        let skipped = match *path {
            // Began before the answer.
            "/" => 1,
            "/cart/7" => visits.len(),
            // Whoever calls has sampled them.
            _ => 0,
        };
        kept.extend(visits.iter().skip(skipped).map(|(_, trace)| *trace));
    }
    let due: Spans =
        own.iter().filter(|((trace, _), _)| kept.contains(&**trace)).map(|(k, v)| (k.clone(), v.clone())).collect();
    // Spans that wait for their trace's end leave by the wall clock of that moment, which need not be the printed one's to
    // the nanosecond; everything else about them was compared before.
    let seen = await_spans(query, &due)?;
    let states = |spans: &Spans| -> Vec<_> {
        spans
            .iter()
            .map(|(key, seen)| (key.clone(), seen.fact("parent").to_owned(), seen.fact("state").to_owned()))
            .collect()
    };
    ensure!(states(&due) == states(&seen), "Jaeger has {:?}, due {:?}", states(&seen), states(&due));
    let visits: BTreeSet<_> = own.keys().map(|(trace, _)| &**trace).collect();
    for trace in visits.difference(&kept) {
        ensure!(spans_of(query, trace).is_empty(), "trace {trace} is not to be kept, and Jaeger has it");
    }
    Ok(format!("of {} traces, the {} that its /api/sampling says", visits.len(), kept.len()))
}

/// Calls by caller and called, of the last hour.
fn dependencies(query: u16) -> Result<BTreeMap<(String, String), u64>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let answer = http::get(query, &format!("/api/dependencies?endTs={now}&lookback=3600000"))?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let links = answer["data"].as_array().into_iter().flatten();
    Ok(links
        .map(|link| ((text(&link["parent"]), text(&link["child"])), link["callCount"].as_u64().unwrap_or_default()))
        .collect())
}

const ROUNDS: usize = 2;

/// Jaeger's own format (<https://www.jaegertracing.io/docs/latest/architecture/sampling/#file-based-sampling-configuration>):
/// of the traces that begin at `web` all but those of carts, and of no other service's.
const STRATEGIES: &str = r#"{
  "default_strategy": {"type": "probabilistic", "param": 0},
  "service_strategies": [{
    "service": "web", "type": "probabilistic", "param": 1,
    "operation_strategies": [{"operation": "GET /cart/{id}", "type": "probabilistic", "param": 0}]
  }]
}"#;
