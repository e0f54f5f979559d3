// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether spans say what happened.
//!
//! In: the requests that were answered, who plays which part, and every span of the agent. Out: a [`Verdict`]. Truth is
//! in the paths alone: every request of the chain carries the id, and [`CHAIN`] is the only way it can go; the judge
//! has no opinion about where evidence for a parent may be missing, that is the caller's [`Verdict::failures`].

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use crate::{
    client::{Answered, Request},
    services::Part,
    spans::{Kind, Span},
};

/// A span that every request has.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Stage {
    /// Whose span it is.
    pub(crate) part: Part,
    /// Which side of an exchange.
    pub(crate) kind: Kind,
    /// What stands before the id in the path.
    pub(crate) prefix: &'static str,
}

/// From the root down: each is the parent of the next.
pub(crate) const CHAIN: [Stage; 6] = [
    Stage { part: Part::Client, kind: Kind::Client, prefix: "/a/" },
    Stage { part: Part::Front, kind: Kind::Server, prefix: "/a/" },
    Stage { part: Part::Front, kind: Kind::Client, prefix: "/a/" },
    Stage { part: Part::Service, kind: Kind::Server, prefix: "/a/" },
    Stage { part: Part::Service, kind: Kind::Client, prefix: "/b/" },
    Stage { part: Part::Backend, kind: Kind::Server, prefix: "/b/" },
];

/// Position in [`CHAIN`] of the span of whoever asks.
const ROOT: usize = 0;
/// Position in [`CHAIN`] of the call that a service makes.
const CALL: usize = 4;

/// What the spans are worth.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Requests that were asked.
    pub(crate) requests: usize,
    /// Their SERVER spans.
    pub(crate) servers: usize,
    /// Their CLIENT spans.
    pub(crate) clients: usize,
    /// The parents of each stage's spans.
    pub(crate) parents: [Parents; CHAIN.len()],
    /// Parents, of any stage, that a chain of wakes told.
    pub(crate) handoffs: usize,
    /// |span's duration − the client's own measurement|, smallest first.
    pub(crate) differences: Vec<Duration>,
    /// Everything that must not be.
    pub(crate) faults: Vec<Fault>,
}

/// How many spans have which parent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Parents {
    /// The span one up the chain; for the root, none.
    pub(crate) right: usize,
    /// Any other.
    pub(crate) wrong: usize,
    /// None, where there is one.
    pub(crate) missing: usize,
}

/// A contradiction between a span and the truth, or a law that it breaks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Fault {
    /// Which law.
    pub(crate) kind: FaultKind,
    /// Which stage, where it is of one.
    stage: Option<Stage>,
    /// Which request, and what.
    text: String,
}

/// The laws.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum FaultKind {
    /// Each stage of each request has a span.
    Missing,
    /// It has one only, and no two spans share an id.
    Duplicate,
    /// No process has a span of a request that it did not serve or make.
    Stray,
    /// The method, the status code, and whether that is an error, are those of the exchange.
    Facts,
    /// A parent is the right one.
    WrongParent,
    /// A parent that a chain of wakes tells is right in 99 of 100 cases.
    WrongHandoff,
    /// A parent is somewhere: on a span, or on a request.
    Dangling,
    /// Parent and child are of one trace.
    TornTrace,
    /// Whoever sent a context is the span that the context names.
    NotAdopted,
    /// A parent's evidence is named, and only a parent's.
    Evidence,
}

/// What a caller knows must be found, beyond what must not be wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Calls {
    /// The service calls on the thread that serves: every call's parent is found.
    OfOneThread,
    /// The evidence is not always there: a call may be without a parent.
    OfAnyThread,
}

/// Judges `spans` by what is known of `asked`; `parts` names each process's part. Spans of other requests are only
/// looked at as possible parents.
pub(crate) fn judge(asked: &[Answered], parts: &HashMap<u32, Part>, spans: &[Span]) -> Verdict {
    let mut verdict = Verdict { requests: asked.len(), ..Verdict::default() };
    let mut known: HashSet<&str> =
        asked.iter().filter_map(|a| a.request.context.as_ref()).map(|c| c.parent.as_str()).collect();
    known.extend(spans.iter().map(|span| span.id.as_str()));

    let mut found: HashMap<&str, Found> = asked.iter().map(|a| (a.request.id.as_str(), Found::default())).collect();
    let mut ids = HashSet::new();
    for span in spans {
        let Some(stages) = span.path.get(3..).and_then(|id| found.get_mut(id)) else { continue };
        let part = parts.get(&span.pid);
        match CHAIN.iter().position(|s| Some(&s.part) == part && s.kind == span.kind && span.path.starts_with(s.prefix))
        {
            Some(stage) => stages[stage].push(span),
            None => {
                let text = format!("{part:?} has {span:?}");
                verdict.faults.push(Fault { kind: FaultKind::Stray, stage: None, text });
            }
        }
        if !ids.insert(&span.id) {
            let text = format!("the id of {span:?}");
            verdict.faults.push(Fault { kind: FaultKind::Duplicate, stage: None, text });
        }
    }
    for answered in asked {
        verdict.judge_request(answered, &found[answered.request.id.as_str()], &known);
    }
    verdict.differences.sort_unstable();
    verdict
}

