// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting other programs.
//!
//! In: a [`Command`]. Out: its success, with its own output passed through as it comes, or its output for programs
//! that are only asked something. It does not decide what is run.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The repository.
pub(crate) fn root() -> PathBuf {
    // Cargo says where the manifest is today; the path of compile time is for a binary that is started by hand.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// The cargo that started us, run in the repository and with an environment like the developer's own.
pub(crate) fn cargo() -> Command {
    program(&env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
}

/// `name`, run in the repository, without what `cargo run` added to the environment.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root());
    // `cargo run` describes xtask to us in these variables. Some build scripts (ring's) rebuild when they change, so
    // handing them on would rebuild half the tree whenever `cargo build` and `cargo xtask build` take turns.
    for (variable, _) in env::vars_os() {
        if variable.to_str().is_some_and(describes_a_package) {
            command.env_remove(&variable);
        }
    }
    command
}

/// Runs `command` to its end, its output passed through; an error if it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = announce(command);
    let status = command.status().with_context(|| format!("start {line}"))?;
    if !status.success() {
        bail!("failed ({status}): {line}");
    }
    Ok(())
}

/// Prints the command as one would type it.
pub(crate) fn announce(command: &Command) -> String {
    let line = as_typed(command);
    eprintln!("$ {line}");
    line
}

/// What `command` prints, if it can be started and succeeds.
pub(crate) fn answer(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The executable `name`: on the path, where cargo installs, or among the system's daemons, which are missing from
/// the path of ordinary users.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain([cargo_bin(), PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Where `cargo install` puts executables.
pub(crate) fn cargo_bin() -> PathBuf {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))).unwrap_or_default().join("bin")
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_user(&status) == Some(0)
}

/// The effective user id in the text of `/proc/<pid>/status`: the second number of the line `Uid:`.
fn effective_user(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

fn describes_a_package(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| variable.starts_with(prefix))
}

fn as_typed(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}={}", name.to_string_lossy(), quoted(&value.to_string_lossy())))
    });
    let name = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = [name].into_iter().chain(command.get_args()).map(|word| quoted(&word.to_string_lossy()));
    set.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    if word.contains([' ', '"', '$', '*']) { format!("'{word}'") } else { word.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{Command, as_typed, describes_a_package, effective_user};

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
        assert_eq!(effective_user("Name:\tx\n"), None);
        assert_eq!(effective_user("Uid:\tx\ty\n"), None);
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/opt/bin/cargo");
        command.env("RUSTC", "/usr/bin/rustc").env_remove("RUSTFLAGS").args(["build", "--config", "a b"]);
        assert_eq!(as_typed(&command), "RUSTC=/usr/bin/rustc cargo build --config 'a b'");
    }

    #[test]
    fn cargos_settings_are_not_mistaken_for_its_descriptions() {
        assert!(describes_a_package("CARGO_PKG_NAME"));
        assert!(!describes_a_package("CARGO_HOME"));
        assert!(!describes_a_package("CARGO_BUILD_JOBS"));
    }
}
