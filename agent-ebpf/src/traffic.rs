// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! A call that moved bytes through a socket: is it worth a record?
//!
//! In: socket, byte count and flags of a call that has just ended. Out: a verdict that stays with the socket, and for a
//! captured one the call's bytes. The cheapest question comes first, and an ignored socket costs one look-up; what the
//! bytes say beyond "a request begins here" is not asked.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use spantap_common::{
    abi::{SNIFF_CALLS, SNIFF_SEGMENTS, SNIFF_TURNS},
    event::{data::Direction, socket::Origin},
    loss::Reason,
    opaque::Opaque,
    sniff::{self, Guess, PREFIX},
};

use crate::{
    batch, body,
    call::{Buffers, NoSegment},
    kernel::{Positions, Registers, Sock, Stream, Streams},
    loss,
    maps::{COUNT_ONLY, LEFT_ALONE},
    payload::{self, Moved},
    runtime, socket,
    state::{CAPTURED, IGNORED, PROBING, State, UNKNOWN},
    unix, uring, verifier,
};

/// A call on a socket that has just ended.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    /// Which way it was to move bytes.
    pub(crate) direction: Direction,
    /// On which socket.
    pub(crate) sock: Sock,
    /// How many bytes it moved, or a negative errno.
    pub(crate) returned: i32,
    /// `MSG_…` of a call that reads.
    pub(crate) flags: i32,
    /// Which kinds of sockets come by here.
    pub(crate) streams: Streams,
}

/// The body of every probe that sees calls end. `registers` of the call, in whose task the probe runs, are asked for
/// only if its bytes are wanted.
#[inline(always)]
pub(crate) fn moved(call: Ended, registers: impl Fn() -> Registers) -> Option<()> {
    let Ended { direction, sock, returned, flags, streams } = call;
    if returned < 0 {
        batch::ended(registers());
        uring::tried(registers());
        return if let Streams::Tcp = streams { None } else { unix::failed(sock, returned) };
    }
    if flags & passed_over(direction) != 0 {
        return None;
    }
    // Most calls of a machine are on sockets that are left alone: one look-up. By address it would cost more than what
    // follows.
    let known = if sock.is_address() { None } else { socket::find(sock) };
    if known.as_ref().is_some_and(|state| state.verdict == IGNORED) {
        return None;
    }
    let stream = sock.stream(streams)?;
    if returned == 0 {
        batch::moved_nothing(sock, registers(), direction);
        return match (direction, stream) {
            (Direction::Read, Stream::Tcp) => socket::read_nothing(sock),
            (Direction::Read, Stream::Unix) => unix::read_nothing(sock),
            (Direction::Write, _) => None,
        };
    }
    let state = judged(sock, stream, known)?;
    let length = returned as u32;
    let reached = match stream {
        Stream::Tcp => sock.positions(state.fin_sent != 0)?,
        Stream::Unix => unix::moved(sock, state, direction, length)?,
    };
    if let Streams::All = streams {
        seen(state, stream, direction, reached);
    }
    let before = match direction {
        Direction::Read => Positions { read: reached.read.wrapping_sub(length), ..reached },
        Direction::Write => Positions { write: reached.write.wrapping_sub(length), ..reached },
    };
    let registers = registers();
    // A batch is counted message by message.
    if let Streams::All = streams
        && !batch::is_batch(registers)
        && body::passes(state, direction, before, length)
    {
        return None;
    }
    // `recv(…, MSG_TRUNC)` discards what it counts: the buffer holds nothing of it.
    let buffers =
        if flags & MSG_TRUNC != 0 { Buffers::unknown() } else { Buffers::of(sock, registers, direction, length) };
    let buffers = buffers.forgotten();
    // Not before its buffers were looked for: as above.
    if COUNT_ONLY.get(0).is_some_and(|count_only| *count_only != 0) {
        return counted(state);
    }
    if state.verdict == PROBING {
        if is_passed_over(state, direction) {
            return None;
        }
        probe(state, buffers, direction, length, before)?;
    }
    if state.announced == 0 {
        match stream {
            Stream::Tcp => socket::announce(sock, state, before)?,
            Stream::Unix => unix::announce(sock, state, before)?,
        }
    }
    if let Streams::All = streams {
        body::tell(state);
    }
    if state.last_direction != direction.to_wire() && socket::unwanted(state, reached).is_some() {
        return None;
    }
    let identity = runtime::identity(sock, registers, direction, state);
    payload::capture(state, buffers, Moved::new(state.cookie, direction, before, length, identity));
    if let Direction::Read = direction {
        socket::caught_up(sock, state);
    }
    Some(())
}

