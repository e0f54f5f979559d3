// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Threads that wake others.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{handoff, kernel::Task};

/// `sched_waking(struct task_struct *p)`: in the context of whoever wakes it, with interrupts off.
#[btf_tracepoint]
pub(crate) fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    handoff::wakes(Task::new(ctx.arg(0)));
    0
}
