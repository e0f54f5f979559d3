// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The load: requests from this process, so many at once.
//!
//! In: how many. Out: the ids that were asked for, once every answer was checked to hold what the calls of that very
//! request were answered. A closed loop over keep-alive connections, one thread each; it knows neither agent nor model.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use crate::models::Shape;

/// Asks for each of `numbers` on `concurrency` connections. Out: the ids in the order of asking.
pub(crate) fn ask(
    port: u16,
    shape: Shape,
    tag: &str,
    numbers: Range<usize>,
    concurrency: usize,
) -> Result<Vec<String>, String> {
    let ids: Vec<String> = numbers.map(|number| format!("{tag}-{number:06}")).collect();
    let next = AtomicUsize::new(0);
    let ask_some = || -> Result<(), String> {
        let connect = || -> Result<TcpStream, Error> {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
            Ok(stream)
        };
        let mut connection: Option<TcpStream> = None;
        while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut stream = match connection.take() {
                Some(stream) => stream,
                None => connect().map_err(|e| format!("connect to port {port}: {e}"))?,
            };
            let answer = exchange(&mut stream, shape, id).map_err(|e| format!("ask for {id}: {e}"))?;
            check(shape, id, &answer.body)?;
            // Services of worker processes that serve one connection at a time close it after each answer.
            connection = answer.keeps_open.then_some(stream);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let askers: Vec<_> = (0..concurrency).map(|_| scope.spawn(ask_some)).collect();
        askers.into_iter().try_for_each(|asker| asker.join().map_err(|_| "an asker panicked".to_owned())?)
    })?;
    Ok(ids)
}

struct Answer {
    body: Vec<u8>,
    keeps_open: bool,
}

fn exchange(stream: &mut TcpStream, shape: Shape, id: &str) -> Result<Answer, Error> {
    // In one write, as clients do: each piece of a format would be a segment of its own.
    let request = format!("GET /work/{}/{id} HTTP/1.1\r\nHost: localhost\r\n\r\n", shape.label());
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..read]);
        if let Some(answer) = complete(&bytes, read == 0)? {
            return Ok(answer);
        }
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The answer, once all of it is there.
fn complete(bytes: &[u8], closed: bool) -> Result<Option<Answer>, Error> {
    let odd = |what: &str| Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(|e| odd(&e.to_string()))? else {
        return Ok(None);
    };
    let body = &bytes[length..];
    if head.code != Some(200) {
        return Err(odd(&format!("{:?}: {}", head.code, String::from_utf8_lossy(body))));
    }
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let keeps_open = head.version == Some(1) && !value("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    let body = match (value("content-length"), value("transfer-encoding")) {
        (Some(length), _) => {
            let length: usize = length.parse().map_err(|_| odd("a length that is no number"))?;
            body.get(..length).map(<[u8]>::to_vec)
        }
        (None, Some(_)) => chunks(body).map_err(odd)?,
        (None, None) => closed.then(|| body.to_vec()),
    };
    Ok(body.map(|body| Answer { body, keeps_open: keeps_open && !closed }))
}

/// The content of a chunked body, if it is all there; the services send no trailers.
fn chunks(mut wire: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    let mut content = Vec::new();
    loop {
        match httparse::parse_chunk_size(wire).map_err(|_| "a chunk without a size")? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete((start, size)) => {
                let size = usize::try_from(size).map_err(|_| "a chunk of more than there is")?;
                let Some(chunk) = wire.get(start..).filter(|rest| rest.len() >= size + 2) else { return Ok(None) };
                if size == 0 {
                    return Ok(Some(content));
                }
                content.extend_from_slice(&chunk[..size]);
                wire = &chunk[size + 2..];
            }
        }
    }
}

/// Whether the service itself kept its requests apart: without that there is no truth to hold the agent against.
fn check(shape: Shape, id: &str, body: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let all: Vec<_> = (0..shape.calls()).map(|n| format!("{id}/{n}")).collect();
    // A proxy answers with what the last call was answered.
    if text == all.join(" ") || all.last().is_some_and(|last| text == *last) {
        return Ok(());
    }
    Err(format!("{id} was answered with {text:?}"))
}

/// The services send fewer than ten.
const MOST_HEADERS: usize = 32;

/// The slowest answer takes a second; a service that is stuck is an error, not a hanging test.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &str, closed: bool) -> Option<String> {
        let answer = complete(bytes.as_bytes(), closed).expect("well-formed");
        answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned())
    }

    #[test]
    fn an_answer_is_whole_when_its_framing_says_so() {
        for (bytes, closed, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false, None),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false, Some("abc")),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n", false, None),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", false, Some("abc")),
            ("HTTP/1.0 200 OK\r\n\r\nabc", false, None),
            ("HTTP/1.0 200 OK\r\n\r\nabc", true, Some("abc")),
        ] {
            assert_eq!(body(bytes, closed).as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_answer_with_another_requests_calls_is_refused() {
        let (own, foreign) = ("a-1/0 a-1/1".as_bytes(), "a-1/0 a-2/1".as_bytes());
        assert_eq!(check(Shape::Sequence, "a-1", own), Ok(()));
        assert_eq!(check(Shape::Sequence, "a-1", b"a-1/1"), Ok(()));
        assert!(check(Shape::Sequence, "a-1", foreign).is_err());
    }
}
