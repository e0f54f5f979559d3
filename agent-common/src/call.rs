// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a system call's registers describe the memory it moves bytes from or to.
//!
//! The agent fills tables by call number for its architecture; the probes look the running call up in them. Numbers are
//! not known here: they differ between architectures.

use crate::event::data::Direction;

/// Where the bytes of a call are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Shape {
    /// Not told by the registers: sendfile, splice.
    Hidden,
    /// The second argument is the buffer: read, write, sendto, recvfrom.
    Buffer,
    /// The second argument is an array of `struct iovec`, the third its length: readv, writev and their kin.
    Vector,
    /// The second argument is a `struct msghdr`: sendmsg, recvmsg.
    Message,
    /// The second argument is an array of `struct mmsghdr`, the third its length: sendmmsg, recvmmsg. Which of them it
    /// is that has just moved is for the probes to count.
    Messages,
    /// Told by requests of io_uring, which the call submits or waits for.
    Ring,
}

impl Shape {
    /// The number in the table; 0, its initial value, is [`Shape::Hidden`].
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Hidden => 0,
            Self::Buffer => 1,
            Self::Vector => 2,
            Self::Message => 3,
            Self::Messages => 4,
            Self::Ring => 5,
        }
    }

    /// The shape behind a number; of an unknown one nothing is told.
    #[inline(always)]
    pub const fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::Buffer,
            2 => Self::Vector,
            3 => Self::Message,
            4 => Self::Messages,
            5 => Self::Ring,
            _ => Self::Hidden,
        }
    }
}

/// What a call that returns a number of bytes does to the descriptor in its first argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Moves {
    /// Nothing that its result would tell: every other call.
    Nothing,
    /// It reads: read, readv and their kin.
    Reads,
    /// It writes: write, sendto, sendfile and their kin.
    Writes,
    /// It reads, by the flags in its third argument: recvmsg.
    ReceivesByThird,
    /// It reads, by the flags in its fourth argument: recvfrom.
    ReceivesByFourth,
    /// It reads or writes, and returns a number of messages instead of bytes: sendmmsg, recvmmsg.
    Messages,
}

impl Moves {
    /// The number in the table; 0, its initial value, is [`Moves::Nothing`].
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Nothing => 0,
            Self::Reads => 1,
            Self::Writes => 2,
            Self::ReceivesByThird => 3,
            Self::ReceivesByFourth => 4,
            Self::Messages => 5,
        }
    }

    /// What a number means; an unknown one tells nothing.
    #[inline(always)]
    pub const fn from_wire(raw: u8) -> Self {
        match raw {
            1 => Self::Reads,
            2 => Self::Writes,
            3 => Self::ReceivesByThird,
            4 => Self::ReceivesByFourth,
            5 => Self::Messages,
            _ => Self::Nothing,
        }
    }

    /// Which way the bytes go whose number it returns.
    #[inline(always)]
    pub const fn direction(self) -> Option<Direction> {
        match self {
            Self::Nothing | Self::Messages => None,
            Self::Writes => Some(Direction::Write),
            Self::Reads | Self::ReceivesByThird | Self::ReceivesByFourth => Some(Direction::Read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Moves, Shape};

    #[test]
    fn a_shape_survives_the_table() {
        for shape in [Shape::Hidden, Shape::Buffer, Shape::Vector, Shape::Message, Shape::Messages, Shape::Ring] {
            assert_eq!(Shape::from_wire(shape.to_wire()), shape);
        }
        assert_eq!(Shape::from_wire(200), Shape::Hidden);
    }

    #[test]
    fn what_a_call_moves_survives_the_table() {
        for moves in [
            Moves::Nothing,
            Moves::Reads,
            Moves::Writes,
            Moves::ReceivesByThird,
            Moves::ReceivesByFourth,
            Moves::Messages,
        ] {
            assert_eq!(Moves::from_wire(moves.to_wire()), moves);
        }
        assert_eq!(Moves::from_wire(200), Moves::Nothing);
    }
}
