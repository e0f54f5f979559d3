// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a configuration that was read again changes in an agent that runs.
//!
//! In: the configuration in force, and the new one. Out: what can be applied at once, and what waits for a restart, by
//! the names that the file has for them. It applies nothing and reads nothing.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{Config, Output};

/// How a new configuration differs from the one in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// Which processes and sockets are traced.
    pub selection: bool,
    /// Attributes of every resource.
    pub resource: bool,
    /// Which traces are exported.
    pub sampling: bool,
    /// What requests are called.
    pub routes: bool,
    /// What parsers tell and hide.
    pub disclosure: bool,
    /// What spans get or lose on their way out.
    pub edits: bool,
    /// Who gets the spans of some processes.
    pub targets: bool,
    /// What differs and stays as it was until the agent starts again.
    pub restart: Vec<&'static str>,
}

impl Change {
    /// From `old` to `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let (was, is) = (&old.output, &new.output);
        let waits = [
            ("export", was.destinations != is.destinations || was.limits != is.limits),
            ("metrics", was.metrics != is.metrics || was.metric_destinations != is.metric_destinations),
            ("print", was.print != is.print),
            ("parents", was.parents != is.parents),
            ("budget", old.budget != new.budget),
            ("tier", old.tier != new.tier),
            ("duration", old.duration != new.duration),
            ("quiet", old.quiet != new.quiet),
        ];
        Self {
            selection: old.selection != new.selection,
            resource: old.resource != new.resource,
            sampling: old.output.sampling != new.output.sampling,
            routes: old.output.routes != new.output.routes,
            disclosure: old.disclosure != new.disclosure,
            edits: old.output.edits != new.output.edits,
            targets: old.output.target_exports != new.output.target_exports,
            restart: waits.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect(),
        }
    }

    /// What can be applied, by name.
    pub fn applied(&self) -> Vec<&'static str> {
        let parts = [
            ("selection", self.selection),
            ("resource", self.resource),
            ("sampling", self.sampling),
            ("routes", self.routes),
            ("capture and redact", self.disclosure),
            ("attributes", self.edits),
            ("targets", self.targets),
        ];
        parts.into_iter().filter_map(|(name, changed)| changed.then_some(name)).collect()
    }

    /// Takes over into `old` what can be applied of `new`.
    pub fn apply(old: &mut Config, new: Config) {
        let Config {
            selection,
            resource,
            disclosure,
            output: Output { sampling, routes, edits, target_exports, .. },
            ..
        } = new;
        (old.selection, old.resource, old.disclosure) = (selection, resource, disclosure);
        (old.output.sampling, old.output.routes, old.output.edits) = (sampling, routes, edits);
        old.output.target_exports = target_exports;
    }
}

/// One line for people.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.applied().as_slice() {
            [] => f.write_str("the configuration was read again: nothing to apply")?,
            parts => write!(f, "the configuration was read again: {} as it says now", parts.join(", "))?,
        }
        if !self.restart.is_empty() {
            write!(f, "; needs a restart: {}", self.restart.join(", "))?;
        }
        Ok(())
    }
}

/// Notices that the links on the way to a file lead elsewhere, as when Kubernetes has put a new version of a `ConfigMap`
/// in place (<https://kubernetes.io/docs/concepts/configuration/configmap/#mounted-configmaps-are-updated-automatically>).
/// A file that is written in place is not noticed: it might be half written.
#[derive(Clone, Debug)]
pub struct Swaps {
    path: PathBuf,
    leads_to: Option<PathBuf>,
}

impl Swaps {
    /// Of the file at `path`, from now on.
    pub fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf(), leads_to: fs::canonicalize(path).ok() }
    }

    /// Whether it was swapped since the last look.
    pub fn look(&mut self) -> bool {
        // Between the old and the new version there may be none.
        let Ok(now) = fs::canonicalize(&self.path) else { return false };
        self.leads_to.replace(now.clone()) != Some(now)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::{Command, Decision, Screen, decide};

    /// What a file with this text decides.
    fn config(text: &str) -> Config {
        let line = ["spantap", "--config", "c.yaml"].map(Into::into);
        match decide(line, &&[("c.yaml", text)][..], Screen::default()) {
            Ok(Decision { command: Command::Run(config), .. }) => config,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn what_can_be_applied_is_and_the_rest_is_named() {
        const NOTHING: &str = "the configuration was read again: nothing to apply";
        for (old, new, told) in [
            ("port: [80]", "port: 80 # the same", NOTHING),
            ("port: [80]", "port: [81]", "the configuration was read again: selection as it says now"),
            ("", "exclude: [node]", "the configuration was read again: selection as it says now"),
            ("resource: {a: b}", "resource: {a: c}", "the configuration was read again: resource as it says now"),
            (
                "sampling: {root: always_off}",
                "routes: {mode: off}",
                "the configuration was read again: sampling, routes as it says now",
            ),
            (
                "export: {otlp: {endpoint: 'http://a:4318'}}",
                "export: {otlp: {endpoint: 'http://b:4318'}}",
                "the configuration was read again: nothing to apply; needs a restart: export, metrics",
            ),
            (
                "",
                "{user: [root], tier: b, duration: 5s, quiet: true, export: {batch: {queue: 9}}}",
                "the configuration was read again: selection as it says now; needs a restart: export, tier, duration, quiet",
            ),
            (
                "capture: {server: {request_headers: [x-a]}}",
                "{redact: {emails: true}, attributes: [{drop: [a]}]}",
                "the configuration was read again: capture and redact, attributes as it says now",
            ),
            (
                "print: text",
                "{print: json, metrics: {listen: '127.0.0.1:9464'}}",
                "the configuration was read again: nothing to apply; needs a restart: metrics, print",
            ),
        ] {
            let (mut old, new) = (config(old), config(new));
            let change = Change::between(&old, &new);
            assert_eq!(change.to_string(), told);
            Change::apply(&mut old, new.clone());
            let left = Change::between(&old, &new);
            assert_eq!((left.applied(), left.restart), (vec![], change.restart), "{told}");
        }
    }

    #[test]
    fn a_swap_is_a_link_that_leads_elsewhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        for version in ["1", "2"] {
            fs::create_dir(at(version)).expect("a folder");
            fs::write(at(version).join("c.yaml"), "").expect("a file");
        }
        // As the kubelet does it: the file is a link through `..data`, which is replaced in one step.
        symlink(at("1"), at("..data")).expect("a link");
        symlink("..data/c.yaml", at("c.yaml")).expect("a link");
        let mut swaps = Swaps::of(&at("c.yaml"));
        assert!(!swaps.look());
        fs::write(at("1").join("c.yaml"), "port: 80").expect("in place");
        assert!(!swaps.look(), "it may be half written");
        symlink(at("2"), at("..data_tmp")).expect("a link");
        fs::rename(at("..data_tmp"), at("..data")).expect("in one step");
        assert!(swaps.look() && !swaps.look());
        fs::remove_file(at("..data")).expect("gone");
        assert!(!swaps.look(), "there is no new version");
    }
}
