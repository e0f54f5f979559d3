// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client for servers that are other programs.
//!
//! In: requests. Out: when their answers began and ended, as this end saw it. It reads an answer's framing as far as
//! the services of the catalogue need it, and keeps no body.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use crate::truth::{Window, now};

/// A connection.
pub(crate) struct Asker {
    stream: TcpStream,
}

/// An answer that was read to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// The write of the request.
    pub(crate) asked: Window,
    /// The first read that returned a part of the answer.
    pub(crate) first: Window,
    /// The last read.
    pub(crate) last: Window,
    /// When the read before the last one returned; the write of the request, where there was only one read.
    pub(crate) before_last: u64,
}

impl Asker {
    /// Connects.
    pub(crate) fn connect(port: u16) -> Result<Self, String> {
        let connect = || -> Result<_, Error> {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
            Ok(Self { stream })
        };
        connect().map_err(|e| format!("connect to port {port}: {e}"))
    }

    /// Asks and reads the answer; before each read, `on_the_way` is told how much of the body has come.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        body: &[u8],
        mut on_the_way: impl FnMut(usize),
    ) -> Result<Answered, String> {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let request = [head.as_bytes(), body].concat();
        let (sent, asked) = Window::around(|| self.stream.write_all(&request));
        let answered = sent.and_then(|()| {
            let mut answer = Answer::new(method);
            let mut windows: Option<(Window, Window)> = None;
            let mut before_last = asked.from;
            let mut buffer = vec![0; 64 << 10];
            while !answer.complete {
                on_the_way(answer.seen);
                let from = now();
                let read = self.stream.read(&mut buffer)?;
                let window = Window { from, to: now() };
                if read == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                if let Some((_, last)) = windows {
                    before_last = last.to;
                }
                windows = Some((windows.map_or(window, |(first, _)| first), window));
                answer.take(&buffer[..read])?;
            }
            let (first, last) = windows.ok_or(ErrorKind::UnexpectedEof)?;
            Ok(Answered { asked, first, last, before_last })
        });
        answered.map_err(|e| format!("{method} {path}: {e}"))
    }
}

/// As much of an answer as decides where it ends.
struct Answer {
    has_body: bool,
    head: Vec<u8>,
    framing: Option<Framing>,
    /// Bytes of the body's wire form.
    seen: usize,
    /// The last bytes of those.
    tail: Vec<u8>,
    complete: bool,
}

enum Framing {
    Length(usize),
    Chunked,
}

impl Answer {
    fn new(method: &str) -> Self {
        let (head, tail) = (Vec::new(), Vec::new());
        Self { has_body: method != "HEAD", head, framing: None, seen: 0, tail, complete: false }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let mut body = bytes;
        if self.framing.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            body = &bytes[end + 4 - before..];
            self.framing = Some(if self.has_body { framing(&self.head[..end + 4])? } else { Framing::Length(0) });
        }
        self.seen += body.len();
        self.tail.extend_from_slice(body);
        self.tail.drain(..self.tail.len().saturating_sub(LAST_CHUNK.len()));
        self.complete = match self.framing {
            Some(Framing::Length(length)) => self.seen >= length,
            // The services' bodies do not hold the like of it, and have no trailers.
            Some(Framing::Chunked) => self.tail == LAST_CHUNK,
            None => false,
        };
        Ok(())
    }
}

fn framing(head: &[u8]) -> Result<Framing, Error> {
    let malformed = || Error::new(ErrorKind::InvalidData, "an answer's head cannot be read");
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).map_err(|_| malformed())?;
    let value = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    match (value("content-length"), value("transfer-encoding"), response.code) {
        (Some(length), ..) => {
            let text = std::str::from_utf8(length.value).map_err(|_| malformed())?;
            text.parse().map(Framing::Length).map_err(|_| malformed())
        }
        (None, Some(_), _) => Ok(Framing::Chunked),
        (None, None, Some(204 | 304)) => Ok(Framing::Length(0)),
        (None, None, _) => Err(malformed()),
    }
}

/// The end of a chunk, and the last chunk.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// The services send fewer than ten.
const MAX_HEADERS: usize = 32;

/// The slowest answer takes a second; a service that is stuck is an error, not a hanging test.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
