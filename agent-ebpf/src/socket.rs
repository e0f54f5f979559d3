// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is known of each socket, and its introduction and end.
//!
//! In: a socket as some tracepoint shows it. Out: its [`State`], and records that introduce it or say which of its
//! directions is over. It does not look at payload: `traffic.rs` decides what the bytes mean for the verdict.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use spantap_common::{
    abi::TURNS_PER_LOOK,
    event::{
        Kind,
        socket::{Origin, Shut, ShutRecord, SocketRecord},
    },
    loss::Reason,
    settings::Verdict,
};

use crate::{
    body, globals,
    kernel::{Positions, Sock, Stream},
    loss,
    maps::{
        AGENT_CONNECTIONS, NEW_STATE, PORTS, PROCESSES, SOCKETS, SOCKETS_BY_ADDRESS, UNWANTED, in_socket,
        made_in_socket,
    },
    runtime,
    slot::Slot,
    state::{IGNORED, PROBING, State, UNKNOWN},
    task,
};

/// The socket's state, if it has one.
#[inline(always)]
pub(crate) fn find(sock: Sock) -> Option<&'static mut State> {
    if sock.is_address() { by_address(sock) } else { in_socket(&SOCKETS, sock) }
}

/// The socket's state, made now if need be.
#[inline(always)]
pub(crate) fn find_or_make(sock: Sock) -> Option<&'static mut State> {
    let state = made(sock);
    if state.is_none() {
        loss::count(Reason::SocketStateFull);
    }
    state
}

/// The same for whoever can do without it.
#[inline(always)]
pub(crate) fn made(sock: Sock) -> Option<&'static mut State> {
    if sock.is_address() { by_address(sock).or_else(|| insert(sock)) } else { made_in_socket(&SOCKETS, sock) }
}

/// Whether anybody wants to know of a socket, judged once, when its first bytes move: [`PROBING`] or [`IGNORED`].
#[inline(always)]
pub(crate) fn judge(sock: Sock, stream: Stream) -> u32 {
    let process = task::tgid(bpf_get_current_pid_tgid());
    if process == globals::AGENT_TGID.load() {
        return IGNORED;
    }
    // SAFETY: nothing keeps the reference beyond the copy of one field.
    let verdict = match unsafe { PROCESSES.get(process) } {
        Some(settings) => settings.verdict,
        None => globals::DEFAULT_VERDICT.load(),
    };
    if verdict == Verdict::Ignored as u32 {
        return IGNORED;
    }
    if let Stream::Unix = stream {
        // It has no port, and no address that the agent's connections could be known by.
        return if globals::PORT_FILTER.load() != 0 { IGNORED } else { PROBING };
    }
    let ends = sock.ends();
    if globals::PORT_FILTER.load() != 0 {
        // SAFETY: only presence is asked for.
        let named = unsafe { PORTS.get(ends.local.port).is_some() || PORTS.get(ends.peer.port).is_some() };
        if !named {
            return IGNORED;
        }
    }
    // The collector's end of the agent's own export, on this host: tracing it would export a span for every export.
    // SAFETY: only presence is asked for.
    if unsafe { AGENT_CONNECTIONS.get(ends.reversed()) }.is_some() {
        return IGNORED;
    }
    PROBING
}

/// Introduces the socket; `before` are the positions before the current call. Tried again at the next call when the
/// ring is full.
#[inline(always)]
pub(crate) fn announce(sock: Sock, state: &mut State, before: Positions) -> Option<()> {
    let mut slot = Slot::<SocketRecord>::reserve()?;
    let record = slot.record()?;
    let ends = sock.ends();
    let introduction = SocketRecord {
        header: task::header(Kind::Socket, state.cookie, size_of::<SocketRecord>() as u32),
        cgroup: task::cgroup(),
        connected_at: state.connected_at,
        connected_by: state.connected_by,
        local: ends.local,
        peer: ends.peer,
        netns: sock.netns(),
        read_position: before.read,
        write_position: before.write,
        origin: state.origin,
        requests: state.requests,
        protocol: state.protocol,
        midway: state.midway,
    };
    // SAFETY: `record` is the slot's own room for one `SocketRecord`.
    unsafe { record.write(introduction) };
    slot.commit();
    state.announced = 1;
    Some(())
}

/// Takes an introduction back: the socket is no known protocol after all, or not in this direction.
#[inline(always)]
pub(crate) fn retract(state: &mut State, positions: Positions) {
    if state.announced != 0 {
        state.announced = 0;
        shut(state.cookie, positions, Shut::Closed, 0);
    }
}

/// The connection turns round. Some when the agent does not want it any more, which ends it as far as anybody sees.
#[inline(always)]
pub(crate) fn unwanted(state: &mut State, positions: Positions) -> Option<()> {
    state.turns = state.turns.wrapping_add(1);
    if !state.turns.is_multiple_of(TURNS_PER_LOOK) {
        return None;
    }
    UNWANTED.remove(state.cookie).ok()?;
    state.verdict = IGNORED;
    retract(state, positions);
    Some(())
}

/// A read returned 0.
#[inline(always)]
pub(crate) fn read_nothing(sock: Sock) -> Option<()> {
    let state = find(sock)?;
    // A read of no bytes returns 0 too.
    if state.announced == 0 || !sock.at_read_end() {
        return None;
    }
    let positions = sock.positions(state.fin_sent != 0)?;
    body::tell(state);
    if state.read_end == 0 {
        state.read_end = 1;
        shut(state.cookie, positions, Shut::ReadEnd, 0);
    }
    if state.closing != 0 {
        gone(state, positions);
    }
    Some(())
}

