// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a source of evidence is: something that watches the acts of one process and says *this parent*, *not that one*,
//! or nothing.
//!
//! In: [`Act`]s of one process in the order of kernel time. Out: [`Claims`]. A source keeps its own tables, whose size is
//! that of what is open, and claims nothing that it cannot stand for: whether it is trusted is its own business
//! ([`super::trust`]), whether others contradict it is not.

use std::fmt;

use smallvec::SmallVec;

use super::{
    act::Act,
    assigned::{Confidence, Likely},
};
use crate::{pairing::ExchangeId, trace::LinkMethod};

/// One kind of evidence about one process.
pub(crate) trait Source: fmt::Debug + Send {
    /// The process did something.
    fn saw(&mut self, act: &Act, claims: &mut Claims);

    /// All requests that `call` could belong to are over. Whether the source may still come to know which it was.
    fn holds(&self, _call: ExchangeId) -> bool {
        false
    }

    /// Nothing more is waited for. The word that has to do, if there is one.
    fn overdue(&self, _call: ExchangeId) -> Option<(ExchangeId, LinkMethod)> {
        None
    }
}

/// What sources said about one act.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    /// In the order of the sources, best first. Emptied after every act.
    said: SmallVec<[(ExchangeId, Claim); 4]>,
    /// Times that a source found itself wrong and fell silent.
    pub(super) falls: u64,
    /// Calls that nobody looked at, for want of time.
    pub(super) skipped: u64,
    /// Threads, and calls of theirs, that were not followed, for want of room.
    pub(super) unfollowed: u64,
    /// The confidence from which on a likely request is the parent; none where nobody looks for one.
    pub(super) threshold: Option<Confidence>,
}

/// What a source says about a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Claim {
    /// It belongs to this request.
    Is(ExchangeId, LinkMethod),
    /// It does not belong to this request.
    Not(ExchangeId),
    /// It may belong to one of these.
    Likely(Likely),
}

impl Claims {
    /// `call` belongs to `request`, because of `method`.
    pub(crate) fn is(&mut self, call: ExchangeId, request: ExchangeId, method: LinkMethod) {
        self.said.push((call, Claim::Is(request, method)));
    }

    /// `call` does not belong to `request`, whoever says so.
    pub(crate) fn is_not(&mut self, call: ExchangeId, request: ExchangeId) {
        self.said.push((call, Claim::Not(request)));
    }

    /// `call` may belong to one of `likely`. Whether that is enough for the first to be its parent.
    pub(crate) fn likely(&mut self, call: ExchangeId, likely: Likely) -> bool {
        self.said.push((call, Claim::Likely(likely)));
        let enough = |(_, confidence)| self.threshold.is_some_and(|least| confidence >= least);
        likely[0].is_some_and(enough)
    }

    /// The source that speaks has found itself wrong.
    pub(crate) fn fell(&mut self) {
        self.falls += 1;
    }

    /// A thread that works for a request is not followed, or a call that it makes: there are too many.
    pub(crate) fn unfollowed(&mut self) {
        self.unfollowed += 1;
    }

    /// Everything that was said about the call that was spoken of first.
    pub(super) fn next(&mut self) -> Option<(ExchangeId, SmallVec<[Claim; 4]>)> {
        let call = self.said.first()?.0;
        let mut of_call = SmallVec::new();
        self.said.retain(|(of, claim)| {
            let keep = *of != call;
            if !keep {
                of_call.push(*claim);
            }
            keep
        });
        Some((call, of_call))
    }
}
