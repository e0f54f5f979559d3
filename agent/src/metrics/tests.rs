// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Metrics as a whole: what is counted, under which names, and what Prometheus would read.

use super::*;
use crate::{
    attribute::Attribute,
    context::{SpanId, TraceFlags, TraceId},
    enrich::Resource,
    process::ProcessId,
    time::{Task, WallOffset},
    trace::{Begun, LinkMethod, ParentSpan, Span},
};

const MS: u64 = 1_000_000;

/// A span of `service`: `ms` long, answered with `status`.
fn span(kind: SpanKind, service: &str, id: u8, parent: Option<u8>, ms: u64, status: u16) -> ServiceSpan {
    let span_id = |id| SpanId([id; 8]);
    let mut attributes = vec![
        Attribute::new(HTTP_REQUEST_METHOD, "GET"),
        Attribute::new(URL_SCHEME, "http"),
        Attribute::new(HTTP_RESPONSE_STATUS_CODE, status),
        Attribute::new(NETWORK_PROTOCOL_VERSION, "1.1"),
        Attribute::new(SERVER_ADDRESS, "shop.example".to_owned()),
        Attribute::new(SERVER_PORT, 80_u16),
    ];
    if kind == SpanKind::Server {
        attributes.push(Attribute::new(HTTP_ROUTE, "/items/{id}"));
    }
    let failed = status >= 500;
    if failed {
        attributes.push(Attribute::new(ERROR_TYPE, status.to_string()));
    }
    ServiceSpan {
        span: Span {
            trace: TraceId([1; 16]),
            id: span_id(id),
            parent: parent.map(|id| ParentSpan { id: span_id(id), remote: true, method: LinkMethod::Socket }),
            begun: Begun::Here,
            flags: TraceFlags(0),
            state: None,
            kind,
            name: "GET /items/{id}".into(),
            protocol: "http",
            start: Timestamp(0),
            answered: None,
            end: Timestamp(ms * MS),
            failed,
            attributes,
            links: Vec::new(),
            task: Task::default(),
            port: 0,
        },
        target: None,
        resource: Arc::new(Resource {
            process: ProcessId { pid: service.len() as u32, started: 1 },
            service: service.into(),
            instrumented: false,
            attributes: vec![Attribute::new("service.name", service.to_owned())],
        }),
    }
}

fn metrics(change: impl FnOnce(&mut Settings)) -> Metrics {
    let mut settings = Settings::default();
    change(&mut settings);
    Metrics::new(settings, 7)
}

/// Every sample but buckets.
fn samples(metrics: &Metrics) -> Vec<String> {
    let text = openmetrics::text(&metrics.families(), WallOffset(0));
    text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket{")).map(str::to_owned).collect()
}

#[test]
fn requests_count_whether_they_are_sampled_or_not_and_with_the_conventions_labels() {
    let mut metrics = metrics(|settings| settings.service_graph.enabled = false);
    metrics.observe(&span(SpanKind::Server, "shop", 1, None, 20, 200), Timestamp(0));
    metrics.observe(&span(SpanKind::Server, "shop", 2, None, 30, 200), Timestamp(0));
    metrics.observe(&span(SpanKind::Server, "shop", 3, None, 40, 503), Timestamp(0));
    metrics.observe(&span(SpanKind::Client, "web", 4, None, 50, 200), Timestamp(0));
    assert_eq!(
        samples(&metrics),
        [
            r#"http_server_request_duration_seconds_count{service_name="shop",http_request_method="GET",url_scheme="http",http_response_status_code="200",http_route="/items/{id}",network_protocol_version="1.1"} 2"#,
            r#"http_server_request_duration_seconds_sum{service_name="shop",http_request_method="GET",url_scheme="http",http_response_status_code="200",http_route="/items/{id}",network_protocol_version="1.1"} 0.05"#,
            r#"http_server_request_duration_seconds_count{service_name="shop",http_request_method="GET",url_scheme="http",http_response_status_code="503",error_type="503",http_route="/items/{id}",network_protocol_version="1.1"} 1"#,
            r#"http_server_request_duration_seconds_sum{service_name="shop",http_request_method="GET",url_scheme="http",http_response_status_code="503",error_type="503",http_route="/items/{id}",network_protocol_version="1.1"} 0.04"#,
            r#"http_client_request_duration_seconds_count{service_name="web",http_request_method="GET",http_response_status_code="200",network_protocol_version="1.1",server_address="shop.example",server_port="80"} 1"#,
            r#"http_client_request_duration_seconds_sum{service_name="web",http_request_method="GET",http_response_status_code="200",network_protocol_version="1.1",server_address="shop.example",server_port="80"} 0.05"#,
        ]
    );
}

#[test]
fn buckets_are_the_conventions_and_exemplars_name_the_trace() {
    let mut metrics = metrics(|settings| settings.service_graph.enabled = false);
    let exported = span(SpanKind::Server, "shop", 1, None, 20, 200);
    metrics.observe(&exported, Timestamp(0));
    metrics.observe(&span(SpanKind::Server, "shop", 2, None, 20_000, 200), Timestamp(0));
    metrics.exemplify(&exported);
    let text = openmetrics::text(&metrics.families(), WallOffset(1_700_000_000_000_000_000));
    let buckets: Vec<_> = text.lines().filter(|line| line.contains("_bucket{")).collect();
    let bounds: Vec<_> = buckets.iter().filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()).collect();
    let expected = [
        "0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5", "0.75", "1.0", "2.5", "5.0", "7.5", "10.0",
        "+Inf",
    ];
    assert_eq!(bounds, expected);
    let trace = "01010101010101010101010101010101";
    assert!(
        buckets[2]
            .ends_with(&format!("}} 1 # {{trace_id=\"{trace}\",span_id=\"0101010101010101\"}} 0.02 1700000000.020")),
        "{}",
        buckets[2]
    );
    assert!(buckets[13].ends_with("} 1") && buckets[14].ends_with("} 2"), "{buckets:?}");
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains(
        "# TYPE http_server_request_duration_seconds histogram\n# UNIT http_server_request_duration_seconds seconds\n"
    ));
}

