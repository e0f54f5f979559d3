// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service of a model and the backend that it calls, up and listening.
//!
//! In: a model. Out: a [`Scene`] with the ports of both, until it is dropped. The services know nothing of tracing.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::Path,
    process::Stdio,
    time::Duration,
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
    service: Process,
    backend: Process,
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
        Ok(Self { port, backend_port, service, backend, folder })
    }

    /// What both wrote to standard error, and how they ended if they did, for failures.
    pub(crate) fn post_mortem(&mut self) -> String {
        let folder = self.folder.path();
        [("service", &mut self.service), ("backend", &mut self.backend)]
            .map(|(name, process)| match process.await_end(Duration::ZERO) {
                Some(status) => format!("the {name} has ended: {status}\n{}", said(folder, name)),
                None => said(folder, name),
            })
            .concat()
    }
}

fn start(name: &str, mut command: std::process::Command, port: u16, folder: &Path) -> Result<Process, String> {
    let log = File::create(folder.join(name)).map_err(|e| format!("log of the {name}: {e}"))?;
    // In a process group of its own: Apache ends its workers by a signal to its whole group, which was this process too.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
    let mut process = Process::start(name, &mut command)?;
    process.await_listening(port).map_err(|e| format!("{e}\n{}", said(folder, name)))?;
    Ok(process)
}

fn said(folder: &Path, name: &str) -> String {
    match fs::read_to_string(folder.join(name)) {
        Ok(log) if !log.is_empty() => format!("--- {name} ---\n{log}"),
        _ => String::new(),
    }
}
