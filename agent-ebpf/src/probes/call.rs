// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! System calls, where nothing closer to the socket can be watched.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use spantap_common::call::Moves;

use crate::{
    globals,
    kernel::{Registers, Sock, Streams},
    traffic::{self, Ended},
};

/// `sys_exit(struct pt_regs *regs, long ret)`: every system call of the machine, about to return.
// Inlined into the program that is made of it: 5.10 counts 32 bytes of the stack for each call, used or not.
#[btf_tracepoint]
#[inline(always)]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    returned(Registers::new(ctx.arg(0)), ctx.arg(1));
    0
}

#[inline(always)]
fn returned(registers: Registers, result: i64) -> Option<()> {
    let moves = globals::call_moves(registers.call());
    if let Moves::Nothing = moves {
        return None;
    }
    // getpid(2) of a 32-bit process has the number of writev(2).
    if !registers.is_wide() {
        return None;
    }
    if let Moves::Messages = moves {
        return if result > 0 { traffic::hidden(Sock::of_descriptor(registers.first() as u32)?) } else { None };
    }
    let direction = moves.direction()?;
    // No call moves more than MAX_RW_COUNT, which is below 2^31 (`include/linux/fs.h`).
    let returned = i32::try_from(result).ok()?;
    if returned < 0 {
        return None;
    }
    let flags = match moves {
        Moves::Nothing | Moves::Messages | Moves::Reads | Moves::Writes => 0,
        Moves::ReceivesByThird => registers.third() as i32,
        Moves::ReceivesByFourth => registers.fourth() as i32,
    };
    let sock = Sock::of_descriptor(registers.first() as u32)?;
    traffic::moved(Ended { direction, sock, returned, flags, streams: Streams::Tcp }, || registers)
}
