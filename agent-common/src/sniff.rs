// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guesses the protocol of a stream from its first bytes.
//!
//! In: up to [`PREFIX`] bytes. Out: a [`Guess`]. It is compiled for the kernel and tested on the host; it is shallow,
//! deciding only whether a socket is worth looking at: the parsers in user space have the last word.

/// Bytes the guess looks at.
pub const PREFIX: usize = 24;

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guess {
    /// No protocol that is known here.
    Unknown,
    /// Too few bytes to tell, but none that excludes a request.
    Undecided,
    /// A request of HTTP/1.
    Http1,
}

impl Guess {
    /// The number on the wire.
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Undecided => 1,
            Self::Http1 => 2,
        }
    }

    /// The guess behind a wire number.
    pub const fn from_wire(raw: u8) -> Option<Self> {
        match raw {
            0 => Some(Self::Unknown),
            1 => Some(Self::Undecided),
            2 => Some(Self::Http1),
            _ => None,
        }
    }
}

/// What `prefix[..length]` looks like; what lies behind is not read. A length beyond [`PREFIX`] is [`PREFIX`].
///
/// RFC 9112 3: `request-line = method SP request-target SP HTTP-version`. The method may be any token, so a target that
/// no other text protocol writes in its place has to follow: a path, `*`, or an `http` URI. After a method that HTTP
/// itself defines this is enough; after any other the version must follow as far as it is in sight, which leaves out
/// `CWD /pub` and its like. The empty line that RFC 9112 2.2 lets precede a request is not taken for a beginning.
#[inline(always)]
pub fn sniff(prefix: &[u8; PREFIX], length: usize) -> Guess {
    let mut expect = Expect::Method;
    let mut matched = 0u32;
    let mut defined = Method::Extension;
    let mut index = 0;
    while index < PREFIX {
        if index >= length {
            return Guess::Undecided;
        }
        let byte = prefix[index];
        match expect {
            Expect::Method if byte == b' ' && index > 0 => {
                defined = method(prefix, index);
                expect = Expect::Target;
            }
            Expect::Method if is_token(byte) && index < METHOD_ROOM => {}
            Expect::Method => return Guess::Unknown,

            Expect::Target => match (byte, defined) {
                (0x21..=0x7e, Method::Connect) | (b'/', Method::Defined) => return Guess::Http1,
                // An asterisk alone may be RTSP's or that of HTTP/2's preface: the version tells.
                (b'/' | b'*', _) => expect = Expect::RestOfTarget,
                (b'h' | b'H', _) => {
                    expect = Expect::Scheme;
                    matched = 1;
                }
                _ => return Guess::Unknown,
            },

            // RFC 3986 3.1: "Although schemes are case-insensitive".
            Expect::Scheme if matched < SCHEME_LENGTH => {
                if byte | 0x20 != letter(SCHEME, matched) {
                    return Guess::Unknown;
                }
                matched += 1;
            }
            Expect::Scheme => match (byte, defined) {
                (b':' | b's' | b'S', Method::Defined) => return Guess::Http1,
                (b':' | b's' | b'S', _) => expect = Expect::RestOfTarget,
                _ => return Guess::Unknown,
            },

            Expect::RestOfTarget if byte == b' ' => {
                expect = Expect::Version;
                matched = 0;
            }
            Expect::RestOfTarget if byte > b' ' && byte != 0x7f => {}
            Expect::RestOfTarget => return Guess::Unknown,

            Expect::Version => {
                if byte != letter(VERSION, matched) {
                    return Guess::Unknown;
                }
                matched += 1;
                if matched == VERSION_LENGTH {
                    return Guess::Http1;
                }
            }
        }
        index += 1;
    }
    // A whole prefix without a contradiction.
    Guess::Http1
}

#[inline(always)]
const fn letter(word: u64, index: u32) -> u8 {
    (word >> ((index & 7) * 8)) as u8
}

