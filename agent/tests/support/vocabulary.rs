// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What spans and resources may say: the tables of `docs/attributes.md`.
//!
//! In: names with their types, as any test got them out of the agent. Out: an objection to those that stand there
//! otherwise, or not at all. It does not know the conventions: `conventions.rs` holds the page to their published model, so
//! that whatever any test sees is held to it too.

use std::{collections::BTreeMap, sync::OnceLock};

/// A row of the page.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Documented {
    /// `SERVER`, `CLIENT`, `both` or `resource`.
    pub(crate) kind: String,
    /// `string`, `int`, `double` or `string[]`.
    pub(crate) described_as: String,
}

/// The rows by name. A name that ends with [`TEMPLATE`] stands for many.
pub(crate) fn page() -> &'static BTreeMap<String, Documented> {
    static PAGE: OnceLock<BTreeMap<String, Documented>> = OnceLock::new();
    PAGE.get_or_init(|| {
        let rows = include_str!("../../../docs/attributes.md").lines().filter_map(|line| line.strip_prefix("| `"));
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
    })
}

/// How the page writes the name of `key`, if it is one of many.
pub(crate) fn templated(key: &str) -> String {
    let many = ["http.request.header", "http.response.header"].into_iter().find(|many| key.starts_with(many));
    many.map_or(key.to_owned(), |many| format!("{many}{TEMPLATE}"))
}

/// What is wrong with an attribute `key` of the type `of` at a `kind`: `SERVER`, `CLIENT`, `link` or `resource`.
pub(crate) fn objection(kind: &str, key: &str, of: &str) -> Option<String> {
    let Some(row) = page().get(&templated(key)) else {
        // Processes declare what they like of themselves, and tests have rules that add to spans.
        let is_theirs = kind == "resource" && !key.starts_with("spantap.") || key == ADDED;
        return (!is_theirs).then(|| format!("{key} at a {kind} is not in docs/attributes.md"));
    };
    let is_place = match kind {
        "link" => key.starts_with("spantap.") && row.kind != "resource",
        "resource" => row.kind == kind,
        _ => row.kind == "both" || row.kind == kind,
    };
    let is_right = is_place && row.described_as == of;
    (!is_right).then(|| format!("{key} is a {of} at a {kind}; docs/attributes.md has {row:?}"))
}

/// The end of a name that stands for many.
pub(crate) const TEMPLATE: &str = ".<key>";

/// By a rule of a test.
const ADDED: &str = "team";
