// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the user asked for, decided once.
//!
//! In: the raw layers (the command line, the environment, a file, what standard output is). Out: one [`Decision`], or
//! every mistake at once, each with what to do. After that no code asks whether a flag was given, and no stage reads the
//! environment. It opens no connection, and no file but the one it is told of.
//!
//! ```text
//! file, OTEL_*, SPANTAP_*, flags → layers → tree (typed, with origins) → Config
//! ```

mod arguments;
mod declarative;
pub mod environment;
mod file;
mod layers;
mod leaf;
mod otlp;
pub mod reload;
mod sampling;
mod schema;
mod standard;
mod tree;
mod values;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::{self, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Parser as _;
use opentelemetry_semantic_conventions::attribute::{HTTP_REQUEST_BODY_SIZE, HTTP_RESPONSE_BODY_SIZE};
use serde_json::Value as Json;
use spantap_common::abi::RING_BYTES;

use self::{
    arguments::{Arguments, CommandArguments, Given},
    declarative::Declared,
    environment::{Environment, Variables},
    layers::{Layers, Node, Origin, Value},
    leaf::{Flag, Pattern, Port, Time, When},
    otlp::Kind,
    schema::Shape,
    tree::Settings,
    values::closest,
};
use crate::{
    enrich::{
        process::selector::Patterns,
        route::{self, Routes},
        target::Target,
    },
    export,
    kernel::Tier,
    ladder::Budget,
    metrics, pipeline,
    protocol::disclosure::{self, Capture, Disclosure},
    sample, trace,
};

/// Everything `run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which sockets are traced.
    pub selection: Selection,
    /// The only way of watching to try; none is the best that this kernel takes.
    pub tier: Option<Tier>,
    /// Where spans go.
    pub output: Output,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Write the raw event stream here as well.
    pub record: Option<PathBuf>,
    /// Say nothing but traces, warnings and errors: no banner, no hints, no summary.
    pub quiet: bool,
    /// Attributes of every resource whose service declares no other value.
    pub resource: Vec<(String, String)>,
    /// What parsers tell and hide.
    pub disclosure: disclosure::Settings,
    /// What the agent's process may take before it does less; none is as much as it needs.
    pub budget: Option<Budget>,
    /// Bounds that tests change.
    pub bounds: Bounds,
}

/// Bounds that nobody but a test has reason to change. Tests of the executable do it with `SPANTAP_TEST_BOUNDS`, a list
/// such as `ring=65536,connections=4`: that what is lost at a bound is counted is a claim about the whole program. No
/// help mentions the variable, and its names may change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    /// `ring`: bytes of the ring, a power of two.
    pub ring_bytes: u32,
    /// `connections`, `exchanges`, and `silence` in milliseconds.
    pub pipeline: pipeline::Limits,
    /// `queue`: spans on their way to one output, instead of [`export::Limits::queue_spans`].
    pub queue_spans: Option<usize>,
    /// `calm`: milliseconds instead of [`Budget::calm`].
    pub calm: Option<Duration>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { ring_bytes: RING_BYTES, pipeline: pipeline::Limits::default(), queue_spans: None, calm: None }
    }
}

/// Which processes and sockets are traced. Selectors of one kind are alternatives, different kinds must all hold,
/// exclusion wins. Nothing selected is everything but the agent itself, and what carries traces for others.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// `--pid`.
    pub pids: Vec<u32>,
    /// `--port`: the local port of a server, the remote port of a client.
    pub ports: Vec<u16>,
    /// `--exe` and the other patterns for processes.
    pub patterns: Patterns,
    /// `--exclude`: globs over executables.
    pub excluded: Vec<String>,
    /// Rules for kinds of processes.
    pub targets: Vec<Target>,
}

impl Selection {
    /// Whether nothing was selected or excluded.
    pub fn is_everything(&self) -> bool {
        let Self { pids, ports, patterns, excluded, targets } = self;
        let nothing = pids.is_empty() && ports.is_empty() && excluded.is_empty() && *patterns == Patterns::default();
        nothing && targets.iter().all(|target| target.trace)
    }
}

