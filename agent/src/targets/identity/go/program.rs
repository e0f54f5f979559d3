// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What Go's linker tells the runtime about a program: its functions, and which words of a frame are in use at a call.
//!
//! In: the memory of a program of Go 1.21 to 1.26, stripped or not. Out: for a return address the function that goes on there, and the
//! words of its frame that hold pointers which it still needs: what the garbage collector asks (`runtime.getStackMap`), so that it holds
//! for every program. It trusts no address that it reads, and reads a bounded number of bytes for each question.

use super::super::Memory;

/// `runtime.firstmoduledata`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    names: u64,
    tables: u64,
    functions: u64,
    /// Address and count of `ftab`'s entries, ordered by address.
    index: u64,
    count: u64,
    /// Code, from its first address to the one behind its last.
    text: (u64, u64),
    /// What the collector is told of functions is counted from here.
    data: u64,
    /// Variables of packages that have pointers, and begin with zeros.
    pub(super) zeroed: (u64, u64),
}

/// A function of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    /// Where its code begins.
    pub(super) entry: u64,
    /// Address of what is told of it (`_func`).
    told: u64,
    /// As in [`told`](Self::told): the name, and how many numbers and tables follow.
    name: u32,
    numbers: u32,
    tables: u8,
}

impl Program {
    /// Looks for what was told, in whichever part of the executable that is no code it is.
    pub(super) fn find(memory: &Memory) -> Option<Self> {
        let name = memory.mappings.iter().map(|mapping| &mapping.name).find(|name| name.starts_with('/'))?;
        let parts = || memory.mappings.iter().filter(|mapping| mapping.name == *name && !mapping.executable);
        // It is written to when the program starts, and protected from that later where it was relocated.
        let parts = parts().filter(|part| part.writable).chain(parts().filter(|part| !part.writable));
        parts.into_iter().find_map(|part| {
            let words = memory.words(part.start, part.length().min(MOST_DATA) as usize / 8);
            words.windows(WORDS).find_map(|words| Self::of(memory, words))
        })
    }

    /// Of words that are those of a `moduledata`: a pointer to the tables' head, and six slices as the linker makes them.
    fn of(memory: &Memory, words: &[u64]) -> Option<Self> {
        let head = words[0];
        let is_slice = |slice: &[u64]| slice[0] > head && slice[1] > 0 && slice[1] == slice[2];
        if head == 0 || !head.is_multiple_of(8) || !words[1..19].chunks_exact(3).all(is_slice) {
            return None;
        }
        let text = (words[22], words[23]);
        let is_whole = words[20] == text.0 && text.0 < text.1 && words[28] <= words[29];
        if !is_whole || memory.word(head)? != HEAD {
            return None;
        }
        Some(Self {
            names: words[1],
            tables: words[10],
            functions: words[13],
            index: words[16],
            count: words[17],
            text,
            data: words[40],
            zeroed: (words[28], words[29]),
        })
    }

    /// The function that goes on at `address`, where a call returns to.
    pub(super) fn function(&self, memory: &Memory, address: u64) -> Option<Function> {
        if address <= self.text.0 || address >= self.text.1 {
            return None;
        }
        // A call may be the last instruction of its function.
        let offset = u32::try_from(address - 1 - self.text.0).ok()?;
        let entry = |number: u64| {
            let entry = memory.word_at(self.index, 8 * number)?;
            Some((entry as u32, (entry >> 32) as u32))
        };
        // The last one ends the table.
        let (mut first, mut behind) = (0, self.count.min(MOST_FUNCTIONS).checked_sub(1)?);
        while behind - first > 1 {
            let middle = first.midpoint(behind);
            if entry(middle)?.0 <= offset {
                first = middle;
            } else {
                behind = middle;
            }
        }
        let told = self.functions.checked_add(entry(first)?.1.into())?;
        let bytes = memory.bytes(told, TOLD);
        let number = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
        let entry = self.text.0 + u64::from(number(0)?);
        let is_it = entry < address && number(28)? < MOST_NUMBERS;
        is_it.then_some(Function { entry, told, name: number(4)?, numbers: number(28)?, tables: *bytes.get(43)? })
    }

    /// The name of a function, such as `net/http.(*conn).serve`.
    pub(super) fn name(&self, memory: &Memory, function: &Function) -> Option<String> {
        let bytes = memory.bytes(self.names.checked_add(function.name.into())?, LONGEST_NAME);
        let end = bytes.iter().position(|byte| *byte == 0)?;
        String::from_utf8(bytes.get(..end)?.to_vec()).ok()
    }

