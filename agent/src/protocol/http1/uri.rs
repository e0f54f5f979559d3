// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parts of a request target and of an authority.
//!
//! In: text from a request line or a header. Out: its parts, borrowed. It decodes and normalises nothing, and refuses
//! nothing: what cannot be taken apart is one part.

use memchr::{memchr, memrchr};

use super::Method;

/// The four forms of a request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Target<'a> {
    /// `/path?query`.
    Origin { path: &'a str, query: Option<&'a str> },
    /// `scheme://authority/path?query`.
    Absolute { scheme: &'a str, authority: &'a str, path: &'a str, query: Option<&'a str> },
    /// `host:port`, of CONNECT.
    Authority(&'a str),
    /// `*`, of OPTIONS.
    Asterisk,
}

/// `userinfo@host:port` (RFC 3986 section 3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Authority<'a> {
    /// Whether there is a user's name, or even a password.
    pub(super) userinfo: bool,
    /// Host and port, as written.
    pub(super) host_port: &'a str,
    /// The host, without the brackets of an IPv6 address.
    pub(super) host: &'a str,
    /// The port, where there is a valid one.
    pub(super) port: Option<u16>,
}

impl<'a> Target<'a> {
    pub(super) fn parse(method: Method, target: &'a str) -> Self {
        // "The "authority-form" of request-target is only used for CONNECT requests".
        // https://www.rfc-editor.org/rfc/rfc9112#section-3.2.3
        if method == Method::Connect {
            return Self::Authority(target);
        }
        if target == "*" {
            return Self::Asterisk;
        }
        // A fragment is no part of a request target; one that a client sends all the same may hold a token.
        let target = memchr(b'#', target.as_bytes()).map_or(target, |end| &target[..end]);
        // Nearly all targets are paths, which no scheme begins like.
        if !target.starts_with('/')
            && let Some((scheme, rest)) = target.split_once("://")
            && is_scheme(scheme)
        {
            let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let (path, query) = path_and_query(local);
            // "If the target URI's path component is empty, the client MUST send "/" as the path within the
            // origin-form of request-target": the same resource. https://www.rfc-editor.org/rfc/rfc9112#section-3.2.1
            return Self::Absolute { scheme, authority, path: if path.is_empty() { "/" } else { path }, query };
        }
        let (path, query) = path_and_query(target);
        Self::Origin { path, query }
    }
}

impl<'a> Authority<'a> {
    pub(super) fn parse(authority: &'a str) -> Self {
        let (userinfo, host_port) = match memrchr(b'@', authority.as_bytes()) {
            Some(at) => (true, &authority[at + 1..]),
            None => (false, authority),
        };
        let (host, port) = match host_port.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':')),
            None => match memchr(b':', host_port.as_bytes()) {
                // More than one colon without brackets is an IPv6 address without a port.
                Some(colon) if memchr(b':', &host_port.as_bytes()[colon + 1..]).is_none() => {
                    (&host_port[..colon], Some(&host_port[colon + 1..]))
                }
                _ => (host_port, None),
            },
        };
        Self { userinfo, host_port, host, port: port.and_then(|port| port.parse().ok()) }
    }
}

/// The port that a URI without one means (RFC 9110 sections 4.2.1 and 4.2.2).
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

/// "scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )" (RFC 3986 section 3.1).
pub(super) fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn path_and_query(text: &str) -> (&str, Option<&str>) {
    match memchr(b'?', text.as_bytes()) {
        Some(end) => (&text[..end], Some(&text[end + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_come_in_four_forms() {
        let origin = |path, query| Target::Origin { path, query };
        let cases = [
            (Method::Get, "/", origin("/", None)),
            (Method::Get, "/a/b?x=1?y", origin("/a/b", Some("x=1?y"))),
            (Method::Get, "/a?", origin("/a", Some(""))),
            (Method::Get, "/a?x=http://b/c", origin("/a", Some("x=http://b/c"))),
            (Method::Get, "/a#access_token=1", origin("/a", None)),
            (Method::Get, "no/form", origin("no/form", None)),
            (Method::Get, "9://x", origin("9://x", None)),
            (
                Method::Get,
                "http://a.example/x?y",
                Target::Absolute { scheme: "http", authority: "a.example", path: "/x", query: Some("y") },
            ),
            (
                Method::Get,
                "http://u:p@[::1]:8080",
                Target::Absolute { scheme: "http", authority: "u:p@[::1]:8080", path: "/", query: None },
            ),
            (
                Method::Get,
                "http://a?q",
                Target::Absolute { scheme: "http", authority: "a", path: "/", query: Some("q") },
            ),
            (Method::Connect, "a.example:443", Target::Authority("a.example:443")),
            (Method::Options, "*", Target::Asterisk),
        ];
        for (method, text, expected) in cases {
            assert_eq!(Target::parse(method, text), expected, "{text}");
        }
    }

    #[test]
    fn authorities_have_a_host_and_may_have_a_port() {
        let cases = [
            ("a", false, "a", None),
            ("a:80", false, "a", Some(80)),
            ("a:", false, "a", None),
            ("a:http", false, "a", None),
            ("a:65536", false, "a", None),
            ("[::1]:8080", false, "::1", Some(8080)),
            ("[::1]", false, "::1", None),
            ("::1", false, "::1", None),
            ("u:p@a:1", true, "a", Some(1)),
            ("u@x@a", true, "a", None),
            ("", false, "", None),
        ];
        for (text, userinfo, host, port) in cases {
            let authority = Authority::parse(text);
            assert_eq!((authority.userinfo, authority.host, authority.port), (userinfo, host, port), "{text}");
        }
    }
}
