// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which hooks to use.
//!
//! In: the table of hooks, what the machine offers, and a tier. Out: a [`HookVerdict`] for each hook, with its reason,
//! or what the tier lacks here. It attaches nothing; what attaching runs into replaces the verdict later, or leads to the
//! next tier.

use super::{
    Unsupported,
    features::Features,
    hooks::{Hook, Need, Tier},
};

/// What became of a hook.
#[derive(Clone, Debug)]
pub struct HookVerdict {
    /// The hook.
    pub hook: &'static Hook,
    /// What became of it.
    pub state: State,
}

/// What became of a hook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// It is to be attached, or is.
    Used,
    /// It belongs to another tier, or this kernel has no use for it.
    NotNeeded,
    /// The machine does not offer it.
    Absent,
    /// The kernel refused it: why.
    Refused(String),
}

impl HookVerdict {
    /// The sentence for the operator, where there is something to say.
    pub fn sentence(&self) -> Option<String> {
        let Hook { at, loses, .. } = self.hook;
        match &self.state {
            State::Used | State::NotNeeded => None,
            State::Absent => Some(format!("this kernel has no {at}: {loses} cannot be seen")),
            State::Refused(why) => Some(format!("{at} could not be attached ({why}): {loses} cannot be seen")),
        }
    }
}

/// A better tier that is not used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassedOver {
    /// The tier.
    pub tier: Tier,
    /// Why not.
    pub why: String,
}

/// What is used of `table` in `tier`. Fails when something the tier requires does not exist.
pub fn plan(table: &'static [Hook], features: &Features, tier: Tier) -> Result<Vec<HookVerdict>, Unsupported> {
    let verdict = |hook: &'static Hook| {
        let state = match (hook.tiers.contains(&tier), features.offers(hook.at), hook.need) {
            (false, _, _) | (true, false, Need::WherePresent) => State::NotNeeded,
            (true, true, _) => State::Used,
            (true, false, Need::Required) => return Err(Unsupported::NoHook { at: hook.at, loses: hook.loses }),
            (true, false, Need::Optional) => State::Absent,
        };
        Ok(HookVerdict { hook, state })
    };
    let mut verdicts = table.iter().map(verdict).collect::<Result<Vec<_>, _>>()?;
    keep_counts_whole(&mut verdicts);
    Ok(verdicts)
}

