// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An agent at work, ours or a peer.
//!
//! In: its command, and what it traces. Out: a process that has delivered its first span, until it is told to end. What a
//! peer says goes to a file, of which only the end is read, and only where it fails.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    super::{load::Paced, nginx::Nginx, sink::Sink},
    Named,
};
use crate::agent::{Agent, Output};

/// What is traced, and where the spans go.
pub(super) struct Target<'a> {
    pub(super) server: Nginx,
    pub(super) sink: Sink,
    /// Of the peers' environment.
    pub(super) variables: &'a [Named],
}

impl Target<'_> {
    /// `text` with what is known here in the place of the words for it.
    fn fill(&self, text: &str) -> String {
        text.replace("{port}", &self.server.address.port().to_string())
            .replace("{pid}", &self.server.pid().to_string())
            .replace("{endpoint}", &self.sink.endpoint())
    }
}

/// A running agent; dropping it ends it.
pub(super) enum Running {
    Ours(Agent),
    Peer(Peer),
}

impl Running {
    /// Starts spantap, if it is `ours`, or a peer. Of both ends of a connection either traces the server's.
    pub(super) fn start(agent: &Named, ours: bool, target: &Target<'_>) -> Result<Self> {
        if ours {
            let watched = ["--pid".to_owned(), target.server.pid().to_string()];
            Agent::start(Path::new(&agent.value), Output::Otlp(&target.sink.endpoint()), &watched).map(Self::Ours)
        } else {
            Peer::start(agent, target).map(Self::Peer)
        }
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        match self {
            Self::Ours(agent) => agent.pid(),
            Self::Peer(peer) => peer.process.id(),
        }
    }

    /// Makes requests until one of them has become a span; how many it took.
    pub(super) fn wait_for_first_span(&self, target: &Target<'_>) -> Result<f64> {
        let (before, started) = (target.sink.servers(), Instant::now());
        let mut requests = 0.0;
        while target.sink.servers() == before {
            if started.elapsed() > PATIENCE {
                bail!("no span came in {} s", PATIENCE.as_secs());
            }
            if let Self::Peer(peer) = self {
                peer.ensure_alive()?;
            }
            // A connection each: an agent may know none that is older than itself.
            Paced::connect(&[target.server.address], 1)?.burst(1)?;
            requests += 1.0;
            thread::sleep(BREATH);
        }
        Ok(requests)
    }

    /// Ends it in order.
    pub(super) fn stop(self) -> Result<()> {
        match self {
            Self::Ours(agent) => agent.stop().map(drop),
            Self::Peer(peer) => peer.stop(),
        }
    }
}

/// A running peer; dropping it ends it.
pub(super) struct Peer {
    name: String,
    process: Child,
    /// Holds the file of what it says.
    folder: TempDir,
}

impl Peer {
    /// Starts it with the variables that OpenTelemetry has for an endpoint, for traces alone: other signals are not
    /// measured, and a peer is spared them.
    fn start(agent: &Named, target: &Target<'_>) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for a peer")?;
        let words = File::create(folder.path().join(WORDS)).context("make a file for what a peer says")?;
        let command = target.fill(&agent.value);
        let mut command = command.split_whitespace();
        let mut process = Command::new(command.next().context("a peer has no command")?);
        // Settings of the developer's own collector would redirect the spans.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("OTEL_")) {
                process.env_remove(name);
            }
        }
        process
            .args(command)
            .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", target.sink.endpoint() + "/v1/traces")
            .env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")
            .envs(target.variables.iter().map(|variable| (&variable.name, target.fill(&variable.value))))
            .stdin(Stdio::null())
            .stdout(words.try_clone().context("hand the file to a peer")?)
            .stderr(words);
        let process = process.spawn().with_context(|| format!("start {}", agent.name))?;
        Ok(Self { name: agent.name.clone(), process, folder })
    }

    fn ensure_alive(&self) -> Result<()> {
        // A process that has ended and was not waited for has no memory.
        if super::process::memory(self.process.id()).is_err() {
            bail!("{} ended: {}", self.name, self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let words = fs::read(self.folder.path().join(WORDS)).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let from = words.char_indices().rev().nth(LAST).map_or(0, |(at, _)| at);
        words[from..].to_owned()
    }

    /// Asks it to end, and makes it where it does not.
    fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw).context("a process id is positive")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("end {}", self.name))?;
        let asked = Instant::now();
        while asked.elapsed() < FAREWELL {
            if self.process.try_wait().context("wait for a peer")?.is_some() {
                return Ok(());
            }
            thread::sleep(BREATH);
        }
        println!("  {} did not end in {} s and was ended", self.name, FAREWELL.as_secs());
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Gone already, after `stop`: then neither does anything.
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

const WORDS: &str = "words";

/// Characters of what a peer said last.
const LAST: usize = 2000;

/// Until the first span: OBI was seen to take 164 s in an emulated machine (2026-11-21).
const PATIENCE: Duration = Duration::from_secs(600);

/// For detaching its probes.
const FAREWELL: Duration = Duration::from_secs(60);

/// Between two requests, or two looks.
const BREATH: Duration = Duration::from_millis(100);
