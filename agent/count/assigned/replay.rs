// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One recording, laid over itself and played to the agent's tracer.
//!
//! In: a recording. Out: what the tracer said about each call. Copies are shifted by a part of the recording, in whole
//! sixteenths of a second so that bursts stay bursts, and each trace of a copy by up to 1.5 ms either way.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use spantap::{
    attribute::{Attribute, Value},
    context::SpanId,
    event::SocketId,
    pairing::{Closed, ExchangeId},
    process::Runtime,
    protocol::{Key, Passed, PassedId, Request},
    time::{Moment, Task, Timestamp},
    trace::{LinkMethod, Opened, Settings, Span, SpanKind, Tracer},
    vitals::Vitals,
};
use spantap_common::endpoint::Endpoint;

use super::data::{Exchange, Recording};

/// Exchanges of one recording, several times.
pub(crate) struct Stream {
    /// In the order in which they begin.
    pub(crate) exchanges: Vec<Laid>,
}

/// An exchange in the stream.
pub(crate) struct Laid {
    exchange: Exchange,
    /// The request is one of this copy.
    copy: u32,
    /// Whether it is of the last round, which is judged.
    pub(crate) judged: bool,
    /// Whether the application passes an id on.
    known: bool,
}

impl Laid {
    /// Whether it is a call.
    pub(crate) fn is_call(&self) -> bool {
        !self.exchange.serves
    }

    fn is_for(&self, request: &Self) -> bool {
        self.copy == request.copy
            && self.exchange.process == request.exchange.process
            && self.exchange.request == request.exchange.request
    }

    /// Whether `call` can be of this request, by time alone.
    pub(crate) fn encloses(&self, call: &Self) -> bool {
        let (ours, theirs) = (&self.exchange, &call.exchange);
        ours.serves && ours.process == theirs.process && ours.start <= theirs.start && theirs.end <= ours.end
    }

    /// When it began and ended.
    pub(crate) fn times(&self) -> (u64, u64) {
        (self.exchange.start, self.exchange.end)
    }

    /// Whose it is.
    pub(crate) fn process(&self) -> &str {
        &self.exchange.process
    }
}

/// What was said about a call.
pub(crate) struct Said {
    /// The confidence of the likeliest request, and whether that is right.
    pub(crate) best: Option<(f64, bool)>,
    /// Whether it became the parent.
    pub(crate) is_parent: bool,
}

/// `rounds` times one after the other, `overlay` times at once; `known` requests of a hundred pass an id on.
pub(crate) fn lay_over(recording: &Recording, overlay: u32, rounds: u32, known: u32) -> Stream {
    const SIXTEENTH: u64 = 62_500_000;
    const JITTER: u64 = 1_500_000;
    let start = recording.exchanges.iter().map(|exchange| exchange.start).min().unwrap_or_default();
    let end = recording.exchanges.iter().map(|exchange| exchange.end).max().unwrap_or_default();
    let length = ((end - start) / SIXTEENTH + 1) * SIXTEENTH;
    let mut first: HashMap<&str, u64> = HashMap::new();
    for exchange in &recording.exchanges {
        let first = first.entry(&exchange.request.0).or_insert(exchange.start);
        *first = exchange.start.min(*first);
    }
    // What follows from the traces' names must not: an order.
    let mut traces: Vec<(u64, &str)> = first.iter().map(|(trace, first)| (*first, *trace)).collect();
    traces.sort_unstable();
    let mut dice = StdRng::seed_from_u64(7);
    let mut exchanges = Vec::new();
    for copy in 0..overlay * rounds {
        let (round, part) = (u64::from(copy / overlay), u64::from(copy % overlay));
        let shift = part * length / u64::from(overlay) / SIXTEENTH * SIXTEENTH;
        let jitter: HashMap<&str, (u64, bool)> = traces
            .iter()
            .map(|(_, trace)| (*trace, (dice.random_range(0..2 * JITTER), dice.random_range(0..100) < known)))
            .collect();
        for exchange in &recording.exchanges {
            let trace = exchange.request.0.as_str();
            let (jitter, known) = jitter.get(trace).copied().unwrap_or_default();
            let jitter = if overlay == 1 { JITTER } else { jitter };
            let begun = first.get(trace).map_or(0, |first| first - start);
            let to = (begun + shift) % length + round * (length + 10_000_000_000) + 1_000_000_000 + jitter;
            let moved = |at: u64| at - start - begun + to;
            let exchange = Exchange { start: moved(exchange.start), end: moved(exchange.end), ..exchange.clone() };
            exchanges.push(Laid { exchange, copy, judged: round + 1 == u64::from(rounds), known });
        }
    }
    // Of what a coarse clock puts into one moment, requests come first.
    exchanges.sort_by_key(|laid| (laid.exchange.start, laid.is_call()));
    Stream { exchanges }
}

