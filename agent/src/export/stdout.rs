// SPDX-License-Identifier: Apache-2.0 OR MIT
//! OTLP JSON lines: each line is an `ExportTraceServiceRequest`, as the Collector's `file` exporter writes and its
//! `otlpjsonfile` receiver reads them.
//!
//! In: batches of spans. Out: one line for each of them, through any writer. It does not group beyond a batch, does
//! not buffer, and does not end the process when nobody reads any more.

use std::io::{self, ErrorKind, Write};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;

use super::{
    SpanLimits,
    batch::{Batch, Encoded},
};
use crate::{enrich::ServiceSpan, time::WallOffset};

/// Writes batches as lines.
#[derive(Debug)]
pub struct JsonLines<W> {
    writer: W,
    limits: SpanLimits,
}

/// Whether somebody still reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// As far as the writer knows.
    Present,
    /// The pipe is closed: time to stop, and nothing to complain about.
    Gone,
}

impl<W: Write> JsonLines<W> {
    /// Lines on `writer`. A line is written in one call, so that lines of several writers to one file do not mix.
    pub fn new(writer: W) -> Self {
        Self { writer, limits: SpanLimits::default() }
    }

    /// The same, of spans within other limits.
    #[must_use]
    pub fn within(self, limits: SpanLimits) -> Self {
        Self { limits, ..self }
    }

    /// Writes `spans` as one line; no line where there are none.
    pub fn write(&mut self, spans: Vec<ServiceSpan>, offset: WallOffset) -> io::Result<Reader> {
        if spans.is_empty() {
            return Ok(Reader::Present);
        }
        let mut line = serde_json::to_vec(&request(&spans, offset, &self.limits)?)?;
        line.push(b'\n');
        match self.writer.write_all(&line).and_then(|()| self.writer.flush()) {
            Ok(()) => Ok(Reader::Present),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
            Err(error) => Err(error),
        }
    }
}

/// One request with the spans of every resource: read back from what a collector would receive, so that both say the
/// same.
fn request(spans: &[ServiceSpan], offset: WallOffset, limits: &SpanLimits) -> io::Result<ExportTraceServiceRequest> {
    let mut batch = Batch::default();
    for span in Encoded::new(spans, offset, limits).iter() {
        batch.add(span, usize::MAX).expect("nothing is too large");
    }
    Ok(ExportTraceServiceRequest::decode(batch.finish())?)
}
