// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds the key under which the threads of a process keep something of their own (pthread_getspecific(3)).
//!
//! In: threads, each by what it keeps and by its thread pointer. Out: where each of them keeps it, counted from there. It knows the blocks
//! of glibc and musl, takes a place only where every thread that was given has its own thing there, and follows no thread-local variables.

use super::Memory;

/// Where every thread has what it keeps: in its block, or, with an offset, in a table that the word in its block leads to. Of each thread
/// what it keeps, and its thread pointer.
pub(super) fn slot(memory: &Memory, threads: &[(u64, u64)]) -> Option<(i64, Option<u16>)> {
    let shared = |slot: &i64| threads.iter().all(|(kept, pointer)| holds(memory, *pointer, *slot, *kept));
    if threads.is_empty() {
        return None;
    }
    if let Some(slot) = (0..KEYS).map(|key| FIRST_KEY + KEY_BYTES * key).find(shared) {
        return Some((slot, None));
    }
    table(memory, threads)
}

/// Whether a thread has this in its block.
pub(super) fn holds(memory: &Memory, pointer: u64, slot: i64, kept: u64) -> bool {
    memory.word(pointer.wrapping_add_signed(slot)) == Some(kept)
}

/// musl keeps a thread's keys in a table, whose address is in the thread's block.
fn table(memory: &Memory, threads: &[(u64, u64)]) -> Option<(i64, Option<u16>)> {
    (1..MUSL_BLOCK / 8).map(|index| 8 * index).find_map(|slot| {
        let of =
            |pointer: u64| memory.word(pointer.wrapping_add_signed(slot)).map(|table| memory.words(table, MUSL_KEYS));
        let (kept, pointer) = *threads.first()?;
        let key = of(pointer)?.iter().position(|word| *word == kept)?;
        let shared = threads.iter().all(|(kept, pointer)| of(*pointer).is_some_and(|keys| keys.get(key) == Some(kept)));
        shared.then_some((slot, Some(8 * key as u16)))
    })
}

/// glibc's `struct pthread`: `specific_1stblock` holds 32 pairs of a sequence number and the data of a key.
pub(super) const FIRST_KEY: i64 = 0x310 + 8;
const KEY_BYTES: i64 = 16;
const KEYS: i64 = 32;

/// musl's `struct pthread` has some 200 bytes, and a process 128 keys.
const MUSL_BLOCK: i64 = 256;
const MUSL_KEYS: usize = 128;
