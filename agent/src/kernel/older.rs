// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connections that were open before the probes.
//!
//! In: the program that walks through the descriptors of all processes. Out: [`Older`], who holds such connections and how
//! many there are. The program itself tells the sockets' states what it finds: nothing here decides about them.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
};

use anyhow::Context as _;
use aya::programs::Iter;
use serde::Serialize;
use spantap_common::{abi::MAX_PROCESSES, event::socket::Origin, older::OlderSocket};

/// What the walk found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Older {
    /// How many connections there are.
    pub connections: Connections,
    /// Who holds them. Law: processes.len() <= MAX_PROCESSES.
    pub processes: HashSet<u32>,
}

/// Ends of established TCP connections on this host, by who opened them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Connections {
    /// A process on this host accepted.
    pub accepted: u64,
    /// A process on this host connected.
    pub connected: u64,
    /// Nobody listens on either port any more, or not on this host.
    pub unknown: u64,
}

impl Connections {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.accepted + self.connected + self.unknown
    }
}

/// Walks twice: the first time finds who listens, and the second time knows.
pub(super) fn walk(program: &mut Iter) -> anyhow::Result<Older> {
    let mut older = Older::default();
    for _ in 0..2 {
        let link = program.attach().context("attach the iterator")?;
        let link = program.take_link(link).context("take the iterator")?;
        older = read(link.into_file().context("open the iterator")?).context("read the iterator")?;
    }
    Ok(older)
}

/// Reads the walk's report to its end.
fn read(mut report: impl Read) -> io::Result<Older> {
    // A connection is reported once for each descriptor.
    let mut origins: HashMap<u64, u8> = HashMap::new();
    let mut processes = HashSet::new();
    let (mut buffer, mut filled) = (vec![0; BUFFER], 0);
    loop {
        let more = report.read(&mut buffer[filled..])?;
        if more == 0 {
            break;
        }
        filled += more;
        let (sockets, rest) = buffer[..filled].as_chunks::<{ size_of::<OlderSocket>() }>();
        for socket in sockets {
            // The fields of `OlderSocket`, in their order.
            let [s0, s1, s2, s3, s4, s5, s6, s7, p0, p1, p2, p3, origin, ..] = *socket;
            if origins.len() < MOST_CONNECTIONS {
                origins.insert(u64::from_ne_bytes([s0, s1, s2, s3, s4, s5, s6, s7]), origin);
            }
            if processes.len() < MAX_PROCESSES as usize {
                processes.insert(u32::from_ne_bytes([p0, p1, p2, p3]));
            }
        }
        let rest = filled - rest.len()..filled;
        filled = rest.len();
        buffer.copy_within(rest, 0);
    }
    let mut connections = Connections::default();
    for origin in origins.into_values() {
        match Origin::from_wire(origin) {
            Some(Origin::Accepted | Origin::OlderAccepted) => connections.accepted += 1,
            Some(Origin::Connected | Origin::OlderConnected) => connections.connected += 1,
            Some(Origin::Unknown) | None => connections.unknown += 1,
        }
    }
    Ok(Older { connections, processes })
}

/// Bytes read at once: 4,096 descriptors.
const BUFFER: usize = 64 << 10;

/// Connections that are told apart for the count: 64 Ki at one time are followed.
const MOST_CONNECTIONS: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    #[test]
    fn a_connection_counts_once_and_a_report_may_come_in_any_pieces() {
        let mut report = Vec::new();
        for (socket, pid, origin) in [
            (1_u64, 10_u32, Origin::OlderAccepted),
            (1, 11, Origin::OlderAccepted),
            (2, 12, Origin::OlderConnected),
            (3, 12, Origin::Unknown),
        ] {
            report.extend(socket.to_ne_bytes());
            report.extend(pid.to_ne_bytes());
            report.extend([origin.to_wire(), 0, 0, 0]);
        }
        for size in 1..=report.len() {
            let older = read(Drops(&report, size)).expect("it is all there");
            assert_eq!(older.connections, Connections { accepted: 1, connected: 1, unknown: 1 }, "{size} at a time");
            assert_eq!(older.processes, HashSet::from([10, 11, 12]), "{size} at a time");
        }
    }
}
