// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Dialogues: what each side said and what went missing, against the messages that come out, a line each.
//!
//! Step n of a dialogue happens n milliseconds in. `> GET /a @1` is a request whose first byte came at 1 ms; `< 200 2..3`
//! a response; `! gap` a loss; `x` the parser giving up.

mod told;

use std::collections::BTreeSet;

use spantap_common::event::unix::Named;

use super::attributes::RESPONSE_END;
use super::*;
use crate::{
    attribute::{Attribute, Value},
    event::{Unix, UnixName},
    protocol::Outcome,
};

struct Dialogue {
    parser: Http1,
    step: u64,
    positions: [u32; 2],
    out: Vec<Message>,
    lines: Vec<String>,
}

fn link(role: Side) -> Link {
    let (client, server) = (Endpoint::v4([10, 1, 2, 3], 51234), Endpoint::v4([10, 9, 8, 7], 8080));
    match role {
        Side::Server => Link { role, local: server, peer: client, unix: None },
        Side::Client => Link { role, local: client, peer: server, unix: None },
    }
}

/// A dialogue that the server's process saw.
fn served() -> Dialogue {
    Dialogue::new(Side::Server)
}

/// A dialogue that the client's process saw.
fn called() -> Dialogue {
    Dialogue::new(Side::Client)
}

impl Dialogue {
    fn new(role: Side) -> Self {
        Self { parser: Http1::new(link(role)), step: 0, positions: [1000, 2000], out: Vec::new(), lines: Vec::new() }
    }

    fn client(self, text: impl AsRef<[u8]>) -> Self {
        self.says(Side::Client, text.as_ref())
    }

    fn server(self, text: impl AsRef<[u8]>) -> Self {
        self.says(Side::Server, text.as_ref())
    }

    fn client_gap(self, missing: u64, tail: &str) -> Self {
        self.misses(Side::Client, missing, tail)
    }

    fn server_gap(self, missing: u64, tail: &str) -> Self {
        self.misses(Side::Server, missing, tail)
    }

    fn client_ends(mut self) -> Self {
        let at = self.now();
        self.parser.end(Side::Client, at, &mut self.out);
        self.then(Progress::More)
    }

    fn server_ends(mut self) -> Self {
        let at = self.now();
        self.parser.end(Side::Server, at, &mut self.out);
        self.then(Progress::More)
    }

    fn closed(mut self) -> Self {
        let at = self.now();
        self.parser.closed(at, &mut self.out);
        self.then(Progress::More)
    }

    /// As long as [`SILENCE`], and not a nanosecond longer.
    fn silence(mut self) -> Self {
        let now = Timestamp(self.step * 1_000_000).plus(SILENCE);
        self.parser.tick(Timestamp(now.0 - 1), &mut self.out);
        assert!(self.out.is_empty(), "silence before its time");
        self.parser.tick(now, &mut self.out);
        self.step += 1000;
        self.then(Progress::More)
    }

    #[track_caller]
    fn gives(self, expected: &[&str]) {
        assert_eq!(self.lines, expected);
    }

    fn says(mut self, side: Side, bytes: &[u8]) -> Self {
        let at = self.now();
        let position = &mut self.positions[side as usize];
        let progress = self.parser.bytes(side, bytes, *position, at, &mut self.out);
        *position += length(bytes);
        self.then(progress)
    }

    fn misses(mut self, side: Side, missing: u64, tail: &str) -> Self {
        let at = self.now();
        self.positions[side as usize] += wrapped(missing);
        let progress = self.parser.gap(side, missing, tail.as_bytes(), at, &mut self.out);
        self.then(progress)
    }

    fn now(&mut self) -> Moment {
        self.step += 1;
        Moment { at: Timestamp(self.step * 1_000_000), ..Moment::default() }
    }

    fn then(mut self, progress: Progress) -> Self {
        self.lines.extend(self.out.drain(..).map(|message| rendered(&message)));
        if progress == Progress::NotMine {
            self.lines.push("x".to_owned());
        }
        self
    }
}

fn rendered(message: &Message) -> String {
    let ms = |moment: &Moment| moment.at.0 / 1_000_000;
    match message {
        Message::Request(request) => {
            let target = value(&request.attributes, "url.path").or(value(&request.attributes, "url.full"));
            let target = target.unwrap_or_else(|| "-".to_owned());
            format!("> {} {target} @{}", request.name, ms(&request.first))
        }
        Message::Response(response) => {
            let status = value(&response.attributes, "http.response.status_code").unwrap_or_else(|| "-".to_owned());
            let outcome = match response.outcome {
                Outcome::Unset => String::new(),
                Outcome::Error => format!(" error={}", value(&response.attributes, "error.type").expect("error.type")),
                Outcome::Broken(cause) => format!(" {}", cause.error_type()),
            };
            let by = value(&response.attributes, RESPONSE_END).map(|by| format!(" {by}")).unwrap_or_default();
            format!("< {status} {}..{}{outcome}{by}", ms(&response.first), ms(&response.last))
        }
        Message::Lost(reason) => format!("! {}", reason.label()),
        Message::Damaged(reason) => format!("~ {}", reason.label()),
    }
}

fn value(attributes: &[Attribute], key: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.to_string())
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: s\r\n\r\n";
const GET_B: &str = "GET /b HTTP/1.1\r\nHost: s\r\n\r\n";
const GET_C: &str = "GET /c HTTP/1.1\r\nHost: s\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

// --- Framing ---

#[test]
fn a_response_is_complete_with_the_last_byte_of_its_body() {
    served()
        .client(GET)
        .server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
        .server("cd")
        .server("e")
        .client(GET_B)
        .server(NOT_FOUND)
        .gives(&["> GET /a @1", "< 200 2..4", "> GET /b @5", "< 404 6..6"]);
}

