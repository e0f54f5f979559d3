// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the agent said about a model, against what is known to be true.
//!
//! In: the ids that were asked for, and every span. Out: a [`Row`]. A call belongs to the request whose id its path
//! carries; a parent that is anything else is wrong, none is an abstention. It does not know how parents are found.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::{
    agent::Report,
    models::{Model, Peer, Shape},
    spans::{Kind, Span},
};

/// One model at one concurrency.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Model and shape, as `go-default.sequence`.
    pub(crate) model: String,
    /// Requests at once.
    pub(crate) concurrency: usize,
    /// What was judged: all but the warm-up.
    #[serde(flatten)]
    pub(crate) tally: Tally,
    /// The first requests, in which what is learned per process is learned. Wrong counts here too.
    pub(crate) warm_up: Tally,
    /// Spans beyond one for each end of a request.
    pub(crate) duplicated: usize,
    /// SERVER spans under the CLIENT span of the same request, under another, and under none.
    pub(crate) joins: Joins,
    /// What links that carry a confidence claimed, and what came of it.
    pub(crate) calibration: Vec<Bin>,
    /// The agent's own account.
    pub(crate) losses: BTreeMap<String, u64>,
    /// Percent of calls that must be right.
    pub(crate) target: Option<f64>,
    /// What the strongest peer had for the same service, in percent.
    pub(crate) peer: Option<Peer>,
    /// Why there are no figures: something that the model needs is not to be had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_run: Option<String>,
    /// Why there are no figures: the service or the agent failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
    /// Some wrong parents, for people.
    #[serde(skip)]
    pub(crate) examples: Vec<String>,
}

/// Calls and their parents. Law: calls = right + wrong + abstained + lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Tally {
    /// Made.
    pub(crate) calls: usize,
    /// Under their own request.
    pub(crate) right: usize,
    /// Under anything else.
    pub(crate) wrong: usize,
    /// Roots.
    pub(crate) abstained: usize,
    /// Without a span.
    pub(crate) lost: usize,
    /// By `spantap.link.method`.
    pub(crate) methods: BTreeMap<String, Links>,
}

/// Links of one kind of evidence.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Links {
    /// True.
    pub(crate) right: usize,
    /// Not true.
    pub(crate) wrong: usize,
}

/// Both ends of a request on this host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct Joins {
    /// Under the CLIENT span with the same path.
    pub(crate) right: usize,
    /// Under another span.
    pub(crate) wrong: usize,
    /// Under none.
    pub(crate) missing: usize,
}

/// Links whose confidence lies in a range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Bin {
    /// The least confidence.
    pub(crate) from: f64,
    /// How many.
    pub(crate) links: usize,
    /// The mean of their confidences.
    pub(crate) claimed: f64,
    /// The share of them that is right.
    pub(crate) right: f64,
}

/// Judges what the agent reported about the requests of one row.
pub(crate) fn judge(
    model: &Model,
    shape: Shape,
    concurrency: usize,
    warm_up: usize,
    asked: &[String],
    report: &Report,
) -> Row {
    let mut row = Row {
        model: model.row(shape),
        concurrency,
        losses: report.summary.lost.clone(),
        target: model.target,
        peer: model.peers.iter().copied().find(|peer| shape.is_the_peers() && peer.concurrency == concurrency),
        ..Row::default()
    };
    let index = Index::new(&report.spans);
    let mut confidences = Vec::new();
    for (number, id) in asked.iter().enumerate() {
        let request = index.at(Kind::Server, &format!("/work/{}/{id}", shape.label()));
        row.duplicated += request.len().saturating_sub(1);
        for n in 0..shape.calls() {
            let call = index.at(Kind::Client, &format!("/call/{}/{id}/{n}", shape.label()));
            row.duplicated += call.len().saturating_sub(1);
            let tally = if number < warm_up { &mut row.warm_up } else { &mut row.tally };
            tally.calls += 1;
            let Some(&call) = call.first() else {
                tally.lost += 1;
                continue;
            };
            let is_own = |parent: &str| request.iter().any(|span| span.id == parent && span.trace == call.trace);
            confidences.extend(
                call.candidates
                    .iter()
                    .map(|candidate| (candidate.confidence, request.iter().any(|span| span.id == candidate.span))),
            );
            let Some(parent) = &call.parent else {
                tally.abstained += 1;
                continue;
            };
            let is_right = is_own(parent);
            confidences.extend(call.confidence.map(|confidence| (confidence, is_right)));
            let method = call.evidence.clone().unwrap_or_else(|| UNNAMED.to_owned());
            if !is_right && row.examples.len() < MOST_EXAMPLES {
                let foreign = report.spans.iter().find(|span| span.id == *parent);
                let foreign = foreign.map_or("a span that was never shown", |span| span.path.as_str());
                row.examples.push(format!("{} under {foreign} by {method}", call.path));
            }
            let links = tally.methods.entry(method).or_default();
            if is_right {
                tally.right += 1;
                links.right += 1;
            } else {
                tally.wrong += 1;
                links.wrong += 1;
            }
        }
    }
    row.joins = joins(&report.spans, asked);
    row.calibration = bins(&confidences);
    row
}

