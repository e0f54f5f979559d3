// SPDX-License-Identifier: Apache-2.0 OR MIT
//! nginx in front of unix sockets, and streams that are none of ours.
//!
//! In: nothing. Out: [`CASES`]. What is left alone has to be counted as what it is.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    case::Case,
    ground::{Ground, Told},
    process::{Process, wait_until},
    programs::installed,
    truth::Window,
};

pub(super) const CASES: &[Case] = &[
    Case::code("nginx-to-python-over-unix", proxied).needs(&["nginx", "python3"]).late().quick(),
    Case::code("nginx-to-fastcgi-over-unix", fastcgi).needs(&["nginx", "python3"]).late(),
    Case::code("nginx-to-php-fpm-over-unix", php_fpm).needs(&["nginx", "php-fpm"]).late(),
    Case::code("tls-neighbour", tls).needs(&["openssl"]).late(),
];

/// A request to nginx, which asks a service behind a unix socket under another id.
fn proxied(ground: &mut Ground) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let directory = services(
        ground,
        |_, socket| python("unix_service.py", socket),
        |socket| format!("location / {{ proxy_pass http://unix:{socket}:/$http_x_to; }}"),
    )?;
    for _ in 0..5 {
        let (asked_for, passed_on) = (ground.id(), ground.id());
        let all = ask(ground.port(0), &asked_for, &passed_on)?;
        ground.expect_both(&asked_for, Told::get(200), all, all);
        ground.expect_both(&passed_on, Told::get(200), all, all);
    }
    ground.keep(directory);
    Ok(())
}

/// The same with a service that speaks FastCGI: an edge without spans.
fn fastcgi(ground: &mut Ground) -> Result<(), String> {
    behind_fastcgi(ground, |_, socket| python("fastcgi_service.py", socket))
}

/// The same with PHP-FPM, whose workers accept for themselves.
fn php_fpm(ground: &mut Ground) -> Result<(), String> {
    behind_fastcgi(ground, |directory, socket| {
        let program = installed("php-fpm").ok_or("php-fpm has gone")?;
        let (at, socket) = (directory.display(), socket.display());
        let configuration = format!(
            "[global]\nerror_log = {at}/php.log\ndaemonize = no\n\
             [www]\nuser = root\nlisten = {socket}\npm = static\npm.max_children = 2\n"
        );
        let (file, script) = (directory.join("php-fpm.conf"), directory.join("index.php"));
        let written = fs::write(&file, configuration)
            .and_then(|()| fs::write(script, "<?php header('Content-Length: 5'); echo 'hello';"));
        written.map_err(|e| format!("write php-fpm.conf: {e}"))?;
        let mut command = Command::new(program);
        command.arg("--allow-to-run-as-root").arg("--fpm-config").arg(file);
        Ok(command)
    })
}

fn behind_fastcgi(
    ground: &mut Ground,
    service: impl FnOnce(&Path, &Path) -> Result<Command, String>,
) -> Result<(), String> {
    ground.watch_family()?;
    ground.expect_joined();
    let directory = services(ground, service, |socket| {
        let script = Path::new(socket).with_file_name("index.php");
        format!(
            "location / {{ fastcgi_pass unix:{socket}; fastcgi_param REQUEST_METHOD $request_method;
                fastcgi_param REQUEST_URI $request_uri; fastcgi_param SCRIPT_FILENAME {}; }}",
            script.display()
        )
    })?;
    for _ in 0..3 {
        let id = ground.id();
        let all = ask(ground.port(0), &id, "")?;
        ground.expect_both(&id, Told::get(200), all, all);
    }
    // Both ends of each connection.
    ground.expect_left_alone("fastcgi", 6);
    ground.keep(directory);
    Ok(())
}

