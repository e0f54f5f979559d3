// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Puts the records of one connection into their order.
//!
//! Two things disorder records. A probe runs after its call, so a thread that reads the response may be recorded before
//! the thread that wrote the request; every record says how far the other direction had come, and waits for that. And
//! two threads may take turns on one direction; positions sort them. Whatever is still missing after [`PATIENCE`] is a
//! gap.
//!
//! A write waits for reads because a request may be lost: its answer must not pass for that of an earlier one. The two
//! wait for each other when the probe of a write ran so late that what it brought about had been read; then the write
//! goes first.
//!
//! Positions are read when the probe runs, and a thread that moves bytes of the same direction meanwhile moves them too: a
//! record's position may be too high by what others moved. Then nothing covers the place where it belongs, and two records
//! claim one place. Whose bytes came first cannot be told from them, so all of them are a gap, as long as they are together.

use std::{collections::VecDeque, time::Duration};

use spantap_common::event::{data::Direction, socket::Shut};

use crate::{
    event::{Data, End, Socket},
    time::{Moment, Timestamp},
};
use smallvec::SmallVec;

/// The next thing that happened on a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// Bytes moved; `position` is that of the first.
    Bytes {
        /// Which way.
        direction: Direction,
        /// The bytes.
        bytes: &'a [u8],
        /// Position of the first one in its direction, modulo 2^32.
        position: u32,
        /// The call that moved them.
        at: Moment,
    },
    /// Bytes moved that nobody copied.
    Gap {
        /// Which way.
        direction: Direction,
        /// How many. Law: missing > 0.
        missing: u64,
        /// The last of them, as far as known.
        tail: &'a [u8],
        /// The call that moved them; for bytes whose record is missing, the next thing that was seen.
        at: Moment,
        /// Whether a record is missing, which is a loss, or the kernel left the bytes out knowingly.
        lost: bool,
    },
    /// Nothing more will come in this direction.
    End {
        /// Which way.
        direction: Direction,
        /// When this side learned of it.
        at: Moment,
    },
    /// The connection is gone.
    Closed {
        /// When.
        at: Moment,
        /// `sk_err`: 0 for an orderly end.
        errno: u16,
    },
}

/// Orders one connection. Positions are TCP sequence numbers and wrap.
#[derive(Debug)]
pub struct Assembler {
    /// Position of the next byte the process will read, as far as assembled.
    read: u32,
    /// Position of the next byte the process will write, as far as assembled.
    write: u32,
    /// Direction of the answers.
    answers: Direction,
    /// What came too early, in order of arrival. Law: held.len() <= MOST_HELD.
    held: VecDeque<Held>,
}

impl Assembler {
    /// An assembler that begins where the introduction of the socket says.
    pub fn new(socket: &Socket) -> Self {
        let answers = match socket.requests {
            Direction::Read => Direction::Write,
            Direction::Write => Direction::Read,
        };
        Self { read: socket.read_position, write: socket.write_position, answers, held: VecDeque::new() }
    }

