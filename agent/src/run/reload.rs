// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration, read again while the agent runs.
//!
//! In: SIGHUP, and files that are swapped. Out: [`Change`]s, when the run loop comes by. Files are read on a thread of their
//! own: one that lies where nobody answers, on a network or behind a pipe, holds up the answer and never the ring. It
//! applies nothing, and what is wrong with a file is told to the operator and changes nothing.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tracing::{error, warn};

use crate::config::{
    Command, Config, Decision, Refusal,
    reload::{Change, Swaps},
};

/// Where the configuration came from: it is asked again when it may say something else.
pub struct Source {
    /// The files, of which there is at least one.
    pub files: Vec<PathBuf>,
    /// Decides again by everything that decided at the start.
    pub decide: Box<dyn Fn() -> Result<Decision, Refusal> + Send>,
}

/// The configuration in force, and whoever reads the next one.
pub(super) struct Reload {
    /// What was asked for, as far as it is applied.
    pub(super) in_force: Config,
    /// Those that are good, oldest first.
    read: Receiver<Config>,
}

impl Reload {
    /// Reads `source` again on SIGHUP and where one of its files is swapped; `config` is in force until then.
    pub(super) fn from(source: Source, config: &Config, runtime: &Runtime) -> anyhow::Result<Self> {
        // One request stands for all that are made before it is taken up: they ask for the same.
        let (ask, asked) = sync_channel(1);
        let _guard = runtime.enter();
        let mut signals = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
        runtime.spawn(async move {
            while signals.recv().await.is_some() {
                // Full: it was asked already.
                ask.try_send(()).ok();
            }
        });
        Ok(Self { in_force: config.clone(), read: read_on_a_thread(source, asked)? })
    }

    /// What is to be applied, if the configuration was read again and is good.
    pub(super) fn look(&mut self) -> Option<Change> {
        let config = self.read.try_recv().ok()?;
        let change = Change::between(&self.in_force, &config);
        Change::apply(&mut self.in_force, config);
        Some(change)
    }
}

/// Starts the thread that reads. It ends with whoever asks, or when nobody wants what it has read.
fn read_on_a_thread(source: Source, asked: Receiver<()>) -> anyhow::Result<Receiver<Config>> {
    // What the loop has not taken yet holds up the next reading, and nobody else.
    let (good, read) = sync_channel(1);
    let thread = thread::Builder::new().name("spantap-config".to_owned());
    thread
        .spawn(move || keep_reading(&source, &asked, &good))
        .context("start the thread that reads the configuration")?;
    Ok(read)
}

fn keep_reading(source: &Source, asked: &Receiver<()>, good: &SyncSender<Config>) {
    let mut swaps: Vec<_> = source.files.iter().map(|file| Swaps::of(file)).collect();
    loop {
        let is_asked = match asked.recv_timeout(LOOK_FOR_SWAPS) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Each of them has to look, also where the first one was swapped.
        let swapped = swaps.iter_mut().filter_map(|swaps| swaps.look().then_some(())).count();
        if (is_asked || swapped > 0)
            && let Some(config) = read_again(source)
            && good.send(config).is_err()
        {
            return;
        }
    }
}

/// What the files say now, if it is good. What is wrong with them is told here.
fn read_again(source: &Source) -> Option<Config> {
    let kept = "the configuration was read again and is not good; everything stays as it was:";
    match (source.decide)() {
        Ok(Decision { command: Command::Run(config), warnings, .. }) => {
            for warning in warnings {
                warn!("{warning}");
            }
            Some(config)
        }
        // The same arguments have the same meaning.
        Ok(_) => None,
        Err(Refusal::Mistakes(mistakes)) => {
            let mistakes: Vec<_> = mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect();
            error!("{kept}{}", mistakes.concat());
            None
        }
        Err(Refusal::CommandLine(why)) => {
            error!("{kept} {why}");
            None
        }
    }
}

/// Between two looks at where the configuration's links lead: people wait for what they have changed.
const LOOK_FOR_SWAPS: Duration = Duration::from_secs(1);
