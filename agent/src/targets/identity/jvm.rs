// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HotSpot: from a thread to the virtual thread that it carries. A virtual thread is on a thread of the system while it makes a system
//! call, and has a number that the JVM gives to no other thread.
//!
//! In: the memory of a process that runs HotSpot of JDK 21 or newer. Out: a [`Jvm`]. Offsets are those that `libjvm` publishes for
//! debuggers (`gHotSpotVMStructs`); from JDK 24 on they name all that is needed. Before, the number is where Flight Recorder keeps it,
//! recording or not, and is found by its shape. Whatever it is, it was looked up on every thread of the process. The heap, which moves,
//! is read here only, and never by the probes.

use std::{collections::HashSet, path::Path};

use spantap_common::identity::{Jvm, Mounted};

use super::{Memory, Unknown, keys};
use crate::targets::elf;

/// Looks for the layout.
pub(super) fn find(process: &Path, memory: &Memory) -> Result<Jvm, Unknown> {
    let structs = Structs::of(process, memory)?;
    let threads = structs.list(memory).ok_or(Unknown::NotYet("it has no list of threads yet"))?;
    if threads.len() < FEWEST_THREADS {
        return Err(Unknown::NotYet("it is about to start"));
    }
    structs.layout(memory, &threads)
}

/// Where HotSpot has what leads to virtual threads.
#[derive(Clone, Copy, Debug, Default)]
struct Structs {
    /// Address of `ThreadsSMRSupport::_java_thread_list`.
    list: u64,
    /// Offsets of `_length` and `_threads` in a `ThreadsList`.
    length: u64,
    threads: u64,
    /// Offset of `_osthread` in a thread, and of `_pthread_id` in that.
    system: u64,
    pointer: u64,
    /// Offset of `JavaThread::_threadObj`, a handle; and whether there is one for virtual threads.
    object: u64,
    has_virtual: bool,
    /// Offsets of `JavaThread::_monitor_owner_id` and `_cont_entry`; 0 where they are not published.
    owner: u64,
    entry: u64,
}

impl Structs {
    /// As published by the process's `libjvm`.
    fn of(process: &Path, memory: &Memory) -> Result<Self, Unknown> {
        let is_jvm = |name: &str| name.rsplit('/').next() == Some("libjvm.so");
        let library = memory.mappings.iter().find(|mapping| is_jvm(&mapping.name));
        let library = library.ok_or(Unknown::NotYet("it has mapped no libjvm.so"))?;
        let file = library.open(process).ok_or(Unknown::NotYet("its libjvm.so cannot be opened"))?;
        let unpublished = Unknown::Never("its libjvm.so publishes no layout, as HotSpot's does");
        let word = |name: &str| {
            let symbol = elf::symbol(&file, name)?;
            // Where the linker thought that this part of the file would be, and where it is.
            let bias = library.start.wrapping_sub(symbol.address_of(library.offset)?);
            memory.word(symbol.address.wrapping_add(bias))
        };
        let table = || {
            Some(Table {
                start: word("gHotSpotVMStructs\0")?,
                stride: word("gHotSpotVMStructEntryArrayStride\0")?,
                kind: word("gHotSpotVMStructEntryTypeNameOffset\0")?,
                name: word("gHotSpotVMStructEntryFieldNameOffset\0")?,
                offset: word("gHotSpotVMStructEntryOffsetOffset\0")?,
                address: word("gHotSpotVMStructEntryAddressOffset\0")?,
            })
        };
        let table = table().ok_or(unpublished)?;
        // They are variables, which have their values once the library was initialised.
        if table.start == 0 || table.stride == 0 {
            return Err(Unknown::NotYet("its libjvm.so is not initialised yet"));
        }
        let structs = Self::read(memory, &table);
        if !structs.has_virtual {
            return Err(Unknown::Never("its release has no virtual threads"));
        }
        let all = [structs.list, structs.length, structs.threads, structs.system, structs.pointer, structs.object];
        if all.contains(&0) { Err(Unknown::Never("its layout is not that of a known release")) } else { Ok(structs) }
    }

