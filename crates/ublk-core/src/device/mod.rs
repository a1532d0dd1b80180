//! The life of a device: add, start, serve, stop, delete, in an order without deadlocks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::bridge::Bridge;
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::Throttle;
pub use crate::reactor::{Rates, ThrottleLimits};
use crate::stats::{self, Histogram, Measure, QueueStats, Tally, Watch};
use crate::targets::Target;
use layers::Layers;
use memory::Memory;
use stalls::Stalls;

mod abilities;
mod added;
mod adjust;
mod admin;
mod affinity;
mod buffering;
mod change;
mod create;
mod exclusions;
mod export;
mod layers;
mod layout;
mod leave;
mod limits;
mod memory;
mod needs;
mod negotiate;
mod options;
mod params;
mod pool;
mod promises;
mod queue_settings;
mod recover;
mod serve;
mod staff;
mod stalls;
mod supervise;
mod supervisor;

use supervise::Staff;
use supervisor::Events;

pub use admin::{StopCheck, delete, features, info, list, stop, users};
pub use affinity::set_affinity;
pub use change::{quiesce, resize};
pub use limits::Limits;
pub use memory::Access;
pub use options::{
    BeforeStart, BufferMode, Buffering, DeviceInfo, DeviceOptions, DeviceState, ExchangeMode,
    Recovery,
};
pub use pool::{Pool, PoolOptions};
pub use queue_settings::QueueSettings;
pub use stalls::{Awaits, Stall};

/// A device served by this process. Dropping a device with `recovery` leaves the device to the next
/// server; dropping any other device closes the device.
#[derive(Debug)]
pub struct Device<D: Driver> {
    shared: Arc<Shared<D>>,
}

/// Why a device is served no more.
#[derive(Clone, Debug)]
pub enum End {
    /// [`Device::close`] was called.
    Closed,
    /// Another process stopped the device.
    Stopped,
    /// [`Device::quiesce`] or another process quiesced the device; the device waits for the next
    /// server.
    Quiesced,
    /// A queue was lost, or the device could not be taken down cleanly.
    Failed(Error),
}

/// The state shared by the device and the supervisor.
#[derive(Debug)]
struct Shared<D> {
    control: Control<D>,
    options: DeviceOptions,
    info: DeviceInfo,
    buffers: Buffering,
    /// Memory registered by clients; absent where clients cannot register memory.
    memory: Option<Memory>,
    throttle: Arc<Throttle>,
    exchange: ExchangeMode,
    counters: Tally,
    /// The connection to the handler; absent for a native target.
    bridge: Option<Arc<Bridge>>,
    size_check: SizeCheck,
    layers: Layers,
    /// The watchdog, until the device ends; absent without the option.
    stalls: Mutex<Option<Stalls>>,
    /// Once somebody has asked for latencies.
    measure: Mutex<Option<Measure>>,
    /// Requests may end unseen by the reactor (a commit linked to a step): without the kernel's
    /// count of requests, the server cannot tell whether requests are in flight.
    links: bool,
    /// Sends events to the supervisor; absent when the reactors of a pool serve the device.
    leave: Option<Events>,
    closing: Mutex<Closing>,
    ended: Condvar,
}

/// Asks the target whether another size is possible; allows any size once the target is gone.
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
    /// A thread has called `close` and is stopping the device.
    asked: bool,
    /// A thread has begun to stop the device, and is going to wait for the end.
    stopping: bool,
    /// The crew, from when the end of the service begins until a thread looks after the device.
    staff: Option<Staff>,
    /// The number of threads that wait for the end; the first of them looks after the device.
    waiting: usize,
    listeners: Listeners,
    end: Option<End>,
}

type Listener = Box<dyn FnOnce(End) + Send>;

/// The callbacks that hear of a device's end.
#[derive(Default)]
struct Listeners(Vec<Listener>);

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listeners")
    }
}

