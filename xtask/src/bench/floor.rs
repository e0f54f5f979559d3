// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What no probe can be cheaper than: programs that do nothing, or write an empty record.
//!
//! In: which of the two. Out: a process that has attached them in the probes' places; dropping it detaches them.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{cargo, root, run},
    ebpf,
};

/// What the programs do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Does {
    /// Nothing.
    Nothing,
    /// They write a record of a small message's size without filling it.
    Record,
}

/// Builds what attaches them; returns the executable.
pub(super) fn build() -> Result<PathBuf> {
    run(cargo().env_remove("CARGO_TARGET_DIR").args(["build", "--release", "-p", "spantap", "--example", "floor"]))?;
    Ok(root().join("target/release/examples/floor"))
}

/// The attached programs.
pub(super) struct Floor(Child);

impl Floor {
    /// Starts `executable` and waits until the programs are attached.
    pub(super) fn start(executable: &PathBuf, does: Does) -> Result<Self> {
        let kind = match does {
            Does::Nothing => "nothing",
            Does::Record => "record",
        };
        let object = ebpf::object().with_file_name("floor");
        let mut child = Command::new(executable)
            .arg(object)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", executable.display()))?;
        let said = child.stdout.take().context("it has no standard output")?;
        let attached = BufReader::new(said).lines().next().is_some_and(|line| line.is_ok());
        let floor = Self(child);
        if !attached {
            bail!("the programs that do nothing were not attached");
        }
        Ok(floor)
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It ends with its standard input.
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}
