// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The `spantap` command.
//!
//! In: arguments and environment. Out: an exit code, and for every failure a sentence on standard error: what
//! happened, what follows, what to do. It decides nothing itself.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use spantap::{
    config::{
        self, Command, Config, Decision, DoctorConfig, Mistake, Refusal, Screen, environment::ProcessEnvironment,
    },
    demo, doctor,
    run::{self, RunError, Source},
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let screen = Screen { terminal: io::stdout().is_terminal() };
    let decide = move || config::decide(std::env::args_os(), &ProcessEnvironment, screen);
    let Decision { command, warnings, files, log } = match decide() {
        Ok(decision) => decision,
        Err(Refusal::CommandLine(error)) => {
            // Standard output or error may be gone: then nobody wants to know.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
        Err(Refusal::Mistakes(mistakes)) => return refuse(&mistakes),
    };
    begin_log(&log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let source = (!files.is_empty()).then(|| Source { files, decide: Box::new(decide) });
    match perform(command, source) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error}\n"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn perform(command: Command, source: Option<Source>) -> Result<ExitCode, RunError> {
    match command {
        Command::Run(config) => run::run(&config, source)?,
        Command::Replay { file, config } => run::replay(&file, &config)?,
        Command::Demo(config) => perform_demo(&config)?,
        Command::Doctor(config) => return Ok(perform_doctor(&config)),
        Command::Version { json } => say(&version(json)),
        Command::Say(text) => say(&text),
        Command::DemoService { role, upstreams } => {
            demo::end_with_parent();
            demo::serve(&role, &upstreams)?;
        }
        Command::DoctorExchange => doctor::converse().map_err(anyhow::Error::from)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn perform_demo(config: &Config) -> Result<(), RunError> {
    let mut shop = demo::Shop::open()?;
    if !config.quiet {
        note(&demo::legend(config));
    }
    shop.visit()?;
    run::run(&shop.traced(config), None)?;
    if !config.quiet {
        note(demo::FAREWELL);
    }
    Ok(())
}

fn perform_doctor(config: &DoctorConfig) -> ExitCode {
    let report = doctor::examine(config, &doctor::machine::ThisMachine, &|| doctor::probes::attach(config.tier));
    say(&if config.json { report.json() } else { report.text(config.colour) });
    if report.is_supported() { ExitCode::SUCCESS } else { ExitCode::from(UNSUPPORTED) }
}

fn version(json: bool) -> String {
    let version = env!("CARGO_PKG_VERSION");
    if json {
        let object = serde_json::json!({
            "name": "spantap",
            "version": version,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "record_version": spantap_common::abi::ABI_VERSION,
        });
        format!("{object}\n")
    } else {
        format!("spantap {version}\n")
    }
}

fn refuse(mistakes: &[Mistake]) -> ExitCode {
    let plural = if mistakes.len() == 1 { "" } else { "s" };
    let mut text = format!("{} mistake{plural}; nothing was started\n", mistakes.len());
    for mistake in mistakes {
        text.push_str(&format!("  {mistake}\n"));
    }
    text.push_str("See `spantap --help`.\n");
    complain(&text);
    ExitCode::from(USAGE)
}

/// What spantap says about itself goes to standard error, so that standard output holds nothing but traces.
fn begin_log(filter: &str) {
    let (filter, mistake) = match EnvFilter::try_new(filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("warn"), Some(error)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .without_time()
        .with_target(false)
        .finish();
    // Both fail only where somebody was first, and nobody is before `main`.
    let _ = tracing::subscriber::set_global_default(subscriber);
    let _ = tracing_log::LogTracer::init();
    if let Some(error) = mistake {
        tracing::warn!("SPANTAP_LOG or RUST_LOG is no log filter and was ignored ({error}); write for example `debug`");
    }
}

fn complain(text: &str) {
    note(&format!("spantap: {text}"));
}

// `println!` and `eprintln!` panic when nobody reads.

fn note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// The command line or the environment is wrong.
const USAGE: u8 = 2;

/// This machine cannot do it: the code by which test harnesses know a skipped test.
const UNSUPPORTED: u8 = 77;
