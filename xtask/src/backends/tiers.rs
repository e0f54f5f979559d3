// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Two tiers of collectors: a balancer by trace id in front of two samplers, with the configurations that are delivered.
//!
//! In: the collector's program and the agent's. Out: whether each trace came to one sampler, whether failed and slow ones
//! were kept, whether whatever was kept is whole, and whether no span changed on the way, its `tracestate` included.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{
    collector::spans,
    compare::{Seen, Spans, same},
    http,
    server::{Server, ports, until},
    shop::{Headers, Shop},
};
use crate::command::root;

/// Sends the shop's traces through both tiers.
pub(super) fn test(program: &Path, agent: &Path) -> Result<String> {
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let [a, b, front] = ports()?;
    let file = |name: &str| root().join("deploy/backends").join(name).display().to_string();
    let local = |port: u16| format!("127.0.0.1:{port}");
    let mut servers = Vec::new();
    for (port, folder) in [(a, &folders[0]), (b, &folders[1])] {
        let environment =
            [("SAMPLER", local(port)), ("OUT", folder.path().display().to_string()), ("METRICS", "none".to_owned())];
        servers.push(Server::start(program, &["--config", &file("tail-sampling.yaml")], &environment, folder.path())?);
        until("a sampler to be ready", || Ok(http::reaches(port)))?;
    }
    // The balancer last: one that finds no sampler waits five seconds to try again.
    let environment =
        [("BALANCER", local(front)), ("TIER_A", local(a)), ("TIER_B", local(b)), ("METRICS", "none".to_owned())];
    let config = file("tail-sampling-balancer.yaml");
    servers.push(Server::start(program, &["--config", &config], &environment, folders[2].path())?);
    until("the balancer to be ready", || Ok(http::reaches(front)))?;

    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", local(front))),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc".to_owned()),
    ];
    let own = Shop::open(agent)?.spans(agent, &variables, Headers::States, ROUNDS)?;
    let traces = by_trace(&own);
    let is_due = |trace: &str| traces.get(trace).is_some_and(|spans| is_kept_for_sure(spans));
    let due: Vec<_> = traces.keys().copied().filter(|trace| is_due(trace)).collect();
    ensure!(due.len() >= 2 * ROUNDS, "{} traces are slow or failed, of {ROUNDS} searches and checkouts", due.len());

    let mut kept = [Spans::new(), Spans::new()];
    until("every failed and slow trace, and all of what was kept", || {
        kept = [&folders[0], &folders[1]].map(|folder| spans(&folder.path().join("kept.jsonl")));
        let found: BTreeMap<_, _> = kept.iter().flat_map(by_trace).collect();
        let is_whole =
            |(trace, spans): (&&str, &Vec<&Seen>)| traces.get(*trace).is_some_and(|own| own.len() == spans.len());
        Ok(due.iter().all(|trace| found.contains_key(trace)) && found.iter().all(is_whole))
    })?;
    for (sampler, kept) in kept.iter().enumerate() {
        ensure!(!kept.is_empty(), "sampler {sampler} got none of {} traces", due.len());
        let sent: Spans = kept.keys().filter_map(|key| Some((key.clone(), own.get(key)?.clone()))).collect();
        same(&sent, kept).with_context(|| format!("on sampler {sampler}"))?;
    }
    let traces_of = kept.each_ref().map(by_trace);
    let both = traces_of[0].keys().find(|trace| traces_of[1].contains_key(*trace));
    ensure!(both.is_none(), "trace {both:?} is on both samplers");
    let counts = traces_of.map(|traces| traces.len());
    let dispensable = traces.len() - due.len();
    let others = counts.iter().sum::<usize>() - due.len();
    // A tenth of them is due: half of them would not come by in the age of the universe.
    ensure!(2 * others < dispensable, "{others} of {dispensable} other traces were kept: nothing is sampled");
    Ok(format!(
        "0.158.0 twice behind a balancer, {} traces sent, {} and {} kept: all {} failed and slow ones whole, {others} of \
         the {dispensable} others whole, and no span or tracestate changed",
        traces.len(),
        counts[0],
        counts[1],
        due.len()
    ))
}

fn by_trace(spans: &Spans) -> BTreeMap<&str, Vec<&Seen>> {
    let mut traces: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for ((trace, _), seen) in spans {
        traces.entry(trace).or_default().push(seen);
    }
    traces
}

fn is_kept_for_sure(spans: &[&Seen]) -> bool {
    let start = spans.iter().map(|seen| seen.start()).min().unwrap_or_default();
    let end = spans.iter().map(|seen| seen.end()).max().unwrap_or_default();
    // The sampler counts in milliseconds: one more is no matter of rounding.
    spans.iter().any(|seen| seen.failed()) || Duration::from_nanos(end - start) > SLOW + Duration::from_millis(1)
}

/// The threshold of the delivered configuration.
const SLOW: Duration = Duration::from_millis(200);

/// Twice as many traces that may be dropped: enough for a tenth of them to be neither all nor half.
const ROUNDS: usize = 24;
