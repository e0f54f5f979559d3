// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an operator says about sampling.
//!
//! In: values from the configuration file, or the two variables of the OpenTelemetry specification. Out: [`Settings`].
//! It reads no environment and decides about no span.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which traces are exported. Metrics and the local view are made of all requests, whatever is said here.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Decides about traces that begin on this machine.
    pub root: Strategy,
    /// Whether the decision of whoever began a trace elsewhere is respected. Without it `root` decides about every
    /// trace by its id, whatever its flags say.
    pub parent_based: bool,
    /// Decides where the caller's header says *sampled*.
    pub remote_parent_sampled: Delegate,
    /// Decides where the caller's header says *not sampled*.
    pub remote_parent_not_sampled: Delegate,
    /// Decides about spans under another one of this machine that is exported.
    pub local_parent_sampled: Delegate,
    /// Decides about spans under another one of this machine that is not exported.
    pub local_parent_not_sampled: Delegate,
    /// The first rule that matches the first span of a trace on this machine replaces `root`.
    pub rules: Vec<Rule>,
    /// What is kept whatever `root` and the rules say of it.
    pub keep: Keep,
    /// How long spans wait for the end of their trace, where its end matters.
    pub hold: Hold,
    /// What becomes of the spans of processes that export their own, with an OpenTelemetry SDK.
    pub instrumented: Instrumented,
    /// What replaces `root` for traces whose first span on this machine falls under a rule for its process, by that rule's
    /// name, where none of `rules` matches. It is written with those rules, under `targets`.
    #[serde(skip)]
    pub targets: BTreeMap<String, Strategy>,
}

/// Decides about traces that begin here.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// All are exported.
    #[default]
    AlwaysOn,
    /// None is exported.
    AlwaysOff,
    /// This share of all trace ids, 0 to 1: the same ids on every machine.
    Probability(f64),
    /// So many traces a second, for each service and route, at most.
    TracesPerSecond(f64),
    /// So many spans a second of everything together, at most.
    Adaptive(Adaptive),
    /// What a Jaeger collector says about each service.
    JaegerRemote(JaegerRemote),
}

/// A budget of spans, shared fairly among services and routes: whoever needs less than a fair share keeps everything.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adaptive {
    /// The budget. 1,000 spans/s is about 1 MB/s to the collector before compression.
    pub spans_per_second: f64,
    /// Traces a second that each service and route keeps however crowded it is. 0.2: one every 5 s.
    pub floor: f64,
}

/// Where a Jaeger collector answers `/api/sampling` (its HTTP port is 5778).
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JaegerRemote {
    /// The address, such as `http://jaeger:5778`; `/api/sampling` is added where there is no path.
    pub endpoint: String,
    /// How often it is asked about each service, in milliseconds.
    pub polling_interval_ms: u64,
    /// The share of traces kept of a service as long as there is no answer.
    pub initial: f64,
}

/// What becomes of the spans of processes that export their own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Instrumented {
    /// They are not exported: each request would be shown twice. Metrics and the local view have them.
    #[default]
    Leave,
    /// They are treated as all others.
    Trace,
}

/// Decides in the place of a parent.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Delegate {
    /// All are exported.
    AlwaysOn,
    /// None is exported.
    AlwaysOff,
    /// This share of all trace ids.
    Probability(f64),
}

/// A strategy for some traces. Everything given has to match; what is left out matches everything.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Name of the service, with `*` for any part of it.
    pub service: Option<String>,
    /// The route, else the path, with `*` for any part of it.
    pub route: Option<String>,
    /// The method, such as `GET`.
    pub method: Option<String>,
    /// The status: a code (`404`), a class (`5xx`) or `error` for whatever failed.
    pub status: Option<String>,
    /// A header that is captured, and its value with `*` for any part of it.
    pub header: Option<HeaderRule>,
    /// The server's port.
    pub port: Option<u16>,
    /// What becomes of the trace. `always_on` and `always_off` hold even against the caller's decision.
    pub strategy: Strategy,
}

