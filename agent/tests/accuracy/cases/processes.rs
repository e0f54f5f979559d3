// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes that are hard to see: gone after some milliseconds, or elsewhere with the same addresses.
//!
//! In: nothing. Out: [`CASES`]. Servers that fork are with the [runtimes](super::runtimes).

use std::{
    collections::HashMap,
    fs,
    io::Read,
    process::{Command, Stdio},
    slice,
    time::Duration,
};

use crate::{
    answerer::Answerer,
    case::Case,
    ground::{Ground, Told},
    process::Process,
    programs::Runtime,
    spans::Kind,
    truth::{Truth, Window, now},
};

pub(super) const CASES: &[Case] = &[
    Case::code("processes-of-milliseconds", short_lives).needs(&["cc"]).quick(),
    Case::code("process-id-used-again", reused_pid).needs(&["cc", "rustc"]),
    Case::code("equal-addresses-in-namespaces", equal_addresses).needs(&["python3"]),
    Case::code("addresses-rewritten-on-the-way", rewritten_addresses).needs(&["python3", "iptables"]),
];

/// Fifty processes, each of which connects, asks, reads and ends.
fn short_lives(ground: &mut Ground) -> Result<(), String> {
    let answerer = Answerer::start(ground.port(0))?;
    for _ in 0..50 {
        let id = ground.id();
        let mut command = Runtime::C.call(ground.port(0), &[format!("/{id}")])?;
        let (client, life) = Window::around(|| command.status());
        let status = client.map_err(|e| format!("start the client: {e}"))?;
        let served = answerer.served(1)?.remove(0);
        if !status.success() || served.path != format!("/{id}") {
            return Err(format!("the client ended with {status}, {} was asked for", served.path));
        }
        let start = Window { from: life.from, to: served.asked.to };
        let end = Window { from: served.answered.from, to: life.to };
        ground.expect_client(&id, Told::get(200), start, end);
        ground.expect_server(&id, Told::get(200), served.asked, served.answered);
    }
    Ok(())
}

/// A process ends, and another program gets its number.
fn reused_pid(ground: &mut Ground) -> Result<(), String> {
    let answerer = Answerer::start(ground.port(0))?;
    let first = called(ground, &answerer, Runtime::C)?;
    // Built before the number is set.
    Runtime::Rust.command()?;
    for _ in 0..TRIES {
        // The next process to be made has the number behind this one (proc_sys_kernel(5)), if nobody else makes one.
        fs::write("/proc/sys/kernel/ns_last_pid", (first - 1).to_string())
            .map_err(|e| format!("set the next process id: {e}"))?;
        if called(ground, &answerer, Runtime::Rust)? == first {
            return Ok(());
        }
    }
    Err(format!("no process got the number {first} again"))
}

/// A process that makes one call; its number.
fn called(ground: &mut Ground, answerer: &Answerer, runtime: Runtime) -> Result<u32, String> {
    let id = ground.id();
    let path = format!("/{id}");
    let mut command = runtime.call(ground.port(0), slice::from_ref(&path))?;
    let from = now();
    let mut process = Process::start("a client", &mut command)?;
    let served = answerer.served(1)?.remove(0);
    if !process.await_end(CLIENT_DEADLINE).is_some_and(|status| status.success()) || served.path != path {
        return Err(format!("the client did not end well, {} was asked for", served.path));
    }
    let life = Window { from, to: now() };
    let start = Window { from: life.from, to: served.asked.to };
    let end = Window { from: served.answered.from, to: life.to };
    ground.expect_client(&id, Told::get(200), start, end);
    ground.expect_server(&id, Told::get(200), served.asked, served.answered);
    Ok(process.pid())
}

/// Three network namespaces in which the same addresses and ports talk at the same time.
fn equal_addresses(ground: &mut Ground) -> Result<(), String> {
    let port = ground.port(0).to_string();
    talk_in_namespaces(ground, 3, &["alone", &port])
}

/// A client that talks to a port where nobody listens, as one that calls a Kubernetes service does: the kernel rewrites both
/// addresses and the port.
fn rewritten_addresses(ground: &mut Ground) -> Result<(), String> {
    ground.expect_joined();
    let [port, called] = [0, 1].map(|index| ground.port(index).to_string());
    talk_in_namespaces(ground, 1, &["rewritten", &port, &called])
}

/// Several processes, each a service and its client in a network namespace of their own.
fn talk_in_namespaces(ground: &mut Ground, count: usize, arguments: &[&str]) -> Result<(), String> {
    let mut all = Vec::new();
    for _ in 0..count {
        let paths: Vec<(String, String)> = (0..3)
            .map(|_| {
                let id = ground.id();
                let path = format!("/writes/{id}");
                (path, id)
            })
            .collect();
        let mut command: Command = Runtime::Python.command()?;
        command.args(arguments).args(paths.iter().map(|(path, _)| path));
        let process = Process::start("a namespace", command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
        all.push((process, paths));
    }
    for (mut process, paths) in all {
        let mut said = String::new();
        let mut pipe = process.child().stdout.take().ok_or("a namespace has no output")?;
        pipe.read_to_string(&mut said).map_err(|e| format!("read a namespace's output: {e}"))?;
        if !process.await_end(NAMESPACE_DEADLINE).is_some_and(|status| status.success()) {
            return Err("a namespace did not end well".to_owned());
        }
        let ids: HashMap<_, _> = paths.into_iter().collect();
        for line in said.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [path, start, end] = words[..] else { return Err(format!("a namespace said {line:?}")) };
            let time = |text: &str| text.parse::<u64>().map_err(|e| format!("a namespace said {text:?}: {e}"));
            let (id, life) =
                (ids.get(path).ok_or("a path that was not given")?, Window { from: time(start)?, to: time(end)? });
            // The answer takes half a second, after the request and before the end.
            let start = Window { from: life.from, to: life.to.saturating_sub(HALF_A_SECOND_NS) };
            let end = Window { from: life.from + HALF_A_SECOND_NS, to: life.to };
            for kind in [Kind::Client, Kind::Server] {
                let (id, path, original) = (id.clone(), path.to_owned(), None);
                ground.expect(Truth {
                    id,
                    kind,
                    path,
                    method: "GET",
                    original,
                    status: Some(200),
                    error: None,
                    start,
                    end,
                });
            }
        }
    }
    Ok(())
}

const HALF_A_SECOND_NS: u64 = 500_000_000;

/// Three answers of half a second each.
const NAMESPACE_DEADLINE: Duration = Duration::from_secs(20);

/// One call.
const CLIENT_DEADLINE: Duration = Duration::from_secs(20);

/// Until nobody else makes a process in between.
const TRIES: usize = 50;
