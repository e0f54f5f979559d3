// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The resource of a process, from its facts.
//!
//! In: [`ProcessFacts`] as processes are met, and the pid that a span came from. Out: the [`Resource`] of that service
//! instance, named as its operator would name it. It reads nothing, keeps no facts, and lets no command line argument
//! and no variable of the environment out but what the target declares for OpenTelemetry.

mod cgroup;
mod command_line;
pub(crate) mod declared;
pub mod selector;
mod service_name;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use opentelemetry_semantic_conventions::attribute as semconv;
use uuid::Uuid;

use crate::{
    attribute::Attribute,
    enrich::{
        HostFacts, Resource,
        target::{Candidates, Targets},
    },
    process::{ProcessFacts, ProcessId, TICK_NS},
    table::Table,
    time::Timestamp,
};

/// The resources of the processes that were met, by pid.
#[derive(Debug)]
pub struct Resources {
    host: HostFacts,
    /// What every resource has.
    common: Vec<Attribute>,
    /// What is in `common` whatever anybody says.
    machine: Vec<Attribute>,
    /// Law: at most [`MAX_PROCESSES`].
    entries: Table<u32, Entry>,
    /// Processes that ended, and when they may be forgotten; in the order of that time.
    ended: VecDeque<(Timestamp, ProcessId)>,
    targets: Targets,
    /// Processes that turned out to export spans of their own, since somebody asked. Law: at most [`MAX_PROCESSES`].
    instrumented: Vec<Arc<Resource>>,
    counts: Counts,
}

/// What did not go well.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Processes forgotten before their time, because there were more than the table has room for. Their later spans
    /// come from an unknown service.
    pub evicted: u64,
    /// `OTEL_RESOURCE_ATTRIBUTES` that could not be decoded or were too long, and were discarded.
    pub undecodable: u64,
}

#[derive(Debug)]
struct Entry {
    resource: Arc<Resource>,
    candidates: Candidates,
    used: Timestamp,
    life: Life,
}

/// Order: who is evicted first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Life {
    Ended,
    /// A span came before any facts.
    Unknown,
    Running,
}

impl Resources {
    /// No process yet, on the machine `host`.
    pub fn new(host: HostFacts) -> Self {
        let mut common = Vec::new();
        for (key, value) in
            [(semconv::HOST_NAME, &host.name), (semconv::HOST_ID, &host.id), (semconv::HOST_ARCH, &host.arch)]
        {
            if !value.is_empty() {
                common.push(Attribute::new(key, value.clone()));
            }
        }
        common.push(Attribute::new(semconv::OS_TYPE, "linux"));
        // "If another SDK, like a fork or a vendor-provided implementation, is used, this SDK MUST set the
        // `telemetry.sdk.name` attribute to the fully-qualified class or module name of this SDK's main entry point […].
        // The identifier `opentelemetry` is reserved and MUST NOT be used in this case."
        // (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/telemetry/>). No SDK makes these spans.
        for (key, value) in [
            (semconv::TELEMETRY_SDK_LANGUAGE, "rust"),
            (semconv::TELEMETRY_SDK_NAME, "spantap"),
            (semconv::TELEMETRY_SDK_VERSION, env!("CARGO_PKG_VERSION")),
            (semconv::TELEMETRY_DISTRO_NAME, "spantap"),
            (semconv::TELEMETRY_DISTRO_VERSION, env!("CARGO_PKG_VERSION")),
        ] {
            common.push(Attribute::new(key, value));
        }
        Self {
            host,
            machine: common.clone(),
            common,
            entries: Table::default(),
            ended: VecDeque::new(),
            targets: Targets::default(),
            instrumented: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Attributes of every resource that has no other value for them, instead of those of an earlier call. What a process
    /// declares of itself wins over them, and they win over what is known of the machine. Who is known already stays as
    /// described.
    pub fn also(&mut self, attributes: &[(String, String)]) {
        self.common.clone_from(&self.machine);
        for (key, value) in attributes.iter().filter(|(key, _)| key != semconv::SERVICE_NAME) {
            // The telemetry is ours, whatever anybody says.
            match self.common.iter_mut().find(|common| common.key == **key) {
                Some(common) if common.key.starts_with("telemetry.") => {}
                Some(common) => common.value = value.clone().into(),
                None => self.common.push(Attribute::new(key.clone(), value.clone())),
            }
        }
    }

    /// Rules for kinds of processes, instead of those of an earlier call. Who is known already stays under those.
    pub fn classify(&mut self, targets: Targets) {
        self.targets = targets;
    }

    /// The rule that a request falls under, of the process `pid` and to a server on `port`.
    pub fn target(&self, pid: u32, port: u16) -> Option<Arc<str>> {
        let entry = self.entries.get(&pid)?;
        self.targets.of_request(entry.candidates, port)
    }

    /// Facts about a process: a new one, or one that executed another program.
    pub fn learn(&mut self, facts: &ProcessFacts, now: Timestamp) {
        let mut resource = self.describe(facts);
        // What one of its calls has shown holds as long as the process lives.
        let known = self.entries.get(&facts.id.pid).map(|entry| &entry.resource);
        let before = known.is_some_and(|known| known.process == facts.id && known.instrumented);
        resource.instrumented |= before;
        let resource = Arc::new(resource);
        if resource.instrumented && !before {
            self.announce(&resource);
        }
        let candidates = self.targets.of_process(facts);
        self.insert(facts.id.pid, Entry { resource, candidates, used: now, life: Life::Running }, now);
    }

    /// The process ended. It stays known for [`GRACE`], since spans come later than the events they are made of.
    pub fn forget(&mut self, pid: u32, now: Timestamp) {
        self.expire(now);
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.life = Life::Ended;
            self.ended.push_back((now.plus(GRACE), entry.resource.process));
        }
    }

    /// The resource of the process `pid`; one of an unknown service where no facts were learned.
    pub fn resource(&mut self, pid: u32, now: Timestamp) -> Arc<Resource> {
        self.expire(now);
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.used = now;
            return Arc::clone(&entry.resource);
        }
        let facts = ProcessFacts { id: ProcessId { pid, started: 0 }, ..ProcessFacts::default() };
        let resource = Arc::new(self.describe(&facts));
        let candidates = self.targets.of_process(&facts);
        self.insert(pid, Entry { resource: Arc::clone(&resource), candidates, used: now, life: Life::Unknown }, now);
        resource
    }

