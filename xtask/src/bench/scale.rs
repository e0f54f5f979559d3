// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the agent's cost per request grows.
//!
//! In: the same rate of requests, spread over few and over many connections, processes and services. Out: the CPU time
//! per exchange for each, and how much the most costs beyond the least.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};

use super::{
    Bench,
    figure::{Report, quantile},
    footprint::Footprint,
    load::Paced,
    nginx::Nginx,
};

/// The part `scale`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    grow(bench, report, "connections", &[10, 100, 1_000, 10_000], |connections| {
        Ok((vec![Nginx::start()?], connections, Bystanders::start(0)?))
    })?;
    // They sleep: what they cost is that they are there.
    grow(bench, report, "processes", &[10, 500, 2_000], |processes| {
        Ok((vec![Nginx::start()?], 100, Bystanders::start(processes)?))
    })?;
    grow(bench, report, "services", &[1, 50, 200], |services| {
        let servers = (0..services).map(|_| Nginx::start()).collect::<Result<_>>()?;
        Ok((servers, 400, Bystanders::start(0)?))
    })
}

/// Servers, connections to them, and processes beside them.
type Scene = (Vec<Nginx>, usize, Bystanders);

/// Measures at each of `sizes`, by turns.
fn grow(
    bench: &Bench,
    report: &mut Report,
    what: &str,
    sizes: &[usize],
    scene: impl Fn(usize) -> Result<Scene>,
) -> Result<()> {
    let mut costs = vec![Vec::new(); sizes.len()];
    for _ in 0..bench.effort.choose(5, 3) {
        for (size, costs) in sizes.iter().zip(&mut costs) {
            let (servers, connections, _bystanders) = scene(*size)?;
            let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
            let ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
            let mut load = Paced::connect(&addresses, connections)?;
            costs.push(Footprint::at(bench, &ports, &mut load, RATE)?.cpu_per_exchange_us);
        }
    }
    let growth = match (costs.first(), costs.last()) {
        (Some(least), Some(most)) => least.iter().zip(most).map(|(least, most)| 100.0 * (most / least - 1.0)).collect(),
        _ => Vec::new(),
    };
    for (size, costs) in sizes.iter().zip(costs) {
        let mut sorted = costs.clone();
        sorted.sort_by(f64::total_cmp);
        report.add(format!("agent_cpu_us_{size}_{what}"), "µs", 0.1 * quantile(&sorted, 0.5), costs);
    }
    report.add(format!("growth_{what}_pct"), "%", 10.0, growth);
    Ok(())
}

/// Processes that do nothing; dropping them ends them.
struct Bystanders(Vec<Child>);

impl Bystanders {
    fn start(count: usize) -> Result<Self> {
        let mut bystanders = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let mut sleep = Command::new("sleep");
            sleep.arg("1h").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            bystanders.0.push(sleep.spawn().context("start a bystander")?);
        }
        Ok(bystanders)
    }
}

impl Drop for Bystanders {
    fn drop(&mut self) {
        // An error means that it is gone already.
        for child in &mut self.0 {
            child.kill().ok();
        }
        for child in &mut self.0 {
            child.wait().ok();
        }
    }
}

/// Requests a second: half of what the budgets name, so that the machine's other work matters less.
const RATE: u32 = 5_000;
