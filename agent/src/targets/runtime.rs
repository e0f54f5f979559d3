// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recognises the language runtime of a process.
//!
//! In: a process's executable and, where that does not tell, its mapped files. Out: a [`Runtime`]. It reads no code and
//! no memory of the process, so a packed executable looks native; and it remembers files, not processes.
//!
//! Go is asked for first and by the file's contents: goroutines move between threads, so that evidence from threads,
//! right nearly everywhere else, is wrong there. Whatever a Go program is called, it is Go.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{
    process::Runtime,
    targets::elf::{self, Image},
};

/// What is known about executable files.
#[derive(Debug, Default)]
pub(super) struct Runtimes {
    seen: HashMap<FileIdentity, Image>,
}

/// A file with its contents: a build that writes over the old file keeps the inode.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Runtimes {
    /// The runtime of the process whose directory in `/proc` is `process` and whose executable has this path.
    pub(super) fn of(&mut self, process: &Path, executable: &str) -> Runtime {
        let image = self.image(&process.join("exe")).unwrap_or_default();
        if let Some(runtime) = image.runtime {
            return runtime;
        }
        let name = executable.rsplit('/').next().unwrap_or_default();
        if let Some(runtime) = by_name(name) {
            return runtime;
        }
        // A library can only be mapped by the dynamic linker.
        if image.dynamic { by_libraries(&process.join("maps")) } else { Runtime::Native }
    }

    /// Opening the link of `/proc` gives the very file that runs, in whatever mount namespace, deleted or not.
    fn image(&mut self, link: &Path) -> Option<Image> {
        let file = File::open(link).ok()?;
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() {
            return None;
        }
        let identity = FileIdentity {
            device: metadata.dev(),
            inode: metadata.ino(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if let Some(image) = self.seen.get(&identity) {
            return Some(*image);
        }
        let image = elf::inspect(&file);
        if self.seen.len() >= MAX_FILES {
            // Nothing is lost but some 50 µs for each file that is still in use.
            self.seen.clear();
        }
        self.seen.insert(identity, image);
        Some(image)
    }
}

/// The runtime that an executable of this name is, with versions (`python3.11`, `php-fpm8.2`, `ruby3.1`) left out.
fn by_name(name: &str) -> Option<Runtime> {
    match name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-') {
        "python" => Some(Runtime::Python),
        // Debug and free-threaded builds: python3.13d, python3.13t.
        debug if debug.starts_with("python3.") && debug.ends_with(['d', 't']) => Some(Runtime::Python),
        "node" | "nodejs" => Some(Runtime::Node),
        "java" => Some(Runtime::Java),
        "ruby" => Some(Runtime::Ruby),
        "php" | "php-fpm" | "php-cgi" => Some(Runtime::Php),
        "dotnet" => Some(Runtime::Dotnet),
        _ => None,
    }
}

/// The runtime among the mapped libraries: an interpreter embedded in a server (uWSGI, mod_php), or a launcher of
/// another name (jsvc, a .NET application's own executable). Early in a process's life it may not be there yet.
fn by_libraries(maps: &Path) -> Runtime {
    let Ok(file) = File::open(maps) else { return Runtime::Native };
    let mut lines = BufReader::new(file.take(MAPS_BYTES));
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return Runtime::Native,
            Ok(_) => {}
        }
        // The path comes last; it is the only field with slashes.
        let line = line.trim_ascii_end();
        let Some(slash) = line.iter().rposition(|byte| *byte == b'/') else { continue };
        if let Some(runtime) = by_library(&line[slash + 1..]) {
            return runtime;
        }
    }
}

/// The runtime whose library has this file name.
fn by_library(name: &[u8]) -> Option<Runtime> {
    LIBRARIES.iter().find_map(|(stem, runtime)| {
        // The name ends there, or a version follows: `libpython3.11.so.1.0`, but not `libpython_helper.so`.
        let rest = name.strip_prefix(stem.as_bytes())?;
        let next = rest.first()?;
        (*next == b'.' || *next == b'-' || next.is_ascii_digit()).then_some(*runtime)
    })
}

/// A runtime's own library, which nothing but a process that runs it has mapped.
const LIBRARIES: &[(&str, Runtime)] = &[
    ("libjvm", Runtime::Java),
    ("libpython", Runtime::Python),
    ("libnode", Runtime::Node),
    ("libruby", Runtime::Ruby),
    ("libphp", Runtime::Php),
    ("libcoreclr", Runtime::Dotnet),
];

/// Distinct executables that run on a host: some hundreds; build machines make new ones all day.
const MAX_FILES: usize = 4096;

/// 1 MiB of maps: 10,000 lines. Libraries lie above the heap and below the stack, so the list of a process with more
/// mappings than that may hide one; it is then taken for native.
pub(super) const MAPS_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests;
