// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What parsers tell of what was said: which header fields they may hand out, and what they have to hide.
//!
//! In: the operator's [`Settings`], and texts from the wire. Out: the same texts without what is to be hidden, and names
//! of header fields. It hides before a message leaves its parser, so that nothing to the right has ever seen a secret. It
//! looks into no body, and undoes no encoding but that of a path's words.

mod path;
mod personal;

use std::borrow::Cow;

use opentelemetry_semantic_conventions::attribute::{HTTP_REQUEST_HEADER, HTTP_RESPONSE_HEADER};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::path::PathPattern;
use super::Side;

/// What an operator says about what is told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// What is told beyond what spans have anyway.
    pub capture: Capture,
    /// What is hidden beyond what is hidden anyway.
    pub redact: Redact,
}

/// What is told beyond what spans have anyway.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// At spans of requests that are served.
    pub server: Headers,
    /// At spans of requests that are made.
    pub client: Headers,
    /// Adds `http.request.body.size` and `http.response.body.size` to spans, where all of a body was seen.
    pub body_sizes: bool,
}

/// Header fields of one kind of spans.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Header fields of requests that become attributes `http.request.header.<name>`. Values of credentials, such as
    /// `authorization` and `cookie`, are replaced all the same.
    pub request_headers: Vec<String>,
    /// Likewise of responses: `http.response.header.<name>`.
    pub response_headers: Vec<String>,
    /// Methods that are told by name, instead of those of the conventions; every other one is `_OTHER`. Their case matters.
    pub known_methods: Vec<String>,
}

/// What is hidden beyond what is hidden anyway.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redact {
    /// Keys of queries whose values are replaced, in any case, besides those of the conventions and the usual ones
    /// (`token`, `password`, `api_key`).
    pub query: Vec<String>,
    /// Header fields whose values are replaced, if they are captured, besides those that are credentials.
    pub headers: Vec<String>,
    /// Paths of which parts are replaced: `/reset/{token}` hides what stands there, `*` stands for a part that is left, and
    /// `{*rest}` at the end hides everything from there on.
    pub paths: Vec<String>,
    /// Replaces e-mail addresses in paths, queries, header values and the user agent.
    pub emails: bool,
    /// Replaces what looks like the number of a payment card there: 13 to 19 digits with a valid check digit. One in ten
    /// other numbers of that length has one as well.
    pub card_numbers: bool,
    /// Regular expressions: whatever matches one of them is replaced there.
    pub patterns: Vec<String>,
}

/// The settings, ready to be obeyed.
#[derive(Clone, Debug, Default)]
pub struct Disclosure {
    server: Told,
    client: Told,
    body_sizes: bool,
    query: Vec<String>,
    paths: Vec<PathPattern>,
    emails: Option<Regex>,
    card_numbers: bool,
    patterns: Vec<Regex>,
}

/// Header fields that are handed out, as attributes call them.
#[derive(Clone, Debug, Default)]
struct Told {
    request: Vec<Field>,
    response: Vec<Field>,
    /// Empty: those of the conventions.
    methods: Vec<String>,
}

/// A header field that may be handed out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Field {
    /// Lower case.
    pub(super) name: String,
    /// The attribute's key.
    pub(super) key: String,
    pub(super) contains: Contains,
}

/// What a header field's values are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Contains {
    /// Credentials: nobody is to see them.
    Secret,
    /// URLs, which may have secrets in them.
    Url,
    Text,
}

