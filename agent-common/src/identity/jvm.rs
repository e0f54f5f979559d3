// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the probes read which virtual thread a thread of the JVM carries, and how a record says so.
//!
//! In: the offsets that user space found in a live process; the third word of an identity. Out: the same offsets in the kernel,
//! and the number of a virtual thread. The number is that of `Thread.threadId()`: the JVM gives each out once. It says nothing
//! about threads of the system, which are known by their own numbers.

use super::{Arguments, pack, padded, unpack};

/// From a thread to its `JavaThread`, and to the number of the virtual thread that is mounted on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Jvm {
    /// Where the word is that leads to the `JavaThread`, counted from the thread pointer.
    pub slot: i64,
    /// The word is its address (glibc keeps its first 32 keys in the thread's block); or, with an offset, that of the table that
    /// holds it there (musl).
    pub table: Option<u16>,
    /// Offset of the number in a `JavaThread`.
    pub number: u16,
    /// How it shows that the number is not the thread's own.
    pub mounted: Mounted,
}

/// What tells a virtual thread's number from that of the thread that carries it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mounted {
    /// The word at this offset is not zero: the frame that a continuation was entered by.
    Entered(u16),
    /// The word at this offset is another one: the thread's own number.
    Differs(u16),
}

impl Jvm {
    /// As arguments, not all of which are zero.
    pub const fn to_arguments(self) -> Arguments {
        let table = match self.table {
            Some(offset) => 1 + offset as u64,
            None => 0,
        };
        let (entered, own) = match self.mounted {
            Mounted::Entered(offset) => (offset, 0),
            Mounted::Differs(offset) => (0, offset),
        };
        padded([self.slot as u64, pack([self.number, entered, own, 0]), table])
    }

    /// Of arguments; none where all are zero: no field that is looked at is the first of a `JavaThread`, which has its class there.
    #[inline(always)]
    pub const fn from_arguments([slot, offsets, table, ..]: Arguments) -> Option<Self> {
        let [number, entered, own, _] = unpack(offsets);
        if number == 0 {
            return None;
        }
        let mounted = if entered != 0 { Mounted::Entered(entered) } else { Mounted::Differs(own) };
        let table = if table == 0 { None } else { Some((table - 1) as u16) };
        Some(Self { slot: slot as i64, table, number, mounted })
    }
}

/// Which virtual thread a record of the JVM is of: the third word of its identity, beside the names of reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Virtual {
    /// The one with this number has moved the bytes.
    Moved(u64),
    /// None has; the one with this number has connected the socket.
    Connected(u64),
}

impl Virtual {
    /// As the third word of an identity.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        match self {
            Self::Moved(number) => MOVED | number,
            Self::Connected(number) => CONNECTED | number,
        }
    }

    /// Of the third word; none where that is the name of a read, or nothing.
    pub const fn from_word(word: u64) -> Option<Self> {
        let number = word & !(MOVED | CONNECTED);
        match (word & MOVED != 0, word & CONNECTED != 0) {
            (true, _) => Some(Self::Moved(number)),
            (false, true) => Some(Self::Connected(number)),
            (false, false) => None,
        }
    }
}

/// A name of a read is a moment in nanoseconds since the machine started: those of 146 years are below both. Numbers of threads are
/// given out one by one.
const MOVED: u64 = 1 << 63;
const CONNECTED: u64 = 1 << 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_survive_the_settings() {
        for mounted in [Mounted::Entered(1560), Mounted::Differs(u16::MAX)] {
            for table in [None, Some(0), Some(24), Some(u16::MAX)] {
                let layout = Jvm { slot: -8, table, number: 1312, mounted };
                assert_eq!(Jvm::from_arguments(layout.to_arguments()), Some(layout));
            }
        }
        assert_eq!(Jvm::from_arguments(Arguments::default()), None);
    }

    #[test]
    fn a_word_is_a_virtual_thread_or_the_name_of_a_read() {
        for virtual_thread in [Virtual::Moved(7), Virtual::Connected(1 << 40)] {
            assert_eq!(Virtual::from_word(virtual_thread.to_word()), Some(virtual_thread));
        }
        for name in [0, 1, 1 << 61] {
            assert_eq!(Virtual::from_word(name), None, "{name}");
        }
    }
}
