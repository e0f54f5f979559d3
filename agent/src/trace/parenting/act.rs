// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What processes do, as far as parenting looks: the vocabulary between the tracer and the sources of evidence.
//!
//! In: nothing. Out: [`Act`]s, ordered by kernel time. They say who did what to which exchange, and refuse to say what
//! was said.

use smallvec::SmallVec;

use crate::{
    context::TraceId,
    pairing::ExchangeId,
    protocol::PassedId,
    time::{Moment, Task, Timestamp},
};

/// Something that a process did.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// When.
    pub(crate) at: Timestamp,
    /// The process.
    pub(crate) pid: u32,
    /// What.
    pub(crate) what: What,
}

/// What a process did.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// It read the head of a request.
    Received {
        /// The request.
        request: ExchangeId,
        /// Who read it.
        by: Task,
        /// The trace that its header names.
        trace: Option<TraceId>,
        /// Ids that the process may pass on.
        ids: SmallVec<[PassedId; 2]>,
        /// Of its head.
        digest: u64,
        /// A number for what was asked for: the same for requests of one kind.
        operation: u64,
    },
    /// It read more of something: of a request's body, or of the response to a call.
    Read {
        /// Of what; none where one read brought several requests.
        exchange: Option<ExchangeId>,
        /// Who read.
        by: Task,
    },
    /// It wrote the first byte of a call.
    Called {
        /// The call.
        call: ExchangeId,
        /// Who wrote it.
        by: Task,
        /// Who connected, where this is the connection's first request: that was the moment of the decision to call.
        connected: Option<Moment>,
        /// The trace that the header it wrote names.
        trace: Option<TraceId>,
        /// Ids that it passed on.
        ids: SmallVec<[PassedId; 2]>,
        /// Of its head.
        digest: u64,
        /// A number for whom it went to, and what for.
        operation: u64,
    },
    /// It wrote the first byte of a request's response.
    Answering {
        /// The request.
        request: ExchangeId,
        /// Who wrote it.
        by: Task,
        /// Whether another request of the process was open at any time since this one was received.
        crowded: bool,
    },
    /// A request is over: answered to the last byte, or given up.
    Over {
        /// The request.
        request: ExchangeId,
        /// Who wrote the first byte of the response.
        answered: Option<Moment>,
        /// As in [`Self::Answering`].
        crowded: bool,
    },
    /// The response to a call is complete, or will never be.
    Ended {
        /// The call.
        call: ExchangeId,
        /// Who read its last byte; nobody where it will never come.
        by: Option<Task>,
    },
    /// A call got its parent, or is known to have none. The last that is heard of it, unless it has not ended.
    Decided {
        /// The call.
        call: ExchangeId,
        /// The request it was made for, as far as known.
        request: Option<ExchangeId>,
    },
    /// One of its threads has started another.
    Began {
        /// The new one.
        thread: u32,
        /// When it was made, in nanoseconds since boot: with its id, its identity.
        started: u64,
        /// The one that started it.
        by: u32,
    },
    /// A thread has ended.
    Left {
        /// Which.
        thread: u32,
        /// When it was made.
        started: u64,
    },
    /// The process has ended.
    Exited,
}
