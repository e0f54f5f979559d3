// SPDX-License-Identifier: Apache-2.0 OR MIT
//! HAProxy: from a thread to the task that its scheduler runs. Each request has a stream with a task of its own, which makes the
//! call and writes the answer; connections are read by tasklets, and the first request on a new one is written by them, too.
//!
//! In: the memory of a process that runs HAProxy 2.5 or newer. Out: a [`Scheduled`]. The scheduler is found through the
//! exported thread-local `th_ctx`, and looked up on a live thread before it is handed out. A build that exports nothing is
//! not recognised as HAProxy in the first place.

use std::path::Path;

use spantap_common::identity::Scheduled;

use super::{Memory, Unknown, memory::Mapping};
use crate::targets::elf;

/// Looks for the layout.
pub(super) fn find(process: &Path, memory: &Memory) -> Result<Scheduled, Unknown> {
    let is_executable = |mapping: &&Mapping| mapping.name.starts_with('/');
    let image = memory.mappings.iter().find(is_executable).ok_or(Unknown::Never("it maps no file"))?;
    let file = image.open(process).ok_or(Unknown::NotYet("its executable cannot be opened"))?;
    let slot = elf::thread_local(&file, "th_ctx\0").ok_or(Unknown::Never("it exports no th_ctx"))?;
    let schedulers = elf::symbol(&file, "ha_thread_ctx\0").ok_or(Unknown::Never("it exports no ha_thread_ctx"))?;
    let bias = schedulers.address_of(image.offset).map(|meant| image.start.wrapping_sub(meant));
    let first = schedulers.address.wrapping_add(bias.ok_or(Unknown::Never("it is loaded in an unknown way"))?);

    // Every thread begins with the first one, and is given its own when it starts to work.
    let leads_there = |thread: u64| {
        let scheduler = memory.word(thread.wrapping_add_signed(slot))?;
        (first..first.saturating_add(SCHEDULERS)).contains(&scheduler).then_some(())
    };
    if memory.threads(MOST_SEARCHED).any(|thread| leads_there(thread).is_some()) {
        return Ok(Scheduled { slot, current: CURRENT, movers: TASKLET });
    }
    Err(Unknown::NotYet("no thread of it leads to its scheduler"))
}

/// `thread_ctx.current`, behind two roots of trees with two words each: there since 2.5 made the structure, and still in 3.x.
const CURRENT: u16 = 32;

/// `TASK_F_TASKLET` in `task.state`, the first word of both: since 2.5, and still in 3.x.
const TASKLET: u32 = 0x8000;

/// Where the array of schedulers ends at the latest: up to 4,096 threads, each with 4 KiB at most.
const SCHEDULERS: u64 = 16 << 20;

/// How far from the end of a mapping a thread's block is looked for: HAProxy's thread-local variables have 43 KiB (2.6), and a
/// block some 2 KiB.
const MOST_SEARCHED: u64 = 256 << 10;
