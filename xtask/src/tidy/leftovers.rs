// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: no reminders in the tree; what is left to do is an issue, or a test that asserts today's behaviour.
//!
//! In: all text files we write. Out: a finding for each marker. Prose about the markers is possible in quotes of code.

use super::{Finding, TextFile};

/// Put together here so that this file does not find itself.
const MARKERS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

fn findings(file: &TextFile) -> Vec<Finding> {
    let marked = |line: &&str| {
        let mut words = line.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| MARKERS.contains(&word))
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| marked(line));
    let finding = |(at, line): (usize, &str)| Finding {
        file: file.path.clone(),
        line: at + 1,
        what: format!("a reminder; make it an issue or a test: {}", line.trim()),
    };
    lines.map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::{MARKERS, findings};
    use crate::tidy::{Finding, TextFile, assert_tidy, files};

    #[test]
    fn no_reminders_are_left() {
        let endings = &[".rs", ".md", ".toml", ".yaml", ".sh", ".service", "Containerfile", ".ci/run", ".py", ".js"];
        let findings: Vec<Finding> = files("", endings).iter().flat_map(findings).collect();
        assert_tidy(&findings);
    }

    #[test]
    fn a_marker_is_found_as_a_word_only() {
        let found = |text: String| findings(&TextFile { path: "x.rs".to_owned(), text }).len();
        for marker in MARKERS {
            assert_eq!(found(format!("// {marker}: later\n// {marker}(me)\n")), 2);
            assert_eq!(found(format!("let {marker}S = 1;")), 0);
        }
    }
}
