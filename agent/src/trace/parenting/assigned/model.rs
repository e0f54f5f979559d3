// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a process goes about a request: which step follows which, after how long, and how often on the same thread.
//!
//! In: requests with the calls that were made for them. Out: how likely a request with some calls is. A request is a row
//! of steps (it came, a call was made, a response was heard, it was answered); what the process does next depends on
//! the last step, and on how many calls there were and are under way. It is learned from this process alone, forgets what is old, and knows
//! nothing before it has seen something: then every delay is as good as another.

use smallvec::SmallVec;

use super::{
    scene::{Call, Calls, Point, Request},
    threads::Threads,
};
use crate::table::Table;

/// What is known of one process.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// By situation and what followed. Law: cells.len() <= MOST_CELLS.
    cells: Table<(u32, u16), Cell>,
    /// How often each situation was seen.
    seen: Table<u32, f32>,
    /// Who takes the next step.
    threads: Threads,
    /// What all durations of calls are multiples of, in nanoseconds; zero before one was seen.
    divisor: u64,
    /// Requests learned, those of long ago counting less.
    weight: f32,
}

/// What followed one situation.
#[derive(Clone, Debug)]
struct Cell {
    seen: f32,
    /// By the length of the delay.
    delays: Box<[f32; BINS]>,
}

impl Model {
    /// Learns from a request that had these calls, which counts as much as `weight` requests.
    pub(super) fn learn(&mut self, request: &Request, calls: &Calls, all: &[Call], weight: f32) {
        self.weight += weight;
        for call in calls.iter().map(|call| &all[usize::from(*call)]) {
            let lasted = call.heard.map_or(0, |heard| heard.at.saturating_sub(call.made.at));
            self.divisor = common_divisor(self.divisor, lasted);
        }
        let mut before: Option<(u32, u32, Point)> = None;
        for step in steps(request, calls, all) {
            if let Some((fine, coarse, last)) = before {
                let outcome = step.outcome();
                for situation in [fine, coarse] {
                    *self.seen.entry(situation).or_default() += weight;
                    self.add(situation, outcome, step.point.at.saturating_sub(last.at), weight);
                }
                if step.is_own() {
                    self.threads.learn(last, step.point, weight);
                }
            }
            before = Some((step.fine(request.class), step.coarse(), step.point));
        }
        if self.weight > MEMORY {
            self.fade();
        }
    }

    /// A step at `point` could have followed another request's `last`, but did not.
    pub(super) fn learn_other(&mut self, last: Point, point: Point, weight: f32) {
        self.threads.learn_other(last, point, weight);
    }

    /// The logarithm of how likely a request is to have these calls at these times.
    pub(super) fn likelihood(&self, request: &Request, calls: &Calls, all: &[Call]) -> f64 {
        let mut sum = 0.0;
        let mut before: Option<(u32, u32, Point)> = None;
        for step in steps(request, calls, all) {
            if let Some((fine, coarse, last)) = before {
                sum += self.step(fine, coarse, last, &step);
            }
            before = Some((step.fine(request.class), step.coarse(), step.point));
        }
        sum
    }

    fn step(&self, fine: u32, coarse: u32, last: Point, step: &Step) -> f64 {
        let outcome = step.outcome();
        let (in_fine, in_coarse) = (self.cells.get(&(fine, outcome)), self.cells.get(&(coarse, outcome)));
        let seen = |situation: u32| self.seen.get(&situation).copied().unwrap_or_default();
        let count = |cell: Option<&Cell>| cell.map_or(0.0, |cell| cell.seen);
        let roughly = (count(in_coarse) + A_PRIORI / OUTCOMES) / (seen(coarse) + A_PRIORI);
        let chance = (count(in_fine) + BACKOFF * roughly) / (seen(fine) + BACKOFF);
        let mut sum = f64::from(chance).ln();
        if step.is_own() {
            let delay = step.point.at.saturating_sub(last.at);
            let bin = bin(delay);
            let mass = |cell: Option<&Cell>| cell.map_or(0.0, |cell| cell.delays[bin]);
            let roughly = (mass(in_coarse) + A_PRIORI_DELAY * EVEN) / (count(in_coarse) + A_PRIORI_DELAY);
            let mass = (mass(in_fine) + BACKOFF_DELAY * roughly) / (count(in_fine) + BACKOFF_DELAY);
            sum += f64::from(mass).ln() - width(bin).max(self.tick()).ln();
            sum += self.threads.gain(last, step.point);
        }
        sum
    }

    /// Nanoseconds that the clock counts in. A delay of nothing is one of less than that, and not the likeliest of all.
    fn tick(&self) -> f64 {
        let ticks = [COARSEST_CLOCK, COARSEST_CLOCK / 10, COARSEST_CLOCK / 100, COARSEST_CLOCK / 1_000];
        ticks.into_iter().find(|tick| self.divisor != 0 && self.divisor.is_multiple_of(*tick)).unwrap_or(1) as f64
    }

    fn add(&mut self, situation: u32, outcome: u16, delay: u64, weight: f32) {
        if self.cells.len() >= MOST_CELLS && !self.cells.contains_key(&(situation, outcome)) {
            return;
        }
        let cell =
            self.cells.entry((situation, outcome)).or_insert_with(|| Cell { seen: 0.0, delays: Box::new([0.0; BINS]) });
        cell.seen += weight;
        let middle = bin(delay);
        for (offset, part) in SPREAD.iter().enumerate() {
            let at = (middle + offset).saturating_sub(SPREAD.len() / 2).min(BINS - 1);
            cell.delays[at] += weight * part;
        }
    }

