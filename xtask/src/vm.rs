// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Boots other kernels with the agent's tests as their only program.
//!
//! In: kernels of the table. Out: a line for each, and failure if one does not do in every tier what the host does. The
//! guests have no network and no disk; nothing of them is left but the folder `target/vm`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{announce, cargo, is_root, root, run},
    ebpf,
    guest::{self, Guest, LENT_MEMORY, Machine},
    kernels::{Image, Kernel, images, named},
    setup::{Purpose, ensure},
    share::Share,
};

/// Between two signs of life of a guest. Where nothing else runs, the slowest takes a minute; an emulated one on a busy
/// machine needs several times that.
const PATIENCE: Duration = Duration::from_secs(420);

/// How much of the tests a guest runs. Emulated, the verifier takes seconds for what takes it tenths on the host, and
/// every test has the probes verified anew.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Extent {
    /// All of them.
    Whole,
    /// Those of [`ESSENTIAL`].
    Essential,
    /// The first of them, in the tier that the agent chooses.
    Glance,
    /// No test of the probes, but the catalogue of what capture has to get right, or its cases with names like these.
    Catalogue(Vec<String>),
}

impl Extent {
    /// The extent that the flag `--whole` asks for.
    pub(crate) fn of_tests(whole: bool) -> Self {
        if whole { Self::Whole } else { Self::Essential }
    }

    /// Names of tests or cases, for the kernel's command line; none is all of the tests.
    fn tests(&self) -> String {
        match self {
            Self::Whole => String::new(),
            Self::Essential => ESSENTIAL.join(","),
            Self::Glance => ESSENTIAL[..1].join(","),
            Self::Catalogue(cases) if cases.is_empty() => "all".to_owned(),
            Self::Catalogue(cases) => cases.join(","),
        }
    }

    /// The tiers that they are run in: those `wanted`, or all, as far as the kernel has them.
    fn tiers(&self, kernel: &Kernel, wanted: &[String]) -> Vec<&'static str> {
        let most = if *self == Self::Glance { 1 } else { kernel.tiers.len() };
        let is_wanted = |tier: &&&str| wanted.is_empty() || wanted.iter().any(|name| name.eq_ignore_ascii_case(tier));
        kernel.tiers.iter().take(most).filter(is_wanted).copied().collect()
    }

    fn is_catalogue(&self) -> bool {
        matches!(self, Self::Catalogue(_))
    }
}

/// Introduction, bytes, positions, both ends and roles; both families; bytes that no process held; batches; the end; the
/// hooks.
const ESSENTIAL: &[&str] = &[
    "content::an_exchange_is_seen_at_both_ends",
    "content::addresses_are_the_same_at_both_ends_whatever_the_family",
    "content::bytes_that_never_were_in_the_process_are_counted",
    "scatter::each_message_of_a_batch_is_seen_in_its_own_memory",
    "ends::an_orderly_end_is_seen_in_its_steps",
    "machine::this_kernel_offers_every_hook_that_had_come_by_then",
];

/// The command `vm`.
pub(crate) fn vm(names: &[String], tiers: &[String], extent: &Extent) -> Result<()> {
    if extent.is_catalogue() {
        ensure(&[Purpose::Services])?;
        if !is_root() {
            bail!("lending a guest this machine's files takes root: sudo -E cargo xtask vm --catalogue");
        }
    }
    boot_each(&ready(names)?, tiers, extent)
}

/// Images of the kernels called `names`, and everything it takes to boot them.
pub(crate) fn ready(names: &[String]) -> Result<Vec<Image>> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels of the table are for x86_64, and so is this command");
    }
    let kernels = named(names)?;
    ensure(&[Purpose::Build, Purpose::Vm])?;
    images(&kernels, &folder().join("kernels"))
}

fn folder() -> PathBuf {
    root().join("target/vm")
}

