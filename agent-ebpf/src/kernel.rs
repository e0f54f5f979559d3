// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The kernel's structures, as far as the probes look at them: typed loads at offsets that the agent found in BTF.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{
    Global,
    bindings::seq_file,
    helpers::generated::{
        bpf_get_current_task, bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_seq_write,
        bpf_skc_to_tcp_sock, bpf_skc_to_unix_sock, bpf_sock_from_file, bpf_task_pt_regs,
    },
};
use spantap_common::{
    endpoint::Endpoint,
    event::{data::Direction, unix::NAME_ROOM},
};

use crate::{globals, state::Ends, task};

/// `struct sock`, behind a pointer the verifier trusts, or, by [`globals::BY_ADDRESS`], at an address.
#[derive(Clone, Copy)]
pub(crate) struct Sock(*const u8);

/// A kind of socket whose bytes are a stream.
#[derive(Clone, Copy)]
pub(crate) enum Stream {
    /// TCP over IPv4 or IPv6.
    Tcp,
    /// A unix socket of type SOCK_STREAM.
    Unix,
}

/// Which kinds can come by a place. A constant of each probe: the verifier does not look at what the others are for.
#[derive(Clone, Copy)]
pub(crate) enum Streams {
    /// All of them.
    All,
    /// TCP alone.
    Tcp,
    /// Unix sockets alone.
    Unix,
}

/// Positions reached in both directions: TCP's sequence numbers, or the bytes counted of a unix socket. A FIN is not
/// counted, sent or received: they are positions of bytes.
#[derive(Clone, Copy)]
pub(crate) struct Positions {
    /// The next byte the process will read.
    pub(crate) read: u32,
    /// The next byte the process will write.
    pub(crate) write: u32,
    /// Bytes that have arrived and were not read.
    pub(crate) unread: u32,
}

impl Positions {
    /// That of `direction`, and that of the other one.
    #[inline(always)]
    pub(crate) fn in_order(self, direction: Direction) -> (u32, u32) {
        match direction {
            Direction::Read => (self.read, self.write),
            Direction::Write => (self.write, self.read),
        }
    }
}

