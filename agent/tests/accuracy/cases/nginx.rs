// SPDX-License-Identifier: Apache-2.0 OR MIT
//! nginx, whose bodies never pass through user memory.
//!
//! In: nothing. Out: [`CASES`]. As a proxy it is in the service matrix.

use std::{
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    asker::Asker,
    case::Case,
    ground::Ground,
    process::Process,
    script::pause,
    spans::Kind,
    truth::{Truth, Window, now},
};

pub(super) const CASES: &[Case] = &[Case::code("sendfile-50-mib", download).needs(&["nginx"]).quick()];

/// Two downloads on one connection, with a pause on the way: a span is as long as its download took.
fn download(ground: &mut Ground) -> Result<(), String> {
    let (nginx, directory) = start(ground.port(0))?;
    let mut asker = Asker::connect(ground.port(0))?;
    for _ in 0..2 {
        let id = ground.id();
        let path = format!("/{id}");
        let mut resumed = None;
        let answered = asker.ask("GET", &path, &[], |seen| {
            if seen >= PAUSE_AFTER && resumed.is_none() {
                pause(Duration::from_millis(500));
                resumed = Some(now());
            }
        })?;
        let resumed = resumed.ok_or("the download was shorter than that")?;
        let truth = |kind, start, end| {
            let (id, path, original) = (id.clone(), path.clone(), None);
            Truth { id, kind, path, method: "GET", original, status: Some(200), error: None, start, end }
        };
        ground.expect(truth(Kind::Client, answered.asked, answered.last));
        // More was left than the sockets' buffers hold, so nginx had to wait for us before it could send the rest.
        let start = answered.asked.until(answered.first);
        ground.expect(truth(Kind::Server, start, Window { from: resumed, to: answered.last.to }));
    }
    ground.keep((asker, nginx, directory));
    Ok(())
}

fn start(port: u16) -> Result<(Process, TempDir), String> {
    let directory = TempDir::new().map_err(|e| format!("temporary directory: {e}"))?;
    let at = directory.path().to_string_lossy().into_owned();
    let write = || -> std::io::Result<()> {
        File::create(directory.path().join("file"))?.set_len(FILE)?;
        fs::write(directory.path().join("nginx.conf"), configuration(port, &at))
    };
    write().map_err(|e| format!("write what nginx serves: {e}"))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(directory.path().join("nginx.conf"));
    let mut nginx = Process::start("nginx", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    nginx.await_listening(port)?;
    Ok((nginx, directory))
}

fn configuration(port: u16, directory: &str) -> String {
    format!(
        "daemon off; user root; worker_processes 1; pid {directory}/pid; error_log stderr crit;
        events {{ worker_connections 16; }}
        http {{
            access_log off; sendfile on; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{ listen 127.0.0.1:{port}; root {directory}; location / {{ try_files /file =404; }} }}
        }}"
    )
}

/// 50 MiB.
const FILE: u64 = 50 << 20;

/// What is left then, 48 MiB, is more than the buffers of both ends hold at most: 32 MiB (`tcp_rmem` of a new kernel) and
/// 4 MiB (`tcp_wmem`).
const PAUSE_AFTER: usize = 2 << 20;
