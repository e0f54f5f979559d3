// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rust source as tokens and paths.
//!
//! In: the text of a file. Out: its tokens without tests, and every path named in them, `use` trees taken apart. It
//! resolves no names: `use std::fs` is what the rules look for, not what `fs::read` means after it.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item};

/// A path as written, such as `["crate", "event", "Event"]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NamedPath {
    pub(super) segments: Vec<String>,
    pub(super) line: usize,
    /// How many inline modules of the file it stands in: what `super` counts from.
    pub(super) depth: usize,
}

impl NamedPath {
    /// Whether the path contains `wanted` as consecutive segments.
    pub(super) fn contains(&self, wanted: &[&str]) -> bool {
        self.segments.windows(wanted.len()).any(|window| window.iter().zip(wanted).all(|(a, b)| a == b))
    }
}

/// The tokens of a file without its tests.
pub(super) fn tokens(text: &str) -> syn::Result<TokenStream> {
    let mut file = syn::parse_file(text)?;
    remove_tests(&mut file.items);
    Ok(file.into_token_stream())
}

/// Every path in `tokens`, in their order.
pub(super) fn paths(tokens: TokenStream) -> Vec<NamedPath> {
    let mut paths = Vec::new();
    collect(tokens, 0, &mut paths);
    paths
}

fn remove_tests(items: &mut Vec<Item>) {
    items.retain(|item| !attributes(item).iter().any(is_test_only));
    for item in items {
        if let Item::Mod(module) = item
            && let Some((_, content)) = &mut module.content
        {
            remove_tests(content);
        }
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`. Other conditions that mention tests, such as `any(test, …)`, are compiled outside tests too.
fn is_test_only(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.meta.require_list().is_ok_and(|list| list.tokens.to_string() == "test")
}

fn collect(tokens: TokenStream, depth: usize, paths: &mut Vec<NamedPath>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            // Everything in `mod name { … }` stands one module deeper.
            TokenTree::Ident(word) if word == "mod" && is_brace(tokens.get(at + 2)) => {
                if let Some(TokenTree::Group(body)) = tokens.get(at + 2) {
                    collect(body.stream(), depth + 1, paths);
                }
                at += 3;
            }
            TokenTree::Ident(_) => at = path(&tokens, at, &[], depth, paths),
            TokenTree::Group(group) => {
                collect(group.stream(), depth, paths);
                at += 1;
            }
            // A lifetime is no path, although `'static` holds a word.
            TokenTree::Punct(mark) if mark.as_char() == '\'' => at += 2,
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Reads the path that begins at `at`, behind `prefix`; returns where it ends.
fn path(tokens: &[TokenTree], mut at: usize, prefix: &[String], depth: usize, paths: &mut Vec<NamedPath>) -> usize {
    let mut segments = prefix.to_vec();
    let mut line = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => {
                segments.push(word.to_string());
                line = word.span().start().line;
                at += 1;
            }
            Some(TokenTree::Punct(mark)) if mark.as_char() == '*' && !segments.is_empty() => {
                segments.push("*".to_owned());
                line = mark.span().start().line;
                at += 1;
            }
            // `use a::{b, c::d}`: every branch is a path of its own.
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let branches: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in branches.split(|token| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',')) {
                    if !branch.is_empty() {
                        path(branch, 0, &segments, depth, paths);
                    }
                }
                return at + 1;
            }
            _ => break,
        }
        if !is_double_colon(tokens, at) {
            break;
        }
        at += 2;
    }
    if !segments.is_empty() {
        paths.push(NamedPath { segments, line, depth });
    }
    at
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(tokens.get(at)) && is_colon(tokens.get(at + 1))
}

fn is_brace(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace)
}

#[cfg(test)]
mod tests {
    use super::{paths, tokens};

    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        let found = paths(tokens(source).unwrap());
        let found: Vec<_> = found.iter().map(|path| path.segments.join("::")).collect();
        for path in expected {
            assert!(found.contains(&(*path).to_owned()), "{path} not in {found:?}");
        }
    }

    #[test]
    fn use_trees_are_taken_apart() {
        check(
            "use crate::{event::{Event, data}, time as t}; use std::fs::*;",
            &["crate::event::Event", "crate::event::data", "crate::time", "std::fs::*"],
        );
    }

    #[test]
    fn paths_in_types_expressions_and_macros_are_found() {
        check(
            "fn f(x: Vec<crate::a::A>) -> crate::b::B { println!(\"{}\", crate::c::d()); crate::e::E { x: crate::f::g } }",
            &["crate::a::A", "crate::b::B", "crate::c::d", "crate::f::g"],
        );
    }

    #[test]
    fn tests_and_comments_do_not_count() {
        let source = "//! crate::export\n/// [`crate::export`]\nfn f() {}\n#[cfg(test)] mod tests { use crate::export; }\n\
                      mod inner { #[cfg(test)] use crate::export; }";
        let found = paths(tokens(source).unwrap());
        assert!(found.iter().all(|path| !path.contains(&["crate", "export"])), "{found:?}");
    }

    #[test]
    fn a_path_knows_its_line_and_its_depth() {
        let found = paths(tokens("mod inner {\n    use super::x;\n}\nuse super::y;").unwrap());
        let found: Vec<_> = found.iter().filter(|path| path.segments[0] == "super").collect();
        assert_eq!((found[0].line, found[0].depth), (2, 1));
        assert_eq!((found[1].line, found[1].depth), (4, 0));
    }
}
