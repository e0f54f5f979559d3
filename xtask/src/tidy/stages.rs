// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: a stage names only stages to its left, and the vocabulary.
//!
//! In: the agent's sources. Out: a finding for each path that points to the right or into the shell. The shell
//! (`kernel`, `targets`, `export`, `live`, `run` and the like) may name everything.

use super::{Finding, TextFile, source};

/// Values that any stage may name; they name only each other.
pub(super) const VOCABULARY: &[&str] = &["attribute", "context", "process", "table", "time", "vitals"];

/// The pure stages, left to right.
pub(super) const STAGES: &[&str] = &["event", "stream", "protocol", "pairing", "trace", "enrich", "sample", "metrics"];

/// Where the stages are put together: names them all.
pub(super) const PIPELINE: &str = "pipeline";

/// Where the agent's modules are.
const SOURCES: &str = "agent/src/";

/// The module path of a file of the agent, such as `["protocol", "http1"]`; test modules in files of their own have
/// none, since they are free.
pub(super) fn module(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix(SOURCES)?.strip_suffix(".rs")?;
    let segments: Vec<_> = path.strip_suffix("/mod").unwrap_or(path).split('/').collect();
    (!segments.contains(&"tests")).then_some(segments)
}

/// Whether the module must be pure.
pub(super) fn is_pure(module: &str) -> bool {
    VOCABULARY.contains(&module) || STAGES.contains(&module) || module == PIPELINE
}

fn findings(file: &TextFile) -> Vec<Finding> {
    let Some(module) = module(&file.path) else { return Vec::new() };
    let Some(allowed) = allowed(module[0]) else { return Vec::new() };
    let finding = |line, what| Finding { file: file.path.clone(), line, what };
    let tokens = match source::tokens(&file.text) {
        Ok(tokens) => tokens,
        Err(error) => return vec![finding(0, format!("cannot be parsed: {error}"))],
    };
    source::paths(tokens)
        .iter()
        .filter_map(|path| {
            let target = target(&path.segments, module.len() + path.depth)?;
            if target == module[0] || allowed.contains(&target) {
                return None;
            }
            let what = if is_pure(target) {
                format!("`{}` may not name `{target}`, which is to its right", module[0])
            } else {
                format!("`{}` may not name `{target}`, which is no stage to its left", module[0])
            };
            Some(finding(path.line, what))
        })
        .collect()
}

/// The modules that `module` may name besides itself; nothing is said about the shell.
fn allowed(module: &str) -> Option<Vec<&'static str>> {
    if VOCABULARY.contains(&module) {
        return Some(VOCABULARY.to_vec());
    }
    let left = if module == PIPELINE { STAGES } else { &STAGES[..STAGES.iter().position(|stage| *stage == module)?] };
    Some(VOCABULARY.iter().chain(left).copied().collect())
}

/// The top-level module that a path in a module `depth` levels below the crate's root leads to.
fn target(segments: &[String], depth: usize) -> Option<&str> {
    let climbs = segments.iter().take_while(|segment| *segment == "super").count();
    let from_root = match segments.first()?.as_str() {
        "crate" => 1,
        "self" if segments.get(1).is_some_and(|segment| segment == "super") => {
            return target(&segments[1..], depth);
        }
        _ if climbs > 0 && climbs == depth => climbs,
        _ => return None,
    };
    segments.get(from_root).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::{STAGES, VOCABULARY, findings, module};
    use crate::tidy::{Finding, TextFile, assert_tidy, files};

    #[test]
    fn stages_name_only_what_is_to_their_left() {
        let files = files("agent/src", &[".rs"]);
        for name in STAGES.iter().chain(VOCABULARY) {
            assert!(files.iter().any(|file| module(&file.path) == Some(vec![name])), "no module {name} in agent/src");
        }
        let findings: Vec<Finding> = files.iter().flat_map(findings).collect();
        assert_tidy(&findings);
    }

    /// The lines that are found in `text` as the file `path` of the agent.
    #[track_caller]
    fn check(path: &str, text: &str, expected: &[usize]) {
        let file = TextFile { path: format!("agent/src/{path}"), text: text.to_owned() };
        let found = findings(&file);
        let lines: Vec<_> = found.iter().map(|finding| finding.line).collect();
        assert_eq!(lines, expected, "{found:?}");
    }

    #[test]
    fn a_path_to_the_right_is_found_wherever_it_stands() {
        check("protocol.rs", "use crate::pairing::Exchange;", &[1]);
        check("protocol.rs", "use crate::{event::Event,\n    trace};", &[2]);
        check("protocol/http1.rs", "fn f() {\n    let _ = crate::pairing::pair();\n}", &[2]);
        check("pairing.rs", "type T = Vec<crate::trace::Span>;", &[1]);
        check("enrich.rs", "fn f() { dbg!(crate::sample::x); }", &[1]);
    }

    #[test]
    fn the_shell_is_not_named_by_a_stage() {
        check("trace.rs", "use crate::config::Config;", &[1]);
        check("pipeline.rs", "use crate::export::Exporter;", &[1]);
        check("pipeline.rs", "use crate::{event, sample, vitals};", &[]);
    }

    #[test]
    fn the_vocabulary_names_no_stage() {
        check("time.rs", "use crate::event::Event;", &[1]);
        check("process.rs", "use crate::time::Timestamp;", &[]);
    }

    #[test]
    fn super_leads_where_the_file_stands() {
        check("protocol/http1.rs", "use super::Message;", &[]);
        check("protocol/http1.rs", "use super::super::pairing::Exchange;", &[1]);
        check("protocol/http1.rs", "use super::super::event::Event;", &[]);
        check("protocol.rs", "mod inner { use super::super::pairing::Exchange; }", &[1]);
        check("protocol.rs", "use super::pairing;", &[1]);
    }

    #[test]
    fn the_whole_crate_is_not_named_at_once() {
        check("protocol.rs", "use crate::*;", &[1]);
    }

    #[test]
    fn the_shell_and_tests_are_free() {
        check("run.rs", "use crate::{event, export, kernel};", &[]);
        check("event.rs", "#[cfg(test)]\nmod tests { use crate::export::x; }", &[]);
        check("protocol/http1/tests.rs", "use crate::export::x;", &[]);
    }
}
