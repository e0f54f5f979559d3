// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! From a call's user memory into records.
//!
//! In: a captured socket's call, where its bytes are, and the budget. Out: one record a call, in the smallest size class
//! that holds it, or, once the budget is spent, one a segment. It does not look at the bytes, and what it does not copy
//! it counts by length.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use spantap_common::{
    abi::{CAPTURE_BUDGET, MAX_GATHERED, MAX_SEGMENTS, OVERFLOW_HEAD, SIZE_CLASSES},
    event::{
        Header, Kind,
        data::{DataRecord, Direction, Path},
    },
    loss::Reason,
};

use crate::{
    call::{Buffers, NoSegment},
    globals,
    kernel::Positions,
    loss,
    slot::Slot,
    state::State,
    task, verifier,
};

/// What is left to report of a call that moved bytes.
#[derive(Clone, Copy)]
pub(crate) struct Moved {
    header: Header,
    identity: [u64; 3],
    position: u32,
    opposite: u32,
    left: u32,
    direction: u8,
}

impl Moved {
    /// `length` bytes, from the position that `before` names, moved now by the current thread, which runs `identity`.
    #[inline(always)]
    pub(crate) fn new(socket: u64, direction: Direction, before: Positions, length: u32, identity: [u64; 3]) -> Self {
        let (position, opposite) = before.in_order(direction);
        let header = task::header(Kind::Data, socket, 0);
        Self { header, identity, position, opposite, left: length, direction: direction.to_wire() }
    }
}

/// Reports a call of a captured socket.
#[inline(always)]
pub(crate) fn capture(state: &mut State, buffers: Buffers, mut moved: Moved) {
    // The connection turned round: what follows begins with a message's head again.
    if state.last_direction != moved.direction {
        state.last_direction = moved.direction;
        state.budget = CAPTURE_BUDGET;
        state.turned_at = moved.header.at;
    }
    if !buffers.is_known() {
        return moved.counted(Path::Hidden);
    }
    let budget = state.budget;
    let captured = match buffers.only() {
        Some(address) => {
            let length = moved.left;
            moved.copied(address, length, if budget > OVERFLOW_HEAD as u32 { budget } else { OVERFLOW_HEAD as u32 })
        }
        None if budget > OVERFLOW_HEAD as u32 => moved.gathered(buffers, budget),
        // A budget that is spent cannot be spent further.
        None => return moved.heads(buffers),
    };
    state.budget = budget.saturating_sub(captured);
}

/// Why gathering stopped before everything was in the record.
#[derive(Clone, Copy)]
enum Stop {
    /// There is nothing more, or no budget for it.
    Enough,
    /// The target's memory could not be read.
    Unreadable,
}

impl Moved {
    /// Reports everything that is left by its length alone.
    #[inline(always)]
    fn counted(mut self, path: Path) {
        let length = self.left;
        self.report::<0>(0, length, 0, path);
    }

    /// Reports `length` bytes at `address` and copies up to `allowed` of them; returns how many.
    #[inline(always)]
    fn copied(&mut self, address: u64, length: u32, allowed: u32) -> u32 {
        let wanted = if length < allowed { length } else { allowed };
        let wanted = verifier::forgotten(wanted);
        // After the budget is spent, records are many and short.
        if wanted <= OVERFLOW_HEAD as u32 {
            self.report::<OVERFLOW_HEAD>(address, length, wanted, Path::Memory)
        } else if wanted <= SMALL as u32 {
            self.report::<SMALL>(address, length, wanted, Path::Memory)
        } else if wanted <= MEDIUM as u32 {
            self.report::<MEDIUM>(address, length, wanted, Path::Memory)
        } else if wanted <= LARGE as u32 {
            self.report::<LARGE>(address, length, wanted, Path::Memory)
        } else {
            self.report::<WHOLE>(address, length, wanted, Path::Memory)
        }
    }

    /// Reports the segments in one record, up to `allowed` bytes, and the rest by its length; returns how many bytes were
    /// copied.
    #[inline(always)]
    fn gathered(&mut self, buffers: Buffers, allowed: u32) -> u32 {
        let wanted = verifier::forgotten(if self.left < allowed { self.left } else { allowed });
        if wanted <= LARGE as u32 {
            self.gather::<LARGE, { LARGE / 4 }>(buffers, wanted)
        } else {
            self.gather::<WHOLE, { WHOLE / 8 }>(buffers, wanted)
        }
    }

