// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: in user space, `unsafe` stands only in a few files, each with its reason.
//!
//! In: the sources of the crates that run in user space. Out: a finding for each other file. That each block says
//! why it is sound is clippy's business; probes are unsafe by nature and not looked at.

use proc_macro2::{TokenStream, TokenTree};

use super::{Finding, TextFile, source};

/// Where it may stand, and why there.
const ALLOWED: &[(&str, &str)] = &[
    ("agent-common/src/user.rs", "`Pod` promises that any bytes are a valid map value"),
    ("agent/src/event.rs", "the record decoder reads `repr(C)` values out of the ring's bytes"),
    ("agent/src/clock.rs", "clock_gettime has no safe form in the standard library"),
    ("agent/src/memory.rs", "malloc_trim and madvise have no safe form anywhere"),
    ("agent/src/priority.rs", "sched_setscheduler has no safe form anywhere"),
    ("agent/src/kernel/", "values handed to and read from the kernel; calls of bpf(2) that aya has no word for"),
];

fn findings(file: &TextFile) -> Vec<Finding> {
    if ALLOWED.iter().any(|(path, _)| file.path.starts_with(path)) {
        return Vec::new();
    }
    let finding = |line, what: String| Finding { file: file.path.clone(), line, what };
    match source::tokens(&file.text) {
        Ok(tokens) => lines(tokens)
            .into_iter()
            .map(|line| {
                finding(line, "`unsafe` outside the files that may have it (xtask/src/tidy/unsafety.rs)".into())
            })
            .collect(),
        Err(error) => vec![finding(0, format!("cannot be parsed: {error}"))],
    }
}

fn lines(tokens: TokenStream) -> Vec<usize> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Ident(word) if word == "unsafe" => vec![word.span().start().line],
            TokenTree::Group(group) => lines(group.stream()),
            _ => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::findings;
    use crate::tidy::{Finding, TextFile, assert_tidy, files};

    #[test]
    fn unsafe_stands_only_where_it_may() {
        let sources =
            ["agent/src", "agent-common/src", "xtask/src"].into_iter().flat_map(|folder| files(folder, &[".rs"]));
        let findings: Vec<Finding> = sources.flat_map(|file| findings(&file)).collect();
        assert_tidy(&findings);
    }

    #[test]
    fn unsafe_elsewhere_is_found() {
        let bad = |path: &str| {
            let text = "// unsafe\nfn f() {\n    unsafe { g() }\n}".to_owned();
            findings(&TextFile { path: path.to_owned(), text }).iter().map(|finding| finding.line).collect::<Vec<_>>()
        };
        assert_eq!(bad("agent/src/trace.rs"), [3]);
        assert!(bad("agent/src/event.rs").is_empty());
    }
}
