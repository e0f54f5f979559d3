// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every system call that moves bytes of a socket, at both ends.
//!
//! In: nothing. Out: [`CASES`]. What is said is always the same; what io_uring makes of the calls is [elsewhere](super::uring).

use std::{
    fs::File,
    io::{Error, ErrorKind, PipeReader, PipeWriter, Read as _, Seek as _, Write as _, pipe},
    mem::MaybeUninit,
    net::{Shutdown, TcpStream},
    os::{fd::AsRawFd, unix::fs::FileExt as _},
    ptr, thread,
};

use crate::{
    case::Case,
    ground::{Ground, Told},
    talk::{End, Talk},
    truth::Window,
};

pub(super) const CASES: &[Case] = &[
    Case::code("read-write", |ground| dialogue(ground, READ_WRITE)),
    Case::code("readv-writev", |ground| dialogue(ground, READV_WRITEV)),
    Case::code("preadv2-pwritev2", |ground| dialogue(ground, PREADV2_PWRITEV2)),
    Case::code("sendmsg-recvmsg", |ground| dialogue(ground, SENDMSG_RECVMSG)),
    Case::code("sendmmsg-recvmmsg", |ground| dialogue(ground, SENDMMSG_RECVMMSG)).quick(),
    Case::code("waits-for-all", |ground| dialogue(ground, WAITS_FOR_ALL)),
    Case::code("sent-without-a-copy", |ground| dialogue(ground, ZERO_COPY)),
    Case::code("paged-out-memory", |ground| dialogue(ground, PAGED_OUT)).quick(),
    Case::code("memory-not-touched-before", |ground| dialogue(ground, UNTOUCHED)),
    Case::code("body-thrown-away-unread", |ground| body_taken_by(ground, throw_away)),
    Case::code("body-spliced-out", |ground| body_taken_by(ground, splice_out)).quick(),
    Case::code("body-by-sendfile", |ground| body_given_by(ground, send_file)),
    Case::code("body-spliced-in", |ground| {
        body_given_by(ground, |to, bytes| {
            let (from, mut into) = pipe()?;
            into.write_all(bytes)?;
            splice_in(&from, to, bytes.len())
        })
    }),
    Case::code("body-teed-in", |ground| body_given_by(ground, tee_in)),
];

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn request(id: &str) -> Vec<u8> {
    format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes()
}

// --- Calls that move everything ---

/// How bytes get into a socket and out of it again. Either returns how many did.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) give: fn(&TcpStream, &mut [u8]) -> Result<usize, Error>,
    pub(super) take: fn(&TcpStream, &mut [u8]) -> Result<usize, Error>,
}

/// Three exchanges on one connection, both of whose ends use this way.
pub(super) fn dialogue(ground: &mut Ground, way: Way) -> Result<(), String> {
    let talk = ground.connect()?;
    let (Some(client), Some(server)) = (&talk.client, &talk.server) else { return Err("no connection".to_owned()) };
    for _ in 0..3 {
        let id = ground.id();
        let (asked, start) = Window::around(|| way.carry(client, server, &request(&id)));
        let (answered, end) = Window::around(|| way.carry(server, client, RESPONSE));
        asked.and(answered).map_err(|e| format!("{id}: {e}"))?;
        ground.expect_both(&id, Told::get(200), start, end);
    }
    ground.keep(talk);
    Ok(())
}

impl Way {
    fn carry(self, from: &TcpStream, to: &TcpStream, bytes: &[u8]) -> Result<(), Error> {
        let (mut given, mut taken) = (bytes.to_vec(), vec![0; bytes.len()]);
        thread::scope(|scope| {
            let reader = scope.spawn(|| all(&mut taken, |rest| (self.take)(to, rest)));
            all(&mut given, |rest| (self.give)(from, rest)).inspect_err(|_| {
                // Nobody waits for what will not come. An error means that it is closed already.
                let _ = from.shutdown(Shutdown::Both);
            })?;
            reader.join().map_err(|_| Error::other("the reader panicked"))?
        })?;
        if taken == bytes { Ok(()) } else { Err(Error::other("other bytes came out")) }
    }
}

