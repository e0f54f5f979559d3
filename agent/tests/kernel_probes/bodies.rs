// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Long bodies whose end the agent has told: few records, and nothing missing.

use std::{io::Write as _, net::TcpStream};

use spantap::{kernel::Tier, pipeline::LongBody};
use spantap_common::{
    abi::{LONG_CALL, MOST_PASSED},
    event::{data::Direction, socket::Shut},
};

use crate::{
    dialogue::{REQUEST, RESPONSE, heard, length, said},
    scene::{Scene, Scenery, Seen},
};

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n";
const BODY: usize = 4 << 20;
const CHUNK: &[u8] = &[b'x'; 64 << 10];

/// A connection in the middle of a body: its head and a first chunk have moved.
struct Download {
    scene: Scene,
    client: TcpStream,
    server: TcpStream,
    /// Position of the body's first byte.
    begins: u32,
}

impl Download {
    /// The probes are told where the body ends.
    fn begin() -> Option<Self> {
        let mut scene = Scene::watch("127.0.0.1:0")?;
        let (mut client, mut server) = scene.connect();
        said(&mut client, &mut server, REQUEST);
        said(&mut server, &mut client, HEAD);
        said(&mut server, &mut client, CHUNK);
        let seen = scene.seen();
        let begins = seen.at(&server).first(Direction::Write).position.wrapping_add(length(HEAD));
        for (end, direction) in [(seen.at(&server), Direction::Write), (seen.at(&client), Direction::Read)] {
            let (socket, seen) = (end.socket.id, spantap::clock::now());
            let told = LongBody { socket, direction, end: begins.wrapping_add(BODY as u32), seen };
            scene.probes.controls().pass_over(told).expect("room");
        }
        Some(Self { scene, client, server, begins })
    }

    /// Further chunks move, each in one write.
    fn goes_on(&mut self, chunks: usize) {
        for _ in 0..chunks {
            said(&mut self.server, &mut self.client, CHUNK);
        }
    }

    fn ends(&mut self) -> Scenery {
        let seen = self.scene.seen();
        self.scene.lost_nothing();
        seen
    }

    /// Whether calls are passed over here.
    fn passes(&self) -> bool {
        self.scene.probes.tier() == Tier::A
    }
}

/// Where what was seen of a direction ends, proven to be without a gap.
fn reached(end: &Seen, direction: Direction) -> u32 {
    let mut reached = end.first(direction).position;
    for data in end.data(direction) {
        assert_eq!(data.position, reached, "a gap: {data:?}");
        reached = reached.wrapping_add(data.length);
    }
    reached
}

#[test]
fn most_calls_in_the_middle_of_a_long_body_need_no_record() {
    let Some(mut download) = Download::begin() else { return };
    let before = download.scene.seen().at(&download.server).data.len();
    download.goes_on(BODY / CHUNK.len() - 1);
    let seen = download.ends();
    let (server, client) = (seen.at(&download.server), seen.at(&download.client));
    let ends = download.begins.wrapping_add(BODY as u32);
    assert_eq!((reached(server, Direction::Write), reached(client, Direction::Read)), (ends, ends));
    if download.passes() {
        // 63 writes: three times 15 that are passed over and one that is not, 14, and the last.
        let records = 2 * (BODY / CHUNK.len()).div_ceil(usize::from(MOST_PASSED) + 1);
        assert_eq!(server.data.len() - before, records, "{server:#?}");
    }
    // The last call is told by itself, so that its time is the body's end.
    assert!(server.data.last().is_some_and(|last| last.length == length(CHUNK)), "{server:#?}");

    // The next exchange is seen as if nothing had been passed over.
    let Download { scene, client, server, .. } = &mut download;
    said(client, server, REQUEST);
    said(server, client, RESPONSE);
    let seen = scene.seen();
    assert_eq!(seen.at(server).data.last().map(|last| &last.bytes[..]), Some(RESPONSE));
    reached(seen.at(client), Direction::Read);
    scene.lost_nothing();
}

#[test]
fn what_was_passed_over_is_told_before_the_connection_turns_round_or_ends() {
    let Some(mut download) = Download::begin() else { return };
    download.goes_on(5);
    // A client that does not wait: its next request comes in the middle of the answer.
    let Download { client, server, .. } = &mut download;
    said(client, server, REQUEST);
    let seen = download.scene.seen();
    let five = download.begins.wrapping_add(6 * length(CHUNK));
    let end = seen.at(&download.server);
    assert_eq!(reached(end, Direction::Write), five);
    assert!(end.data.last().is_some_and(|last| last.direction == Direction::Read && last.opposite == five), "{end:#?}");

    download.goes_on(5);
    // It stops in the middle.
    let Download { scene, client, server, begins } = download;
    let (near, far) = (client.local_addr().expect("open").port(), scene.port());
    drop((client, server));
    let seen = scene_until_closed(scene, near, far);
    for (port, direction) in [(near, Direction::Read), (far, Direction::Write)] {
        let end = seen.on(port).expect("seen");
        assert_eq!(reached(end, direction), begins.wrapping_add(11 * length(CHUNK)), "{port}");
    }
}

/// What was seen once both ends are closed.
fn scene_until_closed(mut scene: Scene, near: u16, far: u16) -> Scenery {
    let closed = |seen: &Scenery, port| seen.on(port).is_some_and(|end| end.has(Shut::Closed));
    let seen = scene.until("both ends are closed", |seen| closed(seen, near) && closed(seen, far));
    scene.lost_nothing();
    seen
}

#[test]
fn short_calls_are_told_one_by_one() {
    let Some(mut download) = Download::begin() else { return };
    let before = download.scene.seen().at(&download.server).data.len();
    let short = vec![b'y'; LONG_CALL as usize - 1];
    for _ in 0..10 {
        download.server.write_all(&short).expect("write");
        heard(&mut download.client, &short);
    }
    let seen = download.ends();
    assert_eq!(seen.at(&download.server).data.len() - before, 10);
}

#[test]
fn the_end_of_an_older_body_is_nobodys() {
    let Some(mut download) = Download::begin() else { return };
    // It ends before it was told of: at the other end of the number circle it would be far ahead, one day.
    let Download { scene, client, server, .. } = &mut download;
    said(client, server, REQUEST);
    said(server, client, HEAD);
    let before = scene.seen().at(server).data.len();
    download.goes_on(10);
    let seen = download.ends();
    assert_eq!(seen.at(&download.server).data.len() - before, 10, "what was told of is before the turn");
}
