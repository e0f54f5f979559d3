// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sampler as a whole: what leaves, when, and what it says about its weight.

use super::{
    settings::{Adaptive, Hold, Keep, Rule},
    *,
};
use crate::{
    process::ProcessId,
    time::Task,
    trace::{ParentSpan, Span, SpanKind},
};

const MS: u64 = 1_000_000;

/// A sampler, and what has left it.
struct Stage {
    sampler: Sampler,
    out: Vec<ServiceSpan>,
}

fn stage(settings: Settings) -> Stage {
    Stage { sampler: Sampler::new(settings, 7), out: Vec::new() }
}

impl Stage {
    fn take(&mut self, span: ServiceSpan, at_ms: u64) -> &mut Self {
        self.sampler.take([span], Timestamp(at_ms * MS), &mut self.out);
        self.balanced()
    }

    fn wait(&mut self, until_ms: u64) -> &mut Self {
        self.sampler.take([], Timestamp(until_ms * MS), &mut self.out);
        self.balanced()
    }

    fn balanced(&mut self) -> &mut Self {
        let held: usize = self.sampler.traces.values().map(|waiting| waiting.spans.len()).sum();
        assert_eq!(held, self.sampler.held);
        self
    }

    /// What left since the last time, as `id state`.
    fn left(&mut self) -> String {
        let said = self.out.drain(..).map(|span| {
            let id = span.span.id.0[7];
            match span.span.state {
                Some(state) => format!("{id} {state}"),
                None => id.to_string(),
            }
        });
        said.collect::<Vec<_>>().join(" · ")
    }
}

/// Trace `trace`, whose randomness is its number times 2^48, with the span `id`.
fn span(trace: u8, id: u8) -> ServiceSpan {
    let mut bytes = [1; 16];
    bytes[9] = trace;
    ServiceSpan {
        span: Span {
            trace: TraceId(bytes),
            id: SpanId([0, 0, 0, 0, 0, 0, 1, id]),
            parent: None,
            begun: Begun::Here,
            flags: TraceFlags(3),
            state: None,
            kind: SpanKind::Server,
            name: "GET".into(),
            protocol: "http",
            start: Timestamp(u64::from(id)),
            answered: None,
            end: Timestamp(MS),
            failed: false,
            attributes: Vec::new(),
            links: Vec::new(),
            task: Task::default(),
            port: 0,
        },
        target: None,
        resource: Arc::new(Resource {
            process: ProcessId::default(),
            service: "cart".into(),
            attributes: Vec::new(),
            instrumented: false,
        }),
    }
}

trait With: Sized {
    fn under(self, id: u8) -> Self;
    fn remote(self, flags: u8, state: Option<&str>) -> Self;
    fn failed(self) -> Self;
}

impl With for ServiceSpan {
    fn under(mut self, id: u8) -> Self {
        let id = SpanId([0, 0, 0, 0, 0, 0, 1, id]);
        self.span.parent = Some(ParentSpan { id, remote: false, method: LinkMethod::Thread });
        self
    }

    fn remote(mut self, flags: u8, state: Option<&str>) -> Self {
        self.span.parent = Some(ParentSpan { id: SpanId([9; 8]), remote: true, method: LinkMethod::Header });
        self.span.begun = Begun::Elsewhere;
        self.span.flags = TraceFlags(flags);
        self.span.state = state.map(Into::into);
        self
    }

    fn failed(mut self) -> Self {
        self.span.failed = true;
        self
    }
}

#[test]
fn by_default_everything_leaves_at_once_and_says_so() {
    let mut stage = stage(Settings::default());
    assert_eq!(stage.take(span(1, 1), 0).left(), "1 ot=th:0");
    assert_eq!(stage.take(span(1, 2).remote(1, Some("a=1")), 0).left(), "2 a=1");
    assert_eq!(stage.take(span(1, 3).remote(3, Some("a=1,ot=th:0")), 0).left(), "3 a=1,ot=th:0");
    assert_eq!(stage.take(span(1, 4).remote(0, None), 0).left(), "");
    assert_eq!(stage.take(span(1, 5).remote(2, None), 0).left(), "");
    let Counts { exported, unsampled, held, .. } = stage.sampler.counts();
    assert_eq!((exported, unsampled, held), (3, 2, 0));
}

