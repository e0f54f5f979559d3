// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line as it was typed.
//!
//! In: words. Out: [`Arguments`], every value still text, so that all wrong values are found together later. It judges
//! no value and knows no defaults; the help texts are the reference.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};

/// Traces unmodified services with eBPF and exports OpenTelemetry.
///
/// Every request that a process on this machine serves or makes becomes a span: no code change, no restart. Without an
/// OTLP endpoint, finished traces are printed here. Without a command, spantap does `run`.
#[derive(Debug, Parser)]
#[command(name = "spantap", version, after_help = AFTER_HELP, after_long_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true, max_term_width = 110, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<CommandArguments>,
    #[command(flatten)]
    pub(super) run: RunArguments,
}

const AFTER_HELP: &str = "\
Examples:
  sudo spantap                                trace everything, print trees
  sudo spantap --port 8080                    only what is served or called on port 8080
  sudo spantap --exe node --print text        only node, one line a request
  sudo spantap --otlp http://localhost:4318   export to a collector
  sudo spantap demo                           see it work without services of your own
  sudo spantap doctor                         what this machine can do, and what to fix

Environment:
  SPANTAP_PID, _PORT, _EXPORT_BATCH_DELAY, …
                                twins of the settings of docs/configuration.md; lists have commas;
                                a flag beats its variable, which beats the file
  SPANTAP_CONFIG, SPANTAP_JSON  twins of --config and --json
  SPANTAP_LOG, RUST_LOG         what spantap says about itself on standard error, such as `debug`
  OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL, _HEADERS, _TIMEOUT, _COMPRESSION, _INSECURE,
  _CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY,
  and the OTEL_EXPORTER_OTLP_TRACES_ forms
                                as the OpenTelemetry specification defines them
  OTEL_TRACES_EXPORTER          otlp, otlp/stdout, console, zipkin or none, or a list of them
  OTEL_EXPORTER_ZIPKIN_ENDPOINT, _TIMEOUT; OTEL_BSP_*; OTEL_SPAN_*_LIMIT, OTEL_ATTRIBUTE_*_LIMIT
                                as the specification defines them
  OTEL_SDK_DISABLED             true: nothing leaves this machine
  NO_COLOR                      no colours

Exit codes:
  0   done
  1   it failed while running
  2   the command line or the environment is wrong
  77  this machine cannot do it (kernel, BTF, privileges): see `spantap doctor`";

#[derive(Debug, Subcommand)]
pub(super) enum CommandArguments {
    /// Trace until Ctrl-C (the default)
    Run(RunArguments),
    /// Check what this machine can do, with the fix for what it cannot
    Doctor(DoctorArguments),
    /// Start three small services, send them traffic and trace them
    Demo(DemoArguments),
    /// Write the raw event stream to a file
    Record(RecordArguments),
    /// Make spans of a recorded event stream
    Replay(ReplayArguments),
    /// Print the version
    Version(VersionArguments),
    /// Print the JSON schema of the configuration file
    Schema,
    #[command(hide = true)]
    DemoService(DemoServiceArguments),
    #[command(hide = true)]
    DoctorExchange,
}

#[derive(Args, Debug)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) selection: SelectionArguments,
    #[command(flatten)]
    pub(super) output: OutputArguments,
    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", help_heading = "Options")]
    pub(super) duration: Option<String>,
    /// Watch in this way only: a, b or c, as KERNELS.md has them. Without it the best that the kernel takes is used
    #[arg(long, value_name = "TIER", help_heading = "Options")]
    pub(super) tier: Option<String>,
    /// Read this YAML file first; docs/configuration.md has every setting
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    pub(super) config: Option<PathBuf>,
    /// Print every setting with where it comes from, and stop
    #[arg(long, help_heading = "Options")]
    pub(super) print_config: bool,
    /// Check the configuration, and stop
    #[arg(long, help_heading = "Options")]
    pub(super) validate: bool,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "What is traced")]
