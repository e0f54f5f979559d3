// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Start lines and header fields.
//!
//! In: bytes at the start of a message, in any pieces. Out: the head, once it is complete, as borrowed parts with the
//! facts that framing and attributes need. It does not judge what the facts mean.

use std::{borrow::Cow, mem::MaybeUninit};

use httparse::{EMPTY_HEADER, Header, ParserConfig};
use memchr::memchr_iter;
use spantap_common::abi::HEADER_BUDGET;

use super::{Method, asked, propagation};
use crate::{context::TraceContext, protocol::Passed, time::Moment};

/// A head under way; nothing between messages, as most connections are at most times.
#[derive(Debug, Default)]
pub(super) struct Head(Option<Box<Begun>>);

/// A head of which the end is missing.
#[derive(Debug)]
struct Begun {
    start: Start,
    /// What came so far. Law: at most [`HEADER_BUDGET`] bytes.
    buffer: Vec<u8>,
    /// Bytes of `buffer` in which the end was looked for already.
    searched: usize,
}

/// The first byte of a head: the moment, and the position in its side's stream.
pub(super) type Start = (Moment, u32);

/// What has become of a head with one more piece.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Collected<'a> {
    /// It goes on; this is all of it so far.
    More(&'a [u8]),
    /// It is as long as is allowed and goes on.
    OverBudget(&'a [u8]),
    /// It ends in this piece, `used` bytes into it.
    Complete { head: &'a [u8], used: usize },
}

/// What the start of a line can still become.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    /// Not the line that was asked for.
    No,
    /// All that is there fits.
    Partial,
    /// It is that line, and complete.
    Line,
}

/// Why a complete head is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum HeadError {
    /// It breaks the grammar.
    Malformed,
    /// It has more than [`MAX_FIELDS`] fields.
    TooManyFields,
}

/// The version in a start line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Version {
    Http10,
    Http11,
}

/// A complete request head.
#[derive(Debug)]
pub(super) struct RequestHead<'a> {
    pub(super) method: Method,
    /// The method as it was sent.
    pub(super) token: &'a str,
    pub(super) target: &'a str,
    pub(super) version: Version,
    pub(super) fields: Fields<&'a [u8]>,
    /// Every field, for those that an operator asks for.
    pub(super) headers: &'a [Header<'a>],
    pub(super) context: Option<TraceContext>,
    pub(super) passed: Passed,
}

/// A complete response head.
#[derive(Debug)]
pub(super) struct ResponseHead<'a> {
    pub(super) status: u16,
    pub(super) version: Version,
    pub(super) fields: Fields<&'a [u8]>,
    /// Every field, for those that an operator asks for.
    pub(super) headers: &'a [Header<'a>],
}

/// The header fields that somebody reads, the first one of each name unless said otherwise. A value is its bytes, or where
/// they stand.
#[derive(Clone, Debug)]
pub(super) struct Fields<T> {
    /// A line is no field, but looks like one that delimits the message: somebody might take it for one.
    pub(super) disguised: bool,
    /// Of all Content-Length fields.
    pub(super) length: Length,
    /// Of all Transfer-Encoding fields.
    pub(super) coding: Coding,
    pub(super) host: Option<T>,
    pub(super) user_agent: Option<T>,
    pub(super) forwarded: Option<T>,
    pub(super) forwarded_for: Option<T>,
    pub(super) forwarded_host: Option<T>,
    pub(super) forwarded_proto: Option<T>,
    /// Who asks for the trace to be kept.
    pub(super) asked: Option<&'static str>,
}

/// What the Content-Length fields say together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Length {
    #[default]
    None,
    Valid(u64),
    /// No number, or different ones.
    Invalid,
}

/// The final transfer coding.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Coding {
    #[default]
    None,
    Chunked,
    Other,
}

// --- Head ---

impl Head {
    /// Whether the next byte would be the first of a message.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Its first byte, once that has come.
    pub(super) fn start(&self) -> Option<Start> {
        self.0.as_ref().map(|begun| begun.start)
    }

