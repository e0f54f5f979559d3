// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A mergeable sketch of a distribution: OpenTelemetry's base-2 exponential histogram.
//!
//! In: positive numbers. Out: counts in buckets whose bounds grow by one factor, quantiles with a known error, and the
//! difference to an earlier state. It never takes more than [`MOST_BUCKETS`]: where the numbers spread further, pairs of
//! buckets become one.
//!
//! <https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram>

/// The sketch. Bucket `i` holds what is in (b^i, b^(i+1)], where b = 2^(2^-scale).
#[derive(Clone, Debug, PartialEq)]
pub struct Exponential {
    scale: i32,
    /// Numbers that are not positive.
    zero: u64,
    /// Index of the first bucket.
    offset: i32,
    /// Law: counts.len() <= MOST_BUCKETS, and its first and last are not 0.
    counts: Vec<u64>,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { scale: FINEST, zero: 0, offset: 0, counts: Vec::new() }
    }
}

impl Exponential {
    /// Counts `value`.
    pub fn record(&mut self, value: f64) {
        if !(value > 0.0 && value.is_finite()) {
            self.zero += 1;
            return;
        }
        let index = self.cover(index(value, self.scale));
        self.counts[index] += 1;
    }

    /// Counts everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.zero += other.zero;
        if other.counts.is_empty() {
            return;
        }
        let mut other = other.clone();
        self.coarsen(other.scale);
        other.coarsen(self.scale);
        for end in [other.offset, other.offset + other.counts.len() as i32 - 1] {
            // Both ends are covered before anything moves; covering may make the buckets coarser.
            self.cover(end >> (other.scale - self.scale).max(0));
        }
        other.coarsen(self.scale);
        for (index, count) in (other.offset..).zip(&other.counts) {
            let at = self.cover(index);
            self.counts[at] += count;
        }
        self.trim();
    }

    /// What was counted since `earlier`, an earlier state of the same sketch.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut earlier = earlier.clone();
        earlier.coarsen(self.scale);
        let mut new = self.clone();
        new.zero = new.zero.saturating_sub(earlier.zero);
        for (index, count) in (earlier.offset..).zip(&earlier.counts) {
            if let Some(at) = usize::try_from(index - new.offset).ok().and_then(|at| new.counts.get_mut(at)) {
                *at = at.saturating_sub(*count);
            }
        }
        new.trim();
        new
    }

    /// How many numbers there are.
    pub fn count(&self) -> u64 {
        self.zero + self.counts.iter().sum::<u64>()
    }

    /// The number below which the share `quantile` of all numbers is: off by half a bucket at most, which is 1 % for
    /// numbers within a factor of 8, 2 % within 60 and 4 % within 10,000.
    pub fn quantile(&self, quantile: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = self.zero;
        if rank <= seen {
            return Some(0.0);
        }
        for (index, bucket) in (self.offset..).zip(&self.counts) {
            seen += bucket;
            if rank <= seen {
                return Some(((f64::from(index) + 0.5) * (-f64::from(self.scale)).exp2()).exp2());
            }
        }
        None
    }

    /// OTLP's `scale`, `zero_count`, and `offset` and `bucket_counts` of the positive range.
    pub fn parts(&self) -> (i32, u64, i32, &[u64]) {
        (self.scale, self.zero, self.offset, &self.counts)
    }

    /// The place of the bucket `index`, which exists from now on; the buckets become coarser as long as there is no room.
    fn cover(&mut self, mut index: i32) -> usize {
        if self.counts.is_empty() {
            self.offset = index;
            self.counts.push(0);
            return 0;
        }
        loop {
            let (low, high) = (self.offset.min(index), (self.offset + self.counts.len() as i32 - 1).max(index));
            if ((high - low) as usize) < MOST_BUCKETS {
                let missing = (self.offset - low) as usize;
                if missing > 0 {
                    self.counts.splice(0..0, std::iter::repeat_n(0, missing));
                    self.offset = low;
                }
                let length = (high - low + 1) as usize;
                if self.counts.len() < length {
                    self.counts.resize(length, 0);
                }
                return (index - low) as usize;
            }
            self.coarsen(self.scale - 1);
            index >>= 1;
        }
    }

    /// Brings the buckets to `scale`, unless they are that coarse.
    fn coarsen(&mut self, scale: i32) {
        while self.scale > scale {
            let mut coarse = Vec::with_capacity(self.counts.len() / 2 + 1);
            let offset = self.offset >> 1;
            for (index, count) in (self.offset..).zip(&self.counts) {
                let at = ((index >> 1) - offset) as usize;
                if at == coarse.len() {
                    coarse.push(0);
                }
                coarse[at] += count;
            }
            (self.scale, self.offset, self.counts) = (self.scale - 1, offset, coarse);
        }
    }

    fn trim(&mut self) {
        while self.counts.last() == Some(&0) {
            self.counts.pop();
        }
        let empty = self.counts.iter().take_while(|count| **count == 0).count();
        self.counts.drain(..empty);
        self.offset += empty as i32;
    }
}

