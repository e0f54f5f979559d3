// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The demo's services: web, cart and stock.
//!
//! In: requests, a thread a connection, as most services have handled them for thirty years. Out: answers, some late,
//! some wrong, one missing. They contain no instrumentation: what the traces show was found from outside.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::http::{Connection, Request, child_context};

/// What a service does with a request.
pub(super) trait Handler: Send + Sync + 'static {
    /// The answer; none hangs up instead.
    fn handle(&self, request: &Request) -> io::Result<Option<Answer>>;
}

/// A status and a body.
type Answer = (u16, String);

/// Serves until the process ends; says where on standard output.
pub(super) fn run(handler: impl Handler) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("open a loopback port for the demo")?;
    announce(listener.local_addr()?)?;
    let handler = Arc::new(handler);
    for stream in listener.incoming() {
        let (stream, handler) = (stream?, Arc::clone(&handler));
        // A connection that breaks is the other side's affair.
        thread::spawn(move || converse(stream, &*handler));
    }
    Ok(())
}

/// Tells the parent that we are ready.
pub(super) fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{address}")?;
    out.flush()
}

fn converse(stream: TcpStream, handler: &impl Handler) -> io::Result<()> {
    let mut connection = Connection::over(stream)?;
    while let Some(request) = connection.next()? {
        match handler.handle(&request) {
            Ok(Some((status, body))) => connection.answer(status, &body)?,
            Ok(None) => break,
            Err(error) => connection.answer(502, &format!("{{\"error\":\"{:?}\"}}", error.kind()))?,
        }
    }
    Ok(())
}

/// The front: what browsers talk to.
pub(super) struct Web {
    pub(super) cart: SocketAddr,
    pub(super) stock: SocketAddr,
}

impl Handler for Web {
    fn handle(&self, request: &Request) -> io::Result<Option<Answer>> {
        let answer = match request.path.split(['/', '?']).nth(1) {
            Some("") => (200, "{\"welcome\":true}".to_owned()),
            Some("cart") => call(self.cart, request, &format!("/v1{}", request.path))?,
            Some("search") => call(self.stock, request, &format!("/v1{}", request.path))?,
            Some("checkout") => call(self.cart, request, "/v1/checkout")?,
            _ => not_found(),
        };
        Ok(Some(answer))
    }
}

/// The middle: asks stock too often.
pub(super) struct Cart {
    pub(super) stock: SocketAddr,
}

impl Handler for Cart {
    fn handle(&self, request: &Request) -> io::Result<Option<Answer>> {
        let answer = match request.path.split('/').nth(2) {
            Some("cart") => {
                let mut connection = Connection::to(self.stock)?;
                for item in 1..=ITEMS {
                    let path = format!("/v1/items/sku-{item}");
                    connection.ask(&Request::new("GET", path, onward(request)))?;
                }
                (200, format!("{{\"items\":{ITEMS}}}"))
            }
            Some("checkout") => {
                let (reserved, _) = call(self.stock, request, "/v1/reservations")?;
                let paid = call(self.stock, request, "/v1/payments");
                match paid {
                    Ok(answer) if reserved == 200 => answer,
                    _ => (502, "{\"error\":\"no payment\"}".to_owned()),
                }
            }
            _ => not_found(),
        };
        Ok(Some(answer))
    }
}

/// The back: slow, out of stock, and gone when it comes to paying.
pub(super) struct Stock;

impl Handler for Stock {
    fn handle(&self, request: &Request) -> io::Result<Option<Answer>> {
        let answer = match request.path.split(['/', '?']).nth(2) {
            Some("items") => {
                thread::sleep(LOOKUP);
                (200, "{\"left\":3}".to_owned())
            }
            Some("search") => {
                thread::sleep(SEARCH);
                (200, "{\"found\":[\"lamp\"]}".to_owned())
            }
            Some("reservations") => (503, "{\"error\":\"out of stock\"}".to_owned()),
            Some("payments") => {
                thread::sleep(LOOKUP);
                return Ok(None);
            }
            _ => not_found(),
        };
        Ok(Some(answer))
    }
}

/// One call on a connection of its own, on behalf of `request`.
fn call(to: SocketAddr, request: &Request, path: &str) -> io::Result<Answer> {
    Connection::to(to)?.ask(&Request::new(&request.method, path, onward(request)))
}

/// The trace context for a call on behalf of `request`: passed on where there is one, as most services would.
fn onward(request: &Request) -> Option<String> {
    request.context.as_deref().and_then(child_context)
}

fn not_found() -> Answer {
    (404, "{\"error\":\"not found\"}".to_owned())
}

/// Items in every cart: enough for the loop to be recognised.
const ITEMS: usize = 8;

/// What a good database takes.
const LOOKUP: Duration = Duration::from_millis(2);

/// What a bad query takes: the longest bar on the screen.
const SEARCH: Duration = Duration::from_millis(240);

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(handler: impl Handler) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = listener.local_addr().expect("an address");
        let handler = Arc::new(handler);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handler = Arc::clone(&handler);
                thread::spawn(move || converse(stream, &*handler));
            }
        });
        address
    }

    #[test]
    fn every_path_of_the_shop_answers_as_the_legend_says() {
        let stock = serving(Stock);
        let cart = serving(Cart { stock });
        let web = serving(Web { cart, stock });
        let cases = [
            ("GET", "/", 200),
            ("GET", "/cart/7", 200),
            ("GET", "/search?q=lamp", 200),
            ("POST", "/checkout", 502),
            ("GET", "/nothing", 404),
        ];
        let mut connection = Connection::to(web).expect("a connection");
        for (method, path, status) in cases {
            let (seen, body) = connection.ask(&Request::new(method, path, None)).expect("an answer");
            assert_eq!(seen, status, "{path}: {body}");
        }
    }
}
