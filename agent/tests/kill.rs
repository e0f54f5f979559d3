// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent killed under load.
//!
//! In: services under traffic, and an agent that sees it. Out: the claim that SIGKILL leaves no program in the kernel
//! and no request unanswered. It does not look at the spans beyond knowing that there are some.

#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "matrix/agent.rs"]
mod agent;
#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "matrix/client.rs"]
mod client;
#[path = "matrix/process.rs"]
mod process;
#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "matrix/services.rs"]
mod services;
#[path = "matrix/spans.rs"]
mod spans;

use std::{
    collections::BTreeSet,
    fs,
    io::{Write, stderr},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use aya::programs::loaded_programs;

use crate::{
    agent::Agent,
    client::{Client, Request},
    process::{is_root, wait_until},
    services::{Service, Stack},
};

#[test]
fn a_killed_agent_leaves_nothing_behind() {
    let service = Service::Python;
    let why = match service.missing_program() {
        Some(program) => Some(format!("{program} is not installed")),
        None if !is_root() => Some("loading probes needs root".to_owned()),
        None => None,
    };
    if let Some(why) = why {
        // Straight to standard error: the harness keeps what `eprintln!` prints to itself.
        let _ = writeln!(stderr(), "SKIPPED the killed agent: {why}");
        return;
    }
    let stack = Stack::start(service).expect("the services start");
    let mut client = Client::connect(stack.port, CONNECTIONS).expect("nginx accepts");
    let stop = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let (watched, asked) = thread::scope(|scope| {
        let load = scope.spawn(|| ask_until(&stop, &mut client, &answered));
        let watched = kill_under_load(&answered);
        stop.store(true, Ordering::Relaxed);
        (watched, load.join())
    });
    watched.unwrap_or_else(|why| panic!("{why}\n{}", stack.logs()));
    asked.expect("the clients do not panic").expect("every request is answered as without an agent");
}

fn ask_until(stop: &AtomicBool, client: &mut Client, answered: &AtomicUsize) -> Result<(), String> {
    let mut numbers = 0..;
    while !stop.load(Ordering::Relaxed) {
        let requests: Vec<_> = numbers.by_ref().take(BATCH).map(|number| Request::numbered("kill", number)).collect();
        answered.fetch_add(client.ask(&requests)?.len(), Ordering::Relaxed);
    }
    Ok(())
}

/// Before, during and after the agent's life some requests must have been answered.
fn kill_under_load(answered: &AtomicUsize) -> Result<(), String> {
    await_more(answered)?;
    let mut agent = Agent::start()?;
    await_more(answered)?;
    let of_the_load = |span: &spans::Span| span.path.contains("/kill-");
    if agent.await_spans(1, SHOW_DEADLINE, of_the_load)?.is_none() {
        return Err("the agent shows nothing of the load".to_owned());
    }
    let programs = programs_of(agent.pid())?;
    if programs.is_empty() || !programs.is_subset(&loaded()?) {
        return Err(format!("the agent's programs {programs:?} are not loaded while it runs"));
    }
    agent.abandon();
    let mut left = programs.clone();
    // The kernel frees a program after a grace period, from a work queue.
    wait_until(RELEASE_DEADLINE, || {
        left = loaded().map_or_else(|_| programs.clone(), |loaded| programs.intersection(&loaded).copied().collect());
        left.is_empty()
    });
    if !left.is_empty() {
        return Err(format!("programs {left:?} of {programs:?} outlive the agent"));
    }
    await_more(answered)
}

fn await_more(answered: &AtomicUsize) -> Result<(), String> {
    let before = answered.load(Ordering::Relaxed);
    match wait_until(ANSWER_DEADLINE, || answered.load(Ordering::Relaxed) >= before + SOME) {
        true => Ok(()),
        false => Err(format!("fewer than {SOME} requests were answered in {ANSWER_DEADLINE:?}")),
    }
}

/// The programs that a process holds, itself or by their links: other tracers on this host are not looked at.
fn programs_of(pid: u32) -> Result<BTreeSet<u32>, String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).map_err(|e| format!("descriptors of {pid}: {e}"))?;
    let infos = descriptors.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    Ok(infos
        .filter_map(|info| info.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse().ok()))
        .collect())
}

fn loaded() -> Result<BTreeSet<u32>, String> {
    loaded_programs()
        .map(|program| program.map(|program| program.id()))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("list programs: {e}"))
}

const CONNECTIONS: usize = 4;

/// Requests between two looks at the time: some 20 ms.
const BATCH: usize = 20;

/// As many answers as show that the services work.
const SOME: usize = 200;
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A span is shown 1.5 s after its end at the latest; the machine may be busy.
const SHOW_DEADLINE: Duration = Duration::from_secs(10);

/// Freeing takes milliseconds on an idle machine.
const RELEASE_DEADLINE: Duration = Duration::from_secs(10);
