// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which request a process was serving when it made a call.
//!
//! In: the requests that each process has open, and by which thread they were read. Out: for a call, a [`Verdict`]:
//! *that one, because*; *nobody*; or *cannot be known*. It knows neither spans nor protocols, and never guesses: where
//! two requests would do, none does.

use std::collections::HashSet;

use crate::{pairing::ExchangeId, process::Runtime, table::Table, time::Task};

/// Requests that are being served on this host right now, by process and by thread.
#[derive(Debug, Default)]
pub struct Serving {
    /// A process that serves nothing at the moment keeps its empty list: it will serve again, and often.
    /// Law: at most [`MOST_LISTS`] lists are empty.
    processes: Table<u32, Vec<Held>>,
    /// Processes whose requests wander between threads, so that a thread says nothing about a request: their runtime
    /// multiplexes tasks on threads, or one of their requests was seen to be read by one thread and answered by another.
    wandering: HashSet<u32>,
}

/// What the evidence says about a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The thread that made the call holds exactly this request. It is proven when the same thread answers it.
    IfAnsweredBy(ExchangeId),
    /// The process serves nothing: the call begins a trace.
    Nobody,
    /// It serves something, but nothing proves that the call is part of it.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    request: ExchangeId,
    tid: u32,
}

impl Serving {
    /// `pid` runs on `runtime`.
    pub fn learned(&mut self, pid: u32, runtime: Runtime) {
        // Go runs goroutines on whichever thread is free: 71 of 86 calls were wrong by thread at 8 connections.
        if runtime == Runtime::Go {
            self.wandering.insert(pid);
        } else {
            self.wandering.remove(&pid);
        }
    }

    /// `pid` has ended.
    pub fn forgot(&mut self, pid: u32) {
        self.wandering.remove(&pid);
        self.processes.remove(&pid);
    }

    /// `by` has read a request.
    pub fn opened(&mut self, request: ExchangeId, by: Task) {
        if self.processes.len() >= MOST_LISTS {
            self.processes.retain(|_, held| !held.is_empty());
        }
        self.processes.entry(by.pid).or_default().push(Held { request, tid: by.tid });
    }

    /// The request that `by` had read is over. `answered_by` wrote its response, if anybody did.
    pub fn closed(&mut self, request: ExchangeId, by: Task, answered_by: Option<Task>) {
        if answered_by.is_some_and(|task| task.pid == by.pid && task.tid != by.tid) {
            self.wandering.insert(by.pid);
        }
        if let Some(held) = self.processes.get_mut(&by.pid) {
            held.retain(|held| held.request != request);
        }
    }

    /// Whose call is it that `by` makes now?
    pub fn caller(&self, by: Task) -> Verdict {
        let held = match self.processes.get(&by.pid) {
            Some(held) if !held.is_empty() => held,
            _ => return Verdict::Nobody,
        };
        if self.wandering.contains(&by.pid) {
            return Verdict::Unknown;
        }
        let mut on_thread = held.iter().filter(|held| held.tid == by.tid);
        match (on_thread.next(), on_thread.next()) {
            (Some(only), None) => Verdict::IfAnsweredBy(only.request),
            _ => Verdict::Unknown,
        }
    }

    /// The open requests of `pid`, oldest first.
    pub fn open(&self, pid: u32) -> impl Iterator<Item = ExchangeId> + '_ {
        self.processes.get(&pid).into_iter().flatten().map(|held| held.request)
    }

    /// Whether the calls that `by` made belong to the request that `answered_by` answered. Without an answer the
    /// thread's word has to do.
    pub fn is_proven(&self, by: Task, answered_by: Option<Task>) -> bool {
        self.is_trusted(by) && answered_by.is_none_or(|task| (task.pid, task.tid) == (by.pid, by.tid))
    }

    /// Whether the thread's word is still good where the answer is not known yet.
    pub fn is_trusted(&self, by: Task) -> bool {
        !self.wandering.contains(&by.pid)
    }
}

/// At 128 bytes a list 2 MiB, which only a machine comes near to on which exits were lost.
const MOST_LISTS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::SocketId, time::Timestamp};

    const A: ExchangeId = ExchangeId { socket: SocketId(1), since: Timestamp(0), ordinal: 0 };
    const B: ExchangeId = ExchangeId { socket: SocketId(2), since: Timestamp(0), ordinal: 0 };

    fn task(pid: u32, tid: u32) -> Task {
        Task { pid, tid, ..Task::default() }
    }

    #[test]
    fn a_thread_with_one_request_calls_for_it() {
        let mut serving = Serving::default();
        serving.opened(A, task(1, 10));
        serving.opened(B, task(1, 11));
        assert_eq!(serving.caller(task(1, 10)), Verdict::IfAnsweredBy(A));
        assert_eq!(serving.caller(task(1, 11)), Verdict::IfAnsweredBy(B));
    }

    #[test]
    fn a_thread_with_two_requests_says_nothing() {
        let mut serving = Serving::default();
        serving.opened(A, task(1, 10));
        serving.opened(B, task(1, 10));
        assert_eq!(serving.caller(task(1, 10)), Verdict::Unknown);
        serving.closed(B, task(1, 10), Some(task(1, 10)));
        assert_eq!(serving.caller(task(1, 10)), Verdict::IfAnsweredBy(A));
    }

    #[test]
    fn another_thread_of_a_serving_process_is_unknown() {
        let mut serving = Serving::default();
        serving.opened(A, task(1, 10));
        assert_eq!(serving.caller(task(1, 99)), Verdict::Unknown);
    }

    #[test]
    fn a_process_that_serves_nothing_begins_traces() {
        let mut serving = Serving::default();
        serving.opened(A, task(1, 10));
        serving.closed(A, task(1, 10), Some(task(1, 10)));
        assert_eq!(serving.caller(task(1, 10)), Verdict::Nobody);
        assert_eq!(serving.caller(task(2, 20)), Verdict::Nobody);
    }

    #[test]
    fn processes_that_serve_nothing_are_remembered_up_to_a_bound() {
        let mut serving = Serving::default();
        serving.opened(A, task(1, 10));
        for pid in 2..2 * MOST_LISTS as u32 {
            serving.opened(B, task(pid, pid));
            serving.closed(B, task(pid, pid), None);
            assert!(serving.processes.len() <= MOST_LISTS);
        }
        assert_eq!(serving.caller(task(1, 10)), Verdict::IfAnsweredBy(A), "who serves is not forgotten");
    }

    #[test]
    fn threads_of_go_say_nothing() {
        let mut serving = Serving::default();
        serving.learned(1, Runtime::Go);
        serving.opened(A, task(1, 10));
        assert_eq!(serving.caller(task(1, 10)), Verdict::Unknown);
    }

    #[test]
    fn one_request_that_changes_threads_disproves_the_threads_of_its_process() {
        let mut serving = Serving::default();
        serving.opened(A, task(1, 10));
        serving.opened(B, task(1, 11));
        serving.closed(A, task(1, 10), Some(task(1, 12)));
        assert_eq!(serving.caller(task(1, 11)), Verdict::Unknown);
        assert!(!serving.is_proven(task(1, 11), Some(task(1, 11))));
        serving.forgot(1);
        serving.opened(A, task(1, 10));
        assert_eq!(serving.caller(task(1, 10)), Verdict::IfAnsweredBy(A), "a new process of that id starts afresh");
    }
}
