// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a Jaeger collector says about sampling a service.
//!
//! In: the JSON of `GET /api/sampling?service=…`. Out: a [`Strategy`](Remote) for the service and for its operations.
//! It asks nobody: answers come in as texts.
//!
//! <https://www.jaegertracing.io/docs/latest/architecture/sampling/#remote-sampling>

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;

use super::{
    rates::{Key, Rates},
    threshold::Threshold,
};
use crate::time::Timestamp;

/// The answers so far, by service.
#[derive(Debug, Default)]
pub(super) struct Strategies(HashMap<Arc<str>, Remote>);

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Remote {
    default: Share,
    /// Traces a second that are kept of every operation whatever its share.
    lower_bound: f64,
    /// Law: at most [`MOST_OPERATIONS`].
    operations: HashMap<String, Share>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Share {
    Probability(f64),
    TracesPerSecond(f64),
}

impl Strategies {
    pub(super) fn learn(&mut self, service: Arc<str>, remote: Remote) {
        self.0.insert(service, remote);
    }

    /// The threshold for `operation` of `service`; the share `initial` where nothing is known yet.
    pub(super) fn threshold(
        &self,
        service: &str,
        operation: &str,
        key: &Key,
        initial: f64,
        rates: &mut Rates,
        now: Timestamp,
    ) -> Threshold {
        let Some(remote) = self.0.get(service) else { return Threshold::of_probability(initial) };
        match remote.operations.get(operation).unwrap_or(&remote.default) {
            Share::TracesPerSecond(limit) => rates.limited(key, *limit, now),
            Share::Probability(probability) => {
                let share = Threshold::of_probability(*probability);
                // Either of the two keeps it: the lower threshold does.
                if remote.lower_bound > 0.0 { share.min(rates.limited(key, remote.lower_bound, now)) } else { share }
            }
        }
    }
}

impl Remote {
    /// The answer in `json`; the sentence says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let response: Response = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        if let Some(operations) = response.operation_sampling {
            if operations.per_operation_strategies.len() > MOST_OPERATIONS {
                return Err(format!("more than {MOST_OPERATIONS} operations"));
            }
            let shares = operations.per_operation_strategies.into_iter().map(|strategy| {
                let share = valid_share(strategy.probabilistic_sampling.sampling_rate)?;
                Ok((strategy.operation, Share::Probability(share)))
            });
            return Ok(Self {
                default: Share::Probability(valid_share(operations.default_sampling_probability)?),
                lower_bound: operations.default_lower_bound_traces_per_second.max(0.0),
                operations: shares.collect::<Result<_, String>>()?,
            });
        }
        let default = match (response.strategy_type, response.probabilistic_sampling, response.rate_limiting_sampling) {
            (Type::Probabilistic, Some(probabilistic), _) => {
                Share::Probability(valid_share(probabilistic.sampling_rate)?)
            }
            (Type::RateLimiting, _, Some(limiting)) if limiting.max_traces_per_second > 0.0 => {
                Share::TracesPerSecond(limiting.max_traces_per_second)
            }
            (Type::RateLimiting, _, Some(_)) => Share::Probability(0.0),
            (Type::Probabilistic, None, _) | (Type::RateLimiting, _, None) => {
                return Err("the strategy that it names is not in it".to_owned());
            }
        };
        Ok(Self { default, lower_bound: 0.0, operations: HashMap::new() })
    }
}

fn valid_share(share: f64) -> Result<f64, String> {
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("the sampling rate {share} is no share")) }
}

/// Jaeger's `sampling.proto`, as its JSON has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    strategy_type: Type,
    probabilistic_sampling: Option<Probabilistic>,
    rate_limiting_sampling: Option<RateLimiting>,
    operation_sampling: Option<PerOperation>,
}

#[derive(Default, Deserialize)]
#[serde(try_from = "serde_json::Value")]
enum Type {
    #[default]
    Probabilistic,
    RateLimiting,
}

impl TryFrom<serde_json::Value> for Type {
    type Error = &'static str;

    /// Older collectors write the number of the enumeration.
    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        match (value.as_str(), value.as_u64()) {
            (Some("PROBABILISTIC"), _) | (_, Some(0)) => Ok(Self::Probabilistic),
            (Some("RATE_LIMITING"), _) | (_, Some(1)) => Ok(Self::RateLimiting),
            _ => Err("the strategy type is none that is known"),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probabilistic {
    #[serde(default)]
    sampling_rate: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RateLimiting {
    #[serde(default)]
    max_traces_per_second: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PerOperation {
    #[serde(default)]
    default_sampling_probability: f64,
    #[serde(default)]
    default_lower_bound_traces_per_second: f64,
    #[serde(default)]
    per_operation_strategies: Vec<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Operation {
    operation: String,
    probabilistic_sampling: Probabilistic,
}

/// Jaeger's own limit on the operations of an answer is 2,000 (`max-operations` of its samplers).
const MOST_OPERATIONS: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(json: &str, operation: &str) -> f64 {
        let mut strategies = Strategies::default();
        strategies.learn("cart".into(), Remote::parse(json.as_bytes()).expect(json));
        let key = Key { service: "cart".into(), route: "/".into() };
        let mut rates = Rates::new(1);
        strategies.threshold("cart", operation, &key, 0.001, &mut rates, Timestamp(1)).probability()
    }

    #[test]
    fn the_documented_answers_are_understood() {
        let half = r#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.5}}"#;
        let old = r#"{"strategyType":0,"probabilisticSampling":{"samplingRate":0.25},"rateLimitingSampling":null}"#;
        let limit = r#"{"strategyType":"RATE_LIMITING","rateLimitingSampling":{"maxTracesPerSecond":2}}"#;
        let none = r#"{"strategyType":1,"rateLimitingSampling":{"maxTracesPerSecond":0}}"#;
        let operations = r#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.5},
            "operationSampling":{"defaultSamplingProbability":0.5,"defaultLowerBoundTracesPerSecond":0,
            "perOperationStrategies":[{"operation":"GET /a","probabilisticSampling":{"samplingRate":0.125}}]}}"#;
        for (json, operation, expected) in [
            (half, "GET /", 0.5),
            (old, "GET /", 0.25),
            (limit, "GET /", 1.0),
            (none, "GET /", 0.0),
            (operations, "GET /", 0.5),
            (operations, "GET /a", 0.125),
        ] {
            assert_eq!(threshold(json, operation), expected, "{json} {operation}");
        }
    }

    #[test]
    fn a_lower_bound_keeps_what_its_share_would_not() {
        let json = r#"{"operationSampling":{"defaultSamplingProbability":0.001,"defaultLowerBoundTracesPerSecond":1}}"#;
        assert_eq!(threshold(json, "GET /"), 1.0, "the first of a while");
    }

    #[test]
    fn an_answer_that_means_nothing_changes_nothing() {
        for json in [
            "",
            "{}",
            "<html>",
            r#"{"strategyType":"PROBABILISTIC"}"#,
            r#"{"strategyType":"OTHER","probabilisticSampling":{"samplingRate":0.5}}"#,
            r#"{"strategyType":7,"probabilisticSampling":{"samplingRate":0.5}}"#,
            r#"{"probabilisticSampling":{"samplingRate":5}}"#,
        ] {
            assert!(Remote::parse(json.as_bytes()).is_err(), "{json}");
        }
        let key = Key { service: "cart".into(), route: "/".into() };
        let initial = Strategies::default().threshold("cart", "", &key, 0.25, &mut Rates::new(1), Timestamp(1));
        assert_eq!(initial.probability(), 0.25);
    }
}
