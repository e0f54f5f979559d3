// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of contents of everything a developer does with spantap: `cargo xtask` alone prints it.
//!
//! In: a command line. Out: programs started in the right order, with what they need installed first. It holds no
//! logic of the agent and is no part of what users get.

mod accuracy;
mod agent;
mod apt;
mod backends;
mod bench;
mod build;
mod bytecode;
mod check;
mod command;
mod ebpf;
mod guest;
mod helpers;
mod initramfs;
mod kernels;
mod setup;
mod share;
mod test;
#[cfg(test)]
mod tidy;
mod toolchain;
mod vm;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

/// Everything a developer does with spantap.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

// The order of the variants is the order of the help, which is the order in which a newcomer meets them.
#[derive(Debug, Subcommand)]
enum Command {
    /// Finds out what is missing on this machine and installs it (root) or prints the commands
    Setup {
        /// Only say what is missing; exit 1 if anything is
        #[arg(long)]
        check: bool,
    },
    /// Builds the agent with its probes embedded
    Build {
        /// Leave one self-contained executable at target/release/spantap
        #[arg(long)]
        release: bool,
    },
    /// Builds and starts the agent, with sudo where it is needed
    Run {
        /// Arguments of spantap
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Builds and starts the agent with three small services to look at
    Demo,
    /// Runs all tests; those that load probes need root
    Test {
        /// Run only tests whose name contains this; `backends [NAME…]` sends traces to real backends instead
        filter: Option<String>,
        /// After `backends`: collector, connectors, tiers, configurations, prometheus, zipkin (all of these by default),
        /// jaeger, xray, google, datadog
        names: Vec<String>,
        /// After `backends`: those as well that take a quarter of an hour to build
        #[arg(long)]
        all: bool,
        /// Leave out the test programs that load probes
        #[arg(long)]
        no_kernel: bool,
    },
    /// Holds the agent against traffic whose truth is known; needs root
    Accuracy {
        #[command(subcommand)]
        of: Accuracy,
    },
    /// Measures what the agent costs on this machine; needs root
    Bench {
        /// The part to measure
        #[arg(default_value = "all")]
        part: bench::Part,
        /// Write the figures to this file as well
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Fewer and shorter rounds
        #[arg(long)]
        quick: bool,
        #[command(flatten)]
        peers: bench::Peers,
    },
    /// Formatting, clippy on the host and on the BPF target, tidy, instructions of an exchange
    Check,
    /// Tests the rules of the house: stage order, purity, the probes' helpers, headers, links
    Tidy,
    /// Builds the eBPF object
    Ebpf {
        /// List its programs, their size and the helpers they call, and disassemble it
        #[arg(long)]
        dump: bool,
    },
    /// Boots other kernels in QEMU and runs the agent's doctor and kernel tests on each
    Vm {
        /// Kernels to boot, by version; all of the table by default
        kernels: Vec<String>,
        /// Run all of the kernel tests instead of the essential ones: minutes for each kernel and tier
        #[arg(long)]
        whole: bool,
        /// Hold the catalogue of `accuracy capture` there instead, with this machine's programs: half an hour for each
        /// kernel and tier
        #[arg(long, conflicts_with = "whole")]
        catalogue: bool,
        /// Only its cases whose names contain this; may be repeated
        #[arg(long = "case", value_name = "NAME", requires = "catalogue")]
        cases: Vec<String>,
        /// Only in this tier, by letter; may be repeated
        #[arg(long = "tier", value_name = "TIER")]
        tiers: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Accuracy {
    /// Whether every request is one span, with the right facts and times: a table, and exit 1 if a case fails
    Capture {
        /// Only cases whose names contain one of these
        cases: Vec<String>,
        /// Write the rows to this file as a JSON list
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Ask the agent that users get
        #[arg(long)]
        release: bool,
    },
    /// Whether calls hang under the requests they were made for, in one small service per concurrency model: a table,
    /// and exit 1 if a parent is wrong that may not be
    Parents(accuracy::Parents),
    /// Whether `assigned` alone finds the right requests in recordings of others: a table, and what was claimed against
    /// what was right. Needs no root
    Assigned(accuracy::Assigned),
}

fn main() -> ExitCode {
    let Some(command) = Cli::parse().command else {
        println!("{}", Cli::command().render_help());
        return ExitCode::SUCCESS;
    };
    let outcome = match command {
        Command::Setup { check } => setup::setup(check),
        Command::Build { release } => build::build(build::Profile::new(release)).map(drop),
        Command::Run { args } => build::run(&args),
        Command::Demo => build::run(&["demo".to_owned()]),
        Command::Test { filter: Some(filter), names, all, .. } if filter == "backends" => backends::test(&names, all),
        Command::Test { filter, no_kernel, .. } => test::test(filter.as_deref(), test::Scope::new(no_kernel)),
        Command::Accuracy { of: Accuracy::Capture { cases, json, release } } => {
            accuracy::capture(&cases, json.as_deref(), build::Profile::new(release))
        }
        Command::Accuracy { of: Accuracy::Parents(arguments) } => accuracy::parents(&arguments),
        Command::Accuracy { of: Accuracy::Assigned(arguments) } => accuracy::assigned(&arguments),
        Command::Bench { part, json, quick, peers } => {
            bench::bench(part, bench::Effort::new(quick), peers, json.as_deref())
        }
        Command::Check => check::check(),
        Command::Tidy => check::tidy(),
        Command::Ebpf { dump } => ebpf::command(dump),
        Command::Vm { kernels, whole, catalogue, cases, tiers } => {
            let extent = if catalogue { vm::Extent::Catalogue(cases) } else { vm::Extent::of_tests(whole) };
            vm::vm(&kernels, &tiers, &extent)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cli, CommandFactory};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_table_of_contents_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }
}