impl<D: Driver> Device<D> {
    /// The device as the kernel described the device at the start.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.info
    }

    /// Where clients connect to, as `host:port` or a path; none for a block device.
    pub fn address(&self) -> Option<String> {
        self.shared.control.driver().address()
    }

    /// The negotiated buffer modes.
    pub fn buffers(&self) -> Buffering {
        self.shared.buffers
    }

    /// The negotiated exchange.
    pub fn exchange(&self) -> ExchangeMode {
        self.shared.exchange
    }

    /// Each queue's counters. With a handler, this call waits for reactors with uncounted requests,
    /// usually for microseconds and at most for 5 ms.
    pub fn stats(&self) -> Vec<QueueStats> {
        self.shared.bridge.iter().for_each(|bridge| bridge.catch_up());
        stats::by_queue(&self.shared.counters, self.shared.info.queues)
    }

    /// Reports the completion of each request from now on. There is room for `capacity` completions
    /// per queue (per thread, where several threads share the queue), rounded up to a power of two.
    /// On a watched device a lone request costs one system call more; other devices are not
    /// affected.
    pub fn watch(&self, capacity: u32) -> Watch {
        Watch::new(&self.shared.counters, self.shared.info.depth, capacity)
    }

    /// Measures the latency of each request from now on, until the device ends: see
    /// [`latencies`](Self::latencies). A lone request costs one system call more, and each request two
    /// looks at the clock.
    pub fn measure(&self) {
        let shared = &self.shared;
        let closing = shared.lock();
        let mut measure = shared.measure.lock().unwrap_or_else(PoisonError::into_inner);
        if measure.is_none() && closing.end.is_none() {
            *measure = Some(Measure::new(&shared.counters, shared.info.depth));
        }
    }

    /// The latencies of the requests since [`measure`](Self::measure), in the order of
    /// [`KINDS`](stats::KINDS): the time that the server had each request. None without `measure`.
    pub fn latencies(&self) -> Option<Vec<Histogram>> {
        let measure = self.shared.measure.lock().unwrap_or_else(PoisonError::into_inner);
        measure.as_ref().map(Measure::take)
    }

    /// Stops and deletes the device: requests in flight are answered, later requests fail. Blocks
    /// until the device is gone; a second call waits for the first.
    ///
    /// # Errors
    /// When the kernel does not stop or delete the device in time.
    pub fn close(&self) -> Result<()> {
        let mut closing = self.shared.lock();
        let first = !std::mem::replace(&mut closing.asked, true);
        let stops = first && closing.end.is_none();
        closing.stopping |= stops;
        drop(closing);
        if stops {
            // Requests unanswered by a handler that is gone fail: there is no next server.
            self.shared.bridge.iter().for_each(|bridge| bridge.outlive(false));
            self.shared.throttle.lift();
            let stopped = self.stop();
            // Another process may have stopped the device at the same moment: the device is gone
            // then.
            if let Err(error) = stopped
                && error.code != Code::NoDevice
            {
                // The next caller tries again instead of waiting, possibly for ever.
                let mut closing = self.shared.lock();
                (closing.asked, closing.stopping) = (false, false);
                supervise::delegate(&self.shared, closing);
                self.shared.throttle.restore();
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

    /// Stops the device. The limit starts anew as long as requests end: before removing the disk,
    /// the kernel writes back the clients' dirty pages. The driver sees requests end only while the
    /// kernel counts requests (`queue/iostats`); the counters here always count.
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

    /// Fails once the device has ended: the number may belong to another device by then, and a
    /// quiesced device belongs to the next server.
    fn lives(&self) -> Result<()> {
        if self.shared.lock().end.is_none() {
            return Ok(());
        }
        let message = format!("ublk device {} has ended", self.shared.info.id);
        Err(Error::new(Code::Closed, message))
    }

    /// [`wait`](Self::wait), for at most `limit`.
    fn wait_for(&self, limit: Duration) -> Option<End> {
        self.wait_until(Some(Instant::now() + limit))
    }

    /// Blocks until the device has ended, whoever ended it. The waiting thread takes the device down
    /// when the queues have ended.
    pub fn wait(&self) -> End {
        loop {
            if let Some(end) = self.wait_until(None) {
                return end;
            }
        }
    }

    /// The device's end, if the device ends before the deadline.
    fn wait_until(&self, deadline: Option<Instant>) -> Option<End> {
        let shared = &self.shared;
        let mut closing = shared.lock();
        closing.waiting += 1;
        while closing.end.is_none() {
            if let Some(staff) = closing.staff.take() {
                drop(closing);
                supervise::attend(shared, staff, deadline);
                closing = shared.lock();
                continue;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            closing = match left {
                Some(Duration::ZERO) => break,
                Some(left) => {
                    let waited = shared.ended.wait_timeout(closing, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => shared.ended.wait(closing).unwrap_or_else(PoisonError::into_inner),
            };
        }
        closing.waiting -= 1;
        closing.end.clone()
    }

    /// Calls `listener` once with the device's end: at once where the device has ended, else on a thread
    /// that may block.
    pub fn on_end(&self, listener: impl FnOnce(End) + Send + 'static) {
        let mut closing = self.shared.lock();
        match closing.end.clone() {
            None => closing.listeners.0.push(Box::new(listener)),
            Some(end) => {
                drop(closing);
                listener(end);
            }
        }
    }
}

impl<D> Shared<D> {
    /// How long the kernel may take to stop the device while no request ends: each request in
    /// flight keeps the handler's full time to answer.
    fn patience(&self) -> Duration {
        let longest = self.bridge.as_ref().map_or(Duration::ZERO, |bridge| bridge.longest());
        self.options.limit.max(longest)
    }

    fn lock(&self) -> MutexGuard<'_, Closing> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the device's end, calls the listeners, and wakes the threads that wait.
    fn end(&self, mut closing: MutexGuard<'_, Closing>, end: &End) {
        // The process pays for stamps and times of requests only while there are requests.
        drop(self.stalls.lock().unwrap_or_else(PoisonError::into_inner).take());
        let mut measure = self.measure.lock().unwrap_or_else(PoisonError::into_inner);
        measure.as_mut().into_iter().for_each(Measure::stop);
        self.bridge.iter().for_each(|bridge| bridge.end());
        let listeners = std::mem::take(&mut closing.listeners);
        closing.end = Some(end.clone());
        drop(closing);
        listeners.0.into_iter().for_each(|listener| listener(end.clone()));
        self.ended.notify_all();
    }
}

impl<D: Driver> Drop for Device<D> {
    fn drop(&mut self) {
        // No caller is left for an error; `ublk list` shows a device that is still there.
        let _unheard = self.part();
    }
}
