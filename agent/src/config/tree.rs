// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every setting there is.
//!
//! In: nothing. Out: the tree that all layers fill: its shape is the YAML file's, its paths are the variables
//! (`export.batch.delay` is `SPANTAP_EXPORT_BATCH_DELAY`), its comments are the reference, its defaults are here. It
//! decides nothing: what a setting leads to is written where it is used.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::leaf::{
    Address, AtLeastOne, Compression, Count, Exporter, File, Flag, Pattern, Pid, Port, Secret, Size, Speech, Style,
    Text, Time, Way, When,
};
use crate::{
    enrich::{process::selector::Patterns, route, target},
    export::{Limits, SpanLimits, edit},
    ladder::Budget,
    metrics,
    protocol::disclosure::{Capture, Redact},
    sample, trace,
};

/// The configuration of spantap.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    /// Only these processes, with their descendants. Selectors of one kind are alternatives, different kinds must all
    /// hold, and `exclude` wins.
    pub(super) pid: Vec<Pid>,
    /// Only connections to these ports: a server's own, or the one a client calls.
    pub(super) port: Vec<Port>,
    /// Only executables like these: a file name (`node`, `python3*`), or a whole path when it has a slash.
    pub(super) exe: Vec<Pattern>,
    /// Never executables like these. What carries traces for others, such as the OpenTelemetry Collector, Jaeger or another
    /// tracer, is left out by itself where neither processes nor ports are selected, unless one of `targets` is for it.
    pub(super) exclude: Vec<Pattern>,
    /// Only services with names like these.
    pub(super) service: Vec<Pattern>,
    /// Only processes whose command line is like this, its words joined by blanks: `*manage.py runserver*`.
    pub(super) command: Vec<Pattern>,
    /// Only containers with ids like these: `3f9c*`.
    pub(super) container: Vec<Pattern>,
    /// Only processes in cgroups like these: `/kubepods/**`, `/system.slice/nginx.service`.
    pub(super) cgroup: Vec<Pattern>,
    /// Only processes of these users.
    pub(super) user: Vec<Pattern>,
    /// Rules for kinds of processes that are treated differently. The first one that fits a request counts.
    pub(super) targets: Vec<Target>,
    /// Print traces: `tree`, `text` (a line a request) or `json` (OTLP lines). Without it, and without anywhere to
    /// export to, it is tree on a terminal and text elsewhere.
    pub(super) print: Option<Style>,
    /// Colours: `auto` is on terminals only.
    pub(super) color: Option<When>,
    /// Say nothing but traces and errors.
    pub(super) quiet: Option<Flag>,
    /// Stop after this time.
    pub(super) duration: Option<Time>,
    /// Watch in this way only, as KERNELS.md has them. Without it the best that the kernel takes is used.
    pub(super) tier: Option<Way>,
    /// What spantap says about itself on standard error: a filter such as `info` or `spantap::export=debug`.
    pub(super) log: Option<Text>,
    /// Export to this OTLP endpoint: the short form of `export.otlp.endpoint`, which also knows that collectors speak
    /// gRPC on port 4317.
    pub(super) otlp: Option<Address>,
    /// Nothing is exported, whatever else is set.
    pub(super) disabled: Option<Flag>,
    /// Attributes of every resource, such as `deployment.environment.name: staging`. What a service declares of itself
    /// wins.
    pub(super) resource: BTreeMap<String, Text>,
    /// Where spans are sent, and how.
    pub(super) export: Export,
    /// What spantap itself may take of the machine.
    pub(super) budget: SelfBudget,
    /// Which traces are exported.
    pub(super) sampling: sample::Settings,
    /// What is measured, and who may ask for it.
    pub(super) metrics: metrics::Settings,
    /// What requests are called.
    pub(super) routes: route::Settings,
    /// When a request counts as the one that a call was made for.
    pub(super) parents: trace::Settings,
    /// What is told of requests beyond what spans have anyway.
    pub(super) capture: Capture,
    /// What is hidden beyond what is hidden anyway.
    pub(super) redact: Redact,
    /// Attributes that spans get or lose on their way out. Every rule that fits is applied, in order.
    pub(super) attributes: Vec<edit::Rule>,
}

