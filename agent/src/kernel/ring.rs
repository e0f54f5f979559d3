// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The consumer's end of the ring.
//!
//! In: the ring the probes write into. Out: its records, one by one, as raw bytes. It is never woken: whoever owns it
//! comes by every few milliseconds, because waking a consumer for each record halves the throughput of a web server.

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};

/// The ring.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    pub(super) fn take_from(probes: &mut Ebpf) -> anyhow::Result<Self> {
        let map = probes.take_map("RING").context("the probes have no ring")?;
        Ok(Self(RingBuf::try_from(map).context("open the ring")?))
    }

    /// Hands over every record there is, up to [`BATCH`]; returns how many.
    pub fn drain(&mut self, mut record: impl FnMut(&[u8])) -> usize {
        let mut drained = 0;
        while drained < BATCH {
            let Some(item) = self.0.next() else { break };
            record(&item);
            drained += 1;
        }
        drained
    }
}

/// Records handed over at one time: more than a full ring of those that traffic makes (2026-11: 12,000 of 350 bytes in
/// 4 MiB), so that the caller comes to its other work even while producers outrun it.
pub const BATCH: usize = 16_384;
