// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions and allocations of an exchange, counted rather than timed.
//!
//! In: the pure stages, built alone (`agent/count`), and the benches' stream. Out: what an exchange takes from its records
//! to its two spans, and an error where that is more than the last line of the baseline allows. It does not know what a
//! machine makes of the numbers; the same commit gives the same ones on every machine with the same compiler and libc.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Bench, figure::Report};
use crate::command::{announce, cargo, root, run};

/// The part `instructions`.
pub(super) fn measure(_: &Bench, report: &mut Report) -> Result<()> {
    let cost = Cost::of(&build()?)?;
    report.add("instructions_per_exchange", "", 0.0, vec![cost.instructions]);
    report.add("allocations_per_exchange", "", 0.0, vec![cost.allocations]);
    cost.is_within(&baseline()?)
}

/// What `cargo xtask check` does: the same in a line.
pub(crate) fn check() -> Result<()> {
    let cost = Cost::of(&build()?)?;
    println!("check: an exchange takes {:.0} instructions and {:.1} allocations", cost.instructions, cost.allocations);
    cost.is_within(&baseline()?)
}

/// The stages alone: the agent takes minutes to build in release, and its shell is not counted anyway.
fn build() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--quiet", "-p", "spantap-count"]))?;
    Ok(root().join("target/release/spantap-count"))
}

/// What one exchange takes.
#[derive(Clone, Copy, Debug)]
struct Cost {
    instructions: f64,
    allocations: f64,
}

impl Cost {
    fn of(program: &Path) -> Result<Self> {
        let folder = root().join("target/bench");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let file = folder.join("callgrind.out");
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--tool=callgrind", "--toggle-collect=*counted_stages*"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(program)
            .arg(EXCHANGES)
            .stdin(Stdio::null());
        announce(&valgrind);
        let output = valgrind.output().context("start valgrind")?;
        if !output.status.success() {
            bail!("the stages failed under valgrind: {}", String::from_utf8_lossy(&output.stderr));
        }
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let numbers: Option<Vec<f64>> = said.split_whitespace().map(parse).collect();
        let Some(&[exchanges, spans, allocations]) = numbers.as_deref() else {
            bail!("the stages said something else: {said}");
        };
        // The flow is even; spans wait some milliseconds, so that those of the beginning stand for those of the end.
        ensure!((spans / exchanges - 2.0).abs() < 0.1, "{spans} spans came of {exchanges} exchanges");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let instructions = collected(&text).with_context(|| format!("{} has no total", file.display()))?;
        Ok(Self { instructions: instructions / exchanges, allocations: allocations / exchanges })
    }

    fn is_within(&self, baseline: &Baseline) -> Result<()> {
        let (limit, taken) = (baseline.instructions * (1.0 + ALLOWED), self.instructions);
        ensure!(
            taken <= limit,
            "an exchange takes {taken:.0} instructions, {limit:.0} are allowed: find out why, or add a line with the \
             number and the reason to {BASELINE}"
        );
        if taken < baseline.instructions * (1.0 - ALLOWED) {
            println!("{taken:.0} instructions are far below the {:.0} in {BASELINE}: lower it", baseline.instructions);
        }
        Ok(())
    }
}

fn parse(number: &str) -> Option<f64> {
    number.parse().ok()
}

/// What an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Baseline {
    instructions: f64,
}

fn baseline() -> Result<Baseline> {
    let text = fs::read_to_string(root().join(BASELINE)).with_context(|| format!("read {BASELINE}"))?;
    Baseline::parse(&text).with_context(|| format!("the last line of {BASELINE} has no number with a reason"))
}

impl Baseline {
    /// The last line that is no comment: a number, and why it is that.
    fn parse(text: &str) -> Option<Self> {
        let last = text.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with('#'))?;
        let (number, reason) = last.split_once(' ')?;
        (!reason.trim().is_empty()).then_some(Self { instructions: parse(number)? })
    }
}

/// The sum in callgrind's output, a line `totals: N` (<https://valgrind.org/docs/manual/cl-format.html>).
fn collected(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("totals:")).and_then(|total| parse(total.trim()))
}

/// Where the baseline is.
const BASELINE: &str = "agent/count/baseline.txt";

/// The share by which an exchange may exceed the baseline.
const ALLOWED: f64 = 0.05;

/// Exchanges of the stream, of which the second half is counted: some ten seconds under valgrind.
const EXCHANGES: &str = "10000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read() {
        assert_eq!(collected("events: Ir\nfn=main\n0 10\ntotals: 4711\n"), Some(4711.0));
        assert_eq!(collected("events: Ir\nfn=main\n0 10\n"), None);
    }

    #[test]
    fn the_last_line_of_the_baseline_counts_if_it_has_a_reason() {
        let parse = |text| Baseline::parse(text).map(|baseline| baseline.instructions);
        assert_eq!(parse("# why\n40000 first\n41000 more is parsed\n\n"), Some(41_000.0));
        assert_eq!(parse("41000\n"), None);
        assert_eq!(parse("41000 \n"), None);
        assert_eq!(parse("# nothing\n"), None);
    }
}
