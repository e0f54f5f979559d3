// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of needs: one row for each thing that a fresh machine with only Rust may lack.
//!
//! In: nothing. Out: [`NEEDS`], in the order in which they are installed. It installs nothing itself.

use std::{fs, path::Path, process::Command};

use object::{Endianness, Object, read::elf::ElfFile64};

use super::Purpose;
use crate::{
    command::{answer, cargo, find},
    share::daemon,
    toolchain::Toolchain,
};

/// One thing a machine must have.
pub(crate) struct Need {
    /// What the reports call it.
    pub(crate) name: &'static str,
    /// What it is needed for.
    pub(crate) why: &'static str,
    /// How long installing it takes on two cores.
    pub(crate) takes: &'static str,
    /// Which commands need it.
    pub(crate) purpose: Purpose,
    /// How one sees that it is there. Asked at the start of every command, so it must be quick.
    pub(crate) found: Found,
    /// Debian's packages that bring it, or that `then` needs.
    pub(crate) packages: &'static [&'static str],
    /// What to run after the packages are there.
    pub(crate) then: Option<Step>,
    /// What to do on a machine that has no such packages.
    pub(crate) otherwise: &'static str,
}

/// How one sees that something is there.
pub(crate) enum Found {
    /// A program of this name can be started.
    OnPath(&'static str),
    /// The answer is yes.
    If(fn() -> bool),
}

impl Need {
    /// Whether the machine has it.
    pub(crate) fn is_met(&self) -> bool {
        match self.found {
            Found::OnPath(name) => find(name).is_some(),
            Found::If(is_there) => is_there(),
        }
    }
}

/// A command that installs something.
pub(crate) struct Step {
    pub(crate) environment: &'static [(&'static str, &'static str)],
    pub(crate) program: &'static str,
    pub(crate) arguments: &'static [&'static str],
}

impl Step {
    /// The command as one would type it.
    pub(crate) fn as_typed(&self) -> String {
        let set = self.environment.iter().map(|(name, value)| format!("{name}={value} "));
        format!("{}{} {}", set.collect::<String>(), self.program, self.arguments.join(" "))
    }
}

