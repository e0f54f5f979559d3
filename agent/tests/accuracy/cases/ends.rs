// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exchanges that do not end as they should, and connections that do not end at all.
//!
//! In: nothing. Out: [`CASES`]. A status is expected only where it was on the wire.

use std::{
    io::{Error, ErrorKind, Read as _},
    net::TcpStream,
    os::fd::AsRawFd as _,
    time::Duration,
};

use crate::{
    case::Case,
    ground::{Ground, Told},
    script::{
        Request, Script, Step,
        Step::{Client, Leaves, Pause, Server},
    },
    talk::End,
    talk::Leave::{Close, Reset, Shut},
    truth::Window,
};

const ASK: Step = Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n");
const OK: Step = Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
const PART: Step = Server("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome");
const WHILE: Step = Pause(Duration::from_millis(50));

/// Nothing was answered.
const CLOSED: Request = Request::new(0, 2).unanswered().errors(Some("connection_closed"), Some("connection_closed"));
/// The answer began and did not end.
const CUT: Request = Request::new(0, 3).errors(Some("truncated"), Some("truncated"));

pub(super) const CASES: &[Case] = &[
    Case::script(
        "client-gone",
        Script::new(&[ASK, WHILE, Leaves(End::Client, Close), Leaves(End::Server, Close)], &[CLOSED.served(3)]),
    )
    .quick(),
    Case::script(
        "client-resets",
        Script::new(
            &[ASK, WHILE, Leaves(End::Client, Reset), Leaves(End::Server, Close)],
            &[CLOSED.errors(Some("connection_closed"), Some("connection_reset")).served(2)],
        ),
    ),
    Case::script(
        "client-gone-in-mid-answer",
        Script::new(&[ASK, PART, WHILE, Leaves(End::Client, Close), Leaves(End::Server, Close)], &[CUT.served(4)]),
    ),
    Case::script("client-resets-in-mid-answer", Script::new(&[ASK, PART, WHILE, Leaves(End::Client, Reset)], &[CUT]))
        .quick(),
    Case::script(
        "client-half-closes",
        Script::new(&[ASK, Leaves(End::Client, Shut), WHILE, OK, Leaves(End::Server, Close)], &[Request::new(0, 3)]),
    )
    .quick(),
    Case::code("late-answer-to-nobody", late_answer),
    Case::script("server-gone", Script::new(&[ASK, WHILE, Leaves(End::Server, Close)], &[CLOSED])).quick(),
    Case::script(
        "server-resets",
        Script::new(
            &[ASK, WHILE, Leaves(End::Server, Reset)],
            &[CLOSED.errors(Some("connection_reset"), Some("connection_closed"))],
        ),
    ),
    Case::script("server-gone-in-mid-answer", Script::new(&[ASK, PART, WHILE, Leaves(End::Server, Close)], &[CUT])),
    Case::script("server-resets-in-mid-answer", Script::new(&[ASK, PART, WHILE, Leaves(End::Server, Reset)], &[CUT])),
    Case::script(
        "server-gone-in-mid-chunk",
        Script::new(
            &[
                ASK,
                Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
                WHILE,
                Leaves(End::Server, Close),
            ],
            &[CUT],
        ),
    ),
    Case::script(
        "server-gone-in-mid-head",
        Script::new(
            &[ASK, Server("HTTP/1.1 200 OK\r\nContent-Le"), WHILE, Leaves(End::Server, Close)],
            &[CUT.unanswered()],
        ),
    ),
    Case::script(
        "server-half-closes",
        Script::new(&[ASK, WHILE, Leaves(End::Server, Shut), Leaves(End::Client, Close)], &[CLOSED.served(3)]),
    ),
    Case::script(
        "two-of-three-answered",
        Script::new(
            &[
                Client(
                    "GET /{} HTTP/1.1\r\nHost: x\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\n",
                ),
                OK,
                OK,
                WHILE,
                Leaves(End::Server, Close),
            ],
            &[
                Request::new(0, 1),
                Request::new(0, 2),
                Request::new(0, 4).unanswered().errors(Some("connection_closed"), Some("connection_closed")),
            ],
        ),
    ),
    Case::script(
        "post-cut-in-its-body",
        Script::new(
            &[
                Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome"),
                WHILE,
                Leaves(End::Client, Close),
                Leaves(End::Server, Close),
            ],
            &[CLOSED.method("POST").served(3)],
        ),
    ),
    Case::script(
        "server-times-out",
        Script::new(
            &[
                Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome"),
                WHILE,
                Server("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
                Leaves(End::Server, Close),
            ],
            &[Request::new(0, 2).method("POST").status(408, "408")],
        ),
    ),
    Case::code("nobody-acknowledges", nobody_acknowledges),
    Case::code("shown-while-idle", shown_while_idle).quick(),
];

/// The client has left, which the server finds out only when it answers: what it said is what is true of its span.
fn late_answer(ground: &mut Ground) -> Result<(), String> {
    let id = ground.id();
    let mut talk = ground.connect()?;
    let asked = talk.pass(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let left = talk.leave(End::Client, Close)?;
    let answered = talk.send(End::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    let gone = Told { status: None, client_error: Some("connection_closed"), ..Told::get(200) };
    ground.expect_client(&id, gone, asked.first, left);
    ground.expect_server(&id, Told::get(200), asked.first, answered);
    ground.keep(talk);
    Ok(())
}

/// The server's machine is as good as gone: whatever is sent to it goes unheard, until the client's kernel gives up.
fn nobody_acknowledges(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    let id = ground.id();
    let asked = talk.pass(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let answered = talk.pass(End::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
    ground.expect_both(&id, Told::get(200), asked.first, answered.last);

    let (Some(client), Some(server)) = (&talk.client, &talk.server) else { return Err("an end has left".to_owned()) };
    deafen(server).and_then(|()| give_up_after(client, Duration::from_millis(300))).map_err(|e| format!("{e}"))?;
    let id = ground.id();
    let sent = talk.send(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let client = talk.client.as_mut().ok_or("the client has left")?;
    let (read, end) = Window::around(|| client.read(&mut [0; 16]));
    if !read.as_ref().is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
        return Err(format!("the client read {read:?}"));
    }
    let gone = Told { status: None, client_error: Some("timeout"), ..Told::get(200) };
    ground.expect_client(&id, gone, sent, end);
    ground.keep(talk);
    Ok(())
}

/// Drops everything that comes for the socket, before TCP sees it: a filter of one instruction, which takes 0 bytes.
fn deafen(socket: &TcpStream) -> Result<(), Error> {
    let mut nothing = libc::sock_filter { code: BPF_RET, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut nothing };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// How long bytes may go unacknowledged (tcp(7)).
fn give_up_after(socket: &TcpStream, time: Duration) -> Result<(), Error> {
    let milliseconds = u32::try_from(time.as_millis()).map_err(Error::other)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &milliseconds)
}

fn set<T>(socket: &TcpStream, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Error> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value outlives the call, and the size is its own.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), size) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// `BPF_RET | BPF_K` (`include/uapi/linux/bpf_common.h`).
const BPF_RET: u16 = 0x06;

/// The connection stays open and silent after each answer; the spans are there all the same.
fn shown_while_idle(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for answer in ["Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"] {
        let id = ground.id();
        let asked = talk.pass(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        let answered = talk.pass(End::Server, format!("HTTP/1.1 200 OK\r\n{answer}").as_bytes())?;
        ground.expect_both(&id, Told::get(200), asked.first, answered.last);
        ground.expect_shown_soon()?;
    }
    ground.keep(talk);
    Ok(())
}
