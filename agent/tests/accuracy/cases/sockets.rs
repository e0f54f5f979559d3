// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Addresses, descriptors and calls: the ways in which one exchange can reach a socket.
//!
//! In: nothing. Out: [`CASES`]. What is said is always the same.

use std::{
    io::{Error, IoSlice, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::mpsc::channel,
    thread,
    time::Duration,
};

use crate::{
    case::Case,
    ground::{Ground, Told},
    process::wait_until,
    talk::{Cut, End, Leave, Passed, Talk, read_all},
    truth::Window,
};

pub(super) const CASES: &[Case] = &[
    Case::code("ipv6", |ground| exchanges_at(ground, (Ipv6Addr::LOCALHOST, ground.port(0)).into())),
    Case::code("ipv4-mapped", ipv4_mapped).quick(),
    Case::code("threads-in-turn", threads_in_turn),
    Case::code("duplicated-descriptors", duplicated_descriptors),
    Case::code("reused-descriptors", reused_descriptors),
    Case::code("reused-port", reused_port),
    Case::code("so-reuseport", shared_port),
    Case::code("peeked-before-read", peeked),
    Case::code("vectored-calls", vectored),
    Case::code("one-byte-segments", one_byte_segments),
    Case::code("reader-blocked-before-the-agent", blocked_reader).late().quick(),
    Case::code("connections-before-the-agent", older_connections).late(),
    Case::code("tiny-pieces-on-older-connections", tiny_pieces).late(),
    Case::code("agent-comes-in-mid-response", mid_response).late(),
];

/// What every exchange here says.
fn request(id: &str) -> Vec<u8> {
    format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// One exchange whose both ends have to be seen.
fn exchange(ground: &mut Ground, talk: &mut Talk) -> Result<(), String> {
    let id = ground.id();
    let asked = talk.pass(End::Client, &request(&id))?;
    let answered = talk.pass(End::Server, RESPONSE)?;
    ground.expect_both(&id, Told::get(200), asked.first, answered.last);
    Ok(())
}

fn exchanges_at(ground: &mut Ground, address: SocketAddr) -> Result<(), String> {
    let mut talk = Talk::connect(address)?;
    exchange(ground, &mut talk)?;
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

/// IPv4 on IPv6 sockets: first the server's, then the client's too.
fn ipv4_mapped(ground: &mut Ground) -> Result<(), String> {
    let port = ground.port(0);
    for to in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into()] {
        let ends = || -> Result<_, Error> {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
            let client = TcpStream::connect(to)?;
            Ok((client, listener.accept()?.0))
        };
        let (client, server) = ends().map_err(|e| format!("connect to {to}: {e}"))?;
        let mut talk = Talk::of(client, server)?;
        exchange(ground, &mut talk)?;
        exchange(ground, &mut talk)?;
        ground.keep(talk);
    }
    Ok(())
}

/// Each call of a dialogue is made by a thread of its own.
fn threads_in_turn(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..10 {
        let id = ground.id();
        let on_a_thread = |talk: &mut Talk, from: End, bytes: &[u8]| -> Result<Passed, String> {
            thread::scope(|scope| scope.spawn(|| talk.pass(from, bytes)).join())
                .unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        };
        let asked = on_a_thread(&mut talk, End::Client, &request(&id))?;
        let answered = on_a_thread(&mut talk, End::Server, RESPONSE)?;
        ground.expect_both(&id, Told::get(200), asked.first, answered.last);
    }
    ground.keep(talk);
    Ok(())
}

/// After each exchange both ends go on under another descriptor.
fn duplicated_descriptors(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..4 {
        exchange(ground, &mut talk)?;
        let copy = |end: &Option<TcpStream>| end.as_ref().map(TcpStream::try_clone).transpose();
        let copies = copy(&talk.client).and_then(|client| Ok((client, copy(&talk.server)?)));
        // The first descriptors are closed here; the sockets are not.
        (talk.client, talk.server) = copies.map_err(|e| format!("duplicate a descriptor: {e}"))?;
    }
    ground.keep(talk);
    Ok(())
}

/// Each connection has the descriptors of the one before.
fn reused_descriptors(ground: &mut Ground) -> Result<(), String> {
    for _ in 0..50 {
        let mut talk = ground.connect()?;
        exchange(ground, &mut talk)?;
        talk.leave(End::Client, Leave::Close)?;
    }
    Ok(())
}

/// Each connection has the addresses and ports of the one before.
fn reused_port(ground: &mut Ground) -> Result<(), String> {
    let (to, from) = (ground.port(0), ground.port(1));
    for _ in 0..10 {
        let ends = || -> Result<_, Error> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, to))?;
            let client = socket_at(from, libc::SO_REUSEADDR)?;
            connect(&client, to)?;
            Ok((TcpStream::from(client), listener.accept()?.0))
        };
        let (client, server) = ends().map_err(|e| format!("connect from port {from}: {e}"))?;
        let mut talk = Talk::of(client, server)?;
        exchange(ground, &mut talk)?;
        // A reset leaves nothing behind that would keep the port.
        talk.leave(End::Client, Leave::Reset)?;
    }
    Ok(())
}

