// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that were open before the probes.

use std::net::{TcpListener, TcpStream};

use spantap::kernel::Settings;
use spantap_common::{
    abi::{SNIFF_CALLS, SNIFF_TURNS},
    event::{data::Direction, socket::Origin},
    opaque::Opaque,
};

use crate::{
    dialogue::{REQUEST, RESPONSE, opposite, said},
    scene::{Scene, Scenery, privileged},
};

/// A connection before there are probes: who listens, the client's end, the server's.
fn connected() -> (TcpListener, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    let (server, _) = listener.accept().expect("accept");
    (listener, client, server)
}

/// Both ends show one request and its response, and nothing of what was said before.
fn an_exchange_is_seen(seen: &Scenery, client: &TcpStream, server: &TcpStream) {
    for (end, requests) in [(seen.at(client), Direction::Write), (seen.at(server), Direction::Read)] {
        assert_eq!(end.socket.requests, requests);
        assert_eq!(end.text(requests), REQUEST);
        assert_eq!(end.text(opposite(requests)), RESPONSE);
    }
}

#[test]
fn a_socket_older_than_the_probes_is_picked_up_at_its_next_request() {
    if !privileged() {
        return;
    }
    let (listener, mut client, mut server) = connected();
    said(&mut client, &mut server, b"POST /old HTTP/1.1\r\nContent-Length: 4\r\n\r\n");

    let mut scene = Scene::of(listener, Settings::default());
    said(&mut client, &mut server, b"body");
    said(&mut server, &mut client, RESPONSE);
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    let seen = scene.seen();
    for (end, origin) in [(seen.at(&client), Origin::OlderConnected), (seen.at(&server), Origin::OlderAccepted)] {
        assert_eq!((end.socket.origin, end.socket.midway), (origin, true));
    }
    an_exchange_is_seen(&seen, &client, &server);
    scene.lost_nothing();
}

#[test]
fn a_long_message_that_was_under_way_is_passed_over_and_the_next_request_seen() {
    if !privileged() {
        return;
    }
    let (listener, mut client, mut server) = connected();

    let mut scene = Scene::of(listener, Settings::default());
    for _ in 0..3 * SNIFF_CALLS {
        said(&mut client, &mut server, b"more of it");
    }
    said(&mut server, &mut client, RESPONSE);
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    let seen = scene.seen();
    assert!(seen.at(&client).socket.midway && seen.at(&server).socket.midway);
    an_exchange_is_seen(&seen, &client, &server);
    scene.lost_nothing();
}

#[test]
fn what_a_server_writes_is_no_request_whatever_it_looks_like() {
    if !privileged() {
        return;
    }
    let (listener, mut client, mut server) = connected();

    let mut scene = Scene::of(listener, Settings::default());
    // A call of a response that is under way; it begins with what a request would.
    said(&mut server, &mut client, REQUEST);
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    an_exchange_is_seen(&scene.seen(), &client, &server);
    scene.lost_nothing();
}

#[test]
fn the_walk_knows_who_accepted_and_who_listens() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    let pairs: Vec<_> =
        (0..5).map(|_| (TcpStream::connect(address).expect("connect"), listener.accept().expect("accept").0)).collect();

    let scene = Scene::of(listener, Settings::default());
    let older = scene.probes.older();
    // Others on this host have connections too.
    assert!(older.connections.accepted >= 5 && older.connections.connected >= 5, "{older:?}");
    assert!(older.processes.contains(&std::process::id()), "{older:?}");
    drop(pairs);
}

#[test]
fn an_old_socket_without_requests_is_given_up_and_counted() {
    if !privileged() {
        return;
    }
    let (listener, mut client, mut server) = connected();

    let mut scene = Scene::of(listener, Settings::default());
    let left_alone = |scene: &Scene| scene.probes.left_alone()[Opaque::Other as usize];
    for _ in 0..SNIFF_TURNS / 2 {
        assert_eq!(left_alone(&scene), 0, "not yet");
        said(&mut client, &mut server, b"no request");
        said(&mut server, &mut client, b"no response");
    }
    said(&mut client, &mut server, REQUEST);
    assert!(scene.seen().is_empty());
    assert_eq!(left_alone(&scene), 2, "both ends");
    scene.lost_nothing();
}
