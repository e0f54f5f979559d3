// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds, in the memory of a live process, where its runtime says which task it is running.
//!
//! In: a process and its runtime. Out: a [`Layout`] for the probes, or why there is none (yet). It finds things by their
//! shape and by offsets that a runtime publishes or a release is known by, and takes nothing on trust: what it hands out was
//! looked up on the process itself. It reads a bounded number of bytes, writes nothing, and stops nobody.

mod cpython;
mod finder;
mod go;
mod memory;

use std::path::Path;

use spantap_common::{
    identity::{Cpython, Go, Kind},
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
}

impl Layout {
    /// `settings` with this layout in them.
    pub fn into_settings(self, settings: ProcessSettings) -> ProcessSettings {
        let (kind, identity_arguments) = match self {
            Self::Cpython(layout) => (Kind::Cpython, layout.to_arguments()),
            Self::Go(layout) => (Kind::Go, layout.to_arguments()),
        };
        ProcessSettings { identity: kind as u32, identity_arguments, ..settings }
    }
}

/// Why there is no layout.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Unknown {
    /// It may be there later: the process has not begun to use what is looked for, or is gone.
    NotYet(&'static str),
    /// It will not be found.
    Never(&'static str),
}

/// What a look has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Found<T> {
    /// Enough to begin with; a later look may find the rest.
    Partial(T),
    /// Everything.
    Complete(T),
}

impl<T> Found<T> {
    fn map<U>(self, into: impl FnOnce(T) -> U) -> Found<U> {
        match self {
            Self::Partial(found) => Found::Partial(into(found)),
            Self::Complete(found) => Found::Complete(into(found)),
        }
    }
}

/// Whether there is anything to find in a process of this runtime.
pub fn is_known(runtime: Runtime) -> bool {
    // The thread pointer of other architectures leads elsewhere, and Go's stack frames differ: nothing of it was seen there.
    cfg!(target_arch = "x86_64") && matches!(runtime, Runtime::Python | Runtime::Go)
}

/// What an earlier look at a process has seen, for the next one to compare with.
#[derive(Debug, Default)]
struct Earlier {
    go: Vec<go::Counter>,
}

/// Looks into the process whose directory in `/proc` is `process`.
fn find(process: &Path, runtime: Runtime, earlier: &mut Earlier) -> Result<Found<Layout>, Unknown> {
    let memory = Memory::open(process).ok_or(Unknown::NotYet("its memory cannot be read"))?;
    match runtime {
        Runtime::Python => Ok(Found::Complete(Layout::Cpython(cpython::find(process, &memory)?))),
        Runtime::Go => Ok(go::find(process, &memory, &mut earlier.go)?.map(Layout::Go)),
        _ => Err(Unknown::Never("nothing is known of its runtime")),
    }
}
