// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the machine says about itself.
//!
//! In: texts of `/proc` and `/sys`, through [`Machine`]. Out: a verdict for each thing that matters to the probes or to
//! the names of services. It tries nothing: where a try has the last word (the probes), a doubt is only a warning.

use std::{fs, io, path::Path};

use super::{Check, Verdict};

/// Where the texts come from: this machine, or a table in a test.
pub trait Machine {
    /// The content of a file, without blanks around it.
    fn read(&self, path: &str) -> io::Result<String>;

    /// What a symbolic link holds.
    fn link(&self, path: &str) -> io::Result<String>;

    /// Whether the file can be opened for reading.
    fn opens(&self, path: &str) -> io::Result<()>;
}

/// The machine we run on.
#[derive(Clone, Copy, Debug)]
pub struct ThisMachine;

impl Machine for ThisMachine {
    fn read(&self, path: &str) -> io::Result<String> {
        fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    fn link(&self, path: &str) -> io::Result<String> {
        fs::read_link(path).map(|target| target.to_string_lossy().into_owned())
    }

    fn opens(&self, path: &str) -> io::Result<()> {
        fs::File::open(Path::new(path)).map(drop)
    }
}

/// Every check, in the order of reading.
pub(super) fn checks(machine: &dyn Machine) -> Vec<Check> {
    let mut checks = vec![kernel(machine), btf(machine)];
    checks.extend(capabilities(machine));
    checks.extend(locked_memory(machine));
    checks.extend([lockdown(machine), pid_namespace(machine), jit(machine), cgroups(machine), perf(machine)]);
    checks
}

fn kernel(machine: &dyn Machine) -> Check {
    const NAME: &str = "kernel";
    let release = match machine.read("/proc/sys/kernel/osrelease") {
        Ok(release) => release,
        Err(error) => return Check::new(NAME, Verdict::Skip, format!("kernel release unknown ({error})")),
    };
    if version(&release) >= FLOOR {
        return Check::new(NAME, Verdict::Ok, format!("kernel {release} (need ≥ {}.{})", FLOOR.0, FLOOR.1));
    }
    let finding =
        format!("kernel {release} is older than {}.{}: the probes' ring buffer may be missing", FLOOR.0, FLOOR.1);
    Check::new(NAME, Verdict::Warn, finding).fix("use a newer kernel if the probes below cannot be attached")
}

/// The first two numbers of a release; 0 for what is none.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn btf(machine: &dyn Machine) -> Check {
    const NAME: &str = "btf";
    match machine.opens(BTF) {
        Ok(()) => Check::new(NAME, Verdict::Ok, format!("BTF {BTF}")),
        Err(error) => Check::new(NAME, Verdict::Fail, format!("{BTF} cannot be read ({error}): the probes need it"))
            .fix("use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount the host's /sys"),
    }
}

/// A capability and what it is for.
struct Capability {
    name: &'static str,
    bit: u32,
    /// Whether nothing works without it.
    needed: bool,
    loses: &'static str,
}

const CAPABILITIES: &[Capability] = &[
    Capability { name: "CAP_BPF", bit: 39, needed: true, loses: "no probe can be loaded" },
    Capability { name: "CAP_PERFMON", bit: 38, needed: true, loses: "no probe can be attached" },
    Capability {
        name: "CAP_SYS_PTRACE",
        bit: 19,
        needed: false,
        loses: "environment and executable of other users' processes are unreadable: services are named after their commands",
    },
    Capability {
        name: "CAP_DAC_READ_SEARCH",
        bit: 2,
        needed: false,
        loses: "files of other users' processes are unreadable: services are named after their commands",
    },
    Capability {
        name: "CAP_CHECKPOINT_RESTORE",
        bit: 40,
        needed: false,
        loses: "programs and libraries that were replaced on disk while they run are unreadable",
    },
];

/// `CAP_SYS_ADMIN` contains `CAP_BPF` and `CAP_PERFMON` (capabilities(7)).
const CAP_SYS_ADMIN: u32 = 21;

