// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of a run, for people and for machines.
//!
//! In: verdicts, and how long each took. Out: text with a line a case, or a JSON list of their rows. It decides nothing.

use std::{collections::BTreeSet, time::Duration};

use crate::judge::Verdict;

/// The table for people.
pub(crate) fn text(verdicts: &[(Verdict, Duration)]) -> String {
    let headings = ["case", "expected", "captured", "duplicated", "wrong", "lost", "|Δt| max", "took", "passed"];
    let mut lines = vec![headings.map(str::to_owned).to_vec()];
    for (verdict, took) in verdicts {
        let Verdict { row, deviation, .. } = verdict;
        let lost: Vec<_> = row.lost.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
        lines.push(vec![
            row.case.clone(),
            row.expected.to_string(),
            row.captured.to_string(),
            row.duplicated.to_string(),
            row.wrong.to_string(),
            if lost.is_empty() { "-".to_owned() } else { lost.join(", ") },
            format!("{:.2} ms", deviation.as_secs_f64() * 1e3),
            format!("{:.1} s", took.as_secs_f64()),
            if verdict.outcome() == "passed" { "yes" } else { verdict.outcome() }.to_owned(),
        ]);
    }
    let passed = verdicts.iter().filter(|(verdict, _)| verdict.outcome() == "passed").count();
    let mut text = format!("{}{passed} of {} cases passed\n", aligned(&lines), verdicts.len());
    let listed: BTreeSet<_> = verdicts.iter().filter_map(|(verdict, _)| verdict.listed).collect();
    for why in listed {
        let cases = verdicts.iter().filter(|(verdict, _)| verdict.listed == Some(why));
        text += &format!("{} cannot pass in this tier, as KERNELS.md says: {why}\n", cases.count());
    }
    text
}

/// The same for machines.
pub(crate) fn json(verdicts: &[(Verdict, Duration)]) -> Result<String, String> {
    let rows: Vec<_> = verdicts.iter().map(|(verdict, _)| &verdict.row).collect();
    serde_json::to_string_pretty(&rows).map_err(|e| format!("write JSON: {e}"))
}

/// Cells in columns as wide as they must be.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width =
        |column| lines.iter().filter_map(|line| line.get(column)).map(|cell: &String| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for line in lines {
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
    fn columns_are_aligned() {
        let lines = [["case", "lost"], ["a-long-name", "-"]].map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(aligned(&lines), "case         lost\na-long-name  -\n");
    }
}
