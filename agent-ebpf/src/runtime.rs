// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Which task of its runtime the current thread is running: a coroutine, a goroutine, a callback.
//!
//! In: the current thread, and the layout that the agent has found in its process. Out: three words for a record, all zero
//! where no layout is known or the process's memory does not read like it. It follows a fixed number of pointers,
//! writes nothing, and judges nothing: whether the words identify anything is for user space to find out.

mod go;
mod ruby;
mod tokio;

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_user};
use spantap_common::{
    event::data::Direction,
    identity::{Arguments, Cpython, Kind, Node, Scheduled, Work},
};

use crate::{
    handoff, jvm,
    kernel::{self, Registers, Sock},
    maps::{LAYOUTS, PROCESSES},
    state::State,
    task,
};

/// What a record says of its task: see [`spantap_common::identity`].
pub(crate) type Identity = [u64; 3];

/// The current thread's task, if its process is one whose layout is known. It has moved bytes in this direction, of the connection
/// with this socket and state.
#[inline(always)]
pub(crate) fn identity(sock: Sock, registers: Registers, direction: Direction, state: &mut State) -> Identity {
    let mut identity = MaybeUninit::<Identity>::uninit();
    read(sock, registers, direction.to_wire(), state, identity.as_mut_ptr());
    // SAFETY: `read` writes all three words on every way.
    unsafe { identity.assume_init() }
}

/// A function of its own to the verifier, so that whichever way it went, its caller goes on in the same state.
#[inline(never)]
fn read(sock: Sock, registers: Registers, direction: u8, state: &mut State, into: *mut Identity) {
    // One by one: an array would take room of the stack, of which all frames together have 512 bytes.
    let [first, second, third] = look(sock, registers, direction, state).unwrap_or([0; 3]);
    // SAFETY: the caller's room for three words. Volatile, so that LLVM makes no call of memset of it.
    unsafe {
        into.cast::<u64>().write_volatile(first);
        into.cast::<u64>().add(1).write_volatile(second);
        into.cast::<u64>().add(2).write_volatile(third);
    }
}

#[inline(always)]
fn look(sock: Sock, registers: Registers, direction: u8, state: &mut State) -> Option<Identity> {
    let layouts = *LAYOUTS.get(0)?;
    let thread = bpf_get_current_pid_tgid();
    let process = task::tgid(thread);
    // Most services are of no such runtime, and a look into the table for each of their calls is a tenth of its cost.
    if layouts == 0 || (state.plain_process == process && state.plain_since == layouts) {
        return None;
    }
    // Work that was left for the way out, such as a completion of io_uring, is nobody's doing.
    // Nor has a thread of the kernel, whose registers are zeros, a task of a runtime.
    if registers.returned() || registers.stack() == 0 {
        return None;
    }
    // SAFETY: the agent may write the entry meanwhile: then an identity is read by half of a layout, once.
    let settings = unsafe { PROCESSES.get(process) };
    let Some((settings, kind)) = settings.and_then(|settings| Some((settings, Kind::from_wire(settings.identity)?)))
    else {
        state.plain_process = process;
        state.plain_since = layouts;
        return None;
    };
    let arguments = settings.identity_arguments;
    match kind {
        Kind::Cpython => {
            let calls = state.requests == Direction::Write.to_wire() && direction == state.requests;
            cpython(Cpython::from_arguments(arguments), calls)
        }
        Kind::Scheduled => Some([scheduled(Scheduled::from_arguments(arguments))?, state.connected_task, 0]),
        Kind::Go => {
            let (requests, direction) = (Direction::from_wire(state.requests)?, Direction::from_wire(direction)?);
            go::identity(&settings.identity_arguments, registers, requests, direction)
        }
        Kind::Tokio => {
            let requests = Direction::from_wire(state.requests)?;
            tokio::identity(arguments, sock, requests, Direction::from_wire(direction)?, state)
        }
        Kind::Wakes => {
            let [first, second, third] =
                handoff::moved(Direction::from_wire(direction)?, Direction::from_wire(state.requests)?);
            Some([first, second, jvm::third(&settings.identity_arguments, state, third)])
        }
        Kind::Ruby => ruby::identity(arguments),
        Kind::Node if thread as u32 != process => None,
        Kind::Node => {
            let responds = state.requests == Direction::Read.to_wire() && direction == Direction::Write.to_wire();
            node(arguments, if responds { None } else { Some(registers.first()) })
        }
    }
}

#[inline(always)]
fn cpython(layout: Cpython, calls: bool) -> Option<Identity> {
    let state = kept_by_thread(layout.slot, layout.table)?;
    let context = at(state, layout.context)?;
    if context == 0 {
        return None;
    }
    let waiting = match running_task_of(layout, context) {
        Some(task) => waiting_task(layout, task).unwrap_or(0),
        // No task runs here: a thread of a pool may do what a task waits for.
        None => match layout.work {
            Some(work) if calls => waiting_for(state, layout.builtin, work),
            _ => 0,
        },
    };
    Some([context, at(context, layout.variables)?, waiting])
}

