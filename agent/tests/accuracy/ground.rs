// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ground a case stands on: ports of its own, an agent that sees nothing else, and a list of what is true.
//!
//! In: a case's name, then its truths. Out: the agent's [`Verdict`]. It makes no traffic but the request that shows the
//! agent ready.

use std::{any::Any, net::Ipv4Addr, process::id, time::Duration};

use crate::{
    agent::Agent,
    judge::{Verdict, is_of, judge, unjoined},
    process::free_port,
    spans::Kind,
    talk::Talk,
    truth::{Truth, Window, now},
};

/// What one case works with.
pub(crate) struct Ground {
    case: &'static str,
    /// The first is for the agent's own sight, the rest are the case's.
    ports: Vec<u16>,
    agent: Option<Agent>,
    truths: Vec<Truth>,
    ids: u32,
    /// Whether the two ends of each request have to find each other.
    joined: bool,
    left_alone: Vec<(&'static str, u64)>,
    /// What must not end before the spans are shown.
    kept: Vec<Box<dyn Any>>,
}

/// What a request was, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// As the conventions name it.
    pub(crate) method: &'static str,
    /// The token, where the conventions do not know it.
    pub(crate) original: Option<&'static str>,
    /// Of the final response.
    pub(crate) status: Option<u64>,
    /// `error.type` of the client's span.
    pub(crate) client_error: Option<&'static str>,
    /// `error.type` of the server's span.
    pub(crate) server_error: Option<&'static str>,
}

impl Told {
    /// A GET that was answered.
    pub(crate) const fn get(status: u64) -> Self {
        Self { method: "GET", original: None, status: Some(status), client_error: None, server_error: None }
    }

    fn truth(self, kind: Kind, id: &str, start: Window, end: Window) -> Truth {
        let Self { method, original, status, client_error, server_error } = self;
        let error = match kind {
            Kind::Client => client_error,
            Kind::Server => server_error,
        };
        Truth { id: id.to_owned(), kind, path: format!("/{id}"), method, original, status, error, start, end }
    }
}

impl Ground {
    /// Reserves ports.
    pub(crate) fn new(case: &'static str) -> Result<Self, String> {
        let ports = (0..=PORTS).map(|_| free_port()).collect::<Result<_, _>>()?;
        let (truths, kept) = (Vec::new(), Vec::new());
        Ok(Self { case, ports, agent: None, truths, ids: 0, joined: false, left_alone: Vec::new(), kept })
    }

    /// One of the case's [`PORTS`] ports.
    pub(crate) fn port(&self, index: usize) -> u16 {
        self.ports[1 + index]
    }

    /// All of its ports.
    pub(crate) fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// Takes an agent that watches its ports, and maybe those of other cases.
    pub(crate) fn borrow(&mut self, agent: Agent) {
        self.agent = Some(agent);
    }

    /// Gives it back, with the truths of the case and whether its ends have to be joined, once all that is expected is shown.
    /// Nothing is given back of a case that has to be judged by itself.
    pub(crate) fn give_back(mut self) -> Result<(Agent, Vec<Truth>, bool), String> {
        if !self.left_alone.is_empty() {
            return Err("what it expects is judged by the agent's whole account".to_owned());
        }
        if !self.await_spans(SHOW_DEADLINE)? {
            return Err(format!("not shown {SHOW_DEADLINE:?} after the end"));
        }
        let agent = self.agent.take().ok_or("the case never started the agent")?;
        Ok((agent, self.truths, self.joined))
    }

    /// Starts the agent, unless it runs.
    pub(crate) fn watch(&mut self) -> Result<(), String> {
        if self.agent.is_none() {
            self.agent = Some(Agent::start_on(&self.ports)?);
        }
        Ok(())
    }

    /// The same for everything that this process and its descendants talk over: unix sockets have no port.
    pub(crate) fn watch_family(&mut self) -> Result<(), String> {
        self.agent = Some(Agent::start_with(&["--pid".to_owned(), id().to_string()], self.ports[0])?);
        Ok(())
    }

