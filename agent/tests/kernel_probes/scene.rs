// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running probes, and their records sorted by what they are about.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use spantap::{
    event::{self, End, Event, Socket, SocketId, Thread},
    kernel::{Probes, Settings, Tier},
    time::Task,
};
use spantap_common::{
    event::{
        data::{Direction, Path},
        process::Life,
        socket::Shut,
    },
    loss::Reason,
};

use crate::dialogue::length;

/// Running probes, a listener, and the records so far.
pub(crate) struct Scene {
    pub(crate) probes: Probes,
    pub(crate) listener: TcpListener,
    pub(crate) records: Vec<Vec<u8>>,
}

impl Scene {
    /// Listens on `address` and watches its port. None, said aloud, where probes cannot run.
    pub(crate) fn watch(address: &str) -> Option<Self> {
        privileged().then(|| Self::of(TcpListener::bind(address).expect("bind"), Settings::default()))
    }

    /// As [`Scene::watch`], for bytes that are seen at the socket alone: io_uring's, those of splice, and the messages of
    /// sendmmsg and recvmmsg. None, said aloud, where system calls are watched.
    pub(crate) fn watch_sockets(address: &str) -> Option<Self> {
        let scene = Self::watch(address)?;
        if scene.probes.tier().by_address() {
            eprintln!("SKIPPED: {} shows such bytes as gaps", scene.probes.tier());
            return None;
        }
        Some(scene)
    }

    pub(crate) fn of(listener: TcpListener, settings: Settings) -> Self {
        let port = listener.local_addr().expect("bound").port();
        let settings = Settings { ports: vec![port], tier: forced_tier(), ..settings };
        let probes = Probes::attach(&settings).unwrap_or_else(|why| panic!("{why}"));
        Self { probes, listener, records: Vec::new() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.listener.local_addr().expect("bound").port()
    }

    pub(crate) fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().expect("bound")).expect("connect");
        (client, self.accept())
    }

    pub(crate) fn accept(&self) -> TcpStream {
        self.listener.accept().expect("accept").0
    }

    /// What was seen so far. Records of calls that have returned are in the ring.
    pub(crate) fn seen(&mut self) -> Scenery {
        let records = &mut self.records;
        while self.probes.drain(|record| records.push(record.to_vec())) > 0 {}
        Scenery::of(records)
    }

    /// Waits until `done`, for what interrupts and other processes have yet to do.
    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Scenery) -> bool) -> Scenery {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen();
            if done(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}: {seen:#?}");
            thread::yield_now();
        }
    }

    /// Starts over with an empty memory.
    pub(crate) fn forget(&mut self) {
        self.seen();
        self.records.clear();
    }

    /// Segments of one call that are copied into its record.
    pub(crate) fn gathered(&self) -> usize {
        self.probes.tier().gathered() as usize
    }

    pub(crate) fn lost(&self, reason: Reason) -> u64 {
        self.probes.lost()[reason as usize]
    }

    pub(crate) fn lost_nothing(&self) {
        let lost = self.probes.lost();
        for (reason, lost) in Reason::ALL.iter().zip(lost) {
            assert_eq!(lost, 0, "{}", reason.label());
        }
    }
}

/// The records, sorted by what they are about.
#[derive(Debug, Default)]
pub(crate) struct Scenery {
    pub(crate) sockets: Vec<Seen>,
    pub(crate) processes: Vec<Lived>,
    pub(crate) threads: Vec<Thread>,
}

/// Everything about one socket.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) socket: Socket,
    pub(crate) data: Vec<Moved>,
    pub(crate) ends: Vec<End>,
}

#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) task: Task,
    pub(crate) direction: Direction,
    pub(crate) path: Path,
    pub(crate) position: u32,
    pub(crate) opposite: u32,
    pub(crate) length: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) tail: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Lived {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) started: u64,
    pub(crate) life: Life,
    pub(crate) command: Vec<u8>,
    pub(crate) path: Vec<u8>,
}