#[test]
fn an_edge_is_counted_once_both_of_its_ends_were_seen() {
    let mut metrics = metrics(|settings| settings.http = false);
    // The server's span comes first, as it ends first; a failed one counts as failed whoever noticed.
    metrics.observe(&span(SpanKind::Server, "cart", 2, Some(1), 20, 200), Timestamp(0));
    assert_eq!(samples(&metrics), [""; 0]);
    metrics.observe(&span(SpanKind::Client, "web", 1, None, 30, 500), Timestamp(0));
    let edge = r#"{client="web",server="cart",connection_type=""}"#;
    assert_eq!(
        samples(&metrics),
        [
            format!("traces_service_graph_request_total{edge} 1"),
            format!("traces_service_graph_request_failed_total{edge} 1"),
            format!("traces_service_graph_request_server_seconds_count{edge} 1"),
            format!("traces_service_graph_request_server_seconds_sum{edge} 0.02"),
            format!("traces_service_graph_request_client_seconds_count{edge} 1"),
            format!("traces_service_graph_request_client_seconds_sum{edge} 0.03"),
        ]
    );
}

#[test]
fn an_end_that_stays_alone_has_a_virtual_node_or_is_counted() {
    let mut metrics = metrics(|settings| {
        settings.http = false;
        settings.service_graph.max_items = 3;
    });
    // Nobody who is known called; a host that is not traced; a caller that was never seen.
    metrics.observe(&span(SpanKind::Server, "cart", 1, None, 20, 200), Timestamp(0));
    metrics.observe(&span(SpanKind::Client, "cart", 2, Some(1), 20, 200), Timestamp(0));
    metrics.observe(&span(SpanKind::Server, "cart", 4, Some(3), 20, 200), Timestamp(0));
    let mut silent = span(SpanKind::Client, "cart", 5, None, 20, 200);
    silent.span.attributes.clear();
    metrics.observe(&silent, Timestamp(0));
    metrics.observe(&span(SpanKind::Server, "cart", 7, Some(6), 20, 200), Timestamp(0));
    metrics.tick(Timestamp(10_000 * MS));
    let totals: Vec<_> = samples(&metrics).into_iter().filter(|sample| sample.contains("_total{")).collect();
    assert_eq!(
        totals,
        [
            r#"traces_service_graph_request_total{client="cart",server="shop.example",connection_type="virtual_node"} 1"#,
            r#"traces_service_graph_request_total{client="user",server="cart",connection_type="virtual_node"} 1"#,
            r#"traces_service_graph_unpaired_spans_total{client="cart",server=""} 1"#,
            r#"traces_service_graph_unpaired_spans_total{client="",server="cart"} 1"#,
            r#"traces_service_graph_dropped_spans_total{client="",server="cart"} 1"#,
        ]
    );
}

