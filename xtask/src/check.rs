// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What must hold before a change is looked at: formatting, lints on both targets, tidy, what an exchange costs.
//!
//! In: the sources. Out: the tools' own words, and at the end which of them were not content. It changes nothing.

use anyhow::{Context, Result, bail};

use crate::{
    bench,
    command::{cargo, run},
    ebpf,
    setup::{Purpose, ensure},
    toolchain::Toolchain,
};

/// The command `check`: all checks, also after one has failed, so that one run shows everything there is to repair.
pub(crate) fn check() -> Result<()> {
    ensure(&[Purpose::Build, Purpose::Lint])?;
    type Check = fn() -> Result<()>;
    let checks: [(&str, Check); 5] = [
        ("rustfmt", formatting),
        ("clippy on the BPF target", clippy_on_bpf),
        // After the object is built, so that the agent is compiled once, with its probes.
        ("clippy on the host", clippy_on_host),
        ("tidy", tidy_rules),
        ("instructions of an exchange", bench::count),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("check: {name}");
        if let Err(error) = check() {
            eprintln!("check: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("not content: {}", failed.join(", "));
    }
    println!("check: all content");
    Ok(())
}

/// The command `tidy`.
pub(crate) fn tidy() -> Result<()> {
    ensure(&[Purpose::Build])?;
    ebpf::build()?;
    tidy_rules()
}

fn formatting() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy_on_host() -> Result<()> {
    // The eBPF crate has no `main`, no panic handler of the host, and is checked on its own target below.
    run(cargo().args(["clippy", "--workspace", "--exclude", "spantap-ebpf", "--all-targets", "--", "-D", "warnings"]))
}

fn clippy_on_bpf() -> Result<()> {
    let toolchain = Toolchain::detect().context("no compiler for the BPF target: `cargo xtask setup`")?;
    let mut clippy = toolchain.clippy().context("no clippy for the BPF target: `cargo xtask setup`")?;
    run(clippy.args(["--", "-D", "warnings"]))?;
    ebpf::build().map(drop)
}

/// The rules are ordinary tests of this crate (`src/tidy`), next to the tests of the rules themselves.
fn tidy_rules() -> Result<()> {
    // A finding says where it was found; where in the rule's code is of no interest.
    run(cargo().env("RUST_BACKTRACE", "0").args(["test", "-p", "xtask"]))
}
