// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consistent probability sampling: thresholds, randomness, and how both are written in `tracestate`.
//!
//! In: a probability, a trace id, a received `tracestate`. Out: whether a trace is within a probability, the same on
//! every machine, and the `tracestate` that says so. It chooses no probability and knows no trace but the one it is
//! asked about.
//!
//! <https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>

use std::sync::Arc;

use crate::context::TraceId;

/// How many of the 2^56 values of [`Randomness`] are rejected. Law: 0 <= threshold <= 2^56.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Threshold(u64);

/// 56 random bits that every span of a trace shares. Law: randomness < 2^56.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Randomness(u64);

/// What an exported span says about the probability with which spans like it are exported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claim {
    /// What came with the context is still true.
    AsReceived,
    /// This, whatever came.
    Threshold(Threshold),
    /// Nobody can know: a received threshold is erased, since it would be wrong.
    Unknown,
}

impl Threshold {
    /// Everything is kept.
    pub const ALWAYS: Self = Self(0);
    /// Nothing is kept.
    pub const NEVER: Self = Self(RANGE);

    /// The threshold that keeps the share `probability` of all traces: outside of 0 to 1 the nearer of the two, and 0
    /// for what is no number.
    pub fn of_probability(probability: f64) -> Self {
        let rejected = (1.0 - probability.clamp(0.0, 1.0)) * RANGE as f64;
        if rejected.is_nan() { Self::NEVER } else { Self(rejected.round() as u64) }
    }

    /// The share of traces that it keeps.
    pub fn probability(self) -> f64 {
        (RANGE - self.0) as f64 / RANGE as f64
    }

    /// How many spans one kept span stands for. Nothing stands for what is never kept.
    pub fn adjusted_count(self) -> Option<f64> {
        (self < Self::NEVER).then(|| RANGE as f64 / (RANGE - self.0) as f64)
    }

    /// "If R >= T, keep the span, else drop the span."
    pub fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }

    /// `th`: up to 14 hexadecimal digits without trailing zeroes; a threshold that never keeps has no notation.
    fn notation(self) -> Option<String> {
        if self >= Self::NEVER {
            return None;
        }
        let digits = format!("{:014x}", self.0);
        let digits = digits.trim_end_matches('0');
        Some(if digits.is_empty() { "0".to_owned() } else { digits.to_owned() })
    }

    /// "th: 1 to 14 lowercase hexadecimal digits", zeroes to the right left out.
    fn parse(notation: &str) -> Option<Self> {
        is_hex(notation, 1..=DIGITS)
            .then(|| u64::from_str_radix(&format!("{notation:0<14}"), 16).ok())
            .flatten()
            .map(Self)
    }
}

impl Randomness {
    /// The randomness of a trace: its explicit one, else the last 7 bytes of its id.
    pub fn of(trace: TraceId, state: Option<&str>) -> Self {
        let explicit = state.and_then(|state| sub_key(state, RANDOMNESS)).and_then(Self::parse);
        explicit.unwrap_or_else(|| {
            let TraceId([.., a, b, c, d, e, f, g]) = trace;
            Self(u64::from_be_bytes([0, a, b, c, d, e, f, g]))
        })
    }

    /// "rv: exactly 14 lowercase hexadecimal digits".
    fn parse(notation: &str) -> Option<Self> {
        is_hex(notation, DIGITS..=DIGITS).then(|| u64::from_str_radix(notation, 16).ok()).flatten().map(Self)
    }
}

/// The threshold that came with a context.
pub fn received(state: Option<&str>) -> Option<Threshold> {
    sub_key(state?, THRESHOLD).and_then(Threshold::parse)
}

