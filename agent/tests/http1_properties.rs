// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What holds for the HTTP/1 parser whatever it is given.
//!
//! In: random dialogues and random bytes. Out: claims about the messages. It does not look at single cases; those stand
//! beside the parser.

use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
    sample::{Index, select},
};
use spantap::{
    attribute::Attribute,
    context::{TraceContext, fuzz_traceparent},
    protocol::{
        Link, Message, Parser, Progress, Side,
        http1::{Http1, fuzz_http1},
    },
    time::{Moment, Timestamp},
};
use spantap_common::{abi::HEADER_BUDGET, endpoint::Endpoint};

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cutting_the_input_anywhere_gives_the_same_messages(
        exchanges in vec(exchange(), 1..6),
        pipelined in any::<bool>(),
        cuts in vec(any::<Index>(), 0..40),
    ) {
        let turns = turns(&exchanges, pipelined);
        let (whole, _) = said(&turns, &[]);
        let (pieces, progress) = said(&turns, &cuts);
        prop_assert_eq!(&pieces, &whole);
        prop_assert_eq!(progress, Progress::More);

        let count = |wanted: fn(&Message) -> bool| whole.iter().filter(|message| wanted(message)).count();
        prop_assert_eq!(count(|message| matches!(message, Message::Request(_))), exchanges.len());
        prop_assert_eq!(count(|message| matches!(message, Message::Response(_))), exchanges.len());
        prop_assert_eq!(count(|message| matches!(message, Message::Lost(_))), 0);
    }

    #[test]
    fn cutting_anything_at_all_gives_the_same_messages(
        turns in vec((side(), fragments()), 1..8),
        cuts in vec(any::<Index>(), 0..20),
    ) {
        prop_assert_eq!(said(&turns, &cuts), said(&turns, &[]));
    }

    #[test]
    fn no_bytes_and_no_gaps_break_an_invariant(data in vec(any::<u8>(), 0..2048)) {
        fuzz_http1(&data);
        fuzz_traceparent(&data);
    }

    #[test]
    fn no_dialogue_with_gaps_breaks_an_invariant(events in vec((any::<u8>(), fragments()), 0..40)) {
        let events = events.iter().flat_map(|(op, text)| {
            let text = &text[..text.len().min(255)];
            [*op, u8::try_from(text.len()).unwrap_or(u8::MAX)].into_iter().chain(text.iter().copied())
        });
        fuzz_http1(&events.collect::<Vec<u8>>());
    }

    #[test]
    fn losing_records_never_moves_an_answer_to_another_request(
        calls in vec(call(), 1..12),
        losses in vec(0..4_u8, 80),
        prompt in any::<bool>(),
    ) {
        let heard = heard(&calls, prompt, &losses);
        let mut asked = heard.messages.iter().filter_map(|message| match message {
            Message::Request(request) => text(&request.attributes, "url.path"),
            _ => None,
        });
        let mut answered = Vec::new();
        for message in &heard.messages {
            let Message::Response(response) = message else { continue };
            let path = asked.next().expect("a response answers a request");
            if let Some(status) = text(&response.attributes, "http.response.status_code") {
                prop_assert_eq!(path, format!("/{status}"), "{:?}", heard.messages);
                answered.push(status);
            }
        }
        // A loss that comes out at once costs nobody but those who were hit.
        if prompt {
            for status in &heard.unharmed {
                prop_assert!(answered.contains(&status.to_string()), "{status}: {:?}", heard.messages);
            }
        }
    }

    #[test]
    fn losing_nothing_answers_everything(calls in vec(call(), 1..12), prompt in any::<bool>()) {
        let heard = heard(&calls, prompt, &[1]);
        prop_assert_eq!(heard.messages.len(), 2 * calls.len());
        prop_assert_eq!(heard.unharmed.len(), calls.len());
    }

    #[test]
    fn an_endless_head_is_held_up_to_its_budget(piece in 1..9000_usize, side in side()) {
        let mut parser = Http1::new(link());
        let mut out = Vec::new();
        parser.bytes(Side::Client, b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n", 0, Moment::default(), &mut out);
        parser.bytes(Side::Server, b"HTTP/1.1 200 OK\r\n", 0, Moment::default(), &mut out);
        for _ in 0..3 * HEADER_BUDGET / piece {
            parser.bytes(side, &vec![b'x'; piece], 0, Moment::default(), &mut out);
            prop_assert!(parser.held() <= 2 * HEADER_BUDGET);
        }
    }

    #[test]
    fn what_is_written_is_read(trace in any::<[u8; 16]>(), parent in any::<[u8; 8]>(), flags in any::<u8>()) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let header = format!("00-{}-{}-{flags:02x}", hex(&trace), hex(&parent));
        let context = TraceContext::parse([header.as_bytes()], []);
        let valid = trace != [0; 16] && parent != [0; 8];
        prop_assert_eq!(context.is_some(), valid);
        if let Some(context) = context {
            prop_assert_eq!((context.trace.0, context.parent.0, context.flags.0), (trace, parent, flags & 0x03));
        }
    }
}

