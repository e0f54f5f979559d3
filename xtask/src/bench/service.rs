// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A service that works for a millisecond on each request: what most services are like.
//!
//! In: requests one after the other. Out: throughput and CPU time lost, in pairs. The work is an amount, not a time, so
//! that whatever slows it down shows.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
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
    let requests = bench.effort.choose(1000, 300);
    let (mut losses, mut cpus) = (Vec::new(), Vec::new());
    for round in 0..bench.effort.choose(15, 5) {
        let run = |load: &mut Paced| -> Result<(f64, f64)> {
            let (started, cpu_before) = (Instant::now(), service.cpu.load(Relaxed));
            for _ in 0..requests {
                load.burst(1)?;
            }
            let cpu = service.cpu.load(Relaxed) - cpu_before;
            Ok((started.elapsed().as_secs_f64(), cpu as f64))
        };
        let ((off, off_cpu), (on, on_cpu)) = pair(round, &mut load, run, |load| {
            let agent = Agent::start(&bench.agent, Output::Otlp(&sink.endpoint()), &watched)?;
            let taken = run(load)?;
            agent.stop()?;
            Ok(taken)
        })?;
        losses.push(100.0 * (1.0 - off / on));
        cpus.push(100.0 * (on_cpu / off_cpu - 1.0));
    }
    report.add("service_1ms_throughput_loss_pct", "%", 0.25, losses);
    report.add("service_1ms_cpu_added_pct", "%", 0.25, cpus);
    Ok(())
}

/// A server in a thread of this process, for as long as the process lives.
struct Service {
    address: SocketAddr,
    /// Nanoseconds of CPU time that its thread had taken when it last answered.
    cpu: Arc<AtomicU64>,
}

impl Service {
    fn start(work: u64) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("open a service")?;
        let address = listener.local_addr().context("open a service")?;
        let cpu = Arc::<AtomicU64>::default();
        let theirs = Arc::clone(&cpu);
        thread::spawn(move || {
            // One connection after the other: there is one client.
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_nodelay(true).ok();
                serve(stream, work, &theirs);
            }
        });
        Ok(Self { address, cpu })
    }
}

/// Answers until the client goes.
fn serve(mut stream: TcpStream, work: u64, cpu: &AtomicU64) {
    let mut request = [0; 1024];
    // The client writes a request with one call and waits: a read brings all of it.
    while stream.read(&mut request).is_ok_and(|length| length > 0) {
        black_box(spin(work));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
            return;
        }
        cpu.store(thread_cpu(), Relaxed);
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
