// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Thresholds that follow the traffic: so many traces a second, or a share of a budget of spans.
//!
//! In: what was offered under a key (a service and a route), and the time. Out: the [`Threshold`] for the next trace of
//! the key. A threshold depends on what was seen before and never on the trace it is for, so that what it says about
//! the trace's weight is true. It drops nothing itself and knows no spans.

use std::{collections::HashMap, sync::Arc, time::Duration};

use foldhash::fast::FixedState;

use super::{settings::Adaptive, threshold::Threshold};
use crate::time::Timestamp;

/// A service and a route: what is limited on its own.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Key {
    pub(super) service: Arc<str>,
    pub(super) route: Arc<str>,
}

/// What was seen of every key.
#[derive(Debug)]
pub(super) struct Rates {
    /// Law: at most [`MOST_KEYS`] and the one that the others share.
    keys: HashMap<Key, Rate, FixedState>,
    /// The window of the budget that all keys share.
    window: Window,
    /// Halved while a window's budget is spent before the window is over.
    squeeze: f64,
    /// Traces that had to share a key.
    crowded: u64,
}

/// One key's traffic.
#[derive(Clone, Copy, Debug)]
struct Rate {
    window: Window,
    /// Traces a second in the windows before, the last one counting most.
    traces: f64,
    /// Spans of a trace, likewise.
    size: f64,
    /// The share to keep.
    probability: f64,
    /// Whether a window was seen to its end.
    known: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Timestamp,
    offered: f64,
    /// Spans, of what was offered.
    spans: f64,
    /// Traces (of one key) or spans (of all) that were kept.
    kept: f64,
}

impl Rates {
    /// Nothing was seen; `seed` keeps routes, which peers choose, from colliding on purpose.
    pub(super) fn new(seed: u64) -> Self {
        let keys = HashMap::with_hasher(FixedState::with_seed(seed));
        Self { keys, window: Window::default(), squeeze: 1.0, crowded: 0 }
    }

    /// Traces whose key had no room.
    pub(super) fn crowded(&self) -> u64 {
        self.crowded
    }

    /// The threshold of the next trace of `key`, of which no more than `limit` a second are to be kept.
    pub(super) fn limited(&mut self, key: &Key, limit: f64, now: Timestamp) -> Threshold {
        // Long enough for a few traces, so that a limit below one a second means something.
        let length = WINDOW.max(Duration::from_secs_f64((FEWEST / limit).min(LONGEST_WINDOW)));
        let budget = (limit * length.as_secs_f64()).max(1.0);
        let rate = self.rate(key, now);
        if now.since(rate.window.since) >= length {
            let seconds = now.since(rate.window.since).as_secs_f64();
            rate.learn(seconds, now);
            rate.probability = (limit / rate.traces).min(1.0);
        } else if rate.window.kept >= budget {
            // Spent before its time: what still comes is kept half as often, and half of that if it is not enough.
            rate.probability /= 2.0;
            rate.window.kept -= (budget / SLACK).max(1.0);
        }
        rate.window.offered += 1.0;
        rate.window.spans += 1.0;
        Threshold::of_probability(rate.probability)
    }

    /// The threshold of the next trace of `key`, which has `spans`, where all keys together have a budget.
    pub(super) fn adaptive(&mut self, key: &Key, spans: usize, settings: Adaptive, now: Timestamp) -> Threshold {
        let length = ADAPTIVE_WINDOW;
        if now.since(self.window.since) >= length {
            self.share(settings, now);
        } else if self.window.kept >= settings.spans_per_second * length.as_secs_f64() {
            self.squeeze /= 2.0;
            self.window.kept -= settings.spans_per_second * length.as_secs_f64() / SLACK;
        }
        let squeeze = self.squeeze;
        let rate = self.rate(key, now);
        rate.window.offered += 1.0;
        rate.window.spans += spans as f64;
        // The floor is for whoever is rare so far, or was in the window before.
        let floor = settings.floor * length.as_secs_f64();
        let expected = if rate.known { rate.traces * length.as_secs_f64() } else { 0.0 };
        let rare = (floor / rate.window.offered.max(expected)).min(1.0);
        Threshold::of_probability((rate.probability * squeeze).max(rare))
    }

