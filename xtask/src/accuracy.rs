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

/// The command `accuracy assigned`.
#[derive(Debug, Args)]
pub(crate) struct Assigned {
    /// Recordings, or folders of them: DeepTrace's spans (`*.json`, `*.json.gz`), or TraceWeaver's as one object a line
    /// (`*.jsonl`, `*.jsonl.gz`); see docs/accuracy.md
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How often each is laid over itself
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2, 3, 4, 5, 6],
          value_parser = clap::value_parser!(u8).range(1..=32))]
    overlay: Vec<u8>,
    /// Play each so many times and judge the last: what a process does is learned in the others
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    rounds: u8,
    /// Of a hundred requests, how many pass an id on with their calls: exact evidence to learn from, and not judged
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=90))]
    known: Option<u8>,
    /// Write the rows to this file as a JSON list
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Plays them to the tracer alone, which is built in a minute where the agent takes many.
pub(crate) fn assigned(arguments: &Assigned) -> Result<()> {
    let mut files = Vec::new();
    for file in &arguments.files {
        recordings(file, &mut files)?;
    }
    if files.is_empty() {
        bail!("no recording in {:?}", arguments.files);
    }
    let overlay: Vec<String> = arguments.overlay.iter().map(u8::to_string).collect();
    let mut command = cargo();
    command.args(["run", "--quiet", "--release", "--package", "spantap-count", "--bin", "spantap-assigned", "--"]);
    command.arg(arguments.json.as_deref().unwrap_or(Path::new("-")));
    command.args([overlay.join(","), arguments.rounds.to_string()]);
    command.arg(arguments.known.map_or("0,20".to_owned(), |known| known.to_string()));
    run(command.args(files))
}

/// All of them in a folder, or the file itself.
fn recordings(file: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let opened = || format!("read {}", file.display());
    if !file.metadata().with_context(opened)?.is_dir() {
        found.push(file.to_path_buf());
        return Ok(());
    }
    let entries = file.read_dir().with_context(opened)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries: Vec<PathBuf> = entries.collect::<std::io::Result<_>>().with_context(opened)?;
    entries.sort();
    for entry in entries {
        let name = entry.to_string_lossy();
        if entry.is_dir() || [".json", ".json.gz", ".jsonl", ".jsonl.gz"].iter().any(|end| name.ends_with(end)) {
            recordings(&entry, found)?;
        }
    }
    Ok(())
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
