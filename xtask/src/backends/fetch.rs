// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the backends come from.
//!
//! In: nothing. Out: each one's program under `target/backends/bin`, made the first time it is asked for: Jaeger and the
//! collectors from Go's module proxy, checked against its checksum database, Zipkin from Maven's repository. What lies
//! there without a recipe beside it was put there by hand, and is taken as it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command::{answer, find, root, run};

/// Jaeger 2.13.0. Its tags of version 2 are no versions of Go's; 1.76.0 is the same commit.
pub(super) fn jaeger() -> Result<PathBuf> {
    made("jaeger", JAEGER, |folder, program| {
        fs::write(folder.join("go.mod"), JAEGER)?;
        take_sums(folder, "github.com/jaegertracing/jaeger@v1.76.0")?;
        let package = "github.com/jaegertracing/jaeger/cmd/jaeger";
        run(go(folder)?.args(["build", "-mod=mod", "-ldflags", "-s -w", "-o"]).arg(program).arg(package))
    })
}

/// The OpenTelemetry Collector 0.158.0, with the components of `collector-manifest.yaml`.
pub(super) fn collector() -> Result<PathBuf> {
    otelcol("otelcol", "0.158.0", include_str!("collector-manifest.yaml"))
}

/// The same release with Google's exporter: `google-manifest.yaml`.
pub(super) fn google() -> Result<PathBuf> {
    otelcol("otelcol-google", "0.158.0", include_str!("google-manifest.yaml"))
}

/// Another release with X-Ray's exporter, some of whose modules of 0.158.0 cannot be had: `xray-manifest.yaml`.
pub(super) fn xray() -> Result<PathBuf> {
    otelcol("otelcol-xray", "0.159.0", include_str!("xray-manifest.yaml"))
}

/// What loads the settings of Datadog's exporter 0.158.0 by its own code: `datadog.go`.
pub(super) fn datadog() -> Result<PathBuf> {
    let program = include_str!("datadog.go");
    made("datadog-settings", &format!("{DATADOG}{program}"), |folder, unfinished| {
        fs::write(folder.join("main.go"), program)?;
        fs::write(folder.join("go.mod"), DATADOG)?;
        // Its place among the modules; none of its packages is used, and it cannot be had.
        fs::create_dir_all(folder.join("none"))?;
        fs::write(folder.join("none/go.mod"), format!("module {CONTRIB}/internal/datadog\n\ngo 1.25.0\n"))?;
        take_sums(folder, &format!("{CONTRIB}/exporter/datadogexporter@v0.158.0"))?;
        run(go(folder)?.args(["build", "-mod=mod", "-ldflags", "-s -w", "-o"]).arg(unfinished).arg("."))
    })
}

/// A collector by its own builder.
fn otelcol(name: &str, release: &str, manifest: &str) -> Result<PathBuf> {
    made(name, manifest, |folder, program| {
        fs::write(folder.join("manifest.yaml"), manifest)?;
        let builder = format!("go.opentelemetry.io/collector/cmd/builder@v{release}");
        run(go(folder)?.env("GOBIN", folder).args(["install", "-ldflags", "-s -w", &builder]))?;
        let mut make = environment(Command::new(folder.join("builder")));
        run(make.current_dir(folder).args(["--config", "manifest.yaml", "--skip-compilation"]))?;
        run(go(&folder.join("build"))?.args(["build", "-ldflags", "-s -w", "-o"]).arg(program).arg("."))
    })
}

/// Zipkin's server 3.6.1.
pub(super) fn zipkin() -> Result<PathBuf> {
    if find("java").is_none() {
        bail!("Zipkin needs Java 17: apt-get install openjdk-17-jre-headless");
    }
    made("zipkin.jar", ZIPKIN, |folder, program| {
        let maven = find("mvn").context("Zipkin is fetched with Maven: apt-get install maven")?;
        let mut get = Command::new(maven);
        get.current_dir(folder).args([
            "-q",
            "-B",
            "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
            ZIPKIN,
            "-Dmdep.stripVersion=true",
        ]);
        run(get.arg(format!("-DoutputDirectory={}", folder.display())))?;
        fs::rename(folder.join("zipkin-server-exec.jar"), program).context("take Zipkin's file")
    })
}

/// The program `name`, made by `make` in a folder of its own, unless the one that is there was made by the same `recipe`.
fn made(name: &str, recipe: &str, make: impl FnOnce(&Path, &Path) -> Result<()>) -> Result<PathBuf> {
    let all = root().join("target/backends");
    let (program, made_by) = (all.join("bin").join(name), all.join("bin").join(format!("{name}.recipe")));
    if !program.exists() || fs::read_to_string(&made_by).is_ok_and(|known| known != recipe) {
        let folder = all.join("work").join(name);
        fs::create_dir_all(&folder)?;
        fs::create_dir_all(all.join("bin"))?;
        // Half a program is none.
        let unfinished = all.join("bin").join(format!("{name}.new"));
        make(&folder, &unfinished).with_context(|| format!("make {name}"))?;
        fs::write(&made_by, recipe)?;
        fs::rename(&unfinished, &program)?;
    }
    Ok(program)
}

/// The sums of a module's own modules go with it: whoever requires one of this size would have to collect them anew.
fn take_sums(folder: &Path, module: &str) -> Result<()> {
    let described = answer(go(folder)?.args(["mod", "download", "-json", module]));
    let described = described.with_context(|| format!("fetch the module {module}"))?;
    let described: serde_json::Value = serde_json::from_str(&described)?;
    let sums = Path::new(described["Dir"].as_str().context("a module has a folder")?).join("go.sum");
    fs::write(folder.join("go.sum"), fs::read(sums)?).context("take a module's sums")
}

fn go(folder: &Path) -> Result<Command> {
    let go = find("go").or_else(|| Some(PathBuf::from("/usr/local/go/bin/go")).filter(|go| go.exists()));
    let mut command =
        environment(Command::new(go.context("this backend is built with Go 1.25 or newer: https://go.dev/dl")?));
    command.current_dir(folder);
    Ok(command)
}

fn environment(mut command: Command) -> Command {
    command.envs([("CGO_ENABLED", "0"), ("GOFLAGS", "-trimpath -buildvcs=false")]);
    command
}

const ZIPKIN: &str = "-Dartifact=io.zipkin:zipkin-server:3.6.1:jar:exec";

const JAEGER: &str = "\
module jaegerbuild

go 1.24.6

require github.com/jaegertracing/jaeger v1.76.0

replace github.com/Shopify/sarama => github.com/Shopify/sarama v1.33.0
";

const CONTRIB: &str = "github.com/open-telemetry/opentelemetry-collector-contrib";

const DATADOG: &str = "\
module datadogsettings

go 1.25.0

require (
	github.com/open-telemetry/opentelemetry-collector-contrib/pkg/datadog v0.158.0
	go.opentelemetry.io/collector/confmap v1.64.0
)

replace github.com/open-telemetry/opentelemetry-collector-contrib/internal/datadog => ./none
";
