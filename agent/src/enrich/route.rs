// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which route of a service a request took.
//!
//! In: SERVER spans with a path. Out: the same spans with `http.route`, where it can be told, and with the name
//! `{method} {route}`. Patterns of the operator say it exactly; without one, paths that look alike are taken for one
//! route, and the span says that this was a guess (`spantap.route.source`). It learns nothing from a path that the
//! server does not know, and it never names more routes than it has room for.

mod segment;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use memchr::memchr_iter;
use opentelemetry_semantic_conventions::attribute::{
    HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, URL_PATH,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use self::segment::{Place, Segment, is_prefix, judge};
use crate::{
    attribute::{Attribute, Value},
    trace::{Span, SpanKind},
};

/// What an operator says about routes.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether routes are guessed where no pattern matches.
    pub mode: Mode,
    /// Patterns for every service, such as `/users/{id}` and `/files/{*path}`.
    pub patterns: Vec<String>,
    /// Patterns for one service, by its name; they come before those for all.
    pub services: BTreeMap<String, Vec<String>>,
}

/// Where routes come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// From patterns, else from paths that look alike. The conventions want `http.route` to be the server framework's own;
    /// a guess is marked as one.
    #[default]
    Auto,
    /// From patterns only.
    Strict,
    /// There are none.
    Off,
}

/// The routes of every service.
#[derive(Debug, Default)]
pub struct Routes {
    mode: Mode,
    patterns: Patterns,
    of_service: BTreeMap<String, Patterns>,
    /// What was learned, by service. Law: at most [`MOST_SERVICES`].
    learned: BTreeMap<Arc<str>, Learned>,
    /// Routes of all services. Law: at most [`MOST_ROUTES`].
    routes: usize,
    counts: Counts,
}

/// What did not go well.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Requests on paths for which there was no room: named `/**`.
    pub crowded: u64,
    /// Places in paths where so many names were seen that they are taken for values.
    pub collapsed: u64,
}

#[derive(Debug, Default)]
struct Patterns {
    router: matchit::Router<Leaf>,
    any: bool,
}

/// What is known of one service.
#[derive(Debug, Default)]
struct Learned {
    root: Node,
    routes: usize,
    crowd: Leaf,
}

/// A place in the paths of a service.
#[derive(Debug, Default)]
struct Node {
    /// Law: empty once `collapsed`.
    words: BTreeMap<Box<str>, Node>,
    values: BTreeMap<&'static str, Node>,
    /// Too many names were seen here: they are values.
    collapsed: bool,
    leaf: Option<Leaf>,
}

/// A route, and the names of the spans that take it.
#[derive(Clone, Debug, Default)]
struct Leaf {
    route: Arc<str>,
    /// By method: one each, of ten or so.
    names: Vec<(Arc<str>, Arc<str>)>,
}

/// How a route was found: the value of `spantap.route.source`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Source {
    Pattern,
    Heuristic,
}