    fn read(memory: &Memory, table: &Table) -> Self {
        let mut structs = Self::default();
        for index in 0..MOST_FIELDS {
            let at = |offset: u64| {
                let entry = table.start.checked_add(index.checked_mul(table.stride)?)?;
                memory.word_at(entry, offset)
            };
            // The last one is all zeros.
            let Some(kind) = at(table.kind).filter(|kind| *kind != 0) else { break };
            if !memory.reads(kind, TYPES) {
                continue;
            }
            let (Some(name), Some(offset), Some(address)) = (at(table.name), at(table.offset), at(table.address))
            else {
                break;
            };
            let field = FIELDS.iter().find(|(of, field, _)| memory.reads(kind, of) && memory.reads(name, &[field]));
            match field.map(|(_, _, is)| is) {
                Some(Field::List) => structs.list = address,
                Some(Field::Length) => structs.length = offset,
                Some(Field::Threads) => structs.threads = offset,
                Some(Field::System) => structs.system = offset,
                Some(Field::Pointer) => structs.pointer = offset,
                Some(Field::Object) => structs.object = offset,
                Some(Field::Virtual) => structs.has_virtual = true,
                Some(Field::Owner) => structs.owner = offset,
                Some(Field::Entry) => structs.entry = offset,
                None => {}
            }
        }
        structs
    }

    /// The addresses of the `JavaThread`s. The list is another one as soon as a thread begins or ends, and what was read of the old one
    /// does not look like threads then.
    fn list(&self, memory: &Memory) -> Option<Vec<Thread>> {
        let list = memory.word(self.list).filter(|list| *list != 0)?;
        let count = memory.word_at(list, self.length)? as u32 as usize;
        let first = memory.word_at(list, self.threads)?;
        let threads = memory.words(first, count.min(MOST_THREADS));
        let thread = |address: u64| {
            let pointer = memory.word_at(memory.word_at(address, self.system)?, self.pointer)?;
            // On x86-64 the thread pointer points to itself.
            (memory.word(pointer)? == pointer).then_some(Thread { address, pointer })
        };
        threads.into_iter().map(thread).collect()
    }

    fn layout(&self, memory: &Memory, threads: &[Thread]) -> Result<Jvm, Unknown> {
        let pointers: Vec<_> = threads.iter().map(|thread| (thread.address, thread.pointer)).collect();
        let (slot, table) =
            keys::slot(memory, &pointers).ok_or(Unknown::NotYet("its threads do not lead to their structures"))?;
        let (number, mounted) = if self.owner != 0 && self.entry != 0 {
            self.published(memory, threads).ok_or(Unknown::NotYet("its threads do not have a number each"))?
        } else {
            self.recorded(memory, threads).ok_or(Unknown::NotYet("its threads do not show their numbers"))?
        };
        Ok(Jvm { slot, table, number, mounted })
    }

    /// The number that the thread locks monitors by (JDK 24): of the virtual thread that is mounted, else its own.
    fn published(&self, memory: &Memory, threads: &[Thread]) -> Option<(u16, Mounted)> {
        let mut seen = HashSet::new();
        for thread in threads {
            let number = memory.word_at(thread.address, self.owner).filter(|number| is_number(*number))?;
            if !seen.insert(number) {
                return None;
            }
        }
        Some((u16::try_from(self.owner).ok()?, Mounted::Entered(u16::try_from(self.entry).ok()?)))
    }

    /// The numbers that Flight Recorder knows the thread by (`JfrThreadLocal::_vthread_id` and `_jvm_thread_id`): of the virtual thread
    /// that was mounted last, and its own, side by side. Threads that carry nothing have their own twice.
    fn recorded(&self, memory: &Memory, threads: &[Thread]) -> Option<(u16, Mounted)> {
        let own: Vec<u64> = threads.iter().map(|thread| self.own_number(memory, thread)).collect::<Option<_>>()?;
        if own.iter().collect::<HashSet<_>>().len() < own.len() {
            return None;
        }
        let words: Vec<Vec<u64>> = threads.iter().map(|thread| memory.words(thread.address, THREAD_WORDS)).collect();
        let is_pair = |index: &usize| {
            let mut plain = 0;
            let fits = words.iter().zip(&own).all(|(words, own)| {
                let pair = (words.get(*index), words.get(index + 1));
                let (Some(number), Some(second)) = pair else { return false };
                plain += usize::from(number == own);
                second == own && is_number(*number)
            });
            fits && 2 * plain > words.len()
        };
        let mut found = (1..THREAD_WORDS - 1).filter(is_pair);
        let only = found.next()?;
        let (number, own) = (u16::try_from(8 * only).ok()?, u16::try_from(8 * (only + 1)).ok()?);
        found.next().is_none().then_some((number, Mounted::Differs(own)))
    }

