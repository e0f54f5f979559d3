// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a collector receives from the exporter, over every transport.
//!
//! In: spans built by hand. Out: requests as a real receiver decoded them, and the exporter's own numbers. Nothing here
//! captures or parses: other tests do.

#![expect(clippy::unwrap_used, reason = "a test's helper may panic as its test may")]

#[path = "support/receiver.rs"]
mod receiver;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource as ProtoResource,
    trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan, Status, span::Link},
};
use opentelemetry_semantic_conventions::{SCHEMA_URL, attribute as semconv, resource as semconv_resource};
use prost::Message;
use serde_json::{Value as Json, json};
use spantap::{
    attribute::{Attribute, Value},
    config::{Destination, Protocol, Spool},
    context::{SpanId, TraceFlags, TraceId},
    enrich::{Resource, ServiceSpan},
    export::{
        ExportStats, Exporter, Limits, local,
        stdout::{JsonLines, Reader},
    },
    process::ProcessId,
    time::{Task, Timestamp, WallOffset},
    trace::{Begun, LinkMethod, ParentSpan, Span, SpanKind, SpanLink},
};
use spantap_common::loss::Reason;
use tokio::{net::TcpListener, runtime::Handle, time::timeout};

use receiver::{Answer, PATIENCE, Receiver, Transport, endpoint};

// --- Contents ---

#[tokio::test]
async fn the_golden_example_arrives_field_by_field() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let exporter = exporter(&settings(&receiver), Limits::default());
        exporter.offer(golden_spans(), OFFSET);
        exporter.flush(soon()).await;

        let received = receiver.until("a request", |received| !received.is_empty()).await;
        let requests: Vec<_> = received.into_iter().map(|received| received.request).collect();
        assert_eq!(requests, [golden_request()], "{transport:?}");
        assert_eq!(exporter.stats(), ExportStats { exported: 2, ..ExportStats::default() });
    }
}

#[tokio::test]
async fn gzip_changes_the_encoding_and_nothing_else() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        for gzip in [false, true] {
            let exporter = exporter(&Destination { gzip, ..settings(&receiver) }, Limits::default());
            exporter.offer(vec![span(&service(1), 1)], OFFSET);
            exporter.flush(soon()).await;
        }
        let received = receiver.until("both requests", |received| received.len() == 2).await;
        assert_eq!((received[0].gzip, received[1].gzip), (false, true), "{transport:?}");
        assert_eq!(received[0].request, received[1].request, "{transport:?}");
    }
}

#[tokio::test]
async fn every_request_carries_the_configured_headers_and_the_product() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        // The value is decoded already: a percent sign in it is a percent sign.
        let headers = [("authorization", "Bearer a%41=b"), ("X-Scope-OrgID", "tenant 1")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let exporter = exporter(&Destination { headers, ..settings(&receiver) }, Limits::default());
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        exporter.flush(soon()).await;

        let received = receiver.until("a request", |received| !received.is_empty()).await;
        assert_eq!(received[0].header("authorization"), Some("Bearer a%41=b"), "{transport:?}");
        assert_eq!(received[0].header("x-scope-orgid"), Some("tenant 1"), "{transport:?}");
        let product = concat!("spantap/", env!("CARGO_PKG_VERSION"));
        let agent = received[0].header("user-agent").unwrap_or_default();
        assert!(agent == product || agent.starts_with(&format!("{product} tonic/")), "{transport:?}: {agent}");
    }
}

// --- Batches ---

#[tokio::test]
async fn many_services_share_one_request() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let exporter = exporter(&settings(&receiver), Limits::default());
        let services: Vec<_> = (1..=50).map(service).collect();
        for n in 1..=2 {
            exporter.offer(services.iter().map(|service| span(service, n)).collect(), OFFSET);
        }
        exporter.flush(soon()).await;

        let received = receiver.received();
        assert_eq!(received.len(), 1, "{transport:?}");
        let spans_by_service = received[0].resources().iter().map(|resource| {
            (name_of(resource), resource.scope_spans.iter().map(|scope| scope.spans.len()).collect::<Vec<_>>())
        });
        let expected: Vec<_> = (1..=50).map(|n| (format!("service-{n}"), vec![2])).collect();
        assert_eq!(spans_by_service.collect::<Vec<_>>(), expected, "{transport:?}: each service once");
    }
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    for (transport, most) in [(Transport::Grpc, 1), (Transport::Http, 4), (Transport::HttpJson, 4)] {
        let receiver = Receiver::start(transport).await.unwrap();
        let limits = Limits { in_flight: 4, batch_spans: 2, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        exporter.offer((0..100).map(|n| span(&service(1), n)).collect(), OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(receiver.received().len(), 50, "{transport:?}");
        let connections = receiver.connections();
        assert!((1..=most).contains(&connections), "{transport:?}: {connections} connections");
    }
}

#[tokio::test]
async fn a_batch_is_bounded_by_its_count_and_by_its_bytes() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let limits = Limits { batch_spans: 10, batch_bytes: 16 << 10, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        let service = service(1);
        let small = (0..25).map(|n| span(&service, n));
        let large = (25..40).map(|n| span_of_size(&service, n, 3 << 10));
        let too_large = span_of_size(&service, 40, 20 << 10);
        exporter.offer(small.chain(large).chain([too_large]).collect(), OFFSET);
        exporter.flush(soon()).await;

        let received = receiver
            .until("41 spans", |received| received.iter().map(|r| r.spans().count()).sum::<usize>() == 41)
            .await;
        let mut alone = 0;
        for received in &received {
            let (spans, bytes) = (received.spans().count(), received.request.encoded_len());
            assert!((1..=10).contains(&spans), "{transport:?}: {spans} spans");
            assert!(bytes <= 16 << 10 || spans == 1, "{transport:?}: {bytes} bytes of {spans} spans");
            alone += usize::from(bytes > 16 << 10);
        }
        assert_eq!(alone, 1, "{transport:?}: a span too large for any batch travels alone");
        assert_eq!(exporter.stats().exported, 41);
    }
}