/// `state` with the entry `ot` brought in line with `claim`; the same one where nothing changes.
pub fn claimed(state: Option<&Arc<str>>, claim: Claim, randomness: Randomness) -> Option<Arc<str>> {
    let text = state.map(|state| &**state);
    let threshold = match claim {
        // "If the threshold is inconsistent with the randomness (R < T) of a sampled span, it is erased."
        Claim::AsReceived if received(text).is_none_or(|threshold| threshold.keeps(randomness)) => {
            return state.cloned();
        }
        Claim::AsReceived | Claim::Unknown => None,
        Claim::Threshold(threshold) => threshold.notation(),
    };
    if text.and_then(|text| sub_key(text, THRESHOLD)) == threshold.as_deref() {
        return state.cloned();
    }
    let text = text.unwrap_or_default();
    let ours = threshold.map(|threshold| format!("{THRESHOLD}:{threshold}"));
    let others = || entry_of(text).into_iter().flat_map(|entry| entry.split(';'));
    let is = |pair: &&str, key| pair.split(':').next() == Some(key);
    let randomness = others().filter(|pair| is(pair, RANDOMNESS));
    let rest = others().filter(|pair| !is(pair, RANDOMNESS) && !is(pair, THRESHOLD));
    let mut entry = String::new();
    for pair in ours.as_deref().into_iter().chain(randomness).chain(rest).filter(|pair| !pair.is_empty()) {
        // "MUST NOT exceed 256 characters": what decides comes first, what others wrote gives way.
        if entry.len() + 1 + pair.len() <= MAX_ENTRY {
            if !entry.is_empty() {
                entry.push(';');
            }
            entry.push_str(pair);
        }
    }
    let others = members(text).filter(|(key, _)| *key != VENDOR).map(|(_, member)| member);
    let ours = (!entry.is_empty()).then(|| format!("{VENDOR}={entry}"));
    // A changed entry stands first, and 32 entries are all there may be:
    // https://www.w3.org/TR/trace-context-2/#mutating-the-tracestate-field
    let all: Vec<&str> = ours.as_deref().into_iter().chain(others).take(MAX_MEMBERS).collect();
    (!all.is_empty()).then(|| all.join(",").into())
}

/// The members of a list that was validated when it was received.
fn members(state: &str) -> impl Iterator<Item = (&str, &str)> {
    let members = state.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty());
    members.filter_map(|member| member.split_once('=').map(|(key, _)| (key, member)))
}

/// The value of the entry `ot`.
fn entry_of(state: &str) -> Option<&str> {
    members(state)
        .find(|(key, _)| *key == VENDOR)
        .and_then(|(_, member)| member.split_once('='))
        .map(|(_, value)| value)
}

/// The value of `key` in the entry `ot`.
fn sub_key<'a>(state: &'a str, key: &str) -> Option<&'a str> {
    entry_of(state)?.split(';').filter_map(|pair| pair.split_once(':')).find(|(name, _)| *name == key).map(|(_, v)| v)
}

