// SPDX-License-Identifier: Apache-2.0 OR MIT
//! CPython: from a thread to the context (`contextvars`) that it runs. An asyncio task runs in a context of its own for as
//! long as it lives, whatever the framework and the event loop.
//!
//! In: the memory of a process that runs CPython 3.9 or newer. Out: a [`Cpython`]. The interpreters are found through the
//! exported `_PyRuntime`, by the offsets that it publishes (3.13 and newer) or by those of the releases before; everything
//! else is found by its shape, and looked up once more on every thread before it is handed out.

use std::path::Path;

use spantap_common::identity::{Cpython, Work};

use super::{Memory, Unknown, keys, memory::Mapping};
use crate::targets::elf;

/// Looks for the layout.
pub(super) fn find(process: &Path, memory: &Memory) -> Result<Cpython, Unknown> {
    let runtime = exported(process, memory, "_PyRuntime\0").ok_or(Unknown::Never("it exports no _PyRuntime"))?;
    let interpreter =
        Interpreter::find(memory, runtime).ok_or(Unknown::NotYet("it has no interpreter of a known shape"))?;
    let threads = interpreter.threads(memory);
    let pointers = pointers(memory, &threads).ok_or(Unknown::NotYet("its threads do not show where they are"))?;
    let (slot, table) = slot(memory, &pointers).ok_or(Unknown::Never("its threads do not lead to their states"))?;
    let context =
        context(memory, interpreter.object, &threads).ok_or(Unknown::NotYet("it runs nothing in a context"))?;
    let tasks = if interpreter.has_known_tasks { tasks(memory) } else { None }.unwrap_or_default();
    let builtin = exported(process, memory, "PyCFunction_Type\0").unwrap_or_default();
    let work = interpreter.work.filter(|_| builtin != 0);
    Ok(Cpython { slot, table, context, variables: interpreter.object + WORD, tasks, builtin, work })
}

/// The address of what extensions need: the executable or libpython exports it, stripped or not.
fn exported(process: &Path, memory: &Memory, name: &str) -> Option<u64> {
    let first_of_a_file = |name: &str| name.starts_with('/');
    let is_python = |name: &str| name.rsplit('/').next().is_some_and(|file| file.starts_with("libpython"));
    let executable = memory.mappings.iter().find(|mapping| first_of_a_file(&mapping.name));
    let library = memory.mappings.iter().find(|mapping| is_python(&mapping.name));
    [library, executable].into_iter().flatten().find_map(|mapping| {
        let symbol = elf::symbol(&mapping.open(process)?, name)?;
        // Where the linker thought that this part of the file would be, and where it is.
        let bias = mapping.start.wrapping_sub(symbol.address_of(mapping.offset)?);
        Some(symbol.address.wrapping_add(bias))
    })
}

/// An interpreter with its threads.
struct Interpreter {
    address: u64,
    /// Where its list of threads begins.
    threads: u64,
    /// Bytes of an object's header: more without a global interpreter lock. Its last word is the type.
    object: u16,
    /// Of the release whose tasks the probes can read.
    has_known_tasks: bool,
    /// How its worker threads are followed, where its release is known.
    work: Option<Work>,
}

impl Interpreter {
    fn find(memory: &Memory, runtime: u64) -> Option<Self> {
        if memory.bytes(runtime, COOKIE.len()) == COOKIE {
            // `_Py_DebugOffsets` of `Include/internal/pycore_debug_offsets.h`.
            let offset = |index: u64| memory.word_at(runtime, 8 * index).filter(|offset| *offset < MAX_OFFSET);
            let (free_threaded, interpreters, threads) = (offset(2)?, offset(5)?, offset(9)?);
            let object = if free_threaded == 0 { OBJECT } else { 2 * OBJECT };
            let interpreter = Self::at(memory, runtime + interpreters, threads, object)?;
            // `PY_VERSION_HEX`: two bytes of the release, one of its patches, one of how final it is.
            let is_3_13 = memory.word_at(runtime, 8)? >> 16 == 0x030d && free_threaded == 0;
            return Some(Self { work: is_3_13.then_some(WORK_3_13), ..interpreter });
        }
        LAYOUTS.iter().find_map(|layout @ (interpreters, threads)| {
            let interpreter = Self::at(memory, runtime + interpreters, *threads, OBJECT)?;
            let work = match *layout {
                LAYOUT_3_11 => Some(WORK_3_11),
                LAYOUT_3_12 => Some(WORK_3_12),
                _ => None,
            };
            Some(Self { has_known_tasks: *layout == LAYOUT_3_11, work, ..interpreter })
        })
    }