/// Boots `images` one after the other and prints what came of them.
pub(crate) fn boot_each(images: &[Image], tiers: &[String], extent: &Extent) -> Result<()> {
    let folder = folder();
    let programs = Programs::build(&folder, extent)?;
    let initramfs = folder.join("initramfs.cpio");

    let mut reports = Vec::new();
    for image in images {
        println!("vm: {} ({})", image.kernel.name, image.version);
        let archive = pack(&programs, image, extent)?;
        fs::write(&initramfs, archive).with_context(|| format!("write {}", initramfs.display()))?;
        let tiers = extent.tiers(image.kernel, tiers);
        let report = boot(image, &tiers, extent, &programs, &initramfs)?;
        reports.push((image, tiers, report));
    }

    println!("\n{:<6} {:<28} {:<7} {:<12} tests", "kernel", "version", "tier", "doctor");
    let mut surprises = 0;
    for (image, tiers, report) in reports {
        let mut tests: Vec<_> = report.tests.iter().map(|(tier, outcome)| format!("{tier}: {outcome}")).collect();
        tests.extend(report.privileges.map(|outcome| format!("five capabilities: {outcome}")));
        let mark = if report.is_expected_of(image.kernel, &tiers) {
            ""
        } else {
            surprises += 1;
            "  <- not as expected"
        };
        println!(
            "{:<6} {:<28} {:<7} {:<12} {}{mark}",
            image.kernel.name,
            image.version,
            report.tier.as_deref().unwrap_or("none"),
            report.doctor.to_string(),
            tests.join(", "),
        );
    }
    if surprises > 0 {
        bail!("{surprises} kernels were not as expected");
    }
    Ok(())
}

/// What a guest reported.
#[derive(Debug, Eq, PartialEq)]
struct Report {
    doctor: Outcome,
    /// Of tracing with five capabilities, in every tier; none where it was not tried.
    privileges: Option<Outcome>,
    /// The tier that the agent chose, by letter.
    tier: Option<String>,
    /// By the tier that was forced.
    tests: Vec<(String, Outcome)>,
}

impl Report {
    fn new() -> Self {
        Self { doctor: Outcome::Silent, privileges: None, tier: None, tests: Vec::new() }
    }

    /// Takes a line of the guest's console; says whether it was a sign of life.
    fn line(&mut self, line: &str) -> bool {
        if line.contains(CASE) {
            return true;
        }
        if let Some((_, tier)) = line.split_once("] tier ") {
            self.tier = tier.split_whitespace().next().map(str::to_lowercase);
        }
        // The console may put a carriage return or a kernel message before it, never behind.
        let Some((_, result)) = line.rsplit_once(RESULT) else { return false };
        let Some((step, code)) = result.trim().rsplit_once(' ') else { return false };
        let Ok(code) = code.parse() else { return false };
        match step.split_once(' ') {
            Some(("tests", tier)) => self.tests.push((tier.to_owned(), Outcome::Exit(code))),
            None if step == "doctor" => self.doctor = Outcome::Exit(code),
            None if step == "privileges" => self.privileges = Some(Outcome::Exit(code)),
            Some(_) | None => return false,
        }
        true
    }

    fn is_expected_of(&self, kernel: &Kernel, tiers: &[&str]) -> bool {
        let passed =
            self.tests.iter().filter(|(_, outcome)| *outcome == Outcome::Exit(0)).map(|(tier, _)| tier.as_str());
        self.doctor == Outcome::Exit(0)
            && self.privileges.is_none_or(|outcome| outcome == Outcome::Exit(0))
            && self.tier.as_deref() == kernel.tiers.first().copied()
            && passed.eq(tiers.iter().copied())
    }
}

/// What came of a program in a guest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// It ended with this code.
    Exit(i32),
    /// It did not end.
    Silent,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // `pad` keeps the table's columns.
        match self {
            Self::Exit(0) => f.pad("ok"),
            Self::Exit(77) => f.pad("unsupported"),
            Self::Exit(code) => f.pad(&format!("exit {code}")),
            Self::Silent => f.pad("no result"),
        }
    }
}

/// What runs in a guest, with its C library inside: the guest has no other.
struct Programs {
    agent: PathBuf,
    tests: PathBuf,
    /// What the agent can do with few capabilities, for guests that hold all of the catalogue.
    privileges: Option<PathBuf>,
}

