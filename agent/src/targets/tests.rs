// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::{
    env,
    io::{BufRead, BufReader},
    os::unix::fs::symlink,
    process::{self, Child, Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use super::*;
use crate::process::Runtime;

/// A root directory with a process 42 that has every file.
fn root() -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let process = root.path().join("proc/42");
    fs::create_dir_all(&process).expect("a directory");
    fs::create_dir_all(root.path().join("etc")).expect("a directory");
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n")
        .expect("written");
    for (name, content) in [
        ("stat", stat("cart", 1234)),
        ("cmdline", "/usr/bin/cart\0--token\0s3cret\0".to_owned()),
        ("environ", "HOME=/root\0OTEL_SERVICE_NAME=shop\0AWS_SECRET=s3cret\0OTEL_RESOURCE_ATTRIBUTES=a=b\0".to_owned()),
        ("cgroup", "0::/system.slice/cart.service\n".to_owned()),
        ("status", "Name:\tcart\nUid:\t0\t1000\t0\t0\nGid:\t0\t0\t0\t0\n".to_owned()),
        ("maps", String::new()),
    ] {
        fs::write(process.join(name), content).expect("written");
    }
    symlink("/usr/bin/cart (deleted)", process.join("exe")).expect("linked");
    symlink("/srv/cart", process.join("cwd")).expect("linked");
    root
}

fn stat(command: &str, started: u64) -> String {
    let before = "7 42 42 0 -1 4194560 4801 89223 0 47 1 3 78 27 20 0 1 0";
    format!("42 ({command}) S {before} {started} 5255168 979 18446744073709551615 0 0 0\n")
}

#[test]
fn everything_is_read() {
    let root = root();
    let facts = Reader::with_root(root.path()).facts(42).expect("a process");
    let expected = ProcessFacts {
        id: ProcessId { pid: 42, started: 1234 },
        parent: 7,
        command: "cart".to_owned(),
        executable: "/usr/bin/cart".to_owned(),
        directory: "/srv/cart".to_owned(),
        arguments: ["/usr/bin/cart", "--token", "s3cret"].map(str::to_owned).to_vec(),
        otel_service_name: Some("shop".to_owned()),
        otel_resource_attributes: Some("a=b".to_owned()),
        cgroup: "/system.slice/cart.service".to_owned(),
        owner: Some("alice".to_owned()),
        runtime: Runtime::Native,
        instrumented: false,
    };
    assert_eq!(facts, expected);
}

#[test]
fn what_cannot_be_read_is_empty() {
    for missing in ["cmdline", "environ", "cgroup", "status", "exe", "cwd", "maps"] {
        let root = root();
        fs::remove_file(root.path().join("proc/42").join(missing)).expect("there");
        let facts = Reader::with_root(root.path()).facts(42).expect("a process");
        let empty = match missing {
            "cmdline" => facts.arguments.is_empty(),
            "environ" => facts.otel_service_name.is_none() && facts.otel_resource_attributes.is_none(),
            "cgroup" => facts.cgroup.is_empty(),
            "status" => facts.owner.is_none(),
            "exe" => facts.executable.is_empty(),
            "cwd" => facts.directory.is_empty(),
            _ => facts.runtime == Runtime::Native,
        };
        assert!(empty, "{missing}: {facts:?}");
        assert_eq!(facts.command, "cart", "{missing}");
    }
}

#[test]
fn without_a_stat_there_is_no_process() {
    let root = root();
    assert_eq!(Reader::with_root(root.path()).facts(43), None);
    for broken in ["", "42", "42 (cart", "42 (cart) S", "42 (cart) S x", "42 )cart( S 7", "\u{0}"] {
        fs::write(root.path().join("proc/42/stat"), broken).expect("written");
        assert_eq!(Reader::with_root(root.path()).facts(42), None, "{broken:?}");
    }
}

#[test]
fn a_command_may_hold_anything() {
    for command in ["a b", "a) S 9 (b", "((", "))", "", "a\nb"] {
        let parsed = Stat::parse(stat(command, 1234).as_bytes()).expect("parsed");
        assert_eq!((parsed.command.as_str(), parsed.parent, parsed.started), (command, 7, 1234), "{command:?}");
    }
}

#[test]
fn a_stat_cut_anywhere_is_refused_or_whole() {
    let whole = stat("cart", 1234);
    for end in 0..whole.len() {
        if let Some(parsed) = Stat::parse(&whole.as_bytes()[..end]) {
            // A number cut short is still a number; the kernel never cuts, so only totality is asked for.
            assert_eq!(parsed.parent, 7, "{end}");
        }
    }
}

#[test]
fn arguments_are_split_at_zeros() {
    for (bytes, expected) in [
        (&b""[..], &[][..]),
        (b"\0\0", &[]),
        (b"a\0", &["a"]),
        (b"a\0b\0", &["a", "b"]),
        (b"a\0\0b\0", &["a", "", "b"]),
        (b"a", &["a"]),
        (b"nginx: worker process\0\0\0\0", &["nginx: worker process"]),
        (b"a\xff\0", &["a\u{fffd}"]),
    ] {
        assert_eq!(arguments(bytes), expected, "{bytes:?}");
    }
}