#[test]
fn spans_of_a_process_that_exports_its_own_are_left_to_it() {
    for (instrumented, left) in [(Instrumented::Leave, "1/1"), (Instrumented::Trace, "1/1 · 1/2")] {
        let mut stage = stage(Settings { instrumented, ..Settings::default() });
        let mut twice = span(1, 2).under(1);
        twice.resource = Arc::new(Resource { instrumented: true, ..Resource::clone(&twice.resource) });
        stage.take(span(1, 1), 0).take(twice, 0).balanced();
        let ids: Vec<_> =
            stage.out.iter().map(|span| format!("{}/{}", span.span.trace.0[9], span.span.id.0[7])).collect();
        assert_eq!(ids.join(" · "), left);
        assert_eq!(stage.sampler.counts().instrumented, u64::from(instrumented == Instrumented::Leave));
    }
}

#[test]
fn a_caller_that_leaves_the_decision_to_others_leaves_it_to_root() {
    for (root, flags, expected) in [
        (Strategy::AlwaysOn, TraceFlags::DEFERRED, true),
        (Strategy::AlwaysOff, TraceFlags::DEFERRED, false),
        (Strategy::AlwaysOn, TraceFlags::default(), false),
        (Strategy::AlwaysOff, TraceFlags::SAMPLED, true),
    ] {
        let mut stage = stage(Settings { root: root.clone(), ..Settings::default() });
        stage.take(span(1, 1).remote(flags.0, None), 0).balanced();
        assert_eq!(!stage.left().is_empty(), expected, "{root:?} {flags:?}");
    }
}

#[test]
fn a_share_decides_for_the_whole_trace_at_once() {
    let mut stage = stage(Settings { root: Strategy::Probability(0.5), ..Settings::default() });
    for (trace, expected) in [(0x7f, ""), (0x80, "1 ot=th:8 · 2 ot=th:8"), (0xff, "1 ot=th:8 · 2 ot=th:8")] {
        assert_eq!(stage.take(span(trace, 1).under(2), 0).take(span(trace, 2), 0).left(), expected);
    }
}

#[test]
fn an_error_anywhere_in_the_trace_keeps_all_of_it() {
    let settings = Settings {
        root: Strategy::Probability(0.5),
        keep: Keep { errors: true, ..Keep::default() },
        ..Settings::default()
    };
    let mut stage = stage(settings);
    stage.take(span(1, 3).under(2).failed(), 0).take(span(1, 2).under(1), 10);
    assert_eq!(stage.wait(2_000).left(), "", "its first span is still under way");
    stage.take(span(1, 1), 3_000);
    assert_eq!(stage.wait(3_400).left(), "");
    assert_eq!(stage.wait(3_500).left(), "3 ot=th:0 · 2 ot=th:0 · 1 ot=th:0");
    assert_eq!(stage.take(span(1, 4).under(1), 4_000).left(), "4 ot=th:0", "what comes later belongs to it");

    stage.take(span(2, 1), 5_000).take(span(0xf0, 2), 5_000);
    assert_eq!(stage.wait(5_500).left(), "2 ot=th:8", "the others as the share says");
    assert_eq!(stage.take(span(2, 3).under(1).failed(), 5_600).left(), "", "too late");
    let counts = stage.sampler.counts();
    assert_eq!((counts.exported, counts.unsampled, counts.overdue), (5, 2, 0));
    assert_eq!(counts.kept[By::Error.index()], 1);
}

#[test]
fn a_slow_span_keeps_the_trace() {
    let keep = Keep { slower_than_ms: Some(100), ..Keep::default() };
    let mut stage = stage(Settings { root: Strategy::AlwaysOff, keep, ..Settings::default() });
    let mut slow = span(1, 1);
    slow.span.end = Timestamp(100 * MS + 1);
    assert_eq!(stage.take(slow, 0).take(span(2, 2), 0).wait(500).left(), "1 ot=th:0");
}

#[test]
fn a_trace_is_not_waited_for_longer_than_allowed() {
    let keep = Keep { errors: true, ..Keep::default() };
    let mut stage = stage(Settings { keep, ..Settings::default() });
    // Its parent is on this machine, and does not come.
    assert_eq!(stage.take(span(1, 1).under(9), 0).wait(4_999).left(), "");
    assert_eq!(stage.wait(5_000).left(), "1 ot=th:0");
    assert_eq!(stage.sampler.counts().overdue, 1);
}

