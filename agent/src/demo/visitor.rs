// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo's visitor: traffic from outside.
//!
//! In: the address of web. Out: one request after the other, for ever. It judges no answer, and is a process of its own
//! because the agent leaves its own connections alone.

use std::{io, net::SocketAddr, thread, time::Duration};

use anyhow::Result;

use super::{
    http::{Connection, Request, random},
    service::announce,
};

/// Clicks until the process ends.
pub(super) fn run(web: SocketAddr) -> Result<()> {
    announce(web)?;
    for visit in 0.. {
        let (method, path, with_context) = CLICKS[visit % CLICKS.len()];
        let path = path.replace("{n}", &(visit % 90 + 10).to_string());
        let context = with_context.then(fresh_context).flatten();
        // An answer that does not come is part of the show.
        let _ = click(web, &Request::new(method, path, context));
        thread::sleep(BETWEEN_CLICKS);
    }
    Ok(())
}

fn click(web: SocketAddr, request: &Request) -> io::Result<()> {
    Connection::to(web)?.ask(request).map(drop)
}

/// The context of a trace that begins in a browser.
fn fresh_context() -> Option<String> {
    Some(format!("00-{:016x}{:016x}-{:016x}-01", random()?, random()?, random()?))
}

/// Method, path, and whether a trace context is sent along.
const CLICKS: [(&str, &str, bool); 4] =
    [("GET", "/", false), ("GET", "/cart/{n}", false), ("GET", "/search?q=lamp", false), ("POST", "/checkout", true)];

/// Slow enough to read along, fast enough for every path to come by three times in ten seconds.
const BETWEEN_CLICKS: Duration = Duration::from_millis(600);
