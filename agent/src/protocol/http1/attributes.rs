// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a span says about an HTTP exchange.
//!
//! In: complete heads and the connection they came over. Out: attributes and the outcome by the stable HTTP conventions
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>), secrets already replaced. It does not resolve
//! names, knows no routes, and reads no header that is neither in [`super::head::Fields`] nor asked for by name.

use std::{
    borrow::Cow,
    fmt::Write,
    hint::black_box,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use httparse::Header;
use opentelemetry_semantic_conventions::attribute::{
    CLIENT_ADDRESS, ERROR_TYPE, HTTP_REQUEST_BODY_SIZE, HTTP_REQUEST_METHOD, HTTP_REQUEST_METHOD_ORIGINAL,
    HTTP_RESPONSE_BODY_SIZE, HTTP_RESPONSE_STATUS_CODE, NETWORK_LOCAL_ADDRESS, NETWORK_PEER_ADDRESS, NETWORK_PEER_PORT,
    NETWORK_PROTOCOL_VERSION, NETWORK_TRANSPORT, SERVER_ADDRESS, SERVER_PORT, URL_FULL, URL_PATH, URL_QUERY,
    URL_SCHEME, USER_AGENT_ORIGINAL,
};
use spantap_common::{endpoint::Endpoint, event::unix::Named};

use super::{
    EndedBy, Method,
    head::RequestHead,
    redact::{self, REDACTED_USERINFO, push_query},
    uri::{Authority, Target, default_port, is_scheme},
};
use crate::{
    attribute::{Attribute, FewAttributes, Value},
    protocol::{
        Link, Outcome, Side,
        common::{Common, LONGEST_TEXT},
        disclosure::{Contains, Disclosure, Field, REDACTED},
    },
};

/// How the end of a response is known, where its own framing could not be followed to it.
pub(super) const RESPONSE_END: &str = "spantap.response.end";

/// The process at the other end of a unix socket, which has no address where it did not bind one.
const PEER_PID: &str = "spantap.peer.pid";
/// Values of header fields that were captured and are longer than there is room for.
const HEADERS_CUT: &str = "spantap.headers.cut";
/// Who asks for the trace to be kept, whatever is decided otherwise.
const SAMPLING_ASKED: &str = "spantap.sampling.asked";

/// A connection, and what the spans of its requests say again and again.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) role: Side,
    pub(super) common: Arc<Common>,
    ends: Ends,
    host: Repeated,
    user_agent: Repeated,
}

/// The two ends of a connection, as spans tell them.
#[derive(Debug)]
struct Ends {
    /// Address of this end; a unix socket's path. None where it has neither.
    local: Option<Arc<str>>,
    /// The same of the other end.
    peer: Option<Arc<str>>,
    /// Of no meaning over unix sockets, as is the next.
    local_port: u16,
    peer_port: u16,
    /// Of a unix socket: the process at the other end, 0 where unknown. None of others.
    peer_pid: Option<u32>,
}

/// The last text that stood in one place. Law: at most [`LONGEST_TEXT`] bytes.
#[derive(Debug, Default)]
struct Repeated(Option<Arc<str>>);

impl Connection {
    /// See [`Parser::prefetch`](super::Parser::prefetch).
    pub(super) fn prefetch(&self) {
        black_box((self.role, self.ends.peer_port, self.host.0.is_some(), self.user_agent.0.is_some()));
    }

    /// A connection on which nothing was said.
    pub(super) fn new(link: &Link, common: Arc<Common>) -> Self {
        let text = |endpoint| Some(common.text(&address(endpoint).to_string()));
        let (local, peer) = match &link.unix {
            None => (text(&link.local), text(&link.peer)),
            Some(unix) => match &unix.name {
                None => (None, None),
                Some((Named::Local, name)) => (Some(common.text(&name.text())), None),
                Some((Named::Peer, name)) => (None, Some(common.text(&name.text()))),
            },
        };
        let peer_pid = link.unix.map(|unix| unix.peer_pid);
        let ends = Ends { local, peer, local_port: link.local.port, peer_port: link.peer.port, peer_pid };
        Self { role: link.role, common, ends, host: Repeated::default(), user_agent: Repeated::default() }
    }
}

