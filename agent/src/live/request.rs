// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one request says for itself, seen from one end or from both.
//!
//! In: a SERVER span, a CLIENT span, or the two of one call. Out: the words of its line, harmless for a terminal. It
//! reads attributes by the conventions' names and falls back to the span's name: a protocol it has never heard of
//! still gets a line.

use std::{borrow::Cow, time::Duration};

use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_REQUEST_METHOD_ORIGINAL, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS,
    SERVER_PORT, URL_FULL, URL_PATH, URL_QUERY,
};

use super::screen::{Look, harmless};
use crate::{attribute::Value, enrich::ServiceSpan, trace::SpanKind};

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Request<'a> {
    /// Seen from one end.
    One(&'a ServiceSpan),
    /// Seen from both.
    Both { client: &'a ServiceSpan, server: &'a ServiceSpan },
}

/// How a request ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Status {
    /// The code, `ERR` without one, or `-` when there is nothing to say.
    pub(super) text: String,
    pub(super) look: Look,
}

impl<'a> Request<'a> {
    /// The span that covers the whole request.
    pub(super) fn outer(self) -> &'a ServiceSpan {
        match self {
            Self::One(span) | Self::Both { client: span, .. } => span,
        }
    }

    /// What was asked for: `GET /v1/cart?page=2`.
    pub(super) fn title(self) -> String {
        let span = self.outer();
        let Some(method) = method(span) else { return harmless(&span.span.name).into_owned() };
        let target = target(span);
        let gap = if target.is_empty() { "" } else { " " };
        format!("{}{gap}{}", harmless(&method), harmless(&target))
    }

    /// [`Self::title`] with everything that differs between calls of one kind taken out: identifiers, query values.
    pub(super) fn shape(self) -> String {
        let title = self.title();
        let Some((method, target)) = title.split_once(' ') else { return title };
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let segments: Vec<_> = path.split('/').map(|part| if is_identifier(part) { "{id}" } else { part }).collect();
        let mut shape = format!("{method} {}", segments.join("/"));
        for (index, pair) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
            shape.push(if index == 0 { '?' } else { '&' });
            match pair.split_once('=') {
                Some((key, _)) => shape.extend([key, "=…"]),
                None => shape.push_str(pair),
            }
        }
        shape
    }

    /// Who served it, or who called whom.
    pub(super) fn who(self) -> String {
        match self {
            Self::Both { client, server } => {
                format!("{} -> {}", harmless(&client.resource.service), harmless(&server.resource.service))
            }
            Self::One(span) if span.span.kind == SpanKind::Server => harmless(&span.resource.service).into_owned(),
            Self::One(span) => format!("{} -> {}", harmless(&span.resource.service), harmless(&callee(span))),
        }
    }

    /// How it ended, for the one who asked.
    pub(super) fn status(self) -> Status {
        let span = self.outer();
        match (number(span, HTTP_RESPONSE_STATUS_CODE), span.span.failed) {
            (Some(code), failed) => {
                let look = match code {
                    500.. => Look::Bad,
                    400..500 => Look::Notable,
                    _ if failed => Look::Bad,
                    _ => Look::Plain,
                };
                Status { text: code.to_string(), look }
            }
            (None, true) => Status { text: "ERR".to_owned(), look: Look::Bad },
            (None, false) => Status { text: "-".to_owned(), look: Look::Faint },
        }
    }

    /// What went wrong, where the status does not say it already.
    pub(super) fn error(self) -> Option<String> {
        let status = self.status().text;
        let error = match self {
            Self::One(span) => text(span, ERROR_TYPE),
            Self::Both { client, server } => text(client, ERROR_TYPE).or_else(|| text(server, ERROR_TYPE)),
        };
        error.filter(|error| *error != status).map(|error| harmless(&error).into_owned())
    }

    pub(super) fn duration(self) -> Duration {
        duration(self.outer())
    }

    /// The server's part of a call, where it differs noticeably from what the caller waited for.
    pub(super) fn server_part(self) -> Option<Duration> {
        let Self::Both { client, server } = self else { return None };
        let (waited, served) = (duration(client), duration(server));
        let elsewhere = waited.saturating_sub(served);
        (elsewhere >= NOTICEABLE && elsewhere * NOTICEABLE_SHARE >= waited).then_some(served)
    }
}

fn duration(span: &ServiceSpan) -> Duration {
    span.span.end.since(span.span.start)
}

fn method(span: &ServiceSpan) -> Option<Cow<'_, str>> {
    text(span, HTTP_REQUEST_METHOD_ORIGINAL).or_else(|| text(span, HTTP_REQUEST_METHOD))
}

/// Path and query; of a whole URL what follows the authority.
fn target(span: &ServiceSpan) -> Cow<'_, str> {
    if let Some(path) = text(span, URL_PATH) {
        return match text(span, URL_QUERY) {
            Some(query) => format!("{path}?{query}").into(),
            None => path,
        };
    }
    let Some(url) = text(span, URL_FULL) else { return Cow::Borrowed("") };
    let Some((_, rest)) = url.split_once("://") else { return url };
    match rest.find(['/', '?']) {
        Some(at) => rest[at..].to_owned().into(),
        None => Cow::Borrowed("/"),
    }
}

