// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Goroutines that work for others: where they keep the channel at which somebody waits for what they do.
//!
//! In: a live program in which a goroutine waits for a response, and one that serves a request waits for the first. Out: a [`Job`]. It
//! goes the way of the probes, from a client's connection to the goroutine that waits for it, and then through that one's frames: of
//! each it looks at the words alone that the function still needs. A variable of an older job that was left behind is none of these.

use std::collections::{BTreeMap, BTreeSet};

use spantap_common::identity::{Call, Go, Job};

use super::{
    super::Memory,
    program::{Function, Program},
};

/// Looks once, at what goes on at this moment. Of several such places with the same way to them it takes the one that most goroutines
/// have. None where no goroutine is kept for a client's connection.
pub(super) fn find(memory: &Memory, program: &Program, layout: &Go) -> Option<Vec<Job>> {
    let goroutines = goroutines(memory, program).unwrap_or_default();
    let look = Look { memory, program, layout };
    // By place: who works and who waits there.
    let mut places: BTreeMap<Place, BTreeSet<(u64, u64)>> = BTreeMap::new();
    let mut requests = goroutines.iter().filter_map(|goroutine| look.requests(*goroutine)).peekable();
    requests.peek()?;
    let workers = requests.filter_map(|requests| look.waiting(requests)).take(MOST_WORKERS);
    for worker in workers {
        for (place, other) in look.places(worker).unwrap_or_default() {
            places.entry(place).or_default().insert((worker, other));
        }
    }
    let mut places: Vec<(Place, usize)> = places.into_iter().map(|(place, seen)| (place, seen.len())).collect();
    places.sort_by_key(|(place, seen)| (usize::MAX - seen, *place));
    let mut jobs: Vec<Job> = Vec::new();
    for job in places.iter().filter_map(|(place, _)| place.job()) {
        if jobs.iter().all(|better| (better.start, better.calls) != (job.start, job.calls)) {
            jobs.push(job);
        }
    }
    Some(jobs)
}

/// Where a goroutine has a channel: as [`Job`], whose order of fields says which of two places is the better.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place {
    field: Option<u16>,
    /// Calls that lead to the frame.
    depth: usize,
    variable: u16,
    start: u64,
    calls: [(u16, u64); Job::CALLS],
}

impl Place {
    fn job(&self) -> Option<Job> {
        let returns = |address: u64| i32::try_from(address.checked_signed_diff(self.start)?).ok();
        let mut calls = [Call::default(); Job::CALLS];
        for (call, (below, address)) in calls.iter_mut().zip(self.calls).take(self.depth) {
            *call = Call { below, returns: returns(address)? };
        }
        Some(Job { start: self.start, variable: self.variable, field: self.field, calls })
    }
}

struct Look<'a> {
    memory: &'a Memory,
    program: &'a Program,
    layout: &'a Go,
}

/// A function that a goroutine is in.
struct Frame {
    function: Function,
    /// Where it goes on.
    address: u64,
    /// Where that address is: in the frame of what it has called.
    at: u64,
    /// Where it has its caller's frame pointer.
    pointer: u64,
}

