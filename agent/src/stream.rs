// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From events of one connection to two ordered streams.
//!
//! In: data and shut events, in the order in which probes on several CPUs got room in the ring. Out: [`Piece`]s in the
//! order in which things happened, what was not seen as gaps of known length. It looks at no byte.

pub mod assembler;

pub use assembler::{Assembler, Piece};
