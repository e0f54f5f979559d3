// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tricks that only the verifier needs.

use core::arch::asm;

/// `value & mask`, where the optimiser cannot see that it is redundant.
///
/// LLVM removes a mask that follows a comparison, and may compare one register and use another; the verifier then knows
/// no bound on the one that is used. Assembly is opaque to LLVM and plain to the verifier (seen on 6.1 and 6.18).
#[inline(always)]
pub(crate) fn masked(mut value: u64, mask: u64) -> u64 {
    // SAFETY: one arithmetic instruction on its own operands.
    unsafe { asm!("{0} &= {1}", inout(reg) value, in(reg) mask, options(pure, nomem, nostack)) }
    value
}

/// The lesser of `value` and `limit`, in a register of which the verifier knows it. `limit` must be a power of two.
#[inline(always)]
pub(crate) fn at_most(value: u64, limit: u64) -> u64 {
    let value = if value > limit { limit } else { value };
    let value = masked(value, 2 * limit - 1);
    if value > limit { limit } else { value }
}