    /// What is old counts half.
    fn fade(&mut self) {
        self.weight /= 2.0;
        for cell in self.cells.values_mut() {
            cell.seen /= 2.0;
            cell.delays.iter_mut().for_each(|mass| *mass /= 2.0);
        }
        self.cells.retain(|_, cell| cell.seen > FORGOTTEN);
        self.seen.values_mut().for_each(|seen| *seen /= 2.0);
        self.seen.retain(|_, seen| *seen > FORGOTTEN);
        self.threads.fade();
    }
}

// --- Steps ---

/// A step of a request's way.
#[derive(Clone, Copy, Debug)]
struct Step {
    what: What,
    kind: u8,
    point: Point,
    /// Calls made by then, this one included.
    made: u8,
    /// Calls under way after it.
    open: u8,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum What {
    Came,
    Heard,
    Called,
    Answered,
}

impl Step {
    /// Whether the process decided on the moment; a response comes when it comes.
    fn is_own(&self) -> bool {
        self.what != What::Heard
    }

    fn outcome(&self) -> u16 {
        // Which response comes first is nothing the process decides.
        let kind = if self.what == What::Heard { 0 } else { self.kind };
        (self.what as u16) << 8 | u16::from(kind)
    }

    fn coarse(&self) -> u32 {
        (self.what as u32) << 8 | u32::from(self.kind)
    }

    /// The situation after it.
    fn fine(&self, class: u8) -> u32 {
        1 << 31
            | u32::from(class) << 20
            | u32::from(self.made.min(MOST_COUNTED)) << 16
            | u32::from(self.open.min(MOST_COUNTED)) << 12
            | self.coarse()
    }
}

/// The steps of a request, in their order.
fn steps(request: &Request, calls: &Calls, all: &[Call]) -> SmallVec<[Step; 14]> {
    let step = |what, kind, point| Step { what, kind, point, made: 0, open: 0 };
    let mut steps = SmallVec::<[Step; 14]>::new();
    steps.push(step(What::Came, 0, request.came));
    for call in calls {
        let call = &all[usize::from(*call)];
        steps.push(step(What::Called, call.kind, call.made));
        if let Some(heard) = call.heard.filter(|heard| heard.at <= request.over) {
            steps.push(step(What::Heard, call.kind, heard));
        }
    }
    if let Some(answered) = request.answered {
        steps.push(step(What::Answered, 0, answered));
    }
    steps[1..].sort_unstable_by_key(|step| (step.point.at, step.what));
    let (mut made, mut open) = (0_u8, 0_u8);
    for step in &mut steps {
        match step.what {
            What::Called => (made, open) = (made.saturating_add(1), open.saturating_add(1)),
            What::Heard => open = open.saturating_sub(1),
            What::Came | What::Answered => {}
        }
        (step.made, step.open) = (made, open);
    }
    steps
}

// --- Delays ---

/// Four to the octave, from a microsecond to some eight seconds.
fn bin(delay: u64) -> usize {
    if delay < 1_000 {
        return 0;
    }
    let octaves = (delay as f64 / 1_000.0).log2();
    ((octaves * 4.0) as usize + 1).min(BINS - 1)
}

/// Nanoseconds that a bin holds.
fn width(bin: usize) -> f64 {
    if bin == 0 { 1_000.0 } else { 1_000.0 * ((bin as f64 / 4.0).exp2() - ((bin as f64 - 1.0) / 4.0).exp2()) }
}

/// Euclid's.
fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Milliseconds, as recordings have them; the kernel's clock counts nanoseconds.
const COARSEST_CLOCK: u64 = 1_000_000;

/// Bins of a delay.
const BINS: usize = 93;

/// What each bin has before anything is known.
const EVEN: f32 = 1.0 / BINS as f32;

/// A delay that was seen stands for those near it: a triangle of an octave.
const SPREAD: [f32; 7] = [0.0625, 0.125, 0.1875, 0.25, 0.1875, 0.125, 0.0625];

/// Situations and outcomes of one process: a request of ten calls in a row has 40. At 400 bytes 400 KiB.
const MOST_CELLS: usize = 1024;

/// Requests after which what is old counts half.
const MEMORY: f32 = 2048.0;

/// What fading leaves of something seen once, long ago.
const FORGOTTEN: f32 = 0.01;

/// Calls of a request that are told apart by their number.
const MOST_COUNTED: u8 = 7;

/// Sightings that a situation needs before its own count more than what follows the same step in others; between 2 and 4
/// nothing changed (2026-11).
const BACKOFF: f32 = 2.0;

/// The same for delays, which take more to be known.
const BACKOFF_DELAY: f32 = 8.0;

/// What is known before anything was seen, in sightings: that something follows,
const A_PRIORI: f32 = 1.0;

/// after any delay,
const A_PRIORI_DELAY: f32 = 8.0;

/// one of so many things.
const OUTCOMES: f32 = 8.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_clock_counts_in_is_seen_in_the_durations() {
        let rows: [(&[u64], f64); 5] = [
            (&[], 1.0),
            (&[3_000_000, 0, 5_000_000], 1e6),
            (&[3_000_000, 3_000_000], 1e6),
            (&[3_000_000, 1_234_000], 1e3),
            (&[3_000_000, 1_234_567], 1.0),
        ];
        for (durations, expected) in rows {
            let mut model = Model::default();
            let request = Request { class: 0, came: Point::default(), answered: None, over: 1 << 40 };
            for duration in durations {
                let heard = Some(Point { at: *duration + 7, ..Point::default() });
                let call = Call { kind: 0, made: Point { at: 7, ..Point::default() }, heard };
                model.learn(&request, &Calls::from_elem(0, 1), &[call], 1.0);
            }
            assert_eq!(model.tick(), expected, "{durations:?}");
        }
    }
}
