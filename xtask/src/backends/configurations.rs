// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The delivered configurations, loaded by the programs that they are for.
//!
//! In: a collector, and the files of `deploy/backends`. Out: whether its `validate` takes every file whose components it
//! has; vendors' exporters are in collectors of their own. That builds each component's configuration and asks it to check itself; nothing is connected to. The files for
//! spantap itself are validated by it.

use std::{
    fs,
    io::Write as _,
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
        } else if ![GOOGLE, XRAY, DATADOG].contains(&name.as_str()) {
            validate(collector, &name, &path)?;
        } else {
            continue;
        }
        good.push(name);
    }
    // A test of the test: validation looks at names.
    let misspelt =
        fs::read_to_string(root().join("deploy/backends/honeycomb.yaml"))?.replace("compression:", "compresion:");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("misspelt.yaml");
    fs::write(&path, misspelt)?;
    ensure!(validate(collector, "misspelt.yaml", &path).is_err(), "the collector takes a misspelt key");
    Ok(format!("the collector 0.158.0 and spantap take {}; the collector refuses a misspelt key", good.join(", ")))
}

/// Google's, by a collector that has its exporter.
pub(super) fn of_google(collector: &Path, _agent: &Path) -> Result<String> {
    validate(collector, GOOGLE, &root().join("deploy/backends").join(GOOGLE))?;
    Ok(format!("the collector 0.158.0 takes {GOOGLE}"))
}

/// X-Ray's.
pub(super) fn of_xray(collector: &Path, _agent: &Path) -> Result<String> {
    validate(collector, XRAY, &root().join("deploy/backends").join(XRAY))?;
    Ok(format!("the collector 0.159.0 takes {XRAY}"))
}

/// Datadog's, of which only what loads the exporter's settings can be built.
pub(super) fn of_datadog(loader: &Path, _agent: &Path) -> Result<String> {
    let text = fs::read_to_string(root().join("deploy/backends").join(DATADOG)).context("read Datadog's file")?;
    let text = SECRETS.iter().fold(text, |text, (name, secret)| text.replace(&format!("${{env:{name}}}"), secret));
    let config: Value = serde_saphyr::from_str(&text).context("understand Datadog's file")?;
    let settings = &config["exporters"]["datadog"];
    ensure!(settings.is_object(), "no exporter in {DATADOG}");
    let mut child = Command::new(loader).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("its standard input was piped")?.write_all(settings.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{DATADOG}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(format!("Datadog's exporter 0.158.0 takes its settings of {DATADOG}; its connector cannot be had"))
}

const GOOGLE: &str = "google-cloud-trace.yaml";
const XRAY: &str = "aws-xray.yaml";
const DATADOG: &str = "datadog.yaml";

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
    ensure!(!files.is_empty(), "no configurations in {}", folder.display());
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
