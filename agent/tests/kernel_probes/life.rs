// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that change hands: threads, processes and programs come and go, the socket stays the same.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    mem,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    ptr, thread,
    time::Instant,
};

use spantap::{
    event::{self, Event},
    kernel::Settings,
};
use spantap_common::{
    event::{
        data::Direction,
        process::Life,
        socket::{Origin, Shut},
    },
    loss::Reason,
};

use crate::{
    dialogue::{REQUEST, RESPONSE, heard, length, said},
    scene::{PATIENCE, Scene, privileged},
};

#[test]
fn threads_that_serve_in_turn_are_told_apart() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    let mut threads = Vec::new();
    for _ in 0..3 {
        client.write_all(REQUEST).expect("write");
        let tid = thread::scope(|scope| {
            let serving = scope.spawn(|| {
                heard(&mut server, REQUEST);
                server.write_all(RESPONSE).expect("write");
                // SAFETY: it takes no argument.
                unsafe { libc::gettid() }
            });
            serving.join().expect("served")
        });
        threads.push(u32::try_from(tid).expect("positive"));
        heard(&mut client, RESPONSE);
    }
    let seen = scene.seen();
    let served = seen.at(&server);
    assert_eq!(served.text(Direction::Read), REQUEST.repeat(3));
    assert_eq!(served.text(Direction::Write), RESPONSE.repeat(3));
    for direction in [Direction::Read, Direction::Write] {
        assert_eq!(served.data(direction).map(|data| data.task.tid).collect::<Vec<_>>(), threads);
    }
    scene.lost_nothing();
}

#[test]
fn a_duplicate_of_a_descriptor_is_the_same_socket() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let mut duplicate = server.try_clone().expect("dup");
    said(&mut duplicate, &mut client, RESPONSE);
    drop(duplicate);
    said(&mut client, &mut server, REQUEST);

    let seen = scene.seen();
    assert_eq!(seen.at(&server).text(Direction::Read), REQUEST.repeat(2));
    assert_eq!(seen.at(&server).text(Direction::Write), RESPONSE);
    assert!(seen.at(&server).ends.is_empty(), "closing one of two descriptors ends nothing");
    scene.lost_nothing();
}

#[test]
fn a_connection_handed_to_another_program_is_its_own_from_then_on() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    said(&mut server, &mut client, RESPONSE);
    // Inherited through fork and exec: the program reads a request, and answers.
    let script = r#"while read -r line && [ "$line" != $'\r' ]; do :; done; printf 'HTTP/1.1 204 No Content\r\n\r\n'"#;
    let (input, output) = (server.try_clone().expect("dup"), server.try_clone().expect("dup"));
    let mut command = Command::new("bash");
    command.args(["-c", script]).stdin(Stdio::from(OwnedFd::from(input))).stdout(OwnedFd::from(output));
    let mut child = command.spawn().expect("bash");
    client.write_all(REQUEST).expect("write");
    heard(&mut client, b"HTTP/1.1 204 No Content\r\n\r\n");
    let pid = child.id();
    assert!(child.wait().expect("bash").success());

    let seen = scene.seen();
    let served = seen.at(&server);
    assert_eq!(served.text(Direction::Read), REQUEST.repeat(2));
    // It writes line by line.
    let mut writers: Vec<_> = served.data(Direction::Write).map(|data| data.task.pid).collect();
    writers.dedup();
    assert_eq!(writers, [std::process::id(), pid]);
    scene.lost_nothing();
}

#[test]
fn a_connection_passed_in_a_message_is_the_same_socket() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let (mut client, mut server) = scene.connect();
    said(&mut client, &mut server, REQUEST);
    let mut passed = TcpStream::from(passed_on(server));
    said(&mut passed, &mut client, RESPONSE);
    said(&mut client, &mut passed, REQUEST);

    let seen = scene.seen();
    assert_eq!(seen.at(&passed).text(Direction::Read), REQUEST.repeat(2));
    assert_eq!(seen.at(&passed).text(Direction::Write), RESPONSE);
    scene.lost_nothing();
}

#[test]
fn listeners_that_share_a_port_are_all_watched() {
    if !privileged() {
        return;
    }
    let first = sharing_listener(0);
    let port = first.local_addr().expect("bound").port();
    let second = sharing_listener(port);
    for listener in [&first, &second] {
        listener.set_nonblocking(true).expect("a flag");
    }
    let mut scene = Scene::of(first, Settings::default());
    let mut connections = Vec::new();
    for _ in 0..16 {
        let mut client = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let accepted = second.accept().or_else(|_| scene.listener.accept());
        let (mut server, _) = accepted.expect("one of them has it");
        server.set_nonblocking(false).expect("a flag");
        said(&mut client, &mut server, REQUEST);
        connections.push((client, server));
    }
    let seen = scene.seen();
    for (client, server) in &connections {
        assert_eq!(seen.at(client).socket.origin, Origin::Connected);
        assert_eq!(seen.at(server).socket.origin, Origin::Accepted);
        assert_eq!(seen.at(server).text(Direction::Read), REQUEST);
    }
    scene.lost_nothing();
}