impl Sock {
    /// The socket behind a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(sock: *const u8) -> Self {
        Self(sock)
    }

    /// The socket of a `struct socket`, which is what the file system's side of it is called.
    #[inline(always)]
    pub(crate) fn of_socket(socket: *const u8) -> Self {
        Self(field(socket, &globals::OFFSET_SOCKET_SOCK))
    }

    /// The socket behind the current process's descriptor, known by address; none when it is no socket.
    #[inline(always)]
    pub(crate) fn of_descriptor(descriptor: u32) -> Option<Self> {
        // SAFETY: the helper takes no argument. Not its BTF twin: that came with 5.11.
        let task = unsafe { bpf_get_current_task() } as *const u8;
        let files: *const u8 = copied(task, &globals::OFFSET_TASK_FILES);
        let table: *const u8 = copied(files, &globals::OFFSET_FILES_TABLE);
        if descriptor >= copied(table, &globals::OFFSET_TABLE_SIZE) {
            return None;
        }
        let array: *const u8 = copied(table, &globals::OFFSET_TABLE_FILES);
        let file: *const u8 = copied_at(array.wrapping_add(descriptor as usize * size_of::<*const u8>()));
        let inode: *const u8 = copied(file, &globals::OFFSET_FILE_INODE);
        if copied::<u16>(inode, &globals::OFFSET_INODE_MODE) & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket: *const u8 = copied(file, &globals::OFFSET_FILE_PRIVATE);
        let sock: *const u8 = copied(socket, &globals::OFFSET_SOCKET_SOCK);
        (!sock.is_null()).then_some(Self(sock))
    }

    /// The socket behind an open file; none when it is no socket.
    #[inline(always)]
    pub(crate) fn of_file(file: *const u8) -> Option<Self> {
        let sock: *const u8 = if globals::BY_ADDRESS.load() != 0 {
            let inode: *const u8 = copied(file, &globals::OFFSET_FILE_INODE);
            if copied::<u16>(inode, &globals::OFFSET_INODE_MODE) & S_IFMT != S_IFSOCK {
                return None;
            }
            let socket: *const u8 = copied(file, &globals::OFFSET_FILE_PRIVATE);
            copied(socket, &globals::OFFSET_SOCKET_SOCK)
        } else {
            // SAFETY: the helper takes the trusted pointer.
            let socket: *const u8 = unsafe { bpf_sock_from_file(file.cast_mut().cast()) }.cast_const().cast();
            if socket.is_null() {
                return None;
            }
            field(socket, &globals::OFFSET_SOCKET_SOCK)
        };
        (!sock.is_null()).then_some(Self(sock))
    }

    /// Its state (`include/net/tcp_states.h`).
    #[inline(always)]
    pub(crate) fn turn(self) -> u8 {
        self.field(&globals::OFFSET_SOCK_STATE)
    }

    /// Whether it is known by address: no helper takes it.
    #[inline(always)]
    pub(crate) fn is_address(self) -> bool {
        globals::BY_ADDRESS.load() != 0
    }

    /// Whether it is a TCP socket over IPv4 or IPv6.
    #[inline(always)]
    pub(crate) fn is_tcp(self) -> bool {
        // `sk_protocol` shares its name with other families' protocols: the family comes first.
        let family = self.family();
        (family == AF_INET || family == AF_INET6) && self.field::<u16>(&globals::OFFSET_SOCK_PROTOCOL) == IPPROTO_TCP
    }

    /// Whether it is a unix socket that carries a stream, and such are followed.
    #[inline(always)]
    pub(crate) fn is_unix(self) -> bool {
        globals::UNIX_SOCKETS.load() != 0
            && self.family() == AF_UNIX
            && self.field::<u16>(&globals::OFFSET_SOCK_TYPE) == SOCK_STREAM
    }

    /// Which kind of stream it carries, if it is one of those and followed.
    #[inline(always)]
    pub(crate) fn stream(self, among: Streams) -> Option<Stream> {
        if !matches!(among, Streams::Unix) && self.is_tcp() {
            Some(Stream::Tcp)
        } else if !matches!(among, Streams::Tcp) && self.is_unix() {
            Some(Stream::Unix)
        } else {
            None
        }
    }

    /// The other end of a unix socket; none when it never had one, or has left it. Whoever is in a call on a socket holds
    /// it open, and an open stream socket holds its peer: `unix_peer(sk)` is set once and dropped by
    /// `unix_release_sock` alone.
    #[inline(always)]
    pub(crate) fn unix_peer(self) -> Option<Self> {
        let peer: *const u8 = field(self.unix_self()?, &globals::OFFSET_UNIX_PEER);
        (!peer.is_null()).then_some(Self(peer))
    }

    /// Copies a unix socket's name; returns its length, 0 where it has none.
    #[inline(always)]
    pub(crate) fn unix_name(self, name: *mut [u8; NAME_ROOM]) -> u16 {
        let Some(unix) = self.unix_self() else { return 0 };
        let address: *const u8 = field(unix, &globals::OFFSET_UNIX_NAME);
        if address.is_null() {
            return 0;
        }
        // `unix_address.len` counts the family too.
        let length = copied::<u32>(address, &globals::OFFSET_NAME_LENGTH).wrapping_sub(FAMILY_SIZE as u32);
        if length == 0 || length > NAME_ROOM as u32 {
            return 0;
        }
        let text = address.wrapping_add(globals::OFFSET_NAME_TEXT.load() as usize + FAMILY_SIZE);
        // SAFETY: `name` has room for NAME_ROOM bytes. What was allocated for a shorter name may end before; the helper
        // then writes zeros.
        let failed = unsafe { bpf_probe_read_kernel(name.cast(), NAME_ROOM as u32, text.cast()) };
        if failed == 0 { length as u16 } else { 0 }
    }

    /// The process that its credentials name as the peer; 0 where they name none.
    #[inline(always)]
    pub(crate) fn peer_pid(self) -> u32 {
        let pid: *const u8 = self.field(&globals::OFFSET_SOCK_PEER_PID);
        if pid.is_null() { 0 } else { copied(pid, &globals::OFFSET_PID_NUMBERS) }
    }

    /// How many buffers wait to be read.
    #[inline(always)]
    pub(crate) fn queued(self) -> u32 {
        self.field(&globals::OFFSET_SOCK_QUEUED)
    }

    #[inline(always)]
    fn unix_self(self) -> Option<*const u8> {
        // SAFETY: the helper takes the trusted pointer.
        let unix: *const u8 = unsafe { bpf_skc_to_unix_sock(self.0.cast_mut().cast()) }.cast_const().cast();
        (!unix.is_null()).then_some(unix)
    }

    /// The number that names it until the next boot.
    #[inline(always)]
    pub(crate) fn cookie(self) -> u64 {
        if self.is_address() {
            // Two sockets that are met in the same nanosecond have different addresses. Multiplied by an odd number,
            // those differ in the high bits, which nanoseconds since boot leave alone for years.
            return self.number().wrapping_mul(GOLDEN_RATIO) ^ task::now();
        }
        // SAFETY: the helper takes the trusted pointer.
        unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) }
    }

    /// The pointer as a number: the verifier admits no arithmetic on a pointer, but a copy is one.
    #[inline(always)]
    pub(crate) fn number(self) -> u64 {
        copied_at((&raw const self.0).cast())
    }

    /// The pointer, for helpers that take a socket.
    #[inline(always)]
    pub(crate) fn as_ptr(self) -> *const u8 {
        self.0
    }

    /// Both ends.
    #[inline(always)]
    pub(crate) fn ends(self) -> Ends {
        let local_port: u16 = self.field(&globals::OFFSET_SOCK_LOCAL_PORT);
        let peer_port = u16::from_be(self.field(&globals::OFFSET_SOCK_PEER_PORT));
        // The IPv4 fields of an AF_INET6 socket hold a hash unless the peer's address is mapped.
        if self.family() == AF_INET6 {
            Ends {
                local: Endpoint::v6(self.address(&globals::OFFSET_SOCK_LOCAL_V6), local_port),
                peer: Endpoint::v6(self.address(&globals::OFFSET_SOCK_PEER_V6), peer_port),
            }
        } else {
            let local: u32 = self.field(&globals::OFFSET_SOCK_LOCAL_V4);
            let peer: u32 = self.field(&globals::OFFSET_SOCK_PEER_V4);
            Ends { local: Endpoint::v6(mapped(local), local_port), peer: Endpoint::v6(mapped(peer), peer_port) }
        }
    }

    /// Inode number of its network namespace.
    #[inline(always)]
    pub(crate) fn netns(self) -> u32 {
        let net: *const u8 = self.field(&globals::OFFSET_SOCK_NET);
        if self.is_address() { copied(net, &globals::OFFSET_NET_INODE) } else { field(net, &globals::OFFSET_NET_INODE) }
    }

    /// The pending error as a positive errno; 0 for none.
    #[inline(always)]
    pub(crate) fn error(self) -> u16 {
        self.field::<i32>(&globals::OFFSET_SOCK_ERROR) as u16
    }

    /// Whether the peer has sent its FIN.
    #[inline(always)]
    pub(crate) fn peer_finished(self) -> bool {
        self.flags() & (1 << SOCK_DONE) != 0
    }

    /// Whether no process holds it any more.
    #[inline(always)]
    pub(crate) fn orphaned(self) -> bool {
        self.flags() & (1 << SOCK_DEAD) != 0
    }

    /// Whether a read that returned 0 means the end: the peer has finished, or this side reads no more.
    #[inline(always)]
    pub(crate) fn at_read_end(self) -> bool {
        self.field::<u8>(&globals::OFFSET_SOCK_SHUTDOWN) & RCV_SHUTDOWN != 0 || self.peer_finished()
    }

    /// Positions reached; none when it is no full TCP socket. `fin_sent`: it is known to have sent its FIN.
    #[inline(always)]
    pub(crate) fn positions(self, fin_sent: bool) -> Option<Positions> {
        let tcp = if self.is_address() {
            // Descriptors and the tracepoints of the table lead to full sockets only.
            self
        } else {
            // A load through `struct sock` must stay inside it: the helper is the cast to `struct tcp_sock`.
            // SAFETY: the helper takes the trusted pointer.
            Self(unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast_const().cast())
        };
        if tcp.0.is_null() {
            return None;
        }
        let copied: u32 = tcp.field(&globals::OFFSET_TCP_COPIED);
        let received: u32 = tcp.field(&globals::OFFSET_TCP_RECEIVED);
        let written: u32 = tcp.field(&globals::OFFSET_TCP_WRITTEN);

        // RFC 9293 3.4: "SYN and FIN controls ... are assigned sequence numbers", and Linux counts them in these three
        // fields. `rcv_nxt` stands still behind a FIN; the read that takes the last byte takes the FIN along, if it has
        // arrived by then.
        let finished = u32::from(self.peer_finished());
        let unread = received.wrapping_sub(copied);
        let (read, unread) = if finished == 1 && unread == 0 {
            (copied.wrapping_sub(1), 0)
        } else {
            (copied, unread.wrapping_sub(finished))
        };
        // The state turns before the FIN is queued: while the tracepoint of that turn runs, the old state is in place.
        let fin_sent = fin_sent || 1u32 << self.field::<u8>(&globals::OFFSET_SOCK_STATE) & FIN_SENT_STATES != 0;
        Some(Positions { read, write: written.wrapping_sub(fin_sent.into()), unread })
    }

    #[inline(always)]
    fn family(self) -> u16 {
        self.field(&globals::OFFSET_SOCK_FAMILY)
    }

    #[inline(always)]
    fn flags(self) -> u64 {
        self.field(&globals::OFFSET_SOCK_FLAGS)
    }

    #[inline(always)]
    fn field<T: Copy>(self, offset: &Global<u32>) -> T {
        if self.is_address() { copied(self.0, offset) } else { field(self.0, offset) }
    }

    #[inline(always)]
    fn address(self, offset: &Global<u32>) -> [u8; 16] {
        if self.is_address() { copied(self.0, offset) } else { address(self.0, offset) }
    }
}

