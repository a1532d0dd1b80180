//! The life of a device: added, started, served, stopped, deleted, in the order that cannot hang.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::bridge::Bridge;
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::stats::{Counters, QueueStats, Watch};
use crate::target::Target;

mod admin;
mod create;
mod negotiate;
mod options;
mod params;
mod pool;
mod queue_settings;
mod serve;
mod supervise;

pub use admin::{delete, features, info, list, stop};
pub use options::{BufferMode, DeviceInfo, DeviceOptions, DeviceState, ExchangeMode};
pub use pool::{Pool, PoolOptions};
pub use queue_settings::QueueSettings;

/// A device that this process serves. Dropping it closes it.
#[derive(Debug)]
pub struct Device<D: Driver> {
    shared: Arc<Shared<D>>,
}

/// Why a device is no more.
#[derive(Clone, Debug)]
pub enum End {
    /// [`Device::close`] was called.
    Closed,
    /// Somebody else stopped it.
    Stopped,
    /// A queue was lost, or the device could not be taken down cleanly.
    Failed(Error),
}

/// What the device and its supervisor have in common.
#[derive(Debug)]
struct Shared<D> {
    control: Control<D>,
    options: DeviceOptions,
    info: DeviceInfo,
    buffers: BufferMode,
    exchange: ExchangeMode,
    counters: Vec<Arc<Counters>>,
    /// Where requests are answered elsewhere.
    bridge: Option<Arc<Bridge>>,
    closing: Mutex<Closing>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Closing {
    /// Somebody has called `close` and stops the device.
    asked: bool,
    end: Option<End>,
}

impl<D: Driver> Device<D> {
    /// Adds, starts and serves a device. Blocks until it can be opened; not to be called from a
    /// thread that must not wait.
    ///
    /// # Errors
    /// What cannot be, before anything is touched; what the kernel refuses, with nothing left
    /// behind.
    pub fn create<T: Target>(driver: &D, target: T, options: DeviceOptions) -> Result<Self> {
        create::create(driver, target, options, None)
    }

    /// The same with the reactors of a pool, which serves as many devices as its tables hold.
    ///
    /// # Errors
    /// As [`create`](Self::create), and when a table of the pool's is full.
    pub fn create_in<T: Target>(
        pool: &Pool<T>,
        driver: &D,
        target: T,
        options: DeviceOptions,
    ) -> Result<Self> {
        create::create(driver, target, options, Some(pool))
    }

    /// The device as the kernel described it when it was started.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// The buffer mode that was negotiated.
    pub fn buffers(&self) -> BufferMode {
        self.shared.buffers
    }

    /// The exchange that was negotiated.
    pub fn exchange(&self) -> ExchangeMode {
        self.shared.exchange
    }

    /// Each queue's counters.
    pub fn stats(&self) -> Vec<QueueStats> {
        self.shared.counters.iter().map(|counters| counters.snapshot()).collect()
    }

    /// Watches what becomes of each request from now on, with room for `capacity` completions of
    /// each queue, rounded up to a power of two. While a device is watched, its lone requests take
    /// one call of the kernel more; one that nobody watches goes on as before.
    pub fn watch(&self, capacity: u32) -> Watch {
        Watch::new(&self.shared.counters, self.shared.info.depth, capacity)
    }

    /// Stops and deletes the device: requests in flight are answered, later ones fail. Blocks
    /// until nothing is left of it; calling it again waits for the same.
    ///
    /// # Errors
    /// When the kernel does not stop or delete it in time.
    pub fn close(&self) -> Result<()> {
        let first = !std::mem::replace(&mut self.shared.lock().asked, true);
        if first && self.shared.lock().end.is_none() {
            self.shared.bridge.iter().for_each(|bridge| bridge.close());
            let stopped = self.shared.control.stop(self.shared.info.id, self.shared.options.limit);
            if let Err(error) = stopped {
                // Whoever calls next tries again, and does not wait for what may never come.
                self.shared.lock().asked = false;
                return Err(error);
            }
        }
        match self.wait() {
            End::Closed | End::Stopped => Ok(()),
            End::Failed(error) => Err(error),
        }
    }

    /// Blocks until the device has ended, whoever ended it.
    pub fn wait(&self) -> End {
        let mut closing = self.shared.lock();
        loop {
            match &closing.end {
                Some(end) => return end.clone(),
                None => {
                    closing =
                        self.shared.ended.wait(closing).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl<D> Shared<D> {
    fn lock(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Driver> Drop for Device<D> {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; the kernel keeps what could not be deleted in
        // `ublk list`.
        let _unheard = self.close();
    }
}
