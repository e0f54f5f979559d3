// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Goroutines: the one that a thread runs, the one that waits for a response, and the one that waits for what that one does.
//!
//! In: registers of a thread that has moved bytes, and the layout of its process. Out: ids of goroutines. What it follows is compared
//! with what must be there, so that a layout that does not fit says nothing rather than something else. It judges nothing.
//!
//! ```text
//! thread ─▶ goroutine that runs: who answers
//!           goroutine of a client's connection ─reqch─▶ goroutine that waits for the response
//!                                                       ─variable─▶ channel ─recvq─▶ goroutine that waits for the result
//! ```

use spantap_common::{
    event::data::Direction,
    identity::{Arguments, Batch, Call, Go, Job},
};

use super::{Identity, at, word, word_at};
use crate::kernel::Registers;

/// The thread has moved bytes in `direction` of a connection on which requests go in the direction of `requests`.
#[inline(always)]
pub(super) fn identity(
    arguments: &Arguments,
    registers: Registers,
    requests: Direction,
    direction: Direction,
) -> Option<Identity> {
    let layout = Go::from_arguments(*arguments);
    let goroutine = registers.goroutine();
    // `g.stack`: its first two words. A thread inside of C code, or in the scheduler, is on another stack.
    let (low, high) = (at(goroutine, 0)?, at(goroutine, STACK_END)?);
    if registers.stack() < low || registers.stack() >= high {
        return None;
    }
    if let Direction::Write = requests
        && let Some(channel) = channel(layout, high)
    {
        let waits = || waiting(channel, layout.reply.into(), layout.receivers.into());
        let waiting = waits();
        let id = at(waiting, layout.goid)?;
        if let Direction::Read = direction {
            let channel = result(arguments, layout.parent, waiting);
            let other = waits_at(channel, layout.receivers.into(), layout.goid.into(), waiting);
            // As long as it waits for this response it is in the same calls: what was read was its own.
            if other != 0 && waits() == waiting {
                return Some([channel | Go::AWAITED, id, other]);
            }
        }
        return Some([0, id, at(waiting, layout.parent)?]);
    }
    let generated = if layout.generated == 0 { 0 } else { word(layout.generated)? };
    let third = match (requests, direction) {
        (Direction::Read, Direction::Read) => batch(layout, goroutine).unwrap_or(0),
        _ => at(goroutine, layout.parent)?,
    };
    Some([at(goroutine, layout.goid)?, generated, third])
}

/// The ids that the processor which runs the goroutine, or ran it before it entered the kernel, has set aside. Whose they become is
/// decided later, whoever has that processor by then.
#[inline(always)]
fn batch(layout: Go, goroutine: u64) -> Option<u64> {
    if layout.batch == 0 {
        return None;
    }
    let thread = at(goroutine, GOROUTINE_THREAD)?;
    let processor = match at(thread, layout.processor)? {
        0 => at(thread, layout.processor + THREAD_OLD_PROCESSOR)?,
        processor => processor,
    };
    let batch = Batch { next: at(processor, layout.batch)?, end: at(processor, layout.batch + 8)? };
    Some(batch.to_word())
}

/// The channel `reqch` of the client's connection that a goroutine is kept for, whose stack ends at `high`; none in any other
/// goroutine, where nothing of that shape stands in the place.
#[inline(always)]
fn channel(layout: Go, high: u64) -> Option<u64> {
    if layout.connection == 0 {
        return None;
    }
    let connection = word(high.wrapping_sub(layout.connection.into()))?;
    let channel = at(connection, layout.requests)?;
    // `hchan`: qcount, dataqsiz, buf, elemsize.
    (at(channel, 8)? == 1 && at(channel, 24)? as u16 == layout.element).then_some(channel)
}

/// The goroutine that waits for the response: `(*persistConn).roundTrip` leaves a `requestAndChan` in `reqch`, and waits at
/// the channel that is in it. It is taken out of there once the response's first bytes were read. 0 where nobody waits.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn waiting(channel: u64, reply: u64, receivers: u64) -> u64 {
    if word_at(channel, 0) != 1 {
        return 0;
    }
    let reply = word_at(word_at(channel, 16), reply);
    // The first of those that wait (a `sudog`) begins with its goroutine.
    word_at(word_at(reply, receivers), 0)
}

/// The channel that `worker` keeps for its result; 0 where none is known. The arguments are read as they are needed: kept at hand they
/// would take room of the stack.
#[inline(always)]
fn result(arguments: &Arguments, parent: u16, worker: u64) -> u64 {
    let [.., start, first, second, third, _, _, _, _] = arguments;
    if *start == 0 {
        return 0;
    }
    match kept(worker, parent.into(), *start, [*first, *second, *third]) {
        0 => {
            let [.., start, first, second, third] = arguments;
            kept(worker, parent.into(), *start, [*first, *second, *third])
        }
        channel => channel,
    }
}

/// The channel in the place that a [`Job`] in words names; 0 where the goroutine began otherwise, or is not in these calls.
#[inline(always)]
fn kept(worker: u64, parent: u64, start: u64, [first, second, third]: [u64; 3]) -> u64 {
    let words = [start, first, second, third];
    if word_at(worker, parent + u64::from(Go::START_BEHIND_PARENT)) != Job::start_of(words) {
        return 0;
    }
    kept_below(word_at(worker, STACK_END.into()), start, first, second, third)
}

/// The same, of a goroutine that began there and whose stack ends at `high`.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn kept_below(high: u64, start: u64, first: u64, second: u64, third: u64) -> u64 {
    let Job { start, variable, field, calls: [first, second, third] } = Job::from_words([start, first, second, third]);
    if !(is_in(first, start, high) && is_in(second, start, high) && is_in(third, start, high)) {
        return 0;
    }
    let variable = word_at(high, 0_u64.wrapping_sub(variable.into()));
    match field {
        None => variable,
        Some(offset) => word_at(variable, offset.into()),
    }
}

/// Whether a goroutine whose stack ends at `high` is in this call.
#[inline(always)]
fn is_in(call: Call, start: u64, high: u64) -> bool {
    call.below == 0
        || word_at(high, 0_u64.wrapping_sub(call.below.into())) == start.wrapping_add_signed(call.returns.into())
}

/// The id of the only goroutine that waits at `channel`, unless it is `worker`; 0 where there is none, or are several.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn waits_at(channel: u64, receivers: u64, goid: u64, worker: u64) -> u64 {
    // `waitq`: first, last.
    let first = word_at(channel, receivers);
    if channel == 0 || channel & Go::AWAITED != 0 || first == 0 || first != word_at(channel, receivers + 8) {
        return 0;
    }
    let other = word_at(first, 0);
    // A goroutine that waits has its own address among what it goes on with: the first of anything else has not.
    if other == 0 || other == worker || word_at(other, Go::ITSELF.into()) != other {
        return 0;
    }
    word_at(other, goid)
}

/// `g.stack.hi`.
const STACK_END: u16 = 8;

/// `g.m`, which the linker knows as well; `m.oldp` behind `m.p`.
const GOROUTINE_THREAD: u16 = 48;
const THREAD_OLD_PROCESSOR: u16 = 16;
