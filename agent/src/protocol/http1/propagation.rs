// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a request says it comes from: contexts of many formats, and ids that applications pass on.
//!
//! In: the header fields of one request. Out: the context that counts, and what else was said. W3C's context goes before
//! all others; after it they stand in the order of [`Vendors::contexts`]. It does not judge whether an id is unique.

use httparse::Header;
use smallvec::SmallVec;

use crate::{
    context::{TraceContext, vendors::Vendors},
    protocol::{LONGEST_ID, Passed, PassedId, SHORTEST_ID},
};

/// The context among `headers`, of which `w3c` is W3C's, and everything else they say.
pub(super) fn read(w3c: Option<TraceContext>, headers: &[Header<'_>]) -> (Option<TraceContext>, Passed) {
    let (mut vendors, mut any) = (Vendors::default(), false);
    let mut ids = SmallVec::new();
    for Header { name, value } in headers {
        // The length and one byte tell most fields apart without looking at them.
        let field = match (name.len(), name.as_bytes().last().map(u8::to_ascii_lowercase)) {
            (2, Some(b'3')) if name.eq_ignore_ascii_case("b3") => &mut vendors.b3,
            (12, Some(b'd')) if name.eq_ignore_ascii_case("x-b3-traceid") => &mut vendors.b3_trace,
            (11, Some(b'd')) if name.eq_ignore_ascii_case("x-b3-spanid") => &mut vendors.b3_span,
            (12, Some(b'd')) if name.eq_ignore_ascii_case("x-b3-sampled") => &mut vendors.b3_sampled,
            (10, Some(b's')) if name.eq_ignore_ascii_case("x-b3-flags") => &mut vendors.b3_flags,
            (18, Some(b'd')) if name.eq_ignore_ascii_case("x-datadog-trace-id") => &mut vendors.datadog_trace,
            (19, Some(b'd')) if name.eq_ignore_ascii_case("x-datadog-parent-id") => &mut vendors.datadog_parent,
            (27, Some(b'y')) if name.eq_ignore_ascii_case("x-datadog-sampling-priority") => {
                &mut vendors.datadog_priority
            }
            (14, Some(b's')) if name.eq_ignore_ascii_case("x-datadog-tags") => &mut vendors.datadog_tags,
            (15, Some(b'd')) if name.eq_ignore_ascii_case("x-amzn-trace-id") => &mut vendors.xray,
            (13, Some(b'd')) if name.eq_ignore_ascii_case("uber-trace-id") => &mut vendors.jaeger,
            (21, Some(b't')) if name.eq_ignore_ascii_case("x-cloud-trace-context") => &mut vendors.google,
            (12, Some(b'd')) if name.eq_ignore_ascii_case("x-request-id") => {
                ids.extend(id(value));
                continue;
            }
            (16, Some(b'd')) if name.eq_ignore_ascii_case("x-correlation-id") => {
                ids.extend(id(value));
                continue;
            }
            _ => continue,
        };
        *field = field.or(Some(value));
        any = true;
    }
    let mut contexts = if any { vendors.contexts() } else { SmallVec::new() }.into_iter();
    let context = w3c.or_else(|| contexts.next().map(|(_, context)| context));
    let others: Vec<_> = contexts
        .filter(|(_, other)| context.as_ref().is_some_and(|context| !context.trace.is_same(other.trace)))
        .collect();
    (context, Passed { ids, others })
}

fn id(value: &[u8]) -> Option<PassedId> {
    let id = str::from_utf8(value.trim_ascii()).ok()?;
    (SHORTEST_ID..=LONGEST_ID).contains(&id.len()).then(|| PassedId::of(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(fields: &[(&'static str, &'static str)]) -> String {
        let headers: Vec<_> = fields.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
        let w3c = fields.iter().find(|(name, _)| *name == "traceparent");
        let (context, passed) = read(TraceContext::parse(w3c.map(|(_, value)| value.as_bytes()), []), &headers);
        let context = context.map_or_else(|| "-".to_owned(), |context| context.parent.to_string());
        let others: Vec<_> = passed.others.iter().map(|(format, _)| *format).collect();
        let known = ["7f3a-91bc", "42"].into_iter().filter(|id| passed.ids.contains(&PassedId::of(id)));
        assert_eq!(passed.ids.len(), known.clone().count(), "an id that was not sent");
        format!("{context} ids[{}] others[{}]", known.collect::<Vec<_>>().join(" "), others.join(" "))
    }

    const W3C: (&str, &str) = ("traceparent", "00-0000000000000000000000000000000a-000000000000000b-01");

    #[test]
    fn the_first_format_counts_and_others_are_told_where_they_disagree() {
        assert_eq!(said(&[("Host", "a")]), "- ids[] others[]");
        assert_eq!(said(&[("B3", "000000000000000c-000000000000000d-1")]), "000000000000000d ids[] others[]");
        let other = ("uber-trace-id", "1:2:0:1");
        assert_eq!(said(&[W3C, other]), "000000000000000b ids[] others[jaeger]");
        let same = ("X-Datadog-Trace-Id", "10");
        assert_eq!(said(&[W3C, same, ("X-Datadog-Parent-Id", "12")]), "000000000000000b ids[] others[]");
    }

    #[test]
    fn ids_are_kept_if_they_can_be_unique() {
        assert_eq!(said(&[("X-Request-ID", " 7f3a-91bc "), ("x-correlation-id", "42")]), "- ids[7f3a-91bc] others[]");
    }
}
