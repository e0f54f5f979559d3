// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connections that were open before the agent, as the walk through all processes' descriptors reports them.
//!
//! In: nothing. Out: one layout, of what the walk writes for each descriptor of an established TCP connection: a
//! connection that several processes hold is reported once for each. A socket that listens is reported for its process.

use core::mem::offset_of;

/// One descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OlderSocket {
    /// The socket, as in [`crate::event::Header::socket`]; 0 of one that listens.
    pub socket: u64,
    /// The process that holds it.
    pub pid: u32,
    /// An [`crate::event::socket::Origin`] by its wire number, or [`LISTENS`].
    pub origin: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

/// The socket has no connection and listens for some.
pub const LISTENS: u8 = u8::MAX;

const _: () = {
    assert!(size_of::<OlderSocket>() == 16);
    assert!(offset_of!(OlderSocket, origin) == 12);
};
