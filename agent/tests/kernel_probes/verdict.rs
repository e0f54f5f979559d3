// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which sockets are looked at, and which are left alone.

use std::{
    io::Write,
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
};

use spantap::kernel::Settings;
use spantap_common::{
    abi::TURNS_PER_LOOK,
    event::{data::Direction, socket::Shut},
    settings::{ProcessSettings, Verdict},
    sniff::Guess,
};

use crate::{
    dialogue::{REQUEST, RESPONSE, heard, said},
    scene::{Scene, privileged},
};

#[test]
fn what_is_no_request_is_left_alone_for_good() {
    for first in [&b"EHLO mail.example.org\r\n"[..], b"HTTP/1.1 200 OK\r\n\r\n", b"\x16\x03\x01\x02\x00", b"PING\r\n"] {
        let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
        let (mut client, mut server) = scene.connect();
        said(&mut client, &mut server, first);
        said(&mut client, &mut server, REQUEST);
        said(&mut server, &mut client, REQUEST);
        assert!(scene.seen().is_empty(), "{first:?}");
        scene.lost_nothing();
    }
}

#[test]
fn a_server_that_speaks_first_is_left_alone() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut server, &mut client, b"220 ready\r\n");
    said(&mut client, &mut server, REQUEST);
    assert!(scene.seen().is_empty());
    scene.lost_nothing();
}

#[test]
fn a_beginning_that_comes_to_nothing_is_taken_back() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    for part in [&b"GE"[..], b"T ", b"key\r\n", REQUEST] {
        said(&mut client, &mut server, part);
    }
    let seen = scene.seen();
    for end in [seen.at(&client), seen.at(&server)] {
        assert_eq!(end.socket.protocol, Guess::Http1);
        assert_eq!(end.ends.iter().map(|end| end.how).collect::<Vec<_>>(), [Shut::Closed]);
    }
    assert_eq!(seen.at(&client).text(Direction::Write), b"GET ");
    scene.lost_nothing();
}

#[test]
fn the_agents_own_exports_are_left_alone_at_both_ends() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    // A process that waits for its cue, connects, and asks like an exporter; this one is the collector.
    let script = format!(
        "read cue; exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'POST /v1/traces HTTP/1.1\\r\\n\\r\\n' >&3; read answer <&3"
    );
    let mut agent = Command::new("bash").args(["-c", &script]).stdin(Stdio::piped()).spawn().expect("bash");
    let mut scene = Scene::of(listener, Settings { agent_pid: agent.id(), ..Settings::default() });
    agent.stdin.take().expect("piped").write_all(b"go\n").expect("cue");
    let mut collector = scene.accept();
    heard(&mut collector, b"POST /v1/traces HTTP/1.1\r\n\r\n");
    collector.write_all(RESPONSE).expect("write");
    assert!(agent.wait().expect("bash").success());
    assert!(scene.seen().is_empty());

    // Another client of the same collector is not the agent.
    let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let mut server = scene.accept();
    said(&mut client, &mut server, REQUEST);
    assert_eq!(scene.seen().at(&client).text(Direction::Write), REQUEST);
    scene.lost_nothing();
}

#[test]
fn settings_decide_whose_sockets_are_seen() {
    use Verdict::{Ignored, Target, Undecided};
    for (default, own, seen) in [
        (Undecided, None, true),
        (Undecided, Some(Ignored), false),
        (Ignored, None, false),
        (Ignored, Some(Target), true),
    ] {
        if !privileged() {
            return;
        }
        let own = own.map(|verdict| ProcessSettings { verdict: verdict as u32, ..ProcessSettings::default() });
        let settings = Settings {
            default_verdict: default,
            processes: own.iter().map(|settings| (std::process::id(), *settings)).collect(),
            ..Settings::default()
        };
        let mut scene = Scene::of(TcpListener::bind("127.0.0.1:0").expect("bind"), settings);
        let (mut client, mut server) = scene.connect();
        said(&mut client, &mut server, REQUEST);
        assert_eq!(!scene.seen().is_empty(), seen, "{default:?} {own:?}");

        // A verdict that comes later holds for the sockets that come later.
        let turned =
            ProcessSettings { verdict: if seen { Ignored } else { Target } as u32, ..ProcessSettings::default() };
        scene.probes.controls().set_process(std::process::id(), turned).expect("room");
        scene.forget();
        let (mut client, mut server) = scene.connect();
        said(&mut client, &mut server, REQUEST);
        assert_eq!(!scene.seen().is_empty(), !seen, "{default:?} {own:?} turned");
        scene.lost_nothing();
    }
}

#[test]
fn a_socket_that_the_agent_cannot_use_is_left_alone_from_then_on() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let (mut other, mut its_server) = scene.connect();
    for (client, server) in [(&mut client, &mut server), (&mut other, &mut its_server)] {
        said(client, server, REQUEST);
        said(server, client, RESPONSE);
    }
    let seen = scene.seen();
    for id in [seen.at(&client).socket.id, seen.at(&server).socket.id] {
        scene.probes.controls().leave_alone(id).expect("room");
    }
    for _ in 0..TURNS_PER_LOOK {
        said(&mut client, &mut server, b"ping");
        said(&mut server, &mut client, b"pong");
    }
    let seen = scene.seen();
    for end in [seen.at(&client), seen.at(&server)] {
        assert!(end.has(Shut::Closed), "{end:#?}");
        assert!(end.data.len() <= usize::from(TURNS_PER_LOOK), "{end:#?}");
    }
    // Nobody else is concerned, and not even a request brings it back.
    for _ in 0..TURNS_PER_LOOK {
        said(&mut other, &mut its_server, REQUEST);
        said(&mut its_server, &mut other, RESPONSE);
    }
    let seen = scene.seen();
    assert_eq!(seen.at(&its_server).data(Direction::Read).count(), 1 + usize::from(TURNS_PER_LOOK));
    scene.forget();
    said(&mut client, &mut server, REQUEST);
    assert!(scene.seen().is_empty());
    scene.lost_nothing();
}

#[test]
fn a_port_that_was_not_named_is_not_watched() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let other = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut client = TcpStream::connect(other.local_addr().expect("bound")).expect("connect");
    let (mut server, _) = other.accept().expect("accept");
    said(&mut client, &mut server, REQUEST);
    assert!(scene.seen().is_empty());
    scene.lost_nothing();
}
