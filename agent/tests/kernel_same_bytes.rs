// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The target never notices.
//!
//! In: a conversation of this process with itself through calls of many kinds, most of them awkward. Out: the claim that
//! every return value, errno and byte is the same before, under and after an agent, at the client's end and at the
//! server's. It does not look at what the agent makes of it, but for knowing that it watched.

#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "matrix/process.rs"]
mod process;

use std::{
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{BufRead as _, BufReader, Error, Read as _, Seek as _, Write as _},
    mem,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Command, Stdio},
    ptr, thread,
    time::Duration,
};

use io_uring::{IoUring, opcode, types::Fd};
use process::{Process, wait_until};

#[test]
fn every_call_returns_the_same_with_and_without_an_agent() {
    if let Err(why) = spantap::kernel::features::privileged() {
        // Straight to standard error: the harness keeps what `eprintln!` prints to itself.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let alone = conversation(&listener);
    assert!(alone.len() > 50, "a conversation of many calls: {}", alone.len());
    let agent = Agent::start(listener.local_addr().expect("bound").port());
    let watched: Vec<_> = (0..ROUNDS).map(|_| conversation(&listener)).collect();
    let summary = agent.stop();
    let after = conversation(&listener);
    for said in watched.iter().chain([&after]) {
        for (before, now) in alone.iter().zip(said) {
            assert_eq!(before, now, "under an agent: {summary}");
        }
        assert_eq!(alone.len(), said.len());
    }
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert!(summary["summary"]["requests"].as_u64() >= Some(2 * ROUNDS), "the agent watched: {summary}");
}

/// A call, what it returned, the errno if that was -1, and a hash of the bytes it left behind.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Returned(&'static str, isize, i32, u64);

#[derive(Default)]
struct Transcript(Vec<Returned>);

impl Transcript {
    fn call(&mut self, name: &'static str, returned: isize, bytes: &[u8]) {
        let errno = if returned == -1 { Error::last_os_error().raw_os_error().unwrap_or_default() } else { 0 };
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        self.0.push(Returned(name, returned, errno, hasher.finish()));
    }

    fn send(&mut self, name: &'static str, to: &TcpStream, bytes: &[u8], flags: i32) {
        // SAFETY: the buffer has that length.
        let sent = unsafe { libc::send(to.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        self.call(name, sent, bytes);
    }

    fn receive(&mut self, name: &'static str, from: &TcpStream, length: usize, flags: i32) {
        let mut bytes = vec![0_u8; length];
        // SAFETY: the buffer has that length.
        let received = unsafe { libc::recv(from.as_raw_fd(), bytes.as_mut_ptr().cast(), length, flags) };
        self.call(name, received, &bytes);
    }
}

const REQUEST: &[u8] = b"POST /same HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The same calls in the same order on each occasion; what has been sent is waited for before it is read.
fn conversation(listener: &TcpListener) -> Vec<Returned> {
    let mut said = Transcript::default();
    let connect = || {
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
        near.set_nodelay(true).expect("a socket");
        let (far, _) = listener.accept().expect("accept");
        far.set_nodelay(true).expect("a socket");
        (near, far)
    };
    plain(&mut said, &connect());
    vectors(&mut said, &connect());
    messages(&mut said, &connect());
    files(&mut said, &connect());
    elsewhere(&mut said, &connect());
    // Of a thread of its own: what a ring leaves behind when it goes interrupts whatever its thread does next.
    thread::scope(|scope| scope.spawn(|| rings(&mut said, &connect())).join().expect("no panic"));
    let (near, far) = UnixStream::pair().expect("a pair");
    plain(&mut said, &(TcpStream::from(OwnedFd::from(near)), TcpStream::from(OwnedFd::from(far))));
    mistakes(&mut said, &connect());
    interrupted(&mut said, &connect());
    flooded(&mut said, &connect());
    halves(&mut said, connect());
    resets(&mut said, connect());
    said.0
}

/// Short reads, looks ahead, nothing to read.
fn plain(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    said.receive("recv of nothing", far, 16, libc::MSG_DONTWAIT);
    said.send("send", near, REQUEST, 0);
    arrived(far, REQUEST.len());
    said.receive("peek", far, 10, libc::MSG_PEEK);
    said.receive("peek more", far, 4096, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    for _ in 0..3 {
        said.receive("short recv", far, 7, 0);
    }
    said.receive("truncated away", far, 5, libc::MSG_TRUNC);
    said.receive("the rest, all of it", far, REQUEST.len() - 26, libc::MSG_WAITALL);
    said.receive("nothing is left", far, 16, libc::MSG_DONTWAIT);
    said.send("send none", far, b"", 0);
    said.send("send more", far, &RESPONSE[..9], libc::MSG_MORE);
    said.send("the end", far, &RESPONSE[9..], libc::MSG_NOSIGNAL);
    arrived(near, RESPONSE.len());
    said.receive("recv none", near, 0, 0);
    said.receive("the answer", near, 4096, 0);
}

/// `writev` and `readv` with empty, tiny and many segments.
fn vectors(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    let pieces: Vec<libc::iovec> = REQUEST
        .chunks(3)
        .flat_map(|chunk| [chunk, &chunk[..0]])
        .map(|chunk| libc::iovec { iov_base: chunk.as_ptr().cast_mut().cast(), iov_len: chunk.len() })
        .collect();
    // SAFETY: the segments are of a constant, and are only read.
    let sent = unsafe { libc::writev(near.as_raw_fd(), pieces.as_ptr(), pieces.len() as i32) };
    said.call("writev", sent, REQUEST);
    arrived(far, REQUEST.len());
    let mut bytes = [0_u8; 64];
    let mut rooms: Vec<libc::iovec> = bytes
        .chunks_mut(5)
        .map(|room| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() })
        .collect();
    // SAFETY: the segments are of one buffer of our own, without overlap.
    let read = unsafe { libc::readv(far.as_raw_fd(), rooms.as_mut_ptr(), rooms.len() as i32) };
    said.call("readv", read, &bytes);
    // SAFETY: the kernel refuses the count before it looks at the array.
    let read = unsafe { libc::readv(far.as_raw_fd(), ptr::null(), -1) };
    said.call("readv of too many", read, &[]);
}

/// `sendmsg`, `recvmsg` and their kin for several messages.
fn messages(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    let mut parts = REQUEST.chunks(20).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut vectors: Vec<libc::iovec> =
        parts.iter_mut().map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() }).collect();
    let count = vectors.len();
    // SAFETY: all zeros is an empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (vectors.as_mut_ptr(), count as _);
    // SAFETY: the message names buffers of this function.
    let sent = unsafe { libc::sendmsg(near.as_raw_fd(), &raw const message, 0) };
    said.call("sendmsg", sent, REQUEST);
    arrived(far, REQUEST.len());
    // SAFETY: as above; the parts are as long as what was sent.
    let received = unsafe { libc::recvmsg(far.as_raw_fd(), &raw mut message, 0) };
    said.call("recvmsg", received, &parts.concat());
    let mut several = [libc::mmsghdr { msg_hdr: message, msg_len: 0 }; 2];
    // SAFETY: both name buffers of this function, which are only read.
    let sent = unsafe { libc::sendmmsg(near.as_raw_fd(), several.as_mut_ptr(), 2, 0) };
    said.call("sendmmsg", sent as isize, &several.map(|one| one.msg_len as u8));
    arrived(far, 2 * REQUEST.len());
    // SAFETY: one message, whose buffers are of this function.
    let received = unsafe { libc::recvmmsg(far.as_raw_fd(), several.as_mut_ptr(), 1, 0, ptr::null_mut()) };
    said.call("recvmmsg", received as isize, &parts.concat());
    said.receive("the second message", far, 4096, 0);
}

/// Bytes that never pass through this process.
fn files(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(REQUEST).and_then(|()| file.rewind()).expect("a file");
    // SAFETY: both descriptors are open; no offset is passed.
    let sent = unsafe { libc::sendfile(near.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), 4096) };
    said.call("sendfile", sent, &[]);
    arrived(far, REQUEST.len());
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: just opened, and nobody else's.
    let (out, into) = unsafe { (File::from(OwnedFd::from_raw_fd(ends[0])), OwnedFd::from_raw_fd(ends[1])) };
    let splice = |from: i32, to: i32| {
        // SAFETY: both descriptors are open; no offsets are passed.
        unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), 4096, 0) }
    };
    said.call("splice from a socket", splice(far.as_raw_fd(), into.as_raw_fd()), &[]);
    said.call("splice to a socket", splice(out.as_raw_fd(), far.as_raw_fd()), &[]);
    arrived(near, REQUEST.len());
    said.receive("what was spliced", near, 4096, 0);
}

