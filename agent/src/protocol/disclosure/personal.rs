// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What looks like something personal.
//!
//! In: texts from the wire, percent-encoded or not. Out: the same without the numbers of payment cards, and expressions
//! that find the rest. It guesses by form alone: what is written otherwise is not found, and what happens to have the form
//! is hidden too.

use regex::{Regex, RegexBuilder};

use super::REDACTED;

/// An expression of the operator's, or what is wrong with it.
pub(super) fn pattern(text: &str) -> Result<Regex, String> {
    match RegexBuilder::new(text).size_limit(MOST_COMPILED).build() {
        Ok(pattern) if pattern.is_match("") => Err("matches where there is nothing".to_owned()),
        Ok(pattern) => Ok(pattern),
        Err(regex::Error::CompiledTooBig(_)) => Err("is too large".to_owned()),
        Err(error) => {
            // Below the excerpt, which takes several lines.
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().trim_start_matches("error:").trim().to_owned();
            Err(format!("is no regular expression ({why})"))
        }
    }
}

/// E-mail addresses: not by RFC 5322, which allows nearly everything, but as people have them. A part after the last dot
/// that has a digit is a version (`/left-pad@1.3.0`).
pub(super) fn emails() -> Regex {
    const EMAIL: &str =
        r#"(?i)[^\s/?&=#;,:<>"()@]+(?:@|%40)[^\s/?&=#;,:<>"()@]*(?:\.|%2e)[^\s/?&=#;,:<>"()@.%\d_+-]{2,}"#;
    Regex::new(EMAIL).expect("a constant, which the test below compiles")
}

/// `text` with the numbers of payment cards replaced, if there are any: 13 to 19 digits (ISO/IEC 7812-1), in groups or
/// not, of which the last one is the check digit of the others.
pub(super) fn without_card_numbers(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while at < bytes.len() {
        // The digits of an escape are none of a number.
        if bytes[at] == b'%' {
            at += 3;
            continue;
        }
        if !bytes[at].is_ascii_digit() {
            at += 1;
            continue;
        }
        let groups = groups(bytes, at);
        let mut next = groups.last().map_or(at + 1, |group| group.1);
        for (index, (start, _)) in groups.iter().enumerate() {
            // The longest number that begins here.
            let numbers = (index..groups.len()).rev().map(|last| &groups[index..=last]);
            if let Some(end) = numbers.filter(|number| is_card(bytes, number)).find_map(|number| Some(number.last()?.1))
            {
                out.push_str(&text[copied..*start]);
                out.push_str(REDACTED);
                (copied, next) = (end, end);
                break;
            }
        }
        at = next;
    }
    (copied > 0).then(|| {
        out.push_str(&text[copied..]);
        out
    })
}

/// Where each group of digits begins and ends, from the one at `start` on, with one separator between them: no more of
/// them than a number can have.
fn groups(bytes: &[u8], start: usize) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let mut at = start;
    while groups.len() < MOST_DIGITS {
        let end = at + bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if end == at {
            break;
        }
        groups.push((at, end));
        at = match &bytes[end..] {
            [b' ' | b'-' | b'+' | b'.', ..] => end + 1,
            [b'%', b'2', b'0', ..] => end + 3,
            _ => break,
        };
    }
    groups
}

/// Whether the digits of these groups have the check digit of Luhn's formula (ISO/IEC 7812-1, annex B).
fn is_card(bytes: &[u8], groups: &[(usize, usize)]) -> bool {
    let length: usize = groups.iter().map(|(start, end)| end - start).sum();
    if !(LEAST_DIGITS..=MOST_DIGITS).contains(&length) {
        return false;
    }
    let digits = groups.iter().rev().flat_map(|(start, end)| bytes[*start..*end].iter().rev());
    let sum: u32 = digits
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(digit - b'0')) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Digits of a payment card's number.
const LEAST_DIGITS: usize = 13;
const MOST_DIGITS: usize = 19;

/// Bytes of a compiled expression: those of the usual ones are a few KiB, and each is kept once.
const MOST_COMPILED: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_found_in_any_grouping() {
        // Numbers that payment providers publish for tests.
        for (text, expected) in [
            ("4111111111111111", Some("REDACTED")),
            ("a=4111111111111111&b=1", Some("a=REDACTED&b=1")),
            ("4111 1111 1111 1111", Some("REDACTED")),
            ("4111-1111-1111-1111", Some("REDACTED")),
            ("4111%201111%201111%201111", Some("REDACTED")),
            ("card+5500+0055+5555+5559", Some("card+REDACTED")),
            ("%204111111111111111", Some("%20REDACTED")),
            ("378282246310005", Some("REDACTED")),
            ("4222222222222", Some("REDACTED")),
            ("4111111111111111 5500005555555559", Some("REDACTED REDACTED")),
            ("12 4111111111111111", Some("12 REDACTED")),
            ("4111111111111112", None),
            ("411111111111", None),
            ("24111111111111111", None),
            ("2026-11-21T10:00:00", None),
            ("", None),
            ("%", None),
            ("é4111111111111111é", Some("éREDACTEDé")),
        ] {
            assert_eq!(without_card_numbers(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_are_found_encoded_or_not() {
        let emails = emails();
        for (text, expected) in [
            ("/users/bob@example.com/x", "/users/REDACTED/x"),
            ("/users/bob%40example.com", "/users/REDACTED"),
            ("mail=bob%40example%2Ecom&x=1", "mail=REDACTED&x=1"),
            ("mail=bob+tag@mail.example.co.uk", "mail=REDACTED"),
            ("<a@b.org>, c@d.net", "<REDACTED>, REDACTED"),
            ("bjørn@exämple.no", "REDACTED"),
            ("/left-pad@1.3.0/index.js", "/left-pad@1.3.0/index.js"),
            ("@scope/name", "@scope/name"),
            ("a@localhost", "a@localhost"),
            ("https://medium.com/@bob/x.html", "https://medium.com/@bob/x.html"),
        ] {
            assert_eq!(emails.replace_all(text, REDACTED), expected, "{text}");
        }
    }

    #[test]
    fn an_expression_that_is_none_is_refused() {
        assert!(pattern("sk_live_[0-9a-z]+").is_ok());
        for (text, why) in [
            ("a(", "is no regular expression (unclosed group)"),
            ("x*", "matches where there is nothing"),
            (r"(\d{100}){100}{100}", "is too large"),
        ] {
            assert_eq!(pattern(text).expect_err(text), why);
        }
    }
}
