// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From ring-buffer bytes to events.
//!
//! In: one record as the kernel wrote it. Out: an [`Event`] whose every number has been checked, borrowing its payload.
//! It keeps no state and trusts no length; what does not fit this version is refused, not interpreted.

mod unix;

use std::mem;

use spantap_common::{
    abi::ABI_VERSION,
    endpoint::{Endpoint, IP, UNIX},
    event::{
        Header, Kind,
        data::{DataRecord, Direction, Path},
        process::{Life, PATH_ROOM, ProcessRecord},
        socket::{Origin, Shut, ShutRecord, SocketRecord},
        thread::{Step, ThreadRecord},
        unix::{NAME_ROOM, Named, UnixRecord},
    },
    sniff::Guess,
};

pub use unix::{Unix, UnixName};

use crate::time::{Moment, Task, Timestamp};

/// Something the probes saw.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event<'a> {
    /// A socket worth looking at; comes before every other event of that socket.
    Socket(Socket),
    /// Bytes moved.
    Data(Data<'a>),
    /// One end of an introduced connection is over.
    Shut(End),
    /// A process began, changed its program, or ended.
    Process(Process<'a>),
    /// A thread of a process began or ended.
    Thread(Thread),
}

/// A socket's cookie: unique until the next boot.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SocketId(pub u64);

/// See [`SocketRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Socket {
    /// When the first recognised bytes moved, and by whom.
    pub moment: Moment,
    /// The socket.
    pub id: SocketId,
    /// cgroup v2 id of the task; 0 where unknown.
    pub cgroup: u64,
    /// When this process called connect(2), and by whom.
    pub connected: Option<Moment>,
    /// The process's end.
    pub local: Endpoint,
    /// The other end.
    pub peer: Endpoint,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Position of the next byte to be read.
    pub read_position: u32,
    /// Position of the next byte to be written.
    pub write_position: u32,
    /// How the connection came to be.
    pub origin: Origin,
    /// Which way requests go.
    pub requests: Direction,
    /// What the first bytes look like.
    pub protocol: Guess,
    /// Whether calls without a recognised request were passed over before this one.
    pub midway: bool,
    /// What only unix sockets have.
    pub unix: Option<Unix>,
}

/// See [`DataRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Data<'a> {
    /// When, and by whom.
    pub moment: Moment,
    /// The socket.
    pub socket: SocketId,
    /// Which way.
    pub direction: Direction,
    /// Why `bytes` may be fewer than were moved.
    pub path: Path,
    /// Position of the first byte in its direction.
    pub position: u32,
    /// Position reached in the opposite direction.
    pub opposite: u32,
    /// Bytes moved. Law: bytes.len() + tail.len() <= length.
    pub length: u32,
    /// The first of them.
    pub bytes: &'a [u8],
    /// The last of them, when `bytes` are not all.
    pub tail: &'a [u8],
}

/// See [`ShutRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct End {
    /// When; by whom only for [`Shut::ReadEnd`].
    pub moment: Moment,
    /// The socket.
    pub socket: SocketId,
    /// Position reached in the read direction.
    pub read_position: u32,
    /// Position reached in the write direction.
    pub write_position: u32,
    /// What ended.
    pub how: Shut,
    /// The connection's error; 0 for none.
    pub errno: u16,
}

/// See [`ProcessRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process<'a> {
    /// When, and whose doing: in a fork the parent's.
    pub moment: Moment,
    /// The process this is about.
    pub pid: u32,
    /// Its parent; 0 where unknown.
    pub parent: u32,
    /// When it was forked: nanoseconds of CLOCK_BOOTTIME.
    pub started: u64,
    /// What happened.
    pub life: Life,
    /// `comm`, without its padding.
    pub command: &'a [u8],
    /// The executed file; empty unless [`Life::Exec`].
    pub path: &'a [u8],
}

