// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whoever asks, and what it knows to be true.
//!
//! In: numbers. Out: [`Answered`] requests, each checked to the last byte and timed. It does not know the agent; its
//! two ways to ask are keep-alive connections of this process, and curl.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio, id},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

/// What is asked for. The last digit of the number says everything about it: see [`Request::numbered`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    /// Unique; the last part of every path.
    pub(crate) id: String,
    /// What the backend will say.
    pub(crate) status: u16,
    /// With a body it is a POST.
    pub(crate) body: Option<String>,
    /// What its `traceparent` says.
    pub(crate) context: Option<Context>,
}

/// The ids of a `traceparent`, as lower-case hex.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Context {
    /// 16 bytes.
    pub(crate) trace: String,
    /// 8 bytes.
    pub(crate) parent: String,
}

/// A request that was answered as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    /// What was asked.
    pub(crate) request: Request,
    /// From before the first byte of the request to after the last byte of the response.
    pub(crate) took: Duration,
}

impl Request {
    /// Request `number` of those named `tag`: 7 finds a 404 and 3 a 500, 0 posts, 5 is answered in chunks, 8 brings a
    /// context, 9 is answered at length; the rest are plain.
    pub(crate) fn numbered(tag: &str, number: usize) -> Self {
        let last = number % 10;
        let context = || Context {
            trace: format!("{:016x}{number:016x}", hash(tag)),
            parent: format!("{:08x}{number:08x}", hash(tag) as u32),
        };
        Self {
            id: format!("{tag}-{number:06}"),
            status: match last {
                7 => 404,
                3 => 500,
                _ => 200,
            },
            body: (last == 0).then(|| format!("posted by {tag} {}", "+".repeat(600))),
            context: (last == 8).then(context),
        }
    }

    /// GET or POST.
    pub(crate) fn method(&self) -> &'static str {
        if self.body.is_some() { "POST" } else { "GET" }
    }

    /// The body of its answer: what `backend.py` makes of it.
    fn answer(&self) -> Vec<u8> {
        let filler = if self.id.ends_with('9') { ".".repeat(10 * 1024) } else { String::new() };
        format!("/b/{} {}\n{}{filler}", self.id, self.method(), self.body.as_deref().unwrap_or_default()).into_bytes()
    }

    fn check(&self, status: u16, body: &[u8]) -> Result<(), String> {
        if status == self.status && body == self.answer() {
            return Ok(());
        }
        let head = String::from_utf8_lossy(&body[..body.len().min(100)]);
        Err(format!("{}: {status} instead of {}, {} bytes of body: {head:?}", self.id, self.status, body.len()))
    }
}

impl Context {
    fn header(&self) -> String {
        format!("00-{}-{}-01", self.trace, self.parent)
    }
}

// --- Keep-alive connections of this process ---

/// Asks on several connections at once, one thread each.
pub(crate) struct Client {
    connections: Vec<Connection>,
}

impl Client {
    /// Connects `count` times.
    pub(crate) fn connect(port: u16, count: usize) -> Result<Self, String> {
        let connections = (0..count).map(|_| Connection::open(port)).collect::<Result<_, _>>();
        Ok(Self { connections: connections.map_err(|e| format!("connect to port {port}: {e}"))? })
    }

    /// Asks for everything in `requests`; whichever connection is free takes the next. The first wrong answer ends it.
    pub(crate) fn ask(&mut self, requests: &[Request]) -> Result<Vec<Answered>, String> {
        let next = AtomicUsize::new(0);
        let next_request = || requests.get(next.fetch_add(1, Ordering::Relaxed));
        let results: Vec<Result<Vec<_>, _>> = thread::scope(|scope| {
            let ask_all = |connection: &mut Connection| {
                std::iter::from_fn(next_request).map(|request| connection.ask(request)).collect()
            };
            let threads: Vec<_> = self.connections.iter_mut().map(|c| scope.spawn(move || ask_all(c))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err("a client thread panicked".to_owned()))
            };
            threads.into_iter().map(join).collect()
        });
        Ok(results.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
    }
}

/// One connection, opened again when the server has ended it in order.
struct Connection {
    port: u16,
    stream: TcpStream,
    /// Received, but not yet part of an answer.
    buffer: Vec<u8>,
}

impl Connection {
    fn open(port: u16) -> Result<Self, Error> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        Ok(Self { port, stream, buffer: Vec::new() })
    }

    fn ask(&mut self, request: &Request) -> Result<Answered, String> {
        let bytes = wire_form(request, self.port);
        let start = Instant::now();
        let answer = self.stream.write_all(&bytes).and_then(|()| self.read_answer());
        let took = start.elapsed();
        let answer = answer.map_err(|e| format!("{}: {e}", request.id))?;
        request.check(answer.status, &answer.body)?;
        if answer.closes {
            *self = Self::open(self.port).map_err(|e| format!("connect again: {e}"))?;
        }
        Ok(Answered { request: request.clone(), took })
    }

    fn read_answer(&mut self) -> Result<Answer, Error> {
        let head = loop {
            match parse_head(&self.buffer)? {
                Some(head) => break head,
                None => self.fill()?,
            }
        };
        self.buffer.drain(..head.length);
        let body = match head.framing {
            Framing::Length(length) => self.take(length)?,
            Framing::Chunked => self.take_chunks()?,
        };
        Ok(Answer { status: head.status, closes: head.closes, body })
    }

    fn take_chunks(&mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            let (start, length) = loop {
                match httparse::parse_chunk_size(&self.buffer).map_err(|_| malformed("chunk size"))? {
                    httparse::Status::Complete(chunk) => break chunk,
                    httparse::Status::Partial => self.fill()?,
                }
            };
            self.buffer.drain(..start);
            let length = usize::try_from(length).map_err(|_| malformed("chunk size"))?;
            body.extend(self.take(length)?);
            // No service here sends trailers, so an empty line follows the last chunk too.
            if self.take(2)? != b"\r\n" {
                return Err(malformed("chunk end"));
            }
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill(&mut self) -> Result<(), Error> {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&bytes[..read]);
                Ok(())
            }
        }
    }
}

