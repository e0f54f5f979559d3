// SPDX-License-Identifier: Apache-2.0 OR MIT
//! As much HTTP/1.1 as the demo's own services need to talk to each other.
//!
//! In: a blocking connection. Out: requests and responses with their bodies. It speaks to nobody but itself: a message
//! that is not of its own making is an error, and bounds are small.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use rand::{TryRng as _, rngs::SysRng};

/// A request that was read, or is to be sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// The `traceparent` header.
    pub(super) context: Option<String>,
}

impl Request {
    pub(super) fn new(method: &str, path: impl Into<String>, context: Option<String>) -> Self {
        Self { method: method.to_owned(), path: path.into(), context }
    }
}

/// One side of a connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(super) fn to(address: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    pub(super) fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks and waits for the answer: its status and body.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<(u16, String)> {
        let Request { method, path, context } = request;
        let host = self.stream.get_ref().peer_addr()?;
        let context = context.as_ref().map(|context| format!("traceparent: {context}\r\n")).unwrap_or_default();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: spantap-demo\r\n{context}Content-Length: 0\r\n\r\n"
        );
        self.send(&head)?;
        let (first, body) = self.message()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = first.lines().next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        Ok((status.ok_or(io::ErrorKind::InvalidData)?, body))
    }

    /// The next request; none when the other side has no more.
    pub(super) fn next(&mut self) -> io::Result<Option<Request>> {
        let Some((head, _)) = self.message()? else { return Ok(None) };
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (Some(method), Some(path)) = (words.next(), words.next()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        Ok(Some(Request::new(method, path, field(&head, "traceparent").map(str::to_owned))))
    }

    pub(super) fn answer(&mut self, status: u16, body: &str) -> io::Result<()> {
        let reason = match status {
            200 => "OK",
            404 => "Not Found",
            502 => "Bad Gateway",
            _ => "Service Unavailable",
        };
        self.send(&format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.stream.get_ref().write_all(message.as_bytes())
    }

    /// Head and body.
    fn message(&mut self) -> io::Result<Option<(String, String)>> {
        let mut head = String::new();
        loop {
            let mut line = String::new();
            if self.stream.by_ref().take(MAX_BYTES).read_line(&mut line)? == 0 {
                return if head.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if line == "\r\n" {
                break;
            }
            head.push_str(&line);
            if head.len() as u64 > MAX_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let length = field(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = String::new();
        self.stream.by_ref().take(u64::min(length, MAX_BYTES)).read_to_string(&mut body)?;
        Ok(Some((head, body)))
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The context for a call made under `incoming`: the same trace, an id of its own, as an SDK would write it.
pub(super) fn child_context(incoming: &str) -> Option<String> {
    let mut parts = incoming.split('-');
    let (version, trace, _, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(format!("{version}-{trace}-{:016x}-{flags}", random()?))
}

/// A random number that is a valid id: not zero.
pub(super) fn random() -> Option<u64> {
    SysRng.try_next_u64().ok().filter(|id| *id != 0)
}

/// Everything in the demo answers within a second; this only keeps a broken one from hanging.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bound on heads and bodies: the longest here has some hundred bytes.
const MAX_BYTES: u64 = 16 << 10;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_request_and_its_answer_cross_the_connection() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let server = std::thread::spawn(move || {
            let mut connection = Connection::over(listener.accept()?.0)?;
            let mut seen = Vec::new();
            while let Some(request) = connection.next()? {
                connection.answer(503, "{}")?;
                seen.push(request);
            }
            io::Result::Ok(seen)
        });
        let asked = [
            Request::new("GET", "/a?b=1", None),
            Request::new("POST", "/c", child_context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")),
        ];
        let mut connection = Connection::to(address).expect("a connection");
        for request in &asked {
            assert_eq!(connection.ask(request).expect("an answer"), (503, "{}".to_owned()));
        }
        drop(connection);
        assert_eq!(server.join().expect("no panic").expect("no error"), asked);
    }

    #[test]
    fn a_child_context_stays_in_the_trace() {
        let child = child_context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").expect("a context");
        assert!(child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && child.ends_with("-01"));
        assert!(!child.contains("00f067aa0ba902b7"));
        assert_eq!(child_context("nonsense"), None);
    }
}