fn callee(span: &ServiceSpan) -> String {
    let host = text(span, SERVER_ADDRESS).unwrap_or(Cow::Borrowed("?"));
    match number(span, SERVER_PORT) {
        Some(port) if host.contains(':') => format!("[{host}]:{port}"),
        Some(port) => format!("{host}:{port}"),
        None => host.into_owned(),
    }
}

fn text<'a>(span: &'a ServiceSpan, key: &str) -> Option<Cow<'a, str>> {
    match value(span, key)? {
        Value::Int(number) => Some(Cow::Owned(number.to_string())),
        text => text.as_str().map(Cow::Borrowed),
    }
}

fn number(span: &ServiceSpan, key: &str) -> Option<i64> {
    match value(span, key)? {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

fn value<'a>(span: &'a ServiceSpan, key: &str) -> Option<&'a Value> {
    span.span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value)
}

/// Whether a path segment names one thing among many: it has a digit and is no version such as `v1`.
fn is_identifier(segment: &str) -> bool {
    let version = segment.strip_prefix('v').is_some_and(|rest| !rest.is_empty() && rest.len() <= 2 && all_digits(rest));
    !version && segment.bytes().any(|byte| byte.is_ascii_digit())
}

fn all_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Below a millisecond the difference between the two ends is the machine, not the service.
const NOTICEABLE: Duration = Duration::from_millis(1);

/// One in this many parts of the caller's time, a fifth, has to be spent outside the server.
const NOTICEABLE_SHARE: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attribute::Attribute,
        live::sample::{client, server},
    };

    #[test]
    fn titles_come_from_either_end() {
        let cases: [(ServiceSpan, &str, &str); 8] = [
            (server(1, 1, "s", "GET", "/a?b=1&c").into(), "GET /a?b=1&c", "GET /a?b=…&c"),
            (client(1, 1, "s", "GET", "/a?b=1").into(), "GET /a?b=1", "GET /a?b=…"),
            (client(1, 1, "s", "GET", "").into(), "GET /", "GET /"),
            (client(1, 1, "s", "GET", "?q").into(), "GET ?q", "GET ?q"),
            (server(1, 1, "s", "GET", "/v1/users/42/x7").into(), "GET /v1/users/42/x7", "GET /v1/users/{id}/{id}"),
            (server(1, 1, "s", "OPTIONS", "*").into(), "OPTIONS *", "OPTIONS *"),
            (server(1, 1, "s", "GET", "/\x1b[2J").into(), "GET /\\u{1b}[2J", "GET /{id}"),
            (server(1, 1, "s", "GET", "/größe").into(), "GET /größe", "GET /größe"),
        ];
        for (span, title, shape) in &cases {
            let request = Request::One(span);
            assert_eq!((request.title().as_str(), request.shape().as_str()), (*title, *shape));
        }
    }

    #[test]
    fn an_unknown_method_is_shown_as_it_was_sent_and_an_unknown_protocol_by_its_span() {
        let mut span: ServiceSpan = server(1, 1, "s", "_OTHER", "/").into();
        span.span.attributes.push(Attribute::new(HTTP_REQUEST_METHOD_ORIGINAL, "PURGE"));
        assert_eq!(Request::One(&span).title(), "PURGE /");
        span.span.attributes.clear();
        span.span.name = "SELECT shop".into();
        assert_eq!(Request::One(&span).title(), "SELECT shop");
        assert_eq!(Request::One(&span).status().text, "-");
    }

    #[test]
    fn the_one_who_asked_decides_how_it_ended() {
        let (called, served) = (client(1, 1, "a", "GET", "/").error("timeout"), server(1, 2, "b", "GET", "/"));
        let (called, served) = (called.into(), served.status(200).into());
        let both = Request::Both { client: &called, server: &served };
        assert_eq!((both.status().text.as_str(), both.error().as_deref()), ("ERR", Some("timeout")));
        assert_eq!(both.who(), "a -> b");
        assert_eq!(Request::One(&called).who(), "a -> callee:8080");
        assert_eq!(Request::One(&served).error(), None);
    }

    #[test]
    fn the_servers_part_is_shown_when_a_fifth_of_the_time_went_elsewhere() {
        let part = |client_us, server_us| {
            let called = client(1, 1, "a", "GET", "/").at(0, client_us).into();
            let served = server(1, 2, "b", "GET", "/").at(0, server_us).into();
            Request::Both { client: &called, server: &served }.server_part().map(|part| part.as_micros())
        };
        assert_eq!(part(10_000, 8_000), Some(8_000));
        assert_eq!(part(10_000, 8_001), None);
        assert_eq!(part(900, 10), None);
    }
}
