// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decodes what a target declares of itself.
//!
//! In: the value of `OTEL_RESOURCE_ATTRIBUTES`. Out: keys and values, all of them or none. It knows no key.

/// The attributes, in their order; of a key that comes twice, the last. Nothing if the value is malformed: "In case of
/// any error, e.g. failure during the decoding process, the entire environment variable value SHOULD be discarded"
/// (<https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable>).
pub(crate) fn parse(value: &str) -> Option<Vec<(String, String)>> {
    if value.len() > MAX_BYTES {
        return None;
    }
    let mut attributes: Vec<(String, String)> = Vec::new();
    // A comma too many declares nothing, and hurts nobody.
    for member in value.split(',').filter(|member| !member.trim().is_empty()) {
        let (key, value) = member.split_once('=')?;
        let (key, value) = (decode(key.trim())?, decode(value.trim())?);
        if key.is_empty() {
            return None;
        }
        match attributes.iter().position(|(known, _)| *known == key) {
            Some(known) => attributes[known].1 = value,
            None if attributes.len() < MAX_ATTRIBUTES => attributes.push((key, value)),
            None => return None,
        }
    }
    Some(attributes)
}

/// "The `,` and `=` characters in keys and values MUST be percent encoded. Other characters MAY be percent-encoded"
/// (as above). What is encoded is UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            decoded.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

/// 8 KiB: baggage, whose syntax it is, has that limit (<https://www.w3.org/TR/baggage/#limits>), and every process that
/// is remembered may cost that much.
const MAX_BYTES: usize = 8 << 10;

/// The default of OTEL_ATTRIBUTE_COUNT_LIMIT.
const MAX_ATTRIBUTES: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<&[(&str, &str)]>) {
        let parsed = parse(value);
        let parsed: Option<Vec<_>> =
            parsed.as_ref().map(|all| all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect());
        assert_eq!(parsed.as_deref(), expected, "{value:?}");
    }

    #[test]
    fn keys_and_values_are_decoded_or_all_discarded() {
        check("", Some(&[]));
        check("service.name=cart", Some(&[("service.name", "cart")]));
        check("a=1,b=2", Some(&[("a", "1"), ("b", "2")]));
        check(" a = 1 ,\tb = 2 ", Some(&[("a", "1"), ("b", "2")]));
        check("a=1,,b=2,", Some(&[("a", "1"), ("b", "2")]));
        check("a=", Some(&[("a", "")]));
        check("a=x%2Cy%3dz", Some(&[("a", "x,y=z")]));
        check("a%2eb=%C3%A9", Some(&[("a.b", "é")]));
        check("a=x=y", Some(&[("a", "x=y")]));
        check("a=1,a=2", Some(&[("a", "2")]));
        check("a=1,b", None);
        check("=1", None);
        check("a=1,b=%", None);
        check("a=1,b=%2", None);
        check("a=1,b=%2g", None);
        check("a=1,b=%+1", None);
        check("a=1,b=%ff", None);
        check("a=%é", None);
    }

    #[test]
    fn the_number_and_the_length_are_bounded() {
        let many = |n: usize| (0..n).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(parse(&many(MAX_ATTRIBUTES)).map(|all| all.len()), Some(MAX_ATTRIBUTES));
        assert_eq!(parse(&many(MAX_ATTRIBUTES + 1)), None);
        assert!(parse(&format!("k={}", "v".repeat(MAX_BYTES - 2))).is_some());
        assert!(parse(&format!("k={}", "v".repeat(MAX_BYTES - 1))).is_none());
    }
}
