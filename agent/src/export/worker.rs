// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The exporter's task: from queued spans to requests.
//!
//! In: orders from the run loop. Out: batches, handed to the collector a bounded number at a time, and their spans
//! settled in the queue's books. It never blocks whoever orders, and it knows nothing of transports.
//!
//! With a spool a request is tried once; what the collector does not take goes to disk, and so does everything behind
//! it, until the collector has taken the oldest on disk, and then the rest of it, one request after the other.

use std::{
    collections::VecDeque,
    future::pending,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::bytes::Bytes;
use tokio::{
    select,
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{sleep_until, timeout_at},
};
use tracing::{info, warn};

use super::{
    Limits,
    batch::{Batch, Encoded},
    complaint::Complaint,
    otlp::{Collector, Verdict},
    queue::{Held, Queue},
    retry::{Answer, Backoff},
    spool::{Entry, Spool, Unstored},
};

/// What the run loop asks for.
#[derive(Debug)]
pub(super) enum Order {
    /// Export these; `held` is their room in the queue.
    Spans { spans: Encoded, held: Held },
    /// Export everything now; give up at `deadline`; then say so.
    Flush { deadline: Instant, done: oneshot::Sender<()> },
}

/// The task's state.
#[derive(Debug)]
pub(super) struct Worker {
    collector: Arc<Collector>,
    limits: Limits,
    queue: Arc<Queue>,
    inbox: mpsc::UnboundedReceiver<Order>,
    /// What still grows.
    open: Option<Load>,
    /// When the last batch left; none before the first.
    last: Option<Instant>,
    /// What is full, oldest first.
    full: VecDeque<Load>,
    /// Law: `under_way.len() <= limits.in_flight`.
    under_way: JoinSet<Ended>,
    spool: Option<Spool>,
    /// The oldest request on disk, under way. Law: at most one.
    replay: JoinSet<(Entry, Answer)>,
    /// When the next one may be.
    replay_at: Instant,
    backoff: Backoff,
    unreachable: Complaint,
    rejecting: Complaint,
    overflowing: Complaint,
}

/// A request that was answered, or not.
#[derive(Debug)]
struct Ended {
    held: Held,
    /// To be stored, where there is a spool.
    request: Option<Bytes>,
    verdict: Verdict,
}

/// A batch with the books of its spans.
#[derive(Debug)]
struct Load {
    batch: Batch,
    held: Held,
    /// When the first span came.
    since: Instant,
}

impl Worker {
    /// A worker that has nothing to do yet.
    pub(super) fn new(
        collector: Collector,
        limits: Limits,
        queue: Arc<Queue>,
        spool: Option<Spool>,
        inbox: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        if let Some(spool) = &spool {
            queue.resume(spool.spans());
            queue.note_corrupt(spool.corrupt());
        }
        Self {
            collector: Arc::new(collector),
            limits,
            queue,
            inbox,
            open: None,
            last: None,
            full: VecDeque::new(),
            under_way: JoinSet::new(),
            spool,
            replay: JoinSet::new(),
            replay_at: Instant::now(),
            backoff: Backoff::new(),
            unreachable: Complaint::default(),
            rejecting: Complaint::default(),
            overflowing: Complaint::default(),
        }
    }

    /// Works until nobody can order any more. What is unsent then counts as failed: whoever cares flushes first.
    pub(super) async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.start_due(now);
            self.start_replay(now);
            let due = self.next_due();
            select! {
                order = self.inbox.recv() => match order {
                    Some(Order::Spans { spans, held }) => self.sort(&spans, held),
                    Some(Order::Flush { deadline, done }) => {
                        self.flush(deadline).await;
                        // Whoever asked may have stopped waiting.
                        done.send(()).ok();
                    }
                    None => return,
                },
                Some(ended) = self.under_way.join_next() => self.settle(ended),
                Some(ended) = self.replay.join_next() => self.settle_replay(ended),
                () = sleep_until_some(due) => {}
            }
        }
    }

    /// Puts each span into the open batch, and begins another where it is full.
    fn sort(&mut self, spans: &Encoded, mut held: Held) {
        let now = Instant::now();
        for span in spans.iter() {
            let mut load = self.open.take().unwrap_or_else(|| Load::new(held.split(0), now));
            if load.batch.add(span, self.limits.batch_bytes).is_err() {
                self.full.push_back(mem::replace(&mut load, Load::new(held.split(0), now)));
                load.batch.add(span, usize::MAX).expect("an empty batch takes any span");
            }
            load.held.absorb(held.split(1));
            if load.batch.spans() >= self.limits.batch_spans {
                self.full.push_back(load);
            } else {
                self.open = Some(load);
            }
        }
    }

    /// Starts what is full or has waited long enough, as long as there is a place. A batch that finds none stays open
    /// and grows, so that a slow collector gets fewer and larger requests. While something is on disk, what is due goes
    /// there too, behind it.
    fn start_due(&mut self, now: Instant) {
        while self.under_way.len() < self.limits.in_flight {
            let pressed = self.queue.pressed();
            let due_at = self.open.as_ref().map(|load| self.due_at(load));
            let due = |_: &mut Load| pressed || due_at.is_some_and(|at| now >= at);
            let Some(Load { batch, held, .. }) = self.full.pop_front().or_else(|| self.open.take_if(due)) else {
                return;
            };
            self.last = Some(now);
            let request = batch.finish();
            if self.spool.as_ref().is_some_and(|spool| !spool.is_empty()) {
                self.store(held, &request);
                continue;
            }
            let collector = Arc::clone(&self.collector);
            if self.spool.is_some() {
                self.under_way.spawn(async move {
                    let verdict = match collector.send_once(request.clone()).await {
                        Answer::Taken { rejected, message } => Verdict::Taken { rejected, message },
                        Answer::Refused(why) => Verdict::Refused(why),
                        // The pause that was asked for is kept by whoever sends it from the disk.
                        Answer::Later { why, .. } => Verdict::Unreachable(why),
                    };
                    Ended { held, request: Some(request), verdict }
                });
            } else {
                self.under_way
                    .spawn(async move { Ended { held, request: None, verdict: collector.send(request).await } });
            }
        }
    }

    /// When a batch that is not full leaves: as long after the one before as the delay says, but soon where there was
    /// silence, since then somebody waits for the first of them.
    fn due_at(&self, load: &Load) -> Instant {
        let at_once = load.since + FIRST_DELAY;
        let in_turn = self.last.map_or(at_once, |last| last + self.limits.delay);
        at_once.max(in_turn).min(load.since + self.limits.delay)
    }

    /// Puts a request on disk.
    fn store(&mut self, held: Held, request: &Bytes) {
        let Some(spool) = &mut self.spool else { return };
        match spool.store(request, held.spans()) {
            Ok(()) => held.spooled(),
            Err(Unstored::Full) => {
                let spans = held.spans() as u64;
                held.spool_full();
                self.queue.note_error("the spool is full".to_owned());
                if let Some(lost) = self.overflowing.lost(Instant::now(), spans) {
                    let endpoint = self.collector.endpoint();
                    warn!(
                        "the spool for {endpoint} is full: {lost} lost, and more until the collector takes spans again"
                    );
                }
            }
            Err(Unstored::Failed(error)) => self.lost(held, format!("the spool cannot be written: {error}")),
        }
    }

    /// Sends the oldest request on disk, when it is time to.
    fn start_replay(&mut self, now: Instant) {
        let Some(spool) = &mut self.spool else { return };
        if now < self.replay_at || !self.replay.is_empty() {
            return;
        }
        let oldest = spool.oldest(|spans| self.queue.spooled_failed(spans));
        self.queue.note_corrupt(spool.corrupt());
        if let Some((entry, request)) = oldest {
            let collector = Arc::clone(&self.collector);
            self.replay.spawn(async move { (entry, collector.send_once(request).await) });
        }
    }

    fn settle_replay(&mut self, ended: Result<(Entry, Answer), JoinError>) {
        let Some(spool) = &mut self.spool else { return };
        let (entry, answer) = match ended {
            Ok(ended) => ended,
            // It stays on disk, and is tried again.
            Err(error) => return self.queue.note_error(error.to_string()),
        };
        match answer {
            Answer::Taken { rejected, message } => {
                spool.remove(entry);
                self.queue.spooled_taken(entry.spans, rejected);
                self.backoff = Backoff::new();
                let empty = spool.is_empty();
                self.taken_words(rejected, message);
                if empty {
                    self.overflowing.over();
                    info!("the collector at {} has taken everything that was on disk", self.collector.endpoint());
                }
            }
            Answer::Refused(why) => {
                spool.remove(entry);
                self.queue.spooled_failed(entry.spans);
                self.lost_words(entry.spans as u64, why);
            }
            Answer::Later { why, after } => {
                self.replay_at = Instant::now() + self.backoff.pause(after).min(MAX_REPLAY_PAUSE);
                self.queue.note_error(why);
            }
        }
    }

    /// When there is something to start; nothing can be started while no place is free.
    fn next_due(&self) -> Option<Instant> {
        let places = self.under_way.len() < self.limits.in_flight;
        let open = self.open.as_ref().filter(|_| places).map(|load| self.due_at(load));
        let stored = self.spool.as_ref().is_some_and(|spool| !spool.is_empty()) && self.replay.is_empty();
        open.into_iter().chain(stored.then_some(self.replay_at)).min()
    }

    fn settle(&mut self, ended: Result<Ended, JoinError>) {
        match ended {
            Ok(Ended { held, verdict: Verdict::Taken { rejected, message }, .. }) => {
                held.taken(rejected);
                self.taken_words(rejected, message);
            }
            Ok(Ended { held, request: Some(request), verdict: Verdict::Unreachable(why) }) => {
                if self.spool.as_ref().is_some_and(Spool::is_empty) {
                    let endpoint = self.collector.endpoint();
                    warn!("the collector at {endpoint} does not take spans ({why}): they go to disk until it does");
                    self.replay_at = Instant::now() + self.backoff.pause(None);
                }
                self.queue.note_error(why);
                self.store(held, &request);
            }
            Ok(Ended { held, verdict: Verdict::Refused(why) | Verdict::Unreachable(why), .. }) => self.lost(held, why),
            // The task dropped what it held, so its spans are counted already.
            Err(error) => self.queue.note_error(error.to_string()),
        }
    }

    fn taken_words(&mut self, rejected: usize, message: Option<String>) {
        let endpoint = self.collector.endpoint();
        if let Some(lost) = self.unreachable.over() {
            info!("the collector at {endpoint} takes spans again; {lost} lost meanwhile");
        }
        if rejected == 0 {
            // "Servers MAY also use the `partial_success` field to convey warnings/suggestions to clients even when it
            // fully accepts the request" (https://opentelemetry.io/docs/specs/otlp/#partial-success).
            return;
        }
        let why = message.unwrap_or_else(|| "it does not say why".to_owned());
        if let Some(lost) = self.rejecting.lost(Instant::now(), rejected as u64) {
            warn!(
                "the collector at {endpoint} rejected spans ({why}): {lost} lost, as the protocol forbids to send them \
                 again; its own log may say more"
            );
        }
        self.queue.note_error(format!("rejected: {why}"));
    }

    fn lost(&mut self, held: Held, why: String) {
        let spans = held.spans() as u64;
        drop(held);
        self.lost_words(spans, why);
    }

    fn lost_words(&mut self, spans: u64, why: String) {
        if let Some(lost) = self.unreachable.lost(Instant::now(), spans) {
            warn!(
                "the collector at {} does not take spans ({why}): {lost} lost, and more until it does; check that it \
                 runs and that OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL and _HEADERS are right",
                self.collector.endpoint()
            );
        }
        self.queue.note_error(why);
    }

    /// Sends everything and waits for the answers until `deadline`; the rest is given up, or stays on disk.
    async fn flush(&mut self, deadline: Instant) {
        let mut others = Vec::new();
        while let Ok(order) = self.inbox.try_recv() {
            match order {
                Order::Spans { spans, held } => self.sort(&spans, held),
                Order::Flush { done, .. } => others.push(done),
            }
        }
        self.full.extend(self.open.take());
        loop {
            self.start_due(Instant::now());
            match timeout_at(deadline.into(), self.under_way.join_next()).await {
                Ok(Some(ended)) => self.settle(ended),
                Ok(None) => break,
                Err(_) => {
                    self.give_up().await;
                    break;
                }
            }
        }
        for done in others {
            done.send(()).ok();
        }
    }

    /// Counts everything unanswered as failed: whatever is dropped here is. With a spool, only what is under way.
    async fn give_up(&mut self) {
        self.queue.note_error("not answered by the deadline of the last flush".to_owned());
        if self.spool.is_some() {
            // Those under way may have arrived; what was never sent has not.
            for Load { batch, held, .. } in mem::take(&mut self.full) {
                self.store(held, &batch.finish());
            }
        }
        self.full.clear();
        self.under_way.shutdown().await;
    }
}

impl Load {
    fn new(held: Held, since: Instant) -> Self {
        Self { batch: Batch::default(), held, since }
    }
}

/// How long the first span after a silence waits for others of its trace: a page's requests are over within it, and a span
/// is at the collector within a second of its end.
const FIRST_DELAY: Duration = Duration::from_millis(200);

/// Longest pause before the oldest request on disk is tried again, whatever the collector asks for: nothing is lost by
/// waiting but time, and a `Retry-After` of hours is more often a mistake than a plan.
const MAX_REPLAY_PAUSE: Duration = Duration::from_secs(300);

/// Sleeps until `due`, or for ever.
async fn sleep_until_some(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}
