// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a message ends.
//!
//! In: the facts of a head, then the bytes of the body, or the number of those that were not seen. Out: how many bytes
//! belong to the message, and whether it is complete. It keeps no byte of a body, but for the last few of one whose
//! chunks it can no longer follow.

use std::mem;

use super::{
    Method,
    head::{Coding, Length, RequestHead, ResponseHead, Version},
};

/// How a message is delimited, as its head says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// There is no body.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunks, then trailers.
    Chunked,
    /// Everything until the sender ends the connection.
    UntilClose,
    /// The message is complete and what follows is no HTTP/1.
    Tunnel,
    /// The head contradicts itself: what follows cannot be delimited.
    Faulty,
    /// The head would have to be read together with a request that was not seen.
    Unknown,
}

/// A body under way.
#[derive(Debug)]
pub(super) enum Body {
    /// This many bytes are left. Law: at least one.
    Length(u64),
    /// Inside the chunked coding.
    Chunked(Chunks),
    /// Somewhere inside the chunked coding: bytes are missing where a chunk's size had to be read.
    Blind(Window),
    /// Nothing but the end of the connection ends it.
    UntilClose,
}

/// What became of the bytes given to a [`Body`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Advance {
    /// All of them belong to it.
    More,
    /// This many of them were its last.
    Done(usize),
    /// They are no chunked coding.
    Broken,
}

/// A position in the chunked coding (RFC 9112 section 7.1).
///
/// ```text
///  Size ──;ext──> Extension          Trailer ──empty line──> done
///    │                │                 ^
///    └── LF, size > 0 ┴─> Data ─> End   │
///    │                             │    │
///    │<────────── LF ──────────────┘    │
///    └── LF, size = 0 ──────────────────┘
/// ```
#[derive(Debug)]
pub(super) struct Chunks {
    place: Place,
    /// Bytes of all chunks so far, as their sizes say.
    data: u64,
    /// Bytes of the current chunk-size line or of the trailer section. Law: at most the budget of either.
    overhead: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Size { size: u64, digits: bool },
    Extension { size: u64 },
    Data { left: u64 },
    End,
    Trailer { empty: bool },
}

/// The last bytes of a body in the chunked coding, as far as they were seen without a hole.
#[derive(Debug, Default)]
pub(super) struct Window {
    bytes: [u8; LAST_CHUNK.len()],
    /// Valid bytes at the end of `bytes`.
    length: usize,
}

// --- Framing ---

impl Framing {
    /// RFC 9112 section 6.3, for a request.
    pub(super) fn of_request(head: &RequestHead<'_>) -> Self {
        match (head.fields.coding, head.fields.length) {
            // "A server MUST reject, with a response status code of 400 (Bad Request), any received request message
            // that contains whitespace between a header field name and colon."
            // https://www.rfc-editor.org/rfc/rfc9112#section-5.1
            _ if head.fields.disguised => Self::Faulty,
            // "A server or client that receives an HTTP/1.0 message containing a Transfer-Encoding header field MUST
            // treat the message as if the framing is faulty, even if a Content-Length is present, and close the
            // connection after processing the message." https://www.rfc-editor.org/rfc/rfc9112#section-6.1
            (Coding::Chunked | Coding::Other, _) if head.version == Version::Http10 => Self::Faulty,
            // "If a message is received with both a Transfer-Encoding and a Content-Length header field, the
            // Transfer-Encoding overrides the Content-Length." https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Coding::Chunked, _) => Self::Chunked,
            // "If a Transfer-Encoding header field is present in a request and the chunked transfer coding is not the
            // final encoding, the message body length cannot be determined reliably; the server MUST respond with the
            // 400 (Bad Request) status code and then close the connection."
            // https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Coding::Other, _) => Self::Faulty,
            // "If a message is received without Transfer-Encoding and with an invalid Content-Length header field, then
            // the message framing is invalid and the recipient MUST treat it as an unrecoverable error, unless the
            // field value can be successfully parsed as a comma-separated list […], all values in the list are valid, and
            // all values in the list are the same". https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Coding::None, Length::Invalid) => Self::Faulty,
            (Coding::None, length) => Self::counted(length).unwrap_or(Self::None),
        }
    }

