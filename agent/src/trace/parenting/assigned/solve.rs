// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who made which call: a walk through the assignments of one scene, in which each is visited as often as it is likely.
//!
//! In: a scene, the model of the process, and how many steps may be taken. Out: for each call how often it was whose,
//! and where it was always the same one's, how near it was to being another's.
//! Steps move a call, exchange two calls of one kind, or exchange everything from two calls on: what one request is
//! given, another has to do without, so no call is judged by itself. It refuses to decide what is certain enough.

use smallvec::SmallVec;

use super::{
    model::Model,
    scene::{Call, Calls, Candidates, Request},
};
use crate::table::Table;

/// A scene.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// In the order in which they came.
    pub(super) requests: &'a [Request],
    /// In the order in which they were made.
    pub(super) calls: &'a [Call],
    /// For each call the requests that it can belong to.
    pub(super) candidates: &'a [Candidates],
    /// For each call the logarithm of how likely it is nobody's.
    pub(super) nobody: &'a [f64],
}

/// For each call, how often it was whose, most often first, and as one of the assignments has it.
#[derive(Debug)]
pub(super) struct Solution {
    /// Shares of requests; what is missing to one is nobody's.
    pub(super) shares: Vec<SmallVec<[(u16, f32); 4]>>,
    /// For each call the share in which it was not the first one's. Where it always was: the chance to leave, in a round,
    /// [`NEVER_LEFT`] at most. Visits alone cannot tell a chance of one in a thousand from one in a million.
    pub(super) doubts: Vec<f64>,
    /// The last assignment that each walk visited: the calls of each request.
    pub(super) samples: Vec<Vec<Calls>>,
}

/// Nobody.
const NOBODY: u16 = u16::MAX;

struct Walk<'a> {
    scene: &'a Scene<'a>,
    model: &'a Model,
    owner: Vec<u16>,
    of: Vec<Calls>,
    /// How likely each request is as it is.
    now: Vec<f64>,
    known: Table<(u16, Calls), f64>,
    dice: Dice,
    /// Whether this round counts.
    counts: bool,
    /// For each call the sum of the chances of the steps that would have moved it.
    tempted: Vec<f64>,
}

/// Walks.
pub(super) fn solve(scene: &Scene<'_>, model: &Model, seed: u64) -> Solution {
    let mut walk = Walk {
        scene,
        model,
        owner: vec![NOBODY; scene.calls.len()],
        of: vec![Calls::new(); scene.requests.len()],
        now: Vec::new(),
        known: Table::default(),
        dice: Dice(seed),
        counts: false,
        tempted: vec![0.0; scene.calls.len()],
    };
    let mut samples = Vec::with_capacity(CHAINS);
    let mut counts: Vec<SmallVec<[(u16, f32); 4]>> = vec![SmallVec::new(); scene.calls.len()];
    for chain in 0..CHAINS {
        walk.begin(chain);
        walk.counts = false;
        for _ in 0..WARMING {
            walk.sweep();
        }
        walk.counts = true;
        for _ in 0..SWEEPS {
            walk.sweep();
            for (counts, owner) in counts.iter_mut().zip(&walk.owner) {
                if *owner == NOBODY {
                    continue;
                }
                match counts.iter_mut().find(|(of, _)| of == owner) {
                    Some((_, count)) => *count += 1.0,
                    None => counts.push((*owner, 1.0)),
                }
            }
        }
        samples.push(walk.of.clone());
    }
    for counts in &mut counts {
        counts.iter_mut().for_each(|(_, count)| *count /= (CHAINS * SWEEPS) as f32);
        counts.sort_by(|a, b| b.1.total_cmp(&a.1));
    }
    let doubt = |(counts, tempted): (&SmallVec<[(u16, f32); 4]>, &f64)| match counts.first() {
        Some((_, share)) if *share > 1.0 - NEVER_LEFT as f32 => (tempted / (CHAINS * SWEEPS) as f64).min(NEVER_LEFT),
        Some((_, share)) => 1.0 - f64::from(*share),
        None => 1.0,
    };
    let doubts = counts.iter().zip(&walk.tempted).map(doubt).collect();
    Solution { shares: counts, doubts, samples }
}

