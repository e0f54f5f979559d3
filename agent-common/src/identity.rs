// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How the probes read, from a process's memory, which task of its runtime a thread is running.
//!
//! In: a layout that user space found in a live process, as the arguments of its [`crate::settings::ProcessSettings`].
//! Out: the same layout again, in the kernel. What is read with it stands in a record's `identity`: three words, all zero
//! where nothing was asked for or nothing could be read. It says nothing about what a task's identity proves.

mod go;
mod jvm;
mod ruby;

pub use go::{Batch, Call, Go, Job};
pub use jvm::{Jvm, Mounted, Virtual};
pub use ruby::Ruby;

/// Which layout the arguments are of; 0 in the settings is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Kind {
    /// [`Cpython`].
    Cpython = 1,
    /// [`Go`].
    Go = 2,
    /// [`Node`].
    Node = 3,
    /// Of which responses a thread was told by those that woke it; and, with a [`Jvm`] as arguments, which virtual thread it carries.
    ///
    /// Identity of a read of a response: its name · 0 · 0. Identity of a write: the names of up to three such reads, its own
    /// first, then those that it was told of, latest first; all zero where it has written, or read a request, since. Where a virtual
    /// thread moves the bytes, or has connected the socket, the third word is a [`Virtual`].
    Wakes = 4,
    /// [`Scheduled`].
    Scheduled = 5,
    /// [`Tokio`].
    Tokio = 6,
    /// [`Ruby`].
    Ruby = 7,
}

impl Kind {
    /// The kind behind a number of the settings.
    pub const fn from_wire(raw: u32) -> Option<Self> {
        match raw {
            1 => Some(Self::Cpython),
            2 => Some(Self::Go),
            3 => Some(Self::Node),
            4 => Some(Self::Wakes),
            5 => Some(Self::Scheduled),
            6 => Some(Self::Tokio),
            7 => Some(Self::Ruby),
            _ => None,
        }
    }
}

/// The arguments as they stand in the settings.
pub type Arguments = [u64; 12];

/// From a thread to its Python thread state, and to the context (`contextvars`) that it runs.
///
/// Identity: the context's address · the address of its variables · the context of the asyncio task that waits for the running
/// one, or for the work that the thread was given (anyio), 0 where none does or it is not known. A thread outside of every context
/// has none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cpython {
    /// Where the word is that leads to the thread state, counted from the thread pointer (`fsbase`, `tpidr_el0`).
    pub slot: i64,
    /// The word is the thread state itself (glibc keeps its first 32 keys in the thread's block, and thread-local variables
    /// are beside it); or, with an offset, the address of the table that holds it there (musl).
    pub table: Option<u16>,
    /// Offset of `context` in the thread state.
    pub context: u16,
    /// Offset of `ctx_vars` in a context.
    pub variables: u16,
    /// Address of `_asyncio`'s dictionary of running tasks, by event loop; 0 where unknown. Given for 3.11 only: what leads from a
    /// task to the one that waits for it is read by that release's offsets.
    pub tasks: u64,
    /// Address of `PyCFunction_Type`.
    pub builtin: u64,
    /// How a worker thread is followed to the task that waits for it; none where it is not known.
    pub work: Option<Work>,
}

/// From the state of a worker thread of anyio's to the context of the task that waits for what the thread does: the thread's frames, down
/// to that of `WorkerThread.run`, which has the future among its variables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Work {
    /// Offset of the newest frame in the thread state; or, with [`Self::inner`], of a structure that has it. Never 0.
    pub frame: u16,
    /// Offset of the newest frame in that structure.
    pub inner: Option<u8>,
    /// Offset of `previous` in a frame.
    pub previous: u8,
    /// Offset of `localsplus` in a frame.
    pub variables: u8,
    /// Which frame is that of `run`: as many frames are older.
    pub depth: u8,
    /// Offset of `task_context` in a task.
    pub context: u16,
}

