// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the user asked for, decided once.
//!
//! In: the raw layers (the command line, the environment, what standard output is). Out: one [`Decision`], or every
//! mistake at once, each with what to do. After that no code asks whether a flag was given, and no stage reads the
//! environment; it opens no file and no connection.

mod arguments;
pub mod environment;
mod otlp;
mod sampling;
mod values;

use std::{ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser as _;
use spantap_common::abi::RING_BYTES;

use self::{
    arguments::{Arguments, CommandArguments, OutputArguments, SelectionArguments},
    environment::{Environment, Variables},
    values::{closest, duration, glob, list, number, one_of},
};
use crate::{enrich::route, export, kernel::Tier, metrics, pipeline, sample};

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
}

impl Default for Bounds {
    fn default() -> Self {
        Self { ring_bytes: RING_BYTES, pipeline: pipeline::Limits::default(), queue_spans: None }
    }
}

/// Which processes and sockets are traced. Selectors of one kind are alternatives, different kinds must all hold,
/// exclusion wins. Nothing selected is everything but the agent itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// `--pid`.
    pub pids: Vec<u32>,
    /// `--port`: the local port of a server, the remote port of a client.
    pub ports: Vec<u16>,
    /// `--exe`: globs over the executable's path, or over its file name when there is no slash in the glob.
    pub executables: Vec<String>,
    /// `--exclude`: as `--exe`.
    pub excluded: Vec<String>,
}

impl Selection {
    /// Whether nothing was selected or excluded.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
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
            name: protocol.name().to_owned(),
            endpoint: endpoint.into(),
            protocol,
            headers: Vec::new(),
            timeout: otlp::DEFAULT_TIMEOUT,
            gzip: false,
            tls: Tls::default(),
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
        Some(Self { endpoint, ..self.clone() })
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
    let mut desk = Desk { variables: Variables::new(environment), screen, mistakes: Vec::new() };
    let command = desk.command(arguments);
    let log = desk.log_filter(&command);
    desk.unknown_variables();
    if desk.mistakes.is_empty() {
        Ok(Decision { command, warnings: desk.variables.warnings, log })
    } else {
        Err(Refusal::Mistakes(desk.mistakes))
    }
}

/// Where the layers meet. Every method goes on after a mistake with some value: the decision is thrown away then, but
/// the next mistake is found.
struct Desk<'a> {
    variables: Variables<'a>,
    screen: Screen,
    mistakes: Vec<Mistake>,
}

