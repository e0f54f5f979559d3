// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Traces shown by the agent itself, without a backend.
//!
//! In: [`ServiceSpan`](crate::enrich::ServiceSpan)s in any order. Out: finished traces as trees, or requests as lines,
//! on any writer; and what the agent says about itself. It knows no kernel and no collector, and trusts nothing it
//! prints: what was captured is written by whoever can send a request.

pub mod view;

pub mod traces;
pub mod tree;

mod request;
mod text;

pub mod screen;

pub mod messages;

#[cfg(test)]
mod sample;
