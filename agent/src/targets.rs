// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads facts about processes and the host, and judges which are traced.
//!
//! In: a process id and what `/proc` and the executable say of it, or the user's selection. Out: [`ProcessFacts`] and
//! verdicts. It names no service, keeps nothing of a process but its answer, and trusts nothing it reads: a process
//! may vanish or change between two reads, and owns the bytes of most of them.

pub mod host;
pub mod identity;
pub mod selection;

mod elf;
mod runtime;
mod sdk;

use std::{
    fs::{self, File},
    io::Read,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::{
    process::{ProcessFacts, ProcessId},
    targets::{host::Users, runtime::Runtimes},
};

/// Reads facts from `/proc`. Remembers what it learned of executable files and users, nothing of processes.
#[derive(Debug)]
pub struct Reader {
    proc: PathBuf,
    users: Users,
    runtimes: Runtimes,
    buffer: Vec<u8>,
}

impl Reader {
    /// A reader of this machine.
    pub fn new() -> Self {
        Self::with_root(Path::new("/"))
    }

    /// A reader of the machine whose root directory is `root`: it has `proc` and `etc`.
    pub fn with_root(root: &Path) -> Self {
        Self {
            proc: root.join("proc"),
            users: Users::read(&root.join("etc/passwd")),
            runtimes: Runtimes::default(),
            buffer: Vec::new(),
        }
    }

    /// What is known about the process `pid`, or nothing if there is none. What could not be read is empty.
    pub fn facts(&mut self, pid: u32) -> Option<ProcessFacts> {
        let process = self.proc.join(pid.to_string());
        let Stat { command, parent, started } = Stat::parse(self.read(&process.join("stat"), STAT_BYTES)?)?;
        let executable = link(&process.join("exe"));
        let executable = executable.strip_suffix(DELETED).unwrap_or(&executable).to_owned();
        let arguments = self.read(&process.join("cmdline"), ARGUMENT_BYTES).map(arguments).unwrap_or_default();
        let environment = self.read(&process.join("environ"), ENVIRONMENT_BYTES).unwrap_or_default();
        let Declared { service_name, resource_attributes } = Declared::find(environment);
        let instrumented = sdk::is_at_work(&process, &arguments, environment);
        let cgroup = self.read(&process.join("cgroup"), CGROUP_BYTES).map(cgroup).unwrap_or_default();
        let user = self.read(&process.join("status"), STATUS_BYTES).and_then(effective_user);
        let facts = ProcessFacts {
            id: ProcessId { pid, started },
            parent,
            command,
            runtime: self.runtimes.of(&process, &executable),
            executable,
            directory: link(&process.join("cwd")),
            arguments,
            otel_service_name: service_name,
            otel_resource_attributes: resource_attributes,
            cgroup,
            owner: user.and_then(|user| self.users.name(user)),
            instrumented,
        };
        // Between two reads the process may have gone and its number may have been given away. If its number is free
        // or still its own now, it was its own all along.
        let now = self.read(&process.join("stat"), STAT_BYTES).and_then(Stat::parse);
        now.is_none_or(|now| now.started == started).then_some(facts)
    }

    /// Facts about every process there is, parents before their children: what a judge of running processes needs.
    pub fn scan(&mut self) -> Vec<ProcessFacts> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        let mut all: Vec<_> = pids.into_iter().filter_map(|pid| self.facts(pid)).collect();
        all.sort_by_key(|facts| (facts.id.started, facts.id.pid));
        all
    }

    /// The first `limit` bytes of a file of `/proc`, whose sizes nobody knows before.
    fn read(&mut self, path: &Path, limit: u64) -> Option<&[u8]> {
        self.buffer.clear();
        File::open(path).ok()?.take(limit).read_to_end(&mut self.buffer).ok()?;
        Some(&self.buffer)
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// What the kernel's record of an exec says about a process that was gone before it could be read.
pub fn fallback(id: ProcessId, parent: u32, command: &str, path: &str) -> ProcessFacts {
    ProcessFacts { id, parent, command: command.to_owned(), executable: path.to_owned(), ..ProcessFacts::default() }
}

// --- The files of /proc/<pid> ---

/// What is needed of `/proc/<pid>/stat`.
struct Stat {
    command: String,
    parent: u32,
    started: u64,
}

impl Stat {
    /// The command stands in parentheses and may itself hold spaces, parentheses and newlines; what follows it are
    /// numbers, so the last closing parenthesis is its end.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let command = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let mut fields = str::from_utf8(&bytes[close + 1..]).ok()?.split_ascii_whitespace();
        // proc(5) counts from 1, the command is field 2, so the first one here is field 3.
        let parent = fields.nth(4 - 3)?.parse().ok()?;
        let started = fields.nth(22 - 5)?.parse().ok()?;
        Some(Self { command, parent, started })
    }
}

/// What a process declares of itself in its environment. Nothing else of the environment is kept: it holds secrets.
struct Declared {
    service_name: Option<String>,
    resource_attributes: Option<String>,
}

impl Declared {
    /// As getenv(3) sees it: the first one counts. "The SDK MUST interpret an empty value of an environment variable
    /// the same way as when the variable is unset"
    /// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
    fn find(environment: &[u8]) -> Self {
        let first = |prefix: &[u8]| {
            let value = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(prefix))?;
            (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
        };
        Self { service_name: first(b"OTEL_SERVICE_NAME="), resource_attributes: first(b"OTEL_RESOURCE_ATTRIBUTES=") }
    }
}

/// The arguments, without the zeros that are left of a longer command line when a process writes a title over it.
fn arguments(bytes: &[u8]) -> Vec<String> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if end == 0 {
        return Vec::new();
    }
    bytes[..end].split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// The path in the v2 hierarchy; on a host that still runs its services in v1 that one is the root or missing, and
/// systemd's own hierarchy has the path.
fn cgroup(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let path = |hierarchy: &str| {
        // hierarchy-ID:controller-list:cgroup-path, and the path may hold colons (cgroups(7)).
        let of = |line: &str| Some(line.split_once(':')?.1.strip_prefix(hierarchy)?.strip_prefix(':')?.to_owned());
        text.lines().find_map(of)
    };
    let unified = path("");
    unified.clone().filter(|path| path != "/").or_else(|| path("name=systemd")).or(unified).unwrap_or_default()
}

/// The effective user id: `Uid: real effective saved filesystem`.
fn effective_user(status: &[u8]) -> Option<u32> {
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Where a link of `/proc` points; empty where it cannot be read (a kernel thread, a process on its way out).
fn link(path: &Path) -> String {
    fs::read_link(path).map_or_else(
        |_| String::new(),
        |target| {
            let bytes = target.into_os_string().into_vec();
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
        },
    )
}

/// What the kernel appends to the path of a file that has been replaced, as every upgrade of a package does.
const DELETED: &str = " (deleted)";

/// 52 numbers of at most 20 digits and a command of at most 63 bytes (kernel threads; others have 15).
const STAT_BYTES: u64 = 2 << 10;

/// 128 KiB: what Linux always allowed for arguments and environment together (ARG_MAX). Class paths take up to some
/// tens of KiB; what lies beyond could only name a main class after them, and the name is then the jar's or `java`.
const ARGUMENT_BYTES: u64 = 128 << 10;

/// As [`ARGUMENT_BYTES`]: an `OTEL_` variable behind 128 KiB of others is not found.
const ENVIRONMENT_BYTES: u64 = 128 << 10;

/// A dozen v1 hierarchies with a path of 300 bytes each (Kubernetes) fit four times.
const CGROUP_BYTES: u64 = 16 << 10;

/// `Uid:` is the ninth line of some 1,500 bytes; only the supplementary groups, which come after it, can be many.
const STATUS_BYTES: u64 = 1 << 10;

#[cfg(test)]
mod tests;