#[tokio::test]
async fn no_request_is_larger_than_servers_take_unless_told_otherwise() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let exporter = exporter(&settings(&receiver), Limits::default());
        // 12 MiB, of spans that leave a part of each request empty.
        exporter.offer((0..120).map(|n| span_of_size(&service(1), n, 101 << 10)).collect(), OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats(), ExportStats { exported: 120, ..ExportStats::default() }, "{transport:?}");
        let received = receiver.received();
        let largest = received.iter().map(|received| received.request.encoded_len()).max();
        assert!(largest.is_some_and(|bytes| (3 << 20..=7 << 19).contains(&bytes)), "{transport:?}: {largest:?} bytes");
    }
}

#[tokio::test]
async fn spans_leave_soon_after_a_silence_and_then_once_in_a_delay() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let exporter = exporter(&settings(&receiver), Limits::default());
        let delay = Limits::default().delay;
        let offered = Instant::now();
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        exporter.offer(vec![span(&service(1), 2)], OFFSET);
        let received = receiver.until("a request", |received| !received.is_empty()).await;
        assert_eq!(received[0].spans().count(), 2, "{transport:?}: they travel together");
        let first = received[0].at;
        exporter.offer(vec![span(&service(1), 3)], OFFSET);
        let received = receiver.until("another request", |received| received.len() == 2).await;
        // The first one was under way for a moment before it was received.
        let since_it_left = received[1].at.duration_since(offered);
        assert!(
            first.duration_since(offered) < received[1].at.duration_since(first),
            "{transport:?}: soon, then in turn"
        );
        assert!(since_it_left >= delay, "{transport:?}: {since_it_left:?}");
    }
}

#[tokio::test]
async fn a_full_batch_does_not_wait_for_the_delay() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let limits = Limits { batch_spans: 3, delay: FOREVER, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        exporter.offer((0..4).map(|n| span(&service(1), n)).collect(), OFFSET);
        let received = receiver.until("a request", |received| !received.is_empty()).await;
        assert_eq!(received[0].spans().count(), 3, "{transport:?}");
        until("three exported spans", || exporter.stats().exported == 3).await;
        assert_eq!(exporter.stats().waiting, 1, "{transport:?}: the fourth waits for company");
    }
}

#[tokio::test]
async fn a_queue_under_pressure_does_not_wait_for_the_delay() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let limits = Limits { queue_spans: 10, delay: FOREVER, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        exporter.offer((0..6).map(|n| span(&service(1), n)).collect(), OFFSET);
        until("six exported spans", || exporter.stats().exported == 6).await;
        assert_eq!(receiver.received().len(), 1, "{transport:?}");
    }
}

#[tokio::test]
async fn nothing_offered_is_nothing_sent() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let exporter = exporter(&settings(&receiver), Limits::default());
        exporter.offer(Vec::new(), OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(receiver.received().len(), 0, "{transport:?}: no empty envelopes");
        assert_eq!(exporter.stats(), ExportStats::default(), "{transport:?}");
    }
}

// --- A spool ---

