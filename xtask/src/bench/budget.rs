// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The budgets that figures are held against.
//!
//! In: a figure's name. Out: what it may be at most. A missed budget fails no command: machines differ, and the report
//! says so beside the figure.

/// What the figure `name` may be at most, in its own unit.
pub(super) fn of(name: &str) -> Option<f64> {
    BUDGETS.iter().find(|(figure, _)| *figure == name).map(|(_, budget)| *budget)
}

const BUDGETS: &[(&str, f64)] = &[
    ("nginx_throughput_loss_pct", 3.0),
    ("nginx_p99_added_us", 50.0),
    ("flood_throughput_loss_pct", 3.0),
    ("service_1ms_throughput_loss_pct", 0.5),
    ("exchange_captured_pct", 8.0),
    ("exchange_non_target_pct", 3.0),
    ("exchange_non_http_pct", 3.0),
    // A call that no probe is attached to costs nothing; this is what the clock can tell.
    ("getpid_ns", 1.0),
    ("bulk_loss_pct", 1.0),
    ("bulk_sendfile_loss_pct", 1.0),
    ("agent_cpu_per_exchange_us", 5.0),
    ("allocations_per_exchange", 5.0),
    ("rss_mib_10k", 40.0),
    ("rss_mib_idle", 20.0),
    ("start_to_live_ms", 300.0),
    ("start_to_first_span_ms", 1000.0),
    ("growth_connections_pct", 20.0),
    ("growth_processes_pct", 20.0),
    ("growth_services_pct", 20.0),
];
