// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The agent's place among the programs it observes.
//!
//! In: nothing. Out: threads that wait their turn. It changes no priority: a machine without an idle core shares it with
//! the agent as fairly as before, only without being interrupted.

use std::num::NonZeroU64;

use rustix::thread::set_current_timer_slack;
use tracing::debug;

/// Makes this thread, and those it starts from now on, wait for the running one to pause when they wake up. The agent
/// wakes a hundred times a second; a server that is interrupted as often loses its caches, and its users wait.
pub fn yield_to_others() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // "wakeup preemption" is what SCHED_BATCH goes without: https://man7.org/linux/man-pages/man7/sched.7.html
    // SAFETY: the pointer is that of a parameter block which lives until the call returns; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } != 0 {
        let error = std::io::Error::last_os_error();
        debug!(%error, "the agent interrupts others when it wakes up");
    }
    // Wake-ups that come together cost one interrupt.
    if let Err(error) = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS)) {
        debug!(%error, "the agent wakes up on time to the microsecond");
    }
}

/// A tenth of the time between two looks at the ring.
const TIMER_SLACK_NS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::thread::current_timer_slack;

    use super::*;

    #[test]
    fn a_thread_yields_and_so_do_those_that_it_starts() {
        let place = || {
            // SAFETY: it takes no pointer.
            (unsafe { libc::sched_getscheduler(0) }, current_timer_slack().expect("it can be asked"))
        };
        // A thread of its own: the others that run tests stay what they are.
        let (own, heirs) = thread::spawn(move || {
            yield_to_others();
            (place(), thread::spawn(place).join().expect("it asks only"))
        })
        .join()
        .expect("it asks only");
        assert_eq!(own, (libc::SCHED_BATCH, TIMER_SLACK_NS));
        assert_eq!(heirs, own);
    }
}