    /// Takes a piece, which must not be empty, and begins at `start` if nothing came before. A head that ends in its first
    /// piece is handed out in place.
    pub(super) fn collect<'a>(&'a mut self, piece: &'a [u8], start: Start) -> Collected<'a> {
        if self.is_empty()
            && let Some(end) = end_of_head(within_budget(piece), 0)
        {
            return Collected::Complete { head: &piece[..end], used: end };
        }
        let begun = self.0.get_or_insert_with(|| Box::new(Begun { start, buffer: Vec::new(), searched: 0 }));
        let Begun { buffer, searched, .. } = &mut **begun;
        let held = buffer.len();
        let taken = piece.len().min(HEADER_BUDGET - held);
        buffer.extend_from_slice(&piece[..taken]);
        if let Some(end) = end_of_head(buffer, *searched) {
            return Collected::Complete { head: &buffer[..end], used: end - held };
        }
        *searched = buffer.len().saturating_sub(LONGEST_END);
        if buffer.len() == HEADER_BUDGET { Collected::OverBudget(buffer) } else { Collected::More(buffer) }
    }

    /// What came so far of a head that is not complete.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |begun| &begun.buffer)
    }
}

/// Blank lines at the start of `bytes`, in bytes. "In the interest of robustness, a server that is expecting to receive
/// and parse a request-line SHOULD ignore at least one empty line (CRLF) received prior to the request-line."
/// <https://www.rfc-editor.org/rfc/rfc9112#section-2.2>
pub(super) fn blank_lines(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len())
}

/// Whether `bytes` start with a request line: `method SP target SP HTTP/1.x`. Cutting `bytes` never turns a
/// [`Look::Line`] into a [`Look::No`].
pub(super) fn looks_like_request(bytes: &[u8]) -> Look {
    let line = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => &bytes[..end],
        None => {
            let method = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
            let fits = bytes[..method].iter().all(|byte| is_token(*byte)) && (method > 0 || bytes.is_empty());
            return if fits { Look::Partial } else { Look::No };
        }
    };
    let method = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let ends_well = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    let fits = method > 0 && line[..method.min(line.len())].iter().all(|byte| is_token(*byte)) && ends_well;
    if fits { Look::Line } else { Look::No }
}

/// Whether `bytes` start as a status line does: `HTTP/1.x SP status`.
pub(super) fn looks_like_response(bytes: &[u8]) -> Look {
    const LINE: &[u8; 12] = b"HTTP/1.x 000";
    let fits = bytes.iter().zip(LINE).all(|(byte, expected)| match expected {
        b'x' => matches!(byte, b'0' | b'1'),
        b'0' => byte.is_ascii_digit(),
        _ => byte == expected,
    });
    match fits {
        false => Look::No,
        true if bytes.len() < LINE.len() => Look::Partial,
        true => Look::Line,
    }
}

/// The method at the start of a head that will never be complete.
pub(super) fn method_of(bytes: &[u8]) -> Option<Method> {
    let token = &bytes[..bytes.iter().position(|byte| *byte == b' ')?];
    Some(Method::parse(str::from_utf8(token).ok()?))
}

/// The status at the start of a head that will never be complete.
pub(super) fn status_of(bytes: &[u8]) -> Option<u16> {
    match looks_like_response(bytes) {
        Look::Line => str::from_utf8(&bytes[9..12]).ok()?.parse().ok(),
        Look::No | Look::Partial => None,
    }
}

/// Takes a complete request head apart and hands it to `read`.
pub(super) fn request<T>(head: &[u8], read: impl FnOnce(&mut RequestHead<'_>) -> T) -> Result<T, HeadError> {
    let (head, lines) = repaired(head);
    let mut fields = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    let mut config = ParserConfig::default();
    // "recipients MAY instead parse on whitespace-delimited word boundaries".
    // https://www.rfc-editor.org/rfc/rfc9112#section-3
    config.allow_multiple_spaces_in_request_line_delimiters(true);
    // One bad field is the server's to judge; the rest of the head says enough for a span.
    config.ignore_invalid_headers_in_requests(true);
    let complete = config.parse_request_with_uninit_headers(&mut parsed, &head, &mut fields)?.is_complete();
    let (true, Some(token), Some(target), Some(minor)) = (complete, parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::Malformed);
    };
    let named = |name: &'static str| {
        parsed.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let (context, passed) =
        propagation::read(TraceContext::parse(named("traceparent"), named("tracestate")), parsed.headers);
    Ok(read(&mut RequestHead {
        method: Method::parse(token),
        token,
        target,
        version: Version::of(minor),
        fields: Fields::of(parsed.headers, &head, lines),
        headers: parsed.headers,
        context,
        passed,
    }))
}

