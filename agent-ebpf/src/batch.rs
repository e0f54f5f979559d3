// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which message of a sendmmsg or recvmmsg it is that has just moved.
//!
//! In: the registers of the call, and each time that a message of it was moved, moved nothing, or failed. Out: the
//! message's number. It counts and never compares contents: where a call can end without a sign it does not count at
//! all, and its messages are seen by their lengths.
//!
//! The kernel moves the messages of a call one by one, in order, and a failed one ends the call. The probe runs for
//! each of them, failures included (`net/socket.c`, `__sys_sendmmsg` and `do_recvmmsg`).

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spantap_common::{call::Shape, event::data::Direction};

use crate::{
    globals,
    kernel::{Registers, Sock},
    maps::BATCHES,
    state::Batch,
};

/// Takes note that the current call moved a message; returns the message's number.
#[inline(always)]
pub(crate) fn moved(sock: Sock, registers: Registers, direction: Direction) -> Option<u64> {
    // A recvmmsg that runs out of time ends between two messages.
    if let Direction::Read = direction
        && registers.fifth() != 0
    {
        return None;
    }
    let thread = bpf_get_current_pid_tgid();
    let (messages, socket) = (registers.second(), sock.number());
    // SAFETY: the entry is this thread's own: nobody else writes it.
    let number = match unsafe { BATCHES.get(thread) } {
        Some(batch) if batch.messages == messages && batch.socket == socket => match batch.next {
            LOST_COUNT => return None,
            next => next,
        },
        // Its last call ended where no probe runs (EFAULT), or was on another array: this is another one.
        Some(_) | None => 0,
    };
    let next = number + 1;
    if next >= registers.third() {
        forget(thread);
        return Some(number);
    }
    BATCHES.insert(thread, Batch { messages, socket, next }, 0).ok().map(|()| number)
}

/// Takes note of a message without bytes, such as every one behind the end of a stream.
#[inline(always)]
pub(crate) fn moved_nothing(sock: Sock, registers: Registers, direction: Direction) {
    if is_batch(registers) {
        let _ = moved(sock, registers, direction);
    }
}

/// Takes note that the current call has moved its last message, whatever it is.
#[inline(always)]
pub(crate) fn ended(registers: Registers) {
    if is_batch(registers) {
        forget(bpf_get_current_pid_tgid());
    }
}

/// Takes note that nobody can tell whether the message was the last of the current call.
#[inline(always)]
pub(crate) fn lost_count(sock: Sock, registers: Registers) {
    let batch = Batch { messages: registers.second(), socket: sock.number(), next: LOST_COUNT };
    // Without room for it the count was not kept anyway.
    let _ = BATCHES.insert(bpf_get_current_pid_tgid(), batch, 0);
}

/// Whether the call moves several messages, of which each is seen: where whole calls are watched, none is.
#[inline(always)]
pub(crate) fn is_batch(registers: Registers) -> bool {
    globals::BY_ADDRESS.load() == 0 && matches!(globals::call_shape(registers.call()), Shape::Messages)
}

#[inline(always)]
fn forget(thread: u64) {
    // One that is not there is forgotten already.
    let _ = BATCHES.remove(thread);
}

/// In place of the number of the next message, where it is not known.
const LOST_COUNT: u64 = u64::MAX;