impl Work {
    /// As one word.
    const fn to_word(self) -> u64 {
        let inner = match self.inner {
            Some(offset) => 1 + offset as u16,
            None => 0,
        };
        let frames = [self.previous, self.variables];
        pack([self.frame, inner | (self.depth as u16) << 12, u16::from_le_bytes(frames), self.context])
    }

    /// Of one word.
    #[inline(always)]
    const fn from_word(word: u64) -> Option<Self> {
        let [frame, inner, frames, context] = unpack(word);
        if frame == 0 {
            return None;
        }
        let [previous, variables] = frames.to_le_bytes();
        let depth = (inner >> 12) as u8;
        let inner = match inner & 0xfff {
            0 => None,
            offset => Some((offset - 1) as u8),
        };
        Some(Self { frame, inner, previous, variables, depth, context })
    }
}

impl Cpython {
    /// As arguments.
    pub const fn to_arguments(self) -> Arguments {
        let table = match self.table {
            Some(offset) => 1 + offset as u64,
            None => 0,
        };
        let work = match self.work {
            Some(work) => work.to_word(),
            None => 0,
        };
        let offsets = table | (self.context as u64) << 32 | (self.variables as u64) << 48;
        padded([self.slot as u64, offsets, self.tasks, self.builtin, work])
    }

    /// Of arguments.
    #[inline(always)]
    pub const fn from_arguments([slot, offsets, tasks, builtin, work, ..]: Arguments) -> Self {
        let table = offsets as u32;
        let table = if table == 0 { None } else { Some((table - 1) as u16) };
        let (context, variables) = ((offsets >> 32) as u16, (offsets >> 48) as u16);
        Self { slot: slot as i64, table, context, variables, tasks, builtin, work: Work::from_word(work) }
    }
}

/// Where the main thread of Node keeps its async ids, and libuv the handles of its connections.
///
/// Identity where it writes a response: `executionAsyncId` · `triggerAsyncId` · ids given out so far. Identity anywhere else: the
/// async id of the connection's handle · the id of the callback that made the handle, or that took it out of a pool · ids given
/// out so far. Each is the double that Node keeps. All zero in other threads, whose ids are others.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Node {
    /// Address of `async_id_fields`: the two ids of what runs, and the count.
    pub ids: u64,
    /// Address of the thread's `uv_loop_t`.
    pub event_loop: u64,
    /// Offset of `AsyncWrap::async_id_` in the object that a handle's `data` points to; `trigger_async_id_` follows.
    pub wrap: u16,
}

impl Node {
    /// Offset of `uv_loop_t.watchers`, by descriptor; `nwatchers` follows. libuv keeps its layout since 1.0.
    pub const WATCHERS: u16 = 104;
    /// Offset of `uv_stream_t.io_watcher`.
    pub const WATCHER: u16 = 136;

    /// As arguments.
    pub const fn to_arguments(self) -> Arguments {
        padded([self.ids, self.event_loop, self.wrap as u64])
    }

    /// Of arguments.
    #[inline(always)]
    pub const fn from_arguments([ids, event_loop, wrap, ..]: Arguments) -> Self {
        Self { ids, event_loop, wrap: wrap as u16 }
    }
}

/// From a thread of a program with a scheduler of its own to the task that it runs.
///
/// Identity: the task's address, 0 where the thread runs none, or one that only moves bytes · the address of the task that
/// connected the socket, 0 where it is not known, or none did · 0.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scheduled {
    /// Where the thread-local word is that leads to the thread's scheduler, counted from the thread pointer.
    pub slot: i64,
    /// Offset of the running task in the scheduler.
    pub current: u16,
    /// Bits of a task's first word, one of which is set in those that only move bytes.
    pub movers: u32,
}

impl Scheduled {
    /// As arguments.
    pub const fn to_arguments(self) -> Arguments {
        padded([self.slot as u64, self.current as u64, self.movers as u64])
    }

