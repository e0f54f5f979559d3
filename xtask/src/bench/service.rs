// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A service that works for a millisecond on each request: what most services are like.
//!
//! In: requests one after the other. Out: throughput and CPU time lost, in pairs. The work is an amount, not a time, so
//! that whatever slows it down shows; and the same work is done once more right after each request, which the request's
//! time is divided by: the machine's speed changes by more from second to second than what is looked for.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Bench, clock::thread_cpu, figure::Report, load::Paced, pair, sink::Sink};
use crate::agent::{Agent, Output};

/// Adds `service_1ms_throughput_loss_pct` and `service_1ms_cpu_added_pct`.
pub(super) fn measure(bench: &Bench, report: &mut Report) -> Result<()> {
    let sink = Sink::open()?;
    let service = Service::start(work_of_a_millisecond())?;
    let mut load = Paced::connect(&[service.address], 1)?;
    let watched = ["--port".to_owned(), service.address.port().to_string()];
    let (mut losses, mut cpus) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.choose(100, 20) {
        let run = |load: &mut Paced| -> Result<Served> {
            let mut all = Served::default();
            for _ in 0..REQUESTS {
                let started = Instant::now();
                load.burst(1)?;
                all.took += started.elapsed().as_nanos() as f64;
                all.add(service.served()?);
            }
            Ok(all)
        };
        let (off, on) = pair(round, &mut load, run, |load| {
            let agent = Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched)?;
            let served = run(load)?;
            agent.stop()?;
            Ok(served)
        })?;
        losses.push(100.0 * (1.0 - (off.took / off.work_took) / (on.took / on.work_took)));
        cpus.push(100.0 * ((on.cpu / on.work_cpu) / (off.cpu / off.work_cpu) - 1.0));
    }
    report.add("service_1ms_throughput_loss_pct", "%", 0.25, losses);
    report.add("service_1ms_cpu_added_pct", "%", 0.25, cpus);
    Ok(())
}

/// What requests took, and what the same work took by itself right after each, all in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    /// From the first byte that the client wrote to the last that it read: the client knows.
    took: f64,
    /// CPU time of the server's thread.
    cpu: f64,
    work_took: f64,
    work_cpu: f64,
}

impl Served {
    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.work_took += other.work_took;
        self.work_cpu += other.work_cpu;
    }
}

/// A server in a thread of this process, for as long as the process lives.
struct Service {
    address: SocketAddr,
    served: Receiver<Served>,
}

impl Service {
    fn start(work: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a service")?;
        let address = listener.local_addr().context("open a service")?;
        let (tell, served) = channel();
        thread::spawn(move || {
            // One connection after the other: there is one client.
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_nodelay(true).ok();
                serve(stream, work, &tell);
            }
        });
        Ok(Self { address, served })
    }

    fn served(&self) -> Result<Served> {
        self.served.recv().context("the service has gone")
    }
}

/// Answers until the client goes.
fn serve(mut stream: TcpStream, work: u64, tell: &Sender<Served>) {
    let mut request = [0; 1024];
    loop {
        let before = thread_cpu();
        // The client writes a request with one call and waits: a read brings all of it.
        if !stream.read(&mut request).is_ok_and(|length| length > 0) {
            return;
        }
        black_box(spin(work));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
        let answered = thread_cpu();
        let alone = Instant::now();
        black_box(spin(work));
        let (work_took, work_cpu) = (alone.elapsed().as_nanos() as f64, (thread_cpu() - answered) as f64);
        let cpu = (answered - before) as f64;
        if tell.send(Served { took: 0.0, cpu, work_took, work_cpu }).is_err() {
            return;
        }
    }
}

fn spin(work: u64) -> u64 {
    (0..work).fold(1, |state: u64, step| state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(black_box(step)))
}

/// How much [`spin`] does in a millisecond of CPU time here.
fn work_of_a_millisecond() -> u64 {
    let mut work = 1_000;
    loop {
        let before = thread_cpu();
        black_box(spin(work));
        let taken = Duration::from_nanos(thread_cpu() - before);
        if taken >= Duration::from_millis(20) {
            return (work as f64 * 1e-3 / taken.as_secs_f64()) as u64;
        }
        work *= 2;
    }
}

/// Requests of one measurement: a sixth of a second, so that many pairs lie close together.
const REQUESTS: usize = 150;
