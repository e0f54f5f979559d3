// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long the ring may be left alone.
//!
//! In: how much was in it and since when, each time that it was drained. Out: the time until the next look. It knows
//! neither clock nor ring, and trusts the near future to be like the near past: the ring's room is for where it is not.

use std::time::Duration;

/// Decides when the ring is looked at again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Bytes that may gather between two looks.
    share: u64,
}

impl Pace {
    /// For a ring of `ring_bytes`.
    pub fn new(ring_bytes: u32) -> Self {
        Self { share: (u64::from(ring_bytes) / SHARE).max(1) }
    }

    /// How long to sleep, when `bytes` have gathered within `since`.
    pub fn rest(&self, bytes: u64, since: Duration) -> Duration {
        if bytes == 0 {
            return LONGEST;
        }
        let fills_in = since.as_secs_f64() * self.share as f64 / bytes as f64;
        Duration::from_secs_f64(fills_in.min(LONGEST.as_secs_f64())).max(SHORTEST)
    }
}

/// The part of the ring that is to be full when it is looked at, at most: a quarter leaves room for a reader that is
/// three times as late as it meant to be, or for traffic that has quadrupled meanwhile.
const SHARE: u64 = 4;

/// Each look takes the processor away from somebody, and caches with it: not more often than a span may be late, nor than
/// a process that has just begun may be gone before its facts were read.
const LONGEST: Duration = Duration::from_millis(10);

/// A ring that is outrun is not helped by a reader that never lets go.
const SHORTEST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_never_more_than_a_quarter_full_at_an_even_rate() {
        let pace = Pace::new(4 << 20);
        let ms = Duration::from_millis;
        for (claim, bytes, since, expected) in [
            ("nothing came", 0, ms(10), ms(10)),
            ("a drop", 1000, ms(10), ms(10)),
            ("40,000 records of 350 bytes a second", 140_000, ms(10), ms(10)),
            ("just a quarter", 1 << 20, ms(10), ms(10)),
            ("twice as much", 2 << 20, ms(10), ms(5)),
            ("a full ring after a late look", 4 << 20, ms(40), ms(10)),
            ("outrun", 4 << 20, ms(1), ms(1)),
        ] {
            assert_eq!(pace.rest(bytes, since), expected, "{claim}");
        }
    }

    #[test]
    fn the_smallest_ring_is_looked_at_too() {
        assert_eq!(Pace::new(4096).rest(u64::MAX, Duration::from_nanos(1)), SHORTEST);
    }
}
