// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connections that were open before the agent, as the walk through all processes' descriptors reports them.
//!
//! In: nothing. Out: one layout, of what the walk writes for each descriptor of an established TCP connection: a
//! connection that several processes hold is reported once for each.

use core::mem::offset_of;

/// One descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OlderSocket {
    /// The socket, as in [`crate::event::Header::socket`].
    pub socket: u64,
    /// The process that holds it.
    pub pid: u32,
    /// An [`crate::event::socket::Origin`] by its wire number.
    pub origin: u8,
    /// Always zero.
    pub reserved: [u8; 3],
}

const _: () = {
    assert!(size_of::<OlderSocket>() == 16);
    assert!(offset_of!(OlderSocket, origin) == 12);
};
