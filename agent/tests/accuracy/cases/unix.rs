// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Unix stream sockets: by path, in the abstract namespace, in pairs, and as what carries another socket.
//!
//! In: nothing. Out: [`CASES`]. Both ends of each connection are seen, so that each server's span has to hang under its
//! client's.

use std::{
    io::{Error, Read},
    mem::MaybeUninit,
    net::TcpStream,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    case::Case,
    ground::{Ground, Told},
    script::{Request, Script, Step},
    talk::{End, Leave, Talk},
};

pub(super) const CASES: &[Case] = &[
    Case::code("unix-keep-alive", keep_alive).late().quick(),
    Case::code("unix-abstract-name", abstract_name).late(),
    Case::code("unix-socketpair", socketpair).late(),
    Case::code("unix-heads-in-pieces", |ground| dialogue(ground, &PIECES)).late(),
    Case::code("unix-heads-in-tiny-pieces", |ground| dialogue(ground, &TINY_PIECES)).late(),
    Case::code("unix-no-request-in-tiny-pieces", no_request).late(),
    Case::code("unix-server-closes-at-the-end", |ground| dialogue(ground, &UNTIL_CLOSE)).late().quick(),
    Case::code("unix-client-shuts-its-side", |ground| dialogue(ground, &SHUT)).late(),
    Case::code("unix-server-gone", |ground| dialogue(ground, &SERVER_GONE)).late(),
    Case::code("unix-client-gone-in-mid-answer", |ground| dialogue(ground, &CLIENT_GONE)).late(),
    Case::code("unix-before-the-agent", older).late(),
    Case::code("unix-silent-and-then-not", silent).late(),
    Case::code("unix-read-by-splice", spliced).late(),
    Case::code("descriptor-passed-over-unix", passed).late(),
];

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// In pieces of five bytes.
const PIECES: Script = Script::new(
    &[
        Step::Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
        Step::Server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"),
        Step::Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
        Step::Server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"),
    ],
    &[Request::new(0, 1), Request::new(2, 3)],
)
.cut(5, 5);

/// Less than any method takes.
const TINY_PIECES: Script = PIECES.cut(2, 2);

/// The answer is as long as the connection, as nginx has it from services behind a socket.
const UNTIL_CLOSE: Script = Script::new(
    &[
        Step::Client("GET /{} HTTP/1.0\r\n\r\n"),
        Step::Server("HTTP/1.0 200 OK\r\n\r\n{+5000}"),
        Step::Leaves(End::Server, Leave::Close),
    ],
    &[Request::new(0, 2).served(2)],
);

/// The client has nothing more to say, and reads on.
const SHUT: Script = Script::new(
    &[
        Step::Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
        Step::Leaves(End::Client, Leave::Shut),
        Step::Server("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"),
    ],
    &[Request::new(0, 2)],
);

