// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads what an eBPF object would do: its programs and every call in them.
//!
//! In: the bytes of a relocatable ELF file for BPF. Out: a list of [`Program`]s and the object's licence. It neither
//! relocates nor verifies, and it does not judge: `tidy` compares the list with what is allowed.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, bail};
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionKind, SymbolIndex, SymbolKind,
    SymbolSection,
    read::elf::{ElfFile64, ElfSection64, ElfSymbol64},
};

use crate::helpers;

/// What an eBPF object holds.
#[derive(Debug)]
pub(crate) struct Bytecode {
    /// Its programs, by section and name.
    pub(crate) programs: Vec<Program>,
    /// What the kernel reads to decide about GPL-only helpers.
    pub(crate) licence: String,
}

/// A program: an entry point with all functions that it can reach.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Program {
    /// The entry point's symbol.
    pub(crate) name: String,
    /// Its section, which names the program type and where it attaches.
    pub(crate) section: String,
    /// Instructions as the kernel counts them, called functions included; a 64-bit load counts twice.
    pub(crate) instructions: usize,
    /// What it can call outside itself.
    pub(crate) calls: BTreeSet<Call>,
}

/// A call that leaves the program.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Call {
    /// A helper, by its name.
    Helper(&'static str),
    /// A helper of a number without a name here.
    UnknownHelper(i32),
    /// A kernel function by its name.
    Kfunc(String),
    /// Through a register: the target is not known before run time.
    Indirect,
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Helper(name) => f.write_str(name),
            Self::UnknownHelper(id) => write!(f, "helper#{id}"),
            Self::Kfunc(name) => write!(f, "kfunc:{name}"),
            Self::Indirect => f.write_str("indirect"),
        }
    }
}

impl Bytecode {
    /// Reads an object.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let elf = ElfFile64::<Endianness>::parse(bytes).context("not an ELF object")?;
        if elf.elf_header().e_machine.get(elf.endian()) != object::elf::EM_BPF {
            bail!("an ELF file, but not for BPF");
        }
        let functions = functions(&elf)?;
        let mut programs = Vec::new();
        for (at, function) in &functions {
            // Functions in .text are called by programs and attach nowhere themselves.
            if function.section == ".text" {
                continue;
            }
            let mut program = Program {
                name: function.name.clone(),
                section: function.section.clone(),
                instructions: 0,
                calls: BTreeSet::new(),
            };
            for reached in reachable(*at, &functions)? {
                let reached = &functions[&reached];
                program.instructions += reached.instructions;
                program.calls.extend(reached.calls.iter().cloned());
            }
            programs.push(program);
        }
        programs.sort_by(|a, b| (&a.section, &a.name).cmp(&(&b.section, &b.name)));

        let licence = match elf.section_by_name("license") {
            Some(section) => {
                let text = String::from_utf8_lossy(section.data().context("read the licence")?);
                text.trim_end_matches('\0').to_owned()
            }
            None => String::new(),
        };
        Ok(Self { programs, licence })
    }
}

/// Where a function begins: the number of its section, and its address there.
type Place = (usize, u64);

/// A function as it stands in the object.
struct Function {
    name: String,
    section: String,
    instructions: usize,
    calls: BTreeSet<Call>,
    callees: BTreeSet<Place>,
}

fn functions(elf: &ElfFile64<'_, Endianness>) -> Result<HashMap<Place, Function>> {
    let mut functions = HashMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition()) {
        let SymbolSection::Section(index) = symbol.section() else { continue };
        let section = elf.section_by_index(index).context("a function without its section")?;
        if section.kind() == SectionKind::Text {
            functions.insert((index.0, symbol.address()), function(elf, &symbol, &section)?);
        }
    }
    Ok(functions)
}

