// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What spans, resources and metrics say is what the semantic conventions' published model lets them say.
//!
//! In: the folder `model` of a checkout of the conventions, named by `SPANTAP_SEMCONV_MODEL`
//! (<https://github.com/open-telemetry/semantic-conventions>), and exchanges that make the agent say everything it can.
//! Out: the claims that names, types, stability and requirement levels agree; skipped, and said so, where there is no
//! model. It does not check values.

#[path = "support/exchanges.rs"]
mod exchanges;
#[expect(dead_code, reason = "this test asks the page itself")]
#[path = "support/vocabulary.rs"]
mod vocabulary;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use exchanges::{exchanges, resource, type_of};
use serde_json::Value as Yaml;
use spantap::{
    attribute::{Attribute, Value},
    context::{SpanId, TraceFlags, TraceId},
    enrich::{Resource, ServiceSpan},
    metrics::{Data, Kind, Metrics, Settings},
    process::ProcessId,
    time::{Task, Timestamp},
    trace::{Begun, Span, SpanKind},
};

#[test]
fn names_and_types_are_those_of_the_published_model() {
    let Some(model) = Model::open() else { return };
    for (_, attributes) in exchanges().into_iter().chain([("resource", resource())]) {
        for Attribute { key, value } in attributes.iter().filter(|attribute| !is_ours(&attribute.key)) {
            let (_, known) = model.attribute(key).unwrap_or_else(|| panic!("{key} is not in the model"));
            let is_one_of_many = known.described_as == format!("template[{}]", type_of(value));
            assert!(is_one_of_many || known.described_as == type_of(value), "{key} is not of {}", known.described_as);
        }
    }
}

#[test]
fn what_a_span_says_is_stable_and_what_a_resource_says_is_known_not_to_be() {
    let Some(model) = Model::open() else { return };
    let mut unstable = BTreeSet::new();
    for (kind, attributes) in exchanges().into_iter().chain([("resource", resource())]) {
        for Attribute { key, .. } in attributes.iter().filter(|attribute| !is_ours(&attribute.key)) {
            let (name, known) = model.attribute(key).unwrap_or_else(|| panic!("{key} is not in the model"));
            if known.stability != "stable" {
                unstable.insert(format!("{kind} {name}").replace("CLIENT", "span").replace("SERVER", "span"));
            }
        }
    }
    let unstable: Vec<_> = unstable.iter().map(String::as_str).collect();
    assert_eq!(unstable, UNSTABLE, "docs/attributes.md says which they are");
}

#[test]
fn a_span_has_what_is_required_and_nothing_that_the_http_conventions_do_not_know() {
    let Some(model) = Model::open() else { return };
    for (kind, attributes) in exchanges() {
        let known = model.group(if kind == "SERVER" { "span.http.server" } else { "span.http.client" });
        let facts: Vec<_> = attributes.iter().map(|attribute| (&*attribute.key, &attribute.value)).collect();
        assert_levels(&model, kind, &known, &facts);
    }
}

/// Whatever any test gets out of the agent is held to the page (`support/vocabulary.rs`), and so to the model.
#[test]
fn every_documented_attribute_is_as_the_model_has_it() {
    let Some(model) = Model::open() else { return };
    let (server, client) = (model.group("span.http.server"), model.group("span.http.client"));
    let mut unstable = BTreeSet::new();
    for (name, row) in vocabulary::page().iter().filter(|(name, _)| !is_ours(name)) {
        let key = name.trim_end_matches(vocabulary::TEMPLATE);
        let known = model.attributes.get(key).unwrap_or_else(|| panic!("{name} is not in the model"));
        let of_many = format!("template[{}]", row.described_as);
        let due = if name.ends_with(vocabulary::TEMPLATE) { &of_many } else { &row.described_as };
        assert_eq!(due, &known.described_as, "the type of {name}");
        let places: &[_] = match row.kind.as_str() {
            "SERVER" => &[&server],
            "CLIENT" => &[&client],
            "both" => &[&server, &client],
            _ => &[],
        };
        for place in places {
            assert!(place.contains_key(key), "the conventions do not have {name} at a {}", row.kind);
        }
        if known.stability != "stable" {
            let place = if row.kind == "resource" { "resource" } else { "span" };
            unstable.insert(format!("{place} {name}"));
        }
    }
    let mut expected: BTreeSet<_> = UNSTABLE.iter().map(ToString::to_string).collect();
    // Of processes outside of containers.
    expected.insert("resource process.owner".to_owned());
    assert_eq!(unstable, expected, "the page says which they are");
}

