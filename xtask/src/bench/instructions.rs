// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions and allocations of an exchange, counted rather than timed.
//!
//! In: the released agent and the benches' stream, of two lengths. Out: what one more exchange takes, from the record
//! to the finished span: what the process does once cancels out. It does not know what a machine makes of the numbers;
//! the same commit gives nearly the same ones on every machine with the same compiler.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Bench, figure::Report};
use crate::command::{cargo, root, run};

/// The part `instructions`. An error when an exchange takes more than the baseline allows.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let Cost { instructions, allocations } = Cost::of(&bench.agent)?;
    report.add("instructions_per_exchange", "", 0.0, vec![instructions]);
    report.add("allocations_per_exchange", "", 0.0, vec![allocations]);
    let limit = BASELINE * (1.0 + ALLOWED);
    ensure!(
        instructions <= limit,
        "an exchange takes {instructions:.0} instructions, {limit:.0} are allowed: find out why, or raise the baseline \
         in {} and give the reason in the commit",
        file!()
    );
    Ok(())
}

/// What one exchange takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    instructions: f64,
    allocations: f64,
}

impl Cost {
    fn of(agent: &Path) -> Result<Self> {
        let folder = root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let few = Profile::of(agent, &folder, FEW)?;
        let many = Profile::of(agent, &folder, MANY)?;
        let per_exchange = |few: u64, many: u64| (many as f64 - few as f64) / f64::from(MANY - FEW);
        Ok(Self {
            instructions: per_exchange(few.instructions, many.instructions),
            allocations: per_exchange(few.allocations, many.allocations) - REPLAY_ALLOCATIONS,
        })
    }
}

/// What callgrind counted in one run.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Profile {
    instructions: u64,
    /// Calls of `malloc`, `calloc` and `realloc`.
    allocations: u64,
}

impl Profile {
    fn of(agent: &Path, folder: &Path, exchanges: u32) -> Result<Self> {
        let recording = record(folder, exchanges)?;
        let file = folder.join(format!("callgrind.{exchanges}"));
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(agent)
            .args(["replay", "--quiet"])
            .arg(&recording)
            // The pure stages alone: what leaves them goes nowhere.
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .output()
            .context("start valgrind")?;
        if !output.status.success() {
            bail!("the replay failed under valgrind: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} has no totals", file.display()))
    }

    /// Reads callgrind's output: a line `totals: N`, and for each caller of a function `cfn=NAME` with `calls=N` in the
    /// line after (<https://valgrind.org/docs/manual/cl-format.html>).
    fn parse(text: &str) -> Option<Self> {
        let mut profile = Self::default();
        let mut callee = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                if ["malloc", "calloc", "realloc"].contains(&callee) {
                    profile.allocations += calls.split_whitespace().next()?.parse::<u64>().ok()?;
                }
            } else if let Some(total) = line.strip_prefix("totals:") {
                profile.instructions = total.trim().parse().ok()?;
            }
        }
        (profile.instructions > 0).then_some(profile)
    }
}

fn record(folder: &Path, exchanges: u32) -> Result<PathBuf> {
    let file = folder.join(format!("stream.{exchanges}"));
    run(cargo()
        .args(["run", "--quiet", "-p", "spantap", "--example", "recording", "--"])
        .arg(&file)
        .arg(exchanges.to_string()))?;
    Ok(file)
}

/// Instructions of an exchange when they were last looked at (2026-11, rustc 1.95, x86-64). Lower it with every gain.
const BASELINE: f64 = 34_400.0;

/// Allocations of an exchange that are the replay's own: a buffer for each of its records.
const REPLAY_ALLOCATIONS: f64 = 4.0;

/// The share by which an exchange may exceed the baseline.
const ALLOWED: f64 = 0.05;

/// Exchanges of the shorter stream: tables and buffers have their size by then.
const FEW: u32 = 5_000;

/// Exchanges of the longer one.
const MANY: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_and_calls_are_read() {
        let text = "events: Ir\nfn=main\n0 10\ncfn=malloc\ncalls=3 0\n0 300\ncfn=free\ncalls=2 0\n0 20\nfn=other\n\
                    cfn=realloc\ncalls=1 0\n0 9\ntotals: 4711\n";
        assert_eq!(Profile::parse(text), Some(Profile { instructions: 4711, allocations: 4 }));
    }

    #[test]
    fn output_without_totals_is_no_profile() {
        assert_eq!(Profile::parse("cfn=malloc\ncalls=3 0\n"), None);
    }
}
