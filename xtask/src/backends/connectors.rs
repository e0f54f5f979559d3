// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The collector's span metrics and service graph, beside our own.
//!
//! In: the collector's program and the agent's. Out: whether the connectors make the same numbers of our spans as the
//! agent made: the same series, counts, sums and buckets; and whether its deltas, in exponential histograms, add up to
//! its spans. Both are written by the collector.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use super::{
    collector::{Receiver, lines},
    compare::{list, text},
    server::until,
    shop::{Headers, Shop},
};

/// Compares all numbers at the end, and then what the connector makes of a sampled caller.
pub(super) fn test(program: &Path, agent: &Path) -> Result<String> {
    let [folder, sampled] = [tempfile::tempdir()?, tempfile::tempdir()?];
    let receiver = Receiver::start(program, folder.path(), include_str!("connectors.yaml"))?;
    let mut variables = receiver.variables("grpc");
    variables.push(("OTEL_METRICS_EXPORTER", "otlp".to_owned()));
    variables.push(("SPANTAP_METRICS_SPAN_METRICS", "true".to_owned()));
    let shop = Shop::open(agent)?;
    let spans = shop.spans(agent, &variables, Headers::Context, ROUNDS)?;
    let read = |name: &str| numbers(&lines(&folder.path().join(name)));
    let mut own = Numbers::new();
    until("the connectors to have the same numbers", || {
        own = read("own.jsonl");
        ensure!(!own.is_empty(), "the agent's own have not come");
        difference(&own, &read("made.jsonl")).map_or(Ok(true), |told| Err(anyhow!(told)))
    })?;
    let calls: f64 = own.iter().filter(|(key, _)| key.starts_with(CALLS)).map(|(_, number)| number.sum).sum();
    ensure!(calls == spans.len() as f64, "{calls} calls are counted of {} spans", spans.len());

    // With `th:8` of the caller, a span stands for two. The agent, which sees every request, counts those.
    let receiver = Receiver::start(program, sampled.path(), include_str!("connectors.yaml"))?;
    let mut variables = receiver.variables("http/json");
    variables.extend([
        ("OTEL_METRICS_EXPORTER", "otlp".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "200".to_owned()),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta".to_owned()),
        ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "base2_exponential_bucket_histogram".to_owned()),
    ]);
    let stated = shop.spans(agent, &variables, Headers::States, ROUNDS)?;
    let mut messages = 0;
    until("deltas that add up to the spans", || {
        let deltas = deltas(&lines(&sampled.path().join("own.jsonl")))?;
        for (kind, name) in [("2", "http.server.request.duration"), ("3", "http.client.request.duration")] {
            let due = stated.values().filter(|seen| seen.fact("kind") == kind).count() as u64;
            let (counted, of) = deltas.get(name).copied().unwrap_or_default();
            ensure!(counted == due, "{counted} in {of} deltas of {name}, due {due}");
            ensure!(of > 1, "{name} came at once");
            messages = of;
        }
        Ok(true)
    })?;
    let made = sampled.path().join("made.jsonl");
    let expected = [("GET /", 1), ("GET /search", 2)].map(|(name, weight)| (name, (weight * ROUNDS) as f64));
    until("the connector to count sampled spans by their thresholds", || {
        let made = numbers(&lines(&made));
        for (name, due) in expected {
            let is_it =
                |key: &str| key.starts_with(CALLS) && key.contains("SERVER") && key.contains(&format!("{name:?}"));
            let found: f64 = made.iter().filter(|(key, _)| is_it(key)).map(|(_, number)| number.sum).sum();
            ensure!(found == due, "{name} was counted {found} times, due {due}");
        }
        Ok(true)
    })?;
    Ok(format!(
        "0.158.0, {} series of {} spans: the same counts, sums and buckets as our own; spans with th:8 count twice; \
         {messages} exponential deltas of durations add up to as many",
        own.len(),
        spans.len()
    ))
}

/// A series' name and labels, with what it says.
type Numbers = BTreeMap<String, Number>;

#[derive(Clone, Debug, Default, PartialEq)]
struct Number {
    sum: f64,
    /// Of a histogram: its bounds, and what is in its buckets.
    bounds: Vec<f64>,
    buckets: Vec<u64>,
}

