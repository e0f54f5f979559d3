// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections that are older than the agent.
//!
//! In: each descriptor of each process, twice over. Out: the origin of established TCP connections, in their sockets'
//! states, and a report of each. The first walk finds who listens, the second knows all of them. It looks at no payload,
//! and lets a state alone that a probe has begun to fill in.

use spantap_common::{event::socket::Origin, older::OlderSocket};

use crate::{
    kernel::{Report, Sock},
    maps::LISTENERS,
    socket,
    state::UNKNOWN,
};

/// Looks at a socket that the process `pid` holds.
#[inline(always)]
pub(crate) fn met(sock: Sock, pid: u32, report: Report) -> Option<()> {
    if !sock.is_tcp() {
        return None;
    }
    let netns = sock.netns();
    match sock.turn() {
        // Full or there already: a port that is missing costs an origin.
        // Full or there already: a port that is missing costs an origin.
        TCP_LISTEN => LISTENERS.insert(place(netns, sock.ends().local.port), 1, 0).ok(),
        TCP_ESTABLISHED | TCP_FIN_WAIT1 | TCP_FIN_WAIT2 | TCP_CLOSE_WAIT => {
            let ends = sock.ends();
            let origin = match (is_listened(netns, ends.local.port), is_listened(netns, ends.peer.port)) {
                (true, false) => Origin::OlderAccepted,
                // Its listener is in the same namespace, or the numbers are equal by chance and this is so as well:
                // an accepted connection has the port of a listener of its own.
                (false, true) => Origin::OlderConnected,
                _ => Origin::Unknown,
            };
            // Without memory for it now, it is met like any other at its next call.
            let state = socket::made(sock)?;
            if state.verdict == UNKNOWN
                && state.origin != Origin::Connected.to_wire()
                && state.origin != Origin::Accepted.to_wire()
            {
                state.origin = origin.to_wire();
            }
            if state.cookie == 0 {
                state.cookie = sock.cookie();
            }
            report.write(&OlderSocket { socket: state.cookie, pid, origin: state.origin, reserved: [0; 3] });
            Some(())
        }
        _ => None,
    }
}

#[inline(always)]
fn is_listened(netns: u32, port: u16) -> bool {
    // SAFETY: only presence is asked for.
    unsafe { LISTENERS.get(place(netns, port)) }.is_some()
}

/// A port of a network namespace as one number.
#[inline(always)]
fn place(netns: u32, port: u16) -> u64 {
    u64::from(netns) << 16 | u64::from(port)
}

// `include/net/tcp_states.h`.
const TCP_ESTABLISHED: u8 = 1;
const TCP_FIN_WAIT1: u8 = 4;
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE_WAIT: u8 = 8;
const TCP_LISTEN: u8 = 10;
