// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The values that flags take.
//!
//! In: one text. Out: the value, or a [`Mistake`] that begins with the text and ends with what to write instead. It
//! does not know which flag it reads; the caller puts the name in front.

use std::{str::FromStr, time::Duration};

use globset::Glob;

use super::Mistake;

/// A number from `least` to `most`.
pub(super) fn number<T: FromStr + PartialOrd>(text: &str, least: T, most: T, wanted: &str) -> Result<T, Mistake> {
    match text.parse::<T>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(mistake(text, "is not possible", format!("give {wanted}"))),
    }
}

/// A time with its unit: `500ms`, `30s`, `5m`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, Mistake> {
    parse_duration(text).ok_or_else(|| {
        // A bare number is the usual slip, and seconds what is usually meant.
        let example =
            if text.parse::<u32>().is_ok() { format!("{text}s") } else { "500ms, 30s, 5m or 1h30m".to_owned() };
        mistake(text, "is not a time above zero", format!("give a number and a unit: {example}"))
    })
}

/// A time as [`duration`] reads it.
pub(super) fn shown(time: Duration) -> String {
    let millis = time.as_millis();
    match millis {
        _ if !millis.is_multiple_of(1000) => format!("{millis}ms"),
        _ if !millis.is_multiple_of(60_000) => format!("{}s", millis / 1000),
        _ if !millis.is_multiple_of(3_600_000) => format!("{}m", millis / 60_000),
        _ => format!("{}h", millis / 3_600_000),
    }
}

/// A size with its unit: `64MiB`.
pub(super) fn size(text: &str) -> Result<u64, Mistake> {
    let parsed = UNITS.iter().find_map(|(unit, bytes)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*bytes).filter(|size| (1..=1 << 50).contains(size))
    });
    parsed.ok_or_else(|| mistake(text, "is not a size above zero", "give a number and a unit: 64MiB, 1GiB".to_owned()))
}

/// A size as [`size`] reads it.
pub(super) fn size_shown(size: u64) -> String {
    let fits = UNITS.iter().rev().find(|(_, bytes)| size.is_multiple_of(*bytes));
    fits.map_or_else(|| format!("{size}B"), |(unit, bytes)| format!("{}{unit}", size / bytes))
}

const UNITS: &[(&str, u64)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = rest.split_at(digits);
        let end = unit.find(|c: char| c.is_ascii_digit()).unwrap_or(unit.len());
        let number: u64 = number.parse().ok()?;
        let part = match &unit[..end] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = &unit[end..];
    }
    (total > Duration::ZERO && total <= LONGEST).then_some(total)
}

/// A pattern for executables, checked here so that the stages need not fail.
pub(super) fn glob(text: &str) -> Result<String, Mistake> {
    match Glob::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(mistake(
            text,
            &format!("is not a pattern ({})", error.kind()),
            "use * ? [abc] {a,b}, quoted for the shell: --exe 'python3*'".to_owned(),
        )),
    }
}

/// One of a closed set.
pub(super) fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Mistake> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)) {
        return Ok(*value);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let fix = match closest(text, &names) {
        Some(near) => format!("did you mean {near}? There are {}", names.join(", ")),
        None => format!("use one of {}", names.join(", ")),
    };
    Err(mistake(text, "is unknown", fix))
}

/// The parts between commas, those inside braces left alone: `node,{a,b}*` has two parts.
pub(super) fn list(text: &str) -> Vec<String> {
    let mut depth = 0_usize;
    let parts = text.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// The candidate that `text` is probably a misspelling of.
pub(super) fn closest<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    candidates
        .iter()
        .map(|candidate| (edits(&text, &candidate.to_ascii_lowercase()), *candidate))
        .min()
        .filter(|(edits, _)| *edits <= MISSPELT)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

fn mistake(text: &str, what: &str, fix: String) -> Mistake {
    Mistake { what: format!("{text:?} {what}"), fix }
}

/// Edits at which a word still counts as misspelt and not as another word: `tre`, `jsno`, `txet`.
const MISSPELT: usize = 2;

/// Ten years: more is a slip, and would overflow deadlines.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let cases = [
            ("500ms", Some(Duration::from_millis(500))),
            ("30s", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_secs(300))),
            ("1h30m", Some(Duration::from_secs(5400))),
            ("", None),
            ("0s", None),
            ("30", None),
            ("s", None),
            ("30 s", None),
            ("-1s", None),
            ("1d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("30µ", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(duration(text).ok(), wanted, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_what_is_read() {
        for text in ["500ms", "30s", "5m", "2h", "90m"] {
            assert_eq!(duration(text).map(shown).ok().as_deref(), Some(text));
        }
        for text in ["1KiB", "64MiB", "3GiB", "1025KiB"] {
            assert_eq!(size(text).map(size_shown).ok().as_deref(), Some(text));
        }
        for text in ["", "64", "MiB", "0MiB", "64MB", "-1GiB", "99999999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_answered_with_seconds() {
        assert_eq!(duration("30").unwrap_err().fix, "give a number and a unit: 30s");
    }

    #[test]
    fn commas_in_braces_do_not_separate() {
        assert_eq!(list("node, {a,b}* ,,x"), ["node", "{a,b}*", "x"]);
        assert_eq!(list("}a,b"), ["}a", "b"]);
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_it_is_near() {
        assert_eq!(closest("tre", &["tree", "text", "json"]), Some("tree"));
        assert_eq!(closest("yaml", &["tree", "text", "json"]), None);
        assert_eq!(closest("SPANTAP_PORTS", &["SPANTAP_PID", "SPANTAP_PORT"]), Some("SPANTAP_PORT"));
    }
}
