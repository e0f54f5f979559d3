// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether calls hang under the requests they were made for, in one small service per concurrency model.
//!
//! In: [`models::MODELS`], each started in turn between this process and a backend, with an agent that sees nothing
//! else. Out: a table on standard error, a JSON file where one is asked for, and a failure for every model in which
//! evidence called exact was wrong, or other evidence more often than it may be. Truth is the id in the paths; nothing
//! here looks inside the agent. A model that could not be run is a row that says why, and never counts as passed.
//!
//! `SPANTAP_PARENTS` chooses: nothing for the quick rows, `all`, or names separated by commas (a name chooses all that
//! contain it); `SPANTAP_PARENTS_CONCURRENCY` how many requests at once, `SPANTAP_PARENTS_JSON` where the rows go,
//! `SPANTAP_PARENTS_FETCH` that what a model lacks may be installed, `SPANTAP_PARENTS_RECORD` a folder for a recording of
//! each row, from which it is judged then. `cargo xtask accuracy parents` sets them.

#[path = "../matrix/agent.rs"]
#[expect(dead_code, reason = "the service matrix uses the rest")]
mod agent;
#[path = "../matrix/process.rs"]
#[expect(dead_code, reason = "the service matrix uses the rest")]
mod process;
#[path = "../matrix/spans.rs"]
mod spans;

mod judge;
mod load;
mod models;
mod parts;
mod recording;
mod scene;
mod table;

use std::{
    collections::BTreeSet,
    env, fs,
    io::{Write, stderr},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    agent::Agent,
    judge::{Row, judge},
    models::{MODELS, Model, Shape},
    process::{free_port, is_root},
    recording::Recording,
    scene::Scene,
};

#[test]
fn no_call_hangs_under_a_foreign_request() {
    let chosen = chosen(&env::var("SPANTAP_PARENTS").unwrap_or_default());
    assert!(!chosen.is_empty(), "no model has a name like those in SPANTAP_PARENTS");
    if !is_root() {
        return say("SKIPPED the models of concurrency: loading probes needs root");
    }
    let mut rows: Vec<Row> = Vec::new();
    for (model, shape, concurrencies) in chosen {
        let name = model.row(shape);
        let run = |concurrency| run(model, shape, concurrency).map_err(|why| (concurrency, why));
        match model.provide() {
            Ok(()) => rows.extend(concurrencies.iter().map(|&concurrency| {
                let row = run(concurrency).unwrap_or_else(|(at, why)| Row::failed(&name, at, why));
                say(&table::line(&row));
                row
            })),
            Err(why) => {
                say(&format!("NOT RUN {name}: {why}"));
                rows.push(Row::not_run(&name, why));
            }
        }
        // Written after each model: a run of all takes half an hour, and may be cut short.
        if let Some(file) = env::var_os("SPANTAP_PARENTS_JSON") {
            let json = table::json(&rows).expect("rows are plain values");
            fs::write(&file, json).unwrap_or_else(|e| panic!("write {}: {e}", file.display()));
        }
    }
    say(&format!("\n{}", table::text(&rows)));
    let failures: Vec<_> = rows.iter().flat_map(Row::failures).collect();
    for failure in &failures {
        say(&format!("FAILED {failure}"));
    }
    assert!(failures.is_empty(), "{} failures, listed above", failures.len());
}

#[test]
fn most_calls_of_threads_that_a_request_starts_are_seen_to_be_its_own() {
    most_are_right("python-threads", Shape::Parallel);
}

#[test]
fn most_calls_of_virtual_threads_are_seen_to_be_of_their_own_request() {
    most_are_right("java-virtual-url", Shape::Sequence);
}

/// Evidence that is not there is no failure of the row: it would be missed by nobody.
fn most_are_right(name: &str, shape: Shape) {
    if !is_root() {
        return say(&format!("SKIPPED {name}: loading probes needs root"));
    }
    let model = MODELS.iter().find(|model| model.name == name).expect("in the table");
    if let Err(why) = model.provide() {
        return say(&format!("NOT RUN {name}: {why}"));
    }
    let row = run(model, shape, QUICK_CONCURRENCY).expect("the service and the agent run");
    say(&table::line(&row));
    assert_eq!(row.failures(), Vec::<String>::new());
    assert!(2 * row.tally.right > row.tally.calls, "{}", table::line(&row));
}

#[test]
fn every_model_has_a_name_of_its_own() {
    let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    let plain = |name: &&str| name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    assert!(names.iter().all(plain), "a name is part of file names and command lines: {names:?}");
}

