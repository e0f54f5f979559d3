// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The user memory of the current system call: from its registers to a sequence of segments.
//!
//! In: the registers of a call. Out: address and length of each segment. It does not copy payload, and it
//! gives up on calls whose registers do not describe their memory.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use spantap_common::{abi::MAX_SUMMED, call::Shape, event::data::Direction};

use crate::{
    batch, globals,
    kernel::{Registers, Sock},
    uring, verifier,
};

/// Where the bytes of a call are: one buffer, or an array of `count` of them.
#[derive(Clone, Copy)]
pub(crate) struct Buffers {
    address: u64,
    count: u32,
    scattered: bool,
    known: bool,
}

/// One stretch of user memory.
#[derive(Clone, Copy)]
pub(crate) struct Segment {
    /// Where.
    pub(crate) address: u64,
    /// How long, as the process gave it; the call may have moved less.
    pub(crate) length: u64,
}

/// Why there is no such segment.
#[derive(Clone, Copy)]
pub(crate) enum NoSegment {
    /// There are not so many.
    Beyond,
    /// The array could not be read.
    Unreadable,
}

impl Buffers {
    /// The memory of `length` bytes that the call with these registers has just moved; [`Self::unknown`] where they do not
    /// describe it.
    ///
    /// Registers describe the system call that the task is in. A completion of io_uring that runs on the way out of
    /// another call must not be taken for that call's: on x86-64 the result is in its register by then. Elsewhere the two
    /// are told apart only where that call moves no bytes.
    #[inline(always)]
    pub(crate) fn of(sock: Sock, registers: Registers, direction: Direction, length: u32) -> Self {
        if uring::is_running(registers) {
            return uring::buffers(sock, direction, length);
        }
        let address = registers.second();
        // Kernel threads and io_uring's workers have registers of zeros, and call 0 is read(2) on x86-64.
        if address == 0 || registers.returned() {
            return Self::unknown();
        }
        match globals::call_shape(registers.call()) {
            Shape::Hidden | Shape::Ring => Self::unknown(),
            Shape::Buffer => Self { address, count: 1, scattered: false, known: true },
            Shape::Vector => Self { address, count: registers.third() as u32, scattered: true, known: true },
            Shape::Message => Self::of_message(address),
            // Where whole calls are watched, the messages are not seen one by one. Said here for the verifier's sake: it
            // does not look at the rest then.
            Shape::Messages if globals::BY_ADDRESS.load() != 0 => Self::unknown(),
            Shape::Messages => {
                let Some(number) = batch::moved(sock, registers, direction) else { return Self::unknown() };
                let buffers = Self::of_message(address + number * MMSGHDR_SIZE);
                // sendmmsg gives up behind a message of which only a part was taken.
                if let Direction::Write = direction {
                    match buffers.total() {
                        Some(total) if total == length.into() => {}
                        Some(_) => batch::ended(registers),
                        None => batch::lost_count(sock, registers),
                    }
                }
                buffers
            }
        }
    }

    /// The memory of a request that describes it as a call would.
    #[inline(always)]
    pub(crate) fn of_request(shape: Shape, address: u64, count: u32) -> Self {
        match shape {
            Shape::Buffer => Self { address, count: 1, scattered: false, known: true },
            Shape::Vector => Self { address, count, scattered: true, known: true },
            Shape::Message => Self::of_message(address),
            Shape::Hidden | Shape::Messages | Shape::Ring => Self::unknown(),
        }
    }

    /// Memory that nobody can name. Not an empty `Option`: that has fields which were never written, and verifiers before
    /// 6.3 refuse to see them copied.
    #[inline(always)]
    pub(crate) fn unknown() -> Self {
        Self { address: 0, count: 0, scattered: false, known: false }
    }

    /// The same memory, found in whichever way to the verifier: see [`verifier::forgotten`].
    #[inline(always)]
    pub(crate) fn forgotten(self) -> Self {
        Self {
            address: self.address,
            count: verifier::forgotten(self.count),
            scattered: verifier::forgotten(self.scattered.into()) != 0,
            known: verifier::forgotten(self.known.into()) != 0,
        }
    }

    /// Whether the memory is known.
    #[inline(always)]
    pub(crate) fn is_known(self) -> bool {
        self.known
    }

    /// The memory that the `struct msghdr` at `address` names.
    #[inline(always)]
    fn of_message(address: u64) -> Self {
        // `msg_iov` and `msg_iovlen` stand side by side in `struct user_msghdr`.
        match user_words(address + MSGHDR_IOV) {
            Some([address, count]) => Self { address, count: count as u32, scattered: true, known: true },
            None => Self::unknown(),
        }
    }

    /// The address of the memory, if it is in one piece from the beginning on.
    #[inline(always)]
    pub(crate) fn only(self) -> Option<u64> {
        (!self.scattered).then_some(self.address)
    }

    /// The length of all segments together, unless there are more than is worth adding up or they are not known.
    #[inline(always)]
    fn total(self) -> Option<u64> {
        if !self.known {
            return None;
        }
        let mut total = 0;
        for index in 0..=MAX_SUMMED {
            match self.segment(index) {
                Ok(segment) => total += segment.length,
                Err(NoSegment::Beyond) => return Some(total),
                Err(NoSegment::Unreadable) => return None,
            }
        }
        None
    }

    /// The segment `index`.
    #[inline(always)]
    pub(crate) fn segment(self, index: u32) -> Result<Segment, NoSegment> {
        // A copy of the count: what the verifier learns from the comparison would make each round of a caller's loop
        // leave with a count that it has not seen yet, and look at all that follows again.
        if u64::from(index) >= verifier::masked(self.count.into(), u64::MAX) {
            return Err(NoSegment::Beyond);
        }
        if !self.scattered {
            return Ok(Segment { address: self.address, length: u64::MAX });
        }
        match user_words(self.address + u64::from(index) * IOVEC_SIZE) {
            Some([address, length]) => Ok(Segment { address, length }),
            None => Err(NoSegment::Unreadable),
        }
    }
}

/// Two words of user memory: `struct iovec`, or the part of `struct msghdr` that names an array of them.
#[inline(always)]
fn user_words(address: u64) -> Option<[u64; 2]> {
    let mut words = MaybeUninit::<[u64; 2]>::uninit();
    // SAFETY: the helper writes 16 bytes, the size of `words`; zeros if it fails.
    let failed = unsafe { bpf_probe_read_user(words.as_mut_ptr().cast(), 16, address as *const _) };
    // SAFETY: written by the helper in any case.
    let words = unsafe { words.assume_init() };
    (failed == 0).then_some(words)
}

/// `sizeof(struct iovec)` of 64-bit processes. The calls of 32-bit ones have other numbers, none of which moves bytes
/// of a socket in the 64-bit table.
const IOVEC_SIZE: u64 = 16;
/// `offsetof(struct user_msghdr, msg_iov)` of 64-bit processes.
const MSGHDR_IOV: u64 = 16;
/// `sizeof(struct mmsghdr)` of 64-bit processes: a `struct user_msghdr` of 56 bytes, and what was moved.
const MMSGHDR_SIZE: u64 = 64;
