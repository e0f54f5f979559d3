// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The same through io_uring, whose calls say nothing of what they move.
//!
//! In: nothing. Out: [`CASES`]. Who reads begins before there is anything to read, or not: both ways through the kernel are
//! taken, as it happens.

use std::{io::Error, net::TcpStream, os::fd::AsRawFd as _};

use io_uring::{IoUring, opcode, squeue::Entry, types::Fd};

use super::calls::{Way, dialogue, message, parts};
use crate::case::Case;

pub(super) const CASES: &[Case] = &[
    Case::code("uring-send-recv", |ground| dialogue(ground, SEND_RECV)).quick(),
    Case::code("uring-sendmsg-recvmsg", |ground| dialogue(ground, Way { take: SEND_RECV.take, ..MESSAGES })),
    Case::code("uring-read-write", |ground| dialogue(ground, READ_WRITE)),
    Case::code("uring-writev", |ground| dialogue(ground, Way { take: READ_WRITE.take, ..VECTORS })),
    Case::code("uring-registered-buffers", |ground| dialogue(ground, REGISTERED)),
    Case::code("uring-multishot", |ground| dialogue(ground, MULTISHOT)).quick(),
    Case::code("uring-without-a-copy", |ground| dialogue(ground, ZERO_COPY)).with_operation(opcode::SendZc::CODE),
];

const SEND_RECV: Way = Way {
    give: |to, bytes| done(|_| opcode::Send::new(fd(to), bytes.as_ptr(), length(bytes)).build()),
    take: |from, room| done(|_| opcode::Recv::new(fd(from), room.as_mut_ptr(), length(room)).build()),
};

const MESSAGES: Way = Way {
    give: |to, bytes| {
        let mut parts = parts(bytes, 9);
        let message = message(&mut parts);
        done(|_| opcode::SendMsg::new(fd(to), &raw const *message).build())
    },
    ..SEND_RECV
};

const READ_WRITE: Way = Way {
    give: |to, bytes| done(|_| opcode::Write::new(fd(to), bytes.as_ptr(), length(bytes)).build()),
    take: |from, room| done(|_| opcode::Read::new(fd(from), room.as_mut_ptr(), length(room)).build()),
};

const VECTORS: Way = Way {
    give: |to, bytes| {
        let parts = parts(bytes, 9);
        let count = u32::try_from(parts.len()).map_err(Error::other)?;
        done(|_| opcode::Writev::new(fd(to), parts.as_ptr(), count).build())
    },
    ..READ_WRITE
};

const REGISTERED: Way = Way {
    give: |to, bytes| {
        done(|ring| {
            register(ring, bytes);
            opcode::WriteFixed::new(fd(to), bytes.as_ptr(), length(bytes), 0).build()
        })
    },
    take: |from, room| {
        done(|ring| {
            register(ring, room);
            opcode::ReadFixed::new(fd(from), room.as_mut_ptr(), length(room), 0).build()
        })
    },
};

/// The kernel takes one of the buffers it was given for each read.
const MULTISHOT: Way = Way {
    take: |from, room| {
        let mut buffers = vec![0_u8; 2 * ROOM];
        let mut ring = IoUring::new(4)?;
        submit(&mut ring, &opcode::ProvideBuffers::new(buffers.as_mut_ptr(), ROOM as i32, 2, GROUP, 0).build())?;
        result(&mut ring)?;
        submit(&mut ring, &opcode::RecvMulti::new(fd(from), GROUP).build())?;
        let entry = ring.completion().next().ok_or_else(|| Error::other("nothing was completed"))?;
        let read = usize::try_from(entry.result()).map_err(|_| Error::from_raw_os_error(-entry.result()))?;
        let taken = io_uring::cqueue::buffer_select(entry.flags()).ok_or_else(|| Error::other("no buffer"))?;
        let at = usize::from(taken) * ROOM;
        // It is cancelled with its ring before the buffers are gone.
        drop(ring);
        room[..read].copy_from_slice(&buffers[at..at + read]);
        Ok(read)
    },
    ..SEND_RECV
};

/// The kernel sends from the process's own pages.
const ZERO_COPY: Way = Way {
    give: |to, bytes| {
        let mut ring = IoUring::new(4)?;
        submit(&mut ring, &opcode::SendZc::new(fd(to), bytes.as_ptr(), length(bytes)).build())?;
        let sent = result(&mut ring)?;
        // The pages are no longer in use.
        ring.submit_and_wait(1)?;
        Ok(sent)
    },
    ..SEND_RECV
};

/// Makes a request with a ring of its own; returns how many bytes it moved.
fn done(entry: impl FnOnce(&IoUring) -> Entry) -> Result<usize, Error> {
    let mut ring = IoUring::new(4)?;
    let entry = entry(&ring);
    submit(&mut ring, &entry)?;
    result(&mut ring)
}

/// Submits a request and waits for a completion.
fn submit(ring: &mut IoUring, entry: &Entry) -> Result<(), Error> {
    // SAFETY: what the request names outlives it: each caller waits for its end, or drops the ring before.
    unsafe { ring.submission().push(entry) }.map_err(Error::other)?;
    ring.submit_and_wait(1).map(drop)
}

fn result(ring: &mut IoUring) -> Result<usize, Error> {
    let result = ring.completion().next().map_or(-libc::EAGAIN, |entry| entry.result());
    usize::try_from(result).map_err(|_| Error::from_raw_os_error(-result))
}

fn register(ring: &IoUring, bytes: &mut [u8]) {
    let buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // A ring without the buffer completes its request with an error.
    // SAFETY: the ring is gone before the buffer is.
    let _ = unsafe { ring.submitter().register_buffers(&[buffer]) };
}

fn fd(stream: &TcpStream) -> Fd {
    Fd(stream.as_raw_fd())
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// Of one of the kernel's buffers.
const ROOM: usize = 4096;

/// Their group.
const GROUP: u16 = 1;
