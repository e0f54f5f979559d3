// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs every test of the workspace and ends with one line that sums them up.
//!
//! In: a name filter and whether probes may be loaded. Out: the test programs' own output as it comes, then the sum.
//! What a test needs beyond the machine's set-up it brings itself.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    backends::{self, Outcome},
    command::{announce, cargo, is_root, root},
    ebpf,
    setup::{Purpose, ensure},
    vm,
};

/// Which tests are run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    /// All.
    All,
    /// Those that load nothing into the kernel.
    NoKernel,
}

impl Scope {
    /// The scope that the flag `--no-kernel` asks for.
    pub(crate) fn new(no_kernel: bool) -> Self {
        if no_kernel { Self::NoKernel } else { Self::All }
    }
}

/// Integration tests of the agent that load probes, by file name; a file beginning with `kernel` is one of them too.
const KERNEL_TESTS: &[&str] = &["accuracy", "binary", "kill", "matrix", "parents"];

/// The command `test`.
pub(crate) fn test(filter: Option<&str>, scope: Scope) -> Result<()> {
    match scope {
        Scope::All => ensure(&[Purpose::Build, Purpose::Services])?,
        Scope::NoKernel => ensure(&[Purpose::Build])?,
    }
    if scope == Scope::All && !is_root() {
        println!("test: not root: the tests that load probes skip themselves (`sudo -E cargo xtask test` runs them)");
    }
    ebpf::build()?;

    let mut command = cargo();
    // The eBPF crate has no tests of the host; --no-fail-fast: the sum below counts every program.
    command.args(["test", "--workspace", "--exclude", "spantap-ebpf", "--no-fail-fast"]);
    if scope == Scope::NoKernel {
        command.args(["--lib", "--bins"]);
        for name in test_programs(&root().join("agent/tests"))?.iter().filter(|name| !loads_probes(name)) {
            command.args(["--test", name]);
        }
    }
    command.args(filter);
    // What the quick models of concurrency need is installed as the rest of the services is.
    command.env("SPANTAP_PARENTS_FETCH", "1");

    let mut sum = stream(&mut command)?;
    // Whoever asks for some tests wants those, and soon.
    if scope == Scope::All && filter.is_none() && is_root() {
        sum.add(&lowest_tier()?);
        sum.add(&other_kernels());
        sum.add(&real_backends());
    }
    // Alone on its line, and last: what CI reads.
    println!("\n{} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.ignored);
    if !sum.succeeded {
        bail!("the tests failed");
    }
    if sum.passed == 0 {
        bail!("no test was run");
    }
    Ok(())
}

/// The tests of the probes once more, as they run on kernels that have nothing better.
fn lowest_tier() -> Result<Sum> {
    stream(cargo().args(["test", "-p", "spantap", "--test", "kernel_probes"]).env("SPANTAP_TIER", "c"))
}

/// A glance at the oldest kernels there are images of: one of each lower tier.
fn other_kernels() -> Sum {
    let names = OTHER_KERNELS.map(str::to_owned);
    let count = OTHER_KERNELS.len() as u64;
    let images = match vm::ready(&names) {
        Ok(images) => images,
        Err(error) => {
            println!("test: SKIPPED kernels {}: {error:#}", OTHER_KERNELS.join(", "));
            return Sum { ignored: count, succeeded: true, ..Sum::default() };
        }
    };
    match vm::boot_each(&images, &[], &vm::Extent::Glance) {
        Ok(()) => Sum { passed: count, succeeded: true, ..Sum::default() },
        Err(error) => {
            println!("test: kernels {}: {error:#}", OTHER_KERNELS.join(", "));
            Sum { failed: 1, ..Sum::default() }
        }
    }
}

/// Traces, metrics and configurations, by the programs that users send them to: those that are soon there.
fn real_backends() -> Sum {
    match backends::quick() {
        Ok(Outcome { passed, failed, absent }) => Sum { passed, failed, ignored: absent, succeeded: failed == 0 },
        Err(error) => {
            println!("test: backends: {error:#}");
            Sum { failed: 1, ..Sum::default() }
        }
    }
}

/// The first that lacks what tier A needs, and the first that lacks what tier B needs; `cargo xtask vm` has the rest.
const OTHER_KERNELS: [&str; 2] = ["5.10", "6.1"];

/// What all test programs together reported.
#[derive(Debug, Default, Eq, PartialEq)]
struct Sum {
    passed: u64,
    failed: u64,
    ignored: u64,
    succeeded: bool,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.succeeded &= other.succeeded;
    }

    /// Adds one line of output, if it is a summary such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn line(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += count,
                Some("failed") => self.failed += count,
                Some("ignored") => self.ignored += count,
                _ => {}
            }
        }
    }
}

fn stream(command: &mut Command) -> Result<Sum> {
    let line = announce(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {line}"))?;
    let mut output = BufReader::new(child.stdout.take().context("the tests have no output")?);
    let mut sum = Sum::default();
    let mut bytes = Vec::new();
    let mut terminal = std::io::stdout().lock();
    // By bytes, since a test may print anything.
    while output.read_until(b'\n', &mut bytes).context("read the tests' output")? > 0 {
        terminal.write_all(&bytes).and_then(|()| terminal.flush()).context("print the tests' output")?;
        sum.line(&String::from_utf8_lossy(&bytes));
        bytes.clear();
    }
    sum.succeeded = child.wait().context("wait for the tests")?.success();
    Ok(sum)
}

/// Names of the integration tests in `folder`, by Cargo's rule: a file, or a folder with a `main.rs`.
fn test_programs(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    if !folder.exists() {
        return Ok(names);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        let is_program = path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").is_file();
        if let Some(name) = path.file_stem().filter(|_| is_program) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn loads_probes(name: &str) -> bool {
    name.starts_with("kernel") || KERNEL_TESTS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::{Sum, loads_probes};

    #[test]
    fn summaries_of_all_programs_are_added() {
        let mut sum = Sum::default();
        sum.line("running 3 tests\n");
        sum.line("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.10s\n");
        sum.line("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.10s\n");
        assert_eq!(sum, Sum { passed: 4, failed: 2, ignored: 1, succeeded: false });
    }

    #[test]
    fn a_tests_own_words_are_no_summary() {
        let mut sum = Sum::default();
        sum.line("7 passed; 1 failed\n");
        sum.line("test test::a_line_of_a_test_result ... ok\n");
        assert_eq!(sum, Sum::default());
    }

    #[test]
    fn programs_that_load_probes_are_known_by_name() {
        assert!(loads_probes("kernel_probes") && loads_probes("matrix"));
        assert!(!loads_probes("replay"));
    }
}
