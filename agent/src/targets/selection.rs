// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Judges which processes are traced.
//!
//! In: the user's [`Selection`] and facts about processes, parents before their children. Out: a [`Verdict`] for each.
//! Ports are not judged here: they belong to sockets, and the probes look at them.

use std::{collections::HashSet, fmt};

use globset::{Glob, GlobBuilder, GlobMatcher};
use spantap_common::{abi::MAX_PROCESSES, settings::Verdict};

use crate::{config::Selection, enrich::process, process::ProcessFacts};

/// The user's selection, ready to be asked.
#[derive(Debug)]
pub struct Judge {
    pids: Vec<u32>,
    ports: Vec<u16>,
    executables: Vec<Pattern>,
    excluded: Vec<Pattern>,
    /// Kinds of selectors that were used, each with its patterns: one of them must match.
    others: Vec<(Fact, Vec<GlobMatcher>)>,
    /// The named processes and their descendants that are alive. Law: at most [`MAX_PROCESSES`].
    family: HashSet<u32>,
}

impl Judge {
    /// A judge by `selection`. Fails with the first glob that is none.
    pub fn new(selection: &Selection) -> Result<Self, globset::Error> {
        let compile = |globs: &[String]| globs.iter().map(|glob| Pattern::new(glob)).collect::<Result<Vec<_>, _>>();
        Ok(Self {
            pids: selection.pids.clone(),
            ports: selection.ports.clone(),
            executables: compile(&selection.executables)?,
            excluded: compile(&selection.excluded)?,
            others: others(selection)?,
            family: selection.pids.iter().copied().collect(),
        })
    }

    /// Whether verdicts depend on the process at all. If not, every process is a target and nobody has to be asked,
    /// neither now nor for the processes that run already.
    pub fn selects_processes(&self) -> bool {
        !(self.pids.is_empty() && self.executables.is_empty() && self.excluded.is_empty() && self.others.is_empty())
    }

    /// Whether the process is traced. Selecting a process selects its descendants: servers serve in the workers that
    /// they fork, before the agent starts and after.
    pub fn judge(&mut self, facts: &ProcessFacts) -> Verdict {
        let selected = self.in_family(facts)
            && (self.executables.is_empty() || self.executables.iter().any(|pattern| pattern.matches(facts)))
            && self.others.iter().all(|(fact, globs)| fact.is_among(globs, facts))
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

/// One line for people: what is traced.
impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        if !self.pids.is_empty() {
            clauses.push(format!("process {} with descendants", list(&self.pids)));
        }
        if !self.executables.is_empty() {
            clauses.push(format!("executable {}", list(&self.executables)));
        }
        for (fact, globs) in &self.others {
            let globs: Vec<_> = globs.iter().map(GlobMatcher::glob).collect();
            clauses.push(format!("{} {}", fact.name(), list(&globs)));
        }
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
        Ok(())
    }
}

fn list(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// What else a process can be selected by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fact {
    Service,
    Command,
    Container,
    Cgroup,
    User,
}

impl Fact {
    fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Command => "command line",
            Self::Container => "container",
            Self::Cgroup => "cgroup",
            Self::User => "user",
        }
    }

    /// Whether what is known of the process matches one of `globs`. What is not known matches none.
    fn is_among(self, globs: &[GlobMatcher], facts: &ProcessFacts) -> bool {
        let matches = |text: &str| globs.iter().any(|glob| glob.is_match(text));
        match self {
            Self::Service => matches(&process::service(facts)),
            Self::Command => matches(&facts.arguments.join(" ")),
            Self::Container => process::container(facts).is_some_and(matches),
            Self::Cgroup => matches(&facts.cgroup),
            Self::User => facts.owner.as_deref().is_some_and(matches),
        }
    }
}

fn others(selection: &Selection) -> Result<Vec<(Fact, Vec<GlobMatcher>)>, globset::Error> {
    let Selection { services, commands, containers, cgroups, users, .. } = selection;
    let mut kinds = Vec::new();
    for (fact, globs) in [
        (Fact::Service, services),
        (Fact::Command, commands),
        (Fact::Container, containers),
        (Fact::Cgroup, cgroups),
        (Fact::User, users),
    ] {
        // In a path `*` stays within one part of it; the others are texts, whatever they contain.
        let compile = |glob: &String| {
            let built = GlobBuilder::new(glob).literal_separator(fact == Fact::Cgroup).build();
            built.map(|glob| glob.compile_matcher())
        };
        if !globs.is_empty() {
            kinds.push((fact, globs.iter().map(compile).collect::<Result<_, _>>()?));
        }
    }
    Ok(kinds)
}

/// A glob over the executable's path, or over its file name when there is no slash in the glob. As in a shell, `*` stays
/// within one folder and `**/` crosses any number of them.
#[derive(Debug)]
struct Pattern {
    glob: GlobMatcher,
    over: Over,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    Path,
    FileName,
}

impl Pattern {
    fn new(glob: &str) -> Result<Self, globset::Error> {
        let over = if glob.contains('/') { Over::Path } else { Over::FileName };
        let glob: Glob = GlobBuilder::new(glob).literal_separator(true).build()?;
        Ok(Self { glob: glob.compile_matcher(), over })
    }

    fn matches(&self, facts: &ProcessFacts) -> bool {
        match self.over {
            Over::Path => self.glob.is_match(&facts.executable),
            // The command stands in where the executable is unreadable: it begins as the file's name.
            Over::FileName if facts.executable.is_empty() => self.glob.is_match(&facts.command),
            Over::FileName => self.glob.is_match(facts.executable.rsplit('/').next().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.glob.glob().glob())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessId;

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
            let selection =
                Selection { executables: globs(executables), excluded: globs(excluded), ..Selection::default() };
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
        let selection = Selection { pids: vec![10], executables: globs(&["node"]), ..Selection::default() };
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
            (Selection { executables: globs(&["a"]), ..Selection::default() }, true),
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
            (
                Selection { ports: vec![80, 443], executables: globs(&["node"]), ..Selection::default() },
                "executable node, port 80 or 443",
            ),
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
        let error = Judge::new(&Selection { executables: globs(&["a[b"]), ..Selection::default() }).expect_err("a[b");
        assert_eq!(error.glob(), Some("a[b"));
    }
}
