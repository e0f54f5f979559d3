// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Go: from a thread to its goroutine, and from a connection of `net/http`'s client to the goroutine that waits for it.
//!
//! In: a process that runs Go 1.21 or newer, stripped or not, wherever it was loaded. Out: a [`Go`]. Offsets follow from the
//! release, which the file names, since `runtime` and `net/http` come with it; the probes check the shape of what they find
//! there each time. The number of goroutines started so far is found by its shape, in two looks.

use std::path::Path;

use spantap_common::identity::Go;

use super::{Found, Memory, Unknown, memory::Mapping};
use crate::{clock, targets::elf};

/// A word that may be `runtime.sched.goidgen`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Counter {
    address: u64,
    value: u64,
    /// Between how many looks it has grown.
    grown: u32,
    /// A time was seen behind it.
    timed: bool,
}

/// Looks for the layout; `earlier` are the candidates of the last look.
pub(super) fn find(process: &Path, memory: &Memory, earlier: &mut Vec<Counter>) -> Result<Found<Go>, Unknown> {
    let executable = memory.mappings.iter().find(|mapping| mapping.name.starts_with('/'));
    let executable = executable.ok_or(Unknown::NotYet("it has mapped no file"))?;
    let version = executable.open(process).and_then(|file| elf::go_version(&file));
    let minor =
        version.and_then(|version| minor(&version)).ok_or(Unknown::Never("it does not name its release of Go"))?;
    let layout = layout(minor).ok_or(Unknown::Never("its release of Go is older or newer than those known"))?;
    match generated(memory, &executable.name, earlier) {
        Some(generated) => Ok(Found::Complete(Go { generated, ..layout })),
        None => Ok(Found::Partial(layout)),
    }
}

/// 24 of `go1.24.6`, `go1.24rc1` and `go1.24.6 X:somethingelse`.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The offsets of a release on 64-bit machines, as the debug information of 1.21.13, 1.22.12, 1.23.6, 1.24.6, 1.25.5 and
/// 1.26.8 has them.
fn layout(minor: u32) -> Option<Go> {
    let (goid, parent, receivers, element, reply) = match minor {
        21 | 22 => (152, 272, 56, 48, 16),
        23 | 24 => (160, 280, 64, 40, 8),
        25 => (152, 272, 64, 40, 8),
        26 => (152, 280, 64, 40, 8),
        _ => return None,
    };
    Some(Go { generated: 0, goid, parent, connection: CONNECTION, requests: REQUESTS, element, reply, receivers })
}

/// The address of `runtime.sched.goidgen`, once later looks have shown that only one candidate is left.
///
/// `schedt` begins with `goidgen`, `lastpoll` and `pollUntil`: the number of ids given out, and two that are 0 or a time on
/// the clock of `nanotime`, CLOCK_MONOTONIC. A server that is asked starts goroutines, and processors take ids by sixteen; the
/// times are often 0, so that seeing one only decides between several that are left.
fn generated(memory: &Memory, executable: &str, earlier: &mut Vec<Counter>) -> Option<u64> {
    let now = clock::now().0;
    if earlier.is_empty() {
        *earlier = data(memory, executable)
            .flat_map(|mapping| candidates(memory, mapping, now))
            .take(MOST_CANDIDATES)
            .collect();
        return None;
    }
    earlier.retain_mut(|counter| counter.is_still(&memory.words(counter.address, 3), now));
    let proven: Vec<_> = earlier.iter().filter(|counter| counter.grown >= PROOFS).collect();
    let timed: Vec<_> = proven.iter().filter(|counter| counter.timed).collect();
    match (&proven[..], &timed[..]) {
        ([only], _) => Some(only.address),
        (_, [only]) => Some(only.address),
        _ => None,
    }
}

impl Counter {
    fn new(address: u64, words: &[u64], now: u64) -> Option<Self> {
        let [value, polled, until] = *words else { return None };
        let is_time = |time: u64| time == 0 || now.abs_diff(time) < HOUR_NS;
        let counts = value > 0 && value < MOST_GOROUTINES && is_time(polled) && is_time(until);
        counts.then_some(Self { address, value, grown: 0, timed: polled != 0 })
    }