#[tokio::test]
async fn a_minute_without_a_collector_loses_nothing_that_fits_the_spool() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address().await;
    let config = Destination { endpoint: endpoint(Transport::Http, address), ..to(Transport::Http) };
    let config = spooled(config, folder.path(), 256 << 20);
    let first = exporter(&config, Limits::default());
    // A minute of 2,000 spans a second, as fast as they are taken.
    let service = service(1);
    let (seconds, rate) = (60, 2_000);
    for second in 0..seconds {
        first.offer((0..rate).map(|n| span(&service, second * rate + n)).collect(), OFFSET);
        until("the spans on disk", || first.stats().waiting < rate).await;
    }
    first.flush(soon()).await;
    let all = seconds * rate;
    let stats = first.stats();
    assert_eq!((stats.spooled, stats.waiting, stats.queue_full + stats.spool_full + stats.failed), (all, 0, 0));

    // The agent restarts, and the collector comes back.
    drop(first);
    let receiver = Receiver::start_at(Transport::Http, address).await.unwrap();
    let second = until_free(&config).await;
    second.offer(vec![span(&service, all)], OFFSET);
    let mut before = 0;
    while before < all + 1 {
        until("progress", || second.stats().exported > before).await;
        before = second.stats().exported;
    }
    let expected = ExportStats { exported: all + 1, resumed: all, ..ExportStats::default() };
    assert_eq!(ExportStats { last_error: None, ..second.stats() }, expected);
    // The order on disk is the spool's own test: requests that were under way when the collector went fail in any order.
    let mut ids: Vec<_> =
        receiver.received().iter().flat_map(|r| r.spans().map(|s| s.span_id.clone()).collect::<Vec<_>>()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, all + 1, "each of them");
}

#[tokio::test]
async fn what_does_not_fit_the_spool_is_counted() {
    for transport in ALL {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address().await;
        let config = Destination { endpoint: endpoint(transport, address), ..to(transport) };
        let exporter =
            exporter(&spooled(config, folder.path(), 10_000), Limits { batch_spans: 10, ..Limits::default() });
        exporter.offer((0..1_000).map(|n| span(&service(1), n)).collect(), OFFSET);
        exporter.flush(soon()).await;
        let stats = exporter.stats();
        assert!(stats.spooled >= 10 && stats.spool_full > 0, "{transport:?}: {stats:?}");
        assert_eq!(stats.spooled + stats.spool_full, 1_000, "{transport:?}");
        assert_eq!(stats.losses()[0], (Reason::QueueFull, stats.spool_full), "{transport:?}");
    }
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_is_on_disk_and_one_that_refuses_it_ends_it() {
    for transport in ALL {
        let folder = tempfile::tempdir().unwrap();
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::TryAgain, Answer::TryAgainAfter(1), Answer::Take, Answer::TryAgain, Answer::Refuse]);
        let exporter = exporter(&spooled(settings(&receiver), folder.path(), 1 << 20), Limits::default());
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        until("the span from the disk", || exporter.stats().exported == 1).await;
        let received = receiver.received();
        assert_eq!(received.len(), 3, "{transport:?}");
        let pause = received[2].at.duration_since(received[1].at);
        assert!(pause >= Duration::from_secs(1), "{transport:?}: the pause that was asked for, not {pause:?}");

        exporter.offer(vec![span(&service(1), 2)], OFFSET);
        until("the refusal", || exporter.stats().failed == 1).await;
        assert_eq!((exporter.stats().spooled, exporter.stats().waiting), (0, 0), "{transport:?}");
    }
}

#[tokio::test]
async fn destinations_have_queues_of_their_own() {
    let receiver = Receiver::start(Transport::Http).await.unwrap();
    let away = Destination { endpoint: endpoint(Transport::Grpc, free_address().await), ..to(Transport::Grpc) };
    let (good, bad) = (exporter(&settings(&receiver), Limits::default()), exporter(&away, Limits::default()));
    for exporter in [&good, &bad] {
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
    }
    good.flush(soon()).await;
    assert_eq!((good.stats().exported, bad.stats().exported, bad.stats().waiting), (1, 0, 1));
}

/// `config` with a spool in `folder`.
fn spooled(config: Destination, folder: &Path, most_bytes: u64) -> Destination {
    Destination { spool: Some(Spool { folder: folder.to_path_buf(), most_bytes }), ..config }
}

/// An exporter once its spool is free: the task of the one before ends on its own time.
async fn until_free(config: &Destination) -> Exporter {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        match Exporter::start_with(config, Limits::default(), &Handle::current()) {
            Ok(exporter) => return exporter,
            Err(_) => look.tick().await,
        };
    }
}

// --- A collector on this machine ---

#[tokio::test]
async fn a_collector_on_this_machine_is_found_and_nothing_else_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap().port();
    let closed = free_address().await.port();
    for transport in [Transport::Http, Transport::Grpc] {
        let receiver = Receiver::start(transport).await.unwrap();
        let Destination { endpoint, protocol, .. } = settings(&receiver);
        let port = endpoint.trim_end_matches("/v1/traces").rsplit(':').next().unwrap().parse().unwrap();
        let other = if protocol == Protocol::Grpc { Protocol::HttpProtobuf } else { Protocol::Grpc };
        let tried = [(closed, protocol), (silent, protocol), (port, other), (port, protocol)];
        let found = local::find(&tried).await.expect("it listens");
        assert_eq!((found.endpoint, found.protocol), (endpoint, protocol));
        assert_eq!(local::find(&tried[..3]).await, None, "{transport:?}: whoever does not take a request is none");
        assert_eq!(receiver.received()[0].spans().count(), 0, "{transport:?}: it was asked with nothing");
    }
}

