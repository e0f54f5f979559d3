// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service of a model and the backend that it calls, up and listening.
//!
//! In: a model. Out: a [`Scene`] with the ports of both, until it is dropped. The services know nothing of tracing.

use std::{
    fs::{self, File},
    path::Path,
    process::Stdio,
};

use tempfile::TempDir;

use crate::{
    models::{Model, Site, backend},
    process::{Process, free_port},
};

/// A running service and its backend.
pub(crate) struct Scene {
    /// Where the service listens.
    pub(crate) port: u16,
    /// Where the backend listens.
    pub(crate) backend_port: u16,
    // In the order of dropping: whoever asks ends before whoever answers.
    _service: Process,
    _backend: Process,
    folder: TempDir,
}

impl Scene {
    /// Starts both and waits until they listen.
    pub(crate) fn start(model: &Model) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|e| format!("temporary folder: {e}"))?;
        let backend_port = free_port()?;
        let backend = start("backend", backend(backend_port)?, backend_port, folder.path())?;
        let port = free_port()?;
        let site = Site { port, backend: backend_port, folder: folder.path() };
        let service = start("service", model.command(&site)?, port, folder.path())?;
        Ok(Self { port, backend_port, _service: service, _backend: backend, folder })
    }

    /// What both wrote to standard error, for failures.
    pub(crate) fn logs(&self) -> String {
        ["service", "backend"].map(|name| said(self.folder.path(), name)).concat()
    }
}

fn start(name: &str, mut command: std::process::Command, port: u16, folder: &Path) -> Result<Process, String> {
    let log = File::create(folder.join(name)).map_err(|e| format!("log of the {name}: {e}"))?;
    let mut process = Process::start(name, command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))?;
    process.await_listening(port).map_err(|e| format!("{e}\n{}", said(folder, name)))?;
    Ok(process)
}

fn said(folder: &Path, name: &str) -> String {
    match fs::read_to_string(folder.join(name)) {
        Ok(log) if !log.is_empty() => format!("--- {name} ---\n{log}"),
        _ => String::new(),
    }
}
