// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Asking a server on this machine.
//!
//! In: a port and a path. Out: the text or JSON that is there. HTTP/1.0, so that the answer ends with the connection.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The JSON at `path`; null where the answer is none.
pub(super) fn get(port: u16, path: &str) -> Result<Value> {
    Ok(serde_json::from_str(&text(port, path)?).unwrap_or_default())
}

/// The text at `path`.
pub(super) fn text(port: u16, path: &str) -> Result<String> {
    let mut stream = connect(port)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: */*\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("no answer of HTTP")?;
    if !head.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// Whether somebody listens.
pub(super) fn reaches(port: u16) -> bool {
    connect(port).is_ok()
}

fn connect(port: u16) -> Result<TcpStream> {
    Ok(TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE)?)
}

/// A server on the same machine that needs longer is not well.
const PATIENCE: Duration = Duration::from_secs(10);
