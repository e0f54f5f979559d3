// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OTLP over gRPC and over HTTP/protobuf.
//!
//! In: encoded requests. Out: the same bytes to one collector, as often as the protocol and the timeout allow, and what
//! became of their spans. It neither queues nor batches, it does not look into a request, and it logs nothing.

use std::{
    io::Write as _,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::{
    Message as _,
    bytes::{BufMut as _, Bytes},
};
use reqwest::{
    Response, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Extensions, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    transport::{Channel, ClientTlsConfig, Uri},
};

use super::retry::{self, Answer, Backoff};
use crate::config::{Otlp, OtlpProtocol};

/// What became of one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The collector took it, but for `rejected` spans; it may have something to say about them, or a warning.
    Taken { rejected: usize, message: Option<String> },
    /// It did not, for this reason.
    Lost(String),
}

/// One collector, and the connections to it.
#[derive(Debug)]
pub(super) struct Collector {
    transport: Transport,
    endpoint: String,
    timeout: Duration,
}

#[derive(Debug)]
enum Transport {
    Grpc(GrpcClient),
    Http(HttpClient),
}

impl Collector {
    /// The collector that `config` names. Connects when it is first needed; must be made within a runtime.
    pub(super) fn new(config: &Otlp) -> anyhow::Result<Self> {
        let transport = match config.protocol {
            OtlpProtocol::Grpc => Transport::Grpc(GrpcClient::new(config)?),
            OtlpProtocol::HttpProtobuf => Transport::Http(HttpClient::new(config)?),
        };
        Ok(Self { transport, endpoint: shown(&config.endpoint), timeout: config.timeout })
    }

    /// Where the spans go, as it may be logged.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends `request`, and again as the protocol allows, until the timeout is over.
    pub(super) async fn send(&self, request: Bytes) -> Verdict {
        let deadline = Instant::now() + self.timeout;
        let body = self.transport.body(request);
        let mut backoff = Backoff::new();
        let mut last = format!("no answer within {:?}", self.timeout);
        while let Ok(answer) = timeout_at(deadline, self.transport.attempt(body.clone())).await {
            let pause = match answer {
                Answer::Taken { rejected, message } => return Verdict::Taken { rejected, message },
                Answer::Refused(why) => return Verdict::Lost(why),
                Answer::Later { why, after } => {
                    last = why;
                    backoff.pause(after)
                }
            };
            if pause >= deadline.saturating_duration_since(Instant::now()) {
                break;
            }
            sleep(pause).await;
        }
        Verdict::Lost(last)
    }
}

impl Transport {
    /// `request` as every attempt sends it. gRPC compresses what it frames itself.
    fn body(&self, request: Bytes) -> Bytes {
        match self {
            Self::Http(client) if client.gzip => gzipped(&request),
            Self::Http(_) | Self::Grpc(_) => request,
        }
    }

    async fn attempt(&self, body: Bytes) -> Answer {
        match self {
            Self::Grpc(client) => client.attempt(body).await,
            Self::Http(client) => client.attempt(body).await,
        }
    }
}

/// `endpoint` as it may be logged: without a user name and a password.
fn shown(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return endpoint.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => endpoint.to_owned(),
    }
}

/// The endpoint, of which both transports ask the same.
fn check_endpoint(endpoint: &str) -> anyhow::Result<Uri> {
    let uri: Uri = endpoint.parse().with_context(|| format!("the endpoint {} is not a URL", shown(endpoint)))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => bail!("the endpoint {} cannot be spoken to: only http:// and https:// are known", shown(endpoint)),
    }
}

/// The configured headers, checked, and ours. A header's value may be a credential and stays out of the message.
fn headers(config: &Otlp) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let checked =
            HeaderName::from_str(name).with_context(|| format!("the header name {name:?} is not one HTTP knows"))?;
        let mut value = HeaderValue::from_str(value)
            .with_context(|| format!("the value of the header {name} has characters that HTTP does not allow"))?;
        value.set_sensitive(true);
        headers.append(checked, value);
    }
    headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(PRODUCT));
    Ok(headers)
}

// --- gRPC ---

/// One HTTP/2 connection, which carries any number of requests at once.
#[derive(Debug)]
struct GrpcClient {
    grpc: Grpc<Channel>,
    metadata: MetadataMap,
}

impl GrpcClient {
    fn new(config: &Otlp) -> anyhow::Result<Self> {
        let mut grpc = Grpc::new(channel(config)?);
        if config.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self { grpc, metadata: MetadataMap::from_headers(headers(config)?) })
    }

    async fn attempt(&self, body: Bytes) -> Answer {
        let mut grpc = self.grpc.clone();
        if let Err(error) = grpc.ready().await {
            return retry::no_answer(&error);
        }
        let request = tonic::Request::from_parts(self.metadata.clone(), Extensions::default(), body);
        match grpc.unary(request, PathAndQuery::from_static(EXPORT), Encoded).await {
            Ok(response) => retry::taken(response.into_inner()),
            Err(status) => retry::grpc(&status),
        }
    }
}