// --- Trouble ---

#[tokio::test]
async fn spans_wait_for_a_collector_that_is_down() {
    for transport in ALL {
        let address = free_address().await;
        let config = Destination { endpoint: endpoint(transport, address), ..to(transport) };
        let exporter = exporter(&config, Limits { delay: Duration::ZERO, ..Limits::default() });
        let refused = RefusedOnce::at(address).await;
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        refused.wait().await;
        assert_eq!(exporter.stats().waiting, 1, "{transport:?}: not given up");

        let receiver = Receiver::start_at(transport, address).await.unwrap();
        receiver.until("the span", |received| !received.is_empty()).await;
        until("the answer", || exporter.stats().exported == 1).await;
        assert_eq!(exporter.stats().failed, 0, "{transport:?}");
    }
}

#[tokio::test]
async fn a_collector_that_stays_down_costs_the_spans_and_says_why() {
    for transport in ALL {
        let config = Destination {
            endpoint: endpoint(transport, free_address().await),
            timeout: Duration::from_millis(300),
            ..to(transport)
        };
        let exporter = exporter(&config, Limits::default());
        exporter.offer(vec![span(&service(1), 1), span(&service(2), 2)], OFFSET);
        exporter.flush(soon()).await;
        let stats = exporter.stats();
        assert_eq!((stats.failed, stats.waiting, stats.exported), (2, 0, 0), "{transport:?}");
        let why = stats.last_error.unwrap_or_default();
        assert!(why.contains("Connection refused"), "{transport:?}: {why}");
    }
}

#[tokio::test]
async fn an_outage_is_told_once_and_so_is_its_end() {
    for transport in ALL {
        let (lines, _guard) = logged();
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::Refuse, Answer::Refuse, Answer::Refuse]);
        let exporter = exporter(&settings(&receiver), Limits::default());
        for n in 0..5 {
            exporter.offer(vec![span(&service(1), n)], OFFSET);
            exporter.flush(soon()).await;
        }
        let lines = lines.read();
        let place = receiver.endpoint();
        assert_eq!(lines.len(), 2, "{transport:?}: {lines:#?}");
        assert!(lines[0].contains("WARN") && lines[0].contains(&place) && lines[0].contains("1 lost"), "{lines:#?}");
        assert!(lines[1].contains("INFO") && lines[1].contains(&place) && lines[1].contains("3 lost"), "{lines:#?}");
    }
}

#[tokio::test]
async fn what_is_refused_is_not_sent_again() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::Refuse]);
        let exporter = exporter(&settings(&receiver), Limits::default());
        exporter.offer(vec![span(&service(1), 1), span(&service(1), 2)], OFFSET);
        exporter.flush(soon()).await;
        let stats = exporter.stats();
        assert_eq!((stats.failed, stats.exported), (2, 0), "{transport:?}");
        let why = stats.last_error.unwrap_or_default();
        assert!(why.contains("400") || why.contains("InvalidArgument"), "{transport:?}: {why}");
        assert_eq!(receiver.received().len(), 1, "{transport:?}");
    }
}

#[tokio::test]
async fn what_may_be_sent_again_is() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script(vec![Answer::TryAgain; 4]);
        let exporter = exporter(&settings(&receiver), Limits::default());
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats(), ExportStats { exported: 1, ..ExportStats::default() }, "{transport:?}");
        let received = receiver.received();
        assert_eq!(received.len(), 5, "{transport:?}");
        assert!(received.iter().all(|again| again.request == received[0].request), "{transport:?}");
    }
}

#[tokio::test]
async fn a_collector_that_asks_for_a_pause_gets_it() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::TryAgainAfter(1)]);
        let exporter = exporter(&settings(&receiver), Limits::default());
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats(), ExportStats { exported: 1, ..ExportStats::default() }, "{transport:?}");
        let received = receiver.received();
        assert_eq!(received.len(), 2, "{transport:?}");
        let pause = received[1].at.duration_since(received[0].at);
        assert!(pause >= Duration::from_secs(1), "{transport:?}: {pause:?}");
    }
}