#[test]
fn no_more_is_held_than_there_is_room_for() {
    let settings = Settings {
        keep: Keep { errors: true, ..Keep::default() },
        hold: Hold { most_spans: 3, ..Hold::default() },
        ..Settings::default()
    };
    let mut stage = stage(settings);
    for id in 1..=5 {
        stage.take(span(id, id), u64::from(id));
        assert!(stage.sampler.held <= 3);
    }
    assert_eq!(stage.left(), "1 ot=th:0 · 2 ot=th:0", "the oldest leave");
    assert_eq!((stage.sampler.counts().crowded, stage.sampler.counts().held), (2, 3));
    stage.sampler.finish(Timestamp(10 * MS), &mut stage.out);
    assert_eq!(stage.left(), "3 ot=th:0 · 4 ot=th:0 · 5 ot=th:0");
}

#[test]
fn rules_are_asked_about_the_first_span_only() {
    let rule = Rule { service: Some("web".into()), strategy: Strategy::AlwaysOff, ..Rule::default() };
    let mut stage = stage(Settings { rules: vec![rule], ..Settings::default() });
    let web = |mut span: ServiceSpan| {
        span.resource = Arc::new(Resource { service: "web".into(), ..Resource::clone(&span.resource) });
        span
    };
    stage.take(span(1, 2).under(1), 0).take(web(span(1, 1)), 0);
    stage.take(web(span(2, 4).under(3)), 0).take(span(2, 3), 0);
    assert_eq!(stage.wait(1_000).left(), "4 ot=th:0 · 3 ot=th:0");
}

#[test]
fn local_parents_have_delegates_of_their_own() {
    let with = |sampled, not_sampled| Settings {
        root: Strategy::Probability(0.5),
        local_parent_sampled: sampled,
        local_parent_not_sampled: not_sampled,
        ..Settings::default()
    };
    use Delegate::{AlwaysOff, AlwaysOn, Probability};
    for (sampled, not_sampled, trace, expected) in [
        (AlwaysOff, AlwaysOff, 0xf0, "1 ot=th:8"),
        (AlwaysOn, AlwaysOn, 0xf0, "2 ot=th:8 · 1 ot=th:8"),
        (AlwaysOn, AlwaysOn, 0x10, "2"),
        (Probability(0.25), AlwaysOff, 0xf0, "2 ot=th:c · 1 ot=th:8"),
        (Probability(0.25), AlwaysOff, 0x90, "1 ot=th:8"),
    ] {
        let mut stage = stage(with(sampled, not_sampled));
        stage.take(span(trace, 2).under(1), 0).take(span(trace, 1), 0);
        assert_eq!(stage.wait(1_000).left(), expected, "{sampled:?} {not_sampled:?} {trace:x}");
    }
}

#[test]
fn jaegers_answers_are_used_when_they_come() {
    let root = Strategy::JaegerRemote(JaegerRemote { initial: 0.0, ..JaegerRemote::default() });
    let mut stage = stage(Settings { root, ..Settings::default() });
    assert_eq!(stage.take(span(0xff, 1), 0).wait(500).left(), "");
    let services: Vec<_> = stage.sampler.services().cloned().collect();
    assert_eq!(services, ["cart".into()]);
    let answer = br#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.5}}"#;
    stage.sampler.learned("cart".into(), Remote::parse(answer).expect("an answer"));
    stage.sampler.learned("unknown".into(), Remote::parse(answer).expect("an answer"));
    assert_eq!(stage.take(span(0xfe, 2), 600).take(span(0x7f, 3), 600).wait(1_200).left(), "2 ot=th:8");
}

// --- Statistics ---

/// The `n`-th trace id: its last 7 bytes look random (splitmix64).
fn random(n: u64) -> TraceId {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x1234_5678_9abc_def1);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    TraceId((u128::from(n + 1) << 64 | u128::from(x ^ (x >> 31))).to_be_bytes())
}

/// What one span stands for, by its `tracestate`.
fn weight(span: &ServiceSpan) -> f64 {
    threshold::received(span.span.state.as_deref()).and_then(Threshold::adjusted_count).expect("a weight")
}

const MANY: u64 = 100_000;

#[test]
fn the_share_kept_is_the_share_asked_for() {
    for share in [0.5, 0.1, 0.01, 0.001] {
        let mut stage = stage(Settings { root: Strategy::Probability(share), ..Settings::default() });
        for n in 0..MANY {
            let mut span = span(0, 1);
            span.span.trace = random(n);
            stage.sampler.take([span], Timestamp(n * MS), &mut stage.out);
        }
        let (kept, expected) = (stage.out.len() as f64, MANY as f64 * share);
        let sigma = (MANY as f64 * share * (1.0 - share)).sqrt();
        assert!((kept - expected).abs() < 4.0 * sigma, "{share}: {kept}, not {expected}");
        let adjusted: f64 = stage.out.iter().map(weight).sum();
        assert!((adjusted - MANY as f64).abs() < 4.0 * sigma / share, "{share}: {adjusted}");
    }
}

