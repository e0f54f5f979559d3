// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent says about itself.
//!
//! In: its books, as plain numbers. Out: [`Family`]s by the names `spantap_*`, and the usual `process_*`. It reads nothing
//! itself: what it is not told, it does not say.

use std::borrow::Cow;

use super::{Data, Family, Histogram, Kind, Point};
use spantap_common::loss::Reason;

use crate::{
    attribute::Value,
    sample,
    time::Timestamp,
    vitals::{Fill, Vitals},
};

/// The books of the agent at one moment.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What was seen, made and lost.
    pub vitals: Vitals,
    /// Requests under way.
    pub in_flight: u64,
    /// What became of traces.
    pub sampling: sample::Counts,
    /// Questions for sampling strategies, by what became of them.
    pub asked: Option<[(&'static str, u64); 2]>,
    /// Spans that no destination got because of the rule for their process.
    pub withheld: u64,
    /// By destination: its name, what waits for it, how much may, and what it took.
    pub destinations: Vec<Destination>,
    /// What was said to whom.
    pub requests: Vec<Requests>,
    /// How often something was counted in an overflow series, by metric.
    pub overflown: Vec<(&'static str, u64)>,
    /// What is held where.
    pub stock: Stock,
    /// What `/proc` says of the process; empty where unreadable.
    pub process: Vec<(&'static str, f64)>,
}

/// What is held where, as far as whoever owns it can tell.
#[derive(Clone, Debug, Default)]
pub struct Stock {
    /// The kernel's tables: entries, where somebody has counted, and capacity. Of the ring they are bytes.
    pub maps: Vec<(String, Option<u64>, u64)>,
    /// Seconds that each probe ran, and how often, where the kernel measures it; and how often it was left out.
    pub programs: Vec<(String, f64, u64, u64)>,
    /// The tables of the agent itself.
    pub tables: Vec<Fill>,
    /// Further bytes of memory, by what they are for.
    pub memory: Vec<(&'static str, u64)>,
    /// Processes, by what is done about them.
    pub targets: Vec<(&'static str, u64)>,
}

/// What was said to a destination about one signal.
#[derive(Clone, Debug)]
pub struct Requests {
    /// The destination's name.
    pub destination: String,
    /// `traces` or `metrics`.
    pub signal: &'static str,
    /// Attempts, by how they ended.
    pub ended: Vec<(&'static str, u64)>,
    /// What they took.
    pub seconds: Histogram,
}

/// The queue of a destination.
#[derive(Clone, Debug, Default)]
pub struct Destination {
    /// Its name.
    pub name: String,
    /// Spans that wait.
    pub waiting: u64,
    /// Spans that may wait.
    pub capacity: u64,
    /// Spans that it took.
    pub exported: u64,
    /// Spans on disk, where they may wait there too.
    pub spooled: Option<u64>,
    /// Files on disk that are not what was written.
    pub corrupt_files: u64,
    /// Spans that it did not get, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// Everything that `books` say, of an agent that began at `since`.
pub fn families(books: &Books, since: Timestamp) -> Vec<Family> {
    let mut page = Page { since, families: Vec::new() };
    let Books { vitals, sampling, .. } = books;
    let of_build = |value: Option<&'static str>| Cow::Borrowed(value.unwrap_or(UNKNOWN));
    let built = [
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("commit", of_build(option_env!("SPANTAP_COMMIT"))),
        ("rustc", of_build(option_env!("SPANTAP_RUSTC"))),
    ];
    page.gauge("spantap_build_info", "", "What runs, and what it was made from.", [(built, 1.0)]);
    let seen = [("record", vitals.records), ("socket", vitals.sockets)];
    page.counts("spantap_ebpf_events", "Events that came from the kernel.", "kind", seen);
    let lost = vitals.lost.records.iter().map(|(reason, n)| (reason.label(), n));
    page.counts("spantap_ebpf_events_lost", "Events that the probes or the decoder lost.", "reason", lost);
    let lost = vitals.lost.books().map(|(what, tally)| tally.iter().map(move |(reason, n)| (what, reason.label(), n)));
    let lost =
        lost.into_iter().flatten().map(|(what, reason, n)| ([("what", what.into()), ("reason", reason.into())], n));
    page.counters(
        "spantap_lost",
        "What was lost, by what it is a loss of.",
        lost.map(|(labels, n)| (labels, n as f64)),
    );
    page.total("spantap_requests", "Requests seen.", vitals.requests);
    page.single("spantap_requests_in_flight", "Requests that are not spans yet.", books.in_flight);
    let made = vitals.protocols.iter().flat_map(|parsed| {
        let kinds = [("server", parsed.served), ("client", parsed.called)];
        kinds.map(|(kind, n)| ([("protocol", parsed.protocol.into()), ("kind", kind.into())], n as f64))
    });
    page.counters("spantap_spans_created", "Spans made.", made);
    let errors = vitals.protocols.iter().flat_map(|parsed| {
        let labels = |reason: Reason| [("protocol", parsed.protocol.into()), ("reason", reason.label().into())];
        parsed.errors.iter().map(move |(reason, n)| (labels(reason), n as f64))
    });
    page.counters("spantap_parse_errors", "Messages that a parser could not follow to their end.", errors);
    let steps = [("down", vitals.steps.down), ("up", vitals.steps.up)];
    page.counts("spantap_ladder_steps", "Times that spantap did less for its own budget, or more again.", "way", steps);
    page.single("spantap_ladder_rung", "How far down: 0 full, 1 sampled, 2 counted, 3 detached.", vitals.steps.rung);
    page.counts(
        "spantap_correlation",
        "Spans by how their parent was found, or why not.",
        "result",
        numbers(&vitals.links),
    );
    let decided = |what: &'static str, counts: [u64; sample::By::ALL.len()]| {
        sample::By::ALL
            .into_iter()
            .zip(counts)
            .map(move |(by, n)| ([("decision", what.into()), ("by", by.label().into())], n as f64))
    };
    let decisions = decided("kept", sampling.kept).chain(decided("dropped", sampling.dropped));
    page.counters("spantap_sampling_decisions", "Traces that were decided about, by what decided.", decisions);
    page.total("spantap_sampling_spans_unsampled", "Spans that are not exported.", sampling.unsampled);
    let what = "Spans that are not exported because their process exports its own.";
    page.total("spantap_sampling_spans_instrumented", what, sampling.instrumented);
    page.single("spantap_sampling_spans_held", "Spans that wait for the end of their trace.", sampling.held);
    let early = [("overdue", sampling.overdue), ("crowded", sampling.crowded)];
    page.counts("spantap_sampling_early", "Traces that were decided about before their end.", "reason", early);

    page.counts(
        "spantap_sampling_strategies",
        "Questions for sampling strategies, by what became of them.",
        "result",
        books.asked.into_iter().flatten(),
    );
    page.total(
        "spantap_spans_withheld",
        "Spans whose process is under a rule that names no destination.",
        books.withheld,
    );

    let of = |destination: &Destination| [("destination", Cow::Owned(destination.name.clone()))];
    let all = || books.destinations.iter();
    let each =
        |number: fn(&Destination) -> u64| all().map(move |known| (of(known), number(known) as f64)).collect::<Vec<_>>();
    page.counters("spantap_spans_exported", "Spans that a destination took.", each(|known| known.exported));
    page.gauge("spantap_export_queue_size", "", "Spans that wait for a destination.", each(|known| known.waiting));
    page.gauge(
        "spantap_export_queue_capacity",
        "",
        "Spans that may wait for a destination.",
        each(|known| known.capacity),
    );
    let dropped = all().flat_map(|known| {
        known.dropped.iter().map(|(reason, n)| {
            ([("destination", Cow::Owned(known.name.clone())), ("reason", (*reason).into())], *n as f64)
        })
    });
    page.counters("spantap_spans_dropped", "Spans that a destination did not get.", dropped.collect::<Vec<_>>());
    let spooled = all().filter_map(|known| Some((of(known), known.spooled? as f64)));
    page.gauge(
        "spantap_export_spool_size",
        "",
        "Spans that wait for a destination on disk.",
        spooled.collect::<Vec<_>>(),
    );
    let corrupt = all().filter(|known| known.spooled.is_some()).map(|known| (of(known), known.corrupt_files as f64));
    page.counters(
        "spantap_export_spool_corrupt_files",
        "Files on disk that were not what was written, and were set aside.",
        corrupt.collect::<Vec<_>>(),
    );

    let of = |said: &Requests| [("destination", Cow::Owned(said.destination.clone())), ("signal", said.signal.into())];
    let ended = books.requests.iter().flat_map(|said| {
        let [destination, signal] = of(said);
        let labels = move |outcome: &'static str| [destination.clone(), signal.clone(), ("outcome", outcome.into())];
        said.ended.iter().map(move |(outcome, n)| (labels(outcome), *n as f64))
    });
    page.counters("spantap_export_requests", "Attempts to hand something to a destination.", ended);
    let took = books.requests.iter().map(|said| (of(said), said.seconds.clone()));
    page.histograms("spantap_export_duration", "s", "What an attempt took, to its answer or its end.", took);

    page.counts(
        "spantap_metrics_overflow",
        "Requests counted in an overflow series.",
        "metric",
        books.overflown.iter().copied(),
    );
    let Stock { maps, programs, tables, memory, targets } = &books.stock;
    let states = targets.iter().map(|(state, n)| ([("state", (*state).into())], *n as f64));
    page.gauge("spantap_targets", "", "Processes that showed a socket, by what becomes of their requests.", states);
    let named = |name: &String| Cow::Owned(name.clone());
    let entries = maps.iter().filter_map(|(map, entries, _)| Some(([("map", named(map))], (*entries)? as f64)));
    page.gauge(
        "spantap_ebpf_map_entries",
        "",
        "Entries of a kernel table when they were counted last; bytes, of the ring.",
        entries.collect::<Vec<_>>(),
    );
    let capacities = maps.iter().map(|(map, _, capacity)| ([("map", named(map))], *capacity as f64));
    page.gauge(
        "spantap_ebpf_map_capacity",
        "",
        "Entries that a kernel table has room for; bytes, of the ring.",
        capacities.collect::<Vec<_>>(),
    );
    let seconds = programs.iter().map(|(program, seconds, ..)| ([("program", named(program))], *seconds));
    page.push("spantap_ebpf_program_run", "s", "Time that a probe ran.", Kind::Counter, seconds.collect::<Vec<_>>());
    let runs = programs.iter().map(|(program, _, runs, _)| ([("program", named(program))], *runs as f64));
    page.counters("spantap_ebpf_program_runs", "Times that a probe ran.", runs.collect::<Vec<_>>());
    let missed = programs.iter().map(|(program, _, _, missed)| ([("program", named(program))], *missed as f64));
    let help = "Times that the kernel left a probe out, because another run of it had not ended.";
    page.counters("spantap_ebpf_program_missed", help, missed.collect::<Vec<_>>());
    let each = |number: fn(&Fill) -> u64| {
        tables.iter().map(move |fill| ([("table", fill.table.into())], number(fill) as f64)).collect::<Vec<_>>()
    };
    page.gauge("spantap_table_entries", "", "Entries of a table of the agent.", each(|fill| fill.entries));
    let help = "Entries that a table of the agent has room for.";
    page.gauge("spantap_table_capacity", "", help, each(|fill| fill.capacity));
    let pools = tables.iter().map(|fill| (fill.table, fill.bytes)).chain(memory.iter().copied());
    let pools = pools.map(|(pool, bytes)| ([("pool", pool.into())], bytes as f64));
    page.gauge("spantap_memory", "By", "Memory, by what it is for.", pools.collect::<Vec<_>>());
    for &(name, value) in &books.process {
        let (kind, unit) = match name {
            "process_cpu" => (Kind::Counter, "s"),
            "process_start_time" => (Kind::Gauge, "s"),
            "process_resident_memory" | "process_virtual_memory" => (Kind::Gauge, "By"),
            _ => (Kind::Gauge, ""),
        };
        page.push::<0>(name, unit, "Of the agent's process.", kind, [([], value)]);
    }
    page.families
}

/// The numbers of a struct, by the names of its fields.
fn numbers(of: &impl serde::Serialize) -> Vec<(String, u64)> {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(of) else { return Vec::new() };
    fields.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect()
}

/// Families in the making.
struct Page {
    since: Timestamp,
    families: Vec<Family>,
}

impl Page {
    fn total(&mut self, name: &'static str, help: &'static str, n: u64) {
        self.push::<0>(name, "", help, Kind::Counter, [([], n as f64)]);
    }

    fn single(&mut self, name: &'static str, help: &'static str, n: u64) {
        self.push::<0>(name, "", help, Kind::Gauge, [([], n as f64)]);
    }

    /// A counter with one label.
    fn counts<N: Into<Cow<'static, str>>>(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counts: impl IntoIterator<Item = (N, u64)>,
    ) {
        self.counters(name, help, counts.into_iter().map(|(value, n)| ([(label, value.into())], n as f64)));
    }

    fn counters<const N: usize>(
        &mut self,
        name: &'static str,
        help: &'static str,
        points: impl IntoIterator<Item = ([(&'static str, Cow<'static, str>); N], f64)>,
    ) {
        self.push(name, "", help, Kind::Counter, points);
    }

    fn gauge<const N: usize>(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        points: impl IntoIterator<Item = ([(&'static str, Cow<'static, str>); N], f64)>,
    ) {
        self.push(name, unit, help, Kind::Gauge, points);
    }

    fn push<const N: usize>(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        kind: Kind,
        points: impl IntoIterator<Item = ([(&'static str, Cow<'static, str>); N], f64)>,
    ) {
        let data = |n| if kind == Kind::Counter { Data::Counter(n) } else { Data::Gauge(n) };
        let points = points.into_iter().map(|(labels, n)| (labels, data(n)));
        self.family(name, unit, help, kind, points);
    }

    fn histograms<const N: usize>(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        points: impl IntoIterator<Item = ([(&'static str, Cow<'static, str>); N], Histogram)>,
    ) {
        let points = points.into_iter().map(|(labels, seen)| (labels, Data::Histogram(Box::new(seen))));
        self.family(name, unit, help, Kind::Histogram, points);
    }

    fn family<const N: usize>(
        &mut self,
        name: &'static str,
        unit: &'static str,
        help: &'static str,
        kind: Kind,
        points: impl IntoIterator<Item = ([(&'static str, Cow<'static, str>); N], Data)>,
    ) {
        let value = |value: Cow<'static, str>| match value {
            Cow::Borrowed(text) => Value::Static(text),
            Cow::Owned(text) => Value::Text(text),
        };
        let points = points.into_iter().map(|(labels, data)| Point {
            resource: None,
            labels: labels.into_iter().map(|(label, text)| (label, value(text))).collect(),
            since: self.since,
            data,
        });
        let points: Vec<_> = points.collect();
        if !points.is_empty() {
            self.families.push(Family { name, unit, help, kind, points });
        }
    }
}

/// Where whoever built it did not say.
const UNKNOWN: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        metrics::{SECONDS, openmetrics},
        time::WallOffset,
        vitals::Steps,
    };

    #[test]
    fn every_book_is_told() {
        let mut books = Books::default();
        books.vitals.requests = 7;
        books.vitals.links.header = 3;
        books.vitals.steps = Steps { down: 2, up: 1, rung: 1 };
        books.vitals.lost.records.add(Reason::RingFull, 2);
        books.sampling.kept[sample::By::Root as usize] = 4;
        books.destinations.push(Destination {
            name: "grpc".into(),
            waiting: 1,
            capacity: 16,
            exported: 5,
            spooled: Some(9),
            corrupt_files: 1,
            dropped: vec![("queue_full", 6)],
        });
        let parsed = books.vitals.protocols.of("http");
        (parsed.served, parsed.called) = (4, 3);
        parsed.errors.add(Reason::ProtocolError, 2);
        let mut seconds = Histogram::new(SECONDS);
        seconds.record(0.02);
        books.requests.push(Requests {
            destination: "grpc".into(),
            signal: "traces",
            ended: vec![("taken", 1), ("refused", 0)],
            seconds,
        });
        books.stock = Stock {
            maps: vec![("PROCESSES".into(), Some(3), 4096), ("UNWANTED".into(), None, 16)],
            programs: vec![("tcp_send".into(), 0.25, 1000, 8)],
            tables: vec![Fill::of("connections", 2, 64, 100)],
            memory: vec![("ring", 1024)],
            targets: vec![("traced", 2), ("ignored", 1)],
        };
        books.process.push(("process_cpu", 1.5));
        let text = openmetrics::text(&families(&books, Timestamp(0)), WallOffset(0));
        for sample in [
            "spantap_requests_total 7\n",
            "spantap_ebpf_events_lost_total{reason=\"ring_full\"} 2\n",
            "spantap_lost_total{what=\"record\",reason=\"ring_full\"} 2\n",
            "spantap_correlation_total{result=\"header\"} 3\n",
            "spantap_sampling_decisions_total{decision=\"kept\",by=\"root\"} 4\n",
            "spantap_spans_exported_total{destination=\"grpc\"} 5\n",
            "spantap_spans_dropped_total{destination=\"grpc\",reason=\"queue_full\"} 6\n",
            "spantap_export_queue_capacity{destination=\"grpc\"} 16\n",
            "spantap_ebpf_map_entries{map=\"PROCESSES\"} 3\n",
            "spantap_ebpf_map_capacity{map=\"PROCESSES\"} 4096\n",
            "spantap_ladder_steps_total{way=\"down\"} 2\n",
            "spantap_ladder_rung 1\n",
            "spantap_memory_bytes{pool=\"ring\"} 1024\n",
            "spantap_memory_bytes{pool=\"connections\"} 200\n",
            "spantap_table_entries{table=\"connections\"} 2\n",
            "spantap_table_capacity{table=\"connections\"} 64\n",
            "spantap_ebpf_program_run_seconds_total{program=\"tcp_send\"} 0.25\n",
            "spantap_ebpf_program_runs_total{program=\"tcp_send\"} 1000\n",
            "spantap_ebpf_program_missed_total{program=\"tcp_send\"} 8\n",
            "spantap_export_spool_size{destination=\"grpc\"} 9\n",
            "spantap_export_spool_corrupt_files_total{destination=\"grpc\"} 1\n",
            "process_cpu_seconds_total 1.5\n",
            "spantap_spans_created_total{protocol=\"http\",kind=\"server\"} 4\n",
            "spantap_spans_created_total{protocol=\"http\",kind=\"client\"} 3\n",
            "spantap_parse_errors_total{protocol=\"http\",reason=\"protocol_error\"} 2\n",
            "spantap_targets{state=\"traced\"} 2\n",
            "spantap_targets{state=\"ignored\"} 1\n",
            "spantap_export_requests_total{destination=\"grpc\",signal=\"traces\",outcome=\"taken\"} 1\n",
            "spantap_export_requests_total{destination=\"grpc\",signal=\"traces\",outcome=\"refused\"} 0\n",
            "# TYPE spantap_export_duration_seconds histogram\n",
            "spantap_export_duration_seconds_bucket{destination=\"grpc\",signal=\"traces\",le=\"0.01\"} 0\n",
            "spantap_export_duration_seconds_bucket{destination=\"grpc\",signal=\"traces\",le=\"0.025\"} 1\n",
            "spantap_export_duration_seconds_count{destination=\"grpc\",signal=\"traces\"} 1\n",
            "spantap_export_duration_seconds_sum{destination=\"grpc\",signal=\"traces\"} 0.02\n",
        ] {
            assert!(text.contains(sample), "{sample}{text}");
        }
        assert!(!text.contains("spantap_ebpf_map_entries{map=\"UNWANTED\"}"), "nobody has counted it: {text}");
    }
}