/// A request and its response, as they cross the wire.
#[derive(Clone, Debug)]
struct Exchange {
    request: Vec<u8>,
    response: Vec<u8>,
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = select(vec!["GET", "HEAD", "POST", "QUERY", "PROPFIND"]);
    let status = select(vec![200, 204, 302, 304, 404, 500, 503]);
    let interim = select(vec!["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"]);
    (method, status, interim, padding(), padding(), body(), body(), any::<bool>()).prop_map(
        |(method, status, interim, above, below, sent, answered, bodiless)| {
            let (sent_fields, sent) = if bodiless { (String::new(), Vec::new()) } else { sent };
            let (fields, answered) = answered;
            let has_body = method != "HEAD" && !matches!(status, 204 | 304);
            let request = format!("{method} /{above} HTTP/1.1\r\nHost: a\r\nX: {below}\r\n{sent_fields}\r\n");
            let response = format!("{interim}HTTP/1.1 {status} X\r\nX: {below}\r\n{fields}\r\n");
            Exchange {
                request: [request.as_bytes(), &sent].concat(),
                response: [response.as_bytes(), if has_body { &answered } else { &[] }].concat(),
            }
        },
    )
}

/// Fields and body of a delimited message.
fn body() -> impl Strategy<Value = (String, Vec<u8>)> {
    let counted = content().prop_map(|body| (format!("Content-Length: {}\r\n", body.len()), body));
    let chunk = (content(), select(vec!["", ";a", ";a=\"b\"", " "]));
    let trailer = select(vec!["", "T: 1\r\n", "T: GET / HTTP/1.1\r\n"]);
    let chunked = (vec(chunk, 0..4), trailer).prop_map(|(chunks, trailer)| {
        let mut body = Vec::new();
        for (data, extension) in chunks.iter().filter(|(data, _)| !data.is_empty()) {
            body.extend_from_slice(format!("{:X}{extension}\r\n", data.len()).as_bytes());
            body.extend_from_slice(data);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
        ("Transfer-Encoding: chunked\r\n".to_owned(), body)
    });
    prop_oneof![counted, chunked]
}

/// Bodies that look like what they are not.
fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n".to_vec()),
        vec(any::<u8>(), 0..300),
    ]
}

fn padding() -> impl Strategy<Value = String> {
    prop_oneof![Just(0_usize), 1..40_usize, 4000..9000_usize].prop_map(|length| "p".repeat(length))
}

/// Pieces of HTTP/1 in no good order.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = select(vec![
        "GET / HTTP/1.1\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
        "HEAD /b HTTP/1.0\r\n\r\n",
        "CONNECT c:1 HTTP/1.1\r\n\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 X\r\n\r\n",
        "HTTP/1.1 100 X\r\n\r\n",
        "HTTP/1.1 101 X\r\n\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: x\r\n",
        "Transfer-Encoding: chunked\r\n",
        " folded\r\n",
        "\r\n",
        "\n",
        "5\r\nabcde\r\n",
        "0\r\n\r\n",
        "abcde",
        "\0",
    ]);
    vec(fragment, 0..8).prop_map(|fragments| fragments.concat().into_bytes())
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Client), Just(Side::Server)]
}

/// An exchange as records: what the request's calls carried, then the response's.
fn call() -> impl Strategy<Value = (usize, usize, u8)> {
    (0..4_usize, 1..4_usize, 0..4_u8)
}

/// What came of a dialogue some of whose records were lost.
#[derive(Debug, Default)]
struct Heard {
    messages: Vec<Message>,
    /// The exchanges that lost no record.
    unharmed: Vec<u16>,
}