/// What the program told epoll to know the file of the socket at an address by; 0 where none of its instances watches it, or this
/// kernel does not say so.
#[inline(always)]
pub(crate) fn watched_as(sock: u64) -> u64 {
    if globals::OFFSET_FILE_POLLS.load() == 0 {
        return 0;
    }
    let socket: *const u8 = copied(sock as *const u8, &globals::OFFSET_SOCK_SOCKET);
    let file: *const u8 = copied(socket, &globals::OFFSET_SOCKET_FILE);
    // A list of entries, latest first, each of which is linked in by a field of its own.
    let list: *const u8 = copied(file, &globals::OFFSET_FILE_POLLS);
    let link: *const u8 = copied_at(list);
    if link.is_null() {
        return 0;
    }
    copied(link.wrapping_sub(globals::OFFSET_POLL_NEXT.load() as usize), &globals::OFFSET_POLL_DATA)
}

/// `struct task_struct`, behind a pointer the verifier trusts.
#[derive(Clone, Copy)]
pub(crate) struct Task(*const u8);

impl Task {
    /// The task behind a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(task: *const u8) -> Self {
        Self(task)
    }

    /// Thread id.
    #[inline(always)]
    pub(crate) fn tid(self) -> u32 {
        field(self.0, &globals::OFFSET_TASK_PID)
    }

    /// Process id.
    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        field(self.0, &globals::OFFSET_TASK_TGID)
    }

    /// What its last system call was entered with.
    #[inline(always)]
    pub(crate) fn registers(self) -> Registers {
        // SAFETY: a task that the verifier trusts; it knows the type of what comes back.
        Registers(unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as *const u8)
    }

    /// Process id of the parent.
    #[inline(always)]
    pub(crate) fn parent(self) -> u32 {
        let parent: *const u8 = field(self.0, &globals::OFFSET_TASK_PARENT);
        field(parent, &globals::OFFSET_TASK_TGID)
    }

    /// Nanoseconds of CLOCK_BOOTTIME at which it was forked.
    #[inline(always)]
    pub(crate) fn started(self) -> u64 {
        field(self.0, &globals::OFFSET_TASK_STARTED)
    }

    /// `comm`, zero-padded.
    #[inline(always)]
    pub(crate) fn command(self) -> [u8; 16] {
        address(self.0, &globals::OFFSET_TASK_COMMAND)
    }
}

