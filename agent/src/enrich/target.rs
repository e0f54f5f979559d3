// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kinds of processes that an operator treats differently.
//!
//! In: rules in order, facts about processes, and the port of a request. Out: the name of the first rule that it falls
//! under. What becomes of such requests, others decide by that name.

use std::sync::Arc;

use super::process::selector::{Patterns, Selector};
use crate::process::ProcessFacts;

/// A rule for a kind of processes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// What it is called; no two have the same.
    pub name: String,
    /// Which processes it is for.
    pub patterns: Patterns,
    /// The ports of servers that it is for; none is all of them.
    pub ports: Vec<u16>,
    /// Whether they are traced.
    pub trace: bool,
}

/// The rules, ready to be asked.
#[derive(Debug, Default)]
pub struct Targets(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    name: Arc<str>,
    selector: Selector,
    ports: Vec<u16>,
}

/// The rules that a process falls under, if only the port is right: a bit each.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Candidates(u64);

impl Targets {
    /// The first [`MOST`] of `targets`. Fails with the first glob that is none.
    pub fn new(targets: &[Target]) -> Result<Self, globset::Error> {
        let rule = |Target { name, patterns, ports, .. }: &Target| {
            Ok(Rule { name: name.as_str().into(), selector: Selector::new(patterns)?, ports: ports.clone() })
        };
        targets.iter().take(MOST).map(rule).collect::<Result<_, _>>().map(Self)
    }

    /// The rules that the process may fall under.
    pub fn of_process(&self, facts: &ProcessFacts) -> Candidates {
        let bit = |(index, rule): (usize, &Rule)| u64::from(rule.selector.matches(facts)) << index;
        Candidates(self.0.iter().enumerate().map(bit).fold(0, |bits, bit| bits | bit))
    }

    /// The rule that a request of such a process to a server on `port` falls under.
    pub fn of_request(&self, candidates: Candidates, port: u16) -> Option<Arc<str>> {
        let mut rules = self.0.iter().enumerate().filter(|(index, _)| candidates.0 >> index & 1 == 1);
        let found = rules.find(|(_, rule)| rule.ports.is_empty() || rule.ports.contains(&port));
        found.map(|(_, rule)| Arc::clone(&rule.name))
    }
}

/// Rules: one bit each of a word, and each is asked about each process.
pub const MOST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_fits_process_and_port_counts() {
        let target = |name: &str, executable: &str, ports: &[u16]| Target {
            name: name.to_owned(),
            patterns: Patterns { executables: vec![executable.to_owned()], ..Patterns::default() },
            ports: ports.to_vec(),
            trace: true,
        };
        let rules = [target("admin", "node", &[9000]), target("node", "node", &[]), target("rest", "*", &[])];
        let targets = Targets::new(&rules).expect("globs");
        for (executable, port, name) in [
            ("/usr/bin/node", 9000, Some("admin")),
            ("/usr/bin/node", 80, Some("node")),
            ("/usr/bin/java", 9000, Some("rest")),
        ] {
            let facts = ProcessFacts { executable: executable.to_owned(), ..ProcessFacts::default() };
            let found = targets.of_request(targets.of_process(&facts), port);
            assert_eq!(found.as_deref(), name, "{executable}:{port}");
        }
        assert_eq!(Targets::default().of_request(Candidates(u64::MAX), 80), None);
    }

    #[test]
    fn the_last_rule_there_is_room_for_is_heard() {
        let rules: Vec<_> = (0..65)
            .map(|n| Target {
                name: n.to_string(),
                patterns: Patterns { executables: vec![n.to_string()], ..Patterns::default() },
                ports: Vec::new(),
                trace: true,
            })
            .collect();
        let targets = Targets::new(&rules).expect("globs");
        for (executable, name) in [("63", Some("63")), ("64", None)] {
            let facts = ProcessFacts { executable: executable.to_owned(), ..ProcessFacts::default() };
            assert_eq!(targets.of_request(targets.of_process(&facts), 1).as_deref(), name);
        }
    }
}
