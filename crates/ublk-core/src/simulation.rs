//! A target served on the simulated driver, with a user of its disk in front of it: reads, writes
//! and power cuts without a kernel that has ublk.
//!
//! The device is the one that [`Device::create`] makes on Linux, with its threads; below it,
//! `driver::sim` plays the kernel. A target's real files are read; what it writes to them stays in
//! a simulated cache until it syncs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use crate::device::{Device, DeviceOptions};
use crate::driver::sim::{Client, ClientOp, Faults, Injected, Outcome, Sim, SimConfig, Transfer};
use crate::error::{Code, Error, Result};
use crate::targets::{Boot, Target};

/// A simulated disk. With one queue, and a target that answers by itself, everything that happens
/// follows from the seed and from what is asked of the disk.
#[derive(Debug)]
pub struct Simulation {
    sim: Sim,
    options: DeviceOptions,
    served: Mutex<Option<Served>>,
    boot: Mutex<Boot>,
    /// Held while the device comes or goes.
    changing: Mutex<()>,
}

/// The device, as long as it can be used.
#[derive(Debug)]
struct Served {
    device: Arc<Device<Sim>>,
    client: Arc<Client>,
}

/// What was asked of the disk in one go.
#[derive(Debug)]
pub struct Operations {
    client: Option<Arc<Client>>,
    count: usize,
    transfers: Vec<Transfer>,
}

impl Simulation {
    /// Nothing is served yet. `config` must be one for real threads; of `options`, `pin` means
    /// nothing.
    pub fn new(config: SimConfig, options: &DeviceOptions) -> Self {
        Self {
            sim: Sim::new(config),
            options: DeviceOptions { pin: false, ..options.clone() },
            served: Mutex::default(),
            boot: Mutex::new(next_boot()),
            changing: Mutex::default(),
        }
    }

    /// The boot of the simulated machine; after a power cut it is another one.
    pub fn boot(&self) -> Boot {
        lock(&self.boot).clone()
    }

    /// Serves what `open` opens. Blocks.
    ///
    /// # Errors
    /// Those of `open`, and of [`Device::create`].
    pub fn serve<T: Target>(&self, open: impl FnOnce() -> Result<T>) -> Result<Arc<Device<Sim>>> {
        let _changing = lock(&self.changing);
        self.start(open)
    }

    /// Starts operations of any length, aligned to the device's blocks and within its size. With
    /// `cut_power`, the power goes off while they are under way: [`power_cycle`] must follow.
    ///
    /// [`power_cycle`]: Self::power_cycle
    pub fn begin(&self, ops: &[ClientOp], cut_power: bool) -> Operations {
        let served = lock(&self.served);
        let client = served.as_ref().map(|served| Arc::clone(&served.client));
        let transfers = client.iter().flat_map(|client| client.begin(ops, cut_power)).collect();
        Operations { client, count: ops.len(), transfers }
    }

    /// After a cut that [`begin`](Self::begin) has begun: takes the device down, as far as it still
    /// stands, and serves what `open` makes of what is left. Blocks.
    ///
    /// # Errors
    /// Those of [`serve`](Self::serve): a target may not like what is left.
    pub fn power_cycle<T: Target>(
        &self,
        open: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<Device<Sim>>> {
        let _changing = lock(&self.changing);
        self.sim.wait_for_darkness();
        // What the server does from now on, it does without power.
        std::mem::replace(&mut *lock(&self.boot), next_boot()).end();
        let stopped = self.stop();
        self.sim.restore_power();
        stopped?;
        self.start(open)
    }

    /// Takes the device down in good order; what was not synced reaches the files. Blocks.
    ///
    /// # Errors
    /// `Internal` when our server broke a rule of the ublk protocol; `BadBackend` when a file
    /// cannot be written.
    pub fn close(&self) -> Result<()> {
        let _changing = lock(&self.changing);
        // What the target writes when it ends comes after what it has written before.
        self.write_back()?;
        self.stop()?;
        self.write_back()?;
        self.sim.audit();
        match self.sim.violations().first() {
            None => Ok(()),
            Some(violation) => {
                let message = format!("the server broke a rule of the driver: {violation}");
                Err(Error::new(Code::Internal, message)
                    .hint("this is a defect of the package ublk; please report it"))
            }
        }
    }

    fn write_back(&self) -> Result<()> {
        self.sim.write_back().map_err(|errno| {
            let error = std::io::Error::from_raw_os_error(errno);
            Error::os(Code::BadBackend, "cannot write to a target's file", "write", &error)
        })
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.sim.set_faults(faults);
    }

    /// What has gone wrong so far.
    pub fn injected(&self) -> Injected {
        self.sim.injected()
    }

    fn start<T: Target>(&self, open: impl FnOnce() -> Result<T>) -> Result<Arc<Device<Sim>>> {
        let device = Device::create(&self.sim, open()?, self.options.clone())?;
        let id = device.info().id;
        let client = self.sim.client(id).map_err(|error| {
            Error::os(Code::Kernel, format!("cannot open the simulated disk {id}"), "open", &error)
        })?;
        let device = Arc::new(device);
        let served = Served { device: Arc::clone(&device), client: Arc::new(client) };
        *lock(&self.served) = Some(served);
        Ok(device)
    }

    fn stop(&self) -> Result<()> {
        let served = lock(&self.served).take();
        let Some(Served { device, client }) = served else { return Ok(()) };
        // Only operations that are under way keep the disk open.
        drop(client);
        device.close()
    }
}

impl Operations {
    /// Waits for them and tells of them as they end: their places, and what was read or the errno.
    /// `ENODEV` when there was no device.
    pub fn finish(self, mut tell: impl FnMut(Vec<(usize, Outcome)>)) {
        match self.client {
            Some(client) => client.finish(self.transfers, tell),
            None => tell((0..self.count).map(|at| (at, Err(libc::ENODEV))).collect()),
        }
    }
}

/// A boot that no other simulation has, and no machine.
fn next_boot() -> Boot {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let time = UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_nanos());
    let own =
        u128::from(std::process::id()) << 32 | u128::from(COUNT.fetch_add(1, Ordering::Relaxed));
    Boot::simulated(time << 64 ^ own)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of one user must not hide behind that of another.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
