// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the embedded object to probes that run.
//!
//! In: [`Settings`] and this machine. Out: [`Probes`] of the best tier that the kernel takes. It asks the kernel by
//! handing it the programs, and does not improvise: what cannot be attached is a verdict, or the reason for the next tier.

use std::{
    collections, fs, io,
    os::fd::{AsFd as _, AsRawFd as _},
    slice, thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{BtfTracePoint, FExit, Iter, Program, ProgramError},
};
use spantap_common::{
    abi::{MAX_SOCKETS, RING_BYTES, SYSTEM_CALLS},
    call::{Moves, Shape},
    loss::Reason,
    opaque::Opaque,
    settings::{ProcessSettings, Verdict},
};

use super::{
    Unsupported,
    controls::Controls,
    features::{self, Features},
    hooks::{At, Hook, Need, TABLE, Tier},
    in_one_line,
    occupancy::{Filled, Occupancy},
    older::{self, Older},
    plan::{self, HookVerdict, PassedOver, State},
    ring::{Few, Ring},
};
use crate::memory;

/// What the probes are told before they run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The agent's own process id in the root pid namespace: its sockets are left alone. 0 is nobody.
    pub agent_pid: u32,
    /// The verdict on processes that are not in `processes`.
    pub default_verdict: Verdict,
    /// Processes known before the first event. Later ones are told to [`Controls`].
    pub processes: Vec<(u32, ProcessSettings)>,
    /// Ports of which one end of a connection must have one; none is any.
    pub ports: Vec<u16>,
    /// Bytes of the ring: a power of two, at least a page.
    pub ring_bytes: u32,
    /// The only tier to try; none is the best that works.
    pub tier: Option<Tier>,
    /// Whether somebody wants to know how full the tables are.
    pub count_tables: bool,
}

impl Default for Settings {
    /// Everything on the host, nothing left out.
    fn default() -> Self {
        Self {
            agent_pid: 0,
            default_verdict: Verdict::Undecided,
            processes: Vec::new(),
            ports: Vec::new(),
            ring_bytes: RING_BYTES,
            tier: None,
            count_tables: false,
        }
    }
}

