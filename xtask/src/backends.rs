// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Real backends: fetched or built, started, sent the demo's traces, and asked what they have.
//!
//! In: which of them. Out: a row for each, and an error if one has anything else than what the agent itself printed:
//! the same spans with the same parents, names, kinds, times, status and attributes, as far as its API tells them.
//!
//! Everything listens on free ports of the loopback device, and is ended with the test.

mod compare;
mod fetch;
mod http;
mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Stdio,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    build,
    command::{is_root, root},
};
use compare::{Key, Seen, otlp, same, zipkin};
use server::{Server, free_port, until};

/// What can be tested, by name.
const NAMES: [&str; 5] = ["jaeger", "collector", "zipkin", "tiers", "configurations"];

/// The command `test backends`.
pub(crate) fn test(names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no backend {unknown}; there are {}", NAMES.join(", "));
    }
    let chosen = |name: &str| names.is_empty() || names.iter().any(|known| known == name);
    let mut failures = 0;
    let mut row = |name: &str, outcome: Result<String>| match outcome {
        Ok(said) => println!("backends: {name}: {said}"),
        Err(error) => {
            failures += 1;
            println!("backends: {name}: FAILED: {error:#}");
        }
    };
    if chosen("configurations") {
        row("configurations", configurations());
    }
    if ["jaeger", "collector", "zipkin", "tiers"].into_iter().any(chosen) {
        if !is_root() {
            bail!("the demo is traced with probes: run this as root");
        }
        let agent = build::build(build::Profile::new(false))?;
        if chosen("jaeger") {
            row("jaeger", jaeger(&agent));
        }
        if chosen("collector") {
            row("collector", collector(&agent));
        }
        if chosen("zipkin") {
            row("zipkin", zipkin_server(&agent));
        }
        if chosen("tiers") {
            row("tiers", tiers(&agent));
        }
    }
    if failures > 0 {
        bail!("{failures} of the backends failed");
    }
    Ok(())
}

/// Jaeger, over OTLP/HTTP with protobuf, asked over its API version 3.
fn jaeger(agent: &Path) -> Result<String> {
    let program = fetch::jaeger()?;
    let folder = tempfile::tempdir()?;
    let [grpc, http, query, query_grpc, health] = ports()?;
    let config = JAEGER
        .replace("@grpc", &grpc.to_string())
        .replace("@http", &http.to_string())
        .replace("@query_grpc", &query_grpc.to_string())
        .replace("@query", &query.to_string())
        .replace("@health", &health.to_string());
    let _server =
        Server::start(&program, &["--config", &written(&folder, "jaeger.yaml", &config)?], &[], folder.path())?;
    until("Jaeger to be ready", || Ok(http::get(health, "/status").is_ok()))?;

    let own = demo(agent, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{http}"))])?;
    let traces: BTreeSet<_> = own.keys().map(|(trace, _)| trace.clone()).collect();
    let mut seen = BTreeMap::new();
    until("every span in Jaeger", || {
        seen.clear();
        for trace in &traces {
            if let Ok(answer) = http::get(query, &format!("/api/v3/traces/{trace}")) {
                seen.extend(otlp(&answer["result"]));
            }
        }
        Ok(seen.len() >= own.len())
    })?;
    same(&own, &seen)?;
    Ok(format!(
        "2.13.0, {} spans of {} traces sent by http/protobuf, the same read back by /api/v3/traces",
        own.len(),
        traces.len()
    ))
}

/// The collector over gRPC, HTTP/JSON and gzip; what it writes is what it was sent.
fn collector(agent: &Path) -> Result<String> {
    let program = fetch::collector()?;
    let mut said = Vec::new();
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let folder = tempfile::tempdir()?;
        let [grpc, http, health] = ports()?;
        let config = COLLECTOR
            .replace("@grpc", &grpc.to_string())
            .replace("@http", &http.to_string())
            .replace("@health", &health.to_string())
            .replace("@out", &folder.path().join("all.jsonl").display().to_string());
        let config = written(&folder, "collector.yaml", &config)?;
        let _server = Server::start(&program, &["--config", &config], &[], folder.path())?;
        until("the collector to be ready", || Ok(http::reaches(health)))?;
        let port = if protocol == "grpc" { grpc } else { http };
        let own = demo(
            agent,
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}")),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ],
        )?;
        let mut seen = BTreeMap::new();
        until("every span in the collector's file", || {
            seen = lines(&folder.path().join("all.jsonl"))?;
            Ok(seen.len() >= own.len())
        })?;
        same(&own, &seen).with_context(|| protocol.to_owned())?;
        said.push(format!("{} spans by {protocol}", own.len()));
    }
    Ok(format!("0.158.0, {} with gzip, the same read back from its file exporter", said.join(", ")))
}