    #[inline(always)]
    fn gather<const ROOM: usize, const PIECE: usize>(&mut self, buffers: Buffers, wanted: u32) -> u32 {
        let mut path = Path::Memory;
        let mut captured = 0;
        if let Some(mut slot) = Slot::<Gathered<ROOM, PIECE>>::reserve()
            && let Some(gathered) = slot.record()
        {
            if let Stop::Unreadable = collect(gathered, buffers, wanted) {
                loss::count(Reason::Unreadable);
                path = Path::Unreadable;
            }
            // SAFETY: `gathered` is the slot's own room, of which `collect` has filled this field in.
            captured = unsafe { (&raw const (*gathered).record.captured).read_volatile() };
            if captured > 0 {
                let record = self.record(captured, captured, Tail::none(), Path::Memory);
                // SAFETY: as above, and `captured` bytes behind the record.
                unsafe { (&raw mut (*gathered).record).write(record) };
                slot.commit();
                self.position = self.position.wrapping_add(captured);
                self.left = self.left.saturating_sub(captured);
            }
        }
        if self.left > 0 {
            self.counted(path);
        }
        captured
    }

    /// Reports each segment by its first bytes, and what lies behind the last that is looked at by its length.
    ///
    /// It adds nothing up: a sum would differ from round to round, and the verifier look at each way through each.
    #[inline(always)]
    fn heads(&mut self, buffers: Buffers) {
        for index in 0..MAX_SEGMENTS {
            // To the verifier, each round looks like the one before.
            self.left = verifier::forgotten(self.left);
            match buffers.segment(index) {
                Ok(segment) => {
                    let length = if segment.length < self.left.into() { segment.length as u32 } else { self.left };
                    if length > 0 {
                        let wanted = if length < OVERFLOW_HEAD as u32 { length } else { OVERFLOW_HEAD as u32 };
                        self.report::<OVERFLOW_HEAD>(segment.address, length, wanted, Path::Memory);
                    }
                }
                Err(NoSegment::Beyond) => break,
                Err(NoSegment::Unreadable) => {
                    loss::count(Reason::Unreadable);
                    return self.counted(Path::Unreadable);
                }
            }
            if self.left == 0 {
                return;
            }
        }
        self.counted(Path::Memory);
    }

    /// One record with room for `ROOM` bytes. Whether or not the ring takes it, the bytes are behind us.
    #[inline(always)]
    fn report<const ROOM: usize>(&mut self, address: u64, length: u32, wanted: u32, path: Path) -> u32 {
        let captured = self.write::<ROOM>(address, length, wanted, path).unwrap_or(0);
        self.position = self.position.wrapping_add(length);
        self.left -= length;
        captured
    }

    #[inline(always)]
    fn write<const ROOM: usize>(&self, address: u64, length: u32, wanted: u32, path: Path) -> Option<u32> {
        let mut slot = Slot::<Roomy<ROOM>>::reserve()?;
        let roomy = slot.record()?;
        let mut captured = 0;
        let mut path = path;
        if ROOM > 0 {
            let size = verifier::at_most(wanted.into(), ROOM as u64) as u32;
            // SAFETY: `bytes` has ROOM bytes, and `size` is at most that.
            let failed = unsafe { bpf_probe_read_user((&raw mut (*roomy).bytes).cast(), size, address as *const _) };
            if failed == 0 {
                captured = wanted;
            } else {
                loss::count(Reason::Unreadable);
                path = Path::Unreadable;
            }
        }

        let mut tail = Tail::none();
        let missing = length - captured;
        if captured > 0 && missing > 0 && length as usize >= TAIL {
            // Eight bytes are read in any case; those that were captured already do not count.
            let last = address + u64::from(length) - TAIL as u64;
            // SAFETY: the helper writes TAIL bytes, the size of `tail.bytes`.
            if unsafe { bpf_probe_read_user((&raw mut tail.bytes).cast(), TAIL as u32, last as *const _) } == 0 {
                tail.length = if missing < TAIL as u32 { missing as u8 } else { TAIL as u8 };
            }
        }
        // SAFETY: `roomy` is the slot's own room; of `bytes` only what `size` covers means anything.
        unsafe { (&raw mut (*roomy).record).write(self.record(length, captured, tail, path)) };
        slot.commit();
        Some(captured)
    }

