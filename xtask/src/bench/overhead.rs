// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What traced programs lose.
//!
//! In: a server and its load, without and with the agent by turns. Out: throughput, latency and CPU time lost. A round
//! is a pair, and a sample the difference within the pair, so that what the machine does otherwise hits both halves.

use std::time::Duration;

use anyhow::Result;

use super::{
    Bench, exchange,
    figure::Report,
    floor::{self, Does, Floor},
    load::{Saturation, saturate},
    nginx::Nginx,
    pair, process, service,
    sink::Sink,
};
use crate::agent::{Agent, Output};

/// The part `overhead`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    nginx(bench, report)?;
    nginx_floors(bench, report)?;
    flood(bench, report)?;
    service::measure(bench, report)?;
    exchange::measure(bench, report)
}

/// nginx at saturation; every request a span.
fn nginx(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = bench.effort.choose(15, 5);
    let seconds = bench.effort.choose(2, 1);
    let mut server = Nginx::start()?;
    let sink = Sink::open()?;
    let watched = ["--port".to_owned(), server.address.port().to_string()];
    let endpoint = sink.endpoint();
    saturate(server.address, 1)?;

    for (output, prefix) in [(Output::Otlp(&endpoint), "nginx"), (Output::Print, "nginx_print")] {
        let [mut losses, mut latencies, mut cpus, mut capacities, mut untraced] = [const { Vec::new() }; 5];
        for round in 0..rounds {
            let (off, on) = pair(
                round,
                &mut server,
                |server| Run::of(server, None, seconds),
                |server| {
                    let agent = Agent::start(&bench.agent, output, &watched)?;
                    let before = sink.spans();
                    let run = Run::of(server, Some(&agent), seconds)?;
                    agent.stop()?;
                    if let Output::Otlp(_) = output {
                        untraced.push(100.0 * (1.0 - (sink.spans() - before) as f64 / 2.0 / run.seen.requests));
                    }
                    Ok(run)
                },
            )?;
            losses.push(100.0 * (1.0 - on.seen.rate / off.seen.rate));
            latencies.push(on.seen.p99_us - off.seen.p99_us);
            cpus.push(100.0 * (on.server_cpu / off.server_cpu - 1.0));
            capacities.push(100.0 * (1.0 - off.machine_cpu / on.machine_cpu));
        }
        report.add(format!("{prefix}_throughput_loss_pct"), "%", 1.5, losses);
        report.add(format!("{prefix}_p99_added_us"), "µs", 25.0, latencies);
        report.add(format!("{prefix}_cpu_added_pct"), "%", 1.5, cpus);
        report.add(format!("{prefix}_capacity_loss_pct"), "%", 1.5, capacities);
        report.add("nginx_untraced_pct", "%", 1.0, untraced);
    }
    Ok(())
}

/// The same with programs that do nothing, or hand over empty records: what no agent can be below.
fn nginx_floors(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut server = Nginx::start()?;
    let lowest = floor::build()?;
    saturate(server.address, 1)?;
    for (does, name) in
        [(Does::Nothing, "nginx_floor_empty_programs_pct"), (Does::Record, "nginx_floor_empty_records_pct")]
    {
        let mut losses = Vec::new();
        for round in 0..bench.effort.choose(15, 5) {
            let (off, on) = pair(
                round,
                &mut server,
                |server| saturate(server.address, 2),
                |server| {
                    let _attached = Floor::start(&lowest, does)?;
                    saturate(server.address, 2)
                },
            )?;
            losses.push(100.0 * (1.0 - on.rate / off.rate));
        }
        report.add(name, "%", 1.5, losses);
    }
    Ok(())
}

/// More requests than the machine can serve with every one a span, and an agent with the budget that users have: what
/// nginx loses once the agent has stepped down as far as it will.
fn flood(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut server = Nginx::start()?;
    let sink = Sink::open()?;
    let watched = ["--port".to_owned(), server.address.port().to_string()];
    let mut losses = Vec::new();
    for round in 0..bench.effort.choose(7, 3) {
        let (off, on) = pair(
            round,
            &mut server,
            |server| saturate(server.address, FLOOD),
            |server| {
                let agent = Agent::with_budget(&bench.agent, Output::Otlp(&sink.endpoint()), &watched, true)?;
                saturate(server.address, STEPS_DOWN)?;
                let seen = saturate(server.address, FLOOD)?;
                agent.stop()?;
                Ok(seen)
            },
        )?;
        losses.push(100.0 * (1.0 - on.rate / off.rate));
    }
    report.add("flood_throughput_loss_pct", "%", 1.5, losses);
    Ok(())
}

/// One half of a pair.
struct Run {
    seen: Saturation,
    /// Microseconds of CPU time that nginx took for a request. Other programs on the machine hardly touch it, unlike
    /// the throughput.
    server_cpu: f64,
    /// The same of nginx, wrk and the agent together: what the machine could serve if all of its CPUs were busy with
    /// nothing else.
    machine_cpu: f64,
}

impl Run {
    fn of(server: &Nginx, agent: Option<&Agent>, seconds: u32) -> Result<Self> {
        let server_cpu = || process::cpu(server.pid());
        let agent_cpu = || agent.map_or(Ok(Duration::ZERO), |agent| process::cpu(agent.pid()));
        let before = (server_cpu()?, agent_cpu()?, process::children()?);
        let seen = saturate(server.address, seconds)?;
        let server = server_cpu()? - before.0;
        let machine = server + (agent_cpu()? - before.1) + (process::children()? - before.2);
        let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / seen.requests;
        Ok(Self { seen, server_cpu: per_request(server), machine_cpu: per_request(machine) })
    }
}

/// Seconds of a flood that are measured.
const FLOOD: u32 = 3;

/// Seconds until the agent has stepped down twice: it waits three before each.
const STEPS_DOWN: u32 = 12;