/// Calls at no position, bytes that are not copied, and bytes that are doubled on their way.
fn elsewhere(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    let mut bytes = REQUEST.to_vec();
    let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the part is of a buffer of this function, here and below; a socket has no position.
    said.call("pwritev2", unsafe { libc::pwritev2(near.as_raw_fd(), &raw const part, 1, -1, 0) }, &bytes);
    arrived(far, REQUEST.len());
    // SAFETY: as above.
    said.call("preadv2", unsafe { libc::preadv2(far.as_raw_fd(), &raw const part, 1, -1, 0) }, &bytes);
    // SAFETY: as above.
    said.call("pwritev2 at 0", unsafe { libc::pwritev2(near.as_raw_fd(), &raw const part, 1, 0, 0) }, &[]);
    said.send("zero copy that nobody allowed", far, RESPONSE, libc::MSG_ZEROCOPY);
    arrived(near, RESPONSE.len());
    said.receive("the answer", near, 4096, 0);

    let (out, mut into) = std::io::pipe().expect("a pipe");
    let (second_out, second_into) = std::io::pipe().expect("a pipe");
    into.write_all(REQUEST).expect("write");
    // SAFETY: both descriptors are open.
    said.call("tee", unsafe { libc::tee(out.as_raw_fd(), second_into.as_raw_fd(), 4096, 0) }, &[]);
    // SAFETY: as above; no offsets are passed.
    let spliced =
        unsafe { libc::splice(second_out.as_raw_fd(), ptr::null_mut(), near.as_raw_fd(), ptr::null_mut(), 4096, 0) };
    said.call("splice of what was doubled", spliced, &[]);
    arrived(far, REQUEST.len());
    said.receive("what was doubled", far, 4096, 0);
}

