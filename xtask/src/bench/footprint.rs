// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent itself takes: CPU time per exchange, memory.
//!
//! In: a rate of requests that is held whether the agent runs or not. Out: figures of the agent's process. An exchange
//! is a request and its response, of which both ends are on this machine: two spans, from the sockets to OTLP bytes on
//! the wire. The collector is another process's affair.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};

use super::{Bench, figure::Report, load::Paced, nginx::Nginx, process, sink::Sink};
use crate::agent::{Agent, Output};

/// The part `agent`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    idle(bench, report)?;
    for (connections, cpu, resident, peak) in [
        (100, "agent_cpu_per_exchange_us", "rss_mib_100", "rss_peak_mib_100"),
        (10_000, "agent_cpu_per_exchange_10k_us", "rss_mib_10k", "rss_peak_mib_10k"),
    ] {
        let server = Nginx::start()?;
        let mut load = Paced::connect(&[server.address], connections)?;
        let rounds = bench.effort.choose(7, 3);
        let (mut cpus, mut residents, mut peaks, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let taken = Footprint::at(bench, &[server.address.port()], &mut load, RATE)?;
            cpus.push(taken.cpu_per_exchange_us);
            residents.push(taken.memory.resident as f64 / 1024.0);
            peaks.push(taken.memory.peak as f64 / 1024.0);
            bytes.push(taken.bytes_per_exchange);
        }
        report.add(cpu, "µs", 0.5, cpus);
        report.add(resident, "MiB", 2.0, residents);
        report.add(peak, "MiB", 2.0, peaks);
        if connections == 100 {
            report.add("otlp_bytes_per_exchange", "B", 50.0, bytes);
        }
    }
    Ok(())
}

/// What the agent took while a load lasted.
pub(super) struct Footprint {
    pub(super) cpu_per_exchange_us: f64,
    pub(super) memory: process::Memory,
    pub(super) bytes_per_exchange: f64,
}

impl Footprint {
    /// Starts an agent that watches `ports`, and holds `rate` requests a second for a while. An error unless every
    /// request became two spans: an agent that loses some is a cheaper one.
    pub(super) fn at(bench: &Bench, ports: &[u16], load: &mut Paced, rate: u32) -> Result<Self> {
        let sink = Sink::open()?;
        let watched: Vec<_> = ports.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]).collect();
        let agent = Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched)?;
        // Every connection is introduced once; that is the price of a connection, not of a request.
        let all_connections = Duration::from_secs_f64(load.connections() as f64 / f64::from(rate));
        let warm = load.run(rate, WARM_UP + all_connections)?;
        let (cpu_before, bytes_before, spans_before) = (process::cpu(agent.pid())?, sink.bytes(), sink.spans());
        let requests = load.run(rate, bench.effort.choose(Duration::from_secs(5), Duration::from_secs(2)))?;
        let cpu = process::cpu(agent.pid())? - cpu_before;
        let (bytes, spans) = (sink.bytes() - bytes_before, sink.spans() - spans_before);
        let memory = process::memory(agent.pid())?;
        let words = agent.stop()?;
        let all = warm + requests;
        let traced = sink.spans() as f64 / (2 * all) as f64;
        ensure!(traced > TRACED, "{} of {} spans came: {}", sink.spans(), 2 * all, words.join(" · "));
        Ok(Self {
            cpu_per_exchange_us: cpu.as_secs_f64() * 1e6 / requests as f64,
            memory,
            bytes_per_exchange: 2.0 * bytes as f64 / spans as f64,
        })
    }
}

/// The agent with nothing to do.
fn idle(bench: &Bench, report: &mut Report) -> Result<()> {
    let rounds = bench.effort.choose(5, 3);
    let (mut residents, mut cpus) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let sink = Sink::open()?;
        // Port 9 is `discard`: nobody talks to it.
        let watched = ["--port".to_owned(), "9".to_owned()];
        let agent = Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched)?;
        let before = process::cpu(agent.pid())?;
        thread::sleep(IDLE);
        let taken = process::cpu(agent.pid())? - before;
        residents.push(process::memory(agent.pid())?.resident as f64 / 1024.0);
        cpus.push(100.0 * taken.as_secs_f64() / IDLE.as_secs_f64());
        agent.stop()?;
    }
    report.add("rss_mib_idle", "MiB", 1.0, residents);
    report.add("cpu_idle_pct", "%", 0.1, cpus);
    Ok(())
}

/// Requests a second: what the budgets name.
const RATE: u32 = 10_000;

/// Until queues, tables and the first batches have their size.
const WARM_UP: Duration = Duration::from_millis(1500);

/// How long an idle agent is looked at.
const IDLE: Duration = Duration::from_secs(2);

/// The share of spans that must have come for a figure to count. What is missing are requests at the very end.
const TRACED: f64 = 0.999;
