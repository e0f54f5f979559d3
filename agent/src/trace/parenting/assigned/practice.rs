// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often an assignment is right: measured on this process itself, without being told whose its calls are.
//!
//! In: scenes before anything is learned from them. Out: for a doubt of the walk, the share of such words that were right.
//!
//! ```text
//! crossed   a scene and the one before it, laid over each other as if both had been at once, and walked through:
//!           a call that goes to a request of the other scene is wrong for certain, whoever's it is
//! hidden    a scene walked through as if what better evidence knows of it were unknown: right is what that says
//! ```
//!
//! Crossing needs nobody who knows, and twice as many requests are open as in truth: it finds more wrong than there is.
//! What it cannot see is a habit that is wrong in the same way in each scene; against that the hidden ones can object, where
//! there are any. It says nothing until enough was crossed, and then what is true in five of six such measurements.

use super::{
    model::Model,
    scene::{self, Call, Candidates, Point, Request},
    solve::{self, Scene},
};

/// How it went, and what the next scene is laid over.
#[derive(Debug, Default)]
pub(super) struct Practice {
    crossed: Record,
    hidden: Record,
    earlier: Option<(Vec<Request>, Vec<Call>)>,
}

impl Practice {
    /// Walks through this scene laid over the one before. `nobody` is how likely a call is nobody's.
    pub(super) fn cross(&mut self, requests: &[Request], calls: &[Call], nobody: f64, model: &Model, seed: u64) {
        if calls.is_empty() || calls.len() > MOST_CALLS || requests.len() > MOST_CALLS {
            return;
        }
        let Some(earlier) = self.earlier.replace((requests.to_vec(), calls.to_vec())) else { return };
        if self.crossed.is_plenty(seed) {
            return;
        }
        let mixed = Mixed::lay((requests, calls), earlier, seed);
        let candidates: Vec<Candidates> =
            mixed.calls.iter().map(|call| scene::candidates(&mixed.requests, call)).collect();
        let nobody = vec![nobody; mixed.calls.len()];
        let scene = Scene { requests: &mixed.requests, calls: &mixed.calls, candidates: &candidates, nobody: &nobody };
        let found = solve::solve(&scene, model, seed);
        for (call, of) in candidates.iter().enumerate() {
            let is_own = |request: &u16| mixed.request_sides[usize::from(*request)] == mixed.call_sides[call];
            let own = of.iter().filter(|request| is_own(request)).count();
            let other = of.len() - own;
            // The earlier scene was learned from.
            let Some((first, _)) = found.shares[call].first().filter(|_| mixed.call_sides[call] == Side::Now) else {
                continue;
            };
            if own == 0 || other == 0 {
                continue;
            }
            // Where one of the other scene takes a call, one of its own might have as well, and nobody sees that.
            let wrong = if is_own(first) { 0.0 } else { 1.0 + (own - 1) as f64 / other as f64 };
            self.crossed.add(found.doubts[call], 1.0 - wrong);
        }
        self.crossed.forget();
    }

    /// Walks through a scene whose calls are `owners`', as far as better evidence knows, without having been told.
    pub(super) fn hide(&mut self, scene: &Scene<'_>, owners: &[Option<u16>], model: &Model, seed: u64) {
        if scene.calls.len() > MOST_CALLS || self.hidden.is_plenty(seed) {
            return;
        }
        let found = solve::solve(scene, model, seed);
        for (call, owner) in owners.iter().enumerate() {
            if let (Some(owner), Some((first, _))) = (owner, found.shares[call].first())
                && scene.candidates[call].len() > 1
            {
                self.hidden.add(found.doubts[call], f64::from(u8::from(first == owner)));
            }
        }
        self.hidden.forget();
    }

    /// How sure a word is about which the walk has `doubt`.
    pub(super) fn confidence(&self, doubt: f64) -> super::Confidence {
        if self.crossed.words() < ENOUGH {
            return super::Confidence::default();
        }
        let measured = self.crossed.at_least(doubt).max(self.hidden.at_least(doubt));
        super::Confidence::new(measured.min(self.hidden.at_most(doubt)))
    }
}

/// Two scenes as one.
struct Mixed {
    requests: Vec<Request>,
    request_sides: Vec<Side>,
    calls: Vec<Call>,
    call_sides: Vec<Side>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Now,
    Earlier,
}

