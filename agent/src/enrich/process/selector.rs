// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which processes are meant.
//!
//! In: patterns for what is known of a process, and its facts. Out: whether it is one of those. Pids and ports are not
//! judged here: who is whose child is known elsewhere, and ports belong to sockets.

use std::fmt;

use globset::{Glob, GlobBuilder, GlobMatcher};

use super::{container, service};
use crate::process::ProcessFacts;

/// Patterns for processes. Those of one kind are alternatives, different kinds must all hold; none means everybody.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Patterns {
    /// Globs over the executable's path, or over its file name when there is no slash in the glob.
    pub executables: Vec<String>,
    /// Globs over the name that the service gets.
    pub services: Vec<String>,
    /// Globs over the command line, its words joined by blanks.
    pub commands: Vec<String>,
    /// Globs over the container's id.
    pub containers: Vec<String>,
    /// Globs over the path in the cgroup hierarchy.
    pub cgroups: Vec<String>,
    /// Globs over the name of the user.
    pub users: Vec<String>,
}

/// [`Patterns`], ready to be asked.
#[derive(Debug)]
pub struct Selector {
    executables: Vec<Executable>,
    /// Kinds that were used, each with its patterns: one of them must match.
    others: Vec<(Fact, Vec<GlobMatcher>)>,
}

impl Selector {
    /// A selector by `patterns`. Fails with the first glob that is none.
    pub fn new(patterns: &Patterns) -> Result<Self, globset::Error> {
        Ok(Self { executables: executables(&patterns.executables)?, others: others(patterns)? })
    }

    /// Whether everybody is meant.
    pub fn is_everybody(&self) -> bool {
        self.executables.is_empty() && self.others.is_empty()
    }

    /// Whether the process is meant.
    pub fn matches(&self, facts: &ProcessFacts) -> bool {
        (self.executables.is_empty() || self.executables.iter().any(|pattern| pattern.matches(facts)))
            && self.others.iter().all(|(fact, globs)| fact.is_among(globs, facts))
    }

    /// What is asked for, a clause for people for each kind.
    pub fn clauses(&self) -> Vec<String> {
        let mut clauses = Vec::new();
        if !self.executables.is_empty() {
            clauses.push(format!("executable {}", list(&self.executables)));
        }
        for (fact, globs) in &self.others {
            let globs: Vec<_> = globs.iter().map(GlobMatcher::glob).collect();
            clauses.push(format!("{} {}", fact.name(), list(&globs)));
        }
        clauses
    }
}

/// Patterns for executables, ready to be asked.
pub fn executables(globs: &[String]) -> Result<Vec<Executable>, globset::Error> {
    globs.iter().map(|glob| Executable::new(glob)).collect()
}

/// Alternatives, for people.
pub fn list(items: &[impl fmt::Display]) -> String {
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
        let matches = |text: &str| !text.is_empty() && globs.iter().any(|glob| glob.is_match(text));
        match self {
            Self::Service => matches(&service(facts)),
            Self::Command => matches(&facts.arguments.join(" ")),
            Self::Container => container(facts).is_some_and(matches),
            Self::Cgroup => matches(&facts.cgroup),
            Self::User => facts.owner.as_deref().is_some_and(matches),
        }
    }
}

fn others(patterns: &Patterns) -> Result<Vec<(Fact, Vec<GlobMatcher>)>, globset::Error> {
    let Patterns { services, commands, containers, cgroups, users, .. } = patterns;
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
pub struct Executable {
    glob: GlobMatcher,
    over: Over,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Over {
    Path,
    FileName,
}

impl Executable {
    fn new(glob: &str) -> Result<Self, globset::Error> {
        let over = if glob.contains('/') { Over::Path } else { Over::FileName };
        let glob: Glob = GlobBuilder::new(glob).literal_separator(true).build()?;
        Ok(Self { glob: glob.compile_matcher(), over })
    }

    /// Whether it is for the process's executable.
    pub fn matches(&self, facts: &ProcessFacts) -> bool {
        match self.over {
            Over::Path => self.glob.is_match(&facts.executable),
            // The command stands in where the executable is unreadable: it begins as the file's name.
            Over::FileName if facts.executable.is_empty() => self.glob.is_match(&facts.command),
            Over::FileName => self.glob.is_match(facts.executable.rsplit('/').next().unwrap_or_default()),
        }
    }
}

impl fmt::Display for Executable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.glob.glob().glob())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605";

    fn is_meant(patterns: Patterns, facts: &ProcessFacts) -> bool {
        Selector::new(&patterns).expect("globs").matches(facts)
    }

    type Kind = fn(&mut Patterns) -> &mut Vec<String>;

    fn one(change: Kind, glob: &str) -> Patterns {
        let mut patterns = Patterns::default();
        change(&mut patterns).push(glob.to_owned());
        patterns
    }

    #[test]
    fn each_kind_looks_at_its_own_fact() {
        let facts = ProcessFacts {
            executable: "/usr/bin/python3".into(),
            arguments: ["python3", "app.py", "--port", "80"].map(Into::into).to_vec(),
            otel_service_name: Some("cart".into()),
            cgroup: format!("/kubepods/burstable/pod1/{CONTAINER}"),
            owner: Some("www-data".into()),
            ..ProcessFacts::default()
        };
        for (kind, change, glob, meant) in [
            ("executable", (|p| &mut p.executables) as Kind, "python*", true),
            ("executable", |p| &mut p.executables, "cart", false),
            ("service", |p| &mut p.services, "c?rt", true),
            ("service", |p| &mut p.services, "python3", false),
            ("command line", |p| &mut p.commands, "* app.py *", true),
            ("command line", |p| &mut p.commands, "app.py", false),
            ("container", |p| &mut p.containers, "7be92808767a*", true),
            ("container", |p| &mut p.containers, "pod1", false),
            ("cgroup", |p| &mut p.cgroups, "/kubepods/**", true),
            ("cgroup", |p| &mut p.cgroups, "/kubepods/*", false),
            ("user", |p| &mut p.users, "www-*", true),
            ("user", |p| &mut p.users, "root", false),
        ] {
            let patterns = one(change, glob);
            assert_eq!(Selector::new(&patterns).expect("a glob").clauses(), [format!("{kind} {glob}")]);
            assert_eq!(is_meant(patterns, &facts), meant, "{kind} {glob}");
        }
    }

    #[test]
    fn what_is_not_known_matches_nothing() {
        let unknown = ProcessFacts::default();
        let kinds: [Kind; 4] = [|p| &mut p.commands, |p| &mut p.containers, |p| &mut p.cgroups, |p| &mut p.users];
        for kind in kinds {
            assert!(!is_meant(one(kind, "**"), &unknown), "{:?}", one(kind, "**"));
        }
        assert!(is_meant(Patterns::default(), &unknown), "nobody was asked for");
    }

    #[test]
    fn one_of_each_kind_has_to_hold() {
        let facts = ProcessFacts { executable: "/bin/a".into(), owner: Some("u".into()), ..ProcessFacts::default() };
        for (executables, users, meant) in [
            (&["a", "b"][..], &["u"][..], true),
            (&["b"], &["u"], false),
            (&["a"], &["v"], false),
            (&["a"], &["v", "u"], true),
        ] {
            let globs = |list: &[&str]| list.iter().map(ToString::to_string).collect();
            let patterns = Patterns { executables: globs(executables), users: globs(users), ..Patterns::default() };
            assert_eq!(is_meant(patterns.clone(), &facts), meant, "{patterns:?}");
        }
    }
}