    /// The record of the next `length` bytes, of which the first `captured` are copied behind it.
    #[inline(always)]
    fn record(&self, length: u32, captured: u32, tail: Tail, path: Path) -> DataRecord {
        // The record's last word, stored at once.
        let last = u64::from(tail.length) | u64::from(self.direction) << 8 | u64::from(path.to_wire()) << 16;
        let [tail_length, direction, path, reserved @ ..] = verifier::masked(last, 0x00ff_ffff).to_le_bytes();
        DataRecord {
            header: Header { size: size_of::<DataRecord>() as u32 + captured, ..self.header },
            identity: self.identity,
            position: self.position,
            opposite: self.opposite,
            length,
            captured,
            tail: tail.bytes,
            tail_length,
            direction,
            path,
            reserved,
        }
    }
}

/// Copies segments one behind the other, in pieces, until `wanted` bytes are in the record's room; their number is left
/// in its field `captured`.
///
/// What changes from round to round is kept in the record: a load from memory is a number that the verifier knows
/// nothing about, so that to it each of hundreds of rounds looks like the one before.
#[inline(always)]
fn collect<const ROOM: usize, const PIECE: usize>(
    gathered: *mut Gathered<ROOM, PIECE>,
    buffers: Buffers,
    wanted: u32,
) -> Stop {
    // SAFETY: `gathered` is a slot's own room, here and below.
    let (bytes, copied, index, inside) = unsafe {
        let record = &raw mut (*gathered).record;
        let fields = (&raw mut (*record).captured, &raw mut (*record).position, &raw mut (*record).length);
        ((&raw mut (*gathered).bytes).cast::<u8>(), fields.0, fields.1, fields.2)
    };
    for field in [copied, index, inside] {
        // SAFETY: as above. Volatile, so that it is not kept in a register.
        unsafe { field.write_volatile(0) };
    }
    // A segment is at an end in each round, or a piece is full.
    for round in 0..MAX_GATHERED + (ROOM / PIECE) as u32 {
        if round >= globals::GATHERED.load() + (ROOM / PIECE) as u32 {
            break;
        }
        // SAFETY: as above.
        let (have, index_now, inside_now) =
            unsafe { (copied.read_volatile(), index.read_volatile(), inside.read_volatile()) };
        if have >= wanted {
            return Stop::Enough;
        }
        let segment = match buffers.segment(index_now) {
            Ok(segment) => segment,
            Err(NoSegment::Beyond) => return Stop::Enough,
            Err(NoSegment::Unreadable) => return Stop::Unreadable,
        };
        let rest = segment.length - u64::from(inside_now);
        let left = u64::from(wanted - have);
        let size = if rest < left { rest } else { left };
        let (size, index_next, inside_next) = if size > PIECE as u64 {
            (PIECE as u64, index_now, inside_now + PIECE as u32)
        } else {
            (size, index_now + 1, 0)
        };
        let offset = verifier::masked(have.into(), ROOM as u64 - 1) as usize;
        let size = verifier::masked(size, 2 * PIECE as u64 - 1) as u32;
        let address = segment.address + u64::from(inside_now);
        // SAFETY: the offset is below ROOM, the size below 2 * PIECE, and there is room for their sum.
        if unsafe { bpf_probe_read_user(bytes.add(offset).cast(), size, address as *const _) } != 0 {
            return Stop::Unreadable;
        }
        // SAFETY: as above.
        unsafe {
            copied.write_volatile(have + size);
            index.write_volatile(index_next);
            inside.write_volatile(inside_next);
        }
    }
    Stop::Enough
}

/// A record and the payload behind it.
#[repr(C)]
struct Roomy<const ROOM: usize> {
    record: DataRecord,
    bytes: [u8; ROOM],
}

/// A record and the payload of several segments behind it. The room at the end is for the last piece alone: offset and
/// size are bounded one by one, and their sum is not.
#[repr(C)]
struct Gathered<const ROOM: usize, const PIECE: usize> {
    record: DataRecord,
    bytes: [u8; ROOM],
    last: [[u8; PIECE]; 2],
}

/// The last bytes of a call that was not copied whole.
#[derive(Clone, Copy)]
struct Tail {
    bytes: [u8; TAIL],
    length: u8,
}

impl Tail {
    #[inline(always)]
    fn none() -> Self {
        Self { bytes: verifier::zero().to_le_bytes(), length: 0 }
    }
}

const SMALL: usize = SIZE_CLASSES[0];
const MEDIUM: usize = SIZE_CLASSES[1];
const LARGE: usize = SIZE_CLASSES[2];
const WHOLE: usize = SIZE_CLASSES[3];

/// Bytes of a record's tail.
const TAIL: usize = 8;
