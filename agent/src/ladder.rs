// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much the agent does, so that it takes no more of the machine than it may.
//!
//! In: a [`Budget`], and once a second what the agent has taken and lost, with the time. Out: a [`Step`] where it is to do
//! less, or may do more again. It has no clock, reads no usage, and takes no step itself: `run.rs` does.
//!
//! ```text
//!  Full ⇄ Sampled ⇄ Counted ⇄ Detached
//!   │        │         │         └ no probe is attached
//!   │        │         └ the probes count calls of followed connections, and copy nothing
//!   │        └ a share of the traces leaves; metrics are made of all
//!   └ every request is a span
//! ```
//!
//! Down after [`PATIENCE`] above the budget, up after a calm below half of it: one rung at a time. Where nothing is
//! copied the rest of the traffic cannot be known, so a step up from there is a trial; a trial that fails doubles the
//! next calm, and one that succeeds forgives.

use std::{fmt, time::Duration};

use crate::time::Timestamp;

/// What the agent's own process may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Thousandths of a core, over all of its threads.
    pub cpu: u32,
    /// Resident bytes.
    pub memory: u64,
    /// How long it has to be calm before the first step up.
    pub calm: Duration,
}

impl Default for Budget {
    /// Half a core, and six times what 10,000 connections take: beyond, something is out of proportion.
    fn default() -> Self {
        Self { cpu: 500, memory: 256 << 20, calm: CALM }
    }
}

/// How much is done, the most first.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Rung {
    /// Every request is a span.
    #[default]
    Full,
    /// Only [`SHARE`] of the traces leaves.
    Sampled,
    /// The probes count, and copy nothing.
    Counted,
    /// No probe is attached.
    Detached,
}

impl Rung {
    const ALL: [Self; 4] = [Self::Full, Self::Sampled, Self::Counted, Self::Detached];

    /// The name in metrics and summaries.
    pub fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Sampled => "sampled",
            Self::Counted => "counted",
            Self::Detached => "detached",
        }
    }

    fn below(self) -> Option<Self> {
        Self::ALL.get(self as usize + 1).copied()
    }

    fn above(self) -> Option<Self> {
        Self::ALL.get((self as usize).checked_sub(1)?).copied()
    }

    /// What follows for whoever looks at the traces.
    fn consequence(self) -> &'static str {
        match self {
            Self::Full => "every request is a span again",
            Self::Sampled => "one trace in 16 leaves; metrics are made of all requests",
            Self::Counted => "requests are not seen; calls on followed connections are counted as `self_budget`",
            Self::Detached => "nothing is seen, and nothing counted",
        }
    }
}

/// What the agent has taken and lost since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all threads.
    pub cpu: Duration,
    /// Resident bytes, now.
    pub resident: u64,
    /// Records that came.
    pub records: u64,
    /// Records that found the ring full.
    pub dropped: u64,
    /// Calls that the probes counted and did not read.
    pub counted: u64,
    /// Processors that the machine has.
    pub processors: u64,
}

/// A change of rung.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Where it was.
    pub from: Rung,
    /// Where it is.
    pub to: Rung,
    /// Why.
    pub why: Why,
}

/// What made the agent step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Why {
    /// It took so many thousandths of a core.
    Cpu(u32),
    /// It held so many bytes.
    Memory(u64),
    /// This share of the records found the ring full: what is made of the rest says little.
    Dropped(f64),
    /// The probes counted so many calls in a second.
    Counted(u64),
    /// It has been calm for so long.
    Calm(Duration),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.to > self.from { "down" } else { "up" };
        write!(f, "stepped {way} from {} to {}: ", self.from.label(), self.to.label())?;
        match self.why {
            Why::Cpu(taken) => {
                write!(f, "spantap took {:.2} cores, which is more than budget.cpu", f64::from(taken) / 1e3)
            }
            Why::Memory(bytes) => write!(f, "spantap holds {} MiB, which is more than budget.memory", bytes >> 20),
            Why::Dropped(share) => write!(f, "{:.0} % of the records found the ring full", 100.0 * share),
            Why::Counted(calls) => write!(
                f,
                "counting {calls} calls in a second takes more than {MOST_PROBED} % of the machine from those who make them"
            ),
            Why::Calm(calm) => write!(f, "calm for {} s", calm.as_secs()),
        }?;
        write!(f, "; {}", self.to.consequence())
    }
}

