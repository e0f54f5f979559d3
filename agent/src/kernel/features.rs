// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What this machine offers.
//!
//! In: the kernel's BTF and the capabilities of this process. Out: [`Features`] to plan with, and the offsets of the
//! fields that the probes read. It decides nothing, and it asks for a version number only where nothing else tells:
//! distributions backport.
//! Whether the kernel takes a program is known only when it was asked to: `attach.rs` does.

use std::fs;

use super::{
    Unsupported,
    btf::{self, Btf, MissingField},
    hooks::{self, At},
};

/// What there is to attach to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Features {
    /// Places of [`hooks::TABLE`] that the kernel describes in BTF.
    pub places: Vec<At>,
}

impl Features {
    /// Finds out which hooks of the table exist on a kernel of this `release`.
    pub fn of(btf: &Btf, release: &str) -> Self {
        let describes = |at: &At| match at {
            At::BtfTracepoint(tracepoint) => btf.has_tracepoint(tracepoint),
            At::Again(tracepoint) => btf.has_tracepoint(tracepoint) && puts_probes_off(release),
            At::Exit(function) => btf.has_function(function),
            At::Iterator(table) => btf.has_function(&format!("bpf_iter_{table}")),
        };
        Self { places: hooks::TABLE.iter().map(|hook| hook.at).filter(describes).collect() }
    }

    /// Whether `at` exists.
    pub fn offers(&self, at: At) -> bool {
        self.places.contains(&at)
    }
}

/// The running kernel's release; empty where it cannot be read.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Whether a thread can be put off while a probe of a tracepoint runs in it. BTF does not show it.
fn puts_probes_off(release: &str) -> bool {
    let major = release.split('.').next().and_then(|major| major.parse::<u32>().ok());
    major.is_some_and(|major| major >= 7)
}

/// The running kernel's description.
pub fn kernel_btf() -> Result<Btf, Unsupported> {
    let bytes = fs::read(btf::KERNEL).map_err(|error| Unsupported::NoBtf { reason: error.to_string() })?;
    Btf::parse(bytes).map_err(|error| Unsupported::NoBtf { reason: error.to_string() })
}

/// Checks the capabilities that loading and attaching take; better known before than guessed from an errno.
pub fn privileged() -> Result<(), Unsupported> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    if missing.is_empty() { Ok(()) } else { Err(Unsupported::Privilege { missing }) }
}

/// Names of the capabilities that the process with this `/proc/<pid>/status` lacks.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        // Unknown: let the kernel say no.
        .unwrap_or(u64::MAX);
    if effective & CAP_SYS_ADMIN != 0 {
        return Vec::new();
    }
    [("CAP_BPF", CAP_BPF), ("CAP_PERFMON", CAP_PERFMON)]
        .into_iter()
        .filter(|(_, bit)| effective & bit == 0)
        .map(|(name, _)| name)
        .collect()
}

/// A field that the probes read.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The probes' global variable that takes the offset.
    pub global: &'static str,
    /// The structure.
    pub structure: &'static str,
    /// Its path there, today's name first; a rename is one more entry.
    pub paths: &'static [&'static str],
}

/// Every field, as `agent-ebpf/src/globals.rs` names it.
pub const FIELDS: &[Field] = &[
    field("OFFSET_SOCK_FAMILY", "sock", &["__sk_common.skc_family"]),
    field("OFFSET_SOCK_STATE", "sock", &["__sk_common.skc_state"]),
    field("OFFSET_SOCK_LOCAL_PORT", "sock", &["__sk_common.skc_num"]),
    field("OFFSET_SOCK_PEER_PORT", "sock", &["__sk_common.skc_dport"]),
    field("OFFSET_SOCK_LOCAL_V4", "sock", &["__sk_common.skc_rcv_saddr"]),
    field("OFFSET_SOCK_PEER_V4", "sock", &["__sk_common.skc_daddr"]),
    field("OFFSET_SOCK_LOCAL_V6", "sock", &["__sk_common.skc_v6_rcv_saddr"]),
    field("OFFSET_SOCK_PEER_V6", "sock", &["__sk_common.skc_v6_daddr"]),
    field("OFFSET_SOCK_NET", "sock", &["__sk_common.skc_net.net"]),
    // A bit-field of 8 bits before 5.6 (bf9765145b85).
    field("OFFSET_SOCK_PROTOCOL", "sock", &["sk_protocol"]),
    // The same.
    field("OFFSET_SOCK_TYPE", "sock", &["sk_type"]),
    field("OFFSET_SOCK_PEER_PID", "sock", &["sk_peer_pid"]),
    field("OFFSET_SOCK_QUEUED", "sock", &["sk_receive_queue.qlen"]),
    field("OFFSET_SOCK_FLAGS", "sock", &["sk_flags", "__sk_common.skc_flags"]),
    field("OFFSET_SOCK_SHUTDOWN", "sock", &["sk_shutdown"]),
    field("OFFSET_SOCK_ERROR", "sock", &["sk_err"]),
    field("OFFSET_SOCKET_SOCK", "socket", &["sk"]),
    field("OFFSET_NET_INODE", "net", &["ns.inum"]),
    field("OFFSET_TCP_COPIED", "tcp_sock", &["copied_seq"]),
    field("OFFSET_TCP_RECEIVED", "tcp_sock", &["rcv_nxt"]),
    field("OFFSET_TCP_WRITTEN", "tcp_sock", &["write_seq"]),
    field("OFFSET_TASK_PID", "task_struct", &["pid"]),
    field("OFFSET_TASK_TGID", "task_struct", &["tgid"]),
    field("OFFSET_TASK_PARENT", "task_struct", &["real_parent"]),
    // Renamed in 5.5 (cf25e24db61c).
    field("OFFSET_TASK_STARTED", "task_struct", &["start_boottime", "real_start_time"]),
    field("OFFSET_TASK_COMMAND", "task_struct", &["comm"]),
    field("OFFSET_TASK_FILES", "task_struct", &["files"]),
    // x86-64 and aarch64.
    field("OFFSET_TASK_THREAD_POINTER", "task_struct", &["thread.fsbase", "thread.uw.tp_value"]),
    field("OFFSET_FILES_TABLE", "files_struct", &["fdt"]),
    field("OFFSET_TABLE_SIZE", "fdtable", &["max_fds"]),
    field("OFFSET_TABLE_FILES", "fdtable", &["fd"]),
    field("OFFSET_FILE_INODE", "file", &["f_inode"]),
    field("OFFSET_FILE_PRIVATE", "file", &["private_data"]),
    field("OFFSET_INODE_MODE", "inode", &["i_mode"]),
    field("OFFSET_BINARY_PATH", "linux_binprm", &["filename"]),
];