#[test]
fn heads_may_come_in_any_pieces() {
    served()
        .client("G")
        .client("ET /a HTTP/1.1\r")
        .client("\nHost: s\r\n\r")
        .client("\n")
        .server("HTTP/1.1 2")
        .server("00 OK\r\nContent-Le")
        .server("ngth: 1\r\n\r\n")
        .server("x")
        .gives(&["> GET /a @1", "< 200 5..8"]);
}

#[test]
fn a_request_counts_when_its_head_is_complete_and_its_body_is_skipped() {
    served()
        .client("POST /a HTTP/1.1\r\nContent-Length: 40\r\n\r\n")
        .client("GET /x HTTP/1.1\r\n\r\nHTTP/1.1 200 OK\r\n")
        .client("\r\nab")
        .client(GET_B)
        .server(OK)
        .gives(&["> POST /a @1", "> GET /b @4", "< 200 5..5"]);
}

#[test]
fn chunks_may_have_extensions_and_trailers_and_any_cuts() {
    let body = "4;name=\"va;lue\"\r\nWiki\r\n005 \r\npedia\r\n0;last\r\nTrailer: GET / HTTP/1.1\r\n\r\n";
    for cut in 0..body.len() {
        let (head, tail) = body.split_at(cut);
        served().client(GET).server(CHUNKED).server(head).server(tail).client(GET_B).server(OK).gives(&[
            "> GET /a @1",
            "< 200 2..4",
            "> GET /b @5",
            "< 200 6..6",
        ]);
    }
}

#[test]
fn a_chunked_request_is_followed_by_the_next() {
    served()
        .client(
            "POST /a HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        )
        .server(OK)
        .server(OK)
        .gives(&["> POST /a @1", "> GET /b @1", "< 200 2..2", "< 200 3..3"]);
}

#[test]
fn pipelined_responses_answer_the_oldest_request() {
    served()
        .client([GET, GET_B, "HEAD /c HTTP/1.1\r\n\r\n", GET].concat())
        .server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\n")
        .server("xHTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nHTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        .gives(&[
            "> GET /a @1",
            "> GET /b @1",
            "> HEAD /c @1",
            "> GET /a @1",
            "< 200 2..2",
            "< 404 2..3",
            "< 200 3..3",
            "< 500 3..3 error=500",
        ]);
}

#[test]
fn a_hundred_pipelined_requests_are_a_hundred_exchanges() {
    let dialogue = served().client(GET.repeat(100)).server(OK.repeat(100));
    assert_eq!(dialogue.lines.iter().filter(|line| *line == "> GET /a @1").count(), 100);
    assert_eq!(dialogue.lines.iter().filter(|line| *line == "< 200 2..2").count(), 100);
    assert_eq!(dialogue.lines.len(), 200);
}

#[test]
fn more_waiting_requests_than_the_bound_are_counted() {
    let dialogue = served().client(GET.repeat(MAX_WAITING + 1)).server(OK.repeat(MAX_WAITING));
    assert_eq!(dialogue.lines.iter().filter(|line| line.starts_with('>')).count(), MAX_WAITING);
    assert_eq!(dialogue.lines.iter().filter(|line| line.starts_with('<')).count(), MAX_WAITING);
    assert_eq!(dialogue.lines[MAX_WAITING], "! table_full");
    assert_eq!(dialogue.lines.last().map(String::as_str), Some("x"));
}

#[test]
fn some_responses_have_no_body_whatever_they_say() {
    for response in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let status = &response[9..12];
        served().client(GET).server(response).client(GET_B).server(OK).gives(&[
            "> GET /a @1",
            &format!("< {status} 2..2"),
            "> GET /b @3",
            "< 200 4..4",
        ]);
    }
    served()
        .client("HEAD /a HTTP/1.1\r\n\r\n")
        .server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .client(GET_B)
        .server(OK)
        .gives(&["> HEAD /a @1", "< 200 2..2", "> GET /b @3", "< 200 4..4"]);
}