fn capabilities(machine: &dyn Machine) -> Vec<Check> {
    const NAME: &str = "capabilities";
    let Some(effective) = machine.read("/proc/self/status").ok().as_deref().and_then(effective_capabilities) else {
        return vec![Check::new(NAME, Verdict::Skip, "capabilities unknown: /proc/self/status has no CapEff")];
    };
    let has = |bit: u32| effective & 1 << bit != 0;
    let (present, missing): (Vec<_>, Vec<_>) =
        CAPABILITIES.iter().partition(|capability| has(capability.bit) || capability.needed && has(CAP_SYS_ADMIN));
    let mut checks = Vec::new();
    if !present.is_empty() {
        let names: Vec<_> = present.iter().map(|capability| capability.name).collect();
        checks.push(Check::new(NAME, Verdict::Ok, names.join(" ")));
    }
    for capability in missing {
        let verdict = if capability.needed { Verdict::Fail } else { Verdict::Warn };
        let all: Vec<_> = CAPABILITIES.iter().map(|capability| capability.name.to_ascii_lowercase()).collect();
        let finding = format!("{} is missing: {}", capability.name, capability.loses);
        let fix = format!("run with sudo, or once: sudo setcap {}+ep \"$(command -v spantap)\"", all.join(","));
        checks.push(Check::new(NAME, verdict, finding).fix(fix));
    }
    // One command mends all of them: it is said with the last.
    let last = checks.len().saturating_sub(1);
    for check in checks.iter_mut().take(last) {
        check.fix = None;
    }
    checks
}

/// Old kernels count the probes' maps as locked memory, and refuse those beyond the limit as they refuse strangers: EPERM.
fn locked_memory(machine: &dyn Machine) -> Option<Check> {
    let release = machine.read("/proc/sys/kernel/osrelease").ok()?;
    let status = machine.read("/proc/self/status").ok()?;
    if version(&release) >= MAPS_UNLOCKED || effective_capabilities(&status)? & 1 << CAP_SYS_RESOURCE != 0 {
        return None;
    }
    let limits = machine.read("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    // Soft and hard limit. The first is ours to raise up to the second.
    let hard = line.split_whitespace().nth(1)?;
    if hard.parse().is_ok_and(|hard: u64| hard < MAPS) {
        let finding = format!(
            "RLIMIT_MEMLOCK is {hard} bytes and CAP_SYS_RESOURCE is missing: kernels before {}.{} count the probes' maps, \
             and refuse them",
            MAPS_UNLOCKED.0, MAPS_UNLOCKED.1
        );
        let fix = "raise it (systemd: LimitMEMLOCK=infinity; shell: ulimit -Hl unlimited), or grant CAP_SYS_RESOURCE";
        return Some(Check::new("locked_memory", Verdict::Fail, finding).fix(fix));
    }
    None
}

/// `CapEff` of a `/proc/<pid>/status`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

fn lockdown(machine: &dyn Machine) -> Check {
    const NAME: &str = "lockdown";
    let Ok(modes) = machine.read("/sys/kernel/security/lockdown") else {
        return Check::new(NAME, Verdict::Info, "lockdown: not in this kernel, or securityfs is not mounted");
    };
    // `none [integrity] confidentiality`: the brackets mark the current one.
    match modes.split(['[', ']']).nth(1).unwrap_or("none") {
        "confidentiality" => {
            Check::new(NAME, Verdict::Fail, "lockdown=confidentiality: probes may not read the kernel's memory")
                .fix("boot with lockdown=integrity, or with Secure Boot off")
        }
        mode => Check::new(NAME, Verdict::Ok, format!("lockdown={mode}: reading is allowed")),
    }
}

fn pid_namespace(machine: &dyn Machine) -> Check {
    const NAME: &str = "pid_namespace";
    match machine.link("/proc/self/ns/pid") {
        Ok(namespace) if namespace == ROOT_PID_NAMESPACE => {
            Check::new(NAME, Verdict::Ok, "the host's pid namespace: every process has its name")
        }
        Ok(_) => {
            let finding = "in a pid namespace of its own: processes outside it cannot be named or selected";
            Check::new(NAME, Verdict::Warn, finding)
                .fix("start the container with --pid=host (Kubernetes: hostPID: true)")
        }
        Err(error) => Check::new(NAME, Verdict::Skip, format!("pid namespace unknown ({error})")),
    }
}

fn jit(machine: &dyn Machine) -> Check {
    const NAME: &str = "bpf_jit";
    match machine.read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Ok("0") => {
            Check::new(NAME, Verdict::Warn, "the BPF compiler is off: probes are interpreted, several times slower")
                .fix("sudo sysctl net.core.bpf_jit_enable=1")
        }
        Ok(_) => Check::new(NAME, Verdict::Ok, "the BPF compiler is on"),
        Err(error) => Check::new(NAME, Verdict::Skip, format!("BPF compiler: unknown ({error})")),
    }
}

