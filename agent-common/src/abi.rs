// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The version of the record layouts, and the capacities both sides were built with.

/// Stands in every record header; a record of another version is refused, not interpreted.
pub const ABI_VERSION: u16 = 3;

/// Bytes of the ring buffer: at 350 B a record and 40,000 records/s (10,000 exchanges/s seen from both ends) it holds
/// 0.3 s, and at the 200,000 records/s of a saturated nginx 60 ms: six times the consumer's tick. Every byte counts
/// twice in the agent's resident memory, since the ring is mapped twice.
pub const RING_BYTES: u32 = 4 << 20;

/// Most bytes copied from one direction of a connection before it turns round: a whole header block of
/// [`HEADER_BUDGET`] and the start of the body that shares its last call.
pub const CAPTURE_BUDGET: u32 = 32 << 10;

/// 32 KiB: nginx's default (4 buffers of 8 KiB); Node's is 16 KiB. Past it the parser gives up on the message.
pub const HEADER_BUDGET: usize = 32 << 10;

/// Payload room of the record size classes, smallest first. The smallest fits the head of most responses, the
/// second most requests; the largest is a whole [`CAPTURE_BUDGET`].
pub const SIZE_CLASSES: [usize; 4] = [256, 1024, 4096, 32 << 10];

/// Segments of one scatter/gather call whose heads are copied once the budget is spent; what lies beyond is reported as
/// captured < length.
pub const MAX_SEGMENTS: u32 = 16;

/// Segments of one scatter/gather call that are gathered into its record; what lies beyond is reported by its length. A
/// quarter of UIO_MAXIOV: the verifier walks through each, and stops at a million instructions (2026-11: 0.6 of them).
pub const MAX_GATHERED: u32 = 256;

/// The same where one program watches calls of both directions: the verifier walks through each (2026-11: 0.7 million
/// instructions).
pub const MAX_GATHERED_AT_EXIT: u32 = 64;

/// Segments over which the bytes of one message of sendmmsg are added up, to see whether all of it was sent.
pub const MAX_SUMMED: u32 = 16;

/// Threads that can be inside of sendmmsg or recvmmsg on followed sockets at one time; the calls of others are seen by
/// their lengths alone. On streams hardly anybody uses them.
pub const MAX_BATCHES: u32 = 1024;

/// Bytes copied from the head of each segment once the budget is spent: a chunk-size line, or the first line of the
/// message after the one that spent it.
pub const OVERFLOW_HEAD: usize = 16;

/// Segments in which the beginning of a request is looked for: its first 24 bytes may lie in as many, and a few empty
/// ones between them.
pub const SNIFF_SEGMENTS: u32 = 32;

/// System calls that the table of shapes covers: the highest number in use (about 470) and room. A power of two.
pub const SYSTEM_CALLS: usize = 512;

/// Calls one behind the other in one direction of a socket that was open before the agent in which a request is looked
/// for: what follows is the rest of a long message, and is passed over until the connection turns round.
pub const SNIFF_CALLS: u32 = 64;

/// Turns of such a connection without a recognised request before it is left alone for good, and counted: as many as 32
/// requests and their responses make, of which each begins at a turn.
pub const SNIFF_TURNS: u8 = 64;

/// Ports that are listened on, counted for each network namespace, while connections older than the agent are looked for.
/// Those that do not fit cost their connections' origin, and nothing else.
pub const MAX_LISTENERS: u32 = 4096;

/// Sockets whose state is kept by address, where the kernel has no room for it in the socket itself (see `kernel/hooks.rs`
/// of the agent): 6 MiB of memory. A host with more open TCP connections keeps the ones in use.
pub const MAX_SOCKETS: u32 = 32 << 10;

/// Turns of a connection (from reading to writing, or back) between two looks at whether the agent still wants it: a look
/// costs some 20 ns, and an upgraded connection is copied for so many messages more at most. A power of two.
pub const TURNS_PER_LOOK: u8 = 16;

/// Sockets that the agent does not want any more and that have not shown themselves since.
pub const MAX_UNWANTED: u32 = 4096;

/// Bodies whose end the agent has told and that have not ended since: 10,000 connections would all have to be in the middle of a
/// download.
pub const MAX_BODIES: u32 = 4096;

/// Bytes that the agent knows to come, from which on it tells the probes of a body's end: four calls of 64 KiB, so that telling
/// is less work than reading their records.
pub const LONG_BODY: u64 = 256 << 10;

/// How far ahead the probes are told a body's end, which is compared modulo 2^32. They are told again from there.
pub const FARTHEST_END: u32 = 1 << 30;

/// Bytes of a call from which on it is passed over in the middle of such a body. Shorter ones are fewer bytes than a socket's
/// buffer holds: whoever makes them has other work than to move bytes.
pub const LONG_CALL: u32 = 16 << 10;

/// Calls that are passed over one behind the other. The next is reported, which is a sixteenth of what reporting all of them
/// costs, and shows that the connection is alive.
pub const MOST_PASSED: u8 = 15;

/// Processes whose settings are known to the kernel side at one time; Linux's default pid limit is 32,768.
pub const MAX_PROCESSES: u32 = 32 << 10;

/// Threads that can be followed from wake to wake at one time: a hundred processes with pools of some dozens. 0.8 MiB of memory.
pub const MAX_HANDING: u32 = 8192;

/// Ports that `--port` can name.
pub const MAX_PORTS: u32 = 1024;

/// The agent's own connections (exports), remembered so that their far end on this host is left alone too.
pub const MAX_AGENT_CONNECTIONS: u32 = 1024;

/// Seconds after which a silent unix socket is introduced again. No kernel tells tracing programs that a unix socket was
/// closed, so user space forgets those that are silent for twice as long.
pub const UNIX_SILENCE: u32 = 10;

/// Threads that use io_uring at one time; of others, what they move is seen by its length. 1 MiB of memory.
pub const MAX_RING_TASKS: u32 = 8192;

/// Requests of io_uring that wait for a socket at one time: about one a connection of the servers that use it. 2 MiB of
/// memory.
pub const MAX_RING_WAITS: u32 = 16 << 10;
