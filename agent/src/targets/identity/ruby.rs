// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Ruby: from a thread of the system to the fiber that it runs, and to the one that waits for that.
//!
//! In: the memory of a process that runs CRuby (3.1 and 3.3 were looked at), linked with its library or not, stripped or not. Out: a [`Ruby`]. Nothing is
//! taken from a release: a fiber, its execution context and its thread lead to each other, and are known by that. Where a fiber has the one
//! that resumed it shows while one runs in another, and where a thread has those that join it while one is joined: until that
//! was seen, nothing is said of it. Older releases keep what they run elsewhere, and have no layout.

use std::{
    collections::{BTreeMap, HashSet},
    thread,
    time::Duration,
};

use spantap_common::identity::Ruby;

use super::{Memory, Unknown};

/// Looks for the layout; where it is not the first look, which the first span waits for, several times in a row.
pub(super) fn find(memory: &Memory, is_first: bool) -> Result<Ruby, Unknown> {
    let threads: Vec<u64> = memory.threads(MOST_SEARCHED).take(MOST_THREADS).collect();
    let plain = slot(memory, &threads).ok_or(Unknown::NotYet("its threads do not show which fiber they run"))?;
    let mut layout = plain;
    // Fibers that were not in another one: what a thread begins with never is.
    let mut plainly = HashSet::new();
    for round in 0..if is_first { 1 } else { MOST_ROUNDS } {
        if round > 0 {
            thread::sleep(BETWEEN_ROUNDS);
        }
        let running: Vec<Fiber> = threads.iter().filter_map(|pointer| running(memory, *pointer, &plain)).collect();
        if layout.previous == 0 {
            let unseen = running.iter().filter(|fiber| plainly.insert(fiber.address));
            layout.previous = only(unseen.flat_map(|fiber| previous(memory, fiber, &plain)));
        }
        if layout.joiners == 0 {
            layout.joiners = only(running.iter().flat_map(|fiber| joiners(memory, fiber, &plain)));
        }
        if !may_grow(&layout) {
            break;
        }
    }
    Ok(layout)
}

/// What two looks into the same process have found, `now` and `before`.
pub(super) fn joined(now: Ruby, before: Ruby) -> Ruby {
    if (now.slot, now.fiber, now.context) != (before.slot, before.fiber, before.context) {
        return now;
    }
    let either = |now: u16, before: u16| if now == 0 { before } else { now };
    let (previous, joiners) = (either(now.previous, before.previous), either(now.joiners, before.joiners));
    Ruby { previous, joiners, ..now }
}

/// Whether something did not show yet.
pub(super) fn may_grow(layout: &Ruby) -> bool {
    layout.previous == 0 || layout.joiners == 0
}

/// A fiber that was seen to run.
#[derive(Clone, Copy, Debug)]
struct Fiber {
    address: u64,
    thread: u64,
}

/// Where every thread that is one of Ruby's has what it runs, and how that is laid out: of places that as many threads have, the one next
/// to the thread pointer, since what lies below the thread's own variables is its stack.
fn slot(memory: &Memory, threads: &[u64]) -> Option<Ruby> {
    let mut places: BTreeMap<(i64, u16, u16), usize> = BTreeMap::new();
    for pointer in threads {
        // The first thread has its variables at the beginning of a mapping.
        let Some(mapping) = memory.mappings.iter().find(|mapping| mapping.contains(*pointer)) else { continue };
        let start = mapping.start.max(pointer.saturating_sub(VARIABLES));
        for (index, word) in memory.words(start, ((pointer - start) / 8) as usize).into_iter().enumerate() {
            if let Some((fiber, context)) = context(memory, word) {
                let place = start.wrapping_sub(*pointer).cast_signed() + 8 * index as i64;
                *places.entry((place, fiber, context)).or_default() += 1;
            }
        }
    }
    let ((slot, fiber, context), _) = places.into_iter().max_by_key(|(place, threads)| (*threads, *place))?;
    Some(Ruby { slot, fiber, context, previous: 0, joiners: 0 })
}