fn is_hex(digits: &str, length: std::ops::RangeInclusive<usize>) -> bool {
    length.contains(&digits.len()) && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// One more than the largest randomness.
const RANGE: u64 = 1 << 56;

/// OpenTelemetry's entry in `tracestate`, and its parts.
const VENDOR: &str = "ot";
const THRESHOLD: &str = "th";
const RANDOMNESS: &str = "rv";

/// 56 bits.
const DIGITS: usize = 14;

/// "the OpenTelemetry tracestate entry MUST NOT exceed 256 characters".
const MAX_ENTRY: usize = 256;

/// "There can be a maximum of 32 list-members in a list."
const MAX_MEMBERS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_written_as_the_specification_writes_them() {
        for (probability, notation) in
            [(1.0, "0"), (0.5, "8"), (0.25, "c"), (0.75, "4"), (0.125, "e"), (2.0, "0"), (1.0 / 16.0, "f")]
        {
            let threshold = Threshold::of_probability(probability);
            assert_eq!(threshold.notation().as_deref(), Some(notation), "{probability}");
            assert_eq!(Threshold::parse(notation), Some(threshold));
        }
        // "fd70a4" in the specification's table, which rounds to five digits.
        let percent = Threshold::of_probability(0.01).notation().unwrap_or_default();
        assert!(percent.starts_with("fd70a3d70a3d"), "{percent}");
        for never in [0.0, -1.0, f64::NAN] {
            assert_eq!(Threshold::of_probability(never), Threshold::NEVER, "{never}");
            assert_eq!(Threshold::of_probability(never).notation(), None);
        }
    }

    #[test]
    fn an_adjusted_count_is_one_over_the_probability() {
        for (notation, count) in [("0", 1.0), ("8", 2.0), ("c", 4.0), ("f", 16.0)] {
            assert_eq!(Threshold::parse(notation).and_then(Threshold::adjusted_count), Some(count));
        }
        assert_eq!(Threshold::NEVER.adjusted_count(), None);
    }

    #[test]
    fn randomness_is_the_end_of_the_trace_id_unless_it_is_given() {
        let id = TraceId(0x0102_0304_0506_0708_09ab_cdef_0123_4567_u128.to_be_bytes());
        assert_eq!(Randomness::of(id, None), Randomness(0xab_cdef_0123_4567));
        for (state, expected) in [
            ("ot=rv:00000000000001", 1),
            ("a=1, ot=th:8;rv:ffffffffffffff;x:y", 0xff_ffff_ffff_ffff),
            // Not exactly 14 lowercase digits.
            ("ot=rv:1", 0xab_cdef_0123_4567),
            ("ot=rv:FFFFFFFFFFFFFF", 0xab_cdef_0123_4567),
            ("rv=00000000000001", 0xab_cdef_0123_4567),
        ] {
            assert_eq!(Randomness::of(id, Some(state)), Randomness(expected), "{state}");
        }
    }

    #[test]
    fn only_what_is_not_true_any_more_is_changed() {
        let half = Claim::Threshold(Threshold::of_probability(0.5));
        let always = Claim::Threshold(Threshold::ALWAYS);
        let high = Randomness(0xf0_0000_0000_0000);
        let low = Randomness(1);
        for (state, claim, randomness, expected) in [
            (None, half, high, Some("ot=th:8")),
            (None, always, low, Some("ot=th:0")),
            (None, Claim::AsReceived, low, None),
            (None, Claim::Unknown, low, None),
            (Some("a=1 , b=2"), Claim::AsReceived, low, Some("a=1 , b=2")),
            (Some("a=1 , b=2"), Claim::Unknown, low, Some("a=1 , b=2")),
            (Some("a=1,ot=th:8"), half, high, Some("a=1,ot=th:8")),
            (Some("a=1,ot=th:c"), half, high, Some("ot=th:8,a=1")),
            (Some("a=1,ot=rv:f0000000000000;th:c;p:1"), half, high, Some("ot=th:8;rv:f0000000000000;p:1,a=1")),
            (Some("a=1,ot=th:c"), Claim::Unknown, high, Some("a=1")),
            (Some("ot=th:c"), Claim::Unknown, high, None),
            (Some("a=1,ot=th:c;p:1"), Claim::Unknown, high, Some("ot=p:1,a=1")),
            // R < T: whoever wrote it was wrong.
            (Some("a=1,ot=th:c"), Claim::AsReceived, low, Some("a=1")),
            (Some("a=1,ot=th:c"), Claim::AsReceived, high, Some("a=1,ot=th:c")),
        ] {
            let state = state.map(Arc::from);
            let claimed = claimed(state.as_ref(), claim, randomness);
            assert_eq!(claimed.as_deref(), expected, "{state:?} {claim:?}");
        }
    }

    #[test]
    fn the_list_and_the_entry_keep_to_their_bounds() {
        let full = (0..32).map(|n| format!("v{n}=1")).collect::<Vec<_>>().join(",");
        let state = claimed(Some(&full.into()), Claim::Threshold(Threshold::ALWAYS), Randomness(0)).unwrap_or_default();
        assert_eq!(members(&state).count(), 32);
        assert!(state.starts_with("ot=th:0,v0=1,"), "{state}");

        let long = format!("ot=x:{};rv:00000000000001", "y".repeat(230));
        let claim = Claim::Threshold(Threshold::of_probability(0.9));
        let state = claimed(Some(&long.into()), claim, Randomness(1)).unwrap_or_default();
        assert!(entry_of(&state).is_some_and(|entry| entry.len() <= MAX_ENTRY), "{state}");
        assert!(state.contains(";rv:00000000000001") && !state.contains('y'), "{state}");
    }
}