/// The one kind of evidence that is not exact.
const HANDOFF: &str = "handoff";

/// The spans of one request, by stage.
type Found<'a> = [Vec<&'a Span>; CHAIN.len()];

impl Verdict {
    /// How many faults there are of one kind.
    pub(crate) fn count(&self, kind: FaultKind) -> usize {
        self.faults.iter().filter(|fault| fault.kind == kind).count()
    }

    /// The difference that `percent` of the durations do not exceed.
    pub(crate) fn difference(&self, percent: usize) -> Duration {
        let rank = (self.differences.len() * percent).div_ceil(100).saturating_sub(1);
        self.differences.get(rank).copied().unwrap_or_default()
    }

    /// Durations further than [`TOLERANCE`] from the client's measurement.
    pub(crate) fn outliers(&self) -> usize {
        self.differences.iter().filter(|difference| **difference > TOLERANCE).count()
    }

    /// Everything that fails a test, in sentences.
    pub(crate) fn failures(&self, calls: Calls) -> Vec<String> {
        let mut failures = self.groups_of_faults();
        for (index, (stage, parents)) in CHAIN.iter().zip(self.parents).enumerate() {
            // Both ends of every connection are on this host, so a SERVER span's parent is always there to be found.
            let exact = stage.kind == Kind::Server || index == CALL && calls == Calls::OfOneThread;
            if exact && parents.missing > 0 {
                failures.push(format!("{} of {} spans of {stage} have no parent", parents.missing, self.requests));
            }
        }
        if self.outliers() * 100 > self.requests * OUTLIERS_PERCENT {
            failures.push(format!(
                "{} of {} durations differ by more than {TOLERANCE:?}",
                self.outliers(),
                self.requests
            ));
        }
        failures
    }

    /// A broken rule breaks for every request: a sentence for each law and stage, with the first example.
    fn groups_of_faults(&self) -> Vec<String> {
        let mut groups: Vec<(&Fault, usize)> = Vec::new();
        let mut positions = HashMap::new();
        let few_handoffs = self.count(FaultKind::WrongHandoff) * 100 <= self.handoffs;
        for fault in self.faults.iter().filter(|fault| fault.kind != FaultKind::WrongHandoff || !few_handoffs) {
            let position = *positions.entry((fault.kind, fault.stage)).or_insert(groups.len());
            match groups.get_mut(position) {
                Some((_, count)) => *count += 1,
                None => groups.push((fault, 1)),
            }
        }
        let sentence = |(first, count): (&Fault, usize)| {
            let place = first.stage.map(|stage| format!(" {stage}")).unwrap_or_default();
            format!("{count} × {:?}{place}, first {}", first.kind, first.text)
        };
        groups.into_iter().map(sentence).collect()
    }

    fn judge_request(&mut self, answered: &Answered, found: &Found, known: &HashSet<&str>) {
        let request = &answered.request;
        for (index, (stage, spans)) in CHAIN.iter().zip(found).enumerate() {
            match stage.kind {
                Kind::Server => self.servers += spans.len(),
                Kind::Client => self.clients += spans.len(),
            }
            match spans.len() {
                0 => self.fault(FaultKind::Missing, request, stage, "no span".to_owned()),
                1 => {}
                many => self.fault(FaultKind::Duplicate, request, stage, format!("{many} spans")),
            }
            for span in spans {
                self.judge_facts(request, stage, span);
                self.judge_parent(request, index, span, found, known);
            }
        }
        for span in &found[ROOT] {
            let said = Duration::from_nanos(span.end.saturating_sub(span.start));
            self.differences.push(said.abs_diff(answered.took));
            if let Some(context) = &request.context
                && (&span.trace, &span.id) != (&context.trace, &context.parent)
            {
                let text = format!("{}/{} instead of {}/{}", span.trace, span.id, context.trace, context.parent);
                self.fault(FaultKind::NotAdopted, request, &CHAIN[ROOT], text);
            }
        }
    }

