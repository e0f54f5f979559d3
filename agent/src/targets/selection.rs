// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Judges which processes are traced.
//!
//! In: the user's [`Selection`] and facts about processes, parents before their children. Out: a [`Verdict`] for each.
//! Ports are not judged here: they belong to sockets, and the probes look at them.

use std::{collections::HashSet, fmt};

use spantap_common::{abi::MAX_PROCESSES, settings::Verdict};

use crate::{
    config::Selection,
    enrich::process::selector::{Executable, Selector, executables, list},
    process::ProcessFacts,
};

/// The user's selection, ready to be asked.
#[derive(Debug)]
pub struct Judge {
    pids: Vec<u32>,
    ports: Vec<u16>,
    selector: Selector,
    excluded: Vec<Executable>,
    /// Rules for kinds of processes, and whether those are traced: the first one that matches says so.
    targets: Vec<(Selector, bool)>,
    /// Whether somebody has said which processes or ports are traced.
    chosen: bool,
    /// The named processes and their descendants that are alive. Law: at most [`MAX_PROCESSES`].
    family: HashSet<u32>,
}

impl Judge {
    /// A judge by `selection`. Fails with the first glob that is none.
    pub fn new(selection: &Selection) -> Result<Self, globset::Error> {
        // A rule for some ports of a process says nothing about all of it.
        let targets = selection.targets.iter().filter(|target| target.ports.is_empty());
        let selector = Selector::new(&selection.patterns)?;
        Ok(Self {
            chosen: !selection.pids.is_empty() || !selection.ports.is_empty() || !selector.is_everybody(),
            pids: selection.pids.clone(),
            ports: selection.ports.clone(),
            selector,
            excluded: executables(&selection.excluded)?,
            targets: targets
                .map(|target| Ok((Selector::new(&target.patterns)?, target.trace)))
                .collect::<Result<_, _>>()?,
            family: selection.pids.iter().copied().collect(),
        })
    }

    /// Whether verdicts depend on what the user has said of processes. If not, all are targets but those that carry what
    /// tracers say, who are known when they show their first socket, or run already.
    pub fn selects_processes(&self) -> bool {
        !(self.pids.is_empty() && self.selector.is_everybody() && self.excluded.is_empty())
            || self.targets.iter().any(|(_, trace)| !trace)
    }

    /// Whether the process is traced. Selecting a process selects its descendants: servers serve in the workers that
    /// they fork, before the agent starts and after.
    ///
    /// What carries the traces of others is no target where everything is: each span would make another one. Who wants to
    /// see it has to say so.
    pub fn judge(&mut self, facts: &ProcessFacts) -> Verdict {
        let rule = self.targets.iter().find(|(selector, _)| selector.matches(facts)).map(|(_, trace)| *trace);
        let selected = self.in_family(facts)
            && self.selector.matches(facts)
            && rule.unwrap_or_else(|| self.chosen || !is_collector(facts))
            && !self.excluded.iter().any(|pattern| pattern.matches(facts));
        if selected { Verdict::Target } else { Verdict::Ignored }
    }

    /// The process is gone; whoever gets its number next is somebody else.
    pub fn gone(&mut self, pid: u32) {
        self.family.remove(&pid);
    }

    fn in_family(&mut self, facts: &ProcessFacts) -> bool {
        if self.pids.is_empty() || self.family.contains(&facts.id.pid) {
            return true;
        }
        // Beyond the bound there is no room in the kernel's table for the verdict either, where it is counted.
        let born = self.family.contains(&facts.parent) && self.family.len() < MAX_PROCESSES as usize;
        if born {
            self.family.insert(facts.id.pid);
        }
        born
    }
}

