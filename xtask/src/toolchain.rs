// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which compiler builds for `bpfel-unknown-none`.
//!
//! In: what is installed. Out: a cargo command line with everything but the subcommand's own arguments. It installs
//! nothing: that is `setup`'s business.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use crate::command::{answer, cargo, cargo_bin, program};

/// The target of the eBPF object.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Debian's compiler and clippy, which come with a prebuilt `core` for the BPF target.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_CLIPPY_DRIVER: &str = "/usr/bin/clippy-driver";

/// A compiler that can build the eBPF crate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Toolchain {
    /// Debian's `rustc-web` with `libstd-rust-web-dev-bpf`: nothing but prebuilt packages.
    Debian,
    /// A rustup nightly with `rust-src`, which builds `core` itself.
    Nightly,
}

impl Toolchain {
    /// The first one that is installed. Debian's comes first: its `core` is prebuilt, and its version is pinned by
    /// the distribution, not by the day.
    pub(crate) fn detect() -> Option<Self> {
        [Self::Debian, Self::Nightly].into_iter().find(|toolchain| toolchain.is_installed())
    }

    /// `cargo build` for the BPF target.
    pub(crate) fn build(self) -> Command {
        let mut command = match self {
            Self::Debian => cargo(),
            Self::Nightly => nightly_cargo(),
        };
        command.arg("build");
        self.aim(command)
    }

    /// `cargo clippy` for the BPF target, if this toolchain has it.
    pub(crate) fn clippy(self) -> Option<Command> {
        if !self.has_clippy() {
            return None;
        }
        let mut command = match self {
            // The clippy must be of the compiler's own version, so it is not the one `cargo clippy` would find.
            Self::Debian => program(DEBIAN_CARGO_CLIPPY),
            Self::Nightly => nightly_cargo(),
        };
        command.arg("clippy");
        Some(self.aim(command))
    }

    /// Whether clippy is there too.
    pub(crate) fn has_clippy(self) -> bool {
        match self {
            Self::Debian => Path::new(DEBIAN_CARGO_CLIPPY).exists() && Path::new(DEBIAN_CLIPPY_DRIVER).exists(),
            Self::Nightly => answer(nightly_cargo().args(["clippy", "--version"])).is_some(),
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::Debian => sysroot(Command::new(DEBIAN_RUSTC).env_remove("LD_LIBRARY_PATH"))
                .is_some_and(|sysroot| sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir()),
            Self::Nightly => sysroot(nightly().arg("rustc"))
                .is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file()),
        }
    }

    fn aim(self, mut command: Command) -> Command {
        match self {
            // RUSTC_BOOTSTRAP: the BPF crates use unstable features, which a stable compiler refuses otherwise.
            Self::Debian => command.env("RUSTC_BOOTSTRAP", "1").env("RUSTC", DEBIAN_RUSTC),
            Self::Nightly => command.args(["-Z", "build-std=core"]),
        };
        command
            // Both would replace the flags below, and are meant for the host.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            // `cargo run` points it at the libraries of the host's compiler.
            .env_remove("LD_LIBRARY_PATH")
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", "-C debuginfo=2 -C link-arg=--btf")
            .args(["-p", "spantap-ebpf", "--profile", "bpf", "--target", TARGET, "--target-dir", "target/bpf"]);
        if let Some(path) = path_to_linker() {
            command.env("PATH", path);
        }
        command
    }
}

fn nightly() -> Command {
    let mut command = program("rustup");
    // `cargo run` names the toolchain and the cargo it belongs to; the nightly must find its own.
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO").env_remove("RUSTC").args(["run", "nightly"]);
    command
}

fn nightly_cargo() -> Command {
    let mut command = nightly();
    command.arg("cargo");
    command
}

fn sysroot(rustc: &mut Command) -> Option<PathBuf> {
    Some(PathBuf::from(answer(rustc.args(["--print", "sysroot"]))?.trim_end()))
}

/// The search path with cargo's folder, if it is not there yet: the compiler looks for `bpf-linker` on the path only.
fn path_to_linker() -> Option<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join("bpf-linker").is_file()) {
        return None;
    }
    env::join_paths(env::split_paths(&path).chain([cargo_bin()])).ok()
}
