// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Go: from a thread to its goroutine, from a connection of `net/http`'s client to the goroutine that waits for it, and from one
//! that works for others to the one that waits for its result.
//!
//! In: a process that runs Go 1.21 or newer, stripped or not, wherever it was loaded. Out: a [`Go`]. Offsets follow from the
//! release, which the file names, since `runtime` and `net/http` come with it; the probes check the shape of what they find
//! there each time. The count of goroutines started so far is where the program's own code adds to it. Where workers keep what they
//! work for is known once one of them was seen at work.

mod jobs;
mod numbering;
mod program;

use std::{path::Path, thread, time::Duration};

use spantap_common::identity::{Go, Job};

use self::{numbering::Numbering, program::Program};
use super::{Memory, Unknown};
use crate::targets::elf;

/// Looks for the layout; where `known` is what an earlier look has found, for workers only.
pub(super) fn find(process: &Path, memory: &Memory, known: Option<Go>, is_first: bool) -> Result<Go, Unknown> {
    let layout = match known {
        Some(layout) => layout,
        None => offsets(process, memory)?,
    };
    // The first span waits for the first look.
    if !may_grow(&layout) {
        return Ok(layout);
    }
    let found = jobs(memory, &layout, if is_first { 1 } else { MOST_TRIES });
    Ok(Go { jobs: all(layout.jobs, found), ..layout })
}

/// What two looks into the same process have found, `now` and `before`; nothing of before where it was another program.
pub(super) fn joined(now: Go, before: Go) -> Go {
    if (Go { jobs: before.jobs, ..now }) != before {
        return now;
    }
    Go { jobs: all(before.jobs, now.jobs.map(Job::from_words).into_iter().filter(|job| job.start != 0)), ..now }
}

/// Where workers keep what they work for, as `known` and as `found` now, if there is room. Of a way through the code that is known it
/// stays where it is.
fn all(known: [[u64; 4]; Go::JOBS], found: impl IntoIterator<Item = Job>) -> [[u64; 4]; Go::JOBS] {
    let known = known.map(Job::from_words);
    let is_new = |job: &Job| known.iter().all(|known| (known.start, known.calls) != (job.start, job.calls));
    let old = known.into_iter().filter(|job| job.start != 0);
    let mut places = old.chain(found.into_iter().filter(is_new));
    [(); Go::JOBS].map(|()| places.next().unwrap_or_default().to_words())
}

/// Whether workers may show later.
pub(super) fn may_grow(layout: &Go) -> bool {
    layout.jobs.iter().any(|job| Job::start_of(*job) == 0)
}

/// Where workers keep what they work for, if some are seen to in so many tries.
fn jobs(memory: &Memory, layout: &Go, tries: u32) -> Vec<Job> {
    let Some(program) = Program::find(memory) else { return Vec::new() };
    for done in 0..tries {
        if done > 0 {
            thread::sleep(BETWEEN_TRIES);
        }
        match jobs::find(memory, &program, layout) {
            Some(jobs) if jobs.is_empty() => {}
            Some(jobs) => return jobs,
            None => break,
        }
    }
    Vec::new()
}

/// The layout without workers.
fn offsets(process: &Path, memory: &Memory) -> Result<Go, Unknown> {
    let executable = memory.mappings.iter().find(|mapping| mapping.name.starts_with('/'));
    let executable = executable.ok_or(Unknown::NotYet("it has mapped no file"))?;
    let version = executable.open(process).and_then(|file| elf::go_version(&file));
    let minor =
        version.and_then(|version| minor(&version)).ok_or(Unknown::Never("it does not name its release of Go"))?;
    let layout = layout(minor).ok_or(Unknown::Never("its release of Go is older or newer than those known"))?;
    let code = memory.mappings.iter().find(|mapping| mapping.executable && mapping.name == executable.name);
    let code = code.ok_or(Unknown::NotYet("it has mapped no code"))?;
    let bytes = memory.bytes(code.start, code.length().min(MOST_CODE) as usize);
    match numbering::find(&bytes, code.start, layout.goid, layout.parent) {
        Some(Numbering { is_as_known: false, .. }) => {
            Err(Unknown::Never("it numbers its goroutines otherwise than its release of Go does"))
        }
        Some(Numbering { generated, .. }) => Ok(Go { generated, ..layout }),
        // Built without optimisation: only goroutines that a handler starts are not known then.
        None => Ok(layout),
    }
}

