// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a user would pick instead, beside spantap.
//!
//! In: one small service in four languages, which answers every request by a call of its own. Out: for each language what
//! it does bare, under spantap, and with that language's usual OpenTelemetry instrumentation: throughput, latency, CPU time
//! and memory, the agent's included. Everybody exports to a receiver of the same kind. It judges no instrumentation: how
//! many spans each makes stands beside what it costs.

mod install;
mod language;

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    Bench,
    figure::{Report, quantile},
    load::saturate,
    nginx::Nginx,
    process,
    sink::Sink,
};
use crate::agent::{Agent, Output};
use language::{Language, Service};

/// The part `alternatives`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut table = String::from(TABLE_HEAD);
    for language in Language::ALL {
        install::install(language)?;
        for (variant, samples) in compare(bench, language)? {
            let prefix = format!("alternatives_{}_{}", language.name(), variant.name());
            samples.report(report, &prefix);
            // Writing to a `String` cannot fail.
            let _ = writeln!(table, "{}", row(report, &prefix, language, variant));
        }
    }
    println!("\n{table}");
    Ok(())
}

/// How the service runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Variant {
    Bare,
    Spantap,
    /// The language's own instrumentation.
    Otel,
}

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Spantap => "spantap",
            Self::Otel => "otel",
        }
    }
}

/// What the rounds of one variant have given.
#[derive(Debug, Default)]
struct Samples {
    throughput: Vec<f64>,
    /// Against the bare service in the same round.
    loss_pct: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_us: Vec<f64>,
    rss_mib: Vec<f64>,
    /// One sample, of all rounds; none of the bare service.
    spans_per_request: Vec<f64>,
}

impl Samples {
    fn report(self, report: &mut Report, prefix: &str) {
        let Self { throughput, loss_pct, p99_us, cpu_us, rss_mib, spans_per_request } = self;
        let mut relative = |name: &str, unit, share: f64, samples: Vec<f64>| {
            let tolerance = share * median(&samples).abs();
            report.add(format!("{prefix}_{name}"), unit, tolerance, samples);
        };
        relative("throughput", "/s", 0.05, throughput);
        relative("p99_us", "µs", 0.2, p99_us);
        relative("cpu_per_request_us", "µs", 0.05, cpu_us);
        relative("rss_mib", "MiB", 0.1, rss_mib);
        report.add(format!("{prefix}_throughput_loss_pct"), "%", 3.0, loss_pct);
        report.add(format!("{prefix}_spans_per_request"), "", 0.0, spans_per_request);
    }
}

/// A line of the table; what is withheld stays empty.
fn row(report: &Report, prefix: &str, language: Language, variant: Variant) -> String {
    let how = match variant {
        Variant::Bare => "bare",
        Variant::Spantap => "spantap",
        Variant::Otel => language.instrumentation(),
    };
    let shown = |name: &str, scale: f64, digits: usize, unit: &str| {
        let median = report.carried(&format!("{prefix}_{name}"));
        median.map_or_else(String::new, |median| format!("{:.digits$}{unit}", median / scale))
    };
    format!(
        "| {} | {how} | {} | {} | {} | {} | {} |",
        language.label(),
        shown("throughput", 1.0, 0, ""),
        shown("p99_us", 1e3, 2, " ms"),
        shown("cpu_per_request_us", 1.0, 0, " µs"),
        shown("rss_mib", 1.0, 0, " MiB"),
        shown("spans_per_request", 1.0, 2, ""),
    )
}

/// All variants of one language, by turns in each round.
fn compare(bench: &Bench, language: Language) -> Result<[(Variant, Samples); 3]> {
    let backend = Nginx::start()?;
    let (ours, theirs) = (Sink::open()?, Sink::open()?);
    let bare = Service::start(language, backend.address, None)?;
    let instrumented = Service::start(language, backend.address, Some(&theirs.endpoint()))?;
    // Just-in-time compilers, pools and caches have done their work by then.
    let warm = bench.effort.choose(6, 2);
    saturate(bare.address, warm)?;
    let (mut requests_traced, mut requests_instrumented) = (0.0, saturate(instrumented.address, warm)?.requests);

    let mut all = [Variant::Bare, Variant::Spantap, Variant::Otel].map(|variant| (variant, Samples::default()));
    for round in 0..bench.effort.choose(5, 3) {
        let mut rates = [f64::NAN; 3];
        for turn in 0..all.len() {
            // Whoever was first is last in the next round.
            let index = (turn + round) % all.len();
            let (variant, samples) = &mut all[index];
            let (service, agent) = match variant {
                Variant::Bare => (&bare, None),
                Variant::Spantap => {
                    let watched = ["--pid".to_owned(), bare.pid().to_string()];
                    (&bare, Some(Agent::start(&bench.agent, Output::Otlp(&ours.endpoint()), &watched)?))
                }
                Variant::Otel => (&instrumented, None),
            };
            let pids: Vec<u32> = [service.pid()].into_iter().chain(agent.as_ref().map(Agent::pid)).collect();
            let cpu = || pids.iter().map(|pid| process::cpu(*pid)).sum::<Result<Duration>>();
            let before = cpu()?;
            let seen = saturate(service.address, bench.effort.choose(4, 2))?;
            let taken = cpu()? - before;
            let resident: u64 =
                pids.iter().map(|pid| process::memory(*pid).map(|memory| memory.resident)).sum::<Result<_>>()?;
            if let Some(agent) = agent {
                agent.stop()?;
                requests_traced += seen.requests;
            } else if *variant == Variant::Otel {
                requests_instrumented += seen.requests;
            }
            rates[index] = seen.rate;
            samples.throughput.push(seen.rate);
            samples.p99_us.push(seen.p99_us);
            samples.cpu_us.push(taken.as_secs_f64() * 1e6 / seen.requests);
            samples.rss_mib.push(resident as f64 / 1024.0);
        }
        for ((_, samples), rate) in all.iter_mut().zip(rates).skip(1) {
            samples.loss_pct.push(100.0 * (1.0 - rate / rates[0]));
        }
    }
    let spans = [None, Some(ours.spans() as f64 / requests_traced), Some(settled(&theirs) / requests_instrumented)];
    for ((_, samples), spans) in all.iter_mut().zip(spans) {
        samples.spans_per_request.extend(spans);
    }
    Ok(all)
}

/// The spans that have come once no more come: exporters batch.
fn settled(sink: &Sink) -> f64 {
    let (mut spans, mut since) = (sink.spans(), Instant::now());
    while since.elapsed() < QUIET {
        thread::sleep(LOOK);
        if sink.spans() != spans {
            (spans, since) = (sink.spans(), Instant::now());
        }
    }
    spans as f64
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

const TABLE_HEAD: &str = "\
| service | instrumented by | requests/s | p99 | CPU per request | memory | spans per request |
|---|---|---|---|---|---|---|
";

/// Twice the delay that batches are given.
const QUIET: Duration = Duration::from_secs(2);

/// Between two looks at what has come.
const LOOK: Duration = Duration::from_millis(50);
