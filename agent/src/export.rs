// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where finished spans leave the agent: a bounded queue for each destination and behind it OTLP or Zipkin's API, or
//! lines on standard output.
//!
//! In: [`ServiceSpan`]s in batches, offered without ever waiting. Out: requests to a collector, or OTLP JSON lines;
//! what does not fit, or is not taken, is counted by reason. It does not decide which spans are exported. Without a spool
//! it keeps nothing for later than the collector's timeout allows.
//!
//! ```text
//! offer → queue (bounded in spans) → worker → batch (grouped by resource, encoded) → otlp (sent, and again)
//!                                        └──→ spool (bounded in bytes, on disk), while the collector is away
//! ```

mod batch;
mod complaint;
pub mod edit;
mod field;
mod http;
pub mod local;
pub mod metrics;
pub(crate) mod otlp;
mod protobuf;
mod queue;
pub mod requests;
mod retry;
pub mod scrape;
mod span;
mod spool;
pub mod stdout;
pub mod strategies;
mod tls;
mod worker;
mod zipkin;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use spantap_common::loss::Reason;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    config::{Destination, Spool as Settings},
    enrich::ServiceSpan,
    time::WallOffset,
};
use batch::Encoded;
use otlp::Collector;
pub use otlp::Signal;
use queue::Queue;
use requests::{RequestStats, Requests};
use spool::Spool;
use worker::{Order, Worker};

/// Sends spans to a collector, from a task of its own.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    requests: Arc<Requests>,
    orders: mpsc::UnboundedSender<Order>,
    limits: SpanLimits,
}

/// What became of the spans that were offered. Law: offered + resumed = waiting + spooled + exported + rejected + failed +
/// `queue_full` + `spool_full`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ExportStats {
    /// Queued, or in a request whose answer is still out.
    pub waiting: u64,
    /// Taken by the collector.
    pub exported: u64,
    /// Never queued, as the queue was full ([`Reason::QueueFull`]).
    pub queue_full: u64,
    /// Not taken: refused, unreachable for too long, or still waiting at the deadline of a flush
    /// ([`Reason::ExportFailed`]).
    pub failed: u64,
    /// Rejected one by one in a request that was otherwise taken ([`Reason::ExportFailed`] too).
    pub rejected: u64,
    /// On disk, until the collector is back.
    pub spooled: u64,
    /// On disk when the exporter started: an earlier run left them.
    pub resumed: u64,
    /// Not taken by the collector, and the disk had no room for them ([`Reason::QueueFull`]: the spool is what the queue
    /// goes on in).
    pub spool_full: u64,
    /// Files of the spool that are not what was written. Their spans are among the failed, if they were known.
    pub corrupt_files: u64,
    /// The last thing that went wrong, in words.
    pub last_error: Option<String>,
}

impl ExportStats {
    /// The losses so far, as [`Vitals`](crate::vitals::Vitals) name them.
    pub fn losses(&self) -> [(Reason, u64); 2] {
        [(Reason::QueueFull, self.queue_full + self.spool_full), (Reason::ExportFailed, self.failed + self.rejected)]
    }
}

/// The exporter's bounds. The defaults are for one host; tests choose smaller ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Spans that wait or are under way. 16,384: nearly a second of the 20,000 spans/s that 10,000 requests/s make
    /// when both of their ends are on the host, and about 8 MiB at 500 bytes a span. From half of it on, batches no
    /// longer wait for their delay.
    pub queue_spans: usize,
    /// Spans in one request. 512 is the specification's default (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub batch_spans: usize,
    /// Encoded bytes in one request before compression. 3.5 MiB: gRPC servers refuse messages above 4 MiB unless
    /// told otherwise. A single span beyond it travels alone.
    pub batch_bytes: usize,
    /// Longest time a span waits for company. 1 s: a span is visible 1.5 s after its end.
    pub delay: Duration,
    /// Requests under way at once. 8 of them, full, are twice the spans that 10,000 requests/s make with a collector
    /// that is 100 ms away. A stream each over gRPC's one connection, a connection each over HTTP/1.
    pub in_flight: usize,
    /// What a span may have.
    pub span: SpanLimits,
}