/// A header's value.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    /// The header's name, which must be among those captured.
    pub name: String,
    /// Its value, with `*` for any part of it.
    pub value: String,
}

/// What is always kept.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keep {
    /// Traces with a span that failed, unless their caller does not sample them. Then every trace waits for its end.
    pub errors: bool,
    /// Traces with a span of at least so many milliseconds, likewise.
    pub slower_than_ms: Option<u64>,
    /// Requests that ask for it: B3's debug flag, Datadog's user priority, X-Ray's `Sampled=1`.
    pub asked: bool,
}

/// Bounds of waiting.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hold {
    /// Milliseconds after the first span of a trace at which it is decided about in any case. 5 s is half of a
    /// collector's usual `decision_wait`: tail sampling behind this agent still sees whole traces.
    pub longest_ms: u64,
    /// Milliseconds without news after which a trace whose first span has ended is over. 500 ms: what the agent itself
    /// waits for the other end of a connection, and some.
    pub settle_ms: u64,
    /// Spans that wait at one time, about 1 KiB each. 16,384: as many as wait for a collector. Beyond it the oldest
    /// trace is decided about early.
    pub most_spans: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: Strategy::AlwaysOn,
            parent_based: true,
            remote_parent_sampled: Delegate::AlwaysOn,
            remote_parent_not_sampled: Delegate::AlwaysOff,
            local_parent_sampled: Delegate::AlwaysOn,
            local_parent_not_sampled: Delegate::AlwaysOff,
            rules: Vec::new(),
            keep: Keep::default(),
            hold: Hold::default(),
            instrumented: Instrumented::default(),
            targets: BTreeMap::new(),
        }
    }
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { spans_per_second: 1_000.0, floor: 0.2 }
    }
}

impl Default for JaegerRemote {
    /// The specification's: `endpoint=http://localhost:5778`, `pollingIntervalMs=60000`; it has no default for the share.
    fn default() -> Self {
        Self { endpoint: "http://localhost:5778".into(), polling_interval_ms: 60_000, initial: 0.001 }
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self { errors: false, slower_than_ms: None, asked: true }
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self { longest_ms: 5_000, settle_ms: 500, most_spans: 16 << 10 }
    }
}

impl Settings {
    /// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` ask for, with a warning where that cannot be had: "invalid
    /// or unrecognized input MUST be logged and MUST be otherwise ignored, i.e. the implementation MUST behave as if
    /// OTEL_TRACES_SAMPLER_ARG is not set" (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration>).
    pub fn from_otel(sampler: &str, argument: Option<&str>) -> (Self, Option<String>) {
        let mut warning = None;
        let sampler = sampler.trim().to_ascii_lowercase();
        let (parent_based, root) = match sampler.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, sampler.as_str()),
        };
        let root = match root {
            "always_on" => Strategy::AlwaysOn,
            "always_off" => Strategy::AlwaysOff,
            "traceidratio" => Strategy::Probability(ratio(argument, &mut warning)),
            "jaeger_remote" => Strategy::JaegerRemote(jaeger_remote(argument, &mut warning)),
            _ => {
                let known = "always_on, always_off, traceidratio, jaeger_remote, each also with parentbased_ before it";
                let warning = format!(
                    "OTEL_TRACES_SAMPLER={sampler} is not known here and parentbased_always_on is used; known are {known}"
                );
                return (Self::default(), Some(warning));
            }
        };
        (Self { root, parent_based, ..Self::default() }, warning)
    }

    /// Everything that can never work, in words.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        check_strategy("sampling.root", &self.root, &mut mistakes);
        for (index, rule) in self.rules.iter().enumerate() {
            check_strategy(&format!("sampling.rules[{index}].strategy"), &rule.strategy, &mut mistakes);
            if let Strategy::Adaptive(_) | Strategy::JaegerRemote(_) = rule.strategy {
                mistakes
                    .push(format!("sampling.rules[{index}].strategy: adaptive and jaeger_remote can only be `root`"));
            }
            if rule.status.as_deref().is_some_and(|status| Status::parse(status).is_none()) {
                mistakes.push(format!("sampling.rules[{index}].status is a code (404), a class (5xx) or `error`"));
            }
        }
        for (name, strategy) in &self.targets {
            check_strategy(&format!("targets.{name}.sampling"), strategy, &mut mistakes);
            if let Strategy::Adaptive(_) | Strategy::JaegerRemote(_) = strategy {
                mistakes.push(format!("targets.{name}.sampling: adaptive and jaeger_remote can only be `root`"));
            }
        }
        for (name, delegate) in [
            ("remote_parent_sampled", self.remote_parent_sampled),
            ("remote_parent_not_sampled", self.remote_parent_not_sampled),
            ("local_parent_sampled", self.local_parent_sampled),
            ("local_parent_not_sampled", self.local_parent_not_sampled),
        ] {
            if let Delegate::Probability(probability) = delegate {
                check_share(&format!("sampling.{name}"), probability, &mut mistakes);
            }
        }
        mistakes
    }
}