/// Takes a complete response head apart and hands it to `read`.
pub(super) fn response<T>(head: &[u8], read: impl FnOnce(&ResponseHead<'_>) -> T) -> Result<T, HeadError> {
    let (head, lines) = repaired(head);
    let mut fields = [EMPTY_HEADER; 0];
    let mut parsed = httparse::Response::new(&mut fields);
    let mut fields = [MaybeUninit::uninit(); MAX_FIELDS];
    let mut config = ParserConfig::default();
    // "A proxy MUST remove any such whitespace from a response message before forwarding the message downstream."
    // https://www.rfc-editor.org/rfc/rfc9112#section-5.1
    config.allow_spaces_after_header_name_in_responses(true);
    config.ignore_invalid_headers_in_responses(true);
    let complete = config.parse_response_with_uninit_headers(&mut parsed, &head, &mut fields)?.is_complete();
    let (true, Some(status @ 100..), Some(minor)) = (complete, parsed.code, parsed.version) else {
        return Err(HeadError::Malformed);
    };
    let (version, fields) = (Version::of(minor), Fields::of(parsed.headers, &head, lines));
    Ok(read(&ResponseHead { status, version, fields, headers: parsed.headers }))
}

/// The longest end of a head: the last field's CRLF and an empty line.
const LONGEST_END: usize = b"\r\n\r\n".len();

/// Fields of one head. Apache allows 100; a browser behind two proxies sends about 40. The table lives on the stack.
const MAX_FIELDS: usize = 128;

fn within_budget(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(HEADER_BUDGET)]
}

/// Where the empty line after the fields ends, looked for from `from` on.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..]).find_map(|newline| {
        let at = from + newline + 1;
        // "a recipient MAY recognize a single LF as a line terminator and ignore any preceding CR."
        // https://www.rfc-editor.org/rfc/rfc9112#section-2.2
        match bytes[at..] {
            [b'\n', ..] => Some(at + 1),
            [b'\r', b'\n', ..] => Some(at + 2),
            _ => None,
        }
    })
}

/// The head as `httparse` can read it: without folded lines, and with a start line that is UTF-8; and how many lines it
/// has. It is copied only if something had to be mended.
fn repaired(head: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let (mut start_line, mut lines, mut folded) = (head.len(), 0, false);
    for newline in memchr_iter(b'\n', head) {
        if lines == 0 {
            start_line = newline + 1;
        }
        lines += 1;
        // From the end of the start line on: a fold is a line that begins with a blank.
        folded |= matches!(head.get(newline + 1), Some(b' ' | b'\t'));
    }
    let (start_line, fields) = head.split_at(start_line);
    if !folded && str::from_utf8(start_line).is_ok() {
        return (Cow::Borrowed(head), lines);
    }
    let mut mended = String::from_utf8_lossy(start_line).into_owned().into_bytes();
    let mut first = true;
    for line in fields.split_inclusive(|byte| *byte == b'\n') {
        match line {
            // "A recipient that receives whitespace between the start-line and the first header field MUST either
            // reject the message as invalid or consume each whitespace-preceded line without further processing".
            // https://www.rfc-editor.org/rfc/rfc9112#section-2.2
            [b' ' | b'\t', ..] if first => continue,
            // "A server that receives an obs-fold in a request message […] MUST either reject the message […] or
            // replace each received obs-fold with one or more SP octets prior to interpreting the field value".
            // https://www.rfc-editor.org/rfc/rfc9112#section-5.2
            [b' ' | b'\t', ..] => {
                while let Some(b'\r' | b'\n') = mended.last() {
                    mended.pop();
                }
                mended.extend_from_slice(line);
            }
            _ => mended.extend_from_slice(line),
        }
        first = false;
    }
    let lines = memchr_iter(b'\n', &mended).count();
    (Cow::Owned(mended), lines)
}

