// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How often an assignment is right: measured on requests of the same process whose calls are known.
//!
//! In: such requests with their calls; then, beside each scene to be solved, one of the same density made of them. Out:
//! for a share of the walk, the share of such words that were right. It is not told the answer while it walks, and what
//! it practises on is never learned from. It says nothing until it has practised enough.

use std::collections::VecDeque;

use super::{
    model::Model,
    scene::{self, Call, Calls, Candidates, Point, Request},
    solve::{self, Scene},
};
use crate::table::Table;

/// Requests to practise on, and how it went.
#[derive(Debug, Default)]
pub(super) struct Practice {
    /// Law: known.len() <= MOST_KNOWN.
    known: VecDeque<(Request, Vec<Call>)>,
    /// Known requests that came by.
    offered: u64,
    /// By the share that the walk gave.
    results: [Result; SHARES.len() + 1],
    rounds: u64,
}

/// Words of one share.
#[derive(Clone, Copy, Debug, Default)]
struct Result {
    words: f64,
    right: f64,
}

impl Practice {
    /// Whether the request is kept to practise on: every other one is.
    pub(super) fn takes(&mut self, request: &Request, of: &Calls, calls: &[Call]) -> bool {
        self.offered += 1;
        if self.offered.is_multiple_of(2) || of.len() > MOST_EACH {
            return false;
        }
        if self.known.len() >= MOST_KNOWN {
            self.known.pop_front();
        }
        self.known.push_back((request.clone(), of.iter().map(|call| calls[usize::from(*call)].clone()).collect()));
        true
    }

    /// Practises on a scene in which known requests come when these have come.
    pub(super) fn measure(&mut self, requests: &[Request], model: &Model, seed: u64) {
        self.rounds += 1;
        if self.known.len() < ENOUGH || (self.practised() >= PLENTY && !self.rounds.is_multiple_of(RARELY)) {
            return;
        }
        let mut scene: Vec<(Request, Vec<Call>)> = Vec::new();
        for (index, request) in requests.iter().take(MOST_AT_ONCE).enumerate() {
            let place = (seed as usize).wrapping_mul(31).wrapping_add(index * 7) % self.known.len();
            scene.push(shifted(&self.known[place], request.came.at));
        }
        let (requests, calls, owners) = laid_over(scene);
        let candidates: Vec<Candidates> = calls.iter().map(|call| scene::candidates(&requests, call)).collect();
        let nobody = vec![super::NEVER; calls.len()];
        let scene = Scene { requests: &requests, calls: &calls, candidates: &candidates, nobody: &nobody };
        let solution = solve::solve(&scene, model, seed);
        for ((shares, owner), candidates) in solution.shares.iter().zip(&owners).zip(&candidates) {
            let Some((request, share)) = shares.first().filter(|_| candidates.len() > 1) else { continue };
            let result = &mut self.results[bin(*share)];
            result.words += 1.0;
            result.right += f64::from(u8::from(request == owner));
        }
        if self.practised() > MEMORY {
            for result in &mut self.results {
                result.words /= 2.0;
                result.right /= 2.0;
            }
        }
    }

    /// How sure a word is to which the walk has given `share`; of a call that was `alone` with one request there is
    /// nothing to practise.
    pub(super) fn confidence(&self, share: f32, alone: bool) -> super::Confidence {
        if self.known.len() < ENOUGH {
            return super::Confidence::default();
        }
        if alone {
            return super::Confidence::new(f64::from(share));
        }
        // Laplace's rule: nothing is sure after a few words. What is surer is right at least as often.
        let rates = self.results[..=bin(share)].iter().map(|result| (result.right + 1.0) / (result.words + 2.0));
        super::Confidence::new(rates.fold(0.0, f64::max))
    }

    fn practised(&self) -> f64 {
        self.results.iter().map(|result| result.words).sum()
    }
}

/// The request as if it had come at `at`.
fn shifted((request, calls): &(Request, Vec<Call>), at: u64) -> (Request, Vec<Call>) {
    let from = request.came.at;
    let to = |point: Point| Point { at: point.at - from + at, ..point };
    let request = Request {
        class: request.class,
        came: to(request.came),
        answered: request.answered.map(to),
        over: request.over - from + at,
    };
    let calls =
        calls.iter().map(|call| Call { kind: call.kind, made: to(call.made), heard: call.heard.map(to) }).collect();
    (request, calls)
}

/// One scene of all, and whose each call is.
fn laid_over(parts: Vec<(Request, Vec<Call>)>) -> (Vec<Request>, Vec<Call>, Vec<u16>) {
    let mut requests = Vec::new();
    let mut calls: Vec<(Call, u16)> = Vec::new();
    for (index, (request, of)) in parts.into_iter().enumerate() {
        requests.push(request);
        calls.extend(of.into_iter().map(|call| (call, index as u16)));
    }
    calls.sort_by_key(|(call, _)| call.made.at);
    // Threads go from one request to another now.
    let mut points: Vec<&mut Point> = Vec::new();
    for request in &mut requests {
        points.push(&mut request.came);
        points.extend(&mut request.answered);
    }
    for (call, _) in &mut calls {
        points.push(&mut call.made);
        points.extend(&mut call.heard);
    }
    points.sort_by_key(|point| point.at);
    let mut last: Table<u32, u64> = Table::default();
    for point in points {
        point.before = last.insert(point.tid, point.at).unwrap_or_default();
    }
    let (calls, owners) = calls.into_iter().unzip();
    (requests, calls, owners)
}

fn bin(share: f32) -> usize {
    SHARES.iter().take_while(|least| share >= **least).count()
}

/// Where the bins of shares begin, after the first.
const SHARES: [f32; 7] = [0.5, 0.7, 0.9, 0.97, 0.99, 0.997, 1.0];

/// Requests to practise on. At 5 calls of 64 bytes 100 KiB.
const MOST_KNOWN: usize = 256;

/// Calls of one of them.
const MOST_EACH: usize = 32;

/// Fewer show too little of what a process does.
const ENOUGH: usize = 32;

/// Requests in one practice.
const MOST_AT_ONCE: usize = 128;

/// Words after which practice becomes rare.
const PLENTY: f64 = 2000.0;

/// One practice in so many walks, then.
const RARELY: u64 = 8;

/// Words after which what is old counts half.
const MEMORY: f64 = 8000.0;
