// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tasks of tokio: the one that reads a connection, and the one that waits for the response on a client's.
//!
//! In: a socket whose bytes were moved, and the layout of its process. Out: ids of tasks. It begins with what epoll knows the
//! socket by, goes from waker to task, and compares what it finds on the way with what must be there: a place that
//! reads otherwise says nothing. Each step is a global function of numbers, which the verifier looks at once and by itself.
//!
//! ```text
//! socket ─epoll─▶ ScheduledIo ─reader─▶ task that serves: who answers
//!                             ─reader─▶ task of a client's connection ─oneshot─▶ task that waits for the response
//!                                                                                ─JoinHandle─▶ task that waits for that one
//! thread ─stack─▶ blocking work ─JoinHandle─▶ task that waits for it
//! ```

use spantap_common::{
    event::data::Direction,
    identity::{Arguments, Blocking, Client, Tokio},
};

use super::{Identity, word, word_at};
use crate::{
    kernel::{self, Sock},
    state::State,
};

/// Bytes were moved in `direction` of a connection with this state, on which requests go in the direction of `requests`.
#[inline(always)]
pub(super) fn identity(
    arguments: Arguments,
    sock: Sock,
    requests: Direction,
    direction: Direction,
    state: &mut State,
) -> Option<Identity> {
    let Tokio { wakers, reader, id, trailer, blocking, clients } = Tokio::from_arguments(arguments);
    let (id, trailer) = (8 * u64::from(id), 8 * u64::from(trailer));
    let reads = || match reading(sock.number(), wakers, reader.into()) {
        0 => None,
        task => Some(task),
    };
    match (requests, direction) {
        (Direction::Read, Direction::Read) => None,
        (Direction::Read, Direction::Write) => Some([number(reads()?, id), 0, 0]),
        (Direction::Write, direction) => {
            if let Direction::Write = direction {
                state.connected_task = reads().unwrap_or(0);
            }
            // Whoever was woken to read has left no waker yet: it is the one that had when it wrote.
            let keeper = state.connected_task;
            if keeper == 0 {
                return works_for(wakers, blocking, id, trailer);
            }
            let [first, second] = clients;
            waiting(keeper, wakers, first, id, trailer).or_else(|| waiting(keeper, wakers, second, id, trailer))
        }
    }
}

/// Who waits for what a client's connection is asked for, if the task that keeps it is of this kind.
#[inline(always)]
fn waiting(keeper: u64, wakers: u64, client: Client, id: u64, trailer: u64) -> Option<Identity> {
    let task = receiving(keeper, wakers, client.future, client.to_word());
    if task == 0 {
        return None;
    }
    let identity = [0, number(task, id), number(joining(task, wakers, trailer), id)];
    // As long as it waits it is there: what was read was its own.
    (receiving(keeper, wakers, client.future, client.to_word()) == task).then_some(identity)
}

/// The blocking work that the current thread does, if a task waits for it.
#[inline(always)]
fn works_for(wakers: u64, blocking: Blocking, id: u64, trailer: u64) -> Option<Identity> {
    let Blocking { task, origin, code } = blocking;
    let work = working(kernel::thread_pointer(), task.into(), origin.into(), wakers.wrapping_add_signed(code.into()));
    let waiting = number(joining(work, wakers, trailer), id);
    if waiting == 0 {
        return None;
    }
    Some([0, number(work, id) | Tokio::WORK, waiting])
}

/// The task that runs on the stack below a thread pointer, if the thread was started for such work, as `code` tells. 0 where there is
/// none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn working(pointer: u64, task: u64, origin: u64, code: u64) -> u64 {
    if task == 0 || word_at(pointer.wrapping_sub(origin), 0) != code {
        return 0;
    }
    let task = word_at(pointer.wrapping_sub(task), 0);
    if word_at(task, 0) & Tokio::STAGES == Tokio::RUNS { task } else { 0 }
}

/// The task that waits to read the socket at an address; 0 where none does.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn reading(sock: u64, wakers: u64, reader: u64) -> u64 {
    let known_as = kernel::watched_as(sock);
    woken(known_as.wrapping_add(reader), wakers)
}

/// The task that waits for what the `oneshot::Sender` is for that the task `keeper` has; 0 where none does, or that is no task
/// of this kind.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn receiving(keeper: u64, wakers: u64, future: u64, offsets: u64) -> u64 {
    if keeper == 0 || future == 0 {
        return 0;
    }
    let Client { boxed, sender, state, sends, receives, .. } = Client::from_words(future, offsets);
    let variables = match boxed {
        0 if word_at(keeper, Tokio::VTABLE.into()) == future => keeper,
        0 => return 0,
        // A box of any future is its address, and that of its functions.
        boxed if word_at(keeper, 8 * u64::from(boxed) + 8) == future => word_at(keeper, 8 * u64::from(boxed)),
        _ => return 0,
    };
    let shared = word_at(variables, sender.into());
    let is_awaited = || word_at(shared, 8 * u64::from(state)) & Tokio::STATES == Tokio::AWAITED;
    if shared == 0 || !is_awaited() || woken(shared.wrapping_add(8 * u64::from(sends)), wakers) != keeper {
        return 0;
    }
    let task = woken(shared.wrapping_add(8 * u64::from(receives)), wakers);
    if is_awaited() { task } else { 0 }
}

/// The task that waits for the end of `task`; 0 where none does.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn joining(task: u64, wakers: u64, trailer: u64) -> u64 {
    if word_at(task, 0) & Tokio::JOINED != Tokio::JOINED {
        return 0;
    }
    let trailer = task.wrapping_add(word_at(word_at(task, Tokio::VTABLE.into()), trailer));
    // Its three fields have two words each, in the compiler's order.
    match (woken(trailer, wakers), woken(trailer.wrapping_add(16), wakers)) {
        (0, 0) => woken(trailer.wrapping_add(32), wakers),
        (0, task) | (task, _) => task,
    }
}

/// The id of a task; 0 where there is none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn number(task: u64, id: u64) -> u64 {
    if task == 0 {
        return 0;
    }
    match word_at(word_at(task, Tokio::VTABLE.into()), id) {
        0 => 0,
        offset => word_at(task, offset),
    }
}

/// The task that a waker is for; 0 where there is none, or it is for something else.
#[inline(always)]
fn woken(waker: u64, wakers: u64) -> u64 {
    match word(waker) {
        Some(table) if table == wakers && wakers != 0 => word_at(waker, 8),
        _ => 0,
    }
}
