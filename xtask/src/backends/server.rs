// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backend's process.
//!
//! In: a program with its arguments. Out: a process that ends when it is dropped, whose output is in a file.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

/// A running backend.
#[derive(Debug)]
pub(super) struct Server(Child);

impl Server {
    /// Starts `program` in `folder`, where its output goes to `log`.
    pub(super) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, String)],
        folder: &Path,
    ) -> Result<Self> {
        let log = File::create(folder.join("log")).context("make the server's log")?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log).current_dir(folder);
        Ok(Self(command.spawn().with_context(|| format!("start {}", program.display()))?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Ports that nobody listens on, each another one.
pub(super) fn ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are known.
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0"));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        let listener = listener.as_ref().map_err(|error| anyhow!("find a free port: {error}"))?;
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// Waits until `condition` holds, which has no event of its own. What it says while it does not is told at the deadline.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = condition();
        if let Ok(true) = last {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return match last {
                Err(error) => Err(error.context(format!("waited in vain for {what}"))),
                Ok(_) => bail!("waited in vain for {what}"),
            };
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Zipkin needs half a minute to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
