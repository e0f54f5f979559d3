// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A socket's introduction, and the end of each of its directions.

use core::mem::offset_of;

use super::Header;
use crate::endpoint::Endpoint;

/// A socket on which a known protocol was recognised. Sent once, before its first data record; when the ring is full
/// the data is lost (and counted) until the introduction has gone through.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketRecord {
    /// Kind [`super::Kind::Socket`]; the current task is the one that moved the first recognised bytes.
    pub header: Header,
    /// cgroup v2 id of the current task; 0 where unknown.
    pub cgroup: u64,
    /// When this process called connect(2), in nanoseconds of CLOCK_MONOTONIC; 0 where it did not, or nobody saw it. An
    /// event loop calls it when it decides to make a call, and writes the call when the connection stands.
    pub connected_at: u64,
    /// Who called it: process id and thread id, as in [`Header::pid_tgid`].
    pub connected_by: u64,
    /// This process's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Position of the next byte to be read, modulo 2^32; see [`super::data::DataRecord::position`].
    pub read_position: u32,
    /// Position of the next byte to be written, modulo 2^32.
    pub write_position: u32,
    /// An [`Origin`] by its wire number.
    pub origin: u8,
    /// Direction in which the first recognised request went ([`super::data::Direction`] by its wire number): whoever
    /// reads requests is the server, whatever the ports.
    pub requests: u8,
    /// A [`crate::sniff::Guess`] by its wire number; where it is undecided yet, what it may become.
    pub protocol: u8,
    /// 1 where calls without a recognised request were passed over before this one: the connection is older than the agent,
    /// and was met in the middle of a message.
    pub midway: u8,
}

const _: () = {
    assert!(size_of::<SocketRecord>() == 112);
    assert!(offset_of!(SocketRecord, origin) == 108);
};

/// How the connection came to be, as far as the agent saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// It was open before the agent, and nobody knows who connected.
    Unknown,
    /// This process connected.
    Connected,
    /// This process accepted.
    Accepted,
    /// It was open before the agent: a process on this side connected.
    OlderConnected,
    /// It was open before the agent: a process on this side accepted.
    OlderAccepted,
}

impl Origin {
    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Connected => 1,
            Self::Accepted => 2,
            Self::OlderConnected => 3,
            Self::OlderAccepted => 4,
        }
    }

    /// Whether earlier bytes were not seen, so that any call may begin with anything.
    pub const fn is_older(self) -> bool {
        matches!(self, Self::Unknown | Self::OlderConnected | Self::OlderAccepted)
    }

    /// The origin behind a wire number.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Unknown),
            1 => Some(Self::Connected),
            2 => Some(Self::Accepted),
            3 => Some(Self::OlderConnected),
            4 => Some(Self::OlderAccepted),
            _ => None,
        }
    }
}

/// One end of an introduced connection is over.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ShutRecord {
    /// Kind [`super::Kind::Shut`]. The current task is meaningful for [`Shut::ReadEnd`] only: state changes may come
    /// from interrupt context.
    pub header: Header,
    /// Position reached in the read direction, modulo 2^32; see [`super::data::DataRecord::position`].
    pub read_position: u32,
    /// Position reached in the write direction, modulo 2^32. No position counts a FIN: they are positions of bytes.
    pub write_position: u32,
    /// A [`Shut`] by its wire number.
    pub how: u16,
    /// `sock.sk_err` as a positive errno, 0 for none: 104 ECONNRESET, 110 ETIMEDOUT.
    pub errno: u16,
    /// Always zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<ShutRecord>() == 48);
    assert!(offset_of!(ShutRecord, reserved) == 44);
};

/// What ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shut {
    /// A read returned 0: the process has seen everything the peer sent.
    ReadEnd,
    /// This side will send no more (state FIN_WAIT1 or LAST_ACK).
    WriteEnd,
    /// The connection is gone (state CLOSE, with everything read that the process is going to read), or it turned out
    /// to be no known protocol. Nothing more comes from this socket unless it is introduced again.
    Closed,
}

impl Shut {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::ReadEnd => 1,
            Self::WriteEnd => 2,
            Self::Closed => 3,
        }
    }

    /// What a wire number means.
    pub const fn from_wire(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::ReadEnd),
            2 => Some(Self::WriteEnd),
            3 => Some(Self::Closed),
            _ => None,
        }
    }
}