/// A TLS server and its client next to an exchange of ours.
fn tls(ground: &mut Ground) -> Result<(), String> {
    ground.watch()?;
    let directory = TempDir::new().map_err(|e| format!("temporary directory: {e}"))?;
    let (key, certificate) = (directory.path().join("key"), directory.path().join("certificate"));
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let made =
        openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .status();
    if !made.is_ok_and(|status| status.success()) {
        return Err("openssl makes no certificate".to_owned());
    }
    let port = ground.port(1);
    let mut server = Process::start(
        "openssl",
        openssl(&["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")])
            .arg("-key")
            .arg(&key)
            .arg("-cert")
            .arg(&certificate),
    )?;
    server.await_listening(port)?;
    let mut client = openssl(&["s_client", "-quiet", "-no_ign_eof", "-connect", &format!("127.0.0.1:{port}")]);
    let mut client = Process::start("openssl", client.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let (stdin, stdout) = (client.child().stdin.take(), client.child().stdout.take());
    let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else { return Err("no pipes".to_owned()) };
    let mut answer = String::new();
    let talked = stdin.write_all(b"GET /secret HTTP/1.0\r\n\r\n").and_then(|()| stdout.read_to_string(&mut answer));
    talked.map_err(|e| format!("talk to openssl: {e}"))?;
    drop(stdin);
    if !answer.starts_with("HTTP/1.0 200") {
        return Err(format!("openssl answered {answer:?}"));
    }
    let mut talk = ground.connect()?;
    let id = ground.id();
    let request = format!("GET /{id} HTTP/1.1\r\nHost: x\r\n\r\n");
    let asked = talk.pass(crate::talk::End::Client, request.as_bytes())?;
    let answered = talk.pass(crate::talk::End::Server, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    ground.expect_both(&id, Told::get(200), asked.first, answered.last);
    ground.expect_left_alone("tls", 2);
    ground.keep((talk, server, directory));
    Ok(())
}

/// The service that `script` is, behind a unix socket.
fn python(script: &str, socket: &Path) -> Result<Command, String> {
    let mut python = Command::new("python3");
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/programs").join(script)).arg(socket);
    Ok(python)
}

/// Starts a service behind a unix socket, and nginx before it on the first port. `service` gets a folder and the socket.
fn services(
    ground: &mut Ground,
    service: impl FnOnce(&Path, &Path) -> Result<Command, String>,
    location: impl FnOnce(&str) -> String,
) -> Result<TempDir, String> {
    let directory = TempDir::new().map_err(|e| format!("temporary directory: {e}"))?;
    let socket = directory.path().join("service.sock");
    let mut command = service(directory.path(), &socket)?;
    let service = Process::start("service", command.stdin(Stdio::null()).stdout(Stdio::null()))?;
    if !wait_until(START_DEADLINE, || socket.exists()) {
        return Err(format!("{:?} does not listen", command.get_program()));
    }
    let (at, port) = (directory.path().to_string_lossy().into_owned(), ground.port(0));
    let configuration = format!(
        "daemon off; user root; worker_processes 1; pid {at}/pid; error_log stderr crit;
        events {{ worker_connections 16; }}
        http {{
            access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;
            fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
            server {{ listen 127.0.0.1:{port}; {} }}
        }}",
        location(&socket.to_string_lossy())
    );
    let file = directory.path().join("nginx.conf");
    fs::write(&file, configuration).map_err(|e| format!("write nginx.conf: {e}"))?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut nginx = Process::start("nginx", &mut command)?;
    nginx.await_listening(port)?;
    ground.keep((nginx, service));
    Ok(directory)
}

/// Asks for `/id`, and reads until the connection ends; whoever passes it on is to ask for `/to`.
fn ask(port: u16, id: &str, to: &str) -> Result<Window, String> {
    let request = format!("GET /{id} HTTP/1.1\r\nHost: x\r\nX-To: {to}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let (asked, window) = Window::around(|| -> std::io::Result<()> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.write_all(request.as_bytes())?;
        stream.read_to_string(&mut answer).map(drop)
    });
    asked.map_err(|e| format!("ask for /{id}: {e}"))?;
    if answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello") {
        Ok(window)
    } else {
        Err(format!("/{id}: {answer:?}"))
    }
}

/// An interpreter starts in a second; the machine may be busy.
const START_DEADLINE: Duration = Duration::from_secs(20);