/// Zipkin, over its own API both ways.
fn zipkin_server(agent: &Path) -> Result<String> {
    let jar = fetch::zipkin()?;
    let folder = tempfile::tempdir()?;
    let [port] = ports()?;
    let environment = [("QUERY_PORT", port.to_string()), ("STORAGE_TYPE", "mem".to_owned())];
    let jar = jar.display().to_string();
    let _server = Server::start(Path::new("java"), &["-Xmx256m", "-jar", &jar], &environment, folder.path())?;
    until("Zipkin to be ready", || Ok(http::get(port, "/health").is_ok()))?;
    let own = demo(
        agent,
        &[
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", &format!("http://127.0.0.1:{port}/api/v2/spans")),
        ],
    )?;
    let own: BTreeMap<_, _> = own.into_iter().map(|(key, seen)| (key, seen.as_zipkin_has_it())).collect();
    let mut seen = BTreeMap::new();
    until("every span in Zipkin", || {
        let traces = http::get(port, "/api/v2/traces?limit=10000&lookback=3600000")?;
        seen = zipkin(&traces);
        Ok(seen.len() >= own.len())
    })?;
    same(&own, &seen)?;
    Ok(format!("3.6.1, {} spans sent to /api/v2/spans, the same read back by /api/v2/traces", own.len()))
}