/// A kind of processes that is treated differently. Patterns of one kind are alternatives, different kinds must all hold.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    /// What it is called in messages and numbers; no two have the same.
    pub(super) name: Text,
    /// As `service`.
    #[serde(default)]
    pub(super) service: Vec<Pattern>,
    /// As `exe`.
    #[serde(default)]
    pub(super) exe: Vec<Pattern>,
    /// As `command`.
    #[serde(default)]
    pub(super) command: Vec<Pattern>,
    /// As `container`.
    #[serde(default)]
    pub(super) container: Vec<Pattern>,
    /// As `cgroup`.
    #[serde(default)]
    pub(super) cgroup: Vec<Pattern>,
    /// As `user`.
    #[serde(default)]
    pub(super) user: Vec<Pattern>,
    /// Only requests to servers on these ports.
    #[serde(default)]
    pub(super) port: Vec<Port>,
    /// Whether they are traced at all; nothing else that selects has to be said then.
    pub(super) trace: Option<Flag>,
    /// What becomes of traces that begin with them on this machine, unless one of `sampling.rules` fits.
    pub(super) sampling: Option<sample::settings::Strategy>,
    /// Only these destinations get their spans: `otlp`, `zipkin`, or names of `export.destinations`; `[]` is none of them.
    pub(super) export: Option<Vec<Text>>,
}

impl Target {
    /// Which processes and ports are meant.
    pub(super) fn selects(&self) -> target::Target {
        let globs = |patterns: &[Pattern]| patterns.iter().map(|Pattern(glob)| glob.clone()).collect();
        target::Target {
            name: self.name.0.clone(),
            patterns: Patterns {
                executables: globs(&self.exe),
                services: globs(&self.service),
                commands: globs(&self.command),
                containers: globs(&self.container),
                cgroups: globs(&self.cgroup),
                users: globs(&self.user),
            },
            ports: self.port.iter().map(|Port(port)| *port).collect(),
            trace: self.trace != Some(Flag(false)),
        }
    }

    /// Its strategy, by its name.
    pub(super) fn samples(&self) -> Option<(String, sample::settings::Strategy)> {
        Some((self.name.0.clone(), self.sampling.clone()?))
    }

    /// Its destinations, by its name.
    pub(super) fn exports(&self) -> Option<(String, Vec<String>)> {
        let names = self.export.as_ref()?.iter().map(|name| name.0.clone()).collect();
        Some((self.name.0.clone(), names))
    }
}

/// What spantap itself may take of the machine.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SelfBudget {
    /// Whether spantap does less when it exceeds what it may take: first spans of a share of the traces only, then
    /// counting only, then nothing; and all of it again, step by step, when it is calm. A debug build takes ten times as
    /// much for the same work, and has to be told to.
    pub(super) enabled: Flag,
    /// Thousandths of a core, over all threads of spantap.
    pub(super) cpu: AtLeastOne,
    /// Resident memory.
    pub(super) memory: Size,
}

impl Default for SelfBudget {
    fn default() -> Self {
        let Budget { cpu, memory, .. } = Budget::default();
        Self { enabled: Flag(true), cpu: AtLeastOne(cpu as usize), memory: Size(memory) }
    }
}

/// Where spans are sent, and how.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Export {
    /// The exporters of traces: `otlp`, `otlp/stdout`, `console`, `zipkin`, `none`. Without them it is `otlp` where an
    /// endpoint is set.
    pub(super) traces: Vec<Exporter>,
    /// The collector.
    pub(super) otlp: Otlp,
    /// Zipkin, where `traces` has it.
    pub(super) zipkin: Zipkin,
    /// More collectors: each gets every span, from a queue of its own.
    pub(super) destinations: Vec<More>,
    /// How spans are gathered into requests, for each destination.
    pub(super) batch: Batch,
    /// Spans on disk, while a collector is away.
    pub(super) spool: Spool,
    /// What a span may have; the rest is left out, and counted in the span.
    pub(super) limits: SpanBounds,
}

/// The collector.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Otlp {
    /// Its address: scheme, host and port, `http://localhost:4318`.
    pub(super) endpoint: Option<Address>,
    /// How it is spoken to; `http/protobuf` where nothing is said.
    pub(super) protocol: Option<Speech>,
    /// Sent with every request: API keys, tenants.
    pub(super) headers: Option<BTreeMap<String, Secret>>,
    /// The longest that a request may take with its retries; 10s where nothing is said.
    pub(super) timeout: Option<Time>,
    /// Whether bodies are compressed.
    pub(super) compression: Option<Compression>,
    /// Whether a gRPC endpoint without a scheme is spoken to in plain text.
    pub(super) insecure: Option<Flag>,
    /// PEM file of the certificates that the collector is verified by, instead of those of the public web.
    pub(super) certificate: Option<File>,
    /// PEM file of the certificate chain that spantap presents.
    pub(super) client_certificate: Option<File>,
    /// PEM file of that chain's private key.
    pub(super) client_key: Option<File>,
    /// What is different for traces.
    pub(super) traces: Signal,
    /// What is different for metrics, where `metrics.otlp` asks for them.
    pub(super) metrics: Signal,
}