/// Bytes were read: the last ones that a connection which is already gone had left?
#[inline(always)]
pub(crate) fn caught_up(sock: Sock, state: &mut State) -> Option<()> {
    // An orderly end is still to be read as such (0 bytes); after an error nothing more comes.
    if state.closing != 0 && state.errno != 0 {
        let positions = sock.positions(state.fin_sent != 0)?;
        if positions.unread == 0 {
            gone(state, positions);
        }
    }
    Some(())
}

/// The socket goes from state `old` to state `new` (`include/net/tcp_states.h`).
#[inline(always)]
pub(crate) fn turned(sock: Sock, old: i32, new: i32) -> Option<()> {
    if !sock.is_tcp() {
        return None;
    }
    match (old, new) {
        (TCP_CLOSE, TCP_SYN_SENT) => born(sock, Origin::Connected),
        (TCP_SYN_RECV, TCP_ESTABLISHED) => born(sock, Origin::Accepted),
        (TCP_SYN_SENT, TCP_ESTABLISHED) => {
            if find(sock)?.own != 0 {
                // Full or not, an LRU map takes it.
                let _ = AGENT_CONNECTIONS.insert(sock.ends(), 1, 0);
            }
            Some(())
        }
        (_, TCP_FIN_WAIT1 | TCP_LAST_ACK) => {
            let state = find(sock)?;
            if state.announced != 0 {
                body::tell(state);
                shut(state.cookie, sock.positions(false)?, Shut::WriteEnd, 0);
            }
            // For reads after the last state, CLOSE, which has forgotten it.
            state.fin_sent = 1;
            Some(())
        }
        (_, TCP_CLOSE) => {
            let state = find(sock)?;
            if state.announced == 0 {
                return None;
            }
            let positions = sock.positions(state.fin_sent != 0)?;
            state.closing = 1;
            state.errno = sock.error();
            // A process that still holds the socket may read what has arrived, and then the end, after the connection
            // is gone: a client that shut its writing side down gets its response so (FIN_WAIT2 to CLOSE).
            let end_to_read = state.errno == 0 && sock.peer_finished() && state.read_end == 0;
            if sock.orphaned() || (positions.unread == 0 && !end_to_read) {
                body::tell(state);
                gone(state, positions);
            }
            Some(())
        }
        _ => None,
    }
}

/// The socket is being freed: nobody will read from it any more.
#[inline(always)]
pub(crate) fn destroyed(sock: Sock) -> Option<()> {
    if !sock.is_tcp() {
        return None;
    }
    let state = find(sock)?;
    if state.announced != 0 {
        let positions = sock.positions(state.fin_sent != 0)?;
        body::tell(state);
        gone(state, positions);
    }
    if sock.is_address() {
        // The address will be another socket's. It can only be missing already.
        let _ = SOCKETS_BY_ADDRESS.remove(sock.as_ptr() as u64);
    }
    Some(())
}

/// A connection begins on the socket, which may have carried another one before (`connect` to AF_UNSPEC).
#[inline(always)]
fn born(sock: Sock, origin: Origin) -> Option<()> {
    let state = find_or_make(sock)?;
    state.verdict = UNKNOWN;
    state.cookie = sock.cookie();
    state.prefix_length = 0;
    state.last_direction = 0;
    state.requests = 0;
    state.protocol = 0;
    state.origin = origin.to_wire();
    state.announced = 0;
    state.read_end = 0;
    state.closing = 0;
    state.fin_sent = 0;
    state.misses = 0;
    state.turns = 0;
    state.midway = 0;
    state.body = 0;
    state.passed = 0;
    // Only the caller of connect(2) is known here; whoever accepts is not running yet.
    let connects = matches!(origin, Origin::Connected);
    let caller = bpf_get_current_pid_tgid();
    state.connected_at = if connects { task::now() } else { 0 };
    state.connected_by = if connects { caller } else { 0 };
    state.connected_task = if connects { runtime::connecting() } else { 0 };
    let process = task::tgid(caller);
    state.own = u8::from(connects && process != 0 && process == globals::AGENT_TGID.load());
    Some(())
}

#[inline(always)]
fn gone(state: &mut State, positions: Positions) {
    state.announced = 0;
    state.closing = 0;
    shut(state.cookie, positions, Shut::Closed, state.errno);
}

/// Tells of an end, at these positions, of a socket of which nothing is to be told before ([`body::tell`]).
#[inline(always)]
pub(crate) fn shut(cookie: u64, positions: Positions, how: Shut, errno: u16) -> Option<()> {
    let mut slot = Slot::<ShutRecord>::reserve()?;
    let record = slot.record()?;
    let end = ShutRecord {
        header: task::header(Kind::Shut, cookie, size_of::<ShutRecord>() as u32),
        read_position: positions.read,
        write_position: positions.write,
        how: how.to_wire(),
        errno,
        reserved: 0,
    };
    // SAFETY: `record` is the slot's own room for one `ShutRecord`.
    unsafe { record.write(end) };
    slot.commit();
    Some(())
}

#[inline(always)]
fn by_address(sock: Sock) -> Option<&'static mut State> {
    let state = SOCKETS_BY_ADDRESS.get_ptr_mut(sock.as_ptr() as u64)?;
    // SAFETY: valid for every bit pattern; what its sharing costs is said at `State`. The map may give the entry to another socket meanwhile, which costs what sharing does.
    unsafe { state.as_mut() }
}

#[inline(always)]
fn insert(sock: Sock) -> Option<&'static mut State> {
    let new = NEW_STATE.get(0)?;
    // Another CPU may have been faster: its entry is as good.
    let _ = SOCKETS_BY_ADDRESS.insert(sock.as_ptr() as u64, new, BPF_NOEXIST.into());
    by_address(sock)
}

const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_FIN_WAIT1: i32 = 4;
const TCP_CLOSE: i32 = 7;
const TCP_LAST_ACK: i32 = 9;