/// Where spans go. An endpoint alone exports only; `--print` adds printing; without either, traces are printed.
/// Neither is what `record` does, and what `OTEL_TRACES_EXPORTER=none` asks for: spans are counted only.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Every one of them gets every exported span, from a queue of its own.
    pub destinations: Vec<Destination>,
    /// To standard output.
    pub print: Option<Print>,
    /// Which of them are sent to the destinations.
    pub sampling: sample::Settings,
    /// What is measured, and who may ask for it.
    pub metrics: metrics::Settings,
    /// Where numbers are sent, if that was asked for.
    pub metric_destinations: Vec<Destination>,
    /// What spans are called.
    pub routes: route::Settings,
    /// When a request is a call's parent.
    pub parents: trace::Settings,
    /// The destinations of spans that fall under a rule for their process, by the rule's name.
    pub target_exports: BTreeMap<String, Vec<String>>,
    /// What is added to them on their way out, and what is taken away.
    pub edits: Vec<export::edit::Rule>,
    /// Nobody said where spans go: a collector on this machine gets them instead of standard output, if there is one.
    pub unasked: bool,
    /// Bounds of each destination's queue and requests.
    pub limits: export::Limits,
}

/// How finished traces are printed on standard output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Print {
    /// The format.
    pub style: PrintStyle,
    /// Whether colours are used.
    pub colour: Colour,
    /// Whether standard output is a terminal: its width is obeyed, and hints make sense.
    pub terminal: bool,
}

/// The formats of finished traces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PrintStyle {
    /// Each finished trace as a tree.
    Tree,
    /// One line a request.
    Text,
    /// OTLP JSON, one line a batch.
    Json,
}

/// Whether escape sequences for colour are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Colour {
    /// They are.
    On,
    /// Plain text.
    Off,
}

/// Where spans are sent to, after the environment variables of the specification were applied
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
#[derive(Clone, Eq, PartialEq)]
pub struct Destination {
    /// What it is called in messages and numbers; no two have the same.
    pub name: String,
    /// The URL spans are sent to, as the specification forms it (for HTTP with the signal's path).
    pub endpoint: String,
    /// How.
    pub protocol: Protocol,
    /// Sent with every request: names and decoded values.
    pub headers: Vec<(String, String)>,
    /// Bound on one request with its retries.
    pub timeout: Duration,
    /// Whether request bodies are gzipped.
    pub gzip: bool,
    /// Whom to trust, and as whom to appear, where the endpoint is `https`.
    pub tls: Tls,
    /// Where spans are kept while nobody takes them.
    pub spool: Option<Spool>,
}

/// Requests on disk.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Spool {
    /// The folder; each destination has one of its own in it.
    pub folder: PathBuf,
    /// The most that a destination may have there.
    pub most_bytes: u64,
}

/// Paths of PEM files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tls {
    /// The certificates that servers are verified by, instead of those of the public web.
    pub certificate: Option<PathBuf>,
    /// The chain that the agent presents itself with.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that chain.
    pub client_key: Option<PathBuf>,
}

impl Destination {
    /// `endpoint`, as the specification has it where nothing else is said.
    pub fn new(endpoint: impl Into<String>, protocol: Protocol) -> Self {
        Self {
            // Not the transport's: it names the folder of the spool, which a change of the transport must not orphan.
            name: if protocol == Protocol::Zipkin { ZIPKIN } else { OTLP }.to_owned(),
            endpoint: endpoint.into(),
            protocol,
            headers: Vec::new(),
            timeout: otlp::DEFAULT_TIMEOUT,
            gzip: false,
            tls: Tls::default(),
            spool: None,
        }
    }

    /// Where the same collector takes metrics; Zipkin takes none.
    fn for_metrics(&self) -> Option<Self> {
        let endpoint = match self.protocol {
            Protocol::Grpc => self.endpoint.clone(),
            Protocol::HttpProtobuf | Protocol::HttpJson => {
                let base = self.endpoint.strip_suffix("/v1/traces").unwrap_or(self.endpoint.trim_end_matches('/'));
                format!("{base}/v1/metrics")
            }
            Protocol::Zipkin => return None,
        };
        // Numbers are cumulative: what waits on disk is spans.
        Some(Self { endpoint, spool: None, ..self.clone() })
    }

    /// The endpoint for human eyes: user name and password of the URL are hidden.
    pub fn endpoint_shown(&self) -> String {
        otlp::without_credentials(&self.endpoint)
    }
}

