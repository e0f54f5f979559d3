// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests: as many as wrk can make, or so many a second on so many connections.
//!
//! In: where to, for how long. Out: what came of it. It does not check answers beyond their status: the servers are
//! ours.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::command::answer;

/// What wrk saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Saturation {
    /// Requests that were answered.
    pub(super) requests: f64,
    /// The same by the second.
    pub(super) rate: f64,
    /// Half of the requests took at most so many microseconds.
    pub(super) p50_us: f64,
    /// 99 of 100 requests took at most so many microseconds.
    pub(super) p99_us: f64,
}

/// wrk with 16 keep-alive connections on one thread, which with nginx's own makes both cores of a small machine busy.
pub(super) fn saturate(address: SocketAddr, seconds: u32) -> Result<Saturation> {
    let duration = format!("{seconds}s");
    let url = format!("http://{address}/");
    let text =
        answer(Command::new("wrk").args(["-t1", "-c16", "--latency", "-d", &duration, &url])).context("wrk failed")?;
    read(&text).with_context(|| format!("wrk said something else: {text}"))
}

/// A rate that a load generator of our own holds on connections that stay open.
pub(super) struct Paced {
    connections: Vec<TcpStream>,
    /// The connection whose turn it is.
    next: usize,
}

impl Paced {
    /// Opens `connections`, to each address in turn.
    pub(super) fn connect(addresses: &[SocketAddr], connections: usize) -> Result<Self> {
        let opened = addresses.iter().cycle().take(connections).map(|address| {
            let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
            stream.set_nodelay(true).context("set up a connection")?;
            // A lost answer is an error here, not a bench that stands still.
            stream.set_read_timeout(Some(LONGEST_ANSWER)).context("set up a connection")?;
            Ok(stream)
        });
        Ok(Self { connections: opened.collect::<Result<_>>()?, next: 0 })
    }

    /// `rate` requests a second for `duration`; returns how many there were. An error if the rate was not held: the
    /// cost per request depends on it.
    pub(super) fn run(&mut self, rate: u32, duration: Duration) -> Result<u64> {
        let started = Instant::now();
        let mut sent = 0;
        loop {
            let elapsed = started.elapsed();
            if elapsed >= duration {
                break;
            }
            let due = (elapsed.as_secs_f64() * f64::from(rate)) as u64;
            let burst = (due - sent).min(BURST.min(self.connections.len()) as u64);
            if burst == 0 {
                thread::sleep(BREATH);
                continue;
            }
            self.burst(burst as usize)?;
            sent += burst;
        }
        let held = sent as f64 / duration.as_secs_f64() / f64::from(rate);
        ensure!(held > HELD, "only {:.0} % of {rate} requests/s were reached: the machine is too busy", 100.0 * held);
        Ok(sent)
    }

    /// `rate` requests a second, one after the other, as many as `duration` has room for, however long they take; returns
    /// how many microseconds after it was due each was answered. A server that stands still delays those that are due
    /// meanwhile, and all of them are counted.
    pub(super) fn pace(&mut self, rate: f64, duration: Duration) -> Result<Vec<f64>> {
        let started = Instant::now();
        let requests = (rate * duration.as_secs_f64()) as u32;
        let answered = (0..requests).map(|request| {
            let due = started + Duration::from_secs_f64(f64::from(request) / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.burst(1)?;
            Ok(due.elapsed().as_secs_f64() * 1e6)
        });
        answered.collect()
    }

    /// Sends one request on each of the next `count` connections, then reads the answers.
    pub(super) fn burst(&mut self, count: usize) -> Result<()> {
        let all = self.connections.len();
        let first = self.next;
        self.next = (first + count) % all;
        let turn = (first..first + count).map(|index| index % all);
        for index in turn.clone() {
            self.connections[index].write_all(REQUEST).context("send a request")?;
        }
        for index in turn {
            read_answer(&mut self.connections[index])?;
        }
        Ok(())
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.len()
    }
}

/// Lets this process and those it starts open as many files as the kernel allows: the load holds 10,000 connections.
pub(super) fn allow_many_connections() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < FILES) {
        let maximum = limit.maximum.map(|maximum| maximum.max(FILES));
        setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum })
            .with_context(|| format!("allow {FILES} open files"))?;
    }
    Ok(())
}

