// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A finished trace as a tree of lines.
//!
//! In: one [`Finished`] trace. Out: its text: the two ends of a call as one line, repeated calls folded into one, columns
//! aligned, nothing cut without a `…`. It believes no parent blindly: a loop or an endless chain ends in a line that
//! says so.
//!
//! ```text
//! 12:01:07.412Z  POST /checkout         502   1.21s  web          4bf92f35
//!                └─ POST /v1/cart       502   1.20s  web -> cart
//!                   ├─ GET /v1/stock/{id} ×12  200  38.1ms  cart -> stock  N+1?
//! ```

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    time::Duration,
};

use super::{
    request::{Request, Status},
    screen::{Look, brief, cells, fitted, paint, time_of_day},
    traces::{Finished, Part},
};
use crate::{
    config::Colour,
    context::SpanId,
    enrich::ServiceSpan,
    time::{Timestamp, WallOffset},
    trace::SpanKind,
};

/// The tree of `finished`, every line ended, in at most `columns` where that is possible.
pub fn render(finished: &Finished, wall: WallOffset, colour: Colour, columns: Option<usize>) -> String {
    let roots = forest(&finished.spans);
    let total = roots.iter().map(|root| root.request.duration()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for root in roots {
        let mut line = Line::of(&[root.request], &root.children, total);
        line.time = Some(time_of_day(wall.unix_nanos(root.request.outer().span.start)));
        line.notes.extend(root.missing.map(|missing| (missing.to_owned(), Look::Faint)));
        lines.push(line);
        below(root.children, "", 1, total, &mut lines);
    }
    if let Some(first) = lines.first_mut() {
        let id = finished.trace.to_string();
        first.notes.insert(0, (id[..SHORT_ID].to_owned(), Look::Faint));
        match finished.part {
            Part::Whole => {}
            Part::Early => first.notes.push(("more to come".to_owned(), Look::Notable)),
            Part::Supplement => first.notes.push(("late part of this trace".to_owned(), Look::Notable)),
        }
    }
    Layout::of(&lines, columns).text(&lines, colour)
}

// --- From spans to a forest ---

/// A request and what it caused.
struct Node<'a> {
    request: Request<'a>,
    /// In the order of their starts.
    children: Vec<Node<'a>>,
    /// Why this is a root although it names a parent.
    missing: Option<&'static str>,
}

fn forest(spans: &[ServiceSpan]) -> Vec<Node<'_>> {
    let known: HashSet<SpanId> = spans.iter().map(|span| span.span.id).collect();
    let mut order: Vec<&ServiceSpan> = spans.iter().collect();
    // Parents first where both start at once, so that neither order of arrival nor hashing shows.
    order.sort_by_key(|span| (span.span.start, std::cmp::Reverse(span.span.end), span.span.id));
    let mut growth = Growth { children: HashMap::new(), grown: HashSet::new() };
    let mut roots = Vec::new();
    for span in &order {
        match span.span.parent {
            Some(parent) if known.contains(&parent.id) => growth.children.entry(parent.id).or_default().push(span),
            _ => roots.push(*span),
        }
    }
    let mut forest: Vec<_> = roots.into_iter().filter_map(|root| growth.grow(root, missing(root))).collect();
    // What no root leads to are loops: headers are written by anyone, a parent's id may be its child's.
    for span in order {
        forest.extend(growth.grow(span, Some(LOOP)));
    }
    forest
}

fn missing(root: &ServiceSpan) -> Option<&'static str> {
    root.span.parent.map(|parent| if parent.remote { ELSEWHERE } else { UNSEEN })
}

struct Growth<'a> {
    children: HashMap<SpanId, Vec<&'a ServiceSpan>>,
    grown: HashSet<*const ServiceSpan>,
}

impl<'a> Growth<'a> {
    /// The node of `span` with everything below it; none if it stands in the forest already.
    ///
    /// Recursion is as deep as the trace: at most [`super::traces::Limits::spans_per_trace`], of small frames.
    fn grow(&mut self, span: &'a ServiceSpan, missing: Option<&'static str>) -> Option<Node<'a>> {
        if !self.grown.insert(span) {
            return None;
        }
        let mut below = self.children.remove(&span.span.id).unwrap_or_default();
        let mut request = Request::One(span);
        if span.span.kind == SpanKind::Client
            && let Some(at) = below.iter().position(|child| child.span.kind == SpanKind::Server)
            && self.grown.insert(below[at])
        {
            let server = below.remove(at);
            request = Request::Both { client: span, server };
            below.extend(self.children.remove(&server.span.id).unwrap_or_default());
            below.sort_by_key(|child| child.span.start);
        }
        let children = below.into_iter().filter_map(|child| self.grow(child, None)).collect();
        Some(Node { request, children, missing })
    }
}

// --- From nodes to lines ---