    /// The interpreter that the word at `head` leads to, if its first thread knows it.
    fn at(memory: &Memory, head: u64, threads: u64, object: u16) -> Option<Self> {
        let address = memory.word(head).filter(|address| *address != 0)?;
        let threads = memory.word_at(address, threads)?;
        let interpreter = Self { address, threads, object, has_known_tasks: false, work: None };
        (memory.word_at(threads, THREAD_INTERPRETER)? == address).then_some(interpreter)
    }

    /// The thread states, each with its first words.
    fn threads(&self, memory: &Memory) -> Vec<Thread> {
        let mut threads = Vec::new();
        let mut next = self.threads;
        while next != 0 && threads.len() < MAX_THREADS {
            let words = memory.words(next, THREAD_WORDS);
            let word = |offset: u64| words.get((offset / 8) as usize).copied();
            if word(THREAD_INTERPRETER) != Some(self.address) {
                break;
            }
            let (state, after) = (next, word(THREAD_NEXT).unwrap_or_default());
            threads.push(Thread { state, words });
            next = after;
        }
        threads
    }
}

/// A thread state.
struct Thread {
    state: u64,
    words: Vec<u64>,
}

/// The threads that say where they are: each state holds its thread's `pthread_self`, at the same offset, which on x86-64 is
/// the thread pointer and points to itself.
fn pointers(memory: &Memory, threads: &[Thread]) -> Option<Vec<(u64, u64)>> {
    (FIRST_FIELD..THREAD_WORDS).find_map(|index| {
        let pointer = |thread: &Thread| {
            let pointer = *thread.words.get(index)?;
            let is_pointer = pointer % 8 == 0 && pointer != 0;
            (is_pointer && memory.word(pointer)? == pointer).then_some((thread.state, pointer))
        };
        // A state whose thread has gone, or has not begun, says nothing against the others.
        let found: Vec<_> = threads.iter().filter_map(pointer).collect();
        (2 * found.len() > threads.len()).then_some(found)
    })
}

/// Where every thread has its state.
///
/// Not in `_Py_tss_tstate`, which is empty while the thread is in a system call: in the slot of the key that
/// `PyGILState_Ensure` looks at, or in the thread-local variable that it became.
fn slot(memory: &Memory, pointers: &[(u64, u64)]) -> Option<(i64, Option<u16>)> {
    if let Some(found) = keys::slot(memory, pointers) {
        return Some(found);
    }
    let shared = |slot: &i64| pointers.iter().all(|(state, pointer)| keys::holds(memory, *pointer, *slot, *state));
    let local = (1..=MAX_LOCAL / 8).map(|index| -8 * index).filter(shared);
    // One that is filled only while the thread holds the lock may be among them: at most one thread does at a time.
    let local: Vec<_> = local.collect();
    match local[..] {
        [slot] if pointers.len() > 1 => Some((slot, None)),
        _ => None,
    }
}

