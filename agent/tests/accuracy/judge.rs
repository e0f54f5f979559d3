// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether an agent that saw one case has told the truth about it.
//!
//! In: the case's [`Truth`]s, and all that the agent showed and counted. Out: a [`Row`], and a sentence for each fault.
//! It does not know how the traffic came about; that the agent saw no other traffic is the caller's promise.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    agent::{Report, SIGHT_PATH},
    shortfalls::{Account, Shortfall},
    spans::{Kind, Span},
    truth::Truth,
};

/// One line of the table: the names are those of the JSON.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) case: String,
    /// Spans that have to be there.
    pub(crate) expected: usize,
    /// Those of them that are there.
    pub(crate) captured: usize,
    /// Spans beyond those.
    pub(crate) duplicated: usize,
    /// Captured spans with a wrong fact.
    pub(crate) wrong: usize,
    /// What the agent counts as lost, by reason.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Whether all is as it has to be.
    pub(crate) passed: bool,
}

/// A row and what is behind it.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// The line of the table.
    pub(crate) row: Row,
    /// Everything that is not as it has to be.
    pub(crate) faults: Vec<String>,
    /// The farthest that a span's start or end lies outside of what the case measured.
    pub(crate) deviation: Duration,
    /// Why it could not pass here, and did not.
    pub(crate) listed: Option<&'static str>,
}

impl Verdict {
    /// Of a case that could not even be run.
    pub(crate) fn not_run(case: &str, why: String) -> Self {
        let (case, lost) = (case.to_owned(), BTreeMap::new());
        let row = Row { case, expected: 0, captured: 0, duplicated: 0, wrong: 0, lost, passed: false };
        Self { row, faults: vec![format!("could not be run: {why}")], deviation: Duration::ZERO, listed: None }
    }

    /// The verdict on a case that cannot pass here: it does not, nothing of it is wrong, and the agent accounts for it as
    /// the list says.
    pub(crate) fn held_against(mut self, shortfall: &Shortfall) -> Self {
        let Row { wrong, duplicated, ref lost, passed, .. } = self.row;
        let mut faults = Vec::new();
        let mut require = |holds: bool, fault: String| faults.extend((!holds).then_some(fault));
        require(!passed, "passes, although it is on the list of those that cannot".to_owned());
        require(wrong == 0 && duplicated == 0, format!("{wrong} spans are wrong and {duplicated} too many"));
        match shortfall.account {
            Account::Unseen => require(lost.is_empty(), format!("lost {lost:?} instead of unseen")),
            Account::Lost(reason) => require(lost.contains_key(reason), format!("no loss {reason} in {lost:?}")),
        }
        self.listed = faults.is_empty().then_some(shortfall.why);
        if self.listed.is_some() {
            self.faults.clear();
        }
        self.faults.extend(faults);
        self
    }

    /// In a word.
    pub(crate) fn outcome(&self) -> &'static str {
        match (self.row.passed, self.listed) {
            (_, Some(_)) => "listed",
            (true, None) if self.faults.is_empty() => "passed",
            (_, None) => "FAILED",
        }
    }

    /// Something that only the case itself can see is not as it has to be.
    pub(crate) fn fail(&mut self, fault: String) {
        self.faults.push(fault);
        self.row.passed = false;
    }
}

/// Holds `report` against `truths`. No case overloads the agent, so none may cost anything.
pub(crate) fn judge(case: &str, truths: &[Truth], report: &Report) -> Verdict {
    let mut faults = Vec::new();
    let mut rest: Vec<&Span> = report.spans.iter().filter(|span| span.path != SIGHT_PATH).collect();
    let mut found = Vec::new();
    for truth in truths {
        match rest.iter().position(|span| is_of(span, truth)) {
            Some(index) => found.push((truth, rest.remove(index))),
            None => faults.push(format!("{} {:?}: no span", truth.id, truth.kind)),
        }
    }
    faults.extend(rest.iter().map(|span| format!("one span too many: {}", describe(span))));

    let (mut wrong, mut deviation) = (0, Duration::ZERO);
    for (truth, span) in &found {
        let mut facts = wrong_facts(truth, span);
        facts.extend(wrong_parent(truth, span, &found));
        wrong += usize::from(!facts.is_empty());
        faults.extend(facts.into_iter().map(|fact| format!("{} {:?}: {fact}", truth.id, truth.kind)));
        deviation = deviation.max(truth.start.distance(span.start)).max(truth.end.distance(span.end));
    }

    let summary = &report.summary;
    if !summary.lost.is_empty() {
        faults.push(format!("lost {:?}", summary.lost));
    }
    // Nothing is lost in silence: without a loss, every request recognised is a span, and every span is shown.
    let shown = report.spans.len() as u64;
    if summary.lost.is_empty() && (summary.requests, summary.spans) != (shown, shown) {
        faults.push(format!("{} requests and {} spans in the books, {shown} shown", summary.requests, summary.spans));
    }
    let row = Row {
        case: case.to_owned(),
        expected: truths.len(),
        captured: found.len(),
        duplicated: rest.len(),
        wrong,
        lost: summary.lost.clone(),
        passed: faults.is_empty(),
    };
    Verdict { row, faults, deviation, listed: None }
}