/// The same call for a second program at the same place, which comes after the first.
///
/// Where probes of tracepoints can be put off in favour of another thread (since 7.0), the kernel passes over a program
/// whose earlier run on that CPU has not ended, and says so in `recursion_misses` alone. What the first program has seen is
/// left at that; what it has not is for this one.
#[inline(always)]
pub(crate) fn moved_again(call: Ended, registers: impl Fn() -> Registers) -> Option<()> {
    let Ended { direction, sock, returned, flags, streams } = call;
    // What fails moves nothing: of what is kept of it a run that was passed over costs little.
    if returned < 0 || flags & passed_over(direction) != 0 {
        return None;
    }
    if let Some(state) = socket::find(sock) {
        if state.verdict == IGNORED {
            return None;
        }
        let stream = sock.stream(streams)?;
        if returned == 0 {
            // Said once, whoever comes first. An end of a unix socket is told by both of its ends.
            return if let (Direction::Read, Stream::Tcp) = (direction, stream) {
                socket::read_nothing(sock)
            } else {
                None
            };
        }
        let is_seen = match stream {
            Stream::Tcp => {
                let reached = sock.positions(state.fin_sent != 0)?;
                match direction {
                    Direction::Read => state.reached_reading == reached.read,
                    Direction::Write => state.reached_writing == reached.write,
                }
            }
            Stream::Unix => {
                let bit = direction.to_wire();
                let is_seen = state.seen & bit != 0;
                state.seen &= !bit;
                is_seen
            }
        };
        if is_seen {
            return None;
        }
    }
    if returned == 0 {
        return None;
    }
    moved(call, registers)?;
    // Nobody will ask after this run.
    let state = socket::find(sock)?;
    state.seen &= !direction.to_wire();
    Some(())
}

/// A program that has another one behind it has looked at a call that moved bytes in `direction`, and up to `reached`.
#[inline(always)]
fn seen(state: &mut State, stream: Stream, direction: Direction, reached: Positions) {
    match (stream, direction) {
        (Stream::Tcp, Direction::Read) => state.reached_reading = reached.read,
        (Stream::Tcp, Direction::Write) => state.reached_writing = reached.write,
        (Stream::Unix, _) => state.seen |= direction.to_wire(),
    }
}

/// The agent wants no records: the call is counted, and the connection goes on as one of which a record was lost.
#[inline(always)]
fn counted(state: &mut State) -> Option<()> {
    loss::count(Reason::SelfBudget);
    if state.verdict == PROBING {
        // Its first bytes may have been a request: it is as if the connection were older than the agent, but who connected
        // was seen.
        state.prefix_length = 0;
        state.midway = 1;
        if state.origin == Origin::Connected.to_wire() {
            state.origin = Origin::OlderConnected.to_wire();
        } else if state.origin == Origin::Accepted.to_wire() {
            state.origin = Origin::OlderAccepted.to_wire();
        }
    }
    // Whatever is captured next begins with a full budget.
    state.last_direction = 0;
    None
}

/// A call moved bytes through the socket of which nothing is known, not even how many. Behind others they show as a gap; as
/// the first ones they may have been a request.
#[inline(always)]
pub(crate) fn hidden(sock: Sock) -> Option<()> {
    let stream = sock.stream(Streams::Tcp)?;
    let state = judged(sock, stream, None)?;
    if state.verdict == PROBING && !is_in_the_middle(state) {
        unseen(state, Reason::UnsupportedPath);
    }
    Some(())
}

