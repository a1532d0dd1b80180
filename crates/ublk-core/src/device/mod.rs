//! The life of a device: added, started, served, stopped, deleted, in the order that cannot hang.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::bridge::Bridge;
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::stats::{self, QueueStats, Tally, Watch};
use crate::target::Target;
use crate::target::file::Promised;
use crate::target::{Snapshot, SnapshotOptions};
use memory::Memory;
use snapshot::Snapshots;

mod abilities;
mod admin;
mod affinity;
mod buffering;
mod change;
mod create;
mod layout;
mod leave;
mod limits;
mod memory;
mod needs;
mod negotiate;
mod options;
mod params;
mod pool;
mod queue_settings;
mod recover;
mod serve;
mod snapshot;
mod staff;
mod supervise;

use supervise::Event;

pub use admin::{StopCheck, delete, features, info, list, stop, users};
pub use affinity::set_affinity;
pub use change::{quiesce, resize};
pub use limits::Limits;
pub use memory::Access;
pub use options::{
    BufferMode, Buffering, DeviceInfo, DeviceOptions, DeviceState, ExchangeMode, Recovery,
};
pub use pool::{Pool, PoolOptions};
pub use queue_settings::QueueSettings;

/// A device that this process serves. Dropping it leaves it to the next server, if it has
/// `recovery`, and else closes it.
#[derive(Debug)]
pub struct Device<D: Driver> {
    shared: Arc<Shared<D>>,
}

/// Why a device is served no more.
#[derive(Clone, Debug)]
pub enum End {
    /// [`Device::close`] was called.
    Closed,
    /// Somebody else stopped it.
    Stopped,
    /// It was quiesced, by [`Device::quiesce`] or by somebody else, and waits for the next server.
    Quiesced,
    /// A queue was lost, or the device could not be taken down cleanly.
    Failed(Error),
}

/// What the device and its supervisor have in common.
#[derive(Debug)]
struct Shared<D> {
    control: Control<D>,
    options: DeviceOptions,
    info: DeviceInfo,
    buffers: Buffering,
    /// What clients have registered; only where they can.
    memory: Option<Memory>,
    exchange: ExchangeMode,
    counters: Tally,
    /// Where requests are answered elsewhere.
    bridge: Option<Arc<Bridge>>,
    size_check: SizeCheck,
    snapshots: Snapshots,
    /// Requests may end unseen: while the kernel does not count them, nobody knows of those.
    links: bool,
    /// Reaches the supervisor, if the device's threads are its own.
    leave: Option<Sender<Event>>,
    closing: Mutex<Closing>,
    ended: Condvar,
}

/// Asks the target whether it can be of another size, as long as there is a target.
struct SizeCheck(Box<dyn Fn(u64) -> Result<()> + Send + Sync>);

impl SizeCheck {
    fn of<T: Target>(target: &Arc<T>) -> Self {
        let target = Arc::downgrade(target);
        Self(Box::new(move |size| {
            target.upgrade().map_or(Ok(()), |target| target.check_size(size))
        }))
    }
}