/// Two tiers: a balancer by trace id in front of two samplers, with the configurations that are delivered.
fn tiers(agent: &Path) -> Result<String> {
    let program = fetch::collector()?;
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let [a, b, front] = ports()?;
    let file = |name: &str| root().join("deploy/backends").join(name).display().to_string();
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut servers = Vec::new();
    for (port, folder) in [(a, &folders[0]), (b, &folders[1])] {
        let environment = [("SAMPLER", local(port)), ("OUT", folder.path().display().to_string())];
        servers.push(Server::start(&program, &["--config", &file("tail-sampling.yaml")], &environment, folder.path())?);
        until("a sampler to be ready", || Ok(http::reaches(port)))?;
    }
    // The balancer last: one that finds no sampler waits five seconds to try again.
    let environment = [("BALANCER", local(front)), ("TIER_A", local(a)), ("TIER_B", local(b))];
    let config = file("tail-sampling-balancer.yaml");
    servers.push(Server::start(&program, &["--config", &config], &environment, folders[2].path())?);
    until("the balancer to be ready", || Ok(http::reaches(front)))?;

    let endpoint = format!("http://{}", local(front));
    let own = demo(agent, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")])?;
    let mut traces: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for ((trace, _), seen) in &own {
        traces.entry(trace).or_default().push(seen);
    }
    let kept_for_sure = |spans: &&Vec<&Seen>| spans.iter().any(|seen| seen.failed() || seen.lasts_ms() >= 200);
    let due: usize = traces.values().filter(kept_for_sure).map(Vec::len).sum();
    let mut kept = [BTreeMap::new(), BTreeMap::new()];
    until("every error and slow trace, whole", || {
        for (kept, folder) in kept.iter_mut().zip(&folders) {
            *kept = lines(&folder.path().join("kept.jsonl"))?;
        }
        let is_due = |(trace, _): &&Key| traces.get(trace.as_str()).is_some_and(|spans| kept_for_sure(&spans));
        Ok(kept.iter().flat_map(BTreeMap::keys).filter(is_due).count() >= due)
    })?;
    for (key, seen) in kept.iter().flatten() {
        let sent = own.get(key).with_context(|| format!("{key:?} was never sent"))?;
        if sent != seen {
            bail!("{key:?} changed on the way: {}", sent.difference(seen));
        }
    }
    let split = |trace: &&&str| kept.iter().all(|kept| kept.keys().any(|(known, _)| known == **trace));
    if let Some(trace) = traces.keys().find(split) {
        bail!("trace {trace} is on both samplers");
    }
    let counts = kept.each_ref().map(BTreeMap::len);
    Ok(format!(
        "0.158.0 twice behind a balancer, {} spans sent, {} and {} kept; all {due} spans of failed and slow traces, none changed",
        own.len(),
        counts[0],
        counts[1]
    ))
}

/// The delivered configurations, as far as the collector at hand knows their components.
fn configurations() -> Result<String> {
    let program = fetch::collector()?;
    let mut good = Vec::new();
    for file in fs::read_dir(root().join("deploy/backends"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".yaml") || name.ends_with(".spantap.yaml") {
            continue;
        }
        if let Some((_, why)) = UNKNOWN.iter().find(|(known, _)| *known == name) {
            println!("backends: configurations: SKIPPED {name}: {why}");
            continue;
        }
        let mut command = std::process::Command::new(&program);
        command.arg("validate").arg("--config").arg(&path).stdin(Stdio::null());
        for variable in ["HONEYCOMB_API_KEY", "NEW_RELIC_LICENSE_KEY", "LIGHTSTEP_ACCESS_TOKEN", "GOOGLE_CLOUD_PROJECT"]
        {
            command.env(variable, "x");
        }
        let output = command.env("OUT", std::env::temp_dir()).output().context("start the collector")?;
        if !output.status.success() {
            bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        good.push(name);
    }
    good.sort();
    Ok(format!("0.158.0 validates {}", good.join(", ")))
}

const UNKNOWN: [(&str, &str); 2] = [
    ("aws-xray.yaml", "the exporter's module of this version is not served"),
    ("datadog.yaml", "the exporter is not built into this collector: its tree is larger than all of the rest"),
];

/// Runs the demo, with `environment` saying where it exports to, and returns what it printed. Everything that is sent
/// was answered for when it ends.
fn demo(agent: &Path, environment: &[(&str, &str)]) -> Result<BTreeMap<Key, Seen>> {
    let mut command = std::process::Command::new(agent);
    command.args(["demo", "--quiet", "--print", "json", "--duration", DEMO]).stdin(Stdio::null());
    command.envs(environment.iter().copied());
    let output = command.output().context("start the demo")?;
    if !output.status.success() {
        bail!("the demo failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut spans = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        spans.extend(otlp(&serde_json::from_str(line).context("read what the agent printed")?));
    }
    if spans.len() < FEW {
        bail!("the demo made {} spans only", spans.len());
    }
    Ok(spans)
}

/// The spans of a file of OTLP JSON lines; none where there is no file yet. The last line may be half written.
fn lines(path: &Path) -> Result<BTreeMap<Key, Seen>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    Ok(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).flat_map(|line| otlp(&line)).collect())
}

fn ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    for port in &mut ports {
        *port = free_port()?;
    }
    Ok(ports)
}

fn written(folder: &TempDir, name: &str, text: &str) -> Result<String> {
    let path = folder.path().join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path.display().to_string())
}

/// Long enough for every scenario of the demo to come round.
const DEMO: &str = "4s";

/// Fewer spans than this are no demo.
const FEW: usize = 20;

const JAEGER: &str = include_str!("backends/jaeger.yaml");
const COLLECTOR: &str = include_str!("backends/collector.yaml");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{otlp, same};

    #[test]
    fn a_span_that_is_missing_or_different_is_found() {
        let line = |name: &str| {
            json!({"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "s"}}]},
                "scopeSpans": [{"spans": [{"traceId": "01", "spanId": "02", "name": name, "kind": 2,
                    "startTimeUnixNano": "1000", "endTimeUnixNano": 3000,
                    "attributes": [{"key": "http.response.status_code", "value": {"intValue": "200"}}]}]}]}]})
        };
        let (own, other) = (otlp(&line("GET")), otlp(&line("POST")));
        assert!(same(&own, &own).is_ok());
        let told = same(&own, &other).expect_err("another name").to_string();
        assert!(told.contains("name: GET / POST"), "{told}");
        assert!(same(&own, &Default::default()).expect_err("nothing").to_string().contains("missing"));
        assert!(same(&Default::default(), &own).expect_err("too much").to_string().contains("never sent"));
    }
}
