// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Real backends: fetched or built, started, sent the traces of the demo's shop, and asked what they have.
//!
//! In: which of them. Out: a row for each, and an error if one has anything else than what the agent itself printed:
//! the same spans with the same parents, names, kinds, times, status and attributes, as far as its API tells them.
//!
//! Everything listens on free ports of the loopback device, and is ended with the test. What a vendor's own service does
//! with our spans cannot be seen from here: its configuration is loaded by the exporter that would send them.

mod collector;
mod compare;
mod configurations;
mod connectors;
mod fetch;
mod http;
mod jaeger;
mod prometheus;
mod server;
mod shop;
mod tiers;
mod zipkin;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    build,
    command::is_root,
    setup::{Purpose, ensure},
};

/// One thing to test.
struct Backend {
    /// How it is asked for.
    name: &'static str,
    cost: Cost,
    /// Fetches or builds what it needs; the first time takes minutes.
    fetch: fn() -> Result<PathBuf>,
    /// Is handed what was fetched, and the agent. Says what was compared.
    test: fn(&Path, &Path) -> Result<String>,
}

/// What having it takes, on two cores, the first time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cost {
    /// A few minutes at most: part of `cargo xtask test`.
    Minutes,
    /// A quarter of an hour and more: on request.
    Long,
}

/// In the order of testing.
const BACKENDS: [Backend; 10] = [
    Backend { name: "collector", cost: Cost::Minutes, fetch: fetch::collector, test: collector::test },
    Backend { name: "connectors", cost: Cost::Minutes, fetch: fetch::collector, test: connectors::test },
    Backend { name: "tiers", cost: Cost::Minutes, fetch: fetch::collector, test: tiers::test },
    Backend { name: "configurations", cost: Cost::Minutes, fetch: fetch::collector, test: configurations::common },
    Backend { name: "prometheus", cost: Cost::Minutes, fetch: fetch::collector, test: prometheus::test },
    Backend { name: "zipkin", cost: Cost::Minutes, fetch: fetch::zipkin, test: zipkin::test },
    Backend { name: "jaeger", cost: Cost::Long, fetch: fetch::jaeger, test: jaeger::test },
    Backend { name: "xray", cost: Cost::Long, fetch: fetch::xray, test: configurations::of_xray },
    Backend { name: "google", cost: Cost::Long, fetch: fetch::google, test: configurations::of_google },
    Backend { name: "datadog", cost: Cost::Long, fetch: fetch::datadog, test: configurations::of_datadog },
];

/// What came of the tests.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Outcome {
    /// Had what they should.
    pub(crate) passed: u64,
    /// Had something else.
    pub(crate) failed: u64,
    /// Could not be had.
    pub(crate) absent: u64,
}

/// The command `test backends`: those of `names`, or all whose first time takes minutes, or with `all` every one.
pub(crate) fn test(names: &[String], all: bool) -> Result<()> {
    let known = || BACKENDS.iter().map(|backend| backend.name);
    if let Some(unknown) = names.iter().find(|name| !known().any(|known| known == *name)) {
        bail!("there is no backend {unknown}; there are {}", known().collect::<Vec<_>>().join(", "));
    }
    let is_chosen = |backend: &&Backend| {
        if names.is_empty() { all || backend.cost == Cost::Minutes } else { names.iter().any(|n| n == backend.name) }
    };
    let Outcome { passed, failed, absent } = run(BACKENDS.iter().filter(is_chosen))?;
    println!("\nbackends: {passed} passed, {failed} failed, {absent} could not be had");
    if failed + absent > 0 {
        bail!("{} of the backends failed", failed + absent);
    }
    Ok(())
}

/// The part of `cargo xtask test`.
pub(crate) fn quick() -> Result<Outcome> {
    run(BACKENDS.iter().filter(|backend| backend.cost == Cost::Minutes))
}

fn run(backends: impl Iterator<Item = &'static Backend>) -> Result<Outcome> {
    if !is_root() {
        bail!("the shop is traced with probes: run this as root");
    }
    ensure(&[Purpose::Backends])?;
    let agent = build::build(build::Profile::new(false))?;
    let mut outcome = Outcome::default();
    for Backend { name, fetch, test, .. } in backends {
        let program = match fetch() {
            Ok(program) => program,
            Err(error) => {
                outcome.absent += 1;
                println!("backends: SKIPPED {name}: {error:#}");
                continue;
            }
        };
        match test(&program, &agent) {
            Ok(said) => {
                outcome.passed += 1;
                println!("backends: {name}: {said}");
            }
            Err(error) => {
                outcome.failed += 1;
                println!("backends: {name}: FAILED: {error:#}");
            }
        }
    }
    Ok(outcome)
}

/// Writes a configuration into `folder`, its words with @ replaced; returns its path.
fn written(folder: &TempDir, name: &str, text: &str, words: &[(&str, String)]) -> Result<String> {
    let mut text = text.to_owned();
    for (word, value) in words {
        text = text.replace(&format!("@{word}@"), value);
    }
    let path = folder.path().join(name);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path.display().to_string())
}
