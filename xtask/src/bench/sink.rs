// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A collector that answers and counts: OTLP over HTTP/1.1 with protobuf bodies.
//!
//! In: requests of an exporter. Out: an empty answer to each, and how many spans and bytes have come. It decodes no
//! more than the lengths that lead to the spans, and keeps nothing.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result};

/// A collector on a port of its own, for as long as this process lives.
pub(super) struct Sink {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    spans: AtomicU64,
    servers: AtomicU64,
    bytes: AtomicU64,
    first: OnceLock<Instant>,
}

impl Sink {
    /// Listens on loopback.
    pub(super) fn open() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("open a collector")?;
        let address = listener.local_addr().context("open a collector")?;
        let counts = Arc::<Counts>::default();
        let theirs = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counts = Arc::clone(&theirs);
                // An exporter that goes away ends its connection, and with it the thread.
                thread::spawn(move || serve(&stream, &counts));
            }
        });
        Ok(Self { address, counts })
    }

    /// What exporters are told.
    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spans so far.
    pub(super) fn spans(&self) -> u64 {
        self.counts.spans.load(Relaxed)
    }

    /// Spans of kind SERVER so far: requests served, however many spans of other kinds an agent makes of one.
    pub(super) fn servers(&self) -> u64 {
        self.counts.servers.load(Relaxed)
    }

    /// Bytes of bodies so far.
    pub(super) fn bytes(&self) -> u64 {
        self.counts.bytes.load(Relaxed)
    }

    /// When the first span came.
    pub(super) fn first(&self) -> Option<Instant> {
        self.counts.first.get().copied()
    }
}

/// Answers until the connection ends; None is its end.
fn serve(stream: &TcpStream, counts: &Counts) -> Option<()> {
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    let mut body = Vec::new();
    loop {
        body.clear();
        match framing(&mut reader)? {
            Framing::Length(length) => append(&mut reader, length, &mut body)?,
            // Node's exporter does not say how long it is.
            Framing::Chunked => while append_chunk(&mut reader, &mut body)? == More::Yes {},
        }
        let (all, servers) =
            spans(&body).fold((0, 0), |(all, servers), span| (all + 1, servers + u64::from(is_server(span))));
        counts.bytes.fetch_add(body.len() as u64, Relaxed);
        counts.spans.fetch_add(all, Relaxed);
        counts.servers.fetch_add(servers, Relaxed);
        if all > 0 {
            counts.first.get_or_init(Instant::now);
        }
        writer
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n")
            .ok()?;
    }
}

/// How a body ends.
enum Framing {
    Length(usize),
    Chunked,
}

/// Reads a request's head; how its body is framed.
fn framing(reader: &mut impl BufRead) -> Option<Framing> {
    let mut framing = None;
    loop {
        let line = line(reader)?;
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                framing = value.trim().parse().ok().map(Framing::Length);
            }
            Some((name, value)) if name.eq_ignore_ascii_case("transfer-encoding") => {
                framing = value.trim().eq_ignore_ascii_case("chunked").then_some(Framing::Chunked);
            }
            None if line.is_empty() => return framing,
            _ => {}
        }
    }
}

/// A line without its end; None at the end of the connection.
fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = reader.take(LONGEST_LINE).read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end().to_owned())
}

/// Whether another chunk follows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum More {
    Yes,
    No,
}

/// Reads a chunk with its line end (RFC 9112, section 7.1); exporters send no trailers.
fn append_chunk(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<More> {
    let size = line(reader)?;
    let length = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
    append(reader, length, body)?;
    line(reader)?;
    Some(if length == 0 { More::No } else { More::Yes })
}

fn append(reader: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> Option<()> {
    let before = body.len();
    let all = before.checked_add(length).filter(|all| *all <= LARGEST_BODY)?;
    body.resize(all, 0);
    reader.read_exact(&mut body[before..]).ok()
}

/// Spans in an `ExportTraceServiceRequest`: `resource_spans` (1), `scope_spans` (2), `spans` (2).
fn spans(request: &[u8]) -> impl Iterator<Item = &[u8]> {
    messages(request, 1).flat_map(|resource| messages(resource, 2)).flat_map(|scope| messages(scope, 2))
}

/// Whether the field `kind` (6) of a `Span` is `SPAN_KIND_SERVER` (2).
fn is_server(span: &[u8]) -> bool {
    fields(span).any(|(number, field)| matches!(field, Field::Number(2)) && number == 6)
}

/// The messages in the fields with this number.
fn messages(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |(number, field)| match field {
        Field::Bytes(content) if number == wanted => Some(content),
        Field::Bytes(_) | Field::Number(_) | Field::Fixed => None,
    })
}

/// What a field of a message holds, as far as it matters here.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

/// The fields of a message with their numbers; a malformed one ends early.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let tag = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)?),
            1 => bytes(&mut message, 8).map(|_| Field::Fixed)?,
            2 => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                Field::Bytes(bytes(&mut message, length)?)
            }
            5 => bytes(&mut message, 4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((tag >> 3, field))
    })
}

fn bytes<'a>(message: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (bytes, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some(bytes)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Exporters send batches below 3.5 MiB.
const LARGEST_BODY: usize = 4 << 20;

/// A line of a head.
const LONGEST_LINE: u64 = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a message, by number.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).expect("a short field")], content].concat()
    }

    #[test]
    fn spans_are_counted_across_scopes_and_resources() {
        let span = field(2, b"a span");
        let scope = field(2, &[field(1, b"a name"), span.clone(), span].concat());
        let resource = field(1, &[field(1, b"attributes"), scope.clone(), scope].concat());
        assert_eq!(spans(&[resource.clone(), resource].concat()).count(), 8);
    }

    #[test]
    fn a_request_served_is_told_from_other_spans_by_its_kind() {
        // After a field of eight bytes, and beside a name that holds the same bytes.
        let start = [7 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let (server, client) = ([6 << 3, 2], [6 << 3, 3]);
        assert!(is_server(&[&start[..], &server].concat()));
        assert!(!is_server(&[&field(5, &server)[..], &client].concat()));
        assert!(!is_server(b""));
    }

    #[test]
    fn a_malformed_request_has_the_spans_before_the_fault() {
        let whole = field(1, &field(2, &field(2, b"a span")));
        assert_eq!(spans(&whole).count(), 1);
        assert_eq!(spans(&whole[..whole.len() - 1]).count(), 0);
        assert_eq!(spans(&[0xff; 11]).count(), 0);
    }

    #[test]
    fn what_an_exporter_sends_is_answered_and_counted() {
        let sink = Sink::open().expect("loopback is there");
        let mut stream = TcpStream::connect(sink.address).expect("it listens");
        let body = field(1, &field(2, &field(2, b"a span")));
        let head = format!("POST /v1/traces HTTP/1.1\r\nHost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).expect("it reads");
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert_eq!((sink.spans(), sink.bytes()), (1, body.len() as u64));
        let (some, rest) = body.split_at(3);
        let head = "POST /v1/traces HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n";
        let sizes = [format!("\r\n{:x}\r\n", rest.len()), "\r\n0\r\n\r\n".to_owned()];
        let chunked = [head.as_bytes(), some, sizes[0].as_bytes(), rest, sizes[1].as_bytes()].concat();
        let mut stream = TcpStream::connect(sink.address).expect("it listens");
        stream.write_all(&chunked).expect("it reads");
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!((sink.spans(), sink.bytes()), (2, 2 * body.len() as u64));
        assert!(sink.first().is_some());
    }
}
