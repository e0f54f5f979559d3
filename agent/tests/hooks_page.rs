// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `KERNELS.md` says what the table of hooks says.
//!
//! In: the table. Out: the page, held against the one in the repository. What no table knows (why a kernel lacks
//! something) is text here; run with `SPANTAP_UPDATE_PAGES=1` to write the page anew.

#[path = "accuracy/shortfalls.rs"]
#[expect(dead_code, reason = "the catalogue asks for one case at a time")]
mod shortfalls;

use std::{env, fmt::Write as _, fs, path::Path};

use spantap::kernel::{
    Tier,
    hooks::{Hook, Need, TABLE},
};

use crate::shortfalls::{Account, SHORTFALLS, Shortfall};

#[test]
fn the_page_of_kernels_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../KERNELS.md");
    let page = page();
    if env::var_os("SPANTAP_UPDATE_PAGES").is_some() {
        fs::write(&file, &page).expect("write KERNELS.md");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "KERNELS.md is stale: run SPANTAP_UPDATE_PAGES=1 cargo test -p spantap --test hooks_page and commit it"
    );
}

#[test]
fn no_cell_breaks_its_table() {
    for hook in TABLE {
        assert!(!row(hook).trim_matches('|').contains("||") && !hook.loses.contains('|'), "{}", hook.program);
    }
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("## Tiers\n\n| tier | watches | short of the first |\n|---|---|---|\n");
    for tier in Tier::ALL {
        let shortfall = tier.shortfall().unwrap_or("nothing");
        // Writing to a `String` cannot fail.
        let _ = writeln!(page, "| {} | {} | {shortfall} |", tier.letter(), tier.place());
    }
    page.push_str(TIERS);
    for Shortfall { tier, cases, why, account } in SHORTFALLS {
        let account = match account {
            Account::Unseen => "not seen".to_owned(),
            Account::Lost(reason) => format!("counted as `{reason}`"),
        };
        let _ = writeln!(page, "| {} | {} | {why} | {account} |", tier.letter(), cases.join(", "));
    }
    page.push_str("\n## Hooks\n\n| where | kernels | tiers | without it |\n|---|---|---|---|\n");
    for hook in TABLE {
        page.push_str(&row(hook));
        page.push('\n');
    }
    page.push_str(HELPERS);
    page
}

fn row(hook: &Hook) -> String {
    let Hook { at, since, tiers, need, loses, .. } = hook;
    let tiers: Vec<_> = tiers.iter().map(|tier| tier.letter()).collect();
    let without = match need {
        Need::Required => "the tier is not used".to_owned(),
        Need::Optional => format!("{loses} cannot be seen"),
        Need::WherePresent => format!("nothing: newer kernels show {loses} elsewhere"),
    };
    format!("| {at} | {since} | {} | {without} |", tiers.join(" "))
}

const INTRODUCTION: &str = "\
# Kernels

<!-- Made from agent/src/kernel/hooks.rs by agent/tests/hooks_page.rs: edit there. -->

spantap works from Linux 5.8 on, which brought the ring buffer (457f44363a88), where the kernel describes itself
(`CONFIG_DEBUG_INFO_BTF=y`). It asks the kernel by handing it the programs, not by version: distributions backport.
`spantap doctor` says what was found, and what is lost.

";

const TIERS: &str = "
The best tier whose programs the kernel takes is used; `--tier` and `SPANTAP_TIER` force one. All of them make the same
records by the same code. `cargo xtask vm --whole` runs the same tests on each kernel below and in each of its tiers;
those of bytes that tier C does not see skip themselves there.