// Values of headers are usually credentials, and so is the URL's user information: neither ends up in a log by `{:?}`.
impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Destination")
            .field("name", &self.name)
            .field("endpoint", &self.endpoint_shown())
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("gzip", &self.gzip)
            .field("tls", &self.tls)
            .field("spool", &self.spool)
            .finish()
    }
}

/// How a destination is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf over HTTP/1.
    HttpProtobuf,
    /// OTLP as JSON over HTTP/1.
    HttpJson,
    /// Zipkin's API, version 2: spans only.
    Zipkin,
}

impl Protocol {
    /// The specification's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
            Self::Zipkin => "zipkin",
        }
    }
}

/// What one invocation is to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// `run` and `record`: trace until told to stop.
    Run(Config),
    /// `replay`: recorded events instead of the kernel's.
    Replay {
        /// The recording.
        file: PathBuf,
        /// Only its output matters.
        config: Config,
    },
    /// `demo`: trace services of our own.
    Demo(Config),
    /// `doctor`.
    Doctor(DoctorConfig),
    /// `schema`, `--print-config`, `--validate`: what was asked for.
    Say(String),
    /// `version`.
    Version {
        /// As JSON.
        json: bool,
    },
    /// A child of `demo`.
    DemoService {
        /// Which part it plays.
        role: String,
        /// The services it calls.
        upstreams: Vec<SocketAddr>,
    },
    /// The child of `doctor` that talks to itself.
    DoctorExchange,
}

/// What `doctor` needs to know.
#[derive(Clone, Debug)]
pub struct DoctorConfig {
    /// As [`Config::tier`].
    pub tier: Option<Tier>,
    /// One JSON object instead of lines.
    pub json: bool,
    /// The configured collectors.
    pub destinations: Vec<Destination>,
    /// Whether colours are used.
    pub colour: Colour,
}

/// A command, and what has to be said before it starts.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What to do.
    pub command: Command,
    /// Settings that were understood and not followed, or not understood and ignored.
    pub warnings: Vec<String>,
    /// The files that were read: they may say something else later.
    pub files: Vec<PathBuf>,
    /// The filter of the agent's own log, in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
}

/// What standard output is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// A terminal.
    pub terminal: bool,
}

/// Why there is no decision.
#[derive(Debug)]
pub enum Refusal {
    /// The command line has no meaning, or asks for help or the version: clap has the text and the exit code.
    CommandLine(clap::Error),
    /// The command line has a meaning, but values in it or in the environment are wrong: all of them.
    Mistakes(Vec<Mistake>),
}

/// One wrong value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mistake {
    /// What is wrong, and where.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n       → {}", self.what, self.fix)
    }
}

/// Decides what to do. `arguments` begins with the program's name.
pub fn decide(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &dyn Environment,
    screen: Screen,
) -> Result<Decision, Refusal> {
    let arguments = Arguments::try_parse_from(arguments).map_err(Refusal::CommandLine)?;
    let command = arguments.command.unwrap_or(CommandArguments::Run(arguments.run));
    let mut variables = Variables::new(environment);
    let (file, given) = command.given();
    let named = named(file, &variables);
    let files = named.iter().map(|(_, path)| path.clone());
    let files = files.chain(variables.text(DECLARATIVE).map(PathBuf::from)).collect();
    let mut layers = layers(named, given, &mut variables);
    let settings = layers.settle();
    let mut desk = Desk { variables, screen, layers, settings };
    let command = desk.command(command);
    let log = desk.log_filter(&command);
    desk.unknown_variables();
    let Desk { variables, layers, .. } = desk;
    let mistakes = layers.into_mistakes();
    if mistakes.is_empty() {
        // A service of the demo is what is watched: its variables are meant for whoever watches.
        let warnings = if matches!(command, Command::DemoService { .. }) { Vec::new() } else { variables.warnings };
        Ok(Decision { command, warnings, files, log })
    } else {
        Err(Refusal::Mistakes(mistakes))
    }
}

/// The file, and who names it.
fn named(file: Option<&Path>, variables: &Variables<'_>) -> Option<(Origin, PathBuf)> {
    let named = file.map(|file| (Origin::Flag("--config"), file.to_path_buf()));
    named.or_else(|| variables.text(CONFIG).map(|path| (Origin::Variable(CONFIG.to_owned()), path.into())))
}

