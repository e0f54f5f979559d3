// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Exchanges and a process that make the agent say everything it can.
//!
//! In: nothing. Out: the attributes of spans, by their kind, and of a resource. What later stages add is not among them.

use std::sync::Arc;

use spantap::{
    attribute::{Attribute, Value},
    enrich::{HostFacts, process::Resources},
    event::{Unix, UnixName},
    process::{ProcessFacts, ProcessId, Runtime},
    protocol::{
        Link, Message, Parser, Side,
        common::Common,
        disclosure::{Capture, Disclosure, Headers, Settings},
        http1::{Http1, SILENCE},
    },
    time::{Moment, Timestamp},
};
use spantap_common::{endpoint::Endpoint, event::unix::Named};

pub(crate) fn exchanges() -> Vec<(&'static str, Vec<Attribute>)> {
    const RICH: &str = "PURGE /a?b=c HTTP/1.1\r\nHost: shop:8080\r\nUser-Agent: x\r\nX-Forwarded-For: 1.2.3.4\r\nb3: d\r\nX-Tenant: 7\r\n\r\n";
    const PLAIN: &str = "GET / HTTP/1.0\r\n\r\n";
    const TUNNEL: &str = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    let mut all = Vec::new();
    for (role, kind) in [(Side::Server, "SERVER"), (Side::Client, "CLIENT")] {
        for request in [RICH, PLAIN, TUNNEL] {
            for response in
                ["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"]
            {
                all.push((kind, said(role, request, response, 0)));
            }
        }
        let long = format!("HTTP/1.1 200 OK\r\nX-Tenant: {}\r\nContent-Length: 0\r\n\r\n", "7".repeat(2000));
        all.push((kind, said(role, RICH, &long, 0)));
        // A response whose end is hidden.
        all.push((kind, said(role, PLAIN, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 100)));
        let named = if role == Side::Server { Named::Local } else { Named::Peer };
        let name = UnixName::new(b"/run/shop.sock").expect("a name");
        let (local, peer) = (Endpoint::unix(1), Endpoint::unix(2));
        let link = Link { role, local, peer, unix: Some(Unix { peer_pid: 7, name: Some((named, name)) }) };
        all.push((kind, said_over(link, RICH, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0)));
    }
    all
}

/// The attributes of a request and of its response, after which `missing` bytes were lost, and silence.
fn said(role: Side, request: &str, response: &str, missing: u64) -> Vec<Attribute> {
    let (local, peer) = (Endpoint::v4([10, 0, 0, 1], 80), Endpoint::v4([10, 0, 0, 2], 40_000));
    said_over(Link { role, local, peer, unix: None }, request, response, missing)
}

fn said_over(link: Link, request: &str, response: &str, missing: u64) -> Vec<Attribute> {
    let mut parser = Http1::with(link, common());
    let (mut out, at) = (Vec::new(), Moment::default());
    parser.bytes(Side::Client, request.as_bytes(), 0, at, &mut out);
    parser.bytes(Side::Server, response.as_bytes(), 0, at, &mut out);
    if missing > 0 {
        parser.gap(Side::Server, missing, &[], at, &mut out);
        parser.tick(Timestamp::default().plus(SILENCE), &mut out);
    }
    let (requests, responses) = out.iter().fold((0, 0), |(requests, responses), message| match message {
        Message::Request(_) => (requests + 1, responses),
        Message::Response(_) => (requests, responses + 1),
        Message::Lost(_) | Message::Damaged(_) => (requests, responses),
    });
    assert_eq!((requests, responses), (1, 1), "an exchange: {out:?}");
    let attributes = out.into_iter().map(|message| match message {
        Message::Request(request) => request.attributes,
        Message::Response(response) => response.attributes.into_vec(),
        Message::Lost(_) | Message::Damaged(_) => Vec::new(),
    });
    attributes.flatten().collect()
}

/// Tells everything.
fn common() -> Arc<Common> {
    let tenant = || vec!["x-tenant".to_owned()];
    let headers = || Headers { request_headers: tenant(), response_headers: tenant(), ..Headers::default() };
    let capture = Capture { server: headers(), client: headers(), body_sizes: true };
    Arc::new(Common::new(Disclosure::new(&Settings { capture, ..Settings::default() }).expect("good settings")))
}

pub(crate) fn resource() -> Vec<Attribute> {
    let text = str::to_owned;
    let host = HostFacts { name: text("shop-1"), id: text("0123"), arch: text("amd64"), booted: 1 };
    let mut resources = Resources::new(host);
    let facts = ProcessFacts {
        id: ProcessId { pid: 7, started: 1 },
        command: text("shop"),
        executable: text("/usr/bin/shop"),
        cgroup: format!("/system.slice/docker-{}.scope", "a".repeat(64)),
        owner: Some(text("www")),
        runtime: Runtime::Python,
        ..ProcessFacts::default()
    };
    resources.learn(&facts, Timestamp::default());
    resources.resource(7, Timestamp::default()).attributes.clone()
}

pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Static(_) | Value::Text(_) | Value::Shared(_) => "string",
        Value::Int(_) => "int",
        Value::Share(_) => "double",
        Value::Texts(_) => "string[]",
    }
}
