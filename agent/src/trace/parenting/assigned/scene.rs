// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an assignment is made of: the requests of a while, and the calls that were made meanwhile.
//!
//! In: nothing. Out: the values that [`super::model`] and [`super::solve`] speak of. Kinds and classes are small numbers
//! of one process; times are nanoseconds. It refuses to know what an exchange is.

use smallvec::SmallVec;

use crate::table::Table;

/// Something at a moment, by a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Point {
    /// When.
    pub(super) at: u64,
    /// Who.
    pub(super) tid: u32,
    /// When that thread last did anything before; zero where that is not known.
    pub(super) before: u64,
    /// When that thread next does anything that belongs to the scene; the end of time where it does nothing more.
    pub(super) after: u64,
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

/// The requests that were open when `call` was made, the first and the last moment included: of what a coarse clock puts
/// into one moment nobody knows the order. Not those that end before its response: some do not wait for it.
pub(super) fn candidates(requests: &[Request], call: &Call) -> Candidates {
    let at = call.made.at;
    let before = requests.partition_point(|request| request.came.at <= at);
    (0..before).filter(|place| at <= requests[*place].over).map(|place| place as u16).collect()
}

/// The last that was seen of a request before `at`.
pub(super) fn last_before(request: &Request, of: &Calls, calls: &[Call], at: u64) -> Point {
    let points = of.iter().map(|call| &calls[usize::from(*call)]).flat_map(|call| [Some(call.made), call.heard]);
    points
        .flatten()
        .filter(|point| point.at < at)
        .fold(request.came, |last, point| if point.at > last.at { point } else { last })
}

/// Tells every point what its thread did before and after it in this scene.
pub(super) fn weave(requests: &mut [Request], calls: &mut [Call]) {
    let of_requests = requests.iter_mut().flat_map(|request| [Some(&mut request.came), request.answered.as_mut()]);
    let of_calls = calls.iter_mut().flat_map(|call| [Some(&mut call.made), call.heard.as_mut()]);
    let mut points: Vec<&mut Point> = of_requests.chain(of_calls).flatten().collect();
    points.sort_by_key(|point| point.at);
    let mut before: Table<u32, u64> = Table::default();
    for point in &mut points {
        // What it did for no exchange of the scene is known already.
        let last = before.insert(point.tid, point.at).unwrap_or_default();
        point.before = point.before.max(last);
    }
    let mut after: Table<u32, u64> = Table::default();
    for point in points.iter_mut().rev() {
        point.after = after.insert(point.tid, point.at).unwrap_or(u64::MAX);
    }
}
