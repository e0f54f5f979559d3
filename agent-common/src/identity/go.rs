// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Go's goroutines: the one that a thread runs, the one that waits for a response, and the one that waits for what that will make of it.
//!
//! In: offsets that a release is known by, and a place in the stacks of goroutines that work for others. Out: the same again, in the
//! kernel. It says nothing about who is whose.

use super::{Arguments, pack, unpack};

/// From a thread of Go to its goroutine; from a goroutine that `net/http` keeps for a client's connection to the
/// goroutine that waits for the response on it; and from that, where it works for others, to the one that waits for its result.
///
/// Identity of any goroutine: its id · ids given out so far, 0 where unknown · the id of the goroutine that started it, or where
/// it reads of a request, ids that are still to be given out ([`Batch`]), 0 where unknown.
/// Identity in a connection's goroutine: 0 · the id of the one that waits · the id of the one that started the waiting one;
/// all zero if nobody waits. Where it reads of a response, and another one waits for what the waiting one does ([`Job`]): the address
/// of the channel at which it does, with [`Go::AWAITED`] · the id of the one that waits for the response · the id of that other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Go {
    /// Address of `runtime.sched.goidgen`; 0 where unknown.
    pub generated: u64,
    /// Offset of `g.goid`.
    pub goid: u16,
    /// Offset of `g.parentGoid`.
    pub parent: u16,
    /// How far below `g.stack.hi` the goroutines of a connection keep their `*persistConn`; 0 where unknown.
    pub connection: u16,
    /// Offset of `persistConn.reqch`, a channel of one element.
    pub requests: u16,
    /// `hchan.elemsize` of it: the size of a `requestAndChan`.
    pub element: u16,
    /// Offset of `requestAndChan.ch`, the channel that the caller waits at.
    pub reply: u16,
    /// Offset of `hchan.recvq`.
    pub receivers: u16,
    /// Offset of `m.p`; `m.nextp` and `m.oldp` follow.
    pub processor: u16,
    /// Offset of `p.goidcache`; `p.goidcacheend` follows. 0 where unknown.
    pub batch: u16,
    /// How goroutines that work for others are followed to those that wait: [`Job`]s, as words.
    pub jobs: [[u64; 4]; Self::JOBS],
}

/// Where goroutines with one way through the program's code keep the channel at which somebody waits for what they do: in a variable
/// that is in use as long as the call of the outermost function that leads on from there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Job {
    /// `g.startpc` of those goroutines; 0 where unknown.
    pub start: u64,
    /// How far below `g.stack.hi` the variable is.
    pub variable: u16,
    /// The variable is the channel itself; or, with an offset, the address of what has it there.
    pub field: Option<u16>,
    /// The calls that they are in, outermost first, down to that of the function that has the variable; none are zeros. A function's
    /// frame has one size, so that what is called from the outermost is always in the same place, and so on.
    pub calls: [Call; Self::CALLS],
}

/// A call that a goroutine is in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Call {
    /// How far below `g.stack.hi` its return address is; 0 is no call.
    pub below: u16,
    /// That address, counted from [`Job::start`].
    pub returns: i32,
}

impl Job {
    /// The wrapper that the compiler makes of a `go` statement, the loop that takes jobs, and what that calls for each of them.
    pub const CALLS: usize = 3;

    /// As four of the arguments.
    pub const fn to_words(self) -> [u64; 4] {
        let field = match self.field {
            Some(offset) => 1 + offset,
            None => 0,
        };
        let [first, second, third] = self.calls;
        [
            self.start | (self.variable as u64) << 48,
            first.to_word() | (field as u64) << 48,
            second.to_word(),
            third.to_word(),
        ]
    }

    /// Of four of the arguments.
    #[inline(always)]
    pub const fn from_words([start, first, second, third]: [u64; 4]) -> Self {
        let field = match (first >> 48) as u16 {
            0 => None,
            field => Some(field - 1),
        };
        let calls = [Call::from_word(first), Call::from_word(second), Call::from_word(third)];
        Self { start: start & ADDRESS, variable: (start >> 48) as u16, field, calls }
    }
}

impl Job {
    /// [`Self::start`] of one that is in words.
    #[inline(always)]
    pub const fn start_of([start, ..]: [u64; 4]) -> u64 {
        start & ADDRESS
    }
}

/// The bits of an address in user space.
const ADDRESS: u64 = (1 << 48) - 1;

impl Call {
    const fn to_word(self) -> u64 {
        self.returns as u32 as u64 | (self.below as u64) << 32
    }

