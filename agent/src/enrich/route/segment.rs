// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one segment of a path is: a name that the program chose, or a value that somebody put there.
//!
//! In: a segment, and where it stands. Out: a [`Segment`]. It judges by the look of it, remembers nothing, and errs on the
//! side of a value: a name that is taken for one costs detail, a value that is taken for a name costs a series each.

use std::{
    borrow::Cow,
    net::{Ipv4Addr, Ipv6Addr},
};

use memchr::memchr;

/// What a segment is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Segment<'a> {
    /// A name.
    Word(&'a str),
    /// A value of this kind.
    Value(&'static str),
}

/// Where a segment stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// 0 for the first.
    pub(super) index: usize,
    /// The segment before it.
    pub(super) before: &'a str,
    /// Whether it is the last.
    pub(super) last: bool,
}

/// Judges `raw`, a segment as it was sent.
pub(super) fn judge<'a>(raw: &'a str, place: Place<'_>) -> Segment<'a> {
    // Parameters of a segment (`;jsessionid=…`) are values whatever they look like.
    let name = memchr(b';', raw.as_bytes()).map_or(raw, |end| &raw[..end]);
    let decoded = decoded(name);
    match kind(&decoded, place) {
        Some(placeholder) => Segment::Value(placeholder),
        None => Segment::Word(name),
    }
}

/// Whether the names after this one are resources, which a program has as many of as it likes: its own first ones, and
/// those of an API.
pub(super) fn is_prefix(name: &str) -> bool {
    matches!(name, "api" | "apis" | "rest" | "rpc") || is_version(name)
}

/// The placeholder for a value; nothing for a name.
fn kind(text: &str, place: Place<'_>) -> Option<&'static str> {
    let is_digit = |c: char| c.is_ascii_digit();
    if text.is_empty() || is_version(text) && place.index <= 2 {
        return None;
    }
    // Most names: everything below but the last asks for other characters, or for longer texts.
    if text.len() < SHORTEST_HASH && text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return (!is_pronounceable(text)).then_some("{id}");
    }
    if is_date(text) {
        // `/2015-03-31/functions`, `/api/2024-01-01/users`: dates as versions.
        let is_api_version = !place.last && (place.index == 0 || place.index == 1 && is_prefix(place.before));
        return (!is_api_version).then_some("{date}");
    }
    if is_number(text) {
        return Some("{id}");
    }
    if is_uuid(text) {
        return Some("{uuid}");
    }
    if is_address(text) {
        return Some("{ip}");
    }
    if is_email(text) {
        return Some("{email}");
    }
    if is_hash(text) {
        return Some("{hash}");
    }
    if is_token(text) {
        return Some("{token}");
    }
    if place.last
        && let Some(file) = file(text)
    {
        return Some(file);
    }
    if text.contains(is_digit) {
        return (!is_word_with_digits(text)).then_some("{id}");
    }
    let parts = text.split(SEPARATORS).filter(|part| !part.is_empty()).count();
    match is_word(text) {
        true if parts >= SLUG => Some("{slug}"),
        true => None,
        false => Some("{id}"),
    }
}

/// `v1`, `v2.1`, `v1beta1`.
fn is_version(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(['v', 'V']) else { return false };
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let stage = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    text[1..].starts_with(|c: char| c.is_ascii_digit())
        && text.len() <= 8
        && matches!(stage, "" | "alpha" | "beta" | "rc")
}

/// `2024-01-31`, alone or before a time.
fn is_date(text: &str) -> bool {
    let Some((date, rest)) = text.split_at_checked(10) else { return false };
    let shape = date
        .bytes()
        .enumerate()
        .all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
    let within =
        |range: std::ops::Range<usize>, most: u8| date[range].parse().is_ok_and(|n: u8| (1..=most).contains(&n));
    shape && within(5..7, 12) && within(8..10, 31) && (rest.is_empty() || rest.starts_with(['T', 't', ' ']))
}

/// `42`, `-1`, `3.14`, `1,2,3`.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    // Four numbers with three dots are an address.
    digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b','))
        && digits.matches('.').count() < 3
}

/// 8-4-4-4-12 hexadecimal digits, whatever the version.
fn is_uuid(text: &str) -> bool {
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let mut groups =
        text.split('-').map(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(group.len()));
    [8, 4, 4, 4, 12].into_iter().all(|length| groups.next() == Some(Some(length))) && groups.next().is_none()
}

fn is_address(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse::<Ipv4Addr>().is_ok() || bare.contains(':') && bare.parse::<Ipv6Addr>().is_ok()
}

fn is_email(text: &str) -> bool {
    let Some((name, host)) = text.split_once('@') else { return false };
    !name.is_empty() && host.contains('.') && !host.contains('@') && !host.starts_with('.') && !host.ends_with('.')
}