#[test]
fn a_process_of_a_few_milliseconds_is_known_before_its_first_byte() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{}; printf 'GET /short HTTP/1.1\\r\\n\\r\\n' >&3", scene.port());
    let mut child = Command::new("bash").args(["-c", &script]).spawn().expect("bash");
    let pid = child.id();
    let mut server = scene.accept();
    heard(&mut server, b"GET /short HTTP/1.1\r\n\r\n");
    assert!(child.wait().expect("bash").success());

    scene.until("the child has ended", |seen| seen.lives(pid).any(|life| life.life == Life::Exit));
    let mut steps: Vec<_> = scene.records.iter().filter_map(|record| step_of(record, pid)).collect();
    steps.dedup();
    assert_eq!(steps, ["fork", "exec", "socket", "data", "exit"]);
    scene.lost_nothing();
}

#[test]
fn ten_thousand_connections_come_and_go_without_loss() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let mut tally = HashMap::<u64, Tally>::new();
    for _ in 0..CHURN {
        let (mut client, mut server) = scene.connect();
        client.write_all(REQUEST).expect("write");
        heard(&mut server, REQUEST);
        server.write_all(RESPONSE).expect("write");
        drop(server);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("read");
        assert_eq!(received, RESPONSE);
        drop(client);
        scene.probes.drain(|record| note(record, &mut tally));
    }
    let whole = |tally: &Tally| *tally == Tally { introduced: 1, bytes: REQUEST.len() + RESPONSE.len(), closed: 1 };
    let deadline = Instant::now() + PATIENCE;
    while tally.len() < 2 * CHURN || !tally.values().all(whole) {
        let odd: Vec<_> = tally.values().filter(|tally| !whole(tally)).take(5).collect();
        assert!(Instant::now() < deadline, "{} sockets, some of them odd: {odd:?}", tally.len());
        scene.probes.drain(|record| note(record, &mut tally));
        thread::yield_now();
    }
    assert_eq!(tally.len(), 2 * CHURN);
    assert_eq!(scene.lost(Reason::RingFull), 0);
    scene.lost_nothing();
}

/// What was seen of a short connection.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tally {
    introduced: u32,
    bytes: usize,
    closed: u32,
}

fn note(record: &[u8], tally: &mut HashMap<u64, Tally>) {
    match event::decode(record).expect("well-formed") {
        Event::Socket(socket) => tally.entry(socket.id.0).or_default().introduced += 1,
        Event::Data(data) => tally.entry(data.socket.0).or_default().bytes += data.bytes.len(),
        Event::Shut(end) => tally.entry(end.socket.0).or_default().closed += u32::from(end.how == Shut::Closed),
        Event::Process(_) | Event::Thread(_) => {}
    }
}

/// What a record says of the process `pid`.
fn step_of(record: &[u8], pid: u32) -> Option<&'static str> {
    match event::decode(record).expect("well-formed") {
        Event::Process(process) if process.pid == pid => Some(match process.life {
            Life::Fork => "fork",
            Life::Exec => "exec",
            Life::Exit => "exit",
        }),
        Event::Socket(socket) if socket.moment.task.pid == pid => Some("socket"),
        Event::Data(data) if data.moment.task.pid == pid => Some("data"),
        Event::Process(_) | Event::Socket(_) | Event::Data(_) | Event::Shut(_) | Event::Thread(_) => None,
    }
}

/// Sends the descriptor of `stream` through a socket pair, closes it, and takes it out at the other end.
fn passed_on(stream: TcpStream) -> OwnedFd {
    let (from, to) = UnixStream::pair().expect("a socket pair");
    let mut byte = [0_u8];
    let mut segment = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = [0_u64; 4];
    // SAFETY: a message header of zeros is one without address, segments and control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut segment;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    let size = u32::try_from(size_of::<libc::c_int>()).expect("small");
    // SAFETY: arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size) } as _;
    // SAFETY: the control buffer has room for the header that this returns, and for one descriptor behind it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size) as _;
        ptr::write_unaligned(libc::CMSG_DATA(header).cast(), stream.as_raw_fd());
    }
    // SAFETY: all that `message` names lives until the call returns.
    assert_eq!(unsafe { libc::sendmsg(from.as_raw_fd(), &raw const message, 0) }, 1);
    drop(stream);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::recvmsg(to.as_raw_fd(), &raw mut message, 0) }, 1);
    // SAFETY: the kernel has written one control message with one descriptor, which is this process's own now.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        OwnedFd::from_raw_fd(ptr::read_unaligned(libc::CMSG_DATA(header).cast()))
    }
}

/// A listener on a port of 127.0.0.1 that others may listen on too; 0 is any port.
fn sharing_listener(port: u16) -> TcpListener {
    // SAFETY: it takes numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "socket: {}", io::Error::last_os_error());
    // SAFETY: it was just opened.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let on: libc::c_int = 1;
    let address = libc::sockaddr_in {
        sin_family: libc::sa_family_t::try_from(libc::AF_INET).expect("small"),
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    // SAFETY: the values live until the calls return, and the lengths are theirs.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_REUSEPORT,
            (&raw const on).cast(),
            length(&on.to_ne_bytes()),
        ) | libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as libc::socklen_t)
            | libc::listen(socket.as_raw_fd(), 16)
    };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    TcpListener::from(socket)
}

/// Connections of one test: as many as a busy host opens and closes in a second.
const CHURN: usize = 10_000;