#[derive(Clone, Copy)]
enum Expect {
    Method,
    Target,
    Scheme,
    RestOfTarget,
    Version,
}

#[derive(Clone, Copy)]
enum Method {
    /// Its target is `host:port`.
    Connect,
    /// Another one of RFC 9110 9.3, RFC 5789 or the QUERY draft.
    Defined,
    Extension,
}

/// What the first `length` bytes of `prefix` are. They hold no NUL: they are a token.
#[inline(always)]
fn method(prefix: &[u8; PREFIX], length: usize) -> Method {
    let [a, b, c, d, e, f, g, ..] = *prefix;
    let first = u64::from_le_bytes([a, b, c, d, e, f, g, 0]);
    if length > LONGEST_METHOD {
        return Method::Extension;
    }
    match first & !(u64::MAX << (length * 8)) {
        GET | PUT | POST | HEAD | PATCH | TRACE | QUERY | DELETE | OPTIONS => Method::Defined,
        CONNECT => Method::Connect,
        _ => Method::Extension,
    }
}

/// RFC 9110 5.6.2: `tchar`, as a set of the codes 0x20 to 0x7f.
#[inline(always)]
const fn is_token(byte: u8) -> bool {
    // Shifts of two words rather than ranges: one branch for the verifier to follow instead of eight.
    match byte {
        0x20..=0x3f => TOKEN_LOW >> (byte - 0x20) & 1 != 0,
        0x40..=0x7f => TOKEN_HIGH >> (byte - 0x40) & 1 != 0,
        _ => false,
    }
}

const TOKEN_LOW: u64 = set(b"!#$%&'*+-.0123456789", 0x20);
const TOKEN_HIGH: u64 = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~", 0x40);

const fn set(codes: &[u8], first: u8) -> u64 {
    let mut set = 0;
    let mut index = 0;
    while index < codes.len() {
        set |= 1 << (codes[index] - first);
        index += 1;
    }
    set
}

/// Most characters of a method: the longest registered one has 17 (`UPDATEREDIRECTREF`), and one character of the
/// target should be in sight.
const METHOD_ROOM: usize = 20;