impl Routes {
    /// Routes by `settings`; the sentences say which patterns mean nothing.
    pub fn new(settings: &Settings) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let patterns = Patterns::new(&settings.patterns, &mut mistakes);
        let mut of_service = BTreeMap::new();
        for (service, patterns) in &settings.services {
            of_service.insert(service.clone(), Patterns::new(patterns, &mut mistakes));
        }
        if mistakes.is_empty() {
            Ok(Self { mode: settings.mode, patterns, of_service, ..Self::default() })
        } else {
            Err(mistakes)
        }
    }

    /// Names the route of `span`, which `service` has served, if it has one.
    pub fn name(&mut self, span: &mut Span, service: &Arc<str>) {
        if self.mode == Mode::Off || span.kind != SpanKind::Server {
            return;
        }
        let find =
            |key| span.attributes.iter().find(|attribute| attribute.key == key).map(|attribute| &attribute.value);
        let Some(path) = find(URL_PATH).and_then(Value::as_str).filter(|path| path.starts_with('/')) else { return };
        // Another protocol's span with a path has a name of its own.
        if find(HTTP_REQUEST_METHOD).is_none() || find(HTTP_ROUTE).is_some() {
            return;
        }
        let known = find(HTTP_RESPONSE_STATUS_CODE) != Some(&Value::Int(NOT_FOUND));
        let Some((source, route, name)) = self.find(path, known, &span.name, service) else { return };
        span.name = name;
        span.attributes.push(Attribute::new(HTTP_ROUTE, route));
        if source == Source::Heuristic {
            span.attributes.push(Attribute::new(SOURCE, "heuristic"));
        }
    }

    /// What did not go well so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Route and name. `known` is whether the server knows the path.
    fn find(
        &mut self,
        path: &str,
        known: bool,
        method: &Arc<str>,
        service: &Arc<str>,
    ) -> Option<(Source, Arc<str>, Arc<str>)> {
        let own = self.of_service.get_mut(&**service).and_then(|patterns| patterns.find(path));
        if let Some(leaf) = own.or_else(|| self.patterns.find(path)) {
            return Some((Source::Pattern, Arc::clone(&leaf.route), leaf.name(method)));
        }
        if self.mode == Mode::Strict {
            return None;
        }
        if !self.learned.contains_key(service) {
            if !known || self.learned.len() >= MOST_SERVICES {
                return None;
            }
            self.learned.insert(Arc::clone(service), Learned::default());
        }
        let learned = self.learned.get_mut(service)?;
        let segments = segments(path);
        let seen = learned.root.walk(&segments).and_then(|node| node.leaf.as_mut());
        if let Some((route, name)) = seen.map(|leaf| (Arc::clone(&leaf.route), leaf.name(method))) {
            return Some((Source::Heuristic, route, name));
        }
        if !known {
            // What the server does not know is no route; what looks like one it knows is a missing thing of that route.
            return None;
        }
        let room = learned.routes < MOST_ROUTES_OF_SERVICE && self.routes < MOST_ROUTES;
        let before = learned.routes;
        let leaf = match learned.root.grow(&segments, room, &mut learned.routes, &mut self.counts) {
            Some(leaf) => leaf,
            None => {
                self.counts.crowded += 1;
                learned.crowd.route = CROWD.into();
                &mut learned.crowd
            }
        };
        let found = (Source::Heuristic, Arc::clone(&leaf.route), leaf.name(method));
        self.routes = self.routes + learned.routes - before;
        Some(found)
    }
}

impl Patterns {
    fn new(patterns: &[String], mistakes: &mut Vec<String>) -> Self {
        let mut router = matchit::Router::new();
        for pattern in patterns {
            let leaf = Leaf { route: pattern.as_str().into(), names: Vec::new() };
            let inserted = match pattern.starts_with('/') {
                true => router.insert(pattern.as_str(), leaf).map_err(|error| error.to_string()),
                false => Err("it does not begin with a slash".to_owned()),
            };
            if let Err(error) = inserted {
                mistakes.push(format!("the route pattern {pattern} means nothing: {error}"));
            }
        }
        Self { router, any: !patterns.is_empty() }
    }

    fn find(&mut self, path: &str) -> Option<&mut Leaf> {
        if !self.any {
            return None;
        }
        self.router.at_mut(path).ok().map(|found| found.value)
    }
}

