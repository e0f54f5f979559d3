// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a model needs beyond its own source, and how it gets here.
//!
//! In: the parts of one model. Out: a machine that has them, or the reason why not. They are brought for the models
//! that run and only where `SPANTAP_PARENTS_FETCH` says so, by the clients of the languages, into one folder below the
//! build's; only Debian's packages are installed for the machine. It never changes what is there.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One thing that a model needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// A program on the path, or a file, which a package of Debian's brings.
    Program { file: &'static str, package: &'static str },
    /// The packages of `requirements.txt` in a virtual environment.
    Venv,
    /// `backend.go` or another single file, compiled.
    Go { source: &'static str },
    /// A single file, compiled.
    C { source: &'static str },
    /// The crate in `rust`, compiled.
    Crate,
    /// A single file, compiled, with the archives of `jars/pom.xml` where it comes after those.
    Java { source: &'static str },
    /// The archives of `jars/pom.xml`.
    Jars,
    /// A JDK of this version at least.
    Jdk { least: u32 },
}

impl Part {
    /// Sees to it that it is here.
    pub(crate) fn provide(self) -> Result<(), String> {
        match self {
            Self::Program { file, package } => program(file, package),
            Self::Venv => venv(),
            Self::Go { source: name } => {
                program("go", "golang-go")?;
                run(Command::new("go").args(["build", "-o"]).args([built(name), source(name)]))
            }
            Self::C { source: name } => {
                program("cc", "gcc")?;
                fs::create_dir_all(folder().join("bin")).map_err(|e| format!("make a folder for {name}: {e}"))?;
                run(Command::new("cc").args(["-O1", "-Wall", "-o"]).args([built(name), source(name)]))
            }
            Self::Crate => model_crate(),
            Self::Java { source: name } => {
                program("javac", "default-jdk-headless")?;
                run(Command::new("javac").arg("-cp").arg(class_path()).arg("-d").args([classes(), source(name)]))
            }
            Self::Jars => jars(),
            Self::Jdk { least } => java(least).map(drop),
        }
    }
}

/// A file of the services.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/models").join(name)
}

/// What a source was compiled to.
pub(crate) fn built(source: &str) -> PathBuf {
    folder().join("bin").join(source.replace(['.', '/'], "-"))
}

/// A program of the virtual environment.
pub(crate) fn in_venv(program: &str) -> PathBuf {
    folder().join("venv/bin").join(program)
}

/// The executable of the crate in `rust`.
pub(crate) fn crate_binary() -> PathBuf {
    folder().join("rust/debug/model")
}

/// Every archive of `jars/pom.xml`, and what was compiled.
pub(crate) fn class_path() -> OsString {
    let mut path = folder().join("jars/*").into_os_string();
    path.push(":");
    path.push(classes());
    path
}

/// A JDK of version `least` or newer: the one on the path, else the newest of those that distributions keep in a folder.
pub(crate) fn java(least: u32) -> Result<PathBuf, String> {
    if java_version(Path::new("java")).is_some_and(|version| version >= least) {
        return Ok("java".into());
    }
    let kept = fs::read_dir("/usr/lib/jvm").into_iter().flatten().flatten().map(|entry| entry.path().join("bin/java"));
    let newest = kept.filter_map(|java| Some((java_version(&java)?, java))).max();
    let newest = newest.filter(|(version, _)| *version >= least).map(|(_, java)| java);
    newest.ok_or_else(|| format!("there is no JDK {least} or newer on this machine"))
}

fn classes() -> PathBuf {
    folder().join("classes")
}

/// Where everything is kept between runs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("models")
}

fn program(file: &str, package: &str) -> Result<(), String> {
    if is_on_path(file) {
        return Ok(());
    }
    may_fetch(file)?;
    if !is_on_path("apt-get") {
        return Err(format!("{file} is not installed, and this machine has no apt to install {package} with"));
    }
    // A package that begins to serve when it is installed would take ports and memory that are none of its business.
    let install = ["install", "-y", "-q", "--no-install-recommends", package];
    let apt = |arguments: &[&str]| {
        run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
    };
    // Lists of packages may be old, or not there yet.
    apt(&install).or_else(|_| apt(&["-q", "update"]).and_then(|()| apt(&install)))?;
    if is_on_path(file) { Ok(()) } else { Err(format!("{file} is not installed, and {package} does not bring it")) }
}

fn venv() -> Result<(), String> {
    program("python3", "python3-venv")?;
    let (venv, wanted) = (folder().join("venv"), source("requirements.txt"));
    once(&venv, &[&wanted], || {
        run(Command::new("python3").args(["-m".as_ref(), "venv".as_ref(), venv.as_os_str()]))?;
        run(Command::new(in_venv("pip")).args(["install", "-q", "-r"]).arg(&wanted))
    })
}

fn model_crate() -> Result<(), String> {
    let manifest = source("rust/Cargo.toml");
    if !crate_binary().exists() {
        may_fetch("what the crate in Rust depends on")?;
    }
    // Cargo itself sees whether anything has changed.
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    run(cargo
        .args(["build", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(folder().join("rust")))
}

fn jars() -> Result<(), String> {
    program("javac", "default-jdk-headless")?;
    let (jars, wanted) = (folder().join("jars"), source("jars/pom.xml"));
    once(&jars, &[&wanted], || {
        program("mvn", "maven")?;
        let mut output = OsString::from("-DoutputDirectory=");
        output.push(&jars);
        run(Command::new("mvn").args(["-q", "-B", "dependency:copy-dependencies", "-f"]).arg(&wanted).arg(output))
    })
}

/// The first number that `java -version` says, on standard error: `openjdk version "25.0.1" 2025-10-21`.
fn java_version(java: &Path) -> Option<u32> {
    let said = Command::new(java).arg("-version").stdin(Stdio::null()).output().ok()?.stderr;
    let said = String::from_utf8_lossy(&said);
    let version = said.split('"').nth(1)?;
    version.split('.').next()?.parse().ok()
}

/// Fills `folder` unless it was filled with the same `recipes`.
fn once(folder: &Path, recipes: &[&Path], fill: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let read = |file: &Path| fs::read_to_string(file).map_err(|e| format!("read {}: {e}", file.display()));
    let recipe = recipes.iter().map(|file| read(file)).collect::<Result<String, _>>()?;
    let stamp = folder.join("filled-with");
    if read(&stamp).is_ok_and(|filled_with| filled_with == recipe) {
        return Ok(());
    }
    may_fetch(&folder.to_string_lossy())?;
    fs::create_dir_all(folder).map_err(|e| format!("make {}: {e}", folder.display()))?;
    fill()?;
    fs::write(&stamp, recipe).map_err(|e| format!("write {}: {e}", stamp.display()))
}

fn may_fetch(what: &str) -> Result<(), String> {
    match env::var_os("SPANTAP_PARENTS_FETCH").as_deref().and_then(OsStr::to_str) {
        Some("" | "0") | None => Err(format!("{what} is not here (`cargo xtask accuracy parents` installs it)")),
        Some(_) => Ok(()),
    }
}

fn is_on_path(file: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // Joining an absolute path leaves nothing of the folder.
    env::split_paths(&path).any(|folder| folder.join(file).is_file())
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("start {name}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    // The reason is mostly the last thing said.
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    Err(format!("{name}: {}", lines[lines.len().saturating_sub(3)..].join("; ")))
}
