// SPDX-License-Identifier: Apache-2.0 OR MIT
//! nginx as the traced server: one worker that answers everything with an empty 200.
//!
//! In: nothing. Out: a process on a port of its own; dropping it ends it. It serves no file and writes no log.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::command::find;

/// A running nginx.
pub(super) struct Nginx {
    child: Child,
    /// Where it listens.
    pub(super) address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it, and waits until it accepts.
    pub(super) fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for nginx")?;
        let address = free_address()?;
        let file = folder.path().join("nginx.conf");
        fs::write(&file, configuration(address)).with_context(|| format!("write {}", file.display()))?;
        let mut child = Command::new(find("nginx").context("nginx has gone")?)
            .arg("-p")
            .arg(folder.path())
            .arg("-c")
            .arg(&file)
            .args(["-e", "stderr"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx")?;
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = child.try_wait().context("look after nginx")? {
                bail!("nginx ended ({status})");
            }
            if Instant::now() > deadline {
                child.kill().ok();
                child.wait().ok();
                bail!("nginx does not accept on {address}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { child, address, _folder: folder })
    }

    /// Its process id: without a master there is only one.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // An error means that it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A loopback port that nobody listens on at this moment.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("find a free port")
}

fn configuration(address: SocketAddr) -> String {
    format!(
        "daemon off; master_process off; pid nginx.pid; worker_rlimit_nofile 30000;
         events {{ worker_connections 20000; }}
         http {{
           access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;
           server {{ listen {address} backlog=8192; location / {{ return 200; }} }}
         }}"
    )
}

/// Until it accepts: it takes some 50 ms.
const PATIENCE: Duration = Duration::from_secs(10);