/// The offset of `fiber_ptr` in what is at this address, and its own in that fiber, if it is the execution context of a fiber that its
/// thread runs: it is part of the fiber that it names, and the thread that it names has its address.
fn context(memory: &Memory, address: u64) -> Option<(u16, u16)> {
    if !is_address(address) {
        return None;
    }
    let words = memory.words(address, CONTEXT_WORDS);
    words.windows(2).enumerate().find_map(|(index, pair)| {
        let [fiber, thread] = *pair else { return None };
        let inside = address.checked_sub(fiber).filter(|inside| (1..MOST_BEFORE).contains(inside))?;
        let runs = is_address(fiber) && is_address(thread) && memory.words(thread, THREAD_HEAD).contains(&address);
        runs.then_some((8 * index as u16, inside as u16))
    })
}

/// What the thread with this thread pointer runs.
fn running(memory: &Memory, pointer: u64, layout: &Ruby) -> Option<Fiber> {
    let context = memory.word(pointer.checked_add_signed(layout.slot)?)?;
    let address = context.checked_sub(layout.context.into())?;
    fiber(memory, address, layout)
}

/// The fiber at an address, if there is one.
fn fiber(memory: &Memory, address: u64, layout: &Ruby) -> Option<Fiber> {
    if !is_address(address) {
        return None;
    }
    let words = memory.words(address.checked_add(u64::from(layout.context) + u64::from(layout.fiber))?, 2);
    let [own, thread] = *words else { return None };
    (own == address && is_address(thread)).then_some(Fiber { address, thread })
}

/// Where this fiber has the one that has resumed it, which has this one behind that place, and has paused for it.
fn previous(memory: &Memory, running: &Fiber, layout: &Ruby) -> Vec<u16> {
    let start = layout.context + 8 * CONTEXT_WORDS as u16;
    let words = memory.words(running.address.saturating_add(start.into()), FIBER_WORDS);
    let resumed = |(index, word): (usize, &u64)| {
        let offset = start + 8 * index as u16;
        let other = fiber(memory, *word, layout).filter(|other| other.address != running.address)?;
        let back = memory.word_at(other.address, u64::from(offset) + 8)?;
        // It has paused, and has had a stack since.
        let stack = memory.word_at(other.address, u64::from(layout.context).checked_sub(8)?)?;
        (other.thread == running.thread && back == running.address && stack != 0).then_some(offset)
    };
    words.iter().enumerate().filter_map(resumed).collect()
}

/// Where the thread of this fiber has those that wait for its end: the first is alone, names a thread, and a fiber of that.
fn joiners(memory: &Memory, running: &Fiber, layout: &Ruby) -> Vec<u16> {
    let words = memory.words(running.thread, THREAD_WORDS);
    let joined = |(index, word): (usize, &u64)| {
        let listed = if is_address(*word) { memory.words(*word, 3) } else { Vec::new() };
        let [0, thread, waiting] = *listed else { return None };
        let waiting = fiber(memory, waiting, layout)?;
        (waiting.thread == thread && thread != running.thread).then_some(8 * index as u16)
    };
    words.iter().enumerate().filter_map(joined).collect()
}

/// The offset that all of these are; 0 where there are none, or they differ.
fn only(offsets: impl Iterator<Item = u16>) -> u16 {
    let seen: HashSet<u16> = offsets.collect();
    match *seen.into_iter().collect::<Vec<_>>() {
        [offset] => offset,
        _ => 0,
    }
}

/// Whether a structure may be there.
fn is_address(word: u64) -> bool {
    word.is_multiple_of(8) && (LOWEST..HIGHEST).contains(&word)
}

/// The first page is never mapped, and user space has 47 bits.
const LOWEST: u64 = 4096;
const HIGHEST: u64 = 1 << 47;

/// How far from the end of a mapping a thread's block is looked for: Ruby's thread-local variables and its libraries' have some 100 bytes, and
/// a block some 2 KiB.
const MOST_SEARCHED: u64 = 64 << 10;

/// A server has dozens.
const MOST_THREADS: usize = 256;

/// Bytes of thread-local variables below the thread pointer that are looked at.
const VARIABLES: u64 = 4096;

/// The two pointers are the sixth and seventh word of an execution context (3.1, 3.3).
const CONTEXT_WORDS: usize = 12;

/// The context is 80 bytes behind the beginning of its fiber (3.1, 3.3).
const MOST_BEFORE: u64 = 512;

