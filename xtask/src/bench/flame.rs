// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The flame graph of where the agent's time goes.
//!
//! In: the load of the part `agent`, and `perf`. Out: `docs/flame.svg`. It measures no figure: sampling takes time itself.

use std::{fs::File, io::Cursor, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use inferno::{
    collapse::{
        Collapse,
        perf::{Folder, Options},
    },
    flamegraph,
};

use super::{Bench, figure::Report, load::Paced, nginx::Nginx, sink::Sink};
use crate::{
    agent::{Agent, Output},
    command::{announce, cargo, program, root, run},
};

/// The part `flame`.
pub(super) fn draw(bench: &Bench, _: &mut Report) -> Result<()> {
    let agent = build()?;
    let server = Nginx::start()?;
    let mut load = Paced::connect(&[server.address], CONNECTIONS)?;
    let sink = Sink::open()?;
    let watched = ["--port".to_owned(), server.address.port().to_string()];
    let agent = Agent::start(&agent, Output::Otlp(&sink.endpoint()), &watched)?;
    load.run(RATE, Duration::from_secs(2))?;

    let samples = tempfile::NamedTempFile::new().context("make room for samples")?;
    let time = bench.effort.choose(Duration::from_secs(20), Duration::from_secs(5));
    let mut perf = program("perf");
    perf.args(["record", "--quiet", "--freq", FREQUENCY, "--call-graph", "fp", "--pid", &agent.pid().to_string()]);
    perf.arg("--output").arg(samples.path()).args(["--", "sleep", &time.as_secs().to_string()]);
    announce(&perf);
    let mut recording = perf.stdin(Stdio::null()).spawn().context("start perf")?;
    load.run(RATE, time)?;
    ensure!(recording.wait().context("wait for perf")?.success(), "perf failed");
    agent.stop()?;

    let mut script = program("perf");
    let script = script.args(["script", "--input"]).arg(samples.path()).stderr(Stdio::null()).output();
    let script = script.context("read perf's samples")?.stdout;
    ensure!(!script.is_empty(), "perf has no samples: is kernel.perf_event_paranoid above 1?");
    let mut folded = Vec::new();
    Folder::from(Options::default()).collapse(Cursor::new(script), &mut folded).context("fold the stacks")?;

    let file = root().join("docs/flame.svg");
    let mut options = flamegraph::Options::default();
    options.title = "Where the agent's time goes".to_owned();
    options.subtitle =
        Some(format!("{RATE} requests/s on {CONNECTIONS} connections, both ends traced, OTLP to a collector"));
    // Of the sampled clock, as perf weighs its samples.
    options.count_name = "ns".to_owned();
    // What is narrower cannot be read, and would be most of the file.
    options.min_width = 0.2;
    options.deterministic = true;
    // A picture, and no program of somebody else's in this repository.
    options.no_javascript = true;
    options.image_width = Some(1600);
    let out = File::create(&file).with_context(|| format!("write {}", file.display()))?;
    flamegraph::from_reader(&mut options, Cursor::new(folded), out).context("draw the graph")?;
    println!("{}", file.display());
    Ok(())
}

/// The released agent, with what a walk up its stack needs.
fn build() -> Result<PathBuf> {
    let target = root().join("target/bench/flame");
    let mut command = cargo();
    command.env("RUSTFLAGS", "-C force-frame-pointers=yes").args(["build", "--release", "-p", "spantap"]);
    command.args(["--config", "profile.release.strip='none'", "--config", "profile.release.debug=1"]);
    run(command.arg("--target-dir").arg(&target))?;
    Ok(target.join("release/spantap"))
}

/// As in the part `agent`.
const RATE: u32 = 10_000;

/// Likewise.
const CONNECTIONS: usize = 100;

/// Samples a second; not a divisor of the timers' rates, which would see the same moments again and again.
const FREQUENCY: &str = "1999";
