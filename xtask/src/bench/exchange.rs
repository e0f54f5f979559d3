// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bare system calls: what the probes add to them, with no server's own work in between.
//!
//! In: one thread that owns both ends of a loopback connection. Out: CPU time added to an exchange whose both ends are
//! captured, to the same on sockets that are left alone, to another call, and to bulk transfers, in percent of no agent.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::{fs::sendfile, process::getppid};

use super::{
    Bench,
    clock::thread_cpu,
    figure::{Report, quantile},
    floor::{self, Does, Floor},
    pair,
    sink::Sink,
};
use crate::agent::{Agent, Output};

/// Adds the figures of bare calls to `report`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let sink = Sink::open()?;
    let (http, other) = (request(), vec![0xa5; REQUEST]);
    let us = executable_name()?;
    let lowest = floor::build()?;
    let [mut captured, mut non_target, mut non_http, mut nothing, mut record, mut call] = [const { Vec::new() }; 6];
    for round in 0..bench.effort.choose(9, 3) {
        // A pair for each: all three against a measurement of their own time.
        for (bytes, excluded, samples) in
            [(&http, false, &mut captured), (&http, true, &mut non_target), (&other, false, &mut non_http)]
        {
            let watched = |port: u16| {
                let mut flags = vec!["--port".to_owned(), port.to_string()];
                if excluded {
                    flags.extend(["--exclude".to_owned(), us.clone()]);
                }
                flags
            };
            let (off, on) = pair(
                round,
                &mut (),
                |()| exchange_ns(bytes, |_| Ok(()), |()| Ok(())),
                |()| {
                    exchange_ns(
                        bytes,
                        |port| Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched(port)),
                        |agent| agent.stop().map(drop),
                    )
                },
            )?;
            samples.push(100.0 * (on / off - 1.0));
        }
        for (does, samples) in [(Does::Nothing, &mut nothing), (Does::Record, &mut record)] {
            let (off, on) = pair(
                round,
                &mut (),
                |()| exchange_ns(&http, |_| Ok(()), |()| Ok(())),
                |()| exchange_ns(&http, |_| Floor::start(&lowest, does), |_| Ok(())),
            )?;
            samples.push(100.0 * (on / off - 1.0));
        }
        let (off, on) = pair(
            round,
            &mut (),
            |()| Ok(call_ns()),
            |()| {
                let agent = Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &[])?;
                let taken = call_ns();
                agent.stop()?;
                Ok(taken)
            },
        )?;
        call.push(on - off);
    }
    report.add("exchange_captured_pct", "%", 2.0, captured);
    report.add("exchange_non_target_pct", "%", 1.5, non_target);
    report.add("exchange_non_http_pct", "%", 1.5, non_http);
    report.add("floor_empty_programs_pct", "%", 1.5, nothing);
    report.add("floor_empty_records_pct", "%", 1.5, record);
    report.add("getpid_ns", "ns", 1.0, call);
    bulk(bench, &sink, report)
}

/// CPU time of an exchange on a new connection, opened between `start` and `stop` of whatever is measured.
fn exchange_ns<T>(
    request: &[u8],
    start: impl FnOnce(u16) -> Result<T>,
    stop: impl FnOnce(T) -> Result<()>,
) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a connection")?;
    let address = listener.local_addr().context("open a connection")?;
    let measured = start(address.port())?;
    let mut client = TcpStream::connect(address).context("open a connection")?;
    let (mut server, _) = listener.accept().context("open a connection")?;
    for end in [&client, &server] {
        end.set_nodelay(true).context("open a connection")?;
    }
    let response = response();
    let mut buffer = [0; 1024];
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let before = thread_cpu();
        for _ in 0..BATCH {
            client.write_all(request).context("send a request")?;
            server.read_exact(&mut buffer[..request.len()]).context("read a request")?;
            server.write_all(&response).context("send a response")?;
            client.read_exact(&mut buffer[..response.len()]).context("read a response")?;
        }
        batches.push((thread_cpu() - before) as f64 / f64::from(BATCH));
        // The agent comes after: a ring that overflows is cheaper to write to.
        thread::sleep(PAUSE);
    }
    stop(measured)?;
    // Interrupts of other work only ever add: the quieter batches say what the calls cost.
    batches.sort_by(f64::total_cmp);
    Ok(quantile(&batches, 0.25))
}

/// CPU time of a call that no probe is attached to. Some libraries answer
/// `getpid` themselves; `getppid` is always a call, and does as little.
fn call_ns() -> f64 {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let before = thread_cpu();
            for _ in 0..CALLS {
                std::hint::black_box(getppid());
            }
            (thread_cpu() - before) as f64 / f64::from(CALLS)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    quantile(&batches, 0.25)
}

