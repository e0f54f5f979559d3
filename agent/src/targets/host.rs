// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Facts about the machine: its name, its id, its users.
//!
//! In: files of `/etc` and `/proc`. Out: [`HostFacts`], and names for user ids. It asks no name service: a lookup may
//! go over the network, through sockets that the agent itself watches.

use std::{
    collections::HashMap,
    env,
    fs::{self, File},
    io::Read,
    path::Path,
};

use crate::{clock, enrich::HostFacts};

/// Facts about this machine.
pub fn facts() -> HostFacts {
    HostFacts { booted: clock::booted(), ..with_root(Path::new("/")) }
}

/// Facts about the machine whose root directory is `root`, but for the time of its boot.
fn with_root(root: &Path) -> HostFacts {
    let first_line = |path: &str| {
        let text = bounded(&root.join(path), LINE_BYTES).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    // The machine id, from the first of the two places where the conventions look for it
    // (https://opentelemetry.io/docs/specs/semconv/resource/host/#collecting-hostid-from-non-containerized-systems).
    let id = ["etc/machine-id", "var/lib/dbus/machine-id"].map(first_line);
    HostFacts {
        name: first_line("proc/sys/kernel/hostname"),
        // systemd writes the word "uninitialized" into an image that has not booted yet.
        id: id.into_iter().find(|id| !id.is_empty() && id != "uninitialized").unwrap_or_default(),
        arch: architecture(env::consts::ARCH).to_owned(),
        booted: 0,
    }
}

/// The conventions' name of an architecture that Rust names `arch`.
fn architecture(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "x86",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// The names of the host's local users, read once: `/etc/passwd` changes rarely, and a missing name costs little.
#[derive(Debug, Default)]
pub(super) struct Users(HashMap<u32, String>);

impl Users {
    /// The users of a file in the format of passwd(5). Of two names for one id the first counts, as for getpwuid(3).
    pub(super) fn read(passwd: &Path) -> Self {
        let text = bounded(passwd, PASSWD_BYTES).unwrap_or_default();
        let mut names = HashMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            let (Some(name), _, Some(id)) = (fields.next(), fields.next(), fields.next()) else { continue };
            let Ok(id) = id.parse() else { continue };
            if !name.is_empty() {
                names.entry(id).or_insert_with(|| name.to_owned());
            }
        }
        Self(names)
    }

    /// The name of the user `id`.
    pub(super) fn name(&self, id: u32) -> Option<String> {
        self.0.get(&id).cloned()
    }
}

/// The first `limit` bytes of a regular file. Anything else (a FIFO would block) counts as absent.
fn bounded(path: &Path, limit: u64) -> Option<String> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A machine id has 32 digits, a host name at most 64 bytes (HOST_NAME_MAX).
const LINE_BYTES: u64 = 256;

/// 1 MiB: some 20,000 users. Hosts with more keep them in a directory service, which is not asked.
const PASSWD_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_name_and_an_architecture() {
        let facts = facts();
        assert!(!facts.name.is_empty());
        assert_eq!(facts.arch, architecture(env::consts::ARCH));
        assert!(facts.booted > 0);
    }

    #[test]
    fn the_machine_id_may_stand_in_two_places() {
        for (etc, dbus, id) in [
            (Some("0123456789abcdef0123456789abcdef\n"), None, "0123456789abcdef0123456789abcdef"),
            (Some("uninitialized\n"), Some("fedcba\n"), "fedcba"),
            (Some(""), Some("fedcba\n"), "fedcba"),
            (None, Some("fedcba\n"), "fedcba"),
            (None, None, ""),
        ] {
            let root = tempfile::tempdir().expect("a directory");
            for (path, content) in [("etc/machine-id", etc), ("var/lib/dbus/machine-id", dbus)] {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().expect("not the root")).expect("a directory");
                if let Some(content) = content {
                    fs::write(path, content).expect("a file");
                }
            }
            assert_eq!(with_root(root.path()).id, id, "{etc:?} {dbus:?}");
        }
    }

    #[test]
    fn architectures_have_the_names_of_the_conventions() {
        assert_eq!(["x86_64", "aarch64", "s390x"].map(architecture), ["amd64", "arm64", "s390x"]);
    }

    #[test]
    fn odd_lines_of_passwd_are_skipped() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text = b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0:::\n+::::::\n:x:7:7:::\nshort:x\nbig:x:99999999999:0:::\nw\xffw:x:33:33:::\n\n";
        fs::write(file.path(), text).expect("written");
        let users = Users::read(file.path());
        assert_eq!(users.name(0).as_deref(), Some("root"));
        assert_eq!(users.name(33).as_deref(), Some("w\u{fffd}w"));
        assert_eq!(users.name(7), None);
        assert!(Users::read(Path::new("/nonexistent")).name(0).is_none());
    }
}
