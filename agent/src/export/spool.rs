// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests on disk, for a collector that is away.
//!
//! In: encoded requests. Out: the same, oldest first, also after a restart. It is bounded in bytes and refuses what does
//! not fit; a file that is not what was written is set aside under another name, and counted. It sends nothing.
//!
//! A request is a file, written under another name first and renamed when it is whole. Nothing is forced out of the
//! page cache: what the machine itself loses when it stops is found out by the checksum.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use flate2::Crc;
use prost::bytes::Bytes;

/// A folder of requests.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    most_bytes: u64,
    /// Law: `bytes` = Σ of their lengths <= `most_bytes`, but for what an earlier run with a larger bound left.
    entries: VecDeque<Entry>,
    bytes: u64,
    /// The number of the next file: above every one that was here.
    next: u64,
    corrupt: u64,
    /// Held as long as the spool: two agents in one folder would send everything twice.
    _lock: File,
}

/// One file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    number: u64,
    bytes: u64,
    /// How many spans are in it.
    pub(super) spans: usize,
}

/// Why a request was not stored.
#[derive(Debug)]
pub(super) enum Unstored {
    /// It does not fit.
    Full,
    /// The disk does not take it.
    Failed(io::Error),
}

impl Spool {
    /// The spool in `folder`, with what an earlier run left there.
    pub(super) fn open(folder: &Path, most_bytes: u64) -> anyhow::Result<Self> {
        let shown = folder.display();
        // Spans tell what the services do: nobody else's business.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("make the spool's folder {shown}"))?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"));
        let lock = lock.with_context(|| format!("write into the spool's folder {shown}"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another spantap uses the spool in {shown}: give each its own"),
            Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("lock the spool in {shown}")),
        }
        let mut spool = Self {
            folder: folder.to_path_buf(),
            most_bytes,
            entries: VecDeque::new(),
            bytes: 0,
            next: 0,
            corrupt: 0,
            _lock: lock,
        };
        let mut numbers = Vec::new();
        for file in fs::read_dir(folder).with_context(|| format!("read the spool's folder {shown}"))? {
            let name = file?.file_name();
            let name = name.to_string_lossy();
            if let Some(number) = name.strip_suffix(SUFFIX).and_then(|number| number.parse().ok()) {
                numbers.push(number);
            } else if name.ends_with(UNFINISHED) {
                // Its spans were counted as lost by whoever did not finish it, or died over it.
                fs::remove_file(folder.join(&*name)).ok();
            }
        }
        numbers.sort_unstable();
        for number in numbers {
            spool.next = number + 1;
            match spool.read_file(number) {
                Some((spans, body)) => spool.push(number, body.len() as u64, spans),
                None => spool.set_aside(number),
            }
        }
        Ok(spool)
    }

    /// Stores `request`, which has so many spans, behind all others.
    pub(super) fn store(&mut self, request: &Bytes, spans: usize) -> Result<(), Unstored> {
        let bytes = request.len() as u64;
        if self.bytes + bytes > self.most_bytes {
            return Err(Unstored::Full);
        }
        let number = self.next;
        let (unfinished, whole) = (self.folder.join(format!("{number}{UNFINISHED}")), self.path(number));
        let mut checksum = Crc::new();
        checksum.update(request);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
            let mut head = Vec::with_capacity(HEAD);
            head.extend_from_slice(MAGIC);
            head.extend_from_slice(&(spans as u32).to_le_bytes());
            head.extend_from_slice(&checksum.sum().to_le_bytes());
            file.write_all(&head)?;
            file.write_all(request)?;
            fs::rename(&unfinished, whole)
        };
        if let Err(error) = write() {
            fs::remove_file(&unfinished).ok();
            return Err(Unstored::Failed(error));
        }
        self.next += 1;
        self.push(number, bytes, spans);
        Ok(())
    }

    /// The oldest request. Files that are not what was written are set aside on the way to it; `lost` hears of their
    /// spans.
    pub(super) fn oldest(&mut self, mut lost: impl FnMut(usize)) -> Option<(Entry, Bytes)> {
        while let Some(entry) = self.entries.front().copied() {
            if let Some((spans, body)) = self.read_file(entry.number).filter(|(spans, _)| *spans == entry.spans) {
                debug_assert_eq!(spans, entry.spans);
                return Some((entry, body));
            }
            self.pop(entry);
            self.set_aside(entry.number);
            lost(entry.spans);
        }
        None
    }

    /// The request is answered for.
    pub(super) fn remove(&mut self, entry: Entry) {
        self.pop(entry);
        // One that stays is sent once more after a restart; a second one cannot be told from the first.
        fs::remove_file(self.path(entry.number)).ok();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Spans that wait.
    pub(super) fn spans(&self) -> usize {
        self.entries.iter().map(|entry| entry.spans).sum()
    }

    /// Files that were set aside.
    pub(super) fn corrupt(&self) -> u64 {
        self.corrupt
    }

    fn push(&mut self, number: u64, bytes: u64, spans: usize) {
        self.entries.push_back(Entry { number, bytes, spans });
        self.bytes += bytes;
    }

    fn pop(&mut self, entry: Entry) {
        if self.entries.front() == Some(&entry) {
            self.entries.pop_front();
            self.bytes -= entry.bytes;
        }
    }

    fn set_aside(&mut self, number: u64) {
        self.corrupt += 1;
        let path = self.path(number);
        fs::rename(&path, path.with_extension("corrupt")).ok();
    }

    /// What the file `number` holds; nothing, if that is not what was written.
    fn read_file(&self, number: u64) -> Option<(usize, Bytes)> {
        let whole = Bytes::from(fs::read(self.path(number)).ok()?);
        if whole.len() < HEAD || &whole[..8] != MAGIC {
            return None;
        }
        let word = |at: usize| Some(u32::from_le_bytes(whole[at..at + 4].try_into().ok()?));
        let (spans, expected) = (word(8)?, word(12)?);
        let body = whole.slice(HEAD..);
        let mut checksum = Crc::new();
        checksum.update(&body);
        (checksum.sum() == expected).then_some((spans as usize, body))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:020}{SUFFIX}"))
    }
}

