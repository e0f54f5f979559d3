// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file that `OTEL_CONFIG_FILE` names: OpenTelemetry's declarative configuration, as far as it has a meaning here.
//!
//! In: what the file says, and variables that it asks for. Out: the layer of settings that it makes, warnings for what is
//! valid and not followed, and mistakes for what is neither. It knows a subset of the schema 1.x, which
//! `docs/declarative.md` lists, and judges no value of a setting.
//!
//! <https://opentelemetry.io/docs/specs/otel/configuration/data-model/>,
//! <https://github.com/open-telemetry/opentelemetry-configuration/tree/main/schema>

use std::sync::Arc;

use serde_json::Value as Json;

use super::{
    Mistake,
    layers::{Node, Origin, Value},
    standard::{attributes_of, headers_of},
    values::closest,
};

/// What a file comes to.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// Settings by their paths, in order.
    pub(super) settings: Vec<(String, Node)>,
    pub(super) warnings: Vec<String>,
    pub(super) mistakes: Vec<(Origin, Mistake)>,
}

/// What `file` says; `variable` knows the environment, for `${NAME}`.
pub(super) fn read(mut file: Node, variable: &dyn Fn(&str) -> Option<String>) -> Declared {
    let mut reader = Reader { declared: Declared::default(), resource: Vec::new(), collectors: 0 };
    reader.substitute(&mut file, variable);
    let has_format = matches!(&file.value, Value::Keys(keys) if keys.iter().any(|(key, _)| key == "file_format"));
    if !has_format {
        let fix = "begin with file_format: \"1.0\"";
        reader.mistake(&file, "file_format", "is missing: it is no declarative configuration", fix);
    }
    reader.group(&file, "", &FILE);
    if !reader.resource.is_empty() {
        // Later ones win where a name comes twice.
        let resource = Node { origin: file.origin.clone(), value: Value::Keys(std::mem::take(&mut reader.resource)) };
        reader.put("resource", resource);
    }
    reader.declared
}

/// What is known of a key.
enum Known {
    /// It is the setting at this path, written alike.
    Is(&'static str),
    /// The same in milliseconds.
    Milliseconds(&'static str),
    /// Keys below it.
    Group(&'static [(&'static str, Known)]),
    /// It takes more than that.
    Read(fn(&mut Reader, &Node, &str)),
    /// It is valid and has no effect here.
    Unfollowed(&'static str),
}

use Known::{Group, Is, Milliseconds, Read, Unfollowed};

/// What may stand in the file.
static FILE: [(&str, Known); 12] = [
    ("file_format", Read(Reader::file_format)),
    ("disabled", Is("disabled")),
    ("log_level", Unfollowed("set SPANTAP_LOG")),
    ("attribute_limits", Read(Reader::attribute_limits)),
    (
        "resource",
        Group(&[
            ("attributes", Read(Reader::resource)),
            ("attributes_list", Read(Reader::resource_list)),
            ("schema_url", Unfollowed("the schema is that of the conventions that spantap follows")),
            ("detection/development", Unfollowed("every resource is detected")),
        ]),
    ),
    ("propagator", Unfollowed("every format is read, and none is written")),
    (
        "tracer_provider",
        Group(&[
            ("processors", Read(Reader::processors)),
            (
                "limits",
                Group(&[
                    ("attribute_value_length_limit", Is("export.limits.characters")),
                    ("attribute_count_limit", Is("export.limits.attributes")),
                    ("link_count_limit", Is("export.limits.links")),
                    ("link_attribute_count_limit", Is("export.limits.link_attributes")),
                    ("event_count_limit", Unfollowed("spans have no events")),
                    ("event_attribute_count_limit", Unfollowed("spans have no events")),
                ]),
            ),
            ("sampler", Read(Reader::sampler)),
            ("tracer_configurator/development", Unfollowed("there is one tracer")),
        ]),
    ),
    (
        "meter_provider",
        Group(&[
            ("readers", Read(Reader::readers)),
            ("views", Unfollowed("metrics are as docs/metrics.md has them")),
            ("exemplar_filter", Is("metrics.exemplars")),
            ("meter_configurator/development", Unfollowed("there is one meter")),
        ]),
    ),
    ("logger_provider", Unfollowed("there are no logs")),
    (
        "instrumentation/development",
        Group(&[("general", Group(&[("http", Group(&[("client", CLIENT), ("server", SERVER)]))]))]),
    ),
    ("distribution", Unfollowed("it is for other distributions")),
    ("id_generator", Unfollowed("ids are random")),
];

const CLIENT: Known = Group(&[
    ("request_captured_headers", Is("capture.client.request_headers")),
    ("response_captured_headers", Is("capture.client.response_headers")),
    ("known_methods", Is("capture.client.known_methods")),
]);

const SERVER: Known = Group(&[
    ("request_captured_headers", Is("capture.server.request_headers")),
    ("response_captured_headers", Is("capture.server.response_headers")),
    ("known_methods", Is("capture.server.known_methods")),
]);

/// Keys of an OTLP exporter: the setting's, and the unit.
const OTLP: [(&str, &str); 4] =
    [("endpoint", "endpoint"), ("timeout", "timeout"), ("compression", "compression"), ("encoding", "protocol")];

/// Keys of its `tls`.
const TLS: [(&str, &str); 4] = [
    ("ca_file", "certificate"),
    ("cert_file", "client_certificate"),
    ("key_file", "client_key"),
    ("insecure", "insecure"),
];

struct Reader {
    declared: Declared,
    /// Attributes of every resource.
    resource: Vec<(String, Node)>,
    /// OTLP exporters of traces so far.
    collectors: usize,
}

impl Reader {
    // --- The tree ---

