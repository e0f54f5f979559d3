// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A unix stream socket's introduction: what is said of any socket, and what only these have.

use core::mem::offset_of;

use super::socket::SocketRecord;

/// `sizeof(sockaddr_un.sun_path)` (`include/uapi/linux/un.h`): no name is longer.
pub const NAME_ROOM: usize = 108;

/// A unix socket on which a known protocol was recognised. Sent before its first data record, and once more when it was
/// silent for [`crate::abi::UNIX_SILENCE`].
///
/// Unix sockets have no sequence numbers: positions are the bytes that were seen to move since either end was first
/// seen to. The ends of [`SocketRecord`] are the cookies of the two sockets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnixRecord {
    /// Kind [`super::Kind::Unix`]; origin is unknown: no unix socket is seen to be made.
    pub socket: SocketRecord,
    /// The process at the other end as the socket's credentials name it: who connected, or who called listen(2); 0 where
    /// unknown.
    pub peer_pid: u32,
    /// Valid bytes of `name`; 0 where neither end has one.
    pub name_length: u16,
    /// Whose name it is: a [`Named`] by its wire number.
    pub named: u16,
    /// The name as bind(2) took it: a path, or, after a zero, a name in the abstract namespace.
    pub name: [u8; NAME_ROOM],
    /// Always zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<UnixRecord>() == 232);
    assert!(offset_of!(UnixRecord, name) == 120);
    assert!(offset_of!(UnixRecord, reserved) == 228);
};

/// An end of a connection that has a name. The socket that listens has one, and lends it to those that it accepts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Named {
    /// This process's: it accepted.
    Local,
    /// The other one's: this process connected.
    Peer,
}

impl Named {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Local => 1,
            Self::Peer => 2,
        }
    }

    /// The end behind a wire number.
    pub const fn from_wire(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::Local),
            2 => Some(Self::Peer),
            _ => None,
        }
    }
}
