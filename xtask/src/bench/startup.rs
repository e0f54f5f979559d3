// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the start of the process to live probes, and to the first span at the collector.
//!
//! In: a server that is being asked all the time. Out: two times. The files of the agent are in the page cache, as they
//! are after an installation.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Bench, figure::Report, load::Paced, nginx::Nginx, sink::Sink};
use crate::agent::{Agent, Output};

/// The part `startup`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let server = Nginx::start()?;
    let mut load = Paced::connect(&[server.address], 10)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let requests = scope.spawn(|| {
            while !done.load(Relaxed) {
                load.burst(1)?;
                thread::sleep(PAUSE);
            }
            anyhow::Ok(())
        });
        let times = starts(bench, &server);
        done.store(true, Relaxed);
        // The load's own failure explains a span that never came.
        requests.join().unwrap_or_else(|_| bail!("the load panicked"))?;
        let (live, span) = times?;
        report.add("start_to_live_ms", "ms", 30.0, live);
        report.add("start_to_first_span_ms", "ms", 100.0, span);
        Ok(())
    })
}

/// Milliseconds to live probes and to the first span, of each start.
fn starts(bench: &Bench, server: &Nginx) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut live, mut span) = (Vec::new(), Vec::new());
    let watched = ["--port".to_owned(), server.address.port().to_string()];
    for _ in 0..bench.effort.choose(15, 5) {
        let sink = Sink::open()?;
        let started = Instant::now();
        let agent = Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched)?;
        let first = loop {
            if let Some(first) = sink.first() {
                break first;
            }
            if started.elapsed() > PATIENCE {
                bail!("no span within {PATIENCE:?}");
            }
            thread::sleep(Duration::from_millis(1));
        };
        live.push(agent.live_after.as_secs_f64() * 1e3);
        span.push(first.duration_since(started).as_secs_f64() * 1e3);
        agent.stop()?;
    }
    Ok((live, span))
}

/// Between two requests: the first span does not wait for its request.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest time to the first span.
const PATIENCE: Duration = Duration::from_secs(20);