/// Whether `span` is one of the request that `truth` is about.
pub(crate) fn is_of(span: &Span, truth: &Truth) -> bool {
    // A case's name may be the end of another's.
    let in_path = || span.path.split('/').any(|part| part.starts_with(&truth.id));
    span.kind == truth.kind && (in_path() || span.host.starts_with(&truth.id))
}

fn wrong_facts(truth: &Truth, span: &Span) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut compare = |what: &str, is: &dyn std::fmt::Debug, should: &dyn std::fmt::Debug| {
        let (is, should) = (format!("{is:?}"), format!("{should:?}"));
        if is != should {
            wrong.push(format!("{what} {is} instead of {should}"));
        }
    };
    compare("path", &span.path, &truth.path);
    compare("method", &span.method, &truth.method);
    compare("original method", &span.original.as_deref(), &truth.original);
    compare("status", &span.status, &truth.status);
    compare("error.type", &span.error.as_deref(), &truth.error);
    compare("failed", &span.failed, &truth.error.is_some());
    for (what, at, window) in [("start", span.start, truth.start), ("end", span.end, truth.end)] {
        if window.distance(at) > TOLERANCE {
            let side = if at < window.from { "early" } else { "late" };
            wrong.push(format!("{what} is {:.1} ms too {side}", window.distance(at).as_secs_f64() * 1e3));
        }
    }
    wrong
}

/// Where both ends are seen, the client's span is the only parent that the server's can have.
fn wrong_parent(truth: &Truth, span: &Span, found: &[(&Truth, &Span)]) -> Option<String> {
    let parent = span.parent.as_deref().filter(|_| truth.kind == Kind::Server)?;
    let (_, client) = found.iter().find(|(other, _)| other.kind == Kind::Client && other.id == truth.id)?;
    (parent != client.id || span.trace != client.trace).then(|| "its parent is another request's span".to_owned())
}

/// The servers' spans that have no parent, although their clients' spans are there.
pub(crate) fn unjoined(truths: &[Truth], report: &Report) -> Vec<String> {
    let find =
        |truth: &Truth, kind| report.spans.iter().find(|span| span.kind == kind && span.path.contains(&truth.id));
    let servers = truths.iter().filter(|truth| truth.kind == Kind::Server);
    servers
        .filter(|truth| find(truth, Kind::Client).is_some())
        .filter(|truth| find(truth, Kind::Server).is_some_and(|span| span.parent.is_none()))
        .map(|truth| format!("{} {:?}: not joined with its client's span", truth.id, truth.kind))
        .collect()
}

fn describe(span: &Span) -> String {
    let Span { kind, method, path, host, status, error, pid, .. } = span;
    let path: String = path.chars().take(100).collect();
    format!("{kind:?} {method} {path:?} at {host:?}, status {status:?}, error {error:?}, process {pid}")
}

