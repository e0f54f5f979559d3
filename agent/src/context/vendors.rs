// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Trace contexts in the formats that came before W3C's, or beside it.
//!
//! In: values of the header fields of one request. Out: the [`TraceContext`]s they spell, best first. What is malformed,
//! or names a trace without the span that sent the request, is no context: a part of an id is never made up.

use smallvec::SmallVec;

use super::{SpanId, TraceContext, TraceFlags, TraceId};

/// The fields of one request that can spell a context, as far as they are there. Of a field that occurs twice, the
/// first.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vendors<'a> {
    /// `b3`.
    pub b3: Option<&'a [u8]>,
    /// `X-B3-TraceId`.
    pub b3_trace: Option<&'a [u8]>,
    /// `X-B3-SpanId`.
    pub b3_span: Option<&'a [u8]>,
    /// `X-B3-Sampled`.
    pub b3_sampled: Option<&'a [u8]>,
    /// `X-B3-Flags`.
    pub b3_flags: Option<&'a [u8]>,
    /// `x-datadog-trace-id`.
    pub datadog_trace: Option<&'a [u8]>,
    /// `x-datadog-parent-id`.
    pub datadog_parent: Option<&'a [u8]>,
    /// `x-datadog-sampling-priority`.
    pub datadog_priority: Option<&'a [u8]>,
    /// `x-datadog-tags`.
    pub datadog_tags: Option<&'a [u8]>,
    /// `X-Amzn-Trace-Id`.
    pub xray: Option<&'a [u8]>,
    /// `uber-trace-id`.
    pub jaeger: Option<&'a [u8]>,
    /// `X-Cloud-Trace-Context`.
    pub google: Option<&'a [u8]>,
}

/// A context, and the name of its format.
pub type Named = (&'static str, TraceContext);

impl Vendors<'_> {
    /// All contexts that the fields spell, in the order in which they are preferred.
    pub fn contexts(&self) -> SmallVec<[Named; 1]> {
        let formats = [
            ("b3", self.b3.and_then(b3_single)),
            ("b3multi", self.b3_multi()),
            ("datadog", self.datadog()),
            ("xray", self.xray.and_then(xray)),
            ("jaeger", self.jaeger.and_then(jaeger)),
            ("google", self.google.and_then(google)),
        ];
        formats.into_iter().filter_map(|(name, context)| Some((name, context?))).collect()
    }

    /// <https://github.com/openzipkin/b3-propagation#multiple-headers>
    fn b3_multi(&self) -> Option<TraceContext> {
        // "Absence of this header means defer": https://github.com/openzipkin/b3-propagation#sampling-state
        let sampled = match self.b3_sampled.map(<[u8]>::trim_ascii) {
            _ if self.b3_flags.is_some_and(|flags| flags.trim_ascii() == b"1") => Some(true),
            Some(b"1" | b"true" | b"True") => Some(true),
            Some(_) => Some(false),
            None => None,
        };
        context(trace_of_hex(self.b3_trace?.trim_ascii())?, span_of_hex(self.b3_span?.trim_ascii())?, sampled)
    }

    /// <https://docs.datadoghq.com/tracing/trace_collection/trace_context_propagation/>: two decimal numbers, and the
    /// upper half of the trace id in a tag.
    fn datadog(&self) -> Option<TraceContext> {
        let upper = self.datadog_tags.and_then(|tags| {
            let tags = tags.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            tags.into_iter().find_map(|tag| tag.strip_prefix(b"_dd.p.tid="))
        });
        let upper = match upper {
            Some(digits) if digits.len() == 16 => number(digits, 16)?,
            Some(_) => return None,
            None => 0,
        };
        let trace = u128::from(upper) << 64 | u128::from(number(self.datadog_trace?.trim_ascii(), 10)?);
        let parent = number(self.datadog_parent?.trim_ascii(), 10)?;
        let sampled = self.datadog_priority.map(|priority| matches!(priority.trim_ascii(), b"1" | b"2"));
        context(trace, parent, sampled)
    }
}

/// `{trace}-{span}[-{sampled}[-{parent}]]` <https://github.com/openzipkin/b3-propagation#single-header>
fn b3_single(value: &[u8]) -> Option<TraceContext> {
    let mut parts = value.trim_ascii().split(|byte| *byte == b'-');
    let (trace, span) = (trace_of_hex(parts.next()?)?, span_of_hex(parts.next()?)?);
    let sampled = match parts.next() {
        None => None,
        Some(b"0") => Some(false),
        Some(b"1" | b"d") => Some(true),
        Some(_) => return None,
    };
    context(trace, span, sampled)
}