/// The last value of every series, in the order of the lines; series that differ in what only one side tells are added up.
fn numbers(lines: &[Value]) -> Numbers {
    let mut last: BTreeMap<(String, String), (String, Number)> = BTreeMap::new();
    for resource in lines.iter().flat_map(|line| list(&line["resourceMetrics"])) {
        for metric in list(&resource["scopeMetrics"]).iter().flat_map(|scope| list(&scope["metrics"])) {
            let name = text(&metric["name"]);
            for point in ["sum", "histogram"].iter().flat_map(|kind| list(&metric[kind]["dataPoints"])) {
                let whole = (resource["resource"].to_string(), format!("{name} {}", point["attributes"]));
                if let Some(key) = shared(&name, &resource["resource"]["attributes"], &point["attributes"]) {
                    last.insert(whole, (key, number(point)));
                }
            }
        }
    }
    let mut numbers = Numbers::new();
    for (key, number) in last.into_values() {
        match numbers.entry(key) {
            Entry::Vacant(place) => {
                place.insert(number);
            }
            Entry::Occupied(mut place) => {
                let Number { sum, buckets, .. } = place.get_mut();
                *sum += number.sum;
                buckets.iter_mut().zip(number.buckets).for_each(|(all, one)| *all += one);
            }
        }
    }
    numbers
}

/// By metric: what its exponential histograms have counted together, and how many points said so. Fails where one says
/// that it is no delta, or counts otherwise than its buckets.
fn deltas(lines: &[Value]) -> Result<BTreeMap<String, (u64, u64)>> {
    let whole = |value: &Value| text(value).parse::<u64>().unwrap_or_default();
    let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for resource in lines.iter().flat_map(|line| list(&line["resourceMetrics"])) {
        for metric in list(&resource["scopeMetrics"]).iter().flat_map(|scope| list(&scope["metrics"])) {
            let histogram = &metric["exponentialHistogram"];
            for point in list(&histogram["dataPoints"]) {
                // AGGREGATION_TEMPORALITY_DELTA
                ensure!(histogram["aggregationTemporality"] == 1, "no delta: {metric}");
                let count = whole(&point["count"]);
                let buckets: u64 = list(&point["positive"]["bucketCounts"]).iter().map(whole).sum();
                ensure!(count == buckets + whole(&point["zeroCount"]), "its buckets have not as many: {point}");
                let (counted, of) = all.entry(text(&metric["name"])).or_default();
                (*counted, *of) = (*counted + count, *of + 1);
            }
        }
    }
    Ok(all)
}

/// What both sides call a series; nothing where only one of them has it.
fn shared(name: &str, resource: &Value, point: &Value) -> Option<String> {
    let mut labels: BTreeMap<_, _> = labels(point).collect();
    if name.starts_with("traces.span.metrics") {
        // The connector writes the service beside the span's name, and who made the number.
        labels.extend(self::labels(resource).filter(|(key, _)| key == "service.name"));
        labels.remove("collector.instance.id");
    } else if name.starts_with("traces_service_graph_request") {
        // Tempo has no such label, and neither have we: the failed have a metric of their own.
        labels.remove("failed");
        // Nobody knows how long a request took for a caller who was not seen: the connector says 0.
        if name.ends_with("_client") && labels.get("client").is_some_and(|client| client == "user") {
            return None;
        }
    } else {
        return None;
    }
    Some(format!("{name} {labels:?}"))
}

fn number(point: &Value) -> Number {
    let number = |value: &Value| text(value).parse().unwrap_or_default();
    let value = ["sum", "asDouble", "asInt"].iter().map(|field| &point[field]).find(|value| !value.is_null());
    Number {
        sum: value.map_or(0.0, number),
        bounds: list(&point["explicitBounds"]).iter().map(number).collect(),
        buckets: list(&point["bucketCounts"]).iter().map(|n| text(n).parse().unwrap_or_default()).collect(),
    }
}

fn labels(attributes: &Value) -> impl Iterator<Item = (String, String)> + '_ {
    let value = |attribute: &Value| text(&attribute["value"]["stringValue"]);
    list(attributes).iter().map(move |attribute| (text(&attribute["key"]), value(attribute)))
}

/// The first series that one side lacks, or that differs. Sums are of another order of addition.
fn difference(own: &Numbers, made: &Numbers) -> Option<String> {
    let keys = own.keys().chain(made.keys());
    keys.map(|key| (key, own.get(key), made.get(key))).find_map(|(key, own, made)| match (own, made) {
        (Some(own), Some(made)) => {
            let close = (own.sum - made.sum).abs() <= 1e-6 * own.sum.abs().max(1.0);
            let same = close && own.bounds == made.bounds && own.buckets == made.buckets;
            (!same).then(|| format!("{key}: ours {own:?}, theirs {made:?}"))
        }
        (Some(_), None) => Some(format!("{key}: only ours")),
        (None, _) => Some(format!("{key}: only theirs")),
    })
}

const CALLS: &str = "traces.span.metrics.calls";

const ROUNDS: usize = 8;
