// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `content`: the application passed a request's own id on with the call.
//!
//! In: ids in the headers of requests and calls. Out: the one request that brought the call's id, and that the call
//! belongs to no other one, even where that request is answered already. An id that came with two requests, such as that
//! of a session, names none from then on.

use std::collections::VecDeque;

use super::{
    act::{Act, What},
    source::{Claims, Source},
};
use crate::{pairing::ExchangeId, protocol::PassedId, table::Table, trace::LinkMethod};

/// The ids that one process has received.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Who brought an id; none where several requests did. Law: owners.len() <= MOST_IDS.
    owners: Table<PassedId, Option<ExchangeId>>,
    /// The same, oldest first.
    order: VecDeque<PassedId>,
    /// Open requests.
    open: Table<ExchangeId, ()>,
}

impl Source for Content {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match &act.what {
            What::Received { request, ids, .. } => {
                self.open.insert(*request, ());
                for id in ids {
                    self.received(*id, *request);
                }
            }
            What::Called { call, ids, .. } => {
                for owner in ids.iter().filter_map(|id| self.owners.get(id).copied().flatten()) {
                    if self.open.contains_key(&owner) {
                        claims.is(*call, owner, LinkMethod::Content);
                    }
                    for other in self.open.keys().filter(|other| **other != owner) {
                        claims.is_not(*call, *other);
                    }
                }
            }
            What::Over { request, .. } => {
                self.open.remove(request);
            }
            _ => {}
        }
    }
}

impl Content {
    fn received(&mut self, id: PassedId, request: ExchangeId) {
        if let Some(owner) = self.owners.get_mut(&id) {
            if *owner != Some(request) {
                *owner = None;
            }
            return;
        }
        if self.order.len() >= MOST_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
        self.order.push_back(id);
        self.owners.insert(id, Some(request));
    }
}

/// Ids of one process that are remembered, so that one which comes again is known not to be a request's own: those of
/// some seconds at 1,000 requests a second. At 50 bytes 200 KiB.
const MOST_IDS: usize = 4 << 10;
