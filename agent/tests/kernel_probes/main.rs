// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The real probes on real loopback traffic.
//!
//! In: sockets of this process, talking to each other. Out: the probes' records, held against what was said. Nothing
//! right of `event` takes part. Each test watches one port, so that neither the others nor the rest of the machine get
//! into its records.

mod dialogue;
mod scene;

mod bodies;
mod content;
mod ends;
mod less;
mod life;
mod machine;
mod older;
mod scatter;
mod tasks;
mod threads;
mod uring;
mod verdict;
