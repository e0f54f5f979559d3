// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent under test: the real binary, tracing everything on this host.
//!
//! In: nothing but its own output. Out: an [`Agent`] that is known to see, and at its end a [`Report`]. It judges no
//! span; it knows the agent is ready because it showed a request that was made for the purpose.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    process::Process,
    spans::{self, Span},
};

/// A running agent.
pub(crate) struct Agent {
    process: Process,
    batches: Receiver<Result<Vec<Span>, String>>,
    complaints: JoinHandle<String>,
    spans: Vec<Span>,
}

/// What an agent leaves behind.
pub(crate) struct Report {
    /// Every span, in the order of export.
    pub(crate) spans: Vec<Span>,
    /// Its account.
    pub(crate) summary: Summary,
}

/// The agent's own account of a run: a line of JSON on standard error.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) struct Summary {
    /// Requests recognised.
    pub(crate) requests: u64,
    /// Spans finished.
    pub(crate) spans: u64,
    /// Losses by reason.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Sockets that carry something else, by what it looks like.
    #[serde(default)]
    pub(crate) left_alone: BTreeMap<String, u64>,
}

impl Agent {
    /// Starts it and waits until it sees requests.
    pub(crate) fn start() -> Result<Self, String> {
        Self::start_on(&[])
    }

    /// The same for connections to `ports` alone, or to all when there are none. The first of them is where the agent is
    /// shown a request; nobody may listen there.
    pub(crate) fn start_on(ports: &[u16]) -> Result<Self, String> {
        Self::start_with(&selecting(ports), ports.first().copied().unwrap_or_default())
    }

    /// The same with a selection of its own. `sight` is the port where the agent is shown a request.
    pub(crate) fn start_with(selection: &[String], sight: u16) -> Result<Self, String> {
        let mut command = command(&["run", "--print", "json"], &[]);
        command.args(selection);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start("spantap", &mut command)?;
        let (stdout, stderr) = (process.child().stdout.take(), process.child().stderr.take());
        let (Some(stdout), Some(mut stderr)) = (stdout, stderr) else { return Err("spantap has no pipes".to_owned()) };

        let (sender, batches) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let batch =
                    line.map_err(|e| format!("read the agent's output: {e}")).and_then(|line| spans::parse(&line));
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        let complaints = thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut agent = Self { process, batches, complaints, spans: Vec::new() };
        match agent.await_sight(sight) {
            Ok(()) => Ok(agent),
            Err(why) => Err(format!("{why}\n{}", agent.abandon())),
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Reads until `count` of the spans read so far are `wanted`, or `deadline` has passed. Out: how long after the
    /// call the last of them came, if all did.
    pub(crate) fn await_spans(
        &mut self,
        count: usize,
        deadline: Duration,
        wanted: impl Fn(&Span) -> bool,
    ) -> Result<Option<Duration>, String> {
        let start = Instant::now();
        let mut last = Duration::ZERO;
        let mut seen = self.spans.iter().filter(|span| wanted(span)).count();
        while seen < count {
            match self.batches.recv_timeout(deadline.saturating_sub(start.elapsed())) {
                Ok(batch) => {
                    let batch = batch?;
                    let new = batch.iter().filter(|span| wanted(span)).count();
                    if new > 0 {
                        last = start.elapsed();
                        seen += new;
                    }
                    self.spans.extend(batch);
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err("the agent has ended".to_owned()),
            }
        }
        Ok(Some(last))
    }

    /// Asks it to end, and waits for its account.
    pub(crate) fn stop(mut self) -> Result<Report, String> {
        self.process.signal(libc::SIGINT);
        let Some(status) = self.process.await_end(STOP_DEADLINE) else {
            return Err(format!("the agent does not end on SIGINT\n{}", self.abandon()));
        };
        let mut spans = self.spans;
        for batch in self.batches {
            spans.extend(batch?);
        }
        let said = self.complaints.join().unwrap_or_default();
        if !status.success() {
            return Err(format!("the agent ended with {status}\n{said}"));
        }
        Ok(Report { spans, summary: summary(&said)? })
    }

    /// Kills it without a word. Out: what it said on standard error.
    pub(crate) fn abandon(mut self) -> String {
        self.process.signal(libc::SIGKILL);
        self.process.await_end(STOP_DEADLINE);
        // Ends the reader of standard output, should it be waiting to send.
        drop(self.batches);
        self.complaints.join().unwrap_or_default()
    }

    fn await_sight(&mut self, port: u16) -> Result<(), String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| format!("listen: {e}"))?;
        let start = Instant::now();
        while start.elapsed() < SIGHT_DEADLINE {
            exchange(&listener).map_err(|e| format!("make a request to be seen: {e}"))?;
            self.await_spans(1, SIGHT_INTERVAL, |span| span.path == SIGHT_PATH)?;
            if self.spans.iter().any(|span| span.path == SIGHT_PATH) {
                return Ok(());
            }
        }
        Err(format!("the agent shows nothing after {SIGHT_DEADLINE:?}"))
    }
}

/// The real binary, with what it would find in the environment left out: a collector there would take the spans.
pub(crate) fn command(arguments: &[&str], ports: &[u16]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spantap"));
    command.args(arguments).args(selecting(ports));
    // A debug build takes ten times as long over a record, and these services share two cores with it: what a release
    // build reads from its 4 MiB at leisure would be lost here, and only say so.
    if cfg!(debug_assertions) {
        command.env("SPANTAP_TEST_BOUNDS", "ring=16777216");
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

fn selecting(ports: &[u16]) -> Vec<String> {
    ports.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]).collect()
}

/// The account in what an agent said on standard error.
pub(crate) fn summary(said: &str) -> Result<Summary, String> {
    let line = said.lines().rev().find_map(|line| serde_json::from_str::<SummaryLine>(line).ok());
    line.map(|line| line.summary).ok_or_else(|| format!("the agent left no summary\n{said}"))
}

#[derive(Deserialize)]
struct SummaryLine {
    summary: Summary,
}

/// One request and its answer, both by this thread: the sockets' buffers hold what the other end has not read yet.
pub(crate) fn exchange(listener: &TcpListener) -> Result<(), std::io::Error> {
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(format!("GET {SIGHT_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut bytes = [0; 256];
    server.read(&mut bytes).map(drop)?;
    server.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    client.read(&mut bytes).map(drop)
}

/// What is asked for to see whether the agent sees.
pub(crate) const SIGHT_PATH: &str = "/is-anybody-there";

/// Loading the probes takes a second, and the verifier of an emulated machine half a minute; either may be busy with other things.
const SIGHT_DEADLINE: Duration = Duration::from_secs(300);

/// Between two requests that are made to be seen.
const SIGHT_INTERVAL: Duration = Duration::from_millis(100);

/// The agent gives requests in flight 2 s, and then flushes.
const STOP_DEADLINE: Duration = Duration::from_secs(15);
