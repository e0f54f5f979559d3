// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory that was needed once.
//!
//! In: nothing, or a part of the program itself. Out: what is not in use any more, back with the operating system. It frees
//! nothing itself.

/// Returns what the allocator keeps of freed memory. Reading the kernel's BTF takes and frees some 15 MiB in small
/// pieces, which glibc would keep for as long as the agent runs.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and locks the arenas it walks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Returns the pages of a constant that is read seldom. Whoever reads it again gets it from the program's file.
pub fn put_back(constant: &'static [u8]) {
    let range = constant.as_ptr_range();
    // Pages that it shares with others stay.
    let start = (range.start as usize).next_multiple_of(PAGE);
    let length = (range.end as usize / PAGE * PAGE).saturating_sub(start);
    // SAFETY: nothing writes to a constant without pointers in it, so that its pages are what the file says; and the kernel
    // looks at the addresses itself. An error means that they stay.
    unsafe {
        libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED);
    }
}

/// Returns the pages of the program's own code: what is run again comes from its file, page by page. Reading the configuration, the
/// kernel's BTF and the probes takes code that is seldom run later (2026-11: 4 MiB).
pub fn put_back_code() {
    unsafe extern "C" {
        // Where the linker says that the program begins, and its code ends (`ld`(1), "PROVIDE"; lld has the same).
        static __executable_start: u8;
        static etext: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const etext);
    let length = end.addr().saturating_sub(start.addr());
    // SAFETY: both are addresses of the program's own file, of which nothing in between is ever written: code, and constants.
    put_back(unsafe { std::slice::from_raw_parts(start, length) });
}

/// Of the processors that the probes are built for. A smaller piece of a larger page is refused, and stays.
const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u8; 4 * PAGE] = [7; 4 * PAGE];

    #[test]
    fn code_that_was_put_back_runs_on() {
        put_back_code();
        assert_eq!("3".parse::<u8>(), Ok(3));
    }

    #[test]
    fn what_was_put_back_is_still_what_it_was() {
        put_back(&CONSTANT);
        assert!(CONSTANT.iter().all(|byte| *byte == 7));
        put_back(&CONSTANT[..10]);
        assert_eq!(CONSTANT[9], 7);
    }
}