    /// Of arguments.
    #[inline(always)]
    pub const fn from_arguments([slot, current, movers, ..]: Arguments) -> Self {
        Self { slot: slot as i64, current: current as u16, movers: movers as u32 }
    }
}

/// From a connection of a program on tokio to the task that reads it, which is who wakes when bytes arrive; and from a task that
/// keeps a client's connection, as hyper's do, to the task that waits for the response.
///
/// Identity where a response is written: the id of the task that reads the connection · 0 · 0. Identity of a client's connection:
/// 0 · the id of the task that waits for the response · the id of the task that waits for that one to end, 0 where none does; all
/// zero if nobody waits. Identity of a connection that no task keeps, where a thread works for a task (`spawn_blocking`): 0 · the id of
/// the work, with [`Tokio::WORK`] · the id of the task that waits for it. Ids are given out once.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tokio {
    /// Address of `WAKER_VTABLE`, the functions of every waker that wakes a task: a waker's first word, before the task's address.
    pub wakers: u64,
    /// Offset of the reader's waker in a `ScheduledIo`, whose address is what epoll knows a socket by.
    pub reader: u16,
    /// Offset of `id_offset` in a task's `Vtable`, in words.
    pub id: u8,
    /// Offset of `trailer_offset` there, in words.
    pub trailer: u8,
    /// How the work is known that a thread does.
    pub blocking: Blocking,
    /// Kinds of tasks that keep a client's connection.
    pub clients: [Client; Self::CLIENTS],
}

/// Where threads that do blocking work have, on their stacks, the task that it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Blocking {
    /// How far below the thread pointer its address is; 0 where unknown.
    pub task: u16,
    /// How far below the thread pointer an address of code is that was left there when the thread began: threads that were started for
    /// anything else have another one there.
    pub origin: u16,
    /// That address, counted from [`Tokio::wakers`].
    pub code: i32,
}

/// Tasks that keep a client's connection and have the `oneshot::Sender` of the response among their variables.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Client {
    /// Address of the functions of the future: those of the task's `Vtable`, or of the boxed future that it runs. 0 is no kind.
    pub future: u64,
    /// Offset of the box in the task, in words; 0 where the future is in the task itself.
    pub boxed: u8,
    /// Offset of the sender in the box, or in the task.
    pub sender: u16,
    /// Offsets, in words, in what it shares with the receiver (`Inner`, in an `Arc`): the state…
    pub state: u8,
    /// … the waker of the task that has the sender…
    pub sends: u8,
    /// … and the waker of the one that waits.
    pub receives: u8,
}

impl Tokio {
    /// Kinds of clients that are known at a time: a program has one or two.
    pub const CLIENTS: usize = 2;
    /// Offset of `Header.vtable`: `Header` is `repr(C)`, and its state is first.
    pub const VTABLE: u16 = 16;
    /// Both tasks of a `oneshot` have left their wakers, nothing was sent, and nobody has closed it (`RX_TASK_SET`, `TX_TASK_SET`).
    pub const AWAITED: u64 = 0b1001;
    /// The four bits of a `oneshot`'s state.
    pub const STATES: u64 = 0b1111;
    /// `JOIN_INTEREST` and `JOIN_WAKER` of a task's state: somebody waits for its end, and has left a waker.
    pub const JOINED: u64 = 0b11000;

    /// `RUNNING` and `COMPLETE` of a task's state…
    pub const STAGES: u64 = 0b11;
    /// … and what they are while it runs.
    pub const RUNS: u64 = 0b01;
    /// A bit in the id of blocking work, which runs on one thread from its beginning to its end.
    pub const WORK: u64 = 1 << 63;

    /// As arguments.
    pub const fn to_arguments(self) -> Arguments {
        let [first, second] = self.clients;
        let Blocking { task, origin, code } = self.blocking;
        let offsets = pack([self.reader, u16::from_le_bytes([self.id, self.trailer]), task, origin]);
        // The upper quarters of the clients' words are free.
        let (low, high) = ((code as u32 as u64 & 0xffff) << 48, (code as u32 as u64 >> 16) << 48);
        [
            self.wakers,
            offsets,
            first.future,
            first.to_word() | low,
            second.future,
            second.to_word() | high,
            0,
            0,
            0,
            0,
            0,
            0,
        ]
    }

