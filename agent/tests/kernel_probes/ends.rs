// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How connections end.

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use spantap_common::event::{data::Direction, socket::Shut};

use crate::{
    dialogue::{REQUEST, RESPONSE, length, near_port, said},
    scene::{Scene, Scenery, Seen},
};

#[test]
fn an_orderly_end_is_seen_in_its_steps() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    server.write_all(RESPONSE).expect("write");
    // The FIN may come with the last bytes: it must not move their position.
    drop(server);
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("read");
    assert_eq!(received, RESPONSE);
    let (near, far) = (near_port(&client), scene.port());
    drop(client);

    let ended = |seen: &Scenery| [near, far].iter().all(|port| seen.on(*port).is_some_and(|end| end.has(Shut::Closed)));
    let seen = scene.until("both ends are closed", ended);
    let (near, far) = (seen.on(near).expect("seen"), seen.on(far).expect("seen"));
    let steps = |end: &Seen| end.ends.iter().map(|end| (end.how, end.errno)).collect::<Vec<_>>();
    assert_eq!(steps(far), [(Shut::WriteEnd, 0), (Shut::Closed, 0)]);
    assert_eq!(steps(near), [(Shut::ReadEnd, 0), (Shut::WriteEnd, 0), (Shut::Closed, 0)]);

    assert_eq!(near.first(Direction::Read).position, far.first(Direction::Write).position);
    let last = far.first(Direction::Write).position.wrapping_add(length(RESPONSE));
    assert!(far.ends.iter().all(|end| end.write_position == last), "{:?} {last}", far.ends);
    assert!(near.ends.iter().all(|end| end.read_position == last), "{:?} {last}", near.ends);
    scene.lost_nothing();
}

#[test]
fn a_client_that_stops_writing_early_still_reads_its_response() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    client.shutdown(Shutdown::Write).expect("shutdown");
    assert_eq!(server.read(&mut [0; 8]).expect("read"), 0);
    server.write_all(RESPONSE).expect("write");
    let (port, far) = (near_port(&client), scene.port());
    drop(server);
    // The connection is gone by then, the bytes are not.
    scene.until("the server's end is closed", |seen| seen.on(far).is_some_and(|end| end.has(Shut::Closed)));
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("read");
    assert_eq!(received, RESPONSE);

    let seen = scene.until("the client's end is closed", |seen| seen.on(port).is_some_and(|end| end.has(Shut::Closed)));
    let near = seen.on(port).expect("seen");
    assert_eq!(near.text(Direction::Read), RESPONSE);
    assert_eq!(near.ends.iter().map(|end| end.how).collect::<Vec<_>>(), [Shut::WriteEnd, Shut::ReadEnd, Shut::Closed]);
    assert_eq!(near.first(Direction::Read).opposite, near.first(Direction::Write).position + length(REQUEST));
    scene.lost_nothing();
}

#[test]
fn a_reset_is_an_error() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    server.write_all(RESPONSE).expect("write");
    let (near, far) = (near_port(&client), scene.port());
    // RFC 1122 4.2.2.13: closing with received data unread, "TCP SHOULD send a RST to show that data was lost".
    drop(client);

    let seen = scene.until("both ends are closed", |seen| {
        [near, far].iter().all(|port| seen.on(*port).is_some_and(|end| end.has(Shut::Closed)))
    });
    let closed = |port| seen.on(port).and_then(|end| end.ends.last()).map(|end| i32::from(end.errno));
    assert_eq!(closed(far), Some(libc::ECONNRESET));
    assert_eq!(closed(near), Some(0));
    scene.lost_nothing();
}
