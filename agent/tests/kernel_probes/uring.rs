// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bytes that io_uring moves: seen by their lengths, which is said; never taken for those of another call.

use std::{io::Write, net::TcpStream, os::fd::AsRawFd};

use io_uring::{IoUring, opcode, squeue, types::Fd};
use spantap_common::{
    event::data::{Direction, Path},
    loss::Reason,
};

use crate::{
    dialogue::{REQUEST, RESPONSE, heard, length, near_port, said},
    scene::Scene,
};

#[test]
fn a_request_that_begins_in_a_ring_is_counted() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (client, mut server) = scene.connect();
    let request = REQUEST.to_vec();
    assert_eq!(done(&mut ring, &sending(&client, &request)), REQUEST.len());
    heard(&mut server, REQUEST);

    let seen = scene.seen();
    assert!(seen.on(near_port(&client)).is_none());
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    assert_eq!(scene.lost(Reason::UnsupportedPath), 1);
}

#[test]
fn what_a_ring_moves_later_has_its_exact_length() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let response = RESPONSE.to_vec();
    let mut received = vec![0; RESPONSE.len()];
    for _ in 0..2 {
        assert_eq!(done(&mut ring, &sending(&server, &response)), RESPONSE.len());
        let mut offered = received.as_mut_slice();
        assert_eq!(done(&mut ring, &receiving(&client, &mut offered)), RESPONSE.len());
        assert_eq!(received, RESPONSE);
    }
    said(&mut client, &mut server, REQUEST);

    let seen = scene.seen();
    for (end, direction) in [(seen.at(&server), Direction::Write), (seen.at(&client), Direction::Read)] {
        let moved: Vec<_> = end.data(direction).collect();
        assert_eq!(moved.len(), 2);
        assert!(moved.iter().all(|data| data.path == Path::Hidden && data.length == length(RESPONSE)), "{moved:?}");
    }
    assert_eq!(seen.at(&client).text(Direction::Write), [REQUEST, REQUEST].concat());
    scene.lost_nothing();
}

#[test]
fn a_completion_on_the_way_out_of_another_call_is_not_taken_for_it() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let (mut other, mut far) = (tempfile::tempfile().expect("a file"), [0; RESPONSE.len()]);
    // The ring waits for bytes; when they come, this thread is on its way out of a write to a file.
    let mut offered = far.as_mut_slice();
    submitted(&mut ring, &receiving(&client, &mut offered), 0);
    server.write_all(RESPONSE).expect("write");
    while ring.completion().is_empty() {
        other.write_all(b"HTTP/1.1 500 This is a file and no socket at all\r\n\r\n").expect("write");
    }
    assert_eq!(completed(&mut ring), RESPONSE.len());
    assert_eq!(far, RESPONSE);

    let seen = scene.seen();
    let moved: Vec<_> = seen.at(&client).data(Direction::Read).collect();
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].path, moved[0].length, moved[0].bytes.len()), (Path::Hidden, length(RESPONSE), 0));
    scene.lost_nothing();
}

#[test]
fn a_ring_that_reads_again_and_again_is_counted() {
    let Some((mut scene, mut ring)) = Scene::watch_sockets("127.0.0.1:0").zip(ring()) else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let mut room = vec![0; 8 * RESPONSE.len()];
    let size = i32::try_from(RESPONSE.len()).expect("small");
    let provided = opcode::ProvideBuffers::new(room.as_mut_ptr(), size, 8, GROUP, 0).build();
    done(&mut ring, &provided);
    submitted(&mut ring, &opcode::RecvMulti::new(Fd(client.as_raw_fd()), GROUP).build(), 0);
    for _ in 0..4 {
        server.write_all(RESPONSE).expect("write");
        ring.submit_and_wait(1).expect("io_uring_enter");
        assert_eq!(completed(&mut ring), RESPONSE.len());
    }
    let seen = scene.seen();
    let moved: Vec<_> = seen.at(&client).data(Direction::Read).collect();
    assert_eq!(moved.iter().map(|data| data.length).sum::<u32>(), 4 * length(RESPONSE));
    assert!(moved.iter().all(|data| data.path == Path::Hidden), "{moved:?}");
    scene.lost_nothing();
}

fn sending(stream: &TcpStream, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(Fd(stream.as_raw_fd()), bytes.as_ptr(), length(bytes)).build()
}

fn receiving(stream: &TcpStream, room: &mut &mut [u8]) -> squeue::Entry {
    let size = length(room);
    opcode::Recv::new(Fd(stream.as_raw_fd()), room.as_mut_ptr(), size).build()
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
