// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes that io_uring moves: found where its requests say, whenever those are tried; and where it cannot be told which
//! request it was, seen by their lengths. Never taken for those of another call.

use std::{io::Write, net::TcpStream, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, squeue, types::Fd};
use spantap_common::{
    event::data::{Direction, Path},
    loss::Reason,
};

use crate::{
    dialogue::{REQUEST, RESPONSE, heard, length, near_port, said},
    scene::{Moved, Scene, Seen},
};

#[test]
fn what_a_ring_moves_at_once_is_seen() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (client, server) = scene.connect();
    for _ in 0..2 {
        for (from, to, bytes) in [(&client, &server, REQUEST), (&server, &client, RESPONSE)] {
            let mut received = vec![0; bytes.len()];
            assert_eq!(done(&mut ring, &sending(from, bytes)), bytes.len());
            assert_eq!(done(&mut ring, &receiving(to, &mut received)), bytes.len());
            assert_eq!(received, bytes);
        }
    }
    let seen = scene.seen();
    let (asked, answered) = ([REQUEST, REQUEST].concat(), [RESPONSE, RESPONSE].concat());
    assert_eq!(seen.at(&client).text(Direction::Write), asked);
    assert_eq!(seen.at(&server).text(Direction::Read), asked);
    assert_eq!(seen.at(&server).text(Direction::Write), answered);
    assert_eq!(seen.at(&client).text(Direction::Read), answered);
    scene.lost_nothing();
}

#[test]
fn what_a_ring_waits_for_is_not_taken_for_the_call_it_comes_in() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let (mut other, mut far) = (tempfile::tempfile().expect("a file"), [0; RESPONSE.len()]);
    // The ring waits for bytes; when they come, this thread is on its way out of a write to a file.
    submitted(&mut ring, &receiving(&client, &mut far), 0);
    server.write_all(RESPONSE).expect("write");
    while ring.completion().is_empty() {
        other.write_all(b"HTTP/1.1 500 This is a file and no socket at all\r\n\r\n").expect("write");
    }
    assert_eq!(completed(&mut ring), RESPONSE.len());
    assert_eq!(far, RESPONSE);
    let seen = scene.seen();
    assert_eq!(seen.at(&client).text(Direction::Read), RESPONSE);
    scene.lost_nothing();
}

#[test]
fn a_ring_that_reads_again_and_again_is_seen() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let mut room = vec![0; 8 * RESPONSE.len()];
    let size = i32::try_from(RESPONSE.len()).expect("small");
    // Twice: when the buffers are used up, the first request is at its end, and another one takes its place.
    for _ in 0..2 {
        done(&mut ring, &opcode::ProvideBuffers::new(room.as_mut_ptr(), size, 4, GROUP, 0).build());
        submitted(&mut ring, &opcode::RecvMulti::new(Fd(client.as_raw_fd()), GROUP).build(), 0);
        for _ in 0..4 {
            server.write_all(RESPONSE).expect("write");
            ring.submit_and_wait(1).expect("io_uring_enter");
            assert_eq!(completed(&mut ring), RESPONSE.len());
        }
        server.write_all(RESPONSE).expect("write");
        ring.submit_and_wait(1).expect("io_uring_enter");
        let no_buffers = ring.completion().next().expect("completed").result();
        assert_eq!(no_buffers, -libc::ENOBUFS);
        heard(&mut client, RESPONSE);
    }
    let seen = scene.seen();
    assert_eq!(seen.at(&client).text(Direction::Read), RESPONSE.repeat(10));
    scene.lost_nothing();
}

