// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The values of single settings.
//!
//! In: a text, number or truth value, from whatever layer. Out: a value that can be used as it is, or what is wrong with
//! it and what to write instead. It does not know which setting it is.

use std::{borrow::Cow, fmt, path::PathBuf, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{
    Colour, Mistake, PrintStyle, Protocol,
    otlp::{KINDS, Kind},
    values,
};
use crate::kernel::Tier;

/// What a layer wrote: YAML has numbers where variables and flags have texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Truth(bool),
    Number(serde_json::Number),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truth(truth) => truth.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// Reads a value by `parse`; its mistake travels in the error's text, as `what`, a line break, and `fix`.
fn read<'de, D: Deserializer<'de>, T>(from: D, parse: impl Fn(&str) -> Result<T, Mistake>) -> Result<T, D::Error> {
    let not_one = || de::Error::custom("is no single value\ngive one value, not a list or a group of keys");
    let scalar = Scalar::deserialize(from).map_err(|_| not_one())?;
    parse(scalar.to_string().trim()).map_err(|Mistake { what, fix }| de::Error::custom(format_args!("{what}\n{fix}")))
}

/// Declares a setting's type: what it holds, how it is read, how it is written, and its schema.
macro_rules! leaf {
    ($(#[$doc:meta])* $name:ident($held:ty), $parse:expr, $show:expr, $schema:tt) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $name(pub(super) $held);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                read(from, $parse).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let show: fn(&$held) -> serde_json::Value = $show;
                show(&self.0).serialize(to)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

leaf!(
    /// A process id.
    Pid(u32),
    |text| values::number(text, 1, u32::MAX, "a process id, such as --pid 4312"),
    |pid| (*pid).into(),
    {"type": "integer", "minimum": 1}
);

leaf!(
    /// A TCP port.
    Port(u16),
    |text| values::number(text, 1, u16::MAX, "a port from 1 to 65535, such as --port 8080"),
    |port| (*port).into(),
    {"type": "integer", "minimum": 1, "maximum": 65535}
);

leaf!(
    /// A glob: `*`, `?`, `[abc]`, `{a,b}`.
    Pattern(String),
    values::glob,
    |glob| glob.as_str().into(),
    {"type": "string", "format": "glob"}
);

leaf!(
    /// A time with its unit: `500ms`, `30s`, `5m`, `1h30m`.
    Time(Duration),
    values::duration,
    |time| values::shown(*time).into(),
    {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
);

leaf!(
    /// A number from 0 on.
    Count(usize),
    |text| values::number(text, 0, MOST, "a number from 0 to 1000000000"),
    |count| (*count).into(),
    {"type": "integer", "minimum": 0, "maximum": 1_000_000_000}
);

leaf!(
    /// A number from 1 on.
    AtLeastOne(usize),
    |text| values::number(text, 1, MOST, "a number from 1 to 1000000000"),
    |count| (*count).into(),
    {"type": "integer", "minimum": 1, "maximum": 1_000_000_000}
);

leaf!(
    /// A size with its unit: `64MiB`, `1GiB`.
    Size(u64),
    values::size,
    |bytes| values::size_shown(*bytes).into(),
    {"type": "string", "pattern": "^[0-9]+(KiB|MiB|GiB)$"}
);

leaf!(
    /// `true` or `false`.
    Flag(bool),
    |text| values::one_of(text, &[("true", true), ("false", false)]),
    |truth| (*truth).into(),
    {"type": "boolean"}
);

leaf!(
    /// Any text.
    Text(String),
    |text| Ok(text.to_owned()),
    |text| text.as_str().into(),
    {"type": "string"}
);

leaf!(
    /// A text that is shown to nobody.
    Secret(String),
    |text| Ok(text.to_owned()),
    |_| "(hidden)".into(),
    {"type": "string"}
);

leaf!(
    /// A URL, whose form its setting judges.
    Address(String),
    |text| Ok(text.to_owned()),
    |url| super::otlp::without_credentials(url).into(),
    {"type": "string", "format": "uri"}
);

leaf!(
    /// A file.
    File(PathBuf),
    |text| Ok(text.into()),
    |path| path.to_string_lossy().into(),
    {"type": "string"}
);

leaf!(
    /// How traces are printed.
    Style(PrintStyle),
    |text| values::one_of(text, STYLES),
    |style| named(STYLES, *style),
    {"enum": ["tree", "text", "json"]}
);

leaf!(
    /// When colours are used; nothing is on a terminal.
    When(Option<Colour>),
    |text| values::one_of(text, WHEN),
    |when| named(WHEN, *when),
    {"enum": ["auto", "always", "never"]}
);

leaf!(
    /// A way of watching.
    Way(Tier),
    |text| values::one_of(text, TIERS),
    |tier| named(TIERS, *tier),
    {"enum": ["a", "b", "c"]}
);

leaf!(
    /// How a collector is spoken to.
    Speech(Protocol),
    |text| values::one_of(text, PROTOCOLS),
    |protocol| protocol.name().into(),
    {"enum": ["grpc", "http/protobuf", "http/json"]}
);

leaf!(
    /// Who gets traces.
    Exporter(Kind),
    |text| values::one_of(text, KINDS),
    |kind| named(KINDS, *kind),
    {"enum": ["otlp", "otlp/stdout", "console", "zipkin", "none"]}
);

leaf!(
    /// Whether bodies are compressed.
    Compression(bool),
    |text| values::one_of(text, COMPRESSIONS),
    |gzip| named(COMPRESSIONS, *gzip),
    {"enum": ["gzip", "none"]}
);

fn named<T: Copy + PartialEq>(choices: &[(&str, T)], value: T) -> serde_json::Value {
    choices.iter().find(|(_, choice)| *choice == value).map_or(serde_json::Value::Null, |(name, _)| (*name).into())
}

const STYLES: &[(&str, PrintStyle)] =
    &[("tree", PrintStyle::Tree), ("text", PrintStyle::Text), ("json", PrintStyle::Json)];
const WHEN: &[(&str, Option<Colour>)] = &[("auto", None), ("always", Some(Colour::On)), ("never", Some(Colour::Off))];
const TIERS: &[(&str, Tier)] = &[("a", Tier::A), ("b", Tier::B), ("c", Tier::C)];
const PROTOCOLS: &[(&str, Protocol)] =
    &[("grpc", Protocol::Grpc), ("http/protobuf", Protocol::HttpProtobuf), ("http/json", Protocol::HttpJson)];
const COMPRESSIONS: &[(&str, bool)] = &[("gzip", true), ("none", false)];

/// More of anything is a slip: no table of the agent could hold it.
const MOST: usize = 1_000_000_000;
