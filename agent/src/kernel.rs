// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Loads and attaches the probes and reads what they say.
//!
//! In: [`Settings`]. Out: [`Probes`], which hand over raw records and count what was lost, or [`Unsupported`], which
//! tells the operator why this machine cannot run them. It does not look into a record, and it leaves nothing behind:
//! what is not pinned goes with the process that attached it, however it ends.

pub mod attach;
pub mod btf;
pub mod controls;
pub mod features;
pub mod hooks;
pub mod occupancy;
pub mod older;
pub mod pace;
pub mod plan;
pub mod ring;

pub use attach::{Probes, Settings};
pub use controls::Controls;
pub use hooks::Tier;
pub use older::Older;
pub use pace::Pace;
pub use plan::{HookVerdict, State};

use std::fmt;

/// Why the probes cannot run here: what is the matter, what follows, what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unsupported {
    /// The process may not load probes.
    #[error("{}", self.sentence())]
    Privilege {
        /// Capabilities that are missing, by name.
        missing: Vec<&'static str>,
    },
    /// The kernel describes itself to nobody.
    #[error("{}", self.sentence())]
    NoBtf {
        /// What reading it ran into.
        reason: String,
    },
    /// The kernel's description lacks something that every tier needs.
    #[error("{}", self.sentence())]
    NoField(#[from] btf::MissingField),
    /// The kernel lacks a place that a tier needs.
    #[error("{}", self.sentence())]
    NoHook {
        /// The place.
        at: hooks::At,
        /// What is lost without it.
        loses: &'static str,
    },
    /// This executable was built without its probes.
    #[error("{}", self.sentence())]
    NotBuilt,
    /// The kernel refused for a reason that is not foreseen.
    #[error("{}", self.sentence())]
    Refused(anyhow::Error),
}

impl Unsupported {
    /// What is the matter.
    pub fn what(&self) -> String {
        match self {
            Self::Privilege { missing } if missing.is_empty() => "the kernel refused to load the probes (EPERM)".into(),
            Self::Privilege { missing } => format!("missing privilege: {}", missing.join(", ")),
            Self::NoBtf { reason } => format!("no BTF: {} cannot be read ({reason})", btf::KERNEL),
            Self::NoField(field) => field.to_string(),
            Self::NoHook { at, .. } => format!("this kernel has no {at}"),
            Self::NotBuilt => "built without its probes".into(),
            Self::Refused(error) => format!("the kernel refused the probes: {}", in_one_line(error)),
        }
    }

    /// What follows from it.
    pub fn consequence(&self) -> String {
        match self {
            Self::NoHook { loses, .. } => format!("{loses} cannot be seen"),
            Self::Privilege { .. } | Self::NoBtf { .. } | Self::NoField(_) | Self::NotBuilt | Self::Refused(_) => {
                "nothing can be traced".into()
            }
        }
    }

    /// What the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Privilege { .. } => {
                "run as root, or grant CAP_BPF and CAP_PERFMON; in a container, check seccomp and \
                 kernel.unprivileged_bpf_disabled as well, before Linux 5.11 also RLIMIT_MEMLOCK"
            }
            Self::NoBtf { .. } => "use a kernel built with CONFIG_DEBUG_INFO_BTF=y",
            Self::NoField(_) => "report it with the kernel's version: a field has moved",
            Self::NoHook { .. } => "use kernel 5.8 or later, with system call tracepoints, and force no tier",
            Self::NotBuilt => "build with `cargo xtask build`",
            Self::Refused(_) => "report it with the kernel's version and the output of `spantap doctor`",
        }
    }

    fn sentence(&self) -> Sentence<'_> {
        Sentence(self)
    }
}

/// An error with its causes. The verifier's words are many lines, of which the last are about what it minds.
fn in_one_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let Some((first, rest)) = lines.split_first() else { return text };
    let (left_out, last) = rest.split_at(rest.len().saturating_sub(VERIFIER_LINES));
    let gap = (!left_out.is_empty()).then_some(&"…");
    [first].into_iter().chain(gap).chain(last).copied().collect::<Vec<_>>().join("; ")
}

/// What it minds, and four lines of statistics.
const VERIFIER_LINES: usize = 6;

struct Sentence<'a>(&'a Unsupported);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Unsupported::NotBuilt = self.0 {
            return write!(f, "{}: {}", self.0.what(), self.0.remedy());
        }
        write!(f, "{}: {}; {}", self.0.what(), self.0.consequence(), self.0.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_words_are_one_line_that_ends_with_what_it_minds() {
        let log = "0: r0 = 1\n1: r1 = 1\n2: r2 = 1\n\ninvalid read from stack R10 off=-184 size=8\na\nb\nc\n";
        let refused = anyhow::anyhow!("EACCES. Verifier output: x\n{log}").context("load exit_inet_sendmsg");
        assert_eq!(
            in_one_line(&refused),
            "load exit_inet_sendmsg: EACCES. Verifier output: x; …; 1: r1 = 1; 2: r2 = 1; invalid read from stack R10 \
             off=-184 size=8; a; b; c"
        );
        assert_eq!(in_one_line(&anyhow::anyhow!("EINVAL")), "EINVAL");
    }

    #[test]
    fn every_verdict_says_what_what_follows_and_what_to_do() {
        let privilege = Unsupported::Privilege { missing: vec!["CAP_BPF", "CAP_PERFMON"] };
        assert_eq!(
            privilege.to_string(),
            "missing privilege: CAP_BPF, CAP_PERFMON: nothing can be traced; run as root, or grant CAP_BPF and \
             CAP_PERFMON; in a container, check seccomp and kernel.unprivileged_bpf_disabled as well, before Linux 5.11 also RLIMIT_MEMLOCK"
        );
        assert_eq!(Unsupported::NotBuilt.to_string(), "built without its probes: build with `cargo xtask build`");
        let at = hooks::At::BtfTracepoint("sys_exit");
        let hook = Unsupported::NoHook { at, loses: "bytes that processes write" };
        assert_eq!(
            hook.to_string(),
            "this kernel has no tracepoint sys_exit: bytes that processes write cannot be seen; use kernel 5.8 or \
             later, with system call tracepoints, and force no tier"
        );
    }
}