/// Says what the file is, and in which version: magic, spans, CRC-32 of the rest, the encoded request.
const MAGIC: &[u8; 8] = b"SPANTAP1";
const HEAD: usize = 16;
const SUFFIX: &str = ".otlp";
const UNFINISHED: &str = ".new";

#[cfg(test)]
mod tests {
    use super::*;

    fn request(letter: u8) -> Bytes {
        Bytes::from(vec![letter; 100])
    }

    fn next(spool: &mut Spool) -> Option<(u8, usize)> {
        let (entry, body) = spool.oldest(|_| {})?;
        spool.remove(entry);
        Some((body[0], entry.spans))
    }

    #[test]
    fn the_oldest_comes_first_also_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path(), 10_000).expect("it opens");
        for (letter, spans) in [(b'a', 1), (b'b', 2), (b'c', 3)] {
            spool.store(&request(letter), spans).expect("there is room");
        }
        assert_eq!(next(&mut spool), Some((b'a', 1)));
        assert_eq!((spool.spans(), spool.is_empty()), (5, false));
        drop(spool);

        let mut spool = Spool::open(folder.path(), 10_000).expect("it opens again");
        assert_eq!(spool.spans(), 5);
        spool.store(&request(b'd'), 4).expect("there is room");
        assert_eq!(
            [next(&mut spool), next(&mut spool), next(&mut spool)],
            [Some((b'b', 2)), Some((b'c', 3)), Some((b'd', 4))]
        );
        assert_eq!(next(&mut spool), None);
        assert!(spool.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_room_comes_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path(), 250).expect("it opens");
        spool.store(&request(b'a'), 1).expect("there is room");
        spool.store(&request(b'b'), 1).expect("there is room");
        assert!(matches!(spool.store(&request(b'c'), 1), Err(Unstored::Full)));
        assert_eq!(next(&mut spool), Some((b'a', 1)));
        spool.store(&request(b'd'), 1).expect("there is room again");
        assert_eq!(spool.spans(), 2);
    }

    #[test]
    fn a_file_that_was_damaged_anywhere_is_set_aside_and_counted() {
        for damage in 0..116 {
            let folder = tempfile::tempdir().expect("a folder");
            let mut spool = Spool::open(folder.path(), 10_000).expect("it opens");
            spool.store(&request(b'a'), 7).expect("there is room");
            spool.store(&request(b'b'), 2).expect("there is room");
            let path = spool.path(0);
            let mut bytes = fs::read(&path).expect("it is there");
            bytes[damage] ^= 1;
            fs::write(&path, &bytes).expect("it can be damaged");
            let mut lost = 0;
            let (entry, body) = spool.oldest(|spans| lost += spans).expect("the other one");
            assert_eq!((body[0], entry.spans, lost, spool.corrupt()), (b'b', 2, 7, 1), "byte {damage}");
            assert!(path.with_extension("corrupt").exists() && !path.exists());

            drop(spool);
            fs::write(&path, &bytes[..damage]).expect("it can be cut");
            let spool = Spool::open(folder.path(), 10_000).expect("it opens");
            assert_eq!((spool.spans(), spool.corrupt()), (2, 1), "cut at {damage}, found at the start");
        }
    }

    #[test]
    fn a_folder_has_one_spool_and_a_half_written_file_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path(), 10_000).expect("it opens");
        let refused = Spool::open(folder.path(), 10_000).expect_err("it is in use");
        assert!(refused.to_string().contains("another spantap"), "{refused}");
        drop(spool);
        fs::write(folder.path().join("3.new"), "half").expect("it can be written");
        let spool = Spool::open(folder.path(), 10_000).expect("it opens");
        assert!(spool.is_empty() && spool.corrupt() == 0);
        assert!(!folder.path().join("3.new").exists());
    }
}
