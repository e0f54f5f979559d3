// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The loop that connects the kernel, the pure stages and the outputs.
//!
//! In: a [`Config`]. Out: whatever the outputs make of the spans, and one summary line. It decides when things happen
//! (ticks, signals, the end) and nothing else; it never waits for an output.

mod reload;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufWriter},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rand::{TryRng as _, rngs::SysRng};
use spantap_common::{
    abi::MAX_PROCESSES,
    event::{Kind, process::Life},
    loss::Reason,
    settings::{ProcessSettings, Verdict},
};
use thiserror::Error;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tracing::{debug, warn};

use self::reload::Reload;
pub use self::reload::Source;
use crate::{
    capture::{Frame, Preamble, Recorder, ReplayError, Replayer},
    clock,
    config::{Config, reload::Change},
    enrich::{ServiceSpan, route::Routes, target::Targets},
    event::{self, Event, Process},
    export::local,
    kernel::{Controls, Pace, Probes, Settings, Unsupported, occupancy::Peak, ring},
    ladder::{Ladder, Rung, Step, Usage},
    live::messages::Start,
    memory,
    metrics::own::Stock,
    outputs::Outputs,
    pipeline::{Input, Pipeline, Watch},
    priority,
    process::{self, ProcessFacts, ProcessId},
    protocol::disclosure::Disclosure,
    targets::{
        self, Reader,
        identity::{self, Finder, Finding, Layout},
        selection::Judge,
    },
    time::{Timestamp, WallOffset},
    usage,
    vitals::{LeftAlone, Tally},
};

/// Why the agent could not do its work.
#[derive(Debug, Error)]
pub enum RunError {
    /// This machine cannot run the probes.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A recording could not be written.
    #[error("cannot record into {}: {error}. Nothing was captured. Choose a place that this user can write to.", path.display())]
    Record {
        /// Where to.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A recording could not be read.
    #[error("cannot replay {}: {error}. Record a stream with `spantap record FILE` and replay that.", path.display())]
    Replay {
        /// Where from.
        path: PathBuf,
        /// Why not.
        error: ReplayError,
    },
    /// Something else went wrong.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl RunError {
    /// The process's exit code: 77 where this machine is not supported, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unsupported(_) => 77,
            Self::Record { .. } | Self::Replay { .. } | Self::Other(_) => 1,
        }
    }
}