impl Desk<'_> {
    fn command(&mut self, arguments: Arguments) -> Command {
        let run = CommandArguments::Run(arguments.run);
        match arguments.command.unwrap_or(run) {
            CommandArguments::Run(run) => Command::Run(Config {
                selection: self.selection(run.selection),
                tier: self.tier(run.tier),
                duration: self.duration(run.duration),
                record: None,
                quiet: self.quiet(run.output.quiet),
                output: self.output(run.output),
                bounds: self.bounds(),
            }),
            CommandArguments::Record(record) => Command::Run(Config {
                selection: self.selection(record.selection),
                tier: self.tier(record.tier),
                output: Output::default(),
                duration: self.duration(record.duration),
                record: Some(record.file),
                quiet: self.quiet(record.quiet),
                bounds: Bounds::default(),
            }),
            CommandArguments::Replay(replay) => Command::Replay {
                config: Config {
                    selection: Selection::default(),
                    tier: None,
                    duration: None,
                    record: None,
                    quiet: self.quiet(replay.output.quiet),
                    output: self.output(replay.output),
                    bounds: Bounds::default(),
                },
                file: replay.file,
            },
            CommandArguments::Demo(demo) => self.demo(demo),
            CommandArguments::Doctor(doctor) => Command::Doctor(DoctorConfig {
                tier: self.tier(doctor.tier),
                json: self.flag("SPANTAP_JSON", doctor.json),
                destinations: self.destinations(doctor.otlp),
                colour: self.colour(doctor.color),
            }),
            CommandArguments::Version(version) => Command::Version { json: self.flag("SPANTAP_JSON", version.json) },
            CommandArguments::DemoService(service) => {
                Command::DemoService { role: service.role, upstreams: service.upstreams }
            }
            CommandArguments::DoctorExchange => Command::DoctorExchange,
        }
    }

    fn demo(&mut self, demo: arguments::DemoArguments) -> Command {
        let style = self.print_style(demo.print).unwrap_or(PrintStyle::Tree);
        let print = self.print(style, demo.color);
        Command::Demo(Config {
            selection: Selection::default(),
            tier: self.tier(None),
            output: Output { destinations: self.destinations(demo.otlp), print: Some(print), ..Output::default() },
            duration: Some(self.duration(demo.duration).unwrap_or(DEMO_DURATION)),
            record: None,
            quiet: self.quiet(demo.quiet),
            bounds: Bounds::default(),
        })
    }

    fn selection(&mut self, given: SelectionArguments) -> Selection {
        Selection {
            pids: self.each("--pid", "SPANTAP_PID", given.pid, |text| {
                number(text, 1, u32::MAX, "a process id, such as --pid 4312")
            }),
            ports: self.each("--port", "SPANTAP_PORT", given.port, |text| {
                number(text, 1, u16::MAX, "a port from 1 to 65535, such as --port 8080")
            }),
            executables: self.each("--exe", "SPANTAP_EXE", given.exe, glob),
            excluded: self.each("--exclude", "SPANTAP_EXCLUDE", given.exclude, glob),
        }
    }

    fn output(&mut self, given: OutputArguments) -> Output {
        let style = self.print_style(given.print);
        let destinations = self.destinations(given.otlp);
        let exporters = otlp::exporters(&mut self.variables);
        let silent = destinations.is_empty() && !exporters.silent();
        let asked = style.or_else(|| exporters.console().then(|| self.usual_style()));
        let asked = asked.or(exporters.json_lines().then_some(PrintStyle::Json));
        let style = asked.or_else(|| silent.then(|| self.usual_style()));
        if destinations.is_empty() && style.is_none() {
            self.variables
                .warn("OTEL_TRACES_EXPORTER=none: spans are only counted; add --print tree to see them".into());
        }
        // Asked even when nothing is printed, so that a wrong --color is never overlooked.
        let print = self.print(style.unwrap_or(PrintStyle::Text), given.color);
        Output {
            metric_destinations: destinations.iter().filter_map(Destination::for_metrics).collect(),
            unasked: silent && asked.is_none() && !otlp::disabled(&mut self.variables),
            destinations,
            print: style.map(|_| print),
            sampling: sampling::settings(&mut self.variables),
            metrics: sampling::metrics(&mut self.variables),
            routes: route::Settings::default(),
            limits: otlp::limits(&mut self.variables),
        }
    }

    fn usual_style(&self) -> PrintStyle {
        if self.screen.terminal { PrintStyle::Tree } else { PrintStyle::Text }
    }

    fn print(&mut self, style: PrintStyle, color: Option<String>) -> Print {
        Print { style, colour: self.colour(color), terminal: self.screen.terminal }
    }

    fn print_style(&mut self, given: Option<String>) -> Option<PrintStyle> {
        const STYLES: &[(&str, PrintStyle)] =
            &[("tree", PrintStyle::Tree), ("text", PrintStyle::Text), ("json", PrintStyle::Json)];
        self.one("--print", "SPANTAP_PRINT", given, |text| one_of(text, STYLES))
    }

    fn colour(&mut self, given: Option<String>) -> Colour {
        const WHEN: &[(&str, Option<Colour>)] =
            &[("auto", None), ("always", Some(Colour::On)), ("never", Some(Colour::Off))];
        if let Some(colour) = self.one("--color", "SPANTAP_COLOR", given, |text| one_of(text, WHEN)).flatten() {
            return colour;
        }
        // https://no-color.org: "when present and not an empty string (regardless of its value), prevents the addition
        // of ANSI color."
        let plain = self.variables.text("NO_COLOR").is_some() || self.variables.text("TERM").as_deref() == Some("dumb");
        if self.screen.terminal && !plain { Colour::On } else { Colour::Off }
    }

    fn tier(&mut self, given: Option<String>) -> Option<Tier> {
        const TIERS: &[(&str, Tier)] = &[("a", Tier::A), ("b", Tier::B), ("c", Tier::C)];
        self.one("--tier", "SPANTAP_TIER", given, |text| one_of(text, TIERS))
    }

    fn duration(&mut self, given: Option<String>) -> Option<Duration> {
        self.one("--duration", "SPANTAP_DURATION", given, duration)
    }

    fn quiet(&mut self, given: bool) -> bool {
        self.flag("SPANTAP_QUIET", given)
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
                _ => self.variables.warn(format!("{TEST_BOUNDS} has no {}", setting.escape_debug())),
            }
        }
        bounds
    }

    fn flag(&mut self, variable: &'static str, given: bool) -> bool {
        self.variables.boolean(variable) || given
    }

    fn destinations(&mut self, given: Option<String>) -> Vec<Destination> {
        let given = match given {
            Some(url) => Some(("--otlp", url)),
            None => self.variables.text("SPANTAP_OTLP").map(|url| ("SPANTAP_OTLP", url)),
        };
        let settings = [otlp::settings(given, &mut self.variables), otlp::zipkin(&mut self.variables)];
        settings
            .into_iter()
            .filter_map(|settings| settings.map_err(|mistake| self.mistakes.push(mistake)).ok()?)
            .collect()
    }

    /// The values of a flag that may be repeated, and that takes lists; its variable counts only without the flag.
    fn each<T>(
        &mut self,
        flag: &'static str,
        variable: &'static str,
        given: Vec<String>,
        parse: impl Fn(&str) -> Result<T, Mistake>,
    ) -> Vec<T> {
        let (origin, texts) = match self.variables.text(variable) {
            Some(text) if given.is_empty() => (variable, vec![text]),
            _ => (flag, given),
        };
        texts.iter().flat_map(|text| list(text)).filter_map(|text| self.noted(origin, parse(&text))).collect()
    }

    /// The value of a flag that may be given once.
    fn one<T>(
        &mut self,
        flag: &'static str,
        variable: &'static str,
        given: Option<String>,
        parse: impl Fn(&str) -> Result<T, Mistake>,
    ) -> Option<T> {
        let (origin, text) = match given {
            Some(text) => (flag, text),
            None => (variable, self.variables.text(variable)?),
        };
        self.noted(origin, parse(&text))
    }

    fn noted<T>(&mut self, origin: &str, parsed: Result<T, Mistake>) -> Option<T> {
        parsed
            .map_err(|Mistake { what, fix }| self.mistakes.push(Mistake { what: format!("{origin} {what}"), fix }))
            .ok()
    }

    fn log_filter(&mut self, command: &Command) -> String {
        let quiet = match command {
            Command::Run(config) | Command::Replay { config, .. } | Command::Demo(config) => config.quiet,
            _ => false,
        };
        let usual = if quiet { "error" } else { "warn" };
        ["SPANTAP_LOG", "RUST_LOG"]
            .iter()
            .find_map(|name| self.variables.text(name))
            .unwrap_or_else(|| usual.to_owned())
    }

    /// A misspelt variable would otherwise be obeyed by nobody and noticed by nobody.
    fn unknown_variables(&mut self) {
        for name in self.variables.names() {
            if name.starts_with("SPANTAP_") && name != TEST_BOUNDS && !VARIABLES.contains(&name.as_str()) {
                let near = closest(&name, VARIABLES).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                self.variables.warn(format!("{name} is no variable of spantap and was ignored{near}"));
            }
        }
    }
}

/// How long the demo runs: every scenario comes round three times, and it stays on one screen.
const DEMO_DURATION: Duration = Duration::from_secs(10);

/// Where tests put [`Bounds`].
const TEST_BOUNDS: &str = "SPANTAP_TEST_BOUNDS";

/// Every variable of our own: the twin of each flag, and the log filter.
const VARIABLES: &[&str] = &[
    "SPANTAP_PID",
    "SPANTAP_PORT",
    "SPANTAP_EXE",
    "SPANTAP_EXCLUDE",
    "SPANTAP_PRINT",
    "SPANTAP_COLOR",
    "SPANTAP_DURATION",
    "SPANTAP_OTLP",
    "SPANTAP_QUIET",
    "SPANTAP_JSON",
    "SPANTAP_TIER",
    "SPANTAP_LOG",
];

#[cfg(test)]
mod tests;
