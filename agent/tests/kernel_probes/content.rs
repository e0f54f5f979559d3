// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is copied of a call, and what is only counted.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
};

use spantap_common::{
    abi::{CAPTURE_BUDGET, OVERFLOW_HEAD},
    endpoint::{Endpoint, IP},
    event::{
        data::{Direction, Path},
        socket::Origin,
    },
    loss::Reason,
    sniff::Guess,
};

use crate::{
    dialogue::{
        REQUEST, RESPONSE, allow_zero_copy, flagged, heard, length, long_head, near_port, own_netns, said, sendfile,
        spliced,
    },
    scene::Scene,
};

#[test]
fn an_exchange_is_seen_at_both_ends() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    let seen = scene.seen();
    let (near, far) = (seen.at(&client), seen.at(&server));
    assert_eq!((near.socket.origin, near.socket.requests), (Origin::Connected, Direction::Write));
    assert_eq!((far.socket.origin, far.socket.requests), (Origin::Accepted, Direction::Read));
    assert_eq!((near.socket.protocol, far.socket.protocol), (Guess::Http1, Guess::Http1));
    assert_eq!((near.socket.local, near.socket.peer), (far.socket.peer, far.socket.local));
    assert_eq!(near.socket.netns, far.socket.netns);
    assert_eq!(u64::from(near.socket.netns), own_netns());
    assert_eq!(near.socket.moment.task.pid, std::process::id());

    assert_eq!(near.text(Direction::Write), REQUEST);
    assert_eq!(far.text(Direction::Read), REQUEST);
    assert_eq!(far.text(Direction::Write), RESPONSE);
    assert_eq!(near.text(Direction::Read), RESPONSE);

    // Both ends name the same byte by the same number, in records and in the introduction.
    assert_eq!(near.first(Direction::Write).position, far.first(Direction::Read).position);
    assert_eq!(near.first(Direction::Read).position, far.first(Direction::Write).position);
    assert_eq!(near.socket.write_position, near.first(Direction::Write).position);
    assert_eq!(near.socket.read_position, near.first(Direction::Read).position);
    assert_eq!(far.socket.read_position, far.first(Direction::Read).position);
    assert_eq!(far.first(Direction::Write).opposite, far.first(Direction::Read).position + length(REQUEST));
    scene.lost_nothing();
}

#[test]
fn addresses_are_the_same_at_both_ends_whatever_the_family() {
    for (listen, connect, address) in [
        ("[::1]:0", "[::1]", Endpoint::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 0).address),
        // An IPv4 client of a dual-stack listener, and an IPv6 socket that connects to a mapped address.
        ("[::]:0", "127.0.0.1", Endpoint::v4([127, 0, 0, 1], 0).address),
        ("127.0.0.1:0", "[::ffff:127.0.0.1]", Endpoint::v4([127, 0, 0, 1], 0).address),
    ] {
        let Some(mut scene) = Scene::watch(listen) else { return };
        let mut client = TcpStream::connect(format!("{connect}:{}", scene.port())).expect("connect");
        let mut server = scene.accept();
        said(&mut client, &mut server, REQUEST);
        said(&mut server, &mut client, RESPONSE);

        let seen = scene.seen();
        let (near, far) = (seen.at(&client), seen.at(&server));
        assert_eq!((near.socket.local, near.socket.peer), (far.socket.peer, far.socket.local), "{connect}");
        assert_eq!(near.socket.peer, Endpoint { address, port: scene.port(), family: IP }, "{connect}");
        assert_eq!(far.text(Direction::Read), REQUEST);
        scene.lost_nothing();
    }
}

#[test]
fn a_look_at_bytes_that_stay_is_no_read() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    client.write_all(REQUEST).expect("write");
    assert_eq!(server.peek(&mut [0; 8]).expect("peek"), 8);
    assert_eq!(server.peek(&mut [0; 256]).expect("peek"), REQUEST.len());
    heard(&mut server, REQUEST);

    let seen = scene.seen();
    assert_eq!(seen.at(&server).data(Direction::Read).count(), 1);
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    scene.lost_nothing();
}

#[test]
fn a_head_of_20_kib_is_captured_whole_in_one_call() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let head = long_head(20 << 10);
    said(&mut client, &mut server, &head);

    let seen = scene.seen();
    assert_eq!(seen.at(&client).data(Direction::Write).count(), 1);
    assert_eq!(seen.at(&client).text(Direction::Write), head);
    assert_eq!(seen.at(&server).text(Direction::Read), head);
    scene.lost_nothing();
}

#[test]
fn a_head_of_20_kib_is_captured_whole_byte_by_byte() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let head = long_head(20 << 10);
    client.write_all(&head).expect("write");
    for byte in &head {
        let mut one = [0];
        server.read_exact(&mut one).expect("read");
        assert_eq!(one, [*byte]);
    }

    let seen = scene.seen();
    assert_eq!(seen.at(&server).data(Direction::Read).count(), head.len());
    assert_eq!(seen.at(&server).text(Direction::Read), head);
    scene.lost_nothing();
}

#[test]
fn beyond_the_budget_only_the_ends_of_a_call_are_copied() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let call = vec![b'a'; CAPTURE_BUDGET as usize];
    let mut last = b"0123456789abcdef".to_vec();
    last.extend_from_slice(&[b'b'; 100]);
    last.extend_from_slice(b"\r\n0\r\n\r\n");
    for part in [&call, &last] {
        said(&mut server, &mut client, part);
    }
    // The budget is a message's: the next request is seen, and the response to it.
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    let seen = scene.seen();
    let written: Vec<_> = seen.at(&server).data(Direction::Write).collect();
    assert_eq!(written[0].bytes.len(), CAPTURE_BUDGET as usize);
    assert_eq!(written[1].bytes, b"0123456789abcdef"[..OVERFLOW_HEAD]);
    assert_eq!(written[1].tail, b"b\r\n0\r\n\r\n"[..]);
    assert_eq!(written[1].length as usize, last.len());
    assert_eq!(written[2].bytes, RESPONSE);
    scene.lost_nothing();
}