    /// Of arguments.
    #[inline(always)]
    pub const fn from_arguments([wakers, offsets, first, in_first, second, in_second, ..]: Arguments) -> Self {
        let [reader, places, task, origin] = unpack(offsets);
        let [id, trailer] = places.to_le_bytes();
        let code = (in_first >> 48 | in_second >> 48 << 16) as u32 as i32;
        let blocking = Blocking { task, origin, code };
        let clients = [Client::from_words(first, in_first), Client::from_words(second, in_second)];
        Self { wakers, reader, id, trailer, blocking, clients }
    }
}

impl Client {
    /// Its offsets as one word.
    pub const fn to_word(self) -> u64 {
        let [low, high] = self.sender.to_le_bytes();
        u64::from_le_bytes([self.boxed, self.state, self.sends, self.receives, low, high, 0, 0])
    }

    /// Of its functions' address and its offsets.
    #[inline(always)]
    pub const fn from_words(future: u64, offsets: u64) -> Self {
        let [boxed, state, sends, receives, low, high, ..] = offsets.to_le_bytes();
        Self { future, boxed, sender: u16::from_le_bytes([low, high]), state, sends, receives }
    }
}

/// These words, and zeros.
#[inline(always)]
const fn padded<const COUNT: usize>(words: [u64; COUNT]) -> Arguments {
    let mut all = [0; _];
    let mut at = 0;
    while at < COUNT {
        all[at] = words[at];
        at += 1;
    }
    all
}

const fn pack([a, b, c, d]: [u16; 4]) -> u64 {
    a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48
}

#[inline(always)]
const fn unpack(word: u64) -> [u16; 4] {
    [word as u16, (word >> 16) as u16, (word >> 32) as u16, (word >> 48) as u16]
}

#[cfg(test)]
mod tests {
    use super::{Blocking, Client, Cpython, Node, Scheduled, Tokio, Work};

    #[test]
    fn layouts_survive_the_settings() {
        let work = Work { frame: 56, inner: Some(0), previous: 8, variables: 72, depth: 3, context: u16::MAX };
        for (table, work) in [
            (None, None),
            (Some(0), Some(Work { inner: None, ..work })),
            (Some(u16::MAX), Some(Work { inner: Some(u8::MAX), depth: 15, ..work })),
            (Some(24), Some(work)),
        ] {
            let (tasks, builtin) = (1 << 46, 1 << 45);
            let layout = Cpython { slot: -8, table, context: 224, variables: 24, tasks, builtin, work };
            assert_eq!(Cpython::from_arguments(layout.to_arguments()), layout);
        }
        let layout = Node { ids: 1 << 40, event_loop: 1 << 24, wrap: 40 };
        assert_eq!(Node::from_arguments(layout.to_arguments()), layout);
        let layout = Scheduled { slot: -42_704, current: 32, movers: 1 << 31 };
        assert_eq!(Scheduled::from_arguments(layout.to_arguments()), layout);
        let client = Client { future: 1 << 46, boxed: 7, sender: 600, state: 6, sends: 2, receives: 4 };
        let other = Client { future: 1 << 45, boxed: 0, sender: u16::MAX, state: u8::MAX, sends: 0, receives: 1 };
        for code in [0, 1, -1, i32::MIN, i32::MAX] {
            let blocking = Blocking { task: 2608, origin: u16::MAX, code };
            let clients = [client, other];
            let layout = Tokio { wakers: 1 << 47, reader: 48, id: 9, trailer: u8::MAX, blocking, clients };
            assert_eq!(Tokio::from_arguments(layout.to_arguments()), layout);
        }
    }
}
