// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Calls whose memory is in several pieces.

use std::{
    io::{IoSlice, IoSliceMut, Read, Write},
    thread,
};

use spantap_common::{
    abi::{CAPTURE_BUDGET, MAX_SEGMENTS, OVERFLOW_HEAD},
    event::data::{Direction, Path},
};

use crate::{
    dialogue::{REQUEST, batch, length, long_head, message, positioned, said},
    scene::{Scene, Seen},
};

#[test]
fn the_segments_of_a_vector_are_one_record() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    // The beginning of the request is spread over segments, one of them empty.
    let parts: [&[u8]; 4] = [b"GE", b"", b"T /vector HT", b"TP/1.1\r\n\r\n"];
    let sent = client.write_vectored(&parts.map(IoSlice::new)).expect("writev");
    assert_eq!(sent, parts.concat().len());
    let (mut first, mut second) = ([0; 5], [0; 64]);
    let received =
        server.read_vectored(&mut [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)]).expect("readv");
    assert_eq!(received, sent);

    let seen = scene.seen();
    let near: Vec<_> = seen.at(&client).data(Direction::Write).map(|data| data.bytes.clone()).collect();
    assert_eq!(near, [parts.concat()]);
    let far: Vec<_> = seen.at(&server).data(Direction::Read).map(|data| data.bytes.clone()).collect();
    assert_eq!(far, [parts.concat()]);
    scene.lost_nothing();
}

#[test]
fn messages_are_seen_like_vectors() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (client, server) = scene.connect();
    let mut request = REQUEST.to_vec();
    let (head, rest) = request.split_at_mut(10);
    assert_eq!(message(libc::SYS_sendmsg, &client, [head, rest]), REQUEST.len());
    let mut received = [0; 128];
    let (head, rest) = received.split_at_mut(7);
    assert_eq!(message(libc::SYS_recvmsg, &server, [head, rest]), REQUEST.len());

    let seen = scene.seen();
    let lengths = |at: &Seen, direction| at.data(direction).map(|data| data.length).collect::<Vec<_>>();
    assert_eq!(seen.at(&client).text(Direction::Write), REQUEST);
    assert_eq!(lengths(seen.at(&client), Direction::Write), [length(REQUEST)]);
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    assert_eq!(lengths(seen.at(&server), Direction::Read), [length(REQUEST)]);
    scene.lost_nothing();
}

#[test]
fn a_head_in_segments_of_one_byte_is_one_record() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let head = &long_head(2 << 10)[..scene.gathered()];
    let parts: Vec<_> = head.chunks(1).map(IoSlice::new).collect();
    assert_eq!(client.write_vectored(&parts).expect("writev"), head.len());
    let mut received = vec![0; head.len()];
    let mut parts: Vec<_> = received.chunks_mut(1).map(IoSliceMut::new).collect();
    assert_eq!(server.read_vectored(&mut parts).expect("readv"), head.len());

    let seen = scene.seen();
    assert_eq!(seen.at(&client).data(Direction::Write).count(), 1);
    assert_eq!(seen.at(&client).text(Direction::Write), head);
    assert_eq!(seen.at(&server).data(Direction::Read).count(), 1);
    assert_eq!(seen.at(&server).text(Direction::Read), head);
    scene.lost_nothing();
}

#[test]
fn segments_of_any_size_are_gathered_up_to_the_budget() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let mut sent = long_head(20 << 10);
    sent.resize(48 << 10, b'b');
    // 0, 1, 2, … bytes, and the rest in one.
    let (mut parts, mut rest) = (Vec::new(), &sent[..]);
    for size in 0..2 * MAX_SEGMENTS as usize {
        let (part, behind) = rest.split_at(size);
        parts.push(IoSlice::new(part));
        rest = behind;
    }
    parts.push(IoSlice::new(rest));
    let (written, received) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut received = vec![0; sent.len()];
            server.read_exact(&mut received).expect("read");
            received
        });
        (client.write_vectored(&parts).expect("writev"), reader.join().expect("read"))
    });
    assert_eq!(written, sent.len(), "a blocking socket takes all");
    assert!(received == sent);

    let seen = scene.seen();
    let written: Vec<_> = seen.at(&client).data(Direction::Write).collect();
    let budget = CAPTURE_BUDGET as usize;
    assert_eq!(written.iter().map(|data| data.bytes.len()).collect::<Vec<_>>(), [budget, 0]);
    assert!(written[0].bytes == sent[..budget]);
    assert_eq!((written[1].length as usize, written[1].path), (sent.len() - budget, Path::Memory));
    assert_eq!(written[1].position, written[0].position.wrapping_add(CAPTURE_BUDGET));
    scene.lost_nothing();
}