/// The layers, from the lowest to the highest.
fn layers(named: Option<(Origin, PathBuf)>, given: Vec<Given>, variables: &mut Variables<'_>) -> Layers {
    let mut layers = Layers::new();
    if let Some((origin, path)) = named {
        let shown = path.display().to_string();
        let read = variables.file(&path);
        let read = read.map_err(|error| {
            let fix = "give the path of a YAML file that this user can read".to_owned();
            origin.mistake("config", &format!("{shown} cannot be read ({error})"), fix)
        });
        match read.and_then(|text| file::parse(&shown, &text)) {
            Ok(layer) => layers.lay(layer),
            Err(mistake) => layers.mistaken(origin, mistake),
        }
    }
    match variables.text(DECLARATIVE) {
        Some(path) => lay_declarative(&path, variables, &mut layers),
        None => {
            standard::lay(variables, &mut layers);
            sampling::lay(variables, &mut layers);
        }
    }
    let shape = layers.shape().clone();
    for (path, setting) in shape.settings() {
        let name = schema::variable(&path);
        if let Some(text) = variables.text(&name) {
            match twin(&name, &text, &setting.shape) {
                Ok(node) => layers.put(&path, node),
                Err(mistake) => layers.mistaken(Origin::Variable(name), mistake),
            }
        }
    }
    for (path, flag, words) in given {
        let origin = Origin::Flag(flag);
        let is_list =
            shape.settings().iter().any(|(known, setting)| known == path && matches!(setting.shape, Shape::List(_)));
        let node = match words.as_slice() {
            [word] if !is_list => Node::text(origin, word.as_str()),
            words => Node::list(&origin, words.iter().map(String::as_str)),
        };
        layers.put(path, node);
    }
    layers
}

/// What OpenTelemetry's own file says, in the place of its variables: "When OTEL_CONFIG_FILE is set, all other environment
/// variables besides those referenced in the configuration file for environment variable substitution MUST be ignored."
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#declarative-configuration>
fn lay_declarative(path: &str, variables: &mut Variables<'_>, layers: &mut Layers) {
    let origin = Origin::Variable(DECLARATIVE.to_owned());
    let text = variables.file(Path::new(path)).map_err(|error| {
        let fix = "give the path of a YAML file that this user can read".to_owned();
        origin.mistake("", &format!("names {path}, which cannot be read ({error})"), fix)
    });
    let parsed = text.and_then(|text| Ok((file::parse(path, &text)?, text)));
    let (node, text) = match parsed {
        Ok(parsed) => parsed,
        Err(mistake) => return layers.mistaken(origin, mistake),
    };
    let Declared { settings, warnings, mistakes } =
        declarative::read(declarative::declared(node), &|name| variables.text(name));
    mistakes.into_iter().for_each(|(origin, mistake)| layers.mistaken(origin, mistake));
    settings.into_iter().for_each(|(path, node)| layers.put(&path, node));
    warnings.into_iter().for_each(|warning| variables.warn(warning));
    let ignored = |name: &String| name.starts_with("OTEL_") && name != DECLARATIVE && !text.contains(name.as_str());
    let ignored: Vec<_> = variables.names().into_iter().filter(ignored).collect();
    if !ignored.is_empty() {
        variables.warn(format!("{DECLARATIVE} is set, which other variables give way to: {}", ignored.join(", ")));
    }
}

/// What the variable `name` says: a value, a list between commas, `key=value` pairs, or YAML where it is a group.
fn twin(name: &str, text: &str, shape: &Shape) -> Result<Node, Mistake> {
    let origin = Origin::Variable(name.to_owned());
    match shape {
        Shape::List(item) if matches!(**item, Shape::Value(_)) => Ok(Node::list(&origin, [text])),
        Shape::Value(kind) if kind != schema::NAMES => {
            // What a file has as a number or a truth value, a variable has as a text.
            let plain = serde_json::from_str(text).ok().filter(|json: &Json| json.is_number() || json.is_boolean());
            let json = plain.filter(|_| kind == schema::NUMBER || kind == schema::TRUTH);
            let value = Value::Scalar(json.unwrap_or_else(|| text.into()));
            Ok(Node { origin, value })
        }
        Shape::Value(_) => {
            let pairs = text.split(',').filter(|pair| !pair.trim().is_empty()).map(|pair| pair.split_once('='));
            let pairs: Option<Vec<_>> = pairs.collect();
            let pairs = pairs.ok_or_else(|| {
                origin.mistake("", "has no = between name and value", format!("write {name}=a=1,b=2"))
            })?;
            let node = |value: &str| Node::text(origin.clone(), value.trim());
            let keys = pairs.into_iter().map(|(key, value)| (key.trim().to_owned(), node(value))).collect();
            Ok(Node { value: Value::Keys(keys), origin })
        }
        Shape::List(_) | Shape::Group(_) | Shape::Choice(_) => {
            file::parse(name, &format!("v: {text}")).map(|node| match node.value {
                Value::Keys(mut keys) if keys.len() == 1 => keys.remove(0).1,
                _ => node,
            })
        }
    }
}

