// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The programs that observe sockets and processes from inside the kernel.
//!
//! In: tracepoints of the socket layer, of TCP and of the scheduler. Out: records in one ring, and counters of what did
//! not get there. They read and never write: no helper here can change traffic, a process's memory or its control flow,
//! and nothing is parsed beyond "could these first bytes be a request?".
#![no_std]
#![no_main]
// The verifier's bounds must survive the optimiser: see `verifier.rs`.
#![feature(asm_experimental_arch)]

mod probes;

mod batch;
mod body;
mod call;
mod globals;
mod handoff;
mod jvm;
mod kernel;
mod loss;
mod maps;
mod older;
mod payload;
mod runtime;
mod slot;
mod socket;
mod state;
mod task;
mod traffic;
mod unix;
mod uring;
mod verifier;

use core::panic::PanicInfo;

/// Looping forever makes every reachable panic a load error: the verifier refuses the loop.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends tracing helpers to programs under a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