/// Where an iterator's program writes what user space reads.
#[derive(Clone, Copy)]
pub(crate) struct Report(*mut seq_file);

impl Report {
    /// The report behind an iterator's `struct bpf_iter_meta`, whose first field it is.
    #[inline(always)]
    pub(crate) fn new(meta: *const u8) -> Self {
        // SAFETY: a pointer that the verifier knows, in a structure that it knows.
        Self(unsafe { meta.cast::<*mut seq_file>().read_volatile() })
    }

    /// Appends a value. Where there is no room, the kernel hands over what there is and calls the program for the same
    /// thing again.
    #[inline(always)]
    pub(crate) fn write<T>(self, value: &T) {
        // SAFETY: the helper reads as many bytes as the value has.
        unsafe { bpf_seq_write(self.0, (&raw const *value).cast(), size_of::<T>() as u32) };
    }
}

/// Where the current thread's own data begin in its process's memory: what user space put into the processor's register
/// for it.
#[inline(always)]
pub(crate) fn thread_pointer() -> u64 {
    // SAFETY: the helper takes no argument. Not its BTF twin: that came with 5.11.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    copied(task, &globals::OFFSET_TASK_THREAD_POINTER)
}

/// `struct linux_binprm`: a program about to run.
#[derive(Clone, Copy)]
pub(crate) struct Binary(*const u8);

