// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the calls of the services that run here will find the requests they are made for.
//!
//! In: the processes of this machine, by their runtimes, and what is found in their memory. Out: a line for each runtime and
//! each way; `docs/parents.md` says what they mean. It only looks: whether a source of evidence is right about a process shows
//! when it is traced.

use std::{collections::BTreeMap, path::Path, process};

use super::{Check, Verdict};
use crate::{
    enrich::process::service,
    process::{ProcessFacts, Runtime},
    targets::{
        Reader,
        identity::{Layout, Unknown, Virtual, find, is_known},
        selection::is_collector,
    },
};

/// Looks at every process there is, up to [`MOST`] whose runtime is known.
pub(super) fn checks() -> Vec<Check> {
    let mut reader = Reader::new();
    let all = reader.scan();
    let is_agent = |facts: &&ProcessFacts| facts.id.pid == process::id();
    let is_known = |facts: &&ProcessFacts| facts.runtime != Runtime::Native && !is_agent(facts);
    let known: Vec<_> = all.iter().filter(is_known).collect();
    let looked: Vec<_> = known.iter().take(MOST).map(|facts| (*facts, Evidence::of(facts))).collect();
    let mut checks = told(&looked);
    if known.len() > MOST {
        let more = format!("parents: {} more processes were not looked at", known.len() - MOST);
        checks.push(Check::new(NAME, Verdict::Info, more));
    }
    checks.extend(instrumented(&all));
    checks.extend(collectors(&all));
    checks
}

