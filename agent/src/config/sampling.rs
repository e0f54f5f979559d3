// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The variables of the OpenTelemetry specification that are about sampling and metrics.
//!
//! In: variables. Out: settings; what cannot be followed is a warning. What the values mean is
//! [`sample::Settings`](Settings)' and [`metrics::Settings`]' business.

use super::environment::Variables;
use crate::{metrics, sample::Settings};

/// What `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` ask for.
pub(super) fn settings(variables: &mut Variables<'_>) -> Settings {
    let argument = variables.text("OTEL_TRACES_SAMPLER_ARG");
    let Some(sampler) = variables.text("OTEL_TRACES_SAMPLER") else { return Settings::default() };
    let (settings, warning) = Settings::from_otel(&sampler, argument.as_deref());
    if let Some(warning) = warning {
        variables.warn(warning);
    }
    settings
}

/// What the variables about metrics ask for.
pub(super) fn metrics(variables: &mut Variables<'_>) -> metrics::Settings {
    let mut settings = metrics::Settings::default();
    for warning in settings.follow(|name| variables.text(name)) {
        variables.warn(warning);
    }
    settings
}
