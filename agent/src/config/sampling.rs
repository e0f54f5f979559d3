// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The variables of the OpenTelemetry specification that are about sampling and metrics, as settings.
//!
//! In: variables. Out: the layer that they make; what cannot be followed is a warning. What the values mean is
//! [`sample::Settings`](Settings)' and [`metrics::Settings`]' business.

use serde::Serialize;

use super::{
    environment::Variables,
    layers::{Layers, Node, Origin, Value},
};
use crate::{
    metrics::{
        self,
        settings::{Exemplars, Histograms, Temporality},
    },
    sample::Settings,
};

/// Lays the variables over what there is. Each says only what it is about: the rest of the file holds.
pub(super) fn lay(variables: &mut Variables<'_>, layers: &mut Layers) {
    sampler(variables, layers);
    metrics(variables, layers);
}

/// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` ask for.
fn sampler(variables: &mut Variables<'_>, layers: &mut Layers) {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    let argument = variables.text("OTEL_TRACES_SAMPLER_ARG");
    let Some(sampler) = variables.text(SAMPLER) else { return };
    let (settings, warning) = Settings::from_otel(&sampler, argument.as_deref());
    if let Some(warning) = warning {
        variables.warn(warning);
    }
    put(layers, SAMPLER, "sampling.root", &settings.root);
    put(layers, SAMPLER, "sampling.parent_based", &settings.parent_based);
}

/// What the variables about metrics ask for.
fn metrics(variables: &mut Variables<'_>, layers: &mut Layers) {
    const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
    let mut settings = metrics::Settings::default();
    for warning in settings.follow(|name| variables.text(name)) {
        variables.warn(warning);
    }
    let names_none = |list: String| list.split(',').any(|name| name.trim().eq_ignore_ascii_case("none"));
    // A list of names that nobody knows is ignored.
    if settings.is_wanted() || variables.text(EXPORTER).is_some_and(names_none) {
        put(layers, EXPORTER, "metrics.otlp", &settings.otlp);
        match settings.listen {
            Some(listen) => put(layers, EXPORTER, "metrics.listen", &listen),
            None => layers.clear("metrics.listen"),
        }
    }
    // What comes out of every beginning alike was said by a variable, and understood.
    let mut other = metrics::Settings {
        export_interval_ms: settings.export_interval_ms + 1,
        export_timeout_ms: settings.export_timeout_ms + 1,
        exemplars: Exemplars::AlwaysOn,
        temporality: Temporality::Delta,
        histograms: Histograms::Exponential,
        ..metrics::Settings::default()
    };
    if settings.temporality == Temporality::Delta {
        other.temporality = Temporality::Cumulative;
    }
    if settings.histograms == Histograms::Exponential {
        other.histograms = Histograms::ExplicitBucketHistogram;
    }
    if settings.exemplars == Exemplars::AlwaysOn {
        other.exemplars = Exemplars::AlwaysOff;
    }
    // The same warnings once more.
    let _ = other.follow(|name| variables.text(name));
    if settings.export_interval_ms == other.export_interval_ms {
        put(layers, "OTEL_METRIC_EXPORT_INTERVAL", "metrics.export_interval_ms", &settings.export_interval_ms);
    }
    if settings.export_timeout_ms == other.export_timeout_ms {
        put(layers, "OTEL_METRIC_EXPORT_TIMEOUT", "metrics.export_timeout_ms", &settings.export_timeout_ms);
    }
    if settings.exemplars == other.exemplars {
        put(layers, "OTEL_METRICS_EXEMPLAR_FILTER", "metrics.exemplars", &settings.exemplars);
    }
    if settings.temporality == other.temporality {
        let variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        put(layers, variable, "metrics.temporality", &settings.temporality);
    }
    if settings.histograms == other.histograms {
        let variable = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
        put(layers, variable, "metrics.histograms", &settings.histograms);
    }
}

fn put(layers: &mut Layers, variable: &str, path: &str, value: &impl Serialize) {
    let origin = Origin::Standard(variable.to_owned());
    // Numbers, texts and enums: there is nothing in them that JSON has not.
    let value = Value::Scalar(serde_json::to_value(value).unwrap_or_default());
    layers.put(path, Node { origin, value });
}
