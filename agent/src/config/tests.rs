// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tables of (command line, environment) and what is decided.

use clap::CommandFactory as _;

use super::*;
use crate::{
    metrics::settings::{Exemplars, Temporality},
    sample::settings::{Adaptive, Strategy},
};

const TERMINAL: Screen = Screen { terminal: true };
const PIPE: Screen = Screen { terminal: false };

/// Variables of a table.
type Environ<'a> = &'a [(&'a str, &'a str)];

fn decided(line: &str, environment: Environ<'_>, screen: Screen) -> Result<Decision, Refusal> {
    decide(line.split_whitespace().map(OsString::from), &environment, screen)
}

fn run(line: &str, environment: Environ<'_>, screen: Screen) -> (Config, Vec<String>) {
    match decided(line, environment, screen) {
        Ok(Decision { command: Command::Run(config), warnings, .. }) => (config, warnings),
        other => panic!("{line}: {other:?}"),
    }
}

fn mistakes(line: &str, environment: Environ<'_>) -> String {
    match decided(line, environment, PIPE) {
        Err(Refusal::Mistakes(mistakes)) => mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        other => panic!("{line}: {other:?}"),
    }
}

/// `endpoint protocol headers timeout gzip`, or what went wrong; then the warnings.
fn otlp_of(line: &str, environment: Environ<'_>) -> String {
    match decided(line, environment, PIPE) {
        Ok(Decision { command: Command::Run(config), warnings, .. }) => {
            let mut text = match config.output.destinations.into_iter().next() {
                Some(otlp) => {
                    let headers: Vec<_> = otlp.headers.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                    let gzip = if otlp.gzip { " gzip" } else { "" };
                    format!(
                        "{} {} [{}] {:?}{gzip}",
                        otlp.endpoint,
                        otlp.protocol.name(),
                        headers.join(" "),
                        otlp.timeout
                    )
                }
                None => "none".to_owned(),
            };
            for warning in warnings {
                text.push_str("\n! ");
                text.push_str(&warning);
            }
            text
        }
        Err(Refusal::Mistakes(mistakes)) => mistakes.iter().map(ToString::to_string).collect(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn no_arguments_trace_everything_and_print() {
    let (config, warnings) = run("spantap", &[], TERMINAL);
    assert!(config.selection.is_everything());
    assert!(config.output.destinations.is_empty());
    assert_eq!(config.output.print, Some(Print { style: PrintStyle::Tree, colour: Colour::On, terminal: true }));
    assert_eq!((config.duration, config.record, config.quiet), (None, None, false));
    assert!(warnings.is_empty());
}

#[test]
fn what_is_printed_depends_on_the_endpoint_and_on_the_terminal() {
    use PrintStyle::{Json, Text, Tree};
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
    type Case<'a> = (&'a str, Environ<'a>, Screen, bool, Option<PrintStyle>);
    let cases: &[Case<'_>] = &[
        ("spantap", &[], TERMINAL, false, Some(Tree)),
        ("spantap run", &[], PIPE, false, Some(Text)),
        ("spantap --print json", &[], TERMINAL, false, Some(Json)),
        ("spantap", &[("SPANTAP_PRINT", "Json")], TERMINAL, false, Some(Json)),
        ("spantap --print tree", &[("SPANTAP_PRINT", "json")], PIPE, false, Some(Tree)),
        ("spantap", &[ENDPOINT], TERMINAL, true, None),
        ("spantap --print tree", &[ENDPOINT], TERMINAL, true, Some(Tree)),
        ("spantap --otlp http://c:4318", &[], TERMINAL, true, None),
        ("spantap", &[("SPANTAP_OTLP", "http://c:4318")], TERMINAL, true, None),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "otlp")], TERMINAL, true, None),
        ("spantap", &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "console")], TERMINAL, false, Some(Tree)),
        ("spantap", &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "console,otlp")], PIPE, true, Some(Text)),
        ("spantap", &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], TERMINAL, false, None),
        ("spantap", &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp/stdout")], TERMINAL, false, Some(Json)),
        ("spantap --print tree", &[("OTEL_TRACES_EXPORTER", "OTLP/stdout")], PIPE, false, Some(Tree)),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "zipkin")], TERMINAL, true, None),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "zipkin, otlp ,console")], TERMINAL, true, Some(Tree)),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_SDK_DISABLED", "true")], TERMINAL, false, Some(Tree)),
        ("spantap --print text", &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], TERMINAL, false, Some(Text)),
        ("spantap --otlp http://c:4318", &[("OTEL_TRACES_EXPORTER", "none")], TERMINAL, true, None),
        ("spantap", &[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")], TERMINAL, false, Some(Tree)),
        ("spantap --otlp http://c:4318", &[("OTEL_SDK_DISABLED", "true")], TERMINAL, false, Some(Tree)),
        ("spantap record x.rec", &[ENDPOINT], TERMINAL, false, None),
    ];
    for (line, environment, screen, exports, prints) in cases {
        let (config, _) = run(line, environment, *screen);
        let seen = (!config.output.destinations.is_empty(), config.output.print.map(|print| print.style));
        assert_eq!(seen, (*exports, *prints), "{line} {environment:?}");
    }
}

