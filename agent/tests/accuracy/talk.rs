// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Both ends of a connection, moved by one thread.
//!
//! In: bytes to pass from one end to the other, and the ways in which an end can leave. Out: when each happened. It does
//! not know what the bytes mean; whatever one end writes, the other has read before the call returns.

use std::{
    io::{Error, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use crate::truth::Window;

/// A connection of this process with itself.
pub(crate) struct Talk {
    /// The end that connected.
    pub(crate) client: Option<TcpStream>,
    /// The end that was accepted.
    pub(crate) server: Option<TcpStream>,
    /// How bytes are cut.
    pub(crate) cut: Cut,
}

/// Most bytes of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Of a write.
    pub(crate) write: usize,
    /// Of a read.
    pub(crate) read: usize,
}

/// When bytes were passed: their first piece and their last, each from before its write to after its read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    /// The first byte.
    pub(crate) first: Window,
    /// The last byte.
    pub(crate) last: Window,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The one that connected.
    Client,
    /// The one that was accepted.
    Server,
}

/// How an end leaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Leave {
    /// `shutdown(SHUT_WR)`: it goes on reading.
    Shut,
    /// `close`: the other end reads the end of the stream.
    Close,
    /// `close` with a reset: the other end reads an error.
    Reset,
}

impl Cut {
    /// One call for whatever fits a socket's buffers for certain.
    pub(crate) const WHOLE: Self = Self { write: 64 << 10, read: 64 << 10 };
}

impl Talk {
    /// Connects to a listener of its own at `address`.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, String> {
        let pair = || -> Result<_, Error> {
            let listener = TcpListener::bind(address)?;
            let client = TcpStream::connect(address)?;
            let (server, _) = listener.accept()?;
            Ok((client, server))
        };
        let (client, server) = pair().map_err(|e| format!("connect to {address}: {e}"))?;
        Self::of(client, server)
    }

    /// The two ends of a connection.
    pub(crate) fn of(client: TcpStream, server: TcpStream) -> Result<Self, String> {
        for end in [&client, &server] {
            end.set_nodelay(true)
                .and_then(|()| end.set_read_timeout(Some(READ_DEADLINE)))
                .map_err(|e| format!("set up a connection: {e}"))?;
        }
        Ok(Self { client: Some(client), server: Some(server), cut: Cut::WHOLE })
    }

    /// The two ends of a connection of another kind: of what their type can do, only what every stream can is used.
    pub(crate) fn of_streams(client: impl Into<OwnedFd>, server: impl Into<OwnedFd>) -> Result<Self, String> {
        let ends = [client.into(), server.into()].map(TcpStream::from);
        for end in &ends {
            end.set_read_timeout(Some(READ_DEADLINE)).map_err(|e| format!("set up a connection: {e}"))?;
        }
        let [client, server] = ends.map(Some);
        Ok(Self { client, server, cut: Cut::WHOLE })
    }

    /// `from` writes, the other end reads.
    pub(crate) fn pass(&mut self, from: End, bytes: &[u8]) -> Result<Passed, String> {
        let cut = self.cut;
        let (Some(client), Some(server)) = (&mut self.client, &mut self.server) else {
            return Err("an end that has left cannot say anything".to_owned());
        };
        let (writer, reader) = match from {
            End::Client => (client, server),
            End::Server => (server, client),
        };
        let mut passed: Option<Passed> = None;
        for piece in bytes.chunks(cut.write) {
            let (done, window) = Window::around(|| pass_piece(writer, reader, piece, cut.read));
            done.map_err(|e| {
                format!("{from:?} says {:?}: {e}", String::from_utf8_lossy(&piece[..piece.len().min(80)]))
            })?;
            passed = Some(Passed { first: passed.map_or(window, |passed| passed.first), last: window });
        }
        passed.ok_or_else(|| "nothing to say".to_owned())
    }

    /// `from` writes, and nobody reads it yet.
    pub(crate) fn send(&mut self, from: End, bytes: &[u8]) -> Result<Window, String> {
        let end = self.end(from).as_mut().ok_or("an end that has left cannot say anything")?;
        let (sent, window) = Window::around(|| end.write_all(bytes));
        sent.map_err(|e| format!("{from:?} sends: {e}"))?;
        Ok(window)
    }

    /// `end` leaves, and the other one, if it is still there, has seen that when this returns.
    pub(crate) fn leave(&mut self, end: End, how: Leave) -> Result<Window, String> {
        let gone = |error: Error| format!("{end:?} leaves by {how:?}: {error}");
        let (left, window) = Window::around(|| {
            match how {
                Leave::Shut => self.end(end).as_ref().map_or(Ok(()), |stream| stream.shutdown(Shutdown::Write))?,
                Leave::Close => drop(self.end(end).take()),
                Leave::Reset => self.end(end).take().map_or(Ok(()), reset)?,
            }
            let other = match end {
                End::Client => End::Server,
                End::Server => End::Client,
            };
            match self.end(other) {
                Some(other) => see_the_end(other),
                None => Ok(()),
            }
        });
        left.map_err(gone)?;
        Ok(window)
    }

    fn end(&mut self, end: End) -> &mut Option<TcpStream> {
        match end {
            End::Client => &mut self.client,
            End::Server => &mut self.server,
        }
    }
}

/// Reads exactly as many bytes as `expected`, at most `most` at a time; others than those are an error.
pub(crate) fn read_all(reader: &mut TcpStream, expected: &[u8], most: usize) -> Result<(), Error> {
    let mut buffer = vec![0; expected.len()];
    let mut done = 0;
    while done < buffer.len() {
        let room = buffer.len().min(done + most);
        match reader.read(&mut buffer[done..room])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    if buffer == expected { Ok(()) } else { Err(Error::new(ErrorKind::InvalidData, "other bytes came out")) }
}

fn pass_piece(writer: &mut TcpStream, reader: &mut TcpStream, piece: &[u8], most: usize) -> Result<(), Error> {
    writer.write_all(piece)?;
    read_all(reader, piece, most)
}

/// Reads until the other end is known to have left.
fn see_the_end(stream: &mut TcpStream) -> Result<(), Error> {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Closes with a reset: "a l_linger of zero" discards what is queued, and no orderly end is sent.
fn reset(stream: TcpStream) -> Result<(), Error> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is a `linger` that outlives the call, and its size is that of a `linger`.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Everything that is read was written before: this is for faults.
const READ_DEADLINE: Duration = Duration::from_secs(20);