/// Repeats a call until it has moved all of `bytes`.
fn all(bytes: &mut [u8], mut call: impl FnMut(&mut [u8]) -> Result<usize, Error>) -> Result<(), Error> {
    let mut done = 0;
    while done < bytes.len() {
        match call(&mut bytes[done..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            moved => done += moved,
        }
    }
    Ok(())
}

fn moved(returned: isize) -> Result<usize, Error> {
    usize::try_from(returned).map_err(|_| Error::last_os_error())
}

const READ_WRITE: Way = Way {
    // SAFETY: the buffer has that length, here and below.
    give: |to, bytes| moved(unsafe { libc::write(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) }),
    // SAFETY: as above.
    take: |from, room| moved(unsafe { libc::read(from.as_raw_fd(), room.as_mut_ptr().cast(), room.len()) }),
};

const READV_WRITEV: Way = Way {
    give: |to, bytes| {
        let parts = parts(bytes, 5);
        // SAFETY: the parts are of an exclusive borrow that outlives the call, here and below.
        moved(unsafe { libc::writev(to.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) })
    },
    take: |from, room| {
        let parts = parts(room, 3);
        // SAFETY: as above.
        moved(unsafe { libc::readv(from.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int) })
    },
};

/// A position of -1 is that of the descriptor, and a socket has none.
const PREADV2_PWRITEV2: Way = Way {
    give: |to, bytes| {
        let parts = parts(bytes, 7);
        // SAFETY: as above.
        moved(unsafe { libc::pwritev2(to.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int, -1, 0) })
    },
    take: |from, room| {
        let parts = parts(room, 4);
        // SAFETY: as above.
        moved(unsafe { libc::preadv2(from.as_raw_fd(), parts.as_ptr(), parts.len() as libc::c_int, -1, 0) })
    },
};

const SENDMSG_RECVMSG: Way = Way {
    give: |to, bytes| {
        let mut parts = parts(bytes, 9);
        // SAFETY: the message names parts that outlive the call, here and below.
        moved(unsafe { libc::sendmsg(to.as_raw_fd(), &raw const *message(&mut parts), 0) })
    },
    take: |from, room| {
        let mut parts = parts(room, 8);
        // SAFETY: as above.
        moved(unsafe { libc::recvmsg(from.as_raw_fd(), &raw mut *message(&mut parts), 0) })
    },
};

/// Several messages of one part.
const SENDMMSG_RECVMMSG: Way = Way {
    give: |to, bytes| {
        messages(bytes, |all, count| {
            // SAFETY: the messages name parts that outlive the call, here and below.
            unsafe { libc::sendmmsg(to.as_raw_fd(), all, count, 0) }
        })
    },
    take: |from, room| {
        messages(room, |all, count| {
            // SAFETY: as above; there is no time-out.
            unsafe { libc::recvmmsg(from.as_raw_fd(), all, count, libc::MSG_WAITFORONE, ptr::null_mut()) }
        })
    },
};

const WAITS_FOR_ALL: Way = Way {
    // In small pieces, so that there is something to wait for.
    give: |to, bytes| {
        let length = bytes.len().min(6);
        // SAFETY: as above.
        moved(unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), length, 0) })
    },
    take: |from, room| {
        // SAFETY: as above.
        moved(unsafe { libc::recv(from.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), libc::MSG_WAITALL) })
    },
};

/// The kernel sends from the process's own pages.
const ZERO_COPY: Way = Way {
    give: |to, bytes| {
        let on: libc::c_int = 1;
        let size = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the option's value is a `c_int` that outlives the call.
        let set = unsafe {
            libc::setsockopt(to.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY, (&raw const on).cast(), size)
        };
        moved(set as isize)?;
        // SAFETY: as above. The pages have to keep their contents until the other end has them: nobody changes them.
        moved(unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_ZEROCOPY) })
    },
    take: READ_WRITE.take,
};

