// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether somebody listens where spans go.
//!
//! In: the configured endpoint, if any. Out: a verdict. It opens a connection and closes it again: no span is sent, no
//! credential is tried.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use reqwest::Url;

use super::{Check, Verdict};
use crate::{config::Destination, export::local::USUAL_PORTS};

pub(super) fn checks(destinations: &[Destination]) -> Vec<Check> {
    if destinations.is_empty() { vec![local()] } else { destinations.iter().map(configured).collect() }
}

fn configured(otlp: &Destination) -> Check {
    let shown = format!("{} ({})", otlp.endpoint_shown(), otlp.protocol.name());
    match reach(&otlp.endpoint) {
        Ok(()) => Check::new(NAME, Verdict::Ok, format!("collector {shown} accepts connections")),
        Err(why) => {
            let finding = format!("collector {shown}: {why}; spans would be lost after some retries");
            Check::new(NAME, Verdict::Warn, finding)
                .fix("start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT or --otlp")
        }
    }
}

fn reach(endpoint: &str) -> Result<(), String> {
    let url = Url::parse(endpoint).map_err(|error| error.to_string())?;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or(0));
    // The resolver wants an IPv6 address without its brackets.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host} cannot be resolved ({error})"))?;
    let mut why = format!("{host} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => why = format!("{address} does not answer ({})", error.kind()),
        }
    }
    Err(why)
}

/// Without an endpoint: whether one of the usual ports would do.
fn local() -> Check {
    let listens =
        |port: u16| TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), PATIENCE).is_ok();
    // HTTP first: it is the specification's default protocol.
    match USUAL_PORTS.into_iter().find(|(port, _)| listens(*port)) {
        Some((port, _)) => {
            let finding = format!("no collector configured, but something listens on 127.0.0.1:{port}");
            Check::new(NAME, Verdict::Info, finding)
                .fix("if it is a collector, spans go there unless --print or --otlp says otherwise")
        }
        None => {
            let finding = "collector: none configured, and 127.0.0.1:4317/4318 are closed; traces are printed";
            Check::new(NAME, Verdict::Skip, finding)
        }
    }
}

const NAME: &str = "collector";

/// A collector that takes longer to accept is of no use.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Protocol;

    fn verdict(endpoint: String) -> Check {
        let otlp = Destination { timeout: PATIENCE, ..Destination::new(endpoint, Protocol::HttpProtobuf) };
        configured(&otlp)
    }

    #[test]
    fn a_listening_collector_is_good_and_a_closed_port_is_a_warning() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let port = listener.local_addr().expect("an address").port();
        assert_eq!(verdict(format!("http://127.0.0.1:{port}/v1/traces")).verdict, Verdict::Ok);
        drop(listener);
        let closed = verdict(format!("http://user:secret@127.0.0.1:{port}/v1/traces"));
        assert_eq!(closed.verdict, Verdict::Warn);
        assert!(closed.finding.contains("does not answer") && !closed.finding.contains("secret"), "{closed:?}");
    }

    #[test]
    fn a_host_without_a_name_is_a_warning() {
        let unknown = verdict("http://collector.invalid:4318/v1/traces".to_owned());
        assert_eq!(unknown.verdict, Verdict::Warn);
        assert!(unknown.finding.contains("cannot be resolved"), "{unknown:?}");
    }
}
