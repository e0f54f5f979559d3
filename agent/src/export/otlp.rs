// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One collector: OTLP over gRPC here, everything over HTTP in `http.rs`.
//!
//! In: encoded OTLP requests. Out: what they say to one collector, as often as the protocol and the timeout allow, and
//! what became of their spans. It neither queues nor batches, and it logs nothing.

use std::{str::FromStr, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::{
    Message as _,
    bytes::{BufMut as _, Bytes},
};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Extensions, Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    metadata::MetadataMap,
    transport::{Channel, Uri},
};

use super::{
    http::{Format, HttpClient},
    requests::Requests,
    retry::{self, Answer, Backoff},
    tls,
};
use crate::config::{Destination, Protocol};

/// What is exported: each signal has a method over gRPC, and a path over HTTP that is in the endpoint already. The
/// messages of success are alike: field 1 holds how many items were rejected, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Numbers.
    Metrics,
}

impl Signal {
    fn method(self) -> PathAndQuery {
        PathAndQuery::from_static(match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        })
    }
}

/// What became of one request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The collector took it, but for `rejected` spans; it may have something to say about them, or a warning.
    Taken { rejected: usize, message: Option<String> },
    /// It refused it for good, for this reason.
    Refused(String),
    /// It did not take it in time, for this reason: it may take it later.
    Unreachable(String),
}

/// One collector, and the connections to it.
#[derive(Debug)]
pub(crate) struct Collector {
    transport: Transport,
    endpoint: String,
    timeout: Duration,
    requests: Arc<Requests>,
}

#[derive(Debug)]
enum Transport {
    Grpc(GrpcClient),
    Http(HttpClient),
}

impl Collector {
    /// The collector that `config` names, for `signal`. Reads certificates now and connects when it is first needed;
    /// must be made within a runtime.
    pub(crate) fn new(config: &Destination, signal: Signal) -> anyhow::Result<Self> {
        let http = |format| HttpClient::new(config, format).map(Transport::Http);
        let transport = match (config.protocol, signal) {
            (Protocol::Grpc, signal) => Transport::Grpc(GrpcClient::new(config, signal)?),
            (Protocol::HttpProtobuf, _) => http(Format::Protobuf)?,
            (Protocol::HttpJson, Signal::Traces) => http(Format::TracesJson)?,
            (Protocol::HttpJson, Signal::Metrics) => http(Format::MetricsJson)?,
            (Protocol::Zipkin, Signal::Traces) => http(Format::Zipkin)?,
            (Protocol::Zipkin, Signal::Metrics) => bail!("Zipkin takes no metrics"),
        };
        let endpoint = shown(&config.endpoint);
        Ok(Self { transport, endpoint, timeout: config.timeout, requests: Arc::new(Requests::new()) })
    }

