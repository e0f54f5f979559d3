// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a model needs beyond its own source, and how it gets here.
//!
//! In: the parts of one model. Out: a machine that has them, or the reason why not. They are brought for the models
//! that run and only where `SPANTAP_PARENTS_FETCH` says so, by the clients of the languages, into one folder below the
//! build's; only Debian's packages are installed for the machine. It never changes what is there.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// One thing that a model needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Part {
    /// A program on the path, which a package of Debian's brings.
    Program { file: &'static str, package: &'static str },
    /// The packages of `requirements.txt` in a virtual environment.
    Venv,
    /// `backend.go` or another single file, compiled.
    Go { source: &'static str },
}

impl Part {
    /// Sees to it that it is here.
    pub(crate) fn provide(self) -> Result<(), String> {
        match self {
            Self::Program { file, package } => program(file, package),
            Self::Venv => venv(),
            Self::Go { source: name } => {
                program("go", "golang-go")?;
                let binary = built(name);
                run(Command::new("go").args([
                    "build".as_ref(),
                    "-o".as_ref(),
                    binary.as_os_str(),
                    source(name).as_os_str(),
                ]))
            }
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