    /// The process `pid` was seen to export spans of its own.
    pub fn exports(&mut self, pid: u32) {
        let Some(entry) = self.entries.get_mut(&pid) else { return };
        if !entry.resource.instrumented {
            entry.resource = Arc::new(Resource { instrumented: true, ..Resource::clone(&entry.resource) });
            let resource = Arc::clone(&entry.resource);
            self.announce(&resource);
        }
    }

    /// Processes that export spans of their own, each told once.
    pub fn instrumented(&mut self) -> impl Iterator<Item = Arc<Resource>> + '_ {
        self.instrumented.drain(..)
    }

    /// Whether the process `pid` is known to export spans of its own.
    pub fn is_instrumented(&self, pid: u32) -> bool {
        self.entries.get(&pid).is_some_and(|entry| entry.resource.instrumented)
    }

    fn announce(&mut self, resource: &Arc<Resource>) {
        if self.instrumented.len() < MAX_PROCESSES {
            self.instrumented.push(Arc::clone(resource));
        }
    }

    /// What did not go well so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn insert(&mut self, pid: u32, entry: Entry, now: Timestamp) {
        self.expire(now);
        if self.entries.len() >= MAX_PROCESSES && !self.entries.contains_key(&pid) {
            let oldest = self.entries.iter().min_by_key(|(pid, entry)| (entry.life, entry.used, **pid));
            if let Some(oldest) = oldest.map(|(pid, _)| *pid) {
                self.entries.remove(&oldest);
                self.counts.evicted += 1;
            }
        }
        self.entries.insert(pid, entry);
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some((_, process)) = self.ended.pop_front_if(|(until, _)| *until <= now) {
            // The number may belong to somebody else by now, or the process may not have ended after all.
            let over = |entry: &Entry| entry.resource.process == process && entry.life == Life::Ended;
            if self.entries.get(&process.pid).is_some_and(over) {
                self.entries.remove(&process.pid);
            }
        }
    }

    fn describe(&mut self, facts: &ProcessFacts) -> Resource {
        let declared = facts.otel_resource_attributes.as_deref().map(declared::parse).unwrap_or(Some(Vec::new()));
        let declared = declared.unwrap_or_else(|| {
            self.counts.undecodable += 1;
            Vec::new()
        });
        let declared_name =
            declared.iter().find(|(key, _)| key == semconv::SERVICE_NAME).map(|(_, name)| name.as_str());
        let service: Arc<str> = service_name::choose(facts, declared_name).into();

        let mut attributes = vec![
            Attribute::new(semconv::SERVICE_NAME, service.to_string()),
            Attribute::new(semconv::SERVICE_INSTANCE_ID, self.instance_id(facts.id)),
        ];
        attributes.extend(process_attributes(facts, self.host.booted));
        attributes.extend_from_slice(&self.common);
        for (key, value) in declared {
            match attributes.iter_mut().find(|attribute| attribute.key == key) {
                // "If `service.name` is also provided in `OTEL_RESOURCE_ATTRIBUTES`, then `OTEL_SERVICE_NAME` takes
                // precedence": `choose` has seen both.
                Some(_) if key == semconv::SERVICE_NAME => {}
                // The telemetry is ours, whatever the target says of its own.
                Some(_) if key.starts_with("telemetry.") => {}
                Some(attribute) => attribute.value = value.into(),
                None => attributes.push(Attribute::new(key, value)),
            }
        }
        Resource { process: facts.id, service, attributes, instrumented: facts.instrumented }
    }

    /// "Implementations... are recommended to generate a random Version 1 or Version 4 UUID, but are free to use an
    /// inherent unique ID as the source of this value if stability is desirable. In that case, the ID SHOULD be used
    /// as source of a UUID Version 5 and SHOULD use the following UUID as the namespace:
    /// 4d63009a-8d0f-11ee-aad7-4c796ed8e320"
    /// (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/service/>). Stable, a restarted agent goes on
    /// with the instance it reported before.
    fn instance_id(&self, process: ProcessId) -> String {
        let id = format!("{}/{}/{}", self.host.id, process.pid, process.started);
        Uuid::new_v5(&INSTANCE_NAMESPACE, id.as_bytes()).hyphenated().to_string()
    }
}