/// What a span may have; the rest stays here, and its number is in the span's `dropped_…_count`. The defaults are the
/// specification's (<https://opentelemetry.io/docs/specs/otel/common/#attribute-limits>,
/// [links](https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SpanLimits {
    /// Attributes: `OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`.
    pub attributes: usize,
    /// Characters of a text: `OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT`. Usually unbounded, as what is captured is bounded.
    pub characters: usize,
    /// Links: `OTEL_SPAN_LINK_COUNT_LIMIT`.
    pub links: usize,
    /// Attributes of a link: `OTEL_LINK_ATTRIBUTE_COUNT_LIMIT`.
    pub link_attributes: usize,
}

impl Default for SpanLimits {
    fn default() -> Self {
        Self { attributes: 128, characters: usize::MAX, links: 128, link_attributes: 128 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_spans: 16 << 10,
            batch_spans: 512,
            batch_bytes: 7 << 19,
            delay: Duration::from_secs(1),
            in_flight: 8,
            span: SpanLimits::default(),
        }
    }
}

/// What an encoded span takes while it waits: 500 bytes (2026-11, the shop of `spantap demo`).
pub const SPAN_BYTES: u64 = 500;

/// A destination's name as a folder's.
fn file_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' }).collect()
}

impl Exporter {
    /// Starts the exporter's task on `runtime`. Nobody is called yet: an unreachable collector is no error here, but an
    /// endpoint or a header that can never work is.
    pub fn start(config: &Destination, runtime: &Handle) -> anyhow::Result<Self> {
        Self::start_with(config, Limits::default(), runtime)
    }

    /// [`start`](Self::start) with other bounds.
    pub fn start_with(config: &Destination, limits: Limits, runtime: &Handle) -> anyhow::Result<Self> {
        // The gRPC channel spawns its task where it is made.
        let _context = runtime.enter();
        let collector = Collector::new(config, Signal::Traces)?;
        let requests = Arc::clone(collector.requests());
        let queue = Arc::new(Queue::new(limits.queue_spans));
        let open =
            |settings: &Settings| Spool::open(&settings.folder.join(file_name(&config.name)), settings.most_bytes);
        let spool = config.spool.as_ref().map(open).transpose()?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let of_spans = limits.span;
        runtime.spawn(Worker::new(collector, limits, Arc::clone(&queue), spool, inbox).run());
        Ok(Self { queue, requests, orders, limits: of_spans })
    }

    /// Queues as many of `spans` as there is room for and counts the rest. Never waits.
    pub fn offer(&self, mut spans: Vec<ServiceSpan>, offset: WallOffset) {
        let held = self.queue.admit(spans.len());
        spans.truncate(held.spans());
        if !spans.is_empty() {
            // Encoded here, while they are in this processor's cache: what the worker is handed is one allocation for all
            // of them instead of several for each, and half as large.
            let spans = Encoded::new(&spans, offset, &self.limits);
            // A worker that is gone returns the order, and dropping it counts its spans as failed.
            drop(self.orders.send(Order::Spans { spans, held }));
        }
    }

    /// Sends what is queued without waiting for company, and returns when all of it is answered for. At `deadline`
    /// whatever is still waiting is given up and counted as failed.
    pub fn flush(&self, deadline: Instant) -> impl Future<Output = ()> + use<> {
        let (done, finished) = oneshot::channel();
        let ordered = self.orders.send(Order::Flush { deadline, done }).is_ok();
        async move {
            if ordered {
                // An error means that the worker is gone, and with it everything that waited.
                finished.await.ok();
            }
        }
    }

    /// The numbers so far.
    pub fn stats(&self) -> ExportStats {
        self.queue.stats()
    }

    /// What was said to the collector so far.
    pub fn requests(&self) -> RequestStats {
        self.requests.stats()
    }
}
