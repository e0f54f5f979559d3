// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attributes that an operator adds to spans, or takes away.
//!
//! In: spans on their way out, and rules in order. Out: the same spans with other attributes. It hides no secrets, which
//! parsers do before anybody sees them, and it neither drops spans nor changes what a span says of itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{attribute::Attribute, enrich::ServiceSpan, sample::is_like, trace::SpanKind};

/// One rule. Whatever it does not ask for may be anything.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Name of the service, with `*` for any part of it.
    pub service: Option<String>,
    /// Only spans of requests that are served (`server`) or made (`client`).
    pub kind: Option<Kind>,
    /// Names of attributes that are taken away, with `*` for any part of them: `client.address`, `network.*`.
    pub drop: Vec<String>,
    /// Attributes that are added where a span has none of that name.
    pub add: BTreeMap<String, String>,
}

/// The kinds of spans.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Of requests that are served.
    Server,
    /// Of requests that are made.
    Client,
}

/// What is wrong with `rules`, each mistake with the setting's name in front.
pub fn mistakes(rules: &[Rule]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (index, Rule { drop, add, .. }) in rules.iter().enumerate() {
        if drop.is_empty() && add.is_empty() {
            mistakes.push(format!("attributes[{index}] neither drops nor adds anything"));
        }
        if drop.iter().chain(add.keys()).any(|name| name.trim().is_empty()) {
            mistakes.push(format!("attributes[{index}] has an attribute without a name"));
        }
    }
    mistakes
}

/// Applies every rule that fits, in order.
pub fn apply(rules: &[Rule], span: &mut ServiceSpan) {
    for rule in rules {
        if !fits(rule, span) {
            continue;
        }
        let attributes = &mut span.span.attributes;
        attributes.retain(|attribute| !rule.drop.iter().any(|name| is_like(name, &attribute.key)));
        for (key, value) in &rule.add {
            if !attributes.iter().any(|attribute| attribute.key == *key) {
                attributes.push(Attribute::new(key.clone(), value.clone()));
            }
        }
    }
}

fn fits(rule: &Rule, span: &ServiceSpan) -> bool {
    let kind = match span.span.kind {
        SpanKind::Server => Kind::Server,
        SpanKind::Client => Kind::Client,
    };
    rule.kind.is_none_or(|asked| asked == kind)
        && rule.service.as_ref().is_none_or(|service| is_like(service, &span.resource.service))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{enrich::Resource, process::ProcessId, trace::Span};

    fn span() -> ServiceSpan {
        let attributes = [("a.b", "1"), ("a.c", "2"), ("d", "3")].map(|(key, value)| Attribute::new(key, value));
        let span = Span { attributes: attributes.to_vec(), ..Span::blank() };
        let process = ProcessId { pid: 1, started: 1 };
        ServiceSpan {
            span,
            resource: Arc::new(Resource {
                process,
                service: "shop".into(),
                attributes: Vec::new(),
                instrumented: false,
            }),
            target: None,
        }
    }

    #[test]
    fn rules_add_and_drop_in_order() {
        let rule = |text: &str| -> Rule { serde_json::from_str(text).expect(text) };
        let keys = |rules: &[Rule]| {
            let mut span = span();
            apply(rules, &mut span);
            let shown = span.span.attributes.iter().map(|a| format!("{}={}", a.key, a.value)).collect::<Vec<_>>();
            shown.join(" ")
        };
        for (rules, expected) in [
            (&[][..], "a.b=1 a.c=2 d=3"),
            (&[r#"{"drop": ["a.*"]}"#], "d=3"),
            (&[r#"{"drop": ["a"]}"#], "a.b=1 a.c=2 d=3"),
            (&[r#"{"add": {"d": "9", "e": "5"}}"#], "a.b=1 a.c=2 d=3 e=5"),
            (&[r#"{"drop": ["d"], "add": {"d": "9"}}"#], "a.b=1 a.c=2 d=9"),
            (&[r#"{"add": {"e": "5"}}"#, r#"{"drop": ["e"]}"#], "a.b=1 a.c=2 d=3"),
            (&[r#"{"service": "nobody", "drop": ["*"]}"#], "a.b=1 a.c=2 d=3"),
            (&[r#"{"service": "sh*", "drop": ["*"]}"#], ""),
            (&[r#"{"kind": "client", "drop": ["d"]}"#, r#"{"kind": "server", "drop": ["a.b"]}"#], "a.c=2 d=3"),
        ] {
            let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
            assert_eq!(keys(&rules), expected, "{rules:?}");
        }
    }

    #[test]
    fn a_rule_that_does_nothing_is_a_mistake() {
        let add = |key: &str| Rule { add: [(key.to_owned(), String::new())].into(), ..Rule::default() };
        assert_eq!(mistakes(&[add("a"), Rule { drop: vec!["b".to_owned()], ..Rule::default() }]), [""; 0]);
        assert_eq!(
            mistakes(&[Rule::default(), add(" ")]),
            ["attributes[0] neither drops nor adds anything", "attributes[1] has an attribute without a name"]
        );
    }
}