impl Disclosure {
    /// What `settings` say, or everything that is wrong with them, each with the setting's name in front.
    pub fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        let Settings { capture, redact } = settings;
        let mut mistakes = Vec::new();
        let headers: Vec<_> = redact.headers.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let mut told = |side: &str, of: &Headers| {
            let mut fields = |key: &str, prefix: &str, names: &[String]| {
                let path = format!("capture.{side}.{key}");
                if names.len() > MOST_FIELDS {
                    mistakes.push(format!("{path} has more than {MOST_FIELDS} names"));
                }
                let mut fields: Vec<Field> = Vec::new();
                for name in names.iter().take(MOST_FIELDS).map(|name| name.trim().to_ascii_lowercase()) {
                    if !is_token(&name) {
                        mistakes.push(format!("{path} has {name:?}, which is no name of a header field"));
                    } else if !fields.iter().any(|known| known.name == name) {
                        fields.push(Field::new(name, prefix, &headers));
                    }
                }
                fields
            };
            let methods: Vec<_> = of.known_methods.iter().map(|method| method.trim().to_owned()).collect();
            let told = Told {
                methods,
                request: fields("request_headers", HTTP_REQUEST_HEADER, &of.request_headers),
                response: fields("response_headers", HTTP_RESPONSE_HEADER, &of.response_headers),
            };
            let path = format!("capture.{side}.known_methods");
            if told.methods.len() > MOST_FIELDS {
                mistakes.push(format!("{path} has more than {MOST_FIELDS} names"));
            }
            for name in told.methods.iter().filter(|name| !is_token(name)) {
                mistakes.push(format!("{path} has {name:?}, which is no name of a method"));
            }
            told
        };
        let (server, client) = (told("server", &capture.server), told("client", &capture.client));
        for name in headers.iter().filter(|name| !is_token(name)) {
            mistakes.push(format!("redact.headers has {name:?}, which is no name of a header field"));
        }
        let mut paths = Vec::new();
        for text in &redact.paths {
            match PathPattern::parse(text) {
                Some(path) => paths.push(path),
                None => mistakes.push(format!(
                    "redact.paths has {text:?}; a pattern begins with / and its parts are words, * and {{name}}, the \
                     last one may be {{*name}}, and one of them has a name"
                )),
            }
        }
        let mut patterns = Vec::new();
        for text in &redact.patterns {
            match personal::pattern(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(why) => mistakes.push(format!("redact.patterns has {text:?}, which {why}")),
            }
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            server,
            client,
            body_sizes: capture.body_sizes,
            query: redact.query.iter().map(|key| key.trim().to_owned()).collect(),
            paths,
            emails: redact.emails.then(personal::emails),
            card_numbers: redact.card_numbers,
            patterns,
        })
    }

    /// Whether the sizes of bodies are told.
    pub(super) fn body_sizes(&self) -> bool {
        self.body_sizes
    }

    /// Whether spans of `role`'s kind tell a method by its name; nothing where that is for the conventions to say.
    pub(super) fn knows_method(&self, role: Side, name: &str) -> Option<bool> {
        let methods = &self.told(role).methods;
        (!methods.is_empty()).then(|| methods.iter().any(|known| known == name))
    }

    /// Fields of requests that spans of `role`'s kind tell of.
    pub(super) fn of_request(&self, role: Side) -> &[Field] {
        &self.told(role).request
    }

    /// The same of responses.
    pub(super) fn of_response(&self, role: Side) -> &[Field] {
        &self.told(role).response
    }

    /// Whether the operator calls the query's key `name` a secret.
    pub(super) fn is_secret(&self, name: &str) -> bool {
        self.query.iter().any(|key| key.eq_ignore_ascii_case(name))
    }

    /// `path` without what is to be hidden.
    pub(super) fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if self.paths.is_empty() {
            return self.text(path);
        }
        match path::hide(&self.paths, path) {
            Some(hidden) => self.text(&hidden).into_owned().into(),
            None => self.text(path),
        }
    }

    /// Whether [`text`](Self::text) may hide anything.
    pub(super) fn looks_into_texts(&self) -> bool {
        self.card_numbers || self.emails.is_some() || !self.patterns.is_empty()
    }

    /// `text` without what looks like something that is to be hidden.
    pub(super) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.looks_into_texts() {
            return text.into();
        }
        let mut text = Cow::Borrowed(text);
        if self.card_numbers
            && let Some(hidden) = personal::without_card_numbers(&text)
        {
            text = hidden.into();
        }
        for pattern in self.emails.iter().chain(&self.patterns) {
            if let Cow::Owned(hidden) = pattern.replace_all(&text, REDACTED) {
                text = hidden.into();
            }
        }
        text
    }

    fn told(&self, role: Side) -> &Told {
        match role {
            Side::Server => &self.server,
            Side::Client => &self.client,
        }
    }
}

