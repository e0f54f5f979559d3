// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds the agent around its probes, and starts it.
//!
//! In: a profile and the agent's arguments. Out: one executable, or this process turned into it. It knows nothing of
//! what the arguments mean.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    command::{announce, cargo, find, is_root, program, root, run as run_to_its_end},
    ebpf,
    setup::{Purpose, ensure},
};

/// How the agent is built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// Quick to build.
    Debug,
    /// What users get.
    Release,
}

impl Profile {
    /// The profile that the flag `--release` asks for.
    pub(crate) fn new(release: bool) -> Self {
        if release { Self::Release } else { Self::Debug }
    }
}

/// The command `build`: probes first, since the agent embeds them. Tells where the executable is.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    ensure(&[Purpose::Build])?;
    ebpf::build()?;
    let mut command = cargo();
    // The executable's place is promised, wherever the developer lets other builds go.
    command.env_remove("CARGO_TARGET_DIR").args(["build", "-p", "spantap"]);
    let folder = match profile {
        Profile::Debug => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    run_to_its_end(&mut command)?;
    Ok(root().join("target").join(folder).join("spantap"))
}

/// The commands `run` and `demo`: the agent takes our place, so that its signals and exit code are the caller's.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let agent = build(Profile::Debug)?;
    let mut command = as_root(&agent);
    command.args(args);
    announce(&command);
    // The developer's folder, not the repository's root: arguments may be relative paths.
    if let Ok(here) = std::env::current_dir() {
        command.current_dir(here);
    }
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", agent.display()))
}

/// Loading probes takes root; without sudo the agent itself says so, better than we could.
fn as_root(agent: &Path) -> std::process::Command {
    let agent = agent.to_string_lossy();
    match find("sudo") {
        Some(sudo) if !is_root() => {
            let mut command = program(&sudo.to_string_lossy());
            // OTEL_* of the caller configure the export.
            command.args(["--preserve-env", "--", &agent]);
            command
        }
        _ => program(&agent),
    }
}
