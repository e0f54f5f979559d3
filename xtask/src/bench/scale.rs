// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the agent's cost per request grows.
//!
//! In: the same rate of requests, spread over few and over many connections, processes and services, or beside such that
//! are not traced. Out: the CPU time per exchange for each, and how much the most costs beyond the least.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail};

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
        Scene::of(vec![Nginx::start()?], connections)
    })?;
    // They sleep: what they cost is that they are there.
    grow(bench, report, "processes", &[10, 500, 2_000], |processes| {
        Ok(Scene { _bystanders: Bystanders::start(processes)?, ..Scene::of(vec![Nginx::start()?], 100)? })
    })?;
    grow(bench, report, "services", &[1, 50, 200], |services| Scene::of(nginxes(services)?, 400))?;
    // Nobody traces them. What they cost the agent is what their memory takes of the processor's caches.
    grow(bench, report, "neighbours", &[1, 200], |neighbours| {
        Ok(Scene { neighbours: Some(Neighbours::start(neighbours)?), ..Scene::of(vec![Nginx::start()?], 400)? })
    })
}

/// What is traced, and what is beside it.
struct Scene {
    servers: Vec<Nginx>,
    load: Paced,
    _bystanders: Bystanders,
    neighbours: Option<Neighbours>,
}

impl Scene {
    /// Traced `servers`, with so many connections to all of them, and nothing beside them.
    fn of(servers: Vec<Nginx>, connections: usize) -> Result<Self> {
        let load = Paced::connect(&addresses(&servers), connections)?;
        Ok(Self { servers, load, _bystanders: Bystanders::start(0)?, neighbours: None })
    }
}

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
            let Scene { servers, mut load, neighbours, _bystanders } = scene(*size)?;
            let ports: Vec<u16> = servers.iter().map(|server| server.address.port()).collect();
            costs.push(Footprint::at(bench, &ports, &mut load, RATE)?.cpu_per_exchange_us);
            neighbours.map_or(Ok(()), Neighbours::stop)?;
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

fn nginxes(count: usize) -> Result<Vec<Nginx>> {
    (0..count).map(|_| Nginx::start()).collect()
}

fn addresses(servers: &[Nginx]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

/// Servers that nobody traces, and as many requests to all of them as the traced ones get; dropping them ends both.
struct Neighbours {
    stop: Arc<AtomicBool>,
    load: Option<JoinHandle<Result<()>>>,
}

impl Neighbours {
    fn start(count: usize) -> Result<Self> {
        let servers = nginxes(count)?;
        let mut load = Paced::connect(&addresses(&servers), 400)?;
        let stop = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&stop);
        let load = thread::spawn(move || {
            while !asked.load(Relaxed) {
                load.run(RATE, Duration::from_millis(500))?;
            }
            drop(servers);
            Ok(())
        });
        Ok(Self { stop, load: Some(load) })
    }

    /// Ends them; an error if their rate was not held.
    fn stop(mut self) -> Result<()> {
        self.stop.store(true, Relaxed);
        let Some(load) = self.load.take() else { return Ok(()) };
        load.join().unwrap_or_else(|_| bail!("the load of the neighbours panicked"))
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
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