/// The results of io_uring's requests.
fn rings(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    let mut ring = IoUring::new(4).expect("a ring");
    let mut bytes = [0_u8; 128];
    let (from, to) = (Fd(near.as_raw_fd()), Fd(far.as_raw_fd()));
    for (name, entry) in [
        ("ring's send", opcode::Send::new(from, REQUEST.as_ptr(), REQUEST.len() as u32).build()),
        ("ring's recv", opcode::Recv::new(to, bytes.as_mut_ptr(), 128).build()),
        ("ring's write", opcode::Write::new(to, RESPONSE.as_ptr(), RESPONSE.len() as u32).build()),
        ("ring's read", opcode::Read::new(from, bytes.as_mut_ptr(), 128).build()),
        ("ring's recv of nothing", opcode::Recv::new(from, bytes.as_mut_ptr(), 128).flags(libc::MSG_DONTWAIT).build()),
        ("ring's send of no memory", opcode::Send::new(from, ptr::without_provenance(8), 10).build()),
    ] {
        // SAFETY: the buffers outlive the ring; the kernel finds no memory at the last address and says so.
        unsafe { ring.submission().push(&entry) }.expect("room");
        ring.submit_and_wait(1).expect("io_uring_enter");
        let result = ring.completion().next().expect("completed").result();
        // SAFETY: the kernel writes into the buffer behind the compiler's back.
        let seen = unsafe { ptr::read_volatile(&raw const bytes) };
        // A ring returns its errno as the result.
        said.0.push(Returned(name, result as isize, 0, 0));
        said.call("what it left", 0, &seen);
    }
}

/// Memory that is not there, descriptors that are none, no connection.
fn mistakes(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    // SAFETY: the kernel finds no memory at this address and says so.
    said.call("send from nowhere", unsafe { libc::send(near.as_raw_fd(), ptr::without_provenance(8), 10, 0) }, &[]);
    said.send("send", near, REQUEST, 0);
    arrived(far, REQUEST.len());
    // SAFETY: as above.
    let read = unsafe { libc::recv(far.as_raw_fd(), ptr::without_provenance_mut(8), 10, 0) };
    said.call("recv to nowhere", read, &[]);
    said.receive("nothing was lost by it", far, 4096, 0);
    // SAFETY: no descriptor has this number.
    said.call("write to no descriptor", unsafe { libc::write(-1, REQUEST.as_ptr().cast(), REQUEST.len()) }, &[]);
    // SAFETY: a plain system call.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
    // SAFETY: just opened, and nobody else's.
    let socket = TcpStream::from(unsafe { OwnedFd::from_raw_fd(socket) });
    said.send("send without a connection", &socket, REQUEST, libc::MSG_NOSIGNAL);
    said.receive("recv without a connection", &socket, 16, 0);
}