/// Appends the lines of `nodes`, which share a parent (or equal parents), with `indent` in front.
fn below(nodes: Vec<Node<'_>>, indent: &str, depth: usize, total: Duration, lines: &mut Vec<Line>) {
    if depth > MAX_DEPTH {
        let hidden: usize = nodes.iter().map(size).sum();
        if hidden > 0 {
            lines.push(Line::hidden(format!("{indent}└─ "), hidden));
        }
        return;
    }
    let groups = fold(nodes);
    let last = groups.len().saturating_sub(1);
    for (index, group) in groups.into_iter().enumerate() {
        let (branch, further) = if index == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let requests: Vec<_> = group.iter().map(|node| node.request).collect();
        let mut children: Vec<_> = group.into_iter().flat_map(|node| node.children).collect();
        children.sort_by_key(|child| child.request.outer().span.start);
        let mut line = Line::of(&requests, &children, total);
        line.branch = format!("{indent}{branch}");
        lines.push(line);
        below(children, &format!("{indent}{further}"), depth + 1, total, lines);
    }
}

/// Siblings of one kind together, at the place of the first; few of them stay on their own.
fn fold(nodes: Vec<Node<'_>>) -> Vec<Vec<Node<'_>>> {
    let kinds: Vec<String> = nodes.iter().map(|node| kind(node, 0)).collect();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for kind in &kinds {
        *counts.entry(kind).or_default() += 1;
    }
    let mut groups: Vec<Vec<Node<'_>>> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (node, kind) in nodes.into_iter().zip(&kinds) {
        match places.get(kind.as_str()) {
            Some(place) if counts[kind.as_str()] >= FOLD_FROM => groups[*place].push(node),
            _ => {
                places.insert(kind, groups.len());
                groups.push(vec![node]);
            }
        }
    }
    groups
}

/// What requests of one kind have in common: shape, parties, outcome, and the kinds of what they caused.
fn kind(node: &Node<'_>, depth: usize) -> String {
    let Status { text: status, .. } = node.request.status();
    let error = node.request.error().unwrap_or_default();
    let mut kind = format!("{}\n{}\n{status}\n{error}", node.request.shape(), node.request.who());
    if depth < KIND_DEPTH {
        let mut below: Vec<_> = node.children.iter().map(|child| self::kind(child, depth + 1)).collect();
        below.sort();
        below.dedup();
        for child in below {
            kind.push_str("\n(");
            kind.push_str(&child);
            kind.push(')');
        }
    }
    kind
}

fn size(node: &Node<'_>) -> usize {
    1 + node.children.iter().map(size).sum::<usize>()
}

/// One line, before it is laid out.
#[derive(Default)]
struct Line {
    time: Option<String>,
    branch: String,
    title: String,
    /// `×12`, or empty.
    count: String,
    status: Option<Status>,
    duration: String,
    slow: bool,
    who: String,
    notes: Vec<(String, Look)>,
}

impl Line {
    /// The line of requests of one kind, most often one.
    fn of(requests: &[Request<'_>], children: &[Node<'_>], total: Duration) -> Self {
        let Some(first) = requests.first() else { return Self::default() };
        let busy = covered(requests.iter().copied());
        let own = busy.saturating_sub(covered(children.iter().map(|child| child.request)));
        let mut line = Self {
            title: first.title(),
            status: Some(first.status()),
            duration: brief(busy),
            slow: own >= SLOW && own * 2 >= total,
            who: first.who(),
            ..Self::default()
        };
        line.notes.extend(first.error().map(|error| (error, Look::Bad)));
        if requests.len() > 1 {
            line.count = format!(" ×{}", requests.len());
            if requests.iter().any(|request| request.title() != line.title) {
                line.title = first.shape();
            }
            if is_repetitive(requests) {
                line.notes.push(("N+1?".to_owned(), Look::Notable));
            }
            line.notes.extend(outlier(requests).map(|slowest| (format!("slowest {}", brief(slowest)), Look::Notable)));
        } else if let Some(part) = first.server_part() {
            line.notes.push((format!("server {}", brief(part)), Look::Faint));
        }
        line
    }

    fn hidden(branch: String, spans: usize) -> Self {
        Self { branch, title: format!("… {spans} more below"), ..Self::default() }
    }

    fn request_cells(&self) -> usize {
        cells(&self.branch) + cells(&self.title) + cells(&self.count)
    }

    fn notes_cells(&self) -> usize {
        self.notes.iter().map(|(note, _)| cells(note) + GAP).sum()
    }
}

/// Time in which at least one of the requests was under way.
fn covered<'a>(requests: impl Iterator<Item = Request<'a>>) -> Duration {
    let mut times: Vec<_> = requests.map(|request| request.outer()).map(|it| (it.span.start, it.span.end)).collect();
    times.sort();
    let (mut covered, mut until) = (Duration::ZERO, Timestamp::default());
    for (start, end) in times {
        covered += end.since(start.max(until));
        until = until.max(end);
    }
    covered
}

