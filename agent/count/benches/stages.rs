// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long each pure stage takes: `cargo xtask bench stages`.
//!
//! In: the exchanges that `spantap-count` counts, each seen from both ends. Out: the time of a batch of them in each
//! stage alone, fed with what the stages to its left made of them, and in all of them together. Making the input and
//! dropping the output is not part of it. It measures and judges nothing: what may not grow is counted by `check`.

extern crate spantap_core as spantap;

#[path = "../../examples/recording/stream.rs"]
mod stream;

use std::collections::HashMap;

use divan::{Bencher, counter::ItemsCount};
use spantap::{
    enrich::{HostFacts, ServiceSpan, route::Routes},
    event::{self, Data, Event, Socket, SocketId},
    metrics::{self, Metrics},
    pairing::{Pairing, Step},
    pipeline::{Input, Pipeline, Watch},
    process::ProcessFacts,
    protocol::{Link, Message, Parser, Side, http1::Http1},
    sample::{self, Sampler},
    stream::{Assembler, Piece},
    time::Timestamp,
    trace::{Opened, SpanKind, Tracer},
    vitals::Vitals,
};
use spantap_common::event::data::Direction;

fn main() {
    divan::main();
}

/// Exchanges of a batch: ten on each connection of the stream.
const EXCHANGES: u32 = 1000;

/// The stream, in memory of its own.
enum Kept {
    Record(Vec<u8>),
    Facts(ProcessFacts, Watch),
    Tick(Timestamp),
}

fn inputs() -> Vec<Kept> {
    let mut inputs = Vec::new();
    stream::play(EXCHANGES, |input, _| {
        inputs.push(match *input {
            Input::Record(record) => Kept::Record(record.to_vec()),
            Input::Facts(facts, watch) => Kept::Facts(facts.clone(), watch),
            Input::Tick(now) => Kept::Tick(now),
        });
    });
    inputs
}

fn records() -> Vec<Vec<u8>> {
    let record = |input| match input {
        Kept::Record(record) => Some(record),
        Kept::Facts(..) | Kept::Tick(_) => None,
    };
    inputs().into_iter().filter_map(record).collect()
}

fn events(records: &[Vec<u8>]) -> impl Iterator<Item = Event<'_>> {
    records.iter().map(|record| event::decode(record).expect("records of this version"))
}

fn sockets(records: &[Vec<u8>]) -> Vec<Socket> {
    let socket = |event| match event {
        Event::Socket(socket) => Some(socket),
        Event::Data(_) | Event::Shut(_) | Event::Process(_) | Event::Thread(_) => None,
    };
    events(records).filter_map(socket).collect()
}

fn data(records: &[Vec<u8>]) -> Vec<Data<'_>> {
    let data = |event| match event {
        Event::Data(data) => Some(data),
        Event::Socket(_) | Event::Shut(_) | Event::Process(_) | Event::Thread(_) => None,
    };
    events(records).filter_map(data).collect()
}

fn role(socket: &Socket) -> Side {
    match socket.requests {
        Direction::Read => Side::Server,
        Direction::Write => Side::Client,
    }
}

/// A parser for each connection.
fn parsers(sockets: &[Socket]) -> HashMap<SocketId, Http1> {
    let link = |socket: &Socket| Link { role: role(socket), local: socket.local, peer: socket.peer, unix: None };
    sockets.iter().map(|socket| (socket.id, Http1::new(link(socket)))).collect()
}

/// What the parsers say, each message with its connection.
fn parse(
    parsers: &mut HashMap<SocketId, Http1>,
    sockets: &HashMap<SocketId, Side>,
    data: &[Data<'_>],
    take: &mut impl FnMut(SocketId, Message),
) {
    let mut said = Vec::new();
    for data in data {
        let parser = parsers.get_mut(&data.socket).expect("it was introduced");
        let own = sockets[&data.socket];
        let sender = if data.direction == Direction::Write { own } else { own.opposite() };
        parser.bytes(sender, data.bytes, data.position, data.moment, &mut said);
        said.drain(..).for_each(|message| take(data.socket, message));
    }
}

fn roles(sockets: &[Socket]) -> HashMap<SocketId, Side> {
    sockets.iter().map(|socket| (socket.id, role(socket))).collect()
}

fn messages(records: &[Vec<u8>]) -> Vec<(SocketId, Message)> {
    let sockets = sockets(records);
    let mut messages = Vec::new();
    parse(&mut parsers(&sockets), &roles(&sockets), &data(records), &mut |socket, message| {
        messages.push((socket, message))
    });
    messages
}

fn pairings(sockets: &[Socket]) -> HashMap<SocketId, Pairing> {
    sockets.iter().map(|socket| (socket.id, Pairing::new(socket.id, socket.moment.at))).collect()
}

fn steps(records: &[Vec<u8>]) -> Vec<Step> {
    let (mut pairings, mut vitals) = (pairings(&sockets(records)), Vitals::default());
    let pair = |(socket, message)| pairings.get_mut(&socket).expect("it was introduced").message(message, &mut vitals);
    messages(records).into_iter().filter_map(pair).collect()
}

/// Everything at once.
fn spans(inputs: &[Kept]) -> Vec<ServiceSpan> {
    let mut pipeline = Pipeline::new([3; 32], HostFacts::default());
    let mut spans = Vec::new();
    for input in inputs {
        let input = match input {
            Kept::Record(record) => Input::Record(record),
            Kept::Facts(facts, watch) => Input::Facts(facts, *watch),
            Kept::Tick(now) => Input::Tick(*now),
        };
        pipeline.feed(input, &mut spans);
    }
    spans
}

#[divan::bench]
fn event(bencher: Bencher<'_, '_>) {
    let records = records();
    bencher.counter(ItemsCount::new(EXCHANGES)).bench(|| events(&records).for_each(divan::black_box_drop));
}

#[divan::bench]
fn stream_order(bencher: Bencher<'_, '_>) {
    let records = records();
    let (sockets, data) = (sockets(&records), data(&records));
    let fresh = || sockets.iter().map(|socket| (socket.id, Assembler::new(socket))).collect::<HashMap<_, _>>();
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(fresh).bench_values(|mut assemblers| {
        for data in &data {
            let assembler = assemblers.get_mut(&data.socket).expect("it was introduced");
            assembler.data(data, &mut |piece: Piece<'_>| {
                divan::black_box(&piece);
            });
        }
        assemblers
    });
}

