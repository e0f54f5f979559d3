// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The real probes, for the doctor.
//!
//! In: this machine. Out: [`Probes`] that capture everything, or the verdict why they cannot be attached. It selects
//! nothing: the doctor looks for one exchange of its own among whatever else goes on.

use super::{Check, Probes, Verdict};
use crate::{
    event::{self, Event},
    kernel::{self, Settings, State, Tier},
};

/// Attaches the probes, on everything: the doctor's child is a process like any other.
pub fn attach(tier: Option<Tier>) -> Result<Box<dyn Probes>, Check> {
    match kernel::Probes::attach(&Settings { tier, ..Settings::default() }) {
        Ok(probes) => Ok(Box::new(Attached(probes))),
        Err(unsupported) => {
            let finding = format!("probes: {}; {}", unsupported.what(), unsupported.consequence());
            Err(Check::new(NAME, Verdict::Fail, finding).fix(unsupported.remedy()))
        }
    }
}

struct Attached(kernel::Probes);

impl Probes for Attached {
    fn hooks(&self) -> Vec<Check> {
        let (tier, verdicts) = (self.0.tier(), self.0.verdicts());
        let mut checks = vec![match tier.shortfall() {
            None => Check::new(TIER, Verdict::Ok, tier.to_string()),
            Some(shortfall) => Check::new(TIER, Verdict::Warn, format!("{tier}: {shortfall}")),
        }];
        let better = self.0.passed_over().iter();
        checks.extend(better.map(|it| Check::new(TIER, Verdict::Info, format!("no {}: {}", it.tier, it.why))));
        let used: Vec<_> = verdicts.iter().filter(|it| it.state == State::Used).map(|it| it.hook.program).collect();
        checks.push(Check::new(NAME, Verdict::Ok, format!("{} probes: {}", used.len(), used.join(" "))));
        let sentences = verdicts.iter().filter_map(kernel::HookVerdict::sentence);
        checks.extend(sentences.map(|sentence| Check::new(NAME, Verdict::Warn, sentence)));
        checks
    }

    fn listen(&mut self, heard: &mut dyn FnMut(u64, &[u8])) {
        self.0.drain(|record| {
            if let Ok(Event::Data(data)) = event::decode(record) {
                heard(data.socket.0, data.bytes);
            }
        });
    }
}

const NAME: &str = "probes";
const TIER: &str = "tier";