impl Row {
    /// A row without figures: what the model needs cannot be had.
    pub(crate) fn not_run(model: &str, why: String) -> Self {
        Self { model: model.to_owned(), not_run: Some(why), ..Self::default() }
    }

    /// A row without figures: something went wrong.
    pub(crate) fn failed(model: &str, concurrency: usize, why: String) -> Self {
        Self { model: model.to_owned(), concurrency, failed: Some(why), ..Self::default() }
    }

    /// Percent of the calls that hang under their own request.
    pub(crate) fn right_percent(&self) -> f64 {
        percent(self.tally.right, self.tally.calls)
    }

    /// What must not be. Missing links are no failure: the table shows them beside the target.
    pub(crate) fn failures(&self) -> Vec<String> {
        let name = format!("{} at {}", self.model, self.concurrency);
        let mut failures = Vec::new();
        if let Some(why) = &self.failed {
            failures.push(format!("{name}: {why}"));
        }
        let (mut guesses, mut wrong_guesses) = (0, 0);
        for (method, links) in self.methods() {
            if INEXACT.contains(&method.as_str()) {
                guesses += links.right + links.wrong;
                wrong_guesses += links.wrong;
            } else if links.wrong > 0 {
                failures.push(format!("{name}: {} wrong parents by {method}", links.wrong));
            }
        }
        if percent(wrong_guesses, guesses) > MOST_WRONG {
            failures.push(format!("{name}: {wrong_guesses} of {guesses} inexact links are wrong"));
        }
        if !failures.is_empty() {
            failures.extend(self.examples.iter().map(|example| format!("{name}: such as {example}")));
        }
        if self.joins.wrong > 0 {
            failures.push(format!("{name}: {} SERVER spans under a foreign CLIENT span", self.joins.wrong));
        }
        let (lost, accounted) = (self.tally.lost + self.warm_up.lost, self.losses.values().sum::<u64>());
        if lost as u64 > accounted {
            failures.push(format!("{name}: {lost} calls without a span, {accounted} accounted for"));
        }
        if self.duplicated > 0 {
            failures.push(format!("{name}: {} spans too many", self.duplicated));
        }
        failures
    }

    /// By method, the warm-up included.
    fn methods(&self) -> BTreeMap<String, Links> {
        let mut methods = self.tally.methods.clone();
        for (method, more) in &self.warm_up.methods {
            let links = methods.entry(method.clone()).or_default();
            links.right += more.right;
            links.wrong += more.wrong;
        }
        methods
    }
}

/// `part` of `whole`; none of nothing.
pub(crate) fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// Spans by kind and path.
struct Index<'a>(HashMap<Kind, HashMap<&'a str, Vec<&'a Span>>>);

impl<'a> Index<'a> {
    fn new(spans: &'a [Span]) -> Self {
        let mut index: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for span in spans {
            index.entry(span.kind).or_default().entry(span.path.as_str()).or_default().push(span);
        }
        Self(index)
    }

    fn at(&self, kind: Kind, path: &str) -> &[&'a Span] {
        self.0.get(&kind).and_then(|paths| paths.get(path)).map_or(&[], Vec::as_slice)
    }
}

/// A path names one exchange, so a SERVER span belongs under the CLIENT span of that path.
fn joins(spans: &[Span], asked: &[String]) -> Joins {
    let index = Index::new(spans);
    let tag = asked.first().and_then(|id| id.rsplit_once('-')).map_or("", |(tag, _)| tag);
    let of_this_row = format!("/{tag}-");
    let mut joins = Joins::default();
    for server in spans.iter().filter(|span| span.kind == Kind::Server && span.path.contains(&of_this_row)) {
        match &server.parent {
            None => joins.missing += 1,
            Some(parent) if index.at(Kind::Client, &server.path).iter().any(|span| span.id == *parent) => {
                joins.right += 1;
            }
            Some(_) => joins.wrong += 1,
        }
    }
    joins
}

