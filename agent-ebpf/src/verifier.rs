// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! Tricks that only the verifier needs.

use core::{arch::asm, mem::MaybeUninit};

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

/// A zero that the optimiser cannot see. It turns neighbouring zeros into a call of memset, which on BPF is a loop over
/// bytes.
#[inline(always)]
pub(crate) fn zero() -> u64 {
    let zero: u64;
    // SAFETY: one assignment to its own operand.
    unsafe { asm!("{0} = 0", out(reg) zero, options(pure, nomem, nostack)) }
    zero
}

/// `value`, of which the verifier knows nothing any more.
///
/// What it knows of a value it distinguishes: four ways to find a buffer, each with constants of its own, make it look
/// at everything behind them four times over. Kernels before 6.2 then pass their limit of a million instructions.
///
/// It follows what is stored to the stack at multiples of eight bytes, and zeros everywhere; of anything else it knows
/// that it was written (`check_stack_write_fixed_off` in `kernel/bpf/verifier.c`).
#[inline(always)]
pub(crate) fn forgotten(value: u32) -> u32 {
    let mut words = Words([MaybeUninit::uninit(); 2]);
    let word = (&raw mut words.0[1]).cast::<u32>();
    // SAFETY: within `words`. Volatile, so that the value takes the way over the stack.
    unsafe {
        word.write_volatile(value ^ NOT_ZERO);
        word.read_volatile() ^ NOT_ZERO
    }
}

/// Its second half is at no multiple of eight.
#[repr(align(8))]
struct Words([MaybeUninit<u32>; 2]);

/// No value that is known where it is to be forgotten.
const NOT_ZERO: u32 = 0x5555_5555;
