// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The exporter's task: from queued spans to requests.
//!
//! In: orders from the run loop. Out: batches, handed to the collector a bounded number at a time, and their spans
//! settled in the queue's books. It never blocks whoever orders, and it knows nothing of transports.

use std::{collections::VecDeque, future::pending, mem, sync::Arc, time::Instant};

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
    /// What is full, oldest first.
    full: VecDeque<Load>,
    /// Law: `under_way.len() <= limits.in_flight`.
    under_way: JoinSet<(Held, Verdict)>,
    unreachable: Complaint,
    rejecting: Complaint,
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
        inbox: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            collector: Arc::new(collector),
            limits,
            queue,
            inbox,
            open: None,
            full: VecDeque::new(),
            under_way: JoinSet::new(),
            unreachable: Complaint::default(),
            rejecting: Complaint::default(),
        }
    }

    /// Works until nobody can order any more. What is unsent then counts as failed: whoever cares flushes first.
    pub(super) async fn run(mut self) {
        loop {
            self.start_due(Instant::now());
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
    /// and grows, so that a slow collector gets fewer and larger requests.
    fn start_due(&mut self, now: Instant) {
        while self.under_way.len() < self.limits.in_flight {
            let pressed = self.queue.pressed();
            let due = |load: &mut Load| pressed || now.saturating_duration_since(load.since) >= self.limits.delay;
            let Some(Load { batch, held, .. }) = self.full.pop_front().or_else(|| self.open.take_if(due)) else {
                return;
            };
            let collector = Arc::clone(&self.collector);
            self.under_way.spawn(async move { (held, collector.send(batch.finish()).await) });
        }
    }

    /// When there is something to start; nothing can be started while no place is free.
    fn next_due(&self) -> Option<Instant> {
        if self.under_way.len() >= self.limits.in_flight {
            return None;
        }
        self.open.as_ref().map(|load| load.since + self.limits.delay)
    }

    fn settle(&mut self, ended: Result<(Held, Verdict), JoinError>) {
        match ended {
            Ok((held, Verdict::Taken { rejected, message })) => self.taken(held, rejected, message),
            Ok((held, Verdict::Refused(why) | Verdict::Unreachable(why))) => self.lost(held, why),
            // The task dropped what it held, so its spans are counted already.
            Err(error) => self.queue.note_error(error.to_string()),
        }
    }

    fn taken(&mut self, held: Held, rejected: usize, message: Option<String>) {
        held.taken(rejected);
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
        if let Some(lost) = self.unreachable.lost(Instant::now(), spans) {
            warn!(
                "the collector at {} does not take spans ({why}): {lost} lost, and more until it does; check that it \
                 runs and that OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL and _HEADERS are right",
                self.collector.endpoint()
            );
        }
        self.queue.note_error(why);
    }

    /// Sends everything and waits for the answers until `deadline`; the rest is given up.
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

    /// Counts everything unanswered as failed: whatever is dropped here is.
    async fn give_up(&mut self) {
        self.queue.note_error("not answered by the deadline of the last flush".to_owned());
        self.full.clear();
        self.under_way.shutdown().await;
    }
}

impl Load {
    fn new(held: Held, since: Instant) -> Self {
        Self { batch: Batch::default(), held, since }
    }
}

/// Sleeps until `due`, or for ever.
async fn sleep_until_some(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}