#[test]
fn messages_vectors_and_registered_buffers_are_seen() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (client, server) = scene.connect();
    let mut sent = REQUEST.to_vec();
    let mut received = vec![0; REQUEST.len()];
    let (near, far) = (Fd(client.as_raw_fd()), Fd(server.as_raw_fd()));
    let size = length(REQUEST);
    {
        // SAFETY: both buffers outlive the ring's use of them.
        unsafe { ring.submitter().register_buffers(&[vector(&mut sent), vector(&mut received)]) }.expect("register");
        let (from, to) = (sent.as_ptr(), received.as_mut_ptr());
        let (mut out, mut into) = (parts(&mut sent), parts(&mut received));
        let (asked, answer) = (message(&mut out), message(&mut into));
        let mut answer = answer;
        let ways = [
            (opcode::Write::new(near, from, size).build(), opcode::Read::new(far, to, size).build()),
            (
                opcode::Writev::new(near, &raw const out[0], 2).build(),
                opcode::Readv::new(far, &raw const into[0], 2).build(),
            ),
            (opcode::WriteFixed::new(near, from, size, 0).build(), opcode::ReadFixed::new(far, to, size, 1).build()),
            (opcode::SendMsg::new(near, &raw const asked).build(), opcode::RecvMsg::new(far, &raw mut answer).build()),
        ];
        for (giving, taking) in &ways {
            assert_eq!(done(&mut ring, giving), REQUEST.len());
            assert_eq!(done(&mut ring, taking), REQUEST.len());
        }
        // Completed twice: once it is sent, and once its pages are no longer in use.
        submitted(&mut ring, &opcode::SendZc::new(near, from, size).build(), 2);
        let results: Vec<_> = ring.completion().map(|entry| entry.result()).collect();
        assert_eq!(results[0], i32::try_from(REQUEST.len()).expect("small"));
        assert_eq!(done(&mut ring, &opcode::Recv::new(far, to, size).build()), REQUEST.len());
    }
    assert_eq!(received, REQUEST);
    let seen = scene.seen();
    assert_eq!(seen.at(&client).text(Direction::Write), REQUEST.repeat(5));
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST.repeat(5));
    scene.lost_nothing();
}

#[test]
fn a_ring_whose_queue_the_kernel_watches_is_seen() {
    let Some(mut scene) = Scene::watch_sockets("127.0.0.1:0") else { return };
    let Ok(mut ring) = IoUring::builder().setup_sqpoll(1000).build(8) else { return };
    let (client, server) = scene.connect();
    let mut received = vec![0; REQUEST.len()];
    for _ in 0..3 {
        assert_eq!(done(&mut ring, &sending(&client, REQUEST)), REQUEST.len());
        assert_eq!(done(&mut ring, &receiving(&server, &mut received)), REQUEST.len());
        assert_eq!(received, REQUEST);
    }
    let seen = scene.seen();
    assert_eq!(seen.at(&client).text(Direction::Write), REQUEST.repeat(3));
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST.repeat(3));
    scene.lost_nothing();
}

#[test]
fn of_two_that_wait_for_one_socket_neither_is_guessed() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let mut rooms = [[0; RESPONSE.len()]; 2];
    for room in &mut rooms {
        submitted(&mut ring, &receiving(&client, room), 0);
    }
    for _ in 0..2 {
        server.write_all(RESPONSE).expect("write");
        ring.submit_and_wait(1).expect("io_uring_enter");
        assert_eq!(completed(&mut ring), RESPONSE.len());
    }
    let mut room = [0; RESPONSE.len()];
    submitted(&mut ring, &receiving(&client, &mut room), 0);
    server.write_all(RESPONSE).expect("write");
    ring.submit_and_wait(1).expect("io_uring_enter");
    assert_eq!(completed(&mut ring), RESPONSE.len());

    let seen = scene.seen();
    let read: Vec<_> = seen.at(&client).data(Direction::Read).collect();
    assert_eq!(read.len(), 3);
    is_counted(&read[..2], RESPONSE);
    assert_eq!((read[2].path, &read[2].bytes[..]), (Path::Memory, RESPONSE), "alone again");
    scene.lost_nothing();
}

