// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an assignment is made of: the requests of a while, and the calls that were made meanwhile.
//!
//! In: nothing. Out: the values that [`super::model`] and [`super::solve`] speak of. Kinds and classes are small numbers
//! of one process; times are nanoseconds. It refuses to know what an exchange is.

use smallvec::SmallVec;

/// Something at a moment, by a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// When.
    pub(super) at: u64,
    /// Who.
    pub(super) tid: u32,
    /// When that thread last did anything before; zero where that is not known.
    pub(super) before: u64,
}

/// A request that the process has received.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// What was asked for.
    pub(super) class: u8,
    /// It was read.
    pub(super) came: Point,
    /// The first byte of the answer, if there was one.
    pub(super) answered: Option<Point>,
    /// It was over; the end of time while it is not.
    pub(super) over: u64,
}

/// A call that the process has made.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// Whom it went to, and what for.
    pub(super) kind: u8,
    /// It was written.
    pub(super) made: Point,
    /// The response was complete, if it came.
    pub(super) heard: Option<Point>,
}

/// Calls of one request, by their place in the scene: in the order in which they were made.
pub(super) type Calls = SmallVec<[u16; 6]>;

/// Requests that a call can belong to, by their place in the scene.
pub(super) type Candidates = SmallVec<[u16; 8]>;

/// The requests that were open when `call` was made. Not those that end before its response: some do not wait for it.
pub(super) fn candidates(requests: &[Request], call: &Call) -> Candidates {
    let at = call.made.at;
    let before = requests.partition_point(|request| request.came.at < at);
    (0..before).filter(|place| at < requests[*place].over).map(|place| place as u16).collect()
}

/// The last that was seen of a request before `at`.
pub(super) fn last_before(request: &Request, of: &Calls, calls: &[Call], at: u64) -> Point {
    let points = of.iter().map(|call| &calls[usize::from(*call)]).flat_map(|call| [Some(call.made), call.heard]);
    points
        .flatten()
        .filter(|point| point.at < at)
        .fold(request.came, |last, point| if point.at > last.at { point } else { last })
}
