// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Node: where the main thread keeps the async ids of what it runs, and of its connections.
//!
//! In: the memory of a process that runs Node. Out: a [`Node`]. Nothing is taken from a release: the ids are found through the
//! array that JavaScript sees them by, the event loop through its first handle, which names it, and the ids of a handle by
//! what ids are, in the handles of streams that there are. All of it stays where it is for the life of the process.

use memchr::memmem;
use spantap_common::identity::Node;

use super::{Memory, Unknown, memory::Mapping};

/// Looks for the layout.
pub(super) fn find(memory: &Memory) -> Result<Node, Unknown> {
    let (heap, others): (Vec<_>, Vec<_>) = memory
        .mappings
        .iter()
        .filter(|mapping| mapping.writable && (mapping.name.is_empty() || mapping.name == HEAP))
        .partition(|mapping| mapping.name == HEAP);
    // Where the heap had no room to grow, the C library has taken it from elsewhere.
    let mut arrays = arrays(memory, &heap);
    if arrays.is_empty() {
        arrays = self::arrays(memory, &others);
    }
    let (start, at, ids, given) = match arrays[..] {
        [only] => only,
        [] => return Err(Unknown::NotYet("it has no environment yet")),
        _ => return Err(Unknown::Never("several environments of Node share its memory")),
    };
    let around = memory.words(at.saturating_sub(ENVIRONMENT).max(start), 2 * ENVIRONMENT as usize / 8);
    let event_loop = Loop::find(memory, &around).ok_or(Unknown::Never("its event loop does not show"))?;
    let streams = event_loop.streams(memory);
    if !streams.iter().any(|stream| event_loop.leads_to(memory, stream)) {
        return Err(Unknown::NotYet("its event loop watches no stream yet"));
    }
    let wrap = wrap(&streams, given).ok_or(Unknown::NotYet("its streams do not show their ids"))?;
    Ok(Node { ids, event_loop: event_loop.address, wrap })
}

/// Where in these mappings `AliasedFloat64Array async_id_fields_` may be: the number of elements, the offset of the first, and
/// where they are. The beginning of its mapping, its own address, that one, and the count of ids there.
fn arrays(memory: &Memory, mappings: &[&Mapping]) -> Vec<(u64, u64, u64, u64)> {
    let mut left = MOST_HEAP;
    let mut found = Vec::new();
    for mapping in mappings {
        let length = mapping.length().min(left);
        left -= length;
        let bytes = memory.bytes(mapping.start, length as usize);
        let candidates = memmem::find_iter(&bytes, &ARRAY).filter(|at| at % 8 == 0).filter_map(|at| {
            let ids = u64::from_ne_bytes(*bytes.get(at + ARRAY.len()..)?.first_chunk()?);
            let is_address = ids % 8 == 0 && ids >= LOWEST;
            is_address.then(|| Some((mapping.start, mapping.start + at as u64, ids, given(memory, ids)?))).flatten()
        });
        found.extend(candidates);
    }
    found
}

/// The count of ids, if those at `ids` look like Node's: what runs, who triggered it, the count, and the trigger that is to be
/// used next, which is -1 while there is none.
fn given(memory: &Memory, ids: u64) -> Option<u64> {
    let words = memory.words(ids, 4);
    let [running, trigger, count, next] = *words else { return None };
    let (running, trigger, count) = (whole(running)?, whole(trigger)?, whole(count)?);
    let is_next = f64::from_bits(next) == -1.0 || whole(next).is_some_and(|next| next <= count);
    (is_next && count > 1 && running <= count && trigger <= count).then_some(count)
}

/// The number that a double is, if it is one that ids can be.
fn whole(bits: u64) -> Option<u64> {
    let number = f64::from_bits(bits);
    ((0.0..MOST_IDS).contains(&number) && number.fract() == 0.0).then_some(number as u64)
}

/// An event loop of libuv.
struct Loop {
    address: u64,
    first: u64,
}

/// A handle of a connection, a pipe or a terminal, by the words that its object begins with.
struct Stream {
    handle: u64,
    descriptor: u32,
    object: Vec<u64>,
}

impl Loop {
    /// The one that is named in `words`: its first handle names it in turn.
    fn find(memory: &Memory, words: &[u64]) -> Option<Self> {
        let mut last = 0;
        words.iter().copied().find_map(|address| {
            let is_new = address != last && address % 8 == 0 && address >= LOWEST;
            last = address;
            let first = memory.word_at(address, HANDLES).filter(|first| is_new && *first >= LOWEST)?;
            let named = memory.word_at(first.wrapping_sub(QUEUE), OF_LOOP)?;
            (named == address && first != address + HANDLES).then_some(Self { address, first })
        })
    }

    fn streams(&self, memory: &Memory) -> Vec<Stream> {
        let mut streams = Vec::new();
        let mut next = self.first;
        for _ in 0..MOST_HANDLES {
            if next == self.address + HANDLES {
                break;
            }
            let handle = next.wrapping_sub(QUEUE);
            let words = memory.words(handle, HANDLE_WORDS);
            let word = |offset: u64| words.get((offset / 8) as usize).copied().unwrap_or_default();
            next = word(QUEUE);
            if word(OF_LOOP) != self.address {
                break;
            }
            if STREAMS.contains(&(word(KIND) as u32)) {
                let object = memory.words(word(0), OBJECT_WORDS);
                streams.push(Stream { handle, descriptor: word(DESCRIPTOR) as u32, object });
            }
        }
        streams
    }

