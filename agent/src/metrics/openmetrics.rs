// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Metrics as Prometheus reads them: the OpenMetrics text format, with exemplars.
//!
//! In: [`Family`]s. Out: a text. It serves nothing. The client library of the format registers metrics for the life of
//! a program and keeps the fields of an exemplar to itself, so that series which come and go are written here.
//!
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>

use std::fmt::Write as _;

use super::{Data, Exemplar, Family, Kind, Point};
use crate::{enrich::Resource, time::WallOffset};

/// What the text is, for `Content-Type`.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The text of `families`; times of exemplars are converted by `wall`.
pub fn text(families: &[Family], wall: WallOffset) -> String {
    let mut out = String::with_capacity(families.iter().map(|family| 256 + 2_048 * family.points.len()).sum());
    for family in families {
        write_family(family, wall, &mut out);
    }
    out.push_str("# EOF\n");
    out
}

/// The name by which Prometheus knows a metric, without the suffixes of its samples
/// (<https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/#metric-metadata-1>).
pub fn name(family: &Family) -> String {
    let mut name = sanitised(family.name);
    let unit = match family.unit {
        "s" => "_seconds",
        "ms" => "_milliseconds",
        "By" => "_bytes",
        _ => "",
    };
    if !name.ends_with(unit) {
        name.push_str(unit);
    }
    name
}

fn write_family(family: &Family, wall: WallOffset, out: &mut String) {
    let name = name(family);
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    line(out, format_args!("# TYPE {name} {kind}"));
    if let Some(unit) =
        ["seconds", "milliseconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")))
    {
        line(out, format_args!("# UNIT {name} {unit}"));
    }
    line(out, format_args!("# HELP {name} {}", escaped(family.help)));
    for point in &family.points {
        let labels = labels(point);
        match &point.data {
            Data::Counter(value) => line(out, format_args!("{name}_total{} {value}", braced(&labels))),
            Data::Gauge(value) => line(out, format_args!("{name}{} {value}", braced(&labels))),
            Data::Histogram(histogram) => {
                let mut count = 0;
                for (index, bucket) in histogram.buckets.iter().enumerate() {
                    count += bucket;
                    let bound =
                        histogram.bounds.get(index).map_or_else(|| "+Inf".to_owned(), |bound| format!("{bound:?}"));
                    let comma = if labels.is_empty() { "" } else { "," };
                    let exemplar = histogram.exemplars.get(index).and_then(Option::as_ref);
                    let exemplar = exemplar.map(|exemplar| written(exemplar, wall)).unwrap_or_default();
                    line(out, format_args!("{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}{exemplar}"));
                }
                line(out, format_args!("{name}_count{} {count}", braced(&labels)));
                line(out, format_args!("{name}_sum{} {}", braced(&labels), histogram.sum));
            }
        }
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = writeln!(out, "{text}");
}

/// ` # {trace_id="…",span_id="…"} value seconds`: 24 and 62 characters of the 128 that an exemplar's labels may have.
fn written(exemplar: &Exemplar, wall: WallOffset) -> String {
    let nanos = wall.unix_nanos(exemplar.at);
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1_000);
    let Exemplar { trace, span, value, .. } = exemplar;
    format!(" # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {value} {seconds}.{millis:03}")
}

/// The labels of a series: those of its resource that tell services and their instances apart, then its own.
fn labels(point: &Point) -> String {
    let of_resource = point.resource.iter().flat_map(|resource| named(resource));
    let own = point.labels.iter().map(|(name, value)| (sanitised(name), value.to_string()));
    let labels: Vec<_> =
        of_resource.chain(own).map(|(name, value)| format!("{name}=\"{}\"", escaped(&value))).collect();
    labels.join(",")
}

fn named(resource: &Resource) -> impl Iterator<Item = (String, String)> + '_ {
    ["service.namespace", "service.name", "service.instance.id"].into_iter().filter_map(|key| {
        let attribute = resource.attributes.iter().find(|attribute| attribute.key == key)?;
        Some((sanitised(key), attribute.value.to_string()))
    })
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// Letters, digits and `_`.
fn sanitised(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// "Line breaks as `\n`, `"` as `\"` and `\` as `\\`".
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}