struct Answer {
    status: u16,
    closes: bool,
    body: Vec<u8>,
}

struct Head {
    length: usize,
    status: u16,
    closes: bool,
    framing: Framing,
}

enum Framing {
    Length(usize),
    Chunked,
}

fn parse_head(buffer: &[u8]) -> Result<Option<Head>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(buffer).map_err(|_| malformed("head"))? else {
        return Ok(None);
    };
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let framing = match value("content-length") {
        Some(length) => Framing::Length(length.parse().map_err(|_| malformed("Content-Length"))?),
        None if value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) => Framing::Chunked,
        None => return Err(malformed("framing")),
    };
    let closes = value("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
    Ok(Some(Head { length, status: response.code.unwrap_or_default(), closes, framing }))
}

fn wire_form(request: &Request, port: u16) -> Vec<u8> {
    let mut text = format!("{} /a/{} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n", request.method(), request.id);
    if let Some(context) = &request.context {
        text += &format!("traceparent: {}\r\n", context.header());
    }
    match &request.body {
        Some(body) => text += &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        None => text += "\r\n",
    }
    text.into_bytes()
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("malformed {what}"))
}

// --- curl ---

/// Asks for everything in `requests` with one curl process, on one connection. Out: the process and the answers.
pub(crate) fn curl(port: u16, requests: &[Request]) -> Result<(u32, Vec<Answered>), String> {
    let mut command = Command::new("curl");
    for (index, request) in requests.iter().enumerate() {
        if index > 0 {
            command.arg("--next");
        }
        // Its own clock, from before the first byte of the request to the last byte of the response.
        command.args([
            "--silent",
            "--max-time",
            CURL_DEADLINE,
            "--write-out",
            "\n%{http_code} %{num_connects} %{time_pretransfer} %{time_total}\n",
        ]);
        if let Some(body) = &request.body {
            command.args(["--data-binary", body]);
        }
        if let Some(context) = &request.context {
            command.args(["--header", &format!("traceparent: {}", context.header())]);
        }
        command.arg(format!("http://127.0.0.1:{port}/a/{}", request.id));
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| format!("start curl: {e}"))?;
    let pid = child.id();
    let output = child.wait_with_output().map_err(|e| format!("wait for curl: {e}"))?;
    if !output.status.success() {
        return Err(format!("curl: {}", output.status));
    }
    let mut said = output.stdout.as_slice();
    let mut answered = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let (answer, rest) = split_answer(said, request).ok_or_else(|| {
            format!("{}: curl said {:?}", request.id, String::from_utf8_lossy(&said[..said.len().min(200)]))
        })?;
        request.check(answer.status, &answer.body)?;
        let expected = usize::from(index == 0);
        if answer.connects != expected {
            return Err(format!("{}: curl opened {} connections instead of {expected}", request.id, answer.connects));
        }
        answered.push(Answered { request: request.clone(), took: answer.took });
        said = rest;
    }
    Ok((pid, answered))
}

struct CurlAnswer {
    status: u16,
    connects: usize,
    took: Duration,
    body: Vec<u8>,
}

/// What curl says of one request is the body, which is known, and a line.
fn split_answer<'a>(said: &'a [u8], request: &Request) -> Option<(CurlAnswer, &'a [u8])> {
    let (body, rest) = said.split_at_checked(request.answer().len())?;
    let rest = rest.strip_prefix(b"\n")?;
    let (line, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'\n')? + 1);
    let mut fields = std::str::from_utf8(line).ok()?.split_whitespace();
    let status = fields.next()?.parse().ok()?;
    let connects = fields.next()?.parse().ok()?;
    let before: f64 = fields.next()?.parse().ok()?;
    let total: f64 = fields.next()?.parse().ok()?;
    let took = Duration::try_from_secs_f64(total - before).ok()?;
    Some((CurlAnswer { status, connects, took, body: body.to_vec() }, rest))
}

/// FNV-1a: requests of different tags, and of different test processes, never share an id.
fn hash(tag: &str) -> u64 {
    let seed = 0xcbf2_9ce4_8422_2325 ^ u64::from(id());
    tag.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A request takes some milliseconds; a service that is stuck is an error, not a hanging test.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The same for curl, in its seconds.
const CURL_DEADLINE: &str = "20";

/// The services send fewer than ten.
const MAX_HEADERS: usize = 32;