/// The name that the service of a process gets.
pub fn service(facts: &ProcessFacts) -> String {
    let declared = facts.otel_resource_attributes.as_deref().and_then(declared::parse).unwrap_or_default();
    let name = declared.iter().find(|(key, _)| key == semconv::SERVICE_NAME).map(|(_, name)| name.as_str());
    service_name::choose(facts, name).to_string()
}

/// The id of the container that a process runs in.
pub fn container(facts: &ProcessFacts) -> Option<&str> {
    cgroup::container(&facts.cgroup)
}

/// `process.*` and `container.id`.
fn process_attributes(facts: &ProcessFacts, booted: u64) -> Vec<Attribute> {
    let mut attributes = vec![Attribute::new(semconv::PROCESS_PID, i64::from(facts.id.pid))];
    let mut text = |key, value: &str| {
        if !value.is_empty() {
            attributes.push(Attribute::new(key, value.to_owned()));
        }
    };
    text(semconv::PROCESS_EXECUTABLE_NAME, file_name(&facts.executable));
    text(semconv::PROCESS_EXECUTABLE_PATH, &facts.executable);
    text(semconv::PROCESS_COMMAND, command(facts));
    if let Some(created) = creation_time(facts.id, booted) {
        text(semconv::PROCESS_CREATION_TIME, &created);
    }
    if let Some(runtime) = facts.runtime.name() {
        text(semconv::PROCESS_RUNTIME_NAME, runtime);
    }
    match cgroup::container(&facts.cgroup) {
        // The owner was looked up among the host's users; a container has users of its own.
        Some(container) => text(semconv::CONTAINER_ID, container),
        None => text(semconv::PROCESS_OWNER, facts.owner.as_deref().unwrap_or_default()),
    }
    attributes
}

/// "The command used to launch the process (i.e. the command name). On Linux based systems, can be set to the zeroth
/// string in `proc/[pid]/cmdline`." A zeroth string with blanks is a title, which may hold arguments or the text of
/// the running query: then the kernel's short name of the process must do.
fn command(facts: &ProcessFacts) -> &str {
    match facts.arguments.first() {
        Some(command) if !command.is_empty() && !command.contains(char::is_whitespace) => command,
        _ => &facts.command,
    }
}

/// `2023-11-21T09:25:34.853Z`; nothing where the start is unknown.
fn creation_time(process: ProcessId, booted: u64) -> Option<String> {
    if process.started == 0 || booted == 0 {
        return None;
    }
    let millis = booted.saturating_add(process.started.saturating_mul(TICK_NS)) / 1_000_000;
    let (seconds, millis) = (millis / 1_000, millis % 1_000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"))
}

/// Year, month and day of the `days`-th day since 1970-01-01
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>, for days after the epoch only).
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the leap day is their last. An era is 400 years: 146,097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Of the conventions, for ids that are stable.
const INSTANCE_NAMESPACE: Uuid = Uuid::from_u128(0x4d63009a_8d0f_11ee_aad7_4c796ed8e320);

/// Processes with sockets that are traced, at one time: hundreds on a large node. A resource takes some 2 KiB, so the
/// full table is 8 MiB of the agent's 40.
pub const MAX_PROCESSES: usize = 4096;

/// Longer than any stage holds a span back for its parent or its response.
pub const GRACE: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;
