// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A booted machine: QEMU with a kernel, a first file system in memory, and a console.
//!
//! In: an image, files, and what init is told. Out: the console, line by line, until the guest is silent for too long. It
//! has no network and no disk, and is ended whatever happens to us; what it is booted for is its callers' business.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Instant,
};

use anyhow::{Context, Result};

use crate::{
    command::{announce, find},
    initramfs::Initramfs,
    kernels::Image,
    share::{self, Share},
};

/// What a guest is made of.
pub(crate) struct Machine<'a> {
    /// The kernel.
    pub(crate) image: &'a Image,
    /// The archive of its first file system.
    pub(crate) initramfs: &'a Path,
    /// Parameters that the kernel does not know: it hands them to init, as environment.
    pub(crate) told: &'a str,
    /// Mebibytes.
    pub(crate) memory: u32,
    /// This machine's files, if it is lent them.
    pub(crate) share: Option<Share>,
}

/// A running guest; dropping it ends it.
pub(crate) struct Guest {
    process: Child,
    console: Receiver<String>,
    /// Ended with the guest: nobody else asks for files.
    _share: Option<Share>,
}

impl Guest {
    /// Starts `machine`.
    pub(crate) fn boot(machine: Machine<'_>) -> Result<Self> {
        let Machine { image, initramfs, told, memory, share } = machine;
        let mut command = Command::new("qemu-system-x86_64");
        command.args(share.as_ref().map(|share| share.arguments(memory)).unwrap_or_default());
        command
            // TCG works everywhere, in CI too. One thread for both processors: with one for each, QEMU 7.2 was seen to run into a
            // jump that the other processor was writing. No cmpxchg16b, which the kernel does without: from it QEMU 7.2 was seen
            // to return with half a pointer in the flags, with one thread as well.
            .args(["-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-smp", "2", "-m", &memory.to_string()])
            .args(["-nographic", "-no-reboot", "-nic", "none"])
            .args(["-append", &format!("console=ttyS0 quiet panic=1 rdinit=/init {told}")])
            .arg("-kernel")
            .arg(&image.file)
            .arg("-initrd")
            .arg(initramfs);
        announce(&command);
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start QEMU")?;
        let stdout = process.stdout.take().context("QEMU has no console")?;
        let (lines, console) = mpsc::channel();
        // Ends with the guest, whose console it reads.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { process, console, _share: share })
    }

    /// The next line of its console, which is printed as well. None when it has ended, or said nothing until `deadline`.
    pub(crate) fn line(&self, deadline: Instant) -> Option<String> {
        let line = self.console.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
        // The firmware clears the screen; ours stays as it is.
        println!("  | {}", line.replace(char::is_control, ""));
        Some(line)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have powered itself off already; then there is nothing to end, which is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A first file system with a shell and its tools, and a script to source that mounts what every program expects.
pub(crate) fn files() -> Result<Initramfs> {
    let mut archive = Initramfs::default();
    for folder in ["bin", "dev", "proc", "sys", "tmp"] {
        archive.folder(folder);
    }
    // Init's standard streams are open before devtmpfs is mounted.
    archive.device("dev/console", 5, 1);
    archive.executable("bin/busybox", &tool("busybox")?);
    archive.executable("prepare", PREPARE.as_bytes());
    Ok(archive)
}

/// What a guest needs to mount a [`Share`], and a script to source that makes it this machine's twin below `/host`.
pub(crate) fn lend(archive: &mut Initramfs, image: &Image) -> Result<()> {
    archive.folder("host");
    archive.folder("modules");
    for (name, module) in share::modules(&image.modules)? {
        archive.executable(&format!("modules/{name}"), &module);
    }
    archive.executable("lend", LEND.as_bytes());
    Ok(())
}

/// The content of the executable `name` of this machine.
pub(crate) fn tool(name: &str) -> Result<Vec<u8>> {
    let file = find(name).with_context(|| format!("{name} has gone"))?;
    fs::read(&file).with_context(|| format!("read {}", file.display()))
}

/// Of a guest that runs this machine's programs.
pub(crate) const LENT_MEMORY: u32 = 3072;

/// A mount may fail on an old kernel: who needs it says what is missing.
const PREPARE: &str = "\
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
";

/// What is written goes to the guest's memory: `/run`, and whatever else the caller puts a file system over.
const LEND: &str = "\
for module in /modules/*; do insmod $module; done
mount -t virtiofs -o ro host /host
for folder in dev proc sys; do mount --rbind /$folder /host/$folder; done
mkdir -p /dev/shm
for folder in run dev/shm; do mount -t tmpfs tmpfs /host/$folder; done
";
