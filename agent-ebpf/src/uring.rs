// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The user memory of what io_uring moves: from its request to a sequence of segments.
//!
//! In: requests as they are submitted, wait for a socket, and complete; then a socket that has moved bytes on behalf of a
//! ring. Out: where those bytes are. It gives up where several requests could be the one: a socket with two that wait for
//! the same direction, and requests that wait for others of their chain.
//!
//! A request is tried in the call that submits it, right behind its tracepoint. If it cannot go on, it waits for its
//! socket, which another tracepoint tells, and is tried again whenever that is ready: in whatever task, but on that socket.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spantap_common::{call::Shape, event::data::Direction};

use crate::{
    call::Buffers,
    globals,
    kernel::{Registers, Request, Sock},
    maps::{RING_REQUESTS, RING_TASKS, RING_WAITS},
    state::{RingTask, RingWait, RingWaits},
};

/// Whether what runs now is the work of a ring: the call that submits, work that was left for the way out of any call, or
/// a thread of the kernel that has no call.
#[inline(always)]
pub(crate) fn is_running(registers: Registers) -> bool {
    globals::RINGS.load() != 0
        && (registers.second() == 0
            || registers.returned()
            || matches!(globals::call_shape(registers.call()), Shape::Ring))
}

/// A request is about to be tried, or put off.
#[inline(always)]
pub(crate) fn submitted(request: Request) -> Option<()> {
    let task = bpf_get_current_pid_tgid();
    let linked = request.flags() & (REQUEST_LINK | REQUEST_HARDLINK) != 0;
    let deferred = linked || request.flags() & REQUEST_ASYNC != 0;
    let moves = direction(request.operation()).is_some();
    if let Some(known) = RING_TASKS.get_ptr_mut(task) {
        // SAFETY: the entry is this thread's own: nobody else writes it.
        let known = unsafe { &mut *known };
        // The last one of a chain is not marked as linked.
        let follows = known.chained != 0;
        known.request = if deferred || follows || !moves { 0 } else { request.address() };
        known.chained = linked.into();
        return Some(());
    }
    if !linked && !moves {
        return None;
    }
    let request = if deferred { 0 } else { request.address() };
    RING_TASKS.insert(task, RingTask { request, chained: linked.into() }, 0).ok()
}

/// A request waits until its socket is ready.
#[inline(always)]
pub(crate) fn waits(request: Request) -> Option<()> {
    let direction = direction(request.operation())?;
    let socket = request.socket();
    let wait = RingWait { socket, direction: direction.to_wire().into() };
    let address = request.address();
    // Of several that wait for the same, all but one are told so again.
    // SAFETY: nothing keeps the reference beyond the comparison.
    if let Some(known) = unsafe { RING_REQUESTS.get(address) }
        && known.socket == wait.socket
        && known.direction == wait.direction
    {
        return Some(());
    }
    match RING_WAITS.get_ptr_mut(wait) {
        Some(waits) => {
            // SAFETY: a look-up that succeeded points to the entry. Two that wait at once on two CPUs may cost a count:
            // then neither completion finds it alone.
            let waits = unsafe { &mut *waits };
            let is_alive = waits.request == 0 || Request::at(waits.request).socket() == socket;
            if is_alive {
                waits.count += 1;
                waits.request = 0;
            } else {
                waits.request = address;
            }
        }
        None => RING_WAITS.insert(wait, RingWaits { request: address, count: 1 }, 0).ok()?,
    }
    RING_REQUESTS.insert(address, wait, 0).ok()
}

/// The request at this address, if there is one, has come to its end.
#[inline(always)]
pub(crate) fn completed(request: u64) -> Option<()> {
    // SAFETY: nothing keeps the reference beyond the copy.
    let wait = *unsafe { RING_REQUESTS.get(request) }?;
    RING_REQUESTS.remove(request).ok()?;
    let waits = RING_WAITS.get_ptr_mut(wait)?;
    // SAFETY: as in `waits`.
    let waits = unsafe { &mut *waits };
    if waits.count > 1 {
        waits.count -= 1;
        return Some(());
    }
    RING_WAITS.remove(wait).ok()
}

/// The current thread's ring has tried its request and moved nothing.
#[inline(always)]
pub(crate) fn tried(registers: Registers) {
    if is_running(registers) {
        forget();
    }
}

/// The memory of `length` bytes that a ring has just moved through `sock`.
#[inline(always)]
pub(crate) fn buffers(sock: Sock, direction: Direction, length: u32) -> Buffers {
    let mut found = MaybeUninit::<Found>::uninit();
    look(sock.number(), direction.to_wire(), length, found.as_mut_ptr());
    // SAFETY: `look` writes every field on every way.
    let Found { shape, count, address } = unsafe { found.assume_init() };
    Buffers::of_request(Shape::from_wire(shape as u8), address, count)
}

/// What [`look`] finds.
#[repr(C)]
struct Found {
    /// A [`Shape`] by its wire number.
    shape: u32,
    count: u32,
    address: u64,
}

