// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The decision about a trace, as far as this machine sees it.
//!
//! In: a [`Question`] about the trace, the settings, what was offered before, and the time. Out: a [`Verdict`], which
//! depends on nothing else. It holds no span back and writes nothing into one.

use super::{
    jaeger::Strategies,
    rates::{Key, Rates},
    settings::{Delegate, Rule, Settings, Status, Strategy},
    threshold::{Claim, Randomness, Threshold, received},
};
use crate::time::Timestamp;

/// What is known of a trace when it is decided about.
#[derive(Clone, Debug)]
pub(super) struct Question<'a> {
    pub(super) randomness: Randomness,
    /// Whether the caller's header said *sampled*; nothing where the trace begins here.
    pub(super) caller: Option<bool>,
    /// `tracestate` as received.
    pub(super) state: Option<&'a str>,
    /// Its first span on this machine, by which it is known to rules and limits.
    pub(super) entry: Entry<'a>,
    /// How many spans there are.
    pub(super) spans: usize,
    /// Whether the request asks to be kept.
    pub(super) asked: bool,
    /// Whether a span failed.
    pub(super) failed: bool,
    /// Whether a span took too long.
    pub(super) slow: bool,
}

/// The first span of a trace on this machine.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// The service and its route.
    pub(super) key: Key,
    /// The span's name, which Jaeger calls the operation.
    pub(super) name: &'a str,
    pub(super) method: Option<&'a str>,
    pub(super) status: Option<i64>,
    pub(super) port: Option<i64>,
    pub(super) failed: bool,
    /// The rule for its process.
    pub(super) target: Option<&'a str>,
    /// Captured headers and their values.
    pub(super) headers: Vec<(&'a str, &'a [Box<str>])>,
}

/// What becomes of a trace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Verdict {
    /// The claim that its spans carry, where it is exported.
    pub(super) kept: Option<Claim>,
    /// Who decided.
    pub(super) by: By,
}

/// What decided about a trace.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum By {
    /// A rule.
    Rule,
    /// The rule for its process.
    Target,
    /// The request asked for it.
    Asked,
    /// The caller's header.
    Caller,
    /// The strategy for traces that begin here.
    Root,
    /// A span failed.
    Error,
    /// A span took long.
    Slow,
}