const SERVER_GONE: Script = Script::new(
    &[Step::Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"), Step::Leaves(End::Server, Leave::Close)],
    &[Request::new(0, 1).unanswered().errors(Some("connection_closed"), Some("connection_closed"))],
);

const CLIENT_GONE: Script = Script::new(
    &[
        Step::Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
        Step::Server("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789"),
        Step::Leaves(End::Client, Leave::Close),
    ],
    &[Request::new(0, 2).errors(Some("truncated"), Some("truncated"))],
);

fn request(id: &str) -> Vec<u8> {
    format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

fn exchange(ground: &mut Ground, talk: &mut Talk) -> Result<(), String> {
    let id = ground.id();
    let asked = talk.pass(End::Client, &request(&id))?;
    let answered = talk.pass(End::Server, RESPONSE)?;
    ground.expect_both(&id, Told::get(200), asked.first, answered.last);
    Ok(())
}

fn dialogue(ground: &mut Ground, script: &Script) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    script.hold_over(connect(ground)?, ground)
}

/// A connection by a path that is gone when the case is over.
fn connect(ground: &mut Ground) -> Result<Talk, String> {
    let directory = TempDir::new().map_err(|e| format!("temporary directory: {e}"))?;
    let path = directory.path().join("socket");
    let address = SocketAddr::from_pathname(&path).map_err(|e| format!("name a socket: {e}"))?;
    ground.keep(directory);
    connect_to(&address)
}

fn connect_to(address: &SocketAddr) -> Result<Talk, String> {
    let ends = || -> Result<_, Error> {
        let listener = UnixListener::bind_addr(address)?;
        let client = UnixStream::connect_addr(address)?;
        Ok((client, listener.accept()?.0))
    };
    let (client, server) = ends().map_err(|e| format!("connect to {address:?}: {e}"))?;
    Talk::of_streams(client, server)
}

/// What only begins like a request, and then an exchange on the same connection.
fn no_request(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let mut talk = connect(ground)?;
    for part in [&b"G"[..], b"UESS\r\n", b"PO", b"<- {}\r\n"] {
        talk.pass(End::Client, part)?;
    }
    talk.pass(End::Server, b"HO")?;
    // The last byte begins nothing, and is followed by what could begin a request by itself.
    talk.pass(End::Client, b"P")?;
    talk.pass(End::Client, b" T")?;
    exchange(ground, &mut talk)?;
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

fn keep_alive(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    for _ in 0..3 {
        let mut talk = connect(ground)?;
        for _ in 0..4 {
            exchange(ground, &mut talk)?;
        }
        ground.keep(talk);
    }
    ground.expect_shown_soon()
}

fn abstract_name(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let name = ground.id();
    let address = SocketAddr::from_abstract_name(name.as_bytes()).map_err(|e| format!("name a socket: {e}"))?;
    let mut talk = connect_to(&address)?;
    exchange(ground, &mut talk)?;
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

fn socketpair(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    for _ in 0..5 {
        let (client, server) = UnixStream::pair().map_err(|e| format!("make a pair: {e}"))?;
        let mut talk = Talk::of_streams(client, server)?;
        exchange(ground, &mut talk)?;
        exchange(ground, &mut talk)?;
        ground.keep(talk);
    }
    Ok(())
}

/// Connections that were used before the agent, and some that were not.
fn older(ground: &mut Ground) -> Result<(), String> {
    let mut talks: Vec<Talk> = (0..4).map(|_| connect(ground)).collect::<Result<_, _>>()?;
    for talk in &mut talks[..2] {
        talk.pass(End::Client, b"GET /before-the-agent HTTP/1.1\r\nHost: x\r\n\r\n")?;
        talk.pass(End::Server, RESPONSE)?;
    }
    ground.watch_family()?;
    ground.expect_joined();
    for mut talk in talks {
        exchange(ground, &mut talk)?;
        exchange(ground, &mut talk)?;
        ground.keep(talk);
    }
    Ok(())
}

/// A connection that user space has forgotten is introduced again.
fn silent(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let mut talk = connect(ground)?;
    exchange(ground, &mut talk)?;
    crate::script::pause(FORGOTTEN);
    exchange(ground, &mut talk)?;
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

/// A body that is read by splice(2), which no probe sees; what follows is at its place all the same.
fn spliced(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let mut talk = connect(ground)?;
    exchange(ground, &mut talk)?;
    let id = ground.id();
    let head = format!("POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: 6000\r\n\r\n");
    let asked = talk.pass(End::Client, head.as_bytes())?;
    talk.send(End::Client, &[b'b'; 6000])?;
    let server = talk.server.as_ref().ok_or("the server has left")?;
    splice_away(server, 6000).map_err(|e| format!("splice: {e}"))?;
    let answered = talk.pass(End::Server, RESPONSE)?;
    ground.expect_both(&id, Told { method: "POST", ..Told::get(200) }, asked.first, answered.last);
    exchange(ground, &mut talk)?;
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

/// A TCP connection goes to another descriptor by way of a unix socket, as from a supervisor to its worker.
fn passed(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let (near, far) = UnixStream::pair().map_err(|e| format!("make a pair: {e}"))?;
    let mut talk = ground.connect()?;
    for _ in 0..3 {
        exchange(ground, &mut talk)?;
        let server = talk.server.take().ok_or("the server has left")?;
        send_descriptor(&near, server.as_raw_fd()).map_err(|e| format!("pass a descriptor: {e}"))?;
        drop(server);
        let server = receive_descriptor(&far).map_err(|e| format!("receive a descriptor: {e}"))?;
        talk.server = Some(TcpStream::from(server));
    }
    exchange(ground, &mut talk)?;
    ground.keep(talk);
    Ok(())
}

// --- Calls that the standard library does not have ---

/// Moves `length` bytes out of the socket without a read.
fn splice_away(from: &TcpStream, mut length: usize) -> Result<(), Error> {
    let (mut out, pipe) = std::io::pipe()?;
    let mut moved = vec![0; length];
    while length > 0 {
        // SAFETY: both descriptors are open, and no offset is passed.
        let spliced = unsafe {
            libc::splice(from.as_raw_fd(), std::ptr::null_mut(), pipe.as_raw_fd(), std::ptr::null_mut(), length, 0)
        };
        let spliced = usize::try_from(spliced).map_err(|_| Error::last_os_error())?;
        if spliced == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        out.read_exact(&mut moved[..spliced])?;
        length -= spliced;
    }
    Ok(())
}

/// Room for the control message of one descriptor, aligned as its header.
#[repr(align(8))]
struct Control([u8; 64]);

fn send_descriptor(over: &UnixStream, descriptor: RawFd) -> Result<(), Error> {
    let mut byte = [0_u8];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut message = message(&mut part, &mut control);
    // SAFETY: a number is computed.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(DESCRIPTOR) } as _;
    // SAFETY: the message's control buffer has room for one header, and the descriptor behind it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(DESCRIPTOR) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(descriptor);
    }
    // SAFETY: the message and what it points to outlive the call.
    match unsafe { libc::sendmsg(over.as_raw_fd(), &raw const message, 0) } {
        1 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

fn receive_descriptor(over: &UnixStream) -> Result<OwnedFd, Error> {
    let mut byte = [0_u8];
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut message = message(&mut part, &mut control);
    // SAFETY: the message and what it points to outlive the call.
    if unsafe { libc::recvmsg(over.as_raw_fd(), &raw mut message, 0) } != 1 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel has filled the control buffer in, as far as it says.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if header.is_null() {
        return Err(Error::other("no descriptor came"));
    }
    // SAFETY: the first control message is the one descriptor that was sent, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()) })
}

fn message(part: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: integers and pointers, for which zeros are values.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    message
}

/// `sizeof(int)`, as the macros for control messages want it.
const DESCRIPTOR: libc::c_uint = size_of::<RawFd>() as libc::c_uint;

/// Longer than user space keeps a silent unix connection (22 s).
const FORGOTTEN: Duration = Duration::from_secs(24);