/// Where this kernel keeps the fields that the probes read, by the name of their global.
struct Offsets {
    always: Vec<(&'static str, u32)>,
    /// Of unix sockets; none where the kernel does not describe them.
    unix: Option<Vec<(&'static str, u32)>>,
    /// Of io_uring's requests; none where the kernel does not describe them.
    rings: Option<Vec<(&'static str, u32)>>,
    /// Of epoll's entries; none where the kernel has them in another way.
    polls: Option<Vec<(&'static str, u32)>>,
}

/// Attached probes. Dropping them detaches all of them.
pub struct Probes {
    ring: Ring,
    controls: Controls,
    lost: PerCpuArray<MapData, u64>,
    left_alone: PerCpuArray<MapData, u64>,
    tier: Tier,
    passed_over: Vec<PassedOver>,
    verdicts: Vec<HookVerdict>,
    /// What was counted before the probes were attached again.
    earlier: Counted,
    older: Older,
    /// Until they are detached, where somebody wants to know.
    occupancy: Option<Occupancy>,
    /// Holds the programs and their links, until they are detached.
    object: Option<Ebpf>,
}

/// The probes' counters.
#[derive(Clone, Debug, Default)]
struct Counted {
    lost: [u64; Reason::COUNT],
    left_alone: [u64; Opaque::COUNT],
    runs: Vec<Runs>,
}

/// What became of a probe's runs, since the first was attached.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Runs {
    /// The probe.
    pub program: String,
    /// The time that they took, where the kernel measures it (`kernel.bpf_stats_enabled`, since 5.1).
    pub time: Duration,
    /// How many there were, likewise.
    pub count: u64,
    /// How many the kernel left out, because an earlier one on that CPU had not ended (since 5.12).
    pub missed: u64,
}

impl Probes {
    /// Loads and attaches the probes.
    pub fn attach(settings: &Settings) -> Result<Self, Unsupported> {
        if OBJECT.is_empty() {
            return Err(Unsupported::NotBuilt);
        }
        features::privileged()?;
        let btf = features::kernel_btf()?;
        let (features, offsets) = (Features::of(&btf, &features::release()), features::offsets(&btf)?);
        let offsets = Offsets {
            always: offsets,
            unix: features::unix_offsets(&btf),
            rings: features::ring_offsets(&btf),
            polls: features::poll_offsets(&btf),
        };
        drop(btf);
        let kernel = aya::Btf::from_sys_fs().map_err(|error| Unsupported::NoBtf { reason: error.to_string() })?;

        let tiers = settings.tier.as_ref().map_or(&Tier::ALL[..], slice::from_ref);
        let mut passed_over = Vec::new();
        let mut last = None;
        for &tier in tiers {
            let probes = plan::plan(TABLE, &features, tier)
                .and_then(|verdicts| Self::attach_tier(settings, tier, verdicts, &offsets, &kernel));
            match probes {
                Ok(probes) => return Ok(Self { passed_over, ..probes }),
                Err(why) => {
                    passed_over.push(PassedOver { tier, why: why.what() });
                    last = Some(why);
                }
            }
        }
        Err(last.unwrap_or_else(|| Unsupported::Refused(anyhow!("there is no tier to try"))))
    }

    fn attach_tier(
        settings: &Settings,
        tier: Tier,
        mut verdicts: Vec<HookVerdict>,
        offsets: &Offsets,
        kernel: &aya::Btf,
    ) -> Result<Self, Unsupported> {
        let mut object = load(settings, tier, offsets, kernel).map_err(refusal)?;
        let occupancy = settings.count_tables.then(|| Occupancy::of(&object)).flatten();
        // Maps are complete before the first program runs: no socket is judged by half of the settings.
        let ring = Ring::take_from(&mut object).map_err(refusal)?;
        let lost = open_counters(&mut object, "LOST").map_err(refusal)?;
        let left_alone = open_counters(&mut object, "LEFT_ALONE").map_err(refusal)?;
        set_ports(&mut object, &settings.ports).map_err(refusal)?;
        let mut controls = Controls::take_from(&mut object).map_err(refusal)?;
        for (pid, process) in &settings.processes {
            controls.set_process(*pid, *process).context("set a process").map_err(refusal)?;
        }
        // All are loaded before the first is attached: verifying takes tens of milliseconds, and a request that is read
        // before the probe of its response is there would be half seen.
        let mut verified = verify(&mut object, &verdicts, kernel).map_err(refusal)?;
        settle(&mut verdicts, |hook| {
            let missing = || Err(anyhow!("the object has no program {}", hook.program));
            verified.remove(hook.program).unwrap_or_else(missing)
        })?;
        keep_counts_whole(&mut object, &mut verdicts)?;
        settle(&mut verdicts, |hook| attach(&mut object, hook))?;
        keep_counts_whole(&mut object, &mut verdicts)?;
        let (passed_over, earlier) = (Vec::new(), Counted::default());
        let (older, object) = (walk(&mut object, &mut verdicts), Some(object));
        Ok(Self { ring, controls, lost, left_alone, tier, passed_over, verdicts, earlier, older, occupancy, object })
    }

    /// Hands over the records there are; returns how many. See [`Ring::drain`].
    pub fn drain(&mut self, record: impl FnMut(&[u8])) -> usize {
        self.ring.drain(record)
    }

    /// The same, a few at a time. See [`Ring::drain_few`].
    pub fn drain_few(&mut self, take: impl FnMut(&Few)) -> usize {
        self.ring.drain_few(take)
    }

    /// Detaches the probes. What they have written can still be drained.
    pub fn detach(&mut self) {
        self.earlier.runs = self.runs();
        (self.object, self.occupancy) = (None, None);
    }

    /// Attaches probes again after [`detach`](Self::detach), in the same tier. They know of no socket that they met before:
    /// what passed meanwhile passed as if before the agent. Nothing changes where it fails.
    pub fn attach_again(&mut self, settings: &Settings) -> Result<(), Unsupported> {
        let earlier = Counted { lost: self.lost(), left_alone: self.left_alone(), runs: self.runs() };
        let again = Self::attach(&Settings { tier: Some(self.tier), ..settings.clone() })?;
        *self = Self { earlier, passed_over: std::mem::take(&mut self.passed_over), ..again };
        Ok(())
    }

    /// What the probes can be told while they run.
    pub fn controls(&mut self) -> &mut Controls {
        &mut self.controls
    }

    /// The connections that were open before the probes were attached.
    pub fn older(&self) -> &Older {
        &self.older
    }

    /// Losses since the probes were first attached, indexed by [`Reason`].
    pub fn lost(&self) -> [u64; Reason::COUNT] {
        sum(summed(&self.lost), self.earlier.lost)
    }

    /// Sockets that were left alone since the probes were first attached, indexed by [`Opaque`].
    pub fn left_alone(&self) -> [u64; Opaque::COUNT] {
        sum(summed(&self.left_alone), self.earlier.left_alone)
    }

    /// What became of each probe's runs, where there is something to tell.
    pub fn runs(&self) -> Vec<Runs> {
        let mut all = self.earlier.runs.clone();
        for (name, program) in self.object.iter().flat_map(Ebpf::programs) {
            // One that is not loaded has none.
            let Ok(info) = program.info() else { continue };
            let missed = program.fd().ok().and_then(|fd| missed_by(fd.as_fd().as_raw_fd())).unwrap_or_default();
            if info.run_count() == 0 && missed == 0 {
                continue;
            }
            let place = all.iter().position(|known| known.program == name).unwrap_or_else(|| {
                all.push(Runs { program: name.to_owned(), ..Runs::default() });
                all.len() - 1
            });
            all[place].time += info.run_time();
            all[place].count += info.run_count();
            all[place].missed += missed;
        }
        all.sort_by(|one, other| one.program.cmp(&other.program));
        all
    }

    /// Events that the kernel showed to no probe, at most: where a second one stands behind the first, an event was missed
    /// only if both were left out, which the kernel does not tell.
    pub fn missed(&self) -> u64 {
        let runs = self.runs();
        let of = |hook: &Hook| runs.iter().find(|runs| runs.program == hook.program).map_or(0, |runs| runs.missed);
        let used = || self.verdicts.iter().filter(|it| it.state == State::Used).map(|it| it.hook);
        let second =
            |first: At| used().find(|hook| matches!((hook.at, first), (At::Again(a), At::BtfTracepoint(b)) if a == b));
        let first = used().filter(|hook| !matches!(hook.at, At::Again(_)));
        first.map(|hook| second(hook.at).map_or(of(hook), |second| of(hook).min(of(second)))).sum()
    }

    /// How full the tables were when they were counted last; nothing where nobody wanted to know, or no probe is attached.
    pub fn tables(&self) -> Vec<Filled> {
        self.occupancy.as_ref().map(Occupancy::tables).unwrap_or_default()
    }

    /// Bytes of kernel memory that the maps took when they were looked at last; 0 likewise.
    pub fn map_memory(&self) -> u64 {
        self.occupancy.as_ref().map_or(0, Occupancy::memory)
    }

    /// The tier in use.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The better tiers that this kernel would not have.
    pub fn passed_over(&self) -> &[PassedOver] {
        &self.passed_over
    }

    /// What became of each hook.
    pub fn verdicts(&self) -> &[HookVerdict] {
        &self.verdicts
    }
}

/// `recursion_misses` in the description of a program's descriptor.
fn missed_by(program: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{program}")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

fn load(settings: &Settings, tier: Tier, offsets: &Offsets, kernel: &aya::Btf) -> anyhow::Result<Ebpf> {
    let shapes = by_call(CALLS, Shape::to_wire);
    let moves = by_call(MOVES, Moves::to_wire);
    let by_address = u32::from(tier.by_address());
    let gathered = tier.gathered();
    let default_verdict = settings.default_verdict as u32;
    // At its exit, every call has its result.
    let result_tells = u32::from(features::RESULT_TELLS && !tier.by_address());
    let port_filter = u32::from(!settings.ports.is_empty());

    let mut loader = EbpfLoader::new();
    // A refused program is verified once more for the reason, which fits the first log. Told each instruction too, as is
    // the default, the verifier would be asked again and again with ever larger logs, which takes minutes.
    loader.btf(Some(kernel)).verifier_log_level(VerifierLogLevel::STATS);
    loader.map_max_entries("RING", settings.ring_bytes);
    // Its entries are allocated with it.
    loader.map_max_entries("SOCKETS_BY_ADDRESS", if tier.by_address() { MAX_SOCKETS } else { 1 });
    loader.override_global("AGENT_TGID", &settings.agent_pid, true);
    loader.override_global("DEFAULT_VERDICT", &default_verdict, true);
    loader.override_global("RESULT_TELLS", &result_tells, true);
    loader.override_global("GATHERED", &gathered, true);
    loader.override_global("PORT_FILTER", &port_filter, true);
    loader.override_global("BY_ADDRESS", &by_address, true);
    loader.override_global("FUTEX", &(libc::SYS_futex as u32), true);
    loader.override_global("WIDE_MODE", &features::WIDE_MODE, true);
    loader.override_global("CALL_SHAPES", &shapes, true);
    loader.override_global("CALL_MOVES", &moves, true);
    let unix = offsets.unix.as_ref().filter(|_| tier.sees_unix());
    let unix_sockets = u32::from(unix.is_some());
    loader.override_global("UNIX_SOCKETS", &unix_sockets, true);
    let rings = offsets.rings.as_ref().filter(|_| tier.sees_rings());
    let follows_rings = u32::from(rings.is_some());
    loader.override_global("RINGS", &follows_rings, true);
    if rings.is_none() {
        for map in ["RING_TASKS", "RING_WAITS", "RING_REQUESTS"] {
            loader.map_max_entries(map, 1);
        }
    }
    let some = [unix, rings, offsets.polls.as_ref()].into_iter().flatten().flatten();
    for (global, offset) in offsets.always.iter().chain(some) {
        loader.override_global(global, offset, true);
    }
    let loaded = loader.load(OBJECT).context("load the probes' maps");
    memory::put_back(OBJECT);
    loaded
}

/// Takes a step with every hook in use. Whoever fails is not used any more, or ends it if the tier requires it.
fn settle(verdicts: &mut [HookVerdict], mut step: impl FnMut(&Hook) -> anyhow::Result<()>) -> Result<(), Unsupported> {
    for verdict in verdicts.iter_mut().filter(|verdict| verdict.state == State::Used) {
        if let Err(error) = step(verdict.hook) {
            if verdict.hook.need == Need::Required {
                return Err(refusal(error));
            }
            verdict.state = State::Refused(in_one_line(&error));
        }
    }
    Ok(())
}

/// See [`plan::keep_counts_whole`].
fn keep_counts_whole(object: &mut Ebpf, verdicts: &mut [HookVerdict]) -> Result<(), Unsupported> {
    for hook in plan::keep_counts_whole(verdicts) {
        probe::<FExit>(object, hook).and_then(|it| Ok(it.unload()?)).map_err(refusal)?;
    }
    Ok(())
}

/// Hands the programs that are to be used to the verifier, all at once: it takes a processor 0.2 s for each of the two
/// large ones (2026-11), and looks at as many at a time as there are processors.
fn verify(
    object: &mut Ebpf,
    verdicts: &[HookVerdict],
    kernel: &aya::Btf,
) -> anyhow::Result<collections::HashMap<&'static str, anyhow::Result<()>>> {
    let hook_of = |name: &str| {
        verdicts.iter().find(|verdict| verdict.state == State::Used && verdict.hook.program == name).map(|it| it.hook)
    };
    thread::scope(|scope| {
        let started: Vec<_> = object
            .programs_mut()
            .filter_map(|(name, program)| {
                let hook = hook_of(name)?;
                let load = move || verify_one(program, hook, kernel);
                Some((hook.program, thread::Builder::new().spawn_scoped(scope, load)))
            })
            .collect();
        let ended = started.into_iter().map(|(program, thread)| {
            let thread = thread.context("start a thread to load a program")?;
            let result = thread.join().unwrap_or_else(|_| Err(anyhow!("loading {program} came to no end")));
            Ok((program, result))
        });
        ended.collect()
    })
}

fn verify_one(program: &mut Program, hook: &Hook, kernel: &aya::Btf) -> anyhow::Result<()> {
    match hook.at {
        At::BtfTracepoint(tracepoint) | At::Again(tracepoint) => {
            kind::<BtfTracePoint>(program, hook)?.load(tracepoint, kernel)
        }
        At::Exit(function) => kind::<FExit>(program, hook)?.load(function, kernel),
        At::Iterator(table) => kind::<Iter>(program, hook)?.load(table, kernel),
    }
    .with_context(|| format!("load {}", hook.program))
}

fn attach(object: &mut Ebpf, hook: &Hook) -> anyhow::Result<()> {
    match hook.at {
        At::BtfTracepoint(_) | At::Again(_) => probe::<BtfTracePoint>(object, hook)?.attach().map(drop),
        At::Exit(_) => probe::<FExit>(object, hook)?.attach().map(drop),
        // It runs when it is read: see `walk`.
        At::Iterator(_) => Ok(()),
    }
    .with_context(|| format!("attach {}", hook.program))
}

/// Looks for connections that are older than the probes, which are attached by now: none is missed in between.
fn walk(object: &mut Ebpf, verdicts: &mut [HookVerdict]) -> Older {
    let iterates =
        |verdict: &&mut HookVerdict| verdict.state == State::Used && matches!(verdict.hook.at, At::Iterator(_));
    let Some(verdict) = verdicts.iter_mut().find(iterates) else { return Older::default() };
    let walked = probe::<Iter>(object, verdict.hook).and_then(older::walk);
    walked.unwrap_or_else(|error| {
        verdict.state = State::Refused(format!("{error:#}"));
        Older::default()
    })
}

fn probe<'a, T>(object: &'a mut Ebpf, hook: &Hook) -> anyhow::Result<&'a mut T>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = object.program_mut(hook.program);
    kind(program.with_context(|| format!("the object has no program {}", hook.program))?, hook)
}

fn kind<'a, T>(program: &'a mut Program, hook: &Hook) -> anyhow::Result<&'a mut T>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    program.try_into().with_context(|| format!("{} is another kind of program", hook.program))
}