/// Traces until a signal or the configured duration ends it. Where the configuration has a source, it is read again on
/// SIGHUP and when one of its files is swapped.
pub fn run(config: &Config, source: Option<Source>) -> Result<(), RunError> {
    let started = Instant::now();
    // Before there are other threads: they inherit it.
    priority::yield_to_others();
    let runtime = runtime()?;
    // A recording is of one piece.
    let source = source.filter(|_| config.record.is_none());
    let mut reload = source.map(|source| Reload::from(source, config, &runtime)).transpose()?;
    let config = &with_local_collector(config, &runtime);
    let stop = Stop::on_signals(&runtime)?;
    let preamble = Preamble { seed: seed()?, host: targets::host::facts() };
    let recorder = config.record.as_deref().map(|path| Recording::begin(path, &preamble)).transpose()?;
    let mut outputs = Outputs::open(config, &runtime)?;
    let mut watched = Watched::new(Judge::new(&config.selection).context("understand the selection")?);
    watched.meet_running();
    let mut probes = Probes::attach(&settings_of(config, &mut watched))?;
    memory::give_back();
    memory::put_back_code();
    let start = Start {
        kernel: &kernel_release(),
        tier: probes.tier(),
        passed_over: probes.passed_over(),
        verdicts: probes.verdicts(),
        older: probes.older().connections,
        took: started.elapsed(),
    };
    outputs.begin(&start, clock::now());

    let mut pipeline = Pipeline::with_limits(preamble.seed, preamble.host, config.bounds.pipeline);
    pipeline.set_routes(routes(config)?);
    pipeline.trust(config.output.parents);
    pipeline.describe_resources(&config.resource);
    pipeline.disclose(disclosure(config)?);
    pipeline.classify(classes(config)?);
    let mut inlet = Inlet { pipeline, recorder, spans: Vec::new() };
    let deadline = config.duration.map(|duration| Instant::now() + duration);
    let mut grace_ends = None;
    let mut losses_read = Timestamp::default();
    let pace = Pace::new(config.bounds.ring_bytes);
    let mut looked = Instant::now();
    let mut ladder = Ladder::new(config.budget);
    let (mut failed, mut fullest) = (None, Peak::default());
    loop {
        // Asked before the ring is read: whatever was requested until then is in it.
        let asked = stop.asked() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let drained = drain(&mut probes, &mut watched, &mut inlet);
        watched.tell(probes.controls());
        for socket in inlet.pipeline.unwanted() {
            if let Err(error) = probes.controls().leave_alone(socket) {
                debug!(?socket, %error, "the table of unwanted sockets took no more");
            }
        }
        for body in inlet.pipeline.long_bodies() {
            if let Err(error) = probes.controls().pass_over(body) {
                debug!(?body, %error, "the table of long bodies took no more");
            }
        }
        for resource in inlet.pipeline.instrumented() {
            outputs.instrumented(&resource);
        }
        let (now, wall) = (clock::now(), clock::wall_offset());
        // Behind a backlog stands what happened before now.
        inlet.feed(Input::Tick(drained.backlog.unwrap_or(now)), wall);
        inlet.check()?;
        fullest.saw(drained.bytes, now);
        let Inlet { pipeline, spans, .. } = &mut inlet;
        outputs.take(spans, pipeline.vitals(), || stock(&probes, pipeline, config, fullest), wall, now);
        if outputs.is_abandoned() {
            break;
        }
        if now.since(losses_read) >= READ_LOSSES {
            losses_read = now;
            let lost = lost_records(&probes, &inlet);
            outputs.lost(&lost, now);
            let usage = Usage {
                cpu: usage::cpu(),
                resident: usage::resident(),
                records: inlet.pipeline.vitals().records,
                dropped: lost.of(Reason::RingFull),
                counted: lost.of(Reason::SelfBudget),
                processors: usage::processors(),
            };
            if let Some(step) = ladder.look(now, usage) {
                // What is traced may have changed since the start.
                let config = reload.as_ref().map_or(config, |reload| &reload.in_force);
                match take(&step, config, &mut probes, &mut watched, &mut inlet) {
                    Ok(()) => outputs.stepped(&step),
                    Err(error) => {
                        warn!("cannot do more again, will try later: {error:#}");
                        ladder.refused(step, now);
                    }
                }
            }
        }

        if let Some(reload) = &mut reload
            && let Some(change) = reload.look()
        {
            let config = &reload.in_force;
            match apply(&change, config, ladder.rung(), &mut probes, &mut watched, &mut inlet) {
                Ok(()) => outputs.reconfigured(config, &change),
                Err(error) => {
                    failed = Some(error.context("attach the probes again for another configuration"));
                    break;
                }
            }
        }

        if asked && grace_ends.is_none() {
            grace_ends = Some(Instant::now() + GRACE);
        }
        // A backlog holds requests that were made before the agent was asked to end.
        let caught_up = drained.backlog.is_none();
        if asked && caught_up {
            inlet.pipeline.stop_opening();
        }
        let is_done = || caught_up && inlet.pipeline.open() == 0;
        if grace_ends.is_some_and(|end| is_done() || Instant::now() >= end || stop.insisted()) {
            break;
        }
        // The ring was as empty as it ever is when the look before this one was over.
        let rest = match ladder.rung() {
            // Nobody writes into the ring.
            Rung::Detached => LONG_REST,
            Rung::Full | Rung::Sampled | Rung::Counted => pace.rest(drained.bytes, looked.elapsed()),
        };
        looked = Instant::now();
        thread::sleep(rest);
    }
    // Responses that were written while the loop slept.
    probes.detach();
    inlet.pipeline.stop_opening();
    drain(&mut probes, &mut watched, &mut inlet);
    inlet.pipeline.finish(&mut inlet.spans);
    outputs.take(&mut inlet.spans, inlet.pipeline.vitals(), Stock::default, clock::wall_offset(), clock::now());
    let mut vitals = inlet.pipeline.vitals().clone();
    vitals.lost.records = lost_records(&probes, &inlet);
    vitals.left_alone = LeftAlone(probes.left_alone());
    vitals.missed = probes.missed();
    inlet.close()?;
    outputs.finish(&mut vitals, clock::now());
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Applies what can be applied of `config`, to everything but the outputs.
fn apply(
    change: &Change,
    config: &Config,
    rung: Rung,
    probes: &mut Probes,
    watched: &mut Watched,
    inlet: &mut Inlet,
) -> anyhow::Result<()> {
    // While nobody is watched anyway, the step up finds the new selection.
    let anew = (change.selection || change.resource || change.disclosure) && rung != Rung::Detached;
    if anew {
        // The probes have judged the sockets that they follow, and some of what they judge by is fixed when they are
        // loaded. What they have seen so far was seen under the old configuration.
        probes.detach();
        drain(probes, watched, inlet);
        inlet.pipeline.leave(&mut inlet.spans);
    }
    if change.routes {
        inlet.pipeline.set_routes(routes(config)?);
    }
    if change.resource {
        inlet.pipeline.describe_resources(&config.resource);
    }
    if change.disclosure {
        inlet.pipeline.disclose(disclosure(config)?);
    }
    if change.selection {
        inlet.pipeline.classify(classes(config)?);
    }
    if !anew {
        return Ok(());
    }
    attach_again(config, probes, watched)?;
    probes.controls().count_only(rung >= Rung::Counted).context("tell the probes whether to count only")
}

/// Watches again, and judges everybody who runs by `config`.
fn attach_again(config: &Config, probes: &mut Probes, watched: &mut Watched) -> anyhow::Result<()> {
    let mut again = Watched::new(Judge::new(&config.selection).context("understand the selection")?);
    again.meet_running();
    let settings = settings_of(config, &mut again);
    probes.attach_again(&settings)?;
    *watched = again;
    memory::give_back();
    Ok(())
}

/// Where nobody said where spans go, a collector on this machine gets them, if there is one.
fn with_local_collector(config: &Config, runtime: &Runtime) -> Config {
    let mut config = config.clone();
    if config.output.unasked
        && let Some(collector) = runtime.block_on(local::find(&local::USUAL_PORTS))
    {
        config.output.destinations.push(collector);
        config.output.print = None;
    }
    config
}

/// What the probes are told before they run.
fn settings_of(config: &Config, watched: &mut Watched) -> Settings {
    Settings {
        agent_pid: std::process::id(),
        processes: watched.settings(),
        ports: config.selection.ports.clone(),
        ring_bytes: config.bounds.ring_bytes,
        tier: config.tier,
        count_tables: config.output.metrics.is_wanted(),
        ..Settings::default()
    }
}

/// Takes a step as far as it concerns what is seen; which spans leave is the outputs' affair.
fn take(
    step: &Step,
    config: &Config,
    probes: &mut Probes,
    watched: &mut Watched,
    inlet: &mut Inlet,
) -> anyhow::Result<()> {
    if step.to == Rung::Detached {
        probes.detach();
        drain(probes, watched, inlet);
        inlet.pipeline.leave(&mut inlet.spans);
        memory::give_back();
        return Ok(());
    }
    if step.from == Rung::Detached {
        // Nobody has seen who came and went meanwhile.
        attach_again(config, probes, watched)?;
    }
    probes.controls().count_only(step.to >= Rung::Counted).context("tell the probes whether to count only")
}

/// What was in the ring when it was looked at.
struct Drained {
    bytes: u64,
    /// When the last of them was made, if there may be more.
    backlog: Option<Timestamp>,
}

/// Takes the records there are into the pipeline.
fn drain(probes: &mut Probes, watched: &mut Watched, inlet: &mut Inlet) -> Drained {
    let wall = clock::wall_offset();
    let (mut records, mut bytes, mut backlog) = (0, 0, None);
    probes.drain_few(|few| {
        inlet.pipeline.prefetch(few.records());
        for record in few.records() {
            records += 1;
            bytes += record.len() as u64;
            if records == ring::BATCH {
                backlog = Some(event::made_at(record).unwrap_or_default());
            }
            if let Some((facts, watch)) = watched.met(record, &inlet.pipeline) {
                inlet.feed(Input::Facts(&facts, watch), wall);
            }
            inlet.feed(Input::Record(record), wall);
        }
    });
    Drained { bytes, backlog }
}

/// What is held in the kernel and by the stages.
fn stock(probes: &Probes, pipeline: &Pipeline, config: &Config, fullest: Peak) -> Stock {
    let ring = u64::from(config.bounds.ring_bytes);
    let tables = probes.tables().into_iter().map(|filled| (filled.map, filled.entries, filled.capacity));
    let runs = probes.runs().into_iter().map(|runs| (runs.program, runs.time.as_secs_f64(), runs.count, runs.missed));
    Stock {
        maps: tables.chain([("RING".to_owned(), Some(fullest.get()), ring)]).collect(),
        programs: runs.collect(),
        tables: pipeline.tables().to_vec(),
        memory: vec![("ring", ring), ("kernel_maps", probes.map_memory())],
        targets: pipeline.targets().to_vec(),
    }
}

/// Records lost so far: by the probes, and by the decoder.
fn lost_records(probes: &Probes, inlet: &Inlet) -> Tally {
    let mut records = Tally::from(probes.lost());
    records.absorb(&inlet.pipeline.vitals().lost.records);
    records
}

/// Plays a recorded stream through the same stages into the configured outputs.
pub fn replay(path: &Path, config: &Config) -> Result<(), RunError> {
    let failed = |error| RunError::Replay { path: path.to_path_buf(), error };
    let runtime = runtime()?;
    let mut replayer = Replayer::open(path).map_err(failed)?;
    let mut outputs = Outputs::open(config, &runtime)?;
    let Preamble { seed, host } = replayer.preamble().clone();
    let mut pipeline = Pipeline::new(seed, host);
    pipeline.set_routes(routes(config)?);
    pipeline.trust(config.output.parents);
    pipeline.describe_resources(&config.resource);
    pipeline.disclose(disclosure(config)?);
    pipeline.classify(classes(config)?);
    let mut spans = Vec::new();
    let (mut now, mut wall) = (Timestamp::default(), WallOffset::default());
    while let Some(frame) = replayer.next_frame().map_err(failed)? {
        pipeline.feed(frame.input(), &mut spans);
        if let Frame::Tick(at, offset) = frame {
            (now, wall) = (at, offset);
            outputs.take(&mut spans, pipeline.vitals(), Stock::default, wall, now);
        }
    }
    pipeline.finish(&mut spans);
    outputs.take(&mut spans, pipeline.vitals(), Stock::default, wall, now);
    outputs.finish(&mut pipeline.vitals().clone(), now);
    Ok(())
}

/// The configured routes.
fn routes(config: &Config) -> anyhow::Result<Routes> {
    Routes::new(&config.output.routes).map_err(|mistakes| anyhow::anyhow!(mistakes.join("; ")))
}

/// What parsers tell and hide.
fn disclosure(config: &Config) -> anyhow::Result<Disclosure> {
    Disclosure::new(&config.disclosure).map_err(|mistakes| anyhow::anyhow!(mistakes.join("; ")))
}

/// The rules for kinds of processes.
fn classes(config: &Config) -> anyhow::Result<Targets> {
    Targets::new(&config.selection.targets).context("understand the targets")
}

/// The operating system's randomness: trace ids decide what is sampled, and must not be predictable.
fn seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).context("read randomness for trace ids")?;
    Ok(seed)
}

