// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent costs, measured on this machine: `docs/performance.md` says how to read it.
//!
//! In: the parts to measure. Out: a table of figures with their spread, and the same as JSON. A figure whose spread is
//! too wide to carry it is withheld; nothing here judges whether a figure is good.

mod alternatives;
mod budget;
mod clock;
mod conditions;
mod exchange;
mod figure;
mod flame;
mod floor;
mod footprint;
mod instructions;
mod load;
mod nginx;
mod overhead;
mod peers;
mod process;
mod scale;
mod service;
mod sink;
mod startup;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    build::{self, Profile},
    command::{cargo, is_root, run},
    setup::{Purpose, ensure},
};

use conditions::Conditions;
use figure::Report;
pub(crate) use peers::Arguments as Peers;

/// A part of the bench.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Part {
    /// What traced programs lose: nginx at saturation, a slow service, bare exchanges, other calls, bulk transfers
    Overhead,
    /// What the agent itself takes: CPU time per exchange, memory
    Agent,
    /// Instructions and allocations per exchange, counted; fails when they exceed the baseline
    Instructions,
    /// How long each of the pure stages takes by itself
    Stages,
    /// How the cost per request grows with connections, processes and services
    Scale,
    /// From the start of the process to live probes and to the first exported span
    Startup,
    /// The same service in four languages, bare, traced, and with its language's own instrumentation
    Alternatives,
    /// spantap beside other kernel-side agents that you have, on one kernel, which may be a guest's
    Peers,
    /// Not a figure but a picture: `docs/flame.svg`, where the agent's time goes, by `perf`
    Flame,
    /// Everything but the peers and the picture
    All,
}

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effort {
    /// What figures are published from.
    Full,
    /// Enough to see whether a change made a difference of tens of percent.
    Quick,
}

impl Effort {
    /// The effort that the flag `--quick` asks for.
    pub(crate) fn new(quick: bool) -> Self {
        if quick { Self::Quick } else { Self::Full }
    }

    /// `full`, or `quick` in a hurry.
    fn choose<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// The command `bench`.
pub(crate) fn bench(part: Part, effort: Effort, peers: Peers, json: Option<&Path>) -> Result<()> {
    if part != Part::Peers && !peers.is_empty() {
        bail!("`--peer`, `--env`, `--kernel` and `--agent` belong to `bench peers`");
    }
    if !is_root() {
        bail!("the bench loads probes, which takes root: `sudo -E cargo xtask bench`");
    }
    ensure(&[Purpose::Bench])?;
    let agent = match &peers.agent {
        Some(agent) => agent.clone(),
        None => {
            ensure(&[Purpose::Build, Purpose::Lint])?;
            build::build(Profile::Release)?
        }
    };
    if let Some(kernel) = &peers.kernel {
        return peers::measure_in_guest(kernel, &agent, &peers, effort, json);
    }
    let bench = Bench { agent, effort, peers };
    load::allow_many_connections()?;
    let conditions = Conditions::now(bench.peers.agent.as_deref())?;
    println!("{conditions}");

    let mut report = Report::default();
    type Measure = fn(&Bench, &mut Report) -> Result<()>;
    let parts: [(Part, Measure); 9] = [
        (Part::Overhead, overhead::measure),
        (Part::Agent, footprint::measure),
        (Part::Instructions, instructions::measure),
        (Part::Stages, stages),
        (Part::Scale, scale::measure),
        (Part::Startup, startup::measure),
        (Part::Alternatives, alternatives::measure),
        (Part::Peers, peers::measure),
        (Part::Flame, flame::draw),
    ];
    let mut failed = Vec::new();
    for (name, measure) in parts {
        if part == name || part == Part::All && !matches!(name, Part::Peers | Part::Flame) {
            println!("\n{name:?}");
            // The others' figures are worth their minutes all the same.
            if let Err(error) = measure(&bench, &mut report) {
                eprintln!("bench: {name:?}: {error:#}");
                failed.push(format!("{name:?}"));
            }
        }
    }
    println!("\n{report}\nload at the end: {}", conditions::load()?);
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report.json(&conditions)).context("write the figures as JSON")?;
        fs::write(file, text + "\n").with_context(|| format!("write {}", file.display()))?;
    }
    if !failed.is_empty() {
        bail!("not measured, or not within bounds: {}", failed.join(", "));
    }
    Ok(())
}

/// What `cargo xtask check` asks: whether an exchange takes more instructions than the baseline allows.
pub(crate) fn count() -> Result<()> {
    instructions::check()
}

/// Prints its own table: a stage by itself has no budget, and the time of all of them is `agent_cpu_per_exchange_us`.
fn stages(_: &Bench, _: &mut Report) -> Result<()> {
    run(cargo().args(["bench", "--package", "spantap-count", "--bench", "stages"]))
}

/// What every part needs to know.
struct Bench {
    /// The released agent.
    agent: PathBuf,
    effort: Effort,
    peers: Peers,
}

/// Measures `subject` without and with the agent, by turns in this order and in the other: what drifts in one direction
/// evens out.
fn pair<S, T>(
    round: usize,
    subject: &mut S,
    without: impl FnOnce(&mut S) -> Result<T>,
    with: impl FnOnce(&mut S) -> Result<T>,
) -> Result<(T, T)> {
    if round.is_multiple_of(2) {
        let off = without(subject)?;
        Ok((off, with(subject)?))
    } else {
        let on = with(subject)?;
        Ok((without(subject)?, on))
    }
}
