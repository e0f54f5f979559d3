// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every place in the kernel where a probe can stand, as data.
//!
//! In: nothing. Out: [`TABLE`] and the tiers it is divided into. It does not know which of them exist here:
//! `features.rs` finds out, `plan.rs` chooses. `KERNELS.md` is made from it.

use std::fmt;

use spantap_common::abi::{MAX_GATHERED, MAX_GATHERED_AT_EXIT};

/// A way to see the bytes that system calls move. All of them share one body and make the same records.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Tier {
    /// Tracepoints of the socket layer: after the copy, for sockets alone.
    A,
    /// The return of the functions below them: the same, through the kernel's function tracer.
    B,
    /// The return of every system call, and a walk from its descriptor to the socket.
    C,
}

impl Tier {
    /// Every tier, better ones first.
    pub const ALL: [Self; 3] = [Self::A, Self::B, Self::C];

    /// The tier called `name`, in either case.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tier| tier.letter().eq_ignore_ascii_case(name))
    }

    /// Its name.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
        }
    }

    /// Where it watches, in three words.
    pub const fn place(self) -> &'static str {
        match self {
            Self::A => "socket tracepoints",
            Self::B => "socket functions' exits",
            Self::C => "system calls' exits",
        }
    }

    /// What it cannot see or costs, compared with the first.
    pub const fn shortfall(self) -> Option<&'static str> {
        match self {
            Self::A | Self::B => None,
            Self::C => Some(
                "unix sockets are not followed, bytes of io_uring, sendmmsg, recvmmsg and splice show as gaps only, vectors \
                 are copied up to 64 segments, and every system call of the machine takes some 75 ns longer",
            ),
        }
    }

    /// Segments of one call that are gathered into its record.
    pub const fn gathered(self) -> u32 {
        match self {
            Self::A | Self::B => MAX_GATHERED,
            Self::C => MAX_GATHERED_AT_EXIT,
        }
    }

    /// Whether it sees everything that unix sockets move. What it does not see would leave no gap there: only the probes
    /// number the bytes of a unix socket.
    pub const fn sees_unix(self) -> bool {
        matches!(self, Self::A | Self::B)
    }

    /// Whether it shows each request of io_uring as it moves bytes.
    pub const fn sees_rings(self) -> bool {
        matches!(self, Self::A)
    }

    /// Whether sockets are known by address only: what a walk finds is no pointer to the verifier, and kernels that
    /// need this tier lend no helper that takes one.
    pub const fn by_address(self) -> bool {
        matches!(self, Self::C)
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tier {} ({})", self.letter(), self.place())
    }
}

/// One probe and its place.
#[derive(Debug, Eq, PartialEq)]
pub struct Hook {
    /// The program in the probes' object.
    pub program: &'static str,
    /// Where it is attached.
    pub at: At,
    /// The tiers it is part of.
    pub tiers: &'static [Tier],
    /// Whether its tiers are worth having without it.
    pub need: Need,
    /// The kernels that have the place, and the commit that brought it, for the reader: nothing depends on it.
    pub since: &'static str,
    /// What the user does not see without it.
    pub loses: &'static str,
}

impl Hook {
    /// Whether it sees bytes that nothing but the probes numbers. One such hook without the others would number them
    /// wrongly.
    pub fn counts(&self) -> bool {
        matches!(self.at, At::Exit(UNIX_SEND | UNIX_RECEIVE | UNIX_PAGE))
    }
}

/// A kind of place, and which.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum At {
    /// A tracepoint whose arguments BTF describes. Works under lockdown and without kprobes and ftrace.
    BtfTracepoint(&'static str),
    /// The same once more, after the first program, where the kernel passes over a program at a place that another thread
    /// was put off in: since 7.0, where tracepoints are left to SRCU.
    Again(&'static str),
    /// The return of a function that BTF describes. Takes BPF trampolines: x86-64 since 5.5, arm64 since 6.0.
    Exit(&'static str),
    /// A table of the kernel, walked through once when everything else is attached.
    Iterator(&'static str),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BtfTracepoint(name) => write!(f, "tracepoint {name}"),
            Self::Again(name) => write!(f, "tracepoint {name}, a second time"),
            Self::Exit(name) => write!(f, "function {name}"),
            Self::Iterator(name) => write!(f, "iterator {name}"),
        }
    }
}

/// Whether a hook can be missed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// Without it its tier is no use.
    Required,
    /// Without it, less is seen.
    Optional,
    /// A kernel that does not have it needs it for nothing: what it would see takes another way there.
    WherePresent,
}

