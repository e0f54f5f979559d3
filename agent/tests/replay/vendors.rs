// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Each vendor's header, both ways: of a request that is served it is the parent, and of a call that the same service makes
//! it is whose call that was and the call's own id, under which the service that is called hangs.
//!
//! In: the examples that the vendors publish. Out: one trace in each, with the id that OpenTelemetry has for it.

use crate::stage::{CURL, SHOP, STOCK, stage};

struct Vendor {
    name: &'static str,
    /// What the request that is served carries.
    comes: &'static str,
    /// What the service writes into its call: the same trace, and an id of its own.
    goes: &'static str,
    trace: &'static str,
    parent: &'static str,
}

const VENDORS: &[Vendor] = &[
    // https://github.com/openzipkin/b3-propagation#multiple-headers
    Vendor {
        name: "B3 in many fields",
        comes: "X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7\r\nX-B3-ParentSpanId: 05e3ac9a4f6e3b90\r\n\
                X-B3-SpanId: e457b5a2e4d86bd1\r\nX-B3-Sampled: 1\r\n",
        goes: "X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7\r\nX-B3-ParentSpanId: e457b5a2e4d86bd1\r\n\
               X-B3-SpanId: 00000000000000c1\r\nX-B3-Sampled: 1\r\n",
        trace: "80f198ee56343ba864fe8b2a57d3eff7",
        parent: "e457b5a2e4d86bd1",
    },
    Vendor {
        name: "B3 in many fields, with 64 bits",
        comes: "x-b3-traceid: 64fe8b2a57d3eff7\r\nx-b3-spanid: e457b5a2e4d86bd1\r\nx-b3-sampled: 1\r\n",
        goes: "x-b3-traceid: 64fe8b2a57d3eff7\r\nx-b3-spanid: 00000000000000c1\r\nx-b3-sampled: 1\r\n",
        trace: "000000000000000064fe8b2a57d3eff7",
        parent: "e457b5a2e4d86bd1",
    },
    // https://github.com/openzipkin/b3-propagation#single-header
    Vendor {
        name: "B3 in one field",
        comes: "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90\r\n",
        goes: "b3: 80f198ee56343ba864fe8b2a57d3eff7-00000000000000c1-1-e457b5a2e4d86bd1\r\n",
        trace: "80f198ee56343ba864fe8b2a57d3eff7",
        parent: "e457b5a2e4d86bd1",
    },
    Vendor {
        name: "B3 in one field, with 64 bits",
        comes: "b3: 64fe8b2a57d3eff7-e457b5a2e4d86bd1-1\r\n",
        goes: "b3: 64fe8b2a57d3eff7-00000000000000c1-1-e457b5a2e4d86bd1\r\n",
        trace: "000000000000000064fe8b2a57d3eff7",
        parent: "e457b5a2e4d86bd1",
    },
    // https://docs.datadoghq.com/tracing/guide/span_and_trace_id_format/: the upper half is in a tag.
    Vendor {
        name: "Datadog",
        comes: "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-parent-id: 16453819474850114513\r\n\
                x-datadog-sampling-priority: 1\r\nx-datadog-tags: _dd.p.dm=-1,_dd.p.tid=640cfd8d00000000\r\n",
        goes: "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-parent-id: 193\r\n\
               x-datadog-sampling-priority: 1\r\nx-datadog-tags: _dd.p.dm=-1,_dd.p.tid=640cfd8d00000000\r\n",
        trace: "640cfd8d00000000abcdefab12345678",
        parent: "e457b5a2e4d86bd1",
    },
    Vendor {
        name: "Datadog with 64 bits",
        comes: "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-parent-id: 16453819474850114513\r\n",
        goes: "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-parent-id: 193\r\n",
        trace: "0000000000000000abcdefab12345678",
        parent: "e457b5a2e4d86bd1",
    },
    // https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader: the first eight
    // digits are the time, and stay where they are.
    Vendor {
        name: "X-Ray",
        comes: "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1\r\n",
        goes: "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=00000000000000c1;Sampled=1\r\n",
        trace: "5759e988bd862e3fe1be46a994272793",
        parent: "53995c3f42cd8ad8",
    },
    Vendor {
        name: "X-Ray behind a load balancer and Lambda",
        comes: "X-Amzn-Trace-Id: Self=1-67891234-12456789abcdef012345678;\
                Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a87bd80c:1|68fd508a:5\r\n",
        goes: "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=00000000000000c1;Sampled=1\r\n",
        trace: "5759e988bd862e3fe1be46a994272793",
        parent: "53995c3f42cd8ad8",
    },
    // https://www.jaegertracing.io/docs/1.60/client-libraries/#tracespan-identity: "can be variable length, shorter values
    // are 0-padded on the left".
    Vendor {
        name: "Jaeger",
        comes: "uber-trace-id: 64fe8b2a57d3eff7:e457b5a2e4d86bd1:0:1\r\n",
        goes: "uber-trace-id: 64fe8b2a57d3eff7%3Ac1%3Ae457b5a2e4d86bd1%3A1\r\n",
        trace: "000000000000000064fe8b2a57d3eff7",
        parent: "e457b5a2e4d86bd1",
    },
    Vendor {
        name: "Jaeger, without its leading zeroes",
        comes: "uber-trace-id: abc:1f:0:1\r\n",
        goes: "uber-trace-id: abc:c1:1f:1\r\n",
        trace: "00000000000000000000000000000abc",
        parent: "000000000000001f",
    },
    Vendor {
        name: "Jaeger with 128 bits",
        comes: "uber-trace-id: 80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:1\r\n",
        goes: "uber-trace-id: 80f198ee56343ba864fe8b2a57d3eff7:c1:e457b5a2e4d86bd1:1\r\n",
        trace: "80f198ee56343ba864fe8b2a57d3eff7",
        parent: "e457b5a2e4d86bd1",
    },
    // https://cloud.google.com/trace/docs/trace-context#http-requests
    Vendor {
        name: "Google",
        comes: "X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000/1;o=1\r\n",
        goes: "X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000/193;o=1\r\n",
        trace: "105445aa7843bc8bf206b12000100000",
        parent: "0000000000000001",
    },
];

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// What is said of a request with the header `comes`, for which its service makes a call with the header `goes`.
fn passed_on(comes: &str, goes: &str) -> Vec<String> {
    let call = format!("GET /stock HTTP/1.1\r\nHost: stock\r\n{goes}\r\n");
    stage()
        .accept('a', SHOP)
        .reads('a', &format!("GET /cart HTTP/1.1\r\nHost: shop\r\n{comes}\r\n"))
        .connect('b', SHOP, STOCK)
        .writes('b', &call)
        .other_end('b')
        .reads('b', &call)
        .writes('b', OK)
        .other_end('b')
        .reads('b', OK)
        .writes('a', OK)
        .wait_ms(1_500)
        .said()
}