/// A client that waits for each answer before it asks again, where `losses` say with a 0 which records do not arrive. The
/// n-th request is for `/<n>`, and its answer has the status n. A loss comes out with the next record of its side, or
/// `prompt`ly with the next one of either.
fn heard(calls: &[(usize, usize, u8)], prompt: bool, losses: &[u8]) -> Heard {
    let mut parser = Http1::new(link());
    let mut heard = Heard::default();
    let out = &mut heard.messages;
    let mut losses = losses.iter().cycle();
    let mut missing = [0_u64; 2];
    let mut now = 0;
    for (status, (sent, answered, kind)) in (200..).filter(|status| *status != 204).zip(calls) {
        let chunked = |pieces: &usize| (0..*pieces).map(|_| b"4\r\nbody\r\n".to_vec());
        let mut request = vec![format!("POST /{status} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes()];
        request.extend(chunked(sent));
        request.push(b"0\r\n\r\n".to_vec());
        let fields = match kind {
            0 => "Content-Length: 0",
            1 => "Content-Length: 40",
            _ => "Transfer-Encoding: chunked",
        };
        let mut response = vec![format!("HTTP/1.1 {status} X\r\n{fields}\r\n\r\n").into_bytes()];
        match kind {
            0 => {}
            1 => response.extend(vec![b"0123456789".to_vec(); 4]),
            _ => {
                response.extend(chunked(answered));
                response.push(b"0\r\n\r\n".to_vec());
            }
        }
        let records = request.iter().map(|record| (Side::Client, record));
        let mut harmed = false;
        for (side, record) in records.chain(response.iter().map(|record| (Side::Server, record))) {
            now += 1;
            let at = Moment { at: Timestamp(now), ..Moment::default() };
            if losses.next() == Some(&0) {
                harmed = true;
                missing[side as usize] += record.len() as u64;
                continue;
            }
            for gap in [side.opposite(), side].into_iter().filter(|gap| prompt || *gap == side) {
                let bytes = std::mem::take(&mut missing[gap as usize]);
                if bytes > 0 && parser.gap(gap, bytes, &[], at, out) == Progress::NotMine {
                    return heard;
                }
            }
            if parser.bytes(side, record, 0, at, out) == Progress::NotMine {
                return heard;
            }
        }
        heard.unharmed.extend((!harmed).then_some(status));
    }
    heard
}

fn text(attributes: &[Attribute], key: &str) -> Option<String> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.to_string())
}

/// Who says what, in which order.
fn turns(exchanges: &[Exchange], pipelined: bool) -> Vec<(Side, Vec<u8>)> {
    let requests = exchanges.iter().map(|exchange| (Side::Client, exchange.request.clone()));
    let responses = exchanges.iter().map(|exchange| (Side::Server, exchange.response.clone()));
    if pipelined {
        requests.chain(responses).collect()
    } else {
        requests.zip(responses).flat_map(<[_; 2]>::from).collect()
    }
}

/// The messages of a dialogue whose turns are cut where `cuts` say, and whether the parser wants more. A turn happens at
/// one moment, however often it is cut.
fn said(turns: &[(Side, Vec<u8>)], cuts: &[Index]) -> (Vec<Message>, Progress) {
    let mut parser = Http1::new(link());
    let mut out = Vec::new();
    let mut progress = Progress::More;
    let mut positions = [0_u32; 2];
    for (turn, (side, bytes)) in turns.iter().enumerate() {
        let at = Moment { at: Timestamp(turn as u64), ..Moment::default() };
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut start = 0;
        for end in ends {
            let position = &mut positions[*side as usize];
            if progress == Progress::More {
                progress = parser.bytes(*side, &bytes[start..end], *position, at, &mut out);
            }
            *position = position.wrapping_add(u32::try_from(end - start).expect("small"));
            start = end;
        }
    }
    parser.closed(Moment { at: Timestamp(turns.len() as u64), ..Moment::default() }, &mut out);
    (out, progress)
}

fn link() -> Link {
    Link {
        role: Side::Server,
        local: Endpoint::v4([10, 0, 0, 1], 80),
        peer: Endpoint::v4([10, 0, 0, 2], 40000),
        unix: None,
    }
}
