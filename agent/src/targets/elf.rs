// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Looks at an executable file: which runtime is built into it, and whether it is linked dynamically.
//!
//! In: an open ELF file. Out: an [`Image`]. It reads headers, notes, single symbols through the hash table that the
//! dynamic linker uses, and searches constants for one sentence, each bounded by a constant: the file may be hostile, and may be a hundred megabytes.

use std::{fs::File, os::unix::fs::FileExt};

use memchr::memmem;
use object::{
    NativeEndian, Pod, elf,
    pod::{bytes_of_slice, bytes_of_slice_mut, slice_from_bytes},
    read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader, Sym},
};

use crate::process::Runtime;

/// What an executable file says about itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Image {
    /// The runtime it contains.
    pub(super) runtime: Option<Runtime>,
    /// Whether it names a dynamic linker, and so may have further libraries.
    pub(super) dynamic: bool,
}

/// What `file` says about itself; a file that is no executable of this machine says nothing.
pub(super) fn inspect(file: &File) -> Image {
    if let Some(elf) = Elf::<elf::FileHeader64<NativeEndian>>::open(file) {
        return elf.image();
    }
    Elf::<elf::FileHeader32<NativeEndian>>::open(file).map(|elf| elf.image()).unwrap_or_default()
}

/// A symbol of a file, and where the file's parts were to be.
#[derive(Debug)]
pub(super) struct Symbol {
    /// Its address, before the file was moved to where it runs.
    pub(super) address: u64,
    /// Offset in the file and address of each part that is loaded.
    parts: Vec<(u64, u64)>,
}

impl Symbol {
    /// The address that was meant for the page at `offset` of the file.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        // A part begins anywhere in its first page, and pages are mapped.
        let (start, address) = self.parts.iter().find(|(start, _)| start / PAGE == offset / PAGE)?;
        Some(address - start % PAGE)
    }
}

/// The symbol `name`, which ends with a zero, among those that a 64-bit file exports.
pub(super) fn symbol(file: &File, name: &str) -> Option<Symbol> {
    let elf = Elf::<elf::FileHeader64<NativeEndian>>::open(file)?;
    let address = Symbols::new(&elf)?.find(name)?;
    let loaded = elf.segments.iter().filter(|segment| segment.p_type(NativeEndian) == elf::PT_LOAD);
    let parts = loaded.map(|segment| (segment.p_offset(NativeEndian), segment.p_vaddr(NativeEndian))).collect();
    Some(Symbol { address, parts })
}

/// Where each thread has its own `name`, counted from the thread pointer: of an executable that exports it, on machines where thread-local
/// variables lie below that (variant II of the ABI's, as on x86-64). The name ends with a zero.
pub(super) fn thread_local(file: &File, name: &str) -> Option<i64> {
    let elf = Elf::<elf::FileHeader64<NativeEndian>>::open(file)?;
    let inside = Symbols::new(&elf)?.find(name)?;
    let block = elf.segments.iter().find(|segment| segment.p_type(NativeEndian) == elf::PT_TLS)?;
    let (size, alignment) = (block.p_memsz(NativeEndian), block.p_align(NativeEndian).max(1));
    if inside >= size || block.p_vaddr(NativeEndian) % alignment != 0 {
        return None;
    }
    inside.checked_signed_diff(size.checked_next_multiple_of(alignment)?)
}

/// The release of Go that linked a 64-bit file, such as `go1.24.6`.
pub(super) fn go_version(file: &File) -> Option<String> {
    Elf::<elf::FileHeader64<NativeEndian>>::open(file)?.go_version()
}

/// An ELF file with its program headers.
struct Elf<'a, H: FileHeader<Endian = NativeEndian>> {
    file: &'a File,
    header: H,
    segments: Vec<H::ProgramHeader>,
}

impl<'a, H: FileHeader<Endian = NativeEndian>> Elf<'a, H> {
    fn open(file: &'a File) -> Option<Self> {
        let header: H = *read::<H>(file, 0, 1)?.first()?;
        if !header.is_supported() || header.endian().is_err() {
            return None;
        }
        let count = usize::from(header.e_phnum(NativeEndian)).min(MAX_SEGMENTS);
        let segments = read(file, header.e_phoff(NativeEndian).into(), count).unwrap_or_default();
        Some(Self { file, header, segments })
    }