/// The statuses that a rule is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Status {
    Code(i64),
    Class(i64),
    Failed,
}

impl Status {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("error") {
            return Some(Self::Failed);
        }
        match text.strip_suffix("xx") {
            Some(class) => class.parse().ok().filter(|class| (1..=5).contains(class)).map(Self::Class),
            None => text.parse().ok().filter(|code| (100..=599).contains(code)).map(Self::Code),
        }
    }
}

fn check_strategy(place: &str, strategy: &Strategy, mistakes: &mut Vec<String>) {
    match strategy {
        Strategy::AlwaysOn | Strategy::AlwaysOff => {}
        Strategy::Probability(probability) => check_share(place, *probability, mistakes),
        Strategy::TracesPerSecond(rate) => check_rate(place, *rate, mistakes),
        Strategy::Adaptive(adaptive) => {
            check_rate(&format!("{place}.spans_per_second"), adaptive.spans_per_second, mistakes);
            if adaptive.floor.is_nan() || adaptive.floor < 0.0 {
                mistakes.push(format!("{place}.floor is a number of traces a second, 0 or more"));
            }
        }
        Strategy::JaegerRemote(remote) => {
            check_share(&format!("{place}.initial"), remote.initial, mistakes);
            if !remote.endpoint.starts_with("http://") && !remote.endpoint.starts_with("https://") {
                mistakes.push(format!("{place}.endpoint is a URL, such as http://jaeger:5778"));
            }
        }
    }
}

fn check_share(place: &str, share: f64, mistakes: &mut Vec<String>) {
    if !(0.0..=1.0).contains(&share) {
        mistakes.push(format!("{place} is a share from 0 to 1, not {share}"));
    }
}

fn check_rate(place: &str, rate: f64, mistakes: &mut Vec<String>) {
    if !rate.is_finite() || rate <= 0.0 {
        mistakes.push(format!("{place} is a number above 0, not {rate}"));
    }
}

/// "Sampling probability, a number in the [0..1] range, e.g. "0.25". Default is 1.0 if unset."
fn ratio(argument: Option<&str>, warning: &mut Option<String>) -> f64 {
    let Some(argument) = argument else { return 1.0 };
    let ratio = argument.trim().parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.unwrap_or_else(|| {
        *warning = Some(format!("OTEL_TRACES_SAMPLER_ARG={argument} is no number from 0 to 1; 1.0 is used"));
        1.0
    })
}

