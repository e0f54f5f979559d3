// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What others have published: who served and called when, and the truth.
//!
//! In: a file, plain or gzipped: DeepTrace's spans as its agent stores them (`{"spans": [{"req": …, "resp": …}]}`, the truth
//! being the `X-Request-Id` in the payload), or TraceWeaver's as one object a line (`trace span parent service kind op
//! start_us dur_us`). Out: exchanges of processes. What neither tool would see as a request of ours, such as DNS, is left
//! out; a service whose calls were not recorded is given the times of the other end.

use std::{
    collections::HashMap,
    error::Error,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

/// One file.
pub(crate) struct Recording {
    /// Its name.
    pub(crate) name: String,
    /// In no order.
    pub(crate) exchanges: Vec<Exchange>,
}

/// A request that a process has served, or a call that it has made.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    /// The process.
    pub(crate) process: String,
    /// Whether it served.
    pub(crate) serves: bool,
    /// What for.
    pub(crate) operation: String,
    /// The request, or the one that the call was made for: its trace and itself.
    pub(crate) request: (String, String),
    /// Nanoseconds.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) end: u64,
    /// The threads that began and ended it, where they are known.
    pub(crate) threads: Option<(u32, u32)>,
}

impl Recording {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self, Box<dyn Error>> {
        let mut reader = BufReader::new(File::open(file)?);
        let mut text = String::new();
        if file.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(reader).read_to_string(&mut text)?;
        } else {
            reader.read_to_string(&mut text)?;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        let is_lines = serde_json::from_str::<Spans>(&text).is_err();
        let exchanges = if is_lines { lines(&text)? } else { spans(serde_json::from_str(&text)?) };
        if exchanges.is_empty() {
            return Err("no exchange in it".into());
        }
        Ok(Self { name, exchanges })
    }
}

// --- DeepTrace ---

#[derive(Deserialize)]
struct Spans {
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Span {
    req: Half,
    resp: Half,
}

#[derive(Deserialize)]
struct Half {
    tgid: u32,
    pid: u32,
    timestamp_ns: u64,
    direction: String,
    payload: String,
    quintuple: Quintuple,
}

#[derive(Deserialize)]
struct Quintuple {
    dst_addr: u32,
    dst_port: u32,
}

fn spans(file: Spans) -> Vec<Exchange> {
    let truth = |payload: &str| {
        let header = payload.lines().find(|line| line.to_ascii_lowercase().starts_with("x-request-id:"))?;
        Some(header.split_once(':')?.1.trim().to_owned())
    };
    let exchange = |Span { req, resp }: Span| {
        let id = truth(&req.payload)?;
        let serves = req.direction == "Ingress";
        let line: Vec<&str> = req.payload.lines().next().unwrap_or_default().split(' ').collect();
        let method = line.first().copied().unwrap_or_default();
        let Quintuple { dst_addr, dst_port } = req.quintuple;
        let operation = if serves { method.to_owned() } else { format!("{method} {dst_addr:08x}:{dst_port}") };
        Some(Exchange {
            process: req.tgid.to_string(),
            serves,
            operation,
            request: (id, String::new()),
            start: req.timestamp_ns,
            end: resp.timestamp_ns.max(req.timestamp_ns),
            threads: Some((req.pid, resp.pid)),
        })
    };
    file.spans.into_iter().filter_map(exchange).collect()
}

// --- TraceWeaver ---

#[derive(Deserialize)]
struct Line {
    trace: String,
    span: String,
    parent: Option<String>,
    service: String,
    kind: Option<String>,
    op: String,
    start_us: u64,
    dur_us: u64,
}

fn lines(text: &str) -> Result<Vec<Exchange>, Box<dyn Error>> {
    let lines: Vec<Line> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let by_id: HashMap<(&str, &str), &Line> = lines.iter().map(|line| ((&*line.trace, &*line.span), line)).collect();
    let parent = |line: &Line| by_id.get(&(&*line.trace, line.parent.as_deref()?)).copied();
    let has_children: std::collections::HashSet<(&str, &str)> =
        lines.iter().filter_map(|line| Some((&*line.trace, line.parent.as_deref()?))).collect();
    let serves = |line: &Line| match &line.kind {
        Some(kind) => kind == "server",
        // "a span whose parent is in another service is the server end"
        None => parent(line).is_none_or(|parent| parent.service != line.service),
    };
    // The request in whose service a span is.
    let request = |line: &Line| {
        let mut at = by_id.get(&(&*line.trace, &*line.span)).copied();
        while let Some(line) = at.filter(|line| !serves(line)) {
            at = parent(line);
        }
        at.map(|line| (line.trace.clone(), line.span.clone()))
    };
    let exchange = |line: &Line, process: &str, is_served: bool, request| Exchange {
        process: process.to_owned(),
        serves: is_served,
        operation: line.op.clone(),
        request,
        start: line.start_us * 1_000,
        end: (line.start_us + line.dur_us) * 1_000,
        threads: None,
    };
    let mut exchanges = Vec::new();
    for line in &lines {
        if serves(line) {
            exchanges.push(exchange(line, &line.service, true, (line.trace.clone(), line.span.clone())));
            let caller = parent(line).filter(|caller| caller.service != line.service);
            // The calls of this service were not recorded: their other ends were.
            if let Some(caller) = caller.filter(|caller| caller.kind.as_deref() != Some("client"))
                && let Some(request) = request(caller)
            {
                let mut call = exchange(line, &caller.service, false, request);
                call.operation = format!("{} {}", line.service, line.op);
                exchanges.push(call);
            }
        } else if (line.kind.as_deref() == Some("client") || !has_children.contains(&(&*line.trace, &*line.span)))
            && let Some(request) = request(line)
        {
            exchanges.push(exchange(line, &line.service, false, request));
        }
    }
    Ok(exchanges)
}