/// Plays it.
pub(crate) fn play(stream: &Stream) -> Vec<Said> {
    let mut pids: HashMap<&str, u32> = HashMap::new();
    let mut tracer = Tracer::new([7; 32], 1 << 20);
    tracer.trust(Settings { assigned: true, ..Settings::default() });
    let mut vitals = Vitals::default();
    let mut spans = Vec::new();
    let mut moments: Vec<(u64, bool, usize)> = Vec::with_capacity(stream.exchanges.len() * 2);
    for (index, laid) in stream.exchanges.iter().enumerate() {
        moments.push((laid.exchange.start, false, index));
        moments.push((laid.exchange.end, true, index));
    }
    moments.sort_unstable();
    let mut ticked = 0;
    for (at, ends, index) in moments {
        if at - ticked >= TICK {
            ticked = at;
            tracer.tick(Timestamp(at), Timestamp(at), &mut vitals, &mut spans);
        }
        let laid = &stream.exchanges[index];
        let next = pids.len() as u32 + 1;
        let pid = *pids.entry(&laid.exchange.process).or_insert_with(|| {
            // Threads say nothing of themselves: goroutines move.
            tracer.learned(next, Runtime::Go);
            next
        });
        let (first, last) = laid.exchange.threads.unwrap_or((2 * index as u32, 2 * index as u32 + 1));
        let moment = |tid| Moment { at: Timestamp(at), task: Task { pid, tid, ..Task::default() } };
        if ends {
            let last = moment(last);
            let closed = Closed { answered: Some(last), last, failed: false, attributes: Default::default() };
            tracer.closed(id(index), closed, &mut vitals, &mut spans);
        } else {
            tracer.opened(opened(index, laid, moment(first)), &mut vitals, &mut spans);
        }
    }
    tracer.finish(&mut vitals, &mut spans);
    said(stream, &spans)
}

fn id(index: usize) -> ExchangeId {
    ExchangeId { socket: SocketId(index as u64), since: Timestamp(0), ordinal: 0 }
}

fn opened(index: usize, laid: &Laid, first: Moment) -> Opened {
    let [_, b, c, d] = (index as u32).to_be_bytes();
    let mut passed = Passed::default();
    if laid.known {
        let (trace, request) = &laid.exchange.request;
        passed.ids.push(PassedId::of(&format!("{trace}/{request}/{}", laid.copy)));
    }
    let kind = if laid.exchange.serves { SpanKind::Server } else { SpanKind::Client };
    Opened {
        id: id(index),
        kind,
        protocol: "replay",
        // No two ends meet: that is not asked here.
        client: Endpoint::v4([10, b, c, d], 1),
        server: Endpoint::v4([127, 0, 0, 1], 80),
        connected: None,
        request: Request {
            key: Key::InOrder,
            name: laid.exchange.operation.as_str().into(),
            first,
            position: index as u32,
            digest: index as u64,
            context: None,
            passed,
            attributes: vec![Attribute::new(INDEX, index as i64)],
        },
    }
}

/// What the spans say about calls that are judged.
fn said(stream: &Stream, spans: &[Span]) -> Vec<Said> {
    let index = |span: &Span| match span.attributes.iter().find(|attribute| attribute.key == INDEX)?.value {
        Value::Int(index) => usize::try_from(index).ok(),
        _ => None,
    };
    let requests: HashMap<SpanId, usize> = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server)
        .filter_map(|span| Some((span.id, index(span)?)))
        .collect();
    let confidence = |attributes: &[Attribute]| {
        attributes.iter().find(|attribute| attribute.key == "spantap.link.confidence").and_then(|attribute| {
            match attribute.value {
                Value::Share(share) => Some(share),
                _ => None,
            }
        })
    };
    let mut said = Vec::new();
    for span in spans.iter().filter(|span| span.kind == SpanKind::Client) {
        let Some(call) = index(span).map(|index| &stream.exchanges[index]).filter(|call| call.judged) else { continue };
        let is_right =
            |request: &SpanId| requests.get(request).is_some_and(|request| call.is_for(&stream.exchanges[*request]));
        match &span.parent {
            Some(parent) if parent.method == LinkMethod::Assigned => {
                let confidence = confidence(&span.attributes).unwrap_or_default();
                said.push(Said { best: Some((confidence, is_right(&parent.id))), is_parent: true });
            }
            // The application's own word.
            Some(_) => {}
            None => {
                let best = span
                    .links
                    .first()
                    .map(|link| (confidence(&link.attributes).unwrap_or_default(), is_right(&link.span)));
                said.push(Said { best, is_parent: false });
            }
        }
    }
    said
}

/// How often the agent looks.
const TICK: u64 = 10_000_000;

/// The attribute that tells which exchange a span is.
const INDEX: &str = "index";