impl Mixed {
    /// The earlier scene moves so that one of its requests, whichever, comes between two of these: what comes in bursts meets
    /// in bursts, and is as near to each other as in one of them.
    fn lay(now: (&[Request], &[Call]), earlier: (Vec<Request>, Vec<Call>), seed: u64) -> Self {
        let (requests, calls) = now;
        let mut dice = solve::Dice(seed);
        let to = dice.below(requests.len().max(1));
        let since = requests.get(to).map_or(0, |request| request.came.at);
        let until = match requests.get(to + 1) {
            Some(next) => next.came.at,
            None => requests.get(to).map_or(0, |request| request.over),
        };
        let to = since + dice.below(until.saturating_sub(since).clamp(1, LONGEST_GAP_NS) as usize) as u64;
        let from = dice.below(earlier.0.len().max(1));
        let from = earlier.0.get(from).map_or(0, |request| request.came.at);
        let moved = |at: u64| match at {
            0 | u64::MAX => at,
            _ => at.saturating_add(to).saturating_sub(from),
        };
        let point = |point: Point| Point { at: moved(point.at), before: moved(point.before), ..point };
        let sides = |now: usize, earlier: usize| [vec![Side::Now; now], vec![Side::Earlier; earlier]].concat();
        let request = |request: Request| Request {
            class: request.class,
            came: point(request.came),
            answered: request.answered.map(point),
            over: moved(request.over),
        };
        let call = |call: Call| Call { kind: call.kind, made: point(call.made), heard: call.heard.map(point) };
        let request_sides = sides(requests.len(), earlier.0.len());
        let call_sides = sides(calls.len(), earlier.1.len());
        let requests = requests.iter().cloned().chain(earlier.0.into_iter().map(request));
        let calls = calls.iter().cloned().chain(earlier.1.into_iter().map(call));
        let mut requests: Vec<(Request, Side)> = requests.zip(request_sides).collect();
        requests.sort_by_key(|(request, _)| request.came.at);
        let mut calls: Vec<(Call, Side)> = calls.zip(call_sides).collect();
        calls.sort_by_key(|(call, _)| call.made.at);
        let (mut requests, request_sides): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        let (mut calls, call_sides): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        scene::weave(&mut requests, &mut calls);
        Self { requests, request_sides, calls, call_sides }
    }
}

// --- Record ---

/// What was right, by doubt.
#[derive(Debug, Default)]
struct Record([Tally; DOUBTS.len() + 1]);

/// Words of about the same doubt.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    words: f64,
    /// Below zero where more was estimated to be wrong than was said.
    right: f64,
}

impl Record {
    fn add(&mut self, doubt: f64, right: f64) {
        let tally = &mut self.0[place(doubt)];
        tally.words += 1.0;
        tally.right += right;
    }

    fn words(&self) -> f64 {
        self.0.iter().map(|tally| tally.words).sum()
    }

    /// Whether this walk can be left out.
    fn is_plenty(&self, seed: u64) -> bool {
        self.words() >= PLENTY && !seed.is_multiple_of(RARELY)
    }

    fn forget(&mut self) {
        if self.words() > MEMORY {
            for tally in &mut self.0 {
                (tally.words, tally.right) = (tally.words / 2.0, tally.right / 2.0);
            }
        }
    }

    /// The share that is right, a deviation below what was measured: nothing is sure after a few words. By Laplace's rule, of
    /// which this is the mean and the deviation.
    fn at_least(&self, doubt: f64) -> f64 {
        let surest = |tally: Tally| {
            let words = tally.words + 2.0;
            let mean = ((tally.right + 1.0) / words).clamp(0.0, 1.0);
            mean - (mean * (1.0 - mean) / (words + 1.0)).sqrt()
        };
        // What is surer is right at least as often.
        self.rising(doubt).map(surest).fold(0.0, f64::max)
    }

    /// The share that is right if the next is: one, where nothing was measured.
    fn at_most(&self, doubt: f64) -> f64 {
        self.rising(doubt).last().map_or(1.0, |tally| ((tally.right + 1.0) / (tally.words + 1.0)).clamp(0.0, 1.0))
    }

