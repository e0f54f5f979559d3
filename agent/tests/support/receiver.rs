// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A collector for tests: an OTLP receiver over gRPC or HTTP that keeps what really arrived.
//!
//! In: requests, as any exporter sends them. Out: [`Received`], decoded, and answers by the test's script (taken,
//! partly rejected, refused, throttled, never given). It forwards nothing. A test that is told of an attribute that the
//! documentation does not have fails.

#[path = "vocabulary.rs"]
mod vocabulary;

use std::{
    collections::VecDeque,
    future::pending,
    io::{self, Read},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span},
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinSet,
    time::timeout,
};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Code, Request, Response, Status, codec::CompressionEncoding, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

/// How the receiver is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
    /// OTLP/HTTP with JSON bodies.
    HttpJson,
}

/// What the receiver does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// Takes it.
    Take,
    /// Takes it but for so many spans, for this reason.
    Reject(i64, &'static str),
    /// Refuses it for good: `INVALID_ARGUMENT`, or 400.
    Refuse,
    /// Asks to try again: `UNAVAILABLE`, or 503.
    TryAgain,
    /// Asks to try again no sooner than after so many seconds: `RESOURCE_EXHAUSTED` with `RetryInfo`, or 429 with
    /// `Retry-After`.
    TryAgainAfter(u64),
    /// Reads it and says nothing.
    Silence,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// What it said.
    pub(crate) request: ExportTraceServiceRequest,
    /// Its headers, or metadata; names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Whether it came compressed with gzip.
    pub(crate) gzip: bool,
    /// When it was complete.
    pub(crate) at: Instant,
}

impl Received {
    /// The value of the header `name`.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every span in it.
    pub(crate) fn spans(&self) -> impl Iterator<Item = &Span> {
        let scopes = self.request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans)
    }

    /// Every resource in it, with its spans.
    pub(crate) fn resources(&self) -> &[ResourceSpans] {
        &self.request.resource_spans
    }
}

/// A running receiver. Stops listening when it is dropped.
pub(crate) struct Receiver {
    transport: Transport,
    address: SocketAddr,
    shared: Arc<Shared>,
    // Closing it tells the server to stop.
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    /// A receiver on a free port of the loopback device that takes everything.
    pub(crate) async fn start(transport: Transport) -> io::Result<Self> {
        Self::start_at(transport, ([127, 0, 0, 1], 0).into()).await
    }

    /// The same, on `address`.
    pub(crate) async fn start_at(transport: Transport, address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        match transport {
            Transport::Grpc => drop(tokio::spawn(serve_grpc(listener, Arc::clone(&shared), stopped))),
            Transport::Http | Transport::HttpJson => {
                drop(tokio::spawn(serve_http(transport, listener, Arc::clone(&shared), stopped)));
            }
        }
        Ok(Self { transport, address, shared, _stop: stop })
    }

    /// How it is spoken to.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// What an exporter is told: with the signal's path for HTTP.
    pub(crate) fn endpoint(&self) -> String {
        endpoint(self.transport, self.address)
    }

    /// The next requests are answered so, in this order; those after them are taken.
    pub(crate) fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.lock().answers.extend(answers);
    }

    /// Everything that arrived so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        let log = self.shared.lock();
        assert_eq!(log.objection, None);
        log.received.clone()
    }

    /// Waits until `enough` says so about what arrived, and returns it.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Received]) -> bool) -> Vec<Received> {
        let waiting = async {
            loop {
                let mut arrival = std::pin::pin!(self.shared.arrived.notified());
                arrival.as_mut().enable();
                let received = self.received();
                if enough(&received) {
                    return received;
                }
                arrival.await;
            }
        };
        match timeout(PATIENCE, waiting).await {
            Ok(received) => received,
            Err(_) => panic!("waited in vain for {what}; arrived: {:#?}", self.received()),
        }
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Relaxed)
    }
}

/// What an exporter is told of a receiver at `address`.
pub(crate) fn endpoint(transport: Transport, address: SocketAddr) -> String {
    match transport {
        Transport::Grpc => format!("http://{address}"),
        Transport::Http | Transport::HttpJson => format!("http://{address}/v1/traces"),
    }
}

/// How long anything is waited for before a test fails: far beyond what a busy machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

// --- Shared ---

#[derive(Default)]
struct Shared {
    log: Mutex<Log>,
    arrived: Notify,
    connections: AtomicUsize,
}

#[derive(Default)]
struct Log {
    received: Vec<Received>,
    /// The first one to what was received.
    objection: Option<String>,
    answers: VecDeque<Answer>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, received: Received) -> Answer {
        let objection = objection(&received.request);
        let mut log = self.lock();
        log.objection = log.objection.take().or(objection);
        log.received.push(received);
        let answer = log.answers.pop_front().unwrap_or(Answer::Take);
        drop(log);
        self.arrived.notify_waiters();
        answer
    }
}

