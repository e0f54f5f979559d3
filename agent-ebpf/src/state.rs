// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the probes remember from one call to the next: the values of their maps.
//!
//! In: nothing. Out: plain integers, valid for every bit pattern, that `maps.rs` gives room to. Who changes them, and
//! when, is the business of `socket.rs`, `unix.rs`, `traffic.rs` and `batch.rs`.
//!
//! ```text
//!            first bytes                a request
//!  UNKNOWN ──────────────▶ PROBING ─────────────────▶ CAPTURED
//!     │  nobody wants it      │  no request can begin so
//!     └───────────────────────┴──────────────────────▶ IGNORED
//! ```

use spantap_common::endpoint::Endpoint;

/// What the probes remember of a socket. Only integers: it is a map's value, zero when it is made.
///
/// A reader and a writer may be in it at once, on two CPUs. Each field is written by one of them, or a lost update costs
/// a few bytes of budget.
#[repr(C)]
pub(crate) struct State {
    /// One of this module's verdicts. First, since most calls look at nothing else.
    pub(crate) verdict: u32,
    /// Bytes that may still be copied before the connection turns round.
    pub(crate) budget: u32,
    /// The socket's cookie.
    pub(crate) cookie: u64,
    /// When the process called connect(2); 0 where it did not.
    pub(crate) connected_at: u64,
    /// Who did: `pid_tgid`.
    pub(crate) connected_by: u64,
    /// Which task of the process's runtime that was ([`crate::runtime::connecting`]), or on tokio the address of the one that keeps
    /// the connection; 0 where it is not known.
    pub(crate) connected_task: u64,
    /// Calls since the connection turned round that showed no request, on a socket older than the agent.
    pub(crate) misses: u32,
    /// Valid bytes of `prefix`.
    pub(crate) prefix_length: u32,
    /// Direction of the last call ([`spantap_common::event::data::Direction`] by its wire number); 0 before the first.
    pub(crate) last_direction: u8,
    /// Direction of the requests; 0 until something like one was seen.
    pub(crate) requests: u8,
    /// An [`Origin`] by its wire number.
    pub(crate) origin: u8,
    /// A [`spantap_common::sniff::Guess`] by its wire number.
    pub(crate) protocol: u8,
    /// 1 when the agent knows of the socket.
    pub(crate) announced: u8,
    /// 1 when the end of reading was reported.
    pub(crate) read_end: u8,
    /// 1 on a connection of the agent itself.
    pub(crate) own: u8,
    /// 1 when the connection is gone but the process may still read what arrived.
    pub(crate) closing: u8,
    /// `sk_err` when the connection went.
    pub(crate) errno: u16,
    /// 1 once the process has finished writing.
    pub(crate) fin_sent: u8,
    /// Turns of the connection, modulo 2^8; before it is captured, those without a request.
    pub(crate) turns: u8,
    /// 1 when a call without a request was passed over.
    pub(crate) midway: u8,
    /// Of a unix socket: directions of calls that the first program saw and the second has not asked about, as bits.
    pub(crate) seen: u8,
    /// Direction of the body whose end is known ([`crate::body`]); 0 for none.
    pub(crate) body: u8,
    /// Calls inside of it that were passed over since the last record.
    pub(crate) passed: u8,
    /// Of a TCP socket: how far reading had come when a program last looked.
    pub(crate) reached_reading: u32,
    /// The same of writing.
    pub(crate) reached_writing: u32,
    /// When the connection last turned round.
    pub(crate) turned_at: u64,
    /// Position of that end.
    pub(crate) body_end: u32,
    /// Position of the first byte that was passed over…
    pub(crate) passed_from: u32,
    /// … and behind the last,
    pub(crate) passed_to: u32,
    /// how far the other direction had come by then,
    pub(crate) passed_opposite: u32,
    /// when that was,
    pub(crate) passed_at: u64,
    /// who moved it (`pid_tgid`),
    pub(crate) passed_by: u64,
    /// and which way.
    pub(crate) passed_direction: u8,
    /// Always zero.
    pub(crate) reserved: [u8; 7],
    /// The process that moved bytes last without a layout of its runtime (see `runtime.rs`)…
    pub(crate) plain_process: u32,
    /// … while `LAYOUTS` had this number.
    pub(crate) plain_since: u32,
    /// The first bytes of what may be a request.
    pub(crate) prefix: [u8; PREFIX_ROOM],
}

/// Twice the power of two above [`spantap_common::sniff::PREFIX`]: an offset and a length below 32 each stay inside,
/// which is all that the verifier can be told of their sum.
pub(crate) const PREFIX_ROOM: usize = 64;

/// No byte was seen yet.
pub(crate) const UNKNOWN: u32 = 0;
/// Worth a look: bytes are compared with the beginning of a request.
pub(crate) const PROBING: u32 = 1;
/// A request was seen: bytes are captured.
pub(crate) const CAPTURED: u32 = 2;
/// Left alone for good.
pub(crate) const IGNORED: u32 = 3;

/// How far a unix socket has come. Made for both ends of a connection at once, so that both count from the same byte. Both
/// ends write into it, and two threads that use one end at once may cost each other an update: then the ends do not join.
#[repr(C)]
pub(crate) struct Counted {
    /// Bytes that were written, modulo 2^32.
    pub(crate) written: u32,
    /// Bytes that were read, modulo 2^32.
    pub(crate) read: u32,
    /// When it last moved bytes ([`crate::unix::seconds`]).
    pub(crate) moved: u32,
    /// Always zero.
    pub(crate) reserved: u32,
}

/// Both ends of a connection, as one of them sees it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    /// The near end.
    pub(crate) local: Endpoint,
    /// The far end.
    pub(crate) peer: Endpoint,
}

impl Ends {
    /// The same connection seen from its other end.
    #[inline(always)]
    pub(crate) fn reversed(self) -> Self {
        Self { local: self.peer, peer: self.local }
    }
}

/// What a thread's ring is about to do.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RingTask {
    /// Address of the request that is tried now; 0 for none, or one that is put off.
    pub(crate) request: u64,
    /// 1 behind a request that the next one is linked to.
    pub(crate) chained: u64,
}

/// What a request of a ring waits for.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RingWait {
    /// Address of the `struct sock`.
    pub(crate) socket: u64,
    /// A [`spantap_common::event::data::Direction`] by its wire number.
    pub(crate) direction: u64,
}

/// Who waits for the same.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RingWaits {
    /// Address of the request, if it is the only one; else 0.
    pub(crate) request: u64,
    /// How many there are.
    pub(crate) count: u64,
}

/// How far a thread's call has come.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// Address of its array of messages.
    pub(crate) messages: u64,
    /// The socket that moves them ([`crate::kernel::Sock::number`]): a call that was left uncounted halfway, because its
    /// socket was left alone, says nothing about the next one.
    pub(crate) socket: u64,
    /// Number of the next one.
    pub(crate) next: u64,
}

/// What a thread goes by, until it writes or reads a request.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Causes {
    /// The name of the response that it has read last; 0 for none.
    pub(crate) read: u64,
    /// Those that it was told of since, latest first; 0 for none.
    pub(crate) told: [u64; 3],
}