    #[inline(always)]
    const fn from_word(word: u64) -> Self {
        Self { below: (word >> 32) as u16, returns: word as u32 as i32 }
    }
}

impl Go {
    /// Places in the program from which workers call: a pool has one, or one more for the job that a worker begins with.
    pub const JOBS: usize = 2;

    /// A bit in the first word of an identity that no goroutine's id and no address has.
    pub const AWAITED: u64 = 1 << 63;

    /// Offset of `g.sched.g`, which the linker knows as well: a goroutine's own address.
    pub const ITSELF: u16 = 72;

    /// `g.startpc` behind `g.parentGoid`, in 1.21 to 1.26.
    pub const START_BEHIND_PARENT: u16 = 24;

    /// As arguments.
    pub const fn to_arguments(self) -> Arguments {
        let goroutine = pack([self.goid, self.parent, self.connection, self.receivers]);
        let channels = pack([self.requests, self.element, self.reply, 0]);
        let batches = pack([self.processor, self.batch, 0, 0]);
        let [[a, b, c, d], [e, f, g, h]] = self.jobs;
        [self.generated, goroutine, channels, batches, a, b, c, d, e, f, g, h]
    }

    /// Of arguments.
    #[inline(always)]
    pub const fn from_arguments([generated, goroutine, channels, batches, a, b, c, d, e, f, g, h]: Arguments) -> Self {
        let [goid, parent, connection, receivers] = unpack(goroutine);
        let [requests, element, reply, _] = unpack(channels);
        let [processor, batch, _, _] = unpack(batches);
        let jobs = [[a, b, c, d], [e, f, g, h]];
        Self { generated, goid, parent, connection, requests, element, reply, receivers, processor, batch, jobs }
    }
}

/// Ids of goroutines that one of Go's processors has set aside for those it will start: from `next` to before `end`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Batch {
    /// The first.
    pub next: u64,
    /// The first behind them. Law: next <= end <= next + 16.
    pub end: u64,
}

impl Batch {
    /// `_GoidCacheBatch`, the same since 1.5.
    pub const MOST: u64 = 16;

    /// As one word; 0 where there are none, or what was read is nothing of the kind.
    #[inline(always)]
    pub const fn to_word(self) -> u64 {
        let left = self.end.wrapping_sub(self.next);
        if left == 0 || left > Self::MOST || self.next >> 48 != 0 { 0 } else { self.next << 8 | left }
    }

    /// Of one word.
    pub const fn from_word(word: u64) -> Self {
        let next = word >> 8;
        Self { next, end: next + (word & 0xff) }
    }

    /// Whether `id` is one of them.
    pub const fn contains(self, id: u64) -> bool {
        self.next <= id && id < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::{Batch, Call, Go, Job};

    #[test]
    fn layouts_survive_the_settings() {
        let call = Call { below: 176, returns: -1 };
        let far = Call { below: u16::MAX, returns: i32::MIN };
        let none = Call::default();
        let job = Job { start: (1 << 47) + 5, variable: u16::MAX, field: None, calls: [call, none, none] };
        for jobs in [
            [Job::default(); Go::JOBS],
            [job, Job { field: Some(0), calls: [far, call, none], ..job }],
            [Job { field: Some(120), calls: [call, far, Call { below: 1, returns: i32::MAX }], ..job }, job],
        ] {
            let layout = Go {
                generated: 1 << 47,
                goid: 152,
                parent: 280,
                connection: 56,
                requests: 128,
                element: 40,
                reply: 8,
                receivers: u16::MAX,
                processor: 208,
                batch: 384,
                jobs: jobs.map(Job::to_words),
            };
            assert_eq!(Go::from_arguments(layout.to_arguments()), layout);
            assert_eq!(layout.jobs.map(Job::from_words), jobs);
            assert_eq!(layout.jobs.map(Job::start_of), jobs.map(|job| job.start));
        }
    }

    #[test]
    fn a_batch_is_one_word() {
        let batch = Batch { next: 0x1234_5678_9abc, end: 0x1234_5678_9acc };
        assert_eq!(Batch::from_word(batch.to_word()), batch);
        assert!(batch.contains(batch.next) && batch.contains(batch.end - 1) && !batch.contains(batch.end));
        for (next, end) in [(7, 7), (8, 7), (7, 24), (1 << 48, (1 << 48) + 1)] {
            assert_eq!(Batch { next, end }.to_word(), 0, "{next} to {end}");
        }
        assert!(!Batch::from_word(0).contains(0), "of none, none is one");
    }
}