/// The socket's state, `known` already or not, unless it is left alone: now is the time to judge it.
#[inline(always)]
fn judged(sock: Sock, stream: Stream, known: Option<&'static mut State>) -> Option<&'static mut State> {
    let state = known.or_else(|| socket::find(sock)).or_else(|| socket::find_or_make(sock))?;
    if state.verdict == UNKNOWN {
        state.cookie = sock.cookie();
        state.verdict = socket::judge(sock, stream);
    }
    (state.verdict != IGNORED).then_some(state)
}

/// Compares the call's first bytes with the beginning of a request; `before` are the positions before it. Some: they are to
/// be captured.
#[inline(always)]
fn probe(state: &mut State, buffers: Buffers, direction: Direction, length: u32, before: Positions) -> Option<()> {
    // Captured on trial: so far it can become a request.
    let tried = state.announced != 0 && state.requests == direction.to_wire();
    // A request does not go on in the other direction; and in the middle of a stream every call may be its beginning.
    if !tried && (is_in_the_middle(state) || state.requests != direction.to_wire()) {
        state.prefix_length = 0;
    }
    let known = state.prefix_length;
    if buffers.is_known() {
        collect(state, buffers, length);
    } else if !is_in_the_middle(state) {
        unseen(state, Reason::UnsupportedPath);
    }
    let birth_seen = !is_in_the_middle(state);
    let mut guess = if may_ask(state, direction) { guess(state, 0) } else { Guess::Unknown };

    if state.announced != 0 && (matches!(guess, Guess::Unknown) || state.requests != direction.to_wire()) {
        socket::retract(state, before);
        // The bytes before were the end of something else, and this call may be a beginning.
        if tried && !birth_seen {
            guess = self::guess(state, known);
            state.prefix_length = 0;
            if let Guess::Undecided = guess {
                return None;
            }
        }
    }
    match guess {
        Guess::Http1 => {
            state.requests = direction.to_wire();
            state.protocol = guess.to_wire();
            state.verdict = CAPTURED;
            // The budget begins with this call, and so do the turns.
            state.last_direction = 0;
            state.turns = 0;
            Some(())
        }
        // A peer that writes its request byte by byte: captured on trial as the one protocol that it can become, and
        // taken back if it comes to nothing.
        Guess::Undecided if birth_seen || begins_like_a_method(state) => {
            state.requests = direction.to_wire();
            state.protocol = Guess::Http1.to_wire();
            Some(())
        }
        // A server of HTTP/1 does not speak first, and a client's first bytes are a request.
        Guess::Unknown if birth_seen => left_alone(state, opaque(state)),
        // In the middle of a stream most calls begin with something else: the rest of a body, a response.
        Guess::Undecided | Guess::Unknown => {
            missed(state, direction);
            let opaque = opaque(state);
            if state.turns >= SNIFF_TURNS || matches!(opaque, Opaque::FastCgi) {
                return left_alone(state, opaque);
            }
            None
        }
    }
}

/// Whether the rest of a long message is passed over, on a socket that is older than the agent.
#[inline(always)]
fn is_passed_over(state: &State, direction: Direction) -> bool {
    state.misses >= SNIFF_CALLS && state.last_direction == direction.to_wire()
}

/// A call on a socket that is older than the agent showed no request.
#[inline(always)]
fn missed(state: &mut State, direction: Direction) {
    if state.last_direction == direction.to_wire() {
        state.misses += 1;
    } else {
        state.last_direction = direction.to_wire();
        state.misses = 1;
        state.turns += 1;
    }
    state.midway = 1;
}

/// Whether a request may go this way: what a server writes is none, and what a client reads, whatever it looks like.
#[inline(always)]
fn may_ask(state: &State, direction: Direction) -> bool {
    match direction {
        Direction::Read => state.origin != Origin::OlderConnected.to_wire(),
        Direction::Write => state.origin != Origin::OlderAccepted.to_wire(),
    }
}

/// No request comes from here: the socket is none of ours, and counted as what it looks like.
#[inline(always)]
fn left_alone(state: &mut State, opaque: Opaque) -> Option<()> {
    state.verdict = IGNORED;
    // SAFETY: a look-up that succeeded points to this CPU's slot; see `loss.rs` for what an interruption costs.
    unsafe { *LEFT_ALONE.get_ptr_mut(opaque as u32)? += 1 };
    None
}

/// What the bytes collected so far look like, if they are no request.
#[inline(always)]
fn opaque(state: &State) -> Opaque {
    state.prefix.first_chunk::<PREFIX>().map_or(Opaque::Other, |prefix| Opaque::of(prefix, state.prefix_length))
}

/// Whether earlier bytes were not seen, so that any call may begin with anything.
#[inline(always)]
fn is_in_the_middle(state: &State) -> bool {
    // Wire numbers are compared one by one: a table of them would be data of a kind that programs cannot have.
    state.origin != Origin::Connected.to_wire() && state.origin != Origin::Accepted.to_wire()
}

/// The connection's first bytes may have been a request, and nobody will know. The next ones may be one as well: from
/// here on it is as if the connection were older than the agent.
#[inline(always)]
fn unseen(state: &mut State, why: Reason) {
    loss::count(why);
    state.origin = Origin::Unknown.to_wire();
}

/// Whether the bytes collected so far begin with the letter of a method that HTTP defines. In the middle of a stream any
/// short call could be the beginning of one that it does not.
#[inline(always)]
fn begins_like_a_method(state: &State) -> bool {
    // CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, QUERY, TRACE.
    matches!(state.prefix[0], b'C' | b'D' | b'G' | b'H' | b'O' | b'P' | b'Q' | b'T')
}

/// What the bytes collected so far look like, without the first `from` of them.
#[inline(always)]
fn guess(state: &State, from: u32) -> Guess {
    let from = verifier::masked(from.into(), PREFIX_MASK) as usize;
    let word = |index: usize| {
        // SAFETY: within `prefix`, of whose bytes any is a part of a number: an offset below 32, and three words.
        unsafe { (&raw const state.prefix).cast::<u8>().add(from).cast::<u64>().add(index).read_unaligned() }
    };
    let guess = looked_at(word(0), word(1), word(2), state.prefix_length.wrapping_sub(from as u32));
    Guess::from_wire(guess as u8).unwrap_or(Guess::Unknown)
}

/// The guess behind a prefix of `length` bytes, by its wire number.
///
/// Global, and its arguments are mere numbers: the verifier looks at it by itself and once, whatever its callers know.
/// Looked at from where it is called it was half of all that the verifier did (2026-11: 250,000 instructions of 570,000,
/// 23,000 each time that something in sight of the caller was different).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn looked_at(first: u64, second: u64, third: u64, length: u32) -> u32 {
    let words = [first, second, third];
    // SAFETY: as many bytes, none of which is invalid. Not copied one by one: that would be a loop to the verifier.
    let prefix = unsafe { &*(&raw const words).cast::<[u8; PREFIX]>() };
    // Nothing looks like nothing.
    if length == 0 { Guess::Unknown.to_wire().into() } else { sniff::sniff(prefix, length as usize).to_wire().into() }
}