#[test]
fn an_agent_that_has_to_do_less_keeps_its_weights_true() {
    for settings in [Settings::default(), Settings { root: Strategy::Probability(0.5), ..Settings::default() }] {
        let mut stage = stage(settings);
        stage.sampler.at_most(1.0 / 16.0);
        let traces = 20_000;
        for n in 0..traces {
            let mut one = span(0, 1);
            one.span.trace = random(n);
            stage.take(one, 0);
        }
        let Counts { exported, unsampled, thinned, .. } = stage.sampler.counts();
        assert_eq!(exported + unsampled + thinned, traces, "each in one book");
        let weight: f64 = stage.out.iter().map(weight).sum();
        assert!((weight / traces as f64 - 1.0).abs() < 0.1, "{exported} of {traces} stand for {weight}");
        stage.out.clear();
        stage.sampler.at_most(1.0);
        stage.take(span(0xff, 1), 0);
        assert_eq!(stage.out.len(), 1, "as before");
    }
}

#[test]
fn agents_agree_on_every_trace_without_talking() {
    let with = |share| stage(Settings { root: Strategy::Probability(share), ..Settings::default() });
    let (mut one, mut other, mut stricter) = (with(0.1), with(0.1), with(0.02));
    for n in 0..MANY {
        let mut span = span(0, 1);
        span.span.trace = random(n);
        one.sampler.take([span.clone()], Timestamp(0), &mut one.out);
        stricter.sampler.take([span.clone()], Timestamp(0), &mut stricter.out);
        // The other agent sees it later, in another process and place of the trace.
        span.span.id = SpanId([5; 8]);
        other.sampler.take([span], Timestamp(n), &mut other.out);
    }
    let ids = |stage: &Stage| stage.out.iter().map(|span| span.span.trace).collect::<HashSet<_>>();
    assert_eq!(ids(&one), ids(&other));
    assert!(ids(&stricter).is_subset(&ids(&one)), "a smaller share is a part of the larger one");
    assert!(ids(&stricter).len() > 1_500);
}

#[test]
fn with_errors_kept_the_weights_still_add_up() {
    let settings = Settings {
        root: Strategy::Probability(0.05),
        keep: Keep { errors: true, ..Keep::default() },
        ..Settings::default()
    };
    let mut stage = stage(settings);
    for n in 0..MANY {
        let mut span = span(0, 1);
        span.span.trace = random(n);
        span.span.failed = n % 50 == 7;
        stage.sampler.take([span], Timestamp(n / 100 * MS), &mut stage.out);
    }
    stage.wait(10_000);
    let sum = |failed| stage.out.iter().filter(|span| span.span.failed == failed).map(weight).sum::<f64>();
    assert_eq!(sum(true), 2_000.0, "every error once, whatever its id");
    let sigma = (98_000.0_f64 * 0.05 * 0.95).sqrt() / 0.05;
    assert!((sum(false) - 98_000.0).abs() < 4.0 * sigma, "{}", sum(false));
}

#[test]
fn a_limit_keeps_its_weights_true() {
    for root in [Strategy::TracesPerSecond(20.0), Strategy::Adaptive(Adaptive { spans_per_second: 20.0, floor: 0.2 })] {
        let mut stage = stage(Settings { root: root.clone(), ..Settings::default() });
        for n in 0..MANY {
            let mut span = span(0, 1);
            span.span.trace = random(n);
            stage.sampler.take([span], Timestamp(n * MS), &mut stage.out);
        }
        stage.wait(MANY + 1_000);
        let kept = stage.out.len() as f64;
        assert!((1_400.0..2_900.0).contains(&kept), "{root:?}: {kept} in 100 s");
        let adjusted: f64 = stage.out.iter().map(weight).sum();
        let variance: f64 = stage.out.iter().map(|span| weight(span) * (weight(span) - 1.0)).sum();
        assert!((adjusted - MANY as f64).abs() < 4.0 * variance.sqrt(), "{root:?}: {adjusted} ± {}", variance.sqrt());
    }
}