/// A signal interrupts a read, and a time-out ends another.
fn interrupted(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: all zeros is a valid action; the handler does nothing, and no SA_RESTART is set.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
    }
    // SAFETY: plain system calls without arguments.
    let (reader, tid) = unsafe { (libc::pthread_self(), libc::gettid()) };
    thread::scope(|scope| {
        scope.spawn(move || {
            let call = format!("/proc/self/task/{tid}/syscall");
            let waits = wait_until(PATIENCE, || {
                std::fs::read_to_string(&call).unwrap_or_default().starts_with(&format!("{} ", libc::SYS_recvfrom))
            });
            assert!(waits, "the reader waits");
            // SAFETY: the thread outlives this one, which it waits for.
            unsafe { libc::pthread_kill(reader, libc::SIGUSR1) };
        });
        said.receive("interrupted", far, 16, 0);
    });
    far.set_read_timeout(Some(Duration::from_millis(20))).expect("a socket");
    said.receive("timed out", far, 16, 0);
    said.send("send", near, REQUEST, 0);
    arrived(far, REQUEST.len());
    said.receive("and then heard", far, 4096, 0);
}

/// A body of a mebibyte through small reads.
fn flooded(said: &mut Transcript, (near, far): &(TcpStream, TcpStream)) {
    let body: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let head = format!("PUT /flood HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let all = [head.as_bytes(), &body].concat();
    let mut heard = vec![0; all.len()];
    thread::scope(|scope| {
        let mut near = near;
        let sent = scope.spawn(move || near.write_all(&all).map(|()| all.len()));
        let mut far = far;
        far.read_exact(&mut heard).expect("the whole flood");
        said.call("flood", sent.join().expect("no panic").expect("written") as isize, &heard);
    });
}

/// Each side ends its own direction.
fn halves(said: &mut Transcript, (near, far): (TcpStream, TcpStream)) {
    said.send("send", &near, REQUEST, 0);
    near.shutdown(std::net::Shutdown::Write).expect("open");
    said.send("send after the end", &near, REQUEST, libc::MSG_NOSIGNAL);
    arrived(&far, REQUEST.len());
    said.receive("all", &far, 4096, libc::MSG_WAITALL);
    said.receive("the end", &far, 16, 0);
    said.receive("the end again", &far, 16, 0);
    said.send("answer", &far, RESPONSE, 0);
    drop(far);
    said.receive("the answer", &near, 4096, libc::MSG_WAITALL);
    said.receive("the end", &near, 16, 0);
}

/// One side breaks the connection.
fn resets(said: &mut Transcript, (near, far): (TcpStream, TcpStream)) {
    said.send("send", &near, REQUEST, 0);
    arrived(&far, REQUEST.len());
    // Closed with bytes unread: a reset.
    drop(far);
    let broken = wait_until(PATIENCE, || poll(&near) & libc::POLLERR != 0);
    assert!(broken, "the reset arrives");
    said.receive("reset", &near, 16, 0);
    said.receive("after the reset", &near, 16, 0);
    said.send("send after the reset", &near, REQUEST, libc::MSG_NOSIGNAL);
}

/// Waits until `bytes` can be read.
fn arrived(stream: &TcpStream, bytes: usize) {
    let mut waiting: libc::c_int = 0;
    let all = wait_until(PATIENCE, || {
        // SAFETY: FIONREAD writes one integer.
        unsafe { libc::ioctl(stream.as_raw_fd(), libc::FIONREAD, &raw mut waiting) };
        waiting as usize >= bytes
    });
    assert!(all, "{waiting} of {bytes} bytes");
}

fn poll(stream: &TcpStream) -> i16 {
    let mut asked = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut asked, 1, 0) };
    asked.revents
}

/// The real executable, watching one port.
struct Agent {
    process: Process,
    words: BufReader<std::process::ChildStderr>,
}

impl Agent {
    fn start(port: u16) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spantap"));
        command.args(["run", "--print", "json", "--port", &port.to_string()]).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start("spantap", &mut command).expect("spantap starts");
        let words = BufReader::new(process.child().stderr.take().expect("piped"));
        let mut agent = Self { process, words };
        agent.await_word("live in");
        agent
    }

    /// Ends it; returns its summary.
    fn stop(mut self) -> String {
        self.process.signal(libc::SIGINT);
        self.await_word("\"summary\"")
    }

    fn await_word(&mut self, part: &str) -> String {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            let read = self.words.read_line(&mut line).expect("UTF-8");
            assert!(read > 0, "the agent ended without {part:?}");
        }
        line
    }
}

/// Conversations under the agent.
const ROUNDS: u64 = 20;

/// For what should be done at once: long enough for the slowest of machines.
const PATIENCE: Duration = Duration::from_secs(30);