impl By {
    /// All of them, in the order of [`index`](Self::index).
    pub const ALL: [Self; 7] =
        [Self::Rule, Self::Target, Self::Asked, Self::Caller, Self::Root, Self::Error, Self::Slow];

    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Target => "target",
            Self::Asked => "asked",
            Self::Caller => "caller",
            Self::Root => "root",
            Self::Error => "error",
            Self::Slow => "slow",
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Decides about a trace.
pub(super) fn decide(
    question: &Question<'_>,
    settings: &Settings,
    remote: &Strategies,
    rates: &mut Rates,
    now: Timestamp,
) -> Verdict {
    let verdict = decide_by_caller_and_strategy(question, settings, remote, rates, now);
    // Whoever does not sample a trace has its reasons: a failed part of it alone helps nobody.
    let unwanted = settings.parent_based && question.caller == Some(false);
    let (by, always) = match (question.failed && settings.keep.errors, question.slow) {
        (true, _) => (By::Error, true),
        (false, slow) => (By::Slow, slow),
    };
    if !always || unwanted || (verdict.kept.is_none() && is_off(question, settings)) {
        return verdict;
    }
    // All traces of this kind are kept, those that the strategy would have kept among them: each stands for itself.
    let by = if verdict.kept.is_some() { verdict.by } else { by };
    Verdict { kept: Some(always_kept(question, settings)), by }
}

/// Whether a rule says that the trace is never exported.
fn is_off(question: &Question<'_>, settings: &Settings) -> bool {
    rule_of(question, settings).is_some_and(|(strategy, _)| *strategy == Strategy::AlwaysOff)
}

fn decide_by_caller_and_strategy(
    question: &Question<'_>,
    settings: &Settings,
    remote: &Strategies,
    rates: &mut Rates,
    now: Timestamp,
) -> Verdict {
    let rule = rule_of(question, settings);
    match rule {
        Some((Strategy::AlwaysOff, by)) => return Verdict { kept: None, by },
        Some((Strategy::AlwaysOn, by)) => return Verdict { kept: Some(Claim::Threshold(Threshold::ALWAYS)), by },
        _ => {}
    }
    if settings.keep.asked && question.asked {
        return Verdict { kept: Some(always_kept(question, settings)), by: By::Asked };
    }
    if settings.parent_based
        && let Some(sampled) = question.caller
    {
        return Verdict { kept: by_caller(question, sampled, settings), by: By::Caller };
    }
    let (strategy, by) = rule.unwrap_or((&settings.root, By::Root));
    let key = &question.entry.key;
    let threshold = match strategy {
        Strategy::AlwaysOn => Threshold::ALWAYS,
        Strategy::AlwaysOff => Threshold::NEVER,
        Strategy::Probability(probability) => Threshold::of_probability(*probability),
        Strategy::TracesPerSecond(limit) => rates.limited(key, *limit, now),
        Strategy::Adaptive(adaptive) => rates.adaptive(key, question.spans, *adaptive, now),
        Strategy::JaegerRemote(jaeger) => {
            remote.threshold(&key.service, question.entry.name, key, jaeger.initial, rates, now)
        }
    };
    let keeps = threshold < Threshold::NEVER && threshold.keeps(question.randomness);
    if keeps {
        rates.kept(key, question.spans);
    }
    Verdict { kept: keeps.then_some(Claim::Threshold(threshold)), by }
}

/// What the delegate for the caller's decision says.
fn by_caller(question: &Question<'_>, sampled: bool, settings: &Settings) -> Option<Claim> {
    let (on, off) = (settings.remote_parent_sampled, settings.remote_parent_not_sampled);
    let delegate = if sampled { on } else { off };
    let threshold = threshold_of(delegate);
    if threshold == Threshold::NEVER || !threshold.keeps(question.randomness) {
        return None;
    }
    Some(match (off, received(question.state)) {
        // Both kinds are treated alike: the caller's decision did not matter.
        _ if on == off => Claim::Threshold(threshold),
        // "A sampler that reduces the number of spans raises the threshold": what came through the caller's and ours
        // came through the higher.
        (Delegate::AlwaysOff, Some(theirs)) if theirs.keeps(question.randomness) && threshold > theirs => {
            Claim::Threshold(threshold)
        }
        (Delegate::AlwaysOff, Some(_)) => Claim::AsReceived,
        // The caller's share is not known.
        (Delegate::AlwaysOff, None) => Claim::AsReceived,
        _ => Claim::Unknown,
    })
}

/// The claim of a trace that is kept for what it is.
fn always_kept(question: &Question<'_>, settings: &Settings) -> Claim {
    match question.caller {
        // Of those that the caller sampled, all are kept.
        Some(true) if settings.parent_based => Claim::AsReceived,
        _ => Claim::Threshold(Threshold::ALWAYS),
    }
}

/// The threshold of a delegate.
pub(super) fn threshold_of(delegate: Delegate) -> Threshold {
    match delegate {
        Delegate::AlwaysOn => Threshold::ALWAYS,
        Delegate::AlwaysOff => Threshold::NEVER,
        Delegate::Probability(probability) => Threshold::of_probability(probability),
    }
}

/// What replaces the root: the first rule that matches, else what is said of the process.
fn rule_of<'s>(question: &Question<'_>, settings: &'s Settings) -> Option<(&'s Strategy, By)> {
    let rule = settings.rules.iter().find(|rule| matches(rule, &question.entry));
    let of_process = || Some((settings.targets.get(question.entry.target?)?, By::Target));
    rule.map(|rule| (&rule.strategy, By::Rule)).or_else(of_process)
}

fn matches(rule: &Rule, entry: &Entry<'_>) -> bool {
    let text = |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|pattern| is_like(pattern, text));
    text(&rule.service, &entry.key.service)
        && text(&rule.route, &entry.key.route)
        && rule.method.as_ref().is_none_or(|method| entry.method == Some(method))
        && rule.port.is_none_or(|port| entry.port == Some(port.into()))
        && rule.status.as_ref().is_none_or(|status| match Status::parse(status) {
            Some(Status::Code(code)) => entry.status == Some(code),
            Some(Status::Class(class)) => entry.status.is_some_and(|code| code / 100 == class),
            Some(Status::Failed) => entry.failed,
            None => false,
        })
        && rule.header.as_ref().is_none_or(|header| {
            let values = entry.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(&header.name));
            values.is_some_and(|(_, values)| values.iter().any(|value| is_like(&header.value, value)))
        })
}

