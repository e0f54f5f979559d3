// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The delivered configurations, loaded by the programs that they are for.
//!
//! In: a collector, and the files of `deploy/backends`. Out: whether its `validate` takes every file whose components it
//! has. That builds each component's configuration and asks it to check itself; nothing is connected to. The files for
//! spantap itself are validated by it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::root;

/// Those of components that nearly every collector has, and those of spantap.
pub(super) fn common(collector: &Path, agent: &Path) -> Result<String> {
    let mut good = Vec::new();
    for path in delivered()? {
        let name = name(&path);
        if name.ends_with(".spantap.yaml") {
            let mut command = Command::new(agent);
            validated(&name, command.args(["--config"]).arg(&path).arg("--validate"))?;
        } else if VENDORS.iter().all(|vendor| vendor.file != name) {
            validate(collector, &name, &path)?;
        } else {
            continue;
        }
        good.push(name);
    }
    Ok(format!("the collector 0.158.0 and spantap take {}", good.join(", ")))
}

/// Google's and Datadog's, by the collector that has their exporters.
pub(super) fn of_vendors(collector: &Path, _agent: &Path) -> Result<String> {
    by_vendors_exporter(collector, "0.158.0")
}

/// X-Ray's.
pub(super) fn of_xray(collector: &Path, _agent: &Path) -> Result<String> {
    by_vendors_exporter(collector, "0.159.0")
}

fn by_vendors_exporter(collector: &Path, release: &str) -> Result<String> {
    let mut said = Vec::new();
    for Vendor { file, without, .. } in VENDORS.into_iter().filter(|vendor| vendor.release == release) {
        let path = root().join("deploy/backends").join(file);
        if without.is_empty() {
            validate(collector, file, &path)?;
            said.push(file.to_owned());
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {file}"))?;
        let mut config: Value = serde_saphyr::from_str(&text).with_context(|| format!("understand {file}"))?;
        remove(&mut config, without);
        let folder = tempfile::tempdir()?;
        let rest = folder.path().join(file);
        // Whatever is JSON is YAML.
        fs::write(&rest, config.to_string())?;
        validate(collector, file, &rest)?;
        said.push(format!("{file} without its {without}"));
    }
    Ok(format!("the collector {release} takes {}", said.join(" and ")))
}

/// A file with an exporter that only a collector built for it has.
struct Vendor {
    file: &'static str,
    /// Of the collector that has it.
    release: &'static str,
    /// A component that cannot be had, and is taken out before the rest is validated.
    without: &'static str,
}

const VENDORS: [Vendor; 3] = [
    Vendor { file: "google-cloud-trace.yaml", release: "0.158.0", without: "" },
    Vendor { file: "datadog.yaml", release: "0.158.0", without: "datadog/connector" },
    Vendor { file: "aws-xray.yaml", release: "0.159.0", without: "" },
];

/// What the files take from the environment: nobody's.
const SECRETS: [(&str, &str); 7] = [
    ("HONEYCOMB_API_KEY", "x"),
    ("NEW_RELIC_LICENSE_KEY", "x"),
    ("LIGHTSTEP_ACCESS_TOKEN", "x"),
    ("GOOGLE_CLOUD_PROJECT", "x"),
    ("AWS_REGION", "eu-central-1"),
    ("DD_API_KEY", "0123456789abcdef0123456789abcdef"),
    ("DD_SITE", "datadoghq.eu"),
];

fn delivered() -> Result<Vec<PathBuf>> {
    let folder = root().join("deploy/backends");
    let mut files = Vec::new();
    for file in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        files.push(file?.path());
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    ensure!(files.len() > VENDORS.len(), "no configurations in {}", folder.display());
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn validate(collector: &Path, name: &str, path: &Path) -> Result<()> {
    validated(name, Command::new(collector).arg("validate").arg("--config").arg(path))
}

fn validated(name: &str, command: &mut Command) -> Result<()> {
    let output = command.envs(SECRETS).env("OUT", std::env::temp_dir()).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("validate {name}"))?;
    if !output.status.success() {
        bail!("{name}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Takes a component out of a collector's configuration: where it is set up, where pipelines name it, and pipelines that
/// had no other.
fn remove(config: &mut Value, component: &str) {
    for kind in ["receivers", "processors", "exporters", "connectors"] {
        if let Some(components) = config.get_mut(kind).and_then(Value::as_object_mut) {
            components.remove(component);
        }
    }
    // A section that is empty is set up as nothing, which is not taken.
    if let Some(sections) = config.as_object_mut() {
        sections.retain(|_, section| section.as_object().is_none_or(|section| !section.is_empty()));
    }
    if let Some(pipelines) = config.pointer_mut("/service/pipelines").and_then(Value::as_object_mut) {
        for pipeline in pipelines.values_mut() {
            for list in pipeline.as_object_mut().into_iter().flat_map(|pipeline| pipeline.values_mut()) {
                if let Some(names) = list.as_array_mut() {
                    names.retain(|name| name != component);
                }
            }
        }
        let lacks = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
        pipelines.retain(|_, pipeline| !lacks(&pipeline["receivers"]) && !lacks(&pipeline["exporters"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_component_goes_with_the_pipelines_that_had_no_other() {
        let mut config = json!({
            "connectors": {"c": {}},
            "exporters": {"e": {}},
            "service": {"pipelines": {
                "traces": {"receivers": ["r"], "exporters": ["c", "e"]},
                "metrics": {"receivers": ["c"], "exporters": ["e"]},
            }},
        });
        remove(&mut config, "c");
        let pipelines = json!({"traces": {"receivers": ["r"], "exporters": ["e"]}});
        assert_eq!(config, json!({"exporters": {"e": {}}, "service": {"pipelines": pipelines}}));
    }

    #[test]
    fn every_file_of_a_vendor_is_delivered() {
        let delivered: Vec<_> = delivered().unwrap().iter().map(|path| name(path)).collect();
        for vendor in VENDORS {
            assert!(delivered.iter().any(|name| name == vendor.file), "{}", vendor.file);
        }
    }
}
