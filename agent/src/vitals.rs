// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counters of what was seen, made and lost. Plain numbers: every stage adds to them, nobody decides by them.
//!
//! Law of requests, at the end of every batch: `requests = spans + open + Σ lost.requests`. Law of spans, once the
//! outputs are flushed: each output took, left unsampled, or counted in `lost.spans` every one of `spans`. What is
//! lost below the level of requests has books of its own ([`Losses`]) and is part of neither law: nobody knows how many
//! requests were in records that nobody read.

use serde::{Serialize, Serializer};
use spantap_common::{loss::Reason, opaque::Opaque};

/// Everything that is counted.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Vitals {
    /// Ring records decoded.
    pub records: u64,
    /// Sockets introduced.
    pub sockets: u64,
    /// Requests seen: whole ones, and those of which enough was seen to know that they were made.
    pub requests: u64,
    /// Spans finished.
    pub spans: u64,
    /// Places in streams where a record was missing: what was lost by it stands in `lost`.
    pub gaps: u64,
    /// Records of connections that are not followed (any more).
    pub strays: u64,
    /// Pieces of connections that were left before their end: upgraded, of another protocol after all, or beyond
    /// recovery after a loss.
    pub unread: u64,
    /// Connections given up because nothing was heard of them for too long: their close was lost, or they are idle.
    pub expired: u64,
    /// Connections among `sockets` that were open before the agent.
    pub older: u64,
    /// Those of them that were met in the middle of a message: it was not followed, and the next one was.
    pub midway: u64,
    /// Events that the kernel showed to no probe, at most. What moved in them is a gap, or was never seen.
    pub missed: u64,
    /// Sockets left alone because what they carry is not followed, by what it looks like.
    pub left_alone: LeftAlone,
    /// Spans not exported because their trace is not sampled, or because their process exports its own; the local view
    /// shows them all the same.
    pub unsampled: u64,
    /// Those of the second kind.
    pub instrumented: u64,
    /// What was lost.
    pub lost: Losses,
    /// Spans by how their parent was found.
    pub links: Links,
    /// What parsers made of what they were given.
    pub protocols: Protocols,
    /// How often the agent did less, and more again.
    pub steps: Steps,
}

/// Parsers' results by protocol, of those that were spoken. Law: no more than there are protocols.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Protocols(Vec<Parsed>);

/// What was made of one protocol's messages.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Parsed {
    /// Its name.
    pub protocol: &'static str,
    /// SERVER spans. Law, over all protocols at the end of every batch: Σ `served` + Σ `called` = [`Vitals::spans`].
    pub served: u64,
    /// CLIENT spans.
    pub called: u64,
    /// Messages that its parser could not follow to their end, by why not. Those of lost requests and parts are in
    /// [`Losses`] as well; an answer that is none has a span that says so.
    pub errors: Tally,
}

impl Protocols {
    /// The numbers of `protocol`, to be counted up.
    pub fn of(&mut self, protocol: &'static str) -> &mut Parsed {
        let known = self.0.iter().position(|parsed| parsed.protocol == protocol);
        let place = known.unwrap_or_else(|| {
            self.0.push(Parsed { protocol, ..Parsed::default() });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    /// All numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Parsed> {
        self.0.iter()
    }
}

/// How full a bounded table is, and what it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fill {
    /// Its name.
    pub table: &'static str,
    /// Entries.
    pub entries: u64,
    /// Entries that there is room for.
    pub capacity: u64,
    /// Bytes that the entries take: their number times what one usually does.
    pub bytes: u64,
}

impl Fill {
    /// Of `entries` that take `each` so many bytes.
    pub fn of(table: &'static str, entries: usize, capacity: usize, each: usize) -> Self {
        let bytes = entries.saturating_mul(each) as u64;
        Self { table, entries: entries as u64, capacity: capacity as u64, bytes }
    }
}

/// Steps of the ladder that the agent takes when it exceeds what it may take of the machine.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Steps {
    /// To less.
    pub down: u64,
    /// To more.
    pub up: u64,
    /// How far down it is: 0 is at the top, where everything is done.
    pub rung: u64,
}

/// Sockets by what they carry; counted by the probes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LeftAlone(pub [u64; Opaque::COUNT]);

impl LeftAlone {
    /// How many look like this.
    pub fn of(&self, opaque: Opaque) -> u64 {
        self.0[opaque as usize]
    }
}

impl Serialize for LeftAlone {
    /// The kinds that occurred, by label.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kinds = Opaque::ALL.iter().map(|opaque| (opaque.label(), self.of(*opaque)));
        serializer.collect_map(kinds.filter(|(_, n)| *n > 0))
    }
}

/// Losses by what they are losses of.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Losses {
    /// Requests that were seen and became no span.
    pub requests: Tally,
    /// Parts of what was said: the head of a response whose span goes without a status, a response that nobody is known
    /// to have asked for, a connection on which nothing can be followed any more.
    pub parts: Tally,
    /// Records, or looks at memory, that the probes or the decoder had to go without. What they cost is counted as
    /// requests or parts where it comes out.
    pub records: Tally,
    /// Finished spans that an output did not take.
    pub spans: Tally,
}

