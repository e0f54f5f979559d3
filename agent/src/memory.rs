// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that was needed once.
//!
//! In: nothing. Out: freed memory, back with the operating system. It frees nothing itself.

/// Returns what the allocator keeps of freed memory. Reading the kernel's BTF takes and frees some 15 MiB in small
/// pieces, which glibc would keep for as long as the agent runs.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks the arenas it walks.
    unsafe {
        libc::malloc_trim(0);
    }
}