    /// A trace of `key` with `spans` was kept.
    pub(super) fn kept(&mut self, key: &Key, spans: usize) {
        self.window.kept += spans as f64;
        let key = if self.keys.contains_key(key) { key.clone() } else { shared() };
        if let Some(rate) = self.keys.get_mut(&key) {
            rate.window.kept += 1.0;
        }
    }

    /// Divides the budget anew: every key gets what it needs up to the level at which the budget is spent.
    fn share(&mut self, settings: Adaptive, now: Timestamp) {
        let seconds = now.since(self.window.since).as_secs_f64();
        let idle = now.since(self.window.since) >= 2 * ADAPTIVE_WINDOW;
        self.window = Window { since: now, ..Window::default() };
        self.squeeze = 1.0;
        // Silent for a whole window, or since the windows stood still: its place is free.
        self.keys.retain(|_, rate| rate.window.offered > 0.0 && !idle);
        let mut needs: Vec<f64> = Vec::with_capacity(self.keys.len());
        for rate in self.keys.values_mut() {
            rate.learn(seconds, now);
            needs.push(rate.traces * rate.size);
        }
        let level = level(&mut needs, settings.spans_per_second);
        for rate in self.keys.values_mut() {
            rate.probability = (level / (rate.traces * rate.size)).min(1.0);
        }
    }

    fn rate(&mut self, key: &Key, now: Timestamp) -> &mut Rate {
        let full = self.keys.len() >= MOST_KEYS && !self.keys.contains_key(key);
        if full {
            self.crowded += 1;
        }
        let key = if full { shared() } else { key.clone() };
        self.keys.entry(key).or_insert_with(|| Rate::begin(now))
    }
}

impl Rate {
    fn begin(now: Timestamp) -> Self {
        let window = Window { since: now, ..Window::default() };
        Self { window, traces: 0.0, size: 1.0, probability: 1.0, known: false }
    }

    /// The window is over after `seconds`.
    fn learn(&mut self, seconds: f64, now: Timestamp) {
        let Window { offered, spans, .. } = self.window;
        let (traces, size) = (offered / seconds.max(f64::MIN_POSITIVE), spans / offered.max(1.0));
        let blend = |old: f64, new: f64| if self.known { (old + new) / 2.0 } else { new };
        // More than before counts at once, less only by and by: a burst is not answered by the share of a quiet time.
        self.traces = blend(self.traces, traces).max(traces).max(f64::MIN_POSITIVE);
        self.size = blend(self.size, size).max(1.0);
        self.known = true;
        self.window = Window { since: now, ..Window::default() };
    }
}

/// The level at which `needs`, each cut off there, make `budget` together.
fn level(needs: &mut [f64], budget: f64) -> f64 {
    needs.sort_unstable_by(f64::total_cmp);
    let (mut left, mut count) = (budget, needs.len() as f64);
    for need in needs {
        if *need * count > left {
            return left / count;
        }
        left -= *need;
        count -= 1.0;
    }
    f64::INFINITY
}

fn shared() -> Key {
    Key { service: "".into(), route: "".into() }
}

/// How often a limit is looked at.
const WINDOW: Duration = Duration::from_secs(1);

/// How often a budget is divided anew: long enough to see what is rare.
const ADAPTIVE_WINDOW: Duration = Duration::from_secs(5);

/// Traces in a window, at least, by which its length is chosen; and the longest, in seconds.
const FEWEST: f64 = 4.0;
const LONGEST_WINDOW: f64 = 60.0;

/// The part of a budget after which a spent one is squeezed once more.
const SLACK: f64 = 4.0;