/// How often something happened, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally([u64; Reason::COUNT]);

/// How parents were found.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Links {
    /// The request's own context header.
    pub header: u64,
    /// Both ends of one connection on this host.
    pub socket: u64,
    /// The task of the runtime that wrote the answer.
    pub runtime: u64,
    /// One open request on the calling thread.
    pub thread: u64,
    /// A request id that was passed on.
    pub content: u64,
    /// Turns of an event loop, both ways.
    pub turn: u64,
    /// Turns of an event loop, from the answer back.
    pub reply: u64,
    /// Chains of wakes.
    pub handoff: u64,
    /// Statistics.
    pub assigned: u64,
    /// Calls for which the evidence contradicted itself: left without a parent.
    pub contradicted: u64,
    /// Calls of a process that had open requests, none of which could be proven to be the caller.
    pub unknown: u64,
    /// Spans that begin their trace because nothing was there to call them.
    pub root: u64,
    /// Calls that waited for evidence as long as they may.
    pub overdue: u64,
    /// Times that a source of evidence found itself wrong about a process, and fell silent for a while.
    pub distrusted: u64,
    /// Calls that statistics had no time for.
    pub unassigned: u64,
    /// Threads that were started for requests, and calls of theirs, that were not followed since too many were.
    pub unfollowed: u64,
    /// Links to likely parents that were left out, for their trace was not known yet.
    pub unlinked: u64,
    /// Acts of processes that were judged early, for want of room.
    pub hurried: u64,
    /// Acts that came when later ones had been judged already: a head in pieces, an end that only silence told, a probe
    /// that was held up.
    pub late: u64,
    /// Ends of requests whose header was used for so many others that they begin a trace of their own, with a link.
    pub reused: u64,
}

impl Vitals {
    /// Whether every request seen is accounted for while `open` of them are under way.
    pub fn balance(&self, open: usize) -> bool {
        self.requests == self.spans + open as u64 + self.lost.requests.total()
    }
}

impl Losses {
    /// The books by name, those that matter most first.
    pub fn books(&self) -> [(&'static str, &Tally); 4] {
        [("request", &self.requests), ("part", &self.parts), ("record", &self.records), ("span", &self.spans)]
    }

    /// All losses by reason, whatever they are losses of.
    pub fn by_reason(&self) -> Tally {
        let mut all = Tally::default();
        for (_, tally) in self.books() {
            all.absorb(tally);
        }
        all
    }
}

impl Tally {
    /// Counts `n` for `reason`.
    pub fn add(&mut self, reason: Reason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// Counts everything that `other` counted.
    pub fn absorb(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// What was counted for `reason`.
    pub fn of(&self, reason: Reason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.iter().map(|reason| (*reason, self.of(*reason))).filter(|(_, n)| *n > 0)
    }

    /// Everything together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What was counted here since `earlier`, an earlier state of the same books.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = *self;
        for (count, known) in new.0.iter_mut().zip(earlier.0) {
            *count = count.saturating_sub(known);
        }
        new
    }
}

impl From<[u64; Reason::COUNT]> for Tally {
    fn from(counts: [u64; Reason::COUNT]) -> Self {
        Self(counts)
    }
}

impl Serialize for Tally {
    /// The reasons that occurred, by label.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(reason, n)| (reason.label(), n)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lost_requests_are_part_of_the_law() {
        let mut vitals = Vitals { requests: 5, spans: 3, ..Vitals::default() };
        vitals.lost.requests.add(Reason::Gap, 1);
        vitals.lost.records.add(Reason::RingFull, 100);
        vitals.lost.parts.add(Reason::Gap, 7);
        vitals.lost.spans.add(Reason::QueueFull, 2);
        assert!(vitals.balance(1));
        assert!(!vitals.balance(0) && !vitals.balance(2));
    }

    #[test]
    fn every_book_is_part_of_the_sum() {
        let mut losses = Losses::default();
        for tally in [&mut losses.requests, &mut losses.parts, &mut losses.records, &mut losses.spans] {
            tally.add(Reason::TableFull, 2);
        }
        losses.records.add(Reason::RingFull, 5);
        let sum: Vec<_> = losses.by_reason().iter().collect();
        assert_eq!(sum, [(Reason::RingFull, 5), (Reason::TableFull, 8)]);
    }

    #[test]
    fn what_is_new_is_the_difference() {
        let mut before = Tally::default();
        before.add(Reason::RingFull, 3);
        let mut after = before;
        after.add(Reason::RingFull, 4);
        after.add(Reason::Gap, 1);
        let new = after.since(&before);
        assert_eq!((new.of(Reason::RingFull), new.of(Reason::Gap), new.total()), (4, 1, 5));
    }
}
