// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Connections that begin and end.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{kernel::Sock, socket};

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`: before the new state is
/// stored. Often in interrupt context: the current task may be anyone.
#[btf_tracepoint]
pub(crate) fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    socket::turned(Sock::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// `tcp_destroy_sock(struct sock *sk)`: the last that is heard of a socket.
#[btf_tracepoint]
pub(crate) fn tcp_destroy_sock(ctx: BtfTracePointContext) -> i32 {
    socket::destroyed(Sock::new(ctx.arg(0)));
    0
}