#[test]
fn beyond_the_budget_each_segment_shows_its_head() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, &vec![b'a'; CAPTURE_BUDGET as usize]);
    let many = MAX_SEGMENTS as usize + 4;
    let part = [b'b'; 2 * OVERFLOW_HEAD];
    let sent = server.write_vectored(&vec![IoSlice::new(&part); many]).expect("writev");
    assert_eq!(sent, many * part.len());
    client.read_exact(&mut vec![0; sent]).expect("read");

    let seen = scene.seen();
    let written: Vec<_> = seen.at(&server).data(Direction::Write).skip(1).collect();
    let (rest, heads) = written.split_last().expect("more than one");
    assert_eq!(heads.len(), MAX_SEGMENTS as usize);
    assert!(heads.iter().all(|head| (head.length, head.bytes.len()) == (32, OVERFLOW_HEAD)), "{heads:?}");
    assert_eq!((rest.length, rest.bytes.len(), rest.path), (4 * 32, 0, Path::Memory));
    assert_eq!(rest.position, heads[0].position.wrapping_add(length(&part) * MAX_SEGMENTS));
    scene.lost_nothing();
}

#[test]
fn segments_beyond_the_limit_are_counted() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let mut parts = vec![&REQUEST[..REQUEST.len() - 1]];
    parts.resize(scene.gathered() + 100, b"x");
    let sent = client.write_vectored(&parts.iter().map(|part| IoSlice::new(part)).collect::<Vec<_>>()).expect("writev");
    server.read_exact(&mut vec![0; sent]).expect("read");

    let seen = scene.seen();
    let near: Vec<_> = seen.at(&client).data(Direction::Write).collect();
    assert_eq!(near.len(), 2);
    assert!(near[0].bytes.len() >= REQUEST.len() + scene.gathered() - 2, "{}", near[0].bytes.len());
    assert_eq!(near.iter().map(|data| data.length as usize).sum::<usize>(), sent);
    assert_eq!((near[1].bytes.len(), near[1].path), (0, Path::Memory));
    scene.lost_nothing();
}

#[test]
fn each_message_of_a_batch_is_seen_in_its_own_memory() {
    let Some(mut scene) = Scene::watch_sockets("127.0.0.1:0") else { return };
    let (client, server) = scene.connect();
    let parts: [&[u8]; 3] = [b"GET /batch HT", b"TP/1.1\r\nHost: x\r\n", b"\r\n"];
    // The same arrays twice: the second call must not be taken for the rest of the first.
    for _ in 0..2 {
        let mut sent = parts.map(<[u8]>::to_vec);
        assert_eq!(batch(libc::SYS_sendmmsg, &client, &mut sent, 0), parts.map(<[u8]>::len));
        let mut received = parts.map(|part| vec![0; part.len()]);
        assert_eq!(batch(libc::SYS_recvmmsg, &server, &mut received, 0), parts.map(<[u8]>::len));
        assert_eq!(received, sent);
    }

    let seen = scene.seen();
    let twice = [parts.concat(), parts.concat()].concat();
    assert_eq!(seen.at(&client).text(Direction::Write), twice);
    assert_eq!(seen.at(&server).text(Direction::Read), twice);
    scene.lost_nothing();
}

#[test]
fn a_batch_that_ends_early_is_not_continued_by_the_next() {
    let Some(mut scene) = Scene::watch_sockets("127.0.0.1:0") else { return };
    let (mut client, server) = scene.connect();
    let mut received = [vec![0; REQUEST.len()], vec![b'?'; REQUEST.len()]];
    for _ in 0..2 {
        client.write_all(REQUEST).expect("write");
        // There is one message's worth; the call fails at the second, which is told to nobody.
        assert_eq!(batch(libc::SYS_recvmmsg, &server, &mut received, libc::MSG_WAITFORONE), [REQUEST.len()]);
    }
    let seen = scene.seen();
    assert_eq!(seen.at(&server).text(Direction::Read), [REQUEST, REQUEST].concat());
    scene.lost_nothing();
}

#[test]
fn a_vector_at_no_position_is_seen_like_any_other() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (client, server) = scene.connect();
    let mut sent = REQUEST.to_vec();
    let mut received = vec![0; REQUEST.len()];
    assert_eq!(positioned(libc::SYS_pwritev2, &client, &mut sent), REQUEST.len());
    assert_eq!(positioned(libc::SYS_preadv2, &server, &mut received), REQUEST.len());
    assert_eq!(received, REQUEST);

    let seen = scene.seen();
    assert_eq!(seen.at(&client).text(Direction::Write), REQUEST);
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    scene.lost_nothing();
}
