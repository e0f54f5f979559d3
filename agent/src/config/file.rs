// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The YAML file.
//!
//! In: its name and text. Out: what it says, every value with its line, or why it is no YAML. It opens nothing, and it
//! judges neither keys nor values.

use std::{fmt, sync::Arc};

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use serde_saphyr::Spanned;

use super::{
    Mistake,
    layers::{Node, Origin, Value},
};

/// What the file `name` with the content `text` says.
pub(super) fn parse(name: &str, text: &str) -> Result<Node, Mistake> {
    let name: Arc<str> = name.into();
    // Nothing but comments is a document without a value.
    if text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty()) {
        return Ok(Node { origin: Origin::File(name, 1), value: Value::Keys(Vec::new()) });
    }
    // YAML 1.2.2, 10.3.2: only `true` and `false` are truth values. `off` is a text, and a mode of routes.
    let options = serde_saphyr::options! { strict_booleans: true };
    let parsed: Result<Spanned<Yaml>, _> = serde_saphyr::from_str_with_options(text, options);
    let node = parsed.map(|yaml| yaml.value.at(yaml.defined.line(), &name)).map_err(|error| Mistake {
        what: match error.location() {
            Some(place) => format!("{name}:{}: it is not YAML ({})", place.line(), one_line(&error)),
            None => format!("{name}: it is not YAML ({})", one_line(&error)),
        },
        fix: "correct the file; an editor that knows YAML shows the place".to_owned(),
    })?;
    if matches!(node.value, Value::Keys(_)) {
        return Ok(node);
    }
    Err(Mistake {
        what: format!("{}: there are no settings in it", node.origin),
        fix: "write keys with values, such as `port: [8080]`".to_owned(),
    })
}

/// The first line of what the parser says, without the excerpt below it.
fn one_line(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.trim_start_matches("error:").trim().to_owned()
}

/// Any document.
#[derive(Debug)]
enum Yaml {
    Scalar(Json),
    List(Vec<Spanned<Yaml>>),
    Keys(Vec<(Spanned<String>, Spanned<Yaml>)>),
}

impl Yaml {
    fn at(self, line: u64, name: &Arc<str>) -> Node {
        let value = match self {
            Self::Scalar(scalar) => Value::Scalar(scalar),
            Self::List(items) => {
                Value::List(items.into_iter().map(|item| item.value.at(item.defined.line(), name)).collect())
            }
            // A setting's line is its key's.
            Self::Keys(keys) => Value::Keys(
                keys.into_iter().map(|(key, item)| (key.value, item.value.at(key.defined.line(), name))).collect(),
            ),
        };
        Node { origin: Origin::File(Arc::clone(name), line), value }
    }
}

impl<'de> Deserialize<'de> for Yaml {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(YamlVisitor)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Yaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(truth.into()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(number.into()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(number.into()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(number.into()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(text.into()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Yaml, E> {
        Ok(Yaml::Scalar(Json::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Yaml, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Yaml, D::Error> {
        Yaml::deserialize(from)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Yaml, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = from.next_element()? {
            items.push(item);
        }
        Ok(Yaml::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Yaml, A::Error> {
        let mut keys = Vec::new();
        while let Some(entry) = from.next_entry()? {
            keys.push(entry);
        }
        Ok(Yaml::Keys(keys))
    }
}
