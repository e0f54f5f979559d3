// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks for layouts in a thread of its own, so that nobody waits for a look.
//!
//! In: processes as they run, begin, or show themselves. Out: what was found in them, in no particular order, and again when there
//! is more. Each process is looked at a few times, ever more rarely, until there is nothing more to find; what does not fit the bounds is not looked
//! at, and its tasks stay unknown.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{Layout, Unknown, find, is_known};
use crate::{memory, process::Runtime, table::Table, targets::runtime::Runtimes};

/// Asks for looks, and hands over what they found. Dropping it ends its thread.
#[derive(Debug)]
pub struct Finder {
    asks: SyncSender<Ask>,
    answers: Receiver<Answer>,
    /// Questions so far.
    asked: u64,
    /// Asked for, and not looked at for the first time.
    unseen: u32,
}

/// What a look has found in a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The number of the question.
    pub ask: u64,
    /// Which process.
    pub pid: u32,
    /// How its tasks are known.
    pub layout: Layout,
}

#[derive(Debug)]
struct Ask {
    number: u64,
    pid: u32,
    /// None where nobody has looked yet which it is.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Answer {
    ask: u64,
    pid: u32,
    /// Of the first look.
    first: bool,
    layout: Option<Layout>,
}

impl Finder {
    /// A finder that looks into the processes under `proc`; none if there can be no further thread.
    pub fn start(proc: PathBuf) -> Option<Self> {
        let (asks, asked) = sync_channel(MOST_WAITING);
        let (answer, answers) = sync_channel(MOST_WAITING);
        let looker = Looker {
            proc,
            runtimes: Runtimes::default(),
            asked,
            answers: answer,
            waiting: Vec::new(),
            grown: Table::default(),
            looked: false,
            gave_back: None,
        };
        thread::Builder::new().name("spantap-looks".into()).spawn(move || looker.run()).ok()?;
        Some(Self { asks, answers, asked: 0, unseen: 0 })
    }

    /// Asks for a look into a process, and before that at its runtime if that is not known. The number of the question, if
    /// there is room for it.
    pub fn look(&mut self, pid: u32, runtime: Option<Runtime>) -> Option<u64> {
        self.asked += 1;
        // Never waits: a process that finds no place is as one in which nothing was found.
        if self.asks.try_send(Ask { number: self.asked, pid, runtime }).is_err() {
            debug!(pid, "too many processes wait for a look: its tasks stay unknown");
            return None;
        }
        self.unseen += 1;
        Some(self.asked)
    }

    /// What was found since the last call.
    pub fn findings(&mut self) -> Vec<Finding> {
        let mut found = Vec::new();
        while let Ok(answer) = self.answers.try_recv() {
            found.extend(self.take(&answer));
        }
        found
    }

    /// The same, once each process that was asked for has been looked at, or it has taken as long as `patience`.
    pub fn first_findings(&mut self, patience: Duration) -> Vec<Finding> {
        let end = Instant::now() + patience;
        let mut found = Vec::new();
        while self.unseen > 0
            && let Ok(answer) = self.answers.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            found.extend(self.take(&answer));
        }
        found
    }

    fn take(&mut self, &Answer { ask, pid, first, layout }: &Answer) -> Option<Finding> {
        self.unseen = self.unseen.saturating_sub(first.into());
        layout.map(|layout| Finding { ask, pid, layout })
    }
}

struct Looker {
    proc: PathBuf,
    runtimes: Runtimes,
    asked: Receiver<Ask>,
    answers: SyncSender<Answer>,
    /// Law: waiting.len() <= MOST_WAITING.
    waiting: Vec<Waiting>,
    /// What was found last in processes that do not show everything at once. Law: grown.len() <= MOST_WAITING.
    grown: Table<u32, Layout>,
    /// Since it gave memory back it has looked into something.
    looked: bool,
    gave_back: Option<Instant>,
}

/// A process that will be looked at again.
struct Waiting {
    ask: u64,
    pid: u32,
    runtime: Runtime,
    looks: u32,
    /// What was found and told so far.
    known: Option<Layout>,
    due: Instant,
}

