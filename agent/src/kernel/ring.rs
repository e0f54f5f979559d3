// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The consumer's end of the ring.
//!
//! In: the ring the probes write into. Out: its records as raw bytes, one by one or [`FEW`] at a time. It is never woken: whoever
//! owns it comes by every few milliseconds, because waking a consumer for each record halves the throughput of a web server.

use std::iter;

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};

/// The ring.
pub struct Ring {
    ring: RingBuf<MapData>,
    /// Kept for its memory.
    few: Few,
}

/// Some records that stand in the ring one after the other, copied out of it.
#[derive(Debug, Default)]
pub struct Few {
    /// Law: less than [`FEW_BYTES`] and one record.
    bytes: Vec<u8>,
    /// Where each ends. Law: at most [`FEW`].
    ends: Vec<usize>,
}

impl Ring {
    pub(super) fn take_from(probes: &mut Ebpf) -> anyhow::Result<Self> {
        let map = probes.take_map("RING").context("the probes have no ring")?;
        let ring = RingBuf::try_from(map).context("open the ring")?;
        Ok(Self { ring, few: Few::default() })
    }

    /// Hands over every record there is, up to [`BATCH`] and a few; returns how many.
    pub fn drain(&mut self, mut record: impl FnMut(&[u8])) -> usize {
        self.drain_few(|few| few.records().for_each(&mut record))
    }

    /// The same, a few at a time, for who looks ahead.
    pub fn drain_few(&mut self, mut take: impl FnMut(&Few)) -> usize {
        let mut drained = 0;
        while drained < BATCH {
            self.few.clear();
            while !self.few.is_enough()
                && let Some(record) = self.ring.next()
            {
                self.few.push(&record);
            }
            if self.few.ends.is_empty() {
                break;
            }
            drained += self.few.ends.len();
            take(&self.few);
        }
        drained
    }
}

impl Few {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn is_enough(&self) -> bool {
        self.ends.len() >= FEW || self.bytes.len() >= FEW_BYTES
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// The records, in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let begins = iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, end)| &self.bytes[begin..*end])
    }
}

/// Records handed over at one time: more than a full ring of those that traffic makes (2026-11: 12,000 of 350 bytes in
/// 4 MiB), so that the caller comes to its other work even while producers outrun it.
pub const BATCH: usize = 16_384;

/// 32 records: while one is looked at, what the next ones need comes from memory (2026-11: 8 or 64 at a time differ little).
const FEW: usize = 32;

/// Five times what they usually are; large heads come in fewer at a time.
const FEW_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_were_put_in() {
        let mut few = Few::default();
        for all in [vec![&b"first"[..], b"", b"third"], vec![], vec![b"one"]] {
            few.clear();
            all.iter().for_each(|record| few.push(record));
            assert_eq!(few.records().collect::<Vec<_>>(), all);
        }
    }
}
