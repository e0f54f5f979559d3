// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent says about itself on standard error: at the start, when nothing happens, at the end.
//!
//! In: facts and counters. Out: text. It decides neither when nor where it is written, except that silence is named
//! once.

use std::{fmt::Write as _, time::Duration};

use crate::{
    config::{Config, PrintStyle, Selection},
    kernel::{HookVerdict, State, Tier, older::Connections, plan::PassedOver},
    time::Timestamp,
    vitals::{Steps, Tally, Vitals},
};

/// What is known when the probes are live.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The kernel's release, such as `6.18.0-amd64`.
    pub kernel: &'a str,
    /// How the probes watch.
    pub tier: Tier,
    /// The better tiers that this kernel would not have.
    pub passed_over: &'a [PassedOver],
    /// What became of each hook.
    pub verdicts: &'a [HookVerdict],
    /// Connections that were there before the probes.
    pub older: Connections,
    /// From the program's start to the last attachment.
    pub took: Duration,
}

/// The lines at the start, the last one ended.
pub fn banner(start: &Start<'_>, config: &Config) -> String {
    let Start { kernel, tier, passed_over, verdicts, older, took } = start;
    // The release up to its patch level: what follows is the distribution's.
    let kernel = kernel.split('-').next().unwrap_or(kernel);
    let kernel = kernel.strip_suffix(".0").filter(|rest| rest.contains('.')).unwrap_or(kernel);
    let probes = verdicts.iter().filter(|verdict| verdict.state == State::Used).count();
    let plural = if probes == 1 { "" } else { "s" };
    let mut text = format!(
        "spantap {} · kernel {kernel} · {tier} · {probes} probe{plural} live in {} ms\n",
        env!("CARGO_PKG_VERSION"),
        took.as_millis()
    );
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    for PassedOver { tier, why } in *passed_over {
        line(format!("No {tier}: {why}."));
    }
    if let Some(shortfall) = tier.shortfall() {
        line(format!("In this tier, {shortfall}."));
    }
    verdicts.iter().filter_map(HookVerdict::sentence).for_each(|sentence| line(format!("Missing: {sentence}.")));
    if older.total() > 0 {
        text.push_str(&met(older));
    }
    text.push_str(&watching(&config.selection));
    text.push_str(&destination(config));
    let end = match config.duration {
        Some(duration) => format!("Stops after {}, or with Ctrl-C.\n", plain(duration)),
        None => "Ctrl-C stops.\n".to_owned(),
    };
    text.push_str(&end);
    text
}

/// What becomes of connections that were there before the probes.
fn met(older: &Connections) -> String {
    let Connections { accepted, connected, unknown } = older;
    let kinds = [(accepted, "accepted"), (connected, "connected"), (unknown, "of unknown origin")];
    let kinds: Vec<_> = kinds.iter().filter(|(n, _)| **n > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
    format!(
        "Found {} ({}): followed from the next request on.\n",
        counted(older.total(), "open connection"),
        kinds.join(", ")
    )
}

fn watching(selection: &Selection) -> String {
    if selection.is_everything() {
        return "Watching all processes (narrow it down with --pid, --port or --exe).\n".to_owned();
    }
    let mut parts = Vec::new();
    let mut part = |what: &str, values: Vec<String>| {
        if !values.is_empty() {
            parts.push(format!("{what} {}", values.join(", ")));
        }
    };
    part("pid", selection.pids.iter().map(ToString::to_string).collect());
    part("port", selection.ports.iter().map(ToString::to_string).collect());
    part("executable", selection.patterns.executables.clone());
    part("service", selection.patterns.services.clone());
    part("command line", selection.patterns.commands.clone());
    part("container", selection.patterns.containers.clone());
    part("cgroup", selection.patterns.cgroups.clone());
    part("user", selection.patterns.users.clone());
    let untraced = selection.targets.iter().filter(|target| !target.trace).map(|target| target.name.clone());
    part("not", selection.excluded.iter().cloned().chain(untraced).collect());
    format!("Watching {}.\n", parts.join("; "))
}

fn destination(config: &Config) -> String {
    let mut text = String::new();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let output = &config.output;
    if let Some(file) = &config.record {
        say(format!("Recording to {}; it holds heads of requests: keep it private.", file.display()));
    }
    for destination in &output.destinations {
        let found = if output.unasked { "; it was found there, as nothing else is configured" } else { "" };
        say(format!("Exporting to {} ({}){found}.", destination.endpoint_shown(), destination.protocol.name()));
    }
    let exports = !output.destinations.is_empty();
    match output.print.map(|print| print.style) {
        Some(_) if exports => say("Printing here as well.".to_owned()),
        Some(PrintStyle::Tree) => say(NO_COLLECTOR.replace("{}", "traces are printed here as they finish")),
        Some(PrintStyle::Text) => say(NO_COLLECTOR.replace("{}", "requests are printed here, one a line")),
        Some(PrintStyle::Json) => say(NO_COLLECTOR.replace("{}", "spans are printed here as OTLP JSON")),
        None if !exports && config.record.is_none() => say("Spans are only counted.".to_owned()),
        None => {}
    }
    text
}

/// How many spans reached each output there was.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Delivered {
    /// Spans the collector took.
    pub exported: Option<u64>,
    /// Spans on disk, for collectors that are away.
    pub spooled: u64,
    /// Spans that were put on the page.
    pub printed: Option<u64>,
}