/// Services and routes that are limited on their own: 100 bytes each. The bound on series of a metric is the same.
const MOST_KEYS: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn key(route: &str) -> Key {
        Key { service: "shop".into(), route: route.into() }
    }

    /// A number from 0 to 1 that depends on `n` and looks random (splitmix64).
    fn chance(n: u64) -> f64 {
        let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Kept traces and the sum of their adjusted counts, of `rate` a second for `seconds`.
    fn play(rates: &mut Rates, from: u64, seconds: u64, rate: u64, limit: f64) -> (f64, f64) {
        let (mut kept, mut adjusted) = (0.0, 0.0);
        for n in 0..seconds * rate {
            let now = Timestamp((from * SECOND) + n * SECOND / rate);
            let threshold = rates.limited(&key("/"), limit, now);
            if chance(from * 1_000_000 + n) < threshold.probability() {
                rates.kept(&key("/"), 1);
                kept += 1.0;
                adjusted += 1.0 / threshold.probability();
            }
        }
        (kept, adjusted)
    }

    #[test]
    fn a_limit_is_kept_to_and_weights_add_up_to_what_was_offered() {
        let mut rates = Rates::new(1);
        let (kept, adjusted) = play(&mut rates, 1, 200, 500, 10.0);
        // Never more than the limit by more than the first window's excess and chance: 4σ of 2,000 is 180.
        assert!((1_500.0..2_300.0).contains(&kept), "{kept}");
        // Each of the 100,000 has an expected weight of 1; the deviation is about sqrt(100,000 × 50).
        assert!((adjusted - 100_000.0).abs() < 4.0 * (100_000.0_f64 * 60.0).sqrt(), "{adjusted}");
    }

    #[test]
    fn what_is_below_the_limit_is_kept_whole() {
        let mut rates = Rates::new(1);
        assert_eq!(play(&mut rates, 1, 60, 5, 10.0), (300.0, 300.0));
    }

    #[test]
    fn a_burst_is_over_before_it_costs_much() {
        let mut rates = Rates::new(1);
        play(&mut rates, 1, 10, 5, 10.0);
        let (kept, _) = play(&mut rates, 11, 1, 20_000, 10.0);
        assert!(kept < 60.0, "{kept} of 20,000");
    }

    #[test]
    fn a_limit_below_one_a_second_holds_over_a_minute() {
        let mut rates = Rates::new(1);
        let (kept, _) = play(&mut rates, 1, 1_200, 20, 0.1);
        assert!((60.0..220.0).contains(&kept), "{kept} for 120");
    }

    #[test]
    fn a_budget_is_shared_and_the_rare_keep_everything() {
        let mut rates = Rates::new(1);
        let settings = Adaptive { spans_per_second: 100.0, floor: 0.2 };
        let mut kept = [0.0; 3];
        let mut adjusted = [0.0; 3];
        let routes = [key("/hot"), key("/warm"), key("/rare")];
        for n in 0..60 * 1_000_u64 {
            let now = Timestamp(SECOND + n * SECOND / 1_000);
            // 900 a second, 99.9, and 0.1.
            let route = match n % 10_000 {
                7 => 2,
                n if n % 10 == 3 => 1,
                _ => 0,
            };
            let threshold = rates.adaptive(&routes[route], 2, settings, now);
            if chance(n) < threshold.probability() {
                rates.kept(&routes[route], 2);
                kept[route] += 1.0;
                adjusted[route] += 1.0 / threshold.probability();
            }
        }
        assert_eq!(kept[2], 6.0, "the rare route is kept whole: {kept:?}");
        let spans: f64 = kept.iter().sum::<f64>() * 2.0;
        assert!((4_500.0..7_500.0).contains(&spans), "{spans} for 6,000");
        assert!(kept[1] > kept[0] * 0.5, "the crowded one does not crowd out the other: {kept:?}");
        for (adjusted, offered) in adjusted.into_iter().zip([53_994.0_f64, 6_000.0, 6.0]) {
            assert!((adjusted - offered).abs() <= 4.0 * (offered * 40.0).sqrt(), "{adjusted} for {offered}");
        }
    }

    #[test]
    fn a_crowded_route_keeps_its_floor() {
        let mut rates = Rates::new(1);
        let settings = Adaptive { spans_per_second: 1.0, floor: 1.0 };
        let mut kept = 0;
        for n in 0..100_000_u64 {
            let now = Timestamp(SECOND + n * SECOND / 1_000);
            if chance(n) < rates.adaptive(&key("/"), 10, settings, now).probability() {
                rates.kept(&key("/"), 10);
                kept += 1;
            }
        }
        assert!((60..260).contains(&kept), "{kept} for 100");
    }

    #[test]
    fn routes_beyond_the_bound_share_a_key_and_are_counted() {
        let mut rates = Rates::new(1);
        for n in 0..MOST_KEYS + 10 {
            rates.limited(&key(&format!("/{n}")), 1.0, Timestamp(SECOND));
        }
        assert_eq!((rates.keys.len(), rates.crowded()), (MOST_KEYS + 1, 10));
    }
}
