// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: what `deploy/` asks for is well-formed, and the same capabilities everywhere.
//!
//! In: the manifests and the systemd unit. Out: failed tests. Whether a cluster accepts them is not tested here.

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        process::{Command, Output},
    };

    use serde_json::Value;

    use crate::{
        command::{find, root},
        tidy::files,
    };

    /// What the agent needs instead of all of root's power; `agent/src` says what each is for.
    const CAPABILITIES: [&str; 5] = ["BPF", "CHECKPOINT_RESTORE", "DAC_READ_SEARCH", "PERFMON", "SYS_PTRACE"];

    const UNIT: &str = "deploy/systemd/spantap.service";

    #[test]
    fn manifests_are_objects_of_kubernetes() {
        for file in files("deploy/kubernetes", &[".yaml"]) {
            for object in documents(&file.text) {
                for field in ["/apiVersion", "/kind", "/metadata/name"] {
                    assert!(object.pointer(field).is_some_and(Value::is_string), "{}: no {field}", file.path);
                }
            }
        }
    }

    #[test]
    fn the_daemon_set_selects_its_own_pods() {
        let spec = &daemon_set()["spec"];
        assert_eq!(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]);
        assert!(spec["selector"]["matchLabels"].is_object());
    }

    #[test]
    fn the_daemon_set_mounts_what_it_declares() {
        let pod = &daemon_set()["spec"]["template"]["spec"];
        let names = |list: &Value| -> BTreeSet<String> {
            list.as_array().expect("a list").iter().map(|item| text(&item["name"])).collect()
        };
        assert_eq!(names(&pod["volumes"]), names(&pod["containers"][0]["volumeMounts"]));
    }

    #[test]
    fn the_daemon_set_asks_for_these_capabilities_and_no_privilege() {
        let daemon_set = daemon_set();
        let security = &daemon_set["spec"]["template"]["spec"]["containers"][0]["securityContext"];
        let added: BTreeSet<_> = security["capabilities"]["add"].as_array().expect("a list").iter().map(text).collect();
        assert_eq!(added, CAPABILITIES.map(str::to_owned).into());
        assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
        assert_eq!(security["privileged"], Value::Bool(false));
    }

    #[test]
    fn the_unit_asks_for_the_same_capabilities() {
        let unit = fs::read_to_string(root().join(UNIT)).expect("the unit is there");
        for field in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
            let value = unit.lines().find_map(|line| line.strip_prefix(field)).expect("the field is there");
            let names: BTreeSet<_> =
                value.split_whitespace().map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
            assert_eq!(names, CAPABILITIES.map(str::to_owned).into(), "{field}");
        }
    }

    #[test]
    fn systemd_accepts_the_unit() {
        let Some(systemd_analyze) = find("systemd-analyze") else {
            eprintln!("skipped: systemd-analyze is not installed");
            return;
        };
        let unit = fs::read_to_string(root().join(UNIT)).expect("the unit is there");
        // Verification looks for the executable, which is not installed here: this one is executable for sure.
        let program = std::env::current_exe().expect("we are running");
        let verified = unit.replace("ExecStart=/usr/local/bin/spantap", &format!("ExecStart={}", program.display()));
        assert_ne!(unit, verified, "the unit starts /usr/local/bin/spantap");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let copy = folder.path().join("spantap.service");
        fs::write(&copy, verified).expect("a temporary file");
        let output = Command::new(systemd_analyze).args(["verify", "--man=no"]).arg(&copy).output().expect("started");
        let Output { status, stderr, .. } = output;
        let complaints = String::from_utf8_lossy(&stderr);
        // It also loads what the unit depends on, and complains of the machine's own units.
        let ours: Vec<_> = complaints.lines().filter(|line| line.contains("spantap.service")).collect();
        assert!(status.success() && ours.is_empty(), "{complaints}");
    }

    fn daemon_set() -> Value {
        let text = fs::read_to_string(root().join("deploy/kubernetes/daemonset.yaml")).expect("the manifest is there");
        let is_daemon_set = |object: &Value| object["kind"] == "DaemonSet";
        documents(&text).into_iter().find(is_daemon_set).expect("a DaemonSet in the manifest")
    }

    fn documents(text: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"))
    }

    fn text(value: &Value) -> String {
        value.as_str().expect("a string").to_owned()
    }
}
