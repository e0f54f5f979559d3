// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who takes the next step of a request: how much a thread tells of whose step it was.
//!
//! In: pairs of points that are one request's, and pairs that could have been and are not. Out: the logarithm of how much
//! likelier a pair is one request's, by its threads alone. It is asked for pairs of the same delay: within microseconds
//! the same thread goes on, after milliseconds a task may have moved. It knows nothing of what was done.

use super::scene::Point;

/// How often each was seen, by the length of the delay.
#[derive(Clone, Debug, Default)]
pub(super) struct Threads {
    own: Seen,
    others: Seen,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    at: [Ways; OCTAVES],
    /// The sum of these.
    ever: Ways,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ways {
    by: [f32; WAYS],
    /// The sum of these: a walk asks for it millions of times.
    all: f32,
}

impl Threads {
    /// `next` followed `last` in a request.
    pub(super) fn learn(&mut self, last: Point, next: Point, weight: f32) {
        self.own.add(octave(last, next), way(last, next), weight);
    }

    /// `next` could have followed `last`, but was another request's.
    pub(super) fn learn_other(&mut self, last: Point, next: Point, weight: f32) {
        self.others.add(octave(last, next), way(last, next), weight);
    }

    /// What the threads say for `next` to follow `last`.
    pub(super) fn gain(&self, last: Point, next: Point) -> f64 {
        let (octave, way) = (octave(last, next), way(last, next));
        (self.own.chance(octave, way) / self.others.chance(octave, way)).ln()
    }

    /// What is old counts half.
    pub(super) fn fade(&mut self) {
        for seen in [&mut self.own, &mut self.others] {
            for ways in seen.at.iter_mut().chain([&mut seen.ever]) {
                ways.by.iter_mut().chain([&mut ways.all]).for_each(|seen| *seen /= 2.0);
            }
        }
    }
}

impl Seen {
    fn add(&mut self, octave: usize, way: usize, weight: f32) {
        for ways in [&mut self.at[octave], &mut self.ever] {
            ways.by[way] += weight;
            ways.all += weight;
        }
    }

    fn chance(&self, octave: usize, way: usize) -> f64 {
        let (at, ever) = (&self.at[octave], &self.ever);
        let roughly = (ever.by[way] + PRIOR) / (ever.all + WAYS as f32 * PRIOR);
        f64::from((at.by[way] + BACKOFF * roughly) / (at.all + BACKOFF))
    }
}

/// Whether one thread took both steps and nothing else in between; or if two did, whether the second was busy meanwhile, and
/// whether the first has gone on to something else.
fn way(last: Point, next: Point) -> usize {
    let busy = next.before > last.at;
    match (last.tid == next.tid, busy) {
        (true, true) => 0,
        (true, false) => 1,
        (false, busy) => 2 + 2 * usize::from(busy) + usize::from(last.after < next.at),
    }
}

fn octave(last: Point, next: Point) -> usize {
    let microseconds = next.at.saturating_sub(last.at) / 1_000;
    ((u64::BITS - microseconds.leading_zeros()) as usize).min(OCTAVES - 1)
}

/// See [`way`].
const WAYS: usize = 6;

/// Delays, up to 4 seconds.
const OCTAVES: usize = 23;

/// That threads say nothing, in sightings.
const PRIOR: f32 = 4.0;

/// Sightings that a delay needs before its own count more than those of all delays.
const BACKOFF: f32 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at: u64, tid: u32, before: u64, after: u64) -> Point {
        Point { at: at * 1_000, tid, before: before * 1_000, after: after * 1_000 }
    }

    #[test]
    fn a_thread_that_goes_on_is_told_from_one_that_was_busy() {
        let rows = [
            ("the same, nothing in between", point(10, 1, 0, 20), point(20, 1, 10, 30), 1),
            ("the same, busy", point(10, 1, 0, 15), point(20, 1, 15, 30), 0),
            ("another that was idle, the first stays", point(10, 1, 0, 40), point(20, 2, 5, 30), 2),
            ("another that was idle, the first goes on", point(10, 1, 0, 15), point(20, 2, 5, 30), 3),
            ("another that was busy, the first stays", point(10, 1, 0, 40), point(20, 2, 15, 30), 4),
            ("another that was busy, the first goes on", point(10, 1, 0, 15), point(20, 2, 15, 30), 5),
        ];
        for (what, last, next, expected) in rows {
            assert_eq!(way(last, next), expected, "{what}");
        }
    }

    #[test]
    fn what_threads_say_depends_on_the_delay() {
        let mut threads = Threads::default();
        let last = point(1_000, 1, 0, u64::MAX / 1_000);
        let (soon, late) = (point(1_010, 1, 1_000, 0), point(9_000, 1, 1_000, 0));
        assert!(threads.gain(last, soon).abs() < 1e-6, "nothing is known yet");
        for _ in 0..100 {
            threads.learn(last, soon, 1.0);
            threads.learn_other(last, point(1_010, 2, 0, 0), 1.0);
            threads.learn(last, point(9_000, 2, 0, 0), 1.0);
            threads.learn_other(last, late, 1.0);
        }
        assert!(threads.gain(last, soon) > 1.0);
        assert!(threads.gain(last, late) < -1.0);
    }
}