/// Whether `text` is `pattern`, in which `*` stands for anything. Linear but for repetition of what stands between two
/// stars: patterns are the operator's, texts the peer's.
pub fn is_like(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut rest) = text.strip_prefix(head) else { return false };
    let mut parts = tail.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::settings::{HeaderRule, Keep};

    const HALF: f64 = 0.5;

    fn question(caller: Option<bool>, state: Option<&'static str>) -> Question<'static> {
        Question {
            randomness: Randomness::of(crate::context::TraceId([0x90; 16]), None),
            caller,
            state,
            entry: Entry {
                key: Key { service: "cart".into(), route: "/items/{id}".into() },
                name: "GET /items/{id}",
                method: Some("GET"),
                status: Some(503),
                port: Some(8080),
                failed: true,
                target: None,
                headers: Vec::new(),
            },
            spans: 1,
            asked: false,
            failed: false,
            slow: false,
        }
    }

    fn verdict(question: &Question<'_>, settings: &Settings) -> String {
        let verdict = decide(question, settings, &Strategies::default(), &mut Rates::new(1), Timestamp(1));
        let claim = match verdict.kept {
            None => "dropped".to_owned(),
            Some(Claim::AsReceived) => "as received".to_owned(),
            Some(Claim::Unknown) => "unknown".to_owned(),
            Some(Claim::Threshold(threshold)) => format!("{}", threshold.probability()),
        };
        format!("{claim} by {}", verdict.by.label())
    }

    #[test]
    fn parents_decide_in_every_combination() {
        use Delegate::{AlwaysOff, AlwaysOn, Probability};
        let root = Strategy::AlwaysOff;
        for (on, off, caller, state, expected) in [
            (AlwaysOn, AlwaysOff, None, None, "dropped by root"),
            (AlwaysOn, AlwaysOff, Some(true), None, "as received by caller"),
            (AlwaysOn, AlwaysOff, Some(true), Some("ot=th:8"), "as received by caller"),
            (AlwaysOn, AlwaysOff, Some(false), None, "dropped by caller"),
            (AlwaysOff, AlwaysOff, Some(true), None, "dropped by caller"),
            (AlwaysOff, AlwaysOn, Some(true), None, "dropped by caller"),
            (AlwaysOff, AlwaysOn, Some(false), None, "unknown by caller"),
            // The flag makes no difference, so every one of them is kept.
            (AlwaysOn, AlwaysOn, Some(true), Some("ot=th:8"), "1 by caller"),
            (AlwaysOn, AlwaysOn, Some(false), None, "1 by caller"),
            // R is 0x90…: above 0x80…, below 0xc0….
            (Probability(0.5), AlwaysOff, Some(true), Some("ot=th:0"), "0.5 by caller"),
            (Probability(0.5), AlwaysOff, Some(true), Some("ot=th:88"), "as received by caller"),
            (Probability(0.5), AlwaysOff, Some(true), None, "as received by caller"),
            (Probability(0.25), AlwaysOff, Some(true), Some("ot=th:0"), "dropped by caller"),
            (AlwaysOn, Probability(0.5), Some(true), None, "unknown by caller"),
            (AlwaysOn, Probability(0.5), Some(false), None, "unknown by caller"),
            (AlwaysOn, Probability(0.25), Some(false), None, "dropped by caller"),
        ] {
            let root = root.clone();
            let settings =
                Settings { root, remote_parent_sampled: on, remote_parent_not_sampled: off, ..Settings::default() };
            assert_eq!(verdict(&question(caller, state), &settings), expected, "{on:?} {off:?} {caller:?} {state:?}");
        }
    }

    #[test]
    fn without_parents_the_trace_id_decides_alone() {
        let settings =
            |share| Settings { root: Strategy::Probability(share), parent_based: false, ..Settings::default() };
        for caller in [None, Some(true), Some(false)] {
            assert_eq!(verdict(&question(caller, Some("ot=th:4")), &settings(HALF)), "0.5 by root");
            assert_eq!(verdict(&question(caller, None), &settings(0.25)), "dropped by root");
        }
    }

    #[test]
    fn the_first_rule_that_matches_replaces_the_root() {
        let rule = |change: fn(&mut Rule)| {
            let mut rule = Rule { strategy: Strategy::AlwaysOff, ..Rule::default() };
            change(&mut rule);
            rule
        };
        let header = |value: &str| Some(HeaderRule { name: "X-Tenant".into(), value: value.into() });
        let values: [Box<str>; 1] = ["gold-7".into()];
        let mut asked = question(None, None);
        asked.entry.headers.push(("x-tenant", &values));
        for (rule, expected) in [
            (rule(|_| ()), "dropped by rule"),
            (rule(|rule| rule.service = Some("cart".into())), "dropped by rule"),
            (rule(|rule| rule.service = Some("car".into())), "1 by root"),
            (rule(|rule| rule.service = Some("c*t".into())), "dropped by rule"),
            (rule(|rule| rule.route = Some("/items/*".into())), "dropped by rule"),
            (rule(|rule| rule.route = Some("/health*".into())), "1 by root"),
            (rule(|rule| rule.method = Some("GET".into())), "dropped by rule"),
            (rule(|rule| rule.method = Some("POST".into())), "1 by root"),
            (rule(|rule| rule.status = Some("503".into())), "dropped by rule"),
            (rule(|rule| rule.status = Some("5xx".into())), "dropped by rule"),
            (rule(|rule| rule.status = Some("4xx".into())), "1 by root"),
            (rule(|rule| rule.status = Some("error".into())), "dropped by rule"),
            (rule(|rule| rule.port = Some(8080)), "dropped by rule"),
            (rule(|rule| rule.port = Some(80)), "1 by root"),
        ] {
            let settings = Settings { rules: vec![rule.clone()], ..Settings::default() };
            assert_eq!(verdict(&asked, &settings), expected, "{rule:?}");
        }
        for (value, expected) in [("gold-*", "dropped by rule"), ("silver-*", "1 by root"), ("*", "dropped by rule")] {
            let rule = Rule { header: header(value), ..rule(|_| ()) };
            let settings = Settings { rules: vec![rule], ..Settings::default() };
            assert_eq!(verdict(&asked, &settings), expected, "{value}");
        }
        let first = Rule { strategy: Strategy::Probability(HALF), ..Rule::default() };
        let settings = Settings { rules: vec![first, rule(|_| ())], ..Settings::default() };
        assert_eq!(verdict(&asked, &settings), "0.5 by rule");
    }

    #[test]
    fn what_is_said_of_a_process_replaces_the_root_where_no_rule_does() {
        let targets = |strategy| [("batch".to_owned(), strategy)].into();
        let mut asked = question(None, None);
        let strategies = [Strategy::AlwaysOff, Strategy::AlwaysOn, Strategy::Probability(0.0)];
        let kept = |question: &Question<'_>, settings: &Settings| {
            let (remote, mut rates) = (Strategies::default(), Rates::new(1));
            let verdict = decide(question, settings, &remote, &mut rates, Timestamp::default());
            (verdict.kept.is_some(), verdict.by)
        };
        for (strategy, expected) in strategies.into_iter().zip([false, true, false]) {
            let settings = Settings { targets: targets(strategy), ..Settings::default() };
            asked.entry.target = Some("batch");
            assert_eq!(kept(&asked, &settings), (expected, By::Target));
            asked.entry.target = Some("another");
            assert_eq!(kept(&asked, &settings), (true, By::Root));
        }
        let settings = Settings {
            targets: targets(Strategy::AlwaysOff),
            rules: vec![serde_json::from_str(r#"{"strategy": "always_on"}"#).expect("a rule")],
            ..Settings::default()
        };
        asked.entry.target = Some("batch");
        assert_eq!(kept(&asked, &settings), (true, By::Rule), "a rule says more");
    }

    #[test]
    fn absolute_rules_outrank_the_caller_and_shares_do_not() {
        let settings = |strategy| Settings { rules: vec![Rule { strategy, ..Rule::default() }], ..Settings::default() };
        for (strategy, caller, expected) in [
            (Strategy::AlwaysOff, true, "dropped by rule"),
            (Strategy::AlwaysOn, false, "1 by rule"),
            (Strategy::Probability(HALF), true, "as received by caller"),
            (Strategy::Probability(HALF), false, "dropped by caller"),
        ] {
            assert_eq!(verdict(&question(Some(caller), None), &settings(strategy)), expected);
        }
    }

    #[test]
    fn errors_and_slow_ones_stand_for_themselves() {
        let keep = Keep { errors: true, slower_than_ms: Some(100), asked: true };
        let with = |root, rules| Settings { root, rules, keep: keep.clone(), ..Settings::default() };
        let off = || vec![Rule { strategy: Strategy::AlwaysOff, ..Rule::default() }];
        for (root, rules, caller, failed, slow, expected) in [
            (Strategy::AlwaysOff, vec![], None, true, false, "1 by error"),
            (Strategy::AlwaysOff, vec![], None, false, true, "1 by slow"),
            (Strategy::AlwaysOff, vec![], None, false, false, "dropped by root"),
            // Kept either way: the weight is 1 all the same, or errors would count twice.
            (Strategy::Probability(HALF), vec![], None, true, false, "1 by root"),
            (Strategy::Probability(HALF), vec![], None, false, false, "0.5 by root"),
            (Strategy::AlwaysOff, vec![], Some(true), true, false, "as received by caller"),
            (Strategy::AlwaysOn, vec![], Some(false), true, true, "dropped by caller"),
            (Strategy::AlwaysOn, off(), None, true, true, "dropped by rule"),
        ] {
            let question = Question { failed, slow, ..question(caller, None) };
            assert_eq!(verdict(&question, &with(root, rules)), expected);
        }
    }

    #[test]
    fn who_asks_is_kept_unless_told_otherwise() {
        let settings = |asked| Settings {
            root: Strategy::AlwaysOff,
            keep: Keep { asked, ..Keep::default() },
            ..Settings::default()
        };
        let question = |caller| Question { asked: true, ..question(caller, None) };
        assert_eq!(verdict(&question(Some(false)), &settings(true)), "1 by asked");
        assert_eq!(verdict(&question(None), &settings(true)), "1 by asked");
        assert_eq!(verdict(&question(Some(true)), &settings(true)), "as received by asked");
        assert_eq!(verdict(&question(None), &settings(false)), "dropped by root");
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("**", "x", true),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }
}
