// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Child processes of a test.
//!
//! In: a command. Out: a [`Process`] that ends when it is dropped, or when the thread that started it dies, and with
//! it the waits that tests need. It does not know what the processes do, and ends nothing that it did not start.

use std::{
    fs,
    io::Error,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, id},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A running child.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command`; `name` is for messages.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        // SAFETY: prctl is a plain system call, so it may be called between fork and exec.
        let child = unsafe { command.pre_exec(die_with_parent) }.spawn().map_err(|e| format!("start {name}: {e}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process id and those of its children, such as the workers of nginx.
    pub(crate) fn family(&self) -> Vec<u32> {
        let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (parent_of(pid)? == self.pid()).then_some(pid)
        });
        std::iter::once(self.pid()).chain(children).collect()
    }

    /// The child itself, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits until it accepts connections on `port`.
    pub(crate) fn await_listening(&mut self, port: u16) -> Result<(), String> {
        let mut ended = None;
        let listening = wait_until(START_DEADLINE, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some() || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        match ended {
            Some(status) => Err(format!("{} ended at start: {status}", self.name)),
            None if listening => Ok(()),
            None => Err(format!("{} does not listen on port {port} after {START_DEADLINE:?}", self.name)),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        let Ok(pid) = libc::pid_t::try_from(self.pid()) else { return };
        // SAFETY: a plain system call; the child was not waited for yet, so the pid is still its own.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for its end.
    pub(crate) fn await_end(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(deadline, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // nginx's master ends its workers on SIGTERM; killed, it would leave them behind.
        self.signal(libc::SIGTERM);
        if self.await_end(END_DEADLINE).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Asks `condition` until it holds; false when it did not by the deadline.
pub(crate) fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::park_timeout(POLL);
    }
}

/// A port on which nobody listens. Another process could take it before it is used, so it lies below the range that
/// the kernel hands out for outgoing connections, and test processes begin at different places.
pub(crate) fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS {
        let number = id() + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + (number % u32::from(PORTS)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(format!("no free port from {FIRST_PORT} on"))
}

/// Whether probes can be loaded at all.
pub(crate) fn is_root() -> bool {
    // SAFETY: a plain system call without arguments.
    unsafe { libc::geteuid() == 0 }
}

fn die_with_parent() -> Result<(), Error> {
    // SAFETY: a plain system call; SIGTERM lets the child end children of its own.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Field 4 of `/proc/<pid>/stat`; the name before it may hold blanks and parentheses.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// A JVM that compiles its program first takes 2 s on an idle core.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// After SIGTERM, before SIGKILL.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// Between two looks at a condition that nothing announces.
const POLL: Duration = Duration::from_millis(5);

/// Below `ip_local_port_range`, which begins at 32,768 by default.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;
