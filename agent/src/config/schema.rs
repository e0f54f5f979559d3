// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the types say about themselves: the JSON schema, and what follows from it.
//!
//! In: the types of `tree.rs`. Out: the schema for editors, the shape that layers are checked against, the names of the
//! variables, and the reference page. There is no second list of settings anywhere.

#[cfg(test)]
use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::tree::Settings;

/// How a setting is written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Settings below it.
    Group(Vec<Setting>),
    /// Values of one shape.
    List(Box<Shape>),
    /// One value, or something of a shape of its own.
    Value(String),
    /// A name, or a group under one of some names.
    Choice(String),
}

/// A setting in its group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) shape: Shape,
    /// Its comment, and what it is where nobody says anything: for the reference.
    described: String,
    default: Json,
}

/// The JSON schema of the file.
pub(super) fn schema() -> Json {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    let mut schema = generator.into_root_schema_for::<Settings>().to_value();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), json!("spantap"));
    }
    schema
}

/// The shape of the whole tree.
pub(super) fn shape() -> Shape {
    let defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    read(&schema(), &defaults)
}

fn read(schema: &Json, defaults: &Json) -> Shape {
    if let Some(settings) = schema.get("properties").and_then(Json::as_object) {
        let settings = settings.iter().map(|(key, schema)| {
            let default = defaults.get(key).cloned().unwrap_or_default();
            let described = schema.get("description").and_then(Json::as_str).unwrap_or_default().to_owned();
            Setting { key: key.clone(), shape: read(schema, &default), described, default }
        });
        return Shape::Group(settings.collect());
    }
    if let Some(items) = schema.get("items") {
        return Shape::List(Box::new(read(items, &Json::Null)));
    }
    // An optional value is itself or nothing.
    let options = schema.get("anyOf").and_then(Json::as_array);
    if let Some(some) = options.and_then(|options| options.iter().find(|option| option["type"] != "null")) {
        return read(some, defaults);
    }
    if let Some(choices) = schema.get("oneOf").and_then(Json::as_array) {
        return choice(choices);
    }
    let lists = schema.pointer("/additionalProperties/items").is_some();
    if lists { Shape::Choice("names with lists".to_owned()) } else { Shape::Value(kind(schema)) }
}

/// Alternatives: names, and names with something below them.
fn choice(choices: &[Json]) -> Shape {
    let mut names = Vec::new();
    let mut plain = true;
    for choice in choices {
        // Names without comments of their own are together in one alternative.
        let several = choice.get("enum").and_then(Json::as_array).into_iter().flatten();
        let named = several.chain(choice.get("const")).filter_map(Json::as_str);
        names.extend(named.map(|name| format!("`{name}`")));
        for (name, below) in choice.get("properties").and_then(Json::as_object).into_iter().flatten() {
            plain = false;
            let below = if below["type"] == "number" { "number" } else { "group" };
            names.push(format!("`{name}:` {below}"));
        }
    }
    let names = names.join(", ");
    if plain { Shape::Value(names) } else { Shape::Choice(names) }
}

/// The kind of a value that is a number.
pub(super) const NUMBER: &str = "number";

/// The kind of a value that is true or false.
pub(super) const TRUTH: &str = "`true`, `false`";

/// The kind of a value that is a table of names.
pub(super) const NAMES: &str = "names with values";

/// What a value is, in a word or two.
fn kind(schema: &Json) -> String {
    if let Some(choices) = schema.get("enum").and_then(Json::as_array) {
        let choices: Vec<_> = choices.iter().filter_map(Json::as_str).map(|choice| format!("`{choice}`")).collect();
        return choices.join(", ");
    }
    let pattern = schema.get("pattern").and_then(Json::as_str).unwrap_or_default();
    let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
    let kind = match &schema["type"] {
        Json::Array(types) => types.first().and_then(Json::as_str).unwrap_or_default(),
        kind => kind.as_str().unwrap_or_default(),
    };
    match (kind, format) {
        (_, "glob") => "pattern",
        (_, "uri") => "URL",
        ("string", _) if pattern.contains("ms") => "time",
        ("string", _) if pattern.contains("MiB") => "size",
        ("string", _) => "text",
        ("integer" | "number", _) => NUMBER,
        ("boolean", _) => TRUTH,
        ("object", _) => NAMES,
        _ => "see the schema",
    }
    .to_owned()
}