    fn group(&mut self, node: &Node, path: &str, known: &[(&'static str, Known)]) {
        for (key, below) in self.keys(node, path) {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            // A key without a value has its default.
            if matches!(below.value, Value::Scalar(Json::Null)) {
                continue;
            }
            match known.iter().find(|(name, _)| *name == key) {
                Some((_, Is(setting))) => self.put(setting, below),
                Some((_, Milliseconds(setting))) => self.milliseconds(setting, &below, &path),
                Some((_, Group(known))) => self.group(&below, &path, known),
                Some((_, Read(read))) => read(self, &below, &path),
                Some((_, Unfollowed(why))) => self.unfollowed(&below, &path, why),
                None => self.unknown(&below, &path, &key, &known.iter().map(|(name, _)| *name).collect::<Vec<_>>()),
            }
        }
    }

    /// The keys of a group, or a mistake.
    fn keys(&mut self, node: &Node, path: &str) -> Vec<(String, Node)> {
        match &node.value {
            Value::Keys(keys) => keys.clone(),
            Value::Scalar(Json::Null) => Vec::new(),
            Value::Scalar(_) | Value::List(_) => {
                self.mistake(node, path, "is no group of keys", "write its keys below it");
                Vec::new()
            }
        }
    }

    /// The items of a list, or a mistake.
    fn items(&mut self, node: &Node, path: &str) -> Vec<Node> {
        match &node.value {
            Value::List(items) => items.clone(),
            Value::Keys(_) | Value::Scalar(_) => {
                self.mistake(node, path, "is no list", "begin each item with a dash");
                Vec::new()
            }
        }
    }

    /// The one key of a component, such as an exporter, and what is below it.
    fn component(&mut self, node: &Node, path: &str, known: &[&str]) -> Option<(String, Node)> {
        let mut keys = self.keys(node, path);
        if keys.len() != 1 {
            let fix = format!("there are {}", known.join(", "));
            self.mistake(node, path, "has to have exactly one key", &fix);
            return None;
        }
        keys.pop()
    }

    fn put(&mut self, setting: &str, node: Node) {
        self.declared.settings.push((setting.to_owned(), node));
    }

    /// A text that follows from what stands at `node`.
    fn put_text(&mut self, setting: &str, node: &Node, text: impl Into<String>) {
        self.put(setting, Node::text(node.origin.clone(), text));
    }

    fn milliseconds(&mut self, setting: &str, node: &Node, path: &str) {
        match scalar(node).and_then(|text| text.parse::<u32>().ok()) {
            Some(number) if number > 0 => self.put_text(setting, node, format!("{number}ms")),
            _ => self.mistake(node, path, "is no number of milliseconds above 0", "write a number without a unit"),
        }
    }

    fn mistake(&mut self, node: &Node, path: &str, what: &str, fix: &str) {
        let mistake = node.origin.mistake(path, what, fix.to_owned());
        self.declared.mistakes.push((node.origin.clone(), mistake));
    }

    fn unknown(&mut self, node: &Node, path: &str, key: &str, known: &[&str]) {
        let fix = match closest(key, known) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("spantap knows {}: docs/declarative.md", known.join(", ")),
        };
        self.mistake(node, path, "is not understood", &fix);
    }

    fn unfollowed(&mut self, node: &Node, path: &str, why: &str) {
        self.declared.warnings.push(format!("{}: {path} has no effect here: {why}", node.origin));
    }

    // --- What takes more than a table ---

    fn file_format(&mut self, node: &Node, path: &str) {
        let format = scalar(node).unwrap_or_default();
        if !(format == "1" || format.starts_with("1.")) {
            self.mistake(node, path, &format!("is {format:?}"), "schemas from \"1.0\" on are understood");
        }
    }

    /// Those of spans alone win, wherever they stand.
    fn attribute_limits(&mut self, node: &Node, path: &str) {
        let before = self.declared.settings.len();
        self.group(
            node,
            path,
            &[
                ("attribute_value_length_limit", Is("export.limits.characters")),
                ("attribute_count_limit", Is("export.limits.attributes")),
            ],
        );
        let new = self.declared.settings.len() - before;
        self.declared.settings.rotate_right(new);
    }

    fn resource(&mut self, node: &Node, path: &str) {
        for (index, item) in self.items(node, path).into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some((name, value)) = self.named(&item, &path) {
                self.resource.retain(|(known, _)| *known != name);
                self.resource.push((name, Node::text(item.origin.clone(), value)));
            }
        }
    }

