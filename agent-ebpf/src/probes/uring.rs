// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Requests of io_uring.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{kernel::Request, uring};

/// `io_uring_submit_req(struct io_kiocb *req)`: prepared, and not tried yet.
#[btf_tracepoint]
pub(crate) fn io_uring_submit_req(ctx: BtfTracePointContext) -> i32 {
    uring::submitted(Request::new(ctx.arg(0)));
    0
}

/// `io_uring_poll_arm(struct io_kiocb *req, int mask, int events)`: it waits for its file.
#[btf_tracepoint]
pub(crate) fn io_uring_poll_arm(ctx: BtfTracePointContext) -> i32 {
    uring::waits(Request::new(ctx.arg(0)));
    0
}

/// `io_uring_complete(struct io_ring_ctx *ctx, void *req, struct io_uring_cqe *cqe)`; no request where it is not the last
/// completion of it.
#[btf_tracepoint]
pub(crate) fn io_uring_complete(ctx: BtfTracePointContext) -> i32 {
    uring::completed(ctx.arg(1));
    0
}