/// Where the agent stands.
#[derive(Clone, Debug)]
pub struct Ladder {
    /// None: it does everything, whatever that takes.
    budget: Option<Budget>,
    rung: Rung,
    /// The last look.
    looked: Option<(Timestamp, Usage)>,
    /// Since when every look found too much.
    above_since: Option<Timestamp>,
    /// Since when every look found little.
    calm_since: Option<Timestamp>,
    /// How long it has to be calm now. Law: `budget.calm <= calm <= budget.calm * LONGEST_CALM`.
    calm: Duration,
    /// When it last stepped up.
    rose: Option<Timestamp>,
}

impl Ladder {
    /// At the top.
    pub fn new(budget: Option<Budget>) -> Self {
        let calm = budget.map_or(CALM, |budget| budget.calm);
        Self { budget, rung: Rung::Full, looked: None, above_since: None, calm_since: None, calm, rose: None }
    }

    /// Where it stands.
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// Looks at what was taken until `now`; the step that follows, if one does.
    pub fn look(&mut self, now: Timestamp, usage: Usage) -> Option<Step> {
        let budget = self.budget?;
        let (before, last) = self.looked.replace((now, usage))?;
        let passed = now.since(before);
        if passed.is_zero() {
            return None;
        }
        let cores = usage.cpu.saturating_sub(last.cpu).as_secs_f64() / passed.as_secs_f64();
        let cpu = (cores * 1e3) as u32;
        let dropped = usage.dropped.saturating_sub(last.dropped);
        let share = dropped as f64 / (dropped + usage.records.saturating_sub(last.records)).max(1) as f64;

        let counted = usage.counted.saturating_sub(last.counted) as f64 / passed.as_secs_f64();

        let excess = if cpu > budget.cpu {
            Some(Why::Cpu(cpu))
        } else if usage.resident > budget.memory {
            Some(Why::Memory(usage.resident))
        } else {
            let too_many = (counted > (MOST_COUNTED * usage.processors) as f64).then_some(Why::Counted(counted as u64));
            (share > MOST_DROPPED).then_some(Why::Dropped(share)).or(too_many)
        };
        if let Some(why) = excess {
            self.calm_since = None;
            let since = *self.above_since.get_or_insert(before);
            return (now.since(since) >= PATIENCE).then(|| self.down(why, now)).flatten();
        }
        self.above_since = None;

        // Where nothing is copied, what is taken says nothing about the rung above; waiting is all there is.
        let is_calm = self.rung >= Rung::Counted || (cpu <= budget.cpu / 2 && usage.resident <= budget.memory / 4 * 3);
        if !is_calm {
            self.calm_since = None;
            return None;
        }
        if self.rose.is_some_and(|rose| now.since(rose) >= self.calm) {
            (self.rose, self.calm) = (None, budget.calm);
        }
        let since = *self.calm_since.get_or_insert(before);
        (now.since(since) >= self.calm).then(|| self.up(now)).flatten()
    }

    /// A step up could not be taken: it stays below, and tries again later.
    pub fn refused(&mut self, step: Step, now: Timestamp) {
        self.rung = step.from;
        (self.calm_since, self.rose) = (Some(now), None);
        self.wait_longer();
    }

    fn down(&mut self, why: Why, now: Timestamp) -> Option<Step> {
        let (from, to) = (self.rung, self.rung.below()?);
        if self.rose.take().is_some_and(|rose| now.since(rose) < self.calm.max(TRIAL)) {
            self.wait_longer();
        }
        (self.rung, self.above_since) = (to, None);
        Some(Step { from, to, why })
    }