impl Looker {
    fn run(mut self) {
        loop {
            let next = self.waiting.iter().map(|waiting| waiting.due).min();
            let pause = next.map_or(IDLE, |due| due.saturating_duration_since(Instant::now()));
            let rest = self.gave_back.map_or(Duration::ZERO, |at| RARELY.saturating_sub(at.elapsed()));
            let quiet = if self.looked { QUIET.max(rest) } else { IDLE };
            match self.asked.recv_timeout(pause.min(quiet)) {
                Ok(ask) => self.asked(&ask),
                Err(RecvTimeoutError::Timeout) if self.looked && quiet <= pause => {
                    memory::give_back();
                    (self.looked, self.gave_back) = (false, Some(Instant::now()));
                }
                Err(RecvTimeoutError::Timeout) => {}
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

    fn asked(&mut self, ask: &Ask) {
        let (ask, pid, runtime) = (ask.number, ask.pid, ask.runtime);
        // The same process again: it has executed another program, or shown a socket, or the number is another's now.
        self.waiting.retain(|waiting| waiting.pid != pid);
        let runtime = runtime.unwrap_or_else(|| self.runtime(pid));
        if is_known(runtime) {
            self.look(Waiting { ask, pid, runtime, looks: 0, known: None, due: Instant::now() });
        } else {
            self.answer(Answer { ask, pid, first: true, layout: None });
        }
    }

    fn runtime(&mut self, pid: u32) -> Runtime {
        let process = self.proc.join(pid.to_string());
        let executable = fs::read_link(process.join("exe")).unwrap_or_default();
        self.runtimes.of(&process, &executable.to_string_lossy())
    }

    fn look(&mut self, Waiting { ask, pid, runtime, looks, known, .. }: Waiting) {
        self.looked = true;
        // Of the same process as it was before it executed another program, at worst: whoever reads by a layout compares.
        let before = self.grown.get(&pid).copied();
        let found = find(&self.proc.join(pid.to_string()), runtime, looks == 0, known).map(|layout| layout.and(before));
        if let Ok(layout) = &found
            && (before.is_some() || layout.may_grow())
        {
            if self.grown.len() >= MOST_WAITING {
                self.grown.clear();
            }
            self.grown.insert(pid, *layout);
        }
        let news = found.as_ref().ok().copied().filter(|layout| known != Some(*layout));
        let is_told = self.answer(Answer { ask, pid, first: looks == 0, layout: news });
        let known = if is_told { news.or(known) } else { known };
        let again = match &found {
            Ok(layout) => {
                if news.is_some() {
                    debug!(pid, ?layout, "its tasks are known");
                }
                !is_told || layout.may_grow()
            }
            Err(Unknown::NotYet(_)) => true,
            Err(Unknown::Never(_)) => false,
        };
        let most = if matches!(runtime, Runtime::Go | Runtime::Ruby | Runtime::Tokio) {
            MOST_PATIENT_LOOKS
        } else {
            MOST_LOOKS
        };
        if again && looks + 1 < most && self.waiting.len() < MOST_WAITING {
            let due = Instant::now() + FIRST_PAUSE * 2_u32.pow(looks.min(LONGEST_DOUBLED));
            self.waiting.push(Waiting { ask, pid, runtime, looks: looks + 1, known, due });
        } else if let Err(Unknown::NotYet(reason) | Unknown::Never(reason)) = found {
            debug!(pid, ?runtime, reason, "its tasks stay unknown");
        }
    }

    /// Whether the answer has found a place; most are nothing new.
    fn answer(&self, answer: Answer) -> bool {
        (!answer.first && answer.layout.is_none()) || self.answers.try_send(answer).is_ok()
    }
}

/// Processes that wait for a look: a host runs some hundreds that serve or call, and starts some dozens at a time. The loop
/// takes answers every few milliseconds.
const MOST_WAITING: usize = 1024;

/// Between the first two looks. It doubles seven times, to 13 s, so that the last look comes after two minutes.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_DOUBLED: u32 = 7;
const MOST_LOOKS: u32 = 16;

/// Where what is looked for is there while a call is under way and gone again: almost an hour. A look takes some milliseconds.
const MOST_PATIENT_LOOKS: u32 = 256;

/// Nothing waits: only for the next question.
const IDLE: Duration = Duration::from_secs(3600);

/// Nobody asked for so long: processes come in bursts, and what was read of one helps with the next. Looking into a program
/// takes up to its symbol table's size, some MiB.
const QUIET: Duration = Duration::from_secs(1);

/// Giving back holds up whoever else wants memory for some milliseconds, and those are few in a minute.
const RARELY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn processes_that_have_no_tasks_are_looked_at_once() {
        let mut finder = Finder::start("/proc".into()).expect("there are threads");
        finder.look(std::process::id(), Some(Runtime::Native));
        let mut other = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        finder.look(other.id(), None);
        finder.look(u32::MAX, Some(Runtime::Go));
        assert_eq!(finder.first_findings(Duration::from_secs(60)), []);
        assert_eq!(finder.unseen, 0, "all of them were looked at");
        drop(other.stdin.take());
        assert!(other.wait().expect("cat").success());
    }
}
