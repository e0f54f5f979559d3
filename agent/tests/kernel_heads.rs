// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the probes copy is what was sent, however often they are interrupted.
//!
//! In: many threads on few processors, each of them hit by signals, sending heads that carry a checksum of themselves.
//! Out: the claim that every head is in the records of both ends, whole and unaltered. Nothing right of `event` takes
//! part.

#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "matrix/process.rs"]
mod process;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{IoSlice, Read as _, Write as _},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    ptr,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use process::wait_until;
use spantap::{
    event::{self, Event, SocketId},
    kernel::{Probes, Settings},
};
use spantap_common::event::data::Direction;

#[test]
fn every_head_is_copied_as_it_was_sent() {
    if let Err(why) = spantap::kernel::features::privileged() {
        // Straight to standard error: the harness keeps what `eprintln!` prints to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
        return;
    }
    interruptible();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    let settings = Settings { ports: vec![address.port()], ..Settings::default() };
    let mut probes = Probes::attach(&settings).unwrap_or_else(|why| panic!("{why}"));
    let (running, workers) = (AtomicUsize::new(2 * PAIRS), Mutex::new(Vec::new()));
    let (signals, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let mut streams = Streams::default();
    thread::scope(|scope| {
        let work = |what: &dyn Fn()| {
            let _leaves = Leaves(&running, &failed, &workers);
            // SAFETY: a plain system call without arguments.
            workers.lock().expect("no panic").push(unsafe { libc::pthread_self() });
            what();
        };
        for pair in 0..PAIRS {
            scope.spawn(move || work(&|| ask(pair, address)));
            let listener = &listener;
            scope.spawn(move || work(&|| answer(listener)));
        }
        scope.spawn(|| {
            while running.load(Ordering::Relaxed) > 0 {
                // Whoever is in the list is running, and cannot leave it meanwhile.
                for worker in workers.lock().expect("no panic").iter() {
                    // SAFETY: see above.
                    unsafe { libc::pthread_kill(*worker, libc::SIGUSR2) };
                    signals.fetch_add(1, Ordering::Relaxed);
                }
                thread::park_timeout(BETWEEN_SIGNALS);
            }
        });
        let over = wait_until(DEADLINE, || {
            while probes.drain(|record| streams.take(record)) > 0 {}
            running.load(Ordering::Relaxed) == 0
        });
        assert!(over, "the threads end");
    });
    while probes.drain(|record| streams.take(record)) > 0 {}

    assert!(!failed.load(Ordering::Relaxed), "a thread failed");
    assert_eq!(probes.lost().iter().sum::<u64>(), 0, "nothing is lost: {:?}", probes.lost());
    assert!(signals.load(Ordering::Relaxed) > PAIRS, "the threads were interrupted");
    let heads = streams.heads();
    assert_eq!(heads.len(), PAIRS * HEADS, "every head");
    for (name, ends) in heads {
        assert_eq!(ends, 2, "both ends copied {name}");
    }
}

/// Sends heads with one call or several, in one segment or several, and waits for each answer.
fn ask(pair: usize, address: SocketAddr) {
    let mut stream = TcpStream::connect(address).expect("connect");
    for number in 0..HEADS {
        let head = head(pair, number);
        match number % 3 {
            0 => stream.write_all(&head).expect("write"),
            1 => head.chunks(700).for_each(|part| stream.write_all(part).expect("write")),
            _ => {
                let mut sent = 0;
                while sent < head.len() {
                    let parts: Vec<_> = head[sent..].chunks(900).map(IoSlice::new).collect();
                    match stream.write_vectored(&parts) {
                        Ok(more) => sent += more,
                        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
                    }
                }
            }
        }
        stream.read_exact(&mut [0; ANSWER.len()]).expect("read");
    }
}

fn answer(listener: &TcpListener) {
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
        }
    };
    let (mut head, mut room) = (Vec::new(), [0; 1300]);
    loop {
        match stream.read(&mut room) {
            Ok(0) => return,
            Ok(read) => head.extend_from_slice(&room[..read]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::Interrupted),
        }
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            stream.write_all(ANSWER).expect("write");
        }
    }
}

/// `GET /<pair>/<number>/<hash of the filler>`, and a filler of a length and a content of its own.
fn head(pair: usize, number: usize) -> Vec<u8> {
    let mut state = (pair as u64) << 32 | number as u64 | 1 << 63;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let length = next() % 6000;
    let filler: Vec<u8> = (0..length).map(|_| b'a' + (next() % 26) as u8).collect();
    let mut head = format!("GET /{pair}/{number}/{:x} HTTP/1.1\r\nX: ", hash(&filler)).into_bytes();
    head.extend_from_slice(&filler);
    head.extend_from_slice(b"\r\n\r\n");
    head
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The bytes of requests, by socket.
#[derive(Default)]
struct Streams {
    requests: HashMap<SocketId, Direction>,
    bytes: HashMap<SocketId, (u32, Vec<u8>)>,
}

impl Streams {
    fn take(&mut self, record: &[u8]) {
        match event::decode(record).expect("well-formed") {
            Event::Socket(socket) => {
                self.requests.insert(socket.id, socket.requests);
            }
            Event::Data(data) if self.requests.get(&data.socket) == Some(&data.direction) => {
                assert_eq!(data.bytes.len(), data.length as usize, "copied whole");
                let (next, bytes) = self.bytes.entry(data.socket).or_insert((data.position, Vec::new()));
                assert_eq!(data.position, *next, "one after the other");
                *next = next.wrapping_add(data.length);
                bytes.extend_from_slice(data.bytes);
            }
            Event::Data(_) | Event::Shut(_) | Event::Process(_) | Event::Thread(_) => {}
        }
    }

    /// Each head's name, and at how many ends it is whole.
    fn heads(&self) -> BTreeMap<String, usize> {
        let mut heads = BTreeMap::new();
        for (_, bytes) in self.bytes.values() {
            let text = std::str::from_utf8(bytes).expect("ASCII was sent");
            for head in text.split_terminator("\r\n\r\n") {
                let (line, filler) = head.split_once("\r\nX: ").expect("a head");
                let name = line.strip_prefix("GET ").and_then(|line| line.strip_suffix(" HTTP/1.1")).expect("a head");
                assert!(name.ends_with(&format!("/{:x}", hash(filler.as_bytes()))), "altered: {head}");
                *heads.entry(name.to_owned()).or_default() += 1;
            }
        }
        heads
    }
}

/// A worker's end, however it comes: it leaves the list before its thread is gone.
struct Leaves<'a>(&'a AtomicUsize, &'a AtomicBool, &'a Mutex<Vec<libc::pthread_t>>);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        // SAFETY: a plain system call without arguments.
        let own = unsafe { libc::pthread_self() };
        self.2.lock().expect("no panic").retain(|worker| *worker != own);
        if thread::panicking() {
            self.1.store(true, Ordering::Relaxed);
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// SIGUSR2 does nothing but interrupt: no SA_RESTART.
fn interruptible() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeros is a valid action; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR2, &raw const action, ptr::null_mut());
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 204 X\r\n\r\n";

/// Threads that ask, and as many that answer: several for each processor.
const PAIRS: usize = 16;

const HEADS: usize = 150;

/// Often enough to hit calls under way, rarely enough for the calls to get on.
const BETWEEN_SIGNALS: Duration = Duration::from_micros(200);

/// Seconds on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);
