// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What spans and resources say is what `docs/attributes.md` says they do.
//!
//! In: that page, the agent's sources, and exchanges that make the parser say everything it can. Out: the claims that
//! they agree. It does not check values; `conventions.rs` knows what the conventions say.

#[path = "support/exchanges.rs"]
mod exchanges;
#[expect(dead_code, reason = "this test asks the page itself")]
#[path = "support/vocabulary.rs"]
mod vocabulary;

use std::{collections::BTreeSet, fs, path::PathBuf};

use exchanges::{exchanges, resource, type_of};
use spantap::attribute::Attribute;
use vocabulary::{TEMPLATE, page, templated};

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

// --- The page and the sources ---

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
                sources.push(text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_owned());
            }
        }
    }
    sources
}

fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