/// The same of unix sockets, which a kernel may have as a module, or not at all.
pub const UNIX_FIELDS: &[Field] = &[
    field("OFFSET_UNIX_PEER", "unix_sock", &["peer"]),
    field("OFFSET_UNIX_NAME", "unix_sock", &["addr"]),
    field("OFFSET_NAME_LENGTH", "unix_address", &["len"]),
    field("OFFSET_NAME_TEXT", "unix_address", &["name"]),
    field("OFFSET_PID_NUMBERS", "pid", &["numbers"]),
];

/// The same of what epoll knows a file by. Before 5.12 (319c15174757) its entries hang on the file in another way, and nobody asks there.
pub const POLL_FIELDS: &[Field] = &[
    field("OFFSET_SOCK_SOCKET", "sock", &["sk_socket"]),
    field("OFFSET_SOCKET_FILE", "socket", &["file"]),
    field("OFFSET_FILE_POLLS", "file", &["f_ep"]),
    field("OFFSET_POLL_NEXT", "epitem", &["fllink"]),
    field("OFFSET_POLL_DATA", "epitem", &["event.data"]),
];

/// The same of io_uring's requests, which a kernel may not have, and of which only some are of use.
pub const RING_FIELDS: &[Field] = &[
    field("OFFSET_REQUEST_FILE", "io_kiocb", &["file"]),
    field("OFFSET_REQUEST_OPERATION", "io_kiocb", &["opcode"]),
    field("OFFSET_REQUEST_FLAGS", "io_kiocb", &["flags"]),
    field("OFFSET_REQUEST_STATE", "io_kiocb", &["async_data"]),
    field("OFFSET_MESSAGE_AT", "io_async_msghdr", &["msg.msg_iter.ubuf"]),
    field("OFFSET_MESSAGE_DONE", "io_async_msghdr", &["msg.msg_iter.iov_offset"]),
    field("OFFSET_MESSAGE_BUFFER", "io_sr_msg", &["buf"]),
    field("OFFSET_MESSAGE_FLAGS", "io_sr_msg", &["flags"]),
    field("OFFSET_TRANSFER_BUFFER", "io_rw", &["addr"]),
    field("OFFSET_TRANSFER_COUNT", "io_rw", &["len"]),
];

const fn field(global: &'static str, structure: &'static str, paths: &'static [&'static str]) -> Field {
    Field { global, structure, paths }
}

/// The offset of every field in [`FIELDS`] and in the registers of this architecture, by the name of its global.
pub fn offsets(btf: &Btf) -> Result<Vec<(&'static str, u32)>, MissingField> {
    let mut offsets = Vec::with_capacity(FIELDS.len() + REGISTERS.len());
    for field in FIELDS {
        offsets.push((field.global, btf::offset(btf, field.structure, field.paths)?));
    }
    for Register { global, path, index } in REGISTERS {
        offsets.push((global, btf::offset(btf, "pt_regs", path)? + 8 * index));
    }
    Ok(offsets)
}

/// The offset of every field in [`UNIX_FIELDS`]; none where one is missing.
pub fn unix_offsets(btf: &Btf) -> Option<Vec<(&'static str, u32)>> {
    all_or_none(btf, UNIX_FIELDS)
}

