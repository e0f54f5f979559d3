// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests over HTTP/1: OTLP as protobuf and as JSON, and Zipkin's list of spans.
//!
//! In: encoded OTLP requests. Out: the same in the format of the destination, POSTed once an attempt, and its answer.
//! It does not send anything again by itself, and follows no redirect.

use std::{io::Write as _, time::SystemTime};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::{
    metrics::v1::ExportMetricsServiceRequest,
    trace::v1::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use prost::{Message, bytes::Bytes};
use reqwest::{
    Response, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    otlp::{TCP_KEEPALIVE, check_endpoint, headers, shown},
    retry::{self, Answer},
    tls, zipkin,
};
use crate::config::Destination;

/// What a body is written in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Format {
    /// OTLP as it comes.
    Protobuf,
    /// OTLP traces by protobuf's JSON mapping, but for ids, which are hexadecimal
    /// (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).
    TracesJson,
    /// OTLP metrics, likewise.
    MetricsJson,
    /// Zipkin's API, version 2.
    Zipkin,
}

impl Format {
    fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::TracesJson | Self::MetricsJson | Self::Zipkin => "application/json",
        }
    }

    /// `request` in this format. What was encoded here can be decoded here; should it not be, the collector says so.
    fn written(self, request: Bytes) -> Bytes {
        let written = match self {
            Self::Protobuf => return request,
            Self::TracesJson => json::<ExportTraceServiceRequest>(&request),
            Self::MetricsJson => json::<ExportMetricsServiceRequest>(&request),
            Self::Zipkin => zipkin::list(&request),
        };
        written.map_or(request, Bytes::from)
    }

    /// What a successful answer says: nothing, where it cannot be read, as the spans are taken all the same.
    fn said(self, body: &[u8]) -> ExportTraceServiceResponse {
        match self {
            Self::Protobuf => ExportTraceServiceResponse::decode(body).unwrap_or_default(),
            Self::TracesJson => json_said(body, "rejectedSpans").unwrap_or_default(),
            Self::MetricsJson => json_said(body, "rejectedDataPoints").unwrap_or_default(),
            // "202: Accepted", and no word about what becomes of the spans.
            Self::Zipkin => ExportTraceServiceResponse::default(),
        }
    }
}

fn json<T: Message + Default + Serialize>(request: &[u8]) -> Option<Vec<u8>> {
    let mut message = serde_json::to_value(T::decode(request).ok()?).ok()?;
    leave_out_nulls(&mut message);
    serde_json::to_vec(&message).ok()
}

/// Leaves out what has no value. "null is an accepted value for all field types and treated as the default value"
/// (<https://protobuf.dev/programming-guides/json/>), but the collector's own reader refuses one in the place of a number,
/// such as a histogram's `min`.
fn leave_out_nulls(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(leave_out_nulls);
        }
        Json::Array(items) => items.iter_mut().for_each(leave_out_nulls),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// A partial success in JSON. Its number is a text in protobuf's mapping, and may come as a number too: the published
/// messages read only the latter.
fn json_said(body: &[u8], count: &str) -> Option<ExportTraceServiceResponse> {
    let answer: Json = serde_json::from_slice(body).ok()?;
    let partial = answer.get("partialSuccess")?;
    let rejected_spans = match partial.get(count) {
        Some(Json::String(number)) => number.parse().ok()?,
        Some(number) => number.as_i64()?,
        None => 0,
    };
    let error_message = partial.get("errorMessage").and_then(Json::as_str).unwrap_or_default().to_owned();
    Some(ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }),
    })
}

/// A pool of HTTP/1 connections. It goes through the proxy that the environment names, as the HTTP exporters of other
/// languages do.
#[derive(Debug)]
pub(super) struct HttpClient {
    inner: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    format: Format,
    gzip: bool,
}