    /// Whether the way that the probes go ends at the stream.
    fn leads_to(&self, memory: &Memory, stream: &Stream) -> bool {
        let watchers = self.address + u64::from(Node::WATCHERS);
        let is_known = memory.word_at(watchers, 8).is_some_and(|count| stream.descriptor < count as u32);
        let watcher = memory.word(watchers).and_then(|table| memory.word_at(table, 8 * u64::from(stream.descriptor)));
        is_known && watcher == Some(stream.handle + u64::from(Node::WATCHER))
    }
}

/// Where objects have an id, and behind it that of an older one that triggered it: the first place where any has them, and most
/// have. A handle that is being closed has lost the first of the two.
fn wrap(streams: &[Stream], given: u64) -> Option<u16> {
    let place = |stream: &Stream| {
        let ids = stream.object.windows(2).position(|pair| match [whole(pair[0]), whole(pair[1])] {
            // Some were given since the count was read.
            [Some(id), Some(trigger)] => trigger < id && id < given + MOST_SINCE,
            _ => false,
        });
        ids.map(|index| 8 * index as u16)
    };
    let places: Vec<u16> = streams.iter().filter_map(place).collect();
    let first = places.iter().copied().min()?;
    let have = places.iter().filter(|place| **place == first).count();
    (2 * have > streams.len()).then_some(first)
}

/// Four elements from the first on.
const ARRAY: [u8; 16] = [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What the kernel calls the memory of brk(2).
const HEAP: &str = "[heap]";

/// The environment is made early, at the beginning of the heap; heaps of processes that have just begun had 1 to 6 MiB.
const MOST_HEAP: u64 = 64 << 20;

/// `sizeof(Environment)` is some KiB; the loop is named in it many times, as that of its timers for one.
const ENVIRONMENT: u64 = 16 << 10;

/// What a double counts exactly.
const MOST_IDS: f64 = (1_u64 << 53) as f64;

/// A busy process gives out some 100,000 ids a second.
const MOST_SINCE: u64 = 100_000;

/// `uv_loop_t.handle_queue`. libuv keeps the layout of its public structures since 1.0, on 64-bit machines.
const HANDLES: u64 = 16;

/// `uv_handle_t.loop`, `.type` and `.handle_queue`; `.data` is first.
const OF_LOOP: u64 = 8;
const KIND: u64 = 16;
const QUEUE: u64 = 32;

/// `UV_NAMED_PIPE`, which unix sockets are too, `UV_TCP` and `UV_TTY`.
const STREAMS: [u32; 3] = [7, 12, 14];

/// `uv_stream_t.io_watcher.fd`.
const DESCRIPTOR: u64 = Node::WATCHER as u64 + 48;
const HANDLE_WORDS: usize = 24;

/// `AsyncWrap` has its ids at 40 in Node 20.
const OBJECT_WORDS: usize = 16;

/// Handles that are looked at: a busy server has thousands, and the one that it listens at is among the first.
const MOST_HANDLES: usize = 256;

/// Below it nothing is mapped (`vm.mmap_min_addr`).
const LOWEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn ids_are_known_by_their_shape() {
        let memory = Memory::open(Path::new("/proc/self")).expect("this process runs");
        for (numbers, count) in [
            ([5.0, 3.0, 9.0, -1.0], Some(9)),
            ([0.0, 0.0, 9.0, 4.0], Some(9)),
            ([5.0, 3.0, 4.0, -1.0], None),
            ([5.5, 3.0, 9.0, -1.0], None),
            ([-1.0, 3.0, 9.0, -1.0], None),
            ([0.0, 0.0, 1.0, -1.0], None),
            ([0.0, f64::NAN, 9.0, -1.0], None),
            ([0.0, 0.0, 9.0, 10.0], None),
        ] {
            let words = numbers.map(f64::to_bits);
            assert_eq!(given(&memory, words.as_ptr() as u64), count, "{numbers:?}");
        }
    }

    #[test]
    fn the_ids_of_a_stream_are_where_most_streams_have_them() {
        let stream = |numbers: [f64; 4]| {
            let object = [vec![0xdead_beef], numbers.map(f64::to_bits).to_vec(), vec![1; 11]].concat();
            Stream { handle: 0, descriptor: 0, object }
        };
        assert_eq!(wrap(&[stream([0.0, 4.0, 3.0, 1.0])], 9), Some(16));
        let (open, closed) = (|| stream([0.0, 4.0, 0.0, 0.0]), stream([0.0, -1.0, 3.0, 0.0]));
        assert_eq!(wrap(&[open(), closed, open()], 9), Some(16));
        let other = stream([8.0, 2.0, 7.0, 0.0]);
        assert_eq!(wrap(&[open(), other], 9), None);
        assert_eq!(wrap(&[stream([0.0, 4.0, 5.0, 5.0])], 9), None, "nothing is triggered by what is younger");
        assert_eq!(wrap(&[stream([0.0, 1e9, 5.0, 6.0])], 9), None, "not given yet");
    }
}
