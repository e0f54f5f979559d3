// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records of the ring buffer: a [`Header`] first, then what its kind says.
//!
//! Everything is `repr(C)`, in native byte order (both sides are one machine), of fixed-width integers, without
//! padding. A kind is a number on the wire and an enum only after [`Kind::from_wire`].

pub mod data;
pub mod process;
pub mod socket;
pub mod thread;
pub mod unix;

use core::mem::offset_of;

/// The first bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// `bpf_ktime_get_ns` at the event: nanoseconds of CLOCK_MONOTONIC.
    pub at: u64,
    /// `bpf_get_current_pid_tgid`: process id in the upper half, thread id in the lower. In a record that interrupt
    /// context produced it names whoever was interrupted: see each record.
    pub pid_tgid: u64,
    /// The socket's cookie (`sock_gen_cookie`), or, where sockets are known by address, a number made of address and
    /// time: unique until the next boot. 0 in process records.
    pub socket: u64,
    /// A [`Kind`] by its wire number.
    pub kind: u16,
    /// [`crate::abi::ABI_VERSION`].
    pub version: u16,
    /// Bytes of the whole record that are meaningful, this header included. Law: size <= bytes reserved.
    pub size: u32,
}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(offset_of!(Header, size) == 28);
};

/// What a record is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// [`socket::SocketRecord`]: a socket worth looking at; comes before every other record of that socket.
    Socket,
    /// [`data::DataRecord`]: bytes moved.
    Data,
    /// [`socket::ShutRecord`]: one end of the connection is over.
    Shut,
    /// [`process::ProcessRecord`].
    Process,
    /// [`unix::UnixRecord`]: the same as [`Kind::Socket`], of a unix socket.
    Unix,
    /// [`thread::ThreadRecord`].
    Thread,
}

impl Kind {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Socket => 1,
            Self::Data => 2,
            Self::Shut => 3,
            Self::Process => 4,
            Self::Unix => 5,
            Self::Thread => 6,
        }
    }

    /// The kind behind a wire number, if this version knows it.
    pub const fn from_wire(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::Socket),
            2 => Some(Self::Data),
            3 => Some(Self::Shut),
            4 => Some(Self::Process),
            5 => Some(Self::Unix),
            6 => Some(Self::Thread),
            _ => None,
        }
    }
}
