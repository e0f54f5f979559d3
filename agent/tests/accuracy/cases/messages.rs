// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Methods, targets and statuses: what a request and its answer can say.
//!
//! In: nothing. Out: [`CASES`]. Where messages end is not their subject: see [`super::framing`].

use crate::{
    case::Case,
    script::{
        Request, Script,
        Step::{Client, Server},
    },
};

/// A request and the usual answer.
macro_rules! asked {
    ($request:literal, $told:expr) => {
        Script::new(&[Client($request), Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")], &[$told])
    };
}

/// A GET and an unusual answer.
macro_rules! answered {
    ($response:literal, $told:expr) => {
        Script::new(&[Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"), Server($response)], &[$told])
    };
}

const GET: Request = Request::new(0, 1);

pub(super) const CASES: &[Case] = &[
    Case::script("get", asked!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET)),
    Case::script("head", Script::new(
        &[
            Client("HEAD /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[Request::new(0, 1).method("HEAD"), Request::new(2, 3)],
    )).quick(),
    Case::script("post", asked!("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", GET.method("POST"))),
    Case::script("put", asked!("PUT /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", GET.method("PUT"))),
    Case::script("patch", asked!("PATCH /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", GET.method("PATCH"))),
    Case::script("delete", asked!("DELETE /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.method("DELETE"))),
    Case::script("options", asked!("OPTIONS /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.method("OPTIONS"))),
    Case::script("trace", asked!("TRACE /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.method("TRACE"))),
    Case::script("query", asked!("QUERY /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nq1", GET.method("QUERY"))),
    Case::script("propfind", asked!("PROPFIND /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.token("PROPFIND"))).quick(),
    Case::script("mkcol", asked!("MKCOL /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.token("MKCOL"))),
    Case::script("own-method", asked!("x!y~1 /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.token("x!y~1"))),
    Case::script("lower-case-get", asked!("get /{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.token("get"))),
    Case::script("m-search-asterisk", asked!("M-SEARCH * HTTP/1.1\r\nHost: {}.test\r\n\r\n", GET.token("M-SEARCH").paths("*", ""))),
    Case::script("options-asterisk", asked!("OPTIONS * HTTP/1.1\r\nHost: {}.test\r\n\r\n", GET.method("OPTIONS").paths("*", ""))).quick(),
    Case::script("absolute-form", asked!("GET http://x.test/{} HTTP/1.1\r\nHost: y\r\n\r\n", GET)).quick(),
    Case::script("connect", Script::new(
        &[
            Client("CONNECT {}.test:443 HTTP/1.1\r\nHost: {=1}.test:443\r\n\r\n"),
            Server("HTTP/1.1 200 Connection established\r\n\r\n"),
            // What a tunnel carries is nobody's request.
            Client("GET /inside-the-tunnel HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[GET.method("CONNECT").paths("", "")],
    )).quick(),
    Case::script("connect-refused", Script::new(
        &[
            Client("CONNECT {}.test:443 HTTP/1.1\r\nHost: {=1}.test:443\r\n\r\n"),
            Server("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"),
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[GET.method("CONNECT").paths("", "").status(403, "403"), Request::new(2, 3)],
    )),
    Case::script("long-path", asked!("GET /{+600}/{} HTTP/1.1\r\nHost: x\r\n\r\n", GET.paths("/{+600}/{}", "/{+600}/{}"))),
    Case::script("query-string", asked!("GET /{}?a=1&b={+600} HTTP/1.1\r\nHost: x\r\n\r\n", GET)),
    Case::script("status-204", answered!("HTTP/1.1 204 No Content\r\n\r\n", GET.status(204, ""))),
    Case::script("status-304", answered!("HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", GET.status(304, ""))),
    Case::script("status-404", answered!("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", GET.status(404, "404"))),
    Case::script("status-500", answered!("HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", GET.status(500, "500"))).quick(),
    Case::script("no-reason-phrase", answered!("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", GET)),
    Case::script("early-hints", Script::new(
        &[
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 103 Early Hints\r\nLink: </s.css>\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[Request::new(0, 2)],
    )),
    Case::script("expect-continue", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            Server("HTTP/1.1 100 Continue\r\n\r\n"),
            Client("hello"),
            Server("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[Request::new(0, 3).method("POST").status(201, "")],
    )).quick(),
    Case::script("expectation-failed", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
            Server("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"),
        ],
        &[Request::new(0, 1).method("POST").status(417, "417")],
    )),
    Case::script("upgrade", Script::new(
        &[
            Client("GET /{} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
            Server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
            Client("\u{1}\u{5}hello"),
            Server("\u{1}\u{5}world"),
        ],
        &[GET.status(101, "")],
    )).quick(),
    Case::script("early-response", Script::new(
        &[
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello"),
            Server("HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n"),
            Client("world"),
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[Request::new(0, 1).method("POST").status(413, "413"), Request::new(3, 4)],
    )),
    Case::script("keep-alive", Script::new(
        &[
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"), Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Client("POST /{} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), Server("HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nok"),
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n"), Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ],
        &[Request::new(0, 1), Request::new(2, 3).method("POST").status(404, "404"), Request::new(4, 5)],
    )),
    Case::script("five-pipelined", Script::new(
        &[
            Client("GET /{} HTTP/1.1\r\nHost: x\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\nGET /{} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Server("HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nok"),
            Server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nok"),
            Server("HTTP/1.1 204 OK\r\n\r\n"),
        ],
        &[
            Request::new(0, 1),
            Request::new(0, 2).status(404, "404"),
            Request::new(0, 3),
            Request::new(0, 3).status(500, "500"),
            Request::new(0, 4).status(204, ""),
        ],
    )).quick(),
];
