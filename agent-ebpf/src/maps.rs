// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Every map, with its writer, its reader, its capacity and what happens when it is full.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use spantap_common::{
    abi::{
        MAX_AGENT_CONNECTIONS, MAX_BATCHES, MAX_BODIES, MAX_HANDING, MAX_LISTENERS, MAX_PORTS, MAX_PROCESSES,
        MAX_RING_TASKS, MAX_RING_WAITS, MAX_SOCKETS, MAX_UNWANTED, RING_BYTES,
    },
    loss::Reason,
    opaque::Opaque,
    settings::{BodyEnd, ProcessSettings},
};

use crate::{
    kernel::Sock,
    state::{Batch, Causes, Counted, Ends, RingTask, RingWait, RingWaits, State},
};

/// Records. Written by every probe, read by the agent. Full: the record is dropped and `LOST[RingFull]` counts it.
#[map]
pub(crate) static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Losses by [`Reason`]. Written by every probe, summed over the CPUs by the agent.
#[map]
pub(crate) static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT as u32, 0);

/// Sockets that were left alone because no request can begin as they did, by [`Opaque`]. Written once for each socket,
/// summed over the CPUs by the agent.
#[map]
pub(crate) static LEFT_ALONE: PerCpuArray<u64> = PerCpuArray::with_max_entries(Opaque::COUNT as u32, 0);

/// A socket's state, as long as the socket lives. Written and read by the socket probes; bounded by the number of
/// sockets. No memory: `LOST[SocketStateFull]` counts it and the call is passed over.
#[btf_map]
pub(crate) static SOCKETS: SkStorage<State> = SkStorage::new();

/// Positions of a unix socket, as long as it lives: see [`Counted`]. Written and read by the socket probes. No memory: as
/// above.
#[btf_map]
pub(crate) static COUNTED: SkStorage<Counted> = SkStorage::new();

/// A socket's [`State`] by its address, where it cannot be kept in the socket ([`crate::globals::BY_ADDRESS`]). Removed when
/// the socket is. Full: the one that was used longest ago goes, and its socket is met again as one older than the agent.
/// The agent makes it no larger than needed: where it is not used it has one entry.
#[map]
pub(crate) static SOCKETS_BY_ADDRESS: LruHashMap<u64, State> = LruHashMap::with_max_entries(MAX_SOCKETS, 0);

/// The state of a socket that was just met: zeros, too many for the stack. Never written.
#[map]
pub(crate) static NEW_STATE: Array<State> = Array::with_max_entries(1, 0);

/// One word: not 0 while calls of followed connections are only counted. Written by the agent, read for each call of such
/// a connection.
#[map]
pub(crate) static COUNT_ONLY: Array<u32> = Array::with_max_entries(1, 0);

/// What to do for a process, by tgid. Written by the agent, read once for each socket. Full: the agent's insertion
/// fails, and the default verdict holds. Not preallocated: 32 Ki entries would cost 5 MiB for a handful of services.
#[map]
pub(crate) static PROCESSES: HashMap<u32, ProcessSettings> =
    HashMap::with_max_entries(MAX_PROCESSES, BPF_F_NO_PREALLOC);

/// How often the agent has told a process's layout to `PROCESSES`. Written by it after that, read for each call that is
/// captured: while it stays the same, a process without a layout still has none.
#[map]
pub(crate) static LAYOUTS: Array<u32> = Array::with_max_entries(1, 0);

/// One word: not 0 while there are processes whose threads' wakes are followed. Written by the agent, read for each wake of the
/// machine.
#[map]
pub(crate) static WAKES: Array<u32> = Array::with_max_entries(1, 0);

/// What each thread goes by, by thread id, in processes that are followed so (see `handoff.rs`). Written and read by the
/// probes of sockets and wakes; an entry goes with its thread. Full: the thread that was longest idle goes, and its next write
/// says nothing. Not in the tasks themselves: that takes 5.11, and a map of a kind that the kernel does not know is refused
/// with all the others.
#[map]
pub(crate) static CAUSES: LruHashMap<u32, Causes> = LruHashMap::with_max_entries(MAX_HANDING, 0);

/// Ports named by `--port`. Written by the agent before the probes are attached, read once for each socket.
#[map]
pub(crate) static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(MAX_PORTS, BPF_F_NO_PREALLOC);

