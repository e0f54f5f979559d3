// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bytes that processes read from sockets.

use aya_ebpf::{
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};
use spantap_common::event::data::Direction;

use crate::{
    kernel::{Registers, Sock, Streams},
    traffic::{self, Ended},
};

/// `sock_recv_length(struct sock *sk, int ret, int flags)`: after the copy, in the caller's context.
#[btf_tracepoint]
pub(crate) fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    read(Streams::All, Sock::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// Where the run above was passed over ([`traffic::moved_again`]).
#[btf_tracepoint]
pub(crate) fn sock_recv_length_again(ctx: BtfTracePointContext) -> i32 {
    traffic::moved_again(call(Streams::All, Sock::new(ctx.arg(0)), ctx.arg(1), ctx.arg(2)), Registers::current);
    0
}

/// `int inet_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`.
#[fexit]
pub(crate) fn exit_inet_recvmsg(ctx: FExitContext) -> i32 {
    read(Streams::Tcp, Sock::of_socket(ctx.arg(0)), ctx.arg(4), ctx.arg(3));
    0
}

/// `int inet6_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`.
#[fexit]
pub(crate) fn exit_inet6_recvmsg(ctx: FExitContext) -> i32 {
    read(Streams::Tcp, Sock::of_socket(ctx.arg(0)), ctx.arg(4), ctx.arg(3));
    0
}

/// `int unix_stream_recvmsg(struct socket *sock, struct msghdr *msg, size_t size, int flags)`.
#[fexit]
pub(crate) fn exit_unix_stream_recvmsg(ctx: FExitContext) -> i32 {
    read(Streams::Unix, Sock::of_socket(ctx.arg(0)), ctx.arg(4), ctx.arg(3));
    0
}

#[inline(always)]
fn read(streams: Streams, sock: Sock, returned: i32, flags: i32) {
    traffic::moved(call(streams, sock, returned, flags), Registers::current);
}

#[inline(always)]
fn call(streams: Streams, sock: Sock, returned: i32, flags: i32) -> Ended {
    Ended { direction: Direction::Read, sock, returned, flags, streams }
}