fn open_counters(object: &mut Ebpf, name: &str) -> anyhow::Result<PerCpuArray<MapData, u64>> {
    let map = object.take_map(name).with_context(|| format!("the probes have no counters {name}"))?;
    PerCpuArray::try_from(map).with_context(|| format!("open the counters {name}"))
}

/// Each counter over all CPUs.
fn summed<const COUNT: usize>(counters: &PerCpuArray<MapData, u64>) -> [u64; COUNT] {
    let mut sums = [0; COUNT];
    for (index, sum) in (0..).zip(&mut sums) {
        // The index is below the array's length; a failing read leaves the count of the others.
        if let Ok(cpus) = counters.get(&index, 0) {
            *sum = cpus.iter().sum();
        }
    }
    sums
}

/// Both together, counter by counter.
fn sum<const COUNT: usize>(mut counters: [u64; COUNT], more: [u64; COUNT]) -> [u64; COUNT] {
    for (counter, more) in counters.iter_mut().zip(more) {
        *counter += more;
    }
    counters
}

fn set_ports(object: &mut Ebpf, ports: &[u16]) -> anyhow::Result<()> {
    let map = object.map_mut("PORTS").context("the probes have no map of ports")?;
    let mut map: HashMap<_, u16, u8> = HashMap::try_from(map).context("open the map of ports")?;
    for port in ports {
        map.insert(port, 1, 0).with_context(|| format!("watch port {port}"))?;
    }
    Ok(())
}

