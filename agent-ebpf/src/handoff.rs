// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Of which responses a thread was told: the chains of reads and wakes that led to what it writes.
//!
//! In: bytes that threads move and threads that they wake, in processes that hand work from thread to thread. Out: the names
//! of reads, as three words for the record of a write (`spantap_common::identity::Kind::Wakes`). A thread that wakes another
//! tells it of the response that it has read itself, or else of the one that it was told of last. Only futex(2) counts, where
//! waker and sleeper name the same word of memory: whoever is woken by an interrupt is woken by nobody. Nor does a thread that
//! waits for a mutex learn anything from the one that lets it go. It reads nothing of the process's memory.
//!
//! ```text
//! P reads a response, k ──▶ P has read k ──wakes W──▶ W was told of k ──▶ W writes: its record says k
//! ```

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spantap_common::event::data::Direction;

use crate::{
    globals,
    kernel::{Registers, Task},
    maps::{CAUSES, WAKES},
    state::Causes,
    task,
};

/// The current thread has moved bytes in this direction of a connection on which requests go the other way, or the same.
#[inline(always)]
pub(crate) fn moved(direction: Direction, requests: Direction) -> [u64; 3] {
    let thread = bpf_get_current_pid_tgid() as u32;
    match (direction, requests) {
        // Whatever it was told of before is not about this one.
        (Direction::Read, Direction::Read) => {
            forget(thread);
            [0; 3]
        }
        (Direction::Read, Direction::Write) => {
            // Two threads of one process hardly ever read at the same nanosecond.
            let name = task::now();
            remember(thread, Causes { read: name, told: [0; 3] });
            [name, 0, 0]
        }
        // What was written is done. What the thread writes next without having been told anything new, it took off a queue, and
        // nobody knows whose it is.
        (Direction::Write, _) => forget(thread),
    }
}

/// The current thread wakes `sleeper`.
#[inline(always)]
pub(crate) fn wakes(sleeper: Task) -> Option<()> {
    if *WAKES.get(0)? == 0 {
        return None;
    }
    let current = bpf_get_current_pid_tgid();
    let (waker, woken) = (current as u32, sleeper.tid());
    if sleeper.tgid() != task::tgid(current) || woken == waker {
        return None;
    }
    let knows = CAUSES.get_ptr_mut(waker)?;
    let (mine, its) = (Registers::current(), sleeper.registers());
    let futex = globals::FUTEX.load();
    let by_futex = mine.call() == futex && its.call() == futex && mine.first() == its.first();
    if !by_futex || !mine.is_wide() || !its.is_wide() || its.second() as u32 & FUTEX_COMMAND != FUTEX_WAIT_BITSET {
        return None;
    }
    tell(knows, woken);
    Some(())
}

/// The current thread starts another one of its process.
#[inline(always)]
pub(crate) fn starts(thread: Task) -> Option<()> {
    if *WAKES.get(0)? == 0 {
        return None;
    }
    let current = bpf_get_current_pid_tgid();
    if thread.tgid() == task::tgid(current) {
        tell(CAUSES.get_ptr_mut(current as u32)?, thread.tid());
    }
    Some(())
}

/// A thread ends: its number may be another's soon.
#[inline(always)]
pub(crate) fn ends(thread: Task) -> Option<()> {
    if *WAKES.get(0)? != 0 {
        // It fails where nothing is known of the thread.
        let _ = CAUSES.remove(thread.tid());
    }
    Some(())
}

/// Who knows this tells a thread, which sleeps or has not run yet, and to which nobody else talks.
#[inline(always)]
fn tell(knows: *mut Causes, thread: u32) {
    // SAFETY: a look-up that succeeded points to a value of the map, which its thread writes, and who wakes that.
    let Causes { read, told: [told, ..] } = unsafe { *knows };
    let newest = if read != 0 { read } else { told };
    if newest == 0 {
        return;
    }
    match CAUSES.get_ptr_mut(thread) {
        None => remember(thread, Causes { read: 0, told: [newest, 0, 0] }),
        Some(causes) => {
            // SAFETY: as above.
            let [first, second, _] = unsafe { (*causes).told };
            if first != newest {
                // SAFETY: as above.
                unsafe { (*causes).told = [newest, first, second] };
            }
        }
    }
}

/// The thread begins anew. What it went by so far: the response that it has read, and those that it was told of.
#[inline(always)]
fn forget(thread: u32) -> [u64; 3] {
    let Some(causes) = CAUSES.get_ptr_mut(thread) else { return [0; 3] };
    // SAFETY: as in `tell`.
    let Causes { read, told } = unsafe { *causes };
    // SAFETY: as above.
    unsafe { *causes = Causes { read: 0, told: [0; 3] } };
    if read != 0 { [read, told[0], told[1]] } else { told }
}

#[inline(always)]
fn remember(thread: u32, causes: Causes) {
    // An LRU map makes room; where even that fails, the thread's next write says nothing.
    let _ = CAUSES.insert(thread, causes, 0);
}

/// The command among the bits of futex(2)'s second argument, without `FUTEX_PRIVATE_FLAG` and `FUTEX_CLOCK_REALTIME`.
const FUTEX_COMMAND: u32 = 0x7f;

/// How glibc waits for conditions and semaphores, on which every runtime's parking rests. For a mutex it takes FUTEX_WAIT.
const FUTEX_WAIT_BITSET: u32 = 9;