/// What speaks for a call's parent in a process.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Evidence {
    /// Something of it is read or followed: exact, or measured.
    Found(&'static str),
    /// The same, and nothing was found of something else, because.
    Half(&'static str, &'static str, &'static str),
    /// What its threads do is watched, and believed once it has proved right.
    Watched,
    /// Its runtime is known, and nothing was found in it.
    Missing(&'static str),
}

impl Evidence {
    fn of(facts: &ProcessFacts) -> Self {
        if !is_known(facts.runtime) {
            return Self::Watched;
        }
        match find(&Path::new("/proc").join(facts.id.pid.to_string()), facts.runtime, false, None) {
            Ok(Layout::Cpython(_)) => Self::Found("the asyncio task that runs is read from its memory"),
            Ok(Layout::Go(_)) => Self::Found("the goroutine that runs is read from its memory"),
            Ok(Layout::Node(_)) => Self::Found("the callback that runs is read from its memory"),
            Ok(Layout::Ruby(_)) => Self::Found("the fiber that runs is read from its memory"),
            Ok(Layout::Scheduled(_)) => Self::Found("the task that runs is read from its memory"),
            Ok(Layout::Tokio(_)) => Self::Found("the task that waits for a response is read from its memory"),
            Ok(Layout::Wakes(Virtual::Known(_))) => Self::Found(
                "the wakes of its threads are followed, and the virtual thread that runs is read from its memory",
            ),
            Ok(Layout::Wakes(Virtual::NotYet(why) | Virtual::Never(why))) => {
                Self::Half("the wakes of its threads are followed", "virtual threads", why)
            }
            Err(Unknown::NotYet(why) | Unknown::Never(why)) => Self::Missing(why),
        }
    }

    fn check(self, who: &str) -> Check {
        match self {
            Self::Found(how) => Check::new(NAME, Verdict::Ok, format!("parents: {who}: {how}")),
            Self::Half(how, what, why) => {
                Check::new(NAME, Verdict::Ok, format!("parents: {who}: {how}; {what} are not told apart: {why}"))
            }
            Self::Watched => {
                let finding = format!("parents: {who}: its threads are watched, and believed once they prove right");
                Check::new(NAME, Verdict::Info, finding)
            }
            // An idle process shows nothing yet, and its threads may say enough: no reason to warn.
            Self::Missing(why) => {
                let finding = format!(
                    "parents: {who}: {why}; its threads are watched, and calls of tasks have no parent without a header or an id"
                );
                Check::new(NAME, Verdict::Info, finding)
            }
        }
    }
}

/// A line for each runtime and each way.
fn told(looked: &[(&ProcessFacts, Evidence)]) -> Vec<Check> {
    let mut groups: BTreeMap<(&str, Evidence), Vec<&ProcessFacts>> = BTreeMap::new();
    for (facts, evidence) in looked {
        groups.entry((name(facts.runtime), *evidence)).or_default().push(facts);
    }
    let line = |((runtime, evidence), group): ((&str, Evidence), Vec<&ProcessFacts>)| {
        evidence.check(&format!("{runtime} ({})", listed(&group)))
    };
    groups.into_iter().map(line).collect()
}

/// Those that export spans of their own.
fn instrumented(all: &[ProcessFacts]) -> Option<Check> {
    let group: Vec<_> = all.iter().filter(|facts| facts.instrumented).collect();
    let finding = format!("an OpenTelemetry SDK is at work in {}: its spans are exported, not ours", listed(&group));
    (!group.is_empty())
        .then(|| Check::new("instrumented", Verdict::Info, finding).fix("to have both: sampling.instrumented: trace"))
}

/// Those that carry the traces of others, and are traced only if somebody chooses them.
fn collectors(all: &[ProcessFacts]) -> Option<Check> {
    let group: Vec<_> = all.iter().filter(|facts| is_collector(facts)).collect();
    let finding = format!("{} carries traces, and is left alone", listed(&group));
    (!group.is_empty()).then(|| {
        Check::new("collectors", Verdict::Info, finding).fix("to trace it all the same: --pid, --port or --exe")
    })
}

/// The first few, by service and number.
fn listed(group: &[&ProcessFacts]) -> String {
    let shown: Vec<_> = group.iter().take(SHOWN).map(|facts| format!("{} {}", service(facts), facts.id.pid)).collect();
    let more = group.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn name(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Haproxy => "haproxy",
        Runtime::Tokio => "tokio",
        other => other.name().unwrap_or("native"),
    }
}

const NAME: &str = "parents";

/// Processes that are looked into: each takes milliseconds.
const MOST: usize = 200;

/// Processes that are named in a line.
const SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Colour, doctor::Report, process::ProcessId};

    #[test]
    fn processes_of_one_kind_share_a_line_and_reasons_are_given() {
        let process = |pid, runtime, name: &str, instrumented| ProcessFacts {
            id: ProcessId { pid, started: 1 },
            runtime,
            otel_service_name: Some(name.to_owned()),
            instrumented,
            ..ProcessFacts::default()
        };
        let mut all: Vec<_> = (1..=6).map(|pid| process(pid, Runtime::Python, "cart", false)).collect();
        all.push(process(7, Runtime::Ruby, "pay", true));
        all.push(process(8, Runtime::Go, "old", false));
        all.push(process(10, Runtime::Java, "shop", false));
        all.push(ProcessFacts { executable: "/usr/bin/otelcol".into(), ..process(9, Runtime::Go, "otelcol", false) });
        let tasks = Evidence::Found("the asyncio task that runs is read from its memory");
        let evidence = |facts: &ProcessFacts| match facts.runtime {
            Runtime::Python => tasks,
            Runtime::Ruby => Evidence::Watched,
            Runtime::Java => Evidence::Half(
                "the wakes of its threads are followed",
                "virtual threads",
                "its release has no virtual threads",
            ),
            _ => Evidence::Missing("its release of Go is older or newer than those known"),
        };
        let looked: Vec<_> = all.iter().map(|facts| (facts, evidence(facts))).collect();
        let checks = told(&looked).into_iter().chain(instrumented(&all)).chain(collectors(&all)).collect();
        insta::assert_snapshot!(Report { checks }.text(Colour::Off), @r"
        [info] parents: go (old 8, otelcol 9): its release of Go is older or newer than those known; its threads are watched, and calls of tasks have no parent without a header or an id
        [ ok ] parents: java (shop 10): the wakes of its threads are followed; virtual threads are not told apart: its release has no virtual threads
        [ ok ] parents: python (cart 1, cart 2, cart 3, cart 4 and 2 more): the asyncio task that runs is read from its memory
        [info] parents: ruby (pay 7): its threads are watched, and believed once they prove right
        [info] an OpenTelemetry SDK is at work in pay 7: its spans are exported, not ours
               → to have both: sampling.instrumented: trace
        [info] otelcol 9 carries traces, and is left alone
               → to trace it all the same: --pid, --port or --exe
        Result: spantap works here.
        ");
    }
}
