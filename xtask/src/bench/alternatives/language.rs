// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service in each language, and how it is started.
//!
//! In: a language, the backend that the service calls, and where spans go if it is to be instrumented. Out: a process that
//! answers; dropping it ends it. What it is made of was installed before.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::install;

/// A language with a usual instrumentation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Language {
    Go,
    Java,
    Node,
    Python,
}

impl Language {
    pub(super) const ALL: [Self; 4] = [Self::Go, Self::Java, Self::Node, Self::Python];

    /// In the names of figures and folders.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Java => "java",
            Self::Node => "node",
            Self::Python => "python",
        }
    }

    /// What the service is, for readers.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Go => "Go, net/http",
            Self::Java => "Java, HttpServer and HttpClient",
            Self::Node => "Node.js, node:http",
            Self::Python => "Python, Flask and requests",
        }
    }

    /// What its users pick.
    pub(super) fn instrumentation(self) -> &'static str {
        match self {
            Self::Go => "otelhttp, in the code",
            Self::Java => "opentelemetry-javaagent",
            Self::Node => "auto-instrumentations-node",
            Self::Python => "opentelemetry-instrument",
        }
    }

    fn command(self, is_instrumented: bool) -> Command {
        let folder = install::folder(self);
        match self {
            Self::Go => {
                let mut command = Command::new(folder.join("service"));
                if is_instrumented {
                    command.env("INSTRUMENTED", "1");
                }
                command
            }
            Self::Java => {
                let mut command = Command::new("java");
                // Head and body are two writes: under Nagle's algorithm the second would wait 40 ms.
                command.arg("-Dsun.net.httpserver.nodelay=true");
                if is_instrumented {
                    command.arg(format!("-javaagent:{}", folder.join(install::JAVA_AGENT).display()));
                }
                command.arg("-cp").arg(&folder).arg("Service");
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.current_dir(&folder);
                if is_instrumented {
                    command.args(["--require", "@opentelemetry/auto-instrumentations-node/register"]);
                }
                command.arg("service.js");
                command
            }
            Self::Python => {
                let python = folder.join("bin/python");
                let mut command = Command::new(&python);
                if is_instrumented {
                    // It replaces itself with what it is given.
                    command.arg(folder.join("bin/opentelemetry-instrument")).arg(&python);
                }
                command.arg(folder.join("service.py"));
                command
            }
        }
    }
}

/// A running service.
pub(super) struct Service {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Service {
    /// Starts it, and waits until it answers.
    pub(super) fn start(language: Language, backend: SocketAddr, export_to: Option<&str>) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = address.context("find a free port")?;
        let mut command = language.command(export_to.is_some());
        command.args([address.port().to_string(), backend.port().to_string()]);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("OTEL_")) {
                command.env_remove(name);
            }
        }
        if let Some(endpoint) = export_to {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).envs(INSTRUMENTED.iter().copied());
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start the service in {}", language.label()))?;
        let mut service = Self { child, address };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = service.child.try_wait().context("look after a service")? {
                bail!("the service in {} ended ({status})", language.label());
            }
            if Instant::now() > deadline {
                bail!("the service in {} does not accept", language.label());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(service)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Traces only, over the protocol that the receiver speaks; batches as large and as prompt as spantap's, in a queue that
/// has room for what comes meanwhile: with its defaults an SDK would drop most spans at saturation, and be the cheaper for
/// it.
const INSTRUMENTED: &[(&str, &str)] = &[
    ("OTEL_SERVICE_NAME", "bench"),
    ("OTEL_TRACES_EXPORTER", "otlp"),
    ("OTEL_METRICS_EXPORTER", "none"),
    ("OTEL_LOGS_EXPORTER", "none"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "65536"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2048"),
];

/// A virtual machine with an agent takes some seconds, on a busy one more.
const PATIENCE: Duration = Duration::from_secs(60);