impl Programs {
    /// Builds them apart, so that the developer's own build is not disturbed.
    fn build(folder: &Path, extent: &Extent) -> Result<Self> {
        ebpf::build()?;
        let target_dir = folder.join("build");
        let (tests, more): (_, &[&str]) = match extent {
            Extent::Catalogue(cases) if cases.is_empty() => (CATALOGUE, &["--test", PRIVILEGES]),
            Extent::Catalogue(_) => (CATALOGUE, &[]),
            Extent::Whole | Extent::Essential | Extent::Glance => (TESTS, &[]),
        };
        let mut command = cargo();
        command
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
            .args(["test", "--no-run", "-p", "spantap", "--test", tests, "--target", GUEST_TARGET, "--target-dir"])
            .arg(&target_dir)
            .args(more)
            // The guest unpacks the executables into its memory: without symbols they are a fraction of the size.
            .args(["--config", "profile.dev.debug=false", "--config", "profile.dev.strip='symbols'"])
            // These read the kernel's BTF, in every test: a minute without optimisation where the machine is emulated.
            .args(
                OPTIMISED
                    .iter()
                    .flat_map(|name| ["--config".to_owned(), format!("profile.dev.package.{name}.opt-level=2")]),
            )
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit());
        let line = announce(&command);
        let output = command.output().with_context(|| format!("start {line}"))?;
        if !output.status.success() {
            bail!("{line} failed");
        }
        let tests = executable(&output.stdout, tests).context("Cargo built no test program")?;
        if extent.is_catalogue() {
            // Here and not in the guest, which would take minutes over it and writes nothing that lasts.
            run(Command::new(&tests).args(["--exact", "the_services_can_be_built"]))?;
        }
        let privileges = executable(&output.stdout, PRIVILEGES);
        Ok(Self { agent: target_dir.join(GUEST_TARGET).join("debug/spantap"), tests, privileges })
    }
}

/// The executable of the target `name` among Cargo's messages.
fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    messages.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        (message["target"]["name"] == name).then(|| message["executable"].as_str().map(PathBuf::from))?
    })
}

fn pack(programs: &Programs, image: &Image, extent: &Extent) -> Result<Vec<u8>> {
    let content = |file: &Path| fs::read(file).with_context(|| format!("read {}", file.display()));
    let mut archive = guest::files()?;
    archive.executable("bin/bash", &guest::tool("bash-static")?);
    archive.executable("bin/spantap", &content(&programs.agent)?);
    if extent.is_catalogue() {
        guest::lend(&mut archive, image)?;
    } else {
        archive.executable("bin/tests", &content(&programs.tests)?);
    }
    archive.executable("init", INIT.as_bytes());
    Ok(archive.finish())
}

fn boot(image: &Image, tiers: &[&str], extent: &Extent, programs: &Programs, initramfs: &Path) -> Result<Report> {
    let (tiers, tests) = (tiers.join(","), extent.tests());
    let mut told = format!("tiers={tiers} tests={tests}");
    let (memory, share) = if extent.is_catalogue() {
        told += &format!(" catalogue={}", programs.tests.display());
        if let Some(privileges) = &programs.privileges {
            told += &format!(" privileges={}", privileges.display());
        }
        (LENT_MEMORY, Some(Share::start(&folder())?))
    } else {
        (MEMORY, None)
    };
    let guest = Guest::boot(Machine { image, initramfs, told: &told, memory, share })?;
    let mut report = Report::new();
    let mut deadline = Instant::now() + PATIENCE;
    // Ends with the guest, or when it says nothing that counts for too long.
    while let Some(line) = guest.line(deadline) {
        if report.line(&line) {
            deadline = Instant::now() + PATIENCE;
        }
    }
    Ok(report)
}

const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The agent's tests that run in a guest, by file name.
const TESTS: &str = "kernel_probes";

/// The catalogue of what capture has to get right, by file name.
const CATALOGUE: &str = "accuracy";

/// What the agent can do with few capabilities, by file name.
const PRIVILEGES: &str = "kernel_privileges";

/// Mebibytes of a guest: the unpacked programs, and the probes' maps.
const MEMORY: u32 = 1024;

/// Packages that are optimised for the guest.
const OPTIMISED: &[&str] = &["aya", "aya-obj", "object", "spantap"];

/// What precedes a step and its exit code.
const RESULT: &str = "RESULT ";

/// What the catalogue says after each of its cases.
const CASE: &str = "CASE ";