#[test]
fn colours_are_for_terminals_unless_asked_for() {
    let cases: &[(&str, Environ<'_>, Screen, Colour)] = &[
        ("spantap", &[], TERMINAL, Colour::On),
        ("spantap", &[], PIPE, Colour::Off),
        ("spantap", &[("NO_COLOR", "1")], TERMINAL, Colour::Off),
        ("spantap", &[("NO_COLOR", "")], TERMINAL, Colour::On),
        ("spantap", &[("TERM", "dumb")], TERMINAL, Colour::Off),
        ("spantap --color always", &[("NO_COLOR", "1")], PIPE, Colour::On),
        ("spantap --color never", &[], TERMINAL, Colour::Off),
        ("spantap", &[("SPANTAP_COLOR", "always")], PIPE, Colour::On),
    ];
    for (line, environment, screen, colour) in cases {
        let (config, _) = run(line, environment, *screen);
        assert_eq!(config.output.print.map(|print| print.colour), Some(*colour), "{line} {environment:?}");
    }
}

#[test]
fn every_selector_has_a_twin_and_the_flag_beats_it() {
    let twins = [("SPANTAP_PID", "7, 8"), ("SPANTAP_PORT", "80"), ("SPANTAP_EXE", "{a,b}*"), ("SPANTAP_EXCLUDE", "x")];
    let (config, _) = run("spantap", &twins, PIPE);
    assert_eq!(
        config.selection,
        Selection {
            pids: vec![7, 8],
            ports: vec![80],
            patterns: Patterns { executables: vec!["{a,b}*".into()], ..Patterns::default() },
            excluded: vec!["x".into()],
            ..Selection::default()
        }
    );
    let (config, _) = run("spantap run --pid 1 --pid 2,3 --port 8080 --exe /usr/bin/*", &twins, PIPE);
    assert_eq!(
        config.selection,
        Selection {
            pids: vec![1, 2, 3],
            ports: vec![8080],
            patterns: Patterns { executables: vec!["/usr/bin/*".into()], ..Patterns::default() },
            excluded: vec!["x".into()],
            ..Selection::default()
        }
    );
}

#[test]
fn the_other_flags_have_twins_as_well() {
    let (config, _) = run("spantap", &[("SPANTAP_DURATION", "1m"), ("SPANTAP_QUIET", "true")], PIPE);
    assert_eq!((config.duration, config.quiet), (Some(Duration::from_secs(60)), true));
    let decision = decided("spantap doctor", &[("SPANTAP_JSON", "true")], PIPE);
    assert!(matches!(decision, Ok(Decision { command: Command::Doctor(DoctorConfig { json: true, .. }), .. })));
}

#[test]
fn a_test_may_change_bounds() {
    let environment = [("SPANTAP_TEST_BOUNDS", "ring=65536,connections=4,silence=250,nonsense")];
    let (config, warnings) = run("spantap", &environment, PIPE);
    let pipeline =
        pipeline::Limits { connections: 4, silence: Duration::from_millis(250), ..pipeline::Limits::default() };
    assert_eq!(config.bounds, Bounds { ring_bytes: 65_536, pipeline, ..Bounds::default() });
    assert_eq!(warnings, ["SPANTAP_TEST_BOUNDS has no nonsense"]);
}

#[test]
fn every_setting_has_a_variable_and_no_two_have_the_same() {
    let shape = schema::shape();
    let mut names: Vec<_> = shape.settings().iter().map(|(path, _)| schema::variable(path)).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let (_, warnings) = run("spantap", &all, PIPE);
    assert_eq!(warnings, [""; 0]);
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn the_file_is_below_the_environment_and_the_flags_are_above() {
    const FILE: &str = "\
port: [80]
pid: 7
exe: node, python3
export:
  otlp: {endpoint: http://file:4318, timeout: 3s, headers: {X-Tenant: blue}}
  batch:
    delay: 2s
resource:
  deployment.environment.name: staging
# a comment
quiet:
";
    let environment = [
        ("c.yaml", FILE),
        ("SPANTAP_CONFIG", "c.yaml"),
        ("SPANTAP_PORT", "90,91"),
        ("OTEL_BSP_SCHEDULE_DELAY", "400"),
        ("SPANTAP_EXPORT_BATCH_QUEUE", "1000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2000"),
    ];
    let (config, warnings) = run("spantap --exe java", &environment, PIPE);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.selection.ports, [90, 91]);
    assert_eq!(config.selection.pids, [7], "one value is a list of one");
    assert_eq!(config.selection.patterns.executables, ["java"]);
    assert_eq!(config.resource, [("deployment.environment.name".to_owned(), "staging".to_owned())]);
    let limits = &config.output.limits;
    assert_eq!((limits.delay, limits.queue_spans), (Duration::from_millis(400), 1000));
    let destination = &config.output.destinations[0];
    assert_eq!((&*destination.endpoint, destination.timeout), ("http://file:4318/v1/traces", Duration::from_secs(3)));
    assert_eq!(destination.headers, [("x-tenant".to_owned(), "blue".to_owned())]);

    let (config, _) = run("spantap", &[("c.yaml", FILE), ("SPANTAP_CONFIG", "c.yaml")], PIPE);
    assert_eq!(config.selection.patterns.executables, ["node", "python3"]);
    let (config, _) = run("spantap --config c.yaml", &[("c.yaml", "# nothing\n")], PIPE);
    assert!(config.selection.is_everything());
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_line() {
    const FILE: &str = "\
prot: [80]
port: [80, x, 70000]
export:
  otlp:
    endpoint: collector
    tiemout: 3s
    protocol: htpp/json
  batch: {delay: 5, queue: 0}
  destinations:
    - {name: a, endpoint: 'http://a'}
    - name: a
      endpoint: b
      colour: red
  traces: [otlp, jaeger]
print: [tree]
";
    insta::assert_snapshot!(
        mistakes("spantap --config c.yaml --duration 3", &[("c.yaml", FILE), ("SPANTAP_EXPORT_LIMITS_LINKS", "-1")]),
        @r#"
    c.yaml:1: prot is no setting
           → did you mean port?
    c.yaml:2: port "x" is not possible
           → give a port from 1 to 65535, such as --port 8080
    c.yaml:2: port "70000" is not possible
           → give a port from 1 to 65535, such as --port 8080
    c.yaml:5: export.otlp.endpoint has no http:// or https:// in front
           → give scheme, host and port: http://localhost:4318, or http://localhost:4317 for grpc
    c.yaml:6: export.otlp.tiemout is no setting
           → did you mean timeout?
    c.yaml:7: export.otlp.protocol "htpp/json" is unknown
           → did you mean http/json? There are grpc, http/protobuf, http/json
    c.yaml:8: export.batch.delay "5" is not a time above zero
           → give a number and a unit: 5s
    c.yaml:8: export.batch.queue "0" is not possible
           → give a number from 1 to 1000000000
    c.yaml:12: export.destinations[1].endpoint has no http:// or https:// in front
           → give scheme, host and port: http://localhost:4318, or http://localhost:4317 for grpc
    c.yaml:13: export.destinations[1].colour is no setting
           → there are certificate, client_certificate, client_key, compression, endpoint, headers, name, protocol, timeout
    c.yaml:14: export.traces "jaeger" is unknown
           → use one of otlp, otlp/stdout, console, zipkin, none
    c.yaml:15: print is no single value
           → give one value, not a list or a group of keys
    SPANTAP_EXPORT_LIMITS_LINKS "-1" is not possible
           → give a number from 0 to 1000000000
    --duration "3" is not a time above zero
           → give a number and a unit: 3s
    "#
    );
    for (text, wanted) in [
        ("port: [80", "c.yaml:1: it is not YAML"),
        ("- 80", "c.yaml:1: there are no settings in it"),
        ("port: 1\nport: 2", "c.yaml:2: it is not YAML"),
    ] {
        let told = mistakes("spantap --config c.yaml", &[("c.yaml", text)]);
        assert!(told.starts_with(wanted), "{text}: {told}");
    }
    let told = mistakes("spantap", &[("SPANTAP_CONFIG", "/nowhere.yaml")]);
    assert!(told.starts_with("SPANTAP_CONFIG /nowhere.yaml cannot be read"), "{told}");
}

#[test]
fn every_setting_is_printed_with_where_it_comes_from_and_no_secret() {
    let environment = [
        ("c.yaml", "export:\n  otlp:\n    headers: {api-key: hunter2}\n"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@c:4318"),
        ("SPANTAP_QUIET", "true"),
    ];
    let decision = decided("spantap --config c.yaml --port 80 --print-config", &environment, PIPE);
    let Ok(Decision { command: Command::Say(text), .. }) = decision else { panic!("{decision:?}") };
    assert!(!text.contains("hunter2"), "{text}");
    for line in [
        "port = [80] (--port)",
        "quiet = true (env SPANTAP_QUIET)",
        "print = unset (default)",
        "export.batch.delay = 1s (default)",
        "export.otlp.endpoint = http://c:4318/ (env OTEL_EXPORTER_OTLP_ENDPOINT)",
        "export.otlp.headers = {\"api-key\":\"(hidden)\"} (c.yaml:3)",
    ] {
        assert!(text.lines().any(|printed| printed == line), "no {line} in\n{text}");
    }
    let lines = text.lines().count();
    assert_eq!(lines, schema::shape().settings().len());
}

#[test]
fn validation_says_that_all_is_well_or_what_is_not() {
    let good = decided("spantap --config c.yaml --validate", &[("c.yaml", "port: [80]")], PIPE);
    assert!(matches!(good, Ok(Decision { command: Command::Say(_), .. })), "{good:?}");
    assert!(mistakes("spantap --config c.yaml --validate", &[("c.yaml", "prt: [80]")]).contains("did you mean port?"));
}

#[test]
fn a_variable_may_hold_groups_and_tables() {
    let (config, _) = run(
        "spantap",
        &[
            ("SPANTAP_EXPORT_DESTINATIONS", "[{name: a, endpoint: 'http://a:4317'}, {name: b, endpoint: 'http://b'}]"),
            ("SPANTAP_RESOURCE", "team=blue, region=north"),
        ],
        PIPE,
    );
    let seen: Vec<_> = config.output.destinations.iter().map(|d| (&*d.name, &*d.endpoint, d.protocol)).collect();
    assert_eq!(
        seen,
        [("a", "http://a:4317", Protocol::Grpc), ("b", "http://b/v1/traces", Protocol::HttpProtobuf)],
        "several destinations, each with a queue of its own"
    );
    assert_eq!(config.resource.len(), 2);
    let told = mistakes("spantap", &[("SPANTAP_RESOURCE", "team")]);
    assert!(told.contains("write SPANTAP_RESOURCE=a=1,b=2"), "{told}");
}

#[test]
fn the_reference_page_is_made_from_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    if std::env::var_os("SPANTAP_UPDATE_PAGES").is_some() {
        std::fs::write(&path, schema::reference()).expect("the page can be written");
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(page, schema::reference(), "stale: SPANTAP_UPDATE_PAGES=1 cargo test -p spantap --lib config");
}

#[test]
fn metrics_have_variables_of_their_own() {
    let to = |variables: &[(&str, &str)]| {
        let (config, _) = run("spantap", variables, PIPE);
        let Output { metric_destinations: to, .. } = config.output;
        assert!(to.iter().all(|to| to.spool.is_none()), "what waits on disk is spans: {to:?}");
        to
    };
    let endpoints = |variables: &[(&str, &str)]| -> Vec<String> {
        to(variables).iter().map(|to| format!("{} {}", to.protocol.name(), to.endpoint)).collect()
    };
    let metrics = ("OTEL_METRICS_EXPORTER", "otlp");
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/tenant/");
    let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m:9090/api/v1/otlp/v1/metrics");
    for (variables, expected) in [
        (&[metrics][..], &["http/protobuf http://localhost:4318/v1/metrics"][..]),
        (&[metrics, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")], &["grpc http://localhost:4317"]),
        (&[metrics, base], &["http/protobuf http://c:4318/tenant/v1/metrics"]),
        (&[metrics, base, own], &["http/protobuf http://m:9090/api/v1/otlp/v1/metrics"]),
        (
            &[metrics, own, ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json")],
            &["http/json http://m:9090/api/v1/otlp/v1/metrics"],
        ),
        (&[metrics, base, ("OTEL_SDK_DISABLED", "true")], &[]),
        // Where only traces have an endpoint, their collector is asked.
        (
            &[metrics, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:4318/v1/traces")],
            &["http/protobuf http://t:4318/v1/metrics"],
        ),
        (&[metrics, ("SPANTAP_OTLP", "http://c:4318/v1/traces")], &["http/protobuf http://c:4318/v1/metrics"]),
        (
            &[metrics, base, ("SPANTAP_EXPORT_DESTINATIONS", "[{name: b, endpoint: 'http://b:4317'}]")],
            &["http/protobuf http://c:4318/tenant/v1/metrics", "grpc http://b:4317"],
        ),
        (&[("SPANTAP_PRINT", "text")], &[]),
    ] {
        assert_eq!(endpoints(variables), expected, "{variables:?}");
    }
    let made = to(&[
        metrics,
        base,
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=all"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=traces"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key=m%20n"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "1500"),
        ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", "/ca.pem"),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", "/me.pem"),
        ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", "/me.key"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "9000"),
        ("SPANTAP_EXPORT_SPOOL_PATH", "/var/lib/spool"),
    ]);
    let [made] = &made[..] else { panic!("{made:?}") };
    assert_eq!(made.headers, [("api-key".to_owned(), "m n".to_owned())]);
    assert_eq!((made.timeout, made.gzip), (Duration::from_millis(1500), true));
    let path = |path: &str| Some(path.into());
    let tls = Tls { certificate: path("/ca.pem"), client_certificate: path("/me.pem"), client_key: path("/me.key") };
    assert_eq!(made.tls, tls);
    let told = mistakes("spantap", &[metrics, ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "m:4318")]);
    assert!(told.contains("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT has no http:// or https:// in front"), "{told}");
}

/// What is followed of OpenTelemetry's own file, in the shape of the schema's examples.
const DECLARATIVE_FILE: &str = r#"
file_format: "1.0"
disabled: false
log_level: info
resource:
  attributes:
    - name: deployment.environment.name
      value: ${STAGE:-staging}
      type: string
  attributes_list: ${MORE}
attribute_limits:
  attribute_count_limit: 64
propagator:
  composite: [{tracecontext: }]
tracer_provider:
  processors:
    - batch:
        schedule_delay: 2000
        max_queue_size: 4096
        max_export_batch_size: 256
        export_timeout:
        exporter:
          otlp_http:
            endpoint: ${OTLP}/v1/traces
            tls: {ca_file: /ca.pem, cert_file: /me.pem, key_file: /me.key}
            headers: [{name: api-key, value: "1234"}]
            headers_list: api-key=ignored,tenant=a%20b
            compression: gzip
            timeout: 5000
            encoding: json
    - batch: {exporter: {otlp_grpc: {endpoint: "http://second:4317"}}}
    - simple: {exporter: {console: }}
  limits: {attribute_count_limit: 32, link_count_limit: 16}
  sampler:
    parent_based:
      root: {trace_id_ratio_based: {ratio: 0.25}}
      remote_parent_not_sampled: {always_on: }
meter_provider:
  readers:
    - periodic:
        interval: 15000
        timeout: 7000
        exporter: {otlp_http: {temporality_preference: delta, default_histogram_aggregation: base2_exponential_bucket_histogram}}
    - pull: {exporter: {prometheus/development: {host: 0.0.0.0, port: 9999}}}
  exemplar_filter: always_off
instrumentation/development:
  general: {http: {server: {request_captured_headers: [x-tenant], known_methods: [GET, PURGE]}}}
"#;

#[test]
fn the_declarative_file_is_followed_in_the_place_of_the_variables() {
    let (config, warnings) = run(
        "spantap",
        &[
            ("OTEL_CONFIG_FILE", "otel.yaml"),
            ("otel.yaml", DECLARATIVE_FILE),
            ("OTLP", "https://collector:4318"),
            ("MORE", "team=blue,deployment.environment.name=lost"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://unheard:4318"),
            ("SPANTAP_EXPORT_BATCH_SPANS", "99"),
        ],
        PIPE,
    );
    assert_eq!(
        warnings,
        [
            "otel.yaml:4: log_level has no effect here: set SPANTAP_LOG",
            "otel.yaml:13: propagator has no effect here: every format is read, and none is written",
            "OTEL_CONFIG_FILE is set, which other variables give way to: OTEL_EXPORTER_OTLP_ENDPOINT",
        ]
    );
    let [first, second] = &config.output.destinations[..] else { panic!("{:?}", config.output.destinations) };
    assert_eq!((&*first.endpoint, first.protocol), ("https://collector:4318/v1/traces", Protocol::HttpJson));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(first.headers, [header("api-key", "1234"), header("tenant", "a b")]);
    assert_eq!((first.gzip, first.timeout), (true, Duration::from_secs(5)));
    assert_eq!(first.tls.client_key, Some("/me.key".into()));
    assert_eq!((&*second.name, &*second.endpoint, second.protocol), ("otlp-2", "http://second:4317", Protocol::Grpc));
    assert!(config.output.print.is_some(), "console");
    let limits = &config.output.limits;
    assert_eq!((limits.delay, limits.queue_spans, limits.batch_spans), (Duration::from_secs(2), 4096, 99));
    assert_eq!((limits.span.attributes, limits.span.links), (32, 16), "those of spans win");
    let pairs = [header("deployment.environment.name", "staging"), header("team", "blue")];
    assert_eq!(config.resource, pairs);
    let sampling = &config.output.sampling;
    assert_eq!(sampling.root, Strategy::Probability(0.25));
    assert!(sampling.parent_based);
    assert_eq!(sampling.remote_parent_not_sampled, sample::settings::Delegate::AlwaysOn);
    let metrics = &config.output.metrics;
    assert_eq!((metrics.otlp, metrics.export_interval_ms, metrics.export_timeout_ms), (true, 15_000, 7_000));
    assert_eq!(metrics.exemplars, Exemplars::AlwaysOff);
    assert_eq!(metrics.listen, Some(([0, 0, 0, 0], 9999).into()));
    let to: Vec<_> = config.output.metric_destinations.iter().map(|to| &*to.endpoint).collect();
    assert_eq!(to, ["http://localhost:4318/v1/metrics", "http://second:4317"]);
    assert_eq!(config.disclosure.capture.server.request_headers, ["x-tenant"]);
    assert_eq!(config.disclosure.capture.server.known_methods, ["GET", "PURGE"]);
}

#[test]
fn everything_in_the_declarative_file_that_is_not_understood_is_told() {
    let text = "file_format: '0.3'\n\
                tracer_providr: {}\n\
                resource: {attributes: [{name: a}]}\n\
                tracer_provider:\n  \
                  processors:\n    \
                    - batch: {schedule_delay: soon, exporter: {otlp_http: {endpont: x, headers_list: '%zz'}}}\n    \
                    - bulk: {}\n  \
                  sampler: {trace_id_ratio_based: {ratio: half}}\n  \
                  limits: {link_count_limit: -1}\n\
                attribute_limits: {attribute_count_limit: \"${1X}\"}\n";
    let told = mistakes("spantap", &[("OTEL_CONFIG_FILE", "o.yaml"), ("o.yaml", text)]);
    for expected in [
        "o.yaml:1: file_format is \"0.3\"",
        "o.yaml:2: tracer_providr is not understood\n       → did you mean tracer_provider?",
        "o.yaml:3: resource.attributes[0] has no name and value",
        "o.yaml:6: tracer_provider.processors[0].batch.schedule_delay is no number of milliseconds",
        "o.yaml:6: tracer_provider.processors[0].batch.exporter.otlp_http.endpont is not understood\n       → did you mean endpoint?",
        "headers_list is no list of name=value",
        "o.yaml:7: tracer_provider.processors[1].bulk is not understood",
        "o.yaml:8: tracer_provider.sampler.trace_id_ratio_based.ratio is no number",
        "o.yaml:9: export.limits.links \"-1\" is not possible",
        "o.yaml:10:  \"${1X}\" is no reference to a variable",
    ] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
    assert!(
        mistakes("spantap", &[("OTEL_CONFIG_FILE", "none.yaml")])
            .contains("OTEL_CONFIG_FILE names none.yaml, which cannot be read")
    );
}

#[test]
fn kinds_of_processes_are_sampled_and_exported_by_rules_of_their_own() {
    let text = "export: {destinations: [{name: audit, endpoint: 'http://a:4317'}]}\n\
                targets:\n  - {name: batch, user: [cron], cgroup: '/batch/**', port: 80, sampling: {probability: 0.5}, export: [audit]}\n  \
                - {name: probes, exe: [curl], trace: false}\n  - {name: quiet, service: [cart], export: []}\n";
    let (config, warnings) = run("spantap --config c.yaml", &[("c.yaml", text)], PIPE);
    assert_eq!(warnings, [""; 0]);
    let [batch, probes, quiet] = &config.selection.targets[..] else { panic!("{:?}", config.selection) };
    assert_eq!(
        (&*batch.patterns.users, &*batch.patterns.cgroups),
        (&["cron".to_owned()][..], &["/batch/**".to_owned()][..])
    );
    assert_eq!((&*batch.ports, batch.trace, probes.trace, quiet.trace), (&[80][..], true, false, true));
    let strategies: Vec<_> = config.output.sampling.targets.keys().map(String::as_str).collect();
    assert_eq!(strategies, ["batch"]);
    let exports = [("batch".to_owned(), vec!["audit".to_owned()]), ("quiet".to_owned(), vec![])];
    assert_eq!(config.output.target_exports, exports.into());
    let text = "targets:\n  - {name: a, exe: ['[']}\n  - {name: a, port: 80, trace: false}\n  - name: b\n    sampling: {probability: 2}\n    \
                export: [otlp, nowhere]\n  - {exe: [x]}\n  - {name: c, exes: [x]}\n";
    let told = mistakes("spantap --config c.yaml", &[("c.yaml", text)]);
    for expected in [
        "c.yaml:2: targets[0].exe \"[\" is not a pattern",
        "targets[1].name is \"a\" for the second time",
        "c.yaml:3: targets[1].trace cannot be false for some ports",
        "targets.b.sampling is a share from 0 to 1, not 2",
        "c.yaml:6: targets[2].export names \"nowhere\", which is no destination",
        "name",
        "did you mean exe?",
    ] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
}

#[test]
fn sizes_that_are_only_measured_are_in_no_span_that_leaves() {
    let sizes = ["http.request.body.size", "http.response.body.size"];
    let drops = |text: &str| {
        let (config, _) = run("spantap --config c.yaml", &[("c.yaml", text)], PIPE);
        let edits = config.output.edits.iter();
        (config.disclosure.capture.body_sizes, edits.map(|rule| rule.drop.clone()).collect::<Vec<_>>())
    };
    let metrics = "metrics: {http_body_sizes: true, listen: '127.0.0.1:9464'}\n";
    let kept = "attributes: [{drop: [client.address]}]\n";
    let nothing: Vec<Vec<String>> = Vec::new();
    assert_eq!(
        drops(&format!("{metrics}{kept}")),
        (true, vec![sizes.map(Into::into).to_vec(), vec!["client.address".into()]])
    );
    assert_eq!(drops(&format!("{metrics}capture: {{body_sizes: true}}\n")), (true, nothing.clone()));
    assert_eq!(drops("metrics: {http_body_sizes: true}\n"), (false, nothing), "nobody takes metrics");
}

#[test]
fn the_standards_other_variables_are_followed_or_named() {
    let (config, warnings) = run(
        "spantap",
        &[
            ("OTEL_METRIC_EXPORT_TIMEOUT", "7000"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "always_on"),
            ("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET, PURGE"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_ENTITIES", "service{service.name=a}"),
            ("OTEL_EXPERIMENTAL_CONFIG_FILE", "otel.yaml"),
        ],
        PIPE,
    );
    assert_eq!(config.output.metrics.export_timeout_ms, 7_000);
    assert_eq!(config.output.metrics.exemplars, Exemplars::AlwaysOn);
    let capture = &config.disclosure.capture;
    assert_eq!(capture.server.known_methods, ["GET", "PURGE"]);
    assert_eq!(capture.client.known_methods, capture.server.known_methods);
    let named: Vec<_> = warnings
        .iter()
        .filter_map(|warning| warning.split_once(" has no effect here: "))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        named,
        ["OTEL_ENTITIES", "OTEL_PROPAGATORS", "OTEL_EXPERIMENTAL_CONFIG_FILE", "OTEL_LOGS_EXPORTER"],
        "{warnings:?}"
    );
    let log = |level| match decided("spantap", &[("OTEL_LOG_LEVEL", level)], PIPE) {
        Ok(Decision { log, .. }) => log,
        Err(refusal) => panic!("{refusal:?}"),
    };
    assert_eq!([log("DEBUG"), log("verbose"), log("none"), log("loud")], ["debug", "trace", "off", "warn"]);
}

#[test]
fn every_file_that_is_read_is_watched() {
    let files = |environment: Environ<'_>, line: &str| match decided(line, environment, PIPE) {
        Ok(Decision { files, .. }) => files,
        Err(refusal) => panic!("{refusal:?}"),
    };
    let all = [("OTEL_CONFIG_FILE", "otel.yaml"), ("otel.yaml", "file_format: '1.0'"), ("c.yaml", "quiet: true")];
    assert_eq!(files(&all, "spantap"), [PathBuf::from("otel.yaml")]);
    assert_eq!(files(&all, "spantap --config c.yaml"), [PathBuf::from("c.yaml"), PathBuf::from("otel.yaml")]);
    assert_eq!(files(&[], "spantap"), Vec::<PathBuf>::new());
}

#[test]
fn what_is_told_and_hidden_is_said_in_the_file_and_its_mistakes_too() {
    let text = "capture: {server: {request_headers: [X-Tenant]}, body_sizes: true}\n\
                redact: {query: [pin], emails: true}\n\
                attributes: [{drop: [client.address]}]\n\
                sampling: {rules: [{header: {name: x-tenant, value: a}, strategy: always_on}]}\n";
    let (config, warnings) = run("spantap --config c.yaml", &[("c.yaml", text)], PIPE);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(config.disclosure.capture.server.request_headers, ["X-Tenant"]);
    assert!(config.disclosure.capture.body_sizes && config.disclosure.redact.emails);
    assert_eq!(config.output.edits[0].drop, ["client.address"]);
    let text = "redact:\n  paths: [/a]\n  patterns: ['(']\ncapture:\n  client:\n    response_headers: ['a b']\n\
                attributes:\n  - {service: a}\n\
                sampling:\n  rules: [{header: {name: x-a, value: a}, strategy: always_on}]\n";
    let told = mistakes("spantap --config c.yaml", &[("c.yaml", text)]);
    for expected in [
        "c.yaml:2: redact.paths has \"/a\"",
        "c.yaml:3: redact.patterns has \"(\"",
        "c.yaml:6: capture.client.response_headers has \"a b\"",
        "c.yaml:8: attributes[0] neither drops nor adds anything",
        "c.yaml:10: sampling.rules[0].header asks for \"x-a\"",
    ] {
        assert!(told.contains(expected), "no {expected} in\n{told}");
    }
}

#[test]
fn the_delivered_configurations_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/backends");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).expect("they are there") {
        let path = file.expect("a file").path();
        if !path.to_string_lossy().ends_with(".spantap.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it is text");
        let header = [("c.yaml", &*text), ("SPANTAP_EXPORT_OTLP_HEADERS", "x-key=secret")];
        let (config, warnings) = run("spantap --config c.yaml", &header, PIPE);
        assert_eq!(warnings, [""; 0], "{path:?}");
        let destination = &config.output.destinations[0];
        // Only Tempo is near, on one's own network.
        let is_near = path.ends_with("tempo.spantap.yaml");
        let is_far = destination.endpoint.starts_with("https://") && destination.gzip && destination.spool.is_some();
        assert!(is_far != is_near, "{path:?}");
        assert_eq!(destination.headers, [("x-key".to_owned(), "secret".to_owned())], "{path:?}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn the_schema_accepts_what_the_types_do_in_shape() {
    let schema = schema::schema();
    assert_eq!(schema["additionalProperties"], false, "editors find unknown keys");
    assert_eq!(schema["properties"]["export"]["properties"]["batch"]["properties"]["delay"]["type"], "string");
    assert!(schema["properties"]["port"]["description"].as_str().expect("it is described").contains("ports"));
}

#[test]
fn every_mistake_is_reported_at_once_with_what_to_write() {
    insta::assert_snapshot!(mistakes(
        "spantap --pid x --port 0 --port 70000 --exe [ --print tre --duration 30 --otlp localhost:4318 --color no",
        &[("SPANTAP_EXCLUDE", "{a")]
    ), @r#"
    SPANTAP_EXCLUDE "{a" is not a pattern (unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?))
           → use * ? [abc] {a,b}, quoted for the shell: --exe 'python3*'
    --color "no" is unknown
           → use one of auto, always, never
    --duration "30" is not a time above zero
           → give a number and a unit: 30s
    --exe "[" is not a pattern (unclosed character class; missing ']')
           → use * ? [abc] {a,b}, quoted for the shell: --exe 'python3*'
    --pid "x" is not possible
           → give a process id, such as --pid 4312
    --port "0" is not possible
           → give a port from 1 to 65535, such as --port 8080
    --port "70000" is not possible
           → give a port from 1 to 65535, such as --port 8080
    --print "tre" is unknown
           → did you mean tree? There are tree, text, json
    --otlp has no http:// or https:// in front
           → give scheme, host and port: http://localhost:4318, or http://localhost:4317 for grpc
    "#);
}

#[test]
fn a_misspelt_variable_is_noticed() {
    let (_, warnings) = run("spantap", &[("SPANTAP_PORTS", "80"), ("SPANTAP_WHATEVER", "1")], PIPE);
    insta::assert_snapshot!(warnings.join("\n"), @r"
    SPANTAP_PORTS is no variable of spantap and was ignored; did you mean SPANTAP_PORT?
    SPANTAP_WHATEVER is no variable of spantap and was ignored
    ");
}

#[test]
fn the_log_filter_is_quiet_by_default() {
    let cases: &[(&str, Environ<'_>, &str)] = &[
        ("spantap", &[], "warn"),
        ("spantap -q", &[], "error"),
        ("spantap -q", &[("RUST_LOG", "debug")], "debug"),
        ("spantap", &[("RUST_LOG", "debug"), ("SPANTAP_LOG", "info")], "info"),
        ("spantap doctor", &[], "warn"),
    ];
    for (line, environment, wanted) in cases {
        let decision = decided(line, environment, PIPE).expect("a good command line");
        assert_eq!(decision.log, *wanted, "{line} {environment:?}");
    }
}

#[test]
fn the_demo_ends_by_itself_and_always_prints() {
    let decision = decided("spantap demo", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")], PIPE);
    let Ok(Decision { command: Command::Demo(config), .. }) = decision else { panic!("{decision:?}") };
    assert_eq!(config.duration, Some(DEMO_DURATION));
    assert_eq!(config.output.print.map(|print| print.style), Some(PrintStyle::Tree));
    assert!(!config.output.destinations.is_empty());
}

#[test]
fn endpoints_follow_the_specification() {
    const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
    const TRACES: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
    const INSECURE: &str = "OTEL_EXPORTER_OTLP_INSECURE";
    let cases: &[(&str, Environ<'_>, &str)] = &[
        ("spantap", &[(BASE, "")], "none"),
        ("spantap", &[(BASE, "http://c:4318")], "http://c:4318/v1/traces http/protobuf [] 10s"),
        ("spantap", &[(BASE, "http://c:4318/")], "http://c:4318/v1/traces http/protobuf [] 10s"),
        ("spantap", &[(BASE, "https://c/my/base/")], "https://c/my/base/v1/traces http/protobuf [] 10s"),
        ("spantap", &[(BASE, "http://c:4318/v1/traces")], "http://c:4318/v1/traces/v1/traces http/protobuf [] 10s"),
        ("spantap", &[(BASE, "http://c"), (TRACES, "http://t/x")], "http://t/x http/protobuf [] 10s"),
        ("spantap", &[(BASE, "http://c"), (TRACES, "")], "http://c/v1/traces http/protobuf [] 10s"),
        ("spantap", &[(TRACES, "http://t:4318")], "http://t:4318/ http/protobuf [] 10s"),
        ("spantap", &[(BASE, "http://c:4317"), (PROTOCOL, "GRPC")], "http://c:4317 grpc [] 10s"),
        ("spantap", &[(BASE, "c:4317"), (PROTOCOL, "grpc")], "https://c:4317 grpc [] 10s"),
        ("spantap", &[(BASE, "c:4317"), (PROTOCOL, "grpc"), (INSECURE, "true")], "http://c:4317 grpc [] 10s"),
        ("spantap", &[(BASE, "https://c:4317"), (PROTOCOL, "grpc"), (INSECURE, "true")], "https://c:4317 grpc [] 10s"),
        (
            "spantap",
            &[
                (BASE, "c:4317"),
                (PROTOCOL, "grpc"),
                (INSECURE, "true"),
                ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
            ],
            "https://c:4317 grpc [] 10s",
        ),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "otlp")], "http://localhost:4318/v1/traces http/protobuf [] 10s"),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "otlp"), (PROTOCOL, "grpc")], "http://localhost:4317 grpc [] 10s"),
        ("spantap --otlp http://f:4318", &[(TRACES, "http://t")], "http://f:4318/v1/traces http/protobuf [] 10s"),
        ("spantap --otlp http://f:4318/v1/traces", &[], "http://f:4318/v1/traces http/protobuf [] 10s"),
        ("spantap --otlp http://f:4317", &[], "http://f:4317 grpc [] 10s"),
        (
            "spantap --otlp http://f:4317",
            &[(PROTOCOL, "http/protobuf")],
            "http://f:4317/v1/traces http/protobuf [] 10s",
        ),
        (
            "spantap",
            &[(BASE, "http://c"), (PROTOCOL, "grpc"), ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf")],
            "http://c/v1/traces http/protobuf [] 10s",
        ),
    ];
    for (line, environment, wanted) in cases {
        assert_eq!(otlp_of(line, environment), *wanted, "{line} {environment:?}");
    }
}

#[test]
fn headers_timeouts_and_compression_follow_the_specification() {
    const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
    let with = |more: Environ| {
        let environment: Vec<_> = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")].iter().chain(more).copied().collect();
        otlp_of("spantap", &environment).trim_start_matches("http://c/v1/traces http/protobuf ").to_owned()
    };
    let cases: &[(Environ<'_>, &str)] = &[
        (&[(HEADERS, "api-key=k, X-B = b%20c%3D1 ")], "[api-key:k x-b:b c=1] 10s"),
        (&[(HEADERS, "a=b=c,")], "[a:b=c] 10s"),
        (&[(HEADERS, "a=1"), ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "b=2")], "[b:2] 10s"),
        (&[("OTEL_EXPORTER_OTLP_TIMEOUT", "2500")], "[] 2.5s"),
        (&[("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1")], "[] 1ms"),
        (&[("OTEL_EXPORTER_OTLP_COMPRESSION", "GZIP")], "[] 10s gzip"),
        (&[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none")], "[] 10s"),
    ];
    for (environment, wanted) in cases {
        assert_eq!(with(environment), *wanted, "{environment:?}");
    }
}

#[test]
fn a_list_of_exporters_is_a_list_of_destinations() {
    let (config, warnings) = run(
        "spantap",
        &[
            ("OTEL_TRACES_EXPORTER", "otlp,zipkin"),
            ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "2000"),
        ],
        PIPE,
    );
    assert_eq!(warnings, [""; 0]);
    let seen: Vec<_> = config
        .output
        .destinations
        .iter()
        .map(|d| (d.name.as_str(), d.endpoint.as_str(), d.timeout.as_millis()))
        .collect();
    assert_eq!(
        seen,
        [("otlp", "http://localhost:4318/v1/traces", 2000), ("zipkin", "http://localhost:9411/api/v2/spans", 500)]
    );
    let text =
        mistakes("spantap", &[("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", "localhost:9411")]);
    assert!(text.contains("http://localhost:9411/api/v2/spans"), "{text}");
}

#[test]
fn certificates_are_files_by_signal_or_for_all() {
    let (config, _) = run(
        "spantap --otlp https://c:4317",
        &[
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/traces-ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/client.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/client.key"),
        ],
        PIPE,
    );
    assert_eq!(
        config.output.destinations[0].tls,
        Tls {
            certificate: Some("/traces-ca.pem".into()),
            client_certificate: Some("/client.pem".into()),
            client_key: Some("/client.key".into()),
        }
    );
}

#[test]
fn the_batch_and_the_limits_of_a_span_are_the_specifications() {
    let limits = |environment| run("spantap", environment, PIPE).0.output.limits;
    assert_eq!(limits(&[]), export::Limits::default());
    let named = limits(&[
        ("OTEL_BSP_SCHEDULE_DELAY", "5000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "2048"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "7"),
        ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", "3"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "9"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "0"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "0"),
    ]);
    let span = export::SpanLimits { attributes: 7, characters: 0, links: 0, link_attributes: 3 };
    let expected = export::Limits {
        queue_spans: 2048,
        batch_spans: 2048,
        delay: Duration::from_secs(5),
        span,
        ..export::Limits::default()
    };
    assert_eq!(named, expected);
}

#[test]
fn a_collector_on_this_machine_is_looked_for_only_when_nothing_was_said() {
    let asked: &[(&str, Environ<'_>)] = &[
        ("spantap --print text", &[]),
        ("spantap --otlp http://c", &[]),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "console")]),
        ("spantap", &[("OTEL_TRACES_EXPORTER", "none")]),
        ("spantap", &[("OTEL_SDK_DISABLED", "true")]),
        ("spantap record x.rec", &[]),
    ];
    for (line, environment) in asked {
        assert!(!run(line, environment, TERMINAL).0.output.unasked, "{line} {environment:?}");
    }
    assert!(run("spantap", &[], TERMINAL).0.output.unasked);
}

#[test]
fn what_cannot_be_understood_is_said_and_ignored_and_secrets_are_not_repeated() {
    insta::assert_snapshot!(otlp_of("spantap", &[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:hunter2@c:4317"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz,secret value=hunter2,ok=1,b=%0d%0ax"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "99999"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "-1"),
        ("OTEL_SDK_DISABLED", "yes"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "7"),
    ]), @r"
    http://user:hunter2@c:4317/v1/traces http/protobuf [ok:1] 10s
    ! OTEL_SDK_DISABLED is neither true nor false and counts as false
    ! OTEL_TRACES_EXPORTER=jaeger is none of otlp, otlp/stdout, console, zipkin, none and was ignored
    ! OTEL_BSP_MAX_QUEUE_SIZE=0 is no number from 1 on and was ignored
    ! OTEL_SPAN_LINK_COUNT_LIMIT=-1 is no number from 0 on and was ignored
    ! OTEL_EXPORTER_OTLP_HEADERS: entry 1 is not name=value and was ignored
    ! OTEL_EXPORTER_OTLP_HEADERS: entry 2 is not name=value and was ignored
    ! OTEL_EXPORTER_OTLP_HEADERS: entry 4 is not name=value and was ignored
    ! OTEL_EXPORTER_OTLP_TIMEOUT=10s is no number of milliseconds above 0 and was ignored
    ! OTEL_EXPORTER_OTLP_COMPRESSION=zstd is none of gzip, none and was ignored
    ! OTEL_TRACES_SAMPLER_ARG=7 is no number from 0 to 1; 1.0 is used
    ! OTEL_EXPORTER_OTLP_ENDPOINT has port 4317, where collectors speak gRPC, but the default protocol is http/protobuf; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc or use port 4318
    ! export.batch.spans of 99999 is more than export.batch.queue holds; batches have 16384 spans
    ");
    let (config, _) = run("spantap --otlp http://user:hunter2@c:4318?key=hunter2", &[], PIPE);
    let otlp = config.output.destinations.into_iter().next().expect("an endpoint");
    assert_eq!(otlp.endpoint_shown(), "http://c:4318/v1/traces");
    assert!(!format!("{otlp:?}").contains("hunter2"));
}

#[test]
fn an_endpoint_that_is_none_is_a_mistake() {
    for endpoint in ["localhost:4318", "ftp://c", "http://", "http://c:99999", "collector"] {
        let text = mistakes("spantap", &[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]);
        assert!(text.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT "), "{endpoint}: {text}");
        assert!(text.contains("http://localhost:4318"), "{endpoint}: {text}");
    }
}

#[test]
fn help_is_the_reference() {
    // The width of the terminal that the tests run in must not matter.
    let command = Arguments::command().term_width(100);
    let help = command.try_get_matches_from(["spantap", "-h"]).unwrap_err().to_string();
    insta::assert_snapshot!(help, @r"
    Traces unmodified services with eBPF and exports OpenTelemetry

    Usage: spantap [OPTIONS]
           spantap <COMMAND>

    Commands:
      run      Trace until Ctrl-C (the default)
      doctor   Check what this machine can do, with the fix for what it cannot
      demo     Start three small services, send them traffic and trace them
      record   Write the raw event stream to a file
      replay   Make spans of a recorded event stream
      version  Print the version
      schema   Print the JSON schema of the configuration file

    Options:
      -h, --help     Print help (see more with '--help')
      -V, --version  Print version

    What is traced:
          --pid <PID>       Only this process (repeatable, as the next three)
          --port <PORT>     Only connections to this port: a server's own, or the one a client calls
          --exe <GLOB>      Only executables like this: a file name (node, python3*), or a whole path
                            when it has a slash
          --exclude <GLOB>  Never executables like this

    Where traces go:
          --print <FORMAT>  Print traces: tree, text (a line a request) or json (OTLP lines). Without an
                            endpoint the default is tree on a terminal and text elsewhere; with one,
                            nothing is printed unless asked for here
          --otlp <URL>      Export to this OTLP endpoint, such as http://localhost:4318
          --color <WHEN>    Colours: auto, always or never

    Options:
      -q, --quiet            Say nothing but traces and errors
          --duration <TIME>  Stop after this time, such as 30s or 5m
          --tier <TIER>      Watch in this way only: a, b or c, as KERNELS.md has them. Without it the
                             best that the kernel takes is used
          --config <FILE>    Read this YAML file first; docs/configuration.md has every setting
          --print-config     Print every setting with where it comes from, and stop
          --validate         Check the configuration, and stop

    Examples:
      sudo spantap                                trace everything, print trees
      sudo spantap --port 8080                    only what is served or called on port 8080
      sudo spantap --exe node --print text        only node, one line a request
      sudo spantap --otlp http://localhost:4318   export to a collector
      sudo spantap demo                           see it work without services of your own
      sudo spantap doctor                         what this machine can do, and what to fix

    Environment:
      SPANTAP_PID, _PORT, _EXPORT_BATCH_DELAY, …
                                    twins of the settings of docs/configuration.md; lists have commas;
                                    a flag beats its variable, which beats the file
      SPANTAP_CONFIG, SPANTAP_JSON  twins of --config and --json
      SPANTAP_LOG, RUST_LOG         what spantap says about itself on standard error, such as `debug`
      OTEL_EXPORTER_OTLP_ENDPOINT, _PROTOCOL, _HEADERS, _TIMEOUT, _COMPRESSION, _INSECURE,
      _CERTIFICATE, _CLIENT_CERTIFICATE, _CLIENT_KEY,
      and the OTEL_EXPORTER_OTLP_TRACES_ forms
                                    as the OpenTelemetry specification defines them
      OTEL_TRACES_EXPORTER          otlp, otlp/stdout, console, zipkin or none, or a list of them
      OTEL_EXPORTER_ZIPKIN_ENDPOINT, _TIMEOUT; OTEL_BSP_*; OTEL_SPAN_*_LIMIT, OTEL_ATTRIBUTE_*_LIMIT
                                    as the specification defines them
      OTEL_SDK_DISABLED             true: nothing leaves this machine
      NO_COLOR                      no colours

    Exit codes:
      0   done
      1   it failed while running
      2   the command line or the environment is wrong
      77  this machine cannot do it (kernel, BTF, privileges): see `spantap doctor`
    ");
}

#[test]
fn sampling_metrics_and_routes_are_settings_like_all_others() {
    const FILE: &str = "\
sampling:
  root: {probability: 0.25}
  parent_based: false
  rules:
    - {route: /health*, strategy: always_off}
    - {method: POST, strategy: {traces_per_second: 5}}
  keep: {errors: true}
metrics: {otlp: true, temporality: delta, export_interval_ms: 5000, service_graph: {wait_ms: 100}}
routes:
  mode: strict
  patterns: ['/users/{id}']
  services:
    cart: ['/items/{item}']
";
    let file = [("c.yaml", FILE)];
    let with = |more: Environ<'_>| run("spantap --config c.yaml", &[&file[..], more].concat(), PIPE).0.output;
    let output = with(&[]);
    assert_eq!(output.sampling.root, Strategy::Probability(0.25));
    assert!(!output.sampling.parent_based && output.sampling.keep.errors && output.sampling.keep.asked);
    assert_eq!(output.sampling.rules[1].strategy, Strategy::TracesPerSecond(5.0));
    assert!(output.metrics.otlp && output.metrics.http);
    assert_eq!((output.metrics.export_interval_ms, output.metrics.service_graph.wait_ms), (5000, 100));
    assert_eq!((output.routes.mode, output.routes.patterns), (route::Mode::Strict, vec!["/users/{id}".to_owned()]));
    assert_eq!(output.routes.services["cart"], ["/items/{item}"]);

    // The standard's variables say only what they are about, and a bad value of theirs counts as unset.
    let output = with(&[("OTEL_TRACES_SAMPLER", "parentbased_always_off"), ("OTEL_METRIC_EXPORT_INTERVAL", "60000")]);
    assert_eq!((output.sampling.root, output.sampling.parent_based), (Strategy::AlwaysOff, true));
    assert_eq!((output.sampling.rules.len(), output.metrics.export_interval_ms), (2, 60_000));
    let output = with(&[
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "some"),
        ("SPANTAP_METRICS_LISTEN", "127.0.0.1:9464"),
    ]);
    assert!(!output.metrics.otlp && output.metrics.listen.is_some());
    assert_eq!(output.metrics.temporality, Temporality::Delta);

    // And spantap's own are above them.
    let output = with(&[
        ("OTEL_TRACES_SAMPLER", "always_off"),
        ("SPANTAP_SAMPLING_ROOT", "{adaptive: {spans_per_second: 7}}"),
        ("SPANTAP_SAMPLING_KEEP_ERRORS", "false"),
        ("SPANTAP_SAMPLING_RULES", "[{service: a, strategy: always_on}]"),
        ("SPANTAP_METRICS_MAX_SERIES", "12"),
        ("SPANTAP_ROUTES_MODE", "off"),
        ("SPANTAP_ROUTES_PATTERNS", "/a/{b},/c"),
        ("SPANTAP_ROUTES_SERVICES", "{cart: [/x]}"),
    ]);
    assert_eq!(output.sampling.root, Strategy::Adaptive(Adaptive { spans_per_second: 7.0, ..Adaptive::default() }));
    assert_eq!((output.sampling.keep.errors, output.sampling.rules.len()), (false, 1));
    assert_eq!((output.metrics.max_series, output.routes.mode), (12, route::Mode::Off));
    assert_eq!((output.routes.patterns.len(), &*output.routes.services["cart"][0]), (2, "/x"));
}

#[test]
fn mistakes_about_sampling_metrics_and_routes_are_told_with_their_lines() {
    const FILE: &str = "\
sampling:
  root:
    probability: 7
  rules:
    - strategy: {traces_per_second: 0}
    - {rout: /x}
metrics:
  http: maybe
  max_series: 0
routes:
  patterns: [users]
  mode: guess
";
    insta::assert_snapshot!(mistakes("spantap --config c.yaml", &[("c.yaml", FILE), ("SPANTAP_SAMPLING_KEEP_ASKED", "perhaps")]), @r#"
    c.yaml:2: sampling.root is a share from 0 to 1, not 7
           → see docs/sampling.md
    c.yaml:5: sampling.rules[0].strategy is a number above 0, not 0
           → see docs/sampling.md
    c.yaml:6: sampling.rules[1].rout is no setting
           → did you mean route?
    c.yaml:8: metrics.http is not understood (invalid type: string "maybe", expected a boolean)
           → see docs/configuration.md
    c.yaml:9: metrics.max_series is a number from 1 on, not 0
           → see docs/configuration.md
    c.yaml:11: the route pattern users means nothing: it does not begin with a slash
           → see docs/routes.md
    c.yaml:12: routes.mode is not understood (unknown variant `guess`, expected one of `auto`, `strict`, `off`)
           → see docs/configuration.md
    SPANTAP_SAMPLING_KEEP_ASKED is not understood (invalid type: string "perhaps", expected a boolean)
           → see docs/configuration.md
    "#);
}