/// What the operator is told of a failure. EPERM is a matter of privilege; EACCES is not, once the capabilities are
/// there: it is the verifier's answer to a program it finds unsafe.
fn refusal(error: anyhow::Error) -> Unsupported {
    let denied = error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.raw_os_error() == Some(libc::EPERM)));
    if denied { Unsupported::Privilege { missing: Vec::new() } } else { Unsupported::Refused(error) }
}

/// A table by call number of facts about system calls that can move a socket's bytes; 0 is what holds for the others.
fn by_call<T: Copy>(facts: &[(T, &[libc::c_long])], to_wire: fn(T) -> u8) -> [u8; SYSTEM_CALLS] {
    let mut table = [0; SYSTEM_CALLS];
    for (fact, calls) in facts {
        for call in *calls {
            if let Some(entry) = usize::try_from(*call).ok().and_then(|call| table.get_mut(call)) {
                *entry = to_wire(*fact);
            }
        }
    }
    table
}

/// `libc` has the numbers of each architecture.
const CALLS: &[(Shape, &[libc::c_long])] = &[
    (Shape::Buffer, &[libc::SYS_read, libc::SYS_write, libc::SYS_recvfrom, libc::SYS_sendto]),
    (
        Shape::Vector,
        &[
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_preadv,
            libc::SYS_pwritev,
            libc::SYS_preadv2,
            libc::SYS_pwritev2,
        ],
    ),
    (Shape::Message, &[libc::SYS_recvmsg, libc::SYS_sendmsg]),
    (Shape::Messages, &[libc::SYS_recvmmsg, libc::SYS_sendmmsg]),
    (Shape::Ring, &[libc::SYS_io_uring_enter]),
];