impl Look<'_> {
    fn at(&self, address: u64, offset: u16) -> Option<u64> {
        self.memory.word_at(address, offset.into())
    }

    /// The channel of requests of the client's connection that `keeper` is kept for, as the probes look for it.
    fn requests(&self, keeper: u64) -> Option<u64> {
        let connection = self.memory.word(self.at(keeper, 8)?.checked_sub(self.layout.connection.into())?)?;
        let channel = self.at(connection, self.layout.requests)?;
        let is_one = self.at(channel, 8)? == 1 && self.at(channel, 24)? as u16 == self.layout.element;
        is_one.then_some(channel)
    }

    /// The goroutine that waits for the response to the request that is in this channel.
    fn waiting(&self, channel: u64) -> Option<u64> {
        if self.at(channel, 0)? != 1 {
            return None;
        }
        let reply = self.at(self.at(channel, 16)?, self.layout.reply)?;
        self.at(self.at(reply, self.layout.receivers)?, 0)
    }

    /// Where `worker` keeps channels at which one goroutine waits that serves a request, and which.
    fn places(&self, worker: u64) -> Option<Vec<(Place, u64)>> {
        let start = self.at(worker, self.layout.parent + Go::START_BEHIND_PARENT)?;
        if self.serves(worker)? {
            return None;
        }
        let high = self.at(worker, 8)?;
        let frames = self.frames(worker, high)?;
        let below = |address: u64| u16::try_from(high.checked_sub(address)?).ok();
        let mut calls = [(0, 0); Job::CALLS];
        let mut places = Vec::new();
        for (index, frame) in frames.iter().rev().take(Job::CALLS).enumerate() {
            calls[index] = (below(frame.at)?, frame.address);
            // What is below it belongs to the client.
            if self.program.name(self.memory, &frame.function)?.starts_with(CLIENT) {
                break;
            }
            // What an outer function keeps it passes on.
            if !places.is_empty() {
                break;
            }
            let words = self.program.in_use(self.memory, &frame.function, frame.address, frame.pointer)?;
            for word in words {
                let value = self.memory.word(word)?;
                let Some(variable) = below(word) else { continue };
                let place = Place { field: None, depth: index + 1, variable, start, calls };
                if let Some(other) = self.awaited(value, worker) {
                    places.push((place, other));
                    continue;
                }
                let fields = if value.is_multiple_of(8) { self.memory.words(value, MOST_FIELDS) } else { Vec::new() };
                for (field, value) in fields.into_iter().enumerate() {
                    if let Some(other) = self.awaited(value, worker) {
                        places.push((Place { field: Some(8 * field as u16), ..place }, other));
                    }
                }
            }
        }
        // It has gone through the same calls all the while, if it has waited for the same.
        let again = self.frames(worker, high)?;
        let is_same = again.iter().map(|frame| frame.address).eq(frames.iter().map(|frame| frame.address));
        is_same.then_some(places)
    }

    /// The functions that a goroutine which waits is in, innermost first, by frame pointers.
    fn frames(&self, goroutine: u64, high: u64) -> Option<Vec<Frame>> {
        let [stack, address, itself] = *self.memory.words(goroutine.checked_add(SCHEDULED)?, 3) else { return None };
        // `gobuf.ret` was removed from between in 1.25.
        let pointers = self.memory.words(goroutine.checked_add(SCHEDULED + 40)?, 2);
        let is_frame = |pointer: u64| pointer.is_multiple_of(8) && pointer > stack && pointer < high - 16;
        let mut pointer = pointers.into_iter().find(|pointer| is_frame(*pointer))?;
        if itself != goroutine || high - stack > MOST_STACK {
            return None;
        }
        let words = self.memory.words(stack, ((high - stack) / 8) as usize);
        let word = |address: u64| words.get((address.checked_sub(stack)? / 8) as usize).copied();
        let (mut address, mut at) = (address, stack);
        let mut frames = Vec::new();
        while frames.len() < MOST_FRAMES {
            frames.push(Frame { function: self.program.function(self.memory, address)?, address, at, pointer });
            let outer = word(pointer)?;
            (address, at) = (word(pointer + 8)?, pointer + 8);
            // The outermost function returns to `goexit`, which has no frame.
            if outer == 0 {
                return Some(frames);
            }
            if outer <= pointer || !is_frame(outer) {
                return None;
            }
            pointer = outer;
        }
        None
    }

    /// The only goroutine that waits at `channel`, if it is one that serves requests and is not `worker`.
    fn awaited(&self, channel: u64, worker: u64) -> Option<u64> {
        if !channel.is_multiple_of(8) || channel < LOWEST {
            return None;
        }
        let words = self.memory.words(channel, usize::from(self.layout.receivers) / 8 + 2);
        let [count, size, .., first, last] = *words else { return None };
        if count > size || first == 0 || first != last {
            return None;
        }
        let other = self.memory.word(first)?;
        let is_goroutine = other != worker && self.at(other, Go::ITSELF)? == other;
        (is_goroutine && self.serves(other)?).then_some(other)
    }

    /// Whether a goroutine serves a connection of `net/http`.
    fn serves(&self, goroutine: u64) -> Option<bool> {
        let started = self.at(goroutine, self.layout.parent + STARTED_BEHIND_PARENT)?;
        let Some(function) = self.program.function(self.memory, started) else { return Some(false) };
        Some(self.program.name(self.memory, &function)? == SERVER)
    }
}

/// All goroutines, those that have ended among them: `runtime.allgs`, the one slice of them that is among the variables of packages and
/// begins with that of `main`.
fn goroutines(memory: &Memory, program: &Program) -> Option<Vec<u64>> {
    let (start, end) = program.zeroed;
    let words = memory.words(start, (end - start).min(MOST_VARIABLES) as usize / 8);
    let is_goroutine = |address: u64| memory.word_at(address, Go::ITSELF.into()) == Some(address);
    let all = words.windows(3).find(|words| {
        let [first, count, room] = **words else { return false };
        let is_slice =
            first.is_multiple_of(8) && first >= LOWEST && FEWEST <= count && count <= room && room < MOST_ROOM;
        // Those that have not run yet, or run, have theirs as well.
        is_slice && memory.words(first, FEWEST as usize).into_iter().all(is_goroutine)
    })?;
    Some(memory.words(all[0], all[1].min(MOST_GOROUTINES) as usize))
}

/// Who starts a goroutine for each connection of `net/http`'s server, and what every function of its client begins with.
const SERVER: &str = "net/http.(*Server).Serve";
const CLIENT: &str = "net/http.";

/// `g.gopc`, the `go` statement, behind `g.parentGoid`, in 1.21 to 1.26.
const STARTED_BEHIND_PARENT: u16 = 8;

/// `g.sched`: sp, pc, g.
const SCHEDULED: u64 = 56;

/// Nobody maps the first page.
const LOWEST: u64 = 4096;

/// Goroutines of a program that serves: `main`, and those of the runtime.
const FEWEST: u64 = 4;

/// More goroutines than any program has.
const MOST_ROOM: u64 = 1 << 32;

/// Goroutines that are looked at, the oldest: those of connections, and their workers, are old. Each takes four reads.
const MOST_GOROUTINES: u64 = 8 << 10;

/// Goroutines that wait for a response and are looked at: all of them do the same.
const MOST_WORKERS: usize = 32;

/// Bytes of variables in which the slice is looked for: that of the runtime is among the first packages'.
const MOST_VARIABLES: u64 = 16 << 20;

/// Bytes of a stack, and frames on it, that are looked at: `net/http`'s client takes 5 KiB and 16 frames.
const MOST_STACK: u64 = 64 << 10;
const MOST_FRAMES: usize = 64;

/// Words of a job behind a pointer: the channel of the result is among its first 16 fields.
const MOST_FIELDS: usize = 16;