#[test]
fn what_is_linked_or_put_off_has_its_exact_length() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let written = |seen: &Seen| seen.data(Direction::Write).count();
    for flags in [squeue::Flags::IO_LINK, squeue::Flags::IO_HARDLINK, squeue::Flags::ASYNC] {
        // The second of a chain is not marked as such.
        // SAFETY: the buffers are constants.
        unsafe { ring.submission().push(&sending(&server, RESPONSE).flags(flags)) }.expect("room");
        submitted(&mut ring, &sending(&server, RESPONSE), 2);
        assert_eq!((completed(&mut ring), completed(&mut ring)), (RESPONSE.len(), RESPONSE.len()));
        heard(&mut client, &RESPONSE.repeat(2));
    }
    assert_eq!(done(&mut ring, &sending(&server, RESPONSE)), RESPONSE.len());
    heard(&mut client, RESPONSE);

    let seen = scene.seen();
    let server = seen.at(&server);
    assert_eq!(written(server), 7);
    let all: Vec<_> = server.data(Direction::Write).collect();
    is_counted(&all[..4], RESPONSE);
    // Whichever of the last two was first: one was put off, and the other was not.
    let (hidden, shown): (Vec<_>, Vec<_>) = all[4..].iter().copied().partition(|data| data.path == Path::Hidden);
    is_counted(&hidden, RESPONSE);
    assert_eq!((hidden.len(), shown.len()), (1, 2), "{all:?}");
    assert!(shown.iter().all(|data| data.bytes == RESPONSE), "{shown:?}");
    scene.lost_nothing();
}

#[test]
fn a_request_that_begins_where_no_memory_is_known_is_counted() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (client, mut server) = scene.connect();
    assert_eq!(done(&mut ring, &sending(&client, REQUEST).flags(squeue::Flags::ASYNC)), REQUEST.len());
    heard(&mut server, REQUEST);

    let seen = scene.seen();
    assert!(seen.on(near_port(&client)).is_none());
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    assert_eq!(scene.lost(Reason::UnsupportedPath), 1);
}

/// Each is as long as `bytes`, and nothing of it was copied.
fn is_counted(moved: &[&Moved], bytes: &[u8]) {
    let counted = |data: &&Moved| (data.path, data.length, data.bytes.len()) == (Path::Hidden, length(bytes), 0);
    assert!(moved.iter().all(counted), "{moved:?}");
}

fn sending(stream: &TcpStream, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(Fd(stream.as_raw_fd()), bytes.as_ptr(), length(bytes)).build()
}

fn receiving(stream: &TcpStream, room: &mut [u8]) -> squeue::Entry {
    opcode::Recv::new(Fd(stream.as_raw_fd()), room.as_mut_ptr(), length(room)).build()
}

fn vector(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn parts(bytes: &mut [u8]) -> [libc::iovec; 2] {
    let (head, rest) = bytes.split_at_mut(7);
    [vector(head), vector(rest)]
}

fn message(parts: &mut [libc::iovec; 2]) -> libc::msghdr {
    // SAFETY: integers and pointers, for which zeros are values.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len() as _);
    message
}

/// Submits an entry and waits for it; returns its result.
fn done(ring: &mut IoUring, entry: &squeue::Entry) -> usize {
    submitted(ring, entry, 1);
    completed(ring)
}

fn submitted(ring: &mut IoUring, entry: &squeue::Entry, wait_for: usize) {
    // SAFETY: every caller keeps the buffer of its entry until the entry is completed, or its test has ended.
    unsafe { ring.submission().push(entry) }.expect("room");
    ring.submit_and_wait(wait_for).expect("io_uring_enter");
}

fn completed(ring: &mut IoUring) -> usize {
    let entry = ring.completion().next().expect("completed");
    usize::try_from(entry.result()).expect("moved")
}

/// A ring; none, said aloud, where the kernel gives none.
fn ring() -> Option<IoUring> {
    IoUring::new(8).inspect_err(|why| eprintln!("SKIPPED: no io_uring: {why}")).ok()
}

/// The group of buffers that a multishot read takes from.
const GROUP: u16 = 1;