impl Repeated {
    /// `text` as a value: the copy from before, if it is the same.
    fn value(&mut self, text: &str, common: &Common) -> Value {
        if text.len() > LONGEST_TEXT {
            return Value::Text(text.into());
        }
        match &self.0 {
            Some(last) if **last == *text => Arc::clone(last).into(),
            _ => {
                let text = common.text(text);
                self.0 = Some(Arc::clone(&text));
                text.into()
            }
        }
    }
}

/// What a request's method is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Called {
    /// As the conventions do.
    Conventional(Method),
    /// By the name that it has, since an operator says so.
    Chosen,
    /// Not by name.
    Other,
}

impl Called {
    /// The method of `head`. "If this override is done via environment variable, then the environment variable MUST be named
    /// OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS […]. This list MUST be a full override of the default known methods".
    /// <https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span>
    pub(super) fn of(head: &RequestHead<'_>, connection: &Connection) -> Self {
        match (connection.common.disclosure.knows_method(connection.role, head.token), head.method) {
            (Some(false), _) | (None, Method::Other) => Self::Other,
            (Some(true), Method::Other) => Self::Chosen,
            (Some(true) | None, method) => Self::Conventional(method),
        }
    }
}

/// Attributes known from a request, for a span of the kind that the connection's role makes.
pub(super) fn of_request(head: &RequestHead<'_>, connection: &mut Connection) -> Vec<Attribute> {
    // The response's are added to them, and a route.
    let of_unix = if connection.ends.peer_pid.is_some() { MAX_UNIX_ATTRIBUTES } else { 0 };
    let later = MAX_RESPONSE_ATTRIBUTES + ROUTE_ATTRIBUTES;
    let mut attributes = Vec::with_capacity(MAX_REQUEST_ATTRIBUTES + of_unix + later);
    let mut add = |key, value: Value| attributes.push(Attribute::new(key, value));
    match Called::of(head, connection) {
        Called::Conventional(method) => add(HTTP_REQUEST_METHOD, method.label().into()),
        Called::Chosen => add(HTTP_REQUEST_METHOD, text(head.token)),
        Called::Other => {
            add(HTTP_REQUEST_METHOD, Method::Other.label().into());
            add(HTTP_REQUEST_METHOD_ORIGINAL, text(head.token));
        }
    }
    let target = Target::parse(head.method, head.target);
    match connection.role {
        Side::Server => of_server(head, &target, connection, &mut add),
        Side::Client => of_client(head, &target, connection, &mut add),
    }
    if let Some(asked) = head.fields.asked {
        attributes.push(Attribute::new(SAMPLING_ASKED, asked));
    }
    let disclosure = &connection.common.disclosure;
    attributes.extend(captured(disclosure.of_request(connection.role), head.headers, disclosure));
    attributes
}

/// What `headers` say in the fields that an operator asks for. "The attribute value MUST consist of either multiple header
/// values as an array of strings or a single-item array containing a possibly comma-concatenated string":
/// <https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/>. Here a line of the head is a value.
pub(super) fn captured(fields: &[Field], headers: &[Header<'_>], disclosure: &Disclosure) -> Vec<Attribute> {
    let mut captured = Vec::new();
    let (mut room, mut cut) = (MAX_CAPTURED, 0);
    for field in fields {
        let of_field = headers.iter().filter(|header| header.name.eq_ignore_ascii_case(&field.name));
        let mut values = Vec::new();
        for header in of_field {
            let sent = readable(header.value.trim_ascii());
            let mut value = match field.contains {
                Contains::Secret => Cow::Borrowed(REDACTED),
                Contains::Url => redact::url(&sent, disclosure).into(),
                Contains::Text => disclosure.text(&sent),
            };
            let most = room.min(MAX_VALUE);
            if value.len() > most {
                value = value[..value.floor_char_boundary(most)].to_owned().into();
                cut += 1;
            }
            room -= value.len();
            values.push(value.into());
        }
        if !values.is_empty() {
            captured.push(Attribute::new(field.key.clone(), Value::Texts(values)));
        }
    }
    if cut > 0 {
        captured.push(Attribute::new(HEADERS_CUT, Value::Int(cut)));
    }
    captured
}

/// Sizes of bodies, where all of them was seen: "the number of bytes transferred excluding headers", of chunked ones
/// without the sizes of the chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BodySizes {
    pub(super) request: Option<u64>,
    pub(super) response: Option<u64>,
}

