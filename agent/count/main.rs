// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs the stages over the bench's stream, for callgrind: `cargo xtask bench instructions` reads what it counts.
//!
//! In: a number of exchanges. Out: of the second half of them, how many there were, the spans that came, and the allocations; what they take
//! is what [`counted_stages`] takes. Tables and buffers have their size by then, and records are made before the counting
//! begins.

extern crate spantap_core as spantap;

#[path = "../examples/recording/stream.rs"]
mod stream;

use std::{env, error::Error};

use spantap::{
    enrich::{HostFacts, ServiceSpan},
    pipeline::{Input, Pipeline, Watch},
    process::ProcessFacts,
    time::Timestamp,
};

fn main() -> Result<(), Box<dyn Error>> {
    let [exchanges] = <[String; 1]>::try_from(env::args().skip(1).collect::<Vec<_>>())
        .map_err(|_| "usage: spantap-count EXCHANGES")?;
    let mut inputs = Vec::new();
    stream::play(exchanges.parse()?, |input, _| inputs.push(Kept::of(input)));
    let mut pipeline = Pipeline::new([3; 32], HostFacts { name: "bench".into(), ..HostFacts::default() });
    let mut spans = Vec::with_capacity(1024);
    // The last tick is far later, to end everything: no part of the even flow.
    inputs.pop();
    let (first, second) = inputs.split_at(inputs.len() / 2);
    feed(&mut pipeline, first, &mut spans);
    let mut made = 0;
    let taken = allocation_counter::measure(|| made = counted_stages(&mut pipeline, second, &mut spans));
    let records = second.iter().filter(|input| matches!(input, Kept::Record(_))).count();
    println!("{} {made} {}", records / RECORDS, taken.count_total);
    Ok(())
}

/// Records of an exchange: its request and its response, at both ends. Connections are introduced in the first half.
const RECORDS: usize = 4;

/// An input that owns what it shows.
enum Kept {
    Record(Vec<u8>),
    Facts(ProcessFacts, Watch),
    Tick(Timestamp),
}

impl Kept {
    fn of(input: &Input<'_>) -> Self {
        match *input {
            Input::Record(record) => Self::Record(record.to_vec()),
            Input::Facts(facts, watch) => Self::Facts(facts.clone(), watch),
            Input::Tick(now) => Self::Tick(now),
        }
    }
}

/// What callgrind collects, by this name.
#[inline(never)]
fn counted_stages(pipeline: &mut Pipeline, inputs: &[Kept], spans: &mut Vec<ServiceSpan>) -> usize {
    feed(pipeline, inputs, spans)
}

/// How many spans come. They are taken at each tick, as the run loop does.
#[inline(always)]
fn feed(pipeline: &mut Pipeline, inputs: &[Kept], spans: &mut Vec<ServiceSpan>) -> usize {
    let mut made = 0;
    for input in inputs {
        match input {
            Kept::Record(record) => pipeline.feed(Input::Record(record), spans),
            Kept::Facts(facts, watch) => pipeline.feed(Input::Facts(facts, *watch), spans),
            Kept::Tick(now) => {
                pipeline.feed(Input::Tick(*now), spans);
                made += spans.len();
                spans.clear();
            }
        }
    }
    made
}