impl Shape {
    /// Every setting that is no group, by its path.
    pub(super) fn settings(&self) -> Vec<(String, &Setting)> {
        let mut all = Vec::new();
        self.collect("", &mut all);
        all
    }

    fn collect<'a>(&'a self, path: &str, all: &mut Vec<(String, &'a Setting)>) {
        let Self::Group(settings) = self else { return };
        for setting in settings {
            let path = if path.is_empty() { setting.key.clone() } else { format!("{path}.{}", setting.key) };
            match &setting.shape {
                group @ Self::Group(_) => group.collect(&path, all),
                Self::List(_) | Self::Value(_) | Self::Choice(_) => all.push((path, setting)),
            }
        }
    }
}

/// The variable that is the twin of the setting at `path`.
pub(super) fn variable(path: &str) -> String {
    format!("SPANTAP_{}", path.replace('.', "_").to_ascii_uppercase())
}

/// The reference, as a table in Markdown.
#[cfg(test)]
pub(super) fn reference() -> String {
    let mut page = REFERENCE_HEAD.to_owned();
    for (path, setting) in shape().settings() {
        let kind = match &setting.shape {
            Shape::List(item) => match &**item {
                Shape::Value(kind) => format!("list of {kind}"),
                Shape::Group(_) | Shape::List(_) | Shape::Choice(_) => "list of groups, below".to_owned(),
            },
            Shape::Value(kind) | Shape::Choice(kind) => kind.clone(),
            Shape::Group(_) => continue,
        };
        let default = match &setting.default {
            Json::Null => String::new(),
            Json::Array(items) if items.is_empty() => String::new(),
            Json::Object(keys) if keys.is_empty() => String::new(),
            Json::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        let described = setting.described.replace('\n', " ");
        // Writing to a `String` cannot fail.
        let _ = writeln!(page, "| `{path}` | {kind} | {default} | {described} |");
    }
    for (path, setting) in shape().settings() {
        let Shape::List(item) = &setting.shape else { continue };
        let Shape::Group(keys) = &**item else { continue };
        let _ = write!(page, "\n## Keys of `{path}`\n\n| key | value | |\n|---|---|---|\n");
        for key in keys {
            let kind = match &key.shape {
                Shape::Value(kind) | Shape::Choice(kind) => kind.clone(),
                Shape::List(_) => "list".to_owned(),
                Shape::Group(_) => "group".to_owned(),
            };
            let _ = writeln!(page, "| `{}` | {kind} | {} |", key.key, key.described.replace('\n', " "));
        }
    }
    page
}

#[cfg(test)]
const REFERENCE_HEAD: &str = "\
# Configuration

<!-- Made from the comments in agent/src/config/tree.rs by `SPANTAP_UPDATE_PAGES=1 cargo test -p spantap --lib config`. -->

Every setting can be written in a YAML file (`--config FILE`, `SPANTAP_CONFIG`), in a variable and, the common ones, as a flag of the same name; what
is further right wins: **defaults < file < `OTEL_*` variables < `SPANTAP_*` variables < flags**. The variable of a setting is its path in capitals:
`export.batch.delay` is `SPANTAP_EXPORT_BATCH_DELAY`; lists are separated by commas, and what is a group in the file is YAML in a variable. All mistakes are
reported at once, with file, line and what to write instead, and nothing is started (exit code 2).

- `spantap run --validate` checks and stops; `spantap run --print-config` prints every value with where it comes from; secrets are hidden.
- The file is read again on SIGHUP, and within a second when the links on the way to it lead elsewhere, as after a change of a
  `ConfigMap`. What selects, `resource`, `sampling`, `routes`, `capture`, `redact` and `attributes` are applied while spantap runs; what else differs is named as needing a restart. A file with
  mistakes changes nothing: all of them are reported. For another selection, `resource`, `capture` or `redact` the probes are attached anew: requests under way end as truncated,
  and what passes in that moment is not seen. The file that `OTEL_CONFIG_FILE` names is read again likewise. Reading
  holds up nothing: it may lie on a network that does not answer. Without any file SIGHUP ends spantap, as it does every program.
- `spantap schema` prints a JSON schema for editors: `# yaml-language-server: $schema=spantap.schema.json`.

| setting | value | default | |
|---|---|---|---|
";
