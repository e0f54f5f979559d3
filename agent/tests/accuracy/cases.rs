// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The catalogue.

mod calls;
mod ends;
mod framing;
mod hostile;
mod load;
mod messages;
mod neighbours;
mod nginx;
mod processes;
mod runtimes;
mod sockets;
mod unix;
mod uring;

use crate::case::Case;

/// Every case, in the order of the table.
pub(crate) fn catalogue() -> impl Iterator<Item = Case> {
    [
        messages::CASES,
        framing::CASES,
        hostile::CASES,
        ends::CASES,
        sockets::CASES,
        calls::CASES,
        uring::CASES,
        unix::CASES,
        processes::CASES,
        runtimes::CASES,
        nginx::CASES,
        neighbours::CASES,
        load::CASES,
    ]
    .into_iter()
    .flatten()
    .copied()
}
