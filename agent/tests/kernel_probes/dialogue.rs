// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the two ends of a connection say to each other.

use std::{
    fs,
    io::{Read, Write},
    mem,
    net::TcpStream,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    ptr, thread,
};

use spantap_common::event::data::Direction;

pub(crate) const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n";
pub(crate) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Writes all of `bytes` at one end and reads them at the other.
pub(crate) fn said(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    thread::scope(|scope| {
        // More than the buffers between them hold must not make them wait for each other.
        let reader = scope.spawn(|| heard(to, bytes));
        from.write_all(bytes).expect("write");
        reader.join().expect("read");
    });
}

pub(crate) fn heard(to: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    to.read_exact(&mut received).expect("read");
    assert!(received == bytes, "what was read is not what was written");
}

pub(crate) fn long_head(bytes: usize) -> Vec<u8> {
    let mut head = b"GET /long HTTP/1.1\r\n".to_vec();
    let mut number = 0;
    while head.len() < bytes {
        head.extend_from_slice(format!("X-Header-{number}: {}\r\n", "v".repeat(100)).as_bytes());
        number += 1;
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// `sendmsg` or `recvmsg` over two segments; returns how many bytes moved.
pub(crate) fn message(call: libc::c_long, stream: &TcpStream, parts: [&mut [u8]; 2]) -> usize {
    let mut segments = parts.map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
    // SAFETY: a message header of zeros is one without address, segments and control data.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = segments.as_mut_ptr();
    header.msg_iovlen = segments.len() as _;
    // SAFETY: the segments are exclusive borrows of `parts`, and live until the call returns.
    let moved = unsafe { libc::syscall(call, stream.as_raw_fd(), &raw mut header, 0) };
    usize::try_from(moved).expect("moved")
}

/// `sendmmsg` or `recvmmsg` of a segment a message; returns how many bytes each message moved.
pub(crate) fn batch(call: libc::c_long, stream: &TcpStream, parts: &mut [Vec<u8>], flags: libc::c_int) -> Vec<usize> {
    let mut segments: Vec<_> =
        parts.iter_mut().map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }).collect();
    let mut messages: Vec<_> = segments
        .iter_mut()
        .map(|segment| {
            // SAFETY: a message of zeros is one without address, segments and control data.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_iov = segment;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    // SAFETY: the segments are exclusive borrows of `parts`; all arrays live until the call returns. No time-out.
    let moved = unsafe { libc::syscall(call, stream.as_raw_fd(), messages.as_mut_ptr(), messages.len(), flags, 0) };
    let moved = usize::try_from(moved).expect("moved");
    messages[..moved].iter().map(|message| message.msg_len as usize).collect()
}

/// `preadv2` or `pwritev2` of one segment at position -1, which is nowhere; returns how many bytes moved.
pub(crate) fn positioned(call: libc::c_long, stream: &TcpStream, part: &mut [u8]) -> usize {
    let segment = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
    // SAFETY: the segment is an exclusive borrow of `part`, and lives until the call returns.
    let moved = unsafe { libc::syscall(call, stream.as_raw_fd(), &raw const segment, 1, -1_i64, -1_i64, 0) };
    usize::try_from(moved).expect("moved")
}

/// `send` or `recv` with flags; returns how many bytes moved.
pub(crate) fn flagged(direction: Direction, stream: &TcpStream, buffer: &mut [u8], flags: libc::c_int) -> usize {
    let call = match direction {
        Direction::Read => libc::SYS_recvfrom,
        Direction::Write => libc::SYS_sendto,
    };
    // SAFETY: `buffer` is borrowed exclusively until the call returns; there is no address.
    let moved = unsafe { libc::syscall(call, stream.as_raw_fd(), buffer.as_mut_ptr(), buffer.len(), flags, 0_u64, 0) };
    usize::try_from(moved).expect("moved")
}

pub(crate) fn allow_zero_copy(stream: &TcpStream) {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).expect("small");
    // SAFETY: `on` lives until the call returns.
    let failed = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const on).cast(), size)
    };
    assert_eq!(failed, 0, "SO_ZEROCOPY");
}

/// `splice` between a pipe and a socket; returns how many bytes moved.
pub(crate) fn spliced(from: &impl AsRawFd, to: &impl AsRawFd, bytes: usize) -> usize {
    let nowhere = ptr::null_mut();
    // SAFETY: both descriptors are open, and neither has a position.
    let moved = unsafe { libc::splice(from.as_raw_fd(), nowhere, to.as_raw_fd(), nowhere, bytes, 0) };
    usize::try_from(moved).expect("moved")
}

pub(crate) fn sendfile(to: &TcpStream, from: &fs::File, bytes: usize) -> usize {
    let mut offset = 0;
    // SAFETY: both descriptors are open, and `offset` outlives the call.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &raw mut offset, bytes) };
    usize::try_from(sent).expect("sent")
}

pub(crate) fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("small")
}

pub(crate) fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Read => Direction::Write,
        Direction::Write => Direction::Read,
    }
}

pub(crate) fn near_port(stream: &TcpStream) -> u16 {
    stream.local_addr().expect("connected").port()
}

pub(crate) fn own_netns() -> u64 {
    fs::metadata("/proc/self/ns/net").expect("procfs").ino()
}