#[tokio::test]
async fn a_partial_success_is_counted_and_not_sent_again() {
    for transport in ALL {
        let (lines, _guard) = logged();
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::Reject(2, "too old"), Answer::Reject(0, "only a warning")]);
        let exporter = exporter(&settings(&receiver), Limits::default());
        exporter.offer((0..5).map(|n| span(&service(1), n)).collect(), OFFSET);
        exporter.flush(soon()).await;
        exporter.offer(vec![span(&service(1), 6)], OFFSET);
        exporter.flush(soon()).await;

        let last_error = Some("rejected: too old".to_owned());
        let expected = ExportStats { exported: 4, rejected: 2, last_error, ..ExportStats::default() };
        assert_eq!(exporter.stats(), expected, "{transport:?}");
        assert_eq!(receiver.received().len(), 2, "{transport:?}");
        let lines = lines.read();
        assert_eq!(lines.len(), 1, "{transport:?}: {lines:#?}");
        assert!(lines[0].contains("rejected spans (too old): 2 lost"), "{lines:#?}");
    }
}

#[tokio::test]
async fn a_request_without_an_answer_ends_with_the_timeout() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::Silence]);
        let timeout = Duration::from_millis(300);
        let exporter = exporter(&Destination { timeout, ..settings(&receiver) }, Limits::default());
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats().failed, 1, "{transport:?}");
        assert!(exporter.stats().last_error.is_some(), "{transport:?}");

        exporter.offer(vec![span(&service(1), 2)], OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats().exported, 1, "{transport:?}: the next one is not affected");
    }
}

#[tokio::test]
async fn an_https_endpoint_is_spoken_to_in_tls() {
    for transport in ALL {
        // It speaks no TLS: what it reads is no request, and what it answers no handshake.
        let receiver = Receiver::start(transport).await.unwrap();
        let endpoint = receiver.endpoint().replace("http:", "https:");
        let config = Destination { endpoint, timeout: Duration::from_millis(300), ..to(transport) };
        let exporter = exporter(&config, Limits::default());
        exporter.offer(vec![span(&service(1), 1)], OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats().failed, 1, "{transport:?}");
        assert_eq!(receiver.received().len(), 0, "{transport:?}: nothing in clear text");
        assert!(receiver.connections() > 0, "{transport:?}: it was tried");
    }
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_counted_and_nobody_waits() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::Silence]);
        let limits = Limits { queue_spans: 10, delay: Duration::ZERO, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        exporter.offer((0..8).map(|n| span(&service(1), n)).collect(), OFFSET);
        exporter.offer((8..25).map(|n| span(&service(1), n)).collect(), OFFSET);
        exporter.offer(vec![span(&service(1), 25)], OFFSET);
        let stats = exporter.stats();
        assert_eq!((stats.waiting, stats.queue_full), (10, 16), "{transport:?}");
        assert_eq!(stats.losses(), [(Reason::QueueFull, 16), (Reason::ExportFailed, 0)], "{transport:?}");
    }
}

#[tokio::test]
async fn a_slow_collector_is_sent_fewer_and_larger_requests() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script([Answer::TryAgainAfter(1)]);
        let limits = Limits { in_flight: 1, delay: Duration::ZERO, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        exporter.offer(vec![span(&service(1), 0)], OFFSET);
        receiver.until("the first request", |received| received.len() == 1).await;
        for n in 1..=20 {
            exporter.offer(vec![span(&service(1), n)], OFFSET);
        }
        until("21 exported spans", || exporter.stats().exported == 21).await;
        let received = receiver.received();
        assert_eq!(received.len(), 3, "{transport:?}: the first, the first again, and all that came meanwhile");
        assert_eq!(received[2].spans().count(), 20, "{transport:?}");
    }
}

// --- The end ---

#[tokio::test]
async fn a_flush_sends_what_waits_for_company() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        let exporter = exporter(&settings(&receiver), Limits { delay: FOREVER, ..Limits::default() });
        exporter.offer((0..3).map(|n| span(&service(n), n.into())).collect(), OFFSET);
        exporter.flush(soon()).await;
        assert_eq!(exporter.stats(), ExportStats { exported: 3, ..ExportStats::default() }, "{transport:?}");
        assert_eq!(receiver.received().len(), 1, "{transport:?}");
    }
}

#[tokio::test]
async fn a_flush_gives_up_at_its_deadline_and_counts_what_is_left() {
    for transport in ALL {
        let receiver = Receiver::start(transport).await.unwrap();
        receiver.script(vec![Answer::Silence; 2]);
        let limits = Limits { in_flight: 2, batch_spans: 1, ..Limits::default() };
        let exporter = exporter(&settings(&receiver), limits);
        exporter.offer((0..5).map(|n| span(&service(n), n.into())).collect(), OFFSET);
        let began = Instant::now();
        exporter.flush(began + Duration::from_millis(300)).await;
        assert!(began.elapsed() < settings(&receiver).timeout, "{transport:?}: sooner than the request's own end");
        let last_error = Some("not answered by the deadline of the last flush".to_owned());
        let expected = ExportStats { failed: 5, last_error, ..ExportStats::default() };
        assert_eq!(exporter.stats(), expected, "{transport:?}");
    }
}

