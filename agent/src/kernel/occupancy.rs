// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How full the kernel's tables are.
//!
//! In: the tables of probes that are loaded. Out: their entries against their capacities, as they were counted last, and the
//! memory that they take. Counting means asking for one key after the other, so that it has a thread of its own: the ring
//! reader waits for no system call that it can do without. What lives in sockets has no keys, and is counted by nobody.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use crate::time::Timestamp;

/// Counts until it is dropped.
pub(super) struct Occupancy {
    tables: Arc<Vec<Table>>,
    /// Bytes of kernel memory that the maps take but for the ring.
    memory: Arc<AtomicU64>,
    /// Ends the thread when it goes.
    _life: SyncSender<()>,
}

/// A table of the kernel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filled {
    /// The name it has in the object.
    pub map: String,
    /// How many entries it has; none as long as nobody has counted.
    pub entries: Option<u64>,
    /// How many it has room for.
    pub capacity: u64,
}

struct Table {
    name: String,
    map: OwnedFd,
    key_bytes: usize,
    capacity: u32,
    /// [`UNCOUNTED`] at first.
    entries: AtomicU64,
}

impl Occupancy {
    /// Counts the tables of `object`, whose maps are all still there. None where there are no descriptors or threads left.
    pub(super) fn of(object: &Ebpf) -> Option<Self> {
        let (mut tables, mut others) = (Vec::new(), Vec::new());
        for (name, map) in object.maps() {
            match map {
                Map::HashMap(data) | Map::LruHashMap(data) => tables.push(Table::open(name, data)?),
                Map::Array(data) | Map::PerCpuArray(data) => {
                    others.push(data.fd().as_fd().try_clone_to_owned().ok()?);
                }
                _ => {}
            }
        }
        let (tables, memory) = (Arc::new(tables), Arc::new(AtomicU64::new(0)));
        let (life, end) = sync_channel(1);
        let (counted, taken) = (Arc::clone(&tables), Arc::clone(&memory));
        let count = move || {
            loop {
                counted.iter().for_each(Table::count);
                let all = counted.iter().map(|table| &table.map).chain(&others);
                taken.store(all.filter_map(memory_of).sum(), Relaxed);
                if end.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        thread::Builder::new().name("spantap-tables".to_owned()).spawn(count).ok()?;
        Some(Self { tables, memory, _life: life })
    }

    /// The tables, as they were counted last.
    pub(super) fn tables(&self) -> Vec<Filled> {
        let filled = self.tables.iter().map(|table| {
            let entries = Some(table.entries.load(Relaxed)).filter(|entries| *entries != UNCOUNTED);
            Filled { map: table.name.clone(), entries, capacity: table.capacity.into() }
        });
        let mut filled: Vec<_> = filled.collect();
        filled.sort_by(|one, other| one.map.cmp(&other.map));
        filled
    }

    /// Bytes of kernel memory that the maps take but for the ring and what lives in sockets; 0 as long as nobody has looked.
    pub(super) fn memory(&self) -> u64 {
        self.memory.load(Relaxed)
    }
}

impl Table {
    fn open(name: &str, map: &MapData) -> Option<Self> {
        let info = map.info().ok()?;
        Some(Self {
            name: name.to_owned(),
            map: map.fd().as_fd().try_clone_to_owned().ok()?,
            key_bytes: info.key_size() as usize,
            capacity: info.max_entries(),
            entries: AtomicU64::new(UNCOUNTED),
        })
    }

    /// Asks for one key after the other. Who is looked at and goes meanwhile makes the kernel begin anew, hence the bound.
    fn count(&self) {
        let mut key = vec![0; self.key_bytes];
        let (mut entries, mut is_first) = (0, true);
        while entries < u64::from(self.capacity) && next_key(&self.map, &mut key, is_first).is_ok() {
            (entries, is_first) = (entries + 1, false);
        }
        self.entries.store(entries, Relaxed);
    }
}

/// `BPF_MAP_GET_NEXT_KEY`: puts the key behind `key`, or the first one, in its place. Fails at the end.
fn next_key(map: &OwnedFd, key: &mut [u8], is_first: bool) -> io::Result<()> {
    /// The members of `union bpf_attr` that the command reads (include/uapi/linux/bpf.h).
    #[repr(C)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        next_key: u64,
    }
    const GET_NEXT_KEY: libc::c_int = 4;
    let pointer = key.as_mut_ptr() as u64;
    let map = map.as_raw_fd().cast_unsigned();
    let attributes = Attributes { map, padding: 0, key: if is_first { 0 } else { pointer }, next_key: pointer };
    // SAFETY: the kernel copies the key before it looks, and writes as many bytes as the map's keys have, which is as many
    // as `key` has; it keeps no pointer.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, GET_NEXT_KEY, &raw const attributes, size_of::<Attributes>()) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `memlock` in the description of a map's descriptor: what it takes, exactly since 6.4, and all that it may take before
/// (<https://git.kernel.org/linus/90a5527d7686>).
fn memory_of(map: &OwnedFd) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok())
}

/// The largest number found lately.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    now: u64,
    before: u64,
    since: Timestamp,
}

impl Peak {
    /// `number` was found `at` this time.
    pub fn saw(&mut self, number: u64, at: Timestamp) {
        if at.since(self.since) >= EVERY {
            (self.before, self.now, self.since) = (self.now, 0, at);
        }
        self.now = self.now.max(number);
    }

    /// The largest of the last ten to twenty seconds.
    pub fn get(&self) -> u64 {
        self.now.max(self.before)
    }
}

/// Between two countings: more often than anybody usually asks. A full table of 32 Ki entries takes some 20 ms of a thread.
const EVERY: Duration = Duration::from_secs(10);

/// More than any table has.
const UNCOUNTED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_remembered_for_a_while() {
        let mut peak = Peak::default();
        for (second, number, expected) in
            [(0, 7, 7), (5, 3, 7), (10, 2, 7), (19, 4, 7), (20, 1, 4), (30, 0, 1), (45, 0, 0)]
        {
            peak.saw(number, Timestamp(second * 1_000_000_000));
            assert_eq!(peak.get(), expected, "after {second} s");
        }
    }
}
