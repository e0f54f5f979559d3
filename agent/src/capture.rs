// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Recorded event streams: everything that went into the pipeline, in order.
//!
//! In: the pipeline's inputs while it runs. Out: a file, and from the file the same inputs again, so that whatever was
//! seen once on a live kernel can be looked at, and become a test. It holds what the probes copied, unredacted: the
//! file is made readable for its owner only.
//!
//! ```text
//! file  = magic "spantap\0" · version u32 · ABI version u32 · seed [u8; 32] · host facts (frame)
//! frame = tag u8 · length u32 · payload             all integers little-endian
//! tag   = 1 record (as in the ring) · 2 facts, traced (JSON) · 3 facts, ignored (JSON) · 4 tick (u64 now, i64 offset)
//! ```

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, BufWriter, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use spantap_common::abi::ABI_VERSION;
use thiserror::Error;

use crate::{
    enrich::HostFacts,
    pipeline::{Input, Watch},
    process::ProcessFacts,
    time::{Timestamp, WallOffset},
};

/// What a stream begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Preamble {
    /// The seed of the ids.
    pub seed: [u8; 32],
    /// The machine it was recorded on.
    pub host: HostFacts,
}

/// One thing that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Frame {
    /// A ring record.
    Record(Vec<u8>),
    /// Facts about a process.
    Facts(Box<ProcessFacts>, Watch),
    /// The end of a batch.
    Tick(Timestamp, WallOffset),
}

impl Frame {
    /// The pipeline's input.
    pub fn input(&self) -> Input<'_> {
        match self {
            Self::Record(record) => Input::Record(record),
            Self::Facts(facts, watch) => Input::Facts(facts, *watch),
            Self::Tick(now, _) => Input::Tick(*now),
        }
    }
}

/// Why a file cannot be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// It could not be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("this is not a recorded event stream")]
    NotARecording,
    /// It comes from another version.
    #[error("it was recorded by another version of spantap (format {0}, records {1})")]
    OtherVersion(u32, u32),
    /// It is damaged.
    #[error("it is damaged after {0} frames: {1}")]
    Damaged(u64, &'static str),
}

/// Writes a stream.
pub struct Recorder<W: Write> {
    out: W,
}

impl Recorder<BufWriter<File>> {
    /// Records into a new file that only its owner may read.
    pub fn create(path: &Path, preamble: &Preamble) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Self::new(BufWriter::new(file), preamble)
    }
}

impl<W: Write> Recorder<W> {
    /// Records into `out`.
    pub fn new(mut out: W, preamble: &Preamble) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&FORMAT.to_le_bytes())?;
        out.write_all(&u32::from(ABI_VERSION).to_le_bytes())?;
        out.write_all(&preamble.seed)?;
        let mut recorder = Self { out };
        recorder.frame(TAG_HOST, &serde_json::to_vec(&preamble.host)?)?;
        Ok(recorder)
    }

    /// Appends an input; `wall` is the offset that goes with a tick.
    pub fn input(&mut self, input: &Input<'_>, wall: WallOffset) -> io::Result<()> {
        match input {
            Input::Record(record) => self.frame(TAG_RECORD, record),
            Input::Facts(facts, watch) => {
                let tag = match watch {
                    Watch::Trace => TAG_TRACED,
                    Watch::Ignore => TAG_IGNORED,
                };
                self.frame(tag, &serde_json::to_vec(facts)?)
            }
            Input::Tick(now) => {
                let mut payload = [0; 16];
                payload[..8].copy_from_slice(&now.0.to_le_bytes());
                payload[8..].copy_from_slice(&wall.0.to_le_bytes());
                self.frame(TAG_TICK, &payload)
            }
        }
    }

    /// Where it is recorded to.
    pub fn written(&self) -> &W {
        &self.out
    }

    /// Hands everything to the operating system.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn frame(&mut self, tag: u8, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        self.out.write_all(&[tag])?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(payload)
    }
}

/// Reads a stream.
#[derive(Debug)]
pub struct Replayer<R: Read> {
    input: R,
    preamble: Preamble,
    frames: u64,
}

