// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is seen and counted while the agent does less, and afterwards.

use spantap::kernel::Settings;
use spantap_common::{
    event::{data::Direction, socket::Origin},
    loss::Reason,
};

use crate::{
    dialogue::{REQUEST, RESPONSE, length, said},
    scene::Scene,
};

#[test]
fn calls_are_counted_and_not_copied() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);

    scene.probes.controls().count_only(true).expect("the map is there");
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);
    let (mut new_client, mut new_server) = scene.connect();
    said(&mut new_client, &mut new_server, REQUEST);
    let seen = scene.seen();
    assert_eq!(seen.sockets.len(), 2, "the new connection is not introduced");
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST);
    assert_eq!(scene.lost(Reason::SelfBudget), 6, "each call");

    scene.probes.controls().count_only(false).expect("the map is there");
    said(&mut client, &mut server, REQUEST);
    said(&mut new_server, &mut new_client, RESPONSE);
    said(&mut new_client, &mut new_server, REQUEST);
    let seen = scene.seen();
    let read: Vec<_> = seen.at(&server).data(Direction::Read).map(|data| (data.position, data.length)).collect();
    let once = length(REQUEST);
    assert_eq!(read[1].0.wrapping_sub(read[0].0), 2 * once, "what was not seen has an exact length");
    let bytes: Vec<_> = seen.at(&server).data(Direction::Read).map(|data| &data.bytes[..]).collect();
    assert_eq!(bytes, [REQUEST, REQUEST]);
    let new = seen.at(&new_server);
    assert_eq!((new.socket.origin, new.socket.midway), (Origin::OlderAccepted, true));
    assert_eq!(new.text(Direction::Read), REQUEST);
    assert_eq!(scene.lost(Reason::SelfBudget), 6, "no more");
}

#[test]
fn probes_that_are_attached_again_take_every_connection_for_an_old_one() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    scene.probes.controls().count_only(true).expect("the map is there");
    said(&mut server, &mut client, RESPONSE);
    let introduced = scene.seen().at(&server).socket.origin;
    assert_eq!(introduced, Origin::Accepted);

    scene.probes.detach();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);
    assert_eq!(scene.seen().at(&server).text(Direction::Read), REQUEST, "nobody looks");

    let settings = Settings { ports: vec![scene.port()], ..Settings::default() };
    scene.probes.attach_again(&settings).expect("as before");
    assert_eq!(scene.lost(Reason::SelfBudget), 2, "what was counted stays counted");
    said(&mut client, &mut server, REQUEST);
    let seen = scene.seen();
    let again = seen.at(&server);
    assert_ne!(again.socket.origin, introduced, "as one that was open before");
    assert_eq!(again.text(Direction::Read), REQUEST);
}