/// The asyncio task that runs in `context`, where it is known.
#[inline(always)]
fn running_task_of(layout: Cpython, context: u64) -> Option<u64> {
    if layout.tasks == 0 {
        return None;
    }
    running_task(word(layout.tasks)?).filter(|task| at(*task, TASK_CONTEXT) == Some(context))
}

/// The context of the asyncio task that waits for this one. All offsets are those of CPython 3.11, and what they lead to is
/// compared with what must be there.
#[inline(always)]
fn waiting_task(layout: Cpython, task: u64) -> Option<u64> {
    // What is called first when the task is done: the waiting task goes on, or else one of `asyncio.gather` or `asyncio.wait` is
    // called, which completes a future that the task waits for.
    let callback = at(task, FUTURE_CALLBACK)?;
    let waiting = match wakes(layout.builtin, callback) {
        Some(waiting) => waiting,
        None => {
            let variables = at(callback, FUNCTION_CLOSURE)?;
            let mut found = None;
            for index in 0..MAX_VARIABLES {
                let future = at(variables, TUPLE_ITEMS + 8 * index).and_then(|cell| at(cell, CELL_VALUE));
                let callback = future.and_then(|future| at(future, FUTURE_CALLBACK));
                found = callback.and_then(|callback| wakes(layout.builtin, callback));
                if found.is_some() {
                    break;
                }
            }
            found?
        }
    };
    if at(waiting, OBJECT_TYPE)? != at(task, OBJECT_TYPE)? {
        return None;
    }
    at(waiting, TASK_CONTEXT)
}

/// The context of the asyncio task that waits for what the thread with this state does; 0 where none is known.
#[inline(always)]
fn waiting_for(state: u64, builtin: u64, work: Work) -> u64 {
    let frame = match work.inner {
        None => at(state, work.frame),
        Some(inner) => at(state, work.frame).and_then(|frames| at(frames, inner.into())),
    };
    let frame = frame.map_or(0, |frame| oldest(frame, work.previous.into(), work.depth.into()));
    if frame == 0 {
        return 0;
    }
    let task = waiting_at(frame, work.variables.into(), builtin);
    if task == 0 { 0 } else { at(task, work.context).unwrap_or(0) }
}

/// The frame that has `depth` older ones, on the way from `frame` to the oldest; 0 where there is none, or the way is too long. A
/// function of its own to the verifier: it goes this way once, not for each of the ways that lead here.
#[inline(never)]
fn oldest(mut frame: u64, previous: u16, depth: u64) -> u64 {
    // The last four that were seen, latest first.
    let (mut first, mut second, mut third) = (0, 0, 0);
    for _ in 0..MAX_FRAMES {
        let Some(older) = at(frame, previous) else { return 0 };
        if older == 0 {
            return match depth {
                2 => second,
                3 => third,
                _ => 0,
            };
        }
        (third, second, first, frame) = (second, first, frame, older);
    }
    0
}

/// The task that waits for one of the variables of `frame`, a future; 0 where none does.
#[inline(never)]
fn waiting_at(frame: u64, variables: u16, builtin: u64) -> u64 {
    for index in 0..MAX_LOCALS {
        // A variable that is not bound is null.
        let callback = at(frame, variables + 8 * index).and_then(|local| at(local, FUTURE_CALLBACK));
        if let Some(task) = callback.and_then(|callback| wakes(builtin, callback)) {
            return task;
        }
    }
    0
}

/// The one task of a dictionary of running tasks: a task is put into it before each of its steps, and taken out after it.
#[inline(always)]
fn running_task(tasks: u64) -> Option<u64> {
    if at(tasks, DICT_USED)? != 1 {
        return None;
    }
    let keys = at(tasks, DICT_KEYS)?;
    // dk_log2_size, dk_log2_index_bytes, dk_kind
    let [_, index, kind, ..] = at(keys, KEYS_SIZES)?.to_le_bytes();
    let entries = at(keys, KEYS_ENTRIES)?;
    if kind != KEYS_GENERAL || index > MAX_INDEX || entries == 0 {
        return None;
    }
    let first = keys.wrapping_add(KEYS_HEAD).wrapping_add(1 << (index & 31));
    // Hash, key and value.
    at(first.wrapping_add(24 * (entries - 1)), 16)
}

/// The task that a `task_wakeup` goes on with.
#[inline(always)]
fn wakes(builtin: u64, callback: u64) -> Option<u64> {
    if at(callback, OBJECT_TYPE)? != builtin {
        return None;
    }
    // `PyMethodDef` begins with the name.
    let name = word(at(callback, BUILTIN_METHOD)?)?;
    if word(name)? != u64::from_ne_bytes(*b"task_wak") {
        return None;
    }
    at(callback, BUILTIN_SELF)
}