/// Whether one caller made the calls one after the other: what a query in a loop looks like.
fn is_repetitive(requests: &[Request<'_>]) -> bool {
    let spans: Vec<_> = requests.iter().map(|request| &request.outer().span).collect();
    requests.len() >= REPETITIVE_FROM
        && spans.iter().all(|span| span.kind == SpanKind::Client)
        && spans.windows(2).all(|pair| pair[0].end <= pair[1].start)
        && spans.windows(2).all(|pair| pair[0].parent.map(|p| p.id) == pair[1].parent.map(|p| p.id))
}

/// The longest of many, when it is far from the others.
fn outlier(requests: &[Request<'_>]) -> Option<Duration> {
    let all: Duration = requests.iter().map(|request| request.duration()).sum();
    let slowest = requests.iter().map(|request| request.duration()).max()?;
    let others = (all - slowest) / u32::try_from(requests.len() - 1).ok()?.max(1);
    (slowest >= others * OUTLIER && slowest >= SLOW).then_some(slowest)
}

// --- From lines to text ---

/// Cells of the columns.
struct Layout {
    request: usize,
    status: usize,
    who: usize,
}

impl Layout {
    fn of(lines: &[Line], columns: Option<usize>) -> Self {
        let widest = |cells: fn(&Line) -> usize| lines.iter().map(cells).max().unwrap_or(0);
        let request = widest(Line::request_cells).max(MIN_REQUEST);
        let status = widest(|line| line.status.as_ref().map_or(0, |status| cells(&status.text))).max(STATUS);
        let who = widest(|line| cells(&line.who));
        let Some(columns) = columns else { return Self { request, status, who } };
        // Names of services give way before paths do, and both only so far: a terminal too narrow for that wraps.
        let fixed = TIME + GAP + GAP + status + GAP + DURATION + GAP + widest(Line::notes_cells);
        let room = columns.saturating_sub(fixed);
        let who = who.min(room.saturating_sub(request).max(MAX_WHO.min(room / 3)).max(MIN_WHO));
        Self { request: request.min(room.saturating_sub(who)).max(MIN_REQUEST), status, who }
    }

    fn text(&self, lines: &[Line], colour: Colour) -> String {
        let mut text = String::new();
        for line in lines {
            self.line(line, colour, &mut text);
            text.push('\n');
        }
        text
    }

    fn line(&self, line: &Line, colour: Colour, text: &mut String) {
        let time = line.time.as_deref().unwrap_or("");
        paint(text, colour, Look::Faint, time);
        pad(text, TIME + GAP - cells(time));
        let branch = fitted(&line.branch, self.request);
        paint(text, colour, Look::Faint, &branch);
        let room = self.request.saturating_sub(cells(&branch) + cells(&line.count));
        let title = fitted(&line.title, room);
        paint(text, colour, if line.time.is_some() { Look::Strong } else { Look::Plain }, &title);
        paint(text, colour, Look::Notable, &line.count);
        let Some(status) = &line.status else { return };
        pad(text, self.request.saturating_sub(cells(&branch) + cells(&title) + cells(&line.count)) + GAP);
        paint(text, colour, status.look, &status.text);
        pad(text, self.status - cells(&status.text) + GAP + DURATION.saturating_sub(cells(&line.duration)));
        paint(text, colour, if line.slow { Look::Slow } else { Look::Plain }, &line.duration);
        pad(text, GAP);
        let who = fitted(&line.who, self.who);
        text.push_str(&who);
        if !line.notes.is_empty() {
            pad(text, self.who - cells(&who));
        }
        for (note, look) in &line.notes {
            pad(text, GAP);
            paint(text, colour, *look, note);
        }
    }
}

fn pad(text: &mut String, cells: usize) {
    // Writing to a `String` cannot fail.
    let _ = write!(text, "{:cells$}", "");
}

/// Siblings of one kind that are folded: two are compared at a glance, and seldom a pattern.
const FOLD_FROM: usize = 3;

/// Calls in a row that look like a query in a loop: Sentry's threshold for its N+1 detector.
const REPETITIVE_FROM: usize = 5;

/// A call that took this many times as long as the others on average is named.
const OUTLIER: u32 = 3;

/// Time of its own from which a request can be where the time went; below it nobody waits.
const SLOW: Duration = Duration::from_millis(10);

/// Levels that are shown. Deeper chains do not fit a line.
const MAX_DEPTH: usize = 24;

/// Levels below a request that must be of one kind for it to be folded: makes the comparison linear.
const KIND_DEPTH: usize = 3;

/// `12:01:07.412Z`.
const TIME: usize = 13;

/// See [`brief`].
const DURATION: usize = 6;

/// A status code.
const STATUS: usize = 3;

/// Between columns.
const GAP: usize = 2;

/// Keeps short traces in line with each other, and paths readable on 80 columns.
const MIN_REQUEST: usize = 28;

/// Names of services keep this much of a narrow terminal.
const MIN_WHO: usize = 12;

/// And get this much of a wide one before paths are cut.
const MAX_WHO: usize = 30;

/// Hexadecimal digits of a trace id that are shown: enough to find it on one screen or in a search box.
pub(super) const SHORT_ID: usize = 8;

const ELSEWHERE: &str = "caller not seen here";
const UNSEEN: &str = "parent lost";
const LOOP: &str = "parents in a loop";

#[cfg(test)]
mod tests;