    fn up(&mut self, now: Timestamp) -> Option<Step> {
        let (from, to) = (self.rung, self.rung.above()?);
        (self.rung, self.calm_since, self.rose) = (to, None, Some(now));
        Some(Step { from, to, why: Why::Calm(self.calm) })
    }

    fn wait_longer(&mut self) {
        let shortest = self.budget.map_or(CALM, |budget| budget.calm);
        self.calm = (self.calm * 2).min(shortest * LONGEST_CALM);
    }
}

/// The share of traces that leaves on [`Rung::Sampled`]: what exporting them takes is gone, and routes that are asked for
/// once a second still show several times a minute.
pub const SHARE: f64 = 1.0 / 16.0;

/// Above the budget for so long is no burst: a deployment's restart, a scrape of everything, a full garbage collection of
/// everybody at once are over by then.
const PATIENCE: Duration = Duration::from_secs(3);

/// Between two trials the services have half a minute of peace.
const CALM: Duration = Duration::from_secs(30);

/// A step up that is taken back within so long was a mistake, however short the calm.
const TRIAL: Duration = Duration::from_secs(10);

/// Times the first calm: at worst a trial every eight minutes, which costs some seconds above the budget.
const LONGEST_CALM: u32 = 16;

/// Percent of the machine that the probes may take from those who are traced where all they do is to count.
const MOST_PROBED: u64 = 1;

/// Calls a second and processor: where a call is only counted, it takes some 0.1 µs more.
const MOST_COUNTED: u64 = MOST_PROBED * 100_000;

