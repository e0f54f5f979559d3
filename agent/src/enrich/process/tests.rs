// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::collections::BTreeMap;

use proptest::prelude::{any, prop, prop_assert, prop_oneof, proptest};

use super::*;
use crate::process::Runtime;

const START: Timestamp = Timestamp(1_000_000_000);

fn host() -> HostFacts {
    HostFacts {
        name: "vm".to_owned(),
        id: "0123456789abcdef0123456789abcdef".to_owned(),
        arch: "amd64".to_owned(),
        // 2026-11-05T12:00:00Z
        booted: 1_793_880_000_000_000_000,
    }
}

fn facts(pid: u32, executable: &str) -> ProcessFacts {
    ProcessFacts {
        id: ProcessId { pid, started: 1_234 },
        command: file_name(executable).to_owned(),
        executable: executable.to_owned(),
        ..ProcessFacts::default()
    }
}

/// Every attribute as text; a key that stood there twice would be noticed.
fn attributes(resource: &Resource) -> BTreeMap<String, String> {
    let all: BTreeMap<_, _> =
        resource.attributes.iter().map(|attribute| (attribute.key.to_string(), attribute.value.to_string())).collect();
    assert_eq!(all.len(), resource.attributes.len(), "{:?}", resource.attributes);
    all
}

fn described(facts: &ProcessFacts) -> BTreeMap<String, String> {
    let mut resources = Resources::new(host());
    resources.learn(facts, START);
    attributes(&resources.resource(facts.id.pid, START))
}

#[test]
fn a_service_instance_has_the_attributes_of_the_conventions() {
    let described = described(&ProcessFacts {
        arguments: ["python3", "/srv/cart/app.py", "--password=s3cret"].map(str::to_owned).to_vec(),
        directory: "/srv/cart".to_owned(),
        cgroup: "/user.slice/user-1000.slice/session-3.scope".to_owned(),
        owner: Some("alice".to_owned()),
        runtime: Runtime::Python,
        ..facts(42, "/usr/bin/python3.11")
    });
    let described: Vec<_> = described.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(
        described,
        [
            "host.arch=amd64",
            "host.id=0123456789abcdef0123456789abcdef",
            "host.name=vm",
            "os.type=linux",
            "process.command=python3",
            "process.creation.time=2026-11-05T12:00:12.340Z",
            "process.executable.name=python3.11",
            "process.executable.path=/usr/bin/python3.11",
            "process.owner=alice",
            "process.pid=42",
            "process.runtime.name=python",
            // uuid.uuid5(UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320"), "0123456789abcdef0123456789abcdef/42/1234")
            "service.instance.id=0caba431-9e3f-5d79-a0e0-10e8047eba4f",
            "service.name=app",
            "telemetry.distro.name=spantap",
            concat!("telemetry.distro.version=", env!("CARGO_PKG_VERSION")),
            "telemetry.sdk.language=rust",
            "telemetry.sdk.name=spantap",
            concat!("telemetry.sdk.version=", env!("CARGO_PKG_VERSION")),
        ]
    );
}