#[test]
fn metrics_of_the_conventions_are_as_the_model_has_them() {
    let Some(model) = Model::open() else { return };
    let mut metrics = Metrics::new(
        Settings { http_server_address: true, http_body_sizes: true, span_metrics: true, ..Settings::default() },
        7,
    );
    for (kind, attributes) in exchanges() {
        metrics.observe(
            &span(if kind == "SERVER" { SpanKind::Server } else { SpanKind::Client }, attributes),
            Timestamp(1),
        );
    }
    let mut checked = Vec::new();
    for family in metrics.families() {
        let Some(known) = model.metrics.get(family.name) else {
            // Those of Tempo and of the collector's connector; `docs/metrics.md` has the links.
            assert!(family.name.starts_with("traces"), "{} is in no model", family.name);
            continue;
        };
        let instrument = match family.kind {
            Kind::Histogram => "histogram",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let stability = if family.name.ends_with(".size") { "development" } else { "stable" };
        assert_eq!(
            (family.unit, instrument, family.help, stability),
            (&*known.unit, &*known.instrument, &*known.brief, &*known.stability),
            "{}",
            family.name
        );
        let attributes = model.group(&format!("metric.{}", family.name));
        assert!(!family.points.is_empty(), "{} counts nothing", family.name);
        for point in &family.points {
            assert!(matches!(point.data, Data::Histogram(_)));
            for (label, value) in &point.labels {
                let (_, known) = model.attribute(label).unwrap_or_else(|| panic!("{label} is not in the model"));
                assert_eq!((&*known.described_as, &*known.stability), (type_of(value), "stable"), "{label}");
            }
            let labels: Vec<_> = point.labels.iter().map(|(label, value)| (*label, value)).collect();
            assert_levels(&model, family.name, &attributes, &labels);
        }
        checked.push(family.name);
    }
    assert_eq!(
        checked,
        [
            "http.server.request.duration",
            "http.server.request.body.size",
            "http.server.response.body.size",
            "http.client.request.duration",
            "http.client.request.body.size",
            "http.client.response.body.size",
        ]
    );
}

/// What the conventions have not made stable: all of a resource but services and SDKs, and the opt-in sizes.
const UNSTABLE: [&str; 12] = [
    "resource host.arch",
    "resource host.id",
    "resource host.name",
    "resource os.type",
    "resource process.command",
    "resource process.creation.time",
    "resource process.executable.name",
    "resource process.executable.path",
    "resource process.pid",
    "resource process.runtime.name",
    "span http.request.body.size",
    "span http.response.body.size",
];

/// Whether `facts` have everything that `known` requires, and nothing else than it has.
fn assert_levels(model: &Model, what: &str, known: &BTreeMap<String, String>, facts: &[(&str, &Value)]) {
    let is = |key: &str, value: &str| facts.iter().any(|(k, v)| *k == key && v.as_str() == Some(value));
    let is_path = |(key, value): &(&str, &Value)| {
        *key == "server.address" && value.as_str().is_some_and(|address| address.starts_with('/'))
    };
    for (name, _) in known.iter().filter(|(_, level)| *level == "required") {
        // The target of CONNECT is an authority, without a path; a unix socket has no port.
        let is_excused = match name.as_str() {
            "url.path" => is("http.request.method", "CONNECT"),
            "server.port" => facts.iter().any(is_path),
            _ => false,
        };
        let is_there = facts.iter().any(|(key, _)| key == name);
        assert!(is_there || is_excused, "{what} lacks {name}: {facts:?}");
    }
    for (key, _) in facts.iter().filter(|(key, _)| !is_ours(key)) {
        let (name, _) = model.attribute(key).unwrap_or_else(|| panic!("{key} is not in the model"));
        assert!(known.contains_key(name), "{key} does not belong to {what}");
    }
}

fn is_ours(key: &str) -> bool {
    key.starts_with("spantap.")
}

fn span(kind: SpanKind, attributes: Vec<Attribute>) -> ServiceSpan {
    ServiceSpan {
        span: Span {
            trace: TraceId([1; 16]),
            id: SpanId([2; 8]),
            parent: None,
            begun: Begun::Here,
            flags: TraceFlags(0),
            state: None,
            kind,
            name: "GET".into(),
            protocol: "http",
            start: Timestamp(0),
            answered: None,
            end: Timestamp(1),
            failed: false,
            attributes,
            links: Vec::new(),
            task: Task::default(),
            port: 0,
        },
        target: None,
        resource: Arc::new(Resource {
            process: ProcessId { pid: 7, started: 1 },
            service: "shop".into(),
            instrumented: false,
            attributes: resource(),
        }),
    }
}

// --- The model ---

/// What the model's files say (<https://github.com/open-telemetry/weaver/blob/main/schemas/semconv-syntax.md>).
#[derive(Default)]
struct Model {
    attributes: BTreeMap<String, Known>,
    /// By id.
    groups: BTreeMap<String, Group>,
    metrics: BTreeMap<String, Metric>,
}

/// What a group extends, and its attributes with their requirement levels, empty where it gives none.
type Group = (Option<String>, Vec<(String, String)>);

struct Known {
    described_as: String,
    stability: String,
}

struct Metric {
    unit: String,
    instrument: String,
    stability: String,
    brief: String,
}

impl Model {
    fn open() -> Option<Self> {
        let Some(folder) = env::var_os("SPANTAP_SEMCONV_MODEL").map(PathBuf::from) else {
            println!("SKIPPED: SPANTAP_SEMCONV_MODEL does not name a checkout's folder `model`");
            return None;
        };
        let mut model = Self::default();
        for text in files(&folder) {
            let file: Yaml = serde_saphyr::from_str(&text).expect("YAML");
            // The second format of these files has registries at the top, and says `key` where the first says `id`.
            model.define(&file);
            list(&file["groups"]).iter().for_each(|group| model.learn(group));
        }
        assert!(model.attributes.len() > 500, "no model in {}", folder.display());
        Some(model)
    }

    /// Takes the definitions of attributes that stand in `group`.
    fn define(&mut self, group: &Yaml) {
        for attribute in list(&group["attributes"]) {
            let Some(name) = attribute["id"].as_str().or(attribute["key"].as_str()) else { continue };
            // An enumeration's type is the list of its members, which are texts here.
            let described_as = attribute["type"].as_str().unwrap_or("string").to_owned();
            let known = Known { described_as, stability: text(&attribute["stability"]) };
            self.attributes.entry(name.to_owned()).or_insert(known);
        }
    }

    fn learn(&mut self, group: &Yaml) {
        self.define(group);
        let referred = list(&group["attributes"]).iter().filter_map(|attribute| {
            // A level is a word, or a word with the condition.
            let level = match &attribute["requirement_level"] {
                Yaml::Object(conditional) => conditional.keys().next().cloned().unwrap_or_default(),
                level => text(level),
            };
            Some((attribute["ref"].as_str()?.to_owned(), level))
        });
        let listed = referred.collect();
        self.groups.insert(text(&group["id"]), (group["extends"].as_str().map(str::to_owned), listed));
        if let Some(name) = group["metric_name"].as_str() {
            let [unit, instrument, stability, brief] =
                ["unit", "instrument", "stability", "brief"].map(|field| text(&group[field]));
            self.metrics.insert(name.to_owned(), Metric { unit, instrument, stability, brief });
        }
    }

    /// What the model knows of `key`, by its own name or as one of a template's.
    fn attribute(&self, key: &str) -> Option<(&str, &Known)> {
        let template = |(name, known): &(&String, &Known)| {
            known.described_as.starts_with("template[") && key.starts_with(&format!("{name}."))
        };
        let found = self.attributes.get_key_value(key).or_else(|| self.attributes.iter().find(template));
        found.map(|(name, known)| (name.as_str(), known))
    }

    /// The attributes of a group with those that it extends; a level given last is the one that holds.
    fn group(&self, id: &str) -> BTreeMap<String, String> {
        let (extends, listed) = self.groups.get(id).unwrap_or_else(|| panic!("no group {id} in the model"));
        let mut all = extends.as_deref().map(|extended| self.group(extended)).unwrap_or_default();
        for (name, level) in listed {
            if !level.is_empty() || !all.contains_key(name) {
                all.insert(name.clone(), level.clone());
            }
        }
        all
    }
}

fn list(value: &Yaml) -> &[Yaml] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Yaml) -> String {
    value.as_str().unwrap_or_default().trim().to_owned()
}

fn files(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable model") {
        let path = entry.expect("a readable model").path();
        if path.is_dir() {
            texts.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            texts.push(fs::read_to_string(&path).expect("a readable model"));
        }
    }
    texts
}