impl Binary {
    /// The program behind a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(binary: *const u8) -> Self {
        Self(binary)
    }

    /// Its path as named to execve: an address of kernel memory.
    #[inline(always)]
    pub(crate) fn path(self) -> *const u8 {
        field(self.0, &globals::OFFSET_BINARY_PATH)
    }
}

/// `struct io_kiocb`: a request of io_uring, known by address. It may be another one's by now, or nobody's: whatever is
/// read has to be plausible.
#[derive(Clone, Copy)]
pub(crate) struct Request(u64);

impl Request {
    /// The request behind a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(request: *const u8) -> Self {
        Self(copied_at((&raw const request).cast()))
    }

    /// The request at an address.
    #[inline(always)]
    pub(crate) fn at(address: u64) -> Self {
        Self(address)
    }

    /// Where it is.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0
    }

    /// `IORING_OP_…`.
    #[inline(always)]
    pub(crate) fn operation(self) -> u8 {
        self.field(&globals::OFFSET_REQUEST_OPERATION)
    }

    /// The flags of its entry in the submission queue, and others above them.
    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        self.field(&globals::OFFSET_REQUEST_FLAGS)
    }

    /// The address of its `struct sock`, if its file is a socket; else any number.
    #[inline(always)]
    pub(crate) fn socket(self) -> u64 {
        let file: *const u8 = self.field(&globals::OFFSET_REQUEST_FILE);
        let socket: *const u8 = copied(file, &globals::OFFSET_FILE_PRIVATE);
        copied(socket, &globals::OFFSET_SOCKET_SOCK)
    }

    /// Of one that sends or receives: its buffer as far as it has come, or its `struct msghdr`.
    #[inline(always)]
    pub(crate) fn buffer(self) -> u64 {
        self.field(&globals::OFFSET_MESSAGE_BUFFER)
    }

    /// Of one that has just received `length` bytes into a buffer that was selected for it: that buffer; none if it is not
    /// one piece of user memory.
    #[inline(always)]
    pub(crate) fn selected_buffer(self, length: u32) -> Option<u64> {
        // `iov_iter` goes on as bytes are copied: of one buffer, by its offset.
        let state: *const u8 = self.field(&globals::OFFSET_REQUEST_STATE);
        let buffer: u64 = copied(state, &globals::OFFSET_MESSAGE_AT);
        let done: u64 = copied(state, &globals::OFFSET_MESSAGE_DONE);
        // Of several, an array of the kernel's stands in the same place, and the kernel's half of the addresses is above.
        (buffer.cast_signed() > 0 && done == length.into()).then_some(buffer)
    }

    /// Of one that sends or receives: `IORING_RECV_…`, `IORING_SEND_…`.
    #[inline(always)]
    pub(crate) fn message_flags(self) -> u16 {
        self.field(&globals::OFFSET_MESSAGE_FLAGS)
    }

    /// Of one that reads or writes: its buffer, or its array of them.
    #[inline(always)]
    pub(crate) fn file_buffer(self) -> u64 {
        self.field(&globals::OFFSET_TRANSFER_BUFFER)
    }

    /// Of one that reads or writes: how many buffers are in its array.
    #[inline(always)]
    pub(crate) fn file_count(self) -> u32 {
        self.field(&globals::OFFSET_TRANSFER_COUNT)
    }

    #[inline(always)]
    fn field<T: Copy>(self, offset: &Global<u32>) -> T {
        copied(self.0 as *const u8, offset)
    }
}

