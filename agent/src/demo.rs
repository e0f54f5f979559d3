// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A small shop to try spantap on: three services of our own, and somebody who visits them.
//!
//! In: a [`Config`] without a selection. Out: the services as child processes, and a [`Config`] that traces just them.
//! The services know nothing of spantap: no library, no shared memory, no hint; they are plain blocking HTTP servers,
//! and they die with this process.
//!
//! ```text
//! visitor ─┬─ GET /                        web answers
//!          ├─ GET /cart/7                  web → cart → stock, once for each item: the N+1
//!          ├─ GET /search?q=lamp           web → stock, which is slow
//!          └─ POST /checkout, traceparent  web → cart ─┬→ stock: 503
//!                                                      └→ stock: hangs up
//! ```
//!
//! The visitor is a process of its own and is not traced: it stands for the browser. Its checkout carries a
//! `traceparent` header that the services pass on as an SDK would; on the other paths there is no header at all.

mod http;
mod service;
mod visitor;

use std::{
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::config::{Config, PrintStyle, Selection};

/// The running shop. Dropping it ends every process of it.
#[derive(Debug)]
pub struct Shop {
    services: Vec<Service>,
    visitor: Option<Service>,
}

impl Shop {
    /// Starts the services and waits until each of them listens. Nobody visits them yet.
    pub fn open() -> Result<Self> {
        let mut shop = Self { services: Vec::new(), visitor: None };
        let mut upstreams = Vec::new();
        // From the back to the front: whoever is called has to be there first.
        for role in ["stock", "cart", "web"] {
            let service = Service::start(role, &upstreams)?;
            upstreams.insert(0, service.address);
            shop.services.push(service);
        }
        Ok(shop)
    }

    /// Lets the visitor in.
    pub fn visit(&mut self) -> Result<()> {
        let Some(web) = self.services.last() else { bail!("the demo has no web service") };
        self.visitor = Some(Service::start("visitor", &[web.address])?);
        Ok(())
    }

    /// `config`, restricted to the services.
    pub fn traced(&self, config: &Config) -> Config {
        let pids = self.services.iter().map(|service| service.child.id()).collect();
        Config { selection: Selection { pids, ..Selection::default() }, ..config.clone() }
    }
}

/// What is going to be seen, for standard error.
pub fn legend(config: &Config) -> String {
    let trees = config.output.print.is_some_and(|print| print.style == PrintStyle::Tree);
    let mut text = "Three services of the demo are running: web calls cart, and both call stock. A visitor clicks.\n\
                    Nothing in them knows of spantap. Watch for\n"
        .to_owned();
    let rows: &[(&str, &str)] = if trees {
        &[
            ("web -> cart", "one call, seen from both of its ends"),
            ("×8  N+1?", "cart asks stock once for each item: a loop that should be one request"),
            ("GET /search", "where the time went: stock takes a quarter of a second"),
            ("503, ERR", "a checkout fails: stock has none left, then hangs up without an answer"),
            ("caller not seen here", "the checkout came with a traceparent header of the visitor, who is not traced"),
        ]
    } else {
        &[
            ("GET /cart", "cart asks stock once for each item: an N+1"),
            ("GET /search", "stock is slow"),
            ("POST /checkout", "stock answers 503, then hangs up without an answer"),
        ]
    };
    for (sign, meaning) in rows {
        text.push_str(&format!("  {sign:<21} {meaning}\n"));
    }
    text
}

/// What to try afterwards, for standard error.
pub const FAREWELL: &str = "That was the demo. Trace your own services with `sudo spantap`.\n";

/// A child's whole life: `demo-service ROLE UPSTREAM…`. It ends with an error, or as
/// [`end_with_parent`] says.
pub fn serve(role: &str, upstreams: &[SocketAddr]) -> Result<()> {
    match (role, upstreams) {
        ("stock", []) => service::run(service::Stock),
        ("cart", [stock]) => service::run(service::Cart { stock: *stock }),
        ("web", [cart, stock]) => service::run(service::Web { cart: *cart, stock: *stock }),
        ("visitor", [web]) => visitor::run(*web),
        _ => bail!("there is no {role} with {} upstreams in the demo", upstreams.len()),
    }
}

/// A child and where it listens; of the visitor, whom it visits.
#[derive(Debug)]
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    fn start(role: &str, upstreams: &[SocketAddr]) -> Result<Self> {
        let program = std::env::current_exe().context("find the spantap executable, to start the demo's services")?;
        let mut command = Command::new(program);
        command.arg("demo-service").arg(role).args(upstreams.iter().map(ToString::to_string));
        // Variables of the agent are none of the services', and each has the name that the traces are to show.
        command.env_clear().env("OTEL_SERVICE_NAME", role);
        // Ctrl-C is for the agent, which lets open requests end: the services get no signal from the terminal.
        command.process_group(0);
        // The pipe to its standard input is the child's lifeline: see `end_with_parent`.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let child = command.spawn().with_context(|| format!("start the demo's {role}"))?;
        let mut service = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        service.address = service.greeting().with_context(|| format!("wait for the demo's {role} to listen"))?;
        Ok(service)
    }

    /// The line by which a child says that it is ready, and where.
    fn greeting(&mut self) -> Result<SocketAddr> {
        let output = self.child.stdout.take().context("its output was not piped")?;
        let mut line = String::new();
        if BufReader::new(output).read_line(&mut line)? == 0 {
            bail!("it ended at once");
        }
        line.trim_end().parse().with_context(|| format!("it said {line:?} and no address"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when the parent is gone, however it went: its end of our standard input closes then. The kernel's
/// `PR_SET_PDEATHSIG` would tie us to the parent's thread instead, and the agent's runtime ends threads as it likes.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bounds, Colour, Output, Print};

    #[test]
    fn the_legend_fits_the_screen_and_the_format() {
        let config = |style| Config {
            selection: Selection::default(),
            tier: None,
            output: Output { print: Some(Print { style, colour: Colour::Off, terminal: true }), ..Output::default() },
            duration: None,
            record: None,
            quiet: false,
            resource: Vec::new(),
            disclosure: Default::default(),
            budget: None,
            bounds: Bounds::default(),
        };
        for style in [PrintStyle::Tree, PrintStyle::Text, PrintStyle::Json] {
            let legend = legend(&config(style));
            assert!(legend.lines().all(|line| line.chars().count() <= 110), "{legend}");
            assert_eq!(legend.contains("N+1?"), style == PrintStyle::Tree);
        }
    }

    #[test]
    fn an_unknown_role_is_refused() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        for (role, upstreams) in [("bakery", vec![]), ("web", vec![nobody]), ("stock", vec![nobody])] {
            assert!(serve(role, &upstreams).is_err(), "{role}");
        }
    }
}
