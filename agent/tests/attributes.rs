// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What spans and resources say is what `docs/attributes.md` says they do.
//!
//! In: that page, the agent's sources, and exchanges that make the parser say everything it can. Out: the claims that
//! they agree. It does not check values.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use spantap::{
    attribute::{Attribute, Value},
    enrich::{HostFacts, process::Resources},
    event::{Unix, UnixName},
    process::{ProcessFacts, ProcessId, Runtime},
    protocol::{
        Link, Message, Parser, Side,
        disclosure::{Capture, Disclosure, Headers, Settings},
        http1::{Http1, SILENCE},
    },
    time::{Moment, Timestamp},
};
use spantap_common::{endpoint::Endpoint, event::unix::Named};

/// A row of the page.
#[derive(Debug, Eq, PartialEq)]
struct Documented {
    kind: String,
    described_as: String,
}

#[test]
fn the_page_lists_what_the_sources_name_and_nothing_else() {
    let page = page();
    let named = named_in_sources(&sources());
    let documented: BTreeSet<_> = page.keys().map(|key| constant_of(key)).collect();
    assert_eq!(documented, named, "left: docs/attributes.md, right: the sources");
}

#[test]
fn what_is_emitted_has_the_documented_type_at_the_documented_kind() {
    let page = page();
    let mut emitted = BTreeSet::new();
    for (kind, attributes) in exchanges().into_iter().chain([("resource", resource())]) {
        for Attribute { key, value } in attributes {
            let key = templated(&key);
            let row = page.get(&*key).unwrap_or_else(|| panic!("{key} is not documented"));
            assert!(row.kind == "both" || row.kind == kind, "{key} at a {kind}, documented for {}", row.kind);
            assert_eq!(row.described_as, type_of(&value), "{key}");
            emitted.insert(key);
        }
    }
    // Written by the stages behind the parser, whose own tests see them.
    let elsewhere = [
        "http.route",
        "process.owner",
        "spantap.context.source",
        "spantap.link.confidence",
        "spantap.link.method",
        "spantap.route.source",
    ];
    let silent: Vec<_> = page.keys().filter(|key| !emitted.contains(key.as_str())).collect();
    assert_eq!(silent, elsewhere, "documented, and not emitted by any of the exchanges");
}

#[test]
fn names_and_types_are_those_of_the_published_model() {
    let Some(model) = env::var_os("SPANTAP_SEMCONV_MODEL").map(PathBuf::from) else {
        println!("SKIPPED: SPANTAP_SEMCONV_MODEL does not name a checkout's folder `model`");
        return;
    };
    let published = published(&model);
    assert!(published.len() > 500, "no model in {}", model.display());
    for (key, row) in page().iter().filter(|(key, _)| !key.starts_with("spantap.")) {
        let described_as = match key.strip_suffix(TEMPLATE) {
            Some(_) => format!("template[{}]", row.described_as),
            None => row.described_as.clone(),
        };
        assert_eq!(published.get(key.trim_end_matches(TEMPLATE)), Some(&described_as), "{key}");
    }
}

// --- The page and the sources ---

fn page() -> BTreeMap<String, Documented> {
    let text = fs::read_to_string(manifest().join("../docs/attributes.md")).expect("docs/attributes.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let page: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.trim_end_matches(" |").split(" | ").collect();
            let [name, described_as, kind, when] = cells[..] else { panic!("a row has four cells: {row}") };
            assert!(!when.is_empty(), "a row says when: {row}");
            let name = name.trim_end_matches('`').to_owned();
            (name, Documented { kind: kind.to_owned(), described_as: described_as.to_owned() })
        })
        .collect();
    assert!(page.len() > 30, "the tables were not found");
    page
}

/// How the page writes the name of `key`, if it is one of many.
fn templated(key: &str) -> String {
    let many = ["http.request.header", "http.response.header"].into_iter().find(|many| key.starts_with(many));
    many.map_or(key.to_owned(), |many| format!("{many}{TEMPLATE}"))
}

/// The end of a name that stands for many.
const TEMPLATE: &str = ".<key>";

/// The name of the constant for `key` in the conventions' crate.
fn constant_of(key: &str) -> String {
    // A template stands for any number of names: `http.request.header.<key>`.
    key.trim_end_matches(TEMPLATE).replace('.', "_").to_uppercase()
}

/// Constants of the conventions, and keys of our own, that the sources name.
fn named_in_sources(sources: &[String]) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        words.filter(|word| word.len() > 1 && word.to_uppercase() == *word).map(str::to_owned).collect()
    };
    for source in sources {
        for (at, _) in source.match_indices("opentelemetry_semantic_conventions::attribute::") {
            let import = &source[at..];
            named.extend(words(import.split(';').next().unwrap_or_default()));
        }
        for (at, found) in source.match_indices("semconv::") {
            let name: String =
                source[at + found.len()..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            named.extend((!name.is_empty()).then_some(name));
        }
        for (at, _) in source.match_indices("\"spantap.") {
            named.extend(source[at + 1..].split('"').next().map(constant_of));
        }
    }
    named
}

/// What can emit: everything but what shows spans, and without tests.
fn sources() -> Vec<String> {
    let mut folders = vec![manifest().join("src")];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources") {
            let path = entry.expect("the sources").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.extend((name != "live").then_some(path));
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&path).expect("the sources");
                sources.push(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned());
            }
        }
    }
    sources
}

/// By name, the types of the conventions' attributes. The model is YAML; this reads the two of its lines that matter.
fn published(model: &Path) -> BTreeMap<String, String> {
    let mut published = BTreeMap::new();
    let mut folders = vec![model.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable model") {
            let path = entry.expect("a readable model").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut name = None;
            for line in fs::read_to_string(&path).unwrap_or_default().lines() {
                let line = line.trim();
                if let Some(id) = line.strip_prefix("- id: ").or(line.strip_prefix("- key: ")) {
                    name = Some(id.trim().to_owned());
                } else if let Some(described_as) = line.strip_prefix("type:") {
                    // An enumeration's type is the list of its members, which are texts here.
                    let described_as = if described_as.trim().is_empty() { "string" } else { described_as.trim() };
                    if let Some(name) = name.take() {
                        published.entry(name).or_insert(described_as.to_owned());
                    }
                }
            }
        }
    }
    published
}

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

// --- Exchanges and a process that say everything ---

fn exchanges() -> Vec<(&'static str, Vec<Attribute>)> {
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
    let mut parser = Http1::telling(link, disclosure());
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
fn disclosure() -> Arc<Disclosure> {
    let tenant = || vec!["x-tenant".to_owned()];
    let headers = || Headers { request_headers: tenant(), response_headers: tenant() };
    let capture = Capture { server: headers(), client: headers(), body_sizes: true };
    Arc::new(Disclosure::new(&Settings { capture, ..Settings::default() }).expect("good settings"))
}

fn resource() -> Vec<Attribute> {
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

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Static(_) | Value::Text(_) | Value::Shared(_) => "string",
        Value::Int(_) => "int",
        Value::Share(_) => "double",
        Value::Texts(_) => "string[]",
    }
}
