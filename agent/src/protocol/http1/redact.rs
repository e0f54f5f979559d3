// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Secrets in queries.
//!
//! In: a query as it was sent, and what the operator wants to be hidden. Out: the same with the values of secret keys
//! replaced; keys and order stay. What is secret in paths and in the values of other keys only the operator can say.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::uri::is_scheme;
use crate::protocol::disclosure::{Disclosure, REDACTED};

/// What stands for the user information of a URL, its `@` included.
pub(super) const REDACTED_USERINFO: &str = "REDACTED:REDACTED@";

/// Appends `query` to `out`.
pub(super) fn push_query(query: &str, disclosure: &Disclosure, out: &mut String) {
    if !disclosure.looks_into_texts() {
        return push_fields(query, disclosure, out);
    }
    let mut fields = String::with_capacity(query.len() + REDACTED.len());
    push_fields(query, disclosure, &mut fields);
    out.push_str(&disclosure.text(&fields));
}

/// A header field's value that is a URL, or a part of one, without user information and what is hidden in the others.
pub(super) fn url(url: &str, disclosure: &Disclosure) -> String {
    let (front, query) = url.split_once('?').map_or((url, None), |(front, query)| (front, Some(query)));
    let scheme = front.find("://").filter(|end| is_scheme(&front[..*end]));
    let authority = if front.starts_with("//") { 2 } else { scheme.map_or(0, |end| end + 3) };
    let path = front[authority..].find('/').map_or(front.len(), |path| authority + path);
    let path = if authority == 0 { 0 } else { path };
    let mut out = String::with_capacity(url.len() + REDACTED.len());
    match front[authority..path].rsplit_once('@') {
        None => out.push_str(&front[..path]),
        Some((_, host)) => out.extend([&front[..authority], REDACTED_USERINFO, host]),
    }
    out.push_str(&disclosure.path(&front[path..]));
    if let Some(query) = query {
        out.push('?');
        push_query(query, disclosure, &mut out);
    }
    out
}

fn push_fields(query: &str, disclosure: &Disclosure, out: &mut String) {
    let mut rest = Some(query);
    while let Some(fields) = rest {
        let (field, after) = around(fields, b'&');
        match secret(field, disclosure) {
            None => out.push_str(field),
            Some(start) => {
                out.push_str(&field[..start]);
                out.push_str(REDACTED);
            }
        }
        if after.is_some() {
            out.push('&');
        }
        rest = after;
    }
}

/// `text` before and after the first of an ASCII character: as `split_once`, which takes several times as long for texts as
/// short as these.
fn around(text: &str, character: u8) -> (&str, Option<&str>) {
    match memchr(character, text.as_bytes()) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Where in a field of the query a secret begins.
///
/// Some servers separate fields by `;` as well, others take it for a part of the value. So a secret key is looked for
/// after every `;`, and its value reaches to the next `&`.
fn secret(field: &str, disclosure: &Disclosure) -> Option<usize> {
    let (mut start, mut rest) = (0, Some(field));
    while let Some(parts) = rest {
        let (part, after) = around(parts, b';');
        if let (key, Some(_)) = around(part, b'=')
            && is_secret(key, disclosure)
        {
            return Some(start + key.len() + 1);
        }
        start += part.len() + 1;
        rest = after;
    }
    None
}

/// Whether a key, percent-encoded or not, names a secret; `user[password]` names one as well.
fn is_secret(key: &str, disclosure: &Disclosure) -> bool {
    let key = decoded(key);
    let is_secret = |name: &str| {
        let usual = STANDARD.contains(&name) || EXTRA.iter().any(|extra| extra.eq_ignore_ascii_case(name));
        usual || disclosure.is_secret(name)
    };
    match memchr2(b'[', b']', key.as_bytes()) {
        None => is_secret(key.trim()),
        Some(_) => key.split(['[', ']']).map(str::trim).any(is_secret),
    }
}

/// `key` without percent-encoding, and with `+` read as a blank, as forms are encoded.
fn decoded(key: &str) -> Cow<'_, str> {
    if memchr2(b'%', b'+', key.as_bytes()).is_none() {
        return Cow::Borrowed(key);
    }
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    rest = after;
                    high << 4 | low
                }
                _ => b'%',
            },
            (byte, _) => *byte,
        });
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// What the conventions replace by default, case-sensitively
/// (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/url/#url-query>).
const STANDARD: &[&str] = &[
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
];

