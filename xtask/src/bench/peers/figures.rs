// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Agents compared: each round's ratios, and the table of their medians.
//!
//! In: what the loads of a round came to, with an agent and without. Out: figures, and a table. It measures nothing.

use std::fmt::Write as _;

use super::{
    super::{
        figure::{Report, quantile},
        process::Memory,
    },
    LOADS, Named,
    tally::Load,
};

/// Adds the figures of `agents` to the report; returns them as a table.
pub(super) fn table(agents: Vec<Figures<'_>>, report: &mut Report) -> String {
    let mut table = String::from(TABLE_HEAD);
    for figures in agents {
        let agent = &figures.agent.name;
        figures.report(report);
        for load in LOADS {
            // Writing to a `String` cannot fail.
            let _ = writeln!(table, "{}", row(report, agent, load));
        }
    }
    table
}

/// What the rounds of one agent have given.
pub(super) struct Figures<'a> {
    pub(super) agent: &'a Named,
    loads: [Ratios; 2],
    memory: Vec<Memory>,
}

/// Each against nginx alone just before and just after.
#[derive(Default)]
struct Ratios {
    throughput: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    server_cpu: Vec<f64>,
    /// Against the CPU time that nginx alone takes for a request.
    agent_cpu: Vec<f64>,
    /// Not a ratio to nginx alone, which makes none.
    spans: Vec<f64>,
}

impl<'a> Figures<'a> {
    /// Of no round yet.
    pub(super) fn of(agent: &'a Named) -> Self {
        Self { agent, loads: Default::default(), memory: Vec::new() }
    }

    /// Adds a round: both loads under the agent, and alone before and after it.
    pub(super) fn add(&mut self, run: &[Load; 2], bare: [&[Load; 2]; 2], memory: Memory) {
        self.memory.push(memory);
        for (index, (ratios, load)) in self.loads.iter_mut().zip(run).enumerate() {
            let alone = |value: fn(&Load) -> f64| bare.iter().map(|bare| value(&bare[index])).sum::<f64>() / 2.0;
            ratios.throughput.push(load.seen.rate / alone(|load| load.seen.rate));
            ratios.p50.push(load.seen.p50_us / alone(|load| load.seen.p50_us));
            ratios.p99.push(load.seen.p99_us / alone(|load| load.seen.p99_us));
            ratios.server_cpu.push(load.server_cpu / alone(|load| load.server_cpu));
            ratios.agent_cpu.push(load.agent_cpu / alone(|load| load.server_cpu));
            ratios.spans.push(load.spans);
        }
    }

    fn report(self, report: &mut Report) {
        let Self { agent, loads, memory } = self;
        for (ratios, load) in loads.into_iter().zip(LOADS) {
            let Ratios { throughput, p50, p99, server_cpu, agent_cpu, spans } = ratios;
            let mut relative = |name: &str, share: f64, samples: Vec<f64>| {
                let tolerance = share * median(&samples);
                report.add(figure(&agent.name, load, name), "×", tolerance, samples);
            };
            relative("throughput", 0.1, throughput);
            relative("p50", 0.1, p50);
            relative("p99", 0.2, p99);
            relative("server_cpu", 0.05, server_cpu);
            relative("agent_cpu", 0.1, agent_cpu);
            relative("spans_per_request", 0.02, spans);
        }
        for (name, of) in
            [("rss_mib", (|memory: &Memory| memory.resident) as fn(&Memory) -> u64), ("peak_mib", |memory| memory.peak)]
        {
            let samples: Vec<_> = memory.iter().map(|memory| of(memory) as f64 / 1024.0).collect();
            report.add(format!("peers_{}_{name}", agent.name), "MiB", 0.1 * median(&samples), samples);
        }
    }
}

fn figure(agent: &str, load: &str, name: &str) -> String {
    format!("peers_{agent}_{load}_{name}")
}

/// A line of the table: medians, or the quartiles where the spread carries no median.
fn row(report: &Report, agent: &str, load: &str) -> String {
    let ratio = |name: &str| report.shown(&figure(agent, load, name), 2);
    format!(
        "| {agent} | {load} | {} | {} | {} | {} | {} | {} | {} MiB |",
        ratio("throughput"),
        ratio("p50"),
        ratio("p99"),
        ratio("server_cpu"),
        ratio("agent_cpu"),
        ratio("spans_per_request"),
        report.shown(&format!("peers_{agent}_rss_mib"), 0),
    )
}

const TABLE_HEAD: &str = "\
Against nginx alone on the same kernel; the agent's CPU time against that of nginx alone for a request. Where the machine
is emulated, the times behind these ratios mean nothing.

| agent | load | throughput | p50 | p99 | CPU of nginx | CPU of the agent | spans per request | memory |
|---|---|---|---|---|---|---|---|---|
";

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}
