// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From layers to one tree: the file below the environment below the flags.
//!
//! In: for each layer, values with where they were written. Out: the [`Settings`] that they make together, where each of
//! them comes from, and every mistake at once. It reads nothing itself and knows no setting by name: the shape comes
//! from the types.

use std::{fmt, sync::Arc};

use serde_json::{Map, Value as Json};
use serde_path_to_error::Segment;

use super::{
    Mistake,
    schema::{self, Shape},
    tree::Settings,
    values::{closest, list},
};

/// Where a value was written.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) enum Origin {
    /// Nowhere.
    #[default]
    Default,
    /// In a file, at a line.
    File(Arc<str>, u64),
    /// In a file of OpenTelemetry's declarative configuration, at a line.
    Declared(Arc<str>, u64),
    /// In a variable that a specification defines.
    Standard(String),
    /// In a variable of spantap.
    Variable(String),
    /// On the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file, line) | Self::Declared(file, line) => write!(f, "{file}:{line}"),
            Self::Standard(name) | Self::Variable(name) => write!(f, "env {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

impl Origin {
    /// The layer's place: a higher one wins.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(..) => 1,
            // There are no standard variables where such a file is named.
            Self::Declared(..) | Self::Standard(_) => 2,
            Self::Variable(_) => 3,
            Self::Flag(_) => 4,
        }
    }

    /// What whoever wrote the setting `path` here calls it.
    pub(super) fn name(&self, path: &str) -> String {
        match self {
            Self::Default => path.to_owned(),
            Self::File(..) | Self::Declared(..) => format!("{self}: {path}"),
            Self::Standard(name) | Self::Variable(name) => name.clone(),
            Self::Flag(flag) => (*flag).to_owned(),
        }
    }

    /// `what` is wrong with the setting `path`, which was written here.
    pub(super) fn mistake(&self, path: &str, what: &str, fix: String) -> Mistake {
        Mistake { what: format!("{} {what}", self.name(path)), fix }
    }
}

/// A value with its origin.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What a layer says at one place.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A text, a number, a truth value.
    Scalar(Json),
    /// Values.
    List(Vec<Node>),
    /// Keys with values, as they were written.
    Keys(Vec<(String, Node)>),
}

impl Node {
    /// A text that was written at `origin`.
    pub(super) fn text(origin: Origin, text: impl Into<String>) -> Self {
        Self { origin, value: Value::Scalar(Json::String(text.into())) }
    }

    /// The parts of a list, as variables and flags have it, between commas.
    pub(super) fn list<'a>(origin: &Origin, texts: impl IntoIterator<Item = &'a str>) -> Self {
        let parts = texts.into_iter().flat_map(list).map(|part| Self::text(origin.clone(), part)).collect();
        Self { origin: origin.clone(), value: Value::List(parts) }
    }

    /// One value where a list belongs is a list of one; a text may have several, between commas.
    fn into_list(self, shape: &Shape) -> Self {
        match (shape, &self.value) {
            (Shape::List(_), Value::Scalar(Json::String(text))) => Self::list(&self.origin, [text.as_str()]),
            (Shape::List(_), Value::Scalar(_)) => Self { origin: self.origin.clone(), value: Value::List(vec![self]) },
            _ => self,
        }
    }

    fn json(&self) -> Json {
        match &self.value {
            Value::Scalar(scalar) => scalar.clone(),
            Value::List(items) => items.iter().map(Self::json).collect(),
            Value::Keys(keys) => {
                keys.iter().map(|(key, node)| (key.clone(), node.json())).collect::<Map<_, _>>().into()
            }
        }
    }

    /// What is at `path`, or as far down as the tree goes.
    fn nearest(&self, path: &[Step]) -> &Self {
        let Some((step, rest)) = path.split_first() else { return self };
        let below = match (&self.value, step) {
            (Value::Keys(keys), Step::Key(key)) => keys.iter().find(|(known, _)| known == key).map(|(_, node)| node),
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        };
        below.map_or(self, |below| below.nearest(rest))
    }

    /// Takes away what is at `path`, or the last part of the way to it that is there.
    fn remove(&mut self, path: &[Step]) -> bool {
        let Some((step, rest)) = path.split_first() else { return false };
        match (&mut self.value, step) {
            (Value::Keys(keys), Step::Key(key)) => {
                let Some(place) = keys.iter().position(|(known, _)| known == key) else { return false };
                if !keys[place].1.remove(rest) {
                    keys.remove(place);
                }
                true
            }
            (Value::List(items), Step::Index(index)) if *index < items.len() => {
                if !items[*index].remove(rest) {
                    items.remove(*index);
                }
                true
            }
            _ => false,
        }
    }
}

/// A step down the tree.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

/// All layers, one over the other.
#[derive(Debug)]
pub(super) struct Layers {
    root: Node,
    shape: Shape,
    mistakes: Vec<(Origin, Mistake)>,
}

impl Layers {
    /// Nothing but defaults.
    pub(super) fn new() -> Self {
        let root = Node { origin: Origin::Default, value: Value::Keys(Vec::new()) };
        Self { root, shape: schema::shape(), mistakes: Vec::new() }
    }

    /// What the settings look like.
    pub(super) fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Puts a whole layer over what there is. Keys that are no settings are mistakes.
    pub(super) fn lay(&mut self, layer: Node) {
        merge(&mut self.root, layer, &self.shape, "", &mut self.mistakes);
    }

    /// Puts one value over what there is at `path`, whose steps are separated by dots.
    pub(super) fn put(&mut self, path: &str, node: Node) {
        let layer = path.rsplit('.').fold(node, |node, key| Node {
            origin: node.origin.clone(),
            value: Value::Keys(vec![(key.to_owned(), node)]),
        });
        self.lay(layer);
    }