pub(super) struct SelectionArguments {
    /// Only this process (repeatable, as the next three)
    #[arg(long, value_name = "PID")]
    pub(super) pid: Vec<String>,
    /// Only connections to this port: a server's own, or the one a client calls
    #[arg(long, value_name = "PORT")]
    pub(super) port: Vec<String>,
    /// Only executables like this: a file name (node, python3*), or a whole path when it has a slash
    #[arg(long, value_name = "GLOB")]
    pub(super) exe: Vec<String>,
    /// Never executables like this
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Where traces go")]
pub(super) struct OutputArguments {
    /// Print traces: tree, text (a line a request) or json (OTLP lines). Without an endpoint the default is tree on a
    /// terminal and text elsewhere; with one, nothing is printed unless asked for here
    #[arg(long, value_name = "FORMAT")]
    pub(super) print: Option<String>,
    /// Export to this OTLP endpoint, such as http://localhost:4318
    #[arg(long, value_name = "URL")]
    pub(super) otlp: Option<String>,
    /// Colours: auto, always or never
    #[arg(long, value_name = "WHEN")]
    pub(super) color: Option<String>,
    /// Say nothing but traces and errors
    #[arg(long, short, help_heading = "Options")]
    pub(super) quiet: bool,
}

#[derive(Args, Debug)]
pub(super) struct DoctorArguments {
    /// One JSON object instead of lines
    #[arg(long)]
    pub(super) json: bool,
    /// The endpoint to check, such as http://localhost:4318
    #[arg(long, value_name = "URL")]
    pub(super) otlp: Option<String>,
    /// Colours: auto, always or never
    #[arg(long, value_name = "WHEN")]
    pub(super) color: Option<String>,
    /// Watch in this way only: a, b or c, as KERNELS.md has them. Without it the best that the kernel takes is used
    #[arg(long, value_name = "TIER")]
    pub(super) tier: Option<String>,
    /// Read this YAML file first; docs/configuration.md has every setting
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct DemoArguments {
    /// Stop after this time; 10s when not given
    #[arg(long, value_name = "TIME")]
    pub(super) duration: Option<String>,
    /// Print traces: tree (the default), text or json
    #[arg(long, value_name = "FORMAT")]
    pub(super) print: Option<String>,
    /// Export to this OTLP endpoint as well
    #[arg(long, value_name = "URL")]
    pub(super) otlp: Option<String>,
    /// Colours: auto, always or never
    #[arg(long, value_name = "WHEN")]
    pub(super) color: Option<String>,
    /// Say nothing but traces and errors
    #[arg(long, short)]
    pub(super) quiet: bool,
    /// Read this YAML file first; docs/configuration.md has every setting
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct RecordArguments {
    /// The file; it is overwritten. It holds heads of requests as they were on the wire: keep it private
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) selection: SelectionArguments,
    /// Stop after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", help_heading = "Options")]
    pub(super) duration: Option<String>,
    /// Say nothing but errors
    #[arg(long, short, help_heading = "Options")]
    pub(super) quiet: bool,
    /// Watch in this way only: a, b or c, as KERNELS.md has them. Without it the best that the kernel takes is used
    #[arg(long, value_name = "TIER", help_heading = "Options")]
    pub(super) tier: Option<String>,
    /// Read this YAML file first; docs/configuration.md has every setting
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct ReplayArguments {
    /// A file that `spantap record` wrote
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
    #[command(flatten)]
    pub(super) output: OutputArguments,
    /// Read this YAML file first; docs/configuration.md has every setting
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct VersionArguments {
    /// As a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct DemoServiceArguments {
    pub(super) role: String,
    pub(super) upstreams: Vec<SocketAddr>,
}

/// A flag as it was given: the setting that it is for, its name, and its words.
pub(super) type Given = (&'static str, &'static str, Vec<String>);

impl CommandArguments {
    /// The file, and the flags that are settings.
    pub(super) fn given(&self) -> (Option<&Path>, Vec<Given>) {
        let mut given = Vec::new();
        let mut flag = |setting, name, words: Vec<String>| {
            if !words.is_empty() {
                given.push((setting, name, words));
            }
        };
        let one = |word: &Option<String>| word.iter().cloned().collect::<Vec<_>>();
        let truth = |given: bool| if given { vec!["true".to_owned()] } else { Vec::new() };
        let (selection, output, config) = match self {
            Self::Run(run) => {
                flag("duration", "--duration", one(&run.duration));
                flag("tier", "--tier", one(&run.tier));
                (Some(&run.selection), Some(&run.output), &run.config)
            }
            Self::Record(record) => {
                flag("duration", "--duration", one(&record.duration));
                flag("tier", "--tier", one(&record.tier));
                flag("quiet", "--quiet", truth(record.quiet));
                (Some(&record.selection), None, &record.config)
            }
            Self::Replay(replay) => (None, Some(&replay.output), &replay.config),
            Self::Demo(demo) => {
                flag("duration", "--duration", one(&demo.duration));
                flag("print", "--print", one(&demo.print));
                flag("otlp", "--otlp", one(&demo.otlp));
                flag("color", "--color", one(&demo.color));
                flag("quiet", "--quiet", truth(demo.quiet));
                (None, None, &demo.config)
            }
            Self::Doctor(doctor) => {
                flag("otlp", "--otlp", one(&doctor.otlp));
                flag("color", "--color", one(&doctor.color));
                flag("tier", "--tier", one(&doctor.tier));
                (None, None, &doctor.config)
            }
            Self::Version(_) | Self::Schema | Self::DemoService(_) | Self::DoctorExchange => (None, None, &None),
        };
        if let Some(selection) = selection {
            flag("pid", "--pid", selection.pid.clone());
            flag("port", "--port", selection.port.clone());
            flag("exe", "--exe", selection.exe.clone());
            flag("exclude", "--exclude", selection.exclude.clone());
        }
        if let Some(output) = output {
            flag("print", "--print", one(&output.print));
            flag("otlp", "--otlp", one(&output.otlp));
            flag("color", "--color", one(&output.color));
            flag("quiet", "--quiet", truth(output.quiet));
        }
        (config.as_deref(), given)
    }
}