impl Scenery {
    pub(crate) fn of(records: &[Vec<u8>]) -> Self {
        let mut seen = Self::default();
        for record in records {
            match event::decode(record).expect("well-formed") {
                Event::Socket(socket) => {
                    // Introduced again, a socket begins anew.
                    seen.sockets.retain(|known| known.socket.id != socket.id);
                    seen.sockets.push(Seen { socket, data: Vec::new(), ends: Vec::new() });
                }
                Event::Data(data) => seen.introduced(data.socket).data.push(Moved {
                    task: data.moment.task,
                    direction: data.direction,
                    path: data.path,
                    position: data.position,
                    opposite: data.opposite,
                    length: data.length,
                    bytes: data.bytes.to_vec(),
                    tail: data.tail.to_vec(),
                }),
                Event::Shut(end) => seen.introduced(end.socket).ends.push(end),
                Event::Process(process) => seen.processes.push(Lived {
                    pid: process.pid,
                    parent: process.parent,
                    started: process.started,
                    life: process.life,
                    command: process.command.to_vec(),
                    path: process.path.to_vec(),
                }),
                Event::Thread(thread) => seen.threads.push(thread),
            }
        }
        seen
    }

    pub(crate) fn introduced(&mut self, id: SocketId) -> &mut Seen {
        self.sockets.iter_mut().find(|seen| seen.socket.id == id).expect("introduced before its first event")
    }

    /// No socket was seen.
    pub(crate) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(crate) fn on(&self, local_port: u16) -> Option<&Seen> {
        self.sockets.iter().find(|seen| seen.socket.local.port == local_port)
    }

    /// What was seen at this process's end `stream`.
    pub(crate) fn at(&self, stream: &TcpStream) -> &Seen {
        let ports = |stream: &TcpStream| -> [u16; 2] {
            [stream.local_addr(), stream.peer_addr()]
                .map(|address: Result<SocketAddr, _>| address.expect("open").port())
        };
        self.sockets
            .iter()
            // By tier C's name of it, a connection that probes meet anew is another socket.
            .rfind(|seen| [seen.socket.local.port, seen.socket.peer.port] == ports(stream))
            .unwrap_or_else(|| panic!("{stream:?} was not seen: {self:#?}"))
    }

    pub(crate) fn lives(&self, pid: u32) -> impl Iterator<Item = &Lived> {
        self.processes.iter().filter(move |life| life.pid == pid)
    }
}

impl Seen {
    pub(crate) fn data(&self, direction: Direction) -> impl Iterator<Item = &Moved> {
        self.data.iter().filter(move |data| data.direction == direction)
    }

    pub(crate) fn first(&self, direction: Direction) -> &Moved {
        self.data(direction).next().unwrap_or_else(|| panic!("nothing moved: {self:#?}"))
    }

    /// The bytes of one direction, proven to be without a gap.
    pub(crate) fn text(&self, direction: Direction) -> Vec<u8> {
        let mut text = Vec::new();
        let start = self.first(direction).position;
        for data in self.data(direction) {
            assert_eq!(data.position.wrapping_sub(start), length(&text), "a gap");
            assert_eq!(length(&data.bytes), data.length, "not copied whole");
            text.extend_from_slice(&data.bytes);
        }
        text
    }

    pub(crate) fn has(&self, how: Shut) -> bool {
        self.ends.iter().any(|end| end.how == how)
    }
}

/// Whether probes can be attached; if not, says so.
pub(crate) fn privileged() -> bool {
    match spantap::kernel::features::privileged() {
        Ok(()) => true,
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            false
        }
    }
}

/// The tier that `SPANTAP_TIER` asks for: claims hold for every tier, unless they say which.
pub(crate) fn forced_tier() -> Option<Tier> {
    let name = env::var("SPANTAP_TIER").ok()?;
    Some(Tier::named(&name).unwrap_or_else(|| panic!("SPANTAP_TIER={name} names no tier")))
}

/// For what should be done at once: long enough for the slowest of machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