    /// `Thread.tid` of the object of a thread, which has `eetop`, the address of the `JavaThread`, before it.
    fn own_number(&self, memory: &Memory, thread: &Thread) -> Option<u64> {
        let object = memory.word(memory.word_at(thread.address, self.object)?)?;
        COLOURS.iter().find_map(|bits| {
            let words = memory.words(object >> bits, OBJECT_WORDS);
            let eetop = words.iter().position(|word| *word == thread.address)?;
            words.get(eetop + 1).copied().filter(|number| is_number(*number))
        })
    }
}

/// A thread of the JVM that may run Java code: its `JavaThread`, and its thread pointer.
#[derive(Clone, Copy, Debug)]
struct Thread {
    address: u64,
    pointer: u64,
}

/// The table of published fields, and where each entry has what (`vmStructs.hpp`).
#[derive(Clone, Copy, Debug)]
struct Table {
    start: u64,
    stride: u64,
    kind: u64,
    name: u64,
    offset: u64,
    address: u64,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    List,
    Length,
    Threads,
    System,
    Pointer,
    Object,
    Virtual,
    Owner,
    Entry,
}

/// Types, a field, and what it is for.
const FIELDS: &[(&[&str], &str, Field)] = &[
    (&["ThreadsSMRSupport"], "_java_thread_list", Field::List),
    (&["ThreadsList"], "_length", Field::Length),
    (&["ThreadsList"], "_threads", Field::Threads),
    (&["Thread", "JavaThread"], "_osthread", Field::System),
    (&["OSThread"], "_pthread_id", Field::Pointer),
    (&["JavaThread"], "_threadObj", Field::Object),
    (&["JavaThread"], "_vthread", Field::Virtual),
    (&["JavaThread"], "_monitor_owner_id", Field::Owner),
    (&["JavaThread"], "_cont_entry", Field::Entry),
];

/// All types of [`FIELDS`].
const TYPES: &[&str] = &["ThreadsSMRSupport", "ThreadsList", "Thread", "JavaThread", "OSThread"];

/// Numbers are given out one by one: 2^48 of them, one each microsecond, take nine years.
fn is_number(word: u64) -> bool {
    word != 0 && word >> 48 == 0
}

/// JDK 21 publishes 813 fields, 25 has 585.
const MOST_FIELDS: u64 = 4 << 10;

/// Threads of the system in a JVM: some hundreds where each serves a request.
const MOST_THREADS: usize = 16 << 10;

/// Every JVM has a handful of its own: for references, signals, compilers.
const FEWEST_THREADS: usize = 4;

/// The first 4 KiB of a `JavaThread`, which has some 2 KiB; the numbers were at 672 in JDK 21.
const THREAD_WORDS: usize = 512;

/// How many bits stand below the address of an object: none, or the colours of generational ZGC, whose leading one says which of
/// them is valid (`zAddress_x86.cpp`).
const COLOURS: &[u32] = &[0, 13, 14, 15, 16];

