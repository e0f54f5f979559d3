// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Jaeger, asked over its API of version 3.
//!
//! In: its program and the agent's. Out: whether it has every span as it was sent. The dependencies that it draws from
//! them are asked for, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Result, ensure};

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
    let [grpc, otlp_http, query, query_grpc, health] = ports()?;
    let words = [
        ("grpc", grpc.to_string()),
        ("http", otlp_http.to_string()),
        ("query", query.to_string()),
        ("query_grpc", query_grpc.to_string()),
        ("health", health.to_string()),
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
        let mut seen = Spans::new();
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
    Ok(format!(
        "2.13.0, {} sent, the same read back by /api/v3/traces; its dependencies are the shop's calls",
        said.join(" and ")
    ))
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
