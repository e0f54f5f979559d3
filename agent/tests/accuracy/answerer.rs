// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A server for clients that are other programs.
//!
//! In: connections. Out: when each request was read and each answer written. It answers every GET alike, but for a
//! `writes` in the path, whose answer takes half a second; a request with a body is beyond it.

use std::{
    io::{Error, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use crate::{script::pause, truth::Window};

/// A server in this process, until it is dropped.
pub(crate) struct Answerer {
    port: u16,
    stop: Arc<AtomicBool>,
    served: Receiver<Served>,
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// Its target.
    pub(crate) path: String,
    /// The read that returned its first byte.
    pub(crate) asked: Window,
    /// The write of the answer's last byte.
    pub(crate) answered: Window,
}

impl Answerer {
    /// Listens.
    pub(crate) fn start(port: u16) -> Result<Self, String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|e| format!("listen on {port}: {e}"))?;
        let (sender, served) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let sender = sender.clone();
                // A client that goes away is not served, which its case will notice.
                thread::spawn(move || connection.and_then(|connection| converse(connection, &sender)));
            }
        });
        Ok(Self { port, stop, served })
    }

    /// The next `count` requests that are answered.
    pub(crate) fn served(&self, count: usize) -> Result<Vec<Served>, String> {
        let next = |_| self.served.recv_timeout(SERVED_DEADLINE).map_err(|_| "a request did not come".to_owned());
        (0..count).map(next).collect()
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Ends the wait for connections; if nobody listens any more, it has ended.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn converse(mut connection: TcpStream, served: &Sender<Served>) -> Result<(), Error> {
    connection.set_nodelay(true)?;
    let mut held = Vec::new();
    loop {
        let mut asked = None;
        while !held.ends_with(b"\r\n\r\n") {
            let mut buffer = [0; 4096];
            let (read, window) = Window::around(|| connection.read(&mut buffer));
            match read? {
                0 => return Ok(()),
                read => held.extend_from_slice(&buffer[..read]),
            }
            asked.get_or_insert(window);
        }
        let text = String::from_utf8_lossy(&held).into_owned();
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        held.clear();
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n")?;
        for _ in 0..4 {
            if path.starts_with("/writes/") {
                pause(Duration::from_millis(125));
            }
            connection.write_all(b"0123456789")?;
        }
        let (written, answered) = Window::around(|| connection.write_all(b"012345678."));
        written?;
        // Nobody may be interested any more.
        let _ = asked.map(|asked| served.send(Served { path, asked, answered }));
    }
}

/// A JVM that compiles its program first takes some seconds on a busy machine.
const SERVED_DEADLINE: Duration = Duration::from_secs(60);