/// Every hook, those of better tiers first, in the order of attaching. Writes come before reads: a request that is seen to
/// be read is then seen to be answered, and is not held open by an answer that went by unseen.
pub const TABLE: &[Hook] = &[
    socket_tracepoint("sock_send_length", WRITES),
    socket_tracepoint("sock_recv_length", READS),
    second_look("sock_send_length_again", "sock_send_length"),
    second_look("sock_recv_length_again", "sock_recv_length"),
    // `inet_…` and not `tcp_…`: where sockets are in a sockmap, others stand in TCP's place below them.
    function("exit_inet_sendmsg", "inet_sendmsg", Need::Required, ALWAYS, WRITES),
    // Apart from IPv4's since 5.3 (164c51fe82d1, a68886a69180). Not described where IPv6 is a module or absent.
    function("exit_inet6_sendmsg", "inet6_sendmsg", Need::Optional, "5.3", "bytes that processes write over IPv6"),
    function("exit_inet_recvmsg", "inet_recvmsg", Need::Required, ALWAYS, READS),
    function("exit_inet6_recvmsg", "inet6_recvmsg", Need::Optional, "5.3", "bytes that processes read over IPv6"),
    // Removed in 6.5 (dc97391e6610): sendfile and splice come by inet_sendmsg since.
    function(
        "exit_inet_sendpage",
        "inet_sendpage",
        Need::WherePresent,
        "until 6.4",
        "when bytes of sendfile(2) were moved",
    ),
    // The three of unix sockets are used together or not at all: see `Hook::counts`. `bpf_skc_to_unix_sock` came with 5.16
    // (9eeb3aa33ae0).
    function(
        "exit_unix_stream_sendmsg",
        UNIX_SEND,
        Need::Optional,
        "5.16",
        "bytes that processes write into unix sockets",
    ),
    function(
        "exit_unix_stream_recvmsg",
        UNIX_RECEIVE,
        Need::Optional,
        "5.16",
        "bytes that processes read from unix sockets",
    ),
    function(
        "exit_unix_stream_sendpage",
        UNIX_PAGE,
        Need::WherePresent,
        "5.16 to 6.4",
        "bytes of sendfile(2) into unix sockets",
    ),
    Hook {
        program: "sys_exit",
        at: At::BtfTracepoint("sys_exit"),
        tiers: &[Tier::C],
        need: Need::Required,
        since: ALWAYS,
        loses: "bytes that processes read and write",
    },
    ring("io_uring_submit_req", "6.5 or before, after 6.2"),
    ring("io_uring_poll_arm", ALWAYS),
    ring("io_uring_complete", ALWAYS),
    lifecycle("inet_sock_set_state", "how connections begin and end: resets, time-outs and closings"),
    lifecycle("tcp_destroy_sock", "the end of connections whose process never read their last bytes"),
    lifecycle("sched_process_fork", "new processes before they run a program, and threads that requests start"),
    lifecycle("sched_process_exec", "programs started after the agent, until their first request"),
    lifecycle("sched_process_exit", "the end of processes and of threads that requests start"),
    Hook {
        program: "sched_waking",
        at: At::BtfTracepoint("sched_waking"),
        tiers: &Tier::ALL,
        need: Need::Optional,
        // bpf_task_pt_regs: dd6e10fbd9fb
        since: "5.15",
        loses: "which request a call is made for where threads hand work to each other",
    },
    Hook {
        program: "task_file",
        at: At::Iterator("task_file"),
        tiers: &Tier::ALL,
        need: Need::Optional,
        // eaaacd23910f
        since: ALWAYS,
        loses: "who accepted and who connected where a connection is older than the agent",
    },
];

/// They fire after the copy, in the caller's context, for sockets alone. A program named like its tracepoint.
const fn socket_tracepoint(name: &'static str, loses: &'static str) -> Hook {
    Hook {
        program: name,
        at: At::BtfTracepoint(name),
        tiers: &[Tier::A],
        need: Need::Required,
        since: "6.3 (6e6eda44b939)",
        loses,
    }
}

/// For calls that the first program there was passed over for.
const fn second_look(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook {
        program,
        at: At::Again(tracepoint),
        tiers: &[Tier::A],
        need: Need::WherePresent,
        since: "7.0",
        loses: "calls that come while a thread is put off in the middle of a probe",
    }
}

/// They tell where io_uring finds the bytes that it moves. A program named like its tracepoint.
const fn ring(name: &'static str, since: &'static str) -> Hook {
    Hook {
        program: name,
        at: At::BtfTracepoint(name),
        tiers: &[Tier::A],
        need: Need::Optional,
        since,
        loses: "the contents of what io_uring moves",
    }
}

const fn function(
    program: &'static str,
    name: &'static str,
    need: Need,
    since: &'static str,
    loses: &'static str,
) -> Hook {
    Hook { program, at: At::Exit(name), tiers: &[Tier::B], need, since, loses }
}

/// A program named like its tracepoint.
const fn lifecycle(name: &'static str, loses: &'static str) -> Hook {
    Hook { program: name, at: At::BtfTracepoint(name), tiers: &Tier::ALL, need: Need::Optional, since: ALWAYS, loses }
}

/// In every kernel that has a ring buffer (5.8, 457f44363a88), below which nothing works.
const ALWAYS: &str = "5.8";
const UNIX_SEND: &str = "unix_stream_sendmsg";
const UNIX_RECEIVE: &str = "unix_stream_recvmsg";
const UNIX_PAGE: &str = "unix_stream_sendpage";
const READS: &str = "bytes that processes read";
const WRITES: &str = "bytes that processes write";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_stands_in_one_place() {
        for (index, hook) in TABLE.iter().enumerate() {
            assert!(!TABLE[..index].iter().any(|other| other.program == hook.program), "{} twice", hook.program);
            assert!(!hook.loses.is_empty(), "{} can be missed for nothing", hook.program);
            assert!(!hook.tiers.is_empty(), "{} is never used", hook.program);
        }
    }

    #[test]
    fn every_tier_needs_something_of_its_own() {
        for tier in Tier::ALL {
            assert!(TABLE.iter().any(|hook| hook.need == Need::Required && hook.tiers == [tier]), "{tier}");
            assert_eq!(Tier::named(&tier.letter().to_lowercase()), Some(tier));
        }
        assert_eq!(Tier::named("d"), None);
    }
}