/// Whether `head`, of so many lines, has more of them that begin like a Content-Length or a Transfer-Encoding than
/// `headers` has such fields.
fn has_disguised_field(head: &[u8], lines: usize, headers: &[Header<'_>]) -> bool {
    // The start line, a line for each field, the empty line: none was skipped.
    if lines <= headers.len() + 2 {
        return false;
    }
    let delimits =
        |name: &[u8]| name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding");
    let similar = head.split(|byte| *byte == b'\n').filter(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let start = name.iter().position(|byte| is_token(*byte)).unwrap_or(name.len());
        let end = name.iter().rposition(|byte| is_token(*byte)).map_or(start, |last| last + 1);
        delimits(&name[start..end])
    });
    similar.count() > headers.iter().filter(|header| delimits(header.name.as_bytes())).count()
}

/// "token = 1*tchar" (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Version {
    fn of(minor: u8) -> Self {
        if minor == 0 { Self::Http10 } else { Self::Http11 }
    }

    /// The value of `network.protocol.version`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }
}

impl From<httparse::Error> for HeadError {
    fn from(error: httparse::Error) -> Self {
        match error {
            httparse::Error::TooManyHeaders => Self::TooManyFields,
            _ => Self::Malformed,
        }
    }
}

// --- Fields ---

impl<T> Default for Fields<T> {
    fn default() -> Self {
        Self {
            disguised: false,
            length: Length::default(),
            coding: Coding::default(),
            host: None,
            user_agent: None,
            forwarded: None,
            forwarded_for: None,
            forwarded_host: None,
            forwarded_proto: None,
            asked: None,
        }
    }
}

impl<T: Copy> Fields<T> {
    /// The same fields, with what `of` makes of each value; nothing where it makes nothing of one.
    pub(super) fn try_map<U>(&self, of: impl Fn(T) -> Option<U>) -> Option<Fields<U>> {
        let value = |value: Option<T>| match value {
            Some(value) => of(value).map(Some),
            None => Some(None),
        };
        Some(Fields {
            disguised: self.disguised,
            length: self.length,
            coding: self.coding,
            host: value(self.host)?,
            user_agent: value(self.user_agent)?,
            forwarded: value(self.forwarded)?,
            forwarded_for: value(self.forwarded_for)?,
            forwarded_host: value(self.forwarded_host)?,
            forwarded_proto: value(self.forwarded_proto)?,
            asked: self.asked,
        })
    }
}

impl<'a> Fields<&'a [u8]> {
    /// What `headers` say, which are all fields of `head`, a text of so many lines.
    fn of(headers: &[Header<'a>], head: &[u8], lines: usize) -> Self {
        let mut fields = Self { disguised: has_disguised_field(head, lines, headers), ..Self::default() };
        for Header { name, value } in headers {
            let first = |field: &mut Option<&'a [u8]>| *field = field.or(Some(value));
            fields.asked = fields.asked.or_else(|| asked::by(name, value));
            // The length tells most fields apart without looking at them.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => first(&mut fields.host),
                9 if name.eq_ignore_ascii_case("forwarded") => first(&mut fields.forwarded),
                10 if name.eq_ignore_ascii_case("user-agent") => first(&mut fields.user_agent),
                14 if name.eq_ignore_ascii_case("content-length") => fields.length = fields.length.with(value),
                15 if name.eq_ignore_ascii_case("x-forwarded-for") => first(&mut fields.forwarded_for),
                16 if name.eq_ignore_ascii_case("x-forwarded-host") => first(&mut fields.forwarded_host),
                17 if name.eq_ignore_ascii_case("x-forwarded-proto") => first(&mut fields.forwarded_proto),
                17 if name.eq_ignore_ascii_case("transfer-encoding") => fields.coding = fields.coding.with(value),
                _ => {}
            }
        }
        fields
    }
}

impl Length {
    /// Together with one more field, which may be a list.
    fn with(self, value: &[u8]) -> Self {
        value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).fold(self, |length, number| {
            // "Content-Length = 1*DIGIT" (RFC 9110 section 8.6): no sign, which a number's parser would take.
            let digits = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
            match str::from_utf8(number).ok().filter(|_| digits).and_then(|number| number.parse().ok()) {
                Some(number) if matches!(length, Self::None) || length == Self::Valid(number) => Self::Valid(number),
                _ => Self::Invalid,
            }
        })
    }
}

impl Coding {
    /// Followed by one more field, which may be a list.
    fn with(self, value: &[u8]) -> Self {
        let codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        codings
            .filter(|coding| !coding.is_empty())
            .fold(self, |_, coding| if coding.eq_ignore_ascii_case(b"chunked") { Self::Chunked } else { Self::Other })
    }
}
