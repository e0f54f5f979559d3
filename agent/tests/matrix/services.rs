// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The services under observation: nginx → service → backend.
//!
//! In: which service. Out: a [`Stack`] that answers on [`Stack::port`], and which process plays which [`Part`]. The
//! services know nothing of tracing: all that they pass on is the id in the path.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio, id},
};

use tempfile::TempDir;

use crate::process::{Process, free_port};

/// The service in the middle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Service {
    /// `ThreadingHTTPServer` and `http.client`.
    Python,
    /// `http` server and `http.request` with a keep-alive agent.
    Node,
    /// `net/http` server and its default client.
    Go,
    /// `HttpServer` on a pool of threads and `HttpClient`.
    Java,
    /// The same server and `HttpURLConnection`.
    JavaUrl,
}

/// What a process does in a test.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Part {
    /// Asks.
    Client,
    /// Is nginx.
    Front,
    /// Answers with what the backend says.
    Service,
    /// Knows the answer.
    Backend,
}

/// Three services in a row.
pub(crate) struct Stack {
    /// Where nginx listens.
    pub(crate) port: u16,
    // In the order of dropping: whoever asks ends before whoever answers.
    front: Process,
    service: Process,
    backend: Process,
    directory: TempDir,
}

impl Part {
    /// For tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Front => "nginx",
            Self::Service => "service",
            Self::Backend => "backend",
        }
    }
}

impl Service {
    /// For tables.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
            Self::Java => "java",
            Self::JavaUrl => "java-url",
        }
    }

    /// The first program it needs, nginx and the backend included, that is not installed.
    pub(crate) fn missing_program(self) -> Option<&'static str> {
        let own = match self {
            Self::Python => "python3",
            Self::Node => "node",
            Self::Go => "go",
            Self::Java | Self::JavaUrl => "java",
        };
        ["nginx", "python3", own].into_iter().find(|program| !is_installed(program))
    }

    fn command(self, port: u16, backend: u16) -> Result<Command, String> {
        let mut command = match self {
            Self::Python => interpreted("python3", "service.py"),
            Self::Node => interpreted("node", "service.js"),
            Self::Go => Command::new(go_service()?),
            Self::Java | Self::JavaUrl => {
                let mut java = Command::new("java");
                // Head and body are two writes: under Nagle's algorithm the second would wait 40 ms for a delayed
                // acknowledgement.
                java.arg("-Dsun.net.httpserver.nodelay=true").arg(source("Service.java"));
                java
            }
        };
        command.args([port.to_string(), backend.to_string()]);
        match self {
            Self::Java => command.arg("client"),
            Self::JavaUrl => command.arg("url"),
            Self::Python | Self::Node | Self::Go => &mut command,
        };
        Ok(command)
    }
}

impl Stack {
    /// Starts all three and waits until they listen.
    pub(crate) fn start(service: Service) -> Result<Self, String> {
        let directory = TempDir::new().map_err(|e| format!("temporary directory: {e}"))?;
        let start = |name: &str, command: &mut Command, port| {
            let log = File::create(directory.path().join(name)).map_err(|e| format!("log of {name}: {e}"))?;
            let mut process = Process::start(name, command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))?;
            process.await_listening(port).map_err(|e| format!("{e}\n{}", said(&directory, name)))?;
            Ok::<_, String>(process)
        };

        let backend_port = free_port()?;
        let backend =
            start("backend", interpreted("python3", "backend.py").arg(backend_port.to_string()), backend_port)?;
        let service_port = free_port()?;
        let middle = start("service", &mut service.command(service_port, backend_port)?, service_port)?;
        let port = free_port()?;
        let configuration = directory.path().join("nginx.conf");
        fs::write(&configuration, nginx_configuration(port, service_port, directory.path())?)
            .map_err(|e| format!("write nginx.conf: {e}"))?;
        let front = start("nginx", Command::new("nginx").arg("-c").arg(&configuration), port)?;
        Ok(Self { port, front, service: middle, backend, directory })
    }

    /// Which process plays which part; this process is a client.
    pub(crate) fn parts(&self) -> HashMap<u32, Part> {
        let members = [(&self.front, Part::Front), (&self.service, Part::Service), (&self.backend, Part::Backend)];
        let parts =
            members.into_iter().flat_map(|(process, part)| process.family().into_iter().map(move |pid| (pid, part)));
        parts.chain([(id(), Part::Client)]).collect()
    }

    /// What the services wrote to their logs, for failures.
    pub(crate) fn logs(&self) -> String {
        ["nginx", "service", "backend"].map(|name| said(&self.directory, name)).concat()
    }
}

/// Whether a program is on the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn interpreted(interpreter: &str, script: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(source(script));
    command
}

/// Go has no interpreter: builds the service (again only when it changed).
fn go_service() -> Result<PathBuf, String> {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-service");
    let built = Command::new("go")
        .arg("build")
        .arg("-o")
        .args([&binary, &source("service.go")])
        .output()
        .map_err(|e| format!("start go build: {e}"))?;
    match built.status.success() {
        true => Ok(binary),
        false => Err(format!("go build: {}", String::from_utf8_lossy(&built.stderr))),
    }
}

fn nginx_configuration(listen: u16, upstream: u16, directory: &Path) -> Result<String, String> {
    let template = fs::read_to_string(source("nginx.conf")).map_err(|e| format!("read nginx.conf: {e}"))?;
    Ok(template
        .replace("@LISTEN@", &listen.to_string())
        .replace("@UPSTREAM@", &upstream.to_string())
        .replace("@DIRECTORY@", &directory.to_string_lossy()))
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(name)
}

fn said(directory: &TempDir, name: &str) -> String {
    match fs::read_to_string(directory.path().join(name)) {
        Ok(log) if !log.is_empty() => format!("--- {name} ---\n{log}"),
        _ => String::new(),
    }
}