/// What we replace beyond that, in any case: credentials that applications put into queries although they should not.
const EXTRA: &[&str] = &[
    "token",
    "access_token",
    "refresh_token",
    "id_token",
    "api_key",
    "apikey",
    "password",
    "passwd",
    "secret",
    "client_secret",
    "code",
    "session",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::disclosure::{Redact, Settings};

    fn redacted(query: &str) -> String {
        by(&Redact::default(), query)
    }

    fn by(redact: &Redact, query: &str) -> String {
        let mut out = String::new();
        push_query(query, &disclosure(redact), &mut out);
        out
    }

    fn disclosure(redact: &Redact) -> Disclosure {
        Disclosure::new(&Settings { redact: redact.clone(), ..Settings::default() }).expect("good settings")
    }

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_the_operator_calls_secret_is_hidden_too() {
        let keys = Redact { query: list(&["customer_no", "pin"]), ..Redact::default() };
        let personal = Redact { emails: true, card_numbers: true, patterns: list(&["sk_[a-z]+"]), ..Redact::default() };
        for (redact, query, expected) in [
            (&keys, "customer_no=1&PIN=2&pins=3&token=4", "customer_no=REDACTED&PIN=REDACTED&pins=3&token=REDACTED"),
            (&keys, "user[pin]=1&c%75stomer_no=2", "user[pin]=REDACTED&c%75stomer_no=REDACTED"),
            (&keys, "mail=a@b.org", "mail=a@b.org"),
            (&personal, "mail=a@b.org&n=4111111111111111&k=sk_abc1", "mail=REDACTED&n=REDACTED&k=REDACTED1"),
            (&personal, "mail=a%40b.org&sig=x", "mail=REDACTED&sig=REDACTED"),
        ] {
            assert_eq!(by(redact, query), expected, "{query}");
        }
    }

    #[test]
    fn a_url_in_a_header_hides_as_much_as_a_target() {
        let disclosure = disclosure(&Redact { paths: list(&["/reset/{token}"]), ..Redact::default() });
        for (sent, expected) in [
            ("https://shop/reset/abc?sig=1#x", "https://shop/reset/REDACTED?sig=REDACTED"),
            ("https://u:p@shop:8080/a?x=1&token=2", "https://REDACTED:REDACTED@shop:8080/a?x=1&token=REDACTED"),
            ("//u@shop/reset/abc", "//REDACTED:REDACTED@shop/reset/REDACTED"),
            ("/reset/abc", "/reset/REDACTED"),
            ("/reset//abc", "/reset//REDACTED"),
            ("https://shop", "https://shop"),
            ("https://u:p@shop", "https://REDACTED:REDACTED@shop"),
            ("a?token=b", "a?token=REDACTED"),
            ("", ""),
        ] {
            assert_eq!(url(sent, &disclosure), expected, "{sent}");
        }
    }

    #[test]
    fn values_of_secret_keys_are_replaced() {
        let cases = [
            ("", ""),
            ("x=1&sig=abc", "x=1&sig=REDACTED"),
            ("sig=a&sig=b", "sig=REDACTED&sig=REDACTED"),
            ("SIG=abc&Signature=x&signature=y", "SIG=abc&Signature=REDACTED&signature=y"),
            (
                "X-Amz-Signature=1&X-Amz-Date=2&X-Amz-Credential=3",
                "X-Amz-Signature=REDACTED&X-Amz-Date=2&X-Amz-Credential=REDACTED",
            ),
            (
                "X-Amz-Security-Token=a&AWSAccessKeyId=b&X-Goog-Signature=c",
                "X-Amz-Security-Token=REDACTED&AWSAccessKeyId=REDACTED&X-Goog-Signature=REDACTED",
            ),
            ("Token=a&API_KEY=b&PassWord=c", "Token=REDACTED&API_KEY=REDACTED&PassWord=REDACTED"),
            (
                "access_token=a&refresh_token=b&id_token=c&apikey=d",
                "access_token=REDACTED&refresh_token=REDACTED&id_token=REDACTED&apikey=REDACTED",
            ),
            (
                "passwd=a&secret=b&client_secret=c&code=d&session=e",
                "passwd=REDACTED&secret=REDACTED&client_secret=REDACTED&code=REDACTED&session=REDACTED",
            ),
            ("token=", "token=REDACTED"),
            ("token", "token"),
            ("token=a=b", "token=REDACTED"),
            ("tokens=1&mytoken=2&zip_code=3", "tokens=1&mytoken=2&zip_code=3"),
            ("&&a&", "&&a&"),
        ];
        for (query, expected) in cases {
            assert_eq!(redacted(query), expected, "{query}");
        }
    }

    #[test]
    fn an_encoded_key_does_not_escape() {
        let cases = [
            ("%74oken=abc", "%74oken=REDACTED"),
            ("s%69g=abc", "s%69g=REDACTED"),
            ("%70%61%73%73%77%6F%72%64=abc", "%70%61%73%73%77%6F%72%64=REDACTED"),
            ("access%5Ftoken=abc", "access%5Ftoken=REDACTED"),
            ("+token=abc", "+token=REDACTED"),
            (
                "user[password]=abc&user%5Bpassword%5D=abc&token[]=x",
                "user[password]=REDACTED&user%5Bpassword%5D=REDACTED&token[]=REDACTED",
            ),
            ("100%=x&%zz=y&%f=z&%FF%74oken=1", "100%=x&%zz=y&%f=z&%FF%74oken=1"),
        ];
        for (query, expected) in cases {
            assert_eq!(redacted(query), expected, "{query}");
        }
    }

    #[test]
    fn a_semicolon_neither_hides_a_key_nor_ends_a_secret() {
        assert_eq!(redacted("x=1;token=abc&y=2"), "x=1;token=REDACTED&y=2");
        assert_eq!(redacted("token=ab;cd&y=2"), "token=REDACTED&y=2");
        assert_eq!(redacted("x=1;token=&y=2"), "x=1;token=REDACTED&y=2");
    }
}
