// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of a matrix run.
//!
//! In: verdicts. Out: text, one line a row and every column as wide as it must be. It decides nothing.

use std::time::Duration;

use crate::judge::{CHAIN, FaultKind, Parents, Verdict};

/// The headings, in the order of [`line`].
pub(crate) fn headings() -> Vec<String> {
    let before =
        ["front", "service", "client", "connections", "requests", "SERVER spans", "CLIENT spans", "duplicates"];
    let middle = ["missing", "wrong facts"];
    let parents = CHAIN[1..].iter().map(ToString::to_string);
    let after = ["|Δt| p50", "p99", "max", "> 5 ms", "shown after", "lost"];
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    own(&before).into_iter().chain(own(&middle)).chain(parents).chain(own(&after)).collect()
}

/// The cells of one row.
pub(crate) fn line(
    service: &str,
    client: &str,
    connections: usize,
    verdict: &Verdict,
    shown_after: Option<Duration>,
    lost: u64,
) -> Vec<String> {
    let of = |spans: usize, a_request: usize| format!("{spans}/{}", verdict.requests * a_request);
    let parents = |parents: &Parents| format!("{}/{}/{}", parents.right, parents.wrong, parents.missing);
    let mut cells = vec![
        "nginx".to_owned(),
        service.to_owned(),
        client.to_owned(),
        connections.to_string(),
        verdict.requests.to_string(),
        of(verdict.servers, 3),
        of(verdict.clients, 3),
        (verdict.count(FaultKind::Duplicate) + verdict.count(FaultKind::Stray)).to_string(),
        verdict.count(FaultKind::Missing).to_string(),
        verdict.count(FaultKind::Facts).to_string(),
    ];
    cells.extend(verdict.parents[1..].iter().map(parents));
    cells.extend([50, 99, 100].map(|percent| format!("{:.2} ms", verdict.difference(percent).as_secs_f64() * 1e3)));
    let shown_after = shown_after.map_or_else(|| "never".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
    cells.extend([verdict.outliers().to_string(), shown_after, lost.to_string()]);
    cells
}

/// Cells under their headings.
pub(crate) fn format(lines: &[Vec<String>]) -> String {
    let lines: Vec<_> = std::iter::once(headings()).chain(lines.iter().cloned()).collect();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text =
        String::from("Parents are right/wrong/missing; duplicates are spans beyond one a request and process.\n");
    for line in &lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_heading() {
        let cells = line("python", "threads", 1, &Verdict::default(), None, 0);
        assert_eq!(cells.len(), headings().len());
    }

    #[test]
    fn columns_are_aligned() {
        let text = format(&[line("a long name for a service", "threads", 1, &Verdict::default(), None, 0)]);
        let at = |needle: &str, row: usize| text.lines().nth(row).and_then(|line| line.find(needle));
        assert_eq!(at("client", 1), at("threads", 2));
    }
}
