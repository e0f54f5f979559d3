// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes that a system call moved through a socket.

use core::mem::offset_of;

use super::Header;

/// One call: once the budget is spent, one segment of a scatter/gather call; of more segments than are gathered, the rest
/// by its length. `captured` bytes of payload follow in the same record.
///
/// Positions are TCP's own sequence numbers (`tcp_sock.write_seq`, `tcp_sock.copied_seq`): what any other path moved
/// shows up as a gap of known length, and both ends of a connection on one host name the same byte by the same number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DataRecord {
    /// Kind [`super::Kind::Data`]; the current task is the one that read or wrote.
    pub header: Header,
    /// Which task of its runtime the thread was running, as read from the process's memory; zero when nobody asked
    /// for it ([`crate::settings::ProcessSettings::identity`]).
    pub identity: [u64; 3],
    /// Position of this record's first byte in its direction, modulo 2^32.
    pub position: u32,
    /// Position reached in the opposite direction when the probe ran, modulo 2^32.
    pub opposite: u32,
    /// Bytes moved. Law: captured <= length.
    pub length: u32,
    /// Bytes copied into the record, from the first on.
    pub captured: u32,
    /// The last bytes moved, right-aligned, when captured < length: enough to see a chunked body's end. Law:
    /// captured + tail_length <= length.
    pub tail: [u8; 8],
    /// How many bytes of `tail` are valid, from its end.
    pub tail_length: u8,
    /// A [`Direction`] by its wire number.
    pub direction: u8,
    /// A [`Path`] by its wire number.
    pub path: u8,
    /// Always zero.
    pub reserved: [u8; 5],
}

const _: () = {
    assert!(size_of::<DataRecord>() == 88);
    assert!(offset_of!(DataRecord, reserved) == 83);
};

/// Which way bytes went, as the process sees it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// From the socket into the process.
    Read,
    /// From the process into the socket.
    Write,
}

impl Direction {
    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
        }
    }

    /// The direction behind a wire number.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Read),
            2 => Some(Self::Write),
            _ => None,
        }
    }
}

/// Why a record carries fewer bytes than were moved.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Path {
    /// The buffer was the process's own memory: what is missing was left out on purpose (budget spent).
    Memory,
    /// The buffer could not be read.
    Unreadable,
    /// The call's registers do not describe the buffer (sendfile, splice), nor does a request of io_uring that is known to be
    /// the one; or it holds nothing of the bytes (MSG_TRUNC).
    Hidden,
}

impl Path {
    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Memory => 1,
            Self::Unreadable => 2,
            Self::Hidden => 3,
        }
    }

    /// The path behind a wire number.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            1 => Some(Self::Memory),
            2 => Some(Self::Unreadable),
            3 => Some(Self::Hidden),
            _ => None,
        }
    }
}