    /// Takes away what lower layers say at `path`, whose steps are keys.
    pub(super) fn clear(&mut self, path: &str) {
        let steps: Vec<_> = path.split('.').map(|key| Step::Key(key.to_owned())).collect();
        // Otherwise the last part of the way there would be taken out.
        if self.origin(path) != Origin::Default {
            self.root.remove(&steps);
        }
    }

    /// Where the setting at `path` (`export.destinations[0].endpoint`) was written.
    pub(super) fn origin(&self, path: &str) -> Origin {
        let steps = path.split('.').flat_map(|part| {
            let (key, index) = part.trim_end_matches(']').split_once('[').unwrap_or((part, ""));
            std::iter::once(Step::Key(key.to_owned())).chain(index.parse().ok().map(Step::Index))
        });
        let mut node = &self.root;
        for step in steps {
            let below = node.nearest(std::slice::from_ref(&step));
            if std::ptr::eq(below, node) {
                return Origin::Default;
            }
            node = below;
        }
        node.origin.clone()
    }

    /// A mistake that somebody else found in what was written at `origin`.
    pub(super) fn mistaken(&mut self, origin: Origin, mistake: Mistake) {
        self.mistakes.push((origin, mistake));
    }

    /// Every mistake so far: the file's by their lines, then those of the layers above it.
    pub(super) fn into_mistakes(mut self) -> Vec<Mistake> {
        self.mistakes.sort_by_key(|(origin, _)| match origin {
            Origin::File(_, line) | Origin::Declared(_, line) => (origin.rank(), *line),
            _ => (origin.rank(), 0),
        });
        self.mistakes.into_iter().map(|(_, mistake)| mistake).collect()
    }

    /// The settings. A value that is none is a mistake and taken out, until the rest is good: so all are found.
    pub(super) fn settle(&mut self) -> Settings {
        loop {
            let error = match serde_path_to_error::deserialize::<_, Settings>(self.root.json()) {
                Ok(settings) => return settings,
                Err(error) => error,
            };
            let steps: Vec<_> = error.path().iter().filter_map(step).collect();
            // A value of a list is known by itself: its place changes as others are taken out.
            let path = error.path().to_string();
            let path =
                if path.ends_with(']') { path.rsplit_once('[').map_or(path.as_str(), |(list, _)| list) } else { &path };
            let text = error.inner().to_string();
            let (what, fix) = text.split_once('\n').map_or_else(
                || (format!("is not understood ({text})"), "see docs/configuration.md".to_owned()),
                |(what, fix)| (what.to_owned(), fix.to_owned()),
            );
            let origin = self.root.nearest(&steps).origin.clone();
            let mistake = origin.mistake(path, &what, fix);
            self.mistakes.push((origin, mistake));
            // Every round takes a value out, so that the rounds end.
            if !self.root.remove(&steps) {
                return Settings::default();
            }
        }
    }
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Enum { variant } => Some(Step::Key(variant.clone())),
        Segment::Unknown => None,
    }
}

/// Puts `layer` over `base`, which is at `path` and of the given shape. Groups of settings are merged, everything else
/// is replaced as a whole.
fn merge(base: &mut Node, layer: Node, shape: &Shape, path: &str, mistakes: &mut Vec<(Origin, Mistake)>) {
    let mut layer = layer.into_list(shape);
    let (Shape::Group(settings), Value::Keys(_)) = (shape, &layer.value) else {
        check(&mut layer, shape, path, mistakes);
        *base = layer;
        return;
    };
    let Value::Keys(keys) = layer.value else { return };
    if !matches!(base.value, Value::Keys(_)) {
        base.value = Value::Keys(Vec::new());
    }
    base.origin = layer.origin;
    let Value::Keys(known) = &mut base.value else { return };
    for (key, node) in keys {
        let path = join(path, &key);
        let Some(setting) = settings.iter().find(|setting| setting.key == key) else {
            mistakes.push((node.origin.clone(), unknown(&node.origin, &path, &key, settings)));
            continue;
        };
        // A key without a value is what remains of an example in comments.
        if matches!(node.value, Value::Scalar(Json::Null)) {
            continue;
        }
        match known.iter_mut().find(|(known, _)| *known == key) {
            Some((_, base)) => merge(base, node, &setting.shape, &path, mistakes),
            None => {
                let mut base = Node { origin: Origin::Default, value: Value::Keys(Vec::new()) };
                merge(&mut base, node, &setting.shape, &path, mistakes);
                known.push((key, base));
            }
        }
    }
}

/// Takes out keys that are no settings below what is replaced as a whole; the values are judged by their types.
fn check(node: &mut Node, shape: &Shape, path: &str, mistakes: &mut Vec<(Origin, Mistake)>) {
    *node = node.clone().into_list(shape);
    match (shape, &mut node.value) {
        (Shape::List(shape), Value::List(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                check(item, shape, &format!("{path}[{index}]"), mistakes);
            }
        }
        (Shape::Group(settings), Value::Keys(keys)) => keys.retain_mut(|(key, node)| {
            let path = join(path, key);
            let setting = settings.iter().find(|setting| setting.key == *key);
            match setting {
                Some(setting) => check(node, &setting.shape, &path, mistakes),
                None => mistakes.push((node.origin.clone(), unknown(&node.origin, &path, key, settings))),
            }
            setting.is_some()
        }),
        _ => {}
    }
}

fn unknown(origin: &Origin, path: &str, key: &str, settings: &[schema::Setting]) -> Mistake {
    let known: Vec<_> = settings.iter().map(|setting| setting.key.as_str()).collect();
    let fix = match closest(key, &known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {}", known.join(", ")),
    };
    origin.mistake(path, "is no setting", fix)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