impl Node {
    /// The place of a path, as far as it is known.
    fn walk(&mut self, segments: &[Segment<'_>]) -> Option<&mut Self> {
        let mut node = self;
        for segment in segments {
            node = match segment {
                Segment::Word(_) if node.collapsed => node.values.get_mut(NAME)?,
                Segment::Word(word) => node.words.get_mut(*word)?,
                Segment::Value(placeholder) => node.values.get_mut(placeholder)?,
            };
        }
        Some(node)
    }

    /// The route of a path, which is learned where there is `room`.
    fn grow(
        &mut self,
        segments: &[Segment<'_>],
        room: bool,
        routes: &mut usize,
        counts: &mut Counts,
    ) -> Option<&mut Leaf> {
        let mut node = self;
        let mut route = String::new();
        let mut before = "";
        for (index, segment) in segments.iter().enumerate() {
            // The first names, and those after `api` or a version, are the program's resources.
            let bounded = index > 0 && !is_prefix(before);
            if let Segment::Word(word) = segment {
                before = word;
                if bounded && !node.collapsed && node.words.len() >= MOST_NAMES && !node.words.contains_key(*word) {
                    *routes -= node.words.values().map(Self::leaves).sum::<usize>();
                    node.words.clear();
                    node.collapsed = true;
                    counts.collapsed += 1;
                }
            }
            let (text, next) = match segment {
                Segment::Word(_) if node.collapsed => (NAME, entry(&mut node.values, NAME, room)?),
                Segment::Word(word) if node.words.contains_key(*word) => (*word, node.words.get_mut(*word)?),
                Segment::Word(_) if !room => return None,
                Segment::Word(word) => (*word, node.words.entry((*word).into()).or_default()),
                Segment::Value(placeholder) => (*placeholder, entry(&mut node.values, placeholder, room)?),
            };
            // A string takes everything.
            let _ = write!(route, "/{text}");
            node = next;
        }
        if node.leaf.is_none() {
            if !room {
                return None;
            }
            *routes += 1;
            node.leaf = Some(Leaf { route: route.into(), names: Vec::new() });
        }
        node.leaf.as_mut()
    }

    fn leaves(&self) -> usize {
        let below = self.words.values().chain(self.values.values()).map(Self::leaves).sum::<usize>();
        below + usize::from(self.leaf.is_some())
    }
}

fn entry<'a>(
    values: &'a mut BTreeMap<&'static str, Node>,
    placeholder: &'static str,
    room: bool,
) -> Option<&'a mut Node> {
    if room { Some(values.entry(placeholder).or_default()) } else { values.get_mut(placeholder) }
}

impl Leaf {
    /// `{method} {route}`.
    fn name(&mut self, method: &Arc<str>) -> Arc<str> {
        if let Some((_, name)) = self.names.iter().find(|(known, _)| known == method) {
            return Arc::clone(name);
        }
        let name: Arc<str> = format!("{method} {}", self.route).into();
        if self.names.len() < MOST_METHODS {
            self.names.push((Arc::clone(method), Arc::clone(&name)));
        }
        name
    }
}

/// The segments of `path`, which begins with a slash: each judged, and no more than [`MOST_SEGMENTS`].
fn segments(path: &str) -> SmallVec<[Segment<'_>; MOST_SEGMENTS + 1]> {
    let mut slashes = memchr_iter(b'/', path.as_bytes()).skip(1);
    let (mut before, mut begin) = ("", 1);
    let mut segments = SmallVec::new();
    for index in 0..MOST_SEGMENTS {
        let end = slashes.next();
        let segment = &path[begin..end.unwrap_or(path.len())];
        segments.push(judge(segment, Place { index, before, last: end.is_none() }));
        let Some(end) = end else { return segments };
        (before, begin) = (segment, end + 1);
    }
    segments.push(Segment::Value(REST));
    segments
}

/// How a route was found.
const SOURCE: &str = "spantap.route.source";

/// A server that answers so knows no such path.
const NOT_FOUND: i64 = 404;

/// A name in a place of too many names.
const NAME: &str = "{name}";

/// What follows the last segment that is looked at.
const REST: &str = "...";

/// Every path that found no room.
const CROWD: &str = "/**";

/// Segments of a route. Deeper ones are files, or values.
const MOST_SEGMENTS: usize = 8;

/// Names in one place, other than the resources of an API: the eleventh tells that they are values, as Beyla's
/// `max_path_segment_cardinality` has it.
const MOST_NAMES: usize = 10;

/// Routes of one service: more than a program has, and few enough for a table.
const MOST_ROUTES_OF_SERVICE: usize = 200;

/// Routes of all services, some 300 bytes each: 6 MiB at worst.
const MOST_ROUTES: usize = 20_000;

/// Services whose routes are learned: more than a node has.
const MOST_SERVICES: usize = 1_024;