/// `struct pt_regs` of the current system call.
#[derive(Clone, Copy)]
pub(crate) struct Registers(*const u8);

impl Registers {
    /// The current task's, as it entered the kernel.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task_btf() };
        // SAFETY: the current task has registers; the verifier knows the type of what comes back.
        Self(unsafe { bpf_task_pt_regs(task) } as *const u8)
    }

    /// The registers behind a tracepoint's argument.
    #[inline(always)]
    pub(crate) fn new(registers: *const u8) -> Self {
        Self(registers)
    }

    /// The system call's number. Its lower half: x86-64 keeps 64 bits, aarch64 32.
    #[inline(always)]
    pub(crate) fn call(self) -> u32 {
        field(self.0, &globals::OFFSET_REGISTERS_CALL)
    }

    /// Whether a 64-bit process made the call: others number their calls differently.
    #[inline(always)]
    pub(crate) fn is_wide(self) -> bool {
        u32::from(field::<u16>(self.0, &globals::OFFSET_REGISTERS_MODE)) & MODE_WIDTH == globals::WIDE_MODE.load()
    }

    /// Whether the call has returned: what runs now is work that was left for the way out, such as a completion of
    /// io_uring, and has nothing to do with the call.
    #[inline(always)]
    pub(crate) fn returned(self) -> bool {
        globals::RESULT_TELLS.load() != 0 && field::<u64>(self.0, &globals::OFFSET_REGISTERS_RESULT) != NOT_RETURNED
    }

    /// The first argument, as it was: a descriptor in every call that moves bytes.
    #[inline(always)]
    pub(crate) fn first(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_FIRST)
    }

    /// The second argument: every call that moves bytes has its buffer there.
    #[inline(always)]
    pub(crate) fn second(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_SECOND)
    }

    /// The third argument.
    #[inline(always)]
    pub(crate) fn third(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_THIRD)
    }

    /// The fourth argument.
    #[inline(always)]
    pub(crate) fn fourth(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_FOURTH)
    }

    /// The stack pointer.
    #[inline(always)]
    pub(crate) fn stack(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_STACK)
    }

    /// The register in which Go's compiler keeps the running goroutine; anything in other programs.
    #[inline(always)]
    pub(crate) fn goroutine(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_GOROUTINE)
    }

    /// The fifth argument.
    #[inline(always)]
    pub(crate) fn fifth(self) -> u64 {
        field(self.0, &globals::OFFSET_REGISTERS_FIFTH)
    }
}

