// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One line a request.
//!
//! In: spans in any order, and the time. Out: a line for each request, whether one of its ends was seen or both: time,
//! trace, status, duration, parties, request, error. Nothing is cut or folded, and no trace is waited for; a call waits
//! at most [`QUIET`] for its other end.

use std::collections::{BTreeSet, HashMap};

use super::{
    request::Request,
    screen::{Look, brief, cells, paint, time_of_day},
    traces::QUIET,
    tree::SHORT_ID,
};
use crate::{
    config::Colour,
    context::{SpanId, TraceId},
    enrich::ServiceSpan,
    time::{Timestamp, WallOffset},
    trace::SpanKind,
};

/// The two ends of calls, brought together.
#[derive(Debug, Default)]
pub(super) struct Calls {
    now: Timestamp,
    /// By the id of the CLIENT span: the one that came first.
    waiting: HashMap<Call, (Timestamp, ServiceSpan)>,
    /// Law: one entry for each of `waiting`.
    deadlines: BTreeSet<(Timestamp, Call)>,
}

type Call = (TraceId, SpanId);

impl Calls {
    /// Takes one span; the lines that are ready are appended to `out`.
    pub(super) fn add(&mut self, span: ServiceSpan, line: impl Fn(Request<'_>) -> String, out: &mut String) {
        let id = match (span.span.kind, span.span.parent) {
            (SpanKind::Client, _) => span.span.id,
            (SpanKind::Server, Some(parent)) => parent.id,
            (SpanKind::Server, None) => {
                out.push_str(&line(Request::One(&span)));
                return;
            }
        };
        let call = (span.span.trace, id);
        let (first, second) = match self.waiting.remove(&call) {
            None => return self.wait(call, span, line, out),
            Some((deadline, first)) => {
                self.deadlines.remove(&(deadline, call));
                (first, span)
            }
        };
        match (first.span.kind, second.span.kind) {
            (SpanKind::Client, SpanKind::Server) => {
                out.push_str(&line(Request::Both { client: &first, server: &second }));
            }
            (SpanKind::Server, SpanKind::Client) => {
                out.push_str(&line(Request::Both { client: &second, server: &first }));
            }
            // Several requests of one remote parent: the parent is not here, so each stands for itself.
            _ => {
                out.push_str(&line(Request::One(&first)));
                self.wait(call, second, line, out);
            }
        }
    }

    /// The time is `now`: calls that have waited long enough get their lines.
    pub(super) fn tick(&mut self, now: Timestamp, line: impl Fn(Request<'_>) -> String, out: &mut String) {
        self.now = self.now.max(now);
        self.release(|deadline, _| deadline <= now, line, out);
    }

    /// Nothing more will come.
    pub(super) fn finish(&mut self, line: impl Fn(Request<'_>) -> String, out: &mut String) {
        self.release(|_, _| true, line, out);
    }

    fn wait(&mut self, call: Call, span: ServiceSpan, line: impl Fn(Request<'_>) -> String, out: &mut String) {
        let deadline = self.now.max(span.span.end).plus(QUIET);
        self.deadlines.insert((deadline, call));
        self.waiting.insert(call, (deadline, span));
        self.release(|_, waiting| waiting > MAX_WAITING, line, out);
    }

    fn release(
        &mut self,
        due: impl Fn(Timestamp, usize) -> bool,
        line: impl Fn(Request<'_>) -> String,
        out: &mut String,
    ) {
        while let Some(&(deadline, call)) = self.deadlines.first()
            && due(deadline, self.deadlines.len())
        {
            self.deadlines.pop_first();
            if let Some((_, span)) = self.waiting.remove(&call) {
                out.push_str(&line(Request::One(&span)));
            }
        }
    }
}

/// The line of one request, ended.
pub(super) fn line(request: Request<'_>, wall: WallOffset, colour: Colour) -> String {
    let span = &request.outer().span;
    let mut text = String::new();
    let id = span.trace.to_string();
    paint(
        &mut text,
        colour,
        Look::Faint,
        &format!("{}  {}", time_of_day(wall.unix_nanos(span.start)), &id[..SHORT_ID]),
    );
    let status = request.status();
    text.push_str("  ");
    paint(&mut text, colour, status.look, &format!("{:<3}", status.text));
    text.push_str(&format!("  {:>6}  ", brief(request.duration())));
    let who = request.who();
    text.push_str(&who);
    text.push_str(&" ".repeat(WHO.saturating_sub(cells(&who)) + 2));
    text.push_str(&request.title());
    if let Some(error) = request.error() {
        text.push_str("  ");
        paint(&mut text, colour, Look::Bad, &error);
    }
    text.push('\n');
    text
}

/// Calls that wait for their other end. One that has to go gets its line as if its time had come: at 10,000 calls/s
/// [`QUIET`] needs 3,000.
const MAX_WAITING: usize = 8192;

/// The parties' column: `checkout -> inventory` fits; a longer pair moves only its own line.
const WHO: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        live::sample::{NOON, Sample, call, client, server},
        trace::LinkMethod,
    };

    fn lines(spans: impl IntoIterator<Item = Sample>) -> (Calls, String) {
        let (mut calls, mut out) = (Calls::default(), String::new());
        for span in spans {
            calls.add(span.into(), shown, &mut out);
        }
        (calls, out)
    }

    fn shown(request: Request<'_>) -> String {
        line(request, NOON, Colour::Off)
    }

    #[test]
    fn both_ends_of_a_call_are_one_line_whichever_comes_first() {
        let [called, served] = call(1, 2, 1, ("web", "cart"), ("POST", "/v1/cart?x=1"), (412_000, 1_612_000), 502);
        let (_, out) = lines([served.clone(), called.clone()]);
        insta::assert_snapshot!(out, @"12:01:07.412Z  4b4b4b4b  502   1.20s  web -> cart               POST /v1/cart?x=1");
        assert_eq!(lines([called, served]).1, out);
    }

    #[test]
    fn a_request_from_outside_is_shown_at_once() {
        let (_, out) = lines([server(1, 1, "web", "GET", "/slow").at(0, 38_100).status(200)]);
        insta::assert_snapshot!(out, @"12:01:07.000Z  4b4b4b4b  200  38.1ms  web                       GET /slow");
    }

    #[test]
    fn a_call_whose_other_end_is_not_here_waits_for_it_in_vain() {
        let (mut calls, mut out) = lines([
            client(1, 2, "cart", "POST", "/pay").at(0, 1_000_000).error("connection_closed"),
            server(2, 4, "web", "GET", "/a").at(0, 1_000).status(404).remote(3),
            server(2, 5, "web", "GET", "/b").at(0, 2_000).status(200).remote(3),
        ]);
        insta::assert_snapshot!(out, @"12:01:07.000Z  4b4b4b4b  404  1.00ms  web                       GET /a");
        out.clear();
        calls.tick(Timestamp(1_299_999_999), shown, &mut out);
        calls.tick(Timestamp(1_300_000_000), shown, &mut out);
        insta::assert_snapshot!(out, @r"
        12:01:07.000Z  4b4b4b4b  200  2.00ms  web                       GET /b
        12:01:07.000Z  4b4b4b4b  ERR   1.00s  cart -> callee:8080       POST /pay  connection_closed
        ");
        assert_eq!((calls.waiting.len(), calls.deadlines.len()), (0, 0));
    }

    #[test]
    fn too_many_waiting_calls_push_out_the_oldest() {
        let (mut calls, mut out) = lines([]);
        for n in 0..=MAX_WAITING {
            let mut span: ServiceSpan = client(1, 1, "a", "GET", "/").at(0, n as u64).into();
            span.span.id = SpanId((n as u64 + 1).to_be_bytes());
            calls.add(span, shown, &mut out);
        }
        assert_eq!(out.lines().count(), 1);
        calls.finish(shown, &mut out);
        assert_eq!(out.lines().count(), MAX_WAITING + 1);
    }

    #[test]
    fn captured_text_cannot_break_the_line() {
        let span = server(1, 1, "we\nb", "GET", "/\r\n12:00:00 forged\x1b[2J").at(0, 1).under(9, LinkMethod::Socket);
        let (mut calls, mut out) = lines([span]);
        calls.finish(shown, &mut out);
        insta::assert_snapshot!(out, @r"12:01:07.000Z  4b4b4b4b  -       1µs  we\nb                     GET /\r\n12:00:00 forged\u{1b}[2J");
    }
}
