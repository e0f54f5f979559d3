// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What spans tell of heads and bodies when an operator asks for it, and what they hide.
//!
//! In: exchanges and settings. Out: the attributes in question. Framing and times are the business of the other tests.

use super::*;
use crate::protocol::disclosure::{Capture, Disclosure, Headers, Redact, Settings};

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// The attributes of one exchange that begin with one of `prefixes`, those of the request first, a line each.
fn told(settings: &Settings, role: Side, parts: &[(Side, &str)], prefixes: &[&str]) -> Vec<String> {
    let disclosure = Disclosure::new(settings).expect("good settings");
    let mut parser = Http1::with(link(role), Arc::new(Common::new(disclosure)));
    let (mut out, mut positions) = (Vec::new(), [0_u32; 2]);
    for (side, part) in parts {
        let position = &mut positions[*side as usize];
        parser.bytes(*side, part.as_bytes(), *position, Moment::default(), &mut out);
        *position += length(part.as_bytes());
    }
    let attributes = out.into_iter().flat_map(|message| match message {
        Message::Request(request) => request.attributes,
        Message::Response(response) => response.attributes.into_vec(),
        Message::Lost(_) | Message::Damaged(_) => Vec::new(),
    });
    let asked = attributes.filter(|attribute| prefixes.iter().any(|prefix| attribute.key.starts_with(prefix)));
    asked.map(|Attribute { key, value }| format!("{key}={}", shown(&value))).collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Texts(texts) => format!("{texts:?}"),
        other => other.to_string(),
    }
}

#[test]
fn header_fields_are_told_if_they_are_asked_for() {
    let headers = Headers {
        request_headers: list(&["X-Tenant", "accept", "referer", "authorization", "x-none"]),
        response_headers: list(&["X-Cache", "set-cookie"]),
        ..Headers::default()
    };
    let capture = Capture { server: headers, ..Capture::default() };
    let redact = Redact { emails: true, ..Redact::default() };
    let settings = Settings { capture, redact };
    let request = "GET / HTTP/1.1\r\nHost: a\r\nx-tenant: 7 \r\nAccept: a, b\r\nX-Other: no\r\nACCEPT: c <a@b.org>\r\n\
                   Authorization: Basic dTpw\r\nReferer: https://u:p@shop/x?sig=1\r\n\r\n";
    let response = "HTTP/1.1 103 Early Hints\r\nX-Cache: EARLY\r\n\r\nHTTP/1.1 200 OK\r\nX-Cache: HIT\r\n\
                    Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n";
    let parts = [(Side::Client, request), (Side::Server, response)];
    assert_eq!(
        told(&settings, Side::Server, &parts, &["http.request.header", "http.response.header"]),
        [
            r#"http.request.header.x-tenant=["7"]"#,
            r#"http.request.header.accept=["a, b", "c <REDACTED>"]"#,
            r#"http.request.header.referer=["https://REDACTED:REDACTED@shop/x?sig=REDACTED"]"#,
            r#"http.request.header.authorization=["REDACTED"]"#,
            r#"http.response.header.x-cache=["HIT"]"#,
            r#"http.response.header.set-cookie=["REDACTED", "REDACTED"]"#,
        ]
    );
    assert_eq!(told(&settings, Side::Client, &parts, &["http.request.header", "http.response.header"]), [""; 0]);
}

