// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: every source file begins with the licence of its crate.
//!
//! In: all Rust files. Out: a finding for each whose first line is another. The licences themselves are explained in
//! `LICENSES.md`.

use super::{Finding, TextFile};

/// The kernel refuses helpers marked GPL-only to programs under another licence, so the probes offer both.
const PROBES: &str = "// SPDX-License-Identifier: GPL-2.0-only OR MIT";

const USER_SPACE: &str = "// SPDX-License-Identifier: Apache-2.0 OR MIT";

fn finding(file: &TextFile) -> Option<Finding> {
    let expected = if file.path.starts_with("agent-ebpf/") { PROBES } else { USER_SPACE };
    if file.text.lines().next() == Some(expected) {
        return None;
    }
    Some(Finding { file: file.path.clone(), line: 1, what: format!("must begin with `{expected}`") })
}

#[cfg(test)]
mod tests {
    use super::{PROBES, USER_SPACE, finding};
    use crate::tidy::{Finding, TextFile, assert_tidy, files};

    #[test]
    fn every_source_file_begins_with_its_licence() {
        let findings: Vec<Finding> = files("", &[".rs"]).iter().filter_map(finding).collect();
        assert_tidy(&findings);
    }

    #[test]
    fn a_missing_or_wrong_licence_is_found() {
        let is_found =
            |path: &str, text: &str| finding(&TextFile { path: path.to_owned(), text: text.to_owned() }).is_some();
        assert!(is_found("agent/src/run.rs", "fn main() {}"));
        assert!(is_found("agent/src/run.rs", PROBES));
        assert!(is_found("agent-ebpf/src/main.rs", USER_SPACE));
        assert!(!is_found("agent-ebpf/src/main.rs", PROBES));
        assert!(!is_found("agent-common/src/lib.rs", &format!("{USER_SPACE}\n//! Docs.\n")));
    }
}
