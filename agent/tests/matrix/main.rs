// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Real services under real traffic, with the agent beside them.
//!
//! In: [`ROWS`], each a service behind nginx and a client. Out: a table on standard error and a failure for every span
//! that is missing, doubled or wrong, for every wrong parent and for every loss. Truth follows from the spans alone,
//! through the ids in the paths; nothing here looks inside the agent.
//!
//! `SPANTAP_MATRIX=node` runs the rows whose service, as the table names it, contains `node`.

mod agent;
mod client;
mod judge;
mod process;
mod services;
mod spans;
mod table;

use std::{
    collections::HashMap,
    fmt::Display,
    io::{Write, stderr},
    process::id,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    agent::{Agent, Summary},
    client::{Answered, Client, Request, curl},
    judge::{Calls, judge},
    process::is_root,
    services::{Part, Service, Stack, is_installed},
};

/// One line of the table.
#[derive(Clone, Copy)]
struct Row {
    service: Service,
    asker: Asker,
    requests: usize,
}

/// Who asks.
#[derive(Clone, Copy)]
enum Asker {
    /// This process, on so many keep-alive connections.
    Connections(usize),
    /// The same, and all connections of all services are older than the agent.
    OldConnections(usize),
    /// A curl process for each request.
    CurlEach,
    /// One curl process for all of them, on one connection.
    CurlOnce,
}

const ROWS: &[Row] = &[
    Row { service: Service::Python, asker: Asker::Connections(1), requests: 1000 },
    Row { service: Service::Python, asker: Asker::Connections(16), requests: 1000 },
    Row { service: Service::Node, asker: Asker::Connections(1), requests: 1000 },
    Row { service: Service::Node, asker: Asker::Connections(16), requests: 1000 },
    Row { service: Service::Go, asker: Asker::Connections(1), requests: 1000 },
    Row { service: Service::Go, asker: Asker::Connections(16), requests: 1000 },
    Row { service: Service::Java, asker: Asker::Connections(1), requests: 1000 },
    Row { service: Service::Java, asker: Asker::Connections(16), requests: 1000 },
    Row { service: Service::JavaUrl, asker: Asker::Connections(16), requests: 1000 },
    Row { service: Service::Python, asker: Asker::OldConnections(16), requests: 1000 },
    Row { service: Service::Go, asker: Asker::CurlEach, requests: 100 },
    Row { service: Service::Node, asker: Asker::CurlOnce, requests: 100 },
];

#[test]
fn every_request_has_its_spans_and_no_wrong_parent() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    if !is_root() {
        return say("SKIPPED the service matrix: loading probes needs root");
    }
    let mut lines = Vec::new();
    let mut failures = Vec::new();
    for (index, row) in installed_rows() {
        match row.run(&format!("m{index:02}")) {
            Ok(outcome) => {
                lines.push(outcome.line);
                failures.extend(outcome.failures.into_iter().map(|failure| format!("{row}: {failure}")));
            }
            Err(why) => failures.push(format!("{row}: {why}")),
        }
    }
    say(format_args!("\n{}", table::format(&lines)));
    for failure in &failures {
        say(format_args!("FAILED {failure}"));
    }
    assert!(failures.is_empty(), "{} failures, listed above", failures.len());
}

#[test]
fn every_service_answers_without_an_agent() {
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    for (index, row) in installed_rows() {
        let row = Row { requests: FEW, ..row };
        let answered = Stack::start(row.service).and_then(|stack| {
            let client = row.asker.connect(&stack)?;
            row.ask(&stack, client, &format!("w{index:02}")).map_err(|e| format!("{e}\n{}", stack.logs()))
        });
        assert_eq!(answered.map(|(answered, _)| answered.len()), Ok(FEW), "{row}");
    }
}

/// Both tests load the machine; the durations of one must not be those of the other.
static MACHINE: Mutex<()> = Mutex::new(());

/// The rows that were asked for and whose programs are there, with their numbers.
fn installed_rows() -> impl Iterator<Item = (usize, Row)> {
    let wanted = std::env::var("SPANTAP_MATRIX").unwrap_or_default();
    let mut rows: Vec<_> = ROWS.iter().copied().enumerate().collect();
    rows.retain(|(_, row)| row.service.label().contains(&wanted));
    assert!(!rows.is_empty(), "no row has a service like SPANTAP_MATRIX={wanted}");
    rows.into_iter().filter(|(_, row)| {
        let missing = row.service.missing_program().or_else(|| row.asker.missing_program());
        if let Some(program) = missing {
            say(format_args!("SKIPPED {row}: {program} is not installed"));
        }
        missing.is_none()
    })
}

struct Outcome {
    line: Vec<String>,
    failures: Vec<String>,
}

