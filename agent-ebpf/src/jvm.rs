// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which virtual thread the current thread of the JVM carries.
//!
//! In: the current thread, and where its process's `JavaThread`s keep what they carry. Out: the number of the virtual thread that is
//! mounted on it, as the third word of a record's identity. It reads structures of the JVM's own memory only, which no collector moves,
//! and follows two pointers at most.

use spantap_common::identity::{Arguments, Jvm, Mounted, Virtual};

use crate::{
    runtime::{at, kept_by_thread},
    state::State,
};

/// The third word of the identity of what the current thread has moved on the connection with this state; `name` where no virtual thread
/// had to do with it.
#[inline(always)]
pub(crate) fn third(arguments: &Arguments, state: &State, name: u64) -> u64 {
    match (mounted(arguments), state.connected_task) {
        (0, 0) => name,
        (0, connected) => Virtual::Connected(connected).to_word(),
        (number, _) => Virtual::Moved(number).to_word(),
    }
}

/// The number of the virtual thread that is mounted on the current thread; 0 where none is, or it is not known. A function of its own
/// to the verifier: other runtimes' ways do not multiply with these.
#[inline(never)]
pub(crate) fn mounted(arguments: &Arguments) -> u64 {
    carried(arguments).unwrap_or(0)
}

#[inline(always)]
fn carried(arguments: &Arguments) -> Option<u64> {
    let layout = Jvm::from_arguments(*arguments)?;
    let thread = kept_by_thread(layout.slot, layout.table)?;
    // A thread that the JVM does not know.
    if thread == 0 {
        return None;
    }
    let plain = match layout.mounted {
        Mounted::Entered(offset) if at(thread, offset)? == 0 => return None,
        Mounted::Entered(_) => 0,
        Mounted::Differs(offset) => at(thread, offset)?,
    };
    at(thread, layout.number).filter(|number| *number != plain)
}
