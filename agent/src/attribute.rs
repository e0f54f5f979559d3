// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attributes of spans: the vocabulary that parsers write and exporters read; nobody in between looks inside.

use std::{borrow::Cow, fmt, sync::Arc};

use smallvec::SmallVec;

/// A named fact. Keys come from `opentelemetry_semantic_conventions::attribute` or carry the prefix `spantap.`; only
/// what a target declares of itself has keys of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The name.
    pub key: Cow<'static, str>,
    /// The value.
    pub value: Value,
}

/// What a response adds to its request's attributes. Three, for HTTP its code, `error.type` and how its end is known, are
/// kept in place: most exchanges end with one.
pub type FewAttributes = SmallVec<[Attribute; 3]>;

/// The value types that the conventions used here need.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One of a closed set.
    Static(&'static str),
    /// From the wire.
    Text(String),
    /// From the wire, and said again and again: one copy serves many spans.
    Shared(Arc<str>),
    /// A count, a code or a port.
    Int(i64),
    /// A share of one.
    Share(f64),
    /// A header with its values.
    Texts(Vec<Box<str>>),
}

// --- Attribute, Value ---

impl Attribute {
    /// The attribute `key` = `value`.
    pub fn new(key: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}

impl Value {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Static(text) => Some(text),
            Self::Text(text) => Some(text),
            Self::Shared(text) => Some(text),
            Self::Int(_) | Self::Share(_) | Self::Texts(_) => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static(text) => f.write_str(text),
            Self::Text(text) => f.write_str(text),
            Self::Shared(text) => f.write_str(text),
            Self::Int(number) => number.fmt(f),
            Self::Share(share) => share.fmt(f),
            Self::Texts(texts) => f.write_str(&texts.join(",")),
        }
    }
}

impl From<&'static str> for Value {
    fn from(value: &'static str) -> Self {
        Self::Static(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Self::Shared(value)
    }
}

impl From<f64> for Value {
    fn from(share: f64) -> Self {
        Self::Share(share)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::Int(value.into())
    }
}