// --- Standard output ---

#[tokio::test]
async fn a_json_line_says_what_the_collector_receives() {
    let receiver = Receiver::start(Transport::Http).await.unwrap();
    let exporter = exporter(&settings(&receiver), Limits::default());
    exporter.offer(golden_spans(), OFFSET);
    exporter.flush(soon()).await;
    let received = receiver.until("a request", |received| !received.is_empty()).await;
    let read: ExportTraceServiceRequest = serde_json::from_str(&json_line(golden_spans())).unwrap();
    assert_eq!(read, received[0].request);
}

#[test]
fn a_json_line_follows_the_rules_of_otlp_json() {
    let line: Json = serde_json::from_str(&json_line(golden_spans())).unwrap();
    let server = &line["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
    // "The `traceId` and `spanId` byte arrays are represented as case-insensitive hex-encoded strings"
    // (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding).
    assert_eq!(server["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(server["spanId"], "0102030405060708");
    assert_eq!(server["parentSpanId"], "00f067aa0ba902b7");
    // "Values of enum fields MUST be encoded as integer values".
    assert_eq!(server["kind"], json!(2));
    assert_eq!(server["status"]["code"], json!(2));
    assert_eq!(server["flags"], json!(0x303));
    // "64-bit integer numbers in JSON-encoded payloads are encoded as decimal strings".
    assert_eq!(server["startTimeUnixNano"], "1760000000000001000");
    assert_eq!(server["endTimeUnixNano"], "1760000000002001000");
    let status = attribute_of(server, semconv::HTTP_RESPONSE_STATUS_CODE);
    assert_eq!(status, json!({"intValue": "503"}));
    let accept = attribute_of(server, "http.request.header.accept");
    assert_eq!(accept, json!({"arrayValue": {"values": [{"stringValue": "text/html"}, {"stringValue": "*/*"}]}}));
    // "The keys of JSON objects are field names converted to lowerCamelCase"; there are no others.
    let scope = &line["resourceSpans"][0]["scopeSpans"][0];
    assert_eq!(keys(&line), ["resourceSpans"]);
    assert_eq!(keys(&line["resourceSpans"][0]), ["resource", "schemaUrl", "scopeSpans"]);
    assert_eq!(keys(scope), ["schemaUrl", "scope", "spans"]);
    assert_eq!(
        keys(server),
        [
            "attributes",
            "droppedAttributesCount",
            "droppedEventsCount",
            "droppedLinksCount",
            "endTimeUnixNano",
            "events",
            "flags",
            "kind",
            "links",
            "name",
            "parentSpanId",
            "spanId",
            "startTimeUnixNano",
            "status",
            "traceId",
            "traceState",
        ]
    );
}

#[test]
fn a_batch_is_one_line_and_no_spans_are_none() {
    let mut written = Vec::new();
    let mut lines = JsonLines::new(&mut written);
    assert_eq!(lines.write(golden_spans(), OFFSET).unwrap(), Reader::Present);
    assert_eq!(lines.write(Vec::new(), OFFSET).unwrap(), Reader::Present);
    assert_eq!(lines.write(vec![span(&service(1), 1)], OFFSET).unwrap(), Reader::Present);
    assert_eq!(written.iter().filter(|byte| **byte == b'\n').count(), 2);
    assert_eq!(written.last(), Some(&b'\n'));
}

#[test]
fn a_closed_pipe_is_no_error() {
    let (reader, writer) = io::pipe().unwrap();
    let mut lines = JsonLines::new(writer);
    drop(reader);
    assert_eq!(lines.write(golden_spans(), OFFSET).unwrap(), Reader::Gone);
}

// --- The golden example: a request with a caller, answered 503, as both of its ends see it ---

/// What makes the golden timestamps wall time.
const OFFSET: WallOffset = WallOffset(1_760_000_000_000_000_000);

fn golden_spans() -> Vec<ServiceSpan> {
    let cart = Arc::new(Resource {
        process: ProcessId { pid: 4312, started: 77 },
        service: "cart".into(),
        instrumented: false,
        attributes: vec![
            Attribute::new(semconv_resource::SERVICE_NAME, "cart"),
            Attribute::new(semconv_resource::SERVICE_NAMESPACE, "shop"),
            Attribute::new(semconv_resource::PROCESS_PID, 4312_i64),
            Attribute::new(semconv_resource::PROCESS_EXECUTABLE_NAME, "node".to_owned()),
        ],
    });
    let client = Arc::new(Resource {
        process: ProcessId { pid: 4400, started: 78 },
        service: "curl".into(),
        instrumented: false,
        attributes: vec![Attribute::new(semconv_resource::SERVICE_NAME, "curl")],
    });
    let span = |resource: &Arc<Resource>, kind, id, parent, attributes, links, [start, end]: [u64; 2]| ServiceSpan {
        resource: Arc::clone(resource),
        span: Span {
            trace: TraceId(0x4bf92f3577b34da6a3ce929d0e0e4736_u128.to_be_bytes()),
            id: SpanId(id),
            begun: Begun::Elsewhere,
            parent,
            flags: TraceFlags(0x03),
            state: Some(GOLDEN_STATE.into()),
            kind,
            name: "GET".into(),
            protocol: "http",
            start: Timestamp(start),
            answered: Some(Timestamp(end - 1)),
            end: Timestamp(end),
            failed: true,
            attributes,
            links,
            task: Task { pid: 4312, tid: 4313, identity: [0; 3] },
            port: 8080,
        },
        target: None,
    };
    let server_attributes = vec![
        Attribute::new(semconv::HTTP_REQUEST_METHOD, "GET"),
        Attribute::new(semconv::URL_SCHEME, "http"),
        Attribute::new(semconv::URL_PATH, "/users/42".to_owned()),
        Attribute::new(semconv::URL_QUERY, "x=1&sig=REDACTED".to_owned()),
        Attribute::new(semconv::HTTP_RESPONSE_STATUS_CODE, 503_u16),
        Attribute::new(semconv::ERROR_TYPE, "503".to_owned()),
        Attribute::new(semconv::SERVER_PORT, 8080_u16),
        Attribute {
            key: "http.request.header.accept".into(),
            value: Value::Texts(vec!["text/html".into(), "*/*".into()]),
        },
    ];
    let client_attributes = vec![
        Attribute::new(semconv::URL_FULL, "http://shop:8080/users/42?x=1&sig=REDACTED".to_owned()),
        Attribute::new(semconv::ERROR_TYPE, "503".to_owned()),
    ];
    let parent = ParentSpan { id: SpanId(CALLER), remote: true, method: LinkMethod::Header };
    let link = SpanLink {
        trace: TraceId([0xaa; 16]),
        span: SpanId([0xbb; 8]),
        attributes: vec![Attribute::new("spantap.context.source", "b3")],
    };
    vec![
        span(&cart, SpanKind::Server, SERVER, Some(parent), server_attributes, vec![link], [1000, 2_001_000]),
        span(&client, SpanKind::Client, CALLER, None, client_attributes, Vec::new(), [500, 2_002_000]),
    ]
}

fn golden_request() -> ExportTraceServiceRequest {
    let resource = |attributes, span| ResourceSpans {
        resource: Some(ProtoResource { attributes, ..ProtoResource::default() }),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "spantap/http".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..InstrumentationScope::default()
            }),
            spans: vec![span],
            schema_url: SCHEMA_URL.into(),
        }],
        schema_url: SCHEMA_URL.into(),
    };
    let span = ProtoSpan {
        trace_id: 0x4bf92f3577b34da6a3ce929d0e0e4736_u128.to_be_bytes().to_vec(),
        trace_state: GOLDEN_STATE.into(),
        name: "GET".into(),
        status: Some(Status { code: 2, message: String::new() }),
        ..ProtoSpan::default()
    };
    let client = ProtoSpan {
        span_id: CALLER.to_vec(),
        // sampled, random; where there is no parent there is nothing to say of it.
        flags: 0x003,
        kind: 3,
        start_time_unix_nano: 1_760_000_000_000_000_500,
        end_time_unix_nano: 1_760_000_000_002_002_000,
        attributes: vec![
            text(semconv::URL_FULL, "http://shop:8080/users/42?x=1&sig=REDACTED"),
            text(semconv::ERROR_TYPE, "503"),
        ],
        ..span.clone()
    };
    let server = ProtoSpan {
        span_id: SERVER.to_vec(),
        parent_span_id: CALLER.to_vec(),
        // sampled, random, has_is_remote, is_remote.
        flags: 0x303,
        kind: 2,
        start_time_unix_nano: 1_760_000_000_000_001_000,
        end_time_unix_nano: 1_760_000_000_002_001_000,
        attributes: vec![
            text(semconv::HTTP_REQUEST_METHOD, "GET"),
            text(semconv::URL_SCHEME, "http"),
            text(semconv::URL_PATH, "/users/42"),
            text(semconv::URL_QUERY, "x=1&sig=REDACTED"),
            int(semconv::HTTP_RESPONSE_STATUS_CODE, 503),
            text(semconv::ERROR_TYPE, "503"),
            int(semconv::SERVER_PORT, 8080),
            key_value(
                "http.request.header.accept",
                any_value::Value::ArrayValue(ArrayValue { values: vec![any_text("text/html"), any_text("*/*")] }),
            ),
            text("spantap.link.method", "header"),
        ],
        links: vec![Link {
            trace_id: vec![0xaa; 16],
            span_id: vec![0xbb; 8],
            attributes: vec![text("spantap.context.source", "b3")],
            ..Link::default()
        }],
        ..span
    };
    ExportTraceServiceRequest {
        resource_spans: vec![
            resource(
                vec![
                    text(semconv_resource::SERVICE_NAME, "cart"),
                    text(semconv_resource::SERVICE_NAMESPACE, "shop"),
                    int(semconv_resource::PROCESS_PID, 4312),
                    text(semconv_resource::PROCESS_EXECUTABLE_NAME, "node"),
                ],
                server,
            ),
            resource(vec![text(semconv_resource::SERVICE_NAME, "curl")], client),
        ],
    }
}

