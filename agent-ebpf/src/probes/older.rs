// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A walk through the descriptors of all processes, made when the agent reads it.

use crate::{
    kernel::{Report, Sock, Task},
    older,
};

/// `struct bpf_iter__task_file` in `kernel/bpf/task_iter.c`.
#[repr(C)]
pub(crate) struct Descriptor {
    meta: *const u8,
    task: *const u8,
    number: u32,
    file: *const u8,
}

/// Called for each descriptor, and once more with none at the end.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub(crate) extern "C" fn task_file(ctx: *const Descriptor) -> i32 {
    // SAFETY: the kernel hands over a context of this layout.
    let (meta, task, file) = unsafe { ((*ctx).meta, (*ctx).task, (*ctx).file) };
    if task.is_null() || file.is_null() {
        return 0;
    }
    if let Some(sock) = Sock::of_file(file) {
        older::met(sock, Task::new(task).tgid(), Report::new(meta));
    }
    0
}
