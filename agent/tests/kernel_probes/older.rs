// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that were open before the probes.

use std::net::{TcpListener, TcpStream};

use spantap::kernel::Settings;
use spantap_common::{
    abi::SNIFF_CALLS,
    event::{data::Direction, socket::Origin},
};

use crate::{
    dialogue::{REQUEST, RESPONSE, opposite, said},
    scene::{Scene, privileged},
};

#[test]
fn a_socket_older_than_the_probes_is_picked_up_at_its_next_request() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    said(&mut client, &mut server, b"POST /old HTTP/1.1\r\nContent-Length: 4\r\n\r\n");

    let mut scene = Scene::of(listener, Settings::default());
    said(&mut client, &mut server, b"body");
    said(&mut server, &mut client, RESPONSE);
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    let seen = scene.seen();
    for (end, requests) in [(seen.at(&client), Direction::Write), (seen.at(&server), Direction::Read)] {
        assert_eq!((end.socket.origin, end.socket.requests), (Origin::Unknown, requests));
        assert_eq!(end.text(requests), REQUEST);
        assert_eq!(end.text(opposite(requests)), RESPONSE);
    }
    scene.lost_nothing();
}

#[test]
fn an_old_socket_without_requests_is_given_up() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");

    let mut scene = Scene::of(listener, Settings::default());
    for _ in 0..SNIFF_CALLS {
        said(&mut client, &mut server, b"no request");
    }
    said(&mut client, &mut server, REQUEST);
    assert!(scene.seen().is_empty());
    scene.lost_nothing();
}
