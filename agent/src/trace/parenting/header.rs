// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `header`: the process itself wrote into the call which trace it belongs to.
//!
//! In: the traces that requests and calls name. Out: the one open request of the call's trace, and that it was none of
//! another trace. Where the process serves a trace twice at a time another source has to tell the two apart.

use super::{
    act::{Act, What},
    source::{Claims, Source},
};
use crate::{context::TraceId, pairing::ExchangeId, table::Table, trace::LinkMethod};

/// The open requests of one process by trace.
#[derive(Debug, Default)]
pub(super) struct Header {
    traces: Table<ExchangeId, TraceId>,
}

impl Source for Header {
    fn saw(&mut self, act: &Act, claims: &mut Claims) {
        match act.what {
            What::Received { request, trace: Some(trace), .. } => {
                self.traces.insert(request, trace);
            }
            What::Called { call, trace: Some(trace), .. } => {
                let mut of_trace = self.traces.iter().filter(|(_, of)| of.is_same(trace));
                if let (Some((request, _)), None) = (of_trace.next(), of_trace.next()) {
                    claims.is(call, *request, LinkMethod::Header);
                }
                for (request, _) in self.traces.iter().filter(|(_, of)| !of.is_same(trace)) {
                    claims.is_not(call, *request);
                }
            }
            What::Over { request, .. } => {
                self.traces.remove(&request);
            }
            _ => {}
        }
    }
}
