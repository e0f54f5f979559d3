// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Embeds the probes, built before by `cargo xtask ebpf`, and the compiler's version.
//!
//! In: the object file under `target/bpf`, if it is there. Out: a copy without DWARF for `kernel/attach.rs` to include, empty
//! if it is not. It does not build the object: that takes another compiler, and the agent's own tests do without.

use std::{env, error::Error, fs, io, path::PathBuf, process::Command};

use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

fn main() -> Result<(), Box<dyn Error>> {
    let object =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../target/bpf/bpfel-unknown-none/bpf/spantap-ebpf");
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-env=SPANTAP_RUSTC={}", rustc()?);

    let probes = match fs::read(&object) {
        Ok(bytes) => without_dwarf(&bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("probes.o"), probes)?;
    Ok(())
}

/// The version of the compiler, without its date.
fn rustc() -> Result<String, Box<dyn Error>> {
    let said = Command::new(env::var("RUSTC")?).arg("--version").output()?.stdout;
    let said = String::from_utf8(said)?;
    Ok(said.split_whitespace().nth(1).unwrap_or("unknown").to_owned())
}

/// The object with its BTF, but without the DWARF from which the linker has made it: four fifths of the file, which would
/// be in the agent's memory for as long as it runs.
fn without_dwarf(object: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name = section.name.to_string();
        section.delete = name.starts_with(".debug_") || name.starts_with(".rel.debug_");
    }
    // The linker keeps the sections' names with the symbols', the builder does not.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    // Symbols of what is gone.
    builder.delete_orphans();
    let mut stripped = Vec::new();
    builder.write(&mut stripped)?;
    Ok(stripped)
}
