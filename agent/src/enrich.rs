// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From spans to spans of a named service.
//!
//! In: spans and facts about their processes. Out: [`ServiceSpan`]s with the [`Resource`] of the service instance that
//! made them. It reads no file and asks nobody: facts come in as values.

pub mod process;
pub mod route;
pub(crate) mod sdk;
pub mod target;

use std::sync::Arc;

use crate::{attribute::Attribute, process::ProcessId, trace::Span};

/// A span with the service instance that made it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceSpan {
    /// The span.
    pub span: Span,
    /// Shared by all spans of the instance.
    pub resource: Arc<Resource>,
    /// The operator's rule that it falls under, by name.
    pub target: Option<Arc<str>>,
}

/// One service instance: a process, with everything the conventions want to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// The process.
    pub process: ProcessId,
    /// `service.name`.
    pub service: Arc<str>,
    /// `service.*`, `process.*`, `host.*`, `os.*`, `telemetry.*`; `service.name` included.
    pub attributes: Vec<Attribute>,
    /// Whether the process exports spans of its own, with an OpenTelemetry SDK.
    pub instrumented: bool,
}

/// Facts about the machine, the same for every resource.
#[derive(Clone, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
pub struct HostFacts {
    /// `host.name`.
    pub name: String,
    /// `host.id`: the machine id; empty where there is none.
    pub id: String,
    /// `host.arch` by the conventions' names (`amd64`, `arm64`).
    pub arch: String,
    /// When it booted, in nanoseconds since the Unix epoch: what turns a process's start into `process.creation.time`.
    /// 0 where unknown.
    pub booted: u64,
}
