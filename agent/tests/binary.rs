// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The binary as its users start it: the environment variable that names a collector, the flags that choose, a
//! recording and its replay, a signal at the end.
//!
//! In: the real agent, a small real service, curl, and a real OTLP receiver. Out: the attributes, times and parents that
//! the conventions want, to the letter. How the agent fares with many services and much traffic is the matrix's subject.

#[expect(dead_code, reason = "the service matrix uses the rest")]
#[path = "matrix/process.rs"]
mod process;
#[expect(dead_code, reason = "the export tests use the rest")]
#[path = "support/receiver.rs"]
mod receiver;

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write, stderr},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver as Inbox, channel},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span},
};
use process::{Process, is_root};
use receiver::{Receiver, Transport};

/// The example that the conventions of this project were drawn from, over `transport`. The trace is the caller's own,
/// for both tests run at once and each agent sees the other's request as well.
async fn golden(transport: Transport, protocol: &str, trace: u128) {
    let service = Service::start();
    let receiver = Receiver::start(transport).await.expect("a receiver listens");
    // The variable names the base; the path of the signal is the exporter's to add.
    let endpoint = receiver.endpoint();
    let base = endpoint.trim_end_matches("/v1/traces");
    let agent =
        Agent::start(&["run"], &[("OTEL_EXPORTER_OTLP_ENDPOINT", base), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]);
    let traceparent = format!("traceparent: 00-{trace:032x}-00f067aa0ba902b7-03");
    let curl =
        service.ask(&["-H", "Host: shop:8080", "-H", &traceparent, "-H", "tracestate: vendor=opaque", "-A", "curl/8"]);
    let of_the_request =
        |span: &Span| span.trace_id == trace.to_be_bytes() && text(&span.attributes, "http.request.method").is_some();
    let received = receiver
        .until("both ends of the request", |received| {
            received.iter().flat_map(receiver::Received::spans).filter(|span| of_the_request(span)).count() >= 2
        })
        .await;
    let all: Vec<&ResourceSpans> = received.iter().flat_map(receiver::Received::resources).collect();
    let spans = |kind: i32| -> Vec<(&ResourceSpans, &Span)> {
        let every = all.iter().flat_map(|resource| {
            resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| (*resource, span))
        });
        every.filter(|(_, span)| of_the_request(span) && span.kind == kind).collect()
    };

    let [(resource, server)] = spans(SERVER)[..] else { panic!("one SERVER span, not {}", spans(SERVER).len()) };
    assert_eq!(server.name, "GET /users/{id}");
    assert_eq!(server.parent_span_id, PARENT);
    assert_eq!(server.flags, 0x303, "sampled, random, the parent is known to be remote");
    assert_eq!(server.trace_state, "vendor=opaque");
    assert_eq!(server.status.as_ref().map(|status| (status.code, &*status.message)), Some((2, "")));
    let peer = text(&server.attributes, "network.peer.port").expect("there is a peer port");
    assert_eq!(
        listed(&server.attributes),
        format!(
            "client.address=127.0.0.1 error.type=503 http.request.method=GET http.response.status_code=503 \
             http.route=/users/{{id}} network.peer.address=127.0.0.1 network.peer.port={peer} network.protocol.version=1.1 server.address=shop \
             server.port=8080 spantap.link.method=header spantap.route.source=heuristic url.path=/users/42 url.query=x=1&sig=REDACTED url.scheme=http \
             user_agent.original=curl/8"
        )
    );
    let of = &resource.resource.as_ref().expect("a resource").attributes;
    assert_eq!(text(of, "service.name").as_deref(), Some("cart"));
    assert_eq!(text(of, "process.pid"), Some(service.process.pid().to_string()));
    assert_eq!(text(of, "process.executable.name").as_deref(), Some("node"));
    for key in
        ["service.instance.id", "host.name", "host.arch", "os.type", "telemetry.sdk.name", "telemetry.distro.name"]
    {
        assert!(text(of, key).is_some_and(|value| !value.is_empty()), "{key} in {}", listed(of));
    }

    let [(resource, client)] = spans(CLIENT)[..] else { panic!("one CLIENT span, not {}", spans(CLIENT).len()) };
    assert_eq!(client.span_id, PARENT, "the id on the wire is the call's own");
    assert!(client.parent_span_id.is_empty());
    assert_eq!(
        listed(&client.attributes),
        format!(
            "error.type=503 http.request.method=GET http.response.status_code=503 network.peer.address=127.0.0.1 \
             network.peer.port={port} network.protocol.version=1.1 server.address=shop server.port=8080 \
             url.full=http://shop:8080/users/42?x=1&sig=REDACTED",
            port = service.port
        )
    );
    let of = &resource.resource.as_ref().expect("a resource").attributes;
    assert_eq!(text(of, "service.name").as_deref(), Some("curl"));
    assert!(client.start_time_unix_nano <= server.start_time_unix_nano, "the parent begins first");
    let slack = Duration::from_millis(5).as_nanos() as u64;
    let took = client.end_time_unix_nano - client.start_time_unix_nano;
    let measured = u64::try_from(curl.took.as_nanos()).expect("curl is quick");
    assert!(took <= measured + slack, "{took} ns seen, {measured} ns measured");
    assert!(client.end_time_unix_nano + slack >= server.end_time_unix_nano);

    // The agent's own export, whose server end is here, is nobody's request. Those of other tests' agents may be seen: to
    // this one they are strangers.
    let port = base.rsplit(':').next().expect("a port");
    let spans = all.iter().flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans);
    let is_own = |span: &&Span| {
        let said = listed(&span.attributes);
        said.contains("/v1/traces")
            && (said.contains(&format!("server.port={port}")) || said.contains(&format!(":{port}/")))
    };
    assert_eq!(spans.filter(is_own).count(), 0);
    assert_eq!(agent.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_example_arrives_over_http() {
    if let Some(why) = cannot() {
        return skip("the golden example over HTTP", &why);
    }
    golden(Transport::Http, "http/protobuf", TRACE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_example_arrives_over_grpc() {
    if let Some(why) = cannot() {
        return skip("the golden example over gRPC", &why);
    }
    golden(Transport::Grpc, "grpc", TRACE + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_at_the_collector_within_two_seconds_of_its_end() {
    if let Some(why) = cannot() {
        return skip("spans that leave in time", &why);
    }
    let service = Service::start();
    let receiver = Receiver::start(Transport::Http).await.expect("a receiver listens");
    let endpoint = receiver.endpoint();
    let port = service.port.to_string();
    let base = endpoint.trim_end_matches("/v1/traces");
    let agent = Agent::start(&["run", "--port", &port], &[("OTEL_EXPORTER_OTLP_ENDPOINT", base)]);
    let late = Lateness::watch();
    let (then, epoch) = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"));
    // The first is alone, and the next ones come while the exporter still waits for company of the one before.
    for trace in TRACE + 10..TRACE + 16 {
        service.ask(&["-H", &format!("traceparent: 00-{trace:032x}-00f067aa0ba902b7-03")]);
        let is_its = |span: &&Span| span.trace_id == trace.to_be_bytes();
        let received = receiver
            .until("both ends of the request", |received| {
                received.iter().flat_map(receiver::Received::spans).filter(is_its).count() == 2
            })
            .await;
        for batch in &received {
            let arrived = (epoch + batch.at.duration_since(then)).as_nanos() as u64;
            for span in batch.spans().filter(is_its) {
                let took = Duration::from_nanos(arrived.saturating_sub(span.end_time_unix_nano));
                let allowed = Duration::from_secs(2) + late.worst();
                assert!(took <= allowed, "{took:?} after its end, where {allowed:?} are allowed");
            }
        }
    }
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn a_recording_replays_to_the_same_spans_byte_for_byte() {
    if let Some(why) = cannot() {
        return skip("a recording", &why);
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("stream");
    let file = file.to_str().expect("temporary folders have plain names");
    let service = Service::start();
    let agent = Agent::start(&["record", file], &[]);
    for _ in 0..3 {
        service.ask(&[]);
    }
    assert_eq!(agent.stop(), Some(0));
    let replay = || {
        let out = Command::new(SPANTAP).args(["replay", file, "--print", "json", "--quiet"]).output();
        let out = out.expect("spantap starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("JSON is UTF-8")
    };
    let first = replay();
    assert!(first.matches("/users/42").count() >= 6, "both ends of three requests: {first}");
    assert_eq!(replay(), first);
}

#[test]
fn what_is_not_selected_is_not_traced() {
    if let Some(why) = cannot() {
        return skip("selection", &why);
    }
    let (chosen, other) = (Service::start(), Service::start());
    let pid = chosen.process.pid().to_string();
    let port = chosen.port.to_string();
    for (what, flags, kinds) in [
        ("by port, both ends", vec!["--port", &port], vec![SERVER, CLIENT]),
        ("by pid", vec!["--pid", &pid], vec![SERVER]),
        ("by executable", vec!["--exe", "curl", "--port", &port], vec![CLIENT]),
        ("all but an executable", vec!["--exclude", "node", "--port", &port], vec![CLIENT]),
    ] {
        let mut arguments = vec!["run", "--print", "json"];
        arguments.extend(flags);
        let agent = Agent::start(&arguments, &[]);
        other.ask(&[]);
        chosen.ask(&[]);
        let printed = agent.output();
        for (kind, name) in [(SERVER, "SERVER"), (CLIENT, "CLIENT")] {
            let seen = printed.matches(&format!("\"kind\":{kind},")).count();
            assert_eq!(seen, usize::from(kinds.contains(&kind)), "{what}: {name} spans in {printed}");
        }
    }
}

#[test]
fn a_configuration_that_was_read_again_is_followed_if_it_is_good() {
    if let Some(why) = cannot() {
        return skip("another configuration", &why);
    }
    let (first, second) = (Service::start(), Service::start());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let write = |version: &str, text: String| {
        fs::create_dir_all(at(version)).expect("a folder");
        fs::write(at(version).join("c.yaml"), text).expect("a file");
    };
    // As Kubernetes has it: the file is a link through a folder that is one.
    write("1", format!("port: {}\n", first.port));
    symlink(at("1"), at("..data")).expect("a link");
    symlink("..data/c.yaml", at("c.yaml")).expect("a link");
    let file = at("c.yaml");
    let file = file.to_str().expect("temporary folders have plain names");
    let agent = Agent::start(&["run", "--print", "json", "--config", file], &[]);
    let ask = |service: &Service, word: &str| service.ask(&["-A", word]);
    ask(&first, "with-the-old");
    ask(&second, "unseen");

    write("1", "prot: 80\nroutes: {patterns: [users]}\n".to_owned());
    agent.process.signal(libc::SIGHUP);
    let said = agent.hear("the route pattern users means nothing");
    assert!(said.contains("everything stays as it was") && said.contains("did you mean port?"), "{said}");
    ask(&first, "with-the-bad");

    let routes = "routes: {patterns: ['/users/{who}']}";
    write("1", format!("port: {}\n{routes}\nmetrics: {{max_series: 9}}\n", second.port));
    agent.process.signal(libc::SIGHUP);
    let said = agent.hear("read again");
    assert!(said.contains("selection, routes as it says now; needs a restart: metrics"), "{said}");
    ask(&second, "with-the-good");
    ask(&first, "unseen");

    write("2", format!("port: {}\n{routes}\nresource: {{deployment.environment.name: blue}}\n", first.port));
    symlink(at("2"), at("..data_tmp")).expect("a link");
    fs::rename(at("..data_tmp"), at("..data")).expect("in one step");
    let said = agent.hear("read again");
    assert!(said.contains("selection, resource as it says now"), "{said}");
    ask(&first, "with-the-swapped");

    let printed = agent.output();
    let of = |word: &str| printed.lines().filter(|line| line.contains(word)).collect::<Vec<_>>().join("\n");
    assert_eq!(of("unseen"), "");
    // What ends around the change may be named in either way.
    for word in ["with-the-old", "with-the-bad"] {
        assert!(of(word).contains("GET /users/{"), "{word}: {printed}");
    }
    assert!(of("with-the-good").contains("/users/{who}"), "{printed}");
    assert!(of("with-the-swapped").contains("/users/{who}") && of("with-the-swapped").contains("blue"), "{printed}");
}

#[test]
fn a_configuration_that_cannot_be_read_to_its_end_holds_up_nothing() {
    if let Some(why) = cannot() {
        return skip("a configuration that stands still", &why);
    }
    let service = Service::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("otel.yaml");
    let text = |stage: &str| {
        format!(
            "file_format: '1.0'\nresource: {{attributes: [{{name: deployment.environment.name, value: {stage}}}]}}\n"
        )
    };
    fs::write(&path, text("blue")).expect("a file");
    let (port, file) = (service.port.to_string(), path.to_str().expect("temporary folders have plain names"));
    let agent = Agent::start(&["run", "--print", "json", "--port", &port], &[("OTEL_CONFIG_FILE", file)]);
    service.ask(&["-A", "while-it-is-blue"]);
    agent.see("while-it-is-blue");

    // A pipe instead of the file: whoever reads it waits for what somebody is about to write.
    fs::remove_file(&path).expect("it is there");
    assert!(Command::new("mkfifo").arg(&path).status().expect("it starts").success());
    agent.process.signal(libc::SIGHUP);
    let mut end = None;
    let is_read = process::wait_until(Duration::from_secs(30), || {
        // Fails as long as nobody reads.
        end = fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).ok();
        end.is_some()
    });
    assert!(is_read, "the agent reads its configuration again");
    service.ask(&["-A", "while-it-is-read"]);
    agent.see("while-it-is-read");

    let mut end = end.expect("it was opened");
    end.write_all(text("green").as_bytes()).expect("a pipe has room for that");
    drop(end);
    agent.hear("resource as it says now");
    service.ask(&["-A", "while-it-is-green"]);
    assert!(agent.see("while-it-is-green").contains("green"));
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn what_carries_the_traces_of_others_is_not_traced_unless_it_is_chosen() {
    if let Some(why) = cannot() {
        return skip("collectors", &why);
    }
    let service = Service::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A program goes by its file's name.
    let curl = ["/usr/bin/curl", "/bin/curl"].into_iter().find(|path| fs::exists(path).is_ok_and(|there| there));
    let collector = folder.path().join("otelcol-contrib");
    fs::copy(curl.expect("curl is where programs are"), &collector).expect("a copy");
    let url = |word: &str| format!("http://127.0.0.1:{}/v1/{word}?x=1", service.port);
    let pass_on = |word: &str| {
        let mut command = Command::new(&collector);
        let asked = command.args(["-s", "-o", "/dev/null", "--data", "a", &url(word)]).status();
        assert!(asked.expect("it starts").success());
    };
    // A line is a batch, with what others do on this machine.
    let sides = |printed: &str, word: &str| {
        let lines = printed.lines().filter(|line| line.contains(word));
        let batches = lines.map(|line| serde_json::from_str::<ExportTraceServiceRequest>(line).expect("OTLP JSON"));
        let resources = batches.flat_map(|batch| batch.resource_spans);
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        let kinds: Vec<_> =
            spans.filter(|span| listed(&span.attributes).contains(word)).map(|span| span.kind).collect();
        let of = |kind| kinds.iter().filter(|known| **known == kind).count();
        (of(SERVER), of(CLIENT))
    };
    let agent = Agent::start(&["run", "--print", "json"], &[]);
    pass_on("of-a-collector");
    pass_on("once-more");
    service.ask(&["-A", "of-somebody-else"]);
    let printed = agent.see("of-somebody-else") + &agent.output();
    assert_eq!((sides(&printed, "of-a-collector"), sides(&printed, "once-more")), ((1, 0), (1, 0)));

    let chosen = Agent::start(&["run", "--print", "json", "--exe", "otelcol*"], &[]);
    pass_on("of-a-chosen-one");
    let printed = chosen.output();
    assert_eq!(sides(&printed, "of-a-chosen-one"), (0, 1));
}

#[test]
fn the_agent_tells_how_full_it_is_once_it_has_read_the_ring() {
    if let Some(why) = cannot() {
        return skip("the agent's own numbers", &why);
    }
    let service = Service::start();
    // As long as this lives, the kernel measures how long programs run.
    let _measured = aya::sys::enable_stats(aya::sys::Stats::RunTime).expect("root may ask for it");
    let listen = format!("127.0.0.1:{}", process::free_port().expect("a free port"));
    let port = service.port.to_string();
    let agent = Agent::start(
        &["run", "--print", "json", "--port", &port],
        &[("SPANTAP_METRICS_LISTEN", &listen), ("SPANTAP_METRICS_HTTP_BODY_SIZES", "true")],
    );
    let get = |path: &str| {
        let out =
            Command::new("curl").args(["-s", "-w", "%{http_code}"]).arg(format!("http://{listen}{path}")).output();
        String::from_utf8(out.expect("curl starts").stdout).expect("numbers are text")
    };
    let becomes_ready = process::wait_until(Duration::from_secs(30), || get("/readyz").ends_with("200"));
    assert!(becomes_ready, "{}", get("/readyz"));
    for _ in 0..3 {
        service.ask(&["-A", "to-be-measured"]);
    }
    let printed = agent.see("to-be-measured");
    assert!(!printed.contains("body.size"), "sizes are for metrics only: {printed}");
    let mut page = String::new();
    // The kernel's tables are counted every few seconds. Each request has two ends here, the server's and curl's.
    let made = ["server", "client"]
        .map(|kind| format!("spantap_spans_created_total{{protocol=\"http\",kind=\"{kind}\"}} 3\n"));
    let is_counted = process::wait_until(Duration::from_secs(30), || {
        page = get("/metrics");
        // The one port that is asked for: a count that came before it is followed by another one.
        page.contains("spantap_ebpf_map_entries{map=\"PORTS\"} 1\n") && made.iter().all(|made| page.contains(made))
    });
    assert!(is_counted, "{page}");
    let value = |sample: &str| -> f64 {
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {sample} in {page}"))
    };
    for (entries, capacity) in [
        ("spantap_ebpf_map_entries{map=\"PROCESSES\"}", "spantap_ebpf_map_capacity{map=\"PROCESSES\"}"),
        ("spantap_ebpf_map_entries{map=\"UNWANTED\"}", "spantap_ebpf_map_capacity{map=\"UNWANTED\"}"),
        ("spantap_table_entries{table=\"connections\"}", "spantap_table_capacity{table=\"connections\"}"),
        ("spantap_table_entries{table=\"exchanges\"}", "spantap_table_capacity{table=\"exchanges\"}"),
        ("spantap_table_entries{table=\"spans_held\"}", "spantap_table_capacity{table=\"spans_held\"}"),
    ] {
        assert!(value(entries) <= value(capacity) && value(capacity) > 0.0, "{entries}");
    }
    // A record or two of each request.
    assert!(value("spantap_ebpf_map_entries{map=\"RING\"}") > 0.0);
    assert!(value("spantap_table_entries{table=\"processes\"}") >= 1.0);
    for pool in ["ring", "kernel_maps", "series", "processes"] {
        assert!(value(&format!("spantap_memory_bytes{{pool=\"{pool}\"}}")) > 0.0, "{pool}");
    }
    let ran = |what: &str| page.lines().filter(|line| line.starts_with(what)).count();
    assert!(
        ran("spantap_ebpf_program_run_seconds_total{") > 1 && ran("spantap_ebpf_program_runs_total{") > 1,
        "{page}"
    );
    for process in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        assert!(value(process) > 0.0, "{process}");
    }
    assert!(page.contains("http_server_response_body_size_bytes_bucket{"), "{page}");
    assert!(value("spantap_targets{state=\"traced\"}") >= 1.0, "the service lives: {page}");
    assert_eq!(agent.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_processes_go_where_their_rules_say() {
    if let Some(why) = cannot() {
        return skip("rules for processes", &why);
    }
    let (cart, hidden, untraced) = (Service::start(), Service::start(), Service::start());
    let everything = Receiver::start(Transport::Http).await.expect("a receiver listens");
    let audit = Receiver::start(Transport::Http).await.expect("a receiver listens");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("c.yaml");
    // The rules hold for both ends of a request to those ports.
    let written = format!(
        "port: [{cart}, {hidden}, {untraced}]\n\
         capture: {{server: {{request_headers: [x-tenant]}}}}\n\
         redact: {{paths: ['/users/{{who}}']}}\n\
         attributes: [{{drop: [url.scheme], add: {{team: blue}}}}]\n\
         export: {{otlp: {{endpoint: '{everything}'}}, destinations: [{{name: audit, endpoint: '{audit}'}}]}}\n\
         targets:\n  \
         - {{name: audited, service: [cart], port: {cart}, export: [audit]}}\n  \
         - {{name: hidden, port: {hidden}, sampling: always_off}}\n  \
         - {{name: nothing, port: {untraced}, export: []}}\n",
        cart = cart.port,
        hidden = hidden.port,
        untraced = untraced.port,
        everything = everything.endpoint().trim_end_matches("/v1/traces"),
        audit = audit.endpoint().trim_end_matches("/v1/traces"),
    );
    fs::write(&file, written).expect("a file");
    let agent = Agent::start(&["run", "--config", file.to_str().expect("a plain name")], &[]);
    for service in [&hidden, &untraced, &cart] {
        service.ask(&["-H", "X-Tenant: seven"]);
    }
    assert_eq!(agent.stop(), Some(0));
    let spans = |of: &Receiver| {
        let received = of.received();
        received.iter().flat_map(|request| request.spans().cloned().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    // A call of curl's is under none of the rules, and goes everywhere.
    let [client] = &spans(&everything)[..] else {
        panic!("the client's span of one request: {:?}", spans(&everything))
    };
    let mut both = spans(&audit);
    both.sort_by_key(|span| span.kind);
    let [server, other] = &both[..] else { panic!("both ends of that request: {both:?}") };
    assert_eq!((server.kind, client.kind, other), (SERVER, CLIENT, client));
    assert_eq!(text(&server.attributes, "team").as_deref(), Some("blue"));
    assert_eq!(text(&server.attributes, "url.path").as_deref(), Some("/users/REDACTED"));
    assert_eq!(text(&server.attributes, "url.scheme"), None);
    let tenant = format!("{:?}", server.attributes.iter().find(|known| known.key == "http.request.header.x-tenant"));
    assert!(tenant.contains("seven"), "{tenant}");
    let url = text(&client.attributes, "url.full").unwrap_or_default();
    assert!(url.ends_with(&format!(":{}/users/REDACTED?x=1&sig=REDACTED", cart.port)), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_a_process_that_exports_its_own_are_left_to_it() {
    if let Some(why) = cannot() {
        return skip("processes with an SDK", &why);
    }
    let service = Service::start();
    let receiver = Receiver::start(Transport::Http).await.expect("a receiver listens");
    let base = receiver.endpoint();
    let port = service.port.to_string();
    let agent = Agent::start(
        &["run", "--port", &port],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", base.trim_end_matches("/v1/traces"))],
    );
    // One process: before anybody can know it, handing over spans as an SDK does, and after that.
    let paths = ["/before", "/v1/traces", "/after"].map(|path| format!("http://127.0.0.1:{port}{path}"));
    let said = Command::new("curl")
        .args(["-s", &paths[0], "--next", "-s", "--data-binary", "spans", &paths[1], "--next", "-s", &paths[2]])
        .output()
        .expect("curl starts");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "nonono");
    agent.hear("exports spans of its own");
    assert_eq!(agent.stop(), Some(0));
    let received = receiver.received();
    let mut told: Vec<_> = received
        .iter()
        .flat_map(receiver::Received::spans)
        .map(|span| {
            let url = text(&span.attributes, "url.full").or_else(|| text(&span.attributes, "url.path"));
            (span.kind, url.unwrap_or_default())
        })
        .collect();
    told.sort();
    let server = |path: &str| (SERVER, path.to_owned());
    assert_eq!(told, [server("/after"), server("/before"), server("/v1/traces"), (CLIENT, paths[0].clone())]);
}

#[test]
fn a_request_under_way_at_the_end_is_told_as_truncated() {
    if let Some(why) = cannot() {
        return skip("a request under way", &why);
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let agent = Agent::start(&["run", "--print", "json", "--port", &port.to_string()], &[]);
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    let (mut server, _) = listener.accept().expect("the client is there");
    client.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is open");
    let mut head = [0; 64];
    assert!(server.read(&mut head).expect("it is open") > 0);
    let printed = agent.output();
    assert_eq!(printed.matches("truncated").count(), 2, "both ends, unanswered: {printed}");
}

// --- The cast ---

const SPANTAP: &str = env!("CARGO_BIN_EXE_spantap");

const TRACE: u128 = 0x4bf92f3577b34da6a3ce929d0e0e4736;
const PARENT: [u8; 8] = 0x00f067aa0ba902b7_u64.to_be_bytes();

// Span.SpanKind of opentelemetry-proto's trace.proto.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

fn cannot() -> Option<String> {
    if !is_root() {
        return Some("loading probes needs root".to_owned());
    }
    let missing = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err();
    ["node", "curl"].iter().find(|program| missing(program)).map(|program| format!("{program} is not installed"))
}

fn skip(what: &str, why: &str) {
    // Straight to standard error: the harness keeps what `eprintln!` prints to itself.
    let _ = writeln!(stderr(), "SKIPPED {what}: {why}");
}

/// A service on Node that is out of order, named by its environment.
struct Service {
    process: Process,
    port: u16,
}

struct Asked {
    took: Duration,
}

impl Service {
    fn start() -> Self {
        let port = process::free_port().expect("a free port");
        let script = format!(
            "require('http').createServer((q, a) => {{ a.statusCode = 503; a.end('no') }}).listen({port}, '127.0.0.1')"
        );
        let mut command = Command::new("node");
        command.args(["-e", &script]).env("OTEL_SERVICE_NAME", "cart");
        let mut process = Process::start("node", &mut command).expect("node starts");
        process.await_listening(port).expect("node listens");
        Self { process, port }
    }

    /// `GET /users/42?x=1&sig=abc` by curl, with more arguments.
    fn ask(&self, arguments: &[&str]) -> Asked {
        let url = format!("http://127.0.0.1:{}/users/42?x=1&sig=abc", self.port);
        let out = Command::new("curl")
            .args(["-s", "-o", "/dev/null", "-w", "%{http_code} %{time_total}"])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl starts");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let (code, seconds) = said.split_once(' ').expect("curl says how it went");
        assert_eq!(code, "503");
        Asked { took: Duration::from_secs_f64(seconds.parse().expect("seconds")) }
    }
}

/// The agent, which is live once it is started.
struct Agent {
    process: Process,
    printed: Inbox<String>,
    said: Inbox<String>,
}

impl Agent {
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(SPANTAP);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        let mut process = Process::start("spantap", &mut command).expect("spantap starts");
        let stdout = process.child().stdout.take().expect("it is piped");
        let stderr = process.child().stderr.take().expect("it is piped");
        let agent = Self { process, printed: lines(stdout), said: lines(stderr) };
        agent.hear("Ctrl-C");
        agent
    }

    /// Waits until it prints a line with `word` in it; everything that it printed until then.
    fn see(&self, word: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(word) {
            match self.printed.recv_timeout(Duration::from_secs(30)) {
                Ok(line) => writeln!(seen, "{line}").expect("a string takes everything"),
                Err(_) => panic!("no {word} was printed: {seen}"),
            }
        }
        seen
    }

    /// Waits until it says a line with `word` in it; everything that it said until then.
    fn hear(&self, word: &str) -> String {
        let mut heard = String::new();
        while !heard.contains(word) {
            match self.said.recv_timeout(Duration::from_secs(30)) {
                Ok(line) => writeln!(heard, "{line}").expect("a string takes everything"),
                Err(_) => panic!("no {word} in: {heard}"),
            }
        }
        heard
    }

    fn stop(mut self) -> Option<i32> {
        self.process.signal(libc::SIGTERM);
        self.process.await_end(Duration::from_secs(20))?.code()
    }

    /// Ends it; what it has printed until then.
    fn output(mut self) -> String {
        self.process.signal(libc::SIGINT);
        assert!(self.process.await_end(Duration::from_secs(20)).is_some_and(|status| status.success()));
        self.printed.iter().collect::<Vec<_>>().join("\n")
    }
}

/// By how much this machine is behind: others may have its processors.
struct Lateness {
    worst: Arc<AtomicU64>,
}

impl Lateness {
    fn watch() -> Self {
        let worst = Arc::new(AtomicU64::new(0));
        let told = Arc::downgrade(&worst);
        thread::spawn(move || {
            while let Some(worst) = told.upgrade() {
                let began = Instant::now();
                thread::sleep(LOOK);
                worst.fetch_max((began.elapsed() - LOOK).as_nanos() as u64, Relaxed);
            }
        });
        Self { worst }
    }

    fn worst(&self) -> Duration {
        Duration::from_nanos(self.worst.load(Relaxed))
    }
}

/// As often as the agent looks at its ring.
const LOOK: Duration = Duration::from_millis(10);

fn lines(of: impl Read + Send + 'static) -> Inbox<String> {
    let (sender, inbox) = channel();
    thread::spawn(move || {
        for line in BufReader::new(of).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    inbox
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let AnyValue { value } = attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?;
    match value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key} is {other:?}"),
    }
}

fn listed(attributes: &[KeyValue]) -> String {
    let one =
        |attribute: &KeyValue| format!("{}={}", attribute.key, text(attributes, &attribute.key).unwrap_or_default());
    let mut all: Vec<String> = attributes.iter().map(one).collect();
    all.sort();
    all.join(" ")
}
