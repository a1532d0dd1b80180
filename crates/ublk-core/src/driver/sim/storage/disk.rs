//! The handle with which a test controls a disk of the model.

use std::os::fd::RawFd;

use crate::driver::sim::Sim;
use crate::driver::sim::seam::OpenFd;
use crate::driver::sim::storage::backend::{Disk, Trouble};
use crate::driver::sim::storage::files::{FileRef, Reported};

/// A disk or file of the model. The descriptor is valid until the `SimDisk` is dropped; a ring with the
/// descriptor registered keeps the open file for longer.
#[derive(Debug)]
pub struct SimDisk {
    file: OpenFd,
    disk: usize,
}

impl SimDisk {
    pub(crate) fn new(sim: Sim, size: usize, is_block_device: bool) -> Self {
        let mut model = sim.lock();
        model.disks.push(Disk::new(size, is_block_device));
        let disk = model.disks.len() - 1;
        let fd = model.install(FileRef::Disk(disk, Reported::new(0)));
        drop(model);
        Self { file: OpenFd { sim, fd }, disk }
    }

    /// Returns a descriptor valid only in the same model, not in the real system.
    pub fn fd(&self) -> RawFd {
        self.file.fd
    }

    /// Returns the contents seen by reads.
    pub fn contents(&self) -> Vec<u8> {
        self.with(|disk| disk.contents.clone())
    }

    /// Returns the contents certain to survive a power cut.
    pub fn durable(&self) -> Vec<u8> {
        self.with(|disk| disk.durable.clone())
    }

    /// Writes `bytes` at `offset`, durably.
    pub fn store(&self, offset: u64, bytes: &[u8]) {
        self.with(|disk| disk.write(offset, bytes, true));
    }

    /// Truncates or grows the disk to `size` bytes, even while a server uses the disk.
    pub fn resize(&self, size: usize) {
        self.with(|disk| disk.resize(size));
    }

    /// Makes the disk misbehave as `trouble` says from now on.
    pub fn set_trouble(&self, trouble: Trouble) {
        self.with(|disk| disk.trouble = trouble);
    }

    /// Cuts the power: each sector written since the last sync keeps the old or the new contents.
    pub fn cut_power(&self) {
        let mut model = self.file.sim.lock();
        let mut rng = model.rng.clone();
        model.disks[self.disk].cut_power(&mut rng);
        model.rng = rng;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        act(&mut self.file.sim.lock().disks[self.disk])
    }
}
