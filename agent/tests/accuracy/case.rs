// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One entry of the catalogue.
//!
//! In: a name and what happens. Out: a [`Case`] that can be run by itself. It says nothing about how it is judged: that
//! is the same for all.

use io_uring::{IoUring, Probe};

use crate::{ground::Ground, judge::Verdict, programs::is_installed, script::Script};

/// A named piece of traffic whose truth is known.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Unique, and part of every path.
    pub(crate) name: &'static str,
    /// Whether every test run has it.
    pub(crate) quick: bool,
    needs: &'static [&'static str],
    /// An operation of io_uring that not every kernel has.
    operation: Option<u8>,
    run: Run,
    /// Whether it starts the agent itself.
    pub(crate) late: bool,
}

#[derive(Clone, Copy)]
enum Run {
    Script(Script),
    Code(Code),
}

/// What happens on the ground.
pub(crate) type Code = fn(&mut Ground) -> Result<(), String>;

impl Case {
    /// A dialogue.
    pub(crate) const fn script(name: &'static str, script: Script) -> Self {
        Self { name, quick: false, needs: &[], operation: None, run: Run::Script(script), late: false }
    }

    /// Whatever takes more than a dialogue.
    pub(crate) const fn code(name: &'static str, code: Code) -> Self {
        Self { name, quick: false, needs: &[], operation: None, run: Run::Code(code), late: false }
    }

    /// Part of every test run.
    pub(crate) const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    /// With programs that may not be installed.
    pub(crate) const fn needs(self, needs: &'static [&'static str]) -> Self {
        Self { needs, ..self }
    }

    /// Where io_uring has this operation.
    pub(crate) const fn with_operation(self, operation: u8) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// Begins before the agent, and starts it itself.
    pub(crate) const fn late(self) -> Self {
        Self { late: true, ..self }
    }

    /// Why it cannot be run here, if it cannot.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let missing = self.needs.iter().find(|program| !is_installed(program));
        let lacking = || self.operation.filter(|operation| !rings_can(*operation));
        missing
            .map(|program| format!("{program} is not installed"))
            .or_else(|| lacking().map(|operation| format!("this kernel's io_uring has no operation {operation}")))
    }

    /// Runs it with an agent of its own.
    pub(crate) fn run(&self) -> Result<Verdict, String> {
        let mut ground = Ground::new(self.name)?;
        if !self.late {
            ground.watch()?;
        }
        match (self.hold(&mut ground), ground.verdict()) {
            (Ok(()), verdict) => verdict,
            // What the agent has seen of a case that was not held to its end says the most about why.
            (Err(why), Ok(mut verdict)) => {
                verdict.fail(why);
                Ok(verdict)
            }
            (Err(why), Err(_)) => Err(why),
        }
    }
    /// Makes its traffic on a ground that is watched already, unless the case is late.
    pub(crate) fn hold(&self, ground: &mut Ground) -> Result<(), String> {
        match self.run {
            Run::Script(script) => script.hold(ground),
            Run::Code(code) => code(ground),
        }
    }
}

/// Whether the kernel's io_uring has `operation`.
fn rings_can(operation: u8) -> bool {
    let mut probe = Probe::new();
    IoUring::new(1).and_then(|ring| ring.submitter().register_probe(&mut probe)).is_ok()
        && probe.is_supported(operation)
}
