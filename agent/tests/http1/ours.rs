// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What spantap's parser makes of a file.
//!
//! In: a file of the corpus. Out: its reading. Two requests go before a file of responses, so that there is somebody to
//! answer.

use spantap::{
    attribute::Attribute,
    protocol::{Cause, Link, Message, Outcome, Parser, Progress, Side, http1::Http1},
    time::Moment,
};
use spantap_common::{endpoint::Endpoint, loss::Reason};

use super::{Reading, method_of};

pub(super) fn read(name: &str, bytes: &[u8]) -> String {
    read_in_pieces(name, bytes, bytes.len())
}

pub(super) fn read_in_pieces(name: &str, bytes: &[u8], step: usize) -> String {
    let link = Link {
        role: Side::Server,
        local: Endpoint::v4([10, 0, 0, 1], 80),
        peer: Endpoint::v4([10, 0, 0, 2], 1),
        unix: None,
    };
    let mut parser = Http1::new(link);
    let mut out = Vec::new();
    let is_request = name.starts_with("requests/");
    let side = if is_request { Side::Client } else { Side::Server };
    if !is_request {
        for method in [method_of(name), "GET"] {
            let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
            parser.bytes(Side::Client, request.as_bytes(), 0, Moment::default(), &mut out);
        }
        out.clear();
    }
    let mut progress = Progress::More;
    for piece in bytes.chunks(step) {
        if progress == Progress::More {
            progress = parser.bytes(side, piece, 0, Moment::default(), &mut out);
        }
    }
    if !is_request {
        parser.end(Side::Server, Moment::default(), &mut out);
    }
    reading(&out, is_request && progress == Progress::NotMine)
}

fn reading(messages: &[Message], gave_up: bool) -> String {
    let (mut reading, mut refused) = (Reading::default(), gave_up);
    for message in messages {
        match message {
            Message::Request(request) => {
                let original = value(&request.attributes, "http.request.method_original");
                let method = original.or(value(&request.attributes, "http.request.method")).unwrap_or_default();
                let path = value(&request.attributes, "url.path").unwrap_or_default();
                let query = value(&request.attributes, "url.query").map(|query| format!("?{query}"));
                reading.request(&method, &(path + &query.unwrap_or_default()));
            }
            Message::Response(response) => {
                let status =
                    value(&response.attributes, "http.response.status_code").and_then(|code| code.parse().ok());
                match (status, response.outcome) {
                    (Some(status), Outcome::Broken(cause)) => {
                        reading.response(status, false);
                        refused |= cause == Cause::ProtocolError;
                    }
                    (Some(status), _) => reading.response(status, true),
                    (None, outcome) => refused |= outcome == Outcome::Broken(Cause::ProtocolError),
                }
            }
            Message::Lost(reason) | Message::Damaged(reason) => {
                refused |= matches!(reason, Reason::ProtocolError | Reason::OverBudget);
            }
        }
    }
    reading.finish(refused)
}

fn value(attributes: &[Attribute], key: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.to_string())
}