    /// RFC 9112 section 6.3, for a response to a request of `method`; of none where that was not seen.
    pub(super) fn of_response(head: &ResponseHead<'_>, method: Option<Method>) -> Self {
        match (method, head.status) {
            // "A server that sends a 101 (Switching Protocols) response MUST send an Upgrade header field to indicate
            // the new protocol(s) to which the connection is being switched".
            // https://www.rfc-editor.org/rfc/rfc9110#section-7.8
            (_, 101) => return Self::Tunnel,
            // "Any 2xx (Successful) response to a CONNECT request implies that the connection will become a tunnel
            // immediately after the empty line that concludes the header fields."
            // https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Some(Method::Connect), 200..=299) => return Self::Tunnel,
            // "Any response to a HEAD request and any response with a 1xx (Informational), 204 (No Content), or 304
            // (Not Modified) status code is always terminated by the first empty line after the header fields,
            // regardless of the header fields present in the message, and thus cannot contain a message body or
            // trailer section." https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Some(Method::Head), _) | (_, 100..=199 | 204 | 304) => return Self::None,
            _ => {}
        }
        let framing = match (head.fields.coding, head.fields.length) {
            // As for requests: nobody knows which length the client takes.
            _ if head.fields.disguised => Self::Faulty,
            // As for requests: faulty, hence the last message of its connection.
            (Coding::Chunked | Coding::Other, _) if head.version == Version::Http10 => Self::UntilClose,
            (Coding::Chunked, _) => Self::Chunked,
            // "If a Transfer-Encoding header field is present in a response and the chunked transfer coding is not the
            // final encoding, the message body length is determined by reading the connection until it is closed by
            // the server." https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Coding::Other, _) => Self::UntilClose,
            // "If it is in a response message received by a user agent, the user agent MUST close the connection to
            // the server and discard the received response." https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Coding::None, Length::Invalid) => Self::Faulty,
            // "Otherwise, this is a response message without a declared message body length, so the message body
            // length is determined by the number of octets received prior to the server closing the connection."
            // https://www.rfc-editor.org/rfc/rfc9112#section-6.3
            (Coding::None, length) => Self::counted(length).unwrap_or(Self::UntilClose),
        };
        // Had it been a HEAD, there would be no body.
        if method.is_none() && framing != Self::None { Self::Unknown } else { framing }
    }

    fn counted(length: Length) -> Option<Self> {
        match length {
            Length::Valid(0) => Some(Self::None),
            Length::Valid(length) => Some(Self::Length(length)),
            Length::None | Length::Invalid => None,
        }
    }
}

// --- Body ---

impl Body {
    /// Bytes that were seen.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Advance {
        match self {
            Self::Length(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX);
                if here <= bytes.len() {
                    return Advance::Done(here);
                }
                *left -= bytes.len() as u64;
                Advance::More
            }
            Self::Chunked(chunks) => chunks.advance(bytes),
            Self::Blind(window) => {
                window.push(bytes);
                if window.ends() { Advance::Done(bytes.len()) } else { Advance::More }
            }
            Self::UntilClose => Advance::More,
        }
    }

    /// Bytes of it that are known to come and need not be looked at; `u64::MAX` where nothing but the end of the connection
    /// ends it.
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Length(left) | Self::Chunked(Chunks { place: Place::Data { left }, .. }) => *left,
            Self::Chunked(_) | Self::Blind(_) => 0,
            Self::UntilClose => u64::MAX,
        }
    }

    /// Bytes of the whole body, now that it is complete; `announced` is what its head said.
    pub(super) fn size(&self, announced: u64) -> Option<u64> {
        match self {
            Self::Length(_) => Some(announced),
            Self::Chunked(chunks) => Some(chunks.data),
            Self::Blind(_) | Self::UntilClose => None,
        }
    }

    /// Counts off bytes that were not seen, as many of `missing` as need no reading: the number of those that are left,
    /// and whether the body is complete.
    pub(super) fn skip(&mut self, missing: u64) -> (u64, bool) {
        match self {
            Self::Length(left) if *left <= missing => (missing - *left, true),
            Self::Length(left) => {
                *left -= missing;
                (0, false)
            }
            Self::Chunked(chunks) => (chunks.skip(missing), false),
            Self::Blind(_) => (missing, false),
            Self::UntilClose => (0, false),
        }
    }

    /// `missing` bytes were not seen where the chunked coding had to be read; `tail` is the last of them. Whether the
    /// body ends with them.
    pub(super) fn lose(&mut self, missing: u64, tail: &[u8]) -> bool {
        let mut window = match self {
            Self::Blind(window) if missing <= tail.len() as u64 => mem::take(window),
            _ => Window::default(),
        };
        window.push(tail);
        let ends = window.ends();
        *self = Self::Blind(window);
        ends
    }
}

