// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text on a terminal: harmless, in columns, in colour.
//!
//! In: text from anywhere. Out: text whose every character takes a known number of cells, and commands the terminal
//! nothing. It does not know what the text means, and no clock but the one it is given.

use std::{borrow::Cow, time::Duration};

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::config::Colour;

/// How many columns there are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Width {
    /// As many as it takes: a file or a pipe.
    Unlimited,
    /// This many.
    Fixed(usize),
    /// Those of the terminal on standard output, asked again each time, since windows are resized.
    Terminal,
}

impl Width {
    pub(super) fn columns(self) -> Option<usize> {
        match self {
            Self::Unlimited => None,
            Self::Fixed(columns) => Some(columns),
            Self::Terminal => terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0)),
        }
    }
}

/// What a piece of text is, and so how it looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Look {
    Plain,
    /// There, but not what the eye looks for: times, ids, branches.
    Faint,
    /// The first thing to read.
    Strong,
    /// It failed.
    Bad,
    /// Worth a look.
    Notable,
    /// Where the time went.
    Slow,
}

impl Look {
    /// The parameters of "select graphic rendition" (ECMA-48 8.3.117), from the 16 colours that every terminal has and
    /// its owner has chosen.
    fn rendition(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Faint => Some("2"),
            Self::Strong => Some("1"),
            Self::Bad => Some("31"),
            Self::Notable => Some("33"),
            Self::Slow => Some("1;33"),
        }
    }
}

/// Appends `text` to `line` in its look.
pub(super) fn paint(line: &mut String, colour: Colour, look: Look, text: &str) {
    match look.rendition() {
        Some(rendition) if colour == Colour::On && !text.is_empty() => {
            line.push_str("\x1b[");
            line.push_str(rendition);
            line.push('m');
            line.push_str(text);
            line.push_str("\x1b[0m");
        }
        _ => line.push_str(text),
    }
}

/// `text` without anything a terminal would obey or a reader could not see: control characters, characters that turn
/// the direction of writing, and every other one that takes no cell are written as Rust writes them.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmless(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_default());
        }
    }
    Cow::Owned(shown)
}

fn is_harmless(character: char) -> bool {
    match character {
        // Soft hyphen, line and paragraph separator: widths of their own, or none, by terminal.
        '\u{ad}' | '\u{2028}' | '\u{2029}' => false,
        _ => character.width().is_some_and(|width| width > 0),
    }
}

/// Cells that harmless text takes.
pub(super) fn cells(text: &str) -> usize {
    text.width()
}

/// `text` in at most `room` cells; where something had to go, the last of them is `…`.
pub(super) fn fitted(text: &str, room: usize) -> Cow<'_, str> {
    if cells(text) <= room {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    let mut left = room.saturating_sub(1);
    for character in text.chars() {
        let width = character.width().unwrap_or(0);
        if width > left {
            break;
        }
        left -= width;
        shown.push(character);
    }
    if room > 0 {
        shown.push('…');
    }
    Cow::Owned(shown)
}

/// A duration in at most six cells, three digits of it: `85µs`, `4.20ms`, `38.1ms`, `1.21s`, `2m05s`, `26h03m`.
pub fn brief(duration: Duration) -> String {
    let us = duration.as_micros();
    let scaled = |value: f64, unit: &str| match value {
        value if value < 9.995 => format!("{value:.2}{unit}"),
        value if value < 99.95 => format!("{value:.1}{unit}"),
        value => format!("{value:.0}{unit}"),
    };
    match us {
        0..=999 => format!("{us}µs"),
        1_000..=999_499 => scaled(duration.as_secs_f64() * 1e3, "ms"),
        999_500..=59_949_999 => scaled(duration.as_secs_f64(), "s"),
        _ => {
            let seconds = (us + 500_000) / 1_000_000;
            if seconds < 3600 {
                format!("{}m{:02}s", seconds / 60, seconds % 60)
            } else {
                format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60)
            }
        }
    }
}

/// The time of day, `12:01:07.412Z`. UTC: the agent's machine, its services' logs and the reader may each have a zone
/// of their own, and a recording is replayed anywhere.
pub(super) fn time_of_day(unix_nanos: u64) -> String {
    let ms = unix_nanos / 1_000_000;
    let (hours, minutes, seconds) = (ms / 3_600_000 % 24, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        let cases = [
            ("/plain?a=b", "/plain?a=b"),
            ("/größe/数", "/größe/数"),
            ("/\x1b]0;owned\x07", "/\\u{1b}]0;owned\\u{7}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
            ("a\u{9b}31m", "a\\u{9b}31m"),
            ("/\u{202e}gpj.exe", "/\\u{202e}gpj.exe"),
            ("a\u{200b}b\u{ad}c\u{2028}d\u{feff}", "a\\u{200b}b\\u{ad}c\\u{2028}d\\u{feff}"),
            ("e\u{301}", "e\\u{301}"),
        ];
        for (text, shown) in cases {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
    }

    #[test]
    fn a_cut_is_marked_and_counts_cells() {
        let cases = [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("数字数", 4, "数…"),
            ("数字", 4, "数字"),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ];
        for (text, room, shown) in cases {
            assert_eq!(fitted(text, room), shown, "{text} in {room}");
            assert!(cells(shown) <= room);
        }
    }

    #[test]
    fn durations_take_six_cells() {
        let cases = [
            (0, "0µs"),
            (999, "999µs"),
            (1_000, "1.00ms"),
            (9_994, "9.99ms"),
            (9_996, "10.0ms"),
            (38_140, "38.1ms"),
            (99_960, "100ms"),
            (999_499, "999ms"),
            (999_500, "1.00s"),
            (1_210_000, "1.21s"),
            (59_940_000, "59.9s"),
            (59_960_000, "1m00s"),
            (125_400_000, "2m05s"),
            (93_780_000_000, "26h03m"),
        ];
        for (us, shown) in cases {
            assert_eq!(brief(Duration::from_micros(us)), shown);
            assert!(cells(shown) <= 6);
        }
    }

    #[test]
    fn the_time_of_day_is_utc() {
        assert_eq!(time_of_day(1_795_262_467_412_999_999), "12:01:07.412Z");
    }

    #[test]
    fn nothing_is_painted_without_colour() {
        let mut line = String::new();
        paint(&mut line, Colour::Off, Look::Bad, "a");
        paint(&mut line, Colour::On, Look::Bad, "b");
        paint(&mut line, Colour::On, Look::Plain, "c");
        assert_eq!(line, "a\x1b[31mb\x1b[0mc");
    }

    proptest! {
        #[test]
        fn any_text_is_harmless_and_fits(text in any::<String>(), room in 0..40_usize) {
            let shown = harmless(&text).into_owned();
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(harmless(&shown), shown.as_str(), "twice is once");
            prop_assert!(cells(&fitted(&shown, room)) <= room);
        }
    }
}