/// Attributes known from a response, and how the conventions judge it.
pub(super) fn of_response(
    status: Option<u16>,
    ended: EndedBy,
    role: Side,
    sizes: BodySizes,
) -> (FewAttributes, Outcome) {
    let mut attributes = FewAttributes::new();
    for (key, size) in [(HTTP_REQUEST_BODY_SIZE, sizes.request), (HTTP_RESPONSE_BODY_SIZE, sizes.response)] {
        let size = size.and_then(|size| i64::try_from(size).ok());
        attributes.extend(size.map(|size| Attribute::new(key, size)));
    }
    attributes.extend(status.map(|status| Attribute::new(HTTP_RESPONSE_STATUS_CODE, status)));
    // "Span Status MUST be left unset if HTTP status code was in the 1xx, 2xx or 3xx ranges […]. For HTTP status codes
    // in the 4xx range span status MUST be left unset in case of SpanKind.SERVER and SHOULD be set to Error in case of
    // SpanKind.CLIENT. For HTTP status codes in the 5xx range, as well as any other code the client failed to interpret,
    // span status SHOULD be set to Error." https://opentelemetry.io/docs/specs/semconv/http/http-spans/#status
    let failed = status.filter(|status| match role {
        Side::Server => *status >= 500,
        Side::Client => *status >= 400,
    });
    let outcome = match (ended, failed) {
        // `error.type` follows from the cause.
        (EndedBy::Cut(cause), _) => Outcome::Broken(cause),
        (_, Some(status)) => {
            attributes.push(Attribute::new(ERROR_TYPE, status.to_string()));
            Outcome::Error
        }
        (_, None) => Outcome::Unset,
    };
    attributes.extend(ended.label().map(|label| Attribute::new(RESPONSE_END, label)));
    (attributes, outcome)
}

/// Bytes of one value that is captured: what is longer is no tenant, version or id. It is cut, which [`HEADERS_CUT`]
/// counts.
const MAX_VALUE: usize = 1024;

/// Bytes of all values that are captured of one message: thousands of spans wait for a collector.
const MAX_CAPTURED: usize = 8 << 10;

/// The most that [`of_request`] adds, captured fields apart: one allocation is enough.
const MAX_REQUEST_ATTRIBUTES: usize = 13;

/// What a unix socket adds to them, and takes none away for: its transport, its own name, its peer's process.
const MAX_UNIX_ATTRIBUTES: usize = 3;

/// What `enrich` may add: the route, and where it comes from.
const ROUTE_ATTRIBUTES: usize = 2;

/// The most that [`of_response`] adds.
const MAX_RESPONSE_ATTRIBUTES: usize = 3;