| moved by | tiers A and B | tier C |
|---|---|---|
| read, write, recvfrom, sendto | bytes | bytes |
| readv, writev, preadv2, pwritev2, recvmsg, sendmsg | bytes of up to 256 segments | bytes of up to 64 segments |
| recvmmsg, sendmmsg | bytes of each message; lengths where recvmmsg has a time limit | gap; as the first bytes of a connection, a counted loss |
| sendfile | lengths | lengths |
| splice into a socket | lengths | gap; nothing where a connection moves nothing otherwise |
| io_uring | tier A from 6.5 on: bytes, or lengths of what is linked, put off, or waits with another; else lengths | gap; nothing where a connection moves nothing otherwise |
| splice out of a socket | gap | gap |

Unix stream sockets are followed in tiers A and B. No kernel tells a tracing program that one of them was closed: its end
is seen by the peer's next call, and a silent one is forgotten after 22 s and met again when it goes on.

A gap has its exact length, as soon as something is seen behind it. On x86-64 io_uring's bytes are told from those of the
call at whose end they are moved; on arm64 only where that call moves none.

| kernel | tiers | why not more |
|---|---|---|
| 5.10 (Debian 11) | C | no socket tracepoints; no `bpf_task_pt_regs` (5.15, dd6e10fbd9fb) for tier B |
| 6.1 (Debian 12) | B, C | no socket tracepoints |
| 6.12 (Debian 13) | A, B, C | |
| 7.x (Debian sid) | A, B, C | |

There is no tier of kprobes. It would serve kernels that allow them but have neither socket tracepoints nor what tier B
takes: x86-64 before 5.15 and arm64 before 6.0, all of which tier C serves. What it would add there is the bytes of sendmmsg,
recvmmsg and io_uring, and unix sockets. The price: a second way to find a call's memory, in the kernel's `iov_iter` before
the call consumes it; an entry in a map for each call in flight; and calls lost where more of them wait than a return probe
has room for (`maxactive`), which happens to servers with many blocked threads. No kernel still maintained but 5.10 would
gain from it.

## Cases that cannot pass

The catalogue of what capture has to get right (`cargo xtask accuracy capture` on this machine, `cargo xtask vm --catalogue`
on other kernels) passes in every tier but for these, which are held to the account that the agent gives of them. Run as a
whole: on 6.18 in tiers A and C, on 6.12 in tier A, on 6.1 in tier B, on 5.10 in tier C, on 7.2 in tier A.
`addresses-rewritten-on-the-way` was run on 6.18 only: it takes tables for addresses, which the kernels of emulated machines
do not have loaded. `uring-without-a-copy` is skipped where io_uring has no such operation (before 6.0). On 7.2 these have
failed, in an emulated machine:

- `java-pool`, `go-pool`, `nginx-reloads-under-load`, and the loads on 8, 64 and 10,000 connections: from 7.0 on a thread may be
  put off in the middle of a probe, and the kernel passes over the same probe for all other threads of that CPU until it
  goes on (`recursion_misses` in the program's `fdinfo`). A second program at the same place (since then) sees most of those
  calls: of 3,200 requests on 8 connections it left 91 gaps instead of 892, on an emulated machine, where a probe takes a
  hundred times as long as on a real one. What neither sees is a gap, or, where it was a connection's first request, unseen.

| tier | cases | why | their requests |
|---|---|---|---|
";

const HELPERS: &str = "
Tiers A and B keep a socket's state in the socket and name it by its cookie: tracing programs may do so since 5.11
(8e4597c627fb) and 5.12 (c5dbb89fc2ac). Tier C walks from a descriptor to an address, of which the verifier knows
nothing: it copies fields, keeps state in a map of 32,768 entries by address, and names a socket by address and time. A
host with more open connections than that keeps the ones in use; the others are met again like sockets older than the
agent. A call whose descriptor another thread closes before it returns shows as a gap.

Tier B takes BPF trampolines: x86-64 since 5.5 (fec56f5890d9), arm64 since 6.0 (efc9909fdce0). Kernels that refuse them,
and tier A, are watched in tier C.

32-bit processes on a 64-bit kernel number their calls differently: tiers A and B count their bytes without capturing
them, tier C does not see them.
";
