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

use anyhow::{Context, Result, bail, ensure};
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

/// What the probes add to a call is measured in one thread, which writes a chunk and reads it, and is set against what a
/// transfer takes that runs as transfers do: of two threads side by side, chance decides how many bytes a read finds and
/// in whose cache, which makes a tenth of their time, and more than the probes do.
fn bulk(bench: &Bench, sink: &Sink, report: &mut Report) -> Result<()> {
    for (leaves, name) in [(Leaves::Written, "bulk"), (Leaves::BySendfile, "bulk_sendfile")] {
        let (mut losses, mut added) = (Vec::new(), Vec::new());
        for round in 0..bench.effort.choose(15, 5) {
            let (off, on) = pair(
                round,
                &mut (),
                |()| call_of_bulk_ns(leaves, |_| Ok(()), |()| Ok(())),
                |()| {
                    call_of_bulk_ns(
                        leaves,
                        |port| {
                            let watched = ["--port".to_owned(), port.to_string()];
                            Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched)
                        },
                        |agent| agent.stop().map(drop),
                    )
                },
            )?;
            let transfer = transfer(leaves)?;
            let more = (on - off) * transfer.calls;
            losses.push(100.0 * more / (transfer.cpu_ns + more));
            added.push(on - off);
        }
        report.add(format!("{name}_loss_pct"), "%", 0.25, losses);
        report.add(format!("{name}_call_added_ns"), "ns", 25.0, added);
    }
    Ok(())
}

/// CPU time of a call that moves a chunk, in nanoseconds: the mean of a write and a read by the same thread.
fn call_of_bulk_ns<T>(
    leaves: Leaves,
    start: impl FnOnce(u16) -> Result<T>,
    stop: impl FnOnce(T) -> Result<()>,
) -> Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a connection")?;
    let address = listener.local_addr().context("open a connection")?;
    let measured = start(address.port())?;
    let mut client = TcpStream::connect(address).context("open a connection")?;
    let mut server = asked(&listener, &mut client)?;
    client.read_exact(&mut vec![0; head().len()]).context("read a response")?;
    let (source, mut buffer) = (Source::new()?, vec![0; CHUNK]);
    let mut batches = Vec::with_capacity(CHUNKS / BULK_BATCH);
    for _ in 0..CHUNKS / BULK_BATCH {
        let before = thread_cpu();
        for _ in 0..BULK_BATCH {
            source.send(&mut server, leaves)?;
            client.read_exact(&mut buffer).context("read a body")?;
        }
        batches.push((thread_cpu() - before) as f64 / (2 * BULK_BATCH) as f64);
        thread::sleep(PAUSE);
    }
    stop(measured)?;
    batches.sort_by(f64::total_cmp);
    Ok(quantile(&batches, 0.25))
}

/// What a transfer took without the agent.
struct Transfer {
    /// CPU time of both ends.
    cpu_ns: f64,
    /// Calls that moved bytes, at both ends.
    calls: f64,
}

/// A large response from one thread to another.
fn transfer(leaves: Leaves) -> Result<Transfer> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a connection")?;
    let address = listener.local_addr().context("open a connection")?;
    let mut client = TcpStream::connect(address).context("open a connection")?;
    let mut server = asked(&listener, &mut client)?;
    let reading = thread::spawn(move || -> Result<(u64, usize)> {
        let (mut buffer, mut calls) = (vec![0; CHUNK], 0);
        let before = thread_cpu();
        while client.read(&mut buffer).context("read a body")? > 0 {
            calls += 1;
        }
        Ok((thread_cpu() - before, calls))
    });
    let source = Source::new()?;
    let before = thread_cpu();
    for _ in 0..CHUNKS {
        source.send(&mut server, leaves)?;
    }
    let writing = thread_cpu() - before;
    drop(server);
    let (reading, reads) = reading.join().unwrap_or_else(|_| bail!("the reader panicked"))?;
    Ok(Transfer { cpu_ns: (writing + reading) as f64, calls: (CHUNKS + reads) as f64 })
}

/// The server's end of `client`'s connection, on which the request was read and the head of the response written.
fn asked(listener: &TcpListener, client: &mut TcpStream) -> Result<TcpStream> {
    let (mut server, _) = listener.accept().context("open a connection")?;
    client.write_all(&request()).context("send a request")?;
    server.read_exact(&mut [0; REQUEST]).context("read a request")?;
    server.write_all(head().as_bytes()).context("send a response")?;
    Ok(server)
}

/// The head of a large response.
fn head() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", CHUNK * CHUNKS)
}

/// Where a large response comes from: one chunk, again and again.
struct Source {
    chunk: Vec<u8>,
    file: File,
}

impl Source {
    fn new() -> Result<Self> {
        let file = tempfile::tempfile().context("make a file to send")?;
        file.set_len(CHUNK as u64).context("make a file to send")?;
        Ok(Self { chunk: vec![0; CHUNK], file })
    }

    /// Sends a chunk.
    fn send(&self, server: &mut TcpStream, leaves: Leaves) -> Result<()> {
        match leaves {
            Leaves::Written => server.write_all(&self.chunk).context("send a body"),
            Leaves::BySendfile => {
                let sent = sendfile(&*server, &self.file, Some(&mut 0), CHUNK).context("send a body")?;
                ensure!(sent == CHUNK, "the kernel sent {sent} bytes of {CHUNK}");
                Ok(())
            }
        }
    }
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

/// Chunks of a large response, which make 1 GiB.
const CHUNKS: usize = 16 << 10;

/// Of them between two looks at the clock: some 3 ms.
const BULK_BATCH: usize = 256;

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