#[test]
fn span_metrics_have_the_collectors_names() {
    let mut metrics = metrics(|settings| {
        *settings = Settings { http: false, span_metrics: true, ..Settings::default() };
        settings.service_graph.enabled = false;
    });
    metrics.observe(&span(SpanKind::Server, "cart", 1, None, 20, 503), Timestamp(0));
    let labels = r#"{service_name="cart",span_name="GET /items/{id}",span_kind="SPAN_KIND_SERVER",status_code="STATUS_CODE_ERROR"}"#;
    assert_eq!(
        samples(&metrics),
        [
            format!("traces_span_metrics_calls_total{labels} 1"),
            format!("traces_span_metrics_duration_milliseconds_count{labels} 1"),
            format!("traces_span_metrics_duration_milliseconds_sum{labels} 20"),
        ]
    );
}

#[test]
fn sizes_of_bodies_are_measured_where_they_are_known_and_asked_for() {
    let mut sized = span(SpanKind::Server, "shop", 1, None, 20, 200);
    sized.span.attributes.push(Attribute::new(HTTP_REQUEST_BODY_SIZE, 0_i64));
    sized.span.attributes.push(Attribute::new(HTTP_RESPONSE_BODY_SIZE, 1_200_i64));
    let unsized_one = span(SpanKind::Client, "shop", 2, None, 20, 200);
    let measured = |change: fn(&mut Settings)| {
        let mut metrics = metrics(|settings| {
            settings.service_graph.enabled = false;
            settings.http = false;
            change(settings);
        });
        for span in [&sized, &unsized_one] {
            metrics.observe(span, Timestamp(0));
            metrics.exemplify(span);
        }
        metrics
    };
    assert_eq!(samples(&measured(|_| ())), [""; 0]);
    let metrics = measured(|settings| settings.http_body_sizes = true);
    let labels = r#"{service_name="shop",http_request_method="GET",url_scheme="http",http_response_status_code="200",http_route="/items/{id}",network_protocol_version="1.1"}"#;
    assert_eq!(
        samples(&metrics),
        [
            format!("http_server_request_body_size_bytes_count{labels} 1"),
            format!("http_server_request_body_size_bytes_sum{labels} 0"),
            format!("http_server_response_body_size_bytes_count{labels} 1"),
            format!("http_server_response_body_size_bytes_sum{labels} 1200"),
        ]
    );
    let text = openmetrics::text(&metrics.families(), WallOffset(0));
    assert!(text.contains("le=\"2500.0\"} 1 # {trace_id="), "{text}");
    assert_eq!(metrics.fill().entries, 2);
}

#[test]
fn examples_are_of_exported_traces_of_all_or_of_none() {
    use super::settings::Exemplars::{AlwaysOff, AlwaysOn, TraceBased};
    for (exemplars, is_exported, expected) in
        [(TraceBased, false, 0), (TraceBased, true, 1), (AlwaysOn, false, 1), (AlwaysOff, true, 0)]
    {
        let mut metrics = metrics(|settings| {
            settings.service_graph.enabled = false;
            settings.exemplars = exemplars;
        });
        let one = span(SpanKind::Server, "shop", 1, None, 20, 200);
        metrics.observe(&one, Timestamp(0));
        if is_exported {
            metrics.exemplify(&one);
        }
        let text = openmetrics::text(&metrics.families(), WallOffset(0));
        assert_eq!(text.matches("trace_id=").count(), expected, "{exemplars:?}, exported: {is_exported}");
    }
}

#[test]
fn a_summary_merges_the_processes_of_a_service() {
    let mut metrics = metrics(|_| ());
    for n in 1..=100 {
        let mut span = span(SpanKind::Server, "cart", 1, None, n, if n > 90 { 500 } else { 200 });
        Arc::get_mut(&mut span.resource).expect("nobody else has it").process.pid = (n % 4) as u32;
        metrics.observe(&span, Timestamp(0));
    }
    let summaries = metrics.summaries();
    let [summary] = summaries.as_slice() else { panic!("one route: {summaries:?}") };
    assert_eq!((&*summary.service, summary.route.as_str()), ("cart", "GET /items/{id}"));
    assert_eq!((summary.requests, summary.errors), (100, 10));
    for (quantile, exact) in summary.quantiles.into_iter().zip([0.050, 0.095, 0.099]) {
        assert!((quantile / exact - 1.0).abs() < 0.03, "{quantile} for {exact}");
    }
}

#[test]
fn labels_are_escaped() {
    let mut metrics = metrics(|settings| settings.service_graph.enabled = false);
    let mut odd = span(SpanKind::Client, "web", 1, None, 20, 200);
    odd.span.attributes.retain(|attribute| attribute.key != SERVER_ADDRESS);
    odd.span.attributes.push(Attribute::new(SERVER_ADDRESS, "a\"b\\c\nd".to_owned()));
    metrics.observe(&odd, Timestamp(0));
    assert!(samples(&metrics)[0].contains(r#"server_address="a\"b\\c\nd""#));
}
