// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo's shop with a visitor who counts.
//!
//! In: the agent's program, whose hidden command runs the shop's services, and where it exports to. Out: the spans that
//! the agent printed, which are as many as the visits make. The services are `agent/src/demo`'s; the visitor is this
//! process, which is not traced, and sends the headers of a browser whose traces are known, unknown or sampled.

use std::{
    collections::BTreeSet,
    fs,
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::compare::{Spans, as_exported, otlp};
use crate::agent::{Agent, Output};

/// A running shop; dropping it closes it.
#[derive(Debug)]
pub(super) struct Shop {
    services: Vec<Child>,
    web: SocketAddr,
}

/// An agent that traces a shop; dropping it ends it.
pub(super) struct Traced {
    agent: Agent,
    lines: tempfile::NamedTempFile,
}

/// What the visitor sends along with searches and checkouts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Headers {
    /// A `traceparent`.
    Context,
    /// A `tracestate` besides: of a vendor, and for searches a threshold that a span stands for two.
    States,
}

impl Shop {
    /// Starts the services, from the back to the front, and waits until they listen.
    pub(super) fn open(agent: &Path) -> Result<Self> {
        let mut shop = Self { services: Vec::new(), web: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut upstreams: Vec<SocketAddr> = Vec::new();
        for role in ["stock", "cart", "web"] {
            let mut command = Command::new(agent);
            command.args(["demo-service", role]).args(upstreams.iter().map(ToString::to_string));
            command.env_clear().env("OTEL_SERVICE_NAME", role);
            // Its standard input is its lifeline: it ends when ours is closed.
            let mut service =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start a service")?;
            let output = service.stdout.take();
            shop.services.push(service);
            let mut address = String::new();
            BufReader::new(output.context("its output was piped")?).read_line(&mut address)?;
            shop.web = address.trim_end().parse().with_context(|| format!("{role} said {address:?} and no address"))?;
            upstreams.insert(0, shop.web);
        }
        Ok(shop)
    }

    /// Traces it with `agent`, which is told by `variables` where to export to.
    pub(super) fn traced(&self, agent: &Path, variables: &[(&str, String)]) -> Result<Traced> {
        let lines = tempfile::NamedTempFile::new().context("make a file for what the agent prints")?;
        let watched: Vec<_> = self.services.iter().map(|service| format!("--pid={}", service.id())).collect();
        let agent = Agent::start(agent, Output::Lines(lines.as_file(), variables), &watched)?;
        Ok(Traced { agent, lines })
    }

    /// Visits every page `rounds` times, one after the other: where requests overlap, a service's threads have to earn
    /// trust before its calls get parents, and here every tree is due from the first.
    pub(super) fn visit(&self, headers: Headers, rounds: usize) -> Result<()> {
        (0..rounds).try_for_each(|round| visit_every_page(self.web, headers, round))
    }

    /// All of it: what an agent with `variables` printed of `rounds` rounds, as it was exported.
    pub(super) fn spans(
        &self,
        agent: &Path,
        variables: &[(&str, String)],
        headers: Headers,
        rounds: usize,
    ) -> Result<Spans> {
        let traced = self.traced(agent, variables)?;
        self.visit(headers, rounds)?;
        traced.stop(rounds)
    }
}

impl Traced {
    /// Ends the agent, which then sends what it still has; returns what it printed, as it was exported.
    pub(super) fn stop(self, rounds: usize) -> Result<Spans> {
        let said = self.agent.stop()?;
        let mut spans = Spans::new();
        for line in fs::read_to_string(self.lines.path()).context("read what the agent printed")?.lines() {
            spans.extend(otlp(&serde_json::from_str(line).context("understand what the agent printed")?));
        }
        let due = SERVED_A_ROUND * rounds + CALLED_A_ROUND * rounds;
        if spans.len() != due {
            bail!("{} spans of {due} due: {}", spans.len(), said.join(" · "));
        }
        let visits = spans.keys().map(|(trace, _)| trace).collect::<BTreeSet<_>>().len();
        if visits != PAGES * rounds {
            bail!("{visits} traces of {} visits: {}", PAGES * rounds, said.join(" · "));
        }
        Ok(as_exported(spans))
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        for service in &mut self.services {
            // It may have ended by itself.
            service.kill().ok();
            service.wait().ok();
        }
    }
}

/// Visits in a round, each of which is a trace.
const PAGES: usize = 4;

/// Requests that the services serve in a round: 1 for the front page, 10 for a cart of 8 items, 2 for a search, 4 for a
/// checkout.
pub(super) const SERVED_A_ROUND: usize = 1 + 10 + 2 + 4;

/// Requests that they make of each other in a round.
pub(super) const CALLED_A_ROUND: usize = 9 + 1 + 3;

fn visit_every_page(web: SocketAddr, headers: Headers, round: usize) -> Result<()> {
    let stated = |state: &str| match headers {
        Headers::Context => format!("traceparent: {}\r\n", fresh_context()),
        Headers::States => format!("traceparent: {}\r\n{state}", fresh_context()),
    };
    let search = stated("tracestate: shop=1,ot=th:8;rv:fedcba98765432;x:y\r\n");
    let checkout = stated(if round.is_multiple_of(2) { "tracestate: vendor=opaque\r\n" } else { "" });
    for (method, path, headers, status) in [
        ("GET", "/", "", 200),
        ("GET", "/cart/7", "", 200),
        ("GET", "/search?q=lamp", &*search, 200),
        ("POST", "/checkout", &*checkout, 502),
    ] {
        let answer = visit(web, method, path, headers).with_context(|| format!("visit {path}"))?;
        if answer != status {
            bail!("{method} {path} answered {answer}");
        }
    }
    Ok(())
}

/// One request on a connection of its own; returns the status.
fn visit(web: SocketAddr, method: &str, path: &str, headers: &str) -> Result<u16> {
    let mut stream = BufReader::new(TcpStream::connect_timeout(&web, PATIENCE)?);
    stream.get_ref().set_read_timeout(Some(PATIENCE))?;
    stream
        .get_ref()
        .write_all(format!("{method} {path} HTTP/1.1\r\nHost: shop.example\r\n{headers}\r\n").as_bytes())?;
    let (mut status, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        match (line.trim_end(), &status) {
            ("", _) => break,
            (first, None) => status = first.split(' ').nth(1).and_then(|code| code.parse().ok()),
            (field, _) => {
                if let Some(value) = field.strip_prefix("Content-Length: ") {
                    length = value.parse().context("a length is a number")?;
                }
            }
        }
    }
    stream.take(length).read_to_string(&mut String::new())?;
    status.context("no status")
}

/// `traceparent` of a trace that was begun elsewhere, and sampled.
fn fresh_context() -> String {
    // The standard library's only randomness; an id of zero is none.
    let random = || RandomState::new().hash_one(0).max(1);
    format!("00-{:016x}{:016x}-{:016x}-01", random(), random(), random())
}

/// A page takes a quarter of a second.
const PATIENCE: Duration = Duration::from_secs(30);