fn channel(config: &Otlp) -> anyhow::Result<Channel> {
    let uri = check_endpoint(&config.endpoint)?;
    let secure = uri.scheme_str() == Some("https");
    let mut endpoint = Channel::builder(uri).connect_timeout(config.timeout).tcp_keepalive(Some(TCP_KEEPALIVE));
    if secure {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_webpki_roots()).context("set up TLS")?;
    }
    Ok(endpoint.connect_lazy())
}

/// Requests that are encoded already: the generated client would encode anew, from a copy, for every attempt.
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = ExportTraceServiceResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(request);
        Ok(())
    }
}

impl Decoder for Encoded {
    type Item = ExportTraceServiceResponse;
    type Error = Status;

    fn decode(&mut self, answer: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // Undecodable or not, it came with success.
        Ok(Some(ExportTraceServiceResponse::decode(answer).unwrap_or_default()))
    }
}

// --- HTTP ---

/// A pool of HTTP/1 connections. It goes through the proxy that the environment names, as the HTTP exporters of other
/// languages do.
#[derive(Debug)]
struct HttpClient {
    inner: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    gzip: bool,
}

impl HttpClient {
    fn new(config: &Otlp) -> anyhow::Result<Self> {
        check_endpoint(&config.endpoint)?;
        let url = config
            .endpoint
            .parse()
            .with_context(|| format!("the endpoint {} is not a URL", shown(&config.endpoint)))?;
        let mut headers = headers(config)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        if config.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // The provider is named here, as rustls only guesses one where exactly one is compiled in.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?
            .with_root_certificates(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
            .with_no_client_auth();
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .connect_timeout(config.timeout)
            .tcp_keepalive(TCP_KEEPALIVE)
            // A redirected POST would become a GET; a collector that moved is a setting to correct.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("set up the HTTP client")?;
        Ok(Self { inner, url, headers, gzip: config.gzip })
    }

    async fn attempt(&self, body: Bytes) -> Answer {
        let request = self.inner.post(self.url.clone()).headers(self.headers.clone()).body(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => retry::taken(said(response).await),
            Ok(response) => retry::http(response.status(), response.headers(), SystemTime::now()),
            Err(error) => retry::no_answer(&error),
        }
    }
}

/// What a collector says beside success: nothing, where it cannot be read, as the spans are taken all the same.
async fn said(mut response: Response) -> ExportTraceServiceResponse {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        if body.len() + piece.len() > MAX_ANSWER {
            return ExportTraceServiceResponse::default();
        }
        body.extend_from_slice(&piece);
    }
    ExportTraceServiceResponse::decode(&*body).unwrap_or_default()
}

fn gzipped(bytes: &[u8]) -> Bytes {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("a vector has room for everything").into()
}

// --- Constants ---

/// The method of the service that takes traces.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// `User-Agent`. The specification's product token for exporters
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent>) names one of OpenTelemetry's own, which
/// this is not.
const PRODUCT: &str = concat!("spantap/", env!("CARGO_PKG_VERSION"));

/// Bytes read of an answer over HTTP: a number and a sentence. gRPC has a bound of its own, 4 MiB.
const MAX_ANSWER: usize = 64 << 10;

/// Finds out that a collector's machine is gone when no request would. HTTP/2 pings would be quicker, but gRPC servers
/// close connections that ping more often than every 5 minutes.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tls_is_set_up_for_both_transports() {
        for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
            let collector = Collector::new(&config("https://collector.example/v1/traces", protocol));
            assert!(collector.is_ok(), "{protocol:?}: {collector:?}");
        }
    }

    #[tokio::test]
    async fn settings_that_can_never_work_are_refused_in_words() {
        let grpc = |endpoint| config(endpoint, OtlpProtocol::Grpc);
        let http = |endpoint| config(endpoint, OtlpProtocol::HttpProtobuf);
        let header = |name: &str, value: &str| Otlp {
            headers: vec![(name.into(), value.into())],
            ..http("http://localhost:4318/v1/traces")
        };
        for (config, words) in [
            (grpc("no url"), "the endpoint no url is not a URL"),
            (grpc("ftp://host:4317"), "only http:// and https:// are known"),
            (http("no url"), "the endpoint no url is not a URL"),
            (http("localhost:4318"), "only http:// and https:// are known"),
            (header("a name", "v"), "the header name \"a name\""),
            (header("x", "line\nbreak"), "the value of the header x"),
        ] {
            let refusal = Collector::new(&config).map_or_else(|error| format!("{error:#}"), |_| "accepted".to_owned());
            assert!(refusal.contains(words), "{refusal}");
        }
    }

    #[test]
    fn a_password_in_the_endpoint_is_not_shown() {
        for (endpoint, expected) in [
            ("https://user:secret@host:4318/v1/traces", "https://host:4318/v1/traces"),
            ("https://user:s@cret@host/", "https://host/"),
            ("http://host:4318/a@b", "http://host:4318/a@b"),
            ("not a url", "not a url"),
        ] {
            assert_eq!(shown(endpoint), expected);
        }
    }

    fn config(endpoint: &str, protocol: OtlpProtocol) -> Otlp {
        Otlp { endpoint: endpoint.into(), protocol, headers: Vec::new(), timeout: Duration::from_secs(1), gzip: false }
    }
}