    fn resource_list(&mut self, node: &Node, path: &str) {
        match scalar(node).and_then(|text| attributes_of(&text)) {
            // What `attributes` says of the same name wins, wherever it stands.
            Some(pairs) => {
                for (name, value) in pairs {
                    if !self.resource.iter().any(|(known, _)| *known == name) {
                        self.resource.push((name, Node::text(node.origin.clone(), value)));
                    }
                }
            }
            None => {
                self.mistake(node, path, "is no list of key=value", "percent-encode values: team=blue,region=north")
            }
        }
    }

    /// `{name, value}`; a type is taken as said.
    fn named(&mut self, item: &Node, path: &str) -> Option<(String, String)> {
        let keys = self.keys(item, path);
        let text = |wanted: &str| keys.iter().find(|(key, _)| key == wanted).and_then(|(_, node)| scalar(node));
        let (name, value) = (text("name"), text("value"));
        if name.is_none() || value.is_none() {
            self.mistake(item, path, "has no name and value that are texts", "write {name: a, value: b}");
        }
        for (key, below) in &keys {
            if !["name", "value", "type"].contains(&key.as_str()) {
                self.unknown(below, &format!("{path}.{key}"), key, &["name", "value", "type"]);
            }
        }
        name.zip(value)
    }

    fn processors(&mut self, node: &Node, path: &str) {
        const KINDS: [&str; 2] = ["batch", "simple"];
        for (index, item) in self.items(node, path).into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some((kind, below)) = self.component(&item, &path, &KINDS) else { continue };
            let path = format!("{path}.{kind}");
            match kind.as_str() {
                "batch" => self.group(&below, &path, &BATCH),
                "simple" => self.group(&below, &path, &[("exporter", Read(Self::exporter))]),
                _ => self.unknown(&below, &path, &kind, &KINDS),
            }
        }
    }

    fn exporter(&mut self, node: &Node, path: &str) {
        const KINDS: [&str; 5] = ["otlp_http", "otlp_grpc", "console", "otlp_file/development", "zipkin"];
        let Some((kind, below)) = self.component(node, path, &KINDS) else { return };
        let path = format!("{path}.{kind}");
        let listed = match kind.as_str() {
            "otlp_http" | "otlp_grpc" => {
                self.collectors += 1;
                match self.collectors {
                    1 => self.otlp(&below, &path, &kind, "export.otlp.traces"),
                    _ => self.another(&below, &path, &kind),
                }
                "otlp"
            }
            "console" => "console",
            "otlp_file/development" => {
                let to = self.keys(&below, &path).into_iter().find(|(key, _)| key == "output_stream");
                let stdout = to.as_ref().is_none_or(|(_, to)| scalar(to).as_deref() == Some("stdout"));
                if !stdout {
                    self.mistake(&below, &path, "writes to a file", "output_stream: stdout is all there is");
                }
                "otlp/stdout"
            }
            "zipkin" => {
                const ZIPKIN: [(&str, Known); 2] =
                    [("endpoint", Is("export.zipkin.endpoint")), ("timeout", Milliseconds("export.zipkin.timeout"))];
                self.group(&below, &path, &ZIPKIN);
                "zipkin"
            }
            _ => return self.unknown(&below, &path, &kind, &KINDS),
        };
        // One list of all of them.
        let name = Node::text(below.origin.clone(), listed);
        match self.declared.settings.iter_mut().find(|(setting, _)| setting == "export.traces") {
            Some((_, Node { value: Value::List(names), .. })) => names.push(name),
            _ => self.put("export.traces", Node { origin: below.origin.clone(), value: Value::List(vec![name]) }),
        }
    }