    fn judge_facts(&mut self, request: &Request, stage: &Stage, span: &Span) {
        // Client: 4xx and 5xx are errors. Server: 5xx only.
        // https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status
        let failed = request.status >= if stage.kind == Kind::Client { 400 } else { 500 };
        let expected =
            (request.method(), Some(request.status.into()), failed, failed.then(|| request.status.to_string()));
        let said = (span.method.as_str(), span.status, span.failed, span.error.clone());
        if said != expected {
            self.fault(FaultKind::Facts, request, stage, format!("{said:?} instead of {expected:?}"));
        }
    }

    fn judge_parent(&mut self, request: &Request, index: usize, span: &Span, found: &Found, known: &HashSet<&str>) {
        let stage = &CHAIN[index];
        if span.parent.is_some() != span.evidence.is_some() {
            let text = format!("parent {:?}, evidence {:?}", span.parent, span.evidence);
            self.fault(FaultKind::Evidence, request, stage, text);
        }
        self.handoffs += usize::from(span.evidence.as_deref() == Some(HANDOFF));
        let Some(parent) = &span.parent else {
            match index {
                ROOT => self.parents[index].right += 1,
                _ => self.parents[index].missing += 1,
            }
            return;
        };
        let above = index.checked_sub(1).map_or(&[][..], |above| &found[above]);
        if let Some(truth) = above.iter().find(|truth| truth.id == *parent) {
            self.parents[index].right += 1;
            if truth.trace != span.trace {
                self.fault(FaultKind::TornTrace, request, stage, format!("{} under {}", span.trace, truth.trace));
            }
            return;
        }
        self.parents[index].wrong += 1;
        let kind = match span.evidence.as_deref() {
            _ if !known.contains(parent.as_str()) => FaultKind::Dangling,
            Some(HANDOFF) => FaultKind::WrongHandoff,
            _ => FaultKind::WrongParent,
        };
        let ids: Vec<_> = above.iter().map(|truth| &truth.id).collect();
        self.fault(kind, request, stage, format!("{parent} by {:?} instead of {ids:?}", span.evidence));
    }

    fn fault(&mut self, kind: FaultKind, request: &Request, stage: &Stage, what: String) {
        self.faults.push(Fault { kind, stage: Some(*stage), text: format!("{}: {what}", request.id) });
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Server => "SERVER",
            Kind::Client => "CLIENT",
        };
        write!(f, "{} {kind}", self.part.label())
    }
}

/// What the agent promises.
const TOLERANCE: Duration = Duration::from_millis(5);

