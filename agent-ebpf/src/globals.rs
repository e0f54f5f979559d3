// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Read-only globals: where this kernel keeps its fields, and what the agent decided before loading.
//!
//! The agent writes them before the programs are loaded and the map is frozen then, so the verifier knows their values:
//! an offset makes a typed load, a switch removes the branch that is not taken. Nothing here changes afterwards.

use core::ptr;

use aya_ebpf::Global;
use spantap_common::{
    abi::SYSTEM_CALLS,
    call::{Moves, Shape},
};

use crate::verifier;

macro_rules! globals {
    ($($(#[doc = $doc:literal])* $name:ident: $type:ty;)*) => {
        $($(#[doc = $doc])* #[unsafe(no_mangle)] pub(crate) static $name: Global<$type> = Global::new(0);)*
    };
}

globals! {
    /// The agent's own process; 0 is nobody.
    AGENT_TGID: u32;
    /// The verdict on processes without settings.
    DEFAULT_VERDICT: u32;
    /// Whether the result's register says that a call has not returned yet (x86-64, unless calls are watched at their exit).
    RESULT_TELLS: u32;
    /// Segments that are gathered into one record, at most `MAX_GATHERED`.
    GATHERED: u32;
    /// Whether only connections with an end in `PORTS` are looked at.
    PORT_FILTER: u32;
    /// 1 where a socket is no more than an address to the verifier: it was found by walking from a descriptor, or the
    /// kernel lends tracing programs no helper that takes sockets. Fields are copied then, and state is kept by address.
    BY_ADDRESS: u32;
    /// 1 where requests of io_uring are followed, so that the memory of what they move is known.
    RINGS: u32;
    /// The number of futex(2).
    FUTEX: u32;
    /// 1 where unix sockets are followed: the tier shows all their calls, and the kernel describes them.
    UNIX_SOCKETS: u32;
}

// Named as in `kernel/btf.rs` of the agent: OFFSET_<structure>_<field>.
globals! {
    OFFSET_SOCK_FAMILY: u32;
    OFFSET_SOCK_STATE: u32;
    OFFSET_SOCK_LOCAL_PORT: u32;
    OFFSET_SOCK_PEER_PORT: u32;
    OFFSET_SOCK_LOCAL_V4: u32;
    OFFSET_SOCK_PEER_V4: u32;
    OFFSET_SOCK_LOCAL_V6: u32;
    OFFSET_SOCK_PEER_V6: u32;
    OFFSET_SOCK_NET: u32;
    OFFSET_SOCK_PROTOCOL: u32;
    OFFSET_SOCK_TYPE: u32;
    OFFSET_SOCK_PEER_PID: u32;
    OFFSET_SOCK_QUEUED: u32;
    OFFSET_SOCK_FLAGS: u32;
    OFFSET_SOCK_SHUTDOWN: u32;
    OFFSET_SOCK_ERROR: u32;
    OFFSET_SOCKET_SOCK: u32;
    OFFSET_NET_INODE: u32;
    OFFSET_TCP_COPIED: u32;
    OFFSET_TCP_RECEIVED: u32;
    OFFSET_TCP_WRITTEN: u32;
    OFFSET_UNIX_PEER: u32;
    OFFSET_UNIX_NAME: u32;
    OFFSET_NAME_LENGTH: u32;
    OFFSET_NAME_TEXT: u32;
    OFFSET_PID_NUMBERS: u32;
    OFFSET_TASK_PID: u32;
    OFFSET_TASK_TGID: u32;
    OFFSET_TASK_PARENT: u32;
    OFFSET_TASK_STARTED: u32;
    OFFSET_TASK_COMMAND: u32;
    OFFSET_TASK_FILES: u32;
    OFFSET_TASK_THREAD_POINTER: u32;
    OFFSET_FILES_TABLE: u32;
    OFFSET_TABLE_SIZE: u32;
    OFFSET_TABLE_FILES: u32;
    OFFSET_FILE_INODE: u32;
    OFFSET_FILE_PRIVATE: u32;
    OFFSET_INODE_MODE: u32;
    OFFSET_BINARY_PATH: u32;
    OFFSET_SOCK_SOCKET: u32;
    OFFSET_SOCKET_FILE: u32;
    OFFSET_FILE_POLLS: u32;
    OFFSET_POLL_NEXT: u32;
    OFFSET_POLL_DATA: u32;
    OFFSET_REQUEST_FILE: u32;
    OFFSET_REQUEST_OPERATION: u32;
    OFFSET_REQUEST_FLAGS: u32;
    OFFSET_REQUEST_STATE: u32;
    OFFSET_MESSAGE_BUFFER: u32;
    OFFSET_MESSAGE_FLAGS: u32;
    OFFSET_MESSAGE_AT: u32;
    OFFSET_MESSAGE_DONE: u32;
    OFFSET_TRANSFER_BUFFER: u32;
    OFFSET_TRANSFER_COUNT: u32;
    OFFSET_REGISTERS_CALL: u32;
    OFFSET_REGISTERS_FIRST: u32;
    OFFSET_REGISTERS_SECOND: u32;
    OFFSET_REGISTERS_THIRD: u32;
    OFFSET_REGISTERS_FOURTH: u32;
    OFFSET_REGISTERS_FIFTH: u32;
    OFFSET_REGISTERS_RESULT: u32;
    OFFSET_REGISTERS_MODE: u32;
    OFFSET_REGISTERS_STACK: u32;
    OFFSET_REGISTERS_GOROUTINE: u32;
}

globals! {
    /// Bit 4 of the register that tells the processor's mode, as 64-bit processes have it: the code segment of x86-64,
    /// the processor state of aarch64.
    WIDE_MODE: u32;
}

/// The [`Shape`] of each system call by its number, which differs between architectures.
#[unsafe(no_mangle)]
static CALL_SHAPES: [u8; SYSTEM_CALLS] = [0; SYSTEM_CALLS];

/// What each system call [`Moves`], by its number.
#[unsafe(no_mangle)]
static CALL_MOVES: [u8; SYSTEM_CALLS] = [0; SYSTEM_CALLS];

/// How the system call `number` describes its buffer.
#[inline(always)]
pub(crate) fn call_shape(number: u32) -> Shape {
    Shape::from_wire(entry(&raw const CALL_SHAPES, number))
}

/// What the system call `number` moves.
#[inline(always)]
pub(crate) fn call_moves(number: u32) -> Moves {
    Moves::from_wire(entry(&raw const CALL_MOVES, number))
}

/// The entry of a call; that of unknown calls is 0.
#[inline(always)]
fn entry(table: *const [u8; SYSTEM_CALLS], number: u32) -> u8 {
    if number as usize >= SYSTEM_CALLS {
        return 0;
    }
    let index = verifier::masked(number.into(), SYSTEM_CALLS as u64 - 1) as usize;
    // SAFETY: the index is masked to the array's length, a power of two. Volatile, since the agent fills the array in.
    unsafe { ptr::read_volatile(table.cast::<u8>().add(index)) }
}