// --- Chunks ---

impl Chunks {
    /// At the first chunk's size.
    pub(super) fn new() -> Self {
        Self { place: Place::SIZE, data: 0, overhead: 0 }
    }

    fn advance(&mut self, bytes: &[u8]) -> Advance {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let Place::Data { left } = &mut self.place {
                let step = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                *left -= step as u64;
                at += step;
                if *left == 0 {
                    self.place = Place::End;
                }
                continue;
            }
            at += 1;
            self.overhead += 1;
            match self.line(*byte) {
                Some(false) => {}
                Some(true) => return Advance::Done(at),
                None => return Advance::Broken,
            }
        }
        Advance::More
    }

    /// One byte outside of chunk data: whether it was the last of the body; none when it cannot stand there.
    fn line(&mut self, byte: u8) -> Option<bool> {
        // "A recipient MAY recognize a single LF as a line terminator and ignore any preceding CR."
        // https://www.rfc-editor.org/rfc/rfc9112#section-2.2
        self.place = match (self.place, byte) {
            (Place::Size { digits: true, size } | Place::Extension { size }, b'\n') => {
                self.overhead = 0;
                self.data = self.data.saturating_add(size);
                if size == 0 { Place::Trailer { empty: true } } else { Place::Data { left: size } }
            }
            // "A recipient MUST ignore unrecognized chunk extensions."
            // https://www.rfc-editor.org/rfc/rfc9112#section-7.1.1
            (Place::Size { digits: true, size }, b'\r' | b';' | b' ' | b'\t') => Place::Extension { size },
            (Place::Size { size, .. }, digit) => {
                let digit = char::from(digit).to_digit(16)?;
                // "recipients MUST anticipate potentially large hexadecimal numerals and prevent parsing errors due to
                // integer conversion overflows". https://www.rfc-editor.org/rfc/rfc9112#section-7.1
                Place::Size { size: size.checked_mul(16)?.checked_add(digit.into())?, digits: true }
            }
            (Place::End, b'\r') => Place::End,
            (Place::End, b'\n') => {
                self.overhead = 0;
                Place::SIZE
            }
            (Place::End, _) => return None,
            (Place::Trailer { empty: true }, b'\n') => return Some(true),
            (Place::Trailer { .. }, b'\n') => Place::Trailer { empty: true },
            (place @ Place::Trailer { .. }, b'\r') => place,
            (Place::Trailer { .. }, _) => Place::Trailer { empty: false },
            (place @ (Place::Extension { .. } | Place::Data { .. }), _) => place,
        };
        let budget = if matches!(self.place, Place::Trailer { .. }) { TRAILER_BUDGET } else { CHUNK_LINE_BUDGET };
        (self.overhead <= budget).then_some(false)
    }

    fn skip(&mut self, missing: u64) -> u64 {
        let Place::Data { left } = &mut self.place else { return missing };
        let step = missing.min(*left);
        *left -= step;
        if *left == 0 {
            self.place = Place::End;
        }
        missing - step
    }
}

impl Place {
    const SIZE: Self = Self::Size { size: 0, digits: false };
}

// --- Window ---

impl Window {
    fn push(&mut self, bytes: &[u8]) {
        let room = self.bytes.len();
        let taken = &bytes[bytes.len().saturating_sub(room)..];
        self.bytes.copy_within(taken.len().., 0);
        self.bytes[room - taken.len()..].copy_from_slice(taken);
        self.length = (self.length + taken.len()).min(room);
    }

    /// Whether the last bytes are those that end the chunked coding when there are no trailers.
    fn ends(&self) -> bool {
        self.length == self.bytes.len() && self.bytes == *LAST_CHUNK
    }
}

/// The end of a chunk's data, the last chunk, no trailers.
const LAST_CHUNK: &[u8; 7] = b"\r\n0\r\n\r\n";

/// 16 KiB of one chunk-size line: what Node allows for chunk extensions since CVE-2024-22019.
const CHUNK_LINE_BUDGET: usize = 16 << 10;

/// Trailers are headers that come late, and get the same room.
const TRAILER_BUDGET: usize = spantap_common::abi::HEADER_BUDGET;