    fn image(&self) -> Image {
        let dynamic = self.segments.iter().any(|segment| segment.p_type(NativeEndian) == elf::PT_INTERP);
        let go = self.has_go_note()
            || self.section_names().map_or_else(|| self.has_go_build_information(), |names| has_go_section(&names));
        let runtime = if go { Some(Runtime::Go) } else { self.exported_runtime() };
        Image { runtime: runtime.or_else(|| self.says_tokio().then_some(Runtime::Tokio)), dynamic }
    }

    /// The build id that Go's linker writes: `.note.go.buildid`, in a segment of its own. Survives strip(1), with and
    /// without section headers; absent after `-ldflags=-buildid=`.
    fn has_go_note(&self) -> bool {
        let notes = self.segments.iter().filter(|segment| segment.p_type(NativeEndian) == elf::PT_NOTE);
        notes.filter_map(|segment| self.segment_start(segment, MAX_NOTE_BYTES)).any(|notes| {
            // namesz, descsz, type, name: all words of 4 bytes, also in 64-bit files.
            notes.windows(GO_NOTE_NAME.len()).step_by(4).any(|name| name == GO_NOTE_NAME)
        })
    }

    /// The names of the sections; nothing where section headers were removed.
    fn section_names(&self) -> Option<SectionNames> {
        let count = usize::from(self.header.e_shnum(NativeEndian)).min(MAX_SECTIONS);
        let sections: Vec<H::SectionHeader> = read(self.file, self.header.e_shoff(NativeEndian).into(), count)?;
        let names = sections.get(usize::from(self.header.e_shstrndx(NativeEndian).0))?;
        let size = usize::try_from(names.sh_size(NativeEndian).into()).ok()?.min(MAX_SECTION_NAME_BYTES);
        let names = read::<u8>(self.file, names.sh_offset(NativeEndian).into(), size)?;
        let starts = sections.iter().filter_map(|section| usize::try_from(section.sh_name(NativeEndian)).ok());
        Some(SectionNames { starts: starts.collect(), names })
    }

    /// The build information that `debug/buildinfo` looks for, at the start of the data that Go's linker lays out. Only
    /// in files without section headers is it worth the reading.
    fn has_go_build_information(&self) -> bool {
        self.go_build_information().is_some()
    }

    /// The release in the build information: since 1.18 the text stands behind its head of 32 bytes, with its length before
    /// it.
    fn go_version(&self) -> Option<String> {
        let information = self.go_build_information()?;
        let length = usize::from(*information.get(GO_BUILD_INFORMATION_HEAD)?);
        let start = GO_BUILD_INFORMATION_HEAD + 1;
        // The length is a number of several bytes if it is above 127; releases have short names.
        let text = information.get(start..start + length).filter(|_| length < 128)?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// The first bytes of the build information.
    fn go_build_information(&self) -> Option<Vec<u8>> {
        let writable = |segment: &&H::ProgramHeader| {
            segment.p_type(NativeEndian) == elf::PT_LOAD && segment.p_flags(NativeEndian).contains(elf::PF_W)
        };
        let starts =
            self.segments.iter().filter(writable).filter_map(|segment| self.segment_start(segment, MAX_DATA_BYTES));
        starts.into_iter().find_map(|data| {
            // It is aligned to 16 bytes.
            let at = data.chunks_exact(16).position(|bytes| bytes.starts_with(GO_BUILD_INFORMATION))?;
            Some(data[16 * at..].iter().take(GO_BUILD_INFORMATION_HEAD + 128).copied().collect())
        })
    }

    /// The runtime that is linked into the executable and exported to its extensions, whatever the file is called:
    /// bundles with Node, .NET's single files, uWSGI with a static Python.
    fn exported_runtime(&self) -> Option<Runtime> {
        let symbols = Symbols::new(self)?;
        EXPORTS.iter().find(|(name, _)| symbols.defines(name)).map(|(_, runtime)| *runtime)
    }

    /// Whether a constant of it is in one of the sentences that tokio's runtime panics with: they are in every program that waits for
    /// sockets with it, stripped or not.
    fn says_tokio(&self) -> bool {
        let constant = |segment: &&H::ProgramHeader| {
            let flags = segment.p_flags(NativeEndian);
            segment.p_type(NativeEndian) == elf::PT_LOAD && !flags.contains(elf::PF_W) && !flags.contains(elf::PF_X)
        };
        let finder = memmem::Finder::new(TOKIO);
        let mut left = MAX_CONSTANT_BYTES;
        let mut chunk = vec![0; CONSTANT_CHUNK];
        self.segments.iter().filter(constant).any(|segment| {
            let mut at: u64 = segment.p_offset(NativeEndian).into();
            let end = at.saturating_add(segment.p_filesz(NativeEndian).into().min(left));
            left -= end - at;
            while at < end {
                let wanted = chunk.len().min((end - at) as usize);
                // What ends in the middle of the sentence is read again with what follows.
                match self.file.read_at(&mut chunk[..wanted], at) {
                    Ok(read) if finder.find(&chunk[..read]).is_some() => return true,
                    Ok(read) if read >= TOKIO.len() => at += (read - TOKIO.len() + 1) as u64,
                    _ => return false,
                }
            }
            false
        })
    }

    /// The first bytes of a segment, at most `limit`.
    fn segment_start(&self, segment: &H::ProgramHeader, limit: usize) -> Option<Vec<u8>> {
        let size = usize::try_from(segment.p_filesz(NativeEndian).into()).ok()?.min(limit);
        read(self.file, segment.p_offset(NativeEndian).into(), size)
    }

    /// Where in the file the byte is that will be at `address`.
    fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr(NativeEndian).into())?;
            let loaded = segment.p_type(NativeEndian) == elf::PT_LOAD && inside < segment.p_filesz(NativeEndian).into();
            loaded.then(|| segment.p_offset(NativeEndian).into().checked_add(inside)).flatten()
        })
    }
}

