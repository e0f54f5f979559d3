// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds, in the memory of a live process, where its runtime says which task it is running.
//!
//! In: a process and its runtime. Out: a [`Layout`] for the probes, or why there is none (yet). It finds things by their
//! shape and by offsets that a runtime publishes or a release is known by, and takes nothing on trust: what it hands out was
//! looked up on the process itself. It reads a bounded number of bytes, writes nothing, and stops nobody.

mod cpython;
mod finder;
mod go;
mod haproxy;
mod jvm;
mod keys;
mod memory;
mod node;
mod ruby;
mod tokio;

use std::path::Path;

use spantap_common::{
    identity::{Arguments, Cpython, Go, Jvm, Kind, Node, Ruby, Scheduled, Tokio},
    settings::ProcessSettings,
};

pub use finder::{Finder, Finding};
use memory::Memory;

use crate::process::Runtime;

/// How the probes read the identity of a process's tasks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Layout {
    /// Of CPython.
    Cpython(Cpython),
    /// Of Go.
    Go(Go),
    /// Of Node.
    Node(Node),
    /// Of Ruby.
    Ruby(Ruby),
    /// Of a program with a scheduler of its own.
    Scheduled(Scheduled),
    /// Of tokio.
    Tokio(Tokio),
    /// The wakes of its threads are followed; in the process's memory is which virtual thread each of them carries.
    Wakes(Virtual),
}

/// What is known of a JVM's virtual threads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Virtual {
    /// Which one runs.
    Known(Jvm),
    /// Nothing so far, but it may be found later.
    NotYet(&'static str),
    /// Nothing, and nothing will be.
    Never(&'static str),
}

impl Layout {
    /// This layout, with what was found out before in the same process and does not show now.
    fn and(self, before: Option<Self>) -> Self {
        match (self, before) {
            (Self::Tokio(now), Some(Self::Tokio(before))) => Self::Tokio(tokio::joined(now, before)),
            (Self::Go(now), Some(Self::Go(before))) => Self::Go(go::joined(now, before)),
            (Self::Ruby(now), Some(Self::Ruby(before))) => Self::Ruby(ruby::joined(now, before)),
            _ => self,
        }
    }

    /// Whether there may be more to find later, or when the process does something else.
    fn may_grow(self) -> bool {
        match self {
            Self::Tokio(layout) => tokio::may_grow(&layout),
            Self::Go(layout) => go::may_grow(&layout),
            Self::Ruby(layout) => ruby::may_grow(&layout),
            Self::Wakes(known) => matches!(known, Virtual::NotYet(_)),
            _ => false,
        }
    }

    /// `settings` with this layout in them.
    pub fn into_settings(self, settings: ProcessSettings) -> ProcessSettings {
        let (kind, identity_arguments) = match self {
            Self::Cpython(layout) => (Kind::Cpython, layout.to_arguments()),
            Self::Go(layout) => (Kind::Go, layout.to_arguments()),
            Self::Node(layout) => (Kind::Node, layout.to_arguments()),
            Self::Ruby(layout) => (Kind::Ruby, layout.to_arguments()),
            Self::Scheduled(layout) => (Kind::Scheduled, layout.to_arguments()),
            Self::Tokio(layout) => (Kind::Tokio, layout.to_arguments()),
            Self::Wakes(Virtual::Known(layout)) => (Kind::Wakes, layout.to_arguments()),
            Self::Wakes(Virtual::NotYet(_) | Virtual::Never(_)) => (Kind::Wakes, Arguments::default()),
        };
        ProcessSettings { identity: kind as u32, identity_arguments, ..settings }
    }
}

/// Why there is no layout.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// It may be there later: the process has not begun to use what is looked for.
    NotYet(&'static str),
    /// It will not be found.
    Never(&'static str),
}

/// Whether there is anything to find in a process of this runtime.
pub fn is_known(runtime: Runtime) -> bool {
    // The thread pointer of other architectures leads elsewhere, and Go's stack frames differ: nothing of it was seen there.
    (cfg!(target_arch = "x86_64")
        && matches!(
            runtime,
            Runtime::Python | Runtime::Go | Runtime::Node | Runtime::Haproxy | Runtime::Tokio | Runtime::Ruby
        ))
        || hands_over(runtime)
}

/// Whether its programs usually have pools of threads that wait for each other, and nothing is known of its tasks. Not Ruby's: its
/// threads take one lock over from each other all the time, and 44 of 396 links were wrong (Puma, 2026-11).
fn hands_over(runtime: Runtime) -> bool {
    matches!(runtime, Runtime::Java)
}

/// Looks into the process whose directory in `/proc` is `process`, for the first time or once more; `known` is what was found so far.
pub(crate) fn find(process: &Path, runtime: Runtime, is_first: bool, known: Option<Layout>) -> Result<Layout, Unknown> {
    if !process.exists() {
        return Err(Unknown::Never("it is gone"));
    }
    if hands_over(runtime) {
        return Ok(Layout::Wakes(virtual_threads(process)));
    }
    let memory = Memory::open(process).ok_or(Unknown::NotYet("its memory cannot be read"))?;
    match runtime {
        Runtime::Python => cpython::find(process, &memory).map(Layout::Cpython),
        Runtime::Go => {
            let known = known.and_then(|known| if let Layout::Go(layout) = known { Some(layout) } else { None });
            go::find(process, &memory, known, is_first).map(Layout::Go)
        }
        Runtime::Node => node::find(&memory).map(Layout::Node),
        Runtime::Ruby => ruby::find(&memory, is_first).map(Layout::Ruby),
        Runtime::Haproxy => haproxy::find(process, &memory).map(Layout::Scheduled),
        Runtime::Tokio => tokio::find(process, &memory, is_first).map(Layout::Tokio),
        _ => Err(Unknown::Never("nothing is known of its runtime")),
    }
}

/// What is known of the virtual threads of a JVM.
fn virtual_threads(process: &Path) -> Virtual {
    if !cfg!(target_arch = "x86_64") {
        return Virtual::Never("where threads of this architecture keep their own is not known");
    }
    let memory = Memory::open(process).ok_or(Unknown::NotYet("its memory cannot be read"));
    match memory.and_then(|memory| jvm::find(process, &memory)) {
        Ok(layout) => Virtual::Known(layout),
        Err(Unknown::NotYet(why)) => Virtual::NotYet(why),
        Err(Unknown::Never(why)) => Virtual::Never(why),
    }
}