/// One row: a service, an agent and a load of their own.
fn run(model: &'static Model, shape: Shape, concurrency: usize) -> Result<Row, String> {
    let mut scene = Scene::start(model)?;
    let ports = [free_port()?, scene.port, scene.backend_port];
    // The process id makes ids unique on a host where another run may be under way.
    let tag = format!("{}x{concurrency}", std::process::id());
    let mut ask = || {
        let asked = ask(scene.port, shape, &tag, concurrency);
        asked.map_err(|e| format!("{e}\n{}", scene.post_mortem()))
    };
    let (Asked { warm_up, ids }, report) = if let Some(folder) = env::var_os("SPANTAP_PARENTS_RECORD") {
        let file = Path::new(&folder).join(format!("{}.{concurrency}.events", model.row(shape)));
        let recording = Recording::start(&file, &ports)?;
        (ask()?, recording.stop()?)
    } else {
        let mut agent = Agent::start_on(&ports)?;
        let asked = ask()?;
        let of_this_row = format!("/{tag}-");
        // A request, its calls, and each seen by both ends.
        let expected = 2 * asked.ids.len() * (1 + shape.calls());
        agent.await_spans(expected, SHOW_DEADLINE, |span| span.path.contains(&of_this_row))?;
        (asked, agent.stop()?)
    };
    Ok(judge(model, shape, concurrency, warm_up, &ids, &report))
}

/// What was asked for.
struct Asked {
    /// How many of the first are not judged.
    warm_up: usize,
    ids: Vec<String>,
}

/// Asks as many as it takes: so many at once, then one after the other until the agent has had the time to look into the service, and
/// then those that are judged.
fn ask(port: u16, shape: Shape, tag: &str, concurrency: usize) -> Result<Asked, String> {
    let (first, judged) = requests(concurrency);
    let start = Instant::now();
    let mut ids = load::ask(port, shape, tag, 0..first, concurrency)?;
    while start.elapsed() < LOOKS {
        ids.extend(load::ask(port, shape, tag, ids.len()..ids.len() + 1, 1)?);
    }
    let warm_up = ids.len();
    ids.extend(load::ask(port, shape, tag, warm_up..warm_up + judged, concurrency)?);
    Ok(Asked { warm_up, ids })
}

/// How many to warm up with at least, and how many to judge. One at a time there is nothing to confuse: a few show it.
fn requests(concurrency: usize) -> (usize, usize) {
    if concurrency == 1 { (10, 50) } else { (100, 400) }
}

/// The rows that `wanted` names.
fn chosen(wanted: &str) -> Vec<(&'static Model, Shape, Vec<usize>)> {
    let concurrency = env::var("SPANTAP_PARENTS_CONCURRENCY").ok().map(|number| match number.parse() {
        Ok(number @ 1..=MOST_AT_ONCE) => number,
        _ => panic!("SPANTAP_PARENTS_CONCURRENCY is a number from 1 to {MOST_AT_ONCE}, not {number:?}"),
    });
    let is_wanted = |model: &Model, shape: Shape| match wanted {
        "" => model.quick == Some(shape),
        "all" => true,
        names => names.split(',').any(|name| model.row(shape).contains(name)),
    };
    let usual = if wanted.is_empty() { [QUICK_CONCURRENCY].as_slice() } else { &CONCURRENCIES };
    let at_once = concurrency.map_or_else(|| usual.to_vec(), |number| vec![number]);
    let all = MODELS.iter().flat_map(|model| model.shapes.iter().map(move |&shape| (model, shape)));
    all.filter(|&(model, shape)| is_wanted(model, shape))
        .map(|(model, shape)| (model, shape, at_once.clone()))
        .collect()
}

/// Says it to whoever runs the tests: the harness keeps what `eprintln!` prints to itself.
fn say(text: &str) {
    // Nothing is left to be done when standard error is closed.
    let _ = writeln!(stderr(), "{text}");
}

/// As other agents were measured.
const CONCURRENCIES: [usize; 3] = [1, 8, 64];

/// Enough to confuse whoever goes by time.
const QUICK_CONCURRENCY: usize = 16;

/// The services' listen queues take 128 connections at once.
const MOST_AT_ONCE: usize = 128;

/// The agent looks into the memory of a process that shows itself 0, 0.1, 0.3, 0.7 and 1.5 s after that, as long as it has not found
/// what it looks for; on a busy machine the first looks come late.
const LOOKS: Duration = Duration::from_secs(2);

/// A call may wait 5 s for the evidence that comes with the answer, and is shown 1.5 s later; the machine may be busy.
/// What is not there by then is lost unless the agent's flush brings it.
const SHOW_DEADLINE: Duration = Duration::from_secs(10);
