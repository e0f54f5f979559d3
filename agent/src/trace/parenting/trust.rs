// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a source that can be wrong is believed about one process.
//!
//! In: how often it was right and wrong where that could be told. Out: its claims, now, later, or never. One failure
//! takes the trust away and makes it dearer; a row of proofs gives it back. It does not know what is being claimed.

use super::source::Claims;
use crate::{pairing::ExchangeId, trace::LinkMethod};

/// Trust of one process in one source.
#[derive(Debug)]
pub(super) struct Trust {
    method: LinkMethod,
    /// Proofs since the last failure.
    row: u32,
    /// Proofs that are enough.
    need: u32,
    fell: bool,
    /// Claims (call, request) that wait for more proof. Law: held.len() <= MOST_HELD.
    held: Vec<(ExchangeId, ExchangeId)>,
}

impl Trust {
    /// Trust that takes `need` proofs in a row.
    pub(super) fn after(need: u32, method: LinkMethod) -> Self {
        Self { method, row: 0, need, fell: false, held: Vec::new() }
    }

    /// Whether there were enough proofs.
    pub(super) fn is_proven(&self) -> bool {
        self.row >= self.need
    }

    /// Whether it ever failed.
    pub(super) fn has_fallen(&self) -> bool {
        self.fell
    }

    /// Whether a claim is made, or held for the want of a few proofs.
    pub(super) fn may_claim(&self) -> bool {
        self.is_proven() || self.need - self.row <= MOST_AWAITED
    }

    /// The source was right where it could have been wrong. What was held for the want of this proof is claimed.
    pub(super) fn proved(&mut self, claims: &mut Claims) {
        self.row = self.row.saturating_add(1);
        if self.is_proven() {
            for (call, request) in self.held.drain(..) {
                claims.is(call, request, self.method);
            }
        }
    }

    /// The source was wrong: nothing of what it holds is good.
    pub(super) fn failed(&mut self, claims: &mut Claims) {
        if self.is_proven() || !self.fell {
            claims.fell();
        }
        if self.row > 0 || !self.fell {
            self.need = self.need.saturating_mul(DEARER).min(DEAREST);
        }
        self.fell = true;
        self.row = 0;
        self.held.clear();
    }

    /// Claims that `call` belongs to `request`, as soon as the source is proven.
    pub(super) fn claim(&mut self, call: ExchangeId, request: ExchangeId, claims: &mut Claims) {
        if self.is_proven() {
            claims.is(call, request, self.method);
        } else if self.held.len() < MOST_HELD && self.may_claim() {
            self.held.push((call, request));
        }
    }

    /// Whether a claim about `call` waits for proof.
    pub(super) fn holds(&self, call: ExchangeId) -> bool {
        self.held.iter().any(|(held, _)| *held == call)
    }

    /// `call` is decided.
    pub(super) fn forget(&mut self, call: ExchangeId) {
        self.held.retain(|(held, _)| *held != call);
    }
}

/// How much dearer each failure makes trust: a process that fails now and then is soon believed never.
const DEARER: u32 = 16;

/// Proofs in a row that are enough in any case: at ten requests a second, an hour or two.
const DEAREST: u32 = 64 << 10;

/// Proofs that a claim waits for: where more are missing, they will not come in time.
const MOST_AWAITED: u32 = 64;

/// Claims that wait for proof: no source needs more than 64 proofs at first, with a few calls each.
const MOST_HELD: usize = 256;
