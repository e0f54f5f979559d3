// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What is different about unix stream sockets.
//!
//! In: a unix socket that has moved bytes, read its end, or failed. Out: its positions, its introduction, and the ends of
//! both sides. It looks at no payload, and it does not see a socket that is closed: no tracepoint says so. What a close
//! means for the peer shows at the peer's next call, and what nobody notices user space forgets in time.
//!
//! The kernel numbers no byte of a unix stream, so that the probes count. Every write passes them; a read by splice(2)
//! does not, which shows when the queue is empty while fewer bytes were read than written.

use spantap_common::{
    abi::UNIX_SILENCE,
    endpoint::Endpoint,
    event::{
        Kind,
        data::Direction,
        socket::{Shut, SocketRecord},
        unix::{Named, UnixRecord},
    },
    loss::Reason,
};

use crate::{
    body,
    kernel::{Positions, Sock},
    loss,
    maps::{COUNTED, in_socket, made_in_socket},
    slot::Slot,
    socket,
    state::{Counted, State},
    task,
};

/// Counts `length` bytes that the socket has just moved; returns the positions reached.
#[inline(always)]
pub(crate) fn moved(sock: Sock, state: &mut State, direction: Direction, length: u32) -> Option<Positions> {
    let peer = sock.unix_peer()?;
    let own = counted_or_made(sock)?;
    let other = counted_or_made(peer)?;
    let now = seconds();
    if now.wrapping_sub(own.moved) >= UNIX_SILENCE {
        // User space may have forgotten it.
        state.announced = 0;
    }
    own.moved = now;
    match direction {
        Direction::Write => own.written = own.written.wrapping_add(length),
        Direction::Read => {
            own.read = own.read.wrapping_add(length);
            // Asked in this order: what is counted as written by now was queued, so that a queue which is empty after
            // that had it read.
            let written = other.written;
            if written.wrapping_sub(own.read).cast_signed() > 0 && sock.queued() == 0 {
                own.read = written;
            }
        }
    }
    Some(Positions { read: own.read, write: own.written, unread: 0 })
}

/// Introduces the socket; `before` are the positions before the current call.
#[inline(always)]
pub(crate) fn announce(sock: Sock, state: &mut State, before: Positions) -> Option<()> {
    let peer = sock.unix_peer()?;
    let mut slot = Slot::<UnixRecord>::reserve()?;
    let record = slot.record()?;
    let introduction = SocketRecord {
        header: task::header(Kind::Unix, state.cookie, size_of::<UnixRecord>() as u32),
        cgroup: task::cgroup(),
        connected_at: 0,
        connected_by: 0,
        local: Endpoint::unix(state.cookie),
        peer: Endpoint::unix(peer.cookie()),
        netns: sock.netns(),
        read_position: before.read,
        write_position: before.write,
        origin: state.origin,
        requests: state.requests,
        protocol: state.protocol,
        midway: state.midway,
    };
    // SAFETY: `record` is the slot's own room for one `UnixRecord`, here and below.
    let name = unsafe { &raw mut (*record).name };
    let peers = peer.unix_name(name);
    let (name_length, named) = if peers > 0 {
        (peers, Named::Peer.to_wire())
    } else {
        match sock.unix_name(name) {
            0 => {
                // SAFETY: as above.
                unsafe { name.write([0; _]) };
                (0, 0)
            }
            own => (own, Named::Local.to_wire()),
        }
    };
    // SAFETY: as above.
    unsafe {
        (&raw mut (*record).socket).write(introduction);
        (&raw mut (*record).peer_pid).write(sock.peer_pid());
        (&raw mut (*record).name_length).write(name_length);
        (&raw mut (*record).named).write(named);
        (&raw mut (*record).reserved).write(0);
    }
    slot.commit();
    state.announced = 1;
    Some(())
}

/// A read returned 0: the peer has finished writing, or is gone.
#[inline(always)]
pub(crate) fn read_nothing(sock: Sock) -> Option<()> {
    if !sock.at_read_end() {
        return None;
    }
    let peer = sock.unix_peer()?;
    let gone = peer.orphaned();
    ended(peer, Shut::WriteEnd, 0);
    ended(sock, Shut::ReadEnd, 0);
    if gone {
        ended(peer, Shut::Closed, 0);
        // Nothing can be read any more, and nothing written.
        ended(sock, Shut::Closed, 0);
    }
    Some(())
}

/// A call returned `result`, which is negative.
#[inline(always)]
pub(crate) fn failed(sock: Sock, result: i32) -> Option<()> {
    if (result != -EPIPE && result != -ECONNRESET) || !sock.is_unix() {
        return None;
    }
    let peer = sock.unix_peer()?;
    if peer.orphaned() {
        ended(peer, Shut::Closed, 0);
        // What the peer left behind can be read after a write has failed.
        if result == -ECONNRESET || sock.queued() == 0 {
            ended(sock, Shut::Closed, result.unsigned_abs() as u16);
        }
    }
    Some(())
}

/// Seconds since boot, roughly: of 2^30 ns each.
#[inline(always)]
fn seconds() -> u32 {
    (task::now() >> 30) as u32
}

/// Tells of an end of the socket, once.
#[inline(always)]
fn ended(sock: Sock, how: Shut, errno: u16) -> Option<()> {
    let state = socket::find(sock)?;
    if state.announced == 0 {
        return None;
    }
    let told = match how {
        Shut::ReadEnd => &mut state.read_end,
        Shut::WriteEnd => &mut state.fin_sent,
        Shut::Closed => {
            state.announced = 0;
            &mut state.closing
        }
    };
    if *told != 0 {
        return None;
    }
    *told = 1;
    let counted = in_socket(&COUNTED, sock)?;
    let positions = Positions { read: counted.read, write: counted.written, unread: 0 };
    body::tell(state);
    socket::shut(state.cookie, positions, how, errno)
}

#[inline(always)]
fn counted_or_made(sock: Sock) -> Option<&'static mut Counted> {
    let counted = made_in_socket(&COUNTED, sock);
    if counted.is_none() {
        loss::count(Reason::SocketStateFull);
    }
    counted
}

// `include/uapi/asm-generic/errno.h`.
const EPIPE: i32 = 32;
const ECONNRESET: i32 = 104;
