// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the kernel half and the user half of spantap agree on.
//!
//! Ring-buffer records and map values come from here, with their layout asserted where they are declared; so do the
//! capacities, the reasons for loss, and the shallow guess of a stream's protocol. Nothing here allocates, parses
//! deeply, or calls a kernel helper: it is compiled for both sides and tested on the host.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod call;
pub mod endpoint;
pub mod event;
pub mod identity;
pub mod loss;
pub mod older;
pub mod opaque;
pub mod settings;
pub mod sniff;
#[cfg(feature = "user")]
mod user;
