// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Says what this machine can do, and how to make it do the rest.
//!
//! In: files of the machine, the configured collector, the probes. Out: a [`Report`]: one verdict a line, each with the
//! fix where there is one. It changes nothing, and the probes that it attaches are gone when it returns.

pub mod machine;

pub mod probes;

mod collector;

mod evidence;

mod exchange;

use std::fmt::Write as _;

use serde::Serialize;

pub use self::exchange::converse;
use self::machine::Machine;
use crate::config::{Colour, DoctorConfig};

/// One verdict.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Check {
    /// What was checked: a stable name.
    pub name: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, and what follows from it.
    pub finding: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// How something is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Neither good nor bad.
    Info,
    /// Something will be missing.
    Warn,
    /// Nothing can be traced.
    Fail,
    /// Could not be checked.
    Skip,
}

impl Verdict {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "[ ok ]",
            Self::Info => "[info]",
            Self::Warn => "[warn]",
            Self::Fail => "[FAIL]",
            Self::Skip => "[skip]",
        }
    }

    /// Parameters of "select graphic rendition".
    fn rendition(self) -> &'static str {
        match self {
            Self::Ok => "32",
            Self::Info | Self::Skip => "2",
            Self::Warn => "33",
            Self::Fail => "1;31",
        }
    }
}

impl Check {
    /// A verdict without a fix.
    pub fn new(name: &'static str, verdict: Verdict, finding: impl Into<String>) -> Self {
        Self { name, verdict, finding: finding.into(), fix: None }
    }

    /// The verdict with what to do.
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// The attached probes, as far as the doctor needs them.
pub trait Probes {
    /// What became of each hook.
    fn hooks(&self) -> Vec<Check>;

    /// Hands over what has been captured since the last call: the socket's cookie and the payload of each data record.
    fn listen(&mut self, heard: &mut dyn FnMut(u64, &[u8]));
}

/// Attaches probes that capture everything, or says why that cannot be.
pub type Attach<'a> = &'a dyn Fn() -> Result<Box<dyn Probes>, Check>;

/// Every verdict.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Report {
    /// In the order of reading.
    pub checks: Vec<Check>,
}

/// Makes every check.
pub fn examine(config: &DoctorConfig, machine: &dyn Machine, attach: Attach<'_>) -> Report {
    let mut checks = machine::checks(machine);
    match attach() {
        Ok(mut probes) => {
            checks.extend(probes.hooks());
            checks.push(exchange::check(&mut *probes));
        }
        Err(check) => {
            let reason = "round trip: not tried, since the probes are not attached";
            checks.extend([check, Check::new(exchange::NAME, Verdict::Skip, reason)]);
        }
    }
    checks.extend(collector::checks(&config.destinations));
    checks.extend(evidence::checks());
    Report { checks }
}

impl Report {
    /// Whether something can be traced here.
    pub fn is_supported(&self) -> bool {
        self.count(Verdict::Fail) == 0
    }

    /// One line a verdict, the fix below it, the result last.
    pub fn text(&self, colour: Colour) -> String {
        let mut text = String::new();
        for check in &self.checks {
            let label = check.verdict.label();
            // Writing to a `String` cannot fail.
            let _ = match colour {
                Colour::On => write!(text, "\x1b[{}m{label}\x1b[0m {}", check.verdict.rendition(), check.finding),
                Colour::Off => write!(text, "{label} {}", check.finding),
            };
            text.push('\n');
            if let Some(fix) = &check.fix {
                let _ = writeln!(text, "       → {fix}");
            }
        }
        text.push_str(&self.result());
        text
    }

    /// One JSON object, ended.
    pub fn json(&self) -> String {
        let object = serde_json::json!({ "supported": self.is_supported(), "checks": self.checks });
        format!("{object}\n")
    }

    fn result(&self) -> String {
        let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let warnings = match self.count(Verdict::Warn) {
            0 => String::new(),
            n => format!(", {}", counted(n, "warning")),
        };
        match self.count(Verdict::Fail) {
            0 => format!("Result: spantap works here{warnings}.\n"),
            n => format!("Result: {}{warnings}; spantap cannot trace here.\n", counted(n, "problem")),
        }
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            checks: vec![
                Check::new("kernel", Verdict::Ok, "kernel 6.18"),
                Check::new("lockdown", Verdict::Warn, "lockdown is on").fix("turn it off"),
                Check::new("privileges", Verdict::Fail, "CAP_BPF is missing").fix("run as root"),
            ],
        }
    }

    #[test]
    fn a_report_is_read_from_top_to_bottom() {
        insta::assert_snapshot!(report().text(Colour::Off), @r"
        [ ok ] kernel 6.18
        [warn] lockdown is on
               → turn it off
        [FAIL] CAP_BPF is missing
               → run as root
        Result: 1 problem, 1 warning; spantap cannot trace here.
        ");
        assert!(report().text(Colour::On).contains("\x1b[1;31m[FAIL]\x1b[0m"));
    }

    #[test]
    fn only_a_failed_check_makes_a_machine_unsupported() {
        let mut report = report();
        assert!(!report.is_supported());
        report.checks.pop();
        assert!(report.is_supported());
        insta::assert_snapshot!(report.json(), @r#"{"checks":[{"finding":"kernel 6.18","name":"kernel","verdict":"ok"},{"finding":"lockdown is on","fix":"turn it off","name":"lockdown","verdict":"warn"}],"supported":true}"#);
    }

    #[test]
    fn without_probes_the_round_trip_is_not_tried() {
        let config = DoctorConfig { tier: None, json: false, destinations: Vec::new(), colour: Colour::Off };
        let refused = || Err(Check::new("probes", Verdict::Fail, "refused"));
        let report = examine(&config, &machine::ThisMachine, &refused);
        let round_trip = report.checks.iter().find(|check| check.name == exchange::NAME);
        assert_eq!(round_trip.map(|check| check.verdict), Some(Verdict::Skip));
        assert!(!report.is_supported());
    }
}