/// The string table of section names, and where in it each section's name starts.
struct SectionNames {
    names: Vec<u8>,
    starts: Vec<usize>,
}

/// Whether there is a section that only Go's linker makes; strip(1) keeps those.
fn has_go_section(sections: &SectionNames) -> bool {
    sections.starts.iter().any(|start| {
        let name = sections.names.get(*start..).unwrap_or_default();
        GO_SECTIONS.iter().any(|section| name.starts_with(section))
    })
}

/// The dynamic symbols of a file, found through its GNU hash table: a few reads of some bytes for each name asked for,
/// whether there are ten symbols or Node's 75,000.
struct Symbols<'a, H: FileHeader<Endian = NativeEndian>> {
    elf: &'a Elf<'a, H>,
    /// File offsets of the parts.
    buckets: u64,
    chains: u64,
    table: u64,
    names: u64,
    bucket_count: u32,
    /// The symbol that the first entry of the chains stands for.
    first: u32,
}

impl<'a, H: FileHeader<Endian = NativeEndian>> Symbols<'a, H> {
    fn new(elf: &'a Elf<'a, H>) -> Option<Self> {
        let dynamic = elf.segments.iter().find(|segment| segment.p_type(NativeEndian) == elf::PT_DYNAMIC)?;
        let size = usize::try_from(dynamic.p_filesz(NativeEndian).into()).ok()?.min(MAX_DYNAMIC_BYTES);
        let entries: Vec<H::Dyn> = read(elf.file, dynamic.p_offset(NativeEndian).into(), size / size_of::<H::Dyn>())?;
        let part = |tag| {
            let entry = entries.iter().find(|entry| entry.d_tag(NativeEndian) == tag)?;
            elf.offset(entry.d_val(NativeEndian).into())
        };
        let hash = part(elf::DT_GNU_HASH)?;
        let [bucket_count, first, bloom_count, _shift] = read::<u32>(elf.file, hash, 4)?.try_into().ok()?;
        let word = if H::is_type_64_sized() { 8 } else { 4 };
        let buckets = hash.checked_add(16)?.checked_add(word * u64::from(bloom_count))?;
        let chains = buckets.checked_add(4 * u64::from(bucket_count))?;
        Some(Self {
            elf,
            buckets,
            chains,
            table: part(elf::DT_SYMTAB)?,
            names: part(elf::DT_STRTAB)?,
            bucket_count,
            first,
        })
    }