/// `Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled={0,1,?}`, keys in any order
/// <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>
fn xray(value: &[u8]) -> Option<TraceContext> {
    let (mut trace, mut parent, mut sampled) = (None, None, None);
    for part in value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
        if let Some(root) = part.strip_prefix(b"Root=1-") {
            let (time, rest) = root.split_at_checked(8)?;
            let unique = rest.strip_prefix(b"-").filter(|unique| unique.len() == 24)?;
            trace = Some(trace_of_hex(&[time, unique].concat())?);
        } else if let Some(id) = part.strip_prefix(b"Parent=") {
            parent = Some(span_of_hex(id)?);
        } else if let Some(decision) = part.strip_prefix(b"Sampled=") {
            // `?` asks the receiver to decide.
            sampled = (decision != b"?").then_some(decision == b"1");
        }
    }
    context(trace?, parent?, sampled)
}

/// `{trace}:{span}:{parent}:{flags}`, of any lengths, colons sometimes escaped
/// <https://www.jaegertracing.io/docs/1.60/client-libraries/#tracespan-identity>
fn jaeger(value: &[u8]) -> Option<TraceContext> {
    let value = str::from_utf8(value.trim_ascii()).ok()?.replace("%3A", ":").replace("%3a", ":");
    let mut parts = value.split(':').map(str::as_bytes);
    let (trace, span, _, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if trace.len() > 32 || parts.next().is_some() {
        return None;
    }
    context(wide(trace)?, number(span, 16)?, Some(number(flags, 16)? & 1 == 1))
}

/// `{32 hex}/{decimal span};o={0,1}` <https://cloud.google.com/trace/docs/trace-context#legacy-http-header>
fn google(value: &[u8]) -> Option<TraceContext> {
    let value = value.trim_ascii();
    let slash = value.iter().position(|byte| *byte == b'/')?;
    let mut rest = value[slash + 1..].split(|byte| *byte == b';');
    let trace = Some(&value[..slash]).filter(|digits| digits.len() == 32)?;
    let span = number(rest.next()?, 10)?;
    context(wide(trace)?, span, rest.next().map(|options| options.trim_ascii() == b"o=1"))
}

/// The context, `sampled` where its sender has decided.
fn context(trace: u128, parent: u64, sampled: Option<bool>) -> Option<TraceContext> {
    if trace == 0 || parent == 0 {
        return None;
    }
    Some(TraceContext {
        trace: TraceId(trace.to_be_bytes()),
        parent: SpanId(parent.to_be_bytes()),
        flags: match sampled {
            Some(true) => TraceFlags::SAMPLED,
            Some(false) => TraceFlags::default(),
            None => TraceFlags::DEFERRED,
        },
        state: None,
    })
}

/// A trace id of 16 or 32 digits.
fn trace_of_hex(digits: &[u8]) -> Option<u128> {
    matches!(digits.len(), 16 | 32).then(|| wide(digits)).flatten()
}

fn span_of_hex(digits: &[u8]) -> Option<u64> {
    (digits.len() == 16).then(|| number(digits, 16)).flatten()
}

fn wide(digits: &[u8]) -> Option<u128> {
    let digits = unsigned(digits)?;
    u128::from_str_radix(digits, 16).ok()
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(unsigned(digits)?, radix).ok()
}

/// A number's parser would take a sign.
fn unsigned(digits: &[u8]) -> Option<&str> {
    str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Format, trace, parent and flags of all contexts.
    fn said(vendors: &Vendors<'_>) -> String {
        let contexts = vendors.contexts();
        let lines = contexts
            .iter()
            .map(|(format, context)| format!("{format} {} {} {}", context.trace, context.parent, context.flags.0));
        lines.collect::<Vec<_>>().join(", ")
    }

    const TRACE: &[u8] = b"80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &[u8] = b"e457b5a2e4d86bd1";

    #[test]
    fn b3_is_read_in_both_forms() {
        let one = Vendors {
            b3: Some(b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90"),
            ..Vendors::default()
        };
        assert_eq!(said(&one), "b3 80f198ee56343ba864fe8b2a57d3eff7 e457b5a2e4d86bd1 1");
        let many =
            Vendors { b3_trace: Some(TRACE), b3_span: Some(SPAN), b3_sampled: Some(b"true"), ..Vendors::default() };
        assert_eq!(said(&many), "b3multi 80f198ee56343ba864fe8b2a57d3eff7 e457b5a2e4d86bd1 1");
        let short = Vendors { b3_trace: Some(&TRACE[16..]), b3_span: Some(SPAN), ..Vendors::default() };
        assert_eq!(said(&short), "b3multi 000000000000000064fe8b2a57d3eff7 e457b5a2e4d86bd1 128");
        for not in [&b"0"[..], b"1", b"d", b"", b"80f198ee56343ba8-1", b"zzf198ee56343ba8-e457b5a2e4d86bd1"] {
            assert_eq!(said(&Vendors { b3: Some(not), ..Vendors::default() }), "", "{not:?}");
        }
    }

    #[test]
    fn datadogs_numbers_are_decimal_and_the_upper_half_is_a_tag() {
        let low = Vendors {
            datadog_trace: Some(b"1234567890123456789"),
            datadog_parent: Some(b"9876543210"),
            datadog_priority: Some(b"2"),
            ..Vendors::default()
        };
        assert_eq!(said(&low), "datadog 0000000000000000112210f47de98115 000000024cb016ea 1");
        let whole = Vendors { datadog_tags: Some(b"_dd.p.dm=-1,_dd.p.tid=640cfd8d00000000"), ..low };
        assert_eq!(said(&whole), "datadog 640cfd8d00000000112210f47de98115 000000024cb016ea 1");
        for not in [&b"-1"[..], b"+1", b"0", b"99999999999999999999", b"1a"] {
            assert_eq!(said(&Vendors { datadog_trace: Some(not), ..low }), "", "{not:?}");
        }
    }

    #[test]
    fn xray_needs_the_span_that_sent_the_request() {
        let of = |value| said(&Vendors { xray: Some(value), ..Vendors::default() });
        assert_eq!(
            of(b"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
            "xray 5759e988bd862e3fe1be46a994272793 53995c3f42cd8ad8 1"
        );
        assert_eq!(
            of(b"Sampled=0; Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793"),
            "xray 5759e988bd862e3fe1be46a994272793 53995c3f42cd8ad8 0"
        );
        assert_eq!(of(b"Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"), "");
        assert_eq!(of(b"Root=1-5759e98-8bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8"), "");
    }

    #[test]
    fn jaeger_and_google_are_read_too() {
        let jaeger = |value| said(&Vendors { jaeger: Some(value), ..Vendors::default() });
        assert_eq!(jaeger(b"abc:1f:0:1"), "jaeger 00000000000000000000000000000abc 000000000000001f 1");
        assert_eq!(jaeger(b"abc%3A1f%3A0%3A0"), "jaeger 00000000000000000000000000000abc 000000000000001f 0");
        assert_eq!(jaeger(b"0:1:0:1"), "");
        let google = |value| said(&Vendors { google: Some(value), ..Vendors::default() });
        assert_eq!(
            google(b"105445aa7843bc8bf206b12000100000/31;o=1"),
            "google 105445aa7843bc8bf206b12000100000 000000000000001f 1"
        );
        assert_eq!(google(b"105445aa7843bc8bf206b12000100000"), "");
    }

    #[test]
    fn who_has_not_decided_leaves_it_to_others() {
        let both = Vendors { b3_trace: Some(TRACE), b3_span: Some(SPAN), ..Vendors::default() };
        let datadog = Vendors { datadog_trace: Some(b"7"), datadog_parent: Some(b"8"), ..Vendors::default() };
        let xray = |value| Vendors { xray: Some(value), ..Vendors::default() };
        let (sampled, not, deferred) = (TraceFlags::SAMPLED, TraceFlags::default(), TraceFlags::DEFERRED);
        for (vendors, expected) in [
            (both, deferred),
            (Vendors { b3_sampled: Some(b"0"), ..both }, not),
            (Vendors { b3_sampled: Some(b"0"), b3_flags: Some(b"1"), ..both }, sampled),
            (Vendors { b3: Some(b"64fe8b2a57d3eff7-e457b5a2e4d86bd1"), ..Vendors::default() }, deferred),
            (Vendors { b3: Some(b"64fe8b2a57d3eff7-e457b5a2e4d86bd1-0"), ..Vendors::default() }, not),
            (datadog, deferred),
            (Vendors { datadog_priority: Some(b"-1"), ..datadog }, not),
            (xray(b"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8"), deferred),
            (xray(b"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=?"), deferred),
            (xray(b"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0"), not),
            (Vendors { google: Some(b"105445aa7843bc8bf206b12000100000/1"), ..Vendors::default() }, deferred),
            (Vendors { google: Some(b"105445aa7843bc8bf206b12000100000/1;o=0"), ..Vendors::default() }, not),
        ] {
            let contexts = vendors.contexts();
            assert_eq!(contexts.first().map(|(_, context)| context.flags), Some(expected), "{vendors:?}");
        }
        assert_eq!([sampled, not, deferred].map(TraceFlags::on_the_wire), [1, 0, 1], "only what is kept is written");
    }

    #[test]
    fn half_an_id_is_the_same_trace() {
        let of = |trace: u128| context(trace, 1, Some(false)).expect("not zero");
        let [whole, half] = [of(7 << 64 | 5), of(5)].map(|context| context.trace);
        assert!(whole.is_same(half) && half.is_same(whole) && whole.is_same(whole));
        assert!(!whole.is_same(of(8 << 64 | 5).trace) && !half.is_same(of(6).trace));
        assert!(half.is_half() && !whole.is_half());
        assert_eq!(whole.lower_half(), half.lower_half());
    }
}
