// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pure stages as a crate of their own, which `agent/count` makes of this file.
//!
//! In: nothing. Out: the same modules that `lib.rs` has, without the shell around them and what that depends on. It is
//! built in seconds where the agent takes minutes, so that their instructions can be counted before every change lands;
//! and it could not be built if they named anything of the shell.

pub mod attribute;
pub mod context;
pub mod process;
pub mod table;
pub mod time;
pub mod vitals;

pub mod enrich;
pub mod event;
pub mod metrics;
pub mod pairing;
pub mod pipeline;
pub mod protocol;
pub mod sample;
pub mod stream;
pub mod trace;
