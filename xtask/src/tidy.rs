// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rules of the house, as ordinary tests: `cargo xtask tidy`.
//!
//! In: the repository as it stands on disk, and the built eBPF object. Out: findings, each with its place and what to
//! do about it. Each rule is a function over text, so that its own tests show it a bad sample; nothing is repaired.

mod deploy;
mod headers;
mod leftovers;
mod links;
mod probes;
mod purity;
mod source;
mod stages;
mod unsafety;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use crate::command::root;

/// Something that breaks a rule.
#[derive(Debug, Eq, PartialEq)]
struct Finding {
    /// The file, from the repository's root.
    file: String,
    /// Counted from 1; 0 when it is about the whole file.
    line: usize,
    /// What is wrong and what to do.
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// A text file of the repository.
struct TextFile {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

/// Fails with all findings at once.
#[track_caller]
fn assert_tidy(findings: &[Finding]) {
    let list: Vec<_> = findings.iter().map(Finding::to_string).collect();
    assert!(findings.is_empty(), "{} findings:\n{}", list.len(), list.join("\n"));
}

/// All files of the repository below `folder` whose name ends with one of `endings`.
fn files(folder: &str, endings: &[&str]) -> Vec<TextFile> {
    let root = root();
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    found.sort();
    let files: Vec<_> = found
        .into_iter()
        .filter_map(|file| {
            let path = file.strip_prefix(&root).expect("walked from the root").to_string_lossy().into_owned();
            let text = fs::read_to_string(&file).ok()?;
            endings.iter().any(|ending| path.ends_with(ending)).then_some(TextFile { path, text })
        })
        .collect();
    // A rule that looks at nothing holds always: a moved folder must not switch it off.
    assert!(!files.is_empty(), "no {endings:?} below {folder:?}");
    files
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the repository is readable") {
        let path = entry.expect("the repository is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) {
                walk(&path, found);
            }
        } else {
            found.push(path);
        }
    }
}

/// Folders that hold what tools made, by whatever crate.
const NOT_OURS: &[&str] = &[".git", "target", "node_modules", "__pycache__"];