/// What the same calls, and those whose buffer is hidden, do to the descriptor in their first argument. Positional calls
/// (preadv, pwrite) fail on sockets; preadv2 and pwritev2 do not where the position is -1.
const MOVES: &[(Moves, &[libc::c_long])] = &[
    (Moves::Reads, &[libc::SYS_read, libc::SYS_readv, libc::SYS_preadv2]),
    (
        Moves::Writes,
        &[
            libc::SYS_write,
            libc::SYS_writev,
            libc::SYS_pwritev2,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_sendfile,
        ],
    ),
    (Moves::ReceivesByThird, &[libc::SYS_recvmsg]),
    (Moves::ReceivesByFourth, &[libc::SYS_recvfrom]),
    (Moves::Messages, &[libc::SYS_sendmmsg, libc::SYS_recvmmsg]),
];

/// The probes, embedded by `build.rs`; empty when they were not built. Aligned as an ELF parser wants it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/probes.o"));

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_call_that_moves_bytes_has_a_place_in_the_table() {
        let (shapes, moves) = (by_call(CALLS, Shape::to_wire), by_call(MOVES, Moves::to_wire));
        let index = |call: &libc::c_long| usize::try_from(*call).expect("numbers are positive");
        for (shape, calls) in CALLS {
            for call in *calls {
                assert_eq!(shapes[index(call)], shape.to_wire(), "call {call}");
            }
        }
        for (fact, calls) in MOVES {
            for call in *calls {
                assert_eq!(moves[index(call)], fact.to_wire(), "call {call}");
            }
        }
        assert_eq!(shapes[index(&libc::SYS_sendfile)], Shape::Hidden.to_wire());
        assert_eq!(moves[index(&libc::SYS_splice)], Moves::Nothing.to_wire());
    }

    #[test]
    fn a_refused_system_call_is_a_matter_of_privilege() {
        let denied = anyhow!(io::Error::from_raw_os_error(libc::EPERM)).context("load the probes' maps");
        assert!(matches!(refusal(denied), Unsupported::Privilege { .. }));
        let other = anyhow!(io::Error::from_raw_os_error(libc::ENOMEM)).context("load the probes' maps");
        assert!(matches!(refusal(other), Unsupported::Refused(_)));
    }
}
