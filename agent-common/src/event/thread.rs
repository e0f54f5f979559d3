// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads that begin or end, in processes of which that is asked for (`ProcessSettings::threads`).

use core::mem::offset_of;

use super::Header;

/// A thread, not the first of its process, began or ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ThreadRecord {
    /// Kind [`super::Kind::Thread`]. When it begins, the current task is the one that starts it; when it ends, the thread itself.
    pub header: Header,
    /// `task_struct.start_boottime` of the thread: with its id, its identity. Nanoseconds of CLOCK_BOOTTIME.
    pub started: u64,
    /// The thread this is about.
    pub tid: u32,
    /// A [`Step`] by its wire number.
    pub step: u16,
    /// Always zero.
    pub reserved: u16,
}

const _: () = {
    assert!(size_of::<ThreadRecord>() == 48);
    assert!(offset_of!(ThreadRecord, step) == 44);
};

/// What became of the thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// It was made, and has not run yet.
    Begins,
    /// It runs nothing of its program any more.
    Ends,
}

impl Step {
    /// The number on the wire.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::Begins => 1,
            Self::Ends => 2,
        }
    }

    /// What a wire number means.
    pub const fn from_wire(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::Begins),
            2 => Some(Self::Ends),
            _ => None,
        }
    }
}