#[test]
fn interim_responses_are_swallowed() {
    served()
        .client("POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .server("HTTP/1.1 100 Continue\r\n\r\n")
        .client("ab")
        .server("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 1")
        .server("02 Processing\r\n\r\n")
        .server("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        .gives(&["> POST /a @1", "< 201 6..6"]);
}

#[test]
fn an_early_response_does_not_end_the_request() {
    served()
        .client("POST /a HTTP/1.1\r\nContent-Length: 30\r\n\r\nab")
        .server("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        .client("GET /x HTTP/1.1\r\n\r\n123456789")
        .client(GET_B)
        .server(OK)
        .gives(&["> POST /a @1", "< 413 2..2", "> GET /b @4", "< 200 5..5"]);
}

#[test]
fn an_upgrade_ends_with_its_head_and_so_does_http() {
    served()
        .client("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        .server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02")
        .client(GET)
        .gives(&["> GET /ws @1", "< 101 2..2", "x", "x"]);
}

#[test]
fn a_tunnel_begins_only_when_it_was_granted() {
    called()
        .client("CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n")
        .server("HTTP/1.1 407 Who?\r\nContent-Length: 2\r\n\r\nno")
        .client("CONNECT a.example:443 HTTP/1.1\r\n\r\n")
        .server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        .gives(&[
            "> CONNECT a.example:443 @1",
            "< 407 2..2 error=407",
            "> CONNECT a.example:443 @3",
            "< 200 4..4",
            "x",
        ]);
}

#[test]
fn a_body_without_length_ends_with_the_connection() {
    served()
        .client("GET /a HTTP/1.0\r\n\r\n")
        .server("HTTP/1.0 200 OK\r\n\r\nHTTP/1.1 404")
        .server("more")
        .server_ends()
        .closed()
        .gives(&["> GET /a @1", "< 200 2..4"]);
}

#[test]
fn a_connection_that_breaks_truncates_its_response() {
    let half = "HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nhalf";
    served().client(GET).server(half).closed().gives(&["> GET /a @1", "< 500 2..3 truncated"]);
    served().client(GET).server(half).server_ends().closed().gives(&["> GET /a @1", "< 500 2..3 truncated"]);
    served().client(GET).server("HTTP/1.1 200 OK\r\n\r\nhalf").closed().gives(&["> GET /a @1", "< 200 2..3 truncated"]);
    served().client(GET).server("HTTP/1.1 20").closed().gives(&["> GET /a @1", "< - 2..3 truncated"]);
    served().client(GET).server(CHUNKED).server("1\r\n").server_ends().gives(&["> GET /a @1", "< 200 2..4 truncated"]);
}

#[test]
fn a_request_without_a_response_is_not_this_stage_s_business() {
    served().client(GET).closed().gives(&["> GET /a @1"]);
    served().client(GET).client_ends().server(OK).gives(&["> GET /a @1", "< 200 3..3", "x"]);
}

#[test]
fn a_request_that_is_never_finished_is_counted() {
    served().client("GET /a HTTP/1.1\r\nHost").closed().gives(&["! protocol_error"]);
    served().client(GET).client("GE").client_ends().gives(&["> GET /a @1", "! protocol_error"]);
    served().client("GE").closed().gives(&[]);
}

// --- Leniency ---

#[test]
fn bare_line_feeds_end_lines() {
    served()
        .client("\r\n\nGET /a HTTP/1.1\nHost: s\n\n")
        .server("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1\na\n0\n\n")
        .gives(&["> GET /a @1", "< 200 2..2"]);
}

#[test]
fn folded_lines_are_read_as_blanks() {
    let request = "GET /a HTTP/1.1\r\nHost: s\r\ntraceparent:\r\n 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nX: a\r\n\tb\r\n\r\n";
    let context = only_request(Side::Server, request).context.expect("a context");
    assert_eq!(context.parent.to_string(), "00f067aa0ba902b7");
    let indented = "GET /a HTTP/1.1\r\n Content-Length: 5\r\n\tmore\r\nHost: s\r\n\r\n";
    served().client([indented, GET_B].concat()).gives(&["> GET /a @1", "> GET /b @1"]);
}

#[test]
fn any_token_is_a_method() {
    served()
        .client(
            "PROPFIND /a HTTP/1.1\r\n\r\nget /b HTTP/1.1\r\n\r\nQUERY /c HTTP/1.1\r\n\r\nM-SEARCH * HTTP/1.1\r\n\r\n",
        )
        .gives(&["> HTTP /a @1", "> HTTP /b @1", "> QUERY /c @1", "> HTTP * @1"]);
    let attributes = only_request(Side::Server, "get / HTTP/1.1\r\n\r\n").attributes;
    assert_eq!(value(&attributes, "http.request.method").as_deref(), Some("_OTHER"));
    assert_eq!(value(&attributes, "http.request.method_original").as_deref(), Some("get"));
}

#[test]
fn a_line_that_is_no_field_is_skipped() {
    served()
        .client("GET /a HTTP/1.1\r\nno colon here\r\n(bad): 1\r\nHost: s\r\n\r\n")
        .server("HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nab")
        .client(GET_B)
        .gives(&["> GET /a @1", "< 200 2..2", "> GET /b @3"]);
}

#[test]
fn what_begins_like_a_length_and_is_no_field_hides_where_the_request_ends() {
    for disguised in ["Content-Length : 3", "Transfer-Encoding : chunked", "Transfer-Encoding: \x0bchunked"] {
        served().client(format!("POST /a HTTP/1.1\r\n{disguised}\r\n\r\nabc{GET_B}")).server(OK).gives(&[
            "> POST /a @1",
            "< 200 2..2",
            "x",
        ]);
    }
    served().client(GET).server("HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n").gives(&[
        "> GET /a @1",
        "< 200 2..2 protocol_error",
        "x",
    ]);
}

#[test]
fn a_status_line_with_more_blanks_than_it_may_have_is_none_however_it_comes() {
    const SPACED: &str = "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n";
    served().client(GET).server(SPACED).gives(&["> GET /a @1", "< - 2..2 protocol_error", "x"]);
    let (start, _) = SPACED.split_at(10);
    served().client(GET).server(start).gives(&["> GET /a @1", "< - 2..2 protocol_error", "x"]);
}

// --- What two parties might read differently ---

#[test]
fn smuggling_pairs_have_one_outcome_each() {
    let post = |fields: &str| format!("POST /a HTTP/1.1\r\n{fields}\r\n");
    let both = post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n");
    served().client(both + "0\r\n\r\n" + GET_B).gives(&["> POST /a @1", "> GET /b @1"]);
    let equal = post("Content-Length: 3\r\nContent-Length: 3, 3\r\n");
    served().client(equal + "abc" + GET_B).gives(&["> POST /a @1", "> GET /b @1"]);
    for faulty in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ] {
        // The server's 400 is its answer; what follows on the client's side is nobody's request.
        served().client(post(faulty) + GET_B).server(NOT_FOUND).gives(&["> POST /a @1", "< 404 2..2", "x"]);
    }
    let old = "POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    served().client(old.to_owned() + GET_B).server(OK).gives(&["> POST /a @1", "< 200 2..2", "x"]);
}

#[test]
fn a_response_with_contradictory_lengths_is_a_protocol_error() {
    served().client(GET).server("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd").gives(&[
        "> GET /a @1",
        "< 200 2..2 protocol_error",
        "x",
    ]);
}

#[test]
fn a_response_with_an_unknown_last_coding_ends_with_the_connection() {
    for head in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        served().client(GET).server(head).server("0\r\n\r\n").server_ends().gives(&["> GET /a @1", "< 200 2..4"]);
    }
}

#[test]
fn what_is_no_chunked_coding_is_a_protocol_error() {
    for body in ["x\r\n", "\r\n", ";ext\r\n", "11111111111111111\r\n", "1\r\nabc\r\n"] {
        served().client(GET).server(CHUNKED).server(body).gives(&["> GET /a @1", "< 200 2..3 protocol_error", "x"]);
    }
    let endless = "1;".to_owned() + &"x".repeat(17 << 10);
    served().client(GET).server(CHUNKED).server(endless).gives(&["> GET /a @1", "< 200 2..3 protocol_error", "x"]);
    served().client("POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz").server(OK).gives(&[
        "> POST /a @1",
        "~ protocol_error",
        "< 200 2..2",
        "x",
    ]);
}

#[test]
fn no_status_line_is_a_protocol_error_of_the_oldest_request() {
    served().client(GET).server("SSH-2.0-x\r\n").gives(&["> GET /a @1", "< - 2..2 protocol_error", "x"]);
    served().client(GET).server("HTTP/1.1 099 X\r\n\r\n").gives(&["> GET /a @1", "< - 2..2 protocol_error", "x"]);
    served().client(GET).server("HTTP/1").server(".2 200 OK\r\n").gives(&[
        "> GET /a @1",
        "< - 2..3 protocol_error",
        "x",
    ]);
}

#[test]
fn no_request_line_leaves_the_connection_when_all_is_answered() {
    served().client(GET).client("\x16\x03\x01").server(OK).gives(&[
        "> GET /a @1",
        "! protocol_error",
        "< 200 3..3",
        "x",
    ]);
    served().client(GET).server(OK).client("hello\r\n").gives(&["> GET /a @1", "< 200 2..2", "! protocol_error", "x"]);
}

#[test]
fn another_protocol_is_left_without_a_word() {
    served().client("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").gives(&["x"]);
    served().client("\x16\x03\x01\x02").gives(&["x"]);
    served().client("GET /a\r\n").gives(&["x"]);
}

// --- Responses without requests ---

#[test]
fn a_connection_is_picked_up_in_the_middle() {
    served().server("the end of a body HTTP/1.1 200 OK\r\n\r\n").server(OK).client(GET).server(OK).gives(&[
        "~ unpaired",
        "> GET /a @3",
        "< 200 4..4",
    ]);
}

#[test]
fn an_answer_that_nothing_asked_for_is_counted_and_skipped() {
    let timeout = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n";
    served().client(GET).server(OK).server(timeout).server_ends().gives(&["> GET /a @1", "< 200 2..2", "~ unpaired"]);
    served().client(GET).server([OK, timeout].concat()).client(GET_B).server(NOT_FOUND).gives(&[
        "> GET /a @1",
        "< 200 2..2",
        "~ unpaired",
        "> GET /b @3",
        "< 404 4..4",
    ]);
}

#[test]
fn an_answer_to_half_a_request_is_not_the_answer_to_the_next() {
    served()
        .client("GET /slow HTTP/1.1\r\nHost:")
        .server("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        .client(" s\r\n\r\n")
        .client(GET_B)
        .server(OK)
        .gives(&["! unpaired", "> GET /b @4", "< 200 5..5"]);
}

// --- Missing bytes ---

#[test]
fn missing_bytes_of_a_known_length_are_only_counted() {
    served()
        .client("POST /a HTTP/1.1\r\nContent-Length: 100000\r\n\r\nab")
        .client_gap(99_997, "yz")
        .client("z")
        .server("HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\nab")
        .server_gap(60_000, "")
        .server_gap(9_998, "")
        .client(GET_B)
        .server(OK)
        .gives(&["> POST /a @1", "< 200 4..6", "> GET /b @7", "< 200 8..8"]);
}

#[test]
fn missing_bytes_inside_a_chunk_are_only_counted() {
    // One chunk a call, as most servers write: its size is among the first bytes, its end among the last.
    served()
        .client(GET)
        .server(CHUNKED)
        .server("10000\r\n123456789")
        .server_gap(65_536 - 9 + 2, "abcdef\r\n")
        .server("8000\r\n0123456789")
        .server_gap(32_768 - 10 + 7, "a\r\n0\r\n\r\n")
        .client(GET_B)
        .server(OK)
        .gives(&["> GET /a @1", "< 200 2..6", "> GET /b @7", "< 200 8..8"]);
}

#[test]
fn a_blind_body_ends_with_its_last_chunk() {
    served()
        .client(GET)
        .server(CHUNKED)
        .server_gap(500, "abcdefgh")
        .server("whatever")
        .server_gap(70, "b\r\n0\r\n\r\n")
        .client(GET_B)
        .server(OK)
        .gives(&["> GET /a @1", "< 200 2..5", "> GET /b @6", "< 200 7..7"]);
    served()
        .client(GET)
        .server(CHUNKED)
        .server_gap(500, "abcdefgh")
        .server("x\r\n0\r")
        .server("\n\r\n")
        .gives(&["> GET /a @1", "< 200 2..5"]);
}

#[test]
fn a_blind_body_ends_with_the_next_request_or_with_silence_or_with_its_side() {
    let blind = || served().client(GET).server(CHUNKED).server_gap(500, "abcdefgh").server("more");
    blind().client(GET_B).server(OK).gives(&["> GET /a @1", "< 200 2..4 next_request", "> GET /b @5", "< 200 6..6"]);
    blind().silence().server("late").client(GET_B).server(OK).gives(&[
        "> GET /a @1",
        "< 200 2..4 silence",
        "> GET /b @1006",
        "< 200 1007..1007",
    ]);
    blind().server_ends().closed().gives(&["> GET /a @1", "< 200 2..4 close"]);
    blind().closed().gives(&["> GET /a @1", "< 200 2..5 truncated"]);
}

#[test]
fn a_blind_request_body_ends_with_its_last_chunk_or_with_a_request_once_it_is_answered() {
    let upload = "POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    served()
        .client(upload)
        .client_gap(500, "x\r\n0\r\n\r\n")
        .server(OK)
        .client("GET /b HTT")
        .client("P/1.1\r\n\r\n")
        .gives(&["> POST /a @1", "< 200 3..3", "> GET /b @4"]);
    served()
        .client(upload)
        .client_gap(500, "abcdefgh")
        .client("GET /in-the-body HTTP/1.1\r\n\r\n")
        .server(OK)
        .client(GET_B)
        .server(NOT_FOUND)
        .gives(&["> POST /a @1", "< 200 4..4", "> GET /b @5", "< 404 6..6"]);
}

#[test]
fn the_answer_to_a_lost_request_is_swallowed() {
    served()
        .client("GET /lost HTTP/1.1\r\nX: ")
        .client_gap(100, "abc\r\n\r\n")
        .server(NOT_FOUND)
        .client(GET_B)
        .server(OK)
        .gives(&["! gap", "> GET /b @4", "< 200 5..5"]);
    // Its method is not known, so neither is the length of its answer: the next request tells.
    served()
        .client_gap(100, "abc\r\n\r\n")
        .server("HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n")
        .client(GET_B)
        .server(OK)
        .gives(&["! gap", "> GET /b @3", "< 200 4..4"]);
}

#[test]
fn a_head_over_its_budget_is_lost_with_its_answer() {
    let endless = format!("GET /lost HTTP/1.1\r\nX: {}", "x".repeat(40 << 10));
    served()
        .client(&endless)
        .server("HTTP/1.1 431 Too Large\r\nContent-Length: 0\r\n\r\n")
        .client(GET_B)
        .server(OK)
        .gives(&["! over_budget", "> GET /b @3", "< 200 4..4"]);
    let many = format!("GET /lost HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(129));
    served().client(many).server(OK).client(GET_B).gives(&["! over_budget", "> GET /b @3"]);
}

#[test]
fn a_short_head_behind_the_budget_is_seen_by_its_ends() {
    served().client("GET / HTTP/1.1\r\n").client_gap(8, "A: b\r\n\r\n").gives(&["> GET / @1"]);
}

#[test]
fn a_lost_response_is_reported_when_the_next_request_begins() {
    served()
        .client(GET)
        .server("HTTP/1.1 503 Ser")
        .server_gap(400, "abcdefgh")
        .server("body")
        .client(GET_B)
        .server(OK)
        .gives(&["> GET /a @1", "~ gap", "< 503 2..4 error=503 next_request", "> GET /b @5", "< 200 6..6"]);
    served().client(GET).server_gap(400, "").client(GET_B).server(NOT_FOUND).gives(&[
        "> GET /a @1",
        "~ gap",
        "< - 2..2 next_request",
        "> GET /b @3",
        "< 404 4..4",
    ]);
    served().client(GET).server_gap(400, "").silence().gives(&["> GET /a @1", "~ gap", "< - 2..2 silence"]);
    served().client(GET).server_gap(400, "").closed().gives(&["> GET /a @1", "~ gap", "< - 2..2 close"]);
}

#[test]
fn an_exchange_that_is_lost_whole_moves_nobody_s_answer() {
    let lost = || served().client(GET).server(OK);
    for dialogue in [
        lost().client_gap(50, "").server_gap(60, "").client(GET_B).server(NOT_FOUND),
        lost().server_gap(60, "").client_gap(50, "").client(GET_B).server(NOT_FOUND),
    ] {
        let lines: Vec<&str> =
            dialogue.lines.iter().map(String::as_str).filter(|line| !line.ends_with(" gap")).collect();
        assert_eq!(lines, ["> GET /a @1", "< 200 2..2", "> GET /b @5", "< 404 6..6"]);
    }
    // The loss of the answer comes out only with the next one, which it may as well be a part of.
    lost().client_gap(50, "").client(GET_B).server_gap(60, "").server(NOT_FOUND).client(GET_C).server(OK).gives(&[
        "> GET /a @1",
        "< 200 2..2",
        "! gap",
        "> GET /b @4",
        "~ gap",
        "< - 5..6 next_request",
        "> GET /c @7",
        "< 200 8..8",
    ]);
}

#[test]
fn answers_whose_loss_comes_out_late_end_when_the_next_request_began() {
    // The last of the missing bytes may belong to the second answer, or be all of it.
    let both = |dialogue: Dialogue, last: &str| {
        dialogue.gives(&["> GET /a @1", "> GET /b @2", "~ gap", "< - 2..2 next_request", "~ gap", last]);
    };
    let late = || served().client(GET).client(GET_B).server_gap(60, "");
    both(late().server(NOT_FOUND).closed(), "< - 3..4 close");
    both(late().silence(), "< - 3..3 silence");
    late().server("body").client(GET_C).server(OK).gives(&[
        "> GET /a @1",
        "> GET /b @2",
        "~ gap",
        "< - 2..2 next_request",
        "~ gap",
        "< - 3..4 next_request",
        "> GET /c @5",
        "< 200 6..6",
    ]);
}

#[test]
fn the_loss_of_a_request_and_of_the_answers_around_it_keeps_the_order() {
    served().client(GET).client_gap(50, "").client(GET_C).server_gap(90, "").client(GET).server(NOT_FOUND).gives(&[
        "> GET /a @1",
        "! gap",
        "> GET /c @3",
        "~ gap",
        "< - 2..2 next_request",
        "~ gap",
        "< - 4..4 next_request",
        "> GET /a @5",
        "< 404 6..6",
    ]);
    // No loss after all: the client pipelines, so the answer behind the lost request's cannot be told from it.
    served().client(GET).client_gap(50, "").client(GET_C).server(OK).server(NOT_FOUND).gives(&[
        "> GET /a @1",
        "! gap",
        "> GET /c @3",
        "< 200 4..4",
        "x",
        "x",
    ]);
}

#[test]
fn a_loss_that_comes_out_inside_a_request_head_may_be_of_its_answer() {
    served()
        .client(GET)
        .client("GET /b HTTP/1.1\r\n")
        .server_gap(60, "")
        .client("\r\n")
        .server(NOT_FOUND)
        .client(GET_C)
        .server(OK)
        .gives(&[
            "> GET /a @1",
            "~ gap",
            "< - 3..3 next_request",
            "> GET /b @2",
            "~ gap",
            "< - 2..5 next_request",
            "> GET /c @6",
            "< 200 7..7",
        ]);
}

#[test]
fn a_connection_with_pipelining_is_left_at_the_first_loss() {
    let pipelined = || served().client([GET, GET_B, GET_C].concat()).server(OK);
    pipelined().server_gap(60, "").gives(&[
        "> GET /a @1",
        "> GET /b @1",
        "> GET /c @1",
        "< 200 2..2",
        "~ gap",
        "< - 3..3 next_request",
        "x",
    ]);
    // What was asked before a lost request is answered still.
    pipelined().client_gap(60, "").client(GET).server(OK).server(NOT_FOUND).gives(&[
        "> GET /a @1",
        "> GET /b @1",
        "> GET /c @1",
        "< 200 2..2",
        "! gap",
        "< 200 5..5",
        "< 404 6..6",
        "x",
    ]);
}

#[test]
fn a_response_that_goes_blind_behind_the_next_request_ended_before_it() {
    served().client(GET).server(CHUNKED).client(GET_B).server_gap(300, "abcdefgh").server_ends().gives(&[
        "> GET /a @1",
        "> GET /b @3",
        "< 200 2..3 next_request",
        "~ gap",
        "< - 4..4 close",
    ]);
}

// --- Attributes ---

#[test]
fn the_golden_example() {
    let request = "GET /users/42?x=1&sig=abc HTTP/1.1\r\nHost: shop:8080\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
                   traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03\r\ntracestate: a=1\r\n\r\n";
    let response = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";

    let served = only_request(Side::Server, request);
    assert_eq!(&*served.name, "GET");
    assert_eq!(served.position, 7);
    let context = served.context.expect("a context");
    assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(context.parent.to_string(), "00f067aa0ba902b7");
    assert_eq!((context.flags.0, context.state.as_deref()), (0x03, Some("a=1")));
    assert_eq!(
        listed(&served.attributes),
        [
            "http.request.method=GET",
            "url.scheme=http",
            "url.path=/users/42",
            "url.query=x=1&sig=REDACTED",
            "server.address=shop",
            "server.port=8080",
            "network.protocol.version=1.1",
            "network.peer.address=10.1.2.3",
            "network.peer.port=51234",
            "client.address=10.1.2.3",
            "user_agent.original=curl/8.5.0",
        ]
    );
    let called = only_request(Side::Client, request);
    assert_eq!(
        listed(&called.attributes),
        [
            "http.request.method=GET",
            "url.full=http://shop:8080/users/42?x=1&sig=REDACTED",
            "server.address=shop",
            "server.port=8080",
            "network.protocol.version=1.1",
            "network.peer.address=10.9.8.7",
            "network.peer.port=8080",
        ]
    );
    for role in [Side::Server, Side::Client] {
        let answer = only_response(role, response);
        assert_eq!(answer.outcome, Outcome::Error);
        assert_eq!(listed(&answer.attributes), ["http.response.status_code=503", "error.type=503"]);
        let code = answer.attributes.iter().find(|attribute| attribute.key == "http.response.status_code");
        assert_eq!(code.map(|code| &code.value), Some(&Value::Int(503)));
    }
}

#[test]
fn a_unix_socket_is_named_by_its_path() {
    let name = |name: &[u8]| UnixName::new(name).expect("a name");
    let over = |role, name| {
        let link =
            Link { role, local: Endpoint::unix(1), peer: Endpoint::unix(2), unix: Some(Unix { peer_pid: 77, name }) };
        let mut out = Vec::new();
        let request = b"GET /a HTTP/1.0\r\nHost: localhost\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
        Http1::new(link).bytes(Side::Client, request, 0, Moment::default(), &mut out);
        out.iter()
            .map(|message| match message {
                Message::Request(request) => listed(&request.attributes),
                other => panic!("no request: {other:?}"),
            })
            .collect::<Vec<_>>()
    };
    let common = ["network.protocol.version=1.0", "network.transport=unix"];
    for (role, name, attributes) in [
        (
            Side::Client,
            Some((Named::Peer, name(b"/run/app.sock"))),
            [
                vec![
                    "url.full=http://localhost/a",
                    "server.address=/run/app.sock",
                    "network.peer.address=/run/app.sock",
                ],
                vec![
                    "url.full=http://%2Frun%2Fapp.sock/b",
                    "server.address=/run/app.sock",
                    "network.peer.address=/run/app.sock",
                ],
            ],
        ),
        (
            Side::Client,
            None,
            [
                vec!["url.full=http://localhost/a", "server.address=localhost", "server.port=80"],
                vec!["url.full=http://localhost/b", "server.address=localhost", "server.port=80"],
            ],
        ),
        (
            Side::Server,
            Some((Named::Local, name(b"\0app"))),
            [
                vec!["url.path=/a", "server.address=localhost", "server.port=80", "network.local.address=@app"],
                vec!["url.path=/b", "server.address=@app", "network.local.address=@app"],
            ],
        ),
        (Side::Server, None, [vec!["url.path=/a", "server.address=localhost", "server.port=80"], vec!["url.path=/b"]]),
    ] {
        for (said, expected) in over(role, name).into_iter().zip(attributes) {
            let mut expected: BTreeSet<_> = expected.into_iter().map(str::to_owned).collect();
            expected.extend(common.map(str::to_owned));
            expected.extend(["http.request.method=GET".to_owned(), "spantap.peer.pid=77".to_owned()]);
            if role == Side::Server {
                expected.insert("url.scheme=http".to_owned());
            }
            assert_eq!(said.into_iter().collect::<BTreeSet<_>>(), expected, "{role:?} {name:?}");
        }
    }
}

#[test]
fn a_client_error_is_the_client_s() {
    let served = only_response(Side::Server, NOT_FOUND);
    assert_eq!(served.outcome, Outcome::Unset);
    assert_eq!(listed(&served.attributes), ["http.response.status_code=404"]);
    let called = only_response(Side::Client, NOT_FOUND);
    assert_eq!(called.outcome, Outcome::Error);
    assert_eq!(listed(&called.attributes), ["http.response.status_code=404", "error.type=404"]);
    for status in ["200 OK", "302 Found", "399 ?"] {
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(only_response(Side::Client, &response).outcome, Outcome::Unset, "{status}");
    }
}

#[test]
fn a_client_s_url_is_rebuilt() {
    let cases = [
        ("GET /x HTTP/1.1\r\nHost: a\r\n", "http://a/x", "a", Some("80")),
        ("GET /x?token=s HTTP/1.1\r\nHost: [::1]:8080\r\n", "http://[::1]:8080/x?token=REDACTED", "::1", Some("8080")),
        ("GET http://a.example/x HTTP/1.1\r\nHost: b\r\n", "http://a.example/x", "a.example", Some("80")),
        (
            "GET https://u:p@a.example?code=1 HTTP/1.1\r\nHost: b\r\n",
            "https://REDACTED:REDACTED@a.example/?code=REDACTED",
            "a.example",
            Some("443"),
        ),
        ("GET ftp://a/x HTTP/1.1\r\nHost: b\r\n", "ftp://a/x", "a", None),
        ("GET /x HTTP/1.1\r\nHost: u:p@a:1\r\n", "http://REDACTED:REDACTED@a:1/x", "a", Some("1")),
        ("GET /x HTTP/1.0\r\n", "http://10.9.8.7:8080/x", "10.9.8.7", Some("8080")),
        ("GET /x#access_token=1 HTTP/1.1\r\nHost: a\r\n", "http://a/x", "a", Some("80")),
        ("OPTIONS * HTTP/1.1\r\nHost: a:81\r\n", "http://a:81", "a", Some("81")),
        ("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n", "b:443", "b", Some("443")),
    ];
    for (head, url, address, port) in cases {
        let attributes = only_request(Side::Client, &format!("{head}\r\n")).attributes;
        assert_eq!(value(&attributes, "url.full").as_deref(), Some(url), "{head}");
        assert_eq!(value(&attributes, "server.address").as_deref(), Some(address), "{head}");
        assert_eq!(value(&attributes, "server.port").as_deref(), port, "{head}");
    }
}

#[test]
fn a_server_knows_how_it_was_addressed() {
    let cases = [
        ("Host: a", "http a 80 10.1.2.3"),
        ("Host: [2001:db8::1]", "http 2001:db8::1 80 10.1.2.3"),
        ("", "http 10.9.8.7 8080 10.1.2.3"),
        (
            "Host: a\r\nX-Forwarded-Proto: https, http\r\nX-Forwarded-Host: b, c\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.1",
            "https b 443 192.0.2.1",
        ),
        ("Host: a\r\nX-Forwarded-For: 192.0.2.1:4711", "http a 80 192.0.2.1"),
        ("Host: a\r\nX-Forwarded-For: [2001:db8::2]:4711", "http a 80 2001:db8::2"),
        ("Host: a\r\nX-Forwarded-For: unknown\r\nX-Forwarded-Proto: <script>", "http a 80 10.1.2.3"),
        (
            "Host: a\r\nX-Forwarded-Host: x\r\nForwarded: for=\"[2001:db8::3]:80\";proto=HTTPS;host=\"d:8443\", for=192.0.2.9",
            "https d 8443 2001:db8::3",
        ),
        ("Host: a\r\nForwarded: for=_hidden;by=x", "http a 80 10.1.2.3"),
    ];
    for (fields, expected) in cases {
        let head = format!("GET / HTTP/1.1\r\n{fields}{}\r\n", if fields.is_empty() { "" } else { "\r\n" });
        let attributes = only_request(Side::Server, &head).attributes;
        let said = ["url.scheme", "server.address", "server.port", "client.address"]
            .map(|key| value(&attributes, key).unwrap_or_default())
            .join(" ");
        assert_eq!(said, expected, "{fields}");
    }
    let absolute = only_request(Side::Server, "GET HTTP://a.example:81/x HTTP/1.1\r\nHost: b\r\n\r\n").attributes;
    assert_eq!(value(&absolute, "url.path").as_deref(), Some("/x"));
    assert_eq!(value(&absolute, "url.scheme").as_deref(), Some("http"));
    assert_eq!(value(&absolute, "server.address").as_deref(), Some("a.example"));
}

#[test]
fn text_that_is_not_utf_8_is_kept_as_far_as_it_goes() {
    let head = b"GET /caf\xe9?q=\xff HTTP/1.0\r\nUser-Agent: \xe9t\xe9\r\n\r\n";
    let mut out = Vec::new();
    Http1::new(link(Side::Server)).bytes(Side::Client, head, 7, Moment::default(), &mut out);
    let [Message::Request(request)] = &out[..] else { panic!("{out:?}") };
    assert_eq!(value(&request.attributes, "url.path").as_deref(), Some("/caf\u{fffd}"));
    assert_eq!(value(&request.attributes, "url.query").as_deref(), Some("q=\u{fffd}"));
    assert_eq!(value(&request.attributes, "user_agent.original").as_deref(), Some("\u{fffd}t\u{fffd}"));
    assert_eq!(value(&request.attributes, "network.protocol.version").as_deref(), Some("1.0"));
}

#[test]
fn a_long_target_is_kept_whole() {
    let path = format!("/{}", "x".repeat(30 << 10));
    let attributes = only_request(Side::Server, &format!("GET {path} HTTP/1.1\r\n\r\n")).attributes;
    assert_eq!(value(&attributes, "url.path"), Some(path));
}

/// The cases of the W3C's suite that are about header names.
#[test]
fn context_headers_are_found_by_their_exact_names_in_any_case() {
    let cases = [
        ("traceparent_header_name", "trace-parent", "tracestate", false, false),
        ("traceparent_header_name", "trace.parent", "tracestate", false, false),
        ("traceparent_header_name_valid_casing", "TraceParent", "tracestate", true, true),
        ("traceparent_header_name_valid_casing", "TrAcEpArEnT", "tracestate", true, true),
        ("traceparent_header_name_valid_casing", "TRACEPARENT", "tracestate", true, true),
        ("tracestate_header_name", "traceparent", "trace-state", true, false),
        ("tracestate_header_name", "traceparent", "trace.state", true, false),
        ("tracestate_header_name_valid_casing", "traceparent", "TraceState", true, true),
        ("tracestate_header_name_valid_casing", "traceparent", "TrAcEsTaTe", true, true),
        ("tracestate_header_name_valid_casing", "traceparent", "TRACESTATE", true, true),
    ];
    for (name, parent, state, has_context, has_state) in cases {
        let head = format!(
            "GET / HTTP/1.1\r\n{parent}:\t00-12345678901234567890123456789012-1234567890123456-01 \r\n{state}:foo=1\r\n\r\n"
        );
        let context = only_request(Side::Server, &head).context;
        assert_eq!(context.is_some(), has_context, "{name}: {parent}");
        assert_eq!(context.and_then(|context| context.state).is_some(), has_state, "{name}: {state}");
    }
}

#[test]
fn a_context_in_a_body_is_not_the_request_s() {
    let head = "POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\ntraceparent: 00-12345678901234567890123456789012-1234567890123456-01\r\n\r\n";
    assert_eq!(only_request(Side::Server, head).context, None);
}

#[test]
fn names_are_shared_between_requests() {
    let mut parser = Http1::new(link(Side::Server));
    let mut out = Vec::new();
    parser.bytes(Side::Client, [GET, GET_B].concat().as_bytes(), 0, Moment::default(), &mut out);
    let [Message::Request(a), Message::Request(b)] = &out[..] else { panic!("{out:?}") };
    assert!(Arc::ptr_eq(&a.name, &b.name));
    assert_eq!((a.position, b.position), (0, length(GET.as_bytes())));
}

// --- Fuzz targets ---

#[test]
fn exercise_fuzz_http1() {
    let says = |op: u8, text: &str| [&[op, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    let (client, server) = (0b1000, 0b1001);
    for data in [
        vec![],
        vec![0xff; 64],
        [says(client, GET), says(server, OK), says(client, GET_B), says(server, NOT_FOUND)].concat(),
        [says(client, GET), vec![0b0011, 200], says(client, GET_B), says(server, OK), vec![0b0111, 0]].concat(),
        [says(client, GET), says(server, CHUNKED), vec![0xf3, 255], says(server, "x\r\n0\r\n\r\n"), vec![0b0101, 0]]
            .concat(),
        [says(client, GET), vec![0xf2, 255], says(client, GET_B), vec![0xf3, 9], says(server, OK), says(server, OK)]
            .concat(),
    ] {
        fuzz_http1(&data);
    }
}

fn only_request(role: Side, head: &str) -> Request {
    let mut out = Vec::new();
    Http1::new(link(role)).bytes(Side::Client, head.as_bytes(), 7, Moment::default(), &mut out);
    match out.pop() {
        Some(Message::Request(request)) if out.is_empty() => request,
        other => panic!("{other:?} after {out:?}"),
    }
}

fn only_response(role: Side, response: &str) -> Response {
    let mut parser = Http1::new(link(role));
    let mut out = Vec::new();
    parser.bytes(Side::Client, GET.as_bytes(), 0, Moment::default(), &mut out);
    parser.bytes(Side::Server, response.as_bytes(), 0, Moment::default(), &mut out);
    match out.pop() {
        Some(Message::Response(response)) if out.len() == 1 => response,
        other => panic!("{other:?} after {out:?}"),
    }
}

fn listed(attributes: &[Attribute]) -> Vec<String> {
    attributes
        .iter()
        .map(|attribute| format!("{}={}", attribute.key, value(attributes, &attribute.key).unwrap_or_default()))
        .collect()
}