#[test]
fn bytes_that_never_were_in_the_process_are_counted() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    said(&mut server, &mut client, head);
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&[b'f'; 5000]).expect("write");
    assert_eq!(sendfile(&server, &file, 5000), 5000);
    client.read_exact(&mut [0; 5000]).expect("read");

    let seen = scene.seen();
    let written: Vec<_> = seen.at(&server).data(Direction::Write).collect();
    assert_eq!(written[0].bytes, head);
    let hidden = &written[1..];
    assert!(hidden.iter().all(|data| data.path == Path::Hidden && data.bytes.is_empty()), "{hidden:?}");
    assert_eq!(hidden.iter().map(|data| data.length).sum::<u32>(), 5000);
    assert_eq!(hidden[0].position, written[0].position.wrapping_add(length(head)));
    scene.lost_nothing();
}

#[test]
fn bytes_that_are_thrown_away_unread_are_counted() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 32\r\n\r\n");
    server.write_all(&[b'd'; 32]).expect("write");
    // The buffer holds something else, which must not be taken for what was received.
    let mut buffer = [b'?'; 32];
    assert_eq!(flagged(Direction::Read, &client, &mut buffer, libc::MSG_TRUNC | libc::MSG_WAITALL), 32);
    assert_eq!(buffer, [b'?'; 32]);
    said(&mut client, &mut server, REQUEST);

    let seen = scene.seen();
    let read: Vec<_> = seen.at(&client).data(Direction::Read).collect();
    assert_eq!((read[1].length, read[1].bytes.len(), read[1].path), (32, 0, Path::Hidden));
    assert_eq!(seen.at(&client).text(Direction::Write), [REQUEST, REQUEST].concat());
    scene.lost_nothing();
}

#[test]
fn a_read_that_waits_for_all_is_one_record() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, server) = scene.connect();
    let mut received = vec![0; REQUEST.len()];
    thread::scope(|scope| {
        let reader = scope.spawn(|| flagged(Direction::Read, &server, &mut received, libc::MSG_WAITALL));
        for part in REQUEST.chunks(5) {
            client.write_all(part).expect("write");
        }
        assert_eq!(reader.join().expect("read"), REQUEST.len());
    });
    let seen = scene.seen();
    assert_eq!(seen.at(&server).data(Direction::Read).count(), 1);
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    scene.lost_nothing();
}

#[test]
fn bytes_sent_without_a_copy_are_still_in_the_process() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (client, mut server) = scene.connect();
    allow_zero_copy(&client);
    let mut head = long_head(20 << 10);
    assert_eq!(flagged(Direction::Write, &client, &mut head, libc::MSG_ZEROCOPY), head.len());
    heard(&mut server, &head);
    let seen = scene.seen();
    assert_eq!(seen.at(&client).text(Direction::Write), head);
    scene.lost_nothing();
}

#[test]
fn spliced_bytes_are_counted_where_they_enter_a_socket() {
    let Some(mut scene) = Scene::watch_sockets("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n");
    let (from, mut into) = io::pipe().expect("a pipe");
    into.write_all(&[b's'; 5000]).expect("write");
    assert_eq!(spliced(&from, &server, 5000), 5000);
    client.read_exact(&mut [0; 5000]).expect("read");
    said(&mut client, &mut server, REQUEST);

    let seen = scene.seen();
    let hidden: Vec<_> = seen.at(&server).data(Direction::Write).skip(1).collect();
    assert!(hidden.iter().all(|data| data.path == Path::Hidden && data.bytes.is_empty()), "{hidden:?}");
    assert_eq!(hidden.iter().map(|data| data.length).sum::<u32>(), 5000);
    scene.lost_nothing();
}

#[test]
fn bytes_spliced_out_of_a_socket_show_as_a_gap_in_the_positions() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    client.write_all(&[b'b'; 1000]).expect("write");
    let (_from, into) = io::pipe().expect("a pipe");
    let mut moved = 0;
    while moved < 1000 {
        moved += spliced(&server, &into, 1000 - moved);
    }
    said(&mut client, &mut server, REQUEST);

    let seen = scene.seen();
    let read: Vec<_> = seen.at(&server).data(Direction::Read).collect();
    let skipped: u32 = read.iter().filter(|data| data.path == Path::Hidden).map(|data| data.length).sum();
    let last = read.last().expect("after the splice");
    assert_eq!(last.bytes, REQUEST);
    assert_eq!(last.position.wrapping_sub(read[0].position), length(REQUEST) + 1000, "{skipped} were counted");
    scene.lost_nothing();
}

#[test]
fn the_beginning_of_a_request_on_a_hidden_path_is_counted() {
    let Some(mut scene) = Scene::watch_sockets("127.0.0.1:0") else { return };
    let (client, mut server) = scene.connect();
    let (from, mut into) = io::pipe().expect("a pipe");
    into.write_all(REQUEST).expect("write");
    assert_eq!(spliced(&from, &client, REQUEST.len()), REQUEST.len());
    heard(&mut server, REQUEST);
    let seen = scene.seen();
    assert!(seen.on(near_port(&client)).is_none());
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    assert_eq!(scene.lost(Reason::UnsupportedPath), 1);
}