/// The line at the end, ended.
pub fn summary(vitals: &Vitals, delivered: Delivered) -> String {
    let mut text = format!("{} · {}", counted(vitals.requests, "request"), counted(vitals.spans, "span"));
    if let Some(spans) = delivered.exported {
        // Writing to a `String` cannot fail.
        let _ = write!(text, " · {spans} exported");
    }
    let unsampled = vitals.unsampled - vitals.instrumented;
    if unsampled > 0 {
        let _ = write!(text, " · {unsampled} not sampled");
    }
    if vitals.instrumented > 0 {
        let _ = write!(text, " · {} left to the SDKs of their services", vitals.instrumented);
    }
    if delivered.spooled > 0 {
        let _ = write!(text, " · {} on disk until the collector is back", delivered.spooled);
    }
    let Steps { down, up, .. } = vitals.steps;
    if down > 0 {
        let _ = write!(text, " · did less {down}×, for its own budget, and more again {up}×");
    }
    let lost: Vec<_> = vitals
        .lost
        .books()
        .into_iter()
        .filter(|(_, tally)| tally.total() > 0)
        .map(|(what, tally)| format!("{} ({})", counted(tally.total(), what), reasons(tally)))
        .collect();
    if vitals.midway > 0 {
        let _ = write!(text, " · {} met in mid-message", counted(vitals.midway, "older connection"));
    }
    if vitals.missed > 0 {
        let _ = write!(text, " · up to {} not shown by the kernel", counted(vitals.missed, "event"));
    }
    if lost.is_empty() {
        text.push_str(" · nothing lost\n");
    } else {
        let _ = writeln!(text, " · lost {}", lost.join(", "));
    }
    text
}

fn reasons(tally: &Tally) -> String {
    let reasons: Vec<_> = tally.iter().map(|(reason, n)| format!("{} {n}", reason.label())).collect();
    reasons.join(", ")
}

/// The same for machines: one JSON object, without a line end. `lost` is the sum of the books under `losses`.
pub fn summary_json(vitals: &Vitals, delivered: Delivered) -> String {
    let mut summary = serde_json::json!({
        "requests": vitals.requests,
        "spans": vitals.spans,
        "unsampled": vitals.unsampled,
        "instrumented": vitals.instrumented,
        "links": vitals.links,
        "lost": vitals.lost.by_reason(),
        "losses": vitals.lost,
        "gaps": vitals.gaps,
        "strays": vitals.strays,
        "unread": vitals.unread,
        "expired": vitals.expired,
        "older": vitals.older,
        "midway": vitals.midway,
        "missed": vitals.missed,
        "left_alone": vitals.left_alone,
        "steps": vitals.steps,
    });
    for (output, spans) in [("exported", delivered.exported), ("printed", delivered.printed)] {
        if let Some(spans) = spans {
            summary[output] = spans.into();
        }
    }
    serde_json::json!({ "summary": summary }).to_string()
}

