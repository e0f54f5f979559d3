// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The books of the export queue.
//!
//! In: spans as they are offered. Out: [`Held`], the proof that there is room for some of them, which sooner or later
//! says what became of each. It holds no span itself and never waits.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use super::ExportStats;

/// How many spans wait, and what became of the others.
#[derive(Debug)]
pub(super) struct Queue {
    capacity: usize,
    /// Law: waiting <= capacity, and waiting = Σ spans of the [`Held`] alive.
    waiting: AtomicUsize,
    exported: AtomicU64,
    queue_full: AtomicU64,
    failed: AtomicU64,
    rejected: AtomicU64,
    spooled: AtomicU64,
    resumed: AtomicU64,
    spool_full: AtomicU64,
    corrupt_files: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// Room for some spans. Dropped unsettled it counts them as failed, so that no early return loses them silently.
#[derive(Debug)]
#[must_use = "spans that nobody settles count as failed"]
pub(super) struct Held {
    queue: Arc<Queue>,
    spans: usize,
}

impl Queue {
    /// An empty queue with room for `capacity` spans.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: AtomicUsize::new(0),
            exported: AtomicU64::new(0),
            queue_full: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            spool_full: AtomicU64::new(0),
            corrupt_files: AtomicU64::new(0),
            last_error: Mutex::new(None),
        }
    }

    /// Room for `spans`, or for as many of them as fit; the others are counted.
    pub(super) fn admit(self: &Arc<Self>, spans: usize) -> Held {
        let mut admitted = 0;
        let claim = |waiting: usize| {
            admitted = spans.min(self.capacity.saturating_sub(waiting));
            Some(waiting + admitted)
        };
        // The closure never declines, so this is never an error.
        self.waiting.fetch_update(Relaxed, Relaxed, claim).ok();
        self.queue_full.fetch_add((spans - admitted) as u64, Relaxed);
        Held { queue: Arc::clone(self), spans: admitted }
    }

    /// Whether more than half of the room is taken: no time to wait for fuller batches.
    pub(super) fn pressed(&self) -> bool {
        self.waiting.load(Relaxed) > self.capacity / 2
    }

    /// An earlier run left so many spans on disk.
    pub(super) fn resume(&self, spans: usize) {
        self.resumed.fetch_add(spans as u64, Relaxed);
        self.spooled.fetch_add(spans as u64, Relaxed);
    }

    /// The collector took so many spans from the disk, all but `rejected` of them.
    pub(super) fn spooled_taken(&self, spans: usize, rejected: usize) {
        let rejected = rejected.min(spans);
        self.exported.fetch_add((spans - rejected) as u64, Relaxed);
        self.rejected.fetch_add(rejected as u64, Relaxed);
        self.spooled.fetch_sub(spans as u64, Relaxed);
    }

    /// So many spans on disk were refused, or cannot be read any more.
    pub(super) fn spooled_failed(&self, spans: usize) {
        self.failed.fetch_add(spans as u64, Relaxed);
        self.spooled.fetch_sub(spans as u64, Relaxed);
    }

    /// So many files on disk were not what was written.
    pub(super) fn note_corrupt(&self, files: u64) {
        self.corrupt_files.store(files, Relaxed);
    }

    /// Remembers what went wrong last.
    pub(super) fn note_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The numbers so far.
    pub(super) fn stats(&self) -> ExportStats {
        ExportStats {
            waiting: self.waiting.load(Relaxed) as u64,
            exported: self.exported.load(Relaxed),
            queue_full: self.queue_full.load(Relaxed),
            failed: self.failed.load(Relaxed),
            rejected: self.rejected.load(Relaxed),
            spooled: self.spooled.load(Relaxed),
            resumed: self.resumed.load(Relaxed),
            spool_full: self.spool_full.load(Relaxed),
            corrupt_files: self.corrupt_files.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Held {
    /// How many spans there is room for.
    pub(super) fn spans(&self) -> usize {
        self.spans
    }

    /// The room of `spans` of these, as a proof of its own; of all of them where there are no more.
    pub(super) fn split(&mut self, spans: usize) -> Self {
        let spans = spans.min(self.spans);
        self.spans -= spans;
        Self { queue: Arc::clone(&self.queue), spans }
    }

    /// Takes over the room of `other`.
    pub(super) fn absorb(&mut self, mut other: Self) {
        self.spans += std::mem::take(&mut other.spans);
    }

    /// The spans are on disk.
    pub(super) fn spooled(mut self) {
        let spans = std::mem::take(&mut self.spans);
        self.queue.spooled.fetch_add(spans as u64, Relaxed);
        self.queue.waiting.fetch_sub(spans, Relaxed);
    }

    /// The disk had no room for the spans.
    pub(super) fn spool_full(mut self) {
        let spans = std::mem::take(&mut self.spans);
        self.queue.spool_full.fetch_add(spans as u64, Relaxed);
        self.queue.waiting.fetch_sub(spans, Relaxed);
    }

    /// The collector took the spans, all but `rejected` of them.
    pub(super) fn taken(mut self, rejected: usize) {
        let spans = std::mem::take(&mut self.spans);
        let rejected = rejected.min(spans);
        self.queue.exported.fetch_add((spans - rejected) as u64, Relaxed);
        self.queue.rejected.fetch_add(rejected as u64, Relaxed);
        self.queue.waiting.fetch_sub(spans, Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.queue.failed.fetch_add(self.spans as u64, Relaxed);
        self.queue.waiting.fetch_sub(self.spans, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_and_room_comes_back() {
        let queue = Arc::new(Queue::new(10));
        let first = queue.admit(8);
        let second = queue.admit(5);
        assert_eq!((first.spans(), second.spans()), (8, 2));
        assert_eq!((queue.stats().waiting, queue.stats().queue_full), (10, 3));

        first.taken(0);
        assert_eq!(queue.admit(5).spans(), 5);
        second.taken(0);
        assert_eq!(queue.stats(), ExportStats { exported: 10, queue_full: 3, failed: 5, ..ExportStats::default() });
    }

    #[test]
    fn spans_that_nobody_settles_have_failed() {
        let queue = Arc::new(Queue::new(10));
        drop(queue.admit(4));
        assert_eq!(queue.stats(), ExportStats { failed: 4, ..ExportStats::default() });
    }

    #[test]
    fn splitting_and_absorbing_move_room_without_changing_it() {
        let queue = Arc::new(Queue::new(10));
        let mut order = queue.admit(6);
        let mut group = order.split(1);
        group.absorb(order.split(3));
        assert_eq!((order.spans(), group.spans(), queue.stats().waiting), (2, 4, 6));
        assert_eq!(order.split(9).spans(), 2, "there is no more than all");
        group.taken(1);
        drop(order);
        assert_eq!(queue.stats(), ExportStats { exported: 3, rejected: 1, failed: 2, ..ExportStats::default() });
    }

    #[test]
    fn a_collector_cannot_reject_more_than_it_was_sent() {
        let queue = Arc::new(Queue::new(10));
        queue.admit(3).taken(1000);
        assert_eq!(queue.stats(), ExportStats { rejected: 3, ..ExportStats::default() });
    }

    #[test]
    fn pressure_begins_above_half_of_the_room() {
        let queue = Arc::new(Queue::new(10));
        let _half = queue.admit(5);
        assert!(!queue.pressed());
        let _more = queue.admit(1);
        assert!(queue.pressed());
    }
}
