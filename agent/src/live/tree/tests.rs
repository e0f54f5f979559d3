// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Screens, as they are seen.

use proptest::{collection::vec, prelude::any, prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::{
    live::sample::{NOON, Sample, call, client, server, trace_id},
    trace::LinkMethod,
};

fn screen(spans: impl IntoIterator<Item = Sample>, columns: Option<usize>) -> String {
    part(spans, Part::Whole, columns)
}

fn part(spans: impl IntoIterator<Item = Sample>, part: Part, columns: Option<usize>) -> String {
    let spans = spans.into_iter().map(Into::into).collect();
    render(&Finished { trace: trace_id(1), spans, part }, NOON, Colour::Off, columns)
}

/// A checkout: an N+1, a slow part, a failing one.
fn checkout() -> Vec<Sample> {
    let mut spans = vec![server(1, 1, "web", "POST", "/checkout").at(412_000, 1_622_000).status(502)];
    spans.extend(call(1, 2, 1, ("web", "cart"), ("POST", "/v1/cart"), (413_000, 1_617_000), 502));
    for n in 0..12 {
        let (start, path) = (420_000 + n * 3_200, format!("/v1/stock/sku-{n}"));
        let id = 10 + 2 * u8::try_from(n).expect("small");
        spans.extend(call(1, id, 3, ("cart", "stock"), ("GET", &path), (start, start + 3_000), 200));
    }
    spans.push(
        client(1, 50, "cart", "POST", "/v1/pay")
            .at(500_000, 1_500_000)
            .error("connection_closed")
            .under(3, LinkMethod::Thread),
    );
    spans
}

#[test]
fn a_trace_is_a_tree_with_one_line_a_call() {
    insta::assert_snapshot!(screen(checkout(), None), @r"
    12:01:07.412Z  POST /checkout                502   1.21s  web                  4b4b4b4b
                   └─ POST /v1/cart              502   1.20s  web -> cart
                      ├─ GET /v1/stock/{id} ×12  200  36.0ms  cart -> stock        N+1?
                      └─ POST /v1/pay            ERR   1.00s  cart -> callee:8080  connection_closed
    ");
}

#[test]
fn the_order_of_arrival_does_not_show() {
    let mut spans = checkout();
    spans.reverse();
    assert_eq!(screen(spans, None), screen(checkout(), None));
}

#[test]
fn a_narrow_terminal_cuts_with_a_mark_and_keeps_the_columns() {
    let path = "/api/v2/customers/0f8fad5b-d9cb-469f-a165-70867728950e/orders?page=12&sort=created";
    let mut spans = vec![server(1, 1, "web", "GET", path).at(0, 20_000).status(200)];
    spans.extend(call(1, 2, 1, ("web", "customer-profile-service"), ("GET", path), (1_000, 19_000), 200));
    let text = screen(spans, Some(100));
    insta::assert_snapshot!(text, @r"
    12:01:07.000Z  GET /api/v2/customers/0f8fad5b-d9cb-469…  200  20.0ms  web                   4b4b4b4b
                   └─ GET /api/v2/customers/0f8fad5b-d9cb-…  200  18.0ms  web -> customer-pro…
    ");
    assert!(text.lines().all(|line| cells(line) <= 100));
}

#[test]
fn siblings_are_folded_from_three_and_only_when_they_are_of_one_kind() {
    let mut spans = vec![server(1, 1, "web", "GET", "/").at(0, 90_000).status(200)];
    for n in 0..4_u8 {
        let start = 1_000 + u64::from(n) * 20_000;
        let status = if n == 3 { 404 } else { 200 };
        let id = 10 + n * 4;
        spans.extend(call(1, id, 1, ("web", "a"), ("GET", &format!("/item/{n}")), (start, start + 9_000), status));
        spans.extend(call(1, id + 2, 1, ("web", "b"), ("GET", "/price?id=1"), (start + 9_500, start + 15_000), 200));
    }
    insta::assert_snapshot!(screen(spans, None), @r"
    12:01:07.000Z  GET /                         200  90.0ms  web       4b4b4b4b
                   ├─ GET /item/{id} ×3          200  27.0ms  web -> a
                   ├─ GET /price?id=1 ×4         200  22.0ms  web -> b
                   └─ GET /item/3                404  9.00ms  web -> a
    ");
}

#[test]
fn what_folded_calls_caused_is_folded_with_them() {
    let mut spans = vec![server(1, 1, "web", "GET", "/").at(0, 90_000).status(200)];
    for n in 0..3_u8 {
        let (start, id) = (1_000 + u64::from(n) * 20_000, 10 + n * 4);
        spans.extend(call(1, id, 1, ("web", "cart"), ("GET", "/cart"), (start, start + 9_000), 200));
        spans.extend(call(1, id + 2, id + 1, ("cart", "db"), ("GET", "/row/7"), (start + 500, start + 5_000), 200));
    }
    insta::assert_snapshot!(screen(spans, None), @r"
    12:01:07.000Z  GET /                         200  90.0ms  web          4b4b4b4b
                   └─ GET /cart ×3               200  27.0ms  web -> cart
                      └─ GET /row/7 ×3           200  13.5ms  cart -> db
    ");
}

#[test]
fn calls_at_the_same_time_are_no_loop() {
    let mut spans = vec![server(1, 1, "web", "GET", "/").at(0, 90_000).status(200)];
    for n in 0..6_u8 {
        let start = 1_000 + u64::from(n) * 100;
        spans.extend(call(1, 10 + n * 2, 1, ("web", "a"), ("GET", "/x"), (start, start + 50_000), 200));
    }
    let text = screen(spans, None);
    assert!(text.contains("×6") && !text.contains("N+1?"), "{text}");
}

#[test]
fn time_spent_outside_the_server_and_outliers_are_named() {
    let mut spans = vec![server(1, 1, "web", "GET", "/").at(0, 200_000).status(200)];
    let called = client(1, 2, "web", "GET", "/far").at(1_000, 41_000).status(200).under(1, LinkMethod::Thread);
    let served = server(1, 3, "far", "GET", "/far").at(20_000, 25_000).status(200).under(2, LinkMethod::Socket);
    spans.extend([called, served]);
    for (n, took) in [2_000, 60_000, 2_000].into_iter().enumerate() {
        let (start, id) = (50_000 + n as u64 * 45_000, 10 + 2 * u8::try_from(n).expect("small"));
        spans.extend(call(1, id, 1, ("web", "a"), ("GET", "/x"), (start, start + took), 200));
    }
    insta::assert_snapshot!(screen(spans, None), @r"
    12:01:07.000Z  GET /                         200   200ms  web         4b4b4b4b
                   ├─ GET /far                   200  40.0ms  web -> far  server 5.00ms
                   └─ GET /x ×3                  200  62.0ms  web -> a    slowest 60.0ms
    ");
}

#[test]
fn roots_without_their_parents_say_so() {
    let outside = server(1, 2, "web", "GET", "/a").at(0, 1_000).status(200).remote(1);
    let lost = client(1, 3, "web", "GET", "/b").at(500_000, 501_000).status(200).under(9, LinkMethod::Thread);
    insta::assert_snapshot!(screen([outside, lost], None), @r"
    12:01:07.000Z  GET /a                        200  1.00ms  web                 4b4b4b4b  caller not seen here
    12:01:07.500Z  GET /b                        200  1.00ms  web -> callee:8080  parent lost
    ");
}

#[test]
fn parts_of_a_trace_say_so() {
    let span = || [server(1, 1, "web", "GET", "/a").at(0, 1_000).status(200)];
    insta::assert_snapshot!(part(span(), Part::Early, None) + &part(span(), Part::Supplement, None), @r"
    12:01:07.000Z  GET /a                        200  1.00ms  web  4b4b4b4b  more to come
    12:01:07.000Z  GET /a                        200  1.00ms  web  4b4b4b4b  late part of this trace
    ");
}

#[test]
fn a_loop_of_parents_ends() {
    let a = server(1, 1, "a", "GET", "/a").at(0, 3_000).remote(2);
    let b = server(1, 2, "b", "GET", "/b").at(1_000, 2_000).remote(1);
    let own = server(1, 3, "c", "GET", "/c").at(2_000, 2_500).remote(3);
    insta::assert_snapshot!(screen([a, b, own], None), @r"
    12:01:07.000Z  GET /a                        -    3.00ms  a  4b4b4b4b  parents in a loop
                   └─ GET /b                     -    1.00ms  b
    12:01:07.002Z  GET /c                        -     500µs  c  parents in a loop
    ");
}

#[test]
fn an_endless_chain_is_counted_not_drawn() {
    let chain = (1..=200_u8).map(|id| {
        let span = server(1, id, "a", "GET", "/x").at(u64::from(id), 1_000);
        if id == 1 { span } else { span.under(id - 1, LinkMethod::Socket) }
    });
    let text = screen(chain, None);
    assert_eq!(text.lines().count(), MAX_DEPTH + 2);
    assert!(text.trim_end().ends_with(&format!("… {} more below", 200 - MAX_DEPTH - 1)), "{text}");
}

#[test]
fn captured_text_commands_the_terminal_nothing() {
    let span = server(1, 1, "we\x1b[31mb", "GET", "/\x1b]0;owned\x07/\u{202e}x\r\n").at(0, 1_000).error("a\nb");
    let text = screen([span], None);
    insta::assert_snapshot!(text, @r"12:01:07.000Z  GET /\u{1b}]0;owned\u{7}/\u{202e}x\r\n  ERR  1.00ms  we\u{1b}[31mb  4b4b4b4b  a\nb");
    assert!(text.trim_end_matches('\n').chars().all(|c| !c.is_control()));
}

#[test]
fn colours_mark_what_failed_and_where_the_time_went() {
    let spans = checkout().into_iter().map(Into::into).collect();
    let text = render(&Finished { trace: trace_id(1), spans, part: Part::Whole }, NOON, Colour::On, None);
    insta::assert_snapshot!(text.replace('\x1b', "^"), @r"
    ^[2m12:01:07.412Z^[0m  ^[1mPOST /checkout^[0m                ^[31m502^[0m   1.21s  web                  ^[2m4b4b4b4b^[0m
                   ^[2m└─ ^[0mPOST /v1/cart              ^[31m502^[0m   1.20s  web -> cart
                   ^[2m   ├─ ^[0mGET /v1/stock/{id}^[33m ×12^[0m  200  36.0ms  cart -> stock        ^[33mN+1?^[0m
                   ^[2m   └─ ^[0mPOST /v1/pay            ^[31mERR^[0m   ^[1;33m1.00s^[0m  cart -> callee:8080  ^[31mconnection_closed^[0m
    ");
}

proptest! {
    #[test]
    fn every_span_stands_in_the_forest_once(
        shape in vec((1..12_u8, 0..12_u8, any::<bool>(), any::<bool>(), 0..50_u64), 1..30),
        columns in 0..140_usize,
    ) {
        let spans: Vec<ServiceSpan> = shape
            .iter()
            .map(|(id, parent, called, remote, start)| {
                let span = if *called { client(1, *id, "a", "GET", "/x") } else { server(1, *id, "b", "GET", "/y") };
                let span = span.at(*start, start + 10);
                match (parent, remote) {
                    (0, _) => span,
                    (_, true) => span.remote(*parent),
                    (_, false) => span.under(*parent, LinkMethod::Thread),
                }
                .into()
            })
            .collect();
        let spans_of = |node: &Node<'_>| if matches!(node.request, Request::Both { .. }) { 2 } else { 1 };
        let mut waiting = forest(&spans);
        let mut seen = 0;
        while let Some(node) = waiting.pop() {
            seen += spans_of(&node);
            waiting.extend(node.children);
        }
        prop_assert_eq!(seen, spans.len());
        let text = render(&Finished { trace: trace_id(1), spans, part: Part::Whole }, NOON, Colour::Off, Some(columns));
        prop_assert!(text.ends_with('\n') && text.lines().all(|line| !line.trim().is_empty()));
    }
}
