// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Holds the agent against traffic whose truth is known.
//!
//! In: which cases, and where the rows go. Out: the table of the catalogue, and an error when a case fails. What the
//! cases are stands in `agent/tests/accuracy`: this only builds the agent and asks for them.

use std::path::{Path, absolute};

use anyhow::{Context, Result, bail};

use crate::{
    build::Profile,
    command::{cargo, is_root, run},
    ebpf,
    setup::{Purpose, ensure},
};

/// The command `accuracy capture`: all cases, or those whose names contain one of `cases`.
pub(crate) fn capture(cases: &[String], json: Option<&Path>, profile: Profile) -> Result<()> {
    ensure(&[Purpose::Build, Purpose::Services])?;
    if !is_root() {
        bail!("loading probes takes root: sudo -E cargo xtask accuracy capture");
    }
    ebpf::build()?;
    let mut command = cargo();
    command.args(["test", "--package", "spantap", "--test", "accuracy"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    command.args(["--", "--exact", "what_is_captured_is_exact"]);
    let wanted = if cases.is_empty() { "all".to_owned() } else { cases.join(",") };
    command.env("SPANTAP_ACCURACY", wanted);
    if let Some(file) = json {
        // Tests run in their package's folder, not in the developer's.
        let file = absolute(file).with_context(|| format!("find {}", file.display()))?;
        command.env("SPANTAP_ACCURACY_JSON", file);
    }
    run(&mut command)
}