/// The bucket of a positive, finite `value`.
fn index(value: f64, scale: i32) -> i32 {
    // Powers of two are upper bounds of their buckets, and their logarithm is exact where others are rounded.
    let exact = value.log2() * f64::from(scale).exp2();
    exact.ceil() as i32 - 1
}

/// The specification's default (`MaxSize`).
const MOST_BUCKETS: usize = 160;

/// Where a sketch begins: 0.07 % a bucket. Finer ones would only be made coarser one by one.
const FINEST: i32 = 10;

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn sketch(values: &[f64]) -> Exponential {
        let mut sketch = Exponential::default();
        values.iter().for_each(|value| sketch.record(*value));
        sketch
    }

    #[test]
    fn bounds_belong_to_the_bucket_below() {
        for (value, scale, expected) in [
            (1.0, 0, -1),
            (1.1, 0, 0),
            (2.0, 0, 0),
            (4.0, 0, 1),
            (0.5, 0, -2),
            (4.0, 2, 7),
            (4.1, 2, 8),
            (4.0, -1, 0),
            (5.0, -1, 1),
        ] {
            assert_eq!(index(value, scale), expected, "{value} at {scale}");
        }
    }

    #[test]
    fn what_is_no_positive_number_counts_as_zero() {
        let sketch = sketch(&[0.0, -1.0, f64::NAN, f64::INFINITY, 1.0]);
        assert_eq!((sketch.count(), sketch.zero), (5, 4));
        assert_eq!((sketch.quantile(0.5), Exponential::default().quantile(0.5)), (Some(0.0), None));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn quantiles_are_as_exact_as_claimed(values in vec(0.001_f64..10.0, 1..400), quantile in 0.01_f64..1.0) {
            let sketch = sketch(&values);
            prop_assert!(sketch.counts.len() <= MOST_BUCKETS);
            prop_assert_eq!(sketch.count(), values.len() as u64);
            let mut sorted = values;
            sorted.sort_unstable_by(f64::total_cmp);
            let rank = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
            let (exact, told) = (sorted[rank - 1], sketch.quantile(quantile).expect("values"));
            prop_assert!((told / exact - 1.0).abs() < 0.045, "{told} for {exact}");
        }

        #[test]
        fn a_merge_is_as_if_one_had_counted_all(
            one in vec(1e-9_f64..1e9, 0..50),
            other in vec(1e-3_f64..1.0, 0..50),
        ) {
            let mut merged = sketch(&one);
            merged.merge(&sketch(&other));
            let mut all = sketch(&[one, other].concat());
            prop_assert_eq!(merged.count(), all.count());
            prop_assert!(merged.counts.len() <= MOST_BUCKETS);
            // Which came first may have left one of them coarser.
            let scale = merged.scale.min(all.scale);
            merged.coarsen(scale);
            all.coarsen(scale);
            prop_assert_eq!(merged, all);
        }

        #[test]
        fn a_difference_is_what_came_in_between(before in vec(1e-6_f64..1e3, 0..50), after in vec(1e-6_f64..1e3, 0..50)) {
            let earlier = sketch(&before);
            let mut later = earlier.clone();
            after.iter().for_each(|value| later.record(*value));
            let mut expected = sketch(&after);
            expected.coarsen(later.scale);
            let new = later.since(&earlier);
            prop_assert_eq!(new.count(), after.len() as u64);
            prop_assert_eq!(&new.counts, &expected.counts);
        }
    }
}
