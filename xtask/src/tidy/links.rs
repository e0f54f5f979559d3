// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: links between our documents lead somewhere, down to the heading.
//!
//! In: all Markdown files. Out: a finding for each relative link whose file or anchor is not there. Links to the web
//! are not followed: tidy needs no network.

use std::collections::{BTreeSet, HashMap};

use super::{Finding, TextFile};
use crate::command::root;

fn findings(files: &[TextFile], exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let headings: HashMap<&str, BTreeSet<String>> =
        files.iter().map(|file| (file.path.as_str(), anchors(&file.text))).collect();
    let mut found = Vec::new();
    for file in files {
        for (line, target) in links(&file.text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').map_or((target.as_str(), None), |(p, a)| (p, Some(a)));
            let path = if path.is_empty() { file.path.clone() } else { resolve(&file.path, path) };
            let what = if !exists(&path) {
                format!("the link {target} leads to {path}, which is not there")
            } else if let (Some(anchor), Some(headings)) = (anchor, headings.get(path.as_str()))
                && !headings.contains(anchor)
            {
                format!("{path} has no heading for #{anchor}, but {headings:?}")
            } else {
                continue;
            };
            found.push(Finding { file: file.path.clone(), line, what });
        }
    }
    found
}

/// The targets of links and images in `text`, with their lines; code is not looked at.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        // A reference definition: `[name]: target`.
        if let Some((name, target)) = line.trim_start().split_once("]: ")
            && name.starts_with('[')
        {
            found.extend(target.split_whitespace().next().map(|target| (number, target.to_owned())));
        }
        let mut rest = line.as_str();
        while let Some(at) = rest.find("](") {
            rest = &rest[at + 2..];
            // A title may follow the target: `[text](target "title")`.
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
    }
    found
}

/// The anchors that GitHub gives the headings of `text`: lower case, blanks as dashes, other marks dropped, a number
/// behind repeated ones.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(text) {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if level == 0 || level > 6 || !title.starts_with(' ') {
            continue;
        }
        let title = title.trim().to_lowercase().replace(' ', "-");
        let anchor: String = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect();
        let repeated = seen.entry(anchor.clone()).or_default();
        anchors.insert(if *repeated == 0 { anchor } else { format!("{anchor}-{repeated}") });
        *repeated += 1;
    }
    anchors
}

/// Lines outside fenced code, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
            return None;
        }
        (!in_code).then_some((at + 1, line))
    })
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// `target` as written in the file `from`, from the repository's root.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::{anchors, findings, links, resolve, root};
    use crate::tidy::{TextFile, assert_tidy, files};

    #[test]
    fn every_link_between_documents_leads_somewhere() {
        assert_tidy(&findings(&files("", &[".md"]), |path| root().join(path).exists()));
    }

    #[test]
    fn a_missing_file_or_heading_is_found() {
        let page = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let pages = [
            page("README.md", "[map](agent/MAP.md#the-map)\n[gone](GONE.md)\n[no heading](agent/MAP.md#rooms)\n"),
            page("agent/MAP.md", "# The map\n[up](../README.md) [web](https://a.test/x) [here](#the-map)\n"),
        ];
        let found = findings(&pages, |path| pages.iter().any(|page| page.path == path));
        let lines: Vec<_> = found.iter().map(|finding| (finding.file.as_str(), finding.line)).collect();
        assert_eq!(lines, [("README.md", 2), ("README.md", 3)]);
    }

    #[test]
    fn links_are_read_in_all_their_forms_and_not_in_code() {
        let text = "a [b](c.md \"title\") ![d](<e.png>)\n[f]: g.md\n`[h](i.md)`\n```\n[j](k.md)\n```\n[l](m.md)";
        let targets: Vec<_> = links(text).into_iter().map(|(line, target)| format!("{line} {target}")).collect();
        assert_eq!(targets, ["1 c.md", "1 e.png", "2 g.md", "7 m.md"]);
    }

    #[test]
    fn anchors_are_githubs() {
        let text = "# What's `new`, here?\n## Twice\n## Twice\n```\n# no heading\n```\n#no heading either\n";
        let found: Vec<_> = anchors(text).into_iter().collect();
        assert_eq!(found, ["twice", "twice-1", "whats-new-here"]);
    }

    #[test]
    fn targets_are_relative_to_their_file() {
        assert_eq!(resolve("agent/MAP.md", "../README.md"), "README.md");
        assert_eq!(resolve("README.md", "./agent/MAP.md"), "agent/MAP.md");
    }
}