/// Names kept of one route: the conventions know ten methods.
const MOST_METHODS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::{SpanId, TraceFlags, TraceId},
        time::{Task, Timestamp},
        trace::Begun,
    };

    fn routes(mode: Mode, patterns: &[&str]) -> Routes {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Routes::new(&Settings { mode, patterns, ..Settings::default() }).expect("patterns")
    }

    fn served(routes: &mut Routes, method: &str, path: &str, status: u16) -> Span {
        let mut span = Span {
            trace: TraceId([1; 16]),
            id: SpanId([1; 8]),
            parent: None,
            begun: Begun::Here,
            flags: TraceFlags(3),
            state: None,
            kind: SpanKind::Server,
            name: method.into(),
            protocol: "http",
            start: Timestamp(0),
            answered: None,
            end: Timestamp(1),
            failed: false,
            attributes: vec![
                Attribute::new(HTTP_REQUEST_METHOD, "GET"),
                Attribute::new(URL_PATH, path.to_owned()),
                Attribute::new(HTTP_RESPONSE_STATUS_CODE, status),
            ],
            links: Vec::new(),
            task: Task::default(),
            port: 0,
        };
        routes.name(&mut span, &"shop".into());
        span
    }

    fn name(routes: &mut Routes, path: &str) -> String {
        served(routes, "GET", path, 200).name.to_string()
    }

    #[test]
    fn paths_that_look_alike_are_one_route() {
        for (path, expected) in [
            ("/", "GET /"),
            ("/users/42", "GET /users/{id}"),
            ("/users/550e8400-e29b-41d4-a716-446655440000/cart", "GET /users/{uuid}/cart"),
            ("/blobs/9f86d081884c7d659a2feaa0c55ad015", "GET /blobs/{hash}"),
            ("/items/01ARZ3NDEKTSV4RRFFQ69G5FAV", "GET /items/{id}"),
            ("/reports/2024-01-31", "GET /reports/{date}"),
            ("/mail/jane@example.org", "GET /mail/{email}"),
            ("/hosts/192.0.2.1", "GET /hosts/{ip}"),
            ("/static/js/app.3f2a1b.js", "GET /static/js/*.js"),
            ("/en-US/docs", "GET /en-US/docs"),
            ("/api/v1/users/7", "GET /api/v1/users/{id}"),
            ("/api/2024-01-01/users", "GET /api/2024-01-01/users"),
            ("/cart;jsessionid=1A53/items", "GET /cart/items"),
            ("/us%65rs/42", "GET /us%65rs/{id}"),
            ("//a//b/", "GET //a//b/"),
            ("/a/b/c/d/e/f/g/h", "GET /a/b/c/d/e/f/g/h"),
            ("/a/b/c/d/e/f/g/h/i/j", "GET /a/b/c/d/e/f/g/h/..."),
        ] {
            assert_eq!(name(&mut routes(Mode::Auto, &[]), path), expected, "{path}");
        }
    }

    #[test]
    fn a_guess_says_that_it_is_one() {
        let mut routes = routes(Mode::Auto, &["/users/{user}"]);
        let said = |span: &Span| {
            let find = |key| span.attributes.iter().find(|attribute| attribute.key == key);
            [HTTP_ROUTE, SOURCE].map(|key| find(key).map(|attribute| attribute.value.to_string()))
        };
        let guessed = served(&mut routes, "GET", "/carts/7", 200);
        assert_eq!(said(&guessed), [Some("/carts/{id}".into()), Some("heuristic".into())]);
        let configured = served(&mut routes, "GET", "/users/jane", 404);
        assert_eq!(said(&configured), [Some("/users/{user}".into()), None]);
        assert_eq!(&*configured.name, "GET /users/{user}");
    }

    #[test]
    fn without_guesses_only_patterns_count() {
        let mut strict = routes(Mode::Strict, &["/users/{id}", "/files/{*path}"]);
        assert_eq!(name(&mut strict, "/users/jane"), "GET /users/{id}");
        assert_eq!(name(&mut strict, "/files/a/b/c"), "GET /files/{*path}");
        assert_eq!(name(&mut strict, "/carts/7"), "GET");
        assert_eq!(name(&mut routes(Mode::Off, &["/users/{id}"]), "/users/7"), "GET");
    }

    #[test]
    fn the_patterns_of_a_service_come_first() {
        let services = BTreeMap::from([("shop".to_owned(), vec!["/users/{own}".to_owned()])]);
        let patterns = vec!["/users/{all}".to_owned(), "/x/{all}".to_owned()];
        let mut routes = Routes::new(&Settings { services, patterns, ..Settings::default() }).expect("patterns");
        assert_eq!(name(&mut routes, "/users/7"), "GET /users/{own}");
        assert_eq!(name(&mut routes, "/x/7"), "GET /x/{all}");
    }

    #[test]
    fn patterns_that_mean_nothing_are_all_named() {
        let patterns = ["users", "/a/{x}", "/a/{y}", "/b/{*rest}/c"].map(str::to_owned).to_vec();
        let mistakes = Routes::new(&Settings { patterns, ..Settings::default() }).map(drop).expect_err("mistakes");
        assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    }

    #[test]
    fn nothing_is_learned_from_what_is_not_found() {
        let mut routes = routes(Mode::Auto, &[]);
        assert_eq!(&*served(&mut routes, "GET", "/wp-login.php", 404).name, "GET");
        assert_eq!(name(&mut routes, "/users/7"), "GET /users/{id}");
        assert_eq!(&*served(&mut routes, "GET", "/users/8", 404).name, "GET /users/{id}", "a user that is missing");
        assert_eq!(&*served(&mut routes, "GET", "/admin", 404).name, "GET");
        assert_eq!(routes.routes, 1);
    }

    #[test]
    fn too_many_names_in_one_place_are_values() {
        let mut routes = routes(Mode::Auto, &[]);
        let people = ["ann", "ben", "cora", "dan", "eve", "finn", "gil", "hana", "ivo", "jane", "kim", "lena"];
        let names: Vec<_> = people.iter().map(|who| name(&mut routes, &format!("/users/{who}/cart"))).collect();
        assert_eq!(names[9], "GET /users/jane/cart");
        assert_eq!(names[10], "GET /users/{name}/cart");
        assert_eq!(name(&mut routes, "/users/ann/cart"), "GET /users/{name}/cart");
        assert_eq!((routes.routes, routes.counts.collapsed), (1, 1));
        // A program's own resources are not: neither the first names nor those of its API.
        for word in people {
            assert_eq!(name(&mut routes, &format!("/{word}")), format!("GET /{word}"));
            assert_eq!(name(&mut routes, &format!("/api/v1/{word}")), format!("GET /api/v1/{word}"));
        }
    }

    #[test]
    fn there_are_no_more_routes_than_room() {
        let mut routes = routes(Mode::Auto, &[]);
        let word = |n: usize| [b'a', b'e', b'i', b'o', b'u'].map(|v| [b"bcdfghjklm"[n / 25 % 10], v]);
        let path = |n: usize| {
            let [a, b, ..] = word(n);
            let vowel = b"aeiou"[n % 5];
            String::from_utf8([&b"/"[..], &a, &b, b"s", &[vowel], &[b"bcdfg"[n / 5 % 5]]].concat()).expect("text")
        };
        let paths: std::collections::BTreeSet<_> = (0..250).map(path).collect();
        assert_eq!(paths.len(), 250);
        let crowded = paths.iter().filter(|path| name(&mut routes, path) == "GET /**").count();
        assert_eq!((crowded, routes.routes, routes.counts.crowded), (50, 200, 50));
        let first = paths.iter().next().expect("a path");
        assert_eq!(name(&mut routes, first), format!("GET {first}"), "what is known stays known");
    }

    #[test]
    fn each_method_has_its_name() {
        let mut routes = routes(Mode::Auto, &[]);
        assert_eq!(&*served(&mut routes, "POST", "/users", 201).name, "POST /users");
        assert_eq!(&*served(&mut routes, "HTTP", "/users", 200).name, "HTTP /users");
    }
}
