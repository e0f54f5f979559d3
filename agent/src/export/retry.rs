// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a collector's answer means, and when a request is sent again.
//!
//! In: the answers of both transports, and the time that is left. Out: whether the spans were taken, lost, or may be
//! sent again, and after which pause. It sends nothing and does not wait.

use std::{
    error::Error,
    time::{Duration, SystemTime},
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use rand::{TryRng as _, rngs::SysRng};
use reqwest::{StatusCode, header::HeaderMap, header::RETRY_AFTER};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// How one attempt ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// The collector took the request, but for `rejected` spans; it may have something to say about them, or a warning.
    Taken { rejected: usize, message: Option<String> },
    /// It never will.
    Refused(String),
    /// It may take it later, and no sooner than `after` from now.
    Later { why: String, after: Option<Duration> },
}

/// The answer `response`, given with success.
pub(super) fn taken(response: ExportTraceServiceResponse) -> Answer {
    let partial = response.partial_success.unwrap_or_default();
    // A negative number would be the collector's mistake: nothing was rejected.
    let rejected = usize::try_from(partial.rejected_spans).unwrap_or_default();
    Answer::Taken { rejected, message: words(&partial.error_message) }
}

/// What the gRPC status `status` asks for (<https://opentelemetry.io/docs/specs/otlp/#failures>).
pub(super) fn grpc(status: &Status) -> Answer {
    if let Some(cause) = status.source() {
        // Not the collector's words but the transport's: it was not reached, or went away.
        return no_answer(cause);
    }
    let why = match words(status.message()) {
        Some(words) => format!("{:?}: {words}", status.code()),
        None => format!("{:?}", status.code()),
    };
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    match (status.code(), after) {
        // "the client SHOULD interpret RESOURCE_EXHAUSTED code as retryable only if the server signals that the
        // recovery is possible […] by including RetryInfo".
        (Code::ResourceExhausted, None) => Answer::Refused(why),
        (
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss,
            after,
        ) => Answer::Later { why, after },
        _ => Answer::Refused(why),
    }
}

/// What an HTTP answer other than success asks for (<https://opentelemetry.io/docs/specs/otlp/#failures-1>).
pub(super) fn http(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Answer {
    let why = status.to_string();
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => {
            let after = headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
            Answer::Later { why, after }
        }
        _ => Answer::Refused(why),
    }
}

/// There was none, for the reason at the end of `error`'s causes: "Connection refused (os error 111)" rather than
/// "error sending request for url (…)". "If the client is unable to connect to the server, the client SHOULD retry the
/// connection".
pub(super) fn no_answer(error: &(dyn Error + 'static)) -> Answer {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    Answer::Later { why: cause.to_string(), after: None }
}

/// The pauses between the attempts at one request: they double, up to a bound.
#[derive(Debug)]
pub(super) struct Backoff {
    pause: Duration,
}

impl Backoff {
    /// No attempt yet.
    pub(super) fn new() -> Self {
        Self { pause: FIRST_PAUSE }
    }

    /// The next pause: no shorter than the collector `asked` for, and not the same for every agent that it turned away.
    pub(super) fn pause(&mut self, asked: Option<Duration>) -> Duration {
        // A machine without random numbers waits the full time.
        let share = SysRng.try_next_u32().unwrap_or(u32::MAX);
        let jittered = self.pause.mul_f64(0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX));
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        asked.map_or(jittered, |asked| asked.saturating_add(jittered / 2))
    }
}

/// `Retry-After = HTTP-date / delay-seconds` (RFC 9110 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        // A time that is over asks for no pause.
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// What a collector says, as one line of a log.
fn words(message: &str) -> Option<String> {
    let one_line = |c: char| if c.is_control() { ' ' } else { c };
    (!message.is_empty()).then(|| message.chars().take(MAX_MESSAGE).map(one_line).collect())
}

/// Characters kept of what a collector says: a few sentences for one log line; it may send megabytes.
const MAX_MESSAGE: usize = 300;

/// A collector that restarts is back within a second or two, and two or three attempts bridge that.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Longest pause between two attempts, unless the collector asks for more: a fraction of the default timeout of 10 s,
/// so that a collector that came back is noticed in time.
const MAX_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::io;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
    use reqwest::header::HeaderValue;
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn grpc_codes_are_sent_again_as_the_protocol_says() {
        let again: Vec<i32> = (0..17).filter(|code| is_later(&grpc(&Status::new(Code::from(*code), "")))).collect();
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        assert_eq!(again, [1, 4, 10, 11, 14, 15]);

        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let Answer::Later { after, .. } = grpc(&Status::with_error_details(code, "", details.clone())) else {
                panic!("{code:?} with RetryInfo is sent again");
            };
            assert_eq!(after, Some(Duration::from_secs(7)), "{code:?}");
        }
    }

    #[test]
    fn a_status_of_the_transport_is_no_answer_of_the_collector() {
        let mut status = Status::unknown("transport error");
        status.set_source(std::sync::Arc::new(io::Error::other("went away")));
        assert_eq!(grpc(&status), Answer::Later { why: "went away".to_owned(), after: None });
    }

    #[test]
    fn http_codes_are_sent_again_as_the_protocol_says() {
        let answer = |code| http(StatusCode::from_u16(code).expect("a code"), &HeaderMap::new(), SystemTime::now());
        let again: Vec<u16> = (300..600).filter(|code| is_later(&answer(*code))).collect();
        assert_eq!(again, [429, 502, 503, 504]);
    }

    #[test]
    fn a_collector_names_its_pause_in_seconds_or_by_a_date() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:30 GMT").expect("a date");
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(29)),
            ("Fri, 31 Dec 1999 23:00:00 GMT", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
            let Answer::Later { after, .. } = http(StatusCode::TOO_MANY_REQUESTS, &headers, now) else {
                panic!("429 is sent again");
            };
            assert_eq!(after, expected.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn pauses_double_up_to_their_bound_and_never_fall_below_what_was_asked() {
        let mut backoff = Backoff::new();
        for millis in [250, 500, 1000, 2000, 2000] {
            let full = Duration::from_millis(millis);
            let pause = backoff.pause(None);
            assert!(full / 2 <= pause && pause <= full, "{pause:?} of {full:?}");
        }
        let asked = Duration::from_secs(30);
        let pause = backoff.pause(Some(asked));
        assert!(asked <= pause && pause <= asked + MAX_PAUSE, "{pause:?}");
        assert_eq!(backoff.pause(Some(Duration::MAX)), Duration::MAX);
    }

    #[test]
    fn what_a_collector_says_of_a_partial_success_stays_within_its_bound() {
        let partial = |rejected_spans, error_message| ExportTraceServiceResponse {
            partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message }),
        };
        let nothing = Answer::Taken { rejected: 0, message: None };
        assert_eq!(taken(ExportTraceServiceResponse::default()), nothing);
        assert_eq!(taken(partial(-1, String::new())), nothing);

        let Answer::Taken { rejected: 3, message: Some(message) } =
            taken(partial(3, format!("two\nlines{}", "!".repeat(1 << 20))))
        else {
            panic!("three are rejected, in words");
        };
        assert!(message.starts_with("two lines!!!"), "{message}");
        assert_eq!(message.chars().count(), MAX_MESSAGE);
    }

    fn is_later(answer: &Answer) -> bool {
        matches!(answer, Answer::Later { .. })
    }
}