fn cgroups(machine: &dyn Machine) -> Check {
    let finding = match machine.opens("/sys/fs/cgroup/cgroup.controllers") {
        Ok(()) => "cgroup v2",
        Err(_) => "cgroup v1 or none: units are found by the name=systemd hierarchy",
    };
    Check::new("cgroup", Verdict::Info, finding)
}

fn perf(machine: &dyn Machine) -> Check {
    let level = machine.read("/proc/sys/kernel/perf_event_paranoid").unwrap_or_else(|_| "unknown".to_owned());
    let finding = format!("perf_event_paranoid={level}: without effect, the probes use no perf events");
    Check::new("perf_event_paranoid", Verdict::Info, finding)
}

/// The ring buffer came with 5.8 (commit 457f44363a88).
const FLOOR: (u32, u32) = (5, 8);

/// From here on maps count for the cgroup (commit 80ee81e0403c).
const MAPS_UNLOCKED: (u32, u32) = (5, 11);

/// Of include/uapi/linux/capability.h.
const CAP_SYS_RESOURCE: u32 = 24;

/// More than all maps take together: the ring 4 MiB, tables of sockets and processes some 20.
const MAPS: u64 = 64 << 20;

/// The kernel's own description.
const BTF: &str = "/sys/kernel/btf/vmlinux";

/// `PROC_PID_INIT_INO` of include/linux/proc_ns.h: 0xEFFFFFFC.
const ROOT_PID_NAMESPACE: &str = "pid:[4026531836]";

#[cfg(test)]
mod tests {
    use super::*;

