// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Node: where the main thread keeps the async ids of what it runs.
//!
//! In: the memory of a process that runs Node. Out: a [`Node`]. Four doubles stand side by side in the heap of C++, and never
//! move: the id that runs, the one that triggered it, the ids given out so far, and the default trigger, which is -1 while
//! there is none. They are found by that shape, and by what they do between two looks.

use std::path::Path;

use spantap_common::identity::Node;

use super::{Found, Memory, Unknown, memory::threads};

/// Numbers that may be Node's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ids {
    address: u64,
    counter: f64,
    /// Seen while nothing ran.
    idle: bool,
}

/// Looks for the layout; `earlier` are the candidates of the last look.
pub(super) fn find(process: &Path, memory: &Memory, earlier: &mut Vec<Ids>) -> Result<Found<Node>, Unknown> {
    let thread = threads(process, 1).first().copied().ok_or(Unknown::NotYet("it is gone"))?;
    if earlier.is_empty() {
        *earlier = candidates(memory);
        return Err(Unknown::NotYet("its ids must be seen twice"));
    }
    let mut grown = Vec::new();
    for ids in earlier.iter_mut() {
        let Some([running, trigger, counter]) = read(memory, ids.address) else { continue };
        let idle = ids.idle || (running == 0.0 && trigger == 0.0);
        if idle && counter > ids.counter && counter - ids.counter < MOST_BETWEEN_LOOKS {
            grown.push(ids.address);
        }
        *ids = Ids { idle, counter: ids.counter, ..*ids };
    }
    match grown[..] {
        [ids] => Ok(Found::Complete(Node { ids, thread })),
        [] => Err(Unknown::NotYet("its ids do not move")),
        _ => Err(Unknown::NotYet("several numbers look like its ids")),
    }
}

fn candidates(memory: &Memory) -> Vec<Ids> {
    let heap = memory.mappings.iter().find(|mapping| mapping.name == "[heap]");
    let Some(heap) = heap else { return Vec::new() };
    let words = memory.words(heap.start, (heap.length().min(MOST_HEAP) / 8) as usize);
    let found = words.windows(4).enumerate().filter_map(|(index, words)| {
        let [running, trigger, counter] = ids(words)?;
        let address = heap.start + 8 * index as u64;
        Some(Ids { address, counter, idle: running == 0.0 && trigger == 0.0 })
    });
    found.take(MOST_CANDIDATES).collect()
}

fn read(memory: &Memory, address: u64) -> Option<[f64; 3]> {
    ids(&memory.words(address, 4))
}

/// The first three of four numbers of Node's shape.
fn ids(words: &[u64]) -> Option<[f64; 3]> {
    let [running, trigger, counter, default] = *words else { return None };
    if f64::from_bits(default) != -1.0 {
        return None;
    }
    let [running, trigger, counter] = [running, trigger, counter].map(f64::from_bits);
    let is_id = |id: f64| id.fract() == 0.0 && (0.0..=counter).contains(&id);
    (is_id(running) && is_id(trigger) && counter.fract() == 0.0 && counter > 1.0).then_some([running, trigger, counter])
}

/// The environment is made early, at the beginning of the heap; the heaps of processes just started had 1 to 6 MiB.
const MOST_HEAP: u64 = 64 << 20;

/// Two were seen in each of a dozen processes.
const MOST_CANDIDATES: usize = 64;

/// A busy process gives out some 100,000 ids a second.
const MOST_BETWEEN_LOOKS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_known_by_their_shape() {
        let words = |numbers: [f64; 4]| numbers.map(f64::to_bits);
        assert_eq!(ids(&words([5.0, 3.0, 9.0, -1.0])), Some([5.0, 3.0, 9.0]));
        for numbers in [
            [5.0, 3.0, 4.0, -1.0],
            [5.5, 3.0, 9.0, -1.0],
            [-1.0, 3.0, 9.0, -1.0],
            [0.0, 0.0, 1.0, -1.0],
            [0.0, 0.0, 9.0, 0.0],
            [0.0, f64::NAN, 9.0, -1.0],
        ] {
            assert_eq!(ids(&words(numbers)), None, "{numbers:?}");
        }
    }
}
