// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The shell around [`metrics`](crate::metrics): measures every span, and answers whoever asks for the numbers.
//!
//! In: spans and books from the run loop. Out: answers to scrapers and exporters, which wait for the loop to come by and
//! never make it wait. It decides no number itself.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, oneshot},
};

use crate::{
    clock,
    config::Destination,
    enrich::ServiceSpan,
    export::{
        metrics::{Exporter, Snapshot},
        requests::{OUTCOMES, RequestStats},
        scrape::{self, Health},
    },
    metrics::{
        Metrics, Settings,
        own::{self, Books, Requests},
    },
    process::TICK_NS,
    time::{Timestamp, WallOffset},
};

/// Measures, and answers.
pub struct Meter {
    metrics: Metrics,
    asked: mpsc::Receiver<oneshot::Sender<Snapshot>>,
    /// With the names of their destinations.
    exporters: Vec<(String, Exporter)>,
    health: Arc<Health>,
    listening: Option<SocketAddr>,
    since: Timestamp,
}

impl Meter {
    /// A meter that begins now, where somebody wants numbers; `seed` must be unpredictable.
    pub fn open(
        settings: &Settings,
        destinations: &[Destination],
        seed: u64,
        runtime: &Runtime,
    ) -> anyhow::Result<Option<Self>> {
        if !settings.is_wanted() {
            return Ok(None);
        }
        let (asks, asked) = mpsc::channel(MOST_ASKS);
        let health = Arc::new(Health::default());
        let serve = |address| scrape::serve(address, asks.clone(), Arc::clone(&health), runtime.handle());
        let listening = settings.listen.map(serve).transpose()?;
        let mut exporters = Vec::new();
        for destination in destinations.iter().filter(|_| settings.otlp) {
            let exporter = Exporter::start(destination, settings, asks.clone(), runtime.handle())?;
            exporters.push((destination.name.clone(), exporter));
        }
        let metrics = Metrics::new(settings.clone(), seed);
        Ok(Some(Self { metrics, asked, exporters, health, listening, since: clock::now() }))
    }

    /// Where Prometheus may ask.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.listening
    }

    /// The probes are attached.
    pub fn attached(&self) {
        self.health.attached();
    }

    /// Counts finished spans.
    pub fn observe(&mut self, spans: &[ServiceSpan], now: Timestamp) {
        for span in spans {
            self.metrics.observe(span, now);
        }
    }

    /// Spans that were counted are exported.
    pub fn exemplify(&mut self, spans: &[ServiceSpan]) {
        for span in spans {
            self.metrics.exemplify(span);
        }
    }

    /// The loop comes by: answers those who have asked, with the books as they are now.
    pub fn tick(&mut self, now: Timestamp, wall: WallOffset, books: impl Fn() -> Books) {
        self.health.beat(now);
        self.metrics.tick(now);
        while let Ok(answer) = self.asked.try_recv() {
            // Whoever asked may have given up.
            answer.send(self.snapshot(now, wall, books())).ok();
        }
    }

    /// Sends the last numbers, within `most`.
    pub fn finish(mut self, now: Timestamp, wall: WallOffset, books: Books, runtime: &Runtime, most: Duration) {
        let snapshot = self.snapshot(now, wall, books);
        let deadline = Instant::now() + most;
        for (_, exporter) in std::mem::take(&mut self.exporters) {
            let left = deadline.saturating_duration_since(Instant::now());
            runtime.block_on(exporter.finish(snapshot.clone(), left));
        }
    }

    fn snapshot(&self, now: Timestamp, wall: WallOffset, mut books: Books) -> Snapshot {
        books.overflown = self.metrics.overflown();
        let said = self.exporters.iter().map(|(name, exporter)| said(name, "metrics", exporter.requests()));
        books.requests.extend(said);
        books.process = process();
        books.stock.tables.push(self.metrics.fill());
        let mut families = own::families(&books, self.since);
        families.extend(self.metrics.families());
        Snapshot { families, now, wall }
    }
}

/// What was said about `signal` to the destination `name`.
pub fn said(name: &str, signal: &'static str, stats: RequestStats) -> Requests {
    let RequestStats { ended, seconds } = stats;
    Requests { destination: name.to_owned(), signal, ended: OUTCOMES.into_iter().zip(ended).collect(), seconds }
}

/// The `process_*` metrics that Prometheus's clients agree on, as far as `/proc` tells
/// (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).
fn process() -> Vec<(&'static str, f64)> {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return Vec::new() };
    // The second field is a name in parentheses, which may hold anything: what counts comes after its last one.
    let Some((_, rest)) = stat.rsplit_once(')') else { return Vec::new() };
    let fields: Vec<f64> = rest.split_whitespace().skip(1).map(|field| field.parse().unwrap_or_default()).collect();
    // Of proc_pid_stat(5), the numbers of the fields, less those before the first one here.
    let field = |number: usize| fields.get(number - 4).copied().unwrap_or_default();
    let seconds = |ticks: f64| ticks * TICK_NS as f64 / 1e9;
    let mut numbers = vec![
        ("process_cpu", seconds(field(14) + field(15))),
        ("process_start_time", clock::booted() as f64 / 1e9 + seconds(field(22))),
        ("process_virtual_memory", field(23)),
        ("process_resident_memory", field(24) * rustix::param::page_size() as f64),
        ("process_threads", field(20)),
    ];
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        numbers.push(("process_open_fds", open.count() as f64));
    }
    numbers
}

/// Those who ask at one time: a few scrapers, and an exporter for each destination. More are told to come back.
const MOST_ASKS: usize = 8;
