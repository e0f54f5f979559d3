// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Bytes that processes write into sockets.

use aya_ebpf::{
    macros::{btf_tracepoint, fexit},
    programs::{BtfTracePointContext, FExitContext},
};
use spantap_common::event::data::Direction;

use crate::{
    kernel::{Registers, Sock, Streams},
    traffic::{self, Ended},
};

/// `sock_send_length(struct sock *sk, int ret, int flags)`: after the copy, in the caller's context.
#[btf_tracepoint]
pub(crate) fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    written(Streams::All, Sock::new(ctx.arg(0)), ctx.arg(1));
    0
}

/// Where the run above was passed over ([`traffic::moved_again`]).
#[btf_tracepoint]
pub(crate) fn sock_send_length_again(ctx: BtfTracePointContext) -> i32 {
    traffic::moved_again(call(Streams::All, Sock::new(ctx.arg(0)), ctx.arg(1)), Registers::current);
    0
}

/// `int inet_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)`.
#[fexit]
pub(crate) fn exit_inet_sendmsg(ctx: FExitContext) -> i32 {
    written(Streams::Tcp, Sock::of_socket(ctx.arg(0)), ctx.arg(3));
    0
}

/// `int inet6_sendmsg(struct socket *sock, struct msghdr *msg, size_t size)`.
#[fexit]
pub(crate) fn exit_inet6_sendmsg(ctx: FExitContext) -> i32 {
    written(Streams::Tcp, Sock::of_socket(ctx.arg(0)), ctx.arg(3));
    0
}

/// `ssize_t inet_sendpage(struct socket *sock, struct page *page, int offset, size_t size, int flags)`: what sendfile
/// and splice call, for both families, before 6.5.
#[fexit]
pub(crate) fn exit_inet_sendpage(ctx: FExitContext) -> i32 {
    written(Streams::Tcp, Sock::of_socket(ctx.arg(0)), ctx.arg(5));
    0
}

/// `int unix_stream_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)`.
#[fexit]
pub(crate) fn exit_unix_stream_sendmsg(ctx: FExitContext) -> i32 {
    written(Streams::Unix, Sock::of_socket(ctx.arg(0)), ctx.arg(3));
    0
}

/// `ssize_t unix_stream_sendpage(struct socket *socket, struct page *page, int offset, size_t size, int flags)`: as
/// above, for unix sockets.
#[fexit]
pub(crate) fn exit_unix_stream_sendpage(ctx: FExitContext) -> i32 {
    written(Streams::Unix, Sock::of_socket(ctx.arg(0)), ctx.arg(5));
    0
}

#[inline(always)]
fn written(streams: Streams, sock: Sock, returned: i32) {
    traffic::moved(call(streams, sock, returned), Registers::current);
}

#[inline(always)]
fn call(streams: Streams, sock: Sock, returned: i32) -> Ended {
    Ended { direction: Direction::Write, sock, returned, flags: 0, streams }
}