/// See [`ThreadRecord`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thread {
    /// When, and whose doing: where it begins, that of the thread that starts it.
    pub moment: Moment,
    /// The thread this is about, of the same process.
    pub tid: u32,
    /// When it was made: nanoseconds of CLOCK_BOOTTIME.
    pub started: u64,
    /// What happened.
    pub step: Step,
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than their kind, or their own size, requires.
    #[error("a record of {have} bytes where {need} are needed")]
    TooShort {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        need: usize,
    },
    /// Written by probes of another version.
    #[error("a record of version {0}")]
    Version(u16),
    /// A kind this version does not know.
    #[error("a record of kind {0}")]
    Kind(u16),
    /// A length that its record, or a law, does not allow.
    #[error("{field} is {value}, at most {limit}")]
    Length {
        /// Which one.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it may be.
        limit: u64,
    },
    /// A number that means nothing.
    #[error("{field} is {value}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u16,
    },
}

/// Decodes one record. Bytes behind the record's own size are room that its size class left over.
pub fn decode(raw: &[u8]) -> Result<Event<'_>, DecodeError> {
    let header: Header = read(raw)?;
    if header.version != ABI_VERSION {
        return Err(DecodeError::Version(header.version));
    }
    let kind = Kind::from_wire(header.kind).ok_or(DecodeError::Kind(header.kind))?;
    let size = header.size as usize;
    let record = raw.get(..size).ok_or(DecodeError::TooShort { have: raw.len(), need: size })?;
    match kind {
        Kind::Socket => socket(&read(record)?).map(Event::Socket),
        Kind::Unix => unix_socket(&read(record)?).map(Event::Socket),
        Kind::Data => data(&read(record)?, record).map(Event::Data),
        Kind::Shut => shut(&read(record)?).map(Event::Shut),
        Kind::Process => process(&read(record)?, record).map(Event::Process),
        Kind::Thread => thread(&read(record)?).map(Event::Thread),
    }
}

/// What kind of record `raw` says it is; nothing else of it is checked.
pub fn kind(raw: &[u8]) -> Option<Kind> {
    read::<Header>(raw).ok().and_then(|header| Kind::from_wire(header.kind))
}

/// The socket that `raw` says it is about; nothing else of it is checked.
pub fn socket_of(raw: &[u8]) -> Option<SocketId> {
    read::<Header>(raw).ok().map(|header| SocketId(header.socket))
}

/// When `raw` says that it was made; nothing else of it is checked.
pub fn made_at(raw: &[u8]) -> Option<Timestamp> {
    read::<Header>(raw).ok().map(|header| Timestamp(header.at))
}

fn socket(record: &SocketRecord) -> Result<Socket, DecodeError> {
    Ok(Socket {
        moment: moment(&record.header, [0; 3]),
        id: SocketId(record.header.socket),
        cgroup: record.cgroup,
        connected: (record.connected_at != 0)
            .then(|| Moment { at: Timestamp(record.connected_at), task: task(record.connected_by, [0; 3]) }),
        local: end(record.local)?,
        peer: end(record.peer)?,
        netns: record.netns,
        read_position: record.read_position,
        write_position: record.write_position,
        origin: known("origin", record.origin, Origin::from_wire)?,
        requests: known("requests", record.requests, Direction::from_wire)?,
        protocol: known("protocol", record.protocol, Guess::from_wire)?,
        midway: record.midway != 0,
        unix: None,
    })
}

fn unix_socket(record: &UnixRecord) -> Result<Socket, DecodeError> {
    let length = at_most("name_length", record.name_length.into(), NAME_ROOM as u64)?;
    let name = match UnixName::new(&record.name[..length]) {
        Some(name) => {
            let unknown = DecodeError::Unknown { field: "named", value: record.named };
            Some((Named::from_wire(record.named).ok_or(unknown)?, name))
        }
        None => None,
    };
    Ok(Socket { unix: Some(Unix { peer_pid: record.peer_pid, name }), ..socket(&record.socket)? })
}

