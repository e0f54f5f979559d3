// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The servers and clients that each runtime brings: their own ways to cut, chunk and wait.
//!
//! In: nothing. Out: [`CASES`]. One end is always this process, which measures; the other is judged by what this end
//! can know of it.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    answerer::Answerer,
    asker::Asker,
    case::Case,
    ground::Ground,
    process::Process,
    programs::Runtime,
    spans::Kind,
    truth::{Truth, Window, now},
};

pub(super) const CASES: &[Case] = &[
    Case::code("c-server", |ground| server(ground, Runtime::C)).needs(&["cc"]).quick(),
    Case::code("python-server", |ground| server(ground, Runtime::Python)).needs(&["python3"]),
    Case::code("node-server", |ground| server(ground, Runtime::Node)).needs(&["node"]),
    Case::code("go-server", |ground| server(ground, Runtime::Go)).needs(&["go"]),
    Case::code("java-server", |ground| server(ground, Runtime::Java)).needs(&["java"]),
    Case::code("rust-server", |ground| server(ground, Runtime::Rust)).needs(&["rustc"]),
    Case::code("c-client", |ground| client(ground, Runtime::C)).needs(&["cc"]),
    Case::code("python-client", |ground| client(ground, Runtime::Python)).needs(&["python3"]).quick(),
    Case::code("node-client", |ground| client(ground, Runtime::Node)).needs(&["node"]),
    Case::code("go-client", |ground| client(ground, Runtime::Go)).needs(&["go"]),
    Case::code("java-client", |ground| client(ground, Runtime::Java)).needs(&["java"]),
    Case::code("rust-client", |ground| client(ground, Runtime::Rust)).needs(&["rustc"]),
    Case::code("python-pool", |ground| pool(ground, Runtime::Python)).needs(&["python3"]),
    Case::code("node-pool", |ground| pool(ground, Runtime::Node)).needs(&["node"]),
    Case::code("go-pool", |ground| pool(ground, Runtime::Go)).needs(&["go"]),
    Case::code("java-pool", |ground| pool(ground, Runtime::Java)).needs(&["java"]),
    Case::code("rust-pool", |ground| pool(ground, Runtime::Rust)).needs(&["rustc"]),
    Case::code("curl-client", curl).needs(&["curl"]),
    Case::code("forking-server", |ground| python_server(ground, "fork")).needs(&["python3"]),
    Case::code("preforked-server", |ground| python_server(ground, "prefork")).needs(&["python3"]),
    Case::code("client-execs-between-calls", client_execs).needs(&["cc"]).quick(),
    Case::code("server-execs-between-answers", server_execs).needs(&["cc"]),
];

/// Every answer that the services know, on one connection.
fn server(ground: &mut Ground, runtime: Runtime) -> Result<(), String> {
    let service = runtime.serve(ground.port(0), &[])?;
    let mut asker = Asker::connect(ground.port(0))?;
    let body = vec![b'x'; 100_000];
    for (method, kind, body) in [
        ("GET", "200", &[][..]),
        ("GET", "404", &[]),
        ("HEAD", "200", &[]),
        ("GET", "500", &[]),
        ("POST", "200", &body),
        ("GET", "204", &[]),
        ("GET", "writes", &[]),
        ("GET", "chunks", &[]),
        ("GET", "big", &[]),
        ("GET", "200", &[]),
    ] {
        ask(ground, &mut asker, method, kind, body)?;
    }
    ground.keep((asker, service));
    Ok(())
}

/// Each connection is another process's.
fn python_server(ground: &mut Ground, how: &str) -> Result<(), String> {
    let service = Runtime::Python.serve(ground.port(0), &[how])?;
    for _ in 0..10 {
        let mut asker = Asker::connect(ground.port(0))?;
        ask(ground, &mut asker, "GET", "200", &[])?;
        ask(ground, &mut asker, "GET", "404", &[])?;
    }
    ground.keep(service);
    Ok(())
}

fn ask(ground: &mut Ground, asker: &mut Asker, method: &'static str, kind: &str, body: &[u8]) -> Result<(), String> {
    let id = ground.id();
    let path = format!("/{kind}/{id}");
    let answered = asker.ask(method, &path, body, |_| {})?;
    let status = kind.parse().unwrap_or(200);
    // A client error is no error of the server.
    let error = |at_least| match status {
        404 if at_least <= 404 => Some("404"),
        500 => Some("500"),
        _ => None,
    };
    let truth = |kind, error, start, end| Truth {
        id: id.clone(),
        kind,
        path: path.clone(),
        method,
        original: None,
        status: Some(status),
        error,
        start,
        end,
    };
    ground.expect(truth(Kind::Client, error(400), answered.asked, answered.last));
    // The server has read the request's first byte before its answer arrives, and written the last byte of its answer
    // before that was read; where a server writes faster than we read, it may have done so much earlier.
    let start = answered.asked.until(answered.first);
    let from = if kind == "big" { answered.asked.from } else { answered.before_last };
    ground.expect(truth(Kind::Server, error(500), start, Window { from, to: answered.last.to }));
    Ok(())
}

