// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Chooses the name of a service.
//!
//! In: facts about its process. Out: a name that is never empty. It does not look beyond the one process: what an
//! orchestrator knows of it is another stage's business.

use super::{cgroup, command_line, file_name};
use crate::process::ProcessFacts;

/// The first of: `OTEL_SERVICE_NAME`; `service.name` among the `declared` attributes; the systemd unit; the script,
/// module or jar that an interpreter runs; the executable's file name; `unknown_service`.
pub(super) fn choose(facts: &ProcessFacts, declared: Option<&str>) -> String {
    let explicit = facts.otel_service_name.as_deref().or(declared).filter(|name| !name.is_empty());
    if let Some(name) = explicit {
        return bounded(name);
    }
    let found = cgroup::unit(&facts.cgroup).or_else(|| command_line::program(facts)).or_else(|| {
        let name = file_name(&facts.executable);
        (!name.is_empty()).then(|| name.to_owned())
    });
    match found {
        Some(name) => bounded(&name),
        // "`unknown_service:` concatenated with process.executable.name, e.g. `unknown_service:bash`. If
        // process.executable.name is not available, the value MUST be set to `unknown_service`"
        // (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/service/>). The kernel's name of the
        // process begins as the executable's; a pid would make a service of every process.
        None if facts.command.is_empty() => "unknown_service".to_owned(),
        None => bounded(&format!("unknown_service:{}", facts.command)),
    }
}

fn bounded(name: &str) -> String {
    name[..name.floor_char_boundary(MAX_NAME_BYTES)].to_owned()
}

/// A file name's limit (NAME_MAX); only a declared name can be longer.
const MAX_NAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    /// A process for which every source has a name.
    fn known() -> ProcessFacts {
        ProcessFacts {
            command: "comm".to_owned(),
            executable: "/usr/bin/python3.11".to_owned(),
            arguments: ["python3", "script.py"].map(str::to_owned).to_vec(),
            otel_service_name: Some("variable".to_owned()),
            cgroup: "/system.slice/unit.service".to_owned(),
            ..ProcessFacts::default()
        }
    }

    #[test]
    fn each_source_stands_in_for_the_one_before() {
        let mut facts = known();
        assert_eq!(choose(&facts, Some("declared")), "variable");
        facts.otel_service_name = None;
        assert_eq!(choose(&facts, Some("declared")), "declared");
        assert_eq!(choose(&facts, Some("")), "unit");
        assert_eq!(choose(&facts, None), "unit");
        facts.cgroup.clear();
        assert_eq!(choose(&facts, None), "script");
        facts.arguments.clear();
        assert_eq!(choose(&facts, None), "python3.11");
        facts.executable.clear();
        assert_eq!(choose(&facts, None), "unknown_service:comm");
        facts.command.clear();
        assert_eq!(choose(&facts, None), "unknown_service");
    }

    #[test]
    fn a_name_has_the_length_of_a_file_name() {
        let facts = ProcessFacts { otel_service_name: Some("é".repeat(200)), ..known() };
        assert_eq!(choose(&facts, None), "é".repeat(127));
    }
}
