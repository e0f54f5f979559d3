// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Processes that begin, change their program, or end, and their threads.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use spantap_common::event::{process::Life, thread::Step};

use crate::{
    handoff,
    kernel::{Binary, Task},
    task,
};

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[btf_tracepoint]
pub(crate) fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let child = Task::new(ctx.arg(1));
    task::lived(child, Life::Fork, None);
    task::threaded(child, Step::Begins);
    handoff::starts(child);
    0
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`: the new program is in place.
#[btf_tracepoint]
pub(crate) fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    task::lived(Task::new(ctx.arg(0)), Life::Exec, Some(Binary::new(ctx.arg(2))));
    0
}

/// `sched_process_exit(struct task_struct *p, …)`.
#[btf_tracepoint]
pub(crate) fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task::new(ctx.arg(0));
    task::lived(task, Life::Exit, None);
    task::threaded(task, Step::Ends);
    handoff::ends(task);
    0
}