    /// An OTLP exporter as the settings below `prefix`.
    fn otlp(&mut self, node: &Node, path: &str, kind: &str, prefix: &str) {
        for (key, below) in self.otlp_settings(node, path, kind) {
            self.put(&format!("{prefix}.{key}"), below);
        }
    }

    /// A further OTLP exporter of traces is one of more destinations.
    fn another(&mut self, node: &Node, path: &str, kind: &str) {
        let name = Node::text(node.origin.clone(), format!("otlp-{}", self.collectors));
        let mut keys = vec![("name".to_owned(), name)];
        for (key, below) in self.otlp_settings(node, path, kind) {
            if key == "insecure" {
                self.unfollowed(&below, &format!("{path}.tls.insecure"), "write http:// before the endpoint");
            } else {
                keys.push((key, below));
            }
        }
        let one = Node { origin: node.origin.clone(), value: Value::Keys(keys) };
        match self.declared.settings.iter_mut().find(|(setting, _)| setting == "export.destinations") {
            Some((_, Node { value: Value::List(more), .. })) => more.push(one),
            _ => self.put("export.destinations", Node { origin: node.origin.clone(), value: Value::List(vec![one]) }),
        }
    }

    /// The keys of an OTLP exporter, by the names of our settings.
    fn otlp_settings(&mut self, node: &Node, path: &str, kind: &str) -> Vec<(String, Node)> {
        const MORE: [&str; 3] = ["tls", "headers", "headers_list"];
        let (usual, signal) = (kind == "otlp_grpc", path.starts_with("meter_provider"));
        let mut settings = Vec::new();
        let mut headers = Vec::new();
        let mut set = |key: &str, node: Node| settings.push((key.to_owned(), node));
        let endpoint = match (usual, signal) {
            (true, _) => "http://localhost:4317",
            (false, false) => "http://localhost:4318/v1/traces",
            (false, true) => "http://localhost:4318/v1/metrics",
        };
        set("endpoint", Node::text(node.origin.clone(), endpoint));
        set("protocol", Node::text(node.origin.clone(), if usual { "grpc" } else { "http/protobuf" }));
        for (key, below) in self.keys(node, path) {
            let path = format!("{path}.{key}");
            match (key.as_str(), scalar(&below)) {
                _ if matches!(below.value, Value::Scalar(Json::Null)) => {}
                ("timeout", text) => match text.and_then(|text| text.parse::<u32>().ok()) {
                    Some(number) if number > 0 => set("timeout", Node::text(below.origin, format!("{number}ms"))),
                    _ => self.mistake(
                        &below,
                        &path,
                        "is no number of milliseconds above 0",
                        "write a number without a unit",
                    ),
                },
                ("encoding", Some(text)) if !usual && text == "json" => {
                    set("protocol", Node::text(below.origin, "http/json"))
                }
                ("encoding", Some(text)) if !usual && text == "protobuf" => {}
                ("endpoint" | "compression", Some(_)) => set(&key, below),
                ("tls", _) => {
                    for (key, below) in self.keys(&below, &path) {
                        match TLS.iter().find(|(known, _)| *known == key) {
                            Some(_) if matches!(below.value, Value::Scalar(Json::Null)) => {}
                            Some((_, setting)) => set(setting, below),
                            None => self.unknown(&below, &format!("{path}.{key}"), &key, &TLS.map(|(known, _)| known)),
                        }
                    }
                }
                ("headers", _) => {
                    for (index, item) in self.items(&below, &path).into_iter().enumerate() {
                        let pair = self.named(&item, &format!("{path}[{index}]"));
                        headers.extend(pair.map(|(name, value)| (name, Node::text(item.origin.clone(), value))));
                    }
                }
                ("headers_list", text) => match text.map(|text| headers_of(&text)) {
                    Some((pairs, bad)) if bad.is_empty() => {
                        let nodes =
                            pairs.into_iter().map(|(name, value)| (name, Node::text(below.origin.clone(), value)));
                        // What `headers` says of the same name wins.
                        let nodes: Vec<_> =
                            nodes.filter(|(name, _)| !headers.iter().any(|(known, _)| known == name)).collect();
                        headers.extend(nodes);
                    }
                    _ => {
                        self.mistake(&below, &path, "is no list of name=value", "percent-encode values: api-key=a%20b")
                    }
                },
                ("temporality_preference", Some(text)) if signal => {
                    // With the instruments that there are here, what takes little memory is delta.
                    let text = if text == "low_memory" { "delta".to_owned() } else { text };
                    self.put_text("metrics.temporality", &below, text);
                }
                ("default_histogram_aggregation", Some(text)) if signal => {
                    self.put_text("metrics.histograms", &below, text);
                }
                _ => {
                    let own = OTLP.map(|(known, _)| known);
                    let known: Vec<_> = own.into_iter().chain(MORE).collect();
                    self.unknown(&below, &path, &key, &known);
                }
            }
        }
        if !headers.is_empty() {
            settings.push(("headers".to_owned(), Node { origin: node.origin.clone(), value: Value::Keys(headers) }));
        }
        // What stands in the file comes behind the defaults, and wins.
        let mut last: Vec<(String, Node)> = Vec::new();
        for (key, node) in settings {
            match last.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => *known = node,
                None => last.push((key, node)),
            }
        }
        last
    }

    fn readers(&mut self, node: &Node, path: &str) {
        const KINDS: [&str; 2] = ["periodic", "pull"];
        for (index, item) in self.items(node, path).into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            let Some((kind, below)) = self.component(&item, &path, &KINDS) else { continue };
            let path = format!("{path}.{kind}");
            match kind.as_str() {
                "periodic" => self.group(&below, &path, &PERIODIC),
                "pull" => self.group(&below, &path, &[("exporter", Read(Self::pull))]),
                _ => self.unknown(&below, &path, &kind, &KINDS),
            }
        }
    }

    fn interval(&mut self, node: &Node, path: &str) {
        self.above_zero("metrics.export_interval_ms", node, path);
    }

    fn export_timeout(&mut self, node: &Node, path: &str) {
        self.above_zero("metrics.export_timeout_ms", node, path);
    }

    fn above_zero(&mut self, setting: &str, node: &Node, path: &str) {
        match scalar(node).and_then(|text| text.parse::<u64>().ok()) {
            Some(number) if number > 0 => {
                let number = Node { origin: node.origin.clone(), value: Value::Scalar(number.into()) };
                self.put(setting, number);
            }
            _ => self.mistake(node, path, "is no number of milliseconds above 0", "write a number without a unit"),
        }
    }

    fn metrics_exporter(&mut self, node: &Node, path: &str) {
        const KINDS: [&str; 2] = ["otlp_http", "otlp_grpc"];
        let Some((kind, below)) = self.component(node, path, &KINDS) else { return };
        let path = format!("{path}.{kind}");
        if KINDS.contains(&kind.as_str()) {
            self.put("metrics.otlp", Node { origin: below.origin.clone(), value: Value::Scalar(true.into()) });
            self.otlp(&below, &path, &kind, "export.otlp.metrics");
        } else {
            self.unknown(&below, &path, &kind, &KINDS);
        }
    }

    fn pull(&mut self, node: &Node, path: &str) {
        const KINDS: [&str; 1] = ["prometheus/development"];
        let Some((kind, below)) = self.component(node, path, &KINDS) else { return };
        let path = format!("{path}.{kind}");
        if kind != KINDS[0] {
            return self.unknown(&below, &path, &kind, &KINDS);
        }
        let (mut host, mut port) = ("localhost".to_owned(), "9464".to_owned());
        for (key, below) in self.keys(&below, &path) {
            match (key.as_str(), scalar(&below)) {
                ("host", Some(text)) => host = text,
                ("port", Some(text)) => port = text,
                ("host" | "port", None) => {}
                _ => self.unfollowed(&below, &format!("{path}.{key}"), "the format is fixed"),
            }
        }
        // As `OTEL_EXPORTER_PROMETHEUS_HOST`: a socket has an address.
        let host = if host == "localhost" { "127.0.0.1" } else { &host };
        self.put_text("metrics.listen", &below, format!("{host}:{port}"));
    }

    fn sampler(&mut self, node: &Node, path: &str) {
        const KINDS: [&str; 6] = [
            "always_on",
            "always_off",
            "trace_id_ratio_based",
            "probability/development",
            "parent_based",
            "jaeger_remote/development",
        ];
        let Some((kind, below)) = self.component(node, path, &KINDS) else { return };
        let origin = below.origin.clone();
        let below_path = format!("{path}.{kind}");
        let parent_based = kind == "parent_based";
        let origin_of_kind = below.origin.clone();
        let truth = Node { origin: origin_of_kind, value: Value::Scalar(parent_based.into()) };
        self.put("sampling.parent_based", truth);
        if parent_based {
            for (key, below) in self.keys(&below, &below_path) {
                let path = format!("{below_path}.{key}");
                match key.as_str() {
                    "root" => self.strategy(&below, &path, "sampling.root"),
                    "remote_parent_sampled"
                    | "remote_parent_not_sampled"
                    | "local_parent_sampled"
                    | "local_parent_not_sampled" => self.strategy(&below, &path, &format!("sampling.{key}")),
                    _ => {
                        let known = ["root", "remote_parent_sampled", "remote_parent_not_sampled"];
                        self.unknown(&below, &path, &key, &known);
                    }
                }
            }
            return;
        }
        let whole = Node { origin, value: Value::Keys(vec![(kind, below)]) };
        self.strategy(&whole, path, "sampling.root");
    }

    /// A sampler that has none below it, as the setting `setting`.
    fn strategy(&mut self, node: &Node, path: &str, setting: &str) {
        const KINDS: [&str; 4] = ["always_on", "always_off", "trace_id_ratio_based", "probability/development"];
        if matches!(node.value, Value::Scalar(Json::Null)) {
            return;
        }
        let Some((kind, below)) = self.component(node, path, &KINDS) else { return };
        let path = format!("{path}.{kind}");
        let under = |key: &str, value: Node| Node {
            origin: below.origin.clone(),
            value: Value::Keys(vec![(key.to_owned(), value)]),
        };
        match kind.as_str() {
            "always_on" | "always_off" => self.put_text(setting, &below, kind),
            "trace_id_ratio_based" | "probability/development" => {
                let keys = self.keys(&below, &path);
                let ratio = keys.into_iter().find(|(key, _)| key == "ratio").map(|(_, ratio)| ratio);
                let ratio = ratio.unwrap_or_else(|| Node::text(below.origin.clone(), "1"));
                match scalar(&ratio).and_then(|text| text.parse::<f64>().ok()) {
                    Some(number) => {
                        let number = Node { origin: ratio.origin.clone(), value: Value::Scalar(number.into()) };
                        self.put(setting, under("probability", number));
                    }
                    None => self.mistake(&ratio, &format!("{path}.ratio"), "is no number", "give a share from 0 to 1"),
                }
            }
            "jaeger_remote/development" if setting == "sampling.root" => {
                let mut keys = Vec::new();
                for (key, value) in self.keys(&below, &path) {
                    let number = scalar(&value).and_then(|text| text.parse::<u64>().ok());
                    match (key.as_str(), number) {
                        ("endpoint", _) => keys.push((key, value)),
                        ("interval", Some(number)) => {
                            let node = Node { origin: value.origin, value: Value::Scalar(number.into()) };
                            keys.push(("polling_interval_ms".to_owned(), node));
                        }
                        ("initial_sampler", _) => {
                            self.unfollowed(
                                &value,
                                &format!("{path}.{key}"),
                                "write sampling.root.jaeger_remote.initial",
                            );
                        }
                        _ => self.unknown(&value, &format!("{path}.{key}"), &key, &["endpoint", "interval"]),
                    }
                }
                let keys = Node { origin: below.origin.clone(), value: Value::Keys(keys) };
                self.put(setting, under("jaeger_remote", keys));
            }
            _ => self.unknown(&below, &path, &kind, &KINDS),
        }
    }

    // --- Substitution ---

    /// Replaces `${NAME}`, `${env:NAME}` and `${NAME:-default}` in values. "Environment variable substitution MUST only
    /// apply to scalar values. Mapping keys are not candidates for substitution."
    fn substitute(&mut self, node: &mut Node, variable: &dyn Fn(&str) -> Option<String>) {
        match &mut node.value {
            Value::Scalar(Json::String(text)) if text.contains('$') => match substituted(text, variable) {
                Ok(new) if new.is_empty() => node.value = Value::Scalar(Json::Null),
                Ok(new) => *text = new,
                Err(part) => {
                    let what = format!("{part:?} is no reference to a variable");
                    self.mistake(&node.clone(), "", &what, "write ${NAME} or ${NAME:-default}, and $$ for a $");
                }
            },
            Value::Scalar(_) => {}
            Value::List(items) => items.iter_mut().for_each(|item| self.substitute(item, variable)),
            Value::Keys(keys) => keys.iter_mut().for_each(|(_, below)| self.substitute(below, variable)),
        }
    }
}