/// A `Thread` begins with a header of 12 or 16 bytes, and its numbers.
const OBJECT_WORDS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const STRUCTS: Structs = Structs {
        list: 0,
        length: 4,
        threads: 16,
        system: 8,
        pointer: 16,
        object: 24,
        has_virtual: true,
        owner: 32,
        entry: 40,
    };

    /// Where the fields are that no release publishes, in words.
    const RECORDED: usize = 6;

    /// A process like a JVM, in this test's own memory: each thread has a structure, its system's structure, a block with a key, a handle
    /// and an object. Of each: its own number, and that of the virtual thread on it, or 0.
    struct Jvms {
        #[expect(dead_code, reason = "it is read through the process's memory")]
        parts: Vec<Box<[u64]>>,
        list: Box<u64>,
    }

    impl Jvms {
        fn of(threads: &[(u64, u64)]) -> Self {
            let mut parts = Vec::new();
            let addresses = threads.iter().map(|(own, mounted)| {
                let mut object = Box::new([1, 2, 0, *own, 0, 0, 0, 0]);
                let handle = Box::new([address(&*object)]);
                let mut block = Box::new([0; 128]);
                let system = Box::new([0, 0, address(&*block)]);
                let mut thread = Box::new([0; THREAD_WORDS]);
                let carries = if *mounted == 0 { *own } else { *mounted };
                thread[1] = address(&*system);
                thread[3] = address(&*handle);
                thread[4] = carries;
                thread[5] = *mounted;
                (thread[RECORDED], thread[RECORDED + 1]) = (carries, *own);
                block[0] = address(&*block);
                block[KEY] = address(&*thread);
                object[2] = address(&*thread);
                let at = address(&*thread);
                parts.extend([object as Box<[u64]>, handle, block, system, thread]);
                at
            });
            let array: Box<[u64]> = addresses.collect();
            let list: Box<[u64]> = Box::new([(array.len() as u64) << 32, 0, address(&array)]);
            let pointer = Box::new(address(&list));
            parts.extend([array, list]);
            Self { parts, list: pointer }
        }

        fn layout(&self, structs: Structs) -> Option<Jvm> {
            let memory = Memory::open(Path::new("/proc/self"))?;
            let structs = Structs { list: address(std::slice::from_ref(&*self.list)), ..structs };
            structs.layout(&memory, &structs.list(&memory)?).ok()
        }
    }

    fn address(words: &[u64]) -> u64 {
        words.as_ptr() as u64
    }

    /// The second key's place in a block, in words.
    const KEY: usize = (0x310 + 16 + 8) / 8;
    const SLOT: i64 = 8 * KEY as i64;

    #[test]
    fn what_is_published_is_taken_once_it_holds_for_every_thread() {
        let layout = Jvms::of(&[(3, 0), (12, 0), (13, 21), (14, 0)]).layout(STRUCTS);
        let mounted = Mounted::Entered(40);
        assert_eq!(layout, Some(Jvm { slot: SLOT, table: None, number: 32, mounted }));
    }

    #[test]
    fn numbers_that_are_not_published_are_found_by_their_shape() {
        let layout = Jvms::of(&[(3, 0), (12, 0), (13, 21), (14, 0)]).layout(Structs { entry: 0, ..STRUCTS });
        let mounted = Mounted::Differs(8 * RECORDED as u16 + 8);
        assert_eq!(layout, Some(Jvm { slot: SLOT, table: None, number: 8 * RECORDED as u16, mounted }));
    }

    #[test]
    fn what_does_not_look_like_threads_is_refused() {
        let recorded = Structs { entry: 0, ..STRUCTS };
        for structs in [STRUCTS, recorded] {
            for odd in [(3, 0), (0, 0), (1 << 60, 0), (22, 12)] {
                let threads = [(3, 0), (12, 0), (13, 0), odd];
                let is_in_doubt = structs.entry != 0 || odd.1 == 0;
                assert_eq!(Jvms::of(&threads).layout(structs).is_none(), is_in_doubt, "{odd:?}");
            }
            // Threads that have no key in common, or none at all.
            let jvms = Jvms::of(&[(3, 0), (12, 0)]);
            assert_eq!(jvms.layout(Structs { pointer: 0, ..structs }), None);
            assert_eq!(jvms.layout(Structs { system: 0, ..structs }), None);
        }
        let none = Jvms { parts: Vec::new(), list: Box::new(0) };
        assert_eq!(none.layout(STRUCTS), None);
    }

    #[test]
    fn this_process_is_no_jvm() {
        let process = Path::new("/proc/self");
        let memory = Memory::open(process).expect("this process runs");
        assert_eq!(find(process, &memory), Err(Unknown::NotYet("it has mapped no libjvm.so")));
    }
}