impl Walk<'_> {
    /// Begins anew, at a place of its own for each chain: each call goes to the request that has made fewest of its kind,
    /// or to the one that is likeliest by what is known up to then.
    fn begin(&mut self, chain: usize) {
        let scene = self.scene;
        self.of.iter_mut().for_each(Calls::clear);
        for call in 0..scene.calls.len() {
            let Call { kind, made, .. } = scene.calls[call];
            let mut best: Option<(f64, u16)> = None;
            for &request in &scene.candidates[call] {
                let of = &self.of[usize::from(request)];
                let worth = if chain == 0 {
                    -(of.iter().filter(|other| scene.calls[usize::from(**other)].kind == kind).count() as f64)
                } else {
                    let mut with = of.clone();
                    with.push(call as u16);
                    let cut = Request { answered: None, over: made.at, ..scene.requests[usize::from(request)].clone() };
                    let likelihood = self.model.likelihood(&cut, &with, scene.calls);
                    let without = self.model.likelihood(&cut, of, scene.calls);
                    likelihood - without + (chain - 1) as f64 * 2.0 * self.dice.unit()
                };
                if best.is_none_or(|(most, _)| worth > most) {
                    best = Some((worth, request));
                }
            }
            self.owner[call] = best.map_or(NOBODY, |(_, request)| request);
            if let Some((_, request)) = best {
                self.of[usize::from(request)].push(call as u16);
            }
        }
        self.now = (0..self.of.len())
            .map(|request| self.model.likelihood(&scene.requests[request], &self.of[request], scene.calls))
            .collect();
    }

    fn sweep(&mut self) {
        for call in 0..self.owner.len() {
            let candidates = &self.scene.candidates[call];
            let choices = candidates.len() + 1;
            if candidates.is_empty() {
                continue;
            }
            for _ in 0..2 {
                let choice = self.dice.below(choices);
                let to = candidates.get(choice).copied().unwrap_or(NOBODY);
                let from = self.owner[call];
                if to == from {
                    continue;
                }
                self.propose(call as u16, from, to);
            }
        }
    }

    fn propose(&mut self, call: u16, from: u16, to: u16) {
        let calls = self.scene.calls;
        let kind = calls[usize::from(call)].kind;
        if from == NOBODY || to == NOBODY || self.dice.below(3) == 0 {
            self.consider(&[(call, to)]);
            return;
        }
        let same: SmallVec<[u16; 4]> =
            self.of[usize::from(to)].iter().copied().filter(|other| calls[usize::from(*other)].kind == kind).collect();
        if same.is_empty() {
            self.consider(&[(call, to)]);
            return;
        }
        let other = same[self.dice.below(same.len())];
        let ways = self.dice.below(4);
        if ways == 3 {
            // Three in a ring.
            let candidates = &self.scene.candidates[usize::from(other)];
            let third = candidates[self.dice.below(candidates.len())];
            if third != from && third != to {
                let same: SmallVec<[u16; 4]> = self.of[usize::from(third)]
                    .iter()
                    .copied()
                    .filter(|other| calls[usize::from(*other)].kind == kind)
                    .collect();
                if !same.is_empty() {
                    let last = same[self.dice.below(same.len())];
                    self.consider(&[(call, to), (other, third), (last, from)]);
                    return;
                }
            }
        }
        if ways == 0 {
            self.consider(&[(call, to), (other, from)]);
            return;
        }
        // Everything from these two on.
        let rest = |request: u16, since: u16, to: u16| {
            let of = &self.of[usize::from(request)];
            of.iter().copied().filter(move |call| *call >= since).map(move |call| (call, to))
        };
        let moves: SmallVec<[(u16, u16); 8]> = rest(from, call, to).chain(rest(to, other, from)).collect();
        self.consider(&moves);
    }

    /// Takes the moves if the dice say so.
    fn consider(&mut self, moves: &[(u16, u16)]) {
        for (call, to) in moves {
            if *to != NOBODY && !self.scene.candidates[usize::from(*call)].contains(to) {
                return;
            }
        }
        let mut touched = SmallVec::<[u16; 3]>::new();
        let mut gain = 0.0;
        for (call, to) in moves {
            let nobody = self.scene.nobody[usize::from(*call)];
            let from = self.owner[usize::from(*call)];
            for request in [from, *to] {
                if request == NOBODY {
                    gain += if request == from { -nobody } else { nobody };
                } else if !touched.contains(&request) {
                    touched.push(request);
                }
            }
        }
        let mut after = SmallVec::<[(u16, Calls, f64); 3]>::new();
        for request in touched {
            let mut of: Calls = self.of[usize::from(request)]
                .iter()
                .copied()
                .filter(|call| !moves.iter().any(|(moved, _)| moved == call))
                .chain(moves.iter().filter(|(_, to)| *to == request).map(|(call, _)| *call))
                .collect();
            of.sort_unstable();
            let likelihood = self.likelihood(request, &of);
            gain += likelihood - self.now[usize::from(request)];
            after.push((request, of, likelihood));
        }
        if self.counts {
            let chance = gain.exp().min(1.0);
            moves.iter().for_each(|(call, _)| self.tempted[usize::from(*call)] += chance);
        }
        if gain < 0.0 && self.dice.unit() >= gain.exp() {
            return;
        }
        for (call, to) in moves {
            self.owner[usize::from(*call)] = *to;
        }
        for (request, of, likelihood) in after {
            self.of[usize::from(request)] = of;
            self.now[usize::from(request)] = likelihood;
        }
    }

    fn likelihood(&mut self, request: u16, of: &Calls) -> f64 {
        let key = (request, of.clone());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        let likelihood = self.model.likelihood(&self.scene.requests[usize::from(request)], of, self.scene.calls);
        if self.known.len() < MOST_KNOWN {
            self.known.insert(key, likelihood);
        }
        likelihood
    }
}

/// Numbers that follow from the first alone, so that a replay takes the same steps: SplitMix64
/// (<https://doi.org/10.1145/2714064.2660195>).
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`, which is not zero.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Rounds through all calls in which a walk settles. Beginning hot, with steps that make things worse taken lightly, was
/// no better (2026-11).
const WARMING: usize = 60;

/// Rounds that count.
const SWEEPS: usize = 80;

/// Walks from different places: one that gets stuck in a corner is outvoted, and where all agree the word is good. With
/// one walk 96.5 % of a service's calls were right at three times its load, with three 99.6 % (2026-11).
const CHAINS: usize = 3;

/// Less than one visit of a walk, as a share of all.
const NEVER_LEFT: f64 = 0.002;

/// Requests with some calls whose likelihood is kept for the walk. At some 60 bytes 1 MiB.
const MOST_KNOWN: usize = 16 << 10;