/// Everything, in the order of installation.
pub(crate) const NEEDS: &[Need] = &[
    Need {
        name: "rustc for BPF",
        why: "compiles the probes for bpfel-unknown-none",
        takes: "half a minute",
        purpose: Purpose::Build,
        found: Found::If(|| Toolchain::detect().is_some()),
        // The second package exists from 1.96 on, so an older rustc-web alone is never mistaken for enough.
        packages: &["rustc-web", "libstd-rust-web-dev-bpf"],
        then: None,
        otherwise: "rustup toolchain install nightly --component rust-src",
    },
    Need {
        name: "bpf-linker",
        why: "links the probes into one object with BTF",
        takes: "two minutes",
        purpose: Purpose::Build,
        // Asked for its version, since it stops working when the LLVM it was linked with goes away.
        found: Found::If(|| {
            find("bpf-linker")
                .is_some_and(|file| answer(Command::new(file).env_remove("LD_LIBRARY_PATH").arg("--version")).is_some())
        }),
        packages: &["g++", "llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"],
        // LLVM 22 is what rustc 1.95 and 1.96 use: a linker with an older one cannot read their bitcode.
        then: Some(Step {
            environment: &[("LLVM_PREFIX", "/usr/lib/llvm-22")],
            program: "cargo",
            arguments: &[
                "install",
                "bpf-linker",
                "--version",
                "=0.13.0",
                "--no-default-features",
                "--features",
                "llvm-22",
                "--locked",
            ],
        }),
        otherwise: "cargo install bpf-linker, with the LLVM that `rustc +nightly --version --verbose` names",
    },
    Need {
        name: "rustfmt, clippy",
        why: "check the agent's sources",
        takes: "half a minute",
        purpose: Purpose::Lint,
        found: Found::If(|| ["fmt", "clippy"].iter().all(|tool| answer(cargo().args([tool, "--version"])).is_some())),
        packages: &[],
        then: Some(Step { environment: &[], program: "rustup", arguments: &["component", "add", "rustfmt", "clippy"] }),
        otherwise: "rustup component add rustfmt clippy",
    },
    Need {
        name: "clippy for BPF",
        why: "checks the probes on their own target",
        takes: "ten seconds",
        purpose: Purpose::Lint,
        found: Found::If(|| Toolchain::detect().is_some_and(Toolchain::has_clippy)),
        packages: &["rust-web-clippy"],
        then: None,
        otherwise: "rustup component add clippy --toolchain nightly",
    },
    on_path("python3", "a traced service: ThreadingHTTPServer", &["python3"]),
    on_path("node", "a traced service: node:http", &["nodejs"]),
    on_path("go", "a traced service: net/http", &["golang-go"]),
    on_path("javac", "a traced service: com.sun.net.httpserver", &["default-jdk-headless"]),
    on_path("nginx", "the proxy in front of them (Debian starts one on port 80)", &["nginx"]),
    Need {
        name: "php-fpm",
        why: "a service behind nginx that does not speak HTTP",
        takes: "half a minute",
        purpose: Purpose::Services,
        found: Found::If(has_php_fpm),
        packages: &["php-fpm"],
        then: None,
        otherwise: "install PHP-FPM, as /usr/sbin/php-fpm with or without its version",
    },
    on_path("curl", "the first client of the services", &["curl"]),
    on_path("iptables", "rewrites addresses between a client and its service", &["iptables"]),
    for_backends("java", "runs Zipkin", "java", &["default-jre-headless"]),
    for_backends("maven", "fetches Zipkin", "mvn", &["maven"]),
    for_backends("prometheus", "scrapes the agent (without systemd nothing starts it)", "prometheus", &["prometheus"]),
    for_bench("nginx for the bench", "the server at saturation", "nginx", &["nginx"]),
    for_bench("wrk", "the load that saturates it", "wrk", &["wrk"]),
    for_bench("perf", "samples of where the agent's time goes", "perf", &["linux-perf"]),
    program("valgrind", "counts the instructions of an exchange", Purpose::Lint, "valgrind", &["valgrind"]),
    Need {
        name: "qemu",
        why: "boots other kernels, without KVM too",
        takes: "one minute",
        purpose: Purpose::Vm,
        found: Found::OnPath("qemu-system-x86_64"),
        packages: &["qemu-system-x86"],
        then: None,
        otherwise: "install QEMU's x86 system emulator",
    },
    Need {
        name: "virtiofsd",
        why: "lends a booted machine this one's programs",
        takes: "ten seconds",
        purpose: Purpose::Vm,
        found: Found::If(|| daemon().is_some()),
        packages: &["virtiofsd"],
        then: None,
        otherwise: "install virtiofsd, into /usr/libexec",
    },
    Need {
        name: "static busybox",
        why: "shell and tools of the booted machine",
        takes: "ten seconds",
        purpose: Purpose::Vm,
        found: Found::If(|| find("busybox").is_some_and(|file| is_static(&file))),
        packages: &["busybox-static"],
        then: None,
        otherwise: "install a statically linked busybox",
    },
    Need {
        name: "static bash",
        why: "the services of a test in the booted machine",
        takes: "ten seconds",
        purpose: Purpose::Vm,
        found: Found::OnPath("bash-static"),
        packages: &["bash-static"],
        then: None,
        otherwise: "install a statically linked bash as bash-static",
    },
    Need {
        name: "static libc",
        why: "the agent runs alone in the booted machine",
        takes: "ten seconds",
        purpose: Purpose::Vm,
        // gcc answers with the bare name when it knows no such file.
        found: Found::If(|| {
            answer(Command::new("cc").arg("-print-file-name=libc.a")).is_some_and(|path| path.trim_end().contains('/'))
        }),
        packages: &["libc6-dev"],
        then: None,
        otherwise: "install the static C library",
    },
];

/// A program of the service tests: whatever is on the path serves.
const fn on_path(name: &'static str, why: &'static str, packages: &'static [&'static str]) -> Need {
    program(name, why, Purpose::Services, name, packages)
}

/// A program that is, runs or fetches a backend.
const fn for_backends(
    name: &'static str,
    why: &'static str,
    file: &'static str,
    packages: &'static [&'static str],
) -> Need {
    program(name, why, Purpose::Backends, file, packages)
}

/// A program of the bench.
const fn for_bench(
    name: &'static str,
    why: &'static str,
    file: &'static str,
    packages: &'static [&'static str],
) -> Need {
    program(name, why, Purpose::Bench, file, packages)
}

const fn program(
    name: &'static str,
    why: &'static str,
    purpose: Purpose,
    file: &'static str,
    packages: &'static [&'static str],
) -> Need {
    Need {
        name,
        why,
        takes: "a minute",
        purpose,
        found: Found::OnPath(file),
        packages,
        then: None,
        otherwise: "install it from wherever you like; only the path matters",
    }
}

/// Debian has the version in its name.
fn has_php_fpm() -> bool {
    let entries = fs::read_dir("/usr/sbin").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"php-fpm"))
}

fn is_static(file: &Path) -> bool {
    let Ok(bytes) = fs::read(file) else { return false };
    // A dynamic executable names its interpreter; a static one has no such section.
    ElfFile64::<Endianness>::parse(&*bytes).is_ok_and(|elf| elf.section_by_name(".interp").is_none())
}
