// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The series of one metric: what was counted, by resource and labels.
//!
//! In: labels with something to count. Out: [`Point`]s. It never has more series, or more values of one label, than its
//! bounds: what is beyond goes into a series of its own, `otel.metric.overflow`, and is counted. It knows no spans.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::exponential::Exponential;
use crate::{
    attribute::Value,
    context::{SpanId, TraceId},
    enrich::Resource,
    time::Timestamp,
};

/// The labels of a series: names with their values, always in the same order for one metric.
pub type Labels = Vec<(&'static str, Value)>;

/// One series, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Whose it is; the agent's own where there is none.
    pub resource: Option<Arc<Resource>>,
    /// What tells it from the others.
    pub labels: Labels,
    /// When it began.
    pub since: Timestamp,
    /// Its value.
    pub data: Data,
}

/// What is counted.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Only ever grows.
    Counter(f64),
    /// Is what it is.
    Gauge(f64),
    /// A distribution.
    Histogram(Box<Histogram>),
}

/// A distribution, in fixed buckets and as a sketch.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// Upper bounds, inclusive: all but the last bucket's.
    pub bounds: &'static [f64],
    /// Law: buckets.len() == bounds.len() + 1.
    pub buckets: Vec<u64>,
    /// Of all values.
    pub sum: f64,
    /// The same values.
    pub sketch: Exponential,
    /// By bucket, the last traced value. Empty before the first.
    pub exemplars: Vec<Option<Exemplar>>,
}

/// A value, and the span it was measured by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// The span's trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
    /// The value.
    pub value: f64,
    /// When it was.
    pub at: Timestamp,
}

/// All series of a metric.
#[derive(Debug)]
pub(super) struct Instrument {
    bounds: &'static [f64],
    series: HashTable<Series>,
    hasher: FixedState,
    limits: Limits,
    /// What each label has said so far. Law: every set is at most `limits.values`.
    values: BTreeMap<&'static str, HashSet<Box<str>>>,
    /// How often something went into an overflow series.
    overflown: u64,
}

/// Bounds of every metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    pub(super) series: usize,
    pub(super) values: usize,
}

#[derive(Debug)]
struct Series {
    point: Point,
    used: Timestamp,
}

impl Instrument {
    /// A counter (without `bounds`) or a histogram; `seed` keeps labels, which peers choose, from colliding on purpose.
    pub(super) fn new(bounds: &'static [f64], limits: Limits, seed: u64) -> Self {
        Self {
            bounds,
            series: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            limits,
            values: BTreeMap::new(),
            overflown: 0,
        }
    }

