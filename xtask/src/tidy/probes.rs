// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rule: the default eBPF object only observes.
//!
//! In: the built object. Out: a finding for each program type or call that is not on the lists below. This is the test
//! behind the promise that no target's traffic, memory or control flow can be altered.

use super::Finding;
use crate::bytecode::{Bytecode, Call};

/// Program types by the section's first word, with what they are for.
const PROGRAM_TYPES: &[(&str, &str)] = &[
    ("tp_btf", "reads a tracepoint's arguments; its result is ignored by the kernel"),
    ("fexit", "reads a function's arguments and result; its own result is ignored by the kernel"),
    ("iter", "walks a kernel table when user space reads it"),
];

/// Helpers the probes may call, with what they are for. None of them changes anything outside our own maps.
const HELPERS: &[(&str, &str)] = &[
    ("map_lookup_elem", "settings and state"),
    ("map_update_elem", "state"),
    ("map_delete_elem", "state of what has ended"),
    ("sk_storage_get", "a socket's state, freed with the socket"),
    ("sk_storage_delete", "a socket that turns out to be none of ours"),
    ("ktime_get_ns", "when it happened"),
    ("get_current_pid_tgid", "who did it"),
    ("get_current_task", "the thread's structure, to read"),
    ("get_current_task_btf", "the thread's structure, to read"),
    ("task_pt_regs", "the arguments of the system call it is in"),
    ("get_current_cgroup_id", "in which container"),
    ("get_socket_cookie", "which socket"),
    ("skc_to_tcp_sock", "a socket as its TCP self, to read positions"),
    ("skc_to_unix_sock", "a socket as its unix self, to find its peer and its name"),
    ("probe_read_kernel", "reads kernel structures"),
    ("probe_read_kernel_str", "reads a path"),
    ("probe_read_user", "reads the buffer that was written or filled, and which task of its runtime a thread runs"),
    ("sock_from_file", "a descriptor's socket"),
    ("seq_write", "what the walk through older connections found, into the buffer of whoever reads it"),
    ("ringbuf_reserve", "a record"),
    ("ringbuf_submit", "a record"),
    ("ringbuf_discard", "a record that was not needed after all"),
    ("ringbuf_query", "how full the ring is"),
    ("loop", "a bounded loop the verifier checks once"),
];

/// What the kernel accepts as GPL-compatible besides "GPL" (`license_is_gpl_compatible` in `include/linux/license.h`).
const LICENCES: &[&str] =
    &["GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"];

fn findings(bytecode: &Bytecode) -> Vec<Finding> {
    let finding = |name: &str, what: String| Finding { file: format!("spantap-ebpf, {name}"), line: 0, what };
    let mut found = Vec::new();
    if !LICENCES.contains(&bytecode.licence.as_str()) {
        found.push(finding("license", format!("{:?} is not GPL-compatible: helpers are refused", bytecode.licence)));
    }
    for program in &bytecode.programs {
        let kind = program.section.split(['/', '.']).next().unwrap_or_default();
        if !PROGRAM_TYPES.iter().any(|(allowed, _)| *allowed == kind) {
            found.push(finding(&program.name, format!("programs of type {} are not allowed", program.section)));
        }
        for call in &program.calls {
            let is_allowed = |name: &str| HELPERS.iter().any(|(allowed, _)| *allowed == name);
            if !matches!(call, Call::Helper(name) if is_allowed(name)) {
                found.push(finding(&program.name, format!("may not call {call}: it is on no list of what observes")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Bytecode, Call, HELPERS, findings};
    use crate::{bytecode::Program, ebpf, helpers, tidy::assert_tidy};

    #[test]
    fn the_default_object_only_observes() {
        let bytecode = ebpf::read(&ebpf::object()).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!bytecode.programs.is_empty(), "the object has no programs");
        assert_tidy(&findings(&bytecode));
    }

    fn object(section: &str, calls: &[Call]) -> Bytecode {
        let calls = calls.iter().cloned().collect::<BTreeSet<_>>();
        let program = Program { name: "p".to_owned(), section: section.to_owned(), instructions: 2, calls };
        Bytecode { programs: vec![program], licence: "Dual MIT/GPL".to_owned() }
    }

    #[test]
    fn helpers_that_alter_are_found() {
        for alters in [
            "probe_write_user",
            "override_return",
            "send_signal",
            "send_signal_thread",
            "skb_store_bytes",
            "msg_push_data",
            "setsockopt",
            "redirect",
            "sock_map_update",
        ] {
            assert!((0..=211).any(|id| helpers::name(id) == Some(alters)), "{alters} is no helper's name");
            assert_eq!(findings(&object("tp_btf/x", &[Call::Helper(alters)])).len(), 1, "{alters}");
        }
    }

    #[test]
    fn calls_that_nobody_can_judge_are_found() {
        for call in [Call::Kfunc("bpf_sock_destroy".to_owned()), Call::UnknownHelper(250), Call::Indirect] {
            assert_eq!(findings(&object("tp_btf/x", &[call])).len(), 1);
        }
    }

    #[test]
    fn program_types_that_can_alter_are_found() {
        for section in ["sk_msg", "sockops", "cgroup_skb/egress", "classifier", "fmod_ret/x", "uretprobe/x", "lsm/x"] {
            assert_eq!(findings(&object(section, &[])).len(), 1, "{section}");
        }
        assert_eq!(findings(&object("iter/task_file", &[Call::Helper("map_lookup_elem")])), []);
    }

    #[test]
    fn a_licence_the_kernel_does_not_accept_is_found() {
        let mut object = object("tp_btf/x", &[]);
        object.licence = "Apache-2.0".to_owned();
        assert_eq!(findings(&object).len(), 1);
    }

    #[test]
    fn the_list_names_real_helpers_each_once() {
        let names: BTreeSet<_> = HELPERS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), HELPERS.len());
        for name in names {
            assert!((0..=211).any(|id| helpers::name(id) == Some(name)), "{name} is no helper's name");
        }
    }
}
