// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One end of a connection as it crosses the kernel boundary.

/// An address and a port, or one end of a connection between two unix sockets. IPv4 is written as an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), so that a
/// connection over a dual-stack socket looks the same from both of its ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// In network byte order; of a unix socket its cookie, which both ends know it by, and zeros.
    pub address: [u8; 16],
    /// Host byte order; 0 of a unix socket.
    pub port: u16,
    /// [`IP`] or [`UNIX`].
    pub family: u16,
}

/// The family of IPv4 and IPv6, of which the former is part of the latter here.
pub const IP: u16 = 0;
/// The family of unix sockets: most of them have no name, so that identity is all there is to tell one from another.
pub const UNIX: u16 = 1;

const _: () = {
    assert!(size_of::<Endpoint>() == 20);
    assert!(align_of::<Endpoint>() == 2);
};

impl Endpoint {
    /// The endpoint `address:port` of an IPv4 connection; `address` in network byte order.
    pub const fn v4(address: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = address;
        Self { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port, family: IP }
    }

    /// The endpoint `[address]:port`; `address` in network byte order.
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        Self { address, port, family: IP }
    }

    /// The unix socket with this cookie; 0 where there is none.
    #[inline(always)]
    pub const fn unix(cookie: u64) -> Self {
        Self { address: (cookie as u128).to_ne_bytes(), port: 0, family: UNIX }
    }

    /// Whether it is a unix socket.
    pub const fn is_unix(&self) -> bool {
        self.family == UNIX
    }
}