fn function(
    elf: &ElfFile64<'_, Endianness>,
    symbol: &ElfSymbol64<'_, '_, Endianness>,
    section: &ElfSection64<'_, '_, Endianness>,
) -> Result<Function> {
    let name = symbol.name().context("a function's name")?.to_owned();
    let begin = symbol.address();
    let code = section
        .data_range(begin, symbol.size())
        .context("a function's code")?
        .with_context(|| format!("{name} reaches out of its section"))?;
    let relocated: HashMap<u64, SymbolIndex> = section
        .relocations()
        .filter_map(|(at, relocation)| match relocation.target() {
            RelocationTarget::Symbol(target) => Some((at, target)),
            _ => None,
        })
        .collect();

    let mut function = Function {
        name,
        section: section.name().context("a section's name")?.to_owned(),
        instructions: code.len() / INSTRUCTION,
        calls: BTreeSet::new(),
        callees: BTreeSet::new(),
    };
    let mut at = begin;
    let mut rest = code;
    while let Some((instruction, next)) = rest.split_first_chunk::<INSTRUCTION>() {
        let [opcode, registers, _, _, a, b, c, d] = *instruction;
        let immediate = i32::from_le_bytes([a, b, c, d]);
        match (opcode, registers >> 4) {
            (CALL, CALL_HELPER) => {
                let call = helpers::name(immediate).map_or(Call::UnknownHelper(immediate), Call::Helper);
                function.calls.insert(call);
            }
            (CALL, CALL_LOCAL) => match relocated.get(&at) {
                Some(target) => {
                    let target = elf.symbol_by_index(*target).context("a call's target")?;
                    match target.section() {
                        SymbolSection::Section(index) => {
                            // Against a section symbol the immediate says how far into it, in instructions, less one;
                            // against a function's own symbol it is -1.
                            let offset = i64::from(immediate + 1) * INSTRUCTION_BYTES;
                            function.callees.insert((index.0, target.address().wrapping_add_signed(offset)));
                        }
                        // Nobody here defines it, so the kernel must: an external symbol becomes a kfunc at load time.
                        _ => {
                            function.calls.insert(Call::Kfunc(target.name().context("a kfunc's name")?.to_owned()));
                        }
                    }
                }
                None => {
                    let offset = i64::from(immediate + 1) * INSTRUCTION_BYTES;
                    function.callees.insert((section.index().0, at.wrapping_add_signed(offset)));
                }
            },
            (CALL, CALL_KFUNC) => {
                function.calls.insert(Call::Kfunc(format!("btf#{immediate}")));
            }
            (CALL, _) | (CALL_REGISTER, _) => {
                function.calls.insert(Call::Indirect);
            }
            _ => {}
        }
        // The second half of a 64-bit load has opcode 0, so it needs no special case: it is never taken for a call.
        at += INSTRUCTION as u64;
        rest = next;
    }
    Ok(function)
}

fn reachable(from: Place, functions: &HashMap<Place, Function>) -> Result<BTreeSet<Place>> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(place) = open.pop() {
        if !reached.insert(place) {
            continue;
        }
        for callee in &functions[&place].callees {
            if !functions.contains_key(callee) {
                let (section, address) = callee;
                bail!("{} calls {section}+{address:#x}, where no function begins", functions[&place].name);
            }
            open.push(*callee);
        }
    }
    Ok(reached)
}

/// Bytes of an instruction (<https://www.rfc-editor.org/rfc/rfc9669#section-3>).
const INSTRUCTION: usize = 8;
const INSTRUCTION_BYTES: i64 = 8;

/// BPF_JMP | BPF_CALL with an immediate, and with a register.
const CALL: u8 = 0x85;
const CALL_REGISTER: u8 = 0x8d;