/// Two listeners on one port: the kernel chooses.
fn shared_port(ground: &mut Ground) -> Result<(), String> {
    let port = ground.port(0);
    let open = || -> Result<TcpListener, Error> {
        let socket = socket_at(port, libc::SO_REUSEPORT)?;
        // SAFETY: a plain system call on a descriptor that is open.
        if unsafe { libc::listen(socket.as_raw_fd(), 16) } != 0 {
            return Err(Error::last_os_error());
        }
        let listener = TcpListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listeners = [open(), open()].map(|listener| listener.map_err(|e| format!("listen: {e}")));
    let [Ok(first), Ok(second)] = listeners else { return Err(format!("{listeners:?}")) };
    for _ in 0..20 {
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|e| format!("connect: {e}"))?;
        let mut server = None;
        wait_until(ACCEPT_DEADLINE, || {
            server = first.accept().or_else(|_| second.accept()).ok();
            server.is_some()
        });
        let (server, _) = server.ok_or("neither listener accepts")?;
        server.set_nonblocking(false).map_err(|e| format!("set a connection blocking: {e}"))?;
        let mut talk = Talk::of(client, server)?;
        exchange(ground, &mut talk)?;
        ground.keep(talk);
    }
    Ok(())
}

/// Both readers look first (MSG_PEEK), as TLS terminators and load balancers do.
fn peeked(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..3 {
        let id = ground.id();
        let mut windows = Vec::new();
        for (from, bytes) in [(End::Client, request(&id)), (End::Server, RESPONSE.to_vec())] {
            let sent = talk.send(from, &bytes)?;
            let reader = match from {
                End::Client => talk.server.as_mut(),
                End::Server => talk.client.as_mut(),
            };
            let reader = reader.ok_or("the reader has left")?;
            let look = |_| reader.peek(&mut [0; 4096]);
            (0..3).try_for_each(|n| look(n).map(drop)).map_err(|e| format!("peek: {e}"))?;
            let (read, window) = Window::around(|| read_all(reader, &bytes, bytes.len()));
            read.map_err(|e| format!("read: {e}"))?;
            windows.push(sent.until(window));
        }
        ground.expect_both(&id, Told::get(200), windows[0], windows[1]);
    }
    ground.keep(talk);
    Ok(())
}

/// `writev` and `readv` in segments of 10 bytes and more.
fn vectored(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..3 {
        vectored_exchange(ground, &mut talk, 10)?;
    }
    ground.keep(talk);
    Ok(())
}

/// `writev` and `readv` in segments of one byte.
fn one_byte_segments(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..3 {
        vectored_exchange(ground, &mut talk, 1)?;
    }
    ground.keep(talk);
    Ok(())
}

fn vectored_exchange(ground: &mut Ground, talk: &mut Talk, segment: usize) -> Result<(), String> {
    let id = ground.id();
    let (Some(client), Some(server)) = (&mut talk.client, &mut talk.server) else { return Err("an end left".into()) };
    let (asked, start) = Window::around(|| pass_vectored(client, server, &request(&id), segment));
    let (answered, end) = Window::around(|| pass_vectored(server, client, RESPONSE, segment));
    asked.and(answered).map_err(|e| format!("{id}: {e}"))?;
    ground.expect_both(&id, Told::get(200), start, end);
    Ok(())
}

fn pass_vectored(writer: &mut TcpStream, reader: &mut TcpStream, bytes: &[u8], segment: usize) -> Result<(), Error> {
    let segments: Vec<_> = bytes.chunks(segment).map(IoSlice::new).collect();
    let mut read = vec![0; bytes.len()];
    let written = writer.write_vectored(&segments)?;
    let mut done = 0;
    while done < written {
        let mut room: Vec<_> = read[done..].chunks_mut(segment).map(std::io::IoSliceMut::new).collect();
        done += reader.read_vectored(&mut room)?;
    }
    if written == bytes.len() && read == bytes { Ok(()) } else { Err(Error::other("other bytes came out")) }
}