/// Equal ends must be equal, to the byte.
fn end(end: Endpoint) -> Result<Endpoint, DecodeError> {
    match end.family {
        IP | UNIX => Ok(end),
        value => Err(DecodeError::Unknown { field: "family", value }),
    }
}

fn data<'a>(record: &DataRecord, raw: &'a [u8]) -> Result<Data<'a>, DecodeError> {
    let payload = &raw[size_of::<DataRecord>()..];
    let captured = at_most("captured", record.captured.into(), record.length.into())?;
    let captured = at_most("captured", captured as u64, payload.len() as u64)?;
    let missing = u64::from(record.length) - captured as u64;
    let tail_length = at_most("tail_length", record.tail_length.into(), missing.min(TAIL as u64))?;
    Ok(Data {
        moment: moment(&record.header, record.identity),
        socket: SocketId(record.header.socket),
        direction: known("direction", record.direction, Direction::from_wire)?,
        path: known("path", record.path, Path::from_wire)?,
        position: record.position,
        opposite: record.opposite,
        length: record.length,
        bytes: &payload[..captured],
        tail: &raw[TAIL_OFFSET + TAIL - tail_length..TAIL_OFFSET + TAIL],
    })
}

fn shut(record: &ShutRecord) -> Result<End, DecodeError> {
    let how = Shut::from_wire(record.how).ok_or(DecodeError::Unknown { field: "how", value: record.how })?;
    Ok(End {
        moment: moment(&record.header, [0; 3]),
        socket: SocketId(record.header.socket),
        read_position: record.read_position,
        write_position: record.write_position,
        how,
        errno: record.errno,
    })
}

/// A process record is as long as its path: the room behind is not part of it.
fn process<'a>(record: &ProcessHead, raw: &'a [u8]) -> Result<Process<'a>, DecodeError> {
    let (head, path) = raw.split_at(size_of::<ProcessHead>());
    let path_length = at_most("path_length", record.path_length.into(), path.len().min(PATH_ROOM) as u64)?;
    let command = &head[COMMAND_OFFSET..];
    Ok(Process {
        moment: moment(&record.header, [0; 3]),
        pid: record.pid,
        parent: record.parent,
        started: record.started,
        life: Life::from_wire(record.life).ok_or(DecodeError::Unknown { field: "life", value: record.life })?,
        command: command.split(|byte| *byte == 0).next().unwrap_or_default(),
        path: &path[..path_length],
    })
}

fn thread(record: &ThreadRecord) -> Result<Thread, DecodeError> {
    Ok(Thread {
        moment: moment(&record.header, [0; 3]),
        tid: record.tid,
        started: record.started,
        step: Step::from_wire(record.step).ok_or(DecodeError::Unknown { field: "step", value: record.step })?,
    })
}

fn moment(header: &Header, identity: [u64; 3]) -> Moment {
    Moment { at: Timestamp(header.at), task: task(header.pid_tgid, identity) }
}

fn task(pid_tgid: u64, identity: [u64; 3]) -> Task {
    Task { pid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32, identity }
}

fn known<T>(field: &'static str, raw: u8, from_wire: fn(u8) -> Option<T>) -> Result<T, DecodeError> {
    from_wire(raw).ok_or(DecodeError::Unknown { field, value: raw.into() })
}

/// `value` as a length, proven to be within `limit`, which is itself the length of something in memory or of a record.
fn at_most(field: &'static str, value: u64, limit: u64) -> Result<usize, DecodeError> {
    usize::try_from(value).ok().filter(|_| value <= limit).ok_or(DecodeError::Length { field, value, limit })
}

/// A `repr(C)` structure of integers without padding, so that any bytes are one.
///
/// # Safety
///
/// Every bit pattern must be a valid value.
unsafe trait Plain: Copy {}