/// Says that records are lost while it happens: at once, and then at most every [`NEWS_INTERVAL`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Shortfall {
    /// When the last line was said, and what was lost by then.
    told: Option<(Timestamp, Tally)>,
}

impl Shortfall {
    /// What is to be said at `now`, when `lost` is what was lost so far, as a line without its end.
    pub fn news(&mut self, lost: &Tally, now: Timestamp) -> Option<String> {
        let (told, known) = self.told.unwrap_or_default();
        let new = lost.since(&known);
        if new.total() == 0 || (self.told.is_some() && now.since(told) < NEWS_INTERVAL) {
            return None;
        }
        self.told = Some((now, *lost));
        Some(format!(
            "lost {}: {}. Requests among them are missing, or their spans lack a status; where the ring is full, narrow \
             down what is traced with --port, --exe or --exclude",
            counted(new.total(), "record"),
            reasons(&new)
        ))
    }
}

/// Says once why nothing is seen.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    until: Option<Timestamp>,
}

impl Silence {
    /// Listens from `start` on.
    pub fn since(start: Timestamp) -> Self {
        Self { until: Some(start.plus(SILENCE)) }
    }

    /// The probable reason, as a line without its end, once [`SILENCE`] has passed without a request.
    pub fn broken(&mut self, now: Timestamp, vitals: &Vitals, selection: &Selection) -> Option<String> {
        let until = self.until?;
        if vitals.requests > 0 {
            self.until = None;
            return None;
        }
        if now < until {
            return None;
        }
        self.until = None;
        let mut reason = match (vitals.sockets, selection.is_everything()) {
            (0, true) => "no process has sent or received plain HTTP; try `curl http://localhost:PORT/`".to_owned(),
            (0, false) => {
                "nothing that was selected has sent or received plain HTTP; try without --pid, --port, --exe".to_owned()
            }
            (sockets, _) => format!("{} looked like HTTP and had no whole request", counted(sockets, "connection")),
        };
        reason.push_str(". HTTPS and other protocols are not visible yet");
        Some(format!("Nothing to show yet: {reason}."))
    }
}