#[test]
fn a_vendors_header_is_the_parent_of_what_is_served_and_the_id_of_what_is_called() {
    for Vendor { name, comes, goes, trace, parent } in VENDORS {
        let said = passed_on(comes, goes);
        assert_eq!(
            said,
            [
                "shop CLIENT GET /stock 200 · under shop SERVER (header)".to_owned(),
                format!("shop SERVER GET /cart 200 · under {parent} (header) of {trace}"),
                "stock SERVER GET /stock 200 · under shop CLIENT (header)".to_owned(),
            ],
            "{name}"
        );
    }
}

/// Services of different ages: what comes in names all of the trace id, and what goes out only its lower half.
#[test]
fn a_call_that_names_half_of_the_trace_is_of_it() {
    const WHOLE: &[&str] = &[
        "traceparent: 00-640cfd8d00000000abcdefab12345678-e457b5a2e4d86bd1-01\r\n",
        "b3: 640cfd8d00000000abcdefab12345678-e457b5a2e4d86bd1-1\r\n",
        "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-parent-id: 16453819474850114513\r\n\
         x-datadog-tags: _dd.p.tid=640cfd8d00000000\r\n",
        "uber-trace-id: 640cfd8d00000000abcdefab12345678:e457b5a2e4d86bd1:0:1\r\n",
    ];
    const HALF: &[&str] = &[
        "b3: abcdefab12345678-00000000000000c1-1\r\n",
        "X-B3-TraceId: abcdefab12345678\r\nX-B3-SpanId: 00000000000000c1\r\n",
        "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-parent-id: 193\r\n",
        "uber-trace-id: abcdefab12345678:c1:e457b5a2e4d86bd1:1\r\n",
    ];
    for whole in WHOLE {
        for half in HALF {
            let said = passed_on(whole, half);
            assert_eq!(
                said,
                [
                    "shop CLIENT GET /stock 200 · under shop SERVER (header)".to_owned(),
                    "shop SERVER GET /cart 200 · under e457b5a2e4d86bd1 (header) of 640cfd8d00000000abcdefab12345678"
                        .to_owned(),
                    "stock SERVER GET /stock 200 · under shop CLIENT (header)".to_owned(),
                ],
                "{whole}{half}"
            );
        }
    }
}

#[test]
fn half_a_trace_is_one_where_nobody_knows_the_other_half() {
    let call = "GET /cart HTTP/1.1\r\nHost: shop\r\nb3: abcdefab12345678-00000000000000c1-1\r\n\r\n";
    let stage = stage()
        .connect('a', CURL, SHOP)
        .writes('a', call)
        .other_end('a')
        .reads('a', call)
        .writes('a', OK)
        .other_end('a')
        .reads('a', OK)
        .wait_ms(1_500);
    assert!(stage.json().matches("\"traceId\":\"0000000000000000abcdefab12345678\"").count() == 2, "{}", stage.json());
    stage.becomes(&["curl CLIENT GET /cart 200 · root", "shop SERVER GET /cart 200 · under curl CLIENT (header)"]);
}

#[test]
fn a_vendors_header_without_the_span_that_sent_it_is_no_parent() {
    for header in [
        // A load balancer's, as the page above has it.
        "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793",
        "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1",
        // "b3: 0": a decision, and nothing else.
        "b3: 0",
        "x-datadog-trace-id: 12379814468735227512\r\nx-datadog-sampling-priority: 1",
        "X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000",
        "uber-trace-id: 64fe8b2a57d3eff7:0:0:1",
    ] {
        stage()
            .accept('a', SHOP)
            .reads('a', &format!("GET /cart HTTP/1.1\r\nHost: shop\r\n{header}\r\n\r\n"))
            .writes('a', OK)
            .wait_ms(1_500)
            .becomes(&["shop SERVER GET /cart 200 · root"]);
    }
}