// SAFETY: fixed-width integers and arrays of them; the layouts are asserted where they are declared.
unsafe impl Plain for Header {}
// SAFETY: as above.
unsafe impl Plain for SocketRecord {}
// SAFETY: as above.
unsafe impl Plain for UnixRecord {}
// SAFETY: as above.
unsafe impl Plain for DataRecord {}
// SAFETY: as above.
unsafe impl Plain for ShutRecord {}
// SAFETY: as above.
unsafe impl Plain for ThreadRecord {}
// SAFETY: as above; see `ProcessHead`.
unsafe impl Plain for ProcessHead {}

fn read<T: Plain>(raw: &[u8]) -> Result<T, DecodeError> {
    let need = size_of::<T>();
    let head = raw.get(..need).ok_or(DecodeError::TooShort { have: raw.len(), need })?;
    // SAFETY: `head` is exactly one `T` long, and every bit pattern is a `T`.
    Ok(unsafe { head.as_ptr().cast::<T>().read_unaligned() })
}

/// A [`ProcessRecord`] up to its path.
#[repr(C)]
#[derive(Clone, Copy)]
struct ProcessHead {
    header: Header,
    started: u64,
    pid: u32,
    parent: u32,
    life: u16,
    path_length: u16,
    reserved: u32,
    command: [u8; COMMAND],
}

const COMMAND: usize = 16;
const COMMAND_OFFSET: usize = mem::offset_of!(ProcessRecord, command);
const TAIL: usize = 8;
const TAIL_OFFSET: usize = mem::offset_of!(DataRecord, tail);

const _: () = {
    assert!(size_of::<ProcessHead>() == mem::offset_of!(ProcessRecord, path));
    assert!(mem::offset_of!(ProcessHead, command) == COMMAND_OFFSET);
    assert!(mem::offset_of!(ProcessHead, path_length) == mem::offset_of!(ProcessRecord, path_length));
    assert!(COMMAND_OFFSET + COMMAND == size_of::<ProcessHead>());
};

// --- The other way, for replayed and invented streams ---

/// Events as the kernel would have written them: for tests, and for streams that no kernel produced.
pub mod wire {
    use super::{
        ABI_VERSION, COMMAND, Data, Direction, End, Endpoint, Event, Guess, Kind, Moment, NAME_ROOM, Origin, Path,
        Process, Socket, SocketId, TAIL, Thread, Unix,
    };

    /// The record of `event`.
    pub fn event(event: &Event<'_>) -> Vec<u8> {
        match event {
            Event::Socket(event) => socket(event),
            Event::Data(event) => data(event),
            Event::Shut(event) => shut(event),
            Event::Process(event) => process(event),
            Event::Thread(event) => thread(event),
        }
    }

    /// A [`super::SocketRecord`], or a [`super::UnixRecord`].
    pub fn socket(socket: &Socket) -> Vec<u8> {
        let Socket { moment, id, cgroup, connected, local, peer, netns, read_position, write_position, .. } = socket;
        let kind = if socket.unix.is_some() { Kind::Unix } else { Kind::Socket };
        let mut record = Record::new(kind, moment, *id);
        record.u64(*cgroup);
        let connected = connected.unwrap_or_default();
        record.u64(connected.at.0);
        record.u64(u64::from(connected.task.pid) << 32 | u64::from(connected.task.tid));
        record.endpoint(local);
        record.endpoint(peer);
        record.u32(*netns);
        record.u32(*read_position);
        record.u32(*write_position);
        record.bytes(&[Origin::to_wire(socket.origin), Direction::to_wire(socket.requests)]);
        record.bytes(&[Guess::to_wire(socket.protocol), socket.midway.into()]);
        if let Some(Unix { peer_pid, name }) = &socket.unix {
            let (named, name) = name.as_ref().map_or((0, &[][..]), |(named, name)| (named.to_wire(), name.as_bytes()));
            record.u32(*peer_pid);
            record.u16(length(name) as u16);
            record.u16(named);
            record.bytes(name);
            record.bytes(&[0; NAME_ROOM][name.len()..]);
            record.u32(0);
        }
        record.finish()
    }