#[divan::bench]
fn protocol_http1(bencher: Bencher<'_, '_>) {
    let records = records();
    let (sockets, data) = (sockets(&records), data(&records));
    let roles = roles(&sockets);
    let fresh = || (parsers(&sockets), Vec::with_capacity(data.len()));
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(fresh).bench_values(|(mut parsers, mut out)| {
        parse(&mut parsers, &roles, &data, &mut |_, message| out.push(message));
        (parsers, out)
    });
}

#[divan::bench]
fn pairing(bencher: Bencher<'_, '_>) {
    let records = records();
    let (sockets, messages) = (sockets(&records), messages(&records));
    let fresh = || (pairings(&sockets), messages.clone(), Vec::with_capacity(messages.len()));
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(fresh).bench_values(|(mut pairings, messages, mut out)| {
        let mut vitals = Vitals::default();
        for (socket, message) in messages {
            out.extend(pairings.get_mut(&socket).expect("it was introduced").message(message, &mut vitals));
        }
        (pairings, out)
    });
}

#[divan::bench]
fn trace(bencher: Bencher<'_, '_>) {
    let records = records();
    let sockets: HashMap<_, _> = sockets(&records).into_iter().map(|socket| (socket.id, socket)).collect();
    let steps = steps(&records);
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(|| steps.clone()).bench_values(|steps| {
        let (mut tracer, mut vitals, mut out) = (Tracer::new([3; 32], 1 << 16), Vitals::default(), Vec::new());
        for step in steps {
            match step {
                Step::Opened(id, request) => {
                    let socket = &sockets[&id.socket];
                    let (kind, client, server) = match role(socket) {
                        Side::Client => (SpanKind::Client, socket.local, socket.peer),
                        Side::Server => (SpanKind::Server, socket.peer, socket.local),
                    };
                    let opened = Opened { id, kind, protocol: "http", client, server, connected: None, request };
                    vitals.requests += 1;
                    tracer.opened(opened, &mut vitals, &mut out);
                }
                Step::Closed(id, closed) => tracer.closed(id, closed, &mut vitals, &mut out),
            }
        }
        tracer.finish(&mut vitals, &mut out);
        out
    });
}

#[divan::bench]
fn enrich_routes(bencher: Bencher<'_, '_>) {
    let spans = spans(&inputs());
    let named = |route: &str| route == "http.route" || route == "spantap.route.source";
    let fresh = || {
        let mut spans = spans.clone();
        spans.iter_mut().for_each(|it| it.span.attributes.retain(|attribute| !named(&attribute.key)));
        (Routes::default(), spans)
    };
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(fresh).bench_values(|(mut routes, mut spans)| {
        for ServiceSpan { span, resource, .. } in &mut spans {
            routes.name(span, &resource.service);
        }
        (routes, spans)
    });
}

#[divan::bench]
fn sample(bencher: Bencher<'_, '_>) {
    let spans = spans(&inputs());
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(|| spans.clone()).bench_values(|spans| {
        let (mut sampler, mut out) = (Sampler::new(sample::Settings::default(), 7), Vec::with_capacity(spans.len()));
        sampler.take(spans, Timestamp(1), &mut out);
        out
    });
}

#[divan::bench]
fn metrics(bencher: Bencher<'_, '_>) {
    let spans = spans(&inputs());
    let fresh = || Metrics::new(metrics::Settings::default(), 7);
    bencher.counter(ItemsCount::new(EXCHANGES)).with_inputs(fresh).bench_values(|mut metrics| {
        spans.iter().for_each(|span| metrics.observe(span, Timestamp(1)));
        metrics
    });
}

#[divan::bench]
fn all_of_them(bencher: Bencher<'_, '_>) {
    let inputs = inputs();
    bencher.counter(ItemsCount::new(EXCHANGES)).bench(|| spans(&inputs));
}