/// 16 hexadecimal digits or more, a digit among them: `deadbeefdeadbeef` alone may be a word of somebody's.
fn is_hash(text: &str) -> bool {
    text.len() >= SHORTEST_HASH
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && (text.bytes().any(|byte| byte.is_ascii_digit()) || text.len() >= 24)
}

/// Base64 and what is made of it: longer than 24, in both cases and with digits. A KSUID is that as well, and is an id: it
/// has exactly 27 letters and digits.
fn is_token(text: &str) -> bool {
    let is_ksuid = text.len() == 27 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let charset =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'=' | b'+' | b'/' | b'~');
    let mixed = [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit];
    text.len() > 24
        && !is_ksuid
        && text.bytes().all(charset)
        && mixed.iter().all(|is| text.bytes().any(|byte| is(&byte)))
        || text.len() > LONGEST_WORD
}

/// The placeholder for a file: by its extension where that is of something static, or where its name is no word.
fn file(text: &str) -> Option<&'static str> {
    let (stem, extension) = text.rsplit_once('.')?;
    let find = |table: &[(&str, &'static str)]| {
        table.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension)).map(|(_, placeholder)| *placeholder)
    };
    if stem.is_empty() {
        return None;
    }
    find(STATIC).or_else(|| (!is_word(stem)).then(|| find(PAGES)).flatten())
}

/// Words that have digits in them, and locales such as `es-419`.
fn is_word_with_digits(text: &str) -> bool {
    let parts = || text.split(SEPARATORS).filter(|part| !part.is_empty());
    let known = |part: &str| WITH_DIGITS.iter().any(|known| known.eq_ignore_ascii_case(part));
    let plain = |part: &str| !part.contains(|c: char| c.is_ascii_digit()) && is_word(part);
    let is_locale =
        || matches!(text.split_once(['-', '_']), Some((language, "419")) if language.len() == 2 && plain(language));
    is_locale() || parts().count() < SLUG && parts().all(|part| known(part) || plain(part))
}

/// Whether `text` looks like words: letters, with some order in them.
fn is_word(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphabetic() || SEPARATORS.contains(&char::from(byte));
    if !text.bytes().all(allowed) {
        return false;
    }
    // `getUserById` changes its case 3 times in 11 letters; what was drawn at random changes it every other letter.
    let changes =
        text.as_bytes().windows(2).filter(|pair| pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).count();
    changes <= 1 + text.len() / 4 && text.split(SEPARATORS).all(is_pronounceable)
}