    /// A [`super::DataRecord`] with its payload. A tail of more than eight bytes keeps its last eight.
    pub fn data(data: &Data<'_>) -> Vec<u8> {
        let mut record = Record::new(Kind::Data, &data.moment, data.socket);
        for word in data.moment.task.identity {
            record.u64(word);
        }
        record.u32(data.position);
        record.u32(data.opposite);
        record.u32(data.length);
        record.u32(length(data.bytes));
        let tail = &data.tail[data.tail.len().saturating_sub(TAIL)..];
        record.bytes(&[0; TAIL][tail.len()..]);
        record.bytes(tail);
        record.bytes(&[length(tail) as u8, Direction::to_wire(data.direction), Path::to_wire(data.path)]);
        record.bytes(&[0; 5]);
        record.bytes(data.bytes);
        record.finish()
    }

    /// A [`super::ShutRecord`].
    pub fn shut(end: &End) -> Vec<u8> {
        let mut record = Record::new(Kind::Shut, &end.moment, end.socket);
        record.u32(end.read_position);
        record.u32(end.write_position);
        record.u16(end.how.to_wire());
        record.u16(end.errno);
        record.u32(0);
        record.finish()
    }

    /// A [`super::ProcessRecord`]. A command of more than 16 bytes, or a path beyond its room, is cut.
    pub fn process(process: &Process<'_>) -> Vec<u8> {
        let path = &process.path[..process.path.len().min(super::PATH_ROOM)];
        let command = &process.command[..process.command.len().min(COMMAND)];
        let mut record = Record::new(Kind::Process, &process.moment, SocketId(0));
        record.u64(process.started);
        record.u32(process.pid);
        record.u32(process.parent);
        record.u16(process.life.to_wire());
        record.u16(length(path) as u16);
        record.u32(0);
        record.bytes(command);
        record.bytes(&[0; COMMAND][command.len()..]);
        record.bytes(path);
        record.finish()
    }

    /// A [`super::ThreadRecord`].
    pub fn thread(thread: &Thread) -> Vec<u8> {
        let mut record = Record::new(Kind::Thread, &thread.moment, SocketId(0));
        record.u64(thread.started);
        record.u32(thread.tid);
        record.u16(thread.step.to_wire());
        record.u16(0);
        record.finish()
    }

    /// A record under construction, field by field, in native byte order.
    struct Record(Vec<u8>);

    impl Record {
        fn new(kind: Kind, moment: &Moment, socket: SocketId) -> Self {
            let mut record = Self(Vec::new());
            record.u64(moment.at.0);
            record.u64(u64::from(moment.task.pid) << 32 | u64::from(moment.task.tid));
            record.u64(socket.0);
            record.u16(kind.to_wire());
            record.u16(ABI_VERSION);
            record.u32(0);
            record
        }

        fn u16(&mut self, value: u16) {
            self.bytes(&value.to_ne_bytes());
        }

        fn u32(&mut self, value: u32) {
            self.bytes(&value.to_ne_bytes());
        }

        fn u64(&mut self, value: u64) {
            self.bytes(&value.to_ne_bytes());
        }

        fn endpoint(&mut self, endpoint: &Endpoint) {
            self.bytes(&endpoint.address);
            self.u16(endpoint.port);
            self.u16(endpoint.family);
        }

        fn bytes(&mut self, bytes: &[u8]) {
            self.0.extend_from_slice(bytes);
        }

        fn finish(mut self) -> Vec<u8> {
            let size = length(&self.0).to_ne_bytes();
            self.0[SIZE_OFFSET..SIZE_OFFSET + size.len()].copy_from_slice(&size);
            self.0
        }
    }

    /// No record is near 4 GiB: a call moves less than 2 GiB.
    fn length(bytes: &[u8]) -> u32 {
        u32::try_from(bytes.len()).unwrap_or(u32::MAX)
    }