#[test]
fn what_is_too_long_is_cut_and_counted() {
    let headers = Headers { request_headers: list(&["x-a", "x-b"]), ..Headers::default() };
    let settings = Settings { capture: Capture { client: headers, ..Capture::default() }, ..Settings::default() };
    let of_a: String = (0..9).map(|_| format!("X-A: {}é\r\n", "a".repeat(1023))).collect();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{of_a}X-B: bb\r\n\r\n");
    let lines =
        told(&settings, Side::Client, &[(Side::Client, &request)], &["http.request.header", "spantap.headers.cut"]);
    let lengths: Vec<_> = lines[0].split(", ").map(|value| value.matches('a').count()).collect();
    // The é does not fit whole. Eight bytes are left for the ninth.
    let of_key = "http.request.header.x-a".matches('a').count();
    assert_eq!(lengths, [1023 + of_key, 1023, 1023, 1023, 1023, 1023, 1023, 1023, 8]);
    assert_eq!(lines[1], r#"http.request.header.x-b=[""]"#);
    assert_eq!(lines[2].split_once('='), Some(("spantap.headers.cut", "10")));
}

#[test]
fn the_operators_secrets_stay_here() {
    let redact = Redact {
        query: list(&["pin"]),
        paths: list(&["/reset/{token}"]),
        emails: true,
        card_numbers: true,
        ..Redact::default()
    };
    let settings = Settings { redact, ..Settings::default() };
    let request = "GET /reset/abc?pin=1&mail=a%40b.org&n=4111-1111-1111-1111&x=2 HTTP/1.1\r\nHost: shop\r\n\
                   User-Agent: bot (bob@example.com)\r\n\r\n";
    let parts = [(Side::Client, request)];
    assert_eq!(
        told(&settings, Side::Server, &parts, &["url.path", "url.query", "user_agent"]),
        [
            "url.path=/reset/REDACTED",
            "url.query=pin=REDACTED&mail=REDACTED&n=REDACTED&x=2",
            "user_agent.original=bot (REDACTED)",
        ]
    );
    assert_eq!(
        told(&settings, Side::Client, &parts, &["url.full"]),
        ["url.full=http://shop/reset/REDACTED?pin=REDACTED&mail=REDACTED&n=REDACTED&x=2"]
    );
}

#[test]
fn sizes_of_bodies_are_told_where_all_of_them_was_seen() {
    const SIZED: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &str =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\n\r\n";
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    const IN_CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n";
    let settings = Settings { capture: Capture { body_sizes: true, ..Capture::default() }, ..Settings::default() };
    for (request, response, expected) in [
        (SIZED, OK, &["http.request.body.size=5", "http.response.body.size=2"][..]),
        (CHUNKED, IN_CHUNKS, &["http.request.body.size=8", "http.response.body.size=4"]),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", &["http.request.body.size=0", "http.response.body.size=0"]),
        // What would have been sent was not.
        (
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            &["http.request.body.size=0", "http.response.body.size=0"],
        ),
        // The answer did not wait for the rest of the question.
        (&SIZED[..SIZED.len() - 1], OK, &["http.response.body.size=2"]),
    ] {
        let parts = [(Side::Client, request), (Side::Server, response)];
        let sizes = told(&settings, Side::Server, &parts, &["http.request.body", "http.response.body"]);
        assert_eq!(sizes, expected, "{request:?} {response:?}");
        let unasked = told(&Settings::default(), Side::Server, &parts, &["http.request.body", "http.response.body"]);
        assert_eq!(unasked, [""; 0]);
    }
}

#[test]
fn methods_have_the_names_that_an_operator_knows() {
    let known = |server: &[&str]| Settings {
        capture: Capture {
            server: Headers {
                known_methods: server.iter().map(|name| (*name).to_owned()).collect(),
                ..Headers::default()
            },
            ..Capture::default()
        },
        ..Settings::default()
    };
    let other =
        |name: &str| vec!["http.request.method=_OTHER".to_owned(), format!("http.request.method_original={name}")];
    for (methods, method, expected) in [
        (&[][..], "GET", vec!["http.request.method=GET".to_owned()]),
        (&[], "PURGE", other("PURGE")),
        (&["PURGE"], "PURGE", vec!["http.request.method=PURGE".to_owned()]),
        // A list takes the place of the conventions' methods, and their case matters.
        (&["PURGE"], "GET", other("GET")),
        (&["PURGE", "GET"], "GET", vec!["http.request.method=GET".to_owned()]),
        (&["purge"], "PURGE", other("PURGE")),
    ] {
        let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
        let parts = [(Side::Client, &*request), (Side::Server, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")];
        assert_eq!(
            told(&known(methods), Side::Server, &parts, &["http.request.method"]),
            expected,
            "{methods:?} {method}"
        );
        // Of the other side nothing was said.
        let usual = told(&Settings::default(), Side::Client, &parts, &["http.request.method"]);
        assert_eq!(told(&known(methods), Side::Client, &parts, &["http.request.method"]), usual);
    }
}