// --- Bulk ---

/// How the body of a large response leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Leaves {
    /// In writes of 64 KiB.
    Written,
    /// By `sendfile`, which shows the probes no buffer.
    BySendfile,
}

fn bulk(bench: &Bench, sink: &Sink, report: &mut Report) -> Result<()> {
    let bytes: u64 = bench.effort.choose(1 << 30, 1 << 28);
    for (leaves, name) in [(Leaves::Written, "bulk_loss_pct"), (Leaves::BySendfile, "bulk_sendfile_loss_pct")] {
        let mut losses = Vec::new();
        for round in 0..bench.effort.choose(9, 3) {
            let (off, on) = pair(
                round,
                &mut (),
                |()| transfer_ns(leaves, bytes, |_| Ok(None)),
                |()| {
                    transfer_ns(leaves, bytes, |port| {
                        let watched = ["--port".to_owned(), port.to_string()];
                        Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched).map(Some)
                    })
                },
            )?;
            losses.push(100.0 * (1.0 - off / on));
        }
        report.add(name, "%", 1.0, losses);
    }
    Ok(())
}

/// CPU time of both ends for a response of so many bytes.
fn transfer_ns(leaves: Leaves, bytes: u64, start: impl FnOnce(u16) -> Result<Option<Agent>>) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a connection")?;
    let address = listener.local_addr().context("open a connection")?;
    let agent = start(address.port())?;
    let reading = thread::spawn(move || -> Result<u64> {
        let mut client = TcpStream::connect(address).context("open a connection")?;
        client.write_all(&request()).context("send a request")?;
        let before = thread_cpu();
        let mut buffer = vec![0; CHUNK];
        while client.read(&mut buffer).context("read a response")? > 0 {}
        Ok(thread_cpu() - before)
    });
    let (mut server, _) = listener.accept().context("open a connection")?;
    server.read_exact(&mut [0; REQUEST]).context("read a request")?;
    let file = zeros().context("make a file to send")?;
    let chunk = vec![0; CHUNK];
    let before = thread_cpu();
    write!(server, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").context("send a response")?;
    let mut left = bytes;
    while left > 0 {
        let next = left.min(CHUNK as u64) as usize;
        left -= match leaves {
            Leaves::Written => server.write_all(&chunk[..next]).map(|()| next).context("send a body")?,
            Leaves::BySendfile => sendfile(&server, &file, Some(&mut 0), next).context("send a body")?,
        } as u64;
    }
    let writing = thread_cpu() - before;
    drop(server);
    let reading = reading.join().unwrap_or_else(|_| anyhow::bail!("the reader panicked"))?;
    if let Some(agent) = agent {
        agent.stop()?;
    }
    Ok((writing + reading) as f64)
}

/// A file of one chunk, which is sent again and again.
fn zeros() -> std::io::Result<File> {
    let file = tempfile::tempfile()?;
    file.set_len(CHUNK as u64)?;
    Ok(file)
}

// --- Messages ---

/// A request of exactly [`REQUEST`] bytes.
fn request() -> Vec<u8> {
    let (head, end) = ("GET /users/42?page=3 HTTP/1.1\r\nHost: shop.example:8080\r\nX-Padding: ", "\r\n\r\n");
    let padding = "x".repeat(REQUEST - head.len() - end.len());
    format!("{head}{padding}{end}").into_bytes()
}

/// A response of exactly [`RESPONSE`] bytes.
fn response() -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Padding: ";
    format!("{head}{}\r\n\r\n", "x".repeat(RESPONSE - head.len() - 4)).into_bytes()
}

/// Our file's name, as `--exclude` compares it.
fn executable_name() -> Result<String> {
    let path = std::env::current_exe().context("find our own executable")?;
    let name = path.file_name().context("our executable has a name")?;
    Ok(name.to_string_lossy().into_owned())
}

const REQUEST: usize = 256;
const RESPONSE: usize = 90;

/// Exchanges between two looks at the clock: some 2 ms.
const BATCH: u32 = 500;

/// Batches of one measurement.
const BATCHES: usize = 60;

/// Between two batches: the agent takes some 5 ms for the spans of one.
const PAUSE: Duration = Duration::from_millis(15);

/// Calls between two looks at the clock.
const CALLS: u32 = 20_000;

/// What is written at one time.
const CHUNK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_sizes_that_the_budget_names() {
        assert_eq!(request().len(), REQUEST);
        assert_eq!(response().len(), RESPONSE);
    }
}
