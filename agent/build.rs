// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Embeds the probes, built before by `cargo xtask ebpf`.
//!
//! In: the object file under `target/bpf`, if it is there. Out: a copy for `kernel/attach.rs` to include, empty if it is
//! not. It does not build the object: that takes another compiler, and the agent's own tests do without.

use std::{env, error::Error, fs, io, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let object =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../target/bpf/bpfel-unknown-none/bpf/spantap-ebpf");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");

    let probes = match fs::read(&object) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("probes.o"), probes)?;
    Ok(())
}
