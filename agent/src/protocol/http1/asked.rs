// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests that ask for their trace to be kept, in the words of other tracers.
//!
//! In: values of header fields. Out: who asks. A decision not to keep a trace is no request of this kind: it is the
//! caller's sampled flag.

/// The value of `spantap.sampling.asked` that the field `name` with `value` calls for.
pub(super) fn by(name: &str, value: &[u8]) -> Option<&'static str> {
    let value = value.trim_ascii();
    // The length tells most fields apart without looking at them.
    let asks = match name.len() {
        // "b3: {TraceId}-{SpanId}-{SamplingState}-{ParentSpanId}", or the state alone; `d` is debug, which "implies an
        // accept decision". https://github.com/openzipkin/b3-propagation#single-header
        2 if name.eq_ignore_ascii_case("b3") => value == b"d" || value.split(|byte| *byte == b'-').nth(2) == Some(b"d"),
        // "Debug is encoded as X-B3-Flags: 1." https://github.com/openzipkin/b3-propagation#debug-flag
        10 if name.eq_ignore_ascii_case("x-b3-flags") => value == b"1",
        // "Sampled=1": https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
        15 if name.eq_ignore_ascii_case("x-amzn-trace-id") => {
            value.split(|byte| *byte == b';').any(|part| part.trim_ascii().eq_ignore_ascii_case(b"sampled=1"))
        }
        // USER_KEEP: https://docs.datadoghq.com/tracing/trace_pipeline/ingestion_mechanisms/
        27 if name.eq_ignore_ascii_case("x-datadog-sampling-priority") => value == b"2",
        _ => return None,
    };
    asks.then_some(match name.len() {
        2 | 10 => "b3",
        15 => "xray",
        _ => "datadog",
    })
}

#[cfg(test)]
mod tests {
    use super::by;

    #[test]
    fn only_the_flags_that_force_are_heard() {
        for (name, value, expected) in [
            ("b3", "d", Some("b3")),
            ("B3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d", Some("b3")),
            ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90", Some("b3")),
            ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", None),
            ("b3", "1", None),
            ("b3", "0", None),
            ("X-B3-Flags", "1", Some("b3")),
            ("X-B3-Flags", "0", None),
            ("X-B3-Sampled", "1", None),
            ("x-datadog-sampling-priority", " 2 ", Some("datadog")),
            ("x-datadog-sampling-priority", "1", None),
            ("x-datadog-sampling-priority", "-1", None),
            (
                "X-Amzn-Trace-Id",
                "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
                Some("xray"),
            ),
            ("X-Amzn-Trace-Id", "Sampled=1; Root=1-5759e988-bd862e3fe1be46a994272793", Some("xray")),
            ("X-Amzn-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0", None),
            ("X-Amzn-Trace-Id", "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=?", None),
            ("x-datadog-sampling-priorities", "2", None),
        ] {
            assert_eq!(by(name, value.as_bytes()), expected, "{name}: {value}");
        }
    }
}