/// The guest's only process besides the tests. A mount may fail on an old kernel: the doctor then says what is missing.
const INIT: &str = "\
#!/bin/busybox sh
. /prepare
spantap doctor --color never
echo \"RESULT doctor $?\"
if [ -n \"$catalogue\" ]; then
    . /lend
    mount -t tmpfs tmpfs /host/tmp
    export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin
    if [ -n \"$privileges\" ]; then
        chroot /host $privileges --test-threads 1
        echo \"RESULT privileges $?\"
    fi
fi
for tier in $(echo \"$tiers\" | tr , ' '); do
    if [ -n \"$catalogue\" ]; then
        SPANTAP_TIER=$tier SPANTAP_ACCURACY=$tests SPANTAP_ACCURACY_TOGETHER=1 chroot /host $catalogue --exact what_is_captured_is_exact
    else
        SPANTAP_TIER=$tier tests --exact --test-threads 1 $(echo \"$tests\" | tr , ' ')
    fi
    echo \"RESULT tests $tier $?\"
done
poweroff -f
";

#[cfg(test)]
mod tests {
    use super::{ESSENTIAL, Extent, INIT, Outcome, RESULT, Report, executable};
    use crate::kernels::KERNELS;

    fn report(lines: &[&str]) -> Report {
        let mut report = Report::new();
        for line in lines {
            report.line(line);
        }
        report
    }

    #[test]
    fn results_are_found_behind_whatever_the_console_puts_before_them() {
        let report = report(&[
            "[ ok ] tier B (socket functions' exits)",
            "[    2.1] clocksource: RESULT doctor 0\r",
            "RESULT tests b 101",
            "RESULT privileges 0",
            "RESULT tests",
            "RESULT what 3",
            "doctor 7",
        ]);
        assert_eq!(report.doctor, Outcome::Exit(0));
        assert_eq!(report.privileges, Some(Outcome::Exit(0)));
        assert_eq!(report.tier.as_deref(), Some("b"));
        assert_eq!(report.tests, [("b".to_owned(), Outcome::Exit(101))]);
    }

    #[test]
    fn a_kernel_is_as_expected_when_every_tier_of_it_passes_and_the_best_is_chosen() {
        let kernel = KERNELS.iter().find(|kernel| kernel.tiers == ["a", "b", "c"]).expect("6.12 is one");
        let all = ["[ ok ] tier A (x)", "RESULT doctor 0", "RESULT tests a 0", "RESULT tests b 0", "RESULT tests c 0"];
        assert!(report(&all).is_expected_of(kernel, &Extent::Whole.tiers(kernel, &[])));
        assert!(report(&all[..3]).is_expected_of(kernel, &Extent::Glance.tiers(kernel, &[])));
        assert!(
            report(&[all[0], all[1], all[3]]).is_expected_of(kernel, &Extent::Whole.tiers(kernel, &["B".to_owned()]))
        );
        for missing in 0..all.len() {
            let mut lines = all.to_vec();
            lines.remove(missing);
            assert!(!report(&lines).is_expected_of(kernel, &["a", "b", "c"]), "without {}", all[missing]);
        }
        for wrong in [
            ["[ ok ] tier C (x)", all[1], all[2], all[3], all[4]],
            [all[0], all[1], all[2], all[3], "RESULT tests c 101"],
        ] {
            assert!(!report(&wrong).is_expected_of(kernel, &["a", "b", "c"]), "{wrong:?}");
        }
    }

    #[test]
    fn the_essential_tests_exist() {
        let folder = crate::command::root().join("agent/tests").join(super::TESTS);
        for test in ESSENTIAL {
            let (module, name) = test.split_once("::").unwrap();
            let source = std::fs::read_to_string(folder.join(module).with_extension("rs")).unwrap();
            assert!(source.contains(&format!("\nfn {name}()")), "no test {test}");
        }
    }

    #[test]
    fn init_writes_what_is_looked_for() {
        assert_eq!(INIT.matches(RESULT).count(), 3);
    }

    #[test]
    fn the_test_program_is_found_among_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"spantap"},"executable":"/a"}
{"reason":"compiler-artifact","target":{"name":"kernel_probes"},"executable":"/b"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "kernel_probes"), Some("/b".into()));
        assert_eq!(executable(messages, "other"), None);
    }

    #[test]
    fn outcomes_are_named_as_the_agents_exit_codes_are() {
        assert_eq!(Outcome::Exit(77).to_string(), "unsupported");
        assert_eq!(Outcome::Exit(1).to_string(), "exit 1");
    }
}
