// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent with few capabilities.
//!
//! In: the executable, started as root with everything dropped but a set of capabilities. Out: the claims that five are
//! enough to trace, that `doctor` names each missing one, and what it says follows. Nothing is asked of the kernel
//! directly: what a capability is for shows in what the agent can do.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use spantap::kernel::Tier;

/// Every capability the agent is given, by number (`include/uapi/linux/capability.h`) and name.
const CAPABILITIES: [(u32, &str); 5] = [
    (39, "CAP_BPF"),
    (38, "CAP_PERFMON"),
    (19, "CAP_SYS_PTRACE"),
    (2, "CAP_DAC_READ_SEARCH"),
    (40, "CAP_CHECKPOINT_RESTORE"),
];

/// Those without which nothing works.
const NEEDED: [&str; 2] = ["CAP_BPF", "CAP_PERFMON"];

#[test]
fn nothing_else_is_left_to_the_agent() {
    if !is_root() {
        return;
    }
    let status = output(command("/bin/cat", &["/proc/self/status"], &CAPABILITIES.map(|(number, _)| number)));
    let expected: u64 = CAPABILITIES.iter().map(|(number, _)| 1 << number).sum();
    let status = String::from_utf8(status.stdout).expect("text");
    assert!(status.contains(&format!("CapEff:\t{expected:016x}\n")), "{status}");
}

#[test]
fn five_capabilities_are_enough_to_trace_in_every_tier() {
    if !is_root() {
        return;
    }
    let all: Vec<u32> = (0..=last_capability()).collect();
    for tier in Tier::ALL {
        // What root cannot have here is no matter of privilege.
        let doctor = output(in_tier(tier, command(SPANTAP, &["doctor"], &all)));
        if doctor.status.success() {
            five_are_enough_in(tier);
        } else {
            eprintln!("SKIPPED: this kernel has no {tier}");
        }
    }
}

fn five_are_enough_in(tier: Tier) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let arguments = ["run", "--print", "text", "--port", &port.to_string()];
    let mut agent = Ended(
        in_tier(tier, command(SPANTAP, &arguments, &CAPABILITIES.map(|(number, _)| number)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spantap starts"),
    );
    let shown = BufReader::new(agent.0.stdout.take().expect("piped"));
    let (lines, received) = channel();
    // Ends with the agent, whose output it reads.
    thread::spawn(move || {
        for line in shown.lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });

    let deadline = Instant::now() + PATIENCE;
    loop {
        exchange(&listener);
        if let Ok(line) = received.recv_timeout(LOOK)
            && line.contains("/privileges")
        {
            return;
        }
        if Instant::now() > deadline {
            let _ = agent.0.kill();
            let mut complaints = String::new();
            let _ = agent.0.stderr.take().expect("piped").read_to_string(&mut complaints);
            panic!("no request was shown in {tier}: {complaints}");
        }
    }
}

#[test]
fn what_a_missing_capability_costs_is_said() {
    if !is_root() {
        return;
    }
    for (missing, name) in CAPABILITIES {
        let others: Vec<u32> = CAPABILITIES.iter().map(|(number, _)| *number).filter(|it| *it != missing).collect();
        let report = output(command(SPANTAP, &["doctor", "--json"], &others));
        let said: serde_json::Value = serde_json::from_slice(&report.stdout).expect("JSON");
        let finding = said["checks"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|check| check["name"] == "capabilities" && check["verdict"] != "ok")
            .filter_map(|check| check["finding"].as_str())
            .collect::<Vec<_>>();
        assert!(matches!(finding[..], [one] if one.starts_with(&format!("{name} is missing: "))), "{name}: {said}");
        let needed = NEEDED.contains(&name);
        assert_eq!(said["supported"], !needed, "without {name}: {said}");
        assert_eq!(report.status.code(), Some(if needed { 77 } else { 0 }), "without {name}");
    }
}

// --- Processes ---

/// `program` with no more than `capabilities`: what root's execve grants is what the bounding set leaves. It may lock memory,
/// as our systemd unit says: before Linux 5.11 maps count as such.
fn command(program: &str, arguments: &[&str], capabilities: &[u32]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().stdin(Stdio::null());
    let dropped: Vec<u32> = (0..=last_capability()).filter(|number| !capabilities.contains(number)).collect();
    // SAFETY: setrlimit and prctl are plain system calls, and nothing is allocated between fork and exec.
    unsafe {
        command.pre_exec(move || {
            let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // Where root may not even do that, its limit has to do.
            // SAFETY: it reads the structure, which lives until it returns.
            let _ = libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited);
            for number in &dropped {
                // SAFETY: it takes a number and no memory.
                if libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(*number), 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command
}

/// The program told to watch in this tier alone.
fn in_tier(tier: Tier, mut command: Command) -> Command {
    command.env("SPANTAP_TIER", tier.letter());
    command
}

fn last_capability() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/cap_last_cap").expect("procfs");
    text.trim().parse().expect("a number")
}

fn output(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

/// Ended whatever happens to the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One request and its answer.
fn exchange(listener: &TcpListener) {
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    let request = b"GET /privileges HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    client.write_all(request).expect("write");
    server.read_exact(&mut vec![0; request.len()]).expect("read");
    server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("write");
    drop(server);
    client.read_to_end(&mut Vec::new()).expect("read");
}

/// Whether there is something to drop; if not, says so.
fn is_root() -> bool {
    // SAFETY: it takes no argument and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        eprintln!("SKIPPED: not root: there are no capabilities to drop");
    }
    root
}

const SPANTAP: &str = env!("CARGO_BIN_EXE_spantap");

/// Between two exchanges, until the agent has attached its probes.
const LOOK: Duration = Duration::from_millis(50);

/// The probes are attached within a second, or half a minute where the machine is emulated, and a span is shown 1.5 s after
/// its end; either machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);
