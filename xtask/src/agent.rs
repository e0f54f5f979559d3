// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent under measurement, or under test with real backends.
//!
//! In: where its spans go and what it watches. Out: a process whose probes are live, and at its end what it said about
//! itself. It measures nothing.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running agent; dropping it ends it.
pub(crate) struct Agent {
    child: Child,
    /// From the start of the process until it said that its probes are live.
    pub(crate) live_after: Duration,
    words: Option<JoinHandle<Vec<String>>>,
}

/// Where spans go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Output<'a> {
    /// OTLP over HTTP to this endpoint.
    Otlp(&'a str),
    /// A line a request, to `/dev/null`.
    Print,
    /// OTLP in JSON to this file, and whatever else the variables say.
    Lines(&'a File, &'a [(&'a str, String)]),
}

impl Agent {
    /// Starts the agent in `binary` and waits until its probes are live. `watched` are the flags that choose what is
    /// traced: other programs on this machine are nobody's business here.
    pub(crate) fn start(binary: &Path, output: Output<'_>, watched: &[String]) -> Result<Self> {
        Self::with_budget(binary, output, watched, false)
    }

    /// The same with the budget that users have, if `budget` says so: without, it does everything whatever that takes.
    pub(crate) fn with_budget(binary: &Path, output: Output<'_>, watched: &[String], budget: bool) -> Result<Self> {
        let mut command = Command::new(binary);
        // Settings of the developer's own collector would redirect the spans.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("OTEL_") || name.starts_with("SPANTAP_")) {
                command.env_remove(name);
            }
        }
        command.env("SPANTAP_BUDGET_ENABLED", budget.to_string());
        command.stdout(Stdio::null());
        match output {
            Output::Otlp(endpoint) => {
                command.args(["--otlp", endpoint]).env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
            }
            Output::Print => command.args(["--print", "text"]),
            Output::Lines(file, variables) => {
                command.stdout(file.try_clone().context("hand the file to the agent")?);
                command.args(["--print", "json"]).envs(variables.iter().map(|(name, value)| (name, value)))
            }
        };
        command.args(watched).stdin(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("start {}", binary.display()))?;
        let mut lines = BufReader::new(child.stderr.take().context("the agent has no standard error")?).lines();
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let line = line.context("read what the agent says")?;
            let is_live = line.contains(" live in ");
            said.push(line);
            if is_live {
                let live_after = started.elapsed();
                let words = thread::spawn(move || lines.map_while(Result::ok).collect());
                return Ok(Self { child, live_after, words: Some(words) });
            }
        }
        child.wait().context("wait for the agent")?;
        bail!("the agent ended before its probes were live: {}", said.join(" · "))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order; returns what it said after its probes were live, its summary last.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        self.interrupt()?;
        let status = self.child.wait().context("wait for the agent")?;
        let words = self.words.take().and_then(|words| words.join().ok()).unwrap_or_default();
        if !status.success() {
            bail!("the agent failed ({status}): {}", words.join(" · "));
        }
        Ok(words)
    }

    fn interrupt(&self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process id is positive")?;
        kill_process(pid, Signal::INT).context("interrupt the agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Gone already, after `stop`: then neither does anything.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
