// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the commands need from the machine, and how it gets there.
//!
//! In: the purposes a command has. Out: a machine that can serve them, or a list of what is missing with the commands
//! that would bring it. It never changes or removes what is there, and a second run only looks.

mod needs;

use anyhow::{Context, Result, bail};

use crate::{
    apt,
    command::{find, is_root, program, run},
};

use needs::{NEEDS, Need};

/// What a command is about to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// Compile the agent and its probes.
    Build,
    /// Format and lint them.
    Lint,
    /// Trace real services in tests.
    Services,
    /// Hand traces to real backends.
    Backends,
    /// Measure what the agent costs.
    Bench,
    /// Boot other kernels.
    Vm,
}

impl Purpose {
    const ALL: [Self; 6] = [Self::Build, Self::Lint, Self::Services, Self::Backends, Self::Bench, Self::Vm];

    fn label(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Lint => "check",
            Self::Services | Self::Backends => "test",
            Self::Bench => "bench",
            Self::Vm => "vm",
        }
    }
}

/// The command `setup`: everything at once.
pub(crate) fn setup(check_only: bool) -> Result<()> {
    for need in NEEDS {
        let state = if need.is_met() { "ok" } else { "missing" };
        println!("{state:<8} {:<16} {:<6} {}", need.name, need.purpose.label(), need.why);
    }
    if check_only {
        let missing = missing(&Purpose::ALL);
        if !missing.is_empty() {
            bail!("{} of {} needs are missing; `cargo xtask setup` installs them", missing.len(), NEEDS.len());
        }
        return Ok(());
    }
    ensure(&Purpose::ALL)?;
    println!("setup: nothing is missing");
    Ok(())
}

/// Makes the machine able to serve `purposes`; silent when it already is.
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    let missing = missing(purposes);
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: missing on this machine:");
    for need in &missing {
        println!("  {:<16} {} ({})", need.name, need.why, need.takes);
    }
    if !apt::is_here() {
        explain(&missing);
        bail!("this machine has no apt: install the above with its own package manager, then run the command again");
    }
    if !is_root() {
        println!("setup: as root, `cargo xtask setup` installs them; or type:");
        for line in commands(&missing) {
            println!("  {line}");
        }
        bail!("{} needs are missing and installing takes root", missing.len());
    }
    install(&missing)
}

fn missing(purposes: &[Purpose]) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| purposes.contains(&need.purpose) && !need.is_met()).collect()
}

fn install(missing: &[&'static Need]) -> Result<()> {
    let wanted: Vec<&str> = missing.iter().flat_map(|need| need.packages.iter().copied()).collect();
    apt::refresh_lists(&wanted)?;
    let (possible, impossible): (Vec<_>, Vec<_>) =
        missing.iter().copied().partition(|need| apt::unknown(need.packages).is_empty());
    if !impossible.is_empty() {
        for need in &impossible {
            println!("setup: apt has no {}", apt::unknown(need.packages).join(", "));
        }
        explain(&impossible);
        bail!("{} cannot be installed from this machine's package lists", names(&impossible));
    }

    println!("setup: installing {}", names(&possible));
    let packages: Vec<&str> = possible.iter().flat_map(|need| need.packages.iter().copied()).collect();
    if !packages.is_empty() {
        apt::install(&packages)?;
    }
    for need in possible {
        if let Some(step) = &need.then {
            let mut command = program(step.program);
            run(command.args(step.arguments).envs(step.environment.iter().copied()))
                .with_context(|| format!("install {}", need.name))?;
        }
        if !need.is_met() {
            bail!("{} is still not found after its installation: {}", need.name, need.otherwise);
        }
    }
    Ok(())
}

fn explain(needs: &[&Need]) {
    for need in needs {
        println!("  {:<16} {}", need.name, need.otherwise);
    }
}

fn names(needs: &[&Need]) -> String {
    needs.iter().map(|need| need.name).collect::<Vec<_>>().join(", ")
}

/// What a user without root types, or hands to whoever is root.
fn commands(missing: &[&Need]) -> Vec<String> {
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.packages.iter().copied()).collect();
    let mut lines = Vec::new();
    if !packages.is_empty() {
        // Not every machine has sudo; `su -c` is the same length to type and everybody knows both.
        let prefix = if find("sudo").is_some() { "sudo " } else { "" };
        lines.push(format!("{prefix}apt-get update"));
        lines.push(format!("{prefix}apt-get install -y --no-install-recommends {}", packages.join(" ")));
    }
    lines.extend(missing.iter().filter_map(|need| need.then.as_ref()).map(|step| step.as_typed()));
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{NEEDS, Need, Purpose, commands};

    #[test]
    fn every_need_has_a_way_to_be_met() {
        for Need { name, packages, then, otherwise, .. } in NEEDS {
            assert!(!packages.is_empty() || then.is_some(), "{name}: no package and no command");
            assert!(!otherwise.is_empty(), "{name}: no word for machines without apt");
        }
    }

    #[test]
    fn every_purpose_has_needs_and_every_need_its_own_name() {
        for purpose in Purpose::ALL {
            assert!(NEEDS.iter().any(|need| need.purpose == purpose), "{purpose:?} needs nothing");
        }
        let names: BTreeSet<_> = NEEDS.iter().map(|need| need.name).collect();
        assert_eq!(names.len(), NEEDS.len());
    }

    #[test]
    fn packages_are_installed_before_the_commands_that_need_them() {
        let linker = NEEDS.iter().find(|need| need.name == "bpf-linker").expect("in the table");
        let lines = commands(&[linker]);
        let install = lines.iter().position(|line| line.contains("llvm-22-dev"));
        let build = lines.iter().position(|line| line.contains("LLVM_PREFIX=/usr/lib/llvm-22 cargo install"));
        assert!(install < build && install.is_some(), "{lines:?}");
    }
}
