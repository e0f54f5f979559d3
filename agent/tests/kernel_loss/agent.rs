// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent under test: the real executable, watching one port, with bounds of the test's choice.
//!
//! In: a port, arguments, bounds. Out: an [`Account`] once it has ended: its spans, its summary, its words. It judges
//! nothing but that the two laws of the books hold, which they must however the agent was treated.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    mem,
    process::{ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
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
    output: Output,
    words: Receiver<String>,
    said: Vec<String>,
    shown: Arc<Mutex<Vec<Span>>>,
}

/// What is done with its standard output.
enum Output {
    Read(JoinHandle<Result<(), String>>),
    /// Held open, and never read.
    Blocked(#[expect(dead_code, reason = "it is held open")] ChildStdout),
}

/// How standard output is treated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reader {
    Eager,
    Asleep,
}

/// What an agent leaves behind.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) spans: Vec<Span>,
    pub(crate) summary: Summary,
    /// Standard error, line by line.
    pub(crate) said: Vec<String>,
    /// From the signal to the end.
    pub(crate) ended_after: Duration,
}

/// Its own account of a run: a line of JSON on standard error.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) struct Summary {
    pub(crate) requests: u64,
    pub(crate) spans: u64,
    #[serde(default)]
    pub(crate) printed: Option<u64>,
    #[serde(default)]
    pub(crate) exported: Option<u64>,
    pub(crate) strays: u64,
    #[serde(default)]
    pub(crate) steps: Steps,
    pub(crate) losses: Losses,
}

/// Steps of the ladder.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) struct Steps {
    pub(crate) down: u64,
    pub(crate) up: u64,
    pub(crate) rung: u64,
}

/// The four books.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) struct Losses {
    pub(crate) requests: Book,
    pub(crate) parts: Book,
    pub(crate) records: Book,
    pub(crate) spans: Book,
}

/// Losses by reason.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub(crate) struct Book(BTreeMap<String, u64>);

impl Book {
    pub(crate) fn of(&self, reason: &str) -> u64 {
        self.0.get(reason).copied().unwrap_or_default()
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl Agent {
    /// Starts it with `--port port`, `arguments` and `bounds`, and waits until its probes are live.
    pub(crate) fn start(port: u16, arguments: &[&str], bounds: &str, reader: Reader) -> Self {
        Self::of(&mut command(port, arguments, bounds), reader)
    }

    /// Starts what [`command`] has prepared.
    pub(crate) fn of(command: &mut Command, reader: Reader) -> Self {
        let mut process = Process::start("spantap", command).expect("spantap starts");
        let stdout = process.child().stdout.take().expect("piped");
        let stderr = process.child().stderr.take().expect("piped");
        let (sender, words) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let shown = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&shown);
        let output = match reader {
            Reader::Eager => Output::Read(thread::spawn(move || read_spans(stdout, &theirs))),
            Reader::Asleep => Output::Blocked(stdout),
        };
        let mut agent = Self { process, output, words, said: Vec::new(), shown };
        agent.await_word("live in");
        agent
    }

    /// Waits until it says something with `part` on standard error.
    pub(crate) fn await_word(&mut self, part: &str) {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.said.iter().any(|line| line.contains(part)) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.words.recv_timeout(left) {
                Ok(line) => self.said.push(line),
                Err(why) => panic!("the agent did not say {part:?} ({why}): {:?}", self.said),
            }
        }
    }

    /// What it has said since it was last waited for.
    pub(crate) fn words(&self) -> Vec<String> {
        self.words.try_iter().collect()
    }

    /// Whether a span was shown that is `wanted`.
    pub(crate) fn has_shown(&self, wanted: impl FnMut(&Span) -> bool) -> bool {
        self.shown.lock().expect("no panic").iter().any(wanted)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        self.process.signal(signal);
    }

    /// Asks it to end with `signal`, and checks its books.
    pub(crate) fn stop(self, signal: libc::c_int) -> Account {
        let (shown, (said, ended_after)) = (Arc::clone(&self.shown), self.end(signal));
        let summary = said.iter().find_map(|line| serde_json::from_str::<SummaryLine>(line).ok());
        let summary = summary.unwrap_or_else(|| panic!("no summary: {said:#?}")).summary;
        let spans = mem::take(&mut *shown.lock().expect("no panic"));
        let account = Account { spans, summary, said, ended_after };
        account.balances();
        account
    }

    /// Asks it to end with `signal`. Out: what it said on standard error, and how long it took.
    pub(crate) fn end(mut self, signal: libc::c_int) -> (Vec<String>, Duration) {
        let asked = Instant::now();
        self.process.signal(signal);
        let status =
            self.process.await_end(STOP_DEADLINE).unwrap_or_else(|| panic!("it does not end: {:?}", self.said));
        let ended_after = asked.elapsed();
        self.said.extend(self.words);
        assert!(status.success(), "{status}: {:#?}", self.said);
        if let Output::Read(reader) = self.output {
            reader.join().expect("no panic").expect("OTLP JSON");
        }
        (self.said, ended_after)
    }
}

impl Account {
    fn balances(&self) {
        let Summary { requests, spans, printed, exported, losses, .. } = &self.summary;
        assert_eq!(*requests, spans + losses.requests.total(), "the law of requests: {:#?}", self.summary);
        let delivered = printed.or(*exported).expect("one output");
        assert_eq!(*spans, delivered + losses.spans.total(), "the law of spans: {:#?}", self.summary);
        assert!(
            self.spans.is_empty() || self.spans.len() as u64 == *spans - losses.spans.total(),
            "{:#?}",
            self.summary
        );
    }
}

/// The executable with nothing of this environment that could change what it does.
pub(crate) fn command(port: u16, arguments: &[&str], bounds: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spantap"));
    command.args(["run", "--port", &port.to_string()]).args(arguments);
    command.env_clear().env("SPANTAP_TEST_BOUNDS", bounds);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for the end of a process that was asked to.
pub(crate) fn end_of(process: &mut Process) -> Option<ExitStatus> {
    process.await_end(STOP_DEADLINE)
}

fn read_spans(stdout: impl Read, shown: &Mutex<Vec<Span>>) -> Result<(), String> {
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| format!("read the agent's output: {error}"))?;
        shown.lock().expect("no panic").extend(spans::parse(&line)?);
    }
    Ok(())
}

#[derive(Deserialize)]
struct SummaryLine {
    summary: Summary,
}

/// Loading the probes takes a second; the machine may be busy.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// The agent gives requests in flight 2 s, and each output 5 s.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