/// The client's clock is read outside the kernel: on a busy machine it is now and then not running when its answer is
/// there, and the difference is its own.
const OUTLIERS_PERCENT: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const PIDS: [(u32, Part); 4] = [(1, Part::Client), (2, Part::Front), (3, Part::Service), (4, Part::Backend)];
    const TOOK: Duration = Duration::from_millis(8);

    fn asked(number: usize) -> Answered {
        Answered { request: Request::numbered("t", number), took: TOOK }
    }

    /// The spans of a request as they should be.
    fn chain(answered: &Answered) -> Vec<Span> {
        let request = &answered.request;
        let number = &request.id[2..];
        let context = request.context.as_ref();
        let ids: Vec<String> = (0..CHAIN.len())
            .map(|index| match (index, context) {
                (ROOT, Some(context)) => context.parent.clone(),
                _ => format!("{:010x}{number}", index + 1),
            })
            .collect();
        CHAIN
            .iter()
            .enumerate()
            .map(|(index, stage)| {
                let failed = request.status >= if stage.kind == Kind::Client { 400 } else { 500 };
                Span {
                    pid: PIDS.iter().find(|(_, part)| *part == stage.part).expect("every part has a process").0,
                    kind: stage.kind,
                    path: format!("{}{}", stage.prefix, request.id),
                    host: String::new(),
                    method: request.method().to_owned(),
                    original: None,
                    status: Some(request.status.into()),
                    failed,
                    error: failed.then(|| request.status.to_string()),
                    trace: context.map_or_else(|| format!("{number:0>32}"), |context| context.trace.clone()),
                    id: ids[index].clone(),
                    parent: index.checked_sub(1).map(|above| ids[above].clone()),
                    evidence: (index > 0).then(|| "socket".to_owned()),
                    confidence: None,
                    candidates: Vec::new(),
                    start: 1_000_000_000,
                    end: 1_008_000_000,
                }
            })
            .collect()
    }

    /// Requests of every kind, and their spans after `change`.
    fn judged(change: impl FnOnce(&mut Vec<Span>)) -> Verdict {
        let asked: Vec<_> = (1..=10).map(asked).collect();
        let mut spans: Vec<_> = asked.iter().flat_map(chain).collect();
        change(&mut spans);
        judge(&asked, &HashMap::from(PIDS), &spans)
    }

    fn kinds(verdict: &Verdict) -> Vec<FaultKind> {
        verdict.faults.iter().map(|fault| fault.kind).collect()
    }

    #[test]
    fn the_truth_is_right() {
        let verdict = judged(|_| {});
        assert_eq!(verdict.failures(Calls::OfOneThread), Vec::<String>::new());
        assert_eq!((verdict.requests, verdict.servers, verdict.clients), (10, 30, 30));
        assert_eq!(verdict.parents, [Parents { right: 10, wrong: 0, missing: 0 }; 6]);
    }

    #[test]
    fn spans_of_other_requests_are_ignored() {
        let verdict = judged(|spans| spans.extend(chain(&asked(11))));
        assert_eq!(verdict.failures(Calls::OfOneThread), Vec::<String>::new());
    }

    #[test]
    fn a_lost_span_is_missing() {
        let verdict = judged(|spans| drop(spans.remove(5)));
        assert_eq!((kinds(&verdict), verdict.servers), (vec![FaultKind::Missing], 29));
    }

    #[test]
    fn a_lost_span_leaves_its_child_dangling() {
        let verdict = judged(|spans| drop(spans.remove(4)));
        assert_eq!(kinds(&verdict), [FaultKind::Missing, FaultKind::Dangling]);
        assert_eq!(verdict.parents[5], Parents { right: 9, wrong: 1, missing: 0 });
    }

    #[test]
    fn nothing_at_all_is_missing() {
        let verdict = judged(Vec::clear);
        assert_eq!(verdict.count(FaultKind::Missing), 60);
    }

    #[test]
    fn faults_of_one_law_and_stage_are_one_sentence() {
        let verdict = judged(|spans| spans.retain(|span| span.pid != 3));
        let failures = verdict.failures(Calls::OfAnyThread);
        assert_eq!(failures.len(), 3, "{failures:?}");
        assert_eq!(failures[0], "10 × Missing service SERVER, first t-000001: no span");
    }

    #[test]
    fn a_second_span_is_a_duplicate() {
        let verdict = judged(|spans| {
            let twin = Span { id: "00000000000000ff".into(), ..spans[3].clone() };
            spans.push(twin);
        });
        assert_eq!(kinds(&verdict), [FaultKind::Duplicate]);
    }

    #[test]
    fn a_shared_id_is_a_duplicate() {
        let verdict = judged(|spans| spans[5].id = spans[1].id.clone());
        assert_eq!(kinds(&verdict), [FaultKind::Duplicate]);
    }

    #[test]
    fn a_span_of_someone_else_is_a_stray() {
        for change in [
            |span: &mut Span| span.pid = 4,
            |span: &mut Span| span.pid = 5,
            |span: &mut Span| span.kind = Kind::Client,
            |span: &mut Span| span.path = span.path.replace("/a/", "/b/"),
        ] {
            let verdict = judged(|spans| change(&mut spans[3]));
            assert_eq!(verdict.count(FaultKind::Stray), 1, "{:?}", verdict.faults);
            assert_eq!(verdict.count(FaultKind::Missing), 1, "{:?}", verdict.faults);
        }
    }

    #[test]
    fn wrong_facts_are_faults() {
        for change in [
            |span: &mut Span| span.status = Some(201),
            |span: &mut Span| span.status = None,
            |span: &mut Span| span.failed = true,
            |span: &mut Span| span.error = Some("timeout".into()),
            |span: &mut Span| span.method = "PUT".into(),
        ] {
            assert_eq!(kinds(&judged(|spans| change(&mut spans[0]))), [FaultKind::Facts]);
        }
    }

    #[test]
    fn a_404_is_an_error_for_its_client_only() {
        let of_404 = |span: &&mut Span| span.status == Some(404);
        let verdict = judged(|spans| spans.iter_mut().filter(of_404).for_each(|span| span.failed = true));
        assert_eq!(verdict.count(FaultKind::Facts), 3);
        let verdict = judged(|spans| spans.iter_mut().filter(of_404).for_each(|span| span.failed = false));
        assert_eq!(verdict.count(FaultKind::Facts), 3);
    }

    #[test]
    fn the_parent_of_another_request_is_wrong() {
        let verdict = judged(|spans| spans[4].parent = spans[9].parent.clone());
        assert_eq!(kinds(&verdict), [FaultKind::WrongParent]);
        assert_eq!(verdict.parents[4], Parents { right: 9, wrong: 1, missing: 0 });
    }

    #[test]
    fn a_wrong_parent_by_a_chain_of_wakes_is_tolerated_where_a_hundred_are_right() {
        let told = |many: usize| {
            judged(|spans| {
                spans.iter_mut().filter(|span| span.parent.is_some()).take(many).for_each(|span| {
                    span.evidence = Some(HANDOFF.into());
                });
                spans[4].parent = spans[9].parent.clone();
            })
        };
        let few = told(usize::MAX);
        assert_eq!((kinds(&few).as_slice(), few.handoffs), (&[FaultKind::WrongHandoff][..], 50));
        assert!(few.failures(Calls::OfOneThread).iter().any(|failure| failure.contains("WrongHandoff")));
        let many = Verdict { handoffs: 100, ..few };
        assert_eq!(many.failures(Calls::OfOneThread), [""; 0]);
        assert_eq!(many.parents[4].wrong, 1, "it is shown");
    }

    #[test]
    fn a_parent_further_up_is_wrong() {
        let verdict = judged(|spans| spans[3].parent = Some(spans[0].id.clone()));
        assert_eq!(kinds(&verdict), [FaultKind::WrongParent]);
    }

    #[test]
    fn a_parent_of_the_root_is_wrong() {
        let verdict = judged(|spans| {
            spans[0].parent = Some(spans[7].id.clone());
            spans[0].evidence = Some("thread".into());
        });
        assert_eq!(kinds(&verdict), [FaultKind::WrongParent]);
    }

    #[test]
    fn a_parent_that_is_nowhere_dangles() {
        let verdict = judged(|spans| spans[4].parent = Some("00000000000000ff".into()));
        assert_eq!(kinds(&verdict), [FaultKind::Dangling]);
        assert_eq!(verdict.parents[4].wrong, 1);
    }

    #[test]
    fn a_parent_from_a_header_is_known_but_not_always_right() {
        // Number 8 sent a context: positions 42 to 47.
        let verdict = judged(|spans| spans[45].parent = Some(spans[42].id.clone()));
        assert_eq!(kinds(&verdict), [FaultKind::WrongParent]);
    }

    #[test]
    fn a_missing_parent_is_counted_and_fails_only_where_evidence_is_exact() {
        let without = |index: usize| {
            judged(|spans| {
                spans[index].parent = None;
                spans[index].evidence = None;
            })
        };
        let call = without(CALL);
        assert_eq!(call.parents[CALL], Parents { right: 9, wrong: 0, missing: 1 });
        assert_eq!(call.failures(Calls::OfAnyThread), Vec::<String>::new());
        assert_eq!(call.failures(Calls::OfOneThread).len(), 1);
        assert_eq!(without(2).failures(Calls::OfOneThread), Vec::<String>::new());
        for server in [1, 3, 5] {
            assert_eq!(without(server).failures(Calls::OfAnyThread).len(), 1);
        }
    }

    #[test]
    fn a_trace_is_not_torn() {
        let verdict = judged(|spans| spans[5].trace = format!("{:0>32}", "f"));
        assert_eq!(kinds(&verdict), [FaultKind::TornTrace]);
    }

    #[test]
    fn a_sent_context_names_its_sender() {
        let verdict = judged(|spans| {
            let id = "00000000000000ff".to_owned();
            spans[43].parent = Some(id.clone());
            spans[42].id = id;
        });
        assert_eq!(kinds(&verdict), [FaultKind::NotAdopted]);
    }

    #[test]
    fn evidence_belongs_to_a_parent() {
        assert_eq!(kinds(&judged(|spans| spans[1].evidence = None)), [FaultKind::Evidence]);
        assert_eq!(kinds(&judged(|spans| spans[0].evidence = Some("thread".into()))), [FaultKind::Evidence]);
    }

    #[test]
    fn a_wrong_duration_is_an_outlier() {
        let verdict = judged(|spans| spans[0].end += 5_000_001);
        assert_eq!((verdict.outliers(), verdict.failures(Calls::OfOneThread).len()), (1, 1));
        assert_eq!(
            (verdict.difference(50), verdict.difference(100)),
            (Duration::ZERO, Duration::from_nanos(5_000_001))
        );
        let verdict = judged(|spans| spans[0].end -= 5_000_000);
        assert_eq!(verdict.outliers(), 0);
    }
}
