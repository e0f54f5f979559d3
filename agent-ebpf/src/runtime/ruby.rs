// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Fibers of Ruby: the one that a thread runs, and the one that waits for it.
//!
//! In: the layout of the current thread's process. Out: addresses of execution contexts, of which each fiber has one. Whatever is read is
//! compared with what must be there: a place that reads otherwise says nothing. The step from one fiber to the next is a global
//! function of numbers, which the verifier looks at once and by itself.
//!
//! ```text
//! thread ─ruby_current_ec─▶ fiber ─prev─▶ fiber that has started it
//!                                 ─thread─▶ ─join_list─▶ fiber that waits for the thread's end
//! ```

use spantap_common::identity::{Arguments, Ruby};

use super::{Identity, word};
use crate::kernel;

/// The fiber that the current thread runs, and two that wait, one for the other.
#[inline(always)]
pub(super) fn identity([slot, offsets, ..]: Arguments) -> Option<Identity> {
    let running = word(kernel::thread_pointer().wrapping_add(slot))?;
    // A thread that Ruby does not know, or that works for none of its threads.
    if running == 0 || word_at(running, Ruby::from_offsets(offsets).fiber) != fiber(running, offsets) {
        return None;
    }
    let waiting = waiting_for(running, offsets);
    Some([running, waiting, waiting_for(waiting, offsets)])
}

/// The execution context of the fiber that waits for the one with this context; 0 where none does, or several do.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn waiting_for(context: u64, offsets: u64) -> u64 {
    let layout = Ruby::from_offsets(offsets);
    if context == 0 {
        return 0;
    }
    let own = fiber(context, offsets);
    let paused = layout.context.wrapping_sub(8);
    if layout.previous != 0 && word_at(own, paused) == 0 {
        let previous = word_at(own, layout.previous);
        if previous != 0 && word_at(previous, layout.previous.wrapping_add(8)) == own && word_at(previous, paused) != 0
        {
            return previous.wrapping_add(layout.context.into());
        }
    }
    if layout.joiners == 0 {
        return 0;
    }
    let thread = word_at(context, layout.fiber.wrapping_add(8));
    let joiner = word_at(thread, layout.joiners);
    // On the stack of the thread that waits: another one may stand behind it.
    if joiner == 0 || word(joiner) != Some(0) {
        return 0;
    }
    let waiting = word_at(joiner, Ruby::JOINER.wrapping_add(8)).wrapping_add(layout.context.into());
    let is_of_its_thread = word_at(waiting, layout.fiber.wrapping_add(8)) == word_at(joiner, Ruby::JOINER);
    // As long as it waits it is there: what was read was its own.
    if is_of_its_thread && word_at(thread, layout.joiners) == joiner { waiting } else { 0 }
}

/// The fiber that an execution context is part of.
#[inline(always)]
fn fiber(context: u64, offsets: u64) -> u64 {
    context.wrapping_sub(Ruby::from_offsets(offsets).context.into())
}

/// The word at `offset` of what is at `address`; 0 where nothing can be read.
#[inline(always)]
fn word_at(address: u64, offset: u16) -> u64 {
    word(address.wrapping_add(offset.into())).unwrap_or(0)
}
