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
        let matches = |text: &str| globs.iter().any(|glob| glob.is_match(text));
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