impl Replayer<BufReader<File>> {
    /// Opens a recorded file.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> Replayer<R> {
    /// Reads from `input`.
    pub fn new(mut input: R) -> Result<Self, ReplayError> {
        let mut magic = [0; 8];
        match input.read_exact(&mut magic) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ReplayError::NotARecording),
            other => other?,
        }
        if magic != *MAGIC {
            return Err(ReplayError::NotARecording);
        }
        let (mut format, mut abi, mut seed) = ([0; 4], [0; 4], [0; 32]);
        let cut = |_| ReplayError::Damaged(0, "it ends within its preamble");
        input.read_exact(&mut format).map_err(cut)?;
        input.read_exact(&mut abi).map_err(cut)?;
        let (format, abi) = (u32::from_le_bytes(format), u32::from_le_bytes(abi));
        if format != FORMAT || abi != u32::from(ABI_VERSION) {
            return Err(ReplayError::OtherVersion(format, abi));
        }
        input.read_exact(&mut seed).map_err(cut)?;
        let mut replayer = Self { input, preamble: Preamble { seed, host: HostFacts::default() }, frames: 0 };
        let Some((TAG_HOST, host)) = replayer.frame()? else {
            return Err(ReplayError::Damaged(0, "facts about the host are missing"));
        };
        replayer.preamble.host =
            serde_json::from_slice(&host).map_err(|_| ReplayError::Damaged(0, "facts about the host are malformed"))?;
        Ok(replayer)
    }

    /// What the stream began with.
    pub fn preamble(&self) -> &Preamble {
        &self.preamble
    }

    /// The next thing that happened; `None` at the end.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReplayError> {
        let Some((tag, payload)) = self.frame()? else { return Ok(None) };
        self.frames += 1;
        let damaged = |what| ReplayError::Damaged(self.frames, what);
        let facts = |watch| {
            let facts = serde_json::from_slice(&payload).map_err(|_| damaged("facts are malformed"))?;
            Ok::<_, ReplayError>(Frame::Facts(Box::new(facts), watch))
        };
        Ok(Some(match tag {
            TAG_TRACED => facts(Watch::Trace)?,
            TAG_IGNORED => facts(Watch::Ignore)?,
            TAG_TICK => {
                let (now, wall) = payload.split_first_chunk::<8>().ok_or_else(|| damaged("a tick is too short"))?;
                let wall = wall.first_chunk::<8>().ok_or_else(|| damaged("a tick is too short"))?;
                Frame::Tick(Timestamp(u64::from_le_bytes(*now)), WallOffset(i64::from_le_bytes(*wall)))
            }
            TAG_RECORD => Frame::Record(payload),
            _ => return Err(damaged("a frame is of an unknown kind")),
        }))
    }

    fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, ReplayError> {
        let mut tag = [0; 1];
        if self.input.read(&mut tag)? == 0 {
            return Ok(None);
        }
        let damaged = |what| ReplayError::Damaged(self.frames, what);
        let mut length = [0; 4];
        self.input.read_exact(&mut length).map_err(|_| damaged("it ends within a frame"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST_FRAME {
            return Err(damaged("a frame is too long"));
        }
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload).map_err(|_| damaged("it ends within a frame"))?;
        Ok(Some((tag[0], payload)))
    }
}

const MAGIC: &[u8; 8] = b"spantap\0";

/// Version of this layout.
const FORMAT: u32 = 1;

const TAG_RECORD: u8 = 1;
const TAG_TRACED: u8 = 2;
const TAG_IGNORED: u8 = 3;
const TAG_TICK: u8 = 4;
const TAG_HOST: u8 = 5;

/// The largest payload: facts, whose command line and environment are read up to 128 KiB each, as escaped JSON.
const LONGEST_FRAME: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn preamble() -> Preamble {
        Preamble { seed: [9; 32], host: HostFacts { name: "host".into(), ..HostFacts::default() } }
    }

    fn frames() -> Vec<Frame> {
        vec![
            Frame::Facts(Box::new(ProcessFacts { command: "shop".into(), ..ProcessFacts::default() }), Watch::Trace),
            Frame::Facts(Box::default(), Watch::Ignore),
            Frame::Record(vec![1, 2, 3]),
            Frame::Tick(Timestamp(7), WallOffset(-8)),
        ]
    }

    fn recording() -> Vec<u8> {
        let mut recorder = Recorder::new(Vec::new(), &preamble()).expect("a vector takes everything");
        for frame in frames() {
            let wall = if let Frame::Tick(_, wall) = frame { wall } else { WallOffset(0) };
            recorder.input(&frame.input(), wall).expect("a vector takes everything");
        }
        recorder.finish().expect("a vector takes everything")
    }

    fn replay(bytes: &[u8]) -> Result<Vec<Frame>, ReplayError> {
        let mut replayer = Replayer::new(bytes)?;
        assert_eq!(replayer.preamble(), &preamble());
        let mut frames = Vec::new();
        while let Some(frame) = replayer.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_was_recorded_is_replayed() {
        assert_eq!(replay(&recording()).expect("it is whole"), frames());
    }

    #[test]
    fn a_recording_that_is_cut_anywhere_is_refused_or_shorter() {
        let whole = recording();
        for length in 0..whole.len() {
            match replay(&whole[..length]) {
                Ok(read) => assert_eq!(read[..], frames()[..read.len()], "cut at {length}"),
                Err(ReplayError::NotARecording | ReplayError::Damaged(..)) => {}
                Err(other) => panic!("cut at {length}: {other}"),
            }
        }
    }

    #[test]
    fn other_files_are_refused_by_name() {
        assert!(matches!(Replayer::new(&b"#!/bin/sh\nexit 0\n"[..]), Err(ReplayError::NotARecording)));
        let mut newer = recording();
        newer[8] = 99;
        let refused = Replayer::new(&newer[..]);
        assert!(matches!(refused, Err(ReplayError::OtherVersion(99, abi)) if abi == u32::from(ABI_VERSION)));
    }

    #[test]
    fn a_length_from_a_damaged_file_reserves_no_memory() {
        let mut damaged = recording();
        let end = damaged.len();
        damaged[end - 20..end - 16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(replay(&damaged), Err(ReplayError::Damaged(_, "a frame is too long"))));
    }
}