fn counted(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A duration as a user would write it.
fn plain(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (0, ms) => format!("{ms} ms"),
        (seconds, 0) if seconds < 120 => format!("{seconds} s"),
        (seconds, 0) if seconds % 60 == 0 => format!("{} min", seconds / 60),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

const NO_COLLECTOR: &str = "No collector configured: {} (export with --otlp http://HOST:4318).";

/// Often enough to be seen, too rare to fill a log.
const NEWS_INTERVAL: Duration = Duration::from_secs(60);

/// Long enough for a page to be reloaded, short enough for nobody to have given up.
const SILENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use spantap_common::{loss::Reason, opaque::Opaque};

    use super::*;
    use crate::{
        config::{Bounds, Colour, Destination, Output, Print, Protocol},
        enrich::process::selector::Patterns,
        kernel::hooks::{At, Hook, TABLE},
    };

    fn config() -> Config {
        let print = Print { style: PrintStyle::Tree, colour: Colour::Off, terminal: true };
        Config {
            tier: None,
            selection: Selection::default(),
            output: Output { print: Some(print), ..Output::default() },
            duration: None,
            record: None,
            quiet: false,
            resource: Vec::new(),
            disclosure: Default::default(),
            budget: None,
            bounds: Bounds::default(),
        }
    }

    fn banner_of(config: &Config) -> String {
        banner_of_probes(config, Tier::A, &[], &[])
    }

    fn banner_of_probes(config: &Config, tier: Tier, passed_over: &[PassedOver], missing: &[(&str, State)]) -> String {
        // Before 7.0 nobody looks a second time.
        let is_used = |hook: &&Hook| hook.tiers.contains(&tier) && !matches!(hook.at, At::Again(_));
        let of_tier = TABLE.iter().filter(is_used);
        let state = |program| missing.iter().find(|(name, _)| *name == program).map(|(_, state)| state.clone());
        let verdicts: Vec<_> =
            of_tier.map(|hook| HookVerdict { hook, state: state(hook.program).unwrap_or(State::Used) }).collect();
        let (kernel, took) = ("6.18.0-1-amd64", Duration::from_millis(180));
        let older = Connections::default();
        banner(&Start { kernel, tier, passed_over, verdicts: &verdicts, older, took }, config)
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    #[test]
    fn the_banner_says_what_the_kernel_would_not_have() {
        let passed_over = [PassedOver { tier: Tier::A, why: "this kernel has no tracepoint sock_send_length".into() }];
        let missing = [("tcp_destroy_sock", State::Absent), ("sched_process_exec", State::Refused("EINVAL".into()))];
        let text = banner_of_probes(&config(), Tier::C, &passed_over, &missing);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            [lines[0], lines[1], lines[3], lines[4]],
            [
                "spantap VERSION · kernel 6.18 · tier C (system calls' exits) · 6 probes live in 180 ms",
                "No tier A (socket tracepoints): this kernel has no tracepoint sock_send_length.",
                "Missing: this kernel has no tracepoint tcp_destroy_sock: the end of connections whose process never read \
                 their last bytes cannot be seen.",
                "Missing: tracepoint sched_process_exec could not be attached (EINVAL): programs started after the agent, \
                 until their first request cannot be seen.",
            ]
        );
        assert!(lines[2].starts_with("In this tier, unix sockets are not followed, "), "{text}");
    }

    #[test]
    fn connections_that_were_there_before_are_told_by_their_origin() {
        let older = Connections { accepted: 9, connected: 0, unknown: 3 };
        let met = "Found 12 open connections (9 accepted, 3 of unknown origin): followed from the next request on.\n";
        assert_eq!(super::met(&older), met);
        let one = Connections { connected: 1, ..Connections::default() };
        assert_eq!(super::met(&one), "Found 1 open connection (1 connected): followed from the next request on.\n");
    }

    #[test]
    fn the_banner_says_what_is_watched_and_where_it_goes() {
        insta::assert_snapshot!(banner_of(&config()), @r"
        spantap VERSION · kernel 6.18 · tier A (socket tracepoints) · 12 probes live in 180 ms
        Watching all processes (narrow it down with --pid, --port or --exe).
        No collector configured: traces are printed here as they finish (export with --otlp http://HOST:4318).
        Ctrl-C stops.
        ");
        let mut config = config();
        config.selection = Selection {
            pids: vec![7, 8],
            patterns: Patterns { executables: vec!["node".into()], ..Patterns::default() },
            ..Selection::default()
        };
        config.duration = Some(Duration::from_secs(30));
        config.output.destinations = vec![Destination::new("http://u:p@c:4318/v1/traces", Protocol::HttpProtobuf)];
        insta::assert_snapshot!(banner_of(&config), @r"
        spantap VERSION · kernel 6.18 · tier A (socket tracepoints) · 12 probes live in 180 ms
        Watching pid 7, 8; executable node.
        Exporting to http://c:4318/v1/traces (http/protobuf).
        Printing here as well.
        Stops after 30 s, or with Ctrl-C.
        ");
        config.output.print = None;
        config.output.unasked = true;
        insta::assert_snapshot!(destination(&config), @"Exporting to http://c:4318/v1/traces (http/protobuf); it was found there, as nothing else is configured.");
        config.output = Output::default();
        config.record = Some("x.rec".into());
        insta::assert_snapshot!(banner_of(&config), @r"
        spantap VERSION · kernel 6.18 · tier A (socket tracepoints) · 12 probes live in 180 ms
        Watching pid 7, 8; executable node.
        Recording to x.rec; it holds heads of requests: keep it private.
        Stops after 30 s, or with Ctrl-C.
        ");
    }

    #[test]
    fn the_summary_names_every_loss() {
        let mut vitals = Vitals { requests: 312, spans: 311, ..Vitals::default() };
        let mut text = summary(&vitals, Delivered::default());
        vitals.lost.records.add(Reason::RingFull, 10);
        vitals.lost.requests.add(Reason::Gap, 2);
        vitals.lost.requests.add(Reason::OverBudget, 1);
        text += &summary(&vitals, Delivered { exported: Some(300), spooled: 9, printed: None });
        text += &summary(&Vitals { requests: 1, spans: 1, ..Vitals::default() }, Delivered::default());
        insta::assert_snapshot!(text, @r"
        312 requests · 311 spans · nothing lost
        312 requests · 311 spans · 300 exported · 9 on disk until the collector is back · lost 3 requests (over_budget 1, gap 2), 10 records (ring_full 10)
        1 request · 1 span · nothing lost
        ");
    }

    #[test]
    fn the_summary_for_machines_has_every_book() {
        let mut vitals = Vitals { requests: 5, spans: 3, strays: 1, expired: 2, unread: 4, ..Vitals::default() };
        vitals.left_alone.0[Opaque::FastCgi as usize] = 7;
        vitals.lost.requests.add(Reason::Gap, 2);
        vitals.lost.parts.add(Reason::Gap, 1);
        vitals.lost.spans.add(Reason::QueueFull, 1);
        let text = summary_json(&vitals, Delivered { printed: Some(2), ..Delivered::default() });
        let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let summary = &all["summary"];
        assert_eq!(summary["lost"], serde_json::json!({ "gap": 3, "queue_full": 1 }));
        assert_eq!(
            summary["losses"],
            serde_json::json!({
                "requests": { "gap": 2 }, "parts": { "gap": 1 }, "records": {}, "spans": { "queue_full": 1 }
            })
        );
        let of = |name: &str| summary[name].as_u64();
        assert_eq!(summary["left_alone"], serde_json::json!({ "fastcgi": 7 }));
        assert_eq!((of("strays"), of("expired"), of("unread"), of("printed")), (Some(1), Some(2), Some(4), Some(2)));
    }

    #[test]
    fn losses_are_told_at_once_and_then_once_a_minute() {
        let at = |second: u64| Timestamp(second * 1_000_000_000);
        let (mut shortfall, mut lost) = (Shortfall::default(), Tally::default());
        assert_eq!(shortfall.news(&lost, at(1)), None);
        lost.add(Reason::RingFull, 1);
        let first = shortfall.news(&lost, at(2)).expect("told at once");
        assert!(first.starts_with("lost 1 record: ring_full 1."), "{first}");
        lost.add(Reason::RingFull, 10);
        lost.add(Reason::Unreadable, 2);
        assert_eq!(shortfall.news(&lost, at(61)), None);
        let second = shortfall.news(&lost, at(62)).expect("a minute later");
        assert!(second.starts_with("lost 12 records: ring_full 10, unreadable 2."), "{second}");
        assert_eq!(shortfall.news(&lost, at(500)), None, "nothing new");
    }

    #[test]
    fn silence_is_explained_once() {
        let start = Timestamp(1_000_000_000);
        let (early, late) = (start.plus(SILENCE / 2), start.plus(SILENCE));
        let everything = Selection::default();
        let some = Selection { ports: vec![80], ..Selection::default() };
        let mut silence = Silence::since(start);
        assert_eq!(silence.broken(early, &Vitals::default(), &everything), None);
        let mut said = Vec::new();
        said.extend(silence.broken(late, &Vitals::default(), &everything));
        said.extend(silence.broken(late, &Vitals::default(), &everything));
        said.extend(Silence::since(start).broken(late, &Vitals::default(), &some));
        let sockets = Vitals { sockets: 3, ..Vitals::default() };
        said.extend(Silence::since(start).broken(late, &sockets, &some));
        insta::assert_snapshot!(said.join("\n"), @r"
        Nothing to show yet: no process has sent or received plain HTTP; try `curl http://localhost:PORT/`. HTTPS and other protocols are not visible yet.
        Nothing to show yet: nothing that was selected has sent or received plain HTTP; try without --pid, --port, --exe. HTTPS and other protocols are not visible yet.
        Nothing to show yet: 3 connections looked like HTTP and had no whole request. HTTPS and other protocols are not visible yet.
        ");
    }

    #[test]
    fn one_request_is_no_silence() {
        let mut silence = Silence::since(Timestamp(0));
        let heard = Vitals { requests: 1, ..Vitals::default() };
        assert_eq!(silence.broken(Timestamp(1), &heard, &Selection::default()), None);
        let later = Timestamp(0).plus(SILENCE * 2);
        assert_eq!(silence.broken(later, &Vitals::default(), &Selection::default()), None);
    }
}
