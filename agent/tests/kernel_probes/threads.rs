// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Threads that begin and end in processes of which that is asked for.

use std::{
    collections::HashSet,
    env,
    io::{self, BufRead, BufReader, Write},
    net::TcpListener,
    process::{self, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use spantap::{
    event::{self, Event, Thread},
    kernel::Settings,
};
use spantap_common::{
    event::{process::Life, thread::Step},
    settings::ProcessSettings,
};

use crate::scene::{PATIENCE, Scene, Scenery, privileged};

#[test]
fn a_thread_is_seen_to_begin_by_the_hand_of_its_starter_and_to_end() {
    let Some(mut scene) = asked_about_this_process() else { return };
    let (outer, inner) =
        thread::spawn(|| (tid(), thread::spawn(tid).join().expect("it ends"))).join().expect("it ends");
    let seen = scene.until("both have ended", |seen| [outer, inner].iter().all(|tid| ends(seen, *tid).is_some()));
    for (starter, thread) in [(tid(), outer), (outer, inner)] {
        let (began, ended) = (begins(&seen, thread).expect("seen"), ends(&seen, thread).expect("seen"));
        assert_eq!((began.moment.task.pid, began.moment.task.tid), (process::id(), starter));
        assert_eq!((ended.moment.task.pid, ended.moment.task.tid), (process::id(), thread));
        assert_eq!(began.started, ended.started, "one thread, and not two of one id");
        assert!(began.moment.at < ended.moment.at);
    }
    scene.lost_nothing();
}

#[test]
fn threads_of_other_processes_are_not_told_of() {
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    thread::spawn(tid).join().expect("it ends");
    // Where the end of a process shows, so would that of a thread before it.
    let mut child = Command::new("bash").args(["-c", ":"]).spawn().expect("bash");
    let pid = child.id();
    assert!(child.wait().expect("bash").success());
    let seen = scene.until("a process has ended", |seen| seen.lives(pid).any(|life| life.life == Life::Exit));
    assert_eq!(seen.threads, []);
    scene.lost_nothing();
}

#[test]
fn threads_that_the_end_of_their_process_ends_are_seen_to_end() {
    const NAME: &str = "threads::threads_that_the_end_of_their_process_ends_are_seen_to_end";
    if env::var_os(CHILD).is_some() {
        ends_with_threads();
    }
    let Some(mut scene) = Scene::watch("127.0.0.1:0") else { return };
    let mut command = Command::new(env::current_exe().expect("this program"));
    let command = command.args(["--exact", NAME, "--nocapture"]).env(CHILD, "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program again");
    let pid = child.id();
    scene.probes.controls().set_process(pid, ASKED).expect("room");
    let mut cue = child.stdin.take().expect("piped");
    cue.write_all(b"begin\n").expect("cue");
    let said = BufReader::new(child.stdout.take().expect("piped"));
    let tids = said.lines().map_while(Result::ok).find_map(|line| threads_in(&line));
    let tids = tids.expect("the child says which threads it has");
    assert_eq!(tids.len(), 3);
    scene.until("they have begun", |seen| tids.iter().all(|tid| begins(seen, *tid).is_some()));
    cue.write_all(b"end\n").expect("cue");
    assert!(child.wait().expect("the child").success());
    let seen = scene.until("they have ended", |seen| tids.iter().all(|tid| ends(seen, *tid).is_some()));
    for tid in tids {
        let (began, ended) = (begins(&seen, tid).expect("seen"), ends(&seen, tid).expect("seen"));
        assert_eq!((began.moment.task.pid, ended.moment.task.pid), (pid, pid));
        assert_eq!(began.started, ended.started);
    }
    scene.lost_nothing();
}

#[test]
fn ten_thousand_threads_begin_and_end_without_loss() {
    let Some(mut scene) = asked_about_this_process() else { return };
    let mut tally = Tally { starter: tid(), ..Tally::default() };
    for _ in 0..CHURN {
        thread::spawn(|| {}).join().expect("it ends");
        scene.probes.drain(|record| tally.note(record));
    }
    let deadline = Instant::now() + PATIENCE;
    while tally.ended < CHURN {
        assert!(Instant::now() < deadline, "{} of {CHURN} have ended", tally.ended);
        scene.probes.drain(|record| tally.note(record));
        thread::yield_now();
    }
    assert_eq!(tally.begun, CHURN);
    scene.lost_nothing();
}

/// The threads that one thread has started: others of this process start some as well.
#[derive(Default)]
struct Tally {
    starter: u32,
    running: HashSet<(u32, u64)>,
    begun: usize,
    ended: usize,
}

impl Tally {
    fn note(&mut self, record: &[u8]) {
        let Event::Thread(thread) = event::decode(record).expect("well-formed") else { return };
        match thread.step {
            Step::Begins if thread.moment.task.tid == self.starter => {
                self.running.insert((thread.tid, thread.started));
                self.begun += 1;
            }
            Step::Begins => {}
            Step::Ends => self.ended += usize::from(self.running.remove(&(thread.tid, thread.started))),
        }
    }
}

/// Probes that tell of the threads of this process.
fn asked_about_this_process() -> Option<Scene> {
    let settings = Settings { processes: vec![(process::id(), ASKED)], ..Settings::default() };
    privileged().then(|| Scene::of(TcpListener::bind("127.0.0.1:0").expect("bind"), settings))
}

/// The other side of the test that starts this program again: three threads, which are there until the process ends.
fn ends_with_threads() -> ! {
    cue("begin");
    let (says, hears) = mpsc::channel();
    for _ in 0..3 {
        let says = says.clone();
        thread::spawn(move || {
            says.send(tid()).expect("it is heard");
            loop {
                thread::park();
            }
        });
    }
    let tids: Vec<String> = hears.iter().take(3).map(|tid| tid.to_string()).collect();
    println!("{THREADS}{}", tids.join(" "));
    cue("end");
    process::exit(0)
}

fn cue(expected: &str) {
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("a cue");
    assert_eq!(line.trim_end(), expected);
}

/// The thread ids in what the child says, if it says any in this line.
fn threads_in(line: &str) -> Option<Vec<u32>> {
    let (_, tids) = line.split_once(THREADS)?;
    Some(tids.split(' ').map(|tid| tid.parse().expect("a number")).collect())
}

fn begins(seen: &Scenery, tid: u32) -> Option<Thread> {
    step_of(seen, tid, Step::Begins)
}

fn ends(seen: &Scenery, tid: u32) -> Option<Thread> {
    step_of(seen, tid, Step::Ends)
}

fn step_of(seen: &Scenery, tid: u32, step: Step) -> Option<Thread> {
    seen.threads.iter().copied().find(|thread| thread.tid == tid && thread.step == step)
}

fn tid() -> u32 {
    // SAFETY: it takes no argument.
    let tid = unsafe { libc::gettid() };
    u32::try_from(tid).expect("positive")
}

const ASKED: ProcessSettings =
    ProcessSettings { identity_arguments: [0; 12], identity: 0, verdict: 0, threads: 1, reserved: 0 };

/// In the environment of this program when it is started again by a test of its own.
const CHILD: &str = "SPANTAP_CHILD_WITH_THREADS";

/// What the child says before its threads' ids.
const THREADS: &str = "its threads: ";

/// Threads of one test: as many as a process that starts one for each request does in a second or two.
const CHURN: usize = 10_000;
