// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of a run, for people and for machines.
//!
//! In: rows. Out: text, with colours where a terminal shows it, or a JSON list. It decides nothing.

use std::{
    env,
    io::{IsTerminal, stderr},
};

use crate::judge::{Row, Tally, percent};

/// The table for people.
pub(crate) fn text(rows: &[Row]) -> String {
    let paint = Paint::of_this_terminal();
    let judged: Vec<_> = rows.iter().filter(|row| row.not_run.is_none() && row.failed.is_none()).collect();
    let lines: Vec<_> =
        std::iter::once(HEADINGS.map(Cell::plain).into()).chain(judged.iter().map(|row| cells(row))).collect();
    let mut text = aligned(&lines, paint);
    for row in rows {
        if let Some(why) = &row.not_run {
            text += &format!("not run: {}: {}\n", row.model, first_line(why));
        }
    }
    let met = judged.iter().filter(|row| is_met(row) == Some(true)).count();
    let with_target = judged.iter().filter(|row| is_met(row).is_some()).count();
    let not_run = rows.iter().filter(|row| row.not_run.is_some()).count();
    let failed = rows.iter().filter(|row| row.failed.is_some()).count();
    let wrong: usize = judged.iter().map(|row| row.tally.wrong + row.warm_up.wrong).sum();
    text += &format!(
        "{} rows: {wrong} wrong parents; targets met in {met} of {with_target}; {failed} failed, {not_run} models not run\n",
        judged.len()
    );
    text
}

/// One row as soon as it is there.
pub(crate) fn line(row: &Row) -> String {
    match (&row.not_run, &row.failed) {
        (Some(why), _) | (None, Some(why)) => format!("{} at {}: {why}", row.model, row.concurrency),
        (None, None) => {
            let Tally { calls, right, wrong, abstained, lost, .. } = row.tally;
            format!(
                "{} at {}: {calls} calls, {right} right, {wrong} wrong, {abstained} abstained, {lost} lost; {}",
                row.model,
                row.concurrency,
                methods(&row.tally)
            )
        }
    }
}

/// The same for machines.
pub(crate) fn json(rows: &[Row]) -> Result<String, String> {
    serde_json::to_string_pretty(rows).map_err(|e| format!("write JSON: {e}"))
}

const HEADINGS: [&str; 12] = [
    "model",
    "at once",
    "calls",
    "right",
    "wrong",
    "abstained",
    "lost",
    "by method (right/wrong)",
    "warm-up",
    "target",
    "peer",
    "joins",
];

fn cells(row: &Row) -> Vec<Cell> {
    let Tally { calls, wrong, abstained, lost, .. } = row.tally;
    let right = format!("{:.1} %", row.right_percent());
    let count = |number: usize| Cell::alarming(number.to_string(), number > 0);
    let target = match (row.target, is_met(row)) {
        (Some(target), Some(true)) => Cell { text: format!("≥ {target} % met"), colour: Some(GREEN) },
        (Some(target), _) => Cell { text: format!("≥ {target} % missed"), colour: Some(YELLOW) },
        (None, _) => Cell::plain("-"),
    };
    let peer = row.peer.map_or_else(
        || Cell::plain("-"),
        |peer| {
            let behind = row.right_percent() < peer.right;
            let text = format!("{} / {} %{}", peer.right, peer.wrong, if behind { ", ahead of us" } else { "" });
            Cell { text, colour: behind.then_some(YELLOW) }
        },
    );
    let joins = format!("{}/{}/{}", row.joins.right, row.joins.wrong, row.joins.missing);
    vec![
        Cell::plain(&row.model),
        Cell::plain(&row.concurrency.to_string()),
        Cell::plain(&calls.to_string()),
        Cell::plain(&right),
        count(wrong),
        Cell::plain(&abstained.to_string()),
        count(lost),
        Cell::plain(&methods(&row.tally)),
        Cell::alarming(
            format!("{:.0} %, {} wrong", percent(row.warm_up.right, row.warm_up.calls), row.warm_up.wrong),
            row.warm_up.wrong > 0,
        ),
        target,
        peer,
        Cell::alarming(joins, row.joins.wrong > 0),
    ]
}

/// Whether the row is as right as it must be, if anything is asked of it.
fn is_met(row: &Row) -> Option<bool> {
    row.target.map(|target| row.right_percent() >= target && row.failures().is_empty())
}

fn methods(tally: &Tally) -> String {
    let each = tally.methods.iter().map(|(method, links)| format!("{method} {}/{}", links.right, links.wrong));
    let text = each.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "-".to_owned() } else { text }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

struct Cell {
    text: String,
    colour: Option<&'static str>,
}

impl Cell {
    fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), colour: None }
    }

    fn alarming(text: String, is_bad: bool) -> Self {
        Self { text, colour: is_bad.then_some(RED) }
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Paint {
    Coloured,
    Plain,
}

impl Paint {
    /// No colours where nobody sees them, or where they are not wanted (<https://no-color.org>).
    fn of_this_terminal() -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stderr().is_terminal() && !unwanted { Self::Coloured } else { Self::Plain }
    }
}

/// Cells in columns as wide as they must be.
fn aligned(lines: &[Vec<Cell>], paint: Paint) -> String {
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<_> = line
            .iter()
            .zip(&widths)
            .map(|(Cell { text, colour }, width)| match colour.filter(|_| paint == Paint::Coloured) {
                Some(colour) => format!("{colour}{text:<width$}{RESET}"),
                None => format!("{text:<width$}"),
            })
            .collect();
        text += cells.join("  ").trim_end();
        text += "\n";
    }
    text
}

const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RESET: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_has_a_heading() {
        assert_eq!(cells(&Row::default()).len(), HEADINGS.len());
    }

    #[test]
    fn a_row_is_one_flat_object_for_machines() {
        let row = Row { model: "m".into(), concurrency: 8, ..Row::default() };
        let text = json(&[row]).expect("plain values");
        let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        for key in ["model", "concurrency", "calls", "right", "wrong", "abstained", "methods"] {
            assert!(rows[0].get(key).is_some(), "{key} is missing in {text}");
        }
    }

    #[test]
    fn a_model_that_was_not_run_is_named_and_never_met() {
        let row = Row { target: Some(0.0), ..Row::not_run("ruby-puma.one", "no ruby".into()) };
        let text = text(&[row]);
        assert!(text.contains("not run: ruby-puma.one: no ruby"), "{text}");
        assert!(text.contains("met in 0 of 0") && text.contains("1 models not run"), "{text}");
    }
}