    /// Where the spans go, as it may be logged.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The books of what was said to it.
    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.requests
    }

    /// Sends `request` once.
    pub(super) async fn send_once(&self, request: Bytes) -> Answer {
        let answer = self.attempt(self.transport.body(request), Instant::now() + self.timeout).await;
        answer.unwrap_or_else(|| Answer::Later { why: format!("no answer within {:?}", self.timeout), after: None })
    }

    /// Sends `request`, and again as the protocol allows, until the timeout is over.
    pub(crate) async fn send(&self, request: Bytes) -> Verdict {
        let deadline = Instant::now() + self.timeout;
        let body = self.transport.body(request);
        let mut backoff = Backoff::new();
        let mut last = format!("no answer within {:?}", self.timeout);
        while let Some(answer) = self.attempt(body.clone(), deadline).await {
            let pause = match answer {
                Answer::Taken { rejected, message } => return Verdict::Taken { rejected, message },
                Answer::Refused(why) => return Verdict::Refused(why),
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
        Verdict::Unreachable(last)
    }

    /// Sends `body` once; nothing where there is no answer by `deadline`.
    async fn attempt(&self, body: Bytes, deadline: Instant) -> Option<Answer> {
        let attempt = self.requests.begin();
        let answer = timeout_at(deadline, self.transport.attempt(body)).await.ok()?;
        attempt.answered(&answer);
        Some(answer)
    }
}

impl Transport {
    /// `request` as every attempt sends it. gRPC compresses what it frames itself.
    fn body(&self, request: Bytes) -> Bytes {
        match self {
            Self::Http(client) => client.body(request),
            Self::Grpc(_) => request,
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
pub(super) fn shown(endpoint: &str) -> String {
    let Some((scheme, rest)) = endpoint.split_once("://") else { return endpoint.to_owned() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match authority.rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => endpoint.to_owned(),
    }
}

/// The endpoint, of which both transports ask the same.
pub(super) fn check_endpoint(endpoint: &str) -> anyhow::Result<Uri> {
    let uri: Uri = endpoint.parse().with_context(|| format!("the endpoint {} is not a URL", shown(endpoint)))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(uri),
        _ => bail!("the endpoint {} cannot be spoken to: only http:// and https:// are known", shown(endpoint)),
    }
}

/// The configured headers, checked, and ours. A header's value may be a credential and stays out of the message.
pub(super) fn headers(config: &Destination) -> anyhow::Result<HeaderMap> {
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
    method: PathAndQuery,
}

impl GrpcClient {
    fn new(config: &Destination, signal: Signal) -> anyhow::Result<Self> {
        let mut grpc = Grpc::new(channel(config)?);
        if config.gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self { grpc, metadata: MetadataMap::from_headers(headers(config)?), method: signal.method() })
    }

    async fn attempt(&self, body: Bytes) -> Answer {
        let mut grpc = self.grpc.clone();
        if let Err(error) = grpc.ready().await {
            return retry::no_answer(&error);
        }
        let request = tonic::Request::from_parts(self.metadata.clone(), Extensions::default(), body);
        match grpc.unary(request, self.method.clone(), Encoded).await {
            Ok(response) => retry::taken(response.into_inner()),
            Err(status) => retry::grpc(&status),
        }
    }
}

fn channel(config: &Destination) -> anyhow::Result<Channel> {
    let uri = check_endpoint(&config.endpoint)?;
    let secure = uri.scheme_str() == Some("https");
    let mut endpoint = Channel::builder(uri).connect_timeout(config.timeout).tcp_keepalive(Some(TCP_KEEPALIVE));
    if secure {
        endpoint = endpoint.tls_config(tls::grpc(&config.tls)?).context("set up TLS")?;
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

// --- Constants ---

/// `User-Agent`. The specification's product token for exporters
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent>) names one of OpenTelemetry's own, which
/// this is not.
const PRODUCT: &str = concat!("spantap/", env!("CARGO_PKG_VERSION"));

/// Finds out that a collector's machine is gone when no request would. HTTP/2 pings would be quicker, but gRPC servers
/// close connections that ping more often than every 5 minutes.
pub(super) const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn tls_is_set_up_for_both_transports() {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let collector = Collector::new(&config("https://collector.example/v1/traces", protocol), Signal::Traces);
            assert!(collector.is_ok(), "{protocol:?}: {collector:?}");
        }
    }

    #[tokio::test]
    async fn settings_that_can_never_work_are_refused_in_words() {
        let grpc = |endpoint| config(endpoint, Protocol::Grpc);
        let http = |endpoint| config(endpoint, Protocol::HttpProtobuf);
        let header = |name: &str, value: &str| Destination {
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
            let refusal = Collector::new(&config, Signal::Traces)
                .map_or_else(|error| format!("{error:#}"), |_| "accepted".to_owned());
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

    fn config(endpoint: &str, protocol: Protocol) -> Destination {
        Destination { timeout: Duration::from_secs(1), ..Destination::new(endpoint, protocol) }
    }
}
