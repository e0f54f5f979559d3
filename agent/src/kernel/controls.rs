// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the run loop tells the probes: the only arrow that points from user space into the kernel.
//!
//! In: settings of processes, where long bodies end, and sockets that nobody wants any more. Out: entries of the control maps. It decides nothing
//! and remembers nothing.

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError},
};
use spantap_common::{
    identity::Kind,
    settings::{BodyEnd, ProcessSettings},
};

use crate::{event::SocketId, pipeline::LongBody};

/// The control maps.
pub struct Controls {
    processes: HashMap<MapData, u32, ProcessSettings>,
    unwanted: HashMap<MapData, u64, u8>,
    bodies: HashMap<MapData, u64, BodyEnd>,
    count_only: Array<MapData, u32>,
    layouts: Array<MapData, u32>,
    wakes: Array<MapData, u32>,
    /// What `layouts` holds.
    told: u32,
}

impl Controls {
    pub(super) fn take_from(probes: &mut Ebpf) -> anyhow::Result<Self> {
        let map = probes.take_map("PROCESSES").context("the probes have no map of processes")?;
        let processes = HashMap::try_from(map).context("open the map of processes")?;
        let map = probes.take_map("UNWANTED").context("the probes have no map of unwanted sockets")?;
        let unwanted = HashMap::try_from(map).context("open the map of unwanted sockets")?;
        let map = probes.take_map("BODIES").context("the probes have no map of bodies")?;
        let bodies = HashMap::try_from(map).context("open the map of bodies")?;
        let map = probes.take_map("COUNT_ONLY").context("the probes have no word for counting only")?;
        let count_only = Array::try_from(map).context("open the word for counting only")?;
        let map = probes.take_map("LAYOUTS").context("the probes have no count of layouts")?;
        let layouts = Array::try_from(map).context("open the count of layouts")?;
        let map = probes.take_map("WAKES").context("the probes have no word for wakes")?;
        let wakes = Array::try_from(map).context("open the word for wakes")?;
        Ok(Self { processes, unwanted, bodies, count_only, layouts, wakes, told: 0 })
    }

    /// Tells the probes what to do for a process. Sockets that they have judged already keep their verdict.
    ///
    /// Fails when [`spantap_common::abi::MAX_PROCESSES`] are set; the default verdict holds for the process then.
    pub fn set_process(&mut self, pid: u32, settings: ProcessSettings) -> Result<(), MapError> {
        self.processes.insert(pid, settings, 0)?;
        if settings.identity != 0 {
            // Zero would say that there is none.
            self.told = self.told.checked_add(1).unwrap_or(1);
            self.layouts.set(0, self.told, 0)?;
            // Stays on: the last of such processes to end is no reason for another look at all of them.
            if settings.identity == Kind::Wakes as u32 {
                self.wakes.set(0, 1, 0)?;
            }
        }
        Ok(())
    }

    /// Tells the probes to leave a socket alone, some [`spantap_common::abi::TURNS_PER_LOOK`] turns from now.
    ///
    /// Fails when the kernel has no memory; the socket is copied in vain then.
    pub fn leave_alone(&mut self, socket: SocketId) -> Result<(), MapError> {
        self.unwanted.insert(socket.0, 1, 0)
    }

    /// Tells the probes where the body ends that `told.socket` is in the middle of: most calls until there need no record.
    ///
    /// Fails when the kernel has no memory; each of them has one then.
    pub fn pass_over(&mut self, told: LongBody) -> Result<(), MapError> {
        let LongBody { socket, direction, end, seen } = told;
        self.bodies.insert(socket.0, BodyEnd { seen: seen.0, end, direction: direction.to_wire().into() }, 0)
    }

    /// Tells the probes whether to count the calls of followed connections and nothing else, from now on.
    pub fn count_only(&mut self, count_only: bool) -> Result<(), MapError> {
        self.count_only.set(0, u32::from(count_only), 0)
    }

    /// Forgets a process that has ended. One that was never set is forgotten already.
    pub fn forget_process(&mut self, pid: u32) {
        match self.processes.remove(&pid) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            // A map of our own, with a key of its size: the kernel has no other reason but that the key is not there.
            Err(error) => tracing::debug!(pid, %error, "forget a process"),
        }
    }
}
