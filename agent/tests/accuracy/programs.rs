// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One small service in each runtime, which is also a client.
//!
//! In: a runtime. Out: a command that serves, or that calls. All of them answer alike, by the first part of the path: a
//! status is answered with that and ten bytes; `writes` and `chunks` are 50 bytes, told to be so or in chunks, ten every
//! 100 ms; `big` is a mebibyte. What the services are for is the business of the cases.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::process::Process;

/// Whose HTTP is observed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Runtime {
    /// System calls.
    C,
    /// `http.server`, `http.client`.
    Python,
    /// `node:http`.
    Node,
    /// `net/http`.
    Go,
    /// `com.sun.net.httpserver`, `java.net.http`.
    Java,
    /// `std::net`.
    Rust,
}

impl Runtime {
    /// Starts the service and waits until it listens.
    pub(crate) fn serve(self, port: u16, options: &[&str]) -> Result<Process, String> {
        self.serve_as("serve", port, options)
    }

    /// The same in another mode that serves.
    pub(crate) fn serve_as(self, mode: &str, port: u16, options: &[&str]) -> Result<Process, String> {
        let mut command = self.command()?;
        command.args([mode, &port.to_string()]).args(options).stdin(Stdio::null()).stdout(Stdio::null());
        let mut process = Process::start(self.label(), &mut command)?;
        process.await_listening(port)?;
        Ok(process)
    }

    /// A command that asks for each of `paths` in turn.
    pub(crate) fn call(self, port: u16, paths: &[String]) -> Result<Command, String> {
        self.call_as("call", port, paths)
    }

    /// The same in another mode that calls.
    pub(crate) fn call_as(self, mode: &str, port: u16, paths: &[String]) -> Result<Command, String> {
        let mut command = self.command()?;
        command.args([mode, &port.to_string()]).args(paths).stdin(Stdio::null());
        Ok(command)
    }

    /// The program itself, built once where it has to be.
    pub(crate) fn command(self) -> Result<Command, String> {
        let interpreted = |interpreter, script| {
            let mut command = Command::new(interpreter);
            command.arg(source(script));
            command
        };
        Ok(match self {
            Self::C => {
                static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
                let build = || built("cc", &["-O1", "-Wall", "-o"], "accuracy-c", "service.c");
                Command::new(BUILT.get_or_init(build).as_ref().map_err(String::clone)?)
            }
            Self::Python => interpreted("python3", "service.py"),
            Self::Node => interpreted("node", "service.js"),
            Self::Go => {
                static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
                let build = || built("go", &["build", "-o"], "accuracy-go", "service.go");
                Command::new(BUILT.get_or_init(build).as_ref().map_err(String::clone)?)
            }
            Self::Java => {
                let mut java = Command::new("java");
                // Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed
                // acknowledgement.
                java.arg("-Dsun.net.httpserver.nodelay=true").arg(source("Service.java"));
                java
            }
            Self::Rust => {
                static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
                let build = || built("rustc", &["--edition=2024", "-O", "-o"], "accuracy-rust", "service.rs");
                Command::new(BUILT.get_or_init(build).as_ref().map_err(String::clone)?)
            }
        })
    }

    /// What turns its source into a program, beforehand or each time.
    pub(crate) fn compiler(self) -> &'static str {
        match self {
            Self::C => "cc",
            Self::Python => "python3",
            Self::Node => "node",
            Self::Go => "go",
            Self::Java => "java",
            Self::Rust => "rustc",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::C => "the service in C",
            Self::Python => "the service in Python",
            Self::Node => "the service in JavaScript",
            Self::Go => "the service in Go",
            Self::Java => "the service in Java",
            Self::Rust => "the service in Rust",
        }
    }
}

/// Whether a program is on the path, and does what it is for: a kernel may have no tables for `iptables`.
pub(crate) fn is_installed(program: &str) -> bool {
    installed(program).is_some() && (program != "iptables" || has_tables())
}

/// Asks in a network namespace of its own: the first question makes the tables.
fn has_tables() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--net", "iptables", "-w", "-t", "nat", "-S"]).stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Where `program` is. Debian has the version in some names: `php-fpm8.2`.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_it = |name: &str| {
        name.strip_prefix(program)
            .is_some_and(|rest| rest.chars().all(|letter| letter.is_ascii_digit() || letter == '.'))
    };
    let entries = std::env::split_paths(&path).filter_map(|directory| fs::read_dir(directory).ok()).flatten();
    let files =
        entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_it)).map(|entry| entry.path());
    // The one without a version comes first.
    files.filter(|file| file.is_file()).min()
}

/// The program made of `script`, made now unless it is newer: a booted machine reads it and has nowhere to write it.
fn built(compiler: &str, arguments: &[&str], name: &str, script: &str) -> Result<PathBuf, String> {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let changed = |file: &Path| fs::metadata(file).and_then(|facts| facts.modified()).ok();
    if changed(&binary).is_some_and(|binary| changed(&source(script)).is_some_and(|source| source < binary)) {
        return Ok(binary);
    }
    let output = Command::new(compiler)
        .args(arguments)
        .args([&binary, &source(script)])
        .output()
        .map_err(|e| format!("start {compiler}: {e}"))?;
    match output.status.success() {
        true => Ok(binary),
        false => Err(format!("{compiler}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/programs").join(name)
}
