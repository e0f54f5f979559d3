// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Counts what is lost.

use spantap_common::loss::Reason;

use crate::maps::LOST;

/// Counts one loss for `reason`.
#[inline(always)]
pub(crate) fn count(reason: Reason) {
    if let Some(counter) = LOST.get_ptr_mut(reason as u32) {
        // SAFETY: a look-up that succeeded points to this CPU's slot. A probe that interrupts another between load and
        // store may swallow one count: nested losses of the same reason are not worth an atomic instruction each.
        unsafe { *counter += 1 }
    }
}
