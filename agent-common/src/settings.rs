// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Values of the control maps: written by the agent's run loop, read by the probes.

use crate::identity::Arguments;

/// What the probes are to do for one process, keyed by its process id (tgid).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ProcessSettings {
    /// Arguments of the identity's layout: offsets and addresses in the process's memory, by kind.
    pub identity_arguments: Arguments,
    /// Which task identity the probes read from the process's memory: a [`crate::identity::Kind`] by its wire number; 0 is
    /// none.
    pub identity: u32,
    /// A [`Verdict`] by its wire number.
    pub verdict: u32,
    /// 1 where it is told when the process's threads begin and end.
    pub threads: u32,
    /// Always zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<ProcessSettings>() == 112);
    assert!(size_of::<BodyEnd>() == 16);
};

/// Where the body ends that a socket is in the middle of, keyed by the socket's cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyEnd {
    /// When the record was made that it follows from: a connection that has turned round since is no longer in the middle of it.
    pub seen: u64,
    /// Position behind its last byte, modulo 2^32 and at most [`crate::abi::FARTHEST_END`] ahead.
    pub end: u32,
    /// Its [`crate::event::data::Direction`] by its wire number.
    pub direction: u32,
}

/// Whether something is captured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Verdict {
    /// Nobody has decided yet. User space decides later: the probes capture meanwhile, so that nothing is missed.
    Undecided = 0,
    /// Captured.
    Target = 1,
    /// Left alone.
    Ignored = 2,
}

impl Verdict {
    /// The verdict behind a wire number; an unknown number is nobody's decision.
    pub const fn from_wire(raw: u32) -> Self {
        match raw {
            1 => Self::Target,
            2 => Self::Ignored,
            _ => Self::Undecided,
        }
    }
}