    /// From now on a server's span without its client's span as the parent is a fault: both ends are seen.
    pub(crate) fn expect_joined(&mut self) {
        self.joined = true;
    }

    /// At least so many sockets of this kind have to be counted as left alone.
    pub(crate) fn expect_left_alone(&mut self, kind: &'static str, least: u64) {
        self.left_alone.push((kind, least));
    }

    /// A new id.
    pub(crate) fn id(&mut self) -> String {
        self.ids += 1;
        format!("{}.{:05}.{}", self.case, self.ids, id())
    }

    /// A connection over loopback, on the first port.
    pub(crate) fn connect(&self) -> Result<Talk, String> {
        Talk::connect((Ipv4Addr::LOCALHOST, self.port(0)).into())
    }

    /// A span that has to be there.
    pub(crate) fn expect(&mut self, truth: Truth) {
        self.truths.push(truth);
    }

    /// The spans of both ends of a request for `/id`.
    pub(crate) fn expect_both(&mut self, id: &str, told: Told, start: Window, end: Window) {
        self.expect_client(id, told, start, end);
        self.expect_server(id, told, start, end);
    }

    /// The span of the end that asked for `/id`.
    pub(crate) fn expect_client(&mut self, id: &str, told: Told, start: Window, end: Window) {
        self.expect(told.truth(Kind::Client, id, start, end));
    }

    /// The span of the end that answered a request for `/id`.
    pub(crate) fn expect_server(&mut self, id: &str, told: Told, start: Window, end: Window) {
        self.expect(told.truth(Kind::Server, id, start, end));
    }

    /// Keeps something, such as an idle connection, until the spans are shown.
    pub(crate) fn keep(&mut self, thing: impl Any) {
        self.kept.push(Box::new(thing));
    }

    /// Waits until all that is expected so far is shown, at most as long after its end as is promised.
    pub(crate) fn expect_shown_soon(&mut self) -> Result<(), String> {
        let ended = self.truths.iter().map(|truth| truth.end.to).max().unwrap_or_default();
        if self.await_spans(SHOW_DEADLINE)? {
            let after = Duration::from_nanos(now().saturating_sub(ended));
            return (after <= SHOW_PROMISE).then_some(()).ok_or(format!("shown only {after:?} after the end"));
        }
        Err(format!("not shown {SHOW_DEADLINE:?} after the end"))
    }

    /// Stops the agent and judges it.
    pub(crate) fn verdict(mut self) -> Result<Verdict, String> {
        let shown = self.await_spans(SHOW_DEADLINE)?;
        self.kept.clear();
        let agent = self.agent.take().ok_or("the case never started the agent")?;
        let report = agent.stop()?;
        let mut verdict = judge(self.case, &self.truths, &report);
        if self.joined {
            unjoined(&self.truths, &report).into_iter().for_each(|fault| verdict.fail(fault));
        }
        for (kind, least) in self.left_alone {
            let counted = report.summary.left_alone.get(kind).copied().unwrap_or_default();
            if counted < least {
                verdict.fail(format!("{counted} sockets of {kind} counted as left alone, not {least}"));
            }
        }
        if !shown && verdict.faults.is_empty() {
            verdict.fail(format!("shown only when the agent ended, more than {SHOW_DEADLINE:?} late"));
        }
        Ok(verdict)
    }

    fn await_spans(&mut self, deadline: Duration) -> Result<bool, String> {
        let agent = self.agent.as_mut().ok_or("the case never started the agent")?;
        let truths = &self.truths;
        let wanted = |span: &_| truths.iter().any(|truth| is_of(span, truth));
        Ok(agent.await_spans(truths.len(), deadline, wanted)?.is_some())
    }
}

/// As many as any case needs.
pub(crate) const PORTS: usize = 3;

/// Design: a span is visible within 1.5 s of its end, whatever the connection does next.
const SHOW_PROMISE: Duration = Duration::from_millis(1500);

/// What is not there by then is missing, however busy the machine.
const SHOW_DEADLINE: Duration = Duration::from_secs(4);