fn bins(confidences: &[(f64, bool)]) -> Vec<Bin> {
    let edges = BINS.iter().zip(BINS.iter().skip(1).chain([&f64::INFINITY]));
    let bin = |(&from, &to): (&f64, &f64)| {
        let inside: Vec<_> = confidences.iter().filter(|(claimed, _)| (from..to).contains(claimed)).collect();
        let links = inside.len();
        let mean =
            |values: &dyn Fn(&(f64, bool)) -> f64| inside.iter().map(|one| values(one)).sum::<f64>() / links as f64;
        let (claimed, right) = (mean(&|one| one.0), mean(&|one| f64::from(u8::from(one.1))));
        (links > 0).then_some(Bin { from, links, claimed, right })
    };
    edges.filter_map(bin).collect()
}

/// Evidence that may be wrong, and how often: percent of the links that rest on it.
const INEXACT: [&str; 2] = ["handoff", "assigned"];
const MOST_WRONG: f64 = 1.0;

/// A parent without named evidence is held to be exact.
const UNNAMED: &str = "(unnamed)";

/// Enough to begin looking.
const MOST_EXAMPLES: usize = 3;

/// Least confidences of the bins; 0.99 is where a candidate becomes a parent.
const BINS: [f64; 6] = [0.0, 0.5, 0.8, 0.9, 0.95, 0.99];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::Summary, models::MODELS};

    fn span(kind: Kind, path: &str, id: &str, parent: Option<&str>, evidence: Option<&str>) -> Span {
        Span {
            pid: 1,
            kind,
            path: path.into(),
            host: String::new(),
            method: "GET".into(),
            original: None,
            status: Some(200),
            failed: false,
            error: None,
            trace: "t".into(),
            id: id.into(),
            parent: parent.map(str::to_owned),
            evidence: evidence.map(str::to_owned),
            confidence: None,
            candidates: Vec::new(),
            start: 1,
            end: 2,
        }
    }

    fn judged(spans: Vec<Span>) -> Row {
        let report = Report { spans, summary: Summary::default() };
        judge(&MODELS[0], Shape::One, 8, 0, &["x-0".to_owned(), "x-1".to_owned()], &report)
    }

    fn requests() -> Vec<Span> {
        let request = |path, id| span(Kind::Server, path, id, None, None);
        vec![request("/work/one/x-0", "a"), request("/work/one/x-1", "b")]
    }

    fn call(number: usize, parent: Option<&str>, evidence: &str) -> Span {
        span(Kind::Client, &format!("/call/one/x-{number}/0"), "c", parent, parent.map(|_| evidence))
    }

    #[test]
    fn a_call_is_right_under_its_own_request_only() {
        let right = judged([requests(), vec![call(0, Some("a"), "thread"), call(1, None, "")]].concat());
        assert_eq!((right.tally.right, right.tally.wrong, right.tally.abstained, right.tally.lost), (1, 0, 1, 0));
        assert_eq!(right.failures(), [] as [&str; 0]);
        let wrong = judged([requests(), vec![call(0, Some("b"), "thread")]].concat());
        assert_eq!((wrong.tally.right, wrong.tally.wrong, wrong.tally.abstained, wrong.tally.lost), (0, 1, 0, 1));
        assert!(wrong.failures()[0].contains("1 wrong parents by thread"), "{:?}", wrong.failures());
    }

    #[test]
    fn a_parent_that_was_never_shown_is_wrong() {
        let row = judged([requests(), vec![call(0, Some("z"), "runtime"), call(1, Some("b"), "runtime")]].concat());
        assert_eq!(row.tally.methods["runtime"], Links { right: 1, wrong: 1 });
    }

    #[test]
    fn inexact_evidence_may_be_wrong_once_in_a_hundred() {
        let with = |right, wrong| Row {
            tally: Tally { methods: BTreeMap::from([("handoff".into(), Links { right, wrong })]), ..Tally::default() },
            ..Row::default()
        };
        assert_eq!(with(99, 1).failures(), [] as [&str; 0]);
        assert_eq!(with(98, 2).failures().len(), 1);
    }

    #[test]
    fn a_wrong_parent_during_the_warm_up_is_a_failure_too() {
        let report = Report {
            spans: [requests(), vec![call(0, Some("b"), "reply"), call(1, Some("b"), "reply")]].concat(),
            summary: Summary::default(),
        };
        let row = judge(&MODELS[0], Shape::One, 8, 1, &["x-0".to_owned(), "x-1".to_owned()], &report);
        assert_eq!((row.tally.wrong, row.warm_up.wrong), (0, 1));
        assert!(!row.failures().is_empty());
    }

    #[test]
    fn confidences_are_compared_with_what_came_of_them() {
        let bins = bins(&[(0.995, true), (0.999, false), (0.6, true)]);
        assert_eq!(
            bins.iter().map(|bin| (bin.from, bin.links, bin.right)).collect::<Vec<_>>(),
            [(0.5, 1, 1.0), (0.99, 2, 0.5)]
        );
    }
}
