// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks for layouts in a thread of its own, so that nobody waits for a look.
//!
//! In: processes as they show themselves. Out: what was found in them, in no particular order. Each process is looked at a few
//! times, ever more rarely, until there is nothing more to find; what does not fit the bounds is not looked at, and its
//! tasks stay unknown.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{Earlier, Found, Layout, Unknown, find};
use crate::process::{ProcessId, Runtime};

/// Asks for looks, and hands over what they found. Dropping it ends its thread.
#[derive(Debug)]
pub struct Finder {
    asks: SyncSender<Ask>,
    findings: Receiver<Finding>,
}

/// What a look has found in a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Which process.
    pub process: ProcessId,
    /// How its tasks are known.
    pub layout: Layout,
}

#[derive(Debug)]
struct Ask {
    process: ProcessId,
    runtime: Runtime,
}

impl Finder {
    /// A finder that looks into the processes under `proc`; none if there can be no further thread.
    pub fn start(proc: PathBuf) -> Option<Self> {
        let (asks, asked) = sync_channel(MOST_WAITING);
        let (answers, findings) = sync_channel(MOST_WAITING);
        let looker = Looker { proc, asked, answers, waiting: Vec::new() };
        thread::Builder::new().name("spantap-looks".into()).spawn(move || looker.run()).ok()?;
        Some(Self { asks, findings })
    }

    /// Asks for a look into a process.
    pub fn look(&self, process: ProcessId, runtime: Runtime) {
        // Never waits: a process that finds no place is as one in which nothing was found.
        if self.asks.try_send(Ask { process, runtime }).is_err() {
            debug!(pid = process.pid, "too many processes wait for a look: its tasks stay unknown");
        }
    }

    /// What was found since the last call.
    pub fn findings(&self) -> impl Iterator<Item = Finding> + '_ {
        self.findings.try_iter()
    }
}

struct Looker {
    proc: PathBuf,
    asked: Receiver<Ask>,
    answers: SyncSender<Finding>,
    /// Law: waiting.len() <= MOST_WAITING.
    waiting: Vec<Waiting>,
}

/// A process that will be looked at (again).
struct Waiting {
    ask: Ask,
    earlier: Earlier,
    looks: u32,
    due: Instant,
    /// What was found so far.
    found: Option<Layout>,
}

impl Looker {
    fn run(mut self) {
        loop {
            let next = self.waiting.iter().map(|waiting| waiting.due).min();
            let pause = next.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            match self.asked.recv_timeout(pause) {
                Ok(ask) if self.waiting.len() < MOST_WAITING => {
                    // The same process again: it has executed another program, or the number is another's now.
                    self.waiting.retain(|waiting| waiting.ask.process.pid != ask.process.pid);
                    let due = Instant::now();
                    self.waiting.push(Waiting { ask, earlier: Earlier::default(), looks: 0, due, found: None });
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            let now = Instant::now();
            let (due, later) = self.waiting.drain(..).partition(|waiting| waiting.due <= now);
            self.waiting = later;
            for waiting in due {
                self.look(waiting);
            }
        }
    }

    fn look(&mut self, mut waiting: Waiting) {
        let Ask { process, runtime } = waiting.ask;
        let found = find(&self.proc.join(process.pid.to_string()), runtime, &mut waiting.earlier);
        let (layout, reason) = match &found {
            Ok(Found::Complete(layout)) => (Some(*layout), None),
            Ok(Found::Partial(layout)) => (Some(*layout), Some("the rest was not found yet")),
            Err(Unknown::NotYet(reason) | Unknown::Never(reason)) => (None, Some(*reason)),
        };
        if let Some(layout) = layout
            && waiting.found != Some(layout)
        {
            waiting.found = Some(layout);
            debug!(pid = process.pid, ?layout, "its tasks are known");
            // The loop takes findings every few milliseconds; what it has not taken by then is found again.
            if self.answers.try_send(Finding { process, layout }).is_err() {
                waiting.found = None;
            }
        }
        waiting.looks += 1;
        let done = matches!(found, Ok(Found::Complete(_)) | Err(Unknown::Never(_))) && waiting.found == layout;
        if done || waiting.looks >= MOST_LOOKS {
            if let Some(reason) = reason {
                debug!(pid = process.pid, ?runtime, reason, "its tasks stay unknown");
            }
            return;
        }
        waiting.due = Instant::now() + FIRST_PAUSE * 2_u32.pow(waiting.looks.min(LONGEST_DOUBLED));
        self.waiting.push(waiting);
    }
}

/// Processes that serve or call and wait for a look: a host runs some hundreds of them.
const MOST_WAITING: usize = 1024;

/// Between the first two looks. It doubles seven times, to 13 s, so that the last look comes after two minutes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_DOUBLED: u32 = 7;
const MOST_LOOKS: u32 = 16;

/// Nothing waits: only for the next question.
const IDLE: Duration = Duration::from_secs(3600);
