// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's description of its own structures (BPF Type Format).
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux`. Out: byte offsets of named fields, and whether a tracepoint exists. It
//! copies no name and builds no index but one of positions: some 150,000 types, of which a dozen are looked at.
//! <https://docs.kernel.org/bpf/btf.html> has the format.

use std::fmt;

/// Where the running kernel describes itself.
pub const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// A parsed description.
#[derive(Debug)]
pub struct Btf {
    bytes: Vec<u8>,
    /// Where each type's entry begins in `bytes`, by type id. Id 0 is `void` and has none.
    types: Vec<u32>,
    strings: Section,
}

/// A field the probes need and this kernel does not describe.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("BTF describes no field {path} of struct {structure}")]
pub struct MissingField {
    /// The structure.
    pub structure: &'static str,
    /// The field as it is named today.
    pub path: &'static str,
}

/// The bytes are no description.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// They end inside something.
    #[error("it ends too early")]
    Truncated,
    /// They begin with something else.
    #[error("it has another magic number")]
    Magic,
    /// A type is of a kind whose length is unknown, so what follows cannot be found.
    #[error("type kind {0} is unknown")]
    Kind(u8),
}

impl Btf {
    /// Takes the description in `bytes`.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, Malformed> {
        let word = |at: usize| word(&bytes, at).ok_or(Malformed::Truncated);
        if word(0)? & 0xffff != MAGIC {
            return Err(Malformed::Magic);
        }
        let header = word(4)? as usize;
        let section = |at: usize| -> Result<Section, Malformed> {
            let start = header.saturating_add(word(at)? as usize);
            let end = start.saturating_add(word(at + 4)? as usize);
            if end > bytes.len() { Err(Malformed::Truncated) } else { Ok(Section { start, end }) }
        };
        let (entries, strings) = (section(8)?, section(16)?);

        let mut types = Vec::with_capacity(1 + (entries.end - entries.start) / AVERAGE_ENTRY);
        types.push(0);
        let mut at = entries.start;
        while at < entries.end {
            types.push(u32::try_from(at).map_err(|_| Malformed::Truncated)?);
            at += ENTRY + trailer(word(at + 4)?)?;
        }
        // Every entry lies inside the section: later reads of the fixed part cannot fail.
        if at != entries.end {
            return Err(Malformed::Truncated);
        }
        Ok(Self { bytes, types, strings })
    }

    /// Byte offset of the field `path` (`outer.inner`) in `structure`. Fields of unnamed members count as the outer's
    /// own, as in C.
    pub fn offset(&self, structure: &str, path: &str) -> Option<u32> {
        let mut id = self.named(KIND_STRUCT, structure.as_bytes())?;
        let mut bits = 0u32;
        for name in path.split('.') {
            let (offset, member) = self.member(id, name.as_bytes(), MAX_NESTING)?;
            bits = bits.checked_add(offset)?;
            id = self.resolved(member)?;
        }
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether the kernel has the tracepoint, and describes it to BTF raw tracepoint programs.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.named(KIND_TYPEDEF, format!("btf_trace_{name}").as_bytes()).is_some()
    }

    /// Whether the kernel has the function, and describes it to programs that are attached to it.
    pub fn has_function(&self, name: &str) -> bool {
        self.named(KIND_FUNCTION, name.as_bytes()).is_some()
    }

    fn named(&self, kind: u32, name: &[u8]) -> Option<u32> {
        let found = self.types.iter().skip(1).position(|at| {
            let at = *at as usize;
            word(&self.bytes, at + 4).is_some_and(|info| kind_of(info) == kind)
                && word(&self.bytes, at).is_some_and(|offset| self.is_called(offset, name))
        })?;
        u32::try_from(found + 1).ok()
    }

    /// Bit offset and type id of a member of the structure or union `id`.
    fn member(&self, id: u32, name: &[u8], nesting: u32) -> Option<(u32, u32)> {
        let (info, _, at) = self.entry(id)?;
        if !matches!(kind_of(info), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let members = (0..(info & 0xffff) as usize).map(|index| at + ENTRY + index * MEMBER);
        for at in members {
            let (name_offset, type_id, offset) =
                (word(&self.bytes, at)?, word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?);
            // With kind_flag set, the upper byte is the size of a bit-field.
            let offset = if info >> 31 == 1 { offset & 0x00ff_ffff } else { offset };
            if self.is_called(name_offset, name) {
                return Some((offset, type_id));
            }
            if nesting > 0
                && self.is_called(name_offset, b"")
                && let Some((inner, found)) = self.member(self.resolved(type_id)?, name, nesting - 1)
            {
                return Some((offset.checked_add(inner)?, found));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn resolved(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_NESTING {
            match self.entry(id)? {
                (info, target, _) if matches!(kind_of(info), KIND_TYPEDEF..=KIND_RESTRICT | KIND_TYPE_TAG) => {
                    id = target;
                }
                _ => return Some(id),
            }
        }
        None
    }

    /// `info`, `size` or `type`, and position of a type's entry.
    fn entry(&self, id: u32) -> Option<(u32, u32, usize)> {
        let at = *self.types.get(usize::try_from(id).ok()?).filter(|_| id != 0)? as usize;
        Some((word(&self.bytes, at + 4)?, word(&self.bytes, at + 8)?, at))
    }

    fn is_called(&self, offset: u32, name: &[u8]) -> bool {
        let strings = &self.bytes[self.strings.start..self.strings.end];
        let text = strings.get(offset as usize..).unwrap_or_default();
        text.get(name.len()) == Some(&0) && text.starts_with(name)
    }
}

/// Reads the field `path`, or one of the names it had or will have in other kernels.
///
/// The first alternative stands in the error.
pub fn offset(btf: &Btf, structure: &'static str, paths: &'static [&'static str]) -> Result<u32, MissingField> {
    let path = paths.first().copied().unwrap_or_default();
    paths.iter().find_map(|path| btf.offset(structure, path)).ok_or(MissingField { structure, path })
}

#[derive(Clone, Copy)]
struct Section {
    start: usize,
    end: usize,
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Bytes behind the fixed part of a type's entry.
fn trailer(info: u32) -> Result<usize, Malformed> {
    let count = (info & 0xffff) as usize;
    Ok(match kind_of(info) {
        // Pointer, forward declaration, typedef, qualifiers, function, float, type tag.
        2 | 7 | 8 | 9 | 10 | 11 | 12 | 16 | 18 => 0,
        // Integer, variable, declaration tag.
        1 | 14 | 17 => 4,
        // Array.
        3 => 12,
        // Structure, union, data section, 64-bit enum.
        4 | 5 | 15 | 19 => 12 * count,
        // Enum, function prototype.
        6 | 13 => 8 * count,
        kind => return Err(Malformed::Kind(kind as u8)),
    })
}

const MAGIC: u32 = 0xeb9f;
/// Bytes of the fixed part of a type's entry: name, info, and size or type.
const ENTRY: usize = 12;
/// Bytes of a member of a structure.
const MEMBER: usize = 12;
/// A kernel's types have 28 bytes each on average: room for all of them at once.
const AVERAGE_ENTRY: usize = 24;
/// Unnamed members inside unnamed members, and typedefs of typedefs: kernels have four. A description that goes in
/// circles ends here.
const MAX_NESTING: u32 = 16;

const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_TYPEDEF: u32 = 8;
/// Volatile and const lie between.
const KIND_RESTRICT: u32 = 11;
const KIND_FUNCTION: u32 = 12;
const KIND_TYPE_TAG: u32 = 18;

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; union { int b; inner_t c; }; }` with `typedef struct inner { int d; int e; } inner_t`,
    /// a tracepoint `hit` and a function `act`.
    fn example() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0inner\0inner_t\0c\0d\0e\0btf_trace_hit\0act\0";
        let name = |text: &str| {
            let needle = [b"\0", text.as_bytes(), b"\0"].concat();
            let at = strings.windows(needle.len()).position(|window| window == needle);
            u32::try_from(at.expect("the name is in the table") + 1).expect("a small table")
        };
        let kind = |kind: u32, members: u32| kind << 24 | members;
        let entries: Vec<u32> = [
            vec![name("int"), kind(1, 0), 4, 32],
            vec![name("inner"), kind(4, 2), 8, name("d"), 1, 0, name("e"), 1, 32],
            vec![name("inner_t"), kind(8, 0), 2],
            vec![0, kind(5, 2), 8, name("b"), 1, 0, name("c"), 3, 0],
            vec![name("outer"), kind(4, 2), 12, name("a"), 1, 0, 0, 4, 32],
            vec![name("btf_trace_hit"), kind(8, 0), 1],
            vec![name("act"), kind(12, 0), 1],
        ]
        .concat();
        let types = 4 * u32::try_from(entries.len()).expect("a small table");
        let header = [MAGIC | 1 << 16, 24, 0, types, types, u32::try_from(strings.len()).expect("a small table")];
        let mut bytes: Vec<u8> = header.iter().chain(&entries).flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend_from_slice(strings);
        bytes
    }

    #[test]
    fn fields_are_found_through_unnamed_members_and_typedefs() {
        let btf = Btf::parse(example()).expect("well-formed");
        for (path, offset) in
            [("a", Some(0)), ("b", Some(4)), ("c.e", Some(8)), ("c.d", Some(4)), ("x", None), ("a.x", None)]
        {
            assert_eq!(btf.offset("outer", path), offset, "{path}");
        }
        assert_eq!(btf.offset("oute", "a"), None);
        assert!(btf.has_tracepoint("hit"));
        assert!(!btf.has_tracepoint("hi"));
        assert!(btf.has_function("act"));
        assert!(!btf.has_function("hit"));
    }

    #[test]
    fn a_renamed_field_is_found_by_its_other_name() {
        let btf = Btf::parse(example()).expect("well-formed");
        assert_eq!(offset(&btf, "outer", &["z", "b"]), Ok(4));
        assert_eq!(offset(&btf, "outer", &["z"]), Err(MissingField { structure: "outer", path: "z" }));
    }

    #[test]
    fn a_description_cut_anywhere_is_refused_or_harmless() {
        let whole = example();
        for length in 0..whole.len() {
            if let Ok(btf) = Btf::parse(whole[..length].to_vec()) {
                panic!("{length} of {} bytes were taken: {btf:?}", whole.len());
            }
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(bytes) {
                let found = btf.offset("outer", "c.e");
                assert!(found.is_none_or(|offset| offset < 1 << 29), "{found:?}");
            }
        }
    }
}
