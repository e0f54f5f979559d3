// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The OpenTelemetry Collector, which writes down what it was sent.
//!
//! In: its program and the agent's. Out: whether its file has every span as it was sent, over each protocol of OTLP.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    compare::{Spans, otlp, same},
    http,
    server::{Server, ports, until},
    shop::{Headers, Shop},
    written,
};

/// The same back by each protocol, compressed.
pub(super) fn test(program: &Path, agent: &Path) -> Result<String> {
    let shop = Shop::open(agent)?;
    let mut said = Vec::new();
    for protocol in ["grpc", "http/protobuf", "http/json"] {
        let folder = tempfile::tempdir()?;
        let receiver = Receiver::start(program, folder.path(), include_str!("collector.yaml"))?;
        let mut variables = receiver.variables(protocol);
        variables.push(("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()));
        let own = shop.spans(agent, &variables, Headers::States, ROUNDS)?;
        let mut seen = Spans::new();
        until("every span in the collector's file", || {
            seen = spans(&folder.path().join("traces.jsonl"));
            Ok(seen.len() >= own.len())
        })?;
        same(&own, &seen).with_context(|| protocol.to_owned())?;
        let written: usize = lines(&folder.path().join("traces.jsonl")).iter().map(|line| otlp(line).len()).sum();
        ensure!(written == own.len(), "{protocol}: {} spans came {written} times", own.len());
        said.push(format!("{} spans by {protocol}", own.len()));
    }
    Ok(format!("0.158.0, {} with gzip, the same read back from its file exporter", said.join(", ")))
}

/// A collector that receives OTLP.
pub(super) struct Receiver {
    _server: Server,
    grpc: u16,
    http: u16,
}

impl Receiver {
    /// Starts it with `config`, whose words are `grpc` and `http`, two ports, and `out`, which is `folder`.
    pub(super) fn start(program: &Path, folder: &Path, config: &str) -> Result<Self> {
        let configs = tempfile::tempdir()?;
        let [grpc, http, health] = ports()?;
        let words = [
            ("grpc", grpc.to_string()),
            ("http", http.to_string()),
            ("health", health.to_string()),
            ("out", folder.display().to_string()),
        ];
        let config = written(&configs, "collector.yaml", config, &words)?;
        let server = Server::start(program, &["--config", &config], &[], folder)?;
        until("the collector to be ready", || Ok(http::get(health, "/").is_ok()))?;
        Ok(Self { _server: server, grpc, http })
    }

    /// What points an agent to it.
    pub(super) fn variables(&self, protocol: &str) -> Vec<(&'static str, String)> {
        let port = if protocol == "grpc" { self.grpc } else { self.http };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ]
    }
}

/// What a file of JSON lines holds; nothing where there is no file yet. The last line may be half written.
pub(super) fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The spans of such a file.
pub(super) fn spans(path: &Path) -> Spans {
    lines(path).iter().flat_map(otlp).collect()
}

const ROUNDS: usize = 2;
