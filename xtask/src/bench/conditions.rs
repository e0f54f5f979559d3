// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Under which conditions figures were measured.
//!
//! In: this machine. Out: what a reader must know to compare figures. It changes nothing: no governor is set, no other
//! program is stopped.

use std::{fmt, fs, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::{answer, program, root};

/// The machine and the versions.
#[derive(Debug)]
pub(super) struct Conditions(Vec<(&'static str, String)>);

impl Conditions {
    /// As they are now; `agent` is the executable that was given, if none was built.
    pub(super) fn now(agent: Option<&Path>) -> Result<Self> {
        let processors = read("/proc/cpuinfo")?;
        let model = field(&processors, "model name").unwrap_or("unknown").to_owned();
        let count = processors.lines().filter(|line| line.starts_with("processor")).count();
        let memory = field(&read("/proc/meminfo")?, "MemTotal").unwrap_or("unknown").to_owned();
        // Both print their version where only their errors should go.
        let nginx = Command::new("nginx").arg("-v").output().map(|output| output.stderr).unwrap_or_default();
        let nginx = String::from_utf8_lossy(&nginx).trim().to_owned();
        let commit = answer(program("git").args(["describe", "--always", "--dirty"]).current_dir(root()));
        Ok(Self(vec![
            ("kernel", read("/proc/sys/kernel/osrelease")?.trim().to_owned()),
            ("cpu", format!("{count} × {model}")),
            ("virtualised", field(&processors, "flags").is_some_and(|flags| flags.contains("hypervisor")).to_string()),
            ("memory", memory),
            ("rustc", answer(Command::new("rustc").arg("--version")).unwrap_or_default().trim().to_owned()),
            ("nginx", nginx),
            ("spantap", commit.unwrap_or_default().trim().to_owned()),
            ("executable", agent.map_or_else(|| "built from it".to_owned(), |agent| agent.display().to_string())),
            ("load", load()?),
        ]))
    }

    /// As one object.
    pub(super) fn json(&self) -> Value {
        self.0.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name:<12} {value}"))
    }
}

/// The load averages: what else the machine does.
pub(super) fn load() -> Result<String> {
    Ok(read("/proc/loadavg")?.trim().to_owned())
}

fn read(file: &str) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read {file}"))
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 85\nmodel name\t: Xeon\nflags\t\t: fpu hypervisor\n";
        assert_eq!(field(text, "model name"), Some("Xeon"));
        assert_eq!(field(text, "model"), Some("85"));
        assert_eq!(field(text, "bogus"), None);
    }
}
