// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The executable from outside: what it prints where, and its exit codes. Nothing here needs privileges or traces.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Exit code, standard output, standard error.
fn spantap(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = command(arguments, environment).output().expect("the executable under test starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spantap"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

#[test]
fn help_and_version_are_answers_and_go_to_standard_output() {
    for arguments in [&["--help"][..], &["-h"], &["run", "--help"], &["doctor", "-h"], &["--version"], &["version"]] {
        let (code, out, err) = spantap(arguments, &[]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("spantap"), "{arguments:?}: {out}");
    }
    let (_, help, _) = spantap(&["--help"], &[]);
    assert!(!help.contains("demo-service") && !help.contains("doctor-exchange"), "inner commands stay inside");
}

#[test]
fn the_version_is_readable_by_programs() {
    let (code, out, _) = spantap(&["version", "--json"], &[]);
    let version: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, version["version"].as_str()), (Some(0), Some(env!("CARGO_PKG_VERSION"))));
}

#[test]
fn mistakes_are_reported_together_and_nothing_is_started() {
    let (code, out, err) = spantap(&["--pid", "x", "--print", "tre"], &[("SPANTAP_DURATION", "30")]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    insta::assert_snapshot!(err, @r#"
    spantap: 3 mistakes; nothing was started
      SPANTAP_DURATION "30" is not a time above zero
           → give a number and a unit: 30s
      --pid "x" is not possible
           → give a process id, such as --pid 4312
      --print "tre" is unknown
           → did you mean tree? There are tree, text, json
    See `spantap --help`.
    "#);
}

#[test]
fn an_unknown_flag_is_a_mistake() {
    let (code, out, err) = spantap(&["--prot", "80"], &[]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("--port"), "a suggestion: {err}");
}

#[test]
fn a_wrong_log_filter_is_a_warning() {
    let (code, _, err) = spantap(&["version"], &[("SPANTAP_LOG", "a=b=c")]);
    assert_eq!(code, Some(0));
    assert!(err.contains("SPANTAP_LOG or RUST_LOG is no log filter"), "{err}");
}

#[test]
fn the_doctor_always_has_a_report() {
    let (code, out, _) = spantap(&["doctor"], &[]);
    assert!(matches!(code, Some(0 | 77)), "{code:?}");
    assert!(out.lines().last().is_some_and(|line| line.starts_with("Result: ")), "{out}");
    let (json_code, out, _) = spantap(&["doctor", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(report["supported"].as_bool(), Some(json_code == Some(0)));
    assert_eq!(json_code, code);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let mut child = command(&["--help"], &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut err).expect("UTF-8");
    assert_eq!((child.wait().expect("it ends").code(), err.as_str()), (Some(0), ""));
}

#[test]
fn a_service_of_the_demo_serves_and_dies_with_its_parent() {
    let mut stock = Inner::start(&["demo-service", "stock"]);
    let address: SocketAddr = stock.line().parse().expect("an address");
    let mut connection = TcpStream::connect(address).expect("it listens");
    write!(connection, "GET /v1/items/sku-1 HTTP/1.1\r\nHost: stock\r\n\r\n").expect("it reads");
    let mut status = String::new();
    BufReader::new(connection).read_line(&mut status).expect("it answers");
    assert_eq!(status, "HTTP/1.1 200 OK\r\n");
    // What happens when the parent is gone, however it went.
    drop(stock.child.stdin.take());
    assert_eq!(stock.ended(), Some(0));
}

#[test]
fn the_doctors_exchange_talks_to_itself() {
    let mut talker = Inner::start(&["doctor-exchange"]);
    writeln!(talker.child.stdin.take().expect("piped"), "/token").expect("it reads");
    assert_eq!(talker.line(), "done");
    assert_eq!(talker.ended(), Some(0));
}

/// A child with a command that only spantap itself uses.
struct Inner {
    child: Child,
}

impl Inner {
    fn start(arguments: &[&str]) -> Self {
        let mut command = command(arguments, &[]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self { child: command.spawn().expect("the executable under test starts") }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().expect("piped")).read_line(&mut line).expect("UTF-8");
        line.trim_end().to_owned()
    }

    /// The exit code, once it has ended.
    fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running");
            std::thread::yield_now();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