/// The offset of every field in [`RING_FIELDS`]; none where one is missing.
pub fn ring_offsets(btf: &Btf) -> Option<Vec<(&'static str, u32)>> {
    all_or_none(btf, RING_FIELDS)
}

/// The offset of every field in [`POLL_FIELDS`]; none where one is missing.
pub fn poll_offsets(btf: &Btf) -> Option<Vec<(&'static str, u32)>> {
    all_or_none(btf, POLL_FIELDS)
}

fn all_or_none(btf: &Btf, fields: &[Field]) -> Option<Vec<(&'static str, u32)>> {
    let offset =
        |field: &Field| btf::offset(btf, field.structure, field.paths).ok().map(|offset| (field.global, offset));
    fields.iter().map(offset).collect()
}

/// Where a saved register lies in `struct pt_regs`.
struct Register {
    global: &'static str,
    path: &'static [&'static str],
    /// Which word of an array.
    index: u32,
}

/// What the probes compare with the register of the mode: see `WIDE_MODE` there.
#[cfg(target_arch = "x86_64")]
pub const WIDE_MODE: u32 = 0x10;
/// What the probes compare with the register of the mode: see `WIDE_MODE` there.
#[cfg(target_arch = "aarch64")]
pub const WIDE_MODE: u32 = 0;

// x86-64 passes the arguments in di, si, dx, r10, r8; entry code keeps the call's number in orig_ax.
#[cfg(target_arch = "x86_64")]
const REGISTERS: [Register; 10] = [
    Register { global: "OFFSET_REGISTERS_CALL", path: &["orig_ax"], index: 0 },
    Register { global: "OFFSET_REGISTERS_FIRST", path: &["di"], index: 0 },
    Register { global: "OFFSET_REGISTERS_SECOND", path: &["si"], index: 0 },
    Register { global: "OFFSET_REGISTERS_THIRD", path: &["dx"], index: 0 },
    Register { global: "OFFSET_REGISTERS_FOURTH", path: &["r10"], index: 0 },
    Register { global: "OFFSET_REGISTERS_FIFTH", path: &["r8"], index: 0 },
    Register { global: "OFFSET_REGISTERS_RESULT", path: &["ax"], index: 0 },
    Register { global: "OFFSET_REGISTERS_MODE", path: &["cs"], index: 0 },
    Register { global: "OFFSET_REGISTERS_STACK", path: &["sp"], index: 0 },
    // `cmd/compile/abi-internal.md` of Go: the current goroutine is in R14, and on arm64 in R28.
    Register { global: "OFFSET_REGISTERS_GOROUTINE", path: &["r14"], index: 0 },
];

// aarch64 passes them in x0 to x5; only x0 is overwritten before the return, and kept in orig_x0.
#[cfg(target_arch = "aarch64")]
const REGISTERS: [Register; 10] = [
    Register { global: "OFFSET_REGISTERS_CALL", path: &["syscallno"], index: 0 },
    Register { global: "OFFSET_REGISTERS_FIRST", path: &["orig_x0"], index: 0 },
    Register { global: "OFFSET_REGISTERS_SECOND", path: &["regs"], index: 1 },
    Register { global: "OFFSET_REGISTERS_THIRD", path: &["regs"], index: 2 },
    Register { global: "OFFSET_REGISTERS_FOURTH", path: &["regs"], index: 3 },
    Register { global: "OFFSET_REGISTERS_FIFTH", path: &["regs"], index: 4 },
    Register { global: "OFFSET_REGISTERS_RESULT", path: &["regs"], index: 0 },
    Register { global: "OFFSET_REGISTERS_MODE", path: &["pstate"], index: 0 },
    Register { global: "OFFSET_REGISTERS_STACK", path: &["sp"], index: 0 },
    Register { global: "OFFSET_REGISTERS_GOROUTINE", path: &["regs"], index: 28 },
];

/// Whether the register of the result tells that a call has not returned: aarch64 passes the first argument in it.
pub const RESULT_TELLS: bool = cfg!(target_arch = "x86_64");

// `include/uapi/linux/capability.h`.
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_PERFMON: u64 = 1 << 38;
const CAP_BPF: u64 = 1 << 39;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        let status = |set: u64| format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{set:016x}\nCapBnd:\t0\n");
        assert_eq!(missing_capabilities(&status(0)), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing_capabilities(&status(CAP_BPF)), ["CAP_PERFMON"]);
        assert!(missing_capabilities(&status(CAP_BPF | CAP_PERFMON)).is_empty());
        assert!(missing_capabilities(&status(CAP_SYS_ADMIN)).is_empty());
        assert!(missing_capabilities("unreadable").is_empty());
    }

    #[test]
    fn a_global_is_filled_once() {
        let mut globals: Vec<_> = FIELDS
            .iter()
            .chain(UNIX_FIELDS)
            .chain(RING_FIELDS)
            .chain(POLL_FIELDS)
            .map(|field| field.global)
            .chain(REGISTERS.iter().map(|register| register.global))
            .collect();
        globals.sort_unstable();
        let all = globals.len();
        globals.dedup();
        assert_eq!(globals.len(), all);
    }
}