/// Where settings become decisions. Every method goes on after a mistake with some value: the decision is thrown away
/// then, but the next mistake is found.
struct Desk<'a> {
    variables: Variables<'a>,
    screen: Screen,
    layers: Layers,
    settings: Settings,
}

impl Desk<'_> {
    fn command(&mut self, command: CommandArguments) -> Command {
        match command {
            CommandArguments::Run(run) => {
                let bounds = self.bounds();
                let config = Config { output: self.output(), budget: self.budget(bounds), bounds, ..self.config() };
                if run.print_config {
                    Command::Say(self.every_setting())
                } else if run.validate {
                    Command::Say("The configuration is good.\n".to_owned())
                } else {
                    Command::Run(config)
                }
            }
            CommandArguments::Record(record) => {
                let output = Output::default();
                Command::Run(Config { output, record: Some(record.file), ..self.config() })
            }
            CommandArguments::Replay(replay) => {
                let config = Config { output: self.output(), ..self.config() };
                // What a process is said to be holds for a recorded one as well.
                let selection = Selection { targets: config.selection.targets.clone(), ..Selection::default() };
                let config = Config { selection, tier: None, duration: None, ..config };
                Command::Replay { config, file: replay.file }
            }
            CommandArguments::Demo(_) => self.demo(),
            CommandArguments::Doctor(doctor) => Command::Doctor(DoctorConfig {
                tier: self.settings.tier.as_ref().map(|tier| tier.0),
                json: self.flag(JSON, doctor.json),
                destinations: self.destinations(),
                colour: self.colour(),
            }),
            CommandArguments::Version(version) => Command::Version { json: self.flag(JSON, version.json) },
            CommandArguments::Schema => Command::Say(format!("{:#}\n", schema::schema())),
            CommandArguments::DemoService(service) => {
                Command::DemoService { role: service.role, upstreams: service.upstreams }
            }
            CommandArguments::DoctorExchange => Command::DoctorExchange,
        }
    }

    /// What most commands have in common.
    fn config(&mut self) -> Config {
        let settings = &self.settings;
        let globs = |patterns: &[Pattern]| patterns.iter().map(|Pattern(glob)| glob.clone()).collect();
        Config {
            selection: Selection {
                pids: settings.pid.iter().map(|pid| pid.0).collect(),
                ports: settings.port.iter().map(|Port(port)| *port).collect(),
                patterns: Patterns {
                    executables: globs(&settings.exe),
                    services: globs(&settings.service),
                    commands: globs(&settings.command),
                    containers: globs(&settings.container),
                    cgroups: globs(&settings.cgroup),
                    users: globs(&settings.user),
                },
                excluded: globs(&settings.exclude),
                targets: settings.targets.iter().map(tree::Target::selects).collect(),
            },
            tier: settings.tier.as_ref().map(|tier| tier.0),
            output: Output::default(),
            duration: settings.duration.as_ref().map(|Time(duration)| *duration),
            record: None,
            quiet: settings.quiet == Some(Flag(true)),
            resource: settings.resource.iter().map(|(key, value)| (key.clone(), value.0.clone())).collect(),
            disclosure: self.disclosure(),
            budget: None,
            bounds: Bounds::default(),
        }
    }

    /// What parsers tell and hide. Metrics of bodies need their sizes.
    fn disclosure(&self) -> disclosure::Settings {
        let Settings { capture, redact, .. } = &self.settings;
        let body_sizes = capture.body_sizes || self.measures_bodies();
        disclosure::Settings { capture: Capture { body_sizes, ..capture.clone() }, redact: redact.clone() }
    }

    /// What becomes of attributes on their way out. What only metrics need is in no span that leaves.
    fn edits(&self) -> Vec<export::edit::Rule> {
        let measured = (self.measures_bodies() && !self.settings.capture.body_sizes).then(|| export::edit::Rule {
            drop: [HTTP_REQUEST_BODY_SIZE, HTTP_RESPONSE_BODY_SIZE].map(str::to_owned).to_vec(),
            ..export::edit::Rule::default()
        });
        measured.into_iter().chain(self.settings.attributes.iter().cloned()).collect()
    }

    fn measures_bodies(&self) -> bool {
        self.settings.metrics.http_body_sizes && self.settings.metrics.is_wanted()
    }

    /// What a run may take. A recording, a demonstration and a replay are short, and asked for as a whole.
    fn budget(&self, bounds: Bounds) -> Option<Budget> {
        let budget = &self.settings.budget;
        let unasked = self.layers.origin("budget.enabled") == Origin::Default;
        if budget.enabled == Flag(false) || (cfg!(debug_assertions) && unasked) {
            return None;
        }
        let usual = Budget::default();
        let cpu = u32::try_from(budget.cpu.0).unwrap_or(u32::MAX);
        Some(Budget { cpu, memory: budget.memory.0, calm: bounds.calm.unwrap_or(usual.calm) })
    }

    fn demo(&mut self) -> Command {
        let style = self.settings.print.as_ref().map_or(PrintStyle::Tree, |style| style.0);
        let print = self.print(style);
        let destinations = self.destinations();
        let output = Output {
            metric_destinations: self.metric_destinations(&destinations),
            destinations,
            print: Some(print),
            metrics: self.settings.metrics.clone(),
            edits: self.edits(),
            ..Output::default()
        };
        let config = Config { output, selection: Selection::default(), ..self.config() };
        Command::Demo(Config { duration: config.duration.or(Some(DEMO_DURATION)), ..config })
    }

    fn output(&mut self) -> Output {
        self.judge_stages();
        let destinations = self.destinations();
        let names = |kind| otlp::names(&self.settings, kind);
        let listed = !self.settings.export.traces.is_empty();
        let silent = listed && ![Kind::Otlp, Kind::Console, Kind::JsonLines, Kind::Zipkin].into_iter().any(names);
        let unsaid = destinations.is_empty() && !silent;
        let asked = self.settings.print.as_ref().map(|style| style.0);
        let asked = asked.or_else(|| names(Kind::Console).then(|| self.usual_style()));
        let asked = asked.or(names(Kind::JsonLines).then_some(PrintStyle::Json));
        let style = asked.or_else(|| unsaid.then(|| self.usual_style()));
        if destinations.is_empty() && style.is_none() {
            let list = self.layers.origin("export.traces").name("export.traces");
            self.variables.warn(format!("{list}=none: spans are only counted; add --print tree to see them"));
        }
        Output {
            metric_destinations: self.metric_destinations(&destinations),
            unasked: unsaid && asked.is_none() && self.settings.disabled != Some(Flag(true)),
            destinations,
            print: style.map(|style| self.print(style)),
            sampling: self.sampling(),
            target_exports: self.settings.targets.iter().filter_map(tree::Target::exports).collect(),
            metrics: self.settings.metrics.clone(),
            routes: self.settings.routes.clone(),
            parents: self.settings.parents,
            edits: self.edits(),
            limits: otlp::limits(&self.settings, &mut self.variables.warnings),
        }
    }

    /// Which traces are exported, with what is said of kinds of processes.
    fn sampling(&self) -> sample::Settings {
        let targets = self.settings.targets.iter().filter_map(tree::Target::samples).collect();
        sample::Settings { targets, ..self.settings.sampling.clone() }
    }

    fn destinations(&mut self) -> Vec<Destination> {
        otlp::destinations(&self.settings, &mut self.layers, &mut self.variables.warnings)
    }

    /// Where numbers go, beside `spans`.
    fn metric_destinations(&mut self, spans: &[Destination]) -> Vec<Destination> {
        otlp::of_metrics(&self.settings, spans, &mut self.layers, &mut self.variables.warnings)
    }

    /// What only the stages know to be wrong.
    fn judge_stages(&mut self) {
        for told in Routes::new(&self.settings.routes).err().unwrap_or_default() {
            let places = ["routes.patterns", "routes.services"].map(|path| self.layers.origin(path));
            let origin = places.into_iter().find(|origin| *origin != Origin::Default).unwrap_or_default();
            let mistake = Mistake { what: format!("{origin}: {told}"), fix: "see docs/routes.md".to_owned() };
            self.layers.mistaken(origin, mistake);
        }
        let sampling = self.sampling().mistakes().into_iter();
        let sampling = sampling.chain(self.rules_without_header()).map(|told| (told, "see docs/sampling.md"));
        let sampling: Vec<_> = sampling.collect();
        let disclosure =
            disclosure::Settings { capture: self.settings.capture.clone(), redact: self.settings.redact.clone() };
        let disclosed = Disclosure::new(&disclosure).err().unwrap_or_default();
        self.judge_targets();
        let edits = export::edit::mistakes(&self.settings.attributes);
        let disclosed = disclosed.into_iter().chain(edits).map(|told| (told, "see docs/privacy.md"));
        let metrics = self.settings.metrics.mistakes().into_iter().map(|told| (told, "see docs/configuration.md"));
        let parents = self.settings.parents.mistakes().into_iter().map(|told| (told, "see docs/parents.md"));
        for (told, page) in sampling.into_iter().chain(metrics).chain(disclosed).chain(parents) {
            let (path, what) = told.split_once([' ', ':']).unwrap_or((&told, ""));
            let mut place = path;
            let mut origin = self.layers.origin(place);
            // The name of a strategy is no part of what a stage calls a setting below it.
            while origin == Origin::Default
                && let Some((above, _)) = place.rsplit_once('.')
            {
                place = above;
                origin = self.layers.origin(place);
            }
            let mistake = origin.mistake(path, what.trim(), page.to_owned());
            self.layers.mistaken(origin, mistake);
        }
    }

    /// Rules for processes that cannot be followed.
    fn judge_targets(&mut self) {
        let Settings { targets, export, .. } = &self.settings;
        let mut known = vec![OTLP, ZIPKIN];
        known.extend(export.destinations.iter().map(|more| more.name.0.as_str()));
        let mut told = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let mut mistake = |key: &str, what: &str, fix: String| {
                let path = format!("targets[{index}].{key}");
                let origin = self.layers.origin(&path);
                told.push((origin.clone(), origin.mistake(&path, what, fix)));
            };
            let name = &target.name.0;
            if targets[..index].iter().any(|other| other.name == target.name) {
                mistake("name", &format!("is {name:?} for the second time"), "give each a name of its own".to_owned());
            }
            if target.trace == Some(Flag(false)) && !target.port.is_empty() {
                let fix = "leave out its ports, or use always_off as sampling".to_owned();
                mistake("trace", "cannot be false for some ports of a process", fix);
            }
            for name in target.export.iter().flatten().filter(|name| !known.contains(&name.0.as_str())) {
                let what = format!("names {:?}, which is no destination", name.0);
                mistake("export", &what, format!("there are {}; [] is none", known.join(", ")));
            }
        }
        if targets.len() > crate::enrich::target::MOST {
            let origin = self.layers.origin("targets");
            let fix = "put kinds of processes together: patterns of one kind are alternatives".to_owned();
            let what = format!("has more than {} rules", crate::enrich::target::MOST);
            told.push((origin.clone(), origin.mistake("targets", &what, fix)));
        }
        told.into_iter().for_each(|(origin, mistake)| self.layers.mistaken(origin, mistake));
    }

    /// Rules that ask for a header field that nobody captures: they would never match.
    fn rules_without_header(&self) -> Vec<String> {
        let Settings { sampling, capture, .. } = &self.settings;
        let captured = |name: &str| {
            let fields = capture.server.request_headers.iter().chain(&capture.client.request_headers);
            fields.into_iter().any(|field| field.trim().eq_ignore_ascii_case(name))
        };
        let asked = sampling.rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.header.as_ref()?)));
        let told = asked.filter(|(_, header)| !captured(&header.name)).map(|(index, header)| {
            let name = &header.name;
            format!("sampling.rules[{index}].header asks for {name:?}, which capture.server.request_headers has not")
        });
        told.collect()
    }

    fn usual_style(&self) -> PrintStyle {
        if self.screen.terminal { PrintStyle::Tree } else { PrintStyle::Text }
    }

    fn print(&self, style: PrintStyle) -> Print {
        Print { style, colour: self.colour(), terminal: self.screen.terminal }
    }

    fn colour(&self) -> Colour {
        if let Some(When(Some(colour))) = self.settings.color {
            return colour;
        }
        // https://no-color.org: "when present and not an empty string (regardless of its value), prevents the addition
        // of ANSI color."
        let plain = self.variables.text("NO_COLOR").is_some() || self.variables.text("TERM").as_deref() == Some("dumb");
        if self.screen.terminal && !plain { Colour::On } else { Colour::Off }
    }

    fn bounds(&mut self) -> Bounds {
        let mut bounds = Bounds::default();
        let text = self.variables.text(TEST_BOUNDS).unwrap_or_default();
        for setting in text.split(',').filter(|setting| !setting.is_empty()) {
            let parsed = setting.split_once('=').and_then(|(name, value)| Some((name, value.parse::<u32>().ok()?)));
            match parsed {
                Some(("ring", bytes)) => bounds.ring_bytes = bytes,
                Some(("connections", most)) => bounds.pipeline.connections = most as usize,
                Some(("exchanges", most)) => bounds.pipeline.exchanges = most as usize,
                Some(("silence", ms)) => bounds.pipeline.silence = Duration::from_millis(ms.into()),
                Some(("queue", most)) => bounds.queue_spans = Some(most as usize),
                Some(("calm", ms)) => bounds.calm = Some(Duration::from_millis(ms.into())),
                _ => self.variables.warn(format!("{TEST_BOUNDS} has no {}", setting.escape_debug())),
            }
        }
        bounds
    }

    fn flag(&mut self, variable: &'static str, given: bool) -> bool {
        self.variables.boolean(variable) || given
    }

    /// `path = value (where from)`, a line each.
    fn every_setting(&self) -> String {
        let effective = serde_json::to_value(&self.settings).unwrap_or_default();
        let mut text = String::new();
        for (path, _) in self.layers.shape().settings() {
            let value = path.split('.').fold(&effective, |value, key| &value[key]);
            let value = match value {
                serde_json::Value::Null => "unset".to_owned(),
                serde_json::Value::String(value) => value.clone(),
                other => other.to_string(),
            };
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{path} = {value} ({})", self.layers.origin(&path));
        }
        text
    }

    fn log_filter(&mut self, command: &Command) -> String {
        let quiet = match command {
            Command::Run(config) | Command::Replay { config, .. } | Command::Demo(config) => config.quiet,
            _ => false,
        };
        let usual = if quiet { "error" } else { "warn" };
        let set = self.settings.log.as_ref().map(|log| log.0.clone());
        set.or_else(|| self.variables.text("RUST_LOG")).unwrap_or_else(|| usual.to_owned())
    }

    /// A misspelt variable would otherwise be obeyed by nobody and noticed by nobody.
    fn unknown_variables(&mut self) {
        let settings = self.layers.shape().settings();
        let twins: Vec<_> = settings.iter().map(|(path, _)| schema::variable(path)).collect();
        let known: Vec<_> = twins.iter().map(String::as_str).chain([CONFIG, JSON]).collect();
        for name in self.variables.names() {
            if name.starts_with("SPANTAP_") && name != TEST_BOUNDS && !known.contains(&name.as_str()) {
                let near = closest(&name, &known).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                self.variables.warn(format!("{name} is no variable of spantap and was ignored{near}"));
            }
        }
    }
}

/// How long the demo runs: every scenario comes round three times, and it stays on one screen.
const DEMO_DURATION: Duration = Duration::from_secs(10);

/// Where tests put [`Bounds`].
const TEST_BOUNDS: &str = "SPANTAP_TEST_BOUNDS";

/// What the collector of `export.otlp` is called.
const OTLP: &str = "otlp";

/// What Zipkin is called.
const ZIPKIN: &str = "zipkin";

/// Names a file of OpenTelemetry's.
const DECLARATIVE: &str = "OTEL_CONFIG_FILE";

/// The twin of `--config`.
const CONFIG: &str = "SPANTAP_CONFIG";

/// The twin of `--json`.
const JSON: &str = "SPANTAP_JSON";

#[cfg(test)]
mod tests;
