// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A record in the ring that is discarded unless it is committed, so that every early return is safe.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, maps::ring_buf::RingBufEntry};
use spantap_common::loss::Reason;

use crate::{loss, maps::RING};

/// The consumer reads by the clock. Waking it for every record halved the throughput of a web server (2026-10).
const QUIETLY: u64 = BPF_RB_NO_WAKEUP as u64;

/// Room for one `T` in the ring.
pub(crate) struct Slot<T: 'static>(Option<RingBufEntry<T>>);

impl<T: 'static> Slot<T> {
    /// Takes room in the ring, or counts the loss.
    #[inline(always)]
    pub(crate) fn reserve() -> Option<Self> {
        let entry = RING.reserve::<T>(0);
        if entry.is_none() {
            loss::count(Reason::RingFull);
        }
        entry.map(|entry| Self(Some(entry)))
    }

    /// Where the record is to be written: every byte that its size covers, in place.
    #[inline(always)]
    pub(crate) fn record(&mut self) -> Option<*mut T> {
        self.0.as_mut().map(|entry| entry.as_mut_ptr())
    }

    /// Hands the record to the agent.
    #[inline(always)]
    pub(crate) fn commit(mut self) {
        if let Some(entry) = self.0.take() {
            entry.submit(QUIETLY);
        }
    }
}

impl<T: 'static> Drop for Slot<T> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(entry) = self.0.take() {
            entry.discard(QUIETLY);
        }
    }
}