/// What is written lies in a file's page that was just driven out of memory: the kernel brings it back for its own copy, and
/// the probe, which cannot, comes after that.
const PAGED_OUT: Way = Way {
    give: |to, bytes| {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let page = Mapping::of(&file)?;
        for advice in [libc::MADV_PAGEOUT, libc::MADV_DONTNEED] {
            page.advise(advice)?;
        }
        if page.is_present()? {
            return Err(Error::other("the page is still there"));
        }
        // SAFETY: the mapping is longer than the bytes.
        moved(unsafe { libc::write(to.as_raw_fd(), page.address.cast_const(), bytes.len()) })
    },
    take: READ_WRITE.take,
};

/// What is read goes to pages that nobody has touched yet.
const UNTOUCHED: Way = Way {
    give: READ_WRITE.give,
    take: |from, room| {
        let page = Mapping::anonymous()?;
        // SAFETY: the mapping is longer than a request.
        let read = moved(unsafe { libc::read(from.as_raw_fd(), page.address, room.len().min(PAGE)) })?;
        // SAFETY: so many bytes were just read into it.
        unsafe { ptr::copy_nonoverlapping(page.address.cast::<u8>(), room.as_mut_ptr(), read) };
        Ok(read)
    },
};

/// Pieces of `bytes`, with one between them that is empty.
pub(super) fn parts(bytes: &mut [u8], size: usize) -> Vec<libc::iovec> {
    let part = |part: &mut [u8]| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() };
    let mut parts: Vec<_> = bytes.chunks_mut(size).map(part).collect();
    parts.insert(1, libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 });
    parts
}

pub(super) fn message(parts: &mut [libc::iovec]) -> Box<libc::msghdr> {
    // SAFETY: integers and pointers, for which zeros are values.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len() as _);
    Box::new(message)
}

/// Moves `bytes` as messages of eleven; returns how many bytes that were.
fn messages(
    bytes: &mut [u8],
    call: impl FnOnce(*mut libc::mmsghdr, libc::c_uint) -> libc::c_int,
) -> Result<usize, Error> {
    let mut parts: Vec<_> = bytes
        .chunks_mut(11)
        .map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
        .collect();
    let mut all: Vec<_> =
        parts.chunks_mut(1).map(|part| libc::mmsghdr { msg_hdr: *message(part), msg_len: 0 }).collect();
    let done = moved(call(all.as_mut_ptr(), all.len() as libc::c_uint) as isize)?;
    Ok(all[..done].iter().map(|message| message.msg_len as usize).sum())
}

/// A page of memory, until it is dropped.
struct Mapping {
    address: *mut libc::c_void,
}

impl Mapping {
    fn of(file: &File) -> Result<Self, Error> {
        Self::new(libc::MAP_SHARED, file.as_raw_fd())
    }

    fn anonymous() -> Result<Self, Error> {
        Self::new(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn new(flags: libc::c_int, file: libc::c_int) -> Result<Self, Error> {
        // SAFETY: a new mapping, wherever there is room.
        let address = unsafe { libc::mmap(ptr::null_mut(), PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, file, 0) };
        if address == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(Self { address }) }
    }

    fn advise(&self, advice: libc::c_int) -> Result<(), Error> {
        // SAFETY: the mapping is our own, and of this length; what it holds is in its file.
        moved(unsafe { libc::madvise(self.address, PAGE, advice) } as isize).map(drop)
    }

    /// Whether this process's page table has it: bit 63 of its word (`Documentation/admin-guide/mm/pagemap.rst`).
    fn is_present(&self) -> Result<bool, Error> {
        let mut word = [0; 8];
        let at = self.address as u64 / PAGE as u64 * 8;
        File::open("/proc/self/pagemap")?.read_exact_at(&mut word, at)?;
        Ok(u64::from_ne_bytes(word) >> 63 == 1)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody uses the mapping any more.
        unsafe { libc::munmap(self.address, PAGE) };
    }
}

// --- Bodies that never were in the process ---

/// An upload whose body the server gets rid of by `take`, then an ordinary exchange.
fn body_taken_by(ground: &mut Ground, take: fn(&TcpStream, usize) -> Result<(), Error>) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..2 {
        let id = ground.id();
        let head = format!("POST /{id} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY}\r\n\r\n");
        let asked = talk.pass(End::Client, head.as_bytes())?;
        talk.send(End::Client, &[b'b'; BODY])?;
        take(talk.server.as_ref().ok_or("the server has left")?, BODY).map_err(|e| format!("{id}: {e}"))?;
        let answered = talk.pass(End::Server, RESPONSE)?;
        ground.expect_both(&id, Told { method: "POST", ..Told::get(200) }, asked.first, answered.last);
        exchange(ground, &mut talk)?;
    }
    ground.keep(talk);
    Ok(())
}

