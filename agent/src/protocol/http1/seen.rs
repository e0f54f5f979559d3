// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Heads that were taken apart a moment ago.
//!
//! In: complete heads. Out: their parts. Both ends of a connection on one host show the same head, one shortly after the
//! other, and many clients say the same again and again: what is equal byte for byte is taken apart once. It holds
//! the bytes to compare them, until others come, and knows no connection.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{
    Method,
    head::{self, Coding, Fields, HeadError, Length, RequestHead, ResponseHead, Version},
};
use crate::{context::TraceContext, protocol::Passed};

/// See above.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the digest of the head. Law: none, or [`SLOTS`]. The lock is taken by the one thread that parses.
    slots: Mutex<Vec<Slot>>,
}

/// A head, until another one needs its place.
#[derive(Debug, Default)]
struct Slot {
    digest: u64,
    /// Law: at most [`LONGEST`] bytes.
    text: Vec<u8>,
    read: Read,
}

/// What was read in a head.
#[derive(Clone, Debug, Default)]
enum Read {
    #[default]
    Nothing,
    Request(Request),
    Response(Response),
}

/// A request's head without its bytes.
#[derive(Clone, Debug)]
struct Request {
    method: Method,
    token: Mark,
    target: Mark,
    version: Version,
    fields: Fields<Mark>,
    context: Option<TraceContext>,
    passed: Passed,
}

/// What the framing of a response goes by.
#[derive(Clone, Copy, Debug)]
struct Response {
    status: u16,
    version: Version,
    disguised: bool,
    length: Length,
    coding: Coding,
}

/// Where a part of a head stands in it: from, to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Mark(u16, u16);

/// 128 heads: as many requests may be under way between the two ends of connections, one on each of the hundred of a busy
/// client. With [`LONGEST`] bytes each that is 128 KiB.
const SLOTS: usize = 128;

/// 1,024 bytes: the heads of services to each other; what browsers send is mostly seen at one end.
const LONGEST: usize = 1024;

impl Seen {
    /// As [`head::request`], for a head of which nobody wants the fields one by one.
    pub(super) fn request<T>(
        &self,
        text: &[u8],
        digest: u64,
        read: impl FnOnce(&mut RequestHead<'_>) -> T,
    ) -> Result<T, HeadError> {
        let known = match self.find(text, digest) {
            Read::Request(known) => known.head(text),
            Read::Response(_) | Read::Nothing => None,
        };
        if let Some(mut head) = known {
            return Ok(read(&mut head));
        }
        head::request(text, |head| {
            if let Some(request) = Request::of(head, text) {
                self.keep(text, digest, Read::Request(request));
            }
            read(head)
        })
    }

    /// As [`head::response`], likewise.
    pub(super) fn response<T>(
        &self,
        text: &[u8],
        digest: u64,
        read: impl FnOnce(&ResponseHead<'_>) -> T,
    ) -> Result<T, HeadError> {
        if let Read::Response(known) = self.find(text, digest) {
            return Ok(read(&known.head()));
        }
        head::response(text, |head| {
            self.keep(text, digest, Read::Response(Response::of(head)));
            read(head)
        })
    }

    fn find(&self, text: &[u8], digest: u64) -> Read {
        let slots = self.slots();
        let slot = slots.get(place(digest)).filter(|slot| slot.digest == digest && slot.text == text);
        slot.map(|slot| slot.read.clone()).unwrap_or_default()
    }

    fn keep(&self, text: &[u8], digest: u64, read: Read) {
        if text.len() > LONGEST {
            return;
        }
        let mut slots = self.slots();
        if slots.is_empty() {
            slots.resize_with(SLOTS, Slot::default);
        }
        let slot = &mut slots[place(digest)];
        slot.text.clear();
        slot.text.extend_from_slice(text);
        (slot.digest, slot.read) = (digest, read);
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        // Whatever a panic leaves behind is compared with what is looked for.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(digest: u64) -> usize {
    digest as usize % SLOTS
}

impl Request {
    /// None where a part is not in `text`, which had to be mended.
    fn of(head: &RequestHead<'_>, text: &[u8]) -> Option<Self> {
        Some(Self {
            method: head.method,
            token: Mark::of(head.token.as_bytes(), text)?,
            target: Mark::of(head.target.as_bytes(), text)?,
            version: head.version,
            fields: head.fields.try_map(|value| Mark::of(value, text))?,
            context: head.context.clone(),
            passed: head.passed.clone(),
        })
    }

    fn head(self, text: &[u8]) -> Option<RequestHead<'_>> {
        let Self { method, token, target, version, fields, context, passed } = self;
        let said = |mark: Mark| str::from_utf8(mark.in_text(text)?).ok();
        let fields = fields.try_map(|mark| mark.in_text(text))?;
        let (token, target) = (said(token)?, said(target)?);
        Some(RequestHead { method, token, target, version, fields, headers: &[], context, passed })
    }
}

impl Response {
    fn of(head: &ResponseHead<'_>) -> Self {
        let Fields { disguised, length, coding, .. } = head.fields;
        Self { status: head.status, version: head.version, disguised, length, coding }
    }

    fn head(self) -> ResponseHead<'static> {
        let Self { status, version, disguised, length, coding } = self;
        ResponseHead {
            status,
            version,
            fields: Fields { disguised, length, coding, ..Fields::default() },
            headers: &[],
        }
    }
}

impl Mark {
    fn of(part: &[u8], text: &[u8]) -> Option<Self> {
        let from = part.as_ptr().addr().checked_sub(text.as_ptr().addr())?;
        let to = from + part.len();
        (to <= text.len()).then_some(Self(u16::try_from(from).ok()?, u16::try_from(to).ok()?))
    }