fn of_server(
    head: &RequestHead<'_>,
    target: &Target<'_>,
    connection: &mut Connection,
    add: &mut impl FnMut(&'static str, Value),
) {
    let Connection { common, ends, host, user_agent, .. } = connection;
    let disclosure = &common.disclosure;
    let forwarded = |name| head.fields.forwarded.and_then(|value| forwarded(value, name)).map(Cow::Borrowed);
    let first = |list: Option<_>| list.map(|list| readable(first_element(list)));

    // "The scheme of the original client request, if known (e.g. from Forwarded#proto, X-Forwarded-Proto, or a similar
    // header). Otherwise, the scheme of the immediate peer request."
    // https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
    let scheme = forwarded("proto").or_else(|| first(head.fields.forwarded_proto));
    let scheme = scheme.filter(|scheme| is_scheme(scheme)).unwrap_or(match target {
        Target::Absolute { scheme, .. } => Cow::Borrowed(scheme),
        _ => Cow::Borrowed("http"),
    });
    let default_port = default_port(&scheme);
    add(URL_SCHEME, known_scheme(&scheme));

    match target {
        Target::Origin { path, query } | Target::Absolute { path, query, .. } => {
            add(URL_PATH, text(&disclosure.path(path)));
            if let Some(query) = query.filter(|query| !query.is_empty()) {
                let mut redacted = String::with_capacity(query.len() + REDACTED.len());
                push_query(query, disclosure, &mut redacted);
                add(URL_QUERY, redacted.into());
            }
        }
        Target::Asterisk => add(URL_PATH, "*".into()),
        // A tunnel has no path.
        Target::Authority(_) => {}
    }

    // Forwarded#host, X-Forwarded-Host, :authority, Host: in this order by the conventions.
    let authority = forwarded("host")
        .or_else(|| first(head.fields.forwarded_host))
        .filter(|host| !host.is_empty())
        .or_else(|| authority_of(head, target));
    match &authority {
        Some(authority) => add_authority(&Authority::parse(authority), default_port, (host, common), add),
        // HTTP/1.0 needs no Host: then the name of the server is the address it listens on.
        None => {
            if let Some(local) = &ends.local {
                add(SERVER_ADDRESS, Arc::clone(local).into());
            }
            if ends.peer_pid.is_none() {
                add(SERVER_PORT, ends.local_port.into());
            }
        }
    }

    add(NETWORK_PROTOCOL_VERSION, head.version.label().into());
    of_ends(ends, Side::Server, add);
    let client = forwarded("for")
        .as_deref()
        .and_then(address_of)
        .or_else(|| first(head.fields.forwarded_for).as_deref().and_then(address_of));
    let client = client.map(|client| written(client).into()).or_else(|| ends.peer.clone().map(Value::Shared));
    if let Some(client) = client {
        add(CLIENT_ADDRESS, client);
    }
    if let Some(sent) = head.fields.user_agent {
        add(USER_AGENT_ORIGINAL, user_agent.value(&disclosure.text(&readable(sent)), common));
    }
}

fn of_client(
    head: &RequestHead<'_>,
    target: &Target<'_>,
    connection: &mut Connection,
    add: &mut impl FnMut(&'static str, Value),
) {
    let Connection { common, ends, host, .. } = connection;
    let disclosure = &common.disclosure;
    // Without a Host there is only the address that was connected to.
    let authority = authority_of(head, target).unwrap_or_else(|| peer_as_host(ends).into());
    let authority = Authority::parse(&authority);
    let scheme = match target {
        Target::Absolute { scheme, .. } => scheme,
        _ => "http",
    };
    add(URL_FULL, full_url(scheme, &authority, target, disclosure).into());
    match (ends.peer_pid, &ends.peer) {
        // "Server domain name if available without reverse DNS lookup; otherwise, IP address or Unix domain socket name."
        // The Host of such a request names nothing that could be looked up: it is `localhost`, or whatever the client
        // was asked for itself. https://opentelemetry.io/docs/specs/semconv/registry/attributes/server/
        (Some(_), Some(path)) => add(SERVER_ADDRESS, Arc::clone(path).into()),
        _ => add_authority(&authority, default_port(scheme), (host, common), add),
    }
    add(NETWORK_PROTOCOL_VERSION, head.version.label().into());
    of_ends(ends, Side::Client, add);
}

/// The other end where a URL has its host, and the port.
fn peer_as_host(ends: &Ends) -> String {
    match (ends.peer_pid, ends.peer.as_deref()) {
        (None, Some(address)) if address.contains(':') => format!("[{address}]:{}", ends.peer_port),
        (None, Some(address)) => format!("{address}:{}", ends.peer_port),
        (Some(_), Some(path)) => as_host(path),
        (_, None) => NAMELESS.to_owned(),
    }
}

/// The connection's other end, and what is told of transports that are not taken for granted.
fn of_ends(ends: &Ends, role: Side, add: &mut impl FnMut(&'static str, Value)) {
    if let Some(peer) = &ends.peer {
        add(NETWORK_PEER_ADDRESS, Arc::clone(peer).into());
    }
    let Some(peer_pid) = ends.peer_pid else { return add(NETWORK_PEER_PORT, ends.peer_port.into()) };
    add(NETWORK_TRANSPORT, "unix".into());
    // The conventions have it for servers only; a client's end hardly ever has a name.
    if let Some(local) = ends.local.as_ref().filter(|_| role == Side::Server) {
        add(NETWORK_LOCAL_ADDRESS, Arc::clone(local).into());
    }
    if peer_pid != 0 {
        add(PEER_PID, Value::Int(peer_pid.into()));
    }
}

/// The path of a unix socket where a URL has its host: percent-encoded, as a `reg-name` may be
/// (<https://www.rfc-editor.org/rfc/rfc3986#section-3.2.2>).
fn as_host(path: &str) -> String {
    let mut host = String::with_capacity(path.len() + 2 * path.matches('/').count());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => host.push(byte.into()),
            _ => write!(host, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    host
}

/// The host of a URL where neither the request nor the socket names one.
const NAMELESS: &str = "localhost";

/// "scheme://host[:port]/path?query": "url.full MUST NOT contain credentials passed via URL".
fn full_url(scheme: &str, authority: &Authority<'_>, target: &Target<'_>, disclosure: &Disclosure) -> String {
    let (path, query) = match *target {
        Target::Origin { path, query } | Target::Absolute { path, query, .. } => (path, query),
        // "If the request-target is in authority-form or asterisk-form, the target URI's combined path and query
        // component is empty." https://www.rfc-editor.org/rfc/rfc9112#section-3.3
        Target::Asterisk => ("", None),
        // What flows through the tunnel is not known to be HTTP: there is no scheme to name.
        Target::Authority(_) => return authority.host_port.to_owned(),
    };
    let userinfo = if authority.userinfo { REDACTED_USERINFO } else { "" };
    let path = disclosure.path(path);
    let parts = [scheme, "://", userinfo, authority.host_port, &path];
    // Enough where no more than one secret is short.
    let room =
        parts.iter().map(|part| part.len()).sum::<usize>() + query.map_or(0, |query| 1 + query.len() + REDACTED.len());
    let mut url = String::with_capacity(room);
    parts.iter().for_each(|part| url.push_str(part));
    if let Some(query) = query {
        url.push('?');
        push_query(query, disclosure, &mut url);
    }
    url
}

/// Whom the request itself names: "When an origin server receives a request with an absolute-form of request-target, the
/// origin server MUST ignore the received Host header field (if any) and instead use the host information of the
/// request-target." <https://www.rfc-editor.org/rfc/rfc9112#section-3.2.2>
fn authority_of<'a>(head: &RequestHead<'a>, target: &Target<'a>) -> Option<Cow<'a, str>> {
    let authority = match target {
        Target::Absolute { authority, .. } | Target::Authority(authority) => Some(Cow::Borrowed(*authority)),
        Target::Origin { .. } | Target::Asterisk => head.fields.host.map(readable),
    };
    authority.filter(|authority| !authority.is_empty())
}

fn add_authority(
    authority: &Authority<'_>,
    default: Option<u16>,
    (host, common): (&mut Repeated, &Common),
    add: &mut impl FnMut(&'static str, Value),
) {
    add(SERVER_ADDRESS, host.value(authority.host, common));
    if let Some(port) = authority.port.or(default) {
        add(SERVER_PORT, port.into());
    }
}

/// `address` as text, in one piece of memory.
fn written(address: IpAddr) -> String {
    let mut text = String::with_capacity(LONGEST_ADDRESS);
    write!(text, "{address}").expect("a string takes everything");
    text
}

/// `::ffff:` and an IPv4 address count less.
const LONGEST_ADDRESS: usize = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".len();

fn address(endpoint: &Endpoint) -> IpAddr {
    Ipv6Addr::from(endpoint.address).to_canonical()
}

/// The parameter `name` of the first element of a Forwarded field that has it (RFC 7239 section 4).
fn forwarded<'a>(value: &'a [u8], name: &str) -> Option<&'a str> {
    let mut quoted = false;
    let mut pairs = str::from_utf8(value).ok()?.split(|c| {
        quoted ^= c == '"';
        !quoted && matches!(c, ';' | ',')
    });
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        (key.trim().eq_ignore_ascii_case(name) && !value.is_empty()).then_some(value)
    })
}

/// The address in a node identifier: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1`. A name that hides
/// the client (`unknown`, `_hidden`) is no address.
fn address_of(node: &str) -> Option<IpAddr> {
    let bracketed = || node.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    node.parse().ok().or_else(|| node.parse().ok().map(|socket: SocketAddr| socket.ip())).or_else(bracketed)
}

fn first_element(list: &[u8]) -> &[u8] {
    list.split(|byte| *byte == b',').next().unwrap_or(list).trim_ascii()
}

fn known_scheme(scheme: &str) -> Value {
    match scheme {
        "http" => "http".into(),
        "https" => "https".into(),
        _ => scheme.to_ascii_lowercase().into(),
    }
}

/// `bytes` as text, which nearly all are.
fn readable(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}