    const SIZE_OFFSET: usize = std::mem::offset_of!(super::Header, size);
}

/// Fuzz target: any bytes are an event or an error, and an event means the same after a second trip over the wire.
pub fn fuzz_decode(bytes: &[u8]) {
    if let Ok(event) = decode(bytes) {
        let again = wire::event(&event);
        assert_eq!(decode(&again), Ok(event));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn moment(identity: [u64; 3]) -> Moment {
        Moment { at: Timestamp(12), task: Task { pid: 34, tid: 56, identity } }
    }

    fn examples() -> Vec<Event<'static>> {
        vec![
            Event::Socket(Socket {
                moment: moment([0; 3]),
                id: SocketId(7),
                cgroup: 8,
                connected: Some(moment([0; 3])),
                local: Endpoint::v4([127, 0, 0, 1], 80),
                peer: Endpoint::v6([0xfe; 16], 50_000),
                netns: 9,
                read_position: u32::MAX,
                write_position: 1,
                origin: Origin::Accepted,
                requests: Direction::Read,
                protocol: Guess::Http1,
                midway: false,
                unix: None,
            }),
            Event::Data(Data {
                moment: moment([1, 2, 3]),
                socket: SocketId(7),
                direction: Direction::Write,
                path: Path::Memory,
                position: 3,
                opposite: 4,
                length: 100,
                bytes: b"HTTP/1.1 200 OK",
                tail: b"\r\n0\r\n\r\n",
            }),
            Event::Shut(End {
                moment: moment([0; 3]),
                socket: SocketId(7),
                read_position: 5,
                write_position: 6,
                how: Shut::Closed,
                errno: 104,
            }),
            Event::Process(Process {
                moment: moment([0; 3]),
                pid: 1,
                parent: 2,
                started: 3,
                life: Life::Exec,
                command: b"nginx",
                path: b"/usr/sbin/nginx",
            }),
            Event::Socket(Socket {
                moment: moment([0; 3]),
                id: SocketId(10),
                cgroup: 11,
                connected: None,
                local: Endpoint::unix(10),
                peer: Endpoint::unix(12),
                netns: 13,
                read_position: 14,
                write_position: 15,
                origin: Origin::Unknown,
                requests: Direction::Write,
                protocol: Guess::Http1,
                midway: true,
                unix: Some(Unix { peer_pid: 16, name: UnixName::new(b"/run/app").map(|name| (Named::Peer, name)) }),
            }),
            Event::Thread(Thread { moment: moment([0; 3]), tid: 17, started: 18, step: Step::Ends }),
        ]
    }

    #[test]
    fn an_event_survives_the_wire_and_the_room_behind_it() {
        for event in examples() {
            let mut raw = wire::event(&event);
            assert_eq!(decode(&raw), Ok(event));
            // A size class leaves room over, with whatever the ring held before.
            raw.extend_from_slice(&[0xaa; 40]);
            assert_eq!(decode(&raw), Ok(event));
        }
    }

    #[test]
    fn a_record_cut_at_any_byte_is_too_short() {
        for event in examples() {
            let raw = wire::event(&event);
            for length in 0..raw.len() {
                assert!(
                    matches!(decode(&raw[..length]), Err(DecodeError::TooShort { .. })),
                    "{event:?} cut at {length}: {:?}",
                    decode(&raw[..length])
                );
            }
        }
    }

    #[test]
    fn the_kernels_layout_is_the_one_that_is_encoded() {
        let sizes: Vec<_> = examples().iter().map(|event| wire::event(event).len()).collect();
        assert_eq!(
            sizes,
            [
                size_of::<SocketRecord>(),
                size_of::<DataRecord>() + b"HTTP/1.1 200 OK".len(),
                size_of::<ShutRecord>(),
                mem::offset_of!(ProcessRecord, path) + b"/usr/sbin/nginx".len(),
                size_of::<UnixRecord>(),
                size_of::<ThreadRecord>(),
            ]
        );
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let with = |event: &Event<'_>, at: usize, byte: u8| {
            let mut raw = wire::event(event);
            raw[at] = byte;
            decode(&raw).map(|event| format!("{event:?}"))
        };
        let [socket, data, shut, process, unix, thread] = examples().try_into().expect("six kinds");
        assert_eq!(with(&socket, mem::offset_of!(Header, version), 9), Err(DecodeError::Version(9)));
        assert_eq!(with(&socket, mem::offset_of!(Header, kind), 9), Err(DecodeError::Kind(9)));
        for (event, at, field) in [
            (&socket, mem::offset_of!(SocketRecord, origin), "origin"),
            (&socket, mem::offset_of!(SocketRecord, requests), "requests"),
            (&socket, mem::offset_of!(SocketRecord, protocol), "protocol"),
            (&data, mem::offset_of!(DataRecord, direction), "direction"),
            (&data, mem::offset_of!(DataRecord, path), "path"),
            (&shut, mem::offset_of!(ShutRecord, how), "how"),
            (&process, mem::offset_of!(ProcessRecord, life), "life"),
            (&unix, mem::offset_of!(UnixRecord, named), "named"),
            (&thread, mem::offset_of!(ThreadRecord, step), "step"),
            (&unix, mem::offset_of!(SocketRecord, peer) + mem::offset_of!(Endpoint, family), "family"),
        ] {
            assert_eq!(with(event, at, 9), Err(DecodeError::Unknown { field, value: 9 }));
        }
    }

    #[test]
    fn lengths_are_held_to_their_laws() {
        let [_, data, _, process, unix, _] = examples().try_into().expect("six kinds");
        for (event, at, value) in [
            // More captured than the record holds, and than was moved.
            (&data, mem::offset_of!(DataRecord, captured), 16),
            (&data, mem::offset_of!(DataRecord, captured), 101),
            // Less moved than captured.
            (&data, mem::offset_of!(DataRecord, length), 14),
            // A tail longer than its room, and than what is missing.
            (&data, mem::offset_of!(DataRecord, tail_length), 9),
            (&data, mem::offset_of!(DataRecord, length), 20),
            (&process, mem::offset_of!(ProcessRecord, path_length), 16),
            (&unix, mem::offset_of!(UnixRecord, name_length), 109),
        ] {
            let mut raw = wire::event(event);
            raw[at] = value;
            assert!(matches!(decode(&raw), Err(DecodeError::Length { .. })), "{at} = {value}: {:?}", decode(&raw));
        }
    }

    #[test]
    fn exercise_fuzz_decode() {
        fuzz_decode(b"");
        fuzz_decode(&[0; 512]);
        fuzz_decode(&[0xff; 512]);
        for event in examples() {
            let raw = wire::event(&event);
            for at in 0..raw.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut raw = raw.clone();
                    raw[at] ^= flip;
                    fuzz_decode(&raw);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_data_survives_the_wire(
            at: u64,
            pid: u32,
            tid: u32,
            identity: [u64; 3],
            socket: u64,
            write: bool,
            hidden: bool,
            position: u32,
            opposite: u32,
            bytes in vec(any::<u8>(), 0..600),
            tail in vec(any::<u8>(), 0..9),
            more in 0u32..100_000,
        ) {
            let event = Event::Data(Data {
                moment: Moment { at: Timestamp(at), task: Task { pid, tid, identity } },
                socket: SocketId(socket),
                direction: if write { Direction::Write } else { Direction::Read },
                path: if hidden { Path::Hidden } else { Path::Memory },
                position,
                opposite,
                length: u32::try_from(bytes.len() + tail.len()).expect("small") + more,
                bytes: &bytes,
                tail: &tail,
            });
            let raw = wire::event(&event);
            prop_assert_eq!(decode(&raw), Ok(event));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..400)) {
            fuzz_decode(&bytes);
        }
    }
}