/// A function of its own to the verifier, so that whichever way it went, its caller goes on in the same state.
#[inline(never)]
fn look(socket: u64, direction: u8, length: u32, into: *mut Found) {
    let (shape, address, count) = found(socket, direction, length).unwrap_or((Shape::Hidden, 0, 0));
    // SAFETY: the caller's room. Volatile, so that LLVM makes no call of memset of it.
    unsafe {
        (&raw mut (*into).shape).write_volatile(shape.to_wire().into());
        (&raw mut (*into).count).write_volatile(count);
        (&raw mut (*into).address).write_volatile(address);
    }
}

#[inline(always)]
fn found(socket: u64, direction: u8, length: u32) -> Option<(Shape, u64, u32)> {
    if let Some(task) = RING_TASKS.get_ptr_mut(bpf_get_current_pid_tgid()) {
        // SAFETY: the entry is this thread's own: nobody else writes it.
        let task = unsafe { &mut *task };
        let request = Request::at(task.request);
        if task.request != 0 && is_on(request, socket, direction) {
            // One that reads again and again may have more to read at once.
            if request.message_flags() & RECEIVE_MULTISHOT == 0 {
                task.request = 0;
            }
            return memory(request, When::Submitted, length);
        }
    }
    let wait = RingWait { socket, direction: direction.into() };
    // SAFETY: nothing keeps the reference beyond the copy of one field.
    let request = unsafe { RING_WAITS.get(wait) }?.request;
    let request = if request == 0 { return None } else { Request::at(request) };
    if is_on(request, socket, direction) { memory(request, When::Later, length) } else { None }
}

/// When a request is tried.
#[derive(Clone, Copy)]
enum When {
    /// In the call that submits it: what it was told still stands in the process's memory.
    Submitted,
    /// Later: only what the request itself holds can be relied on.
    Later,
}

#[inline(always)]
fn memory(request: Request, when: When, length: u32) -> Option<(Shape, u64, u32)> {
    let selected = request.flags() & REQUEST_BUFFER_SELECT != 0;
    let several = request.message_flags() & (MESSAGE_BUNDLE | MESSAGE_VECTORIZED) != 0;
    match (request.operation(), when) {
        (RECEIVE, _) if selected => Some((Shape::Buffer, request.selected_buffer(length)?, 1)),
        (SEND | SEND_ZERO_COPY | RECEIVE, _) if !several && !selected => Some((Shape::Buffer, request.buffer(), 1)),
        // Never bundled; and 7.x marks each that is sent as vectorized, which says nothing more of it (io_sendmsg_setup).
        (SEND_MESSAGE | SEND_MESSAGE_ZERO_COPY | RECEIVE_MESSAGE, When::Submitted) if !selected => {
            Some((Shape::Message, request.buffer(), 1))
        }
        (READ | READ_FIXED | WRITE | WRITE_FIXED, _) if !selected => Some((Shape::Buffer, request.file_buffer(), 1)),
        (READ_VECTOR | WRITE_VECTOR, When::Submitted) if !selected => {
            Some((Shape::Vector, request.file_buffer(), request.file_count()))
        }
        _ => None,
    }
}

/// Whether the request moves bytes of this socket in this direction.
#[inline(always)]
fn is_on(request: Request, socket: u64, way: u8) -> bool {
    match direction(request.operation()) {
        Some(direction) => direction.to_wire() == way && request.socket() == socket,
        None => false,
    }
}

/// Which way an operation moves bytes, if its memory can be known.
#[inline(always)]
fn direction(operation: u8) -> Option<Direction> {
    match operation {
        READ_VECTOR | READ_FIXED | RECEIVE_MESSAGE | READ | RECEIVE => Some(Direction::Read),
        WRITE_VECTOR | WRITE_FIXED | SEND_MESSAGE | WRITE | SEND | SEND_ZERO_COPY | SEND_MESSAGE_ZERO_COPY => {
            Some(Direction::Write)
        }
        _ => None,
    }
}

#[inline(always)]
fn forget() {
    if let Some(task) = RING_TASKS.get_ptr_mut(bpf_get_current_pid_tgid()) {
        // SAFETY: the entry is this thread's own: nobody else writes it.
        unsafe { (*task).request = 0 };
    }
}

// `enum io_uring_op` in `include/uapi/linux/io_uring.h`.
const READ_VECTOR: u8 = 1;
const WRITE_VECTOR: u8 = 2;
const READ_FIXED: u8 = 4;
const WRITE_FIXED: u8 = 5;
const SEND_MESSAGE: u8 = 9;
const RECEIVE_MESSAGE: u8 = 10;
const READ: u8 = 22;
const WRITE: u8 = 23;
const SEND: u8 = 26;
const RECEIVE: u8 = 27;
const SEND_ZERO_COPY: u8 = 47;
const SEND_MESSAGE_ZERO_COPY: u8 = 48;

// `enum io_uring_sqe_flags_bit` there: a request begins with the flags of its entry.
const REQUEST_LINK: u32 = 1 << 2;
const REQUEST_HARDLINK: u32 = 1 << 3;
const REQUEST_ASYNC: u32 = 1 << 4;
const REQUEST_BUFFER_SELECT: u32 = 1 << 5;

// `IORING_RECV_MULTISHOT`, `IORING_RECVSEND_BUNDLE`, `IORING_SEND_VECTORIZED` there.
const RECEIVE_MULTISHOT: u16 = 1 << 1;
const MESSAGE_BUNDLE: u16 = 1 << 4;
const MESSAGE_VECTORIZED: u16 = 1 << 5;
