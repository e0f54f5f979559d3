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
            Self::Refused(error) => format!("the kernel refused the probes: {error:#}"),
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
                 kernel.unprivileged_bpf_disabled as well"
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
    fn every_verdict_says_what_what_follows_and_what_to_do() {
        let privilege = Unsupported::Privilege { missing: vec!["CAP_BPF", "CAP_PERFMON"] };
        assert_eq!(
            privilege.to_string(),
            "missing privilege: CAP_BPF, CAP_PERFMON: nothing can be traced; run as root, or grant CAP_BPF and \
             CAP_PERFMON; in a container, check seccomp and kernel.unprivileged_bpf_disabled as well"
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