impl Row {
    fn run(self, tag: &str) -> Result<Outcome, String> {
        let stack = Stack::start(self.service)?;
        let mut client = self.asker.connect(&stack)?;
        if let (Asker::OldConnections(_), Some(client)) = (self.asker, &mut client) {
            let warm_up: Vec<_> = (1..=WARM_UP).map(|number| Request::numbered(&format!("{tag}w"), number)).collect();
            client.ask(&warm_up)?;
        }
        let mut agent = Agent::start()?;
        let (answered, askers) = self.ask(&stack, client, tag).map_err(|e| format!("{e}\n{}", stack.logs()))?;
        let of_this_row = format!("/{tag}-");
        let expected = answered.len() * judge::CHAIN.len();
        let shown_after = agent.await_spans(expected, SHOW_DEADLINE, |span| span.path.contains(&of_this_row))?;
        let agent_pid = agent.pid();
        let report = agent.stop()?;

        let mut parts = stack.parts();
        parts.extend(askers);
        let verdict = judge(&answered, &parts, &report.spans);
        let mut failures = verdict.failures(self.service.calls());
        let Summary { requests, spans, lost, .. } = report.summary;
        let losses = lost.values().sum();
        if losses > 0 {
            failures.push(format!("lost {lost:?}"));
        }
        // Nothing is lost silently: every request recognised is a span, and every span is shown.
        let shown = report.spans.len() as u64;
        if losses == 0 && (requests, spans) != (shown, shown) {
            failures.push(format!("{requests} requests and {spans} spans are accounted for, {shown} spans are shown"));
        }
        if report.spans.iter().any(|span| span.pid == agent_pid) {
            failures.push("the agent traced itself".to_owned());
        }
        let (client, connections) = self.asker.labels(self.requests);
        let line = table::line(self.service.label(), client, connections, &verdict, shown_after, losses);
        Ok(Outcome { line, failures })
    }

    /// Asks everything. Out: the answered requests, and the processes that asked.
    fn ask(
        self,
        stack: &Stack,
        client: Option<Client>,
        tag: &str,
    ) -> Result<(Vec<Answered>, HashMap<u32, Part>), String> {
        let requests: Vec<_> = (1..=self.requests).map(|number| Request::numbered(tag, number)).collect();
        if let Some(mut client) = client {
            return Ok((client.ask(&requests)?, HashMap::from([(id(), Part::Client)])));
        }
        let at_once = if matches!(self.asker, Asker::CurlEach) { 1 } else { requests.len() };
        let mut answered = Vec::new();
        let mut askers = HashMap::new();
        for some in requests.chunks(at_once) {
            let (pid, more) = curl(stack.port, some)?;
            answered.extend(more);
            askers.insert(pid, Part::Client);
        }
        Ok((answered, askers))
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (client, connections) = self.asker.labels(self.requests);
        write!(f, "{client} → nginx → {} at {connections}", self.service.label())
    }
}

impl Asker {
    /// The connections that this process asks on, if it does.
    fn connect(self, stack: &Stack) -> Result<Option<Client>, String> {
        match self {
            Self::Connections(count) | Self::OldConnections(count) => Client::connect(stack.port, count).map(Some),
            Self::CurlEach | Self::CurlOnce => Ok(None),
        }
    }

    fn missing_program(self) -> Option<&'static str> {
        matches!(self, Self::CurlEach | Self::CurlOnce).then_some("curl").filter(|curl| !is_installed(curl))
    }

    /// For tables: who asks, and on how many connections.
    fn labels(self, requests: usize) -> (&'static str, usize) {
        match self {
            Self::Connections(count) => ("keep-alive", count),
            Self::OldConnections(count) => ("older than agent", count),
            Self::CurlEach => ("curl each", requests),
            Self::CurlOnce => ("curl once", 1),
        }
    }
}

impl Service {
    /// Whether every call's parent must be found: whatever is proven by the thread is certain where one thread does it
    /// all, and may abstain elsewhere.
    fn calls(self) -> Calls {
        match self {
            Self::Python | Self::JavaUrl => Calls::OfOneThread,
            Self::Node | Self::Go | Self::Java => Calls::OfAnyThread,
        }
    }
}

/// Says it to whoever runs the tests: the harness keeps what `eprintln!` prints to itself.
fn say(text: impl Display) {
    // Nothing is left to be done when standard error is closed.
    let _ = writeln!(stderr(), "{text}");
}

/// Ten of every kind of request.
const FEW: usize = 100;

/// Opens every keep-alive connection between the services.
const WARM_UP: usize = 200;

/// A span is shown 1.5 s after its end at the latest; the machine may be busy. What is not there by then is judged
/// missing unless the agent's flush brings it.
const SHOW_DEADLINE: Duration = Duration::from_secs(4);
