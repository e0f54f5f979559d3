// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Processes that begin, change their program, or end.

use core::mem::offset_of;

use super::Header;

/// Room for the path of an executed file; a longer one is cut, which `path_length` shows.
pub const PATH_ROOM: usize = 256;

/// A process (not a thread) was forked, executed a program, or exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ProcessRecord {
    /// Kind [`super::Kind::Process`].
    pub header: Header,
    /// `task_struct.start_boottime` of the process: with the pid, its identity. Nanoseconds of CLOCK_BOOTTIME.
    pub started: u64,
    /// The process this is about (the child, in a fork).
    pub pid: u32,
    /// Its parent; 0 where unknown.
    pub parent: u32,
    /// A [`Life`] by its wire number.
    pub life: u16,
    /// Valid bytes of `path`; 0 unless [`Life::Exec`].
    pub path_length: u16,
    /// Always zero.
    pub reserved: u32,
    /// `task_struct.comm`, zero-padded.
    pub command: [u8; 16],
    /// The executed file as it was named to execve.
    pub path: [u8; PATH_ROOM],
}

const _: () = {
    assert!(size_of::<ProcessRecord>() == 72 + PATH_ROOM);
    assert!(offset_of!(ProcessRecord, path) == 72);
};

/// What happened to the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Life {
    /// It came to be.
    Fork,
    /// It became another program.
    Exec,
    /// It ended.
    Exit,
}

impl Life {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Fork => 1,
            Self::Exec => 2,
            Self::Exit => 3,
        }
    }

    /// What a wire number means.
    pub const fn from_wire(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::Fork),
            2 => Some(Self::Exec),
            3 => Some(Self::Exit),
            _ => None,
        }
    }
}
