// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a load came to: for the client, for the server, and for the agent that watched it.
//!
//! In: a load to do. Out: rates, latencies, CPU times, and the spans that came of it. It compares nothing.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{
    super::{process, sink::Sink},
    running::{Running, Target},
};

/// What a client saw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Requests that were answered.
    pub(super) requests: f64,
    /// By the second.
    pub(super) rate: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
}

/// What one load came to.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) seen: Seen,
    /// Microseconds of CPU time that nginx took for a request. What runs in the kernel on its behalf is part of it, and
    /// with it the agent's probes.
    pub(super) server_cpu: f64,
    /// Of the agent, until the last span of the load had come; nothing without one.
    pub(super) agent_cpu: f64,
    /// SERVER spans for a request.
    pub(super) spans: f64,
}

impl Load {
    /// Does `load` and waits for its spans.
    pub(super) fn of(
        target: &Target<'_>,
        agent: Option<&Running>,
        load: impl FnOnce() -> Result<Seen>,
    ) -> Result<Self> {
        let tally = agent.map(|agent| Tally::new(target, agent, target.sink.servers())).transpose()?;
        let before = process::cpu(target.server.pid())?;
        let seen = load()?;
        let server = process::cpu(target.server.pid())? - before;
        let (spans, agent) = tally.map_or(Ok((0, Duration::ZERO)), |tally| tally.settle(seen.requests))?;
        let per_request = |cpu: Duration| cpu.as_secs_f64() * 1e6 / seen.requests;
        Ok(Self {
            seen,
            server_cpu: per_request(server),
            agent_cpu: per_request(agent),
            spans: spans as f64 / seen.requests,
        })
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, server_cpu, agent_cpu, spans } = self;
        write!(f, "{:.0} requests/s, CPU {server_cpu:.0} + {agent_cpu:.0} µs, {spans:.2} spans", seen.rate)
    }
}

/// What an agent has delivered and taken since a moment.
pub(super) struct Tally<'a> {
    sink: &'a Sink,
    agent: &'a Running,
    spans_before: u64,
    cpu_before: Duration,
}

impl<'a> Tally<'a> {
    /// Since `spans_before`, which may have been a while ago; the CPU time counts from now.
    pub(super) fn new(target: &'a Target<'_>, agent: &'a Running, spans_before: u64) -> Result<Self> {
        Ok(Self { sink: &target.sink, agent, spans_before, cpu_before: process::cpu(agent.pid())? })
    }

    /// Waits until `expected` spans have come, or none for a while: exporters batch. How many came, and the CPU time that
    /// the agent had taken when the last one did: the idle time after it is nobody's request.
    pub(super) fn settle(self, expected: f64) -> Result<(u64, Duration)> {
        let spans = || self.sink.servers() - self.spans_before;
        let taken = || process::cpu(self.agent.pid()).map(|cpu| cpu.saturating_sub(self.cpu_before));
        let mut last = (spans(), taken()?);
        let mut since = Instant::now();
        while since.elapsed() < QUIET && (last.0 as f64) < expected {
            thread::sleep(LOOK);
            if spans() != last.0 {
                last = (spans(), taken()?);
                since = Instant::now();
            }
        }
        Ok(last)
    }
}

/// Longer than any exporter was seen to wait for a batch: 27 s, in an emulated machine (2026-11-21).
const QUIET: Duration = Duration::from_secs(30);

/// Between two looks at what has come.
const LOOK: Duration = Duration::from_millis(50);
