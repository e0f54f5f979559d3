// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cases that do not pass in every tier, and why.
//!
//! In: nothing. Out: [`SHORTFALLS`]. `KERNELS.md` lists them, and the catalogue holds the agent to it: a case of the list
//! that passes, or whose requests are missing otherwise than the list says, is a failure too.

use spantap::kernel::Tier;

/// Cases that one tier cannot pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shortfall {
    /// Which tier.
    pub(crate) tier: Tier,
    /// The cases, by name.
    pub(crate) cases: &'static [&'static str],
    /// What keeps them from passing.
    pub(crate) why: &'static str,
    /// What the agent has to say of the requests that are missing or less than whole.
    pub(crate) account: Account,
}

/// How the agent accounts for what a tier does not see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Account {
    /// Nothing was seen that could be a request, so that none is in the books. The tier's own shortfall, said at the start
    /// and by `spantap doctor`, names such sockets.
    Unseen,
    /// A loss with this reason, in the summary and in the metrics.
    Lost(&'static str),
}

/// Every such case.
pub(crate) const SHORTFALLS: &[Shortfall] = &[
    Shortfall {
        tier: Tier::B,
        cases: URING,
        why: "requests of io_uring are followed in tier A: where it moves the first bytes of a connection, nobody can read them",
        account: Account::Lost("unsupported_path"),
    },
    Shortfall {
        tier: Tier::B,
        cases: &["reader-blocked-before-the-agent"],
        why: "the exit of a function is seen only where its entry came after the trampoline: what a thread reads that was \
              blocked in the call when the agent started is not, once for each such thread",
        account: Account::Unseen,
    },
    Shortfall {
        tier: Tier::C,
        cases: URING,
        why: "io_uring moves bytes outside of any system call whose result would tell",
        account: Account::Unseen,
    },
    Shortfall {
        tier: Tier::C,
        cases: &[
            "unix-keep-alive",
            "unix-abstract-name",
            "unix-socketpair",
            "unix-heads-in-pieces",
            "unix-heads-in-tiny-pieces",
            "unix-no-request-in-tiny-pieces",
            "unix-server-closes-at-the-end",
            "unix-client-shuts-its-side",
            "unix-server-gone",
            "unix-client-gone-in-mid-answer",
            "unix-before-the-agent",
            "unix-silent-and-then-not",
            "unix-read-by-splice",
            "nginx-to-python-over-unix",
            "nginx-to-fastcgi-over-unix",
            "nginx-to-php-fpm-over-unix",
        ],
        why: "unix sockets are not followed: only the probes number their bytes, and calls that this tier does not see would \
              leave no gap; nor does a system call's exit tell a new socket from an old one at the same address",
        account: Account::Unseen,
    },
    Shortfall {
        tier: Tier::C,
        cases: &["sendmmsg-recvmmsg"],
        why: "calls that move several messages return their number and not their bytes: a connection whose first bytes move so \
              is counted, and what moves so later is a gap",
        account: Account::Lost("unsupported_path"),
    },
];

/// Both ends use io_uring for everything.
const URING: &[&str] = &[
    "uring-send-recv",
    "uring-sendmsg-recvmsg",
    "uring-read-write",
    "uring-writev",
    "uring-registered-buffers",
    "uring-multishot",
    "uring-without-a-copy",
];

/// What `case` cannot do in `tier`, if it cannot pass there.
pub(crate) fn shortfall(tier: Tier, case: &str) -> Option<&'static Shortfall> {
    SHORTFALLS.iter().find(|shortfall| shortfall.tier == tier && shortfall.cases.contains(&case))
}
