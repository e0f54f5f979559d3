// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ring, processes, and what the kernel offers.

use std::{fs, net::TcpListener, process::Command};

use spantap::kernel::Settings;
use spantap_common::{
    event::{data::Direction, process::Life},
    loss::Reason,
};

use crate::{
    dialogue::{REQUEST, length, said},
    scene::{Scene, forced_tier, privileged},
};

#[test]
fn a_full_ring_is_counted_and_positions_show_what_is_missing() {
    if !privileged() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    // The smallest there is: one page.
    let mut scene = Scene::of(listener, Settings { ring_bytes: 4096, ..Settings::default() });
    let (mut client, mut server) = scene.connect();
    for _ in 0..64 {
        said(&mut client, &mut server, REQUEST);
    }
    assert!(scene.probes.lost()[Reason::RingFull as usize] > 0);
    scene.seen();
    said(&mut client, &mut server, REQUEST);
    let seen = scene.seen();
    let read: Vec<_> = seen.at(&server).data(Direction::Read).collect();
    let last = read.last().expect("after the ring was emptied");
    assert_eq!(last.bytes, REQUEST);
    let start = seen.at(&server).socket.read_position;
    assert_eq!(last.position.wrapping_sub(start), 64 * length(REQUEST), "{} records", read.len());
}

#[test]
fn a_process_is_seen_from_its_fork_to_its_exit() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let mut child = Command::new("/bin/sh").args(["-c", ":"]).spawn().expect("sh");
    let pid = child.id();
    assert!(child.wait().expect("sh").success());

    let seen = scene.until("the child has ended", |seen| seen.lives(pid).any(|life| life.life == Life::Exit));
    let lives: Vec<_> = seen.lives(pid).collect();
    assert_eq!(lives.iter().map(|life| life.life).collect::<Vec<_>>(), [Life::Fork, Life::Exec, Life::Exit]);
    assert!(lives.iter().all(|life| life.parent == std::process::id()), "{lives:?}");
    assert_eq!((lives[1].command.as_slice(), lives[1].path.as_slice()), (&b"sh"[..], &b"/bin/sh"[..]));
    assert!(lives[0].started > 0 && lives.iter().all(|life| life.started == lives[0].started), "{lives:?}");
}

#[test]
fn this_kernel_offers_every_hook_that_had_come_by_then() {
    let Some(scene) = Scene::watch("127.0.0.1:0") else { return };
    let release = version(&fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release"));
    let missing = scene.probes.verdicts().iter().filter(|verdict| verdict.sentence().is_some());
    let early: Vec<_> = missing.filter(|verdict| version(verdict.hook.since) <= release).collect();
    assert!(early.is_empty(), "{release:?} is missing {early:?}");
    assert!(forced_tier().is_none_or(|tier| tier == scene.probes.tier()), "{}", scene.probes.tier());
    // What QEMU's console shows of the choice.
    println!("{}", scene.probes.tier());
}

/// Major and minor number at the beginning of `release`.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().expect("a major number"), numbers.next().expect("a minor number"))
}