/// Where a thread state has its context: the one place that leads to an object of the type of contexts.
fn context(memory: &Memory, object: u16, threads: &[Thread]) -> Option<u16> {
    let is_context = |address: u64| {
        let name = memory.word_at(address, u64::from(object - WORD)).and_then(|kind| {
            // `PyVarObject` has one word more than an object, and the name of a type follows.
            memory.word_at(kind, u64::from(object + WORD))
        })?;
        memory.reads(name, CONTEXT_TYPES).then_some(())
    };
    let mut found = threads.iter().flat_map(|thread| {
        let words = thread.words.iter().enumerate().skip(FIRST_FIELD);
        words.filter(|(_, word)| **word % 8 == 0 && **word != 0).filter_map(|(index, word)| {
            is_context(*word)?;
            Some(8 * index as u16)
        })
    });
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Where `_asyncio` keeps its dictionary of running tasks: the one dictionary among its variables that holds nothing, or a task.
/// Its types have some too, of their attributes and of their subclasses.
fn tasks(memory: &Memory) -> Option<u64> {
    let is_a = |object: u64, name: &str| {
        let kind = memory.word_at(object, u64::from(OBJECT - WORD))?;
        let text = memory.word_at(kind, u64::from(OBJECT + WORD))?;
        memory.reads(text, &[name]).then_some(())
    };
    let is_tasks = |object: u64| {
        is_a(object, "dict")?;
        match memory.words(object, DICT_WORDS)[..] {
            [_, _, 0, ..] => Some(()),
            [_, _, 1, _, keys] => {
                // dk_log2_index_bytes, dk_nentries; entries of three words follow the index.
                let index = memory.word_at(keys, 8)?.to_le_bytes()[1];
                let last = memory.word_at(keys, 24)?.checked_sub(1)?.checked_mul(24)?;
                let entries = keys.checked_add(32)?.checked_add(1_u64.checked_shl(index.into())?)?;
                is_a(memory.word_at(entries.checked_add(last)?, 16)?, "_asyncio.Task")
            }
            _ => None,
        }
    };
    let is_own = |mapping: &&Mapping| mapping.name.rsplit('/').next().is_some_and(|file| file.starts_with("_asyncio."));
    let mut found = memory.mappings.iter().filter(is_own).filter(|mapping| mapping.writable).flat_map(|mapping| {
        let words = memory.words(mapping.start, (mapping.length().min(MOST_VARIABLES) / 8) as usize);
        let objects = words.into_iter().enumerate().filter(|(_, word)| *word != 0 && *word % 8 == 0);
        let tasks = objects.filter(|(_, word)| is_tasks(*word).is_some());
        tasks.map(|(index, _)| mapping.start + 8 * index as u64).collect::<Vec<_>>()
    });
    let only = found.next()?;
    found.next().is_none().then_some(only)
}

/// `_Py_Debug_Cookie`.
const COOKIE: &[u8] = b"xdebugpy";

/// `_PyRuntime.interpreters.head`, and `tstate_head` or `threads.head` of an interpreter, of 3.9 and 3.10, 3.11, and 3.12
/// (looked up on 3.9.18, 3.10.13, 3.11.7 and 3.12.1).
const LAYOUTS: &[(u64, u64)] = &[(32, 8), LAYOUT_3_11, LAYOUT_3_12];
const LAYOUT_3_11: (u64, u64) = (40, 16);
const LAYOUT_3_12: (u64, u64) = (40, 72);

/// `PyThreadState.cframe` and `_PyCFrame.current_frame`, or `PyThreadState.current_frame`, `_PyInterpreterFrame.previous` and `.localsplus`,
/// `TaskObj.task_context` (looked up on 3.11.7, 3.12.1 and 3.13.0). `threading` calls `run` by `_bootstrap` and `_bootstrap_inner`,
/// under which 3.12 and newer have a frame of the C stack's.
const WORK_3_11: Work = Work { frame: 56, inner: Some(8), previous: 48, variables: 72, depth: 2, context: 152 };
const WORK_3_12: Work = Work { frame: 56, inner: Some(0), previous: 8, variables: 72, depth: 3, context: 152 };
const WORK_3_13: Work = Work { frame: 72, inner: None, previous: 8, variables: 72, depth: 3, context: 136 };

/// `PyThreadState.next` and `.interp`: so since 3.8, and in 3.13.
const THREAD_NEXT: u64 = 8;
const THREAD_INTERPRETER: u64 = 16;

/// Fields of a thread state behind `prev`, `next` and `interp`.
const FIRST_FIELD: usize = 3;

/// The first 512 bytes of a thread state: `context` was at 208 to 240, and `thread_id` at 136 to 176, in 3.9 to 3.13.
const THREAD_WORDS: usize = 64;

/// `PyDictObject` to `ma_keys`.
const DICT_WORDS: usize = 5;

/// The variables of `_asyncio` have some KiB.
const MOST_VARIABLES: u64 = 64 << 10;

/// Server processes have some tens of Python threads.
const MAX_THREADS: usize = 256;

/// Structures whose offsets are published have some hundred KiB.
const MAX_OFFSET: u64 = 1 << 20;

/// `sizeof(PyObject)`.
const OBJECT: u16 = 16;

const WORD: u16 = 8;

/// `tp_name` of `PyContext_Type`, today and as it may be qualified.
const CONTEXT_TYPES: &[&str] = &["Context", "_contextvars.Context", "contextvars.Context"];

/// Thread-local variables of an executable and its libraries: 4 KiB hold those of most.
const MAX_LOCAL: i64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_memory_is_no_interpreter() {
        let memory = Memory::open(Path::new("/proc/self")).expect("this process runs");
        // As 3.12 has it where earlier releases had their interpreters: anything but an address.
        for word in [u64::MAX, u64::MAX - 8, 1] {
            let head = [word];
            assert!(Interpreter::at(&memory, head.as_ptr() as u64, 8, OBJECT).is_none());
            let interpreter = [0, word];
            let head = [interpreter.as_ptr() as u64];
            assert!(Interpreter::at(&memory, head.as_ptr() as u64, 8, OBJECT).is_none());
        }
    }
}