/// Of times, beyond what the case itself has measured.
const TOLERANCE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use spantap::kernel::Tier;

    use super::*;
    use crate::{agent::Summary, truth::Window};

    const TRUTH_AT: Window = Window { from: 1_000_000_000, to: 1_001_000_000 };

    fn truth(kind: Kind) -> Truth {
        let (id, path) = ("c.0001".to_owned(), "/c.0001".to_owned());
        let (start, end) = (TRUTH_AT, TRUTH_AT);
        Truth { id, kind, path, method: "GET", original: None, status: Some(200), error: None, start, end }
    }

    fn span(kind: Kind) -> Span {
        Span {
            pid: 1,
            kind,
            path: "/c.0001".into(),
            host: String::new(),
            method: "GET".into(),
            original: None,
            status: Some(200),
            failed: false,
            error: None,
            trace: "t".into(),
            id: format!("{kind:?}"),
            parent: None,
            evidence: None,
            confidence: None,
            candidates: Vec::new(),
            start: TRUTH_AT.from,
            end: TRUTH_AT.to,
        }
    }

    fn judged(spans: Vec<Span>, lost: &[(&str, u64)]) -> Row {
        verdict(spans, lost).row
    }

    fn verdict(spans: Vec<Span>, lost: &[(&str, u64)]) -> Verdict {
        let lost: BTreeMap<_, _> = lost.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
        let summary = Summary { requests: spans.len() as u64, spans: spans.len() as u64, lost, ..Summary::default() };
        judge("c", &[truth(Kind::Client), truth(Kind::Server)], &Report { spans, summary })
    }

    #[test]
    fn the_truth_passes() {
        let child = Span { parent: Some("Client".into()), ..span(Kind::Server) };
        let sight = Span { path: SIGHT_PATH.into(), ..span(Kind::Server) };
        let row = judged(vec![span(Kind::Client), child, sight], &[]);
        assert_eq!((row.captured, row.duplicated, row.wrong, row.passed), (2, 0, 0, true));
    }

    #[test]
    fn a_missing_span_fails() {
        let row = judged(vec![span(Kind::Client)], &[]);
        assert_eq!((row.captured, row.passed), (1, false));
    }

    #[test]
    fn a_second_span_fails() {
        let row = judged(vec![span(Kind::Client), span(Kind::Server), span(Kind::Server)], &[]);
        assert_eq!((row.captured, row.duplicated, row.passed), (2, 1, false));
    }

    #[test]
    fn a_loss_fails() {
        let row = judged(vec![span(Kind::Client), span(Kind::Server)], &[("gap", 1)]);
        assert_eq!((row.captured, row.passed), (2, false));
    }

    #[test]
    fn what_cannot_pass_may_not_pass_nor_be_wrong_nor_be_missing_otherwise_than_listed() {
        let spoilt = || Span { status: Some(499), ..span(Kind::Server) };
        let child = || Span { parent: Some("Client".into()), ..span(Kind::Server) };
        for (spans, lost, account, outcome) in [
            (vec![], &[][..], Account::Unseen, "listed"),
            (vec![span(Kind::Client)], &[("gap", 1)], Account::Lost("gap"), "listed"),
            (vec![], &[("gap", 1)], Account::Unseen, "FAILED"),
            (vec![], &[], Account::Lost("gap"), "FAILED"),
            (vec![span(Kind::Client), child()], &[], Account::Unseen, "FAILED"),
            (vec![span(Kind::Client), spoilt()], &[], Account::Unseen, "FAILED"),
            (vec![span(Kind::Client), span(Kind::Client)], &[], Account::Unseen, "FAILED"),
        ] {
            let said = format!("{spans:?} {lost:?} {account:?}");
            let verdict = verdict(spans, lost);
            let listed = verdict.held_against(&Shortfall { tier: Tier::C, cases: &["c"], why: "", account });
            assert_eq!(listed.outcome(), outcome, "{said}");
            assert_eq!(listed.faults.is_empty(), outcome == "listed", "{said}: {:?}", listed.faults);
        }
    }

    #[test]
    fn each_wrong_fact_makes_a_wrong_span() {
        let right = || span(Kind::Server);
        for (what, spoilt) in [
            ("path", Span { path: "/c.0001/more".into(), ..right() }),
            ("method", Span { method: "PUT".into(), ..right() }),
            ("original method", Span { original: Some("get".into()), ..right() }),
            ("status", Span { status: Some(499), ..right() }),
            ("error.type", Span { error: Some("timeout".into()), ..right() }),
            ("parent", Span { parent: Some("another".into()), ..right() }),
            ("end", Span { end: right().end + 6_000_000, ..right() }),
        ] {
            let row = judged(vec![span(Kind::Client), spoilt], &[]);
            assert_eq!((row.captured, row.wrong, row.passed), (2, 1, false), "{what}");
        }
    }
}