/// What is different for one signal.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Signal {
    /// The whole URL, used as it is.
    pub(super) endpoint: Option<Address>,
    /// As `export.otlp.protocol`.
    pub(super) protocol: Option<Speech>,
    /// Instead of `export.otlp.headers`.
    pub(super) headers: Option<BTreeMap<String, Secret>>,
    /// As `export.otlp.timeout`.
    pub(super) timeout: Option<Time>,
    /// As `export.otlp.compression`.
    pub(super) compression: Option<Compression>,
    /// As `export.otlp.insecure`.
    pub(super) insecure: Option<Flag>,
    /// As `export.otlp.certificate`.
    pub(super) certificate: Option<File>,
    /// As `export.otlp.client_certificate`.
    pub(super) client_certificate: Option<File>,
    /// As `export.otlp.client_key`.
    pub(super) client_key: Option<File>,
}

/// Zipkin.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Zipkin {
    /// The whole URL; `http://localhost:9411/api/v2/spans` where nothing is said.
    pub(super) endpoint: Option<Address>,
    /// The longest that a request may take with its retries; 10s where nothing is said.
    pub(super) timeout: Option<Time>,
}

/// Another collector.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct More {
    /// What it is called in messages and numbers.
    pub(super) name: Text,
    /// Its address: scheme, host and port; for HTTP `/v1/traces` is added where it is missing.
    pub(super) endpoint: Address,
    /// How it is spoken to; gRPC on port 4317, else `http/protobuf`, where nothing is said.
    pub(super) protocol: Option<Speech>,
    /// Sent with every request.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Secret>,
    /// The longest that a request may take with its retries; 10s where nothing is said.
    pub(super) timeout: Option<Time>,
    /// Whether bodies are compressed.
    pub(super) compression: Option<Compression>,
    /// As `export.otlp.certificate`.
    pub(super) certificate: Option<File>,
    /// As `export.otlp.client_certificate`.
    pub(super) client_certificate: Option<File>,
    /// As `export.otlp.client_key`.
    pub(super) client_key: Option<File>,
}

/// How spans are gathered into requests.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Batch {
    /// The longest that a span waits for company. 1s: a span is visible 1.5 s after its end.
    pub(super) delay: Time,
    /// Spans that wait or are under way, for each destination. 16384: nearly a second of the busiest host, and 16 MiB.
    pub(super) queue: AtLeastOne,
    /// Spans in one request.
    pub(super) spans: AtLeastOne,
    /// The longest that an export may take, if that is shorter than the destination's own timeout.
    pub(super) timeout: Option<Time>,
}

impl Default for Batch {
    fn default() -> Self {
        let Limits { delay, queue_spans, batch_spans, .. } = Limits::default();
        Self { delay: Time(delay), queue: AtLeastOne(queue_spans), spans: AtLeastOne(batch_spans), timeout: None }
    }
}

/// Spans on disk, while a collector is away.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Spool {
    /// The folder, such as `/var/lib/spantap/spool`; each destination has one of its own in it. Without it spans are given
    /// up when a collector has not taken them for the time of `export.otlp.timeout`.
    pub(super) path: Option<File>,
    /// The most that a destination may have on disk. What does not fit is counted. 256MiB: some twelve minutes of 2,000
    /// spans a second.
    pub(super) size: Size,
}

impl Default for Spool {
    fn default() -> Self {
        Self { path: None, size: Size(256 << 20) }
    }
}

/// What a span may have.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SpanBounds {
    /// Attributes.
    pub(super) attributes: Count,
    /// Characters of a text; no bound where nothing is said, as what is captured is bounded.
    pub(super) characters: Option<Count>,
    /// Links.
    pub(super) links: Count,
    /// Attributes of a link.
    pub(super) link_attributes: Count,
}

impl Default for SpanBounds {
    fn default() -> Self {
        let SpanLimits { attributes, links, link_attributes, .. } = SpanLimits::default();
        Self {
            attributes: Count(attributes),
            characters: None,
            links: Count(links),
            link_attributes: Count(link_attributes),
        }
    }
}
