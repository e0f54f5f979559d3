// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the services and their instrumentation come from.
//!
//! In: a language. Out: its folder under `target/bench/alternatives`, filled from that language's own registry the first
//! time, and again when a version or a source changes here. Nothing is installed anywhere else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::Language;
use crate::command::{find, root, run};

/// The folder of a language.
pub(super) fn folder(language: Language) -> PathBuf {
    root().join("target/bench/alternatives").join(language.name())
}

/// Makes the service in `language`, if it is not there as it is described here.
pub(super) fn install(language: Language) -> Result<()> {
    let folder = folder(language);
    let stamp = folder.join("installed");
    let wanted = sources(language).map(|(_, text)| text).join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    // Half an installation is none.
    fs::remove_file(&stamp).ok();
    for (name, text) in sources(language) {
        fs::write(folder.join(name), text).with_context(|| format!("write {name}"))?;
    }
    match language {
        Language::Go => go(&folder),
        Language::Java => java(&folder),
        Language::Node => node(&folder),
        Language::Python => python(&folder),
    }
    .with_context(|| format!("install the service in {}", language.label()))?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}

/// The service, and what it needs: names in its folder, and contents.
fn sources(language: Language) -> [(&'static str, &'static str); 2] {
    match language {
        Language::Go => {
            [("service.go", include_str!("services/service.go")), ("go.mod", include_str!("services/go.mod.txt"))]
        }
        Language::Java => [("Service.java", include_str!("services/Service.java")), ("agent.txt", JAVA_AGENT)],
        Language::Node => [
            ("service.js", include_str!("services/service.js")),
            ("package.json", include_str!("services/package.json")),
        ],
        Language::Python => [
            ("service.py", include_str!("services/service.py")),
            ("requirements.txt", include_str!("services/requirements.txt")),
        ],
    }
}

fn go(folder: &Path) -> Result<()> {
    let go = find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.exists()));
    let go = go.context("it is built with Go 1.25 or newer: https://go.dev/dl")?;
    for arguments in [&["mod", "tidy"][..], &["build", "-o", "service", "."]] {
        run(Command::new(&go).args(arguments).current_dir(folder).env("CGO_ENABLED", "0").env("GOWORK", "off"))?;
    }
    Ok(())
}

fn java(folder: &Path) -> Result<()> {
    let maven = find("mvn").context("the agent is fetched with Maven: apt-get install maven")?;
    let mut get = Command::new(maven);
    get.current_dir(folder).args(["-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"]);
    let (name, version) = JAVA_AGENT.trim_end_matches(".jar").rsplit_once('-').context("a name with a version")?;
    run(get
        .arg(format!("-Dartifact=io.opentelemetry.javaagent:{name}:{version}:jar"))
        .arg(format!("-DoutputDirectory={}", folder.display())))?;
    run(Command::new("javac").arg("Service.java").current_dir(folder))
}

fn node(folder: &Path) -> Result<()> {
    let npm = find("npm").context("the packages are fetched with npm: apt-get install npm")?;
    run(Command::new(npm).args(["install", "--silent", "--no-audit", "--no-fund"]).current_dir(folder))
}

fn python(folder: &Path) -> Result<()> {
    run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    run(Command::new(folder.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"])
        .current_dir(folder))
}

/// The file of OpenTelemetry's agent for Java.
pub(super) const JAVA_AGENT: &str = "opentelemetry-javaagent-2.33.1.jar";