/// Appends the call's first bytes to the prefix, until it is full.
///
/// A function of its own to the verifier, so that: whichever way it went through its rounds, its caller goes on in
/// the same state, and what follows is looked at once.
#[inline(never)]
fn collect(state: &mut State, buffers: Buffers, length: u32) {
    let all = u64::from(state.prefix_length) + u64::from(length);
    let goal = if all < PREFIX as u64 { all } else { PREFIX as u64 };
    for index in 0..SNIFF_SEGMENTS {
        // What changes from round to round goes through memory, where the verifier does not follow it: to it, each
        // round looks like the one before.
        // SAFETY: a field of the state, as in any other use. Volatile, so that it is not kept in a register.
        let have = u64::from(unsafe { (&raw const state.prefix_length).read_volatile() });
        if have >= goal {
            return;
        }
        let segment = match buffers.segment(index) {
            Ok(segment) => segment,
            Err(NoSegment::Beyond) => return,
            Err(NoSegment::Unreadable) => return unseen(state, Reason::Unreadable),
        };
        let left = goal - have;
        let taken = if segment.length < left { segment.length } else { left };
        let offset = verifier::masked(have, PREFIX_MASK) as usize;
        let size = verifier::masked(taken, PREFIX_MASK) as u32;
        // SAFETY: offset and size are below 32 each, and the room is 64.
        let failed = unsafe {
            bpf_probe_read_user(
                (&raw mut state.prefix).cast::<u8>().add(offset).cast(),
                size,
                segment.address as *const _,
            )
        };
        if failed != 0 {
            return unseen(state, Reason::Unreadable);
        }
        // SAFETY: as above.
        unsafe { (&raw mut state.prefix_length).write_volatile((have + taken) as u32) };
    }
}

/// Flags of calls that move nothing of the stream: a look at bytes which stay where they are, the error queue, and
/// (only when reading: written, they are part of it) urgent bytes.
#[inline(always)]
fn passed_over(direction: Direction) -> i32 {
    match direction {
        Direction::Read => MSG_PEEK | MSG_ERRQUEUE | MSG_OOB,
        Direction::Write => 0,
    }
}

/// One less than the power of two above [`PREFIX`].
const PREFIX_MASK: u64 = 31;

// `include/linux/socket.h`.
const MSG_OOB: i32 = 0x1;
const MSG_PEEK: i32 = 0x2;
const MSG_TRUNC: i32 = 0x20;
const MSG_ERRQUEUE: i32 = 0x2000;
