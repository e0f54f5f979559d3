// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whole flows through the pure stages: dialogues of processes on one host, played as ring records, and what spans
//! they become. No kernel, no clock.

mod stage;
mod vendors;

use spantap_common::loss::Reason;
use stage::{CURL, SHOP, STOCK, stage};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn a_request_from_elsewhere_is_a_server_span() {
    stage()
        .accept('a', SHOP)
        .reads('a', "GET /users/42?sig=abc HTTP/1.1\r\nHost: shop:8080\r\n\r\n")
        .writes('a', OK)
        .wait_ms(1_500)
        .becomes(&["shop SERVER GET /users/42 200 · root"]);
}

#[test]
fn a_pipelined_response_answers_the_oldest_request() {
    stage()
        .accept('a', SHOP)
        .reads('a', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        .writes('a', OK)
        .writes('a', "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .wait_ms(1_500)
        .becomes(&["shop SERVER GET /1 200 · root", "shop SERVER GET /2 404 · root"]);
}

#[test]
fn three_services_are_one_trace() {
    stage()
        .connect('a', CURL, SHOP)
        .writes('a', "GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n")
        .other_end('a')
        .reads('a', "GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n")
        .connect('b', SHOP, STOCK)
        .writes('b', "GET /stock HTTP/1.1\r\nHost: stock\r\n\r\n")
        .other_end('b')
        .reads('b', "GET /stock HTTP/1.1\r\nHost: stock\r\n\r\n")
        .writes('b', OK)
        .other_end('b')
        .reads('b', OK)
        .writes('a', OK)
        .other_end('a')
        .reads('a', OK)
        .wait_ms(1_500)
        .becomes(&[
            "curl CLIENT GET /cart 200 · root",
            "shop CLIENT GET /stock 200 · under shop SERVER (thread)",
            "shop SERVER GET /cart 200 · under curl CLIENT (socket)",
            "stock SERVER GET /stock 200 · under shop CLIENT (socket)",
        ]);
}

#[test]
fn a_header_joins_what_the_sockets_cannot() {
    stage()
        .accept('a', SHOP)
        .reads(
            'a',
            "GET / HTTP/1.1\r\nHost: x\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03\r\n\r\n",
        )
        .writes('a', OK)
        .wait_ms(1_500)
        .becomes(&["shop SERVER GET / 200 · under 00f067aa0ba902b7 (header) of 4bf92f3577b34da6a3ce929d0e0e4736"]);
}

#[test]
fn a_connection_that_breaks_ends_its_request_with_the_cause() {
    stage()
        .accept('a', SHOP)
        .reads('a', "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .breaks('a', libc::ECONNRESET)
        .accept('b', SHOP)
        .reads('b', "GET /gone HTTP/1.1\r\nHost: x\r\n\r\n")
        .breaks('b', 0)
        .accept('c', SHOP)
        .reads('c', "GET /half HTTP/1.1\r\nHost: x\r\n\r\n")
        .writes('c', "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        .breaks('c', 0)
        .wait_ms(1_500)
        .becomes(&[
            "shop SERVER GET /gone connection_closed! · root",
            "shop SERVER GET /half 200 truncated! · root",
            "shop SERVER GET /slow connection_reset! · root",
        ]);
}

#[test]
fn a_server_that_has_said_its_last_ends_what_it_did_not_answer() {
    stage()
        .connect('a', CURL, SHOP)
        .writes('a', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        .other_end('a')
        .reads('a', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        .writes('a', OK)
        .writes_end('a')
        .other_end('a')
        .reads('a', OK)
        // The client keeps its own end open, as connection pools do.
        .reads_end('a')
        .wait_ms(1_500)
        .becomes(&[
            "curl CLIENT GET /1 200 · root",
            "curl CLIENT GET /2 connection_closed! · root",
            "shop SERVER GET /1 200 · under curl CLIENT (socket)",
            "shop SERVER GET /2 connection_closed! · under curl CLIENT (socket)",
        ]);
}

#[test]
fn a_client_that_has_said_its_last_still_gets_its_answer() {
    stage()
        .accept('a', SHOP)
        .reads('a', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        .reads_end('a')
        .writes('a', OK)
        .wait_ms(1_500)
        .becomes(&["shop SERVER GET /1 200 · root"]);
}

#[test]
fn a_request_under_way_at_the_end_is_truncated() {
    stage()
        .accept('a', SHOP)
        .reads('a', "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        .finish()
        .becomes(&["shop SERVER GET /slow truncated! · root"]);
}

#[test]
fn the_records_of_an_ignored_process_become_nothing() {
    let mut stage =
        stage().ignore(SHOP).accept('a', SHOP).reads('a', "GET / HTTP/1.1\r\nHost: x\r\n\r\n").writes('a', OK);
    assert_eq!(stage.unwanted(), 1, "the probes need not go on");
    let stage = stage.wait_ms(1_500);
    assert_eq!(stage.vitals().strays, 0);
    stage.becomes(&[]);
}

#[test]
fn what_a_parser_cannot_follow_is_counted_by_protocol_and_reason() {
    let stage = stage()
        .ignore(STOCK)
        .accept('a', SHOP)
        .reads('a', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        .writes('a', "SSH-2.0-x\r\n")
        .accept('b', SHOP)
        .reads('b', "GET /2 HTTP/1.1\r\nHost")
        .breaks('b', 0)
        .connect('c', SHOP, STOCK)
        .writes('c', "GET /3 HTTP/1.1\r\nHost: x\r\n\r\n")
        .reads('c', OK)
        .wait_ms(1_500);
    assert_eq!(stage.targets(), [("traced", 2), ("instrumented", 0), ("ignored", 1)]);
    let parsed: Vec<_> = stage.vitals().protocols.iter().cloned().collect();
    let [http] = &parsed[..] else { panic!("one protocol was spoken: {parsed:?}") };
    assert_eq!((http.protocol, http.served, http.called), ("http", 1, 1));
    // An answer that is none, of a request that has its span; and a request that was cut off.
    assert_eq!(http.errors.iter().collect::<Vec<_>>(), [(Reason::ProtocolError, 2)]);
    assert_eq!(stage.vitals().lost.requests.of(Reason::ProtocolError), 1);
    stage.becomes(&["shop CLIENT GET /3 200 · root", "shop SERVER GET /1 protocol_error! · root"]);
}

#[test]
fn a_lost_response_head_is_counted_and_the_next_exchange_is_right() {
    let stage = stage()
        .accept('a', SHOP)
        .reads('a', "GET /1 HTTP/1.1\r\nHost: x\r\n\r\n")
        .loses_written('a', OK.len())
        .reads('a', "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n")
        .writes('a', "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        .wait_ms(1_500)
        .finish();
    assert!(stage.vitals().gaps > 0, "the gap is counted");
    let said = stage.said();
    assert!(!said.iter().any(|line| line.contains("/1 404")), "nobody gets another's answer: {said:?}");
    assert_eq!(said.len() as u64, stage.vitals().spans);
}

#[test]
fn a_replay_makes_the_same_spans_byte_for_byte() {
    let stage = stage()
        .connect('a', CURL, SHOP)
        .writes('a', "GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n")
        .other_end('a')
        .reads('a', "GET /cart HTTP/1.1\r\nHost: shop\r\n\r\n")
        .writes('a', OK)
        .other_end('a')
        .reads('a', OK)
        .wait_ms(1_500)
        .finish();
    let first = stage.json();
    assert!(first.contains("/cart"));
    assert_eq!(stage.replayed_json(), first);
    assert_eq!(stage.replayed_json(), first, "and again");
}

#[test]
fn an_upgraded_connection_is_not_wanted_any_more() {
    let mut stage = stage()
        .accept('a', SHOP)
        .reads('a', "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .writes('a', "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .reads('a', "\u{1}opaque")
        .accept('b', SHOP)
        .reads('b', "GET /page HTTP/1.1\r\nHost: x\r\n\r\n")
        .writes('b', OK);
    assert_eq!(stage.unwanted(), 1);
    assert_eq!(stage.unwanted(), 0, "it is said once");
    stage.wait_ms(1_500).becomes(&["shop SERVER GET /chat 101 · root", "shop SERVER GET /page 200 · root"]);
}

#[test]
fn the_probes_are_told_once_where_a_long_body_ends() {
    const MIB: u32 = 1 << 20;
    for (head, calls) in [
        ("Content-Length: 2097152", &[(65_536, Some(2 * MIB - 65_536)), (65_536, None), (MIB, None)][..]),
        // Too little is left.
        ("Content-Length: 262145", &[(2, None)]),
        // The sizes of chunks are looked for.
        ("Transfer-Encoding: chunked", &[(65_536, None)]),
        ("Connection: close", &[(65_536, Some(1024 * MIB)), (1023 * MIB, None), (MIB, Some(1024 * MIB))]),
        (
            "Content-Length: 3221225472",
            &[(MIB, Some(1024 * MIB)), (1024 * MIB, Some(1024 * MIB)), (1024 * MIB, Some(1023 * MIB))],
        ),
    ] {
        let mut stage = stage()
            .accept('a', SHOP)
            .reads('a', "GET /file HTTP/1.1\r\nHost: x\r\n\r\n")
            .writes('a', &format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n"));
        for (length, told) in calls {
            stage = stage.writes_uncopied('a', *length);
            assert_eq!(stage.left_to_write('a'), Vec::from_iter(*told), "{head}, {length}");
        }
    }
}