// The source register of a call says what the immediate names
// (<https://www.rfc-editor.org/rfc/rfc9669#section-4.3.1>).
const CALL_HELPER: u8 = 0;
const CALL_LOCAL: u8 = 1;
const CALL_KFUNC: u8 = 2;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use object::{
        Architecture, BinaryFormat, RelocationFlags, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
        write::{Object, Relocation, StandardSegment, Symbol, SymbolId, SymbolSection},
    };

    use super::{Bytecode, Call, INSTRUCTION};

    const EXIT: [u8; INSTRUCTION] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    /// Builds objects as the BPF linker would.
    struct Sample {
        object: Object<'static>,
    }

    impl Sample {
        fn new() -> Self {
            let endian = object::Endianness::Little;
            Self { object: Object::new(BinaryFormat::Elf, Architecture::Bpf, endian) }
        }

        fn function(&mut self, section: &str, name: &str, code: &[[u8; INSTRUCTION]]) -> SymbolId {
            let section = match section {
                ".text" => self.object.section_id(object::write::StandardSection::Text),
                _ => self.object.add_section(
                    self.object.segment_name(StandardSegment::Text).to_vec(),
                    section.as_bytes().to_vec(),
                    SectionKind::Text,
                ),
            };
            let code = code.concat();
            let value = self.object.append_section_data(section, &code, INSTRUCTION as u64);
            self.object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value,
                size: code.len() as u64,
                kind: SymbolKind::Text,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Section(section),
                flags: SymbolFlags::None,
            })
        }

        fn external(&mut self, name: &str) -> SymbolId {
            self.object.add_symbol(Symbol {
                name: name.as_bytes().to_vec(),
                value: 0,
                size: 0,
                kind: SymbolKind::Unknown,
                scope: SymbolScope::Dynamic,
                weak: false,
                section: SymbolSection::Undefined,
                flags: SymbolFlags::None,
            })
        }

        fn calls(&mut self, from: SymbolId, instruction: u64, to: SymbolId) {
            let SymbolSection::Section(section) = self.object.symbol(from).section else { panic!("defined above") };
            let offset = self.object.symbol(from).value + instruction * INSTRUCTION as u64;
            let flags = RelocationFlags::Elf { r_type: object::elf::R_BPF_64_32 };
            self.object.add_relocation(section, Relocation { offset, symbol: to, addend: 0, flags }).unwrap();
        }

        fn parse(&self) -> Bytecode {
            Bytecode::parse(&self.object.write().unwrap()).unwrap()
        }
    }

    fn helper(id: u8) -> [u8; INSTRUCTION] {
        [0x85, 0, 0, 0, id, 0, 0, 0]
    }

    fn call(immediate: i32) -> [u8; INSTRUCTION] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [0x85, 0x10, 0, 0, a, b, c, d]
    }

    #[test]
    fn helpers_are_listed_by_name() {
        let mut sample = Sample::new();
        sample.function("tp_btf/x", "x", &[helper(5), helper(5), EXIT]);
        let program = &sample.parse().programs[0];
        assert_eq!((program.name.as_str(), program.section.as_str(), program.instructions), ("x", "tp_btf/x", 3));
        assert_eq!(program.calls, BTreeSet::from([Call::Helper("ktime_get_ns")]));
    }

    #[test]
    fn helpers_of_called_functions_count_for_their_callers() {
        let mut sample = Sample::new();
        let inner = sample.function(".text", "inner", &[helper(36), EXIT]);
        let outer = sample.function(".text", "outer", &[call(-1), EXIT]);
        let entry = sample.function("tp_btf/x", "x", &[call(-1), EXIT]);
        sample.calls(outer, 0, inner);
        sample.calls(entry, 0, outer);
        let programs = sample.parse().programs;
        assert_eq!(programs.len(), 1, "functions of .text are no programs: {programs:?}");
        assert_eq!(programs[0].calls, BTreeSet::from([Call::Helper("probe_write_user")]));
        assert_eq!(programs[0].instructions, 6);
    }

    #[test]
    fn an_external_function_is_a_kfunc() {
        let mut sample = Sample::new();
        let entry = sample.function("tp_btf/x", "x", &[call(-1), EXIT]);
        let kfunc = sample.external("bpf_task_from_pid");
        sample.calls(entry, 0, kfunc);
        assert_eq!(sample.parse().programs[0].calls, BTreeSet::from([Call::Kfunc("bpf_task_from_pid".to_owned())]));
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let mut sample = Sample::new();
        sample.function("tp_btf/x", "x", &[helper(250), [0x8d, 1, 0, 0, 0, 0, 0, 0], EXIT]);
        assert_eq!(sample.parse().programs[0].calls, BTreeSet::from([Call::UnknownHelper(250), Call::Indirect]));
    }

    #[test]
    fn a_64_bit_load_that_looks_like_a_call_inside_is_none() {
        let mut sample = Sample::new();
        // lddw: the second half carries the upper immediate and has opcode 0, whatever the constant.
        let load = [[0x18, 0, 0, 0, 0x85, 0, 0, 0], [0, 0, 0, 0, 0x85, 0, 0, 0]];
        sample.function("tp_btf/x", "x", &[load[0], load[1], EXIT]);
        let program = &sample.parse().programs[0];
        assert!(program.calls.is_empty());
        assert_eq!(program.instructions, 3);
    }

    #[test]
    fn a_file_for_another_machine_is_refused() {
        let host = Object::new(BinaryFormat::Elf, Architecture::X86_64, object::Endianness::Little);
        assert!(Bytecode::parse(&host.write().unwrap()).is_err());
        assert!(Bytecode::parse(b"\x7fELF").is_err());
    }
}
