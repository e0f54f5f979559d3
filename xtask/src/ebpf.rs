// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds the eBPF object, and shows what is in it.
//!
//! In: the eBPF crate. Out: one object file at a fixed place, from which the agent's build script embeds it. Nothing
//! is loaded into a kernel here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    bytecode::{Bytecode, Call},
    command::{find, root, run},
    setup::{Purpose, ensure},
    toolchain::{TARGET, Toolchain},
};

/// The command `ebpf`.
pub(crate) fn command(dump: bool) -> Result<()> {
    ensure(&[Purpose::Build])?;
    let object = build()?;
    let bytecode = read(&object)?;
    print!("{}", table(&bytecode));
    if dump { disassemble(&object) } else { Ok(()) }
}

/// Builds the object and tells where it is.
pub(crate) fn build() -> Result<PathBuf> {
    let toolchain = Toolchain::detect().context("no compiler for the BPF target: `cargo xtask setup`")?;
    run(&mut toolchain.build())?;
    Ok(object())
}

/// Where the object is once it is built.
pub(crate) fn object() -> PathBuf {
    root().join("target/bpf").join(TARGET).join("bpf/spantap-ebpf")
}

/// What the object at `file` holds.
pub(crate) fn read(file: &Path) -> Result<Bytecode> {
    let bytes = fs::read(file).with_context(|| format!("read {} (`cargo xtask ebpf` builds it)", file.display()))?;
    Bytecode::parse(&bytes).with_context(|| format!("read {}", file.display()))
}

fn table(bytecode: &Bytecode) -> String {
    let mut text = format!("licence {}\n", bytecode.licence);
    for program in &bytecode.programs {
        let calls: Vec<_> = program.calls.iter().map(Call::to_string).collect();
        text += &format!(
            "{}\n  section       {}\n  instructions  {}\n  calls         {}\n",
            program.name,
            program.section,
            program.instructions,
            if calls.is_empty() { "nothing".to_owned() } else { calls.join(", ") },
        );
    }
    text
}

fn disassemble(object: &Path) -> Result<()> {
    // Debian names LLVM's tools by their version only; elsewhere the plain name may be there.
    let Some(objdump) = ["llvm-objdump-22", "llvm-objdump"].iter().find_map(|name| find(name)) else {
        println!("no disassembly: llvm-objdump is not installed (Debian: llvm-22)");
        return Ok(());
    };
    run(Command::new(objdump).args(["--disassemble", "--line-numbers", "--no-show-raw-insn"]).arg(object))
}