    /// The tallies up to that of `doubt`, neighbours put together until each is right more often than the one before
    /// (isotonic regression by pooling adjacent violators, <https://doi.org/10.1214/aoms/1177728423>).
    fn rising(&self, doubt: f64) -> impl Iterator<Item = Tally> {
        let mut pools: Vec<(Tally, usize)> = Vec::with_capacity(self.0.len());
        for (index, tally) in self.0.iter().enumerate() {
            let (mut pool, mut first) = (*tally, index);
            while let Some((last, since)) = pools.pop_if(|(last, _)| last.right * pool.words >= pool.right * last.words)
            {
                pool = Tally { words: pool.words + last.words, right: pool.right + last.right };
                first = since;
            }
            pools.push((pool, first));
        }
        let place = place(doubt);
        pools.into_iter().take_while(move |(_, first)| *first <= place).map(|(pool, _)| pool)
    }
}

fn place(doubt: f64) -> usize {
    DOUBTS.iter().take_while(|most| doubt <= **most).count()
}

/// Where tallies begin, after the first.
const DOUBTS: [f64; 10] = [0.5, 0.3, 0.1, 0.03, 0.01, 0.003, 1e-3, 1e-4, 1e-6, 1e-9];

/// Where nothing comes for longer than this, or no answer, it makes no difference when.
const LONGEST_GAP_NS: u64 = 1_000_000_000;

/// Calls, or requests, of a scene to practise on: more come in half a second only where the budget is spent anyway. At some
/// 100 bytes 100 KiB.
const MOST_CALLS: usize = 512;

/// Fewer words show too little of what a process does.
const ENOUGH: f64 = 100.0;

/// Words after which practice becomes rare.
const PLENTY: f64 = 2000.0;

/// One practice in so many walks, then.
const RARELY: u64 = 8;

/// Words after which what is old counts half.
const MEMORY: f64 = 4000.0;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tallies: &[(f64, u32, u32)]) -> Record {
        let mut record = Record::default();
        for (doubt, words, right) in tallies {
            (0..*words).for_each(|word| record.add(*doubt, f64::from(u8::from(word < *right))));
        }
        record
    }

    #[test]
    fn nothing_is_sure_after_a_few_words() {
        for (words, least, most) in [(0, 0.0, 0.3), (10, 0.8, 0.9), (100, 0.97, 0.99), (300, 0.99, 0.995)] {
            let sure = record(&[(1e-5, words, words)]).at_least(1e-5);
            assert!((least..most).contains(&sure), "{sure} after {words}");
        }
    }

    #[test]
    fn what_is_surer_counts_as_right_at_least_as_often() {
        let rows = [
            ("few surer words take over what is known of the others", [(1e-5, 500, 500), (1e-10, 2, 2)]),
            ("what turns out worse makes all worse that is as sure", [(1e-5, 500, 500), (1e-10, 500, 450)]),
        ];
        let sure =
            rows.map(|(_, tallies)| record(&tallies)).map(|record| (record.at_least(1e-5), record.at_least(1e-10)));
        assert!(sure[0].0 > 0.99 && sure[0].0 == sure[0].1, "{}: {:?}", rows[0].0, sure[0]);
        assert!(sure[1].0 < 0.96 && sure[1].0 == sure[1].1, "{}: {:?}", rows[1].0, sure[1]);
    }

    #[test]
    fn what_was_not_measured_raises_no_objection() {
        assert_eq!(record(&[]).at_most(1e-5), 1.0);
        assert_eq!(record(&[(1e-5, 20, 20)]).at_most(1e-5), 1.0);
        assert!(record(&[(1e-5, 20, 18)]).at_most(1e-5) < 0.95);
    }

    #[test]
    fn two_scenes_are_laid_over_each_other_as_they_are() {
        let point = |at: u64| Point { at, tid: 1, ..Point::default() };
        let one = |at: u64| {
            let request = Request { class: 0, came: point(at), answered: Some(point(at + 90)), over: at + 100 };
            let call = Call { kind: 0, made: point(at + 40), heard: Some(point(at + 60)) };
            (vec![request], vec![call])
        };
        for seed in 0..50 {
            let (now, earlier) = (one(10_000), one(1_000));
            let mixed = Mixed::lay((&now.0, &now.1), earlier, seed);
            assert_eq!((mixed.requests.len(), mixed.calls.len()), (2, 2));
            for (call, side) in mixed.calls.iter().zip(&mixed.call_sides) {
                let place = mixed.request_sides.iter().position(|other| other == side);
                let request = &mixed.requests[place.expect("each scene has a request")];
                assert_eq!(call.made.at - request.came.at, 40);
                assert_eq!(request.over - request.came.at, 100);
                assert!((10_000..10_100).contains(&request.came.at), "between two requests of this scene");
            }
        }
    }
}
