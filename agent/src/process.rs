// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is known about a process: plain facts that `targets/` reads and that later stages judge.

use serde::{Deserialize, Serialize};

/// A process for its whole life: pids are reused, a pid with its start time is not.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ProcessId {
    /// Process id in the root pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`); 0 where it could not be read.
    pub started: u64,
}

/// Nanoseconds of one tick of `/proc`: USER_HZ is 100 on every architecture that has BPF.
pub const TICK_NS: u64 = 10_000_000;

impl ProcessId {
    /// The identity by the kernel's own record of the start, in nanoseconds of CLOCK_BOOTTIME: `/proc` shows the same
    /// number in whole ticks.
    pub fn started_at(pid: u32, boot_ns: u64) -> Self {
        Self { pid, started: boot_ns / TICK_NS }
    }
}

/// Facts about one process, read once from `/proc` when its first socket is introduced and again after an exec.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ProcessFacts {
    /// Whose facts these are.
    pub id: ProcessId,
    /// Parent process id.
    pub parent: u32,
    /// `comm`: at most 15 characters.
    pub command: String,
    /// The executable's path as the process sees it; empty where unreadable.
    pub executable: String,
    /// Working directory as the process sees it; empty where unreadable.
    pub directory: String,
    /// Command line. Never leaves the machine: it may hold secrets.
    pub arguments: Vec<String>,
    /// `OTEL_SERVICE_NAME` of its environment.
    pub otel_service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES` of its environment, undecoded.
    pub otel_resource_attributes: Option<String>,
    /// Path in the cgroup hierarchy (the v2 line of `/proc/<pid>/cgroup`, else the `name=systemd` line).
    pub cgroup: String,
    /// Name of the user it runs as, where it can be resolved.
    pub owner: Option<String>,
    /// Its language runtime.
    pub runtime: Runtime,
    /// Whether an OpenTelemetry SDK is at work in it, as far as its memory map, command line and environment tell.
    #[serde(default)]
    pub instrumented: bool,
}

/// The language runtime of a process, recognised by its executable and its mapped libraries.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Runtime {
    /// Not recognised: C, C++, Rust and the like.
    #[default]
    Native,
    /// CPython.
    Python,
    /// Node.js.
    Node,
    /// Go's own runtime.
    Go,
    /// A Java virtual machine.
    Java,
    /// Ruby.
    Ruby,
    /// PHP.
    Php,
    /// .NET.
    Dotnet,
    /// HAProxy: C, with a scheduler of its own.
    Haproxy,
    /// Rust with tokio, whose tasks move between threads.
    Tokio,
}

impl Runtime {
    /// Whether it says something about whose work is done, which thread does it: not where tasks wander between threads, or
    /// all are on one.
    pub fn is_told_by_threads(self) -> bool {
        !matches!(self, Self::Go | Self::Node)
    }

    /// The value of `process.runtime.name`, where there is one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Native | Self::Haproxy | Self::Tokio => None,
            Self::Python => Some("python"),
            Self::Node => Some("nodejs"),
            Self::Go => Some("go"),
            Self::Java => Some("java"),
            Self::Ruby => Some("ruby"),
            Self::Php => Some("php"),
            Self::Dotnet => Some("dotnet"),
        }
    }
}
