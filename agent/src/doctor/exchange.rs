// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A round trip through the real probes.
//!
//! In: attached probes. Out: the verdict whether one HTTP exchange over loopback was captured at both of its ends. The
//! exchange is a child's, because the agent leaves its own connections alone; no parser is asked, only bytes are
//! compared.

use std::{
    collections::HashSet,
    io::{self, BufRead as _, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Check, Probes, Verdict};
use crate::live::screen::brief;

/// Makes the exchange happen and waits for it to be heard.
pub(super) fn check(probes: &mut dyn Probes) -> Check {
    let token = format!("/spantap-doctor/{}", std::process::id());
    let mut child = match Talker::start(&token) {
        Ok(child) => child,
        Err(error) => {
            return Check::new(NAME, Verdict::Warn, format!("round trip: the exchange could not be started ({error})"));
        }
    };
    listen(probes, &token, || child.talk())
}

fn listen(probes: &mut dyn Probes, token: &str, talk: impl FnOnce() -> io::Result<()>) -> Check {
    let started = Instant::now();
    if let Err(error) = talk() {
        return Check::new(NAME, Verdict::Warn, format!("round trip: the exchange failed by itself ({error})"));
    }
    // The request is heard where it is written and where it is read: on two sockets.
    let mut ends = HashSet::new();
    loop {
        probes.listen(&mut |socket, payload| {
            if payload.windows(token.len()).any(|window| window == token.as_bytes()) {
                ends.insert(socket);
            }
        });
        let waited = started.elapsed();
        match ends.len() {
            2.. => {
                let finding = format!("round trip: a loopback request was captured at both ends in {}", brief(waited));
                return Check::new(NAME, Verdict::Ok, finding);
            }
            heard if waited >= PATIENCE => {
                let finding = format!("round trip: a loopback request was captured at {heard} of its 2 ends");
                return Check::new(NAME, Verdict::Fail, finding)
                    .fix("report it with this output and the kernel's version");
            }
            _ => std::thread::sleep(TICK),
        }
    }
}

/// The child's part: waits for a line with a path, then asks itself for it, and says when it has the answer.
pub fn converse() -> io::Result<()> {
    let mut path = String::new();
    io::stdin().lock().read_line(&mut path)?;
    let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", path.trim_end());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    client.write_all(request.as_bytes())?;
    let mut heard = vec![0; request.len()];
    server.read_exact(&mut heard)?;
    server.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
    drop(server);
    client.read_to_end(&mut heard)?;
    let mut out = io::stdout().lock();
    writeln!(out, "done")?;
    out.flush()
}

/// The child that talks to itself.
struct Talker {
    child: Child,
    path: String,
}

impl Talker {
    fn start(path: &str) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("doctor-exchange")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, path: path.to_owned() })
    }

    /// Returns when the exchange is over.
    fn talk(&mut self) -> io::Result<()> {
        let (Some(mut stdin), Some(stdout)) = (self.child.stdin.take(), self.child.stdout.take()) else {
            return Err(io::Error::other("its input and output were not piped"));
        };
        writeln!(stdin, "{}", self.path)?;
        drop(stdin);
        let mut answer = String::new();
        io::BufReader::new(stdout).read_line(&mut answer)?;
        if answer == "done\n" { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) const NAME: &str = "round_trip";

/// A hundred times what the slowest consumer tick takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at the ring.
const TICK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// Probes that hear what a test wants them to.
    struct Heard(Vec<(u64, &'static [u8])>);

    impl Probes for Heard {
        fn hooks(&self) -> Vec<Check> {
            Vec::new()
        }

        fn listen(&mut self, heard: &mut dyn FnMut(u64, &[u8])) {
            for (socket, payload) in self.0.drain(..) {
                heard(socket, payload);
            }
        }
    }

    fn verdict(heard: &[(u64, &'static [u8])]) -> Verdict {
        listen(&mut Heard(heard.to_vec()), "/token", || Ok(())).verdict
    }

    #[test]
    fn both_ends_have_to_be_heard() {
        assert_eq!(verdict(&[(1, b"GET /token"), (9, b"GET /other"), (2, b"GET /token HTTP/1.1")]), Verdict::Ok);
        assert_eq!(verdict(&[(1, b"GET /token"), (1, b"GET /token")]), Verdict::Fail);
    }

    #[test]
    fn an_exchange_that_fails_by_itself_does_not_blame_the_probes() {
        let failed = || Err(io::ErrorKind::AddrNotAvailable.into());
        assert_eq!(listen(&mut Heard(Vec::new()), "/token", failed).verdict, Verdict::Warn);
    }
}