/// Calls of each runtime's own client, on one connection.
fn client(ground: &mut Ground, runtime: Runtime) -> Result<(), String> {
    let paths = paths(ground);
    let command = runtime.call(ground.port(0), &paths.iter().map(|(_, path)| path.clone()).collect::<Vec<_>>())?;
    called(ground, command, &paths)
}

/// The process becomes another program after each answer; the connection stays.
fn client_execs(ground: &mut Ground) -> Result<(), String> {
    let paths = paths(ground);
    let all: Vec<_> = paths.iter().map(|(_, path)| path.clone()).collect();
    let command = Runtime::C.call_as("call-exec", ground.port(0), &all)?;
    called(ground, command, &paths)
}

/// The same at the other end.
fn server_execs(ground: &mut Ground) -> Result<(), String> {
    let service = Runtime::C.serve_as("serve-exec", ground.port(0), &[])?;
    let mut asker = Asker::connect(ground.port(0))?;
    for (method, kind) in [("GET", "200"), ("GET", "writes"), ("HEAD", "200"), ("GET", "404"), ("GET", "200")] {
        ask(ground, &mut asker, method, kind, &[])?;
    }
    ground.keep((asker, service));
    Ok(())
}

/// Calls of each runtime's own client, several at a time, on connections that it keeps.
fn pool(ground: &mut Ground, runtime: Runtime) -> Result<(), String> {
    let paths: Vec<_> = (0..POOLED)
        .map(|number| {
            let id = ground.id();
            let kind = if number % 8 == 5 { "writes" } else { "200" };
            let path = format!("/{kind}/{id}");
            (id, path)
        })
        .collect();
    let all: Vec<_> = paths.iter().map(|(_, path)| path.clone()).collect();
    let mut command = runtime.call_as("pool", ground.port(0), &all)?;
    let answerer = Answerer::start(ground.port(0))?;
    let started = now();
    let mut client = Process::start("the client", command.stdout(Stdio::null()))?;
    let served = answerer.served(paths.len())?;
    match client.await_end(CLIENT_DEADLINE) {
        Some(status) if status.success() => {}
        other => return Err(format!("the client ended with {other:?}")),
    }
    let ended = now();
    for (id, path) in &paths {
        let served = served.iter().find(|served| served.path == *path).ok_or(format!("{path} was not asked for"))?;
        let asked = Window { from: started, to: served.asked.to };
        let answered = Window { from: served.answered.from, to: ended };
        let truth = |kind, start, end| Truth {
            id: id.clone(),
            kind,
            path: path.clone(),
            method: "GET",
            original: None,
            status: Some(200),
            error: None,
            start,
            end,
        };
        ground.expect(truth(Kind::Client, asked, answered));
        ground.expect(truth(Kind::Server, served.asked, served.answered));
    }
    Ok(())
}

fn curl(ground: &mut Ground) -> Result<(), String> {
    let (paths, port) = (paths(ground), ground.port(0));
    let mut command = Command::new("curl");
    command.args(["--silent", "--output", "/dev/null"]);
    command.args(paths.iter().map(|(_, path)| format!("http://127.0.0.1:{port}{path}")));
    called(ground, command, &paths)
}

/// Ids, and the paths that have them.
fn paths(ground: &mut Ground) -> Vec<(String, String)> {
    let mut path = |kind| {
        let id = ground.id();
        let path = format!("/{kind}/{id}");
        (id, path)
    };
    vec![path("200"), path("writes"), path("200"), path("200")]
}

/// Starts a client and answers it.
fn called(ground: &mut Ground, mut command: Command, paths: &[(String, String)]) -> Result<(), String> {
    let answerer = Answerer::start(ground.port(0))?;
    let started = now();
    let mut client = Process::start("the client", command.stdout(Stdio::null()))?;
    let all = answerer.served(paths.len())?;
    match client.await_end(CLIENT_DEADLINE) {
        Some(status) if status.success() => {}
        other => return Err(format!("the client ended with {other:?}")),
    }
    let ended = now();
    for (index, ((id, path), served)) in paths.iter().zip(&all).enumerate() {
        if served.path != *path {
            return Err(format!("{} was asked for instead of {path}", served.path));
        }
        let truth = |kind, start, end| Truth {
            id: id.clone(),
            kind,
            path: path.clone(),
            method: "GET",
            original: None,
            status: Some(200),
            error: None,
            start,
            end,
        };
        // The client has written before we read, and after it had the answer before; it has read after we wrote, and
        // before it asked again.
        let earliest = index.checked_sub(1).map_or(started, |before| all[before].answered.from);
        let latest = all.get(index + 1).map_or(ended, |next| next.asked.to);
        let asked = Window { from: earliest, to: served.asked.to };
        let answered = Window { from: served.answered.from, to: latest };
        ground.expect(truth(Kind::Client, asked, answered));
        ground.expect(truth(Kind::Server, served.asked, served.answered));
    }
    Ok(())
}

/// A JVM that compiles its program first takes some seconds on a busy machine.
const CLIENT_DEADLINE: Duration = Duration::from_secs(60);

/// Ten for each of the four at a time.
const POOLED: usize = 40;