/// `rb_thread_t.ec` is the sixth or seventh word (3.1, 3.3).
const THREAD_HEAD: usize = 16;

/// `prev` is 432 or 600 bytes behind the context, `join_list` some 280 behind the beginning of a thread (3.1, 3.3).
const FIBER_WORDS: usize = 96;
const THREAD_WORDS: usize = 96;

/// Looks in a row: some 40 ms, in which a service of fibers that answers one request works for some tenths of a millisecond. Each takes
/// two short reads for each thread whose fiber is known.
const MOST_ROUNDS: u32 = 256;
const BETWEEN_ROUNDS: Duration = Duration::from_micros(100);

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of this process, laid out as Ruby has it: a thread, and fibers.
    struct Laid {
        thread: Box<[u64; THREAD_WORDS]>,
        fibers: [Box<[u64; 128]>; 2],
    }

    const LAYOUT: Ruby = Ruby { slot: -8, fiber: 40, context: 80, previous: 512, joiners: 280 };

    impl Laid {
        fn new() -> Self {
            let mut laid =
                Self { thread: Box::new([0; THREAD_WORDS]), fibers: [Box::new([0; 128]), Box::new([0; 128])] };
            let thread = laid.thread.as_ptr() as u64;
            for fiber in &mut laid.fibers {
                let address = fiber.as_ptr() as u64;
                (fiber[15], fiber[16]) = (address, thread);
            }
            laid.thread[5] = laid.address(0) + 80;
            laid
        }

        fn address(&self, fiber: usize) -> u64 {
            self.fibers[fiber].as_ptr() as u64
        }

        fn running(&self, fiber: usize) -> Fiber {
            Fiber { address: self.address(fiber), thread: self.thread.as_ptr() as u64 }
        }
    }

    fn own() -> Memory {
        Memory::open("/proc/self".as_ref()).expect("this process runs")
    }

    #[test]
    fn a_context_is_known_by_its_fiber_and_its_thread() {
        let mut laid = Laid::new();
        let (memory, address) = (own(), laid.address(0) + 80);
        assert_eq!(context(&memory, address), Some((40, 80)));
        assert_eq!(context(&memory, laid.address(1) + 80), None, "its thread runs another one");
        laid.thread[5] = 0;
        assert_eq!(context(&memory, address), None);
    }

    #[test]
    fn a_fiber_in_another_shows_where_it_has_that() {
        let mut laid = Laid::new();
        let (outer, inner) = (laid.address(0), laid.address(1));
        laid.fibers[1][64] = outer;
        let memory = own();
        assert_eq!(previous(&memory, &laid.running(1), &LAYOUT), Vec::<u16>::new());
        laid.fibers[0][65] = inner;
        assert_eq!(previous(&memory, &laid.running(1), &LAYOUT), Vec::<u16>::new(), "it has never paused");
        laid.fibers[0][9] = 442;
        assert_eq!(previous(&memory, &laid.running(1), &LAYOUT), [512]);
    }

    #[test]
    fn a_thread_that_is_joined_shows_where_it_has_who_waits() {
        let (mut laid, other) = (Laid::new(), Laid::new());
        let waits = Box::new([0, other.thread.as_ptr() as u64, other.address(1)]);
        laid.thread[35] = waits.as_ptr() as u64;
        let memory = own();
        assert_eq!(joiners(&memory, &laid.running(0), &LAYOUT), [280]);
        let crowd = Box::new([waits.as_ptr() as u64, waits[1], waits[2]]);
        laid.thread[35] = crowd.as_ptr() as u64;
        assert_eq!(joiners(&memory, &laid.running(0), &LAYOUT), Vec::<u16>::new(), "several wait");
    }

    #[test]
    fn places_that_differ_are_none() {
        assert_eq!(only([8, 8].into_iter()), 8);
        assert_eq!(only([8, 16].into_iter()), 0);
        assert_eq!(only([].into_iter()), 0);
        let half = Ruby { joiners: 0, ..LAYOUT };
        let other = Ruby { previous: 0, ..LAYOUT };
        assert_eq!(joined(half, other), LAYOUT);
        assert_eq!(joined(half, Ruby { slot: -16, ..other }), half);
        assert!(may_grow(&half) && may_grow(&other) && !may_grow(&LAYOUT));
    }
}