impl HttpClient {
    pub(super) fn new(config: &Destination, format: Format) -> anyhow::Result<Self> {
        check_endpoint(&config.endpoint)?;
        let url = config
            .endpoint
            .parse()
            .with_context(|| format!("the endpoint {} is not a URL", shown(&config.endpoint)))?;
        let mut headers = headers(config)?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
        if config.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let inner = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::http(&config.tls)?)
            .connect_timeout(config.timeout)
            .tcp_keepalive(TCP_KEEPALIVE)
            // A redirected POST would become a GET; a collector that moved is a setting to correct.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("set up the HTTP client")?;
        Ok(Self { inner, url, headers, format, gzip: config.gzip })
    }

    /// `request` as every attempt sends it.
    pub(super) fn body(&self, request: Bytes) -> Bytes {
        let written = self.format.written(request);
        if self.gzip { gzipped(&written) } else { written }
    }

    pub(super) async fn attempt(&self, body: Bytes) -> Answer {
        let request = self.inner.post(self.url.clone()).headers(self.headers.clone()).body(body);
        match request.send().await {
            Ok(response) if response.status().is_success() => retry::taken(self.format.said(&read(response).await)),
            Ok(response) => retry::http(response.status(), response.headers(), SystemTime::now()),
            Err(error) => retry::no_answer(&error),
        }
    }
}

/// What a collector says beside success, if it is short.
async fn read(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        if body.len() + piece.len() > MAX_ANSWER {
            return Vec::new();
        }
        body.extend_from_slice(&piece);
    }
    body
}

fn gzipped(bytes: &[u8]) -> Bytes {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("a vector has room for everything").into()
}

/// Bytes read of an answer: a number and a sentence. gRPC has a bound of its own, 4 MiB.
const MAX_ANSWER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_leaves_out_what_has_no_value() {
        use opentelemetry_proto::tonic::metrics::v1::{
            ExponentialHistogram, ExponentialHistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, metric,
        };
        let point = ExponentialHistogramDataPoint { count: 1, sum: Some(0.5), ..Default::default() };
        let histogram = ExponentialHistogram { data_points: vec![point], aggregation_temporality: 1 };
        let metric = Metric { data: Some(metric::Data::ExponentialHistogram(histogram)), ..Metric::default() };
        let scope = ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() };
        let resource = ResourceMetrics { scope_metrics: vec![scope], ..ResourceMetrics::default() };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![resource] };
        let written = Format::MetricsJson.written(request.encode_to_vec().into());
        let written: Json = serde_json::from_slice(&written).expect("JSON");
        let point =
            &written["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["exponentialHistogram"]["dataPoints"][0];
        assert_eq!((&point["count"], &point["sum"]), (&"1".into(), &0.5.into()), "{written}");
        assert!(!written.to_string().contains("null"), "{written}");
    }

    #[test]
    fn a_partial_success_is_understood_in_every_format() {
        let rejected = |format: Format, body: &[u8]| {
            format.said(body).partial_success.map(|partial| (partial.rejected_spans, partial.error_message))
        };
        let said = Some((3, "too old".to_owned()));
        // The specification writes 64-bit integers as decimal strings, and lets receivers take both.
        for count in ["\"3\"", "3"] {
            let traces = format!(r#"{{"partialSuccess":{{"rejectedSpans":{count},"errorMessage":"too old"}}}}"#);
            let metrics = traces.replace("rejectedSpans", "rejectedDataPoints");
            assert_eq!(rejected(Format::TracesJson, traces.as_bytes()), said, "{count}");
            assert_eq!(rejected(Format::MetricsJson, metrics.as_bytes()), said, "{count}");
        }
        let protobuf = [0x0a, 0x0b, 0x08, 3, 0x12, 7, b't', b'o', b'o', b' ', b'o', b'l', b'd'];
        assert_eq!(rejected(Format::Protobuf, &protobuf), said);
        for format in [Format::Protobuf, Format::TracesJson, Format::MetricsJson, Format::Zipkin] {
            assert_eq!(rejected(format, b"\xff not an answer"), None, "{format:?}");
        }
    }
}