fn read_answer(stream: &mut TcpStream) -> Result<()> {
    let mut bytes = [0; 1024];
    let mut filled = 0;
    // The servers' answers have no body.
    while !bytes[..filled].ends_with(b"\r\n\r\n") {
        match stream.read(&mut bytes[filled..]).context("read an answer")? {
            0 => bail!("the server closed a connection"),
            more => filled += more,
        }
    }
    ensure!(bytes.starts_with(b"HTTP/1.1 200"), "the server answered otherwise");
    Ok(())
}

/// Reads the lines `Requests/sec: 1234.5`, `50%  110us`, `99%  1.23ms` and `2400 requests in 2.00s`; None where they are missing or
/// requests failed.
fn read(text: &str) -> Option<Saturation> {
    if text.contains("Socket errors") || text.contains("Non-2xx") {
        return None;
    }
    let after = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "))?.0;
    Some(Saturation {
        requests: requests.parse().ok()?,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50_us: microseconds(after("50%")?)?,
        p99_us: microseconds(after("99%")?)?,
    })
}

fn microseconds(text: &str) -> Option<f64> {
    [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit)?.parse::<f64>().ok().map(|number| number * scale))
}

/// What browsers and services send is longer; what is measured with it is the agent, not the copy.
const REQUEST: &[u8] = b"GET /users/42?page=3 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: bench/1.0\r\n\
    Accept: */*\r\nX-Request-Id: 4d5e9d0c-7a33-4d36-9f2a-1b1a5b1f7c11\r\n\r\n";

/// Requests under way at one time: ten milliseconds of 10,000 requests/s, to catch up after a pause.
const BURST: usize = 100;

/// Between two looks at the clock: ten requests of 10,000 a second.
const BREATH: Duration = Duration::from_millis(1);

/// The share of a rate that counts as holding it.
const HELD: f64 = 0.95;

/// Longest time for an answer.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Open files: both ends of 10,000 connections in two processes, and room.
const FILES: u64 = 15_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrks_summary_is_read() {
        let text = "  Latency Distribution\n     50%  110.00us\n     99%    1.36ms\n  187000 requests in 2.00s, 9MB read\n\
                    Requests/sec:  93217.45\n";
        assert_eq!(read(text), Some(Saturation { requests: 187_000.0, rate: 93217.45, p50_us: 110.0, p99_us: 1360.0 }));
    }

    #[test]
    fn a_run_with_failed_requests_is_no_figure() {
        let text = "     99%    1.36ms\n  Socket errors: connect 0, read 3, write 0, timeout 0\nRequests/sec:  93.0\n";
        assert_eq!(read(text), None);
        assert_eq!(read(""), None);
    }

    #[test]
    fn a_paced_load_counts_the_time_that_its_requests_were_kept_waiting() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            while stream.read(&mut request).unwrap() > 0 {
                thread::sleep(Duration::from_millis(2));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        });
        // Due every millisecond, answered every two: the last of ten has waited for nine.
        let taken = Paced::connect(&[address], 1).unwrap().pace(1000.0, Duration::from_millis(10)).unwrap();
        answers.join().unwrap();
        assert_eq!(taken.len(), 10);
        assert!(taken[0] >= 2_000.0 && taken[9] >= 11_000.0, "{taken:?}");
    }

    #[test]
    fn units_of_time_are_told_apart() {
        assert_eq!(microseconds("99.00us"), Some(99.0));
        assert_eq!(microseconds("1.5ms"), Some(1500.0));
        assert_eq!(microseconds("2s"), Some(2e6));
        assert_eq!(microseconds("2"), None);
    }
}
