// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where messages begin and end, and how they are cut into calls.
//!
//! In: nothing. Out: [`CASES`]. All of them are well-formed; for the rest see [`super::hostile`].

use std::time::Duration;

use crate::{
    case::Case,
    ground::{Ground, Told},
    script::{
        Request, Script, Step,
        Step::{Client, Leaves, Pause, Server},
    },
    talk::{End, Leave},
};

const ASK: Step = Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n");
const OK: Step = Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
/// Five of them are half a second.
const WHILE: Step = Pause(Duration::from_millis(125));

pub(super) const CASES: &[Case] = &[
    Case::script(
        "close-delimited",
        Script::new(
            &[
                ASK,
                Server("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome"),
                WHILE,
                Server("more"),
                WHILE,
                Leaves(End::Server, Leave::Close),
            ],
            &[Request::new(0, 5)],
        ),
    )
    .quick(),
    Case::script(
        "close-delimited-half-close",
        Script::new(
            &[ASK, Server("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome"), WHILE, Leaves(End::Server, Leave::Shut)],
            &[Request::new(0, 3)],
        ),
    ),
    Case::script(
        "connection-close",
        Script::new(
            &[
                Client("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
                Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
                Leaves(End::Server, Leave::Close),
            ],
            &[Request::new(0, 1)],
        ),
    ),
    Case::script(
        "http-1.0",
        Script::new(
            &[
                Client("GET /{} HTTP/1.0\r\n\r\n"),
                Server("HTTP/1.0 200 OK\r\n\r\nsome"),
                WHILE,
                Leaves(End::Server, Leave::Close),
            ],
            &[Request::new(0, 3)],
        ),
    ),
    Case::script(
        "http-1.0-keep-alive",
        Script::new(
            &[
                Client("GET /{} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
                Server("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
                Client("GET /{} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
                Server("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"),
            ],
            &[Request::new(0, 1), Request::new(2, 3)],
        ),
    ),
    Case::script(
        "five-chunks",
        Script::new(
            &[
                ASK,
                Server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Server("4\r\none1\r\n"),
                WHILE,
                Server("4\r\ntwo2\r\n"),
                WHILE,
                Server("4\r\nthr3\r\n"),
                WHILE,
                Server("4\r\nfou4\r\n"),
                WHILE,
                Server("4\r\nfiv5\r\n0\r\n\r\n"),
                ASK,
                OK,
            ],
            &[Request::new(0, 10), Request::new(11, 12)],
        ),
    )
    .quick(),
    Case::script(
        "chunk-extensions-and-trailers",
        Script::new(
            &[
                ASK,
                Server(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n5;name=\"va;l\"\r\nhello\r\n",
                ),
                Server("0;last\r\nDigest: abc\r\nExpires: never\r\n"),
                WHILE,
                Server("\r\n"),
                ASK,
                OK,
            ],
            &[Request::new(0, 4), Request::new(5, 6)],
        ),
    ),
    Case::code("64-kib-chunks", big_chunks),
    Case::script(
        "chunked-request",
        Script::new(
            &[
                Client("POST /{} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"),
                WHILE,
                Client("5\r\nhello\r\n"),
                Client("0\r\n\r\n"),
                OK,
                ASK,
                OK,
            ],
            &[Request::new(0, 4).method("POST"), Request::new(5, 6)],
        ),
    ),
    Case::script(
        "five-writes",
        Script::new(
            &[
                ASK,
                Server("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n0123456789"),
                WHILE,
                Server("0123456789"),
                WHILE,
                Server("0123456789"),
                WHILE,
                Server("0123456789"),
                WHILE,
                Server("0123456789"),
                ASK,
                OK,
            ],
            &[Request::new(0, 9), Request::new(10, 11)],
        ),
    )
    .quick(),
    Case::script(
        "head-and-body-apart",
        Script::new(
            &[ASK, Server("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), WHILE, Server("0123456789"), ASK, OK],
            &[Request::new(0, 3), Request::new(4, 5)],
        ),
    ),
    Case::script(
        "request-in-two-writes",
        Script::new(&[Client("GET /{} HTTP/1.1\r\nHo"), WHILE, Client("st: x\r\n\r\n"), OK], &[Request::new(0, 3)]),
    ),
    Case::script(
        "post-in-five-writes",
        Script::new(
            &[
                Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"),
                WHILE,
                Client("01234"),
                WHILE,
                Client("01234"),
                WHILE,
                Client("01234"),
                WHILE,
                Client("01234"),
                OK,
            ],
            &[Request::new(0, 9).method("POST")],
        ),
    ),
    Case::script(
        "bytes-written-one-by-one",
        Script::new(&[ASK, OK, ASK, OK], &[Request::new(0, 1), Request::new(2, 3)]).cut(1, 1),
    )
    .quick(),
    Case::script(
        "bytes-read-one-by-one",
        Script::new(&[ASK, OK, ASK, OK], &[Request::new(0, 1), Request::new(2, 3)]).cut(64 << 10, 1),
    ),
    Case::script(
        "20-kib-head",
        Script::new(
            &[Client("GET /{} HTTP/1.1\r\nHost: x\r\nCookie: {+20000}\r\n\r\n"), OK, ASK, OK],
            &[Request::new(0, 1), Request::new(2, 3)],
        ),
    ),
    Case::script(
        "30-kib-head",
        Script::new(
            &[Client("GET /{} HTTP/1.1\r\nHost: x\r\nCookie: {+30000}\r\n\r\n"), OK, ASK, OK],
            &[Request::new(0, 1), Request::new(2, 3)],
        ),
    )
    .quick(),
    Case::script(
        "30-kib-head-in-pieces",
        Script::new(
            &[Client("GET /{} HTTP/1.1\r\nHost: x\r\nCookie: {+30000}\r\n\r\n"), OK, ASK, OK],
            &[Request::new(0, 1), Request::new(2, 3)],
        )
        .cut(1000, 300),
    ),
    Case::script(
        "30-kib-response-head",
        Script::new(
            &[ASK, Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: {+30000}\r\n\r\nok"), ASK, OK],
            &[Request::new(0, 1), Request::new(2, 3)],
        ),
    ),
    Case::code("ten-mib-up-and-down", ten_mebibytes),
];

/// 64 chunks of 64 KiB each, framing and data in one write.
fn big_chunks(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    let mut chunk = b"10000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10000, b'x');
    chunk.extend_from_slice(b"\r\n");
    for _ in 0..2 {
        let id = ground.id();
        let asked = talk.pass(End::Client, format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
        talk.pass(End::Server, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..64 {
            talk.pass(End::Server, &chunk)?;
        }
        let answered = talk.pass(End::Server, b"0\r\n\r\n")?;
        ground.expect_both(&id, Told::get(200), asked.first, answered.last);
    }
    ground.keep(talk);
    Ok(())
}

/// A POST and an answer of 10 MiB each, then another request: not a byte was miscounted.
fn ten_mebibytes(ground: &mut Ground) -> Result<(), String> {
    let mut talk = ground.connect()?;
    let body = vec![b'x'; 10 << 20];
    for _ in 0..2 {
        let id = ground.id();
        let head = format!("POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        let asked = talk.pass(End::Client, head.as_bytes())?;
        talk.pass(End::Client, &body)?;
        talk.pass(End::Server, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
        let answered = talk.pass(End::Server, &body)?;
        ground.expect_both(&id, Told { method: "POST", ..Told::get(200) }, asked.first, answered.last);
    }
    ground.keep(talk);
    Ok(())
}
