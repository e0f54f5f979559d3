// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A server and clients that know what is true: the path of a request says what its answer's status has to be.
//!
//! In: how many connections and requests. Out: proof that each of them was answered as it should be, which is also
//! what the target would notice of the agent. It knows nothing of the agent.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// A server of this process: a thread a connection, until the client goes.
pub(crate) struct Server {
    address: SocketAddr,
    next: AtomicUsize,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("bound");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream));
            }
        });
        Self { address, next: AtomicUsize::new(0) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn connect(&self) -> Client<'_> {
        Client::to(self, self.port())
    }

    /// `requests` on each of `connections` of them at once, every answer checked. Out: how many were made.
    pub(crate) fn ask(&self, connections: usize, requests: usize) -> u64 {
        thread::scope(|scope| {
            for _ in 0..connections {
                scope.spawn(|| {
                    let mut client = self.connect();
                    for _ in 0..requests {
                        client.ask();
                    }
                });
            }
        });
        (connections * requests) as u64
    }
}

/// One connection to the server.
pub(crate) struct Client<'a> {
    server: &'a Server,
    pub(crate) stream: TcpStream,
}

impl<'a> Client<'a> {
    /// A connection to another listener, with paths of this server.
    pub(crate) fn to(server: &'a Server, port: u16) -> Self {
        Self { server, stream: TcpStream::connect(("127.0.0.1", port)).expect("connect") }
    }

    /// Makes a request and checks its answer.
    pub(crate) fn ask(&mut self) {
        let request = self.request("");
        self.stream.write_all(&request).expect("the server reads");
        self.hear(&request);
    }

    /// A request that nobody has made before, with these fields.
    pub(crate) fn request(&self, fields: &str) -> Vec<u8> {
        let number = self.server.next.fetch_add(1, Ordering::Relaxed);
        format!("GET /n/{number} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").into_bytes()
    }

    /// Checks the answer to `request`.
    pub(crate) fn hear(&mut self, request: &[u8]) {
        let mut head = [0; HEAD];
        let answer = answer(number_in(request).expect("made here"));
        let head = &mut head[..answer.len()];
        self.stream.read_exact(head).expect("an answer");
        assert_eq!(head, &answer[..], "the answer is as without an agent");
    }
}

/// The status of the answer to the request with this path.
pub(crate) fn status_of(path: &str) -> Option<u64> {
    path.strip_prefix("/n/")?.parse().ok().map(status)
}

/// Different for neighbours, and none of those that change the framing.
fn status(number: usize) -> u64 {
    400 + (number % 97) as u64
}

fn answer(number: usize) -> Vec<u8> {
    format!("HTTP/1.1 {} X\r\nContent-Length: 2\r\n\r\nok", status(number)).into_bytes()
}

fn number_in(head: &[u8]) -> Option<usize> {
    let line = head.strip_prefix(b"GET /n/")?;
    let end = line.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&line[..end]).ok()?.parse().ok()
}

/// Answers what it can read; ends where it cannot, or when the client asks for silence.
fn serve(mut stream: TcpStream) {
    let mut buffer = Vec::new();
    let mut bytes = vec![0; 64 << 10];
    loop {
        while let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            if head.starts_with(b"GET /silence ") {
                continue;
            }
            let Some(number) = number_in(&head) else { return };
            let said = if head.windows(EAGER.len()).any(|part| part == EAGER.as_bytes()) {
                // Somebody's answer, and one that nobody asked for.
                [&answer(number)[..], b"HTTP/1.1 408 X\r\nContent-Length: 0\r\n\r\n"].concat()
            } else {
                answer(number)
            };
            if stream.write_all(&said).is_err() {
                return;
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(read) => buffer.extend_from_slice(&bytes[..read]),
        }
        if buffer.starts_with(b"no request") {
            return;
        }
    }
}

/// A field that makes the server say more than it was asked.
pub(crate) const EAGER: &str = "X-Eager: 1\r\n";

/// An answer is shorter.
const HEAD: usize = 128;