#[inline(always)]
fn field<T: Copy>(structure: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: the offset is a constant to the verifier, which admits the load only if the structure's BTF type has a
    // field of this size there. Volatile, so that LLVM neither merges nor splits it.
    unsafe { ptr::read_volatile(structure.add(offset.load() as usize).cast()) }
}

/// As [`field`], of a structure that is no more than an address; zeros where nothing is mapped.
#[inline(always)]
fn copied<T: Copy>(structure: *const u8, offset: &Global<u32>) -> T {
    copied_at(structure.wrapping_add(offset.load() as usize))
}

#[inline(always)]
fn copied_at<T: Copy>(address: *const u8) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes as many bytes as `value` has, zeros if it fails.
    unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address.cast()) };
    // SAFETY: written by the helper in any case; only integers, arrays of them and addresses are asked for.
    unsafe { value.assume_init() }
}

/// The IPv4-mapped form (`Endpoint::v4`) of an address in network byte order, made of whole words: written byte by byte,
/// LLVM would call memset for its zeros, which on BPF is a loop.
#[inline(always)]
fn mapped(address: u32) -> [u8; 16] {
    (u128::from(address) << 96 | 0xffff << 80).to_le_bytes()
}

/// Sixteen bytes in two loads: the widest there are.
#[inline(always)]
fn address(structure: *const u8, offset: &Global<u32>) -> [u8; 16] {
    // SAFETY: as in `field`; the verifier admits any load that stays inside an array of bytes.
    let (low, high) = unsafe {
        let words = structure.add(offset.load() as usize).cast::<u64>();
        (ptr::read_volatile(words), ptr::read_volatile(words.add(1)))
    };
    (u128::from(low) | u128::from(high) << 64).to_le_bytes()
}

/// 2^64 divided by the golden ratio, made odd: spreads neighbours best (Knuth, The Art of Computer Programming 6.4).
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
/// `__USER_CS` is 0x33 and `__USER32_CS` 0x23 (`arch/x86/include/asm/segment.h`); `PSR_MODE32_BIT` is 0x10
/// (`arch/arm64/include/uapi/asm/ptrace.h`).
const MODE_WIDTH: u32 = 0x10;
/// `include/uapi/linux/stat.h`: the type of a file in its mode.
const S_IFMT: u16 = 0o170_000;
/// `include/uapi/linux/stat.h`.
const S_IFSOCK: u16 = 0o140_000;
/// -ENOSYS: entry code on x86-64 puts it where the result will be.
const NOT_RETURNED: u64 = -38_i64 as u64;
/// `include/linux/socket.h`.
const AF_UNIX: u16 = 1;
/// `include/linux/socket.h`.
const AF_INET: u16 = 2;
/// `include/linux/socket.h`.
const AF_INET6: u16 = 10;
/// `include/uapi/linux/in.h`.
const IPPROTO_TCP: u16 = 6;
/// `include/linux/net.h`.
const SOCK_STREAM: u16 = 1;
/// `sizeof(sockaddr_un.sun_family)`.
const FAMILY_SIZE: usize = 2;
/// `enum sock_flags` in `include/net/sock.h`: its first two have stood there since 2.6.
const SOCK_DEAD: u64 = 0;
/// Set by `tcp_fin` alone.
const SOCK_DONE: u64 = 1;
/// `include/net/sock.h`.
const RCV_SHUTDOWN: u8 = 1;
/// FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING (`include/net/tcp_states.h`), as a set.
const FIN_SENT_STATES: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11;
