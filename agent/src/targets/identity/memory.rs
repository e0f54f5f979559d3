// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the memory of another process.
//!
//! In: a process's directory in `/proc`. Out: its mappings, and words and bytes at addresses in them; nothing where nothing
//! is mapped. The process runs on meanwhile: two words read one after the other may be of different moments.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The memory of one process.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    /// In the order of addresses.
    pub(super) mappings: Vec<Mapping>,
}

/// A range of addresses: a line of `/proc/<pid>/maps`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mapping {
    /// The first address.
    pub(super) start: u64,
    /// The address behind the last one.
    pub(super) end: u64,
    /// Whether the process may write there.
    pub(super) writable: bool,
    /// Whether it holds code.
    pub(super) executable: bool,
    /// Where in its file it begins.
    pub(super) offset: u64,
    /// Its file, or a name in brackets, or nothing.
    pub(super) name: String,
}

impl Memory {
    /// Opens the memory of the process whose directory in `/proc` is `process`.
    pub(super) fn open(process: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(process.join("maps")).ok()?.take(MAPS_BYTES).read_to_end(&mut text).ok()?;
        let text = String::from_utf8_lossy(&text);
        let mappings = text.lines().filter_map(Mapping::parse).collect();
        Some(Self { file: File::open(process.join("mem")).ok()?, mappings })
    }

    /// The word at `address`.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.read(address, &mut word)?;
        Some(u64::from_ne_bytes(word))
    }

    /// The word `offset` bytes behind `address`, which may have been read from the process: it may be anything.
    pub(super) fn word_at(&self, address: u64, offset: u64) -> Option<u64> {
        self.word(address.checked_add(offset)?)
    }

    /// `count` words from `address` on, or as many as there are.
    pub(super) fn words(&self, address: u64, count: usize) -> Vec<u64> {
        let bytes = self.bytes(address, 8 * count);
        bytes.chunks_exact(8).filter_map(|word| Some(u64::from_ne_bytes(*word.first_chunk()?))).collect()
    }

    /// `count` bytes from `address` on, or as many as there are.
    pub(super) fn bytes(&self, address: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        let read = self.file.read_at(&mut bytes, address).unwrap_or(0);
        bytes.truncate(read);
        bytes
    }

    /// Whether the text at `address`, as C has it, is one of `names`.
    pub(super) fn reads(&self, address: u64, names: &[&str]) -> bool {
        let bytes = self.bytes(address, LONGEST_NAME);
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        text.len() < bytes.len() && names.iter().any(|name| name.as_bytes() == text)
    }

    /// What looks like a thread's block of glibc's, to which the thread pointer points: it begins with its own address (`tcb`), as does its
    /// third word (`self`). It is looked for in the last `searched` bytes of mappings.
    pub(super) fn threads(&self, searched: u64) -> impl Iterator<Item = u64> {
        let is_anonymous = |mapping: &&Mapping| mapping.writable && mapping.name.is_empty();
        self.mappings.iter().filter(is_anonymous).take(MOST_THREADS).flat_map(move |mapping| {
            // At the end of a thread's stack, and of what the dynamic linker has set up for the first one.
            let start = mapping.end - mapping.length().min(searched);
            let words = self.words(start, ((mapping.end - start) / 8) as usize);
            let here = |index: usize| start + 8 * index as u64;
            let is_block =
                |index: usize| words.get(index) == Some(&here(index)) && words.get(index + 2) == Some(&here(index));
            (0..words.len()).filter(|index| is_block(*index)).map(here).collect::<Vec<_>>()
        })
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Option<()> {
        self.file.read_exact_at(into, address).ok()
    }
}

impl Mapping {
    /// `start-end perms offset device inode   name` (proc_pid_maps(5)).
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let permissions = fields.next()?.as_bytes();
        let (writable, executable) = (permissions.get(1) == Some(&b'w'), permissions.get(2) == Some(&b'x'));
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let name = fields.nth(2).unwrap_or_default().trim_start().to_owned();
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        (start < end).then_some(Self { start, end, writable, executable, offset, name })
    }

    /// Whether this address is in it.
    pub(super) fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }

    /// How many bytes it has.
    pub(super) fn length(&self) -> u64 {
        self.end - self.start
    }

    /// The file that is mapped, opened as the very file, in whatever mount namespace, replaced or not.
    pub(super) fn open(&self, process: &Path) -> Option<File> {
        let link = process.join(format!("map_files/{:x}-{:x}", self.start, self.end));
        File::open(link).or_else(|_| File::open(self.seen_from(process))).ok()
    }

    fn seen_from(&self, process: &Path) -> PathBuf {
        let root = process.join("root");
        root.join(self.name.trim_start_matches('/'))
    }
}

/// 1 MiB: 10,000 mappings.
const MAPS_BYTES: u64 = 1 << 20;

/// A thread for each CPU or blocking call, and the arenas of the allocator.
const MOST_THREADS: usize = 256;

/// Names of types are short.
const LONGEST_NAME: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reads_its_own_memory() {
        let memory = Memory::open(Path::new("/proc/self")).expect("this process runs");
        let words = [7_u64, 8, 9];
        let address = words.as_ptr() as u64;
        assert_eq!(memory.word(address + 8), Some(8));
        assert_eq!(memory.words(address, 3), words);
        assert_eq!((memory.word(8), memory.words(8, 2)), (None, vec![]), "nobody maps the first page");
        let text = c"Context";
        assert!(memory.reads(text.as_ptr() as u64, &["x", "Context"]));
        assert!(!memory.reads(text.as_ptr() as u64, &["Contex", "Contexts"]));
        assert!(memory.mappings.iter().any(|mapping| mapping.name == "[stack]" && mapping.writable));
    }

    #[test]
    fn lines_of_maps_are_read_to_the_end_of_their_names() {
        let line = "7f00-7f10 rw-p 0000a000 08:01 123                        /opt/my app/lib.so (deleted)";
        let mapping = Mapping::parse(line).expect("it is well-formed");
        let name = "/opt/my app/lib.so (deleted)".to_owned();
        let (writable, executable) = (true, false);
        assert_eq!(mapping, Mapping { start: 0x7f00, end: 0x7f10, writable, executable, offset: 0xa000, name });
        let anonymous = Mapping::parse("7f00-7f10 ---p 00000000 00:00 0 ").expect("it is well-formed");
        assert_eq!((anonymous.name.as_str(), anonymous.writable), ("", false));
        assert_eq!(Mapping::parse("7f10-7f00 rw-p 0 0 0"), None);
        assert_eq!(Mapping::parse(""), None);
    }
}
