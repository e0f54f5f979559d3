// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several cases under one agent, for machines on which starting one takes longer than a case.
//!
//! In: cases that do not start an agent themselves. Out: their verdicts, where every one passes and nothing of the agent's
//! account is left over. It says nothing of who is at fault otherwise: each has to be run by itself then.

use crate::{
    agent::{Agent, Report, SIGHT_PATH, Summary},
    case::Case,
    ground::Ground,
    judge::{Verdict, is_of, judge, unjoined},
    say,
    spans::Span,
    truth::Truth,
};

/// Of which one that fails makes so many to be run again.
pub(crate) const MOST: usize = 12;

/// A case that was held, and is not judged yet.
struct Held {
    name: &'static str,
    truths: Vec<Truth>,
    /// Whether the two ends of each request have to find each other.
    joined: bool,
}

/// Runs `cases` one after the other. Out: the first thing that keeps them from passing together.
pub(crate) fn run(cases: &[Case]) -> Result<Vec<Verdict>, String> {
    let mut grounds = cases.iter().map(|case| Ground::new(case.name)).collect::<Result<Vec<_>, _>>()?;
    let ports: Vec<u16> = grounds.iter().flat_map(Ground::ports).copied().collect();
    let mut agent = Agent::start_on(&ports)?;
    let mut held = Vec::new();
    for (case, mut ground) in cases.iter().zip(grounds.drain(..)) {
        ground.borrow(agent);
        let of_case = |why: String| format!("{}: {why}", case.name);
        case.hold(&mut ground).map_err(of_case)?;
        say(&format!("CASE {} held", case.name));
        let (given_back, of_it, joined) = ground.give_back().map_err(of_case)?;
        agent = given_back;
        held.push(Held { name: case.name, truths: of_it, joined });
    }
    apart(&held, agent.stop()?)
}

/// Judges each case by the spans that are its own.
fn apart(held: &[Held], report: Report) -> Result<Vec<Verdict>, String> {
    let Report { spans, summary } = report;
    let shown = spans.len() as u64;
    if !summary.lost.is_empty() || (summary.requests, summary.spans) != (shown, shown) {
        return Err(format!("{shown} spans are shown, and the account is {summary:?}"));
    }
    let mut of_cases: Vec<Vec<Span>> = held.iter().map(|_| Vec::new()).collect();
    for span in spans.into_iter().filter(|span| span.path != SIGHT_PATH) {
        let owner = held.iter().position(|case| case.truths.iter().any(|truth| is_of(&span, truth)));
        let owner = owner.ok_or_else(|| format!("{} belongs to no case", span.path))?;
        of_cases[owner].push(span);
    }
    let verdicts = held.iter().zip(of_cases).map(|(Held { name, truths, joined }, spans)| {
        let count = spans.len() as u64;
        let summary = Summary { requests: count, spans: count, ..Summary::default() };
        let report = Report { spans, summary };
        let mut verdict = judge(name, truths, &report);
        if *joined {
            unjoined(truths, &report).into_iter().for_each(|fault| verdict.fail(fault));
        }
        match verdict.faults.first() {
            Some(fault) => Err(format!("{name}: {fault}")),
            None => Ok(verdict),
        }
    });
    verdicts.collect()
}