// Words packed into integers: the verifier follows a shift where it would want proof of an index, and one comparison
// where it would follow one for each letter.
const GET: u64 = u64::from_le_bytes(*b"GET\0\0\0\0\0");
const PUT: u64 = u64::from_le_bytes(*b"PUT\0\0\0\0\0");
const POST: u64 = u64::from_le_bytes(*b"POST\0\0\0\0");
const HEAD: u64 = u64::from_le_bytes(*b"HEAD\0\0\0\0");
const PATCH: u64 = u64::from_le_bytes(*b"PATCH\0\0\0");
const TRACE: u64 = u64::from_le_bytes(*b"TRACE\0\0\0");
const QUERY: u64 = u64::from_le_bytes(*b"QUERY\0\0\0");
const DELETE: u64 = u64::from_le_bytes(*b"DELETE\0\0");
const OPTIONS: u64 = u64::from_le_bytes(*b"OPTIONS\0");
const CONNECT: u64 = u64::from_le_bytes(*b"CONNECT\0");
/// Of those that HTTP itself defines.
const LONGEST_METHOD: usize = 7;
const SCHEME: u64 = u64::from_le_bytes(*b"http\0\0\0\0");
const SCHEME_LENGTH: u32 = 4;
const VERSION: u64 = u64::from_le_bytes(*b"HTTP/1.\0");
const VERSION_LENGTH: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(bytes: &[u8]) -> Guess {
        // What lies behind the length must not matter: fill it with something tempting.
        let mut prefix = *b"GET / HTTP/1.1\r\nHost: x\n";
        let length = bytes.len().min(PREFIX);
        prefix[..length].copy_from_slice(&bytes[..length]);
        sniff(&prefix, bytes.len())
    }

    #[test]
    fn requests_are_recognised_whatever_their_method_and_target() {
        for request in [
            "GET / HTTP/1.1\r\n",
            "GET /a/very/long/path/that/does/not/end HTTP/1.1\r\n",
            "POST /x HTTP/1.0\r\n",
            "GET http://example.org/ HTTP/1.1\r\n",
            "GET HTTPS://example.org/ HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "CONNECT example.org:443 HTTP/1.1\r\n",
            "CONNECT [2001:db8::1]:443 HTTP/1.1\r\n",
            "PROPFIND /dav HTTP/1.1\r\n",
            "BASELINE-CONTROL /x HTTP/1.1\r\n",
            "UPDATEREDIRECTREF /x HTTP/1.1\r\n",
            "M-SEARCH * HTTP/1.1\r\n",
            "purge /x HTTP/1.1\r\n",
            "PURGE http://cache/x HTTP/1.1\r\n",
            "GET /with space HTTP/1.1\r\n",
        ] {
            assert_eq!(guess(request.as_bytes()), Guess::Http1, "{request:?}");
        }
    }

    #[test]
    fn other_protocols_are_left_alone() {
        let others: &[&[u8]] = &[
            b"HTTP/1.1 200 OK\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"EHLO mail.example.org\r\n",
            b"EHLO http.example.org\r\n",
            b"USER anonymous\r\n",
            b"CWD /pub\r\n",
            b"220 ready\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"PING\r\n",
            b"GET key\r\n",
            b"get key\r\n",
            b"set key 0 0 5\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"* OK IMAP4rev1\r\n",
            b"OPTIONS * RTSP/1.0\r\n",
            b"OPTIONS rtsp://x RTSP/1.0\r\n",
            b"OPTIONS sip:x@y SIP/2.0\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b" GET / HTTP/1.1\r\n",
            b"AMQP\x00\x00\x09\x01",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"ABCDEFGHIJKLMNOPQRSTU / HTTP/1.1",
            b"GET \xc3\xa4 HTTP/1.1\r\n",
            b"PURGE /x\x00 HTTP/1.1\r\n",
        ];
        for bytes in others {
            assert_eq!(guess(bytes), Guess::Unknown, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn cutting_a_request_anywhere_never_excludes_it() {
        for request in [
            "GET / HTTP/1.1\r\n",
            "PROPFIND /dav HTTP/1.1\r\n",
            "PURGE http://cache/x HTTP/1.1",
            "OPTIONS * HTTP/1.1\r\n",
        ] {
            let mut decided = false;
            for length in 0..request.len() {
                match guess(&request.as_bytes()[..length]) {
                    Guess::Undecided => assert!(!decided, "{request:?} cut at {length}: decided before"),
                    Guess::Http1 => decided = true,
                    Guess::Unknown => panic!("{request:?} cut at {length}: excluded"),
                }
            }
            assert!(decided, "{request:?}");
        }
    }

    #[test]
    fn more_bytes_never_revoke_a_decision() {
        // Every short input over an alphabet of the bytes that the branches tell apart.
        let alphabet = *b"GT /*h:\r\x00H";
        let mut prefix = [b'x'; PREFIX];
        for number in 0..alphabet.len().pow(5) {
            let mut rest = number;
            for byte in &mut prefix[..5] {
                *byte = alphabet[rest % alphabet.len()];
                rest /= alphabet.len();
            }
            for length in 1..5 {
                let (shorter, longer) = (sniff(&prefix, length), sniff(&prefix, length + 1));
                assert!(shorter == Guess::Undecided || shorter == longer, "{:?} at {length}", &prefix[..5]);
            }
        }
    }

    #[test]
    fn a_guess_survives_the_wire() {
        for guess in [Guess::Unknown, Guess::Undecided, Guess::Http1] {
            assert_eq!(Guess::from_wire(guess.to_wire()), Some(guess));
        }
        assert_eq!(Guess::from_wire(3), None);
    }
}