fn kernel_release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn runtime() -> anyhow::Result<Runtime> {
    // One thread: it waits for a collector and for signals.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("spantap-io")
        .enable_all()
        .build()
        .context("start the input/output thread")
}

/// Counts the signals of a kind, which do nothing else from now on.
fn count(kind: SignalKind, into: &Arc<AtomicU32>, runtime: &Runtime) -> anyhow::Result<()> {
    let _guard = runtime.enter();
    let mut signals = signal(kind).context("listen for signals")?;
    let count = Arc::clone(into);
    runtime.spawn(async move {
        while signals.recv().await.is_some() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// SIGINT and SIGTERM: the first asks for an orderly end, the second insists.
struct Stop(Arc<AtomicU32>);

impl Stop {
    fn on_signals(runtime: &Runtime) -> anyhow::Result<Self> {
        let signals = Arc::new(AtomicU32::new(0));
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            count(kind, &signals, runtime)?;
        }
        Ok(Self(signals))
    }

    fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    fn insisted(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 1
    }
}

/// The way into the pipeline, past the recorder.
struct Inlet {
    pipeline: Pipeline,
    recorder: Option<Recording>,
    /// Finished, and not yet taken by the outputs.
    spans: Vec<ServiceSpan>,
}

impl Inlet {
    fn feed(&mut self, input: Input<'_>, wall: WallOffset) {
        if let Some(recorder) = &mut self.recorder {
            recorder.input(&input, wall);
        }
        self.pipeline.feed(input, &mut self.spans);
    }

    fn check(&mut self) -> Result<(), RunError> {
        self.recorder.as_mut().map_or(Ok(()), Recording::check)
    }

    fn close(self) -> Result<(), RunError> {
        self.recorder.map_or(Ok(()), Recording::close)
    }
}

/// A recording under way. The first failure ends it, and is reported once the batch is over.
struct Recording {
    path: PathBuf,
    recorder: Recorder<BufWriter<File>>,
    failed: Option<io::Error>,
}

impl Recording {
    fn begin(path: &Path, preamble: &Preamble) -> Result<Self, RunError> {
        match Recorder::create(path, preamble) {
            Ok(recorder) => Ok(Self { path: path.to_path_buf(), recorder, failed: None }),
            Err(error) => Err(RunError::Record { path: path.to_path_buf(), error }),
        }
    }

    fn input(&mut self, input: &Input<'_>, wall: WallOffset) {
        if self.failed.is_none() {
            self.failed = self.recorder.input(input, wall).err();
        }
    }

    fn check(&mut self) -> Result<(), RunError> {
        match self.failed.take() {
            Some(error) => Err(RunError::Record { path: self.path.clone(), error }),
            None => Ok(()),
        }
    }

    fn close(mut self) -> Result<(), RunError> {
        self.check()?;
        match self.recorder.finish() {
            Ok(_) => Ok(()),
            Err(error) => Err(RunError::Record { path: self.path, error }),
        }
    }
}

/// Introduces processes to the pipeline, and decides which of them are traced.
struct Watched {
    judge: Judge,
    reader: Reader,
    /// Where processes came from, in case they are gone before `/proc` is read. Law: born.len() <= MOST_BORN.
    born: HashMap<u32, Birth>,
    /// Decisions that the probes have not been told yet.
    decided: Vec<(u32, Option<Verdict>)>,
    /// None where there can be no further thread: tasks stay unknown then.
    finder: Option<Finder>,
    /// What the probes were told of each process. Law: told.len() <= MAX_PROCESSES.
    told: HashMap<u32, ProcessSettings>,
    /// Processes whose memory is looked into; a finding for another one comes too late. Law: at most MAX_PROCESSES.
    looked_into: HashMap<u32, Looked>,
    /// Processes of which something was found that the probes were not told yet.
    found: Vec<u32>,
    /// Processes whose threads tell something, and of whose threads the probes do not tell yet.
    threaded: Vec<u32>,
}

impl Watched {
    fn new(judge: Judge) -> Self {
        Self {
            judge,
            reader: Reader::new(),
            born: HashMap::new(),
            decided: Vec::new(),
            finder: Finder::start(PathBuf::from("/proc")),
            told: HashMap::new(),
            looked_into: HashMap::new(),
            found: Vec::new(),
            threaded: Vec::new(),
        }
    }

    /// Judges the processes that are running, if there is anything to choose, and has those that are traced looked into.
    fn meet_running(&mut self) {
        for facts in self.reader.scan() {
            let verdict = self.judge.judge(&facts);
            if self.judge.selects_processes() || verdict == Verdict::Ignored {
                self.decided.push((facts.id.pid, Some(verdict)));
            }
            // The agent is on tokio as well, and its own calls are not followed.
            if verdict != Verdict::Ignored && identity::is_known(facts.runtime) && facts.id.pid != std::process::id() {
                self.look_into(facts.id, Some(facts.runtime));
            }
        }
    }

    /// Looks at a record before the pipeline does. The facts of a process come back when it shows its first socket.
    fn met(&mut self, record: &[u8], pipeline: &Pipeline) -> Option<(ProcessFacts, Watch)> {
        // Nearly all records; the pipeline decodes them.
        if matches!(event::kind(record), Some(Kind::Data | Kind::Thread)) {
            return None;
        }
        match event::decode(record).ok()? {
            Event::Socket(socket) => {
                let pid = socket.moment.task.pid;
                if pipeline.knows(pid) {
                    return None;
                }
                let facts = self.facts(pid, MOST_FORKS);
                let facts = facts.unwrap_or_else(|| targets::fallback(ProcessId { pid, started: 0 }, 0, "", ""));
                let watch = match self.judge.judge(&facts) {
                    Verdict::Ignored => Watch::Ignore,
                    Verdict::Undecided | Verdict::Target => Watch::Trace,
                };
                if watch == Watch::Ignore {
                    // Where it was forked, or nobody selects processes, the probes were not told when it began.
                    self.decided.push((pid, Some(Verdict::Ignored)));
                }
                // It may have been too early when the program began.
                if watch == Watch::Trace && identity::is_known(facts.runtime) && !self.is_found(facts.id) {
                    self.look_into(facts.id, Some(facts.runtime));
                }
                if watch == Watch::Trace && facts.runtime.is_told_by_threads() {
                    self.threaded.push(pid);
                }
                Some((facts, watch))
            }
            Event::Process(process) => {
                self.process(&process);
                None
            }
            Event::Data(_) | Event::Shut(_) | Event::Thread(_) => None,
        }
    }

    /// What is known of a process, dead or alive, over at most `forks` generations.
    fn facts(&mut self, pid: u32, forks: u32) -> Option<ProcessFacts> {
        let read = self.reader.facts(pid);
        // On its way out a process has a number and a name, and no program any more.
        if read.as_ref().is_some_and(|facts| !facts.executable.is_empty()) {
            return read;
        }
        let born = match self.born.get(&pid) {
            Some(Birth::Executed(facts)) => Some(match &read {
                Some(read) => ProcessFacts { executable: facts.executable.clone(), ..read.clone() },
                None => facts.clone(),
            }),
            // It ran its parent's program, in its parent's environment.
            Some(Birth::Forked { id, parent }) if forks > 0 => {
                let (id, parent) = (*id, *parent);
                self.facts(parent, forks - 1).map(|facts| ProcessFacts { id, parent, ..facts })
            }
            Some(Birth::Forked { .. }) | None => None,
        };
        born.or(read)
    }

    /// Remembers where a process came from.
    fn remember(&mut self, pid: u32, birth: Birth) {
        if self.born.len() >= MOST_BORN {
            self.born.clear();
        }
        self.born.insert(pid, birth);
    }

    /// Has the process looked into for what tells its tasks apart.
    fn look_into(&mut self, process: ProcessId, runtime: Option<process::Runtime>) {
        let ask = self.finder.as_mut().and_then(|finder| finder.look(process.pid, runtime));
        if ask.is_some() {
            self.keep(Looked { process, ask, layout: None });
        }
    }

    /// A fork has its parent's memory, and so its tasks are known as its parent's are.
    fn inherit(&mut self, process: ProcessId, parent: u32) {
        match self.looked_into.get(&parent).map(|parent| parent.layout) {
            Some(None) => self.look_into(process, None),
            Some(layout) => {
                self.keep(Looked { process, ask: None, layout });
                self.found.push(process.pid);
            }
            None => {}
        }
    }

    fn keep(&mut self, looked: Looked) {
        if self.looked_into.len() < MAX_PROCESSES as usize {
            self.looked_into.insert(looked.process.pid, looked);
        }
    }

    /// Whether it is known how to tell the process's tasks apart.
    fn is_found(&self, process: ProcessId) -> bool {
        self.looked_into.get(&process.pid).is_some_and(|known| known.process == process && known.layout.is_some())
    }

    /// Remembers findings of processes that still run the program that was looked into.
    fn learn(&mut self, findings: &[Finding]) {
        for Finding { ask, pid, layout } in findings {
            if let Some(known) = self.looked_into.get_mut(pid).filter(|known| known.ask == Some(*ask)) {
                known.layout = Some(*layout);
                self.found.push(*pid);
            }
        }
    }

    /// What the probes are to know of each process in which something was found since the last call.
    fn layouts(&mut self) -> Vec<(u32, Layout)> {
        let layout = |pid| Some((pid, self.looked_into.get(&pid)?.layout?));
        mem::take(&mut self.found).into_iter().filter_map(layout).collect()
    }

    /// The decisions and findings so far, for probes that are not attached yet: then the first request that they see is read
    /// by a known task.
    fn settings(&mut self) -> Vec<(u32, ProcessSettings)> {
        let mut all: HashMap<u32, ProcessSettings> = HashMap::new();
        for (pid, verdict) in self.decided.drain(..) {
            all.extend(verdict.map(|verdict| (pid, settings(verdict))));
        }
        let findings = self.finder.as_mut().map(|finder| finder.first_findings(FIRST_LOOKS));
        self.learn(&findings.unwrap_or_default());
        for (pid, layout) in self.layouts() {
            let known = all.entry(pid).or_default();
            *known = layout.into_settings(*known);
        }
        self.told.extend(all.into_iter().take(MAX_PROCESSES as usize));
        self.told.iter().map(|(pid, settings)| (*pid, *settings)).collect()
    }

    /// Passes decisions and findings on to the probes, so that they leave the others alone themselves, and see the tasks of
    /// those that they watch. What does not fit their table is captured and dropped here, and its tasks stay unknown.
    fn tell(&mut self, controls: &mut Controls) {
        for (pid, verdict) in mem::take(&mut self.decided) {
            match verdict {
                Some(verdict) => {
                    let known = self.told.get(&pid).copied().unwrap_or_default();
                    self.tell_one(controls, pid, ProcessSettings { verdict: verdict as u32, ..known });
                }
                None => {
                    self.told.remove(&pid);
                    controls.forget_process(pid);
                }
            }
        }
        for pid in mem::take(&mut self.threaded) {
            let known = self.told.get(&pid).copied().unwrap_or_default();
            self.tell_one(controls, pid, ProcessSettings { threads: 1, ..known });
        }
        let findings = self.finder.as_mut().map(Finder::findings);
        self.learn(&findings.unwrap_or_default());
        for (pid, layout) in self.layouts() {
            let known = self.told.get(&pid).copied().unwrap_or_default();
            self.tell_one(controls, pid, layout.into_settings(known));
        }
    }

    fn tell_one(&mut self, controls: &mut Controls, pid: u32, settings: ProcessSettings) {
        match controls.set_process(pid, settings) {
            Ok(()) => {
                self.told.insert(pid, settings);
            }
            Err(error) => debug!(pid, %error, "the table of processes took no settings"),
        }
    }

    /// The memory that was looked into is no more.
    fn leave(&mut self, pid: u32) {
        if self.looked_into.remove(&pid).is_some() && self.told.contains_key(&pid) {
            self.decided.push((pid, None));
        }
    }

    /// What the probes were told of a process holds no longer.
    fn forget(&mut self, pid: u32) {
        if self.told.contains_key(&pid) {
            self.decided.push((pid, None));
        }
    }

    fn process(&mut self, process: &Process<'_>) {
        let (pid, chooses) = (process.pid, self.judge.selects_processes());
        let known = || {
            let id = ProcessId::started_at(pid, process.started);
            let text = String::from_utf8_lossy;
            targets::fallback(id, process.parent, &text(process.command), &text(process.path))
        };
        if process.life == Life::Fork {
            let id = ProcessId::started_at(pid, process.started);
            self.remember(pid, Birth::Forked { id, parent: process.parent });
            self.inherit(id, process.parent);
        }
        match process.life {
            // A fork is of its parent's family, and runs its parent's program until it says otherwise.
            Life::Fork if chooses => {
                let facts = self.reader.facts(pid).unwrap_or_else(known);
                // One that is no target may be about to execute one's program, and to have made its first request before
                // the probes hear of that: whether it is ignored is said when it shows what it is.
                if self.judge.judge(&facts) == Verdict::Target {
                    self.decided.push((pid, Some(Verdict::Target)));
                }
            }
            Life::Fork => {}
            Life::Exec => {
                let facts = known();
                self.leave(pid);
                self.threaded.retain(|other| *other != pid);
                if chooses {
                    let read = self.reader.facts(pid);
                    let read = read.as_ref().unwrap_or(&facts);
                    let verdict = self.judge.judge(read);
                    self.decided.push((pid, Some(verdict)));
                    if verdict != Verdict::Ignored && identity::is_known(read.runtime) {
                        self.look_into(read.id, Some(read.runtime));
                    }
                } else {
                    self.forget(pid);
                    self.look_into(facts.id, None);
                }
                self.remember(pid, Birth::Executed(facts));
            }
            Life::Exit => {
                self.born.remove(&pid);
                self.leave(pid);
                self.threaded.retain(|other| *other != pid);
                if chooses {
                    self.judge.gone(pid);
                    self.decided.push((pid, None));
                } else {
                    self.forget(pid);
                }
            }
        }
    }
}

/// A process whose memory is looked into.
#[derive(Clone, Copy)]
struct Looked {
    process: ProcessId,
    /// The question that stands; none where its parent's answer was taken over.
    ask: Option<u64>,
    layout: Option<Layout>,
}

/// Where a process came from.
enum Birth {
    /// It is a copy of its parent.
    Forked { id: ProcessId, parent: u32 },
    /// It executed a program.
    Executed(ProcessFacts),
}

fn settings(verdict: Verdict) -> ProcessSettings {
    ProcessSettings { verdict: verdict as u32, ..ProcessSettings::default() }
}

/// How long requests under way may take to end once the agent was asked to.
const GRACE: Duration = Duration::from_secs(2);

/// Between two looks while no probe is attached: signals and scrapers wait no longer.
const LONG_REST: Duration = Duration::from_millis(100);

/// How long the start may take for first looks into processes that run already: some milliseconds each.
const FIRST_LOOKS: Duration = Duration::from_millis(500);

/// Between two looks at the probes' counters, each of them a system call: soon enough for a warning.
const READ_LOSSES: Duration = Duration::from_secs(1);

/// Processes remembered for the moment between their end and the reading of their first socket record. Exits remove
/// them; only lost exits can fill the table, and then it starts afresh.
const MOST_BORN: usize = 64 << 10;

/// Generations over which a process that is gone is known by its forefathers: a server, its workers, and their helpers.
const MOST_FORKS: u32 = 4;

#[cfg(test)]
mod tests {
    use spantap_common::identity::Go;

    use super::*;
    use crate::{config::Selection, enrich::process::selector::Patterns, time::Moment};

    #[test]
    fn a_fork_that_is_gone_is_known_as_what_its_parent_is() {
        let mut watched = Watched::new(Judge::new(&Selection::default()).expect("nothing to choose"));
        // No such process: pids end at 4 Mi.
        let (gone, child) = (u32::MAX - 1, u32::MAX);
        let own = std::process::id();
        for (pid, parent) in [(gone, own), (child, gone)] {
            let id = ProcessId { pid, started: 7 };
            watched.remember(pid, Birth::Forked { id, parent });
        }
        let here = watched.facts(own, MOST_FORKS).expect("this process runs");
        let facts = watched.facts(child, MOST_FORKS).expect("of this family");
        let id = ProcessId { pid: child, started: 7 };
        assert_eq!(facts, ProcessFacts { id, parent: gone, ..here });
        assert_eq!(watched.facts(child, 0), None, "the generations are bounded");
        assert_eq!(watched.facts(u32::MAX - 2, MOST_FORKS), None);
    }

    #[test]
    fn a_fork_has_the_layout_of_its_parent_until_it_executes_something() {
        let mut watched = Watched::new(Judge::new(&Selection::default()).expect("nothing to choose"));
        let layout = Layout::Go(Go { goid: 152, ..Go::default() });
        let parent = ProcessId { pid: u32::MAX - 1, started: 7 };
        let child = ProcessId { pid: u32::MAX, started: 8 };
        watched.keep(Looked { process: parent, ask: Some(5), layout: None });
        watched.learn(&[Finding { ask: 4, pid: parent.pid, layout }]);
        assert_eq!(watched.layouts(), [], "of the program that it ran before");
        watched.learn(&[Finding { ask: 5, pid: parent.pid, layout }]);
        watched.inherit(child, parent.pid);
        assert_eq!(watched.layouts(), [(parent.pid, layout), (child.pid, layout)]);
        assert!(watched.is_found(child) && !watched.is_found(ProcessId { started: 9, ..child }));
        watched.inherit(child, parent.pid);
        watched.leave(child.pid);
        assert_eq!(watched.layouts(), [], "its memory is another's by now");
    }

    #[test]
    fn a_fork_is_not_ignored_before_it_shows_what_it_is() {
        let patterns = Patterns { executables: vec!["curl".to_owned()], ..Patterns::default() };
        let mut watched = Watched::new(Judge::new(&Selection { patterns, ..Selection::default() }).expect("a glob"));
        let pid = u32::MAX - 1;
        let mut lives = |life, command: &'static str, path: &'static str| {
            let (command, path) = (command.as_bytes(), path.as_bytes());
            watched.process(&Process { moment: Moment::default(), pid, parent: 1, started: 7, life, command, path });
            mem::take(&mut watched.decided)
        };
        assert_eq!(lives(Life::Fork, "sh", ""), [], "it runs a shell, as yet");
        assert_eq!(lives(Life::Exec, "curl", "/usr/bin/curl"), [(pid, Some(Verdict::Target))]);
        assert_eq!(lives(Life::Fork, "curl", "/usr/bin/curl"), [(pid, Some(Verdict::Target))]);
        assert_eq!(lives(Life::Exec, "sh", "/bin/sh"), [(pid, Some(Verdict::Ignored))]);
    }

    #[test]
    fn a_process_on_its_way_out_is_known_as_the_program_it_executed() {
        let mut watched = Watched::new(Judge::new(&Selection::default()).expect("nothing to choose"));
        let mut child =
            std::process::Command::new("true").stdout(std::process::Stdio::piped()).spawn().expect("it runs");
        // It closes its output when it ends, and nobody has waited for it: a number and a name are left.
        let mut output = child.stdout.take().expect("it is piped");
        io::copy(&mut output, &mut io::sink()).expect("nothing to read");
        let pid = child.id();
        while !watched.reader.facts(pid).expect("nobody waited for it").executable.is_empty() {
            thread::yield_now();
        }
        let id = ProcessId { pid, started: 0 };
        watched.remember(pid, Birth::Executed(targets::fallback(id, 1, "true", "/usr/bin/true")));
        let facts = watched.facts(pid, MOST_FORKS).expect("it was seen");
        assert_eq!((&*facts.executable, &*facts.command), ("/usr/bin/true", "true"));
        assert_eq!(facts.parent, std::process::id(), "what can be read still is");
        assert!(child.wait().expect("it ended").success());
    }
}