    /// Files and links by path.
    struct Table<'a>(&'a [(&'a str, &'a str)]);

    impl Machine for Table<'_> {
        fn read(&self, path: &str) -> io::Result<String> {
            let found = self.0.iter().find(|(known, _)| *known == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn link(&self, path: &str) -> io::Result<String> {
            self.read(path)
        }

        fn opens(&self, path: &str) -> io::Result<()> {
            self.read(path).map(drop)
        }
    }

    fn shown(files: &[(&str, &str)]) -> String {
        super::super::Report { checks: checks(&Table(files)) }.text(crate::config::Colour::Off)
    }

    #[test]
    fn a_good_machine_has_nothing_to_mend() {
        insta::assert_snapshot!(shown(&[
            ("/proc/sys/kernel/osrelease", "6.18.0-1-amd64"),
            (BTF, ""),
            ("/proc/self/status", "Name:\tspantap\nCapEff:\t000001ffffffffff\n"),
            ("/sys/kernel/security/lockdown", "none [integrity] confidentiality"),
            ("/proc/self/ns/pid", ROOT_PID_NAMESPACE),
            ("/proc/sys/net/core/bpf_jit_enable", "1"),
            ("/sys/fs/cgroup/cgroup.controllers", "cpu"),
            ("/proc/sys/kernel/perf_event_paranoid", "4"),
        ]), @r"
        [ ok ] kernel 6.18.0-1-amd64 (need ≥ 5.8)
        [ ok ] BTF /sys/kernel/btf/vmlinux
        [ ok ] CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_CHECKPOINT_RESTORE
        [ ok ] lockdown=integrity: reading is allowed
        [ ok ] the host's pid namespace: every process has its name
        [ ok ] the BPF compiler is on
        [info] cgroup v2
        [info] perf_event_paranoid=4: without effect, the probes use no perf events
        Result: spantap works here.
        ");
    }

    #[test]
    fn a_bad_machine_is_told_what_to_do() {
        insta::assert_snapshot!(shown(&[
            ("/proc/sys/kernel/osrelease", "5.4.0-91-generic"),
            ("/proc/self/status", "CapEff:\t0000000000000004\n"),
            ("/sys/kernel/security/lockdown", "none integrity [confidentiality]"),
            ("/proc/self/ns/pid", "pid:[4026532201]"),
            ("/proc/sys/net/core/bpf_jit_enable", "0"),
        ]), @r#"
        [warn] kernel 5.4.0-91-generic is older than 5.8: the probes' ring buffer may be missing
               → use a newer kernel if the probes below cannot be attached
        [FAIL] /sys/kernel/btf/vmlinux cannot be read (entity not found): the probes need it
               → use a kernel built with CONFIG_DEBUG_INFO_BTF=y; in a container, mount the host's /sys
        [ ok ] CAP_DAC_READ_SEARCH
        [FAIL] CAP_BPF is missing: no probe can be loaded
        [FAIL] CAP_PERFMON is missing: no probe can be attached
        [warn] CAP_SYS_PTRACE is missing: environment and executable of other users' processes are unreadable: services are named after their commands
        [warn] CAP_CHECKPOINT_RESTORE is missing: programs and libraries that were replaced on disk while they run are unreadable
               → run with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore+ep "$(command -v spantap)"
        [FAIL] lockdown=confidentiality: probes may not read the kernel's memory
               → boot with lockdown=integrity, or with Secure Boot off
        [warn] in a pid namespace of its own: processes outside it cannot be named or selected
               → start the container with --pid=host (Kubernetes: hostPID: true)
        [warn] the BPF compiler is off: probes are interpreted, several times slower
               → sudo sysctl net.core.bpf_jit_enable=1
        [info] cgroup v1 or none: units are found by the name=systemd hierarchy
        [info] perf_event_paranoid=unknown: without effect, the probes use no perf events
        Result: 4 problems, 5 warnings; spantap cannot trace here.
        "#);
    }

    #[test]
    fn a_machine_that_says_nothing_is_no_panic() {
        let text = shown(&[]);
        assert!(
            text.contains("[skip] kernel release unknown") && text.contains("[FAIL] /sys/kernel/btf/vmlinux"),
            "{text}"
        );
        assert_eq!(effective_capabilities("CapEff:\tnonsense"), None);
    }

    #[test]
    fn the_administrators_capability_contains_those_for_probes() {
        let status = format!("CapEff:\t{:016x}", 1_u64 << CAP_SYS_ADMIN);
        let found = capabilities(&Table(&[("/proc/self/status", &status)]));
        assert!(found.iter().all(|check| check.verdict != Verdict::Fail), "{found:?}");
    }

    #[test]
    fn a_limit_that_old_kernels_hold_maps_to_is_said() {
        let limits = |hard: &str| {
            format!(
                "Limit  Soft Limit  Hard Limit  Units\nMax locked memory         65536                {hard}                bytes"
            )
        };
        for (release, capabilities, hard, said) in [
            ("5.10.0", 0, "65536", true),
            ("5.10.0", 0, "unlimited", false),
            ("5.10.0", 0, "268435456", false),
            ("5.10.0", 1 << CAP_SYS_RESOURCE, "65536", false),
            ("5.11.0", 0, "65536", false),
        ] {
            let (status, limits) = (format!("CapEff:\t{capabilities:016x}"), limits(hard));
            let machine = Table(&[
                ("/proc/sys/kernel/osrelease", release),
                ("/proc/self/status", &status),
                ("/proc/self/limits", &limits),
            ]);
            assert_eq!(locked_memory(&machine).is_some(), said, "{release} {capabilities:x} {hard}");
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (release, verdict) in [
            ("5.8.0", Verdict::Ok),
            ("5.10", Verdict::Ok),
            ("10.0", Verdict::Ok),
            ("5.7.9", Verdict::Warn),
            ("x", Verdict::Warn),
        ] {
            assert_eq!(kernel(&Table(&[("/proc/sys/kernel/osrelease", release)])).verdict, verdict, "{release}");
        }
    }
}
