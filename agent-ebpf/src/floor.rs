// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Programs that do nothing, or nothing but write into a ring: what cannot be cheaper.
//!
//! In: the tracepoints that the probes watch. Out: nothing, or an empty record for each. `cargo xtask bench overhead`
//! measures the probes against them; the agent does not load them.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    macros::{btf_tracepoint, map},
    maps::RingBuf,
    programs::BtfTracePointContext,
};
use spantap_common::{
    abi::{RING_BYTES, SIZE_CLASSES},
    event::data::DataRecord,
};

/// As large as the probes' own.
#[map]
static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// `sock_send_length(struct sock *sk, int ret, int flags)`.
#[btf_tracepoint]
fn nothing_sent(_: BtfTracePointContext) -> i32 {
    0
}

/// `sock_recv_length(struct sock *sk, int ret, int flags)`.
#[btf_tracepoint]
fn nothing_received(_: BtfTracePointContext) -> i32 {
    0
}

/// The same with a record.
#[btf_tracepoint]
fn record_sent(_: BtfTracePointContext) -> i32 {
    record();
    0
}

/// The same with a record.
#[btf_tracepoint]
fn record_received(_: BtfTracePointContext) -> i32 {
    record();
    0
}

/// Takes the room of a small message, and hands it over as it is.
#[inline(always)]
fn record() {
    if let Some(room) = RING.reserve::<[u8; size_of::<DataRecord>() + SIZE_CLASSES[0]]>(0) {
        room.submit(BPF_RB_NO_WAKEUP.into());
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lends tracing helpers to programs under a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