/// Whether the process is one of those that take traces from others and pass them on, or keep them. `otelcol-contrib` and
/// `jaeger-query` are of the families of `otelcol` and `jaeger`.
pub fn is_collector(facts: &ProcessFacts) -> bool {
    let path = if facts.executable.is_empty() { &facts.command } else { &facts.executable };
    let name = path.rsplit('/').next().unwrap_or_default();
    COLLECTORS
        .iter()
        .any(|known| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.'])))
}

/// OpenTelemetry's Collector and Grafana's distribution of it with its predecessor; Jaeger and Tempo; the agents of
/// Datadog, of X-Ray and of Fluent; Vector; other tracers that need no code.
const COLLECTORS: &[&str] = &[
    "otelcol",
    "alloy",
    "grafana-agent",
    "jaeger",
    "tempo",
    "trace-agent",
    "xray",
    "fluent-bit",
    "vector",
    "beyla",
    "obi",
];

/// One line for people: what is traced.
impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        if !self.pids.is_empty() {
            clauses.push(format!("process {} with descendants", list(&self.pids)));
        }
        clauses.extend(self.selector.clauses());
        if !self.ports.is_empty() {
            clauses.push(format!("port {}", list(&self.ports)));
        }
        if clauses.is_empty() {
            clauses.push("every process".to_owned());
        }
        f.write_str(&clauses.join(", "))?;
        if !self.excluded.is_empty() {
            write!(f, ", except executable {}", list(&self.excluded))?;
        }
        for (selector, _) in self.targets.iter().filter(|(_, trace)| !trace) {
            write!(f, ", except {}", selector.clauses().join(" with "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        enrich::{process::selector::Patterns, target::Target},
        process::ProcessId,
    };

    fn process(pid: u32, parent: u32, executable: &str) -> ProcessFacts {
        ProcessFacts {
            id: ProcessId { pid, started: u64::from(pid) },
            parent,
            executable: executable.to_owned(),
            command: executable.rsplit('/').next().unwrap_or_default().to_owned(),
            ..ProcessFacts::default()
        }
    }

    fn globs(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    fn of_executables(globs_: &[&str]) -> Selection {
        let patterns = Patterns { executables: globs(globs_), ..Patterns::default() };
        Selection { patterns, ..Selection::default() }
    }

    #[test]
    fn the_first_rule_for_a_process_says_whether_it_is_traced() {
        let rule = |executable: &str, ports: &[u16], trace| Target {
            name: executable.to_owned(),
            patterns: Patterns { executables: globs(&[executable]), ..Patterns::default() },
            ports: ports.to_vec(),
            trace,
        };
        for (targets, path, target) in [
            (vec![rule("node", &[], false)], "/usr/bin/node", false),
            (vec![rule("node", &[], false)], "/usr/bin/java", true),
            (vec![rule("node", &[], true), rule("*", &[], false)], "/usr/bin/node", true),
            (vec![rule("node", &[], true), rule("*", &[], false)], "/usr/bin/java", false),
            // Some of its connections are under a rule of their own, and nothing is said about the others.
            (vec![rule("node", &[80], true), rule("node", &[], false)], "/usr/bin/node", false),
        ] {
            let mut judge = Judge::new(&Selection { targets, ..Selection::default() }).expect("globs");
            let expected = if target { Verdict::Target } else { Verdict::Ignored };
            assert_eq!(judge.judge(&process(7, 1, path)), expected, "{judge}: {path}");
            assert!(judge.selects_processes());
        }
    }

    #[test]
    fn collectors_are_left_alone_unless_somebody_chooses_them() {
        let everything = Selection::default;
        let rule = |trace| Target {
            name: "those".to_owned(),
            patterns: Patterns { executables: globs(&["otelcol*"]), ..Patterns::default() },
            ports: Vec::new(),
            trace,
        };
        for (selection, path, target) in [
            (everything(), "/usr/bin/otelcol-contrib", false),
            (everything(), "/otelcol", false),
            (everything(), "/usr/local/bin/jaeger", false),
            (everything(), "/bin/alloy", false),
            // Others whose names begin alike.
            (everything(), "/usr/bin/objdump", true),
            (everything(), "/usr/bin/temporal", true),
            (everything(), "/usr/bin/vectorize", true),
            (of_executables(&["otelcol*"]), "/usr/bin/otelcol-contrib", true),
            (Selection { pids: vec![7], ..everything() }, "/usr/bin/jaeger", true),
            (Selection { ports: vec![16686], ..everything() }, "/usr/bin/jaeger", true),
            (Selection { targets: vec![rule(true)], ..everything() }, "/usr/bin/otelcol", true),
            (Selection { targets: vec![rule(true)], ..everything() }, "/usr/bin/jaeger", false),
            (Selection { excluded: globs(&["curl"]), ..everything() }, "/usr/bin/jaeger", false),
        ] {
            let verdict = Judge::new(&selection).expect("globs").judge(&process(7, 1, path));
            let expected = if target { Verdict::Target } else { Verdict::Ignored };
            assert_eq!(verdict, expected, "{selection:?}: {path}");
        }
        let unreadable = ProcessFacts { command: "otelcol".to_owned(), ..process(7, 1, "") };
        assert_eq!(Judge::new(&everything()).expect("no globs").judge(&unreadable), Verdict::Ignored);
    }

    #[test]
    fn globs_select_and_exclusion_wins() {
        for (executables, excluded, path, target) in [
            (&[][..], &[][..], "/usr/bin/curl", true),
            (&["node"], &[], "/usr/bin/node", true),
            (&["node"], &[], "/usr/bin/nodejs", false),
            (&["python*"], &[], "/opt/venv/bin/python3.11", true),
            (&["node", "python*"], &[], "/usr/bin/python3", true),
            (&["/usr/bin/*"], &[], "/usr/bin/node", true),
            (&["/usr/bin/*"], &[], "/usr/bin/deeper/node", false),
            (&["/usr/**/node"], &[], "/usr/local/bin/node", true),
            (&["**/node"], &[], "/usr/bin/node", true),
            (&["{node,java}"], &[], "/usr/bin/java", true),
            (&["bin"], &[], "/usr/bin/java", false),
            (&[], &["curl"], "/usr/bin/curl", false),
            (&[], &["curl"], "/usr/bin/node", true),
            (&["node"], &["/opt/**"], "/opt/shop/bin/node", false),
            (&["node"], &["node"], "/usr/bin/node", false),
        ] {
            let selection = Selection { excluded: globs(excluded), ..of_executables(executables) };
            let verdict = Judge::new(&selection).expect("globs").judge(&process(7, 1, path));
            let expected = if target { Verdict::Target } else { Verdict::Ignored };
            assert_eq!(verdict, expected, "{executables:?} without {excluded:?}: {path}");
        }
    }

    #[test]
    fn a_process_with_an_unreadable_executable_is_known_by_its_command() {
        let mut judge =
            Judge::new(&Selection { excluded: globs(&["secret*"]), ..Selection::default() }).expect("globs");
        let facts = ProcessFacts { command: "secretd".to_owned(), ..process(7, 1, "") };
        assert_eq!(judge.judge(&facts), Verdict::Ignored);
    }

    #[test]
    fn a_selected_process_brings_its_descendants() {
        let mut judge = Judge::new(&Selection { pids: vec![10], ..Selection::default() }).expect("no globs");
        for (pid, parent, verdict) in [
            (9, 1, Verdict::Ignored),
            (10, 1, Verdict::Target),
            (11, 10, Verdict::Target),
            (12, 11, Verdict::Target),
            (13, 9, Verdict::Ignored),
        ] {
            assert_eq!(judge.judge(&process(pid, parent, "/usr/bin/python3")), verdict, "{pid}");
        }
    }

    #[test]
    fn kinds_of_selectors_must_all_hold() {
        let selection = Selection { pids: vec![10], ..of_executables(&["node"]) };
        let mut judge = Judge::new(&selection).expect("globs");
        assert_eq!(judge.judge(&process(10, 1, "/bin/sh")), Verdict::Ignored);
        assert_eq!(judge.judge(&process(11, 10, "/usr/bin/node")), Verdict::Target, "its child may still be wanted");
        assert_eq!(judge.judge(&process(12, 1, "/usr/bin/node")), Verdict::Ignored);
    }

    #[test]
    fn a_number_that_was_given_away_is_not_selected() {
        let mut judge = Judge::new(&Selection { pids: vec![10], ..Selection::default() }).expect("no globs");
        assert_eq!(judge.judge(&process(10, 1, "/bin/sh")), Verdict::Target);
        judge.gone(10);
        assert_eq!(judge.judge(&process(10, 1, "/bin/sh")), Verdict::Ignored);
    }

    #[test]
    fn only_process_selectors_need_the_processes() {
        for (selection, asked) in [
            (Selection::default(), false),
            (Selection { ports: vec![80], ..Selection::default() }, false),
            (Selection { pids: vec![1], ..Selection::default() }, true),
            (of_executables(&["a"]), true),
            (Selection { excluded: globs(&["a"]), ..Selection::default() }, true),
        ] {
            assert_eq!(Judge::new(&selection).expect("globs").selects_processes(), asked, "{selection:?}");
        }
    }

    #[test]
    fn a_selection_can_be_read_by_people() {
        for (selection, line) in [
            (Selection::default(), "every process"),
            (Selection { pids: vec![10, 12], ..Selection::default() }, "process 10 or 12 with descendants"),
            (Selection { ports: vec![80, 443], ..of_executables(&["node"]) }, "executable node, port 80 or 443"),
            (
                Selection { excluded: globs(&["curl", "/opt/**"]), ..Selection::default() },
                "every process, except executable curl or /opt/**",
            ),
        ] {
            assert_eq!(Judge::new(&selection).expect("globs").to_string(), line);
        }
    }

    #[test]
    fn a_glob_that_is_none_is_refused_with_its_text() {
        let error = Judge::new(&of_executables(&["a[b"])).expect_err("a[b");
        assert_eq!(error.glob(), Some("a[b"));
    }
}
