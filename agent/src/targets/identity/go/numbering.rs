// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a Go program gives out the numbers of its goroutines, read from its own code.
//!
//! In: the machine code of `runtime`, for x86-64. Out: where the count of numbers is kept, and whether a goroutine keeps its
//! number and its starter's where its release is known to. It runs nothing, needs no symbols, and takes the only place that
//! reads like this part of `runtime.newproc1`:
//!
//! ```text
//! mov  starter, [callergp + goid]
//! mov  [newg + parentGoid], starter        newg.parentGoid = callergp.goid
//!  …
//! mov  batch, 16
//! lea  sched, [rip + …]
//! lock xadd [sched], batch                 pp.goidcache = sched.goidgen.Add(_GoidCacheBatch)
//! lea  first, [batch + 1]
//!  …
//! mov  [newg + goid], number               newg.goid = pp.goidcache
//! ```

use memchr::memmem;

/// What the code says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Numbering {
    /// Where `runtime.sched.goidgen` is.
    pub(super) generated: u64,
    /// The code keeps a goroutine's number, and its starter's, where the caller thought.
    pub(super) is_as_known: bool,
}

/// Looks for the only such place in `code`, which begins at `start`. A goroutine is thought to have its number at `goid` and
/// its starter's at `parent`.
pub(super) fn find(code: &[u8], start: u64, goid: u16, parent: u16) -> Option<Numbering> {
    let mut places = memmem::find_iter(code, BATCH).filter_map(|at| Some((at, counted(code, start, at)?)));
    let (at, generated) = places.next()?;
    if places.next().is_some() {
        return None;
    }
    let before = &code[at.saturating_sub(REACH)..at];
    let after = &code[at..code.len().min(at + REACH)];
    let loads = offsets(before, LOAD).filter(|(_, offset)| *offset == u32::from(goid));
    let mut stores = offsets(before, STORE).filter(|(_, offset)| *offset == u32::from(parent));
    let loads: Vec<usize> = loads.map(|(at, _)| at).collect();
    let has_parent = stores.any(|(store, _)| loads.iter().any(|load| *load < store && store - load <= NEAR));
    let has_number = offsets(after, STORE).any(|(_, offset)| offset == u32::from(goid));
    Some(Numbering { generated, is_as_known: has_parent && has_number })
}

/// The address that the number at `at` is added to, if the code there goes on as expected.
fn counted(code: &[u8], start: u64, at: usize) -> Option<u64> {
    // The opcode is before the number: B8 to BF, by the register.
    let batch = code.get(at.checked_sub(1)?)?;
    let rest = code.get(at + BATCH.len()..)?;
    let (lea, rest) = rest.split_at_checked(7)?;
    let (xadd, rest) = rest.split_at_checked(5)?;
    // REX.W lea with the address relative to what follows; lock REX.W xadd without an offset; REX.W lea with one byte.
    let is_lea = lea[0] & 0xfb == 0x48 && lea[1] == 0x8d && lea[2] & 0xc7 == 0x05;
    let is_xadd = xadd[0] == 0xf0 && xadd[1] & 0xf8 == 0x48 && xadd[2..4] == [0x0f, 0xc1] && xadd[4] & 0xc0 == 0;
    let is_next = matches!(rest, [rex, 0x8d, to, 1, ..] if rex & 0xf8 == 0x48 && to & 0xc0 == 0x40);
    if batch & 0xf8 != 0xb8 || !is_lea || !is_xadd || !is_next {
        return None;
    }
    let offset = i32::from_le_bytes(*lea[3..].first_chunk()?);
    let behind = start.wrapping_add((at + BATCH.len() + lea.len()) as u64);
    Some(behind.wrapping_add_signed(offset.into()))
}

/// Where `code` moves 64 bits between a register and memory at an offset of four bytes from another: all pairs of place and
/// offset, and some that only look like it.
fn offsets(code: &[u8], opcode: u8) -> impl Iterator<Item = (usize, u32)> {
    code.windows(7).enumerate().filter_map(move |(at, bytes)| {
        let is_move = bytes[0] & 0xf8 == 0x48 && bytes[1] == opcode && bytes[2] & 0xc0 == 0x80;
        is_move.then(|| Some((at, u32::from_le_bytes(*bytes[3..].first_chunk()?)))).flatten()
    })
}

/// `_GoidCacheBatch`, as an operand of 32 bits.
const BATCH: &[u8] = &[16, 0, 0, 0];

const LOAD: u8 = 0x8b;
const STORE: u8 = 0x89;

/// Between the number's place and the others in the code: up to 600 bytes in 1.21 to 1.26.
const REACH: usize = 1024;

/// Between the load of the starter's number and its store: 12 bytes in 1.21 to 1.26.
const NEAR: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// From programs that these releases have linked, with what is between the three parts left out.
    const RELEASES: [(&str, u16, u16, &str, &str); 2] = [
        (
            "go1.21.13",
            152,
            272,
            "488b8898000000 488b542428 48898a10010000",
            "b910000000 488d152abc4200 f0480fc10a 488d5101 48899680010000 4883c111 48898e88010000 488b8e80010000 48898898000000",
        ),
        (
            "go1.26.8",
            152,
            280,
            "488b8898000000 488b542428 48898a18010000",
            "41ba10000000 4c8d1d49e15200 f04d0fc113 4d8d5a01 4d899880010000 4983c211 4d899088010000 498b9080010000 48899798000000",
        ),
    ];

    fn bytes(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("text"), 16).expect("hexadecimal");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn the_code_of_known_releases_reads_as_expected() {
        for (release, goid, parent, starter, number) in RELEASES {
            let code = [bytes(starter), vec![0x90; 300], bytes(number), vec![0x90; 20]].concat();
            let found = find(&code, 0x40_0000, goid, parent).expect(release);
            assert!(found.is_as_known, "{release}");
            assert!(!find(&code, 0x40_0000, goid + 8, parent).expect(release).is_as_known);
            assert!(!find(&code, 0x40_0000, goid, parent + 8).expect(release).is_as_known);
        }
    }

    #[test]
    fn the_count_is_where_the_code_adds_to_it() {
        // 0x442536 follows the instruction that holds the offset, in the program that the bytes are from.
        let (_, goid, parent, _, number) = RELEASES[0];
        let found = find(&[bytes(number), vec![0; 8]].concat(), 0x44_252a, goid, parent).expect("it is there");
        assert_eq!(found.generated, 0x44_2536 + 0x42_bc2a);
    }

    #[test]
    fn two_such_places_are_none() {
        let (_, goid, parent, _, number) = RELEASES[1];
        let code = [bytes(number), bytes(number), vec![0; 8]].concat();
        assert_eq!(find(&code, 0, goid, parent), None);
    }

    #[test]
    fn code_that_ends_anywhere_is_read_to_its_end() {
        let (_, goid, parent, _, number) = RELEASES[1];
        let code = bytes(number);
        for end in 0..code.len() {
            let _ = find(&code[..end], u64::MAX, goid, parent);
        }
        assert_eq!(find(&code[..20], 0, goid, parent), None);
    }
}