    /// Counts `value` in the series of `resource` and `labels`.
    pub(super) fn record(
        &mut self,
        resource: Option<&Arc<Resource>>,
        labels: &[(&'static str, &Value)],
        value: f64,
        now: Timestamp,
    ) {
        let hash = self.hash(resource, labels);
        // Nearly always it is known.
        match self.series.find_mut(hash, |series| series.is(resource, labels)) {
            Some(series) => series.record(value, now),
            None => self.made(hash, resource, labels, now).record(value, now),
        }
    }

    /// Remembers the span of a value that was recorded with the same labels.
    pub(super) fn exemplify(
        &mut self,
        resource: Option<&Arc<Resource>>,
        labels: &[(&'static str, &Value)],
        exemplar: Exemplar,
    ) {
        let hash = self.hash(resource, labels);
        let found = self.series.find_mut(hash, |series| series.is(resource, labels));
        if let Some(Data::Histogram(histogram)) = found.map(|series| &mut series.point.data) {
            histogram.exemplify(exemplar);
        }
    }

    /// How many series there are, and how many there may be, without those of what overflows.
    pub(super) fn fill(&self) -> (usize, usize) {
        (self.series.len(), self.limits.series)
    }

    /// Every series.
    pub(super) fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().map(|series| &series.point)
    }

    /// How often something went into an overflow series.
    pub(super) fn overflown(&self) -> u64 {
        self.overflown
    }

    /// Forgets what was silent for as long as `idle`.
    pub(super) fn expire(&mut self, now: Timestamp, idle: Duration) {
        let before = self.series.len();
        self.series.retain(|series| now.since(series.used) < idle);
        if self.series.len() < before {
            // What the labels that are left say; the others' values have room again.
            self.values.clear();
            for series in &self.series {
                for (label, value) in &series.point.labels {
                    self.values.entry(*label).or_default().insert(value.to_string().into());
                }
            }
        }
    }

    /// A series that was not there, or the one for those that have no room.
    fn made(
        &mut self,
        hash: u64,
        resource: Option<&Arc<Resource>>,
        labels: &[(&'static str, &Value)],
        now: Timestamp,
    ) -> &mut Series {
        if self.has_room(labels) {
            return self.entry(hash, resource, labels, now);
        }
        self.overflown += 1;
        // "The SDK MUST create an Aggregator with the overflow attribute set": one for each service instance as long as
        // there is room for that, else one for all.
        let overflow = Value::Static("true");
        let labels = [(OVERFLOW, &overflow)];
        let hash = self.hash(resource, &labels);
        let known = self.series.find(hash, |series| series.is(resource, &labels)).is_some();
        let resource = if known || self.series.len() < 2 * self.limits.series { resource } else { None };
        let hash = self.hash(resource, &labels);
        self.entry(hash, resource, &labels, now)
    }

    fn entry(
        &mut self,
        hash: u64,
        resource: Option<&Arc<Resource>>,
        labels: &[(&'static str, &Value)],
        now: Timestamp,
    ) -> &mut Series {
        let Self { series, hasher, bounds, .. } = self;
        let entry = series.entry(
            hash,
            |series| series.is(resource, labels),
            |series| {
                let labels: Vec<_> = series.point.labels.iter().map(|(name, value)| (*name, value)).collect();
                hash_of(hasher, series.point.resource.as_ref(), &labels)
            },
        );
        entry
            .or_insert_with(|| Series {
                point: Point {
                    resource: resource.cloned(),
                    labels: labels.iter().map(|(name, value)| (*name, Value::clone(value))).collect(),
                    since: now,
                    data: match *bounds {
                        [] => Data::Counter(0.0),
                        bounds => Data::Histogram(Box::new(Histogram::new(bounds))),
                    },
                },
                used: now,
            })
            .into_mut()
    }

    /// Whether there is room for a series with `labels`, whose values are remembered then.
    fn has_room(&mut self, labels: &[(&'static str, &Value)]) -> bool {
        if self.series.len() >= self.limits.series {
            return false;
        }
        let texts: Vec<(&'static str, Box<str>)> =
            labels.iter().map(|(label, value)| (*label, value.to_string().into())).collect();
        let fits = texts.iter().all(|(label, text)| {
            self.values.get(label).is_none_or(|known| known.len() < self.limits.values || known.contains(text))
        });
        if fits {
            for (label, text) in texts {
                self.values.entry(label).or_default().insert(text);
            }
        }
        fits
    }

    fn hash(&self, resource: Option<&Arc<Resource>>, labels: &[(&'static str, &Value)]) -> u64 {
        hash_of(&self.hasher, resource, labels)
    }
}

impl Series {
    fn record(&mut self, value: f64, now: Timestamp) {
        self.used = now;
        match &mut self.point.data {
            Data::Counter(sum) | Data::Gauge(sum) => *sum += value,
            Data::Histogram(histogram) => histogram.record(value),
        }
    }

    fn is(&self, resource: Option<&Arc<Resource>>, labels: &[(&'static str, &Value)]) -> bool {
        let same = |ours: &(&'static str, Value), theirs: &(&'static str, &Value)| {
            // Names are constants: mostly they are the same one, and need not be read.
            (std::ptr::eq(ours.0, theirs.0) || ours.0 == theirs.0)
                && match (&ours.1, theirs.1) {
                    (Value::Int(ours), Value::Int(theirs)) => ours == theirs,
                    (ours, theirs) => ours.as_str() == theirs.as_str(),
                }
        };
        is_same(self.point.resource.as_ref(), resource)
            && self.point.labels.len() == labels.len()
            && self.point.labels.iter().zip(labels).all(|(ours, theirs)| same(ours, theirs))
    }
}

/// Whether both are the same service instance; a process that executes another program is another one.
fn is_same(ours: Option<&Arc<Resource>>, theirs: Option<&Arc<Resource>>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => {
            Arc::ptr_eq(ours, theirs) || ours.process == theirs.process && ours.service == theirs.service
        }
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

fn hash_of(hasher: &FixedState, resource: Option<&Arc<Resource>>, labels: &[(&'static str, &Value)]) -> u64 {
    let mut hash = hasher.build_hasher();
    if let Some(resource) = resource {
        resource.process.hash(&mut hash);
    }
    // Values tell series apart; the names are those of the metric, of which some may be missing.
    for (name, value) in labels {
        hash.write_usize(name.len());
        match value {
            Value::Int(number) => number.hash(&mut hash),
            value => value.as_str().unwrap_or_default().hash(&mut hash),
        }
    }
    hash.finish()
}

impl Histogram {
    /// An empty one.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = vec![0; bounds.len() + 1];
        Self { bounds, buckets, sum: 0.0, sketch: Exponential::default(), exemplars: Vec::new() }
    }

    /// Counts `value`.
    pub fn record(&mut self, value: f64) {
        let bucket = self.bucket(value);
        self.buckets[bucket] += 1;
        self.sum += value;
        self.sketch.record(value);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What was counted since `earlier`, an earlier state of the same distribution.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            bounds: self.bounds,
            buckets: self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum - earlier.sum,
            sketch: self.sketch.since(&earlier.sketch),
            exemplars: self.exemplars.clone(),
        }
    }

    fn exemplify(&mut self, exemplar: Exemplar) {
        if self.exemplars.is_empty() {
            self.exemplars = vec![None; self.buckets.len()];
        }
        let bucket = self.bucket(exemplar.value);
        self.exemplars[bucket] = Some(exemplar);
    }

    fn bucket(&self, value: f64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }
}

/// "a boolean attribute `otel.metric.overflow` with value `true`".
pub(crate) const OVERFLOW: &str = "otel.metric.overflow";

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[f64] = &[0.1, 1.0];
    const LIMITS: Limits = Limits { series: 4, values: 3 };

    fn said(instrument: &Instrument) -> Vec<String> {
        let mut said: Vec<_> = instrument
            .points()
            .map(|point| {
                let labels: Vec<_> = point.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let count = match &point.data {
                    Data::Histogram(histogram) => histogram.count() as f64,
                    Data::Counter(count) | Data::Gauge(count) => *count,
                };
                format!("{} {count}", labels.join(","))
            })
            .collect();
        said.sort();
        said
    }

    fn count(instrument: &mut Instrument, path: &str, at: u64) {
        let path = Value::Text(path.into());
        instrument.record(None, &[("path", &path)], 1.0, Timestamp(at));
    }

    #[test]
    fn bounds_are_inclusive() {
        let mut histogram = Histogram::new(BOUNDS);
        for value in [0.05, 0.1, 0.11, 1.0, 1.1] {
            histogram.record(value);
        }
        assert_eq!(histogram.buckets, [2, 2, 1]);
        assert_eq!(histogram.count(), 5);
    }

    #[test]
    fn a_label_with_too_many_values_overflows_and_nothing_is_lost() {
        let mut counter = Instrument::new(&[], LIMITS, 1);
        for path in ["/a", "/b", "/c", "/d", "/e", "/a"] {
            count(&mut counter, path, 0);
        }
        let expected = ["otel.metric.overflow=true 2", "path=/a 2", "path=/b 1", "path=/c 1"];
        assert_eq!(said(&counter), expected);
        assert_eq!(counter.overflown(), 2);
    }

    #[test]
    fn so_do_too_many_series() {
        let mut counter = Instrument::new(&[], Limits { series: 2, values: 100 }, 1);
        for path in ["/a", "/b", "/c", "/d"] {
            count(&mut counter, path, 0);
        }
        assert_eq!(said(&counter), ["otel.metric.overflow=true 2", "path=/a 1", "path=/b 1"]);
    }

    #[test]
    fn what_is_silent_makes_room() {
        let mut counter = Instrument::new(&[], LIMITS, 1);
        for path in ["/a", "/b", "/c"] {
            count(&mut counter, path, 0);
        }
        count(&mut counter, "/a", 50);
        counter.expire(Timestamp(100), Duration::from_nanos(60));
        count(&mut counter, "/d", 100);
        assert_eq!(said(&counter), ["path=/a 2", "path=/d 1"]);
    }

    #[test]
    fn the_difference_of_two_states_is_what_came_in_between() {
        let mut histogram = Histogram::new(BOUNDS);
        histogram.record(0.5);
        let earlier = histogram.clone();
        histogram.record(5.0);
        let new = histogram.since(&earlier);
        assert_eq!((new.buckets.as_slice(), new.sum, new.sketch.count()), (&[0, 0, 1][..], 5.0, 1));
    }
}
