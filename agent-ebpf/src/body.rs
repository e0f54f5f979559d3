// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! The middle of a long body, whose end the agent has told: most calls there need no record.
//!
//! In: a call of a followed socket. Out: whether it is passed over, and one record for all that were, before anything else
//! is told of their socket. It never passes over the call that moves a body's last byte, nor one that moves a message's
//! head, so that everything which a span is made of is seen when it happens.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use spantap_common::{
    abi::{ABI_VERSION, FARTHEST_END, LONG_CALL, MOST_PASSED},
    event::{
        Header, Kind,
        data::{DataRecord, Direction, Path},
    },
};

use crate::{globals, kernel::Positions, maps::BODIES, slot::Slot, state::State, task, verifier};

/// Whether the call, which moved `length` bytes on from the position that `before` names, is passed over.
#[inline(always)]
pub(crate) fn passes(state: &mut State, direction: Direction, before: Positions, length: u32) -> bool {
    let wire = direction.to_wire();
    // To the verifier each way out of here is the same: it would look at everything behind them once for short calls and once for
    // long ones.
    let length = verifier::forgotten(length);
    let (position, opposite) = before.in_order(direction);
    // What turns the connection round begins a message.
    if state.last_direction != wire {
        if state.body == wire {
            state.body = 0;
        }
        return false;
    }
    if state.body != wire {
        if length < LONG_CALL {
            return false;
        }
        // SAFETY: nothing keeps the reference beyond the copy. The entry may be used for another socket meanwhile: then bytes that it
        // makes us pass over show as a gap, as all of them do.
        let Some(told) = (unsafe { BODIES.get(state.cookie) }).copied() else { return false };
        if told.direction != u32::from(wire) || told.seen < state.turned_at {
            return false;
        }
        state.body_end = told.end;
        state.body = wire;
    }
    let left = state.body_end.wrapping_sub(position);
    if left <= length || left > FARTHEST_END {
        // Its end, or what follows it. The agent may tell of another one.
        state.body = 0;
        // It may have been the oldest and be gone.
        let _ = BODIES.remove(state.cookie);
        return false;
    }
    // Of a connection that is gone each read may be the last.
    if length < LONG_CALL || state.closing != 0 {
        return false;
    }
    if state.passed >= MOST_PASSED {
        return false;
    }
    if state.passed == 0 {
        state.passed_from = position;
    }
    state.passed += 1;
    state.passed_direction = wire;
    state.passed_to = position.wrapping_add(length);
    state.passed_opposite = opposite;
    state.passed_at = task::now();
    state.passed_by = bpf_get_current_pid_tgid();
    true
}

/// Reports what was passed over, as moved by the last call that was.
#[inline(always)]
pub(crate) fn tell(state: &mut State) {
    // Nothing is passed over where state is kept by address.
    if globals::BY_ADDRESS.load() == 0 && state.passed != 0 {
        state.passed = 0;
        report(state);
    }
}

#[inline(always)]
fn report(state: &State) -> Option<()> {
    let length = state.passed_to.wrapping_sub(state.passed_from);
    let mut slot = Slot::<DataRecord>::reserve()?;
    let record = slot.record()?;
    let passed = DataRecord {
        header: Header {
            at: state.passed_at,
            pid_tgid: state.passed_by,
            socket: state.cookie,
            kind: Kind::Data.to_wire(),
            version: ABI_VERSION,
            size: size_of::<DataRecord>() as u32,
        },
        identity: [verifier::zero(); 3],
        position: state.passed_from,
        opposite: state.passed_opposite,
        length,
        captured: 0,
        tail: verifier::zero().to_le_bytes(),
        tail_length: 0,
        direction: state.passed_direction,
        path: Path::Memory.to_wire(),
        reserved: [0; 5],
    };
    // SAFETY: `record` is the slot's own room for one `DataRecord`.
    unsafe { record.write(passed) };
    slot.commit();
    Some(())
}