/// `endpoint=http://localhost:14250,pollingIntervalMs=5000,initialSamplingRate=0.25`.
fn jaeger_remote(argument: Option<&str>, warning: &mut Option<String>) -> JaegerRemote {
    let mut remote = JaegerRemote::default();
    let parts = argument.into_iter().flat_map(|argument| argument.split(',')).filter(|part| !part.trim().is_empty());
    for part in parts {
        let taken = part.split_once('=').and_then(|(key, value)| {
            let value = value.trim();
            match key.trim() {
                "endpoint" => remote.endpoint = value.to_owned(),
                "pollingIntervalMs" => remote.polling_interval_ms = value.parse().ok().filter(|ms| *ms > 0)?,
                "initialSamplingRate" => {
                    remote.initial = value.parse().ok().filter(|share| (0.0..=1.0).contains(share))?;
                }
                _ => return None,
            }
            Some(())
        });
        if taken.is_none() {
            *warning = Some(format!("OTEL_TRACES_SAMPLER_ARG: {part} is not understood and not followed"));
        }
    }
    remote
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specifications_samplers_are_honoured() {
        let remote = |endpoint: &str, polling_interval_ms, initial| {
            Strategy::JaegerRemote(JaegerRemote { endpoint: endpoint.into(), polling_interval_ms, initial })
        };
        for (sampler, argument, parent_based, root, warned) in [
            ("always_on", None, false, Strategy::AlwaysOn, false),
            ("always_off", Some("0.3"), false, Strategy::AlwaysOff, false),
            ("traceidratio", Some("0.25"), false, Strategy::Probability(0.25), false),
            ("traceidratio", None, false, Strategy::Probability(1.0), false),
            ("traceidratio", Some("2"), false, Strategy::Probability(1.0), true),
            ("traceidratio", Some("ten"), false, Strategy::Probability(1.0), true),
            ("parentbased_always_on", None, true, Strategy::AlwaysOn, false),
            ("parentbased_always_off", None, true, Strategy::AlwaysOff, false),
            ("ParentBased_TraceIdRatio", Some("0.5"), true, Strategy::Probability(0.5), false),
            (
                "jaeger_remote",
                Some("endpoint=http://j:5778,pollingIntervalMs=5000,initialSamplingRate=0.25"),
                false,
                remote("http://j:5778", 5_000, 0.25),
                false,
            ),
            ("parentbased_jaeger_remote", None, true, remote("http://localhost:5778", 60_000, 0.001), false),
            ("jaeger_remote", Some("pollingIntervalMs=0"), false, remote("http://localhost:5778", 60_000, 0.001), true),
            ("xray", None, true, Strategy::AlwaysOn, true),
            ("nonsense", None, true, Strategy::AlwaysOn, true),
        ] {
            let (settings, warning) = Settings::from_otel(sampler, argument);
            assert_eq!((settings.parent_based, settings.root), (parent_based, root), "{sampler} {argument:?}");
            assert_eq!(warning.is_some(), warned, "{sampler} {argument:?}: {warning:?}");
        }
    }

    #[test]
    fn a_file_says_it_in_few_words() {
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "root": {"adaptive": {"spans_per_second": 500.0}},
            "rules": [
                {"route": "/health*", "strategy": "always_off"},
                {"service": "cart", "status": "5xx", "strategy": "always_on"},
                {"method": "POST", "port": 8080, "strategy": {"traces_per_second": 5.0}},
                {"header": {"name": "x-debug", "value": "*"}, "strategy": {"probability": 0.5}},
            ],
            "keep": {"errors": true, "slower_than_ms": 500},
        }))
        .expect("settings");
        assert_eq!(settings.mistakes(), Vec::<String>::new());
        assert_eq!(settings.root, Strategy::Adaptive(Adaptive { spans_per_second: 500.0, floor: 0.2 }));
        assert_eq!(settings.rules[1].strategy, Strategy::AlwaysOn);
        assert!(serde_json::from_value::<Settings>(serde_json::json!({"roots": "always_on"})).is_err());
    }

    #[test]
    fn every_mistake_is_named() {
        let rule = |status: &str, strategy| Rule { status: Some(status.into()), strategy, ..Rule::default() };
        let settings = Settings {
            root: Strategy::Probability(7.0),
            remote_parent_sampled: Delegate::Probability(-1.0),
            rules: vec![
                rule("6xx", Strategy::TracesPerSecond(0.0)),
                rule("404", Strategy::Adaptive(Adaptive::default())),
            ],
            ..Settings::default()
        };
        let mistakes = settings.mistakes().join("\n");
        for place in
            ["sampling.root", "remote_parent_sampled", "rules[0].status", "rules[0].strategy", "rules[1].strategy"]
        {
            assert!(mistakes.contains(place), "{place}: {mistakes}");
        }
    }
}
