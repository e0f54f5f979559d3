// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who calls whom: the service graph, with the names and the meaning of Grafana Tempo's metrics.
//!
//! In: finished spans. Out: one request on the edge from client to server, once both of its ends were seen; or an edge to a
//! virtual node where the other end did not come in time. It asks no attribute for what the spans' ids say.
//!
//! <https://grafana.com/docs/tempo/latest/metrics-from-traces/service_graphs/>

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::FixedState;

use super::{
    series::{Instrument, Limits},
    settings::Graph as Settings,
};
use crate::{
    attribute::Value,
    context::{SpanId, TraceId},
    enrich::ServiceSpan,
    time::Timestamp,
    trace::SpanKind,
};

/// The edges, and the ends that wait for each other.
#[derive(Debug)]
pub(super) struct Graph {
    settings: Settings,
    /// Ends whose other one was not seen, by the CLIENT span. Law: at most `settings.max_items`.
    waiting: HashMap<(TraceId, SpanId), Half, FixedState>,
    /// The same, in the order in which they came; some have met their other end.
    order: VecDeque<(Timestamp, (TraceId, SpanId))>,
    pub(super) requests: Instrument,
    pub(super) failed: Instrument,
    pub(super) server_seconds: Instrument,
    pub(super) client_seconds: Instrument,
    pub(super) unpaired: Instrument,
    pub(super) dropped: Instrument,
}

/// One end of a request.
#[derive(Clone, Debug)]
struct Half {
    kind: SpanKind,
    service: Arc<str>,
    seconds: f64,
    failed: bool,
    /// Of a CLIENT span: whom it called, as far as it says so.
    peer: Option<(Value, &'static str)>,
}

impl Graph {
    pub(super) fn new(settings: Settings, limits: Limits, seed: u64) -> Self {
        let counter = || Instrument::new(&[], limits, seed);
        let seconds = || Instrument::new(BOUNDS, limits, seed);
        Self {
            settings,
            waiting: HashMap::with_hasher(FixedState::with_seed(seed)),
            order: VecDeque::new(),
            requests: counter(),
            failed: counter(),
            server_seconds: seconds(),
            client_seconds: seconds(),
            unpaired: counter(),
            dropped: counter(),
        }
    }

    /// Takes a finished span.
    pub(super) fn observe(&mut self, span: &ServiceSpan, now: Timestamp) {
        let inner = &span.span;
        let half = Half {
            kind: inner.kind,
            service: Arc::clone(&span.resource.service),
            seconds: inner.end.since(inner.start).as_secs_f64(),
            failed: inner.failed,
            peer: (inner.kind == SpanKind::Client).then(|| self.peer(span)).flatten(),
        };
        let client = match (inner.kind, inner.parent) {
            (SpanKind::Client, _) => inner.id,
            (SpanKind::Server, Some(parent)) => parent.id,
            // Nobody who is known has called.
            (SpanKind::Server, None) => {
                self.edge(None, Some(&half), USER, &half.service, VIRTUAL, now);
                return;
            }
        };
        let key = (inner.trace, client);
        match self.waiting.get(&key) {
            Some(other) if other.kind != half.kind => {
                let other = other.clone();
                self.waiting.remove(&key);
                let (client, server) = if half.kind == SpanKind::Client { (&half, &other) } else { (&other, &half) };
                self.edge(Some(client), Some(server), &client.service, &server.service, "", now);
            }
            // Two SERVER spans under one CLIENT span: a proxy between them that was not seen. The first waits on.
            Some(_) => self.lone(&half, now),
            None if self.waiting.len() >= self.settings.max_items => self.count_end(End::Dropped, &half, now),
            None => {
                self.waiting.insert(key, half);
                self.order.push_back((now, key));
            }
        }
    }

    /// Gives up on ends that have waited for too long.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let wait = Duration::from_millis(self.settings.wait_ms);
        while let Some((_, key)) = self.order.pop_front_if(|(since, _)| now.since(*since) >= wait) {
            if let Some(half) = self.waiting.remove(&key) {
                self.lone(&half, now);
            }
        }
    }

    /// Every metric, by its place in the list of families.
    pub(super) fn instruments(&mut self) -> [&mut Instrument; 6] {
        [
            &mut self.requests,
            &mut self.failed,
            &mut self.server_seconds,
            &mut self.client_seconds,
            &mut self.unpaired,
            &mut self.dropped,
        ]
    }

    /// An end that is alone: an edge to a virtual node where it names one, else a number.
    fn lone(&mut self, half: &Half, now: Timestamp) {
        match &half.peer {
            Some((peer, connection)) => {
                let peer: Arc<str> = peer.to_string().into();
                self.edge(Some(half), None, &half.service, &peer, connection, now);
            }
            None => self.count_end(End::Unpaired, half, now),
        }
    }

    fn count_end(&mut self, end: End, half: &Half, now: Timestamp) {
        let (known, unknown) = (Value::Shared(Arc::clone(&half.service)), Value::Static(""));
        let (client, server) = if half.kind == SpanKind::Client { (&known, &unknown) } else { (&unknown, &known) };
        let instrument = match end {
            End::Unpaired => &mut self.unpaired,
            End::Dropped => &mut self.dropped,
        };
        instrument.record(None, &[("client", client), ("server", server)], 1.0, now);
    }

    fn edge(
        &mut self,
        client: Option<&Half>,
        server: Option<&Half>,
        from: &str,
        to: &str,
        connection: &'static str,
        now: Timestamp,
    ) {
        let (from, to, connection) = (Value::Text(from.into()), Value::Text(to.into()), Value::Static(connection));
        let labels = [("client", &from), ("server", &to), ("connection_type", &connection)];
        self.requests.record(None, &labels, 1.0, now);
        if client.is_some_and(|half| half.failed) || server.is_some_and(|half| half.failed) {
            self.failed.record(None, &labels, 1.0, now);
        }
        if let Some(half) = client {
            self.client_seconds.record(None, &labels, half.seconds, now);
        }
        if let Some(half) = server {
            self.server_seconds.record(None, &labels, half.seconds, now);
        }
    }

    /// Whom a CLIENT span called, by the first of the configured attributes that it has.
    fn peer(&self, span: &ServiceSpan) -> Option<(Value, &'static str)> {
        let find = |key: &str| span.span.attributes.iter().find(|attribute| attribute.key == key);
        let peer = self.settings.peer_attributes.iter().find_map(|key| find(key))?;
        let has = |prefix: &str| span.span.attributes.iter().any(|attribute| attribute.key.starts_with(prefix));
        let connection = match (has("db."), has("messaging.")) {
            (true, _) => "database",
            (false, true) => "messaging_system",
            (false, false) => VIRTUAL,
        };
        Some((peer.value.clone(), connection))
    }
}

enum End {
    Unpaired,
    Dropped,
}

/// Tempo's name for whoever calls from where nothing is traced.
const USER: &str = "user";

const VIRTUAL: &str = "virtual_node";

/// Tempo's `histogram_buckets`, in seconds.
const BOUNDS: &[f64] = &[0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8];