/// With what the W3C allows and nobody may change: blanks, an empty member, an `@` far from the end.
const GOLDEN_STATE: &str = "ot=th:0 ,,rojo=00f067aa0ba902b7,tenant@a-long-system-name=1";

/// The span that the request's `traceparent` names.
const CALLER: [u8; 8] = [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7];
const SERVER: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

// --- The test language ---

const ALL: [Transport; 3] = [Transport::Grpc, Transport::Http, Transport::HttpJson];

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

/// A deadline that a flush meets unless something is wrong.
fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn exporter(config: &Destination, limits: Limits) -> Exporter {
    Exporter::start_with(config, limits, &Handle::current()).unwrap()
}

fn settings(receiver: &Receiver) -> Destination {
    Destination { endpoint: receiver.endpoint(), ..to(receiver.transport()) }
}

fn to(transport: Transport) -> Destination {
    let protocol = match transport {
        Transport::Grpc => Protocol::Grpc,
        Transport::Http => Protocol::HttpProtobuf,
        Transport::HttpJson => Protocol::HttpJson,
    };
    Destination::new("", protocol)
}

fn service(n: u32) -> Arc<Resource> {
    Arc::new(Resource {
        process: ProcessId { pid: 1000 + n, started: 1 },
        service: format!("service-{n}").into(),
        instrumented: false,
        attributes: vec![Attribute::new(semconv_resource::SERVICE_NAME, format!("service-{n}"))],
    })
}

