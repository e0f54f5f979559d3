// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a reader makes of a file that uses no permission of RFC 9112 to be lenient.
//!
//! In: a file of the corpus. Out: its reading. Heads are taken apart by `httparse` as it comes; framing is this file's
//! own, written from the RFC and not from the parser under test. It has no limits.

use httparse::{Header, Request, Response};

use super::{Reading, method_of};

pub(super) fn read(name: &str, bytes: &[u8]) -> String {
    let (mut reading, mut rest) = (Reading::default(), bytes);
    let mut methods = [method_of(name), "GET"].into_iter();
    loop {
        let step = if name.starts_with("requests/") {
            request(rest, &mut reading)
        } else {
            // The empty ends and those who got their answer are done.
            let Some(method) = methods.next().filter(|_| !rest.is_empty()) else { return reading.finish(false) };
            response(rest, method, &mut reading)
        };
        match step {
            Step::Next(after) => rest = after,
            Step::Done => return reading.finish(false),
            Step::Refused => return reading.finish(true),
        }
    }
}

/// What follows a message.
enum Step<'a> {
    /// Another one may.
    Next(&'a [u8]),
    /// Nothing of this protocol, or nothing more.
    Done,
    Refused,
}

enum Framing {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

/// What can be said about a part of the input.
enum Part<'a> {
    Whole(&'a [u8]),
    Partial,
    Wrong,
}

fn request<'a>(bytes: &'a [u8], reading: &mut Reading) -> Step<'a> {
    let (head, rest) = match head(bytes) {
        Part::Whole(head) => (head, &bytes[head.len()..]),
        Part::Partial => return Step::Done,
        Part::Wrong => return Step::Refused,
    };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = Request::new(&mut fields);
    if !request.parse(head).is_ok_and(|status| status.is_complete()) {
        return Step::Refused;
    }
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Step::Refused;
    };
    // "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host
    // header field and to any request message that contains more than one Host header field line".
    let hosts = values(request.headers, "host").count();
    if hosts > 1 || version == 1 && hosts == 0 {
        return Step::Refused;
    }
    let framing = match framing(request.headers, version) {
        Some(Framing::UntilClose) => Framing::None,
        Some(framing) => framing,
        None => return Step::Refused,
    };
    let local = match target.split_once("://").and_then(|(_, rest)| rest.find('/').map(|at| &rest[at..])) {
        Some(path) => path,
        None if method == "CONNECT" => "",
        None => target,
    };
    reading.request(method, local);
    if method == "CONNECT" {
        return Step::Done;
    }
    body(rest, &framing)
}

fn response<'a>(bytes: &'a [u8], method: &str, reading: &mut Reading) -> Step<'a> {
    let (head, rest) = match head(bytes) {
        Part::Whole(head) => (head, &bytes[head.len()..]),
        Part::Partial => return Step::Done,
        Part::Wrong => return Step::Refused,
    };
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = Response::new(&mut fields);
    if !response.parse(head).is_ok_and(|status| status.is_complete()) {
        return Step::Refused;
    }
    // "status-code = 3DIGIT" of which the first defines the class: 1 to 5.
    let (Some(status @ 100..=599), Some(version)) = (response.code, response.version) else { return Step::Refused };
    let framing = match (method, status) {
        (_, 101) | ("CONNECT", 200..=299) => {
            reading.response(status, true);
            return Step::Done;
        }
        (_, 100..=199) => return self::response(rest, method, reading),
        ("HEAD", _) | (_, 204 | 304) => Framing::None,
        _ => match framing(response.headers, version) {
            Some(framing) => framing,
            None => return Step::Refused,
        },
    };
    let step = body(rest, &framing);
    match step {
        Step::Next(_) => reading.response(status, true),
        Step::Done => reading.response(status, matches!(framing, Framing::UntilClose)),
        Step::Refused => reading.response(status, false),
    }
    step
}

/// A head with CRLF at the end of every line and nowhere else.
fn head(bytes: &[u8]) -> Part<'_> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    let head = &bytes[..end.unwrap_or(bytes.len())];
    let bare = |(at, byte): (usize, &u8)| match byte {
        b'\n' => at == 0 || head[at - 1] != b'\r',
        b'\r' => head.get(at + 1).is_some_and(|next| *next != b'\n'),
        _ => false,
    };
    if head.iter().enumerate().any(bare) || head.starts_with(b"\r\n") {
        return Part::Wrong;
    }
    // A start line that is none needs no further line to be known for one.
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_start = line.is_empty() || line.windows(7).any(|seven| seven == b"HTTP/1.");
    match end {
        _ if !is_start => Part::Wrong,
        Some(_) => Part::Whole(head),
        None => Part::Partial,
    }
}

/// RFC 9112 section 6.3, with whatever it calls invalid or ambiguous refused.
fn framing(headers: &[Header<'_>], version: u8) -> Option<Framing> {
    let codings: Vec<_> = values(headers, "transfer-encoding").collect();
    let lengths: Vec<_> = values(headers, "content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Some(Framing::UntilClose),
        ([], [length]) if length.iter().all(u8::is_ascii_digit) => str::from_utf8(length)
            .ok()?
            .parse()
            .ok()
            .map(|length| if length == 0 { Framing::None } else { Framing::Length(length) }),
        ([coding], []) if version == 1 && coding.eq_ignore_ascii_case(b"chunked") => Some(Framing::Chunked),
        _ => None,
    }
}

fn values<'a>(headers: &'a [Header<'a>], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

fn body<'a>(bytes: &'a [u8], framing: &Framing) -> Step<'a> {
    match framing {
        Framing::None => Step::Next(bytes),
        Framing::Length(length) => bytes.get(*length..).map_or(Step::Done, Step::Next),
        Framing::Chunked => chunks(bytes),
        Framing::UntilClose => Step::Done,
    }
}

/// RFC 9112 section 7.1, by the letter.
fn chunks(mut bytes: &[u8]) -> Step<'_> {
    loop {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Step::Done };
        let Some(line) = bytes[..end].strip_suffix(b"\r") else { return Step::Refused };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit) && !line.contains(&b'\r');
        let size = str::from_utf8(size).ok().filter(|_| digits).and_then(|size| usize::from_str_radix(size, 16).ok());
        let Some(size) = size else { return Step::Refused };
        bytes = &bytes[end + 1..];
        if size == 0 {
            return trailers(bytes);
        }
        let Some(rest) = bytes.get(size..) else { return Step::Done };
        match rest {
            [b'\r', b'\n', rest @ ..] => bytes = rest,
            [] | [b'\r'] => return Step::Done,
            _ => return Step::Refused,
        }
    }
}

fn trailers(mut bytes: &[u8]) -> Step<'_> {
    loop {
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return Step::Done };
        let line = &bytes[..end];
        bytes = &bytes[end + 1..];
        match line {
            b"\r" => return Step::Next(bytes),
            [.., b'\r'] if line.contains(&b':') => {}
            _ => return Step::Refused,
        }
    }
}

/// More than any file has.
const MAX_FIELDS: usize = 256;
