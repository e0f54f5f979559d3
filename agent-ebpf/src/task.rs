// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The current task, and records about processes and threads.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_cgroup_id, bpf_ktime_get_ns, bpf_probe_read_kernel_str},
};
use spantap_common::{
    abi::ABI_VERSION,
    event::{
        Header, Kind,
        process::{Life, PATH_ROOM, ProcessRecord},
        thread::{Step, ThreadRecord},
    },
};

use crate::{
    kernel::{Binary, Task},
    maps::PROCESSES,
    slot::Slot,
};

/// The header of a record of the current task, made now. `size` counts the whole record.
#[inline(always)]
pub(crate) fn header(kind: Kind, socket: u64, size: u32) -> Header {
    Header { at: now(), pid_tgid: bpf_get_current_pid_tgid(), socket, kind: kind.to_wire(), version: ABI_VERSION, size }
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_ktime_get_ns() }
}

/// cgroup v2 id of the current task.
#[inline(always)]
pub(crate) fn cgroup() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_current_cgroup_id() }
}

/// The process half of a `pid_tgid`.
#[inline(always)]
pub(crate) fn tgid(pid_tgid: u64) -> u32 {
    (pid_tgid >> 32) as u32
}

/// Reports what happened to the process of `task`, unless `task` is a mere thread of it.
#[inline(always)]
pub(crate) fn lived(task: Task, life: Life, binary: Option<Binary>) -> Option<()> {
    let pid = task.tgid();
    if task.tid() != pid {
        return None;
    }
    let mut slot = Slot::<ProcessRecord>::reserve()?;
    let record = slot.record()?;
    // SAFETY: `record` is the slot's own room for one `ProcessRecord`, whose every field is written; of `path` only
    // what `size` covers.
    unsafe {
        (&raw mut (*record).started).write(task.started());
        (&raw mut (*record).pid).write(pid);
        (&raw mut (*record).parent).write(task.parent());
        (&raw mut (*record).life).write(life.to_wire());
        (&raw mut (*record).reserved).write(0);
        (&raw mut (*record).command).write(task.command());
    }
    let path_length = match binary {
        // SAFETY: the helper writes at most PATH_ROOM bytes into the record's own room.
        Some(binary) => unsafe {
            bpf_probe_read_kernel_str((&raw mut (*record).path).cast(), PATH_ROOM as u32, binary.path().cast())
        },
        None => 0,
    };
    // The helper counts the closing NUL; on failure it is negative.
    let path_length = if path_length > 0 { path_length as u32 - 1 } else { 0 };
    let size = (size_of::<ProcessRecord>() - PATH_ROOM) as u32 + path_length;
    // SAFETY: as above.
    unsafe {
        (&raw mut (*record).path_length).write(path_length as u16);
        (&raw mut (*record).header).write(header(Kind::Process, 0, size));
    }
    slot.commit();
    Some(())
}

/// Reports what happened to `thread`, if it is not the first of its process and the agent wants to know.
#[inline(always)]
pub(crate) fn threaded(thread: Task, step: Step) -> Option<()> {
    let (pid, tid) = (thread.tgid(), thread.tid());
    if tid == pid {
        return None;
    }
    // SAFETY: the value may be another process's a moment later, if its entry is used again: then a thread too many is
    // reported, or one too few.
    if unsafe { PROCESSES.get(pid) }?.threads == 0 {
        return None;
    }
    let mut slot = Slot::<ThreadRecord>::reserve()?;
    let record = slot.record()?;
    let header = header(Kind::Thread, 0, size_of::<ThreadRecord>() as u32);
    let (started, step) = (thread.started(), step.to_wire());
    // SAFETY: `record` is the slot's own room for one `ThreadRecord`.
    unsafe { record.write(ThreadRecord { header, started, tid, step, reserved: 0 }) };
    slot.commit();
    Some(())
}