fn span(service: &Arc<Resource>, n: u64) -> ServiceSpan {
    span_of_size(service, n, 10)
}

fn span_of_size(service: &Arc<Resource>, n: u64, bytes: usize) -> ServiceSpan {
    let span = Span {
        trace: TraceId([1; 16]),
        id: SpanId((n + 1).to_be_bytes()),
        parent: None,
        begun: Begun::Elsewhere,
        flags: TraceFlags(0x03),
        state: None,
        kind: SpanKind::Server,
        name: "GET".into(),
        protocol: "http",
        start: Timestamp(n),
        answered: None,
        end: Timestamp(n + 1),
        failed: false,
        attributes: vec![Attribute::new(semconv::URL_PATH, "/".repeat(bytes))],
        links: Vec::new(),
        task: Task::default(),
        port: 0,
    };
    ServiceSpan { span, resource: Arc::clone(service), target: None }
}

fn json_line(spans: Vec<ServiceSpan>) -> String {
    let mut written = Vec::new();
    JsonLines::new(&mut written).write(spans, OFFSET).unwrap();
    String::from_utf8(written).unwrap()
}

/// Waits for `condition`, which has no event of its own.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while !condition() {
            look.tick().await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "waited in vain for {what}");
}

/// An address nobody listens on.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A listener that closes the first connection it accepts, and then itself: proof that an attempt was made and failed.
struct RefusedOnce(TcpListener);

impl RefusedOnce {
    async fn at(address: SocketAddr) -> Self {
        Self(TcpListener::bind(address).await.unwrap())
    }

    async fn wait(self) {
        timeout(PATIENCE, self.0.accept()).await.expect("an attempt is made").unwrap();
    }
}

/// The program's own log lines, as long as the guard lives. Tests of the current-thread runtime share no thread.
fn logged() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn read(&self) -> Vec<String> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written).lines().map(str::to_owned).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn name_of(resource: &ResourceSpans) -> String {
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    let name = attributes.filter(|attribute| attribute.key == semconv_resource::SERVICE_NAME);
    match name.filter_map(|name| name.value.as_ref()?.value.as_ref()).next() {
        Some(any_value::Value::StringValue(name)) => name.clone(),
        other => panic!("no service name: {other:?}"),
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue { value: Some(any_text(value)), ..key_value(key, any_value::Value::IntValue(0)) }
}

fn int(key: &str, value: i64) -> KeyValue {
    key_value(key, any_value::Value::IntValue(value))
}

fn any_text(value: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn attribute_of(span: &Json, key: &str) -> Json {
    let attributes = span["attributes"].as_array().into_iter().flatten();
    attributes.filter(|attribute| attribute["key"] == key).map(|attribute| attribute["value"].clone()).next().unwrap()
}

fn keys(object: &Json) -> Vec<&str> {
    object.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}
