// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Holds the agent against traffic whose truth is known.
//!
//! In: which cases or models, and where the rows go. Out: their table, and an error when one fails. What they are stands
//! in `agent/tests/accuracy` and `agent/tests/parents`: this only builds the agent and asks for them.

use std::{
    path::{Path, PathBuf, absolute},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    build::Profile,
    command::{cargo, is_root, run},
    ebpf,
    setup::{Purpose, ensure},
};

/// The command `accuracy capture`: all cases, or those whose names contain one of `cases`.
pub(crate) fn capture(cases: &[String], json: Option<&Path>, profile: Profile) -> Result<()> {
    let mut command = test("capture", "accuracy", "what_is_captured_is_exact", profile)?;
    let wanted = if cases.is_empty() { "all".to_owned() } else { cases.join(",") };
    command.env("SPANTAP_ACCURACY", wanted);
    if let Some(file) = json {
        command.env("SPANTAP_ACCURACY_JSON", from_here(file)?);
    }
    run(&mut command)
}

/// The command `accuracy parents`.
#[derive(Debug, Args)]
pub(crate) struct Parents {
    /// Only models whose names contain this, such as `go`, `node-timers` or `aiohttp.parallel`; may be repeated
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// So many requests at once, instead of 1, 8 and 64
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=128))]
    concurrency: Option<u8>,
    /// Write the rows to this file as a JSON list
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record each row into this folder and judge it from the recording, which `spantap replay` can then look into
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
    /// Ask the agent that users get
    #[arg(long)]
    release: bool,
}

/// Runs them.
pub(crate) fn parents(arguments: &Parents) -> Result<()> {
    let profile = Profile::new(arguments.release);
    let mut command = test("parents", "parents", "no_call_hangs_under_a_foreign_request", profile)?;
    let wanted = if arguments.models.is_empty() { "all".to_owned() } else { arguments.models.join(",") };
    // What a model needs is installed when it runs: nobody needs all of them at once.
    command.env("SPANTAP_PARENTS", wanted).env("SPANTAP_PARENTS_FETCH", "1");
    if let Some(concurrency) = arguments.concurrency {
        command.env("SPANTAP_PARENTS_CONCURRENCY", concurrency.to_string());
    }
    if let Some(file) = &arguments.json {
        command.env("SPANTAP_PARENTS_JSON", from_here(file)?);
    }
    if let Some(folder) = &arguments.record {
        command.env("SPANTAP_PARENTS_RECORD", from_here(folder)?);
    }
    run(&mut command)
}

/// `cargo test` for one test of the agent, with the probes built.
fn test(command: &str, program: &str, test: &str, profile: Profile) -> Result<Command> {
    ensure(&[Purpose::Build, Purpose::Services])?;
    if !is_root() {
        bail!("loading probes takes root: sudo -E cargo xtask accuracy {command}");
    }
    ebpf::build()?;
    let mut command = cargo();
    command.args(["test", "--package", "spantap", "--test", program]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    command.args(["--", "--exact", test]);
    Ok(command)
}

/// Tests run in their package's folder, not in the developer's.
fn from_here(file: &Path) -> Result<PathBuf> {
    absolute(file).with_context(|| format!("find {}", file.display()))
}
