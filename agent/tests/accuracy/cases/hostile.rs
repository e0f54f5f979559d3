// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Heads that two parties might read differently, and neighbours that do not speak HTTP at all.
//!
//! In: nothing. Out: [`CASES`]. The outcome of each is the one that the HTTP/1 parser's table states.

use crate::{
    case::Case,
    ground::Ground,
    script::{
        Request, Script, Step,
        Step::{Client, Leaves, Server},
    },
    talk::{End, Leave},
};

const ASK: Step = Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n");
const OK: Step = Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");

pub(super) const CASES: &[Case] = &[
    Case::script("both-lengths", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            OK, ASK, OK,
        ],
        &[Request::new(0, 1).method("POST"), Request::new(2, 3)],
    )).quick(),
    Case::script("both-lengths-in-a-response", Script::new(
        &[ASK, Server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), ASK, OK],
        &[Request::new(0, 1), Request::new(2, 3)],
    )),
    Case::script("equal-lengths", Script::new(
        &[Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5, 5\r\n\r\nhello"), OK, ASK, OK],
        &[Request::new(0, 1).method("POST"), Request::new(2, 3)],
    )),
    Case::script("different-lengths", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 44\r\n\r\nhelloGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            Leaves(End::Server, Leave::Close),
        ],
        &[Request::new(0, 1).method("POST").status(400, "400")],
    )).quick(),
    Case::script("different-lengths-in-a-response", Script::new(
        &[
            ASK,
            Server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
            Leaves(End::Client, Leave::Close),
        ],
        &[Request::new(0, 1).errors(Some("protocol_error"), Some("protocol_error"))],
    )),
    Case::script("chunked-is-not-last", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            Leaves(End::Server, Leave::Close),
        ],
        &[Request::new(0, 1).method("POST").status(400, "400")],
    )),
    Case::script("request-within-a-body", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 35\r\n\r\n"),
            Client("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"),
            OK, ASK, OK,
        ],
        &[Request::new(0, 2).method("POST"), Request::new(3, 4)],
    )),
    Case::script("response-within-a-body", Script::new(
        &[
            ASK,
            Server("HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n"),
            Server("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
            ASK, OK,
        ],
        &[Request::new(0, 2), Request::new(3, 4)],
    )),
    Case::script("bare-line-feeds", Script::new(
        &[Client("GET /{} HTTP/1.1\nHost: x\n\n"), Server("HTTP/1.1 200 OK\nContent-Length: 2\n\nok"), ASK, OK],
        &[Request::new(0, 1), Request::new(2, 3)],
    )),
    Case::script("folded-lines", Script::new(
        &[
            Client("GET /{} HTTP/1.1\r\nHost: x\r\nX-Folded: one\r\n two\r\n\tthree\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok"),
            ASK, OK,
        ],
        &[Request::new(0, 1), Request::new(2, 3)],
    )),
    Case::script("blank-lines-between", Script::new(
        &[ASK, OK, Client("\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\n"), OK],
        &[Request::new(0, 1), Request::new(2, 3)],
    )),
    Case::script("a-field-that-is-none", Script::new(
        &[
            Client("GET /{} HTTP/1.1\r\nHost: x\r\nno colon here\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\n: no name\r\nContent-Length: 2\r\n\r\nok"),
            ASK, OK,
        ],
        &[Request::new(0, 1), Request::new(2, 3)],
    )),
    Case::script("no-chunks-where-announced", Script::new(
        &[
            ASK,
            Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothing of the kind"),
            Leaves(End::Server, Leave::Close),
        ],
        &[Request::new(0, 1).errors(Some("protocol_error"), Some("protocol_error"))],
    )),
    Case::script("no-status-line", Script::new(
        &[ASK, Server("SSH-2.0-OpenSSH_9.6\r\n"), Leaves(End::Server, Leave::Close)],
        &[Request::new(0, 1).unanswered().errors(Some("protocol_error"), Some("protocol_error"))],
    )),
    Case::code("neighbours", neighbours).quick(),
];

/// Other protocols on the same ports: nothing of theirs is a span, or a loss.
fn neighbours(ground: &mut Ground) -> Result<(), String> {
    let exchanges: &[(&[u8], &[u8])] = &[
        // Redis
        (b"*2\r\n$3\r\nGET\r\n$4\r\nname\r\n", b"$5\r\nvalue\r\n"),
        (b"PING\r\n", b"+PONG\r\n"),
        // Postgres: start-up, authentication, ready; then a simple query
        (b"\0\0\0\x23\0\x03\0\0user\0postgres\0database\0x\0\0", b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I"),
        // TLS 1.3 hellos
        (
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            b"\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03bbbbbbbb",
        ),
        // HTTP/2 with prior knowledge
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"\0\0\0\x04\0\0\0\0\0"),
        // SSH, memcached, SMTP, Kafka
        (b"SSH-2.0-client\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"),
        (b"get key\r\n", b"END\r\n"),
        (b"EHLO mail.example.org\r\n", b"250 OK\r\n"),
        (b"\0\0\0\x14\0\x12\0\x03\0\0\0\x01\0\x06client", b"\0\0\0\x08\0\0\0\x01\0\0\0\0"),
    ];
    for (ask, answer) in exchanges {
        let mut talk = ground.connect()?;
        for _ in 0..3 {
            talk.pass(End::Client, ask)?;
            talk.pass(End::Server, answer)?;
        }
        talk.leave(End::Client, Leave::Close)?;
    }
    // What the agent has to say about them would have been said before this.
    let id = ground.id();
    let mut talk = ground.connect()?;
    let asked = talk.pass(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let answered = talk.pass(End::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    ground.expect_both(&id, crate::ground::Told::get(200), asked.first, answered.last);
    ground.keep(talk);
    Ok(())
}