    /// Takes a data event; `sink` gets what is now in order.
    pub fn data(&mut self, data: &Data<'_>, sink: &mut dyn FnMut(Piece<'_>)) {
        if self.held.is_empty() && self.is_next(data) {
            self.deliver(data, sink);
            return;
        }
        self.hold(Held::Data(Box::new(HeldData::from(data))), sink);
    }

    /// Takes a shut event; `sink` gets what is now in order.
    pub fn shut(&mut self, shut: &End, sink: &mut dyn FnMut(Piece<'_>)) {
        if self.held.is_empty() && self.is_reached(shut) {
            self.finish(shut, sink);
            return;
        }
        self.hold(Held::Shut(*shut), sink);
    }

    /// Gives up waiting for records that are overdue at `now`; `sink` gets what they held up.
    pub fn tick(&mut self, now: Timestamp, sink: &mut dyn FnMut(Piece<'_>)) {
        while let Some(first) = self.held.front() {
            if now.since(first.at().at) < PATIENCE {
                return;
            }
            self.force_first(sink);
            self.release(sink);
        }
    }

    /// Whether `socket` is introduced where this connection stands: positions of another connection begin at random.
    pub fn is_at(&self, socket: &Socket) -> bool {
        (self.read, self.write) == (socket.read_position, socket.write_position)
    }

    /// Position behind the last byte of `direction` that was handed out, modulo 2^32.
    pub fn reached(&self, direction: Direction) -> u32 {
        self.next(direction)
    }

    /// Whether something is waiting for records that have not come.
    pub fn is_waiting(&self) -> bool {
        !self.held.is_empty()
    }

    /// When the earliest of what is waiting for records that have not come was made.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.held.iter().map(|held| held.at().at).min()
    }

    // --- Order ---

    /// In its direction nothing is missing before it, nor what had moved in the other one.
    fn is_next(&self, data: &Data<'_>) -> bool {
        match data.direction {
            Direction::Write => ahead(data.position, self.write) <= 0 && self.has_read(data.opposite),
            Direction::Read => ahead(data.position, self.read) <= 0 && ahead(data.opposite, self.write) <= 0,
        }
    }

    /// Whether everything up to `position` was read and is here. Reads that are held because they wait for a write count:
    /// it may be the one that asks.
    fn has_read(&self, position: u32) -> bool {
        let mut read = self.read;
        while ahead(position, read) > 0 {
            let next = self.held.iter().find_map(|held| match held {
                Held::Data(data) if data.event.direction == Direction::Read => {
                    let end = data.event.position.wrapping_add(data.event.length);
                    let waits = ahead(data.event.opposite, self.write) > 0;
                    (waits && ahead(data.event.position, read) <= 0 && ahead(end, read) > 0).then_some(end)
                }
                Held::Data(_) | Held::Shut(_) => None,
            });
            match next {
                Some(end) => read = end,
                None => return false,
            }
        }
        true
    }

    /// Everything before the end was assembled.
    fn is_reached(&self, shut: &End) -> bool {
        let read = ahead(shut.read_position, self.read) <= 0;
        let write = ahead(shut.write_position, self.write) <= 0;
        match shut.how {
            Shut::ReadEnd => read,
            Shut::WriteEnd => write,
            Shut::Closed => read && write,
        }
    }

    fn hold(&mut self, held: Held, sink: &mut dyn FnMut(Piece<'_>)) {
        let moved = match &held {
            Held::Data(data) => Some(data.event.direction),
            Held::Shut(_) => None,
        };
        self.held.push_back(held);
        if let Some(direction) = moved
            && let Some(end) = self.disputed(direction, Complete::Yes)
        {
            self.drop_claims(direction, end, sink);
        }
        self.release(sink);
        while self.held.len() > MOST_HELD {
            self.force_first(sink);
            self.release(sink);
        }
    }

    /// Delivers whatever has become next, until nothing is.
    fn release(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        while let Some(index) = self.held.iter().enumerate().position(|(index, held)| match held {
            Held::Data(data) => self.is_next(&data.view()),
            // An end must not overtake what was held before it.
            Held::Shut(shut) => index == 0 && self.is_reached(shut),
        }) {
            if let Some(held) = self.held.remove(index) {
                self.take(&held, sink);
            }
        }
    }

    /// Declares what the first held event waits for a gap, and delivers it. The other direction goes first: a request
    /// that is missing was written before its response was read, or read before its response was written.
    ///
    /// A request goes before what is missing of the answers: that may be its own, if its probe ran late. Taking it for
    /// an earlier one would give the next answer to the wrong request; the other way round one more goes without.
    fn force_first(&mut self, sink: &mut dyn FnMut(Piece<'_>)) {
        if let Some(Held::Data(first)) = self.held.front() {
            let direction = first.event.direction;
            if let Some(end) = self.disputed(direction, Complete::No) {
                return self.drop_claims(direction, end, sink);
            }
        }
        let Some(held) = self.held.pop_front() else { return };
        let at = held.at();
        match &held {
            Held::Data(data) => {
                let Data { direction, position, opposite, .. } = data.event;
                if direction == Direction::Read {
                    self.skip(Direction::Write, opposite, at, sink);
                } else if self.answers == Direction::Write {
                    self.skip(Direction::Read, opposite, at, sink);
                }
                self.skip(direction, position, at, sink);
                if direction == Direction::Write && self.answers == Direction::Read {
                    self.take(&held, sink);
                    return self.skip(Direction::Read, opposite, at, sink);
                }
            }
            Held::Shut(shut) => {
                if matches!(shut.how, Shut::WriteEnd | Shut::Closed) {
                    self.skip(Direction::Write, shut.write_position, at, sink);
                }
                if matches!(shut.how, Shut::ReadEnd | Shut::Closed) {
                    self.skip(Direction::Read, shut.read_position, at, sink);
                }
            }
        }
        self.take(&held, sink);
    }

    // --- Places that two records claim ---

    /// Where what nobody can put into order ends, if two held records of `direction` claim one place; only once they
    /// account for every byte up to there, or as far as they are here.
    fn disputed(&self, direction: Direction, complete: Complete) -> Option<u32> {
        let next = self.next(direction);
        // From where to where, as seen from `next`.
        let claim = |held: &Held| match held {
            Held::Data(data) if data.event.direction == direction => {
                let start = i64::from(ahead(data.event.position, next));
                Some((start + i64::from(data.event.length), start))
            }
            Held::Data(_) | Held::Shut(_) => None,
        };
        let mut claims: SmallVec<[_; 8]> = self.held.iter().filter_map(claim).collect();
        claims.sort_unstable();
        let (mut reached, mut moved, mut disputed, mut found) = (0, 0, false, None);
        for (end, start) in claims {
            // What lies behind `next` is known already.
            disputed |= start.max(0) < reached;
            moved += (end - start.max(0)).max(0);
            reached = end.max(reached);
            if disputed && (complete == Complete::No || moved >= reached) {
                found = Some(reached);
                if complete == Complete::Yes {
                    break;
                }
            }
        }
        // `reached` is a difference of two positions.
        found.and_then(|end| u32::try_from(end).ok()).map(|end| next.wrapping_add(end))
    }

    /// Declares everything up to `end` a gap, and what claims a part of it with it.
    fn drop_claims(&mut self, direction: Direction, end: u32, sink: &mut dyn FnMut(Piece<'_>)) {
        let is_within = |held: &Held| matches!(held, Held::Data(data) if data.event.direction == direction && ahead(data.event.position, end) < 0);
        let last = self.held.iter().filter(|held| is_within(held)).map(Held::at).max_by_key(|moment| moment.at);
        self.held.retain(|held| !is_within(held));
        if let Some(at) = last {
            self.skip(direction, end, at, sink);
        }
    }

    // --- Delivery ---

    fn take(&mut self, held: &Held, sink: &mut dyn FnMut(Piece<'_>)) {
        match held {
            Held::Shut(shut) => self.finish(shut, sink),
            Held::Data(data) => self.deliver(&data.view(), sink),
        }
    }

    fn deliver(&mut self, data: &Data<'_>, sink: &mut dyn FnMut(Piece<'_>)) {
        let Data { direction, moment: at, .. } = *data;
        let next = self.next_mut(direction);
        // Bytes that were taken for missing, or that another thread's record claimed, are not told twice.
        let known = next.wrapping_sub(data.position).min(data.length);
        *next = next.wrapping_add(data.length - known);
        let bytes = data.bytes.get(known as usize..).unwrap_or_default();
        let position = data.position.wrapping_add(known);
        if !bytes.is_empty() {
            sink(Piece::Bytes { direction, bytes, position, at });
        }
        let missing = u64::from(data.length - known).saturating_sub(bytes.len() as u64);
        if missing > 0 {
            let known_tail = usize::try_from(missing).unwrap_or(usize::MAX).min(data.tail.len());
            let tail = &data.tail[data.tail.len() - known_tail..];
            sink(Piece::Gap { direction, missing, tail, at, lost: false });
        }
    }

    fn skip(&mut self, direction: Direction, to: u32, at: Moment, sink: &mut dyn FnMut(Piece<'_>)) {
        let next = self.next_mut(direction);
        if ahead(to, *next) <= 0 {
            return;
        }
        let missing = u64::from(to.wrapping_sub(*next));
        *next = to;
        sink(Piece::Gap { direction, missing, tail: &[], at, lost: true });
    }

    fn finish(&mut self, shut: &End, sink: &mut dyn FnMut(Piece<'_>)) {
        match shut.how {
            Shut::ReadEnd => sink(Piece::End { direction: Direction::Read, at: shut.moment }),
            Shut::WriteEnd => sink(Piece::End { direction: Direction::Write, at: shut.moment }),
            Shut::Closed => sink(Piece::Closed { at: shut.moment, errno: shut.errno }),
        }
    }

    fn next(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Read => self.read,
            Direction::Write => self.write,
        }
    }

    fn next_mut(&mut self, direction: Direction) -> &mut u32 {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

/// How far `position` is ahead of `next`, in sequence-number arithmetic (RFC 9293 section 3.4).
fn ahead(position: u32, next: u32) -> i32 {
    position.wrapping_sub(next).cast_signed()
}

/// Whether records have to account for every byte.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Complete {
    Yes,
    No,
}

/// An event that came too early.
#[derive(Debug)]
enum Held {
    Data(Box<HeldData>),
    Shut(End),
}

impl Held {
    fn at(&self) -> Moment {
        match self {
            Self::Data(data) => data.event.moment,
            Self::Shut(shut) => shut.moment,
        }
    }
}

/// A data event with bytes of its own.
#[derive(Debug)]
struct HeldData {
    event: Data<'static>,
    bytes: Box<[u8]>,
    tail: Box<[u8]>,
}

impl HeldData {
    fn view(&self) -> Data<'_> {
        Data { bytes: &self.bytes, tail: &self.tail, ..self.event }
    }
}

impl From<&Data<'_>> for HeldData {
    fn from(data: &Data<'_>) -> Self {
        Self { event: Data { bytes: &[], tail: &[], ..*data }, bytes: data.bytes.into(), tail: data.tail.into() }
    }
}

/// How long a record may be overdue: a probe runs when its call returns, which a busy machine can put off by several
/// scheduler slices of a few milliseconds; a span must be visible 1.5 s after its end.
pub const PATIENCE: Duration = Duration::from_millis(100);

/// Records held for one connection before the oldest is forced: a burst of calls by a thread whose partner was
/// preempted. At the largest record it bounds a connection's share to 2 MiB.
const MOST_HELD: usize = 64;

#[cfg(test)]
mod tests {
    use spantap_common::{
        endpoint::Endpoint,
        event::{data::Path, socket::Origin},
        sniff::Guess,
    };

    use super::*;
    use crate::event::SocketId;

    /// One connection of a client whose streams begin at `READ` and `WRITE`; renders what comes out, one word a piece.
    struct Wire {
        assembler: Assembler,
        said: Vec<String>,
    }

    /// Just below the wrap, so that every test crosses it.
    const READ: u32 = u32::MAX - 2;
    const WRITE: u32 = u32::MAX - 1;

    impl Wire {
        fn new() -> Self {
            Self::with(Direction::Write)
        }

        /// A server's end: requests are read.
        fn served() -> Self {
            Self::with(Direction::Read)
        }

        fn with(requests: Direction) -> Self {
            let socket = Socket {
                id: SocketId(1),
                moment: Moment::default(),
                cgroup: 0,
                connected: None,
                local: Endpoint::v4([127, 0, 0, 1], 40_000),
                peer: Endpoint::v4([127, 0, 0, 1], 80),
                netns: 0,
                read_position: READ,
                write_position: WRITE,
                origin: Origin::Connected,
                requests,
                protocol: Guess::Http1,
                midway: false,
                unix: None,
            };
            Self { assembler: Assembler::new(&socket), said: Vec::new() }
        }

        fn data(
            mut self,
            at_ms: u64,
            direction: Direction,
            from: u32,
            bytes: &str,
            opposite: u32,
            length: u32,
        ) -> Self {
            let (position, opposite) = match direction {
                Direction::Read => (READ.wrapping_add(from), WRITE.wrapping_add(opposite)),
                Direction::Write => (WRITE.wrapping_add(from), READ.wrapping_add(opposite)),
            };
            let data = Data {
                socket: SocketId(1),
                moment: at(at_ms),
                direction,
                position,
                opposite,
                length,
                path: Path::Memory,
                bytes: bytes.as_bytes(),
                tail: b"",
            };
            let said = &mut self.said;
            self.assembler.data(&data, &mut |piece| said.push(render(piece)));
            self
        }

        fn read(self, at_ms: u64, from: u32, bytes: &str, written: u32) -> Self {
            let length = bytes.len() as u32;
            self.data(at_ms, Direction::Read, from, bytes, written, length)
        }

        fn write(self, at_ms: u64, from: u32, bytes: &str, was_read: u32) -> Self {
            let length = bytes.len() as u32;
            self.data(at_ms, Direction::Write, from, bytes, was_read, length)
        }

        fn shut(mut self, at_ms: u64, how: Shut, was_read: u32, written: u32) -> Self {
            let shut = End {
                socket: SocketId(1),
                moment: at(at_ms),
                how,
                errno: 0,
                read_position: READ.wrapping_add(was_read),
                write_position: WRITE.wrapping_add(written),
            };
            let said = &mut self.said;
            self.assembler.shut(&shut, &mut |piece| said.push(render(piece)));
            self
        }

        fn tick(mut self, now_ms: u64) -> Self {
            let said = &mut self.said;
            self.assembler.tick(at(now_ms).at, &mut |piece| said.push(render(piece)));
            self
        }

        fn says(&self, expected: &str) {
            assert_eq!(self.said.join(" "), expected);
        }
    }

    fn at(ms: u64) -> Moment {
        Moment { at: Timestamp(ms * 1_000_000), ..Moment::default() }
    }

    fn render(piece: Piece<'_>) -> String {
        let arrow = |direction| if direction == Direction::Read { '<' } else { '>' };
        match piece {
            Piece::Bytes { direction, bytes, .. } => format!("{}{}", arrow(direction), String::from_utf8_lossy(bytes)),
            Piece::Gap { direction, missing, lost, .. } => {
                format!("{}{}{missing}", arrow(direction), if lost { "lost" } else { "skip" })
            }
            Piece::End { direction, .. } => format!("{}end", arrow(direction)),
            Piece::Closed { .. } => "closed".into(),
        }
    }

    #[test]
    fn what_comes_in_order_goes_straight_through() {
        Wire::new()
            .write(1, 0, "ask", 0)
            .read(2, 0, "answer", 3)
            .shut(3, Shut::Closed, 6, 3)
            .says(">ask <answer closed");
    }

    #[test]
    fn a_read_waits_for_the_write_that_went_before_it() {
        Wire::new().read(2, 0, "answer", 3).write(3, 0, "ask", 6).says(">ask <answer");
    }

    #[test]
    fn two_threads_writing_in_turn_are_sorted() {
        Wire::new().write(2, 3, "two", 0).write(1, 0, "one", 0).says(">one >two");
    }

    #[test]
    fn what_two_threads_claim_is_a_gap_as_long_as_both() {
        // Both wrote before either probe ran: each reads the position that both have reached.
        let wire = Wire::new().write(1, 0, "ask", 0).write(2, 10, "three", 0);
        wire.says(">ask");
        wire.write(2, 8, "one two", 0).write(3, 15, "next", 0).says(">ask >lost12 >next");
        // The record of four bytes before them is missing.
        let wire = Wire::new().write(1, 0, "ask", 0).write(2, 10, "one", 0).write(2, 10, "two", 0);
        wire.says(">ask");
        wire.tick(110).write(111, 13, "next", 0).says(">ask >lost10 >next");
        // Nothing is waited for once they account for every byte.
        let wire = Wire::new().write(1, 6, "one", 0).write(2, 3, "second", 0).write(3, 9, "next", 0);
        wire.says(">lost9 >next");
        // Three of them, the last of which is at its place.
        let wire = Wire::new().write(1, 4, "ab", 0).write(2, 4, "cd", 0).write(3, 4, "ef", 0);
        wire.says(">lost6");
    }

    #[test]
    fn an_answer_waits_for_the_request_that_went_before_it() {
        let wire = Wire::served().read(1, 0, "ask", 0).write(2, 0, "answer", 3).write(4, 6, "other", 8);
        wire.says("<ask >answer");
        wire.tick(110).says("<ask >answer <lost5 >other");
    }

    #[test]
    fn a_request_waits_for_the_answer_that_went_before_it_and_goes_before_what_is_missing() {
        let wire = Wire::new().write(1, 0, "ask", 0).write(4, 3, "other", 6);
        wire.says(">ask");
        wire.tick(110).says(">ask >other <lost6");
        Wire::new().write(1, 0, "ask", 0).write(4, 3, "other", 6).read(3, 0, "answer", 3).says(">ask <answer >other");
    }

    #[test]
    fn an_answer_whose_probe_is_late_goes_before_the_next_request() {
        // The client had the answer, and its next request was read, before the answer's probe ran: both claim that the
        // other went before.
        let wire = Wire::served().read(1, 0, "ask", 0).read(2, 3, "next", 6).write(3, 0, "answer", 7);
        wire.says("<ask >answer <next");
        let wire = Wire::served().read(1, 0, "ask", 0).write(3, 0, "answer", 7).read(2, 3, "next", 6);
        wire.says("<ask >answer <next");
    }

    #[test]
    fn a_record_that_never_comes_is_a_gap_after_the_patience() {
        let wire = Wire::new().read(10, 0, "answer", 3).tick(50);
        wire.says("");
        wire.tick(110).says(">lost3 <answer");
    }

    #[test]
    fn bytes_declared_lost_are_not_told_twice() {
        Wire::new().read(0, 0, "answer", 3).tick(200).write(201, 0, "asking", 6).says(">lost3 <answer >ing");
    }

    #[test]
    fn bytes_that_were_only_counted_are_a_gap_but_no_loss() {
        Wire::new().data(1, Direction::Read, 0, "head", 0, 10).says("<head <skip6");
    }

    #[test]
    fn a_half_closed_connection_is_read_to_its_end() {
        Wire::new()
            .write(1, 0, "ask", 0)
            .shut(2, Shut::WriteEnd, 0, 3)
            .read(3, 0, "answer", 3)
            .shut(4, Shut::ReadEnd, 6, 3)
            .says(">ask >end <answer <end");
    }

    #[test]
    fn a_close_waits_for_the_last_record() {
        let wire = Wire::new().write(1, 0, "ask", 0).shut(2, Shut::Closed, 6, 3);
        wire.says(">ask");
        wire.read(3, 0, "answer", 3).says(">ask <answer closed");
    }

    #[test]
    fn a_close_does_not_wait_for_ever() {
        Wire::new().shut(2, Shut::Closed, 6, 4).tick(102).says(">lost4 <lost6 closed");
    }

    #[test]
    fn an_old_duplicate_moves_nothing_back() {
        Wire::new().write(1, 0, "ask", 0).write(2, 0, "as", 0).write(3, 3, "more", 0).says(">ask >more");
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut wire = Wire::new();
        for index in 1..=100 {
            wire = wire.write(1, index * 2, "x", 0);
        }
        assert!(wire.assembler.held.len() <= MOST_HELD);
        assert!(wire.said.len() >= 36, "the oldest were forced: {}", wire.said.len());
    }
}