/// The server's thread is in `recv` before there is an agent.
fn blocked_reader(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    let mut server = talk.server.take().ok_or("no server")?;
    // It blocks until the agent has started, which takes a minute where the machine is emulated.
    server.set_read_timeout(Some(Duration::from_secs(300))).map_err(|e| format!("set up the reader: {e}"))?;
    let (sender, thread_ids) = channel();
    let reader = thread::spawn(move || {
        // SAFETY: a plain system call without arguments.
        let _ = sender.send(unsafe { libc::gettid() });
        let (read, window) = Window::around(|| server.read(&mut [0; 4096]));
        (server, read, window)
    });
    let thread_id = thread_ids.recv().map_err(|_| "the reader has ended")?;
    if !wait_until(ACCEPT_DEADLINE, || is_asleep(thread_id)) {
        return Err("the reader does not block".to_owned());
    }
    ground.watch()?;
    let id = ground.id();
    let sent = talk.send(End::Client, &request(&id))?;
    let (server, read, window) = reader.join().map_err(|_| "the reader panicked")?;
    read.map_err(|e| format!("read: {e}"))?;
    talk.server = Some(server);
    let answered = talk.pass(End::Server, RESPONSE)?;
    ground.expect_both(&id, Told::get(200), sent.until(Window { from: sent.from, to: window.to }), answered.last);
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

/// Connections that were used before the agent, and some that were not.
fn older_connections(ground: &mut Ground) -> Result<(), String> {
    let mut talks: Vec<Talk> = (0..8).map(|_| ground.connect()).collect::<Result<_, _>>()?;
    for talk in &mut talks[..4] {
        talk.pass(End::Client, b"GET /before-the-agent HTTP/1.1\r\nHost: x\r\n\r\n")?;
        talk.pass(End::Server, RESPONSE)?;
    }
    ground.watch()?;
    for mut talk in talks {
        exchange(ground, &mut talk)?;
        exchange(ground, &mut talk)?;
        ground.keep(talk);
    }
    Ok(())
}

/// The first bytes that the agent sees of a connection are too few to be told from anything else.
fn tiny_pieces(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    ground.watch()?;
    talk.cut = Cut { write: 2, read: 2 };
    exchange(ground, &mut talk)?;
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

/// What is left of a response says nothing; the next exchange is whole.
fn mid_response(ground: &mut Ground) -> Result<(), String> {
    let mut talks = Vec::new();
    for _ in 0..3 {
        let mut talk = ground.connect()?;
        talk.pass(End::Client, b"GET /before-the-agent HTTP/1.1\r\nHost: x\r\n\r\n")?;
        talk.pass(End::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
        talks.push(talk);
    }
    ground.watch()?;
    for mut talk in talks {
        talk.pass(End::Server, b"world")?;
        exchange(ground, &mut talk)?;
        exchange(ground, &mut talk)?;
        ground.keep(talk);
    }
    Ok(())
}

// --- Sockets that the standard library does not make ---

/// A socket on loopback at `port`, with a socket option that lets the port be shared.
fn socket_at(port: u16, option: libc::c_int) -> Result<OwnedFd, Error> {
    // SAFETY: a plain system call.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the descriptor is new, so nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is a `c_int` that outlives the call.
    let set = unsafe { libc::setsockopt(raw, libc::SOL_SOCKET, option, (&raw const on).cast(), length) };
    let (address, length) = loopback(port);
    // SAFETY: the address is a `sockaddr_in` that outlives the call, and the length is its own.
    let bound = unsafe { libc::bind(raw, (&raw const address).cast(), length) };
    if set == 0 && bound == 0 { Ok(socket) } else { Err(Error::last_os_error()) }
}

fn connect(socket: &OwnedFd, port: u16) -> Result<(), Error> {
    let (address, length) = loopback(port);
    // SAFETY: the address is a `sockaddr_in` that outlives the call, and the length is its own.
    match unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

fn loopback(port: u16) -> (libc::sockaddr_in, libc::socklen_t) {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(Ipv4Addr::LOCALHOST).to_be() },
        sin_zero: [0; 8],
    };
    (address, size_of::<libc::sockaddr_in>() as libc::socklen_t)
}

/// Whether a thread of this process waits for something: field 3 of its `stat`.
fn is_asleep(thread_id: libc::pid_t) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread_id}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

const ACCEPT_DEADLINE: Duration = Duration::from_secs(10);
