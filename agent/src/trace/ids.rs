// SPDX-License-Identifier: Apache-2.0 OR MIT
//! New trace and span ids.
//!
//! In: a seed. Out: random ids, never all zero; the same seed gives the same ids, which is what makes a replay
//! byte-identical. It keeps no record of the ids it gave.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::context::{SpanId, TraceFlags, TraceId};

/// A source of ids.
#[derive(Debug)]
pub struct Ids(StdRng);

impl Ids {
    /// Ids from `seed`, which must be unpredictable where the trace ids may be sampled by.
    pub fn new(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// A trace id of 16 random bytes.
    pub fn trace(&mut self) -> TraceId {
        loop {
            let id: [u8; 16] = self.0.random();
            if id != [0; 16] {
                return TraceId(id);
            }
        }
    }

    /// A span id of 8 random bytes.
    pub fn span(&mut self) -> SpanId {
        loop {
            let id: [u8; 8] = self.0.random();
            if id != [0; 8] {
                return SpanId(id);
            }
        }
    }

    /// The flags of a trace that begins here: everything is recorded, and the id is random
    /// (<https://www.w3.org/TR/trace-context-2/#random-trace-id-flag>).
    pub const ROOT_FLAGS: TraceFlags = TraceFlags(TraceFlags::SAMPLED.0 | TraceFlags::RANDOM.0);
}
