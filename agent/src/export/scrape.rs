// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What others may ask the agent over HTTP: `/metrics`, `/livez` and `/readyz`.
//!
//! In: requests. Out: the numbers in the OpenMetrics format, asked for anew each time, and one word about the agent's
//! health. It changes nothing, it knows no secret, and it binds where it was told: to loopback unless somebody said
//! otherwise.
//!
//! `/livez` fails when the run loop has not come by for 30 s: restarting helps then. `/readyz` fails until the probes are
//! attached and the ring was looked at once. Neither depends on a collector or on traffic: an agent that waits for either
//! is well.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore, time::timeout};

use super::metrics::{Asks, ask};
use crate::{clock, metrics::openmetrics, time::Timestamp};

/// How the agent is.
#[derive(Debug, Default)]
pub struct Health {
    /// When the run loop last came by, on the probes' clock.
    beat: AtomicU64,
    attached: AtomicBool,
    /// It came by after that: whatever the probes wrote is read from now on.
    looked: AtomicBool,
}

impl Health {
    /// The run loop came by: it has looked at the ring, if there is one.
    pub fn beat(&self, now: Timestamp) {
        self.beat.store(now.0, Relaxed);
        if self.attached.load(Relaxed) {
            self.looked.store(true, Relaxed);
        }
    }

    /// The probes are attached.
    pub fn attached(&self) {
        self.attached.store(true, Relaxed);
    }

    fn is_live(&self, now: Timestamp) -> bool {
        now.since(Timestamp(self.beat.load(Relaxed))) < BEAT
    }

    fn is_ready(&self) -> bool {
        self.looked.load(Relaxed)
    }
}

/// Answers at `address` from now on; returns where that is.
pub fn serve(address: SocketAddr, asks: Asks, health: Arc<Health>, runtime: &Handle) -> anyhow::Result<SocketAddr> {
    // From now on, as far as being alive goes.
    health.beat(clock::now());
    let listener = runtime.block_on(TcpListener::bind(address));
    let listener =
        listener.with_context(|| format!("listen on {address} for Prometheus; choose another address or port"))?;
    let bound = listener.local_addr().context("ask for the address that Prometheus gets")?;
    runtime.spawn(async move {
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            // What fails here is the peer's business, or there are no descriptors: the next one may have better luck.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            };
            let (asks, health) = (asks.clone(), Arc::clone(&health));
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, asks.clone(), Arc::clone(&health)));
                let mut connection = http1::Builder::new();
                connection.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(MOST_HEAD);
                // A peer that goes away, or says nothing that is HTTP, has nobody to be told.
                timeout(LONGEST, connection.serve_connection(TokioIo::new(stream), service)).await.ok();
                drop(place);
            });
        }
    });
    Ok(bound)
}

async fn answer(
    request: Request<Incoming>,
    asks: Asks,
    health: Arc<Health>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status, text: &'static str| response(status, PLAIN, text.into());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(refused);
    }
    Ok(match request.uri().path() {
        "/metrics" => match ask(&asks).await {
            Some(snapshot) => response(
                StatusCode::OK,
                openmetrics::CONTENT_TYPE,
                openmetrics::text(&snapshot.families, snapshot.wall).into(),
            ),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "the run loop does not answer\n"),
        },
        "/livez" if health.is_live(clock::now()) => text(StatusCode::OK, "ok\n"),
        "/livez" => text(StatusCode::SERVICE_UNAVAILABLE, "the run loop stands still\n"),
        "/readyz" if health.is_ready() => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "the probes are not attached, or not read yet\n"),
        _ => text(StatusCode::NOT_FOUND, "/metrics, /livez, /readyz\n"),
    })
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const PLAIN: &str = "text/plain; charset=utf-8";

/// Scrapers and probes at one time: a handful. More wait.
const MOST_CONNECTIONS: usize = 16;

/// A scraper sends some 300 bytes. hyper wants at least 8 KiB.
const MOST_HEAD: usize = 16 << 10;

/// How long a peer may take to send a request: as long as Kubernetes waits for an answer, and some.
const PATIENCE: Duration = Duration::from_secs(10);

/// A scraper that keeps its connection comes back within Prometheus's longest usual interval.
const LONGEST: Duration = Duration::from_secs(300);

/// After a failure to accept, which is most often a want of descriptors.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// How long the run loop may stay away: it sleeps for milliseconds.
const BEAT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::{
        export::metrics::Snapshot,
        metrics::{Data, Family, Kind, Point},
        time::WallOffset,
    };

    /// The status, the type and the body of an answer.
    fn get(address: SocketAddr, line: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(address).expect("it listens");
        write!(stream, "{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        (head.split(' ').nth(1).unwrap_or_default().to_owned(), kind.to_owned(), body.to_owned())
    }

    #[test]
    fn numbers_and_health_are_told_to_who_asks() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (asks, mut asked) = mpsc::channel::<oneshot::Sender<Snapshot>>(1);
        let health = Arc::new(Health::default());
        let address = serve(([127, 0, 0, 1], 0).into(), asks, Arc::clone(&health), runtime.handle()).expect("a port");

        assert_eq!(get(address, "GET /livez").0, "200");
        assert_eq!(get(address, "GET /readyz").0, "503", "nothing is attached");
        health.beat(clock::now());
        assert_eq!(get(address, "GET /readyz").0, "503", "there was no ring to look at");
        health.attached();
        assert_eq!(get(address, "GET /readyz").0, "503", "nobody has looked at it");
        health.beat(Timestamp(1));
        assert_eq!(get(address, "GET /readyz").0, "200");
        let long_ago = clock::now().since(Timestamp(1)) >= BEAT;
        assert_eq!(get(address, "GET /livez").0, if long_ago { "503" } else { "200" });
        assert_eq!(get(address, "GET /").0, "404");
        assert_eq!(get(address, "POST /metrics").0, "405");

        runtime.spawn(async move {
            while let Some(answer) = asked.recv().await {
                let point = Point { resource: None, labels: Vec::new(), since: Timestamp(0), data: Data::Gauge(7.0) };
                let family = Family { name: "seven", unit: "", help: "Seven.", kind: Kind::Gauge, points: vec![point] };
                answer.send(Snapshot { families: vec![family], now: Timestamp(0), wall: WallOffset(0) }).ok();
            }
        });
        let (status, kind, body) = get(address, "GET /metrics");
        assert_eq!((status.as_str(), kind.as_str()), ("200", openmetrics::CONTENT_TYPE));
        assert_eq!(body, "# TYPE seven gauge\n# HELP seven Seven.\nseven 7\n# EOF\n");
    }
}