    fn in_text(self, text: &[u8]) -> Option<&[u8]> {
        text.get(usize::from(self.0)..usize::from(self.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that is read in a request, but for the list of its fields.
    fn said(head: &RequestHead<'_>) -> String {
        let RequestHead { method, token, target, version, fields, headers: _, context, passed } = head;
        format!("{method:?} {token} {target} {version:?} {fields:?} {context:?} {passed:?}")
    }

    fn answered(head: &ResponseHead<'_>) -> String {
        let ResponseHead { status, version, fields: Fields { disguised, length, coding, .. }, headers: _ } = head;
        format!("{status} {version:?} {disguised} {length:?} {coding:?}")
    }

    /// One place for all: whoever comes last has it.
    const DIGEST: u64 = 7;

    #[test]
    fn what_was_seen_before_says_the_same() {
        let requests = [
            "GET / HTTP/1.1\r\n\r\n",
            "GET /a?b=c HTTP/1.0\r\nHost: shop:80\r\nUser-Agent: curl\r\nX-Request-Id: 0123456789\r\n\r\n",
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\nForwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\n\r\n",
            "POST /a HTTP/1.1\r\nX-Forwarded-Host: a\r\nX-Forwarded-Proto: https\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\ntraceparent: 00-0000000000000000000000000000000a-000000000000000b-01\r\n\
             tracestate: a=1\r\nb3: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\n",
            "GET / HTTP/1.1\nHost: folded\n and: more\n\n",
            "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
            "ODD  /blanks  HTTP/1.1\r\n\r\n",
        ];
        let seen = Seen::default();
        for text in requests.map(str::as_bytes) {
            let alone = head::request(text, |head| said(head)).expect("a request");
            for turn in ["the first end", "the second end"] {
                assert_eq!(seen.request(text, DIGEST, |head| said(head)).expect("a request"), alone, "{turn}");
            }
        }
        let responses = [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\nContent-Length : 3\r\n\r\n",
        ];
        for text in responses.map(str::as_bytes) {
            let alone = head::response(text, answered).expect("a response");
            for turn in ["the first end", "the second end"] {
                assert_eq!(seen.response(text, DIGEST, answered).expect("a response"), alone, "{turn}");
            }
        }
    }

    #[test]
    fn only_short_heads_that_are_as_they_were_sent_are_kept() {
        let kept = |text: &str| {
            let seen = Seen::default();
            seen.request(text.as_bytes(), DIGEST, |_| ()).expect("a request");
            matches!(seen.find(text.as_bytes(), DIGEST), Read::Request(_))
        };
        assert!(kept("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert!(!kept("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"), "it had to be mended");
        assert!(!kept(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(LONGEST))));
        let seen = Seen::default();
        assert!(seen.request(b"GET\r\n\r\n", DIGEST, |_| ()).is_err());
        assert!(matches!(seen.find(b"GET\r\n\r\n", DIGEST), Read::Nothing), "what is no head says nothing");
    }
}