/// The task that connects a socket, in processes where a connection may be written to by another one; 0 where it is not known.
#[inline(always)]
pub(crate) fn connecting() -> u64 {
    let task = || {
        if *LAYOUTS.get(0)? == 0 {
            return None;
        }
        // SAFETY: as in `look`.
        let settings = unsafe { PROCESSES.get(task::tgid(bpf_get_current_pid_tgid())) }?;
        match Kind::from_wire(settings.identity)? {
            Kind::Scheduled => scheduled(Scheduled::from_arguments(settings.identity_arguments)),
            Kind::Wakes => Some(jvm::mounted(&settings.identity_arguments)),
            _ => None,
        }
    };
    task().unwrap_or(0)
}

/// The task that a thread runs, 0 for none that is anybody's.
#[inline(always)]
fn scheduled(layout: Scheduled) -> Option<u64> {
    let scheduler = word(kernel::thread_pointer().wrapping_add_signed(layout.slot))?;
    let task = at(scheduler, layout.current)?;
    let is_mover = task != 0 && word(task)? as u32 & layout.movers != 0;
    Some(if is_mover { 0 } else { task })
}

/// What runs, or whose the connection behind a descriptor is.
#[inline(always)]
fn node(arguments: Arguments, descriptor: Option<u64>) -> Option<Identity> {
    let layout = Node::from_arguments(arguments);
    let given = at(layout.ids, 16)?;
    let [first, second] = match descriptor {
        None => [word(layout.ids)?, at(layout.ids, 8)?],
        Some(descriptor) => connection(layout, descriptor).unwrap_or([0; 2]),
    };
    Some([first, second, given])
}

/// The two ids of the handle behind a descriptor.
#[inline(always)]
fn connection(layout: Node, descriptor: u64) -> Option<[u64; 2]> {
    if descriptor >= at(layout.event_loop, Node::WATCHERS + 8)? as u32 as u64 {
        return None;
    }
    let watchers = at(layout.event_loop, Node::WATCHERS)?;
    let watcher = word(watchers.wrapping_add(8 * descriptor))?;
    // A handle begins with `data`: the object that has it.
    let object = word(watcher.wrapping_sub(Node::WATCHER.into()))?;
    Some([at(object, layout.wrap)?, at(object, layout.wrap + 8)?])
}

/// `ob_type` of every object.
const OBJECT_TYPE: u16 = 8;

/// `FutureObj.fut_callback0` and `TaskObj.task_context`.
const FUTURE_CALLBACK: u16 = 24;
const TASK_CONTEXT: u16 = 152;

/// `PyCFunctionObject.m_ml` and `.m_self`, `PyFunctionObject.func_closure`, `PyTupleObject.ob_item` and `PyCellObject.ob_ref`.
const BUILTIN_METHOD: u16 = 16;
const BUILTIN_SELF: u16 = 24;
const FUNCTION_CLOSURE: u16 = 72;
const TUPLE_ITEMS: u16 = 24;
const CELL_VALUE: u16 = 16;

/// Frames of a thread that is making a call: FastAPI with httpx has some 25.
const MAX_FRAMES: u16 = 64;

/// Variables of `WorkerThread.run`: the future is the sixth (anyio 4).
const MAX_LOCALS: u16 = 8;

/// Variables of a closure that are looked at: `gather` has five.
const MAX_VARIABLES: u16 = 6;

/// `PyDictObject.ma_used` and `.ma_keys`; of these the sizes, `dk_nentries`, and the bytes before the index.
const DICT_USED: u16 = 16;
const DICT_KEYS: u16 = 32;
const KEYS_SIZES: u16 = 8;
const KEYS_ENTRIES: u16 = 24;
const KEYS_HEAD: u64 = 32;

/// `DICT_KEYS_GENERAL`: the keys are no strings.
const KEYS_GENERAL: u8 = 0;

/// Event loops of a process are few: the index of a dictionary of 32 Ki entries has 2^16 bytes.
const MAX_INDEX: u8 = 16;

/// What a thread has in a slot of its own, or, with a table, at this place of the table that the slot leads to.
#[inline(always)]
pub(crate) fn kept_by_thread(slot: i64, table: Option<u16>) -> Option<u64> {
    let kept = word(kernel::thread_pointer().wrapping_add_signed(slot))?;
    match table {
        Some(offset) => at(kept, offset),
        None => Some(kept),
    }
}

/// The word at `offset` of what is at `address`.
#[inline(always)]
pub(crate) fn at(address: u64, offset: u16) -> Option<u64> {
    word(address.wrapping_add(offset.into()))
}

/// The word at `offset` of what is at `address`; 0 where nothing can be read.
#[inline(always)]
fn word_at(address: u64, offset: u64) -> u64 {
    word(address.wrapping_add(offset)).unwrap_or(0)
}

/// The word at `address` of the process's memory.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut word = MaybeUninit::<u64>::uninit();
    // SAFETY: the helper writes eight bytes in any case, zeros if it fails.
    let failed = unsafe { bpf_probe_read_user(word.as_mut_ptr().cast(), 8, address as *const _) };
    // SAFETY: written by the helper.
    if failed == 0 { Some(unsafe { word.assume_init() }) } else { None }
}
