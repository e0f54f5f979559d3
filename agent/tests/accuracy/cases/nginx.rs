// SPDX-License-Identifier: Apache-2.0 OR MIT
//! nginx: bodies that never pass through user memory, and workers that come and go.
//!
//! In: nothing. Out: [`CASES`]. As a proxy it is in the service matrix.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    asker::Asker,
    case::Case,
    ground::{Ground, Told},
    process::{Process, wait_until},
    script::pause,
    spans::Kind,
    truth::{Truth, Window, now},
};

pub(super) const CASES: &[Case] = &[
    Case::code("sendfile-50-mib", download).needs(&["nginx"]).quick(),
    Case::code("nginx-reloads-under-load", reloads).needs(&["nginx"]),
];

/// Two downloads on one connection, with a pause on the way: a span is as long as its download took.
fn download(ground: &mut Ground) -> Result<(), String> {
    let (nginx, directory) = start(ground.port(0), "try_files /file =404;")?;
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

/// Clients ask all the time, each on a new connection, and nginx changes its workers under them.
fn reloads(ground: &mut Ground) -> Result<(), String> {
    let port = ground.port(0);
    let (nginx, directory) = start(port, "return 200 hello;")?;
    let ids: Vec<Vec<String>> = (0..4).map(|_| (0..75).map(|_| ground.id()).collect()).collect();
    let answered = AtomicUsize::new(0);
    let (results, workers): (Vec<Result<Asked, String>>, _) = thread::scope(|scope| {
        let clients: Vec<_> = ids.into_iter().map(|ids| scope.spawn(|| ask_all(port, ids, &answered))).collect();
        let mut workers = BTreeSet::from_iter(nginx.family());
        for reload in 1..4 {
            let goes_on = wait_until(ANSWERS, || answered.load(Ordering::Relaxed) >= reload * 75);
            nginx.signal(libc::SIGHUP);
            let has_new = wait_until(ANSWERS, || {
                let before = workers.len();
                workers.extend(nginx.family());
                workers.len() > before
            });
            if !goes_on || !has_new {
                break;
            }
        }
        let join = |client: ScopedJoinHandle<'_, Result<Asked, String>>| {
            client.join().unwrap_or_else(|_| Err("a client panicked".into()))
        };
        (clients.into_iter().map(join).collect(), workers)
    });
    // The master, the first worker, and one after each reload.
    if workers.len() < 5 {
        return Err(format!("nginx did not reload as it was told to: {workers:?}"));
    }
    for result in results {
        for (id, window) in result? {
            ground.expect_both(&id, Told::get(200), window, window);
        }
    }
    ground.keep((nginx, directory));
    Ok(())
}

type Asked = Vec<(String, Window)>;

fn ask_all(port: u16, ids: Vec<String>, answered: &AtomicUsize) -> Result<Asked, String> {
    let ask = |id: String| {
        let window = ask(port, &id)?;
        answered.fetch_add(1, Ordering::Relaxed);
        Ok((id, window))
    };
    ids.into_iter().map(ask).collect()
}

/// Asks for `/id` on a connection of its own, and reads until that ends.
fn ask(port: u16, id: &str) -> Result<Window, String> {
    let mut answer = String::new();
    let (asked, window) = Window::around(|| -> std::io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        write!(stream, "GET /{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer).map(drop)
    });
    asked.map_err(|e| format!("ask for /{id}: {e}"))?;
    if answer.starts_with("HTTP/1.1 200") { Ok(window) } else { Err(format!("/{id}: {answer:?}")) }
}

fn start(port: u16, location: &str) -> Result<(Process, TempDir), String> {
    let directory = TempDir::new().map_err(|e| format!("temporary directory: {e}"))?;
    let at = directory.path().to_string_lossy().into_owned();
    let write = || -> std::io::Result<()> {
        File::create(directory.path().join("file"))?.set_len(FILE)?;
        fs::write(directory.path().join("nginx.conf"), configuration(port, &at, location))
    };
    write().map_err(|e| format!("write what nginx serves: {e}"))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(directory.path().join("nginx.conf"));
    let mut nginx = Process::start("nginx", command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    nginx.await_listening(port)?;
    Ok((nginx, directory))
}

fn configuration(port: u16, directory: &str, location: &str) -> String {
    format!(
        "daemon off; user root; worker_processes 1; pid {directory}/pid; error_log stderr crit;
        events {{ worker_connections 16; }}
        http {{
            access_log off; sendfile on; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
            fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
            server {{ listen 127.0.0.1:{port}; root {directory}; location / {{ {location} }} }}
        }}"
    )
}

/// 50 MiB.
const FILE: u64 = 50 << 20;

/// What is left then, 48 MiB, is more than the buffers of both ends hold at most: 32 MiB (`tcp_rmem` of a new kernel) and
/// 4 MiB (`tcp_wmem`).
const PAUSE_AFTER: usize = 2 << 20;

/// Half a second of them on an idle machine.
const ANSWERS: Duration = Duration::from_secs(20);