#[test]
fn of_the_environment_only_two_variables_are_seen() {
    for (environment, name, attributes) in [
        ("", None, None),
        ("OTEL_SERVICE_NAME=a", Some("a"), None),
        ("OTEL_SERVICE_NAME=a\0OTEL_SERVICE_NAME=b\0", Some("a"), None),
        ("OTEL_SERVICE_NAME=\0", None, None),
        ("OTEL_SERVICE_NAMES=a\0XOTEL_SERVICE_NAME=b\0", None, None),
        ("A=OTEL_SERVICE_NAME=a\0", None, None),
        ("OTEL_RESOURCE_ATTRIBUTES=a=b,c=d\0", None, Some("a=b,c=d")),
    ] {
        let found = Declared::find(environment.as_bytes());
        assert_eq!(found.service_name.as_deref(), name, "{environment:?}");
        assert_eq!(found.resource_attributes.as_deref(), attributes, "{environment:?}");
    }
}

#[test]
fn the_hierarchy_that_knows_the_service_counts() {
    for (lines, path) in [
        ("0::/system.slice/a.service\n", "/system.slice/a.service"),
        ("1:name=systemd:/a\n0::/b\n", "/b"),
        ("12:cpu,cpuacct:/x\n1:name=systemd:/a\n0::/\n", "/a"),
        ("12:cpu,cpuacct:/x\n1:name=systemd:/a\n", "/a"),
        ("0::/\n", "/"),
        ("0::/a:b:c\n", "/a:b:c"),
        ("12:cpu:/x\n", ""),
        ("nonsense\n\n:\n", ""),
        ("", ""),
    ] {
        assert_eq!(cgroup(lines.as_bytes()), path, "{lines:?}");
    }
}

#[test]
fn the_effective_user_owns_the_process() {
    for (status, user) in [
        ("Uid:\t1\t2\t3\t4\n", Some(2)),
        ("Name:\tUid:\nUid:\t1\t2\n", Some(2)),
        ("Uid:\t1\n", None),
        ("Uid:\tx\ty\n", None),
        ("", None),
    ] {
        assert_eq!(effective_user(status.as_bytes()), user, "{status:?}");
    }
}

#[test]
fn files_without_end_are_read_to_their_bound() {
    let root = root();
    let process = root.path().join("proc/42");
    for name in ["cmdline", "environ", "cgroup", "status"] {
        fs::remove_file(process.join(name)).expect("there");
        symlink("/dev/zero", process.join(name)).expect("linked");
    }
    let mut reader = Reader::with_root(root.path());
    let facts = reader.facts(42).expect("a process");
    assert_eq!((facts.arguments.len(), facts.owner), (0, None));
    assert!(reader.buffer.capacity() as u64 <= 2 * ARGUMENT_BYTES, "{}", reader.buffer.capacity());
}

#[test]
fn this_very_process_is_found() {
    let facts = Reader::new().facts(process::id()).expect("we are alive");
    let executable = env::current_exe().expect("known");
    assert_eq!(Some(facts.executable.as_str()), executable.to_str());
    assert_eq!(facts.arguments, env::args().collect::<Vec<_>>());
    assert_eq!(Some(facts.directory.as_str()), env::current_dir().expect("known").to_str());
    assert_eq!(facts.parent, std::os::unix::process::parent_id());
    assert!(facts.cgroup.starts_with('/'), "{}", facts.cgroup);
    assert!(facts.id.started > 0);
    assert_eq!(facts.runtime, Runtime::Tokio);
}

#[test]
fn a_child_declares_itself_and_is_gone_when_it_is_reaped() {
    let mut child = Waiting::start(Command::new("cat").env("OTEL_SERVICE_NAME", "shop").env("SECRET", "s3cret"));
    let mut reader = Reader::new();
    let facts = reader.facts(child.0.id()).expect("it waits");
    assert_eq!(facts.otel_service_name.as_deref(), Some("shop"));
    assert!(!format!("{facts:?}").contains("s3cret"));
    assert!(facts.id.started >= reader.facts(process::id()).expect("we are alive").id.started);
    child.0.kill().and_then(|()| child.0.wait()).expect("it was ours");
    assert_eq!(reader.facts(child.0.id()), None);
}

#[test]
fn parents_come_before_their_children_in_a_scan() {
    let child = Waiting::start(&mut Command::new("cat"));
    let scan = Reader::new().scan();
    let position = |pid| scan.iter().position(|facts| facts.id.pid == pid).expect("it runs");
    assert!(position(process::id()) < position(child.0.id()));
}

#[test]
fn facts_are_cheap() {
    let mut reader = Reader::new();
    let mut times: Vec<_> = (0..100)
        .map(|_| {
            let start = Instant::now();
            reader.facts(process::id()).expect("we are alive");
            start.elapsed()
        })
        .collect();
    times.sort();
    // Some 100 µs; the bound only tells apart reading a few files from reading a whole executable or a name service.
    assert!(times[50].as_millis() < 10, "median {:?}", times[50]);
}

#[test]
fn a_process_that_vanished_is_known_by_its_exec() {
    let id = ProcessId::started_at(42, 12_345_678_901);
    let facts = fallback(id, 7, "curl", "/usr/bin/curl");
    assert_eq!((facts.id.started, facts.executable.as_str(), facts.command.as_str()), (1234, "/usr/bin/curl", "curl"));
}

/// A child that runs `cat` until it is dropped, and has executed it for sure.
pub(super) struct Waiting(pub(super) Child);

impl Waiting {
    /// Starts `command`, which echoes its input, and waits until it does: then it is no longer our fork.
    pub(super) fn start(command: &mut Command) -> Self {
        use std::io::Write;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut waiting = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        waiting.0.stdin.as_mut().expect("piped").write_all(b"ready\n").expect("it reads");
        let mut line = String::new();
        BufReader::new(waiting.0.stdout.as_mut().expect("piped")).read_line(&mut line).expect("it writes");
        assert_eq!(line, "ready\n", "{command:?}");
        waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