impl std::fmt::Debug for SizeCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SizeCheck")
    }
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

    /// Serves a device whose server is gone, or about to go (`recovery` in [`DeviceOptions`]): after
    /// a crash, or for an upgrade. What the device is (queues, depth, buffers, exchange, …) was
    /// decided when it was created; of `options` only `threads`, `split_register`, `rings_apart`,
    /// `pin`, `affinity` and `limit` count. Waits up to `limit` for the old server to let go of it.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) for a device without
    /// recovery; [`Code::BadBackend`](crate::error::Code::BadBackend) when the target's geometry or
    /// layout is another than the device's; [`Code::Busy`](crate::error::Code::Busy) when the old server
    /// stays. After an error the device waits on, for the next attempt.
    pub fn recover<T: Target>(
        driver: &D,
        id: u32,
        target: T,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover::recover(driver, id, recover::once(target), options, None)
    }

    /// The same with a target that `open` opens for what clients know of the device. Where that says
    /// [`Code::Busy`](crate::error::Code::Busy), because the old server still has what lies behind
    /// the device, it is asked again when the old server is gone, up to `limit`.
    ///
    /// # Errors
    /// As [`recover`](Self::recover); what `open` says last.
    pub fn recover_opening<T: Target>(
        driver: &D,
        id: u32,
        open: impl FnMut(Promised) -> Result<T>,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover::recover(driver, id, open, options, None)
    }

    /// The same with the reactors of a pool.
    ///
    /// # Errors
    /// As [`recover`](Self::recover), and when a table of the pool's is full.
    pub fn recover_in<T: Target>(
        pool: &Pool<T>,
        driver: &D,
        id: u32,
        target: T,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover::recover(driver, id, recover::once(target), options, Some(pool))
    }

    /// [`recover_opening`](Self::recover_opening) with the reactors of a pool.
    ///
    /// # Errors
    /// As [`recover_in`](Self::recover_in), and what `open` answers.
    pub fn recover_opening_in<T: Target>(
        pool: &Pool<T>,
        driver: &D,
        id: u32,
        open: impl FnMut(Promised) -> Result<T>,
        options: DeviceOptions,
    ) -> Result<Self> {
        recover::recover(driver, id, open, options, Some(pool))
    }

    /// The device as the kernel described it when it was started.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// The buffer modes that were negotiated.
    pub fn buffers(&self) -> Buffering {
        self.shared.buffers
    }

    /// The exchange that was negotiated.
    pub fn exchange(&self) -> ExchangeMode {
        self.shared.exchange
    }

    /// Each queue's counters. Where requests are answered elsewhere this waits for a reactor that has
    /// some still to count, usually for microseconds and at most for 5 ms.
    pub fn stats(&self) -> Vec<QueueStats> {
        self.shared.bridge.iter().for_each(|bridge| bridge.catch_up());
        stats::by_queue(&self.shared.counters, self.shared.info.queues)
    }

    /// Watches what becomes of each request from now on, with room for `capacity` completions of
    /// each queue (of each thread that has a share of it), rounded up to a power of two. While a device is watched, its lone requests take
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
            // What a handler that is gone has not answered fails: there is no next server.
            self.shared.bridge.iter().for_each(|bridge| bridge.outlive(false));
            let stopped = self.stop();
            // Somebody else may have stopped it this very moment: then it is gone already.
            if let Err(error) = stopped
                && error.code != Code::NoDevice
            {
                // Whoever calls next tries again, and does not wait for what may never come.
                self.shared.lock().asked = false;
                let outlives = self.shared.info.recovery.is_some();
                self.shared.bridge.iter().for_each(|bridge| bridge.outlive(outlives));
                return Err(error);
            }
        }
        match self.wait() {
            End::Closed | End::Stopped | End::Quiesced => Ok(()),
            End::Failed(error) => Err(error),
        }
    }

    /// Stops the device. The limit starts anew while requests end: before the disk goes the kernel
    /// writes back what clients have left in the page cache. The driver sees requests end as long
    /// as the kernel counts them (`queue/iostats`); here they are counted in any case.
    fn stop(&self) -> Result<()> {
        let shared = &self.shared;
        let ended = || {
            let sums = self.stats().into_iter().map(|queue| {
                let data = queue.reads + queue.writes + queue.discards + queue.write_zeroes;
                data + queue.flushes + queue.errors
            });
            sums.sum::<u64>()
        };
        let mut before = ended();
        loop {
            let result = shared.control.stop(shared.info.id, shared.patience());
            let now = ended();
            match result {
                Err(Error { code: Code::Timeout, .. }) if now != before => before = now,
                result => return result,
            }
        }
    }

    /// Leaves the device to the next server: ends what has begun, and no request fails that the
    /// device's recovery does not fail by itself; with [`ExchangeMode::Batch`] and
    /// [`Recovery::Queue`], also those that were being handed over. Blocks until the device can be
    /// recovered.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument) for a device without
    /// recovery; [`Code::Unsupported`](crate::error::Code::Unsupported) before Linux 6.16;
    /// [`Code::Timeout`](crate::error::Code::Timeout) when requests in flight do not end: the server
    /// leaves when they have ended, and [`wait`](Self::wait) tells;
    /// [`Code::Closed`](crate::error::Code::Closed) when the device has ended otherwise.
    pub fn quiesce(&self) -> Result<()> {
        let shared = &self.shared;
        if matches!(shared.lock().end, Some(End::Quiesced)) {
            return Ok(());
        }
        self.lives()?;
        let (id, limit) = (shared.info.id, shared.patience());
        match &shared.leave {
            Some(events) if shared.info.recovery.is_some() => {
                change::check_quiesce(&shared.control, id)?;
                if shared.links && !shared.control.driver().counts_requests(id) {
                    return Err(change::uncounted(id));
                }
                // The kernel fails requests of a batch device from QUIESCE_DEV on, so its server
                // leaves without; no more arrive than it has buffers for (`Exchange::wind_down`).
                if shared.exchange != ExchangeMode::Batch {
                    change::take_away(&shared.control, id)?;
                    change::until_idle(&shared.control, id, limit);
                }
                // The supervisor lives as long as the device.
                drop(events.send(Event::Leave));
            }
            _ => change::quiesce_and_wait(&shared.control, id, limit)?,
        }
        self.wait_until_left(limit)
    }

    /// Changes the size of the device (Linux 6.16), in bytes: a multiple of its logical block size
    /// that its target can hold. Answers the device as it is then.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`](crate::error::Code::InvalidArgument);
    /// [`Code::BadBackend`](crate::error::Code::BadBackend) when what lies behind it is too small;
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) before Linux 6.16, or when the
    /// target's size is fixed; [`Code::Closed`](crate::error::Code::Closed) when the device has ended.
    pub fn resize(&self, size: u64) -> Result<DeviceInfo> {
        self.lives()?;
        let shared = &self.shared;
        let limit = shared.options.limit;
        change::resize_with(&shared.control, shared.info.id, size, limit, &shared.size_check.0)
    }

    /// Freezes what the disk holds now in a file of its own, which other disks may stand on; the device goes
    /// on, and nothing fails meanwhile. Requests other than reads wait until those that are under way have
    /// ended, at most for the device's `limit`, and what they wrote is durable. `file` is the new name, in
    /// the folder of the disk's file; absent: the name of the disk's file, a dot, and a number. `children`
    /// are the files of new disks that begin with the same, in that folder too.
    ///
    /// # Errors
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) for a target that is no overlay;
    /// [`Code::Timeout`](crate::error::Code::Timeout) when requests do not end;
    /// [`Code::Closed`](crate::error::Code::Closed) when the device has ended; those of
    /// [`Overlay::take_snapshot`](crate::target::overlay::Overlay::take_snapshot). The disk goes on as
    /// before.
    pub fn snapshot(&self, file: Option<PathBuf>, children: Vec<PathBuf>) -> Result<Snapshot> {
        self.lives()?;
        let options = SnapshotOptions { file, children, limit: self.shared.options.limit };
        self.shared.snapshots.take(&options)
    }

    /// Whether there is still something of this device that can be changed: its number may be
    /// another device's once it has ended, and its next server decides what becomes of it.
    fn lives(&self) -> Result<()> {
        if self.shared.lock().end.is_none() {
            return Ok(());
        }
        let message = format!("ublk device {} has ended", self.shared.info.id);
        Err(Error::new(Code::Closed, message))
    }

    /// [`wait`](Self::wait), for so long at most.
    fn wait_for(&self, limit: Duration) -> Option<End> {
        let (closing, ended) = (self.shared.lock(), &self.shared.ended);
        let waited = ended.wait_timeout_while(closing, limit, |closing| closing.end.is_none());
        let (closing, _) = waited.unwrap_or_else(PoisonError::into_inner);
        closing.end.clone()
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
    /// How long the kernel may take to stop the device while no request ends: each request in flight
    /// has all of its time to be answered elsewhere.
    fn patience(&self) -> Duration {
        let longest = self.bridge.as_ref().map_or(Duration::ZERO, |bridge| bridge.longest());
        self.options.limit.max(longest)
    }

    fn lock(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Driver> Drop for Device<D> {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; `ublk list` shows what the kernel has kept.
        let _unheard = self.part();
    }
}