    /// Addresses of the words that hold pointers which `function` needs when it goes on at `address`. Its frame has its caller's frame
    /// pointer at `frame`.
    pub(super) fn in_use(&self, memory: &Memory, function: &Function, address: u64, frame: u64) -> Option<Vec<u64>> {
        let map = match self.value(memory, function, STACK_MAP, address - 1)? {
            -1 => 0,
            map => u64::try_from(map).ok()?,
        };
        let mut words = Vec::new();
        // Variables end where the frame pointer is; arguments begin behind that and the return address.
        for (kind, is_argument) in [(VARIABLES, false), (ARGUMENTS, true)] {
            let Some(maps) = self.table(memory, function, kind) else { continue };
            let counts = memory.word(maps)?;
            let (count, bits) = (counts & 0xffff_ffff, counts >> 32);
            if bits == 0 {
                continue;
            }
            if map >= count || bits > MOST_WORDS {
                return None;
            }
            let bytes = memory.bytes(maps.checked_add(8 + map * bits.div_ceil(8))?, bits.div_ceil(8) as usize);
            let first = if is_argument { frame + 16 } else { frame.checked_sub(8 * bits)? };
            let is_pointer = |bit: &u64| bytes.get(*bit as usize / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1);
            words.extend((0..bits).filter(is_pointer).map(|bit| first + 8 * bit));
        }
        Some(words)
    }

    /// The address of a table that the collector has of a function.
    fn table(&self, memory: &Memory, function: &Function, kind: u8) -> Option<u64> {
        if kind >= function.tables {
            return None;
        }
        let at = function.told + TOLD as u64 + 4 * (u64::from(function.numbers) + u64::from(kind));
        match memory.word(at)? as u32 {
            u32::MAX => None,
            offset => self.data.checked_add(offset.into()),
        }
    }

    /// What is said of the instruction at `address` in a function's list of numbers (`runtime.pcvalue`); -1 where nothing is.
    fn value(&self, memory: &Memory, function: &Function, list: u32, address: u64) -> Option<i32> {
        if list >= function.numbers {
            return Some(-1);
        }
        let offset = memory.word(function.told + TOLD as u64 + 4 * u64::from(list))? as u32;
        if offset == 0 {
            return Some(-1);
        }
        let bytes = memory.bytes(self.tables.checked_add(offset.into())?, MOST_STEPS);
        value_at(&bytes, address.checked_sub(function.entry)?)
    }
}

/// The value at `offset` of a function whose list of steps `bytes` begins with.
fn value_at(bytes: &[u8], offset: u64) -> Option<i32> {
    let mut bytes = bytes.iter().copied();
    let (mut value, mut behind) = (-1_i32, 0_u64);
    loop {
        let step = number(&mut bytes)?;
        if step == 0 && behind > 0 {
            return None;
        }
        // The sign is the lowest bit.
        value = value.wrapping_add((step >> 1) as i32 ^ -((step & 1) as i32));
        behind += u64::from(number(&mut bytes)?);
        if offset < behind {
            return Some(value);
        }
    }
}

/// A number of seven bits a byte, the lowest first.
fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u32> {
    let mut number = 0;
    for shift in (0..32).step_by(7) {
        let byte = bytes.next()?;
        number |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// `pcHeader`: `Go120PCLnTabMagic`, two zeros, instructions of any length, words of 8 bytes.
const HEAD: u64 = 0x0801_0000_ffff_fff1;

/// Words of a `moduledata` from its beginning to `gofunc`: the same in 1.21 to 1.26.
const WORDS: usize = 41;

/// Bytes of one `_func`; its lists follow.
const TOLD: usize = 44;

/// `PCDATA_StackMapIndex`, `FUNCDATA_ArgsPointerMaps` and `FUNCDATA_LocalsPointerMaps`.
const STACK_MAP: u32 = 1;
const ARGUMENTS: u8 = 0;
const VARIABLES: u8 = 1;

/// Of each part of a program: it is among the first variables. 16 MiB take some milliseconds.
const MOST_DATA: u64 = 16 << 20;

/// The largest programs have a million.
const MOST_FUNCTIONS: u64 = 16 << 20;

/// Lists of numbers of one function: four in 1.26.
const MOST_NUMBERS: u32 = 64;

/// Words of a frame: a frame that is larger has arrays, and is seldom that of a loop over jobs.
const MOST_WORDS: u64 = 4 << 10;

/// Bytes of one list of steps: those of a function with a thousand calls.
const MOST_STEPS: usize = 4 << 10;

/// Of a function with its package: generic ones name their arguments.
const LONGEST_NAME: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_steps_says_one_value_for_each_instruction() {
        // To 0 for 10 bytes, to 2 for 300, to 1 for 5.
        let steps = [2, 10, 4, 0xac, 2, 1, 5, 0];
        for (offset, value) in
            [(0, Some(0)), (9, Some(0)), (10, Some(2)), (309, Some(2)), (310, Some(1)), (314, Some(1)), (315, None)]
        {
            assert_eq!(value_at(&steps, offset), value, "{offset}");
        }
        // What begins with no step begins with -1.
        assert_eq!(value_at(&[0, 4, 2, 4, 0], 3), Some(-1));
        for end in 0..steps.len() - 1 {
            assert_eq!(value_at(&steps[..end], 314), None, "{end} bytes of it");
        }
    }

    #[test]
    fn a_number_has_at_most_32_bits() {
        let read = |bytes: &[u8]| number(&mut bytes.iter().copied());
        assert_eq!(read(&[0x7f]), Some(127));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0x0f]), Some(u32::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0]), None);
        assert_eq!(read(&[0x80]), None);
    }
}