/// More than one record in ten: hardly a trace of three services is whole then.
const MOST_DROPPED: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    /// A second at a time: cores taken, MiB held, percent of the records dropped.
    struct Machine {
        ladder: Ladder,
        now: u64,
        usage: Usage,
    }

    impl Machine {
        fn new(budget: Option<Budget>) -> Self {
            let mut machine = Self { ladder: Ladder::new(budget), now: 0, usage: Usage::default() };
            assert_eq!(machine.second(0.0, 20, 0), None, "the first look has nothing to compare with");
            machine
        }

        fn second(&mut self, cores: f64, mib: u64, dropped: u64) -> Option<Step> {
            self.now += 1;
            self.usage.cpu += Duration::from_secs_f64(cores);
            self.usage.processors = 2;
            self.usage.resident = mib << 20;
            self.usage.records += 100 - dropped;
            self.usage.dropped += dropped;
            self.ladder.look(Timestamp(self.now * 1_000_000_000), self.usage)
        }

        /// The steps of so many equal seconds: when, and where to.
        fn seconds(&mut self, count: u64, cores: f64, mib: u64, dropped: u64) -> Vec<(u64, &'static str)> {
            let begun = self.now;
            let step = |machine: &mut Self| machine.second(cores, mib, dropped).map(|step| (machine.now - begun, step));
            (0..count).filter_map(|_| step(self)).map(|(at, step)| (at, step.to.label())).collect()
        }
    }

    #[test]
    fn what_lasts_above_the_budget_costs_a_rung_every_three_seconds() {
        for (what, cores, mib, dropped) in
            [("cpu", 0.6, 20, 0), ("memory", 0.1, 300, 0), ("a ring that is full", 0.4, 20, 30)]
        {
            let mut machine = Machine::new(Some(Budget::default()));
            let steps = machine.seconds(12, cores, mib, dropped);
            assert_eq!(steps, [(3, "sampled"), (6, "counted"), (9, "detached")], "{what}");
        }
    }

    #[test]
    fn where_counting_alone_takes_too_much_nothing_is_done() {
        let mut machine = Machine::new(Some(Budget::default()));
        assert_eq!(machine.seconds(6, 0.9, 20, 0).last(), Some(&(6, "counted")));
        let mut counting = |seconds: u64, calls: u64| {
            let step = |machine: &mut Machine| {
                machine.usage.counted += calls;
                machine.second(0.0, 20, 0)
            };
            (0..seconds).filter_map(|_| step(&mut machine)).last()
        };
        assert_eq!(counting(20, 150_000), None, "of two processors 0.75 %");
        let step = counting(3, 300_000).expect("1.5 %");
        assert_eq!((step.to, step.why), (Rung::Detached, Why::Counted(300_000)));
        assert_eq!(
            step.to_string(),
            "stepped down from counted to detached: counting 300000 calls in a second takes more than 1 % of the machine \
             from those who make them; nothing is seen, and nothing counted"
        );
    }

    #[test]
    fn a_burst_is_no_reason() {
        let mut machine = Machine::new(Some(Budget::default()));
        for _ in 0..10 {
            assert_eq!(machine.seconds(2, 1.5, 20, 50), []);
            assert_eq!(machine.seconds(1, 0.4, 20, 0), []);
        }
    }

    #[test]
    fn between_half_of_the_budget_and_the_whole_nothing_changes() {
        let mut machine = Machine::new(Some(Budget::default()));
        assert_eq!(machine.seconds(3, 0.6, 20, 0), [(3, "sampled")]);
        assert_eq!(machine.seconds(600, 0.4, 20, 0), []);
        assert_eq!(machine.seconds(600, 0.2, 250, 0), []);
        assert_eq!(machine.seconds(40, 0.2, 20, 0), [(30, "full")]);
    }

    #[test]
    fn a_trial_that_fails_makes_the_next_one_later_and_one_that_lasts_forgives() {
        let mut machine = Machine::new(Some(Budget::default()));
        assert_eq!(machine.seconds(6, 0.9, 20, 0), [(3, "sampled"), (6, "counted")]);
        for calm in [30, 60, 120, 240, 480, 480] {
            assert_eq!(machine.seconds(calm, 0.0, 20, 0), [(calm, "sampled")]);
            assert_eq!(machine.seconds(3, 0.9, 20, 0), [(3, "counted")]);
        }
        assert_eq!(machine.seconds(480, 0.0, 20, 0), [(480, "sampled")]);
        assert_eq!(machine.seconds(480, 0.2, 20, 0), [(480, "full")], "it has to be as calm there");
        assert_eq!(machine.seconds(500, 0.2, 20, 0), []);
        assert_eq!(machine.seconds(3, 0.9, 20, 0), [(3, "sampled")]);
        assert_eq!(machine.seconds(30, 0.2, 20, 0), [(30, "full")], "forgiven");
    }

    #[test]
    fn a_step_that_could_not_be_taken_is_tried_again() {
        let mut machine = Machine::new(Some(Budget::default()));
        assert_eq!(machine.seconds(9, 0.9, 20, 0).last(), Some(&(9, "detached")));
        let mut step = None;
        for _ in 0..30 {
            step = step.or(machine.second(0.0, 20, 0));
        }
        let step = step.expect("it tries");
        assert_eq!((step.from, step.to), (Rung::Detached, Rung::Counted));
        machine.ladder.refused(step, Timestamp(machine.now * 1_000_000_000));
        assert_eq!(machine.ladder.rung(), Rung::Detached);
        assert_eq!(machine.seconds(61, 0.0, 20, 0), [(60, "counted")]);
    }

    #[test]
    fn without_a_budget_everything_is_done() {
        let mut machine = Machine::new(None);
        assert_eq!(machine.seconds(100, 2.0, 4_000, 90), []);
        assert_eq!(machine.ladder.rung(), Rung::Full);
    }

    #[test]
    fn a_step_says_why_and_what_follows() {
        let step = Step { from: Rung::Full, to: Rung::Sampled, why: Why::Cpu(710) };
        assert_eq!(
            step.to_string(),
            "stepped down from full to sampled: spantap took 0.71 cores, which is more than budget.cpu; one trace in 16 \
             leaves; metrics are made of all requests"
        );
        let step = Step { from: Rung::Detached, to: Rung::Counted, why: Why::Calm(CALM) };
        assert!(step.to_string().starts_with("stepped up from detached to counted: calm for 30 s; requests are not"));
    }
}
