// SPDX-License-Identifier: Apache-2.0 OR MIT
//! spantap beside other agents that trace from the kernel, on one kernel.
//!
//! In: commands that start the others, which the caller has. Out: for each agent what nginx under it does against nginx
//! alone, at saturation and far below it, what the agent takes itself, and how many requests became spans. Figures are
//! ratios within a round, so that they mean something where the machine is emulated; it builds and fetches no peer.

mod figures;
mod guest;
mod running;
mod tally;

use std::{
    collections::HashSet,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, ensure};

use super::{
    Bench,
    figure::{Report, quantile},
    load::{Paced, saturate},
    nginx::Nginx,
    process,
    sink::Sink,
};
use figures::Figures;
pub(super) use guest::measure as measure_in_guest;
use running::{Running, Target};
use tally::{Load, Seen, Tally};

/// What the part `peers` is told.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Arguments {
    /// With `peers`: an agent to measure beside spantap, by its command; `{port}`, `{pid}` and `{endpoint}` in it stand for
    /// the service's and the receiver's; may be repeated
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    peers: Vec<Named>,
    /// With `peers`: a variable of the peers' environment, with the same words; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", requires = "peers")]
    variables: Vec<Named>,
    /// With `peers`: measure in a guest with this kernel of the table of `vm`
    #[arg(long)]
    pub(super) kernel: Option<String>,
    /// With `peers`: measure this executable of spantap, and build none
    #[arg(long, value_name = "FILE")]
    pub(super) agent: Option<PathBuf>,
}

impl Arguments {
    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        let Self { peers, variables, kernel, agent } = self;
        peers.is_empty() && variables.is_empty() && kernel.is_none() && agent.is_none()
    }
}

/// `NAME=VALUE`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Named {
    name: String,
    value: String,
}

impl FromStr for Named {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text.split_once('=').context("it has no `=`")?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        ensure!(!name.is_empty() && name.chars().all(is_plain), "a name is letters, digits, `_` and `-`");
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The part `peers`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let ours = Named { name: "spantap".to_owned(), value: bench.agent.display().to_string() };
    let named: Vec<_> = [&ours].into_iter().chain(&bench.peers.peers).collect();
    let names: HashSet<_> = named.iter().map(|agent| &agent.name).collect();
    ensure!(names.len() == named.len(), "two agents have one name, and with it one figure");
    let mut agents: Vec<_> = named.into_iter().map(Figures::of).collect();
    let target = Target { server: Nginx::start()?, sink: Sink::open()?, variables: &bench.peers.variables };
    saturate(target.server.address, 2)?;
    let warm = saturate(target.server.address, bench.effort.choose(6, 2))?;
    let plan = Plan {
        saturate: bench.effort.choose(8, 4),
        pace: Duration::from_secs(bench.effort.choose(15, 8)),
        rate: warm.rate * PACE,
    };

    let mut bare = plan.run(&target, None)?;
    for round in 0..bench.effort.choose(7, 3) {
        for turn in 0..agents.len() {
            // Whoever was first is last in the next round.
            let index = (turn + round) % agents.len();
            let figures = &mut agents[index];
            println!("round {}: {}", round + 1, figures.agent.name);
            let agent = Running::start(figures.agent, index == 0, &target)?;
            let spans = target.sink.servers();
            let mut requests = agent.wait_for_first_span(&target)?;
            // What is made at the first use has been made then.
            requests += saturate(target.server.address, 1)?.requests;
            Tally::new(&target, &agent, spans)?.settle(requests)?;
            let run = plan.run(&target, Some(&agent))?;
            let memory = process::memory(agent.pid())?;
            agent.stop()?;
            let after = plan.run(&target, None)?;
            figures.add(&run, [&bare, &after], memory);
            bare = after;
        }
    }
    println!("\n{}", figures::table(agents, report));
    Ok(())
}

/// How nginx is loaded in each turn.
struct Plan {
    /// Seconds of as many requests as wrk makes.
    saturate: u32,
    /// How long the other load lasts.
    pace: Duration,
    /// Its requests a second.
    rate: f64,
}

impl Plan {
    /// Both loads, without an agent or with the one that runs.
    fn run(&self, target: &Target<'_>, agent: Option<&Running>) -> Result<[Load; 2]> {
        let saturated = Load::of(target, agent, || {
            let seen = saturate(target.server.address, self.saturate)?;
            Ok(Seen { requests: seen.requests, rate: seen.rate, p50_us: seen.p50_us, p99_us: seen.p99_us })
        })?;
        let mut connections = Paced::connect(&[target.server.address], CONNECTIONS)?;
        let paced = Load::of(target, agent, || {
            let started = Instant::now();
            let mut taken = connections.pace(self.rate, self.pace)?;
            taken.sort_by(f64::total_cmp);
            let requests = taken.len() as f64;
            let rate = requests / started.elapsed().as_secs_f64();
            Ok(Seen { requests, rate, p50_us: quantile(&taken, 0.5), p99_us: quantile(&taken, 0.99) })
        })?;
        println!("  {saturated}; {paced}");
        Ok([saturated, paced])
    }
}

/// In the order of [`Plan::run`].
const LOADS: [&str; 2] = ["saturated", "paced"];

/// The paced load as a share of what nginx alone serves. OBI was seen to leave it an eighth (6.12, emulated, 2026-11-22): at
/// more than half of that, its latencies are a queue's.
const PACE: f64 = 0.05;

/// What the paced requests are spread over; wrk has as many.
const CONNECTIONS: usize = 16;

#[cfg(test)]
mod tests {
    use super::Named;

    #[test]
    fn a_peer_is_its_name_and_its_command() {
        let peer: Named = "a-b_1=/bin/x --endpoint={endpoint}".parse().unwrap();
        assert_eq!((peer.name.as_str(), peer.value.as_str()), ("a-b_1", "/bin/x --endpoint={endpoint}"));
        for refused in ["/bin/x", "=/bin/x", "a b=/bin/x", ""] {
            assert!(refused.parse::<Named>().is_err(), "{refused}");
        }
    }
}
