// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trace context: identifiers, flags and vendor state, as W3C Trace Context level 2 defines them.
//!
//! In: header values. Out: a [`TraceContext`] that is valid, or nothing. It does not generate ids and does not know
//! where the headers came from.

pub mod vendors;

use std::{borrow::Cow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// 16 bytes, not all zero (<https://www.w3.org/TR/trace-context-2/#trace-id>).
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes, not all zero (<https://www.w3.org/TR/trace-context-2/#parent-id>).
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct SpanId(pub [u8; 8]);

/// A bit-field (<https://www.w3.org/TR/trace-context-2/#trace-flags>).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct TraceFlags(pub u8);

/// What a request says about the trace it belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that sent the request.
    pub parent: SpanId,
    /// Flags as received; bits this version does not define are zero.
    pub flags: TraceFlags,
    /// `tracestate`, joined and validated, verbatim otherwise.
    pub state: Option<Arc<str>>,
}

// --- TraceId, SpanId ---

impl TraceId {
    /// The id that 32 lowercase hexadecimal digits spell. All zeroes spell none.
    pub fn parse_hex(digits: &[u8]) -> Option<Self> {
        // "All bytes as zero (00000000000000000000000000000000) is considered an invalid value."
        // https://www.w3.org/TR/trace-context-2/#trace-id
        hex(digits).filter(|id| *id != [0; 16]).map(Self)
    }

    /// Whether both name one trace. Formats of 64 bits carry the lower half of an id, "the right-most bits", and whoever
    /// reads one of them has zeroes for the rest
    /// (<https://www.w3.org/TR/trace-context-2/#interoperating-with-existing-systems-which-use-shorter-identifiers>).
    pub fn is_same(self, other: Self) -> bool {
        self == other || self.lower_half() == other.lower_half() && (self.is_half() || other.is_half())
    }

    /// Whether the upper half is unknown.
    pub fn is_half(self) -> bool {
        self.0[..8] == [0; 8]
    }

    /// What formats of 64 bits carry of it.
    pub fn lower_half(self) -> u64 {
        u128::from_be_bytes(self.0) as u64
    }
}

impl SpanId {
    /// The id that 16 lowercase hexadecimal digits spell. All zeroes spell none.
    pub fn parse_hex(digits: &[u8]) -> Option<Self> {
        // "All bytes as zero (0000000000000000) is considered an invalid value."
        // https://www.w3.org/TR/trace-context-2/#parent-id
        hex(digits).filter(|id| *id != [0; 8]).map(Self)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// --- TraceFlags ---

impl TraceFlags {
    /// The caller may have recorded the trace.
    pub const SAMPLED: Self = Self(0x01);
    /// At least the right-most 7 bytes of the trace id are random.
    pub const RANDOM: Self = Self(0x02);

    /// Whoever sent the request leaves it to the receiver whether the trace is sampled, which vendors' headers can say and
    /// W3C's cannot: never on the wire.
    pub const DEFERRED: Self = Self(0x80);

    /// What is written of a span that leaves: of whoever was left to decide, it decided to keep it.
    pub fn on_the_wire(self) -> u8 {
        if self.contains(Self::DEFERRED) { self.0 & KNOWN_FLAGS | Self::SAMPLED.0 } else { self.0 }
    }

    /// Whether every flag of `other` is set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

// --- TraceContext ---

impl TraceContext {
    /// The context in the values of all `traceparent` and all `tracestate` headers of one request, each in the order
    /// of the request.
    pub fn parse<'a>(
        traceparent: impl IntoIterator<Item = &'a [u8]>,
        tracestate: impl IntoIterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let mut parents = traceparent.into_iter();
        let parent = parents.next()?;
        if parents.next().is_some() {
            // Which of them is meant cannot be known: test_traceparent_duplicated of the W3C's suite.
            return None;
        }
        let (trace, parent, flags) = parse_traceparent(trim(parent))?;
        // "If the vendor failed to parse traceparent, it MUST NOT attempt to parse tracestate. Note that the opposite
        // is not true: failure to parse tracestate MUST NOT affect the parsing of traceparent."
        // https://www.w3.org/TR/trace-context-2/#tracestate-header
        Some(Self { trace, parent, flags, state: parse_tracestate(tracestate) })
    }
}

/// A fuzz target: any bytes, cut at line ends into the values of one `traceparent` and many `tracestate` headers.
///
/// # Panics
///
/// When a context that was accepted cannot be written down and read again.
pub fn fuzz_traceparent(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(parent) = lines.next() else { return };
    let Some(context) = TraceContext::parse([parent], lines) else { return };
    let written = format!("00-{}-{}-{:02x}", context.trace, context.parent, context.flags.0);
    let again = TraceContext::parse([written.as_bytes()], context.state.as_deref().map(str::as_bytes));
    assert_eq!(again, Some(context));
}

/// Flags that level 2 defines. "The behavior of other flags […] is not defined and is reserved for future use.
/// Vendors MUST set those to zero." <https://www.w3.org/TR/trace-context-2/#other-flags>
const KNOWN_FLAGS: u8 = TraceFlags::SAMPLED.0 | TraceFlags::RANDOM.0;

/// Length of version 00: `00-<32>-<16>-<2>`.
const TRACEPARENT_LENGTH: usize = 55;

/// "There can be a maximum of 32 list-members in a list."
/// <https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values>
const MAX_MEMBERS: usize = 32;

/// "Identifiers for a list are short (up to 256 characters) textual identifiers."
/// <https://www.w3.org/TR/trace-context-2/#list>
const MAX_KEY: usize = 256;

/// "The value is an opaque string containing up to 256 printable ASCII characters".
/// <https://www.w3.org/TR/trace-context-2/#value>
const MAX_VALUE: usize = 256;

fn parse_traceparent(value: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    // "If the size of the header is shorter than 55 characters, the vendor should not parse the header and should
    // restart the trace." https://www.w3.org/TR/trace-context-2/#versioning-of-traceparent
    let (known, rest) = value.split_at_checked(TRACEPARENT_LENGTH)?;
    if known[2] != b'-' || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    match hex(&known[..2])? {
        // Version 00 is exactly 55 characters long.
        [0x00] if !rest.is_empty() => return None,
        // "Version 255 ("ff") is invalid." https://www.w3.org/TR/trace-context-2/#version
        [0xff] => return None,
        // "Vendors MUST check that the 2 characters are either at the end of the string or followed by a dash."
        _ if rest.first().is_some_and(|byte| *byte != b'-') => return None,
        _ => {}
    }
    let [flags] = hex(&known[53..])?;
    Some((TraceId::parse_hex(&known[3..35])?, SpanId::parse_hex(&known[36..52])?, TraceFlags(flags & KNOWN_FLAGS)))
}

/// The list, or nothing when it is empty or breaks a rule.
fn parse_tracestate<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Option<Arc<str>> {
    let mut joined = Cow::Borrowed("");
    let mut members = 0;
    for header in headers {
        let header = trim(header);
        // "Empty and whitespace-only list members are allowed." They carry nothing, and are not counted.
        for member in header.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
            members += 1;
            // Keys that occur twice are kept as they are: the level allows it, and verbatim is what was promised.
            if members > MAX_MEMBERS || !is_member(member) {
                return None;
            }
        }
        if header.is_empty() {
            continue;
        }
        // The members are ASCII and so is what stands between them.
        let header = str::from_utf8(header).ok()?;
        // "When receiving multiple tracestate header fields, they MUST be combined into a single header according to
        // RFC9110." https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values
        joined = if joined.is_empty() { header.into() } else { format!("{joined},{header}").into() };
    }
    (members > 0).then(|| Arc::from(joined))
}

/// `list-member`, surrounding blanks removed. <https://www.w3.org/TR/trace-context-2/#list-members>
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    // "A key MUST begin with a lowercase letter or a digit and contain up to 256 characters including lowercase letters
    // (a-z), digits (0-9), underscores (_), dashes (-), asterisks (*), forward slashes (/), and at signs (@)."
    let is_key = key.first().is_some_and(|first| matches!(first, b'a'..=b'z' | b'0'..=b'9'))
        && key.len() <= MAX_KEY
        && key.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'));
    // "The value is an opaque string containing up to 256 printable ASCII characters (i.e., the range 0x20 to 0x7E)
    // except comma (,) and (=). The string must end with a character which is not a space (0x20)."
    let is_value = !value.is_empty()
        && value.len() <= MAX_VALUE
        && value.iter().all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=');
    is_key && is_value
}

/// Exactly `2 * N` lowercase hexadecimal digits (HEXDIGLC).
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let pairs: &[[u8; 2]; N] = pairs.try_into().ok()?;
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = nibble(*high)? << 4 | nibble(*low)?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Without optional whitespace around it: "OWS = *( SP / HTAB )" (RFC 9110 section 5.6.3).
fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    &value[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "12345678901234567890123456789012";
    const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-00";

    /// The context of `traceparent`, rendered as the version 00 header that would continue it, or `-`.
    fn continued(traceparents: &[&str]) -> String {
        match TraceContext::parse(traceparents.iter().map(|value| value.as_bytes()), []) {
            Some(context) => format!("{}-{}-{:02x}", context.trace, context.parent, context.flags.0),
            None => "-".to_owned(),
        }
    }

    /// What is kept of `tracestates` beside a valid `traceparent`, or `-`.
    fn kept(tracestates: &[&str]) -> String {
        let context =
            TraceContext::parse([PARENT.as_bytes()], tracestates.iter().map(|value| value.as_bytes())).expect("valid");
        assert_eq!(context.trace.to_string(), TRACE, "{tracestates:?}");
        context.state.as_deref().unwrap_or("-").to_owned()
    }

    /// The cases of <https://github.com/w3c/trace-context/blob/main/test/test.py> that are about `traceparent`, under
    /// their names there. Header names are the business of whoever collects the values.
    #[test]
    fn traceparent_cases_of_the_w3c_suite() {
        let id = "12345678901234567890123456789012-1234567890123456";
        let valid = format!("{id}-01");
        let cases: &[(&str, &[&str], &str)] = &[
            ("both_traceparent_and_tracestate_missing", &[], "-"),
            (
                "traceparent_included_tracestate_missing",
                &["00-12345678901234567890123456789012-1234567890123456-01"],
                &valid,
            ),
            (
                "traceparent_duplicated",
                &[
                    "00-12345678901234567890123456789011-1234567890123456-01",
                    "00-12345678901234567890123456789012-1234567890123456-01",
                ],
                "-",
            ),
            ("traceparent_version_0x00", &["00-12345678901234567890123456789012-1234567890123456-01."], "-"),
            (
                "traceparent_version_0x00",
                &["00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like"],
                "-",
            ),
            ("traceparent_version_0xcc", &["cc-12345678901234567890123456789012-1234567890123456-01"], &valid),
            (
                "traceparent_version_0xcc",
                &["cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like"],
                &valid,
            ),
            (
                "traceparent_version_0xcc",
                &["cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like"],
                "-",
            ),
            ("traceparent_version_0xff", &["ff-12345678901234567890123456789012-1234567890123456-01"], "-"),
            (
                "traceparent_version_illegal_characters",
                &[".0-12345678901234567890123456789012-1234567890123456-01"],
                "-",
            ),
            (
                "traceparent_version_illegal_characters",
                &["0.-12345678901234567890123456789012-1234567890123456-01"],
                "-",
            ),
            ("traceparent_version_too_long", &["000-12345678901234567890123456789012-1234567890123456-01"], "-"),
            ("traceparent_version_too_long", &["0000-12345678901234567890123456789012-1234567890123456-01"], "-"),
            ("traceparent_version_too_short", &["0-12345678901234567890123456789012-1234567890123456-01"], "-"),
            ("traceparent_trace_id_all_zero", &["00-00000000000000000000000000000000-1234567890123456-01"], "-"),
            (
                "traceparent_trace_id_illegal_characters",
                &["00-.2345678901234567890123456789012-1234567890123456-01"],
                "-",
            ),
            (
                "traceparent_trace_id_illegal_characters",
                &["00-1234567890123456789012345678901.-1234567890123456-01"],
                "-",
            ),
            ("traceparent_trace_id_too_long", &["00-123456789012345678901234567890123-1234567890123456-01"], "-"),
            ("traceparent_trace_id_too_short", &["00-1234567890123456789012345678901-1234567890123456-01"], "-"),
            ("traceparent_parent_id_all_zero", &["00-12345678901234567890123456789012-0000000000000000-01"], "-"),
            (
                "traceparent_parent_id_illegal_characters",
                &["00-12345678901234567890123456789012-.234567890123456-01"],
                "-",
            ),
            (
                "traceparent_parent_id_illegal_characters",
                &["00-12345678901234567890123456789012-123456789012345.-01"],
                "-",
            ),
            ("traceparent_parent_id_too_long", &["00-12345678901234567890123456789012-12345678901234567-01"], "-"),
            ("traceparent_parent_id_too_short", &["00-12345678901234567890123456789012-123456789012345-01"], "-"),
            (
                "traceparent_trace_flags_illegal_characters",
                &["00-12345678901234567890123456789012-1234567890123456-.0"],
                "-",
            ),
            (
                "traceparent_trace_flags_illegal_characters",
                &["00-12345678901234567890123456789012-1234567890123456-0."],
                "-",
            ),
            ("traceparent_trace_flags_too_long", &["00-12345678901234567890123456789012-1234567890123456-001"], "-"),
            ("traceparent_trace_flags_too_short", &["00-12345678901234567890123456789012-1234567890123456-1"], "-"),
            ("traceparent_ows_handling", &[" 00-12345678901234567890123456789012-1234567890123456-01"], &valid),
            ("traceparent_ows_handling", &["\t00-12345678901234567890123456789012-1234567890123456-01"], &valid),
            ("traceparent_ows_handling", &["00-12345678901234567890123456789012-1234567890123456-01 "], &valid),
            ("traceparent_ows_handling", &["00-12345678901234567890123456789012-1234567890123456-01\t"], &valid),
            ("traceparent_ows_handling", &["\t 00-12345678901234567890123456789012-1234567890123456-01 \t"], &valid),
            (
                "multiple_requests_with_illegal_traceparent",
                &["00-00000000000000000000000000000000-1234567890123456-01"],
                "-",
            ),
        ];
        for (name, values, expected) in cases {
            assert_eq!(continued(values), *expected, "{name}: {values:?}");
        }
        let random = ["00-12345678901234567890123456789012-1234567890123456-02"];
        assert_eq!(continued(&random), format!("{id}-02"), "propagates_random_flag");
    }

    /// The cases of the same suite that are about `tracestate`.
    #[test]
    fn tracestate_cases_of_the_w3c_suite() {
        let characters = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
        let value: String = (' '..='~').filter(|c| !matches!(c, ',' | '=')).collect();
        let all_allowed = format!("{characters}={value}");
        let all_allowed_vendor = format!("{characters}@a-z0-9_-*/={value}");
        let (z256, z257) = (format!("{}=1", "z".repeat(256)), format!("{}=1", "z".repeat(257)));
        let vendors = [
            format!("{}@{}=1", "t".repeat(241), "v".repeat(14)),
            format!("{}@v=1", "t".repeat(242)),
            format!("t@{}=1", "v".repeat(15)),
        ];
        let tens: Vec<String> = (0..3)
            .map(|ten| (1..=10).map(|n| format!("bar{0:02}={0:02}", ten * 10 + n)).collect::<Vec<_>>().join(","))
            .collect();

        let cases: &[(&str, &[&str], &str)] = &[
            ("tracestate_included_traceparent_included", &["foo=1,bar=2"], "foo=1,bar=2"),
            ("tracestate_empty_header", &[""], "-"),
            ("tracestate_empty_header", &["foo=1", ""], "foo=1"),
            ("tracestate_empty_header", &["", "foo=1"], "foo=1"),
            (
                "tracestate_multiple_headers_different_keys",
                &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
                "foo=1,bar=2,rojo=1,congo=2,baz=3",
            ),
            ("tracestate_duplicated_keys", &["foo=1,foo=1"], "foo=1,foo=1"),
            ("tracestate_duplicated_keys", &["foo=1,foo=2"], "foo=1,foo=2"),
            ("tracestate_duplicated_keys", &["foo=1", "foo=1"], "foo=1,foo=1"),
            ("tracestate_duplicated_keys", &["foo=1", "foo=2"], "foo=1,foo=2"),
            ("tracestate_all_allowed_characters", &[&all_allowed], &all_allowed),
            ("tracestate_all_allowed_characters", &[&all_allowed_vendor], &all_allowed_vendor),
            ("tracestate_ows_handling", &["foo=1 \t , \t bar=2, \t baz=3"], "foo=1 \t , \t bar=2, \t baz=3"),
            ("tracestate_ows_handling", &["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1\t \t,\t \tbar=2,\t \tbaz=3"),
            ("tracestate_ows_handling", &[" foo=1"], "foo=1"),
            ("tracestate_ows_handling", &["\tfoo=1"], "foo=1"),
            ("tracestate_ows_handling", &["foo=1 "], "foo=1"),
            ("tracestate_ows_handling", &["foo=1\t"], "foo=1"),
            ("tracestate_ows_handling", &["\t foo=1 \t"], "foo=1"),
            ("tracestate_key_illegal_characters", &["foo =1"], "-"),
            ("tracestate_key_illegal_characters", &["FOO=1"], "-"),
            ("tracestate_key_illegal_characters", &["foo.bar=1"], "-"),
            ("tracestate_key_illegal_vendor_format", &["foo@=1,bar=2"], "foo@=1,bar=2"),
            ("tracestate_key_illegal_vendor_format", &["@foo=1,bar=2"], "-"),
            ("tracestate_key_illegal_vendor_format", &["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
            ("tracestate_key_illegal_vendor_format", &["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
            (
                "tracestate_member_count_limit",
                &[&tens[0], &tens[1], &tens[2], "bar31=31,bar32=32"],
                &format!("{},bar31=31,bar32=32", tens.join(",")),
            ),
            ("tracestate_member_count_limit", &[&tens[0], &tens[1], &tens[2], "bar31=31,bar32=32,bar33=33"], "-"),
            ("tracestate_key_length_limit", &["foo=1", &z256], &format!("foo=1,{z256}")),
            ("tracestate_key_length_limit", &["foo=1", &z257], "-"),
            ("tracestate_key_length_limit", &["foo=1", &vendors[0]], &format!("foo=1,{}", vendors[0])),
            ("tracestate_key_length_limit", &["foo=1", &vendors[1]], &format!("foo=1,{}", vendors[1])),
            ("tracestate_key_length_limit", &["foo=1", &vendors[2]], &format!("foo=1,{}", vendors[2])),
            ("tracestate_value_illegal_characters", &["foo=bar=baz"], "-"),
            ("tracestate_value_illegal_characters", &["foo=,bar=3"], "-"),
        ];
        for (name, values, expected) in cases {
            assert_eq!(kept(values), *expected, "{name}: {values:?}");
        }
    }

    #[test]
    fn tracestate_without_a_valid_traceparent_is_dropped() {
        assert_eq!(TraceContext::parse([], ["foo=1".as_bytes()]), None);
        assert_eq!(TraceContext::parse(["00-xyz".as_bytes()], ["foo=1".as_bytes()]), None);
    }

    #[test]
    fn a_value_of_257_characters_discards_the_tracestate() {
        assert_eq!(kept(&[&format!("a={}", "v".repeat(257))]), "-");
        let longest = format!("a={}", "v".repeat(256));
        assert_eq!(kept(&[&longest]), longest);
    }

    #[test]
    fn flags_that_level_2_does_not_define_are_zeroed() {
        let context = TraceContext::parse([format!("{}ff", &PARENT[..53]).as_bytes()], []).expect("valid");
        assert_eq!(context.flags, TraceFlags(0x03));
        assert!(context.flags.contains(TraceFlags::SAMPLED) && context.flags.contains(TraceFlags::RANDOM));
    }

    #[test]
    fn uppercase_digits_are_no_digits() {
        assert_eq!(continued(&["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"]), "-");
        assert_eq!(continued(&["00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01"]), "-");
        assert_eq!(continued(&["CC-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]), "-");
    }

    #[test]
    fn ids_are_parsed_from_exactly_their_digits() {
        assert_eq!(TraceId::parse_hex(TRACE.as_bytes()).map(|id| id.to_string()).as_deref(), Some(TRACE));
        assert_eq!(
            SpanId::parse_hex(b"00f067aa0ba902b7").map(|id| id.to_string()).as_deref(),
            Some("00f067aa0ba902b7")
        );
        for wrong in
            [&b""[..], b"0", b"00f067aa0ba902b", b"00f067aa0ba902b7a", b"00f067aa0ba902bg", b"0000000000000000"]
        {
            assert_eq!(SpanId::parse_hex(wrong), None);
            assert_eq!(TraceId::parse_hex(wrong), None);
        }
    }

    #[test]
    fn exercise_fuzz_traceparent() {
        for data in [
            &b""[..],
            b"\n",
            b"00-12345678901234567890123456789012-1234567890123456-ff\na=1\n\n b=2 ,,c=3",
            b"cc-12345678901234567890123456789012-1234567890123456-01-\xff\n\xff=1",
            b"00-12345678901234567890123456789012-1234567890123456-01\n=,=,==\n\t,\t",
        ] {
            fuzz_traceparent(data);
        }
    }
}
