// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Zipkin, over its own API both ways.
//!
//! In: its program and the agent's. Out: whether it has every span as far as it has a place for what a span says.

use std::path::Path;

use anyhow::Result;

use super::{
    compare::{Spans, same, zipkin},
    http,
    server::{Server, ports, until},
    shop::{Headers, Shop},
};

/// The same back, in Zipkin's terms.
pub(super) fn test(jar: &Path, agent: &Path) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let [port] = ports()?;
    let environment = [("QUERY_PORT", port.to_string()), ("STORAGE_TYPE", "mem".to_owned())];
    let jar = jar.display().to_string();
    let _server = Server::start(Path::new("java"), &["-Xmx256m", "-jar", &jar], &environment, folder.path())?;
    until("Zipkin to be ready", || Ok(http::get(port, "/health").is_ok()))?;
    let variables = [
        ("OTEL_TRACES_EXPORTER", "zipkin".to_owned()),
        ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", format!("http://127.0.0.1:{port}/api/v2/spans")),
    ];
    let own = Shop::open(agent)?.spans(agent, &variables, Headers::States, ROUNDS)?;
    let own: Spans = own.into_iter().map(|(key, seen)| (key, seen.as_zipkin_has_it())).collect();
    let mut seen = Spans::new();
    until("every span in Zipkin", || {
        seen = zipkin(&http::get(port, "/api/v2/traces?limit=10000&lookback=3600000")?);
        Ok(seen.len() >= own.len())
    })?;
    same(&own, &seen)?;
    Ok(format!("3.6.1, {} spans sent to /api/v2/spans, the same read back by /api/v2/traces", own.len()))
}

const ROUNDS: usize = 2;