/// What is wrong with the attributes of the agent's spans and of their resources.
fn objection(request: &ExportTraceServiceRequest) -> Option<String> {
    let all = |kind: &'static str, attributes: &[KeyValue]| attributes.iter().find_map(|key| one(kind, key));
    request.resource_spans.iter().find_map(|resource| {
        let scopes = resource
            .scope_spans
            .iter()
            .filter(|scopes| scopes.scope.as_ref().is_some_and(|scope| scope.name.starts_with("spantap/")));
        let of_resource = resource.resource.as_ref().and_then(|resource| all("resource", &resource.attributes));
        of_resource.or_else(|| {
            scopes.flat_map(|scope| &scope.spans).find_map(|span| {
                let kind = if span.kind == 2 { "SERVER" } else { "CLIENT" };
                let of_links = || span.links.iter().find_map(|link| all("link", &link.attributes));
                all(kind, &span.attributes).or_else(of_links)
            })
        })
    })
}

fn one(kind: &str, KeyValue { key, value, .. }: &KeyValue) -> Option<String> {
    let of = match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(_)) => "string",
        Some(Value::IntValue(_)) => "int",
        Some(Value::DoubleValue(_)) => "double",
        Some(Value::ArrayValue(_)) => "string[]",
        _ => "nothing",
    };
    vocabulary::objection(kind, key, of)
}

// --- gRPC ---

async fn serve_grpc(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let counted = Arc::clone(&shared);
    let connections = TcpListenerStream::new(listener).map(move |connection| {
        counted.connections.fetch_add(1, Relaxed);
        connection
    });
    let service = TraceServiceServer::new(Grpc(shared)).accept_compressed(CompressionEncoding::Gzip);
    let server = Server::builder().add_service(service).serve_with_incoming_shutdown(connections, async {
        stopped.await.ok();
    });
    server.await.expect("a bound listener can be served");
}

struct Grpc(Arc<Shared>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let headers: Vec<_> = metadata
            .into_headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let gzip = headers.iter().any(|(name, value)| name == "grpc-encoding" && value == "gzip");
        match self.0.take(Received { request, headers, gzip, at: Instant::now() }) {
            Answer::Take => Ok(Response::new(taken(None))),
            Answer::Reject(spans, why) => Ok(Response::new(taken(Some((spans, why))))),
            Answer::Refuse => Err(Status::invalid_argument("not like this")),
            Answer::TryAgain => Err(Status::unavailable("not now")),
            Answer::TryAgainAfter(seconds) => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(seconds)));
                Err(Status::with_error_details(Code::ResourceExhausted, "not so much", details))
            }
            Answer::Silence => pending().await,
        }
    }
}

// --- HTTP ---

async fn serve_http(
    transport: Transport,
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stopped: oneshot::Receiver<()>,
) {
    // Dropped with this task, which closes every connection.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        if let Ok((stream, _)) = accepted {
            shared.connections.fetch_add(1, Relaxed);
            connections.spawn(serve_connection(transport, stream, Arc::clone(&shared)));
        }
    }
}

/// Serves requests until the client closes, or says something that is not worth an answer.
async fn serve_connection(transport: Transport, mut stream: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(received) = read_request(transport, &mut stream, &mut buffer).await? {
        let (status, headers, body) = match shared.take(received) {
            Answer::Take => ("200 OK", String::new(), answer(transport, &taken(None))),
            Answer::Reject(spans, why) => ("200 OK", String::new(), answer(transport, &taken(Some((spans, why))))),
            Answer::Refuse => ("400 Bad Request", String::new(), Vec::new()),
            Answer::TryAgain => ("503 Service Unavailable", String::new(), Vec::new()),
            Answer::TryAgainAfter(seconds) => {
                ("429 Too Many Requests", format!("Retry-After: {seconds}\r\n"), Vec::new())
            }
            Answer::Silence => pending().await,
        };
        let (kind, length) = (media_type(transport), body.len());
        let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
    Ok(())
}

/// The next request; nothing when the client closed instead.
async fn read_request(
    transport: Transport,
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Received>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break buffer.drain(..end + 4).collect::<Vec<_>>();
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.split("\r\n");
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if lines.next() != Some("POST /v1/traces HTTP/1.1") {
        return Err(bad("not a POST of traces"));
    }
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let header = |name| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let length = header("content-length").and_then(|length| length.parse().ok()).ok_or_else(|| bad("no length"))?;
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let mut body: Vec<_> = buffer.drain(..length).collect();
    let gzip = header("content-encoding") == Some("gzip");
    if gzip {
        let mut inflated = Vec::new();
        GzDecoder::new(&*body).read_to_end(&mut inflated)?;
        body = inflated;
    }
    if header("content-type") != Some(media_type(transport)) {
        return Err(bad("of another type"));
    }
    let request = match transport {
        Transport::HttpJson => serde_json::from_slice(&body)?,
        _ => ExportTraceServiceRequest::decode(&*body).map_err(|error| bad(&error.to_string()))?,
    };
    Ok(Some(Received { request, headers, gzip, at: Instant::now() }))
}

fn media_type(transport: Transport) -> &'static str {
    if transport == Transport::HttpJson { "application/json" } else { "application/x-protobuf" }
}

/// The answer is encoded as the request was.
fn answer(transport: Transport, response: &ExportTraceServiceResponse) -> Vec<u8> {
    match transport {
        Transport::HttpJson => serde_json::to_vec(response).expect("an answer has a JSON form"),
        _ => response.encode_to_vec(),
    }
}

fn taken(rejected: Option<(i64, &str)>) -> ExportTraceServiceResponse {
    ExportTraceServiceResponse {
        partial_success: rejected
            .map(|(rejected_spans, why)| ExportTracePartialSuccess { rejected_spans, error_message: why.to_owned() }),
    }
}
