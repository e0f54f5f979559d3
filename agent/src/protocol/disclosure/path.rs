// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Parts of paths that are to be hidden.
//!
//! In: patterns, and a path as it was sent. Out: the path with the parts that a pattern names replaced. Parts are compared
//! without percent-encoding, and empty ones are passed over, as most servers do both. It resolves no `..`.

use percent_encoding::percent_decode_str;

use super::REDACTED;

/// `/reset/{token}`: which parts of a path are hidden, if the others are as they stand here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PathPattern(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Word(String),
    /// `*`: anything, which is left.
    Any,
    /// `{name}`.
    Hidden,
    /// `{*name}`: this part and all behind it.
    Rest,
}

impl PathPattern {
    /// Nothing if `text` is no pattern, or hides nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        for part in text.trim().strip_prefix('/')?.split('/').filter(|part| !part.is_empty()) {
            if parts.last() == Some(&Part::Rest) {
                return None;
            }
            let name = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
            parts.push(match (part, name) {
                ("*", _) => Part::Any,
                (_, Some(name)) if name.starts_with('*') => Part::Rest,
                (_, Some(name)) if !name.is_empty() && !name.contains(['{', '}', '*']) => Part::Hidden,
                (word, None) if !word.contains(['{', '}', '*']) => Part::Word(word.to_owned()),
                _ => return None,
            });
        }
        let hides = parts.iter().any(|part| matches!(part, Part::Hidden | Part::Rest));
        hides.then_some(Self(parts))
    }

    /// Whether it is for a path of these `parts`; those it hides are noted.
    fn note(&self, parts: &[&str], hidden: &mut [bool]) {
        let rest = self.0.last() == Some(&Part::Rest);
        let fits = if rest { parts.len() >= self.0.len() } else { parts.len() == self.0.len() };
        let mut pairs = self.0.iter().zip(parts);
        if !fits
            || !pairs
                .all(|(part, text)| !matches!(part, Part::Word(word) if !percent_decode_str(text).eq(word.bytes())))
        {
            return;
        }
        for (index, hidden) in hidden.iter_mut().enumerate() {
            // Behind the last part there is nothing, or the rest.
            *hidden |= matches!(self.0.get(index), Some(Part::Hidden | Part::Rest) | None);
        }
    }
}

/// `path` with what `patterns` hide replaced, if that is anything.
pub(super) fn hide(patterns: &[PathPattern], path: &str) -> Option<String> {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut hidden = vec![false; parts.len()];
    patterns.iter().for_each(|pattern| pattern.note(&parts, &mut hidden));
    if !hidden.contains(&true) {
        return None;
    }
    let mut hidden = hidden.into_iter();
    let parts = path.split('/').map(|part| {
        let hide = !part.is_empty() && hidden.next() == Some(true);
        if hide { REDACTED } else { part }
    });
    Some(parts.collect::<Vec<_>>().join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_parts_are_hidden_where_the_others_fit() {
        for (patterns, path, expected) in [
            (&["/reset/{token}"][..], "/reset/abc", Some("/reset/REDACTED")),
            (&["/reset/{token}"], "/reset/abc/", Some("/reset/REDACTED/")),
            (&["/reset/{token}"], "//reset///abc", Some("//reset///REDACTED")),
            (&["/reset/{token}"], "/%72eset/abc", Some("/%72eset/REDACTED")),
            (&["/reset/{token}"], "/reset", None),
            (&["/reset/{token}"], "/reset/a/b", None),
            (&["/reset/{token}"], "/Reset/a", None),
            (&["/u/*/key/{k}"], "/u/7/key/x", Some("/u/7/key/REDACTED")),
            (&["/u/{id}/key/*"], "/u/7/key/x", Some("/u/REDACTED/key/x")),
            (&["/files/{*rest}"], "/files/a/b/c", Some("/files/REDACTED/REDACTED/REDACTED")),
            (&["/files/{*rest}"], "/files/", None),
            (&["/{*all}"], "/a", Some("/REDACTED")),
            (&["/a/{x}/*", "/a/*/{y}"], "/a/1/2", Some("/a/REDACTED/REDACTED")),
            (&["/a/{x}"], "*", None),
            (&["/a/{x}"], "", None),
        ] {
            let patterns: Vec<_> = patterns.iter().map(|text| PathPattern::parse(text).expect("a pattern")).collect();
            assert_eq!(hide(&patterns, path).as_deref(), expected, "{path}");
        }
    }
}
