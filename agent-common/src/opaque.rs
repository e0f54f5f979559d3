// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a stream that is left alone looks like, so that it can be counted as what it is.
//!
//! In: the first bytes of a call. Out: an [`Opaque`]. It is compiled for the kernel and tested on the host; nothing is
//! decided by it but which counter goes up, and, of a stream that is met in its middle, that no request need be waited for.

use crate::sniff::PREFIX;

/// A stream whose requests are not followed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum Opaque {
    /// Nothing that is known here.
    Other = 0,
    /// TLS: its first record is a handshake.
    Tls = 1,
    /// FastCGI, as between nginx and PHP-FPM: an edge between two services that has no span.
    FastCgi = 2,
}

impl Opaque {
    /// Every kind, in the order of the numbers.
    pub const ALL: [Self; 3] = [Self::Other, Self::Tls, Self::FastCgi];

    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The stable name in summaries and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Tls => "tls",
            Self::FastCgi => "fastcgi",
        }
    }

    /// What `prefix[..length]` is the beginning of.
    #[inline(always)]
    pub const fn of(prefix: &[u8; PREFIX], length: u32) -> Self {
        // RFC 8446 5.1: `handshake(22)`, and a legacy version that "MUST be set to 0x0303 […] for compatibility purposes"
        // or, in the first record, 0x0301; older ones are 0x0300 on.
        if length >= 3 && prefix[0] == 22 && prefix[1] == 3 && prefix[2] <= 4 {
            return Self::Tls;
        }
        // FastCGI specification 3.3 and 5.1: version 1, type FCGI_BEGIN_REQUEST (1), an id that is not null, a content of
        // 8 bytes and, after its padding's length, a reserved zero. https://fastcgi-archives.github.io/FastCGI_Specification.html
        let begins = prefix[0] == 1 && prefix[1] == 1 && prefix[2] | prefix[3] != 0;
        if length >= 8 && begins && prefix[4] == 0 && prefix[5] == 8 && prefix[7] == 0 {
            return Self::FastCgi;
        }
        Self::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_known_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], Opaque::Tls),
            (b"\x16\x03\x03", Opaque::Tls),
            (b"\x16\x03", Opaque::Other),
            (b"\x16\x04\x01", Opaque::Other),
            (b"\x01\x01\x00\x01\x00\x08\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", Opaque::FastCgi),
            // The header alone, as a responder may read it.
            (b"\x01\x01\x00\x01\x00\x08\x00\x00", Opaque::FastCgi),
            (b"\x01\x01\x00\x00\x00\x08\x00\x00", Opaque::Other),
            (b"\x01\x06\x00\x01\x00\x08\x00\x00", Opaque::Other),
            (b"\x01\x01\x00\x01\x00\x08\x00", Opaque::Other),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Opaque::Other),
            (b"", Opaque::Other),
        ] {
            // What lies behind the length must not matter.
            let mut prefix = [0; PREFIX];
            prefix[..bytes.len()].copy_from_slice(bytes);
            assert_eq!(Opaque::of(&prefix, bytes.len() as u32), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn every_kind_indexes_its_own_counter() {
        for (index, kind) in Opaque::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index, "{}", kind.label());
        }
    }
}