    /// Whether the file itself defines `name`, which ends with a zero.
    fn defines(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The address that the file gives to `name`, which ends with a zero.
    fn find(&self, name: &str) -> Option<u64> {
        let hash = gnu_hash(name.strip_suffix('\0')?);
        let bucket = hash.checked_rem(self.bucket_count)?;
        let start = self.word(self.buckets, bucket)?;
        for symbol in (start..).take(MAX_CHAIN) {
            // A bucket without symbols holds 0, which is before the first one.
            let link = self.word(self.chains, symbol.checked_sub(self.first)?)?;
            // The lowest bit marks a chain's end; the others are the hash's.
            if link | 1 == hash | 1
                && let Some(address) = self.address(symbol, name)
            {
                return Some(address);
            }
            if link & 1 == 1 {
                return None;
            }
        }
        None
    }

    /// The symbol's address, if it is a definition of `name`. Only definitions are hashed, but a linker may think otherwise.
    fn address(&self, symbol: u32, name: &str) -> Option<u64> {
        let at = self.table.checked_add(u64::from(symbol) * size_of::<H::Sym>() as u64)?;
        let symbol: H::Sym = *read(self.elf.file, at, 1)?.first()?;
        let at = self.names.checked_add(symbol.st_name(NativeEndian).into())?;
        let is_it = !symbol.is_undefined(NativeEndian) && read::<u8>(self.elf.file, at, name.len())? == name.as_bytes();
        is_it.then(|| symbol.st_value(NativeEndian).into())
    }

    fn word(&self, table: u64, index: u32) -> Option<u32> {
        read(self.elf.file, table.checked_add(4 * u64::from(index))?, 1)?.first().copied()
    }
}

/// The hash function of `.gnu.hash` (<https://sourceware.org/legacy-ml/binutils/2006-10/msg00377.html>).
fn gnu_hash(name: &str) -> u32 {
    name.bytes().fold(5381, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(byte.into()))
}

/// `count` values at `offset`. The caller bounds `count`. Read into words, because the values need their alignment.
fn read<T: Pod>(file: &File, offset: u64, count: usize) -> Option<Vec<T>> {
    let size = count.checked_mul(size_of::<T>())?;
    let mut words = vec![0u64; size.div_ceil(8)];
    file.read_exact_at(bytes_of_slice_mut(&mut words).get_mut(..size)?, offset).ok()?;
    slice_from_bytes(bytes_of_slice(&words), count).ok().map(|(values, _)| values.to_vec())
}

/// Length of the name, length of the id and the type do not matter; the name is followed by two zeros for alignment.
const GO_NOTE_NAME: &[u8] = b"\x04\0\0\0Go\0\0";

/// Of Go's linker, with the zero that ends each name.
const GO_SECTIONS: &[&[u8]] = &[b".go.buildinfo\0", b".note.go.buildid\0", b".gopclntab\0"];

/// <https://github.com/golang/go/blob/go1.24.0/src/debug/buildinfo/buildinfo.go#L52>
const GO_BUILD_INFORMATION: &[u8] = b"\xff Go buildinf:";

/// <https://github.com/golang/go/blob/go1.24.0/src/debug/buildinfo/buildinfo.go#L53>
const GO_BUILD_INFORMATION_HEAD: usize = 32;

/// What each runtime defines for its extensions. Not N-API: Bun and Deno, which are not Node, have that too.
const EXPORTS: &[(&str, Runtime)] = &[
    ("_ZN4node5StartEiPPc\0", Runtime::Node),
    ("_PyRuntime\0", Runtime::Python),
    ("ruby_run_node\0", Runtime::Ruby),
    ("zend_startup\0", Runtime::Php),
    ("DotNetRuntimeInfo\0", Runtime::Dotnet),
    // 2.5 and newer, linked so that it can name its functions in a backtrace.
    ("ha_thread_ctx\0", Runtime::Haproxy),
];

/// `tokio/src/runtime/driver.rs`: what it says where a program waits for a socket without having asked for that. The same since 1.0.
const TOKIO: &[u8] = b"A Tokio 1.x context was found, but IO is disabled.";

/// Constants of a program are some MiB, of a browser some dozens. Read at 3 GiB/s, once for each file.
const MAX_CONSTANT_BYTES: u64 = 32 << 20;
const CONSTANT_CHUNK: usize = 256 << 10;

/// The smallest page, and the only one of x86-64, for which symbols are looked up.
const PAGE: u64 = 4096;

/// Linkers make about a dozen segments.
const MAX_SEGMENTS: usize = 64;

/// Executables have 30 to 50 sections. Object files may have thousands, but they do not run.
const MAX_SECTIONS: usize = 512;

/// 512 names of 32 bytes.
const MAX_SECTION_NAME_BYTES: usize = 16 << 10;

/// Notes are ids of some 100 bytes; vendors add a few.
const MAX_NOTE_BYTES: usize = 4 << 10;

/// 1 MiB: with Go's own linker the build information comes first, with another one relocated constants precede it.
const MAX_DATA_BYTES: usize = 1 << 20;

/// Dynamic sections have some 40 entries of 16 bytes.
const MAX_DYNAMIC_BYTES: usize = 16 << 10;

/// Linkers choose the number of buckets for chains of one to three symbols.
const MAX_CHAIN: usize = 64;