impl Field {
    fn new(name: String, prefix: &str, secret: &[String]) -> Self {
        let contains = match &*name {
            name if SECRET_HEADERS.contains(&name) || secret.iter().any(|secret| secret == name) => Contains::Secret,
            "content-location" | "location" | "referer" => Contains::Url,
            _ => Contains::Text,
        };
        Self { key: format!("{prefix}.{name}"), name, contains }
    }
}

/// "token = 1*tchar" (RFC 9110 section 5.6.2).
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// What stands for a secret: the word of the conventions.
pub(super) const REDACTED: &str = "REDACTED";

/// Header fields whose values are credentials whatever the operator says: that they were sent is all that is told.
const SECRET_HEADERS: &[&str] = &[
    "api-key",
    "apikey",
    "authentication-info",
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-forwarded-access-token",
    "x-gitlab-token",
    "x-goog-api-key",
    "x-vault-token",
    "x-xsrf-token",
];

/// Names in one list: each is looked for among all fields of each head, and a span has at most 128 attributes.
const MOST_FIELDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn names_become_keys_and_credentials_are_known() {
        let capture = Capture {
            server: Headers {
                request_headers: list(&["X-Tenant", "x-tenant", " Referer", "Cookie", "X-Pin"]),
                ..Headers::default()
            },
            client: Headers { response_headers: list(&["Set-Cookie"]), ..Headers::default() },
            body_sizes: false,
        };
        let redact = Redact { headers: list(&["x-PIN"]), ..Redact::default() };
        let disclosure = Disclosure::new(&Settings { capture, redact }).expect("good settings");
        let fields = |fields: &[Field]| -> Vec<_> { fields.iter().map(|f| (f.key.clone(), f.contains)).collect() };
        let key = |text: &str| text.to_owned();
        assert_eq!(
            fields(disclosure.of_request(Side::Server)),
            [
                (key("http.request.header.x-tenant"), Contains::Text),
                (key("http.request.header.referer"), Contains::Url),
                (key("http.request.header.cookie"), Contains::Secret),
                (key("http.request.header.x-pin"), Contains::Secret),
            ]
        );
        assert_eq!(
            fields(disclosure.of_response(Side::Client)),
            [(key("http.response.header.set-cookie"), Contains::Secret)]
        );
        assert_eq!(disclosure.of_request(Side::Client), []);
        assert_eq!(disclosure.of_response(Side::Server), []);
    }

    #[test]
    fn every_mistake_is_named() {
        let many: Vec<_> = (0..33).map(|n| format!("x-{n}")).collect();
        let settings = Settings {
            capture: Capture {
                server: Headers { request_headers: list(&["x y", ""]), ..Headers::default() },
                client: Headers { response_headers: many, ..Headers::default() },
                ..Capture::default()
            },
            redact: Redact {
                headers: list(&["a:"]),
                paths: list(&["reset/{t}", "/a/b", "/a/{*rest}/b", "/a-{id}"]),
                patterns: list(&["a(", "a*"]),
                ..Redact::default()
            },
        };
        let mistakes = Disclosure::new(&settings).expect_err("all of it");
        let places: Vec<_> = mistakes.iter().filter_map(|told| told.split(' ').next()).collect();
        let expected = [
            ("capture.server.request_headers", 2),
            ("capture.client.response_headers", 1),
            ("redact.headers", 1),
            ("redact.paths", 4),
            ("redact.patterns", 2),
        ];
        let expected: Vec<_> = expected.into_iter().flat_map(|(place, times)| vec![place; times]).collect();
        assert_eq!(places, expected, "{mistakes:#?}");
    }

    #[test]
    fn texts_are_left_alone_unless_told_otherwise() {
        let text = "bob@example.com 4111 1111 1111 1111";
        assert_eq!(Disclosure::default().text(text), text);
        let redact = Redact { patterns: list(&["[a-z]+@"]), card_numbers: true, ..Redact::default() };
        let disclosure = Disclosure::new(&Settings { redact, ..Settings::default() }).expect("good settings");
        assert_eq!(disclosure.text(text), "REDACTEDexample.com REDACTED");
    }
}