#[test]
fn what_the_target_declares_is_merged() {
    let declared = "service.name=ignored,service.namespace=shop,service.version=1%2C2,deployment.environment.name=prod,\
                    service.instance.id=cart-0,telemetry.sdk.name=other";
    let described = described(&ProcessFacts {
        otel_service_name: Some("cart".to_owned()),
        otel_resource_attributes: Some(declared.to_owned()),
        ..facts(42, "/usr/bin/cart")
    });
    for (key, value) in [
        ("service.name", "cart"),
        ("service.namespace", "shop"),
        ("service.version", "1,2"),
        ("deployment.environment.name", "prod"),
        ("service.instance.id", "cart-0"),
        ("telemetry.sdk.name", "spantap"),
    ] {
        assert_eq!(described.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn a_declared_name_stands_in_for_the_variable() {
    let facts =
        ProcessFacts { otel_resource_attributes: Some("service.name=cart".to_owned()), ..facts(42, "/usr/bin/node") };
    assert_eq!(described(&facts)["service.name"], "cart");
}

#[test]
fn what_cannot_be_decoded_is_discarded_and_counted() {
    let mut resources = Resources::new(host());
    let otel_resource_attributes = Some("service.name=cart,a=%zz".to_owned());
    resources.learn(&ProcessFacts { otel_resource_attributes, ..facts(42, "/usr/bin/cartd") }, START);
    assert_eq!(&*resources.resource(42, START).service, "cartd");
    assert_eq!(resources.counts(), Counts { undecodable: 1, evicted: 0 });
}

#[test]
fn no_argument_becomes_an_attribute() {
    for arguments in [
        &["/usr/bin/node", "server.js", "--token=s3cret"][..],
        &["node server.js --token=s3cret"],
        &["node: s3cret"],
        &["node", "-e", "connect('s3cret')"],
        &["", "--token=s3cret"],
    ] {
        let described = described(&ProcessFacts {
            arguments: arguments.iter().map(ToString::to_string).collect(),
            ..facts(42, "/usr/bin/node")
        });
        let leaked: Vec<_> = described.iter().filter(|(_, value)| value.contains("s3cret")).collect();
        assert!(leaked.is_empty(), "{arguments:?}: {leaked:?}");
    }
}

#[test]
fn the_users_of_the_host_do_not_own_the_processes_of_containers() {
    let id = "0123456789abcdef".repeat(4);
    let described = described(&ProcessFacts {
        cgroup: format!("/system.slice/docker-{id}.scope"),
        owner: Some("alice".to_owned()),
        ..facts(42, "/usr/bin/node")
    });
    assert_eq!(described.get("container.id"), Some(&id));
    assert_eq!(described.get("process.owner"), None);
}

#[test]
fn a_process_nobody_knows_has_an_unknown_service_until_it_is_learned() {
    let mut resources = Resources::new(host());
    let unknown = resources.resource(42, START);
    assert_eq!(&*unknown.service, "unknown_service");
    assert_eq!(attributes(&unknown)["process.pid"], "42");
    assert!(Arc::ptr_eq(&unknown, &resources.resource(42, START)), "one resource for all its spans");
    resources.learn(&facts(42, "/usr/bin/cart"), START);
    assert_eq!(&*resources.resource(42, START).service, "cart");
}

#[test]
fn the_latest_program_of_a_process_counts() {
    let mut resources = Resources::new(host());
    resources.learn(&facts(42, "/bin/sh"), START);
    resources.learn(&facts(42, "/usr/bin/cart"), START);
    assert_eq!(&*resources.resource(42, START).service, "cart");
}

#[test]
fn an_ended_process_is_known_for_its_grace() {
    let mut resources = Resources::new(host());
    resources.learn(&facts(42, "/usr/bin/cart"), START);
    resources.forget(42, START);
    let within = START.plus(GRACE - Duration::from_nanos(1));
    assert_eq!(&*resources.resource(42, within).service, "cart");
    assert_eq!(&*resources.resource(42, START.plus(GRACE)).service, "unknown_service");
}

#[test]
fn a_number_given_away_within_the_grace_belongs_to_its_new_owner() {
    let mut resources = Resources::new(host());
    resources.learn(&facts(42, "/usr/bin/cart"), START);
    resources.forget(42, START);
    resources.learn(&ProcessFacts { id: ProcessId { pid: 42, started: 2_000 }, ..facts(42, "/usr/bin/shop") }, START);
    assert_eq!(&*resources.resource(42, START.plus(GRACE)).service, "shop");
}

#[test]
fn a_process_that_exports_its_own_spans_is_told_once_and_stays_known() {
    let mut resources = Resources::new(host());
    resources.learn(&facts(42, "/usr/bin/cart"), START);
    assert!(!resources.resource(42, START).instrumented);
    resources.exports(42);
    resources.exports(42);
    resources.learn(&ProcessFacts { instrumented: true, ..facts(43, "/usr/bin/shop") }, START);
    // The same process shows another socket; then its number belongs to somebody else.
    resources.learn(&facts(42, "/usr/bin/cart"), START);
    let told: Vec<_> = resources.instrumented().map(|resource| resource.service.to_string()).collect();
    assert_eq!(told, ["cart", "shop"]);
    assert!(resources.resource(42, START).instrumented);
    resources.learn(&ProcessFacts { id: ProcessId { pid: 42, started: 2_000 }, ..facts(42, "/usr/bin/shop") }, START);
    assert!(!resources.resource(42, START).instrumented);
    assert_eq!(resources.instrumented().count(), 0);
}

#[test]
fn the_table_is_bounded_and_ended_processes_make_room_first() {
    let mut resources = Resources::new(host());
    let full = u32::try_from(MAX_PROCESSES).expect("thousands");
    for pid in 1..=full {
        resources.learn(&facts(pid, "/usr/bin/cart"), Timestamp(u64::from(pid)));
    }
    let now = Timestamp(u64::from(full) + 1);
    resources.resource(1, now);
    resources.forget(9, now);
    resources.learn(&facts(full + 1, "/usr/bin/cart"), now);
    resources.learn(&facts(full + 2, "/usr/bin/cart"), now);
    assert_eq!(resources.entries.len(), MAX_PROCESSES);
    assert_eq!(resources.counts().evicted, 2);
    let known: Vec<bool> = [1, 2, 3, 9].iter().map(|pid| resources.entries.contains_key(pid)).collect();
    assert_eq!(known, [true, false, true, false], "9 had ended, 2 was used least recently");
}

#[test]
fn instances_are_told_apart_by_host_pid_and_start() {
    let id = |host_id: &str, pid, started| {
        let mut resources = Resources::new(HostFacts { id: host_id.to_owned(), ..host() });
        resources.learn(&ProcessFacts { id: ProcessId { pid, started }, ..facts(pid, "/usr/bin/cart") }, START);
        attributes(&resources.resource(pid, START))["service.instance.id"].clone()
    };
    assert_eq!(id("a", 1, 2), id("a", 1, 2));
    assert_ne!(id("a", 1, 2), id("b", 1, 2));
    assert_ne!(id("a", 1, 2), id("a", 2, 2));
    assert_ne!(id("a", 1, 2), id("a", 1, 3));
}

#[test]
fn days_become_dates() {
    for (days, date) in [
        (0, (1970, 1, 1)),
        (58, (1970, 2, 28)),
        (59, (1970, 3, 1)),
        (789, (1972, 2, 29)),
        (11_016, (2000, 2, 29)),
        (11_017, (2000, 3, 1)),
        (20_452, (2025, 12, 30)),
        (20_454, (2026, 1, 1)),
        (47_540, (2100, 2, 28)),
        (47_541, (2100, 3, 1)),
    ] {
        assert_eq!(civil(days), date, "{days}");
    }
}

proptest! {
    /// Processes write their own command lines, titles and environments; cgroups are named by whoever may make them.
    #[test]
    fn no_facts_make_it_panic(
        executable in prop_oneof!["/bin/(python3|node|java|ruby|php|bash|dotnet|perl|busybox)", any::<String>()],
        arguments in prop::collection::vec(
            prop_oneof!["-{0,2}[a-zA-Zé.:=/]{0,6}", "(gunicorn|flask|bundle|-jar|-m|--app)", any::<String>()], 0..6,
        ),
        directory in "(/[a-z.é]{0,4}){0,4}",
        cgroup in prop_oneof!["(/[a-zé:@-]{0,5}(\\\\x[0-9a-f]{0,2})?(\\.service|\\.scope|\\.slice)?){0,4}", any::<String>()],
        declared in prop_oneof!["([a-z%0-9é]{0,4}=?[a-z%0-9é]{0,4},?){0,4}", any::<String>()],
    ) {
        let described = described(&ProcessFacts {
            arguments,
            directory,
            cgroup,
            otel_resource_attributes: Some(declared),
            ..facts(42, &executable)
        });
        prop_assert!(!described["service.name"].is_empty());
    }
}
