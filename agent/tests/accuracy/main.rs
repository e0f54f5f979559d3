// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The catalogue of what capture has to get right.
//!
//! In: [`cases::catalogue`], each case with traffic of its own and with an agent of its own that sees nothing else. Out:
//! a table on standard error, a JSON file where one is asked for, and a failure for every case in which a span is
//! missing, doubled or wrong, or in which the agent's account is not what it has to be. Truth is what the case itself
//! did and when; nothing here looks inside the agent.
//!
//! Where starting an agent takes long, which is in an emulated machine, `SPANTAP_ACCURACY_TOGETHER` lets cases share one.
//!
//! `SPANTAP_ACCURACY` chooses: nothing for the quick cases, `all`, or names separated by commas (a name chooses all that
//! contain it). `SPANTAP_ACCURACY_JSON` is where the rows go. `cargo xtask accuracy capture` sets both.

#[path = "../matrix/agent.rs"]
#[expect(dead_code, reason = "the service matrix uses the rest")]
mod agent;
#[path = "../matrix/process.rs"]
mod process;
#[path = "../matrix/spans.rs"]
mod spans;

mod answerer;
mod asker;
mod case;
mod cases;
mod company;
mod ground;
mod judge;
mod programs;
mod script;
mod shortfalls;
mod table;
mod talk;
mod truth;

use std::{
    collections::BTreeSet,
    env, fs,
    io::{Write, stderr},
    time::{Duration, Instant},
};

use crate::{
    case::Case,
    cases::catalogue,
    judge::Verdict,
    process::is_root,
    programs::{Runtime, is_installed},
    shortfalls::{SHORTFALLS, shortfall},
};
use spantap::kernel::Tier;

#[test]
fn what_is_captured_is_exact() {
    let chosen = chosen(&env::var("SPANTAP_ACCURACY").unwrap_or_default());
    assert!(!chosen.is_empty(), "no case has a name like those in SPANTAP_ACCURACY");
    if !is_root() {
        return say("SKIPPED the catalogue of capture: loading probes needs root");
    }
    let tier = tier().unwrap_or_else(|why| panic!("{why}"));
    let (mut verdicts, mut failures) = (Vec::new(), Vec::new());
    let is_possible = |case: &Case| match case.obstacle() {
        Some(obstacle) => {
            say(&format!("SKIPPED {}: {obstacle}", case.name));
            false
        }
        None => true,
    };
    let mut chosen: Vec<_> = chosen.into_iter().filter(is_possible).collect();
    if env::var_os("SPANTAP_ACCURACY_TOGETHER").is_some() {
        chosen = together(tier, chosen, &mut verdicts);
    }
    for case in chosen {
        let start = Instant::now();
        let verdict = case.run().unwrap_or_else(|why| Verdict::not_run(case.name, why));
        let verdict = match shortfall(tier, case.name) {
            Some(shortfall) => verdict.held_against(shortfall),
            None => verdict,
        };
        failures.extend(verdict.faults.iter().map(|fault| format!("{}: {fault}", case.name)));
        // A booted machine is given up when it says nothing for long.
        let fault = verdict.faults.first().map(|fault| format!(": {fault}")).unwrap_or_default();
        say(&format!("CASE {} {}{fault}", case.name, verdict.outcome()));
        verdicts.push((verdict, start.elapsed()));
    }
    say(&format!("\n{}", table::text(&verdicts)));
    for failure in &failures {
        say(&format!("FAILED {failure}"));
    }
    if let Some(file) = env::var_os("SPANTAP_ACCURACY_JSON") {
        let rows = table::json(&verdicts).expect("rows are plain values");
        fs::write(&file, rows).unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
    }
    assert!(failures.is_empty(), "{} failures, listed above", failures.len());
}

#[test]
fn what_cannot_pass_is_in_the_catalogue_and_in_the_list_once() {
    let names: BTreeSet<_> = catalogue().map(|case| case.name).collect();
    let listed: Vec<_> = SHORTFALLS.iter().flat_map(|it| it.cases.iter().map(|case| (it.tier, *case))).collect();
    assert!(listed.iter().all(|(_, case)| names.contains(case)), "{listed:?}");
    assert_eq!(listed.iter().collect::<BTreeSet<_>>().len(), listed.len(), "{listed:?}");
}

#[test]
fn the_services_can_be_built() {
    for runtime in
        [Runtime::C, Runtime::Go, Runtime::Rust].into_iter().filter(|runtime| is_installed(runtime.compiler()))
    {
        runtime.command().unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let names: Vec<_> = catalogue().map(|case| case.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b));
    assert!(names.iter().all(plain), "a name is part of paths and command lines: {names:?}");
}

/// Runs those cases in company that can be. Out: those that are left to be run alone.
fn together(tier: Tier, chosen: Vec<Case>, verdicts: &mut Vec<(Verdict, Duration)>) -> Vec<Case> {
    let (fit, mut alone): (Vec<_>, Vec<_>) =
        chosen.into_iter().partition(|case| !case.late && shortfall(tier, case.name).is_none());
    for cases in fit.chunks(company::MOST) {
        let start = Instant::now();
        match company::run(cases) {
            Ok(passed) => {
                let each = start.elapsed() / cases.len() as u32;
                passed.iter().for_each(|verdict| say(&format!("CASE {} passed", verdict.row.case)));
                verdicts.extend(passed.into_iter().map(|verdict| (verdict, each)));
            }
            Err(why) => {
                say(&format!("CASE {} and {} more are run one by one: {why}", cases[0].name, cases.len() - 1));
                alone.extend(cases);
            }
        }
    }
    alone
}

/// The tier in which the agent watches here: the one that is forced, or the one it says.
fn tier() -> Result<Tier, String> {
    if let Ok(name) = env::var("SPANTAP_TIER") {
        return Tier::named(&name).ok_or_else(|| format!("SPANTAP_TIER={name} names no tier"));
    }
    let output = agent::command(&["doctor", "--json"], &[]).output().map_err(|e| format!("start spantap: {e}"))?;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("spantap doctor: {e}"))?;
    let checks = said["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    let finding = |check: &serde_json::Value| {
        let found = (check["name"] == "tier").then(|| check["finding"].as_str())??;
        found.strip_prefix("tier ")?.get(..1).and_then(Tier::named)
    };
    checks.iter().find_map(finding).ok_or_else(|| format!("spantap doctor names no tier: {said}"))
}

/// The cases that `wanted` names.
fn chosen(wanted: &str) -> Vec<Case> {
    let is_wanted = |case: &Case| match wanted {
        "" => case.quick,
        "all" => true,
        names => names.split(',').any(|name| case.name.contains(name)),
    };
    catalogue().filter(is_wanted).collect()
}

/// Says it to whoever runs the tests: the harness keeps what `eprintln!` prints to itself.
fn say(text: &str) {
    // Nothing is left to be done when standard error is closed.
    let _ = writeln!(stderr(), "{text}");
}