/// 24 of `go1.24.6`, `go1.24rc1` and `go1.24.6 X:somethingelse`.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The offsets of a release on 64-bit machines, as the debug information of 1.21.13, 1.22.12, 1.23.6, 1.24.6, 1.25.5 and
/// 1.26.8 has them.
fn layout(minor: u32) -> Option<Go> {
    let (goid, parent, receivers, element, reply, processor, batch) = match minor {
        21 | 22 => (152, 272, 56, 48, 16, 208, 384),
        23 | 24 => (160, 280, 64, 40, 8, 208, 376),
        25 => (152, 272, 64, 40, 8, 200, 376),
        26 => (152, 280, 64, 40, 8, 208, 384),
        _ => return None,
    };
    let (connection, requests) = (CONNECTION, REQUESTS);
    let jobs = [[0; 4]; Go::JOBS];
    Some(Go { generated: 0, goid, parent, connection, requests, element, reply, receivers, processor, batch, jobs })
}

/// Both loops of a connection are started through a wrapper whose frame is the same since 1.21: above it are `goexit`'s
/// address and the room that every goroutine starts with, and the first word in it is where the loop, as the calling
/// convention wants, keeps its receiver.
const CONNECTION: u16 = 56;

/// `persistConn.reqch`.
const REQUESTS: u16 = 128;

/// Looks in a row for a worker that is at work, in a program that calls at all: one at a time is half of the time, and for as short as
/// some milliseconds of a busy machine's time.
const MOST_TRIES: u32 = 16;
const BETWEEN_TRIES: Duration = Duration::from_millis(4);

/// `runtime` is linked first, and has 1 MiB; C code may stand before it.
const MOST_CODE: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use spantap_common::identity::Call;

    use super::*;

    #[test]
    fn releases_are_known_by_their_minor_number() {
        for (version, is) in
            [("go1.24.6", Some(24)), ("go1.22", Some(22)), ("go1.26rc1 X:jsonv2", Some(26)), ("devel", None)]
        {
            assert_eq!(minor(version), is, "{version}");
        }
        assert_eq!(layout(20), None);
        assert_eq!(layout(27), None, "nobody has looked at it");
    }

    #[test]
    fn places_are_kept_as_they_were_found() {
        let calls = |returns: i32| [Call { below: 144, returns }, Call::default(), Call::default()];
        let job = |returns: i32, variable: u16| Job { start: 4096, variable, field: None, calls: calls(returns) };
        let none = [[0; 4]; Go::JOBS];
        assert_eq!(all(none, vec![]), none);
        let one = all(none, vec![job(110, 56)]);
        assert_eq!(one, [job(110, 56).to_words(), [0; 4]]);
        assert_eq!(all(one, vec![job(110, 64)]), one, "in the same calls it is in the same place");
        let both = all(one, vec![job(110, 64), job(200, 64), job(300, 64)]);
        assert_eq!(both, [job(110, 56).to_words(), job(200, 64).to_words()]);
        let layout = |jobs| Go { jobs, ..layout(24).expect("it is known") };
        assert!(may_grow(&layout(one)) && !may_grow(&layout(both)));
        assert_eq!(joined(layout(none), layout(one)), layout(one), "a look may miss what another has seen");
        let other = Go { generated: 1, ..layout(none) };
        assert_eq!(joined(other, layout(one)), other, "it is another program");
    }
}
