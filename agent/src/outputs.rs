// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the run loop puts finished spans: the exporter, the terminal, or both.
//!
//! In: spans in batches, with the time. Out: nothing that the loop would have to wait for: printing has a thread and a
//! bounded queue of its own, as exporting has. What an output could not take is counted, and nobody is left waiting for
//! a terminal that stands still or panics over one that is gone.

use std::{
    collections::BTreeMap,
    io::{self, Stdout, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rand::{TryRng as _, rngs::SysRng};
use spantap_common::loss::Reason;
use tokio::{runtime::Runtime, task::JoinSet};
use tracing::warn;

use crate::{
    config::{Config, Output, Print, PrintStyle, Selection, reload::Change},
    enrich::{Resource, ServiceSpan},
    export::{
        self, Exporter, Limits, SpanLimits,
        edit::{self, Rule},
        stdout::{JsonLines, Reader},
        strategies::Strategies,
    },
    ladder::{self, Rung, Step},
    live::{
        messages::{self, Delivered, Shortfall, Silence, Start},
        screen::Width,
        view::{Live, Style},
    },
    meter::{self, Meter},
    metrics::own::{Books, Destination, Stock},
    sample::Sampler,
    time::{Timestamp, WallOffset},
    vitals::{Steps, Tally, Vitals},
};

/// The configured outputs.
pub struct Outputs<'a> {
    config: &'a Config,
    /// The one in force: it may have been replaced.
    selection: Selection,
    /// Likewise.
    edits: Vec<Rule>,
    /// Likewise: who gets the spans of some processes.
    target_exports: BTreeMap<String, Vec<String>>,
    /// Spans that would have left, had their rule named a destination.
    withheld: u64,
    runtime: &'a Runtime,
    /// One for each destination, in their order.
    exporters: Vec<Exporter>,
    printer: Option<Printer>,
    /// Says why nothing is seen, where somebody looks.
    silence: Option<Silence>,
    shortfall: Shortfall,
    /// Decides which spans are exported, and holds back those that it cannot decide about yet.
    sampler: Sampler,
    /// Where sampling is decided by somebody else.
    strategies: Option<Strategies>,
    /// Where somebody wants numbers.
    meter: Option<Meter>,
    /// Records lost so far, as the loop told last.
    records: Tally,
    /// Of the last batch: what is held back leaves with it.
    wall: WallOffset,
    steps: Steps,
    /// Spans that would have been printed, had the agent not to do less.
    thinned: u64,
}

impl<'a> Outputs<'a> {
    /// Opens what `config` asks for.
    pub fn open(config: &'a Config, runtime: &'a Runtime) -> anyhow::Result<Self> {
        let Output { destinations, limits, .. } = &config.output;
        let queue_spans = config.bounds.queue_spans.unwrap_or(limits.queue_spans);
        let limits = Limits { queue_spans, ..limits.clone() };
        let start = |destination| Exporter::start_with(destination, limits.clone(), runtime.handle());
        let exporters = destinations.iter().map(start).collect::<anyhow::Result<_>>()?;
        let start = |print| Printer::start(print, &limits);
        let printer = config.output.print.map(start).transpose()?;
        let seed = SysRng.try_next_u64().context("read randomness for the sampler's tables")?;
        let sampler = Sampler::new(config.output.sampling.clone(), seed);
        Ok(Self {
            config,
            selection: config.selection.clone(),
            edits: config.output.edits.clone(),
            target_exports: config.output.target_exports.clone(),
            withheld: 0,
            runtime,
            exporters,
            printer,
            silence: None,
            shortfall: Shortfall::default(),
            strategies: strategies(&sampler, runtime)?,
            sampler,
            meter: Meter::open(&config.output.metrics, &config.output.metric_destinations, seed, runtime)?,
            records: Tally::default(),
            wall: WallOffset::default(),
            steps: Steps::default(),
            thinned: 0,
        })
    }

    /// The probes are live: says so, and begins to listen for silence.
    pub fn begin(&mut self, start: &Start<'_>, now: Timestamp) {
        if let Some(meter) = &self.meter {
            meter.attached();
        }
        if self.config.quiet {
            return;
        }
        say(&messages::banner(start, self.config));
        if self.config.output.print.is_some_and(|print| print.terminal) {
            self.silence = Some(Silence::since(now));
        }
    }

    /// Takes a batch, which is empty afterwards; `stock` tells what is held where, if somebody asks.
    pub fn take(
        &mut self,
        spans: &mut Vec<ServiceSpan>,
        vitals: &Vitals,
        stock: impl Fn() -> Stock,
        wall: WallOffset,
        now: Timestamp,
    ) {
        if let Some(hint) = self.silence.as_mut().and_then(|silence| silence.broken(now, vitals, &self.selection)) {
            say(&format!("{hint}\n"));
        }
        // The next batch is about as large.
        let room = Vec::with_capacity(spans.len());
        let spans = std::mem::replace(spans, room);
        self.wall = wall;
        if let Some(meter) = &mut self.meter {
            meter.observe(&spans, now);
        }
        self.deliver(spans, wall, now);
        self.follow_strategies();
        let Self { config, exporters, sampler, strategies, meter, records, steps, withheld, .. } = self;
        if let Some(meter) = meter {
            let vitals = || Vitals { steps: *steps, ..vitals.clone() };
            meter.tick(now, wall, || Books {
                asked: strategies.as_ref().map(Strategies::counts),
                withheld: *withheld,
                ..books(config, &vitals(), records, stock(), sampler, exporters)
            });
        }
    }

    /// The agent does less from now on, or more again: says so, counts it, and lets only some traces leave where that is
    /// the step.
    pub fn stepped(&mut self, step: &Step) {
        if step.to > step.from {
            self.steps.down += 1;
        } else {
            self.steps.up += 1;
        }
        self.steps.rung = step.to as u64;
        self.sampler.at_most(if step.to == Rung::Full { 1.0 } else { ladder::SHARE });
        warn!("{step}");
    }

    /// `config` is in force from now on, as far as it can be applied while the agent runs: says what changed.
    pub fn reconfigured(&mut self, config: &Config, change: &Change) {
        if change.sampling {
            let asked = self.sampler.remote().cloned();
            self.sampler.reconfigure(config.output.sampling.clone());
            if self.sampler.remote() != asked.as_ref() {
                match strategies(&self.sampler, self.runtime) {
                    Ok(strategies) => self.strategies = strategies,
                    Err(error) => warn!("sampling stays as it was answered before: {error:#}"),
                }
            }
        }
        self.selection.clone_from(&config.selection);
        self.edits.clone_from(&config.output.edits);
        self.target_exports.clone_from(&config.output.target_exports);
        if !change.restart.is_empty() {
            warn!("{change}");
        } else if !self.config.quiet {
            say(&format!("{change}\n"));
        }
    }

    /// Asks about services that are new, and takes over what was answered.
    fn follow_strategies(&mut self) {
        if let Some(strategies) = &mut self.strategies {
            strategies.ask(self.sampler.services());
            for (service, remote) in strategies.answers() {
                self.sampler.learned(service, remote);
            }
        }
    }

    fn deliver(&mut self, spans: Vec<ServiceSpan>, wall: WallOffset, now: Timestamp) {
        if self.exporters.is_empty() {
            self.print(spans, wall, now);
            return;
        }
        if self.printer.is_some() {
            self.print(spans.clone(), wall, now);
        }
        let mut exported = Vec::new();
        self.sampler.take(spans, now, &mut exported);
        if let Some(meter) = &mut self.meter {
            meter.exemplify(&exported);
        }
        self.offer(exported);
    }

    fn print(&mut self, mut spans: Vec<ServiceSpan>, wall: WallOffset, now: Timestamp) {
        let Some(printer) = &mut self.printer else { return };
        let all = spans.len();
        spans.retain(|span| self.sampler.has_room(span));
        self.thinned += (all - spans.len()) as u64;
        spans.iter_mut().for_each(|span| edit::apply(&self.edits, span));
        printer.take(spans, wall, now);
    }

    /// Gives every destination the spans.
    fn offer(&mut self, mut spans: Vec<ServiceSpan>) {
        if spans.is_empty() || self.exporters.is_empty() {
            return;
        }
        spans.iter_mut().for_each(|span| edit::apply(&self.edits, span));
        if !self.target_exports.is_empty() {
            return self.offer_by_target(&spans);
        }
        if let [others @ .., last] = self.exporters.as_slice() {
            for exporter in others {
                exporter.offer(spans.clone(), self.wall);
            }
            last.offer(spans, self.wall);
        }
    }

    /// Gives every destination those of the spans whose rule does not name others.
    fn offer_by_target(&mut self, spans: &[ServiceSpan]) {
        let exports = |span: &ServiceSpan| self.target_exports.get(span.target.as_deref()?);
        let names: Vec<_> = self.config.output.destinations.iter().map(|destination| &destination.name).collect();
        for (exporter, name) in self.exporters.iter().zip(&names) {
            let wanted = spans.iter().filter(|span| exports(span).is_none_or(|names| names.contains(name)));
            let wanted: Vec<_> = wanted.cloned().collect();
            if !wanted.is_empty() {
                exporter.offer(wanted, self.wall);
            }
        }
        let nobodys = |span: &&ServiceSpan| exports(span).is_some_and(|to| !names.iter().any(|name| to.contains(name)));
        self.withheld += spans.iter().filter(nobodys).count() as u64;
    }

    /// The process of `resource` exports spans of its own: says what becomes of ours.
    pub fn instrumented(&self, resource: &Resource) {
        let (pid, service) = (resource.process.pid, &resource.service);
        if !self.config.quiet && !self.exporters.is_empty() && self.sampler.leaves(resource) {
            say(&format!(
                "{service} ({pid}) exports spans of its own: ours are not exported, metrics go on (sampling.instrumented).\n"
            ));
        }
    }

    /// `records` were lost so far: a warning says so, once in a while.
    pub fn lost(&mut self, records: &Tally, now: Timestamp) {
        self.records = *records;
        if let Some(news) = self.shortfall.news(records, now) {
            warn!("{news}");
        }
    }

    /// Whether printing is the only output and nobody reads it any more.
    pub fn is_abandoned(&self) -> bool {
        self.exporters.is_empty() && self.config.record.is_none() && self.printer.as_ref().is_some_and(Printer::is_gone)
    }

    /// Flushes everything, adds what was lost here to `vitals`, and says how it went.
    pub fn finish(mut self, vitals: &mut Vitals, now: Timestamp) {
        let mut delivered = Delivered::default();
        if let Some(printer) = self.printer.take() {
            let Printed { shown, late, refused } = printer.finish();
            vitals.lost.spans.add(Reason::QueueFull, late);
            vitals.lost.spans.add(Reason::ExportFailed, refused);
            delivered.printed = Some(shown);
        }
        let mut held = Vec::new();
        self.sampler.finish(now, &mut held);
        self.offer(held);
        // All at once: one that does not answer takes no time from the others.
        let deadline = Instant::now() + FLUSH;
        self.runtime.block_on(async {
            let mut flushes: JoinSet<()> = self.exporters.iter().map(|exporter| exporter.flush(deadline)).collect();
            while flushes.join_next().await.is_some() {}
        });
        for exporter in &self.exporters {
            let stats = exporter.stats();
            for (reason, spans) in stats.losses() {
                vitals.lost.spans.add(reason, spans);
            }
            *delivered.exported.get_or_insert_default() += stats.exported;
            delivered.spooled += stats.spooled;
        }
        let counts = self.sampler.counts();
        (vitals.unsampled, vitals.instrumented) = (counts.unsampled, counts.instrumented);
        vitals.lost.spans.add(Reason::SelfBudget, self.thinned + counts.thinned);
        vitals.steps = self.steps;
        if let Some(meter) = self.meter {
            let books = Books {
                asked: self.strategies.as_ref().map(Strategies::counts),
                withheld: self.withheld,
                ..books(self.config, vitals, &vitals.lost.records, Stock::default(), &self.sampler, &self.exporters)
            };
            meter.finish(now, self.wall, books, self.runtime, FLUSH);
        }
        if self.config.output.print.is_some_and(|print| print.style == PrintStyle::Json) {
            say(&format!("{}\n", messages::summary_json(vitals, delivered)));
        } else if !self.config.quiet {
            say(&messages::summary(vitals, delivered));
        }
    }
}

/// Whoever asks for strategies, where the sampler wants that.
fn strategies(sampler: &Sampler, runtime: &Runtime) -> anyhow::Result<Option<Strategies>> {
    sampler.remote().map(|remote| Strategies::start(remote, runtime.handle())).transpose()
}

/// The agent's books as they are now.
fn books(
    config: &Config,
    vitals: &Vitals,
    records: &Tally,
    mut stock: Stock,
    sampler: &Sampler,
    exporters: &[Exporter],
) -> Books {
    let mut vitals = vitals.clone();
    vitals.lost.records = *records;
    let capacity = config.bounds.queue_spans.unwrap_or(config.output.limits.queue_spans) as u64;
    let destinations = exporters.iter().zip(&config.output.destinations).map(|(exporter, destination)| {
        let stats = exporter.stats();
        let dropped = [
            ("queue_full", stats.queue_full),
            ("spool_full", stats.spool_full),
            ("failed", stats.failed),
            ("rejected", stats.rejected),
        ];
        Destination {
            name: destination.name.clone(),
            waiting: stats.waiting,
            capacity,
            exported: stats.exported,
            spooled: destination.spool.as_ref().map(|_| stats.spooled),
            corrupt_files: stats.corrupt_files,
            dropped: dropped.to_vec(),
        }
    });
    let destinations: Vec<_> = destinations.collect();
    let said = exporters.iter().zip(&config.output.destinations);
    let said = said.map(|(exporter, destination)| meter::said(&destination.name, "traces", exporter.requests()));
    stock.tables.push(sampler.fill());
    let waiting: u64 = destinations.iter().map(|destination| destination.waiting).sum();
    stock.memory.push(("export_queues", waiting * export::SPAN_BYTES));
    vitals.lost.spans.add(Reason::SelfBudget, sampler.counts().thinned);
    Books {
        in_flight: vitals.requests.saturating_sub(vitals.spans + vitals.lost.requests.total()),
        sampling: sampler.counts(),
        destinations,
        requests: said.collect(),
        stock,
        vitals,
        ..Books::default()
    }
}

/// Writes what the agent says about itself. Unlike `eprint!` it does not panic when nobody reads.
fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Prints on a thread of its own: a terminal may be slower than the traffic, and a pipe may stand still.
struct Printer {
    batches: SyncSender<Batch>,
    done: Receiver<()>,
    /// Spans that the thread has put on its page.
    shown: Arc<AtomicU64>,
    /// Spans that the thread was given. Law: given - shown <= most + one batch.
    given: u64,
    /// Spans that found the thread too far behind.
    late: u64,
    /// Spans that found nobody to read them.
    refused: u64,
    most: u64,
    /// When the thread was last told the time.
    told: Timestamp,
}

/// What became of the spans. Law: shown + late + refused = all that the printer took.
struct Printed {
    shown: u64,
    late: u64,
    refused: u64,
}

/// What the loop hands over at one time.
struct Batch {
    spans: Vec<ServiceSpan>,
    wall: WallOffset,
    now: Timestamp,
}

impl Printer {
    fn start(print: Print, limits: &Limits) -> anyhow::Result<Self> {
        let (most, within) = (limits.queue_spans as u64, limits.span);
        let (batches, inbox) = sync_channel::<Batch>(MOST_BATCHES);
        let (finished, done) = sync_channel(1);
        let shown = Arc::new(AtomicU64::new(0));
        let ours = Arc::clone(&shown);
        thread::Builder::new()
            .name("spantap-print".into())
            .spawn(move || {
                let mut page = Page::new(print, within);
                while let Ok(Batch { spans, wall, now }) = inbox.recv() {
                    let count = spans.len() as u64;
                    if page.show(spans, wall, now).is_err() {
                        // Nobody reads: the queue's end closes, which the loop notices.
                        return;
                    }
                    ours.fetch_add(count, Ordering::Relaxed);
                }
                // The loop is over; an error means that nobody reads the rest.
                page.finish().ok();
                finished.send(()).ok();
            })
            .context("start the printing thread")?;
        Ok(Self { batches, done, shown, given: 0, late: 0, refused: 0, most, told: Timestamp::default() })
    }

    fn take(&mut self, spans: Vec<ServiceSpan>, wall: WallOffset, now: Timestamp) {
        if spans.is_empty() && now.since(self.told) < TELL_TIME {
            return;
        }
        self.told = now;
        let count = spans.len() as u64;
        if self.given - self.shown.load(Ordering::Relaxed) > self.most && !self.is_gone() {
            self.late += count;
            return;
        }
        match self.batches.try_send(Batch { spans, wall, now }) {
            Ok(()) => self.given += count,
            Err(TrySendError::Full(_)) => self.late += count,
            Err(TrySendError::Disconnected(_)) => self.refused += count,
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.done.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Lets the printer end, for a bounded time.
    fn finish(self) -> Printed {
        let Self { batches, done, shown, given, mut late, mut refused, .. } = self;
        drop(batches);
        let ended = done.recv_timeout(FLUSH);
        let shown = shown.load(Ordering::Relaxed);
        match ended {
            Err(RecvTimeoutError::Timeout) => late += given - shown,
            Err(RecvTimeoutError::Disconnected) | Ok(()) => refused += given - shown,
        }
        Printed { shown, late, refused }
    }
}

/// What the printing thread writes on.
enum Page {
    View(Box<Live<Stdout>>),
    Json(JsonLines<Stdout>),
}

impl Page {
    fn new(print: Print, limits: SpanLimits) -> Self {
        let style = match print.style {
            PrintStyle::Tree => Style::Tree,
            PrintStyle::Text => Style::Text,
            PrintStyle::Json => return Self::Json(JsonLines::new(io::stdout()).within(limits)),
        };
        let width = if print.terminal { Width::Terminal } else { Width::Unlimited };
        Self::View(Box::new(Live::new(style, print.colour, width, io::stdout())))
    }

    fn show(&mut self, spans: Vec<ServiceSpan>, wall: WallOffset, now: Timestamp) -> io::Result<()> {
        match self {
            Self::View(live) => {
                live.spans(&spans, wall)?;
                live.tick(now)
            }
            Self::Json(lines) => match lines.write(spans, wall)? {
                Reader::Present => Ok(()),
                Reader::Gone => Err(io::ErrorKind::BrokenPipe.into()),
            },
        }
    }

    fn finish(mut self) -> io::Result<()> {
        if let Self::View(live) = &mut self {
            live.finish()?;
        }
        io::stdout().flush()
    }
}

/// Longest time the outputs may take to empty their queues at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Batches on their way to the printer: one a tick, so this is several seconds of a terminal that stands still.
const MOST_BATCHES: usize = 1024;

/// How often the printer is told the time when there is nothing to print: it waits 300 ms for a trace to be complete.
const TELL_TIME: Duration = Duration::from_millis(50);