    /// Whether what is there now may be the same counter, a little later.
    fn is_still(&mut self, words: &[u64], now: u64) -> bool {
        let Some(later) = Self::new(self.address, words, now) else { return false };
        let grown = match later.value.checked_sub(self.value) {
            None => return false,
            Some(0) => 0,
            Some(more) if more % BATCH == 0 && more < MOST_BETWEEN_LOOKS => 1,
            Some(_) => return false,
        };
        *self = Self { grown: self.grown + grown, timed: self.timed || later.timed, ..later };
        true
    }
}

/// What the executable's data are mapped to, variables without a first value included.
fn data<'a>(memory: &'a Memory, executable: &'a str) -> impl Iterator<Item = &'a Mapping> {
    let is_own = move |mapping: &&Mapping| mapping.name == executable;
    let last = memory.mappings.iter().rposition(|mapping| is_own(&mapping)).unwrap_or_default();
    let behind = memory.mappings.get(last + 1).filter(|mapping| mapping.name.is_empty());
    memory.mappings[..=last].iter().filter(is_own).chain(behind).filter(|mapping| mapping.writable)
}

fn candidates(memory: &Memory, mapping: &Mapping, now: u64) -> Vec<Counter> {
    let words = memory.words(mapping.start, (mapping.length().min(MOST_DATA) / 8) as usize);
    let each = words.windows(3).enumerate();
    each.filter_map(|(index, words)| Counter::new(mapping.start + 8 * index as u64, words, now)).collect()
}

/// Both loops of a connection are started through a wrapper whose frame is the same since 1.21: above it are `goexit`'s
/// address and the room that every goroutine starts with, and the first word in it is where the loop, as the calling
/// convention wants, keeps its receiver.
const CONNECTION: u16 = 56;

/// `persistConn.reqch`.
const REQUESTS: u16 = 128;

/// Data and uninitialised data of large programs have some MiB; `runtime` is linked first.
const MOST_DATA: u64 = 4 << 20;

/// Numbers between zeros are common; the first MiB of data had some thousands.
const MOST_CANDIDATES: usize = 64 << 10;

/// `_GoidCacheBatch`.
const BATCH: u64 = 16;

/// Looks between which the counter has to grow as ids do: bytes and other things are counted too.
const PROOFS: u32 = 3;

/// A hundred thousand a second, between looks that are 13 s apart.
const MOST_BETWEEN_LOOKS: u64 = 16 * 100_000;

/// A thousand a second for 34 years.
const MOST_GOROUTINES: u64 = 1 << 40;

/// A process that has not polled for an hour serves nobody.
const HOUR_NS: u64 = 3_600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_known_by_their_minor_number() {
        for (version, is) in
            [("go1.24.6", Some(24)), ("go1.22", Some(22)), ("go1.26rc1 X:jsonv2", Some(26)), ("devel", None)]
        {
            assert_eq!(minor(version), is, "{version}");
        }
        assert_eq!(layout(20), None);
        assert_eq!(layout(27), None, "nobody has looked at it");
    }

    #[test]
    fn the_scheduler_is_known_by_its_shape_and_by_what_it_does() {
        let now = 50 * HOUR_NS;
        for words in [[0, now, 0], [32, 7, 0], [32, now, 7], [1 << 41, now, 0]] {
            assert_eq!(Counter::new(8, &words, now), None, "{words:?}");
        }
        let mut counter = Counter::new(8, &[305, 0, 0], now).expect("it may be");
        assert!(counter.is_still(&[305, 0, now + 5], now), "nothing happened");
        assert_eq!((counter.grown, counter.timed), (0, false));
        assert!(counter.is_still(&[337, now - 5, 0], now));
        assert_eq!((counter.grown, counter.timed), (1, true));
        assert!(!counter.is_still(&[338, 0, 0], now), "processors take sixteen ids at once");
        assert!(!counter.is_still(&[321, 0, 0], now), "ids are not taken back");
    }
}