/// Gives up the hooks that count ([`Hook::counts`]) where one of them is missing; returns those that were to be used.
pub fn keep_counts_whole(verdicts: &mut [HookVerdict]) -> Vec<&'static Hook> {
    let is_missing = |it: &&HookVerdict| it.hook.counts() && matches!(it.state, State::Absent | State::Refused(_));
    let Some(missing) = verdicts.iter().find(is_missing).map(|it| it.hook.at) else { return Vec::new() };
    let mut given_up = Vec::new();
    for verdict in verdicts.iter_mut().filter(|it| it.hook.counts() && it.state == State::Used) {
        verdict.state = State::Refused(format!("of no use without {missing}"));
        given_up.push(verdict.hook);
    }
    given_up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::hooks::{At, TABLE};

    /// What a kernel offers that lacks `absent`.
    fn without(absent: &[&str]) -> Features {
        let is_there = |at: &At| {
            let (At::BtfTracepoint(name) | At::Again(name) | At::Exit(name) | At::Iterator(name)) = at;
            !absent.contains(name)
        };
        Features { places: TABLE.iter().map(|hook| hook.at).filter(is_there).collect() }
    }

    /// The programs that `tier` would use there, those of every tier left out; none where it cannot be used.
    fn chosen(features: &Features, tier: Tier) -> Option<Vec<&'static str>> {
        let verdicts = plan(TABLE, features, tier).ok()?;
        let own = verdicts.iter().filter(|verdict| verdict.state == State::Used && verdict.hook.tiers == [tier]);
        Some(own.map(|verdict| verdict.hook.program).collect())
    }

    #[test]
    fn a_tier_is_used_where_everything_it_requires_exists() {
        let newest = without(&["inet_sendpage", "unix_stream_sendpage"]);
        let before_6_3 = without(&["sock_recv_length", "sock_send_length"]);
        let ipv6_module =
            without(&["sock_recv_length", "inet6_recvmsg", "inet6_sendmsg", "inet_sendpage", "unix_stream_recvmsg"]);
        // Writes before reads.
        let rings = ["io_uring_submit_req", "io_uring_poll_arm", "io_uring_complete"];
        let first = ["sock_send_length", "sock_recv_length"];
        let again = ["sock_send_length_again", "sock_recv_length_again"];
        let before_7 =
            Features { places: newest.places.iter().copied().filter(|at| !matches!(at, At::Again(_))).collect() };
        let exits = ["exit_inet_sendmsg", "exit_inet_recvmsg"];
        let both = ["exit_inet_sendmsg", "exit_inet6_sendmsg", "exit_inet_recvmsg", "exit_inet6_recvmsg"];
        let unix = ["exit_unix_stream_sendmsg", "exit_unix_stream_recvmsg"];
        let pages = ["exit_inet_sendpage"];
        let unix_pages = ["exit_unix_stream_sendpage"];
        for (features, tier, programs) in [
            (&newest, Tier::A, Some([&first[..], &again, &rings].concat())),
            (&before_7, Tier::A, Some([&first[..], &rings].concat())),
            (&newest, Tier::B, Some([&both[..], &unix].concat())),
            (&newest, Tier::C, Some(vec!["sys_exit"])),
            (&before_6_3, Tier::A, None),
            (&before_6_3, Tier::B, Some([&both[..], &pages, &unix, &unix_pages].concat())),
            (&ipv6_module, Tier::B, Some(exits.to_vec())),
            (&without(&["inet_recvmsg"]), Tier::B, None),
            (&without(&["sys_exit"]), Tier::C, None),
        ] {
            assert_eq!(chosen(features, tier), programs, "{tier} of {features:?}");
        }
    }

    #[test]
    fn what_counts_is_used_together_or_not_at_all() {
        let mut verdicts = plan(TABLE, &without(&[]), Tier::B).expect("nothing is missing");
        assert!(keep_counts_whole(&mut verdicts).is_empty());
        let counting = verdicts.iter_mut().find(|verdict| verdict.hook.counts()).expect("tier B counts");
        counting.state = State::Refused("EINVAL".to_owned());
        let given_up: Vec<_> = keep_counts_whole(&mut verdicts).iter().map(|hook| hook.program).collect();
        assert_eq!(given_up, ["exit_unix_stream_recvmsg", "exit_unix_stream_sendpage"]);
        let sentences: Vec<_> = verdicts.iter().filter_map(HookVerdict::sentence).collect();
        assert_eq!(
            sentences[1],
            "function unix_stream_recvmsg could not be attached (of no use without function unix_stream_sendmsg): bytes that \
             processes read from unix sockets cannot be seen"
        );
        assert!(verdicts.iter().all(|verdict| !verdict.hook.counts() || verdict.state != State::Used));
    }

    #[test]
    fn what_a_tier_lacks_is_named() {
        let lacks = plan(TABLE, &without(&["sock_send_length"]), Tier::A).map(drop);
        assert!(
            matches!(lacks, Err(Unsupported::NoHook { at: At::BtfTracepoint("sock_send_length"), .. })),
            "{lacks:?}"
        );
    }

    #[test]
    fn a_missing_optional_hook_is_one_sentence() {
        for (absent, tier, expected) in [
            (
                &["sched_process_exit"][..],
                Tier::A,
                &[
                    "this kernel has no tracepoint sched_process_exit: the end of processes and of threads that requests \
                   start cannot be seen",
                ][..],
            ),
            (
                &["inet6_sendmsg"],
                Tier::B,
                &["this kernel has no function inet6_sendmsg: bytes that processes write over IPv6 cannot be seen"],
            ),
            (&["inet_sendpage"], Tier::B, &[]),
            (&["inet_sendmsg", "sock_send_length"], Tier::C, &[]),
        ] {
            let verdicts = plan(TABLE, &without(absent), tier).expect("nothing that is required is missing");
            let sentences: Vec<_> = verdicts.iter().filter_map(HookVerdict::sentence).collect();
            assert_eq!(sentences, expected);
        }
    }
}
