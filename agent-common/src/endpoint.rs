// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One end of a connection as it crosses the kernel boundary.

/// An address and a port. IPv4 is written as an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), so that a
/// connection over a dual-stack socket looks the same from both of its ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    /// Network byte order.
    pub address: [u8; 16],
    /// Host byte order.
    pub port: u16,
    /// Always zero: equality and hashing see every byte.
    pub reserved: u16,
}

const _: () = {
    assert!(size_of::<Endpoint>() == 20);
    assert!(align_of::<Endpoint>() == 2);
};

impl Endpoint {
    /// The endpoint `address:port` of an IPv4 connection; `address` in network byte order.
    pub const fn v4(address: [u8; 4], port: u16) -> Self {
        let [a, b, c, d] = address;
        Self { address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d], port, reserved: 0 }
    }

    /// The endpoint `[address]:port`; `address` in network byte order.
    pub const fn v6(address: [u8; 16], port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}
