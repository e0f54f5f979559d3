// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the probes read which fiber a thread of Ruby's runs, and who waits for it.
//!
//! In: the offsets that user space found in a live process. Out: the same offsets in the kernel. A fiber is known by the address of its
//! execution context (`rb_execution_context_t`), which is part of it; each thread begins with a fiber of its own. Addresses are used again
//! once a fiber is gone. It says nothing about what the fibers belong to.

use super::{Arguments, pack, padded, unpack};

/// From a thread of the system to the execution context of the fiber that it runs, and from there to the one that waits.
///
/// Identity: the fiber that runs · the one that has started it and waits for it to pause for the first time, or, where none does, the one
/// that waits for the end of its thread (`Thread#join`, `#value`) · the one that waits for that one in the same way. 0 where none does, or
/// it is not known, or several do. Whoever resumes a fiber that has paused may have nothing else to do with it: of async's semaphores,
/// whoever releases one resumes the next in the queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ruby {
    /// Where the thread-local `ruby_current_ec` is, counted from the thread pointer.
    pub slot: i64,
    /// Offset of `fiber_ptr` in an execution context; `thread_ptr` follows.
    pub fiber: u16,
    /// Offset of the execution context in a fiber (`cont.saved_ec`). Before it is the size of the machine's stack (`cont.machine`), 0 until
    /// the fiber has paused for the first time.
    pub context: u16,
    /// Offset of `prev` in a fiber; `resuming_fiber` follows. 0 where unknown.
    pub previous: u16,
    /// Offset of `join_list` in a thread; 0 where unknown.
    pub joiners: u16,
}

impl Ruby {
    /// Offset of `rb_waiting_list.thread`, behind `next`; `fiber` follows. The same in 3.1 and 3.3.
    pub const JOINER: u16 = 8;

    /// As arguments.
    pub const fn to_arguments(self) -> Arguments {
        padded([self.slot as u64, pack([self.fiber, self.context, self.previous, self.joiners])])
    }

    /// Of arguments.
    #[inline(always)]
    pub const fn from_arguments([slot, offsets, ..]: Arguments) -> Self {
        let [fiber, context, previous, joiners] = unpack(offsets);
        Self { slot: slot as i64, fiber, context, previous, joiners }
    }

    /// The same, of another thread's: the offsets as one word, which is the second argument.
    #[inline(always)]
    pub const fn from_offsets(offsets: u64) -> Self {
        Self::from_arguments(padded([0, offsets]))
    }
}

#[cfg(test)]
mod tests {
    use super::Ruby;

    #[test]
    fn a_layout_survives_the_settings() {
        let layout = Ruby { slot: -8, fiber: 40, context: 80, previous: 512, joiners: u16::MAX };
        let arguments = layout.to_arguments();
        assert_eq!(Ruby::from_arguments(arguments), layout);
        assert_eq!(Ruby::from_offsets(arguments[1]), Ruby { slot: 0, ..layout });
    }
}