/// Abbreviations are short; longer ones have vowels, and no six consonants or five vowels in a row.
fn is_pronounceable(part: &str) -> bool {
    let is_vowel = |byte: u8| matches!(byte.to_ascii_lowercase(), b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
    let (mut consonants, mut vowels, mut any) = (0, 0, false);
    for (at, byte) in part.bytes().enumerate() {
        // A hump begins another word.
        if at > 0 && byte.is_ascii_uppercase() && part.as_bytes()[at - 1].is_ascii_lowercase() {
            (consonants, vowels) = (0, 0);
        }
        if is_vowel(byte) {
            (consonants, vowels, any) = (0, vowels + 1, true);
        } else {
            (consonants, vowels) = (consonants + 1, 0);
        }
        if consonants >= 6 || vowels >= 5 {
            return false;
        }
    }
    any || part.len() <= 5
}

/// `%41` as `A`; what is no character is left out, and makes it no word.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| str::from_utf8(digits).ok()).filter(|_| *first == b'%');
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Half of an MD5, as a trace's or a span's id is.
const SHORTEST_HASH: usize = 16;

/// What stands between words.
const SEPARATORS: &[char] = &['-', '_', '.', '~', ':', '+'];

/// From five words on it is a headline.
const SLUG: usize = 5;

/// "rindfleischetikettierungsueberwachung" has 37.
const LONGEST_WORD: usize = 64;

/// Words that have digits.
const WITH_DIGITS: &[&str] = &[
    "2fa", "a11y", "auth0", "b2b", "b2c", "base64", "e2e", "ec2", "h2", "http2", "http3", "i18n", "ipv4", "ipv6",
    "k8s", "l10n", "log4j", "md5", "mp3", "mp4", "oauth1", "oauth2", "p2p", "r2", "route53", "s3", "sha1", "sha256",
    "sha512", "utf8", "web3", "x509",
];

/// Files of which a site has any number, and that are not made by its program.
const STATIC: &[(&str, &str)] = &[
    ("avif", "*.avif"),
    ("css", "*.css"),
    ("eot", "*.eot"),
    ("gif", "*.gif"),
    ("gz", "*.gz"),
    ("ico", "*.ico"),
    ("jpeg", "*.jpeg"),
    ("jpg", "*.jpg"),
    ("js", "*.js"),
    ("m4s", "*.m4s"),
    ("map", "*.map"),
    ("mjs", "*.mjs"),
    ("mp3", "*.mp3"),
    ("mp4", "*.mp4"),
    ("otf", "*.otf"),
    ("pdf", "*.pdf"),
    ("png", "*.png"),
    ("svg", "*.svg"),
    ("ts", "*.ts"),
    ("ttf", "*.ttf"),
    ("wasm", "*.wasm"),
    ("webm", "*.webm"),
    ("webp", "*.webp"),
    ("woff", "*.woff"),
    ("woff2", "*.woff2"),
    ("zip", "*.zip"),
];

/// Files that are pages or answers: a program's own where their name is a word (`index.php`).
const PAGES: &[(&str, &str)] = &[
    ("asp", "*.asp"),
    ("aspx", "*.aspx"),
    ("csv", "*.csv"),
    ("do", "*.do"),
    ("htm", "*.htm"),
    ("html", "*.html"),
    ("json", "*.json"),
    ("jsp", "*.jsp"),
    ("php", "*.php"),
    ("txt", "*.txt"),
    ("xml", "*.xml"),
    ("yaml", "*.yaml"),
    ("yml", "*.yml"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_what_they_look_like() {
        for (segment, expected) in [
            ("42", "{id}"),
            ("-1", "{id}"),
            ("3.14", "{id}"),
            ("1,2,3", "{id}"),
            ("550e8400-e29b-11d4-a716-446655440000", "{uuid}"),
            ("018f4a6e-7b1c-7cc3-98c8-2a3b4c5d6e7f", "{uuid}"),
            ("550E8400-E29B-41D4-A716-446655440000", "{uuid}"),
            ("9f86d081884c7d65", "{hash}"),
            ("9f86d081884c7d659a2feaa0c55ad015", "{hash}"),
            ("9f86d081884c7d6", "{id}"),
            // ULID, KSUID, nanoid, MongoDB's.
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "{id}"),
            ("0ujsszwN8NRY24YaXiTIE2VWDTS", "{id}"),
            ("V1StGXR8_Z5jdHi6B-myT", "{id}"),
            ("507f1f77bcf86cd799439011", "{hash}"),
            ("user42", "{id}"),
            ("order-12", "{id}"),
            ("2024-01-31", "{date}"),
            ("2024-01-31T10:00:00Z", "{date}"),
            ("2024-13-31", "{id}"),
            ("jane@example.org", "{email}"),
            ("jane%40example.org", "{email}"),
            ("192.0.2.1", "{ip}"),
            ("2001:db8::1", "{ip}"),
            ("%5B2001:db8::1%5D", "{ip}"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmN", "{token}"),
            ("dGhpcyBpcyBhIHRlc3Qgb2YgYmFzZTY0IDEyMw==", "{token}"),
            ("app.js", "*.js"),
            ("app.3f2a1b.js", "*.js"),
            ("Logo.PNG", "*.png"),
            ("index.php", "index.php"),
            ("87654.html", "*.html"),
            ("robots.txt", "robots.txt"),
            ("caf%C3%A9", "{id}"),
            ("%ff", "{id}"),
            ("xkjqwzpt", "{id}"),
            ("kJhGfDsAqWeRtY", "{id}"),
            ("my-first-post-about-nothing", "{slug}"),
            ("users", "users"),
            ("getUserById", "getUserById"),
            ("user-profile", "user-profile"),
            ("grpc", "grpc"),
            ("html", "html"),
            ("oauth2", "oauth2"),
            ("s3", "s3"),
            ("en-US", "en-US"),
            ("pt_BR", "pt_BR"),
            ("es-419", "es-419"),
            ("com.example.Shop", "com.example.Shop"),
            ("cart;jsessionid=1A530637289A03B07199A44E8D531427", "cart"),
            ("hello%20world", "{id}"),
            ("rindfleischetikettierung", "rindfleischetikettierung"),
            ("", ""),
        ] {
            let place = Place { index: 3, before: "x", last: true };
            let judged = match judge(segment, place) {
                Segment::Word(word) => word,
                Segment::Value(placeholder) => placeholder,
            };
            assert_eq!(judged, expected, "{segment}");
        }
    }

    #[test]
    fn versions_stand_near_the_beginning() {
        for (segment, index, before, last, expected) in [
            ("v1", 0, "", true, None),
            ("v2.1", 1, "api", false, None),
            ("v1beta1", 2, "x", false, None),
            ("v1", 3, "x", false, Some("{id}")),
            ("v123456789", 0, "", false, Some("{id}")),
            ("2024-01-01", 0, "", false, None),
            ("2024-01-01", 1, "api", false, None),
            ("2024-01-01", 1, "reports", false, Some("{date}")),
            ("2024-01-01", 1, "api", true, Some("{date}")),
        ] {
            assert_eq!(kind(segment, Place { index, before, last }), expected, "{segment} at {index}");
        }
    }
}