/// A download whose body the server gives by `give`, then an ordinary exchange.
fn body_given_by(ground: &mut Ground, give: fn(&TcpStream, &[u8]) -> Result<(), Error>) -> Result<(), String> {
    let mut talk = ground.connect()?;
    for _ in 0..2 {
        let id = ground.id();
        let asked = talk.pass(End::Client, &request(&id))?;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        talk.pass(End::Server, head.as_bytes())?;
        let (server, client) = (talk.server.as_ref(), talk.client.as_ref());
        let (server, client) = server.zip(client).ok_or("an end has left")?;
        let (given, window) = Window::around(|| {
            give(server, &[b'b'; BODY])?;
            all(&mut [0; BODY], |rest| (READ_WRITE.take)(client, rest))
        });
        given.map_err(|e| format!("{id}: {e}"))?;
        ground.expect_both(&id, Told::get(200), asked.first, window);
        exchange(ground, &mut talk)?;
    }
    ground.keep(talk);
    Ok(())
}

fn exchange(ground: &mut Ground, talk: &mut Talk) -> Result<(), String> {
    let id = ground.id();
    let asked = talk.pass(End::Client, &request(&id))?;
    let answered = talk.pass(End::Server, RESPONSE)?;
    ground.expect_both(&id, Told::get(200), asked.first, answered.last);
    Ok(())
}

/// Reads what is discarded: the buffer stays as it was, and looks like a request.
fn throw_away(from: &TcpStream, length: usize) -> Result<(), Error> {
    let mut room = b"GET /no-request HTTP/1.1\r\n\r\n".repeat(length / 28 + 1);
    all(&mut room[..length], |rest| {
        // SAFETY: the buffer has that length.
        moved(unsafe { libc::recv(from.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len(), libc::MSG_TRUNC) })
    })
}

fn splice_out(from: &TcpStream, length: usize) -> Result<(), Error> {
    let (mut out, into) = pipe()?;
    let mut room = vec![0; length];
    all(&mut room, |rest| {
        let spliced = splice(from, &into, rest.len())?;
        out.read_exact(&mut rest[..spliced]).map(|()| spliced)
    })
}

fn send_file(to: &TcpStream, bytes: &[u8]) -> Result<(), Error> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    all(&mut bytes.to_vec(), |rest| {
        // SAFETY: both descriptors are open, and no offset is passed.
        moved(unsafe { libc::sendfile(to.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), rest.len()) })
    })
}

fn splice_in(from: &PipeReader, to: &TcpStream, length: usize) -> Result<(), Error> {
    all(&mut vec![0; length], |rest| splice(from, to, rest.len()))
}

/// Doubles what is in one pipe into another, and moves it on from there.
fn tee_in(to: &TcpStream, bytes: &[u8]) -> Result<(), Error> {
    let (first_out, mut first_in) = pipe()?;
    let (second_out, second_in): (PipeReader, PipeWriter) = pipe()?;
    first_in.write_all(bytes)?;
    // SAFETY: both descriptors are open.
    let doubled = moved(unsafe { libc::tee(first_out.as_raw_fd(), second_in.as_raw_fd(), bytes.len(), 0) })?;
    if doubled != bytes.len() {
        return Err(Error::other("tee doubled only a part"));
    }
    splice_in(&second_out, to, bytes.len())
}

fn splice(from: &impl AsRawFd, to: &impl AsRawFd, length: usize) -> Result<usize, Error> {
    // SAFETY: both descriptors are open, and no offset is passed.
    moved(unsafe { libc::splice(from.as_raw_fd(), ptr::null_mut(), to.as_raw_fd(), ptr::null_mut(), length, 0) })
}

/// Less than a pipe holds.
const BODY: usize = 6000;

const PAGE: usize = 4096;