static BATCH: [(&str, Known); 5] = [
    ("schedule_delay", Milliseconds("export.batch.delay")),
    ("export_timeout", Milliseconds("export.batch.timeout")),
    ("max_queue_size", Is("export.batch.queue")),
    ("max_export_batch_size", Is("export.batch.spans")),
    ("exporter", Read(Reader::exporter)),
];

static PERIODIC: [(&str, Known); 4] = [
    ("interval", Read(Reader::interval)),
    ("timeout", Read(Reader::export_timeout)),
    ("exporter", Read(Reader::metrics_exporter)),
    ("cardinality_limits", Unfollowed("set metrics.max_series")),
];

/// A single value, as text.
fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(Json::Null) | Value::List(_) | Value::Keys(_) => None,
        Value::Scalar(Json::String(text)) => Some(text.clone()),
        Value::Scalar(other) => Some(other.to_string()),
    }
}

/// `text` with its references replaced, or the part that is none. "`$$` is replaced with `$`."
fn substituted(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some(inside) = rest.strip_prefix('{') else {
            out.push('$');
            continue;
        };
        let Some((reference, after)) = inside.split_once('}') else { return Err(format!("${rest}")) };
        let (name, default) = reference.split_once(":-").map_or((reference, ""), |(name, default)| (name, default));
        let name = name.strip_prefix("env:").unwrap_or(name);
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if name.is_empty() || !is_name || name.as_bytes()[0].is_ascii_digit() {
            return Err(format!("${{{reference}}}"));
        }
        out.push_str(&variable(name).unwrap_or_else(|| default.to_owned()));
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// The origins of a file's values, as those of a declarative one.
pub(super) fn declared(node: Node) -> Node {
    let origin = match node.origin {
        Origin::File(file, line) => Origin::Declared(Arc::clone(&file), line),
        other => other,
    };
    let value = match node.value {
        Value::Scalar(scalar) => Value::Scalar(scalar),
        Value::List(items) => Value::List(items.into_iter().map(declared).collect()),
        Value::Keys(keys) => Value::Keys(keys.into_iter().map(|(key, node)| (key, declared(node))).collect()),
    };
    Node { origin, value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_as_the_data_model_has_it() {
        let variable = |name: &str| (name == "STRING_VALUE").then(|| "value".to_owned());
        // From the table of the specification's data model.
        for (text, expected) in [
            ("${STRING_VALUE}", Ok("value")),
            ("${env:STRING_VALUE}", Ok("value")),
            ("foo ${STRING_VALUE} ${STRING_VALUE}", Ok("foo value value")),
            ("${UNDEFINED_KEY}", Ok("")),
            ("${UNDEFINED_KEY:-fallback}", Ok("fallback")),
            ("${UNDEFINED_KEY:-a:-b}", Ok("a:-b")),
            ("$${STRING_VALUE}", Ok("${STRING_VALUE}")),
            ("$$${STRING_VALUE}", Ok("$value")),
            ("$STRING_VALUE", Ok("$STRING_VALUE")),
            ("a $ b", Ok("a $ b")),
            ("${STRING_VALUE:?error}", Err("${STRING_VALUE:?error}")),
            ("${1A}", Err("${1A}")),
            ("${STRING_VALUE", Err("${STRING_VALUE")),
        ] {
            let replaced = substituted(text, &variable);
            assert_eq!(replaced.as_deref().map_err(String::as_str), expected, "{text}");
        }
    }
}