/// Ports that are listened on, with their network namespaces. Written and read by the walk through older connections alone.
/// Full: a connection's origin stays unknown.
#[map]
pub(crate) static LISTENERS: HashMap<u64, u8> = HashMap::with_max_entries(MAX_LISTENERS, BPF_F_NO_PREALLOC);

/// The agent's own connections, as the agent's end sees them. Written when one is established, read once for each
/// socket. Full: the oldest goes, and its far end was judged long ago.
#[map]
pub(crate) static AGENT_CONNECTIONS: LruHashMap<Ends, u8> = LruHashMap::with_max_entries(MAX_AGENT_CONNECTIONS, 0);

/// Cookies of sockets whose bytes the agent cannot use any more, such as those of an upgraded connection. Written by the
/// agent, read and emptied by the socket probes. Full: the oldest goes, and its socket is copied in vain.
#[map]
pub(crate) static UNWANTED: LruHashMap<u64, u8> = LruHashMap::with_max_entries(MAX_UNWANTED, 0);

/// Where the body ends that a socket is in the middle of, by the socket's cookie. Written by the agent, read and emptied by the
/// socket probes. Full: the oldest goes, and each call of its socket is reported.
#[map]
pub(crate) static BODIES: LruHashMap<u64, BodyEnd> = LruHashMap::with_max_entries(MAX_BODIES, 0);

/// How far each thread's sendmmsg or recvmmsg has come, by `pid_tgid`. Written and read by the socket probes; an entry
/// goes with the last message of its call. Full: the message is counted by its length, and `LOST[UnsupportedPath]`.
#[map]
pub(crate) static BATCHES: HashMap<u64, Batch> = HashMap::with_max_entries(MAX_BATCHES, 0);

/// What each thread's io_uring is about to do, by `pid_tgid`. Written as requests are submitted, read as they move bytes.
/// Full: the thread that submitted longest ago goes, and what its next request moves is seen by its length.
#[map]
pub(crate) static RING_TASKS: LruHashMap<u64, RingTask> = LruHashMap::with_max_entries(MAX_RING_TASKS, 0);

/// The requests of io_uring that wait for a socket. Written as they begin to wait and complete, read as bytes move. Full:
/// the one that was used longest ago goes, and what it moves is seen by its length.
#[map]
pub(crate) static RING_WAITS: LruHashMap<RingWait, RingWaits> = LruHashMap::with_max_entries(MAX_RING_WAITS, 0);

/// What each of those requests waits for, by its address. Written and read as above. Full: as above.
#[map]
pub(crate) static RING_REQUESTS: LruHashMap<u64, RingWait> = LruHashMap::with_max_entries(MAX_RING_WAITS, 0);

/// A value that lives in a socket.
///
/// `T` must be valid for every bit pattern, and be prepared for two CPUs at once: see at the types.
#[inline(always)]
pub(crate) fn in_socket<T>(map: &'static SkStorage<T>, sock: Sock) -> Option<&'static mut T> {
    asked(map, sock, 0)
}

/// The same, made of zeros if need be.
///
/// The kernel makes room for all values of a socket with its first one, and refuses the loser of two that are first at the
/// same time (-EAGAIN of `bpf_local_storage_alloc`): who asks again finds the room.
#[inline(always)]
pub(crate) fn made_in_socket<T>(map: &'static SkStorage<T>, sock: Sock) -> Option<&'static mut T> {
    let made = asked(map, sock, BPF_SK_STORAGE_GET_F_CREATE.into());
    if made.is_some() { made } else { asked(map, sock, BPF_SK_STORAGE_GET_F_CREATE.into()) }
}

#[expect(
    clippy::mut_from_ref,
    reason = "the value is in the kernel's memory, not behind the static that names the map"
)]
#[inline(always)]
fn asked<T>(map: &'static SkStorage<T>, sock: Sock, flags: u64) -> Option<&'static mut T> {
    let map = (&raw const *map).cast_mut().cast();
    // SAFETY: the helper takes the map, the trusted pointer and, for a new value, zeros. aya's own wrapper takes another
    // kind of context.
    let value = unsafe { bpf_sk_storage_get(map, sock.as_ptr().cast_mut().cast(), ptr::null_mut(), flags) };
    // SAFETY: the value lives until the program returns (RCU).
    unsafe { value.cast::<T>().as_mut() }
}
