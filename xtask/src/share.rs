// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Lets a guest read the files of this machine: its interpreters, servers and libraries.
//!
//! In: a kernel's modules. Out: those that it takes, for the guest's first file system, and a running virtiofsd with the
//! arguments that connect QEMU to it. The guest mounts it read-only (`vm.rs`); what it writes goes to its own memory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::command::{announce, find};

/// The name under which the guest mounts it.
pub(crate) const TAG: &str = "host";

/// In the order of loading; a kernel that has one of them built in, or does not know it, has no file of it.
/// `virtio_pci_modern_dev` came with 5.12 and `virtio_pci_legacy_dev` with 5.16: before, both were part of `virtio_pci`.
const MODULES: &[&str] =
    &["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "fuse", "virtiofs"];

/// Names and contents of the modules below `folder` that it takes, in the order of loading.
pub(crate) fn modules(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    collect(folder, &mut files).with_context(|| format!("look for modules in {}", folder.display()))?;
    let find_module = |name: &&str| {
        let is_it = |file: &&PathBuf| {
            let file = file.file_name().map(|file| file.to_string_lossy().replace('-', "_")).unwrap_or_default();
            file == format!("{name}.ko") || file == format!("{name}.ko.xz")
        };
        files.iter().find(is_it)
    };
    let present = MODULES.iter().enumerate().filter_map(|(order, name)| Some((order, name, find_module(name)?)));
    present.map(|(order, name, file)| Ok((format!("{order}-{name}.ko"), content(file)?))).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// A module's bytes; newer distributions compress them.
fn content(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("read {}", file.display()));
    }
    let busybox = find("busybox").context("busybox has gone")?;
    let output = Command::new(busybox).args(["xz", "-dc"]).arg(file).output().context("start busybox")?;
    if !output.status.success() {
        bail!("{} cannot be unpacked: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

/// Where virtiofsd is: in nobody's path.
pub(crate) fn daemon() -> Option<PathBuf> {
    // Of the package of its own, which is the one in Rust; and of QEMU before 8.0, in C.
    ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"].into_iter().map(PathBuf::from).find(|file| file.is_file())
}

/// A running virtiofsd, for one guest.
pub(crate) struct Share {
    daemon: Child,
    socket: PathBuf,
}

impl Share {
    /// Starts it, with its socket in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let socket = folder.join("virtiofsd.sock");
        // Left by one that was killed; most often there is none.
        let _ = fs::remove_file(&socket);
        let mut command = Command::new(daemon().context("virtiofsd has gone")?);
        // The options of the one in C, which the one in Rust knows too. A sandbox of namespaces, the default, pivots the
        // root, which it cannot where that is an initial file system or a container's.
        command.arg(format!("--socket-path={}", socket.display()));
        command.args(["-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=auto"]);
        announce(&command);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut share = Self { daemon: quiet.spawn().context("start virtiofsd")?, socket };
        let deadline = Instant::now() + PATIENCE;
        while !share.socket.exists() {
            if share.daemon.try_wait().context("wait for virtiofsd")?.is_some() || Instant::now() > deadline {
                bail!("virtiofsd does not listen at {}; it takes root", share.socket.display());
            }
            std::thread::sleep(LOOK);
        }
        Ok(share)
    }

    /// What QEMU is told besides: the guest's memory, `mebibytes` of it, is shared with the daemon.
    pub(crate) fn arguments(&self, mebibytes: u32) -> Vec<String> {
        [
            "-object".to_owned(),
            format!("memory-backend-memfd,id=memory,size={mebibytes}M,share=on"),
            "-numa".to_owned(),
            "node,memdev=memory".to_owned(),
            "-chardev".to_owned(),
            format!("socket,id=files,path={}", self.socket.display()),
            "-device".to_owned(),
            format!("vhost-user-fs-pci,chardev=files,tag={TAG}"),
        ]
        .into()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It ends with its guest, and may have done so already.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

/// Until the daemon listens, which takes it milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{MODULES, modules};

    #[test]
    fn modules_are_found_wherever_they_lie_and_loaded_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in
            [("fs/fuse/virtiofs.ko", "last"), ("drivers/virtio/virtio.ko", "first"), ("other.ko", "")]
        {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        let found = modules(folder.path()).unwrap();
        let last = format!("{}-virtiofs.ko", MODULES.len() - 1);
        assert_eq!(found, [("0-virtio.ko".to_owned(), b"first".to_vec()), (last, b"last".to_vec())]);
    }
}
