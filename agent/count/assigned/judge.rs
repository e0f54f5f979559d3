// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What was right.
//!
//! In: what was said about calls. Out: rows, and the bins of what was claimed. It knows nothing of how it was said.

use std::fmt;

use serde_json::{Value, json};

use super::replay::{Said, Stream};

/// One recording at one density.
pub(crate) struct Row {
    name: String,
    overlay: u32,
    known: u32,
    /// Requests that enclose a call, on average.
    candidates: f64,
    calls: u32,
    /// The likeliest request was the right one, whether it became the parent or not.
    best: u32,
    right: u32,
    wrong: u32,
}

impl Row {
    /// What the columns are.
    pub(crate) const HEAD: &str =
        "recording            laid over  calls  candidates  likeliest right  parents  of these right";

    /// A row without results.
    pub(crate) fn new(name: &str, overlay: u32, known: u32, stream: &Stream) -> Self {
        let exchanges = &stream.exchanges;
        let longest = exchanges.iter().map(|laid| laid.times().1 - laid.times().0).max().unwrap_or_default();
        let (mut calls, mut enclosing) = (0_u32, 0_u32);
        for (index, call) in exchanges.iter().enumerate().filter(|(_, laid)| laid.judged && laid.is_call()) {
            calls += 1;
            let before = exchanges[..index].iter().rev();
            let near = before.take_while(|other| other.times().0 + longest >= call.times().0);
            enclosing += near.filter(|other| other.process() == call.process() && other.encloses(call)).count() as u32;
        }
        let candidates = f64::from(enclosing) / f64::from(calls.max(1));
        Self { name: name.to_owned(), overlay, known, candidates, calls: 0, best: 0, right: 0, wrong: 0 }
    }

    /// One call more.
    pub(crate) fn add(&mut self, said: &Said) {
        self.calls += 1;
        let right = said.best.is_some_and(|(_, right)| right);
        self.best += u32::from(right);
        self.right += u32::from(right && said.is_parent);
        self.wrong += u32::from(!right && said.is_parent);
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "model": self.name,
            "overlay": self.overlay,
            "known_percent": self.known,
            "candidates": self.candidates,
            "calls": self.calls,
            "likeliest_right": self.best,
            "right": self.right,
            "wrong": self.wrong,
            "abstained": self.calls - self.right - self.wrong,
            "methods": {"assigned": self.right + self.wrong},
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, overlay, known: _, candidates, calls, best, right, wrong } = self;
        let share = |part: u32, whole: u32| 100.0 * f64::from(part) / f64::from(whole.max(1));
        let parents = right + wrong;
        write!(
            f,
            "{name:20} {overlay:9}  {calls:5}  {candidates:10.2}  {:13.1} %  {:5.1} %  {:11.2} %",
            share(*best, *calls),
            share(parents, *calls),
            share(*right, parents),
        )
    }
}

/// What was claimed against what was right.
#[derive(Default)]
pub(crate) struct Bins([(f64, u32, u32); EDGES.len() + 1]);

impl Bins {
    /// One call more.
    pub(crate) fn add(&mut self, said: &Said) {
        let Some((claimed, right)) = said.best else { return };
        let (sum, words, good) = &mut self.0[EDGES.iter().take_while(|edge| claimed >= **edge).count()];
        *sum += claimed;
        *words += 1;
        *good += u32::from(right);
    }
}

impl fmt::Display for Bins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nclaimed              calls   claimed     right")?;
        for (index, (sum, words, good)) in self.0.iter().enumerate().filter(|(_, (_, words, _))| *words > 0) {
            let from = index.checked_sub(1).map_or(0.0, |before| EDGES[before]);
            let to = EDGES.get(index).copied().unwrap_or(1.0);
            let words = f64::from(*words);
            let (claimed, right) = (100.0 * sum / words, 100.0 * f64::from(*good) / words);
            writeln!(f, "{from:6.3} to {to:6.3}  {words:8}  {claimed:6.2} %  {right:6.2} %")?;
        }
        Ok(())
    }
}

/// Where bins begin, after the first.
const EDGES: [f64; 8] = [0.000_1, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.995];
