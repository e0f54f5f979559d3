// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether a collector listens on this machine.
//!
//! In: the ports to try. Out: the first destination that takes an empty OTLP request there. It tries each port once,
//! and no address but the loopback device's: what nobody configured does not leave the machine.

use std::{net::SocketAddr, time::Duration};

use prost::bytes::Bytes;
use tokio::{net::TcpStream, time::timeout};

use super::otlp::{Collector, Signal, Verdict};
use crate::config::{Destination, Protocol};

/// Where collectors listen, the specification's default protocol first
/// (<https://opentelemetry.io/docs/specs/otlp/#otlphttp-default-port>).
pub const USUAL_PORTS: [(u16, Protocol); 2] = [(4318, Protocol::HttpProtobuf), (4317, Protocol::Grpc)];

/// The first of `ports` where a collector takes an empty request: whatever else listens there does not answer it so.
pub async fn find(ports: &[(u16, Protocol)]) -> Option<Destination> {
    for (port, protocol) in ports {
        let address = SocketAddr::from(([127, 0, 0, 1], *port));
        // Asked first, as a gRPC channel goes on trying to connect.
        if !matches!(timeout(PATIENCE, TcpStream::connect(address)).await, Ok(Ok(_))) {
            continue;
        }
        let path = if *protocol == Protocol::Grpc { "" } else { "/v1/traces" };
        let destination = Destination::new(format!("http://{address}{path}"), *protocol);
        let trial = Destination { timeout: PATIENCE, ..destination.clone() };
        let Ok(collector) = Collector::new(&trial, Signal::Traces) else { continue };
        if matches!(collector.send(Bytes::from_static(NOTHING)).await, Verdict::Taken { .. }) {
            return Some(destination);
        }
    }
    None
}

/// A request with one resource and nothing in it: one without a body would come without a length over HTTP.
const NOTHING: &[u8] = &[0x0a, 0];

/// A collector on the same machine answers within a millisecond; this much delays a start that finds something else.
const PATIENCE: Duration = Duration::from_millis(300);
