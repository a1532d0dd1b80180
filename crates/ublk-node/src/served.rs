//! A device of any driver.

use std::fmt::Debug;
use std::os::fd::RawFd;
use std::path::PathBuf;

use ublk_core::device::{
    Access, Buffering, Device, DeviceInfo, End, ExchangeMode, Stall, ThrottleLimits,
};
use ublk_core::driver::Driver;
use ublk_core::error::Error;
use ublk_core::stats::{Histogram, QueueStats, Watch};
use ublk_core::targets::{Frozen, Merged, Progress, Snapshot};

/// What JavaScript can do with a device, whichever driver it is on.
pub(crate) trait Served: Debug + Send + Sync {
    fn info(&self) -> &DeviceInfo;
    fn address(&self) -> Option<String>;
    fn buffers(&self) -> Buffering;
    fn exchange(&self) -> ExchangeMode;
    fn stats(&self) -> Vec<QueueStats>;
    fn watch(&self, capacity: u32) -> Watch;
    fn measure(&self);
    fn latencies(&self) -> Option<Vec<Histogram>>;
    fn stalls(&self) -> Vec<Stall>;
    fn resize(&self, size: u64) -> Result<DeviceInfo, Error>;
    fn throttle(&self, limits: &ThrottleLimits) -> Result<(), Error>;
    fn snapshot(&self, file: Option<PathBuf>, children: Vec<PathBuf>) -> Result<Snapshot, Error>;
    fn frozen(&self) -> Result<Option<Frozen>, Error>;
    fn flatten(&self, prunes: bool, progress: &Progress) -> Result<Merged, Error>;
    fn quiesce(&self) -> Result<(), Error>;
    fn share(&self, fd: RawFd, access: Access) -> Result<u16, Error>;
    fn unshare(&self, index: u16) -> Result<(), Error>;
    fn unanswered(&self) -> u32;
    fn part(&self) -> Result<(), Error>;
    fn release(&self) -> Result<(), Error>;
    fn close(&self) -> Result<(), Error>;
    fn on_end(&self, listener: Box<dyn FnOnce(End) + Send>);
}

impl<D: Driver + Debug> Served for Device<D> {
    fn info(&self) -> &DeviceInfo {
        self.info()
    }

    fn address(&self) -> Option<String> {
        self.address()
    }

    fn buffers(&self) -> Buffering {
        self.buffers()
    }

    fn exchange(&self) -> ExchangeMode {
        self.exchange()
    }

    fn stats(&self) -> Vec<QueueStats> {
        self.stats()
    }

    fn watch(&self, capacity: u32) -> Watch {
        self.watch(capacity)
    }

    fn measure(&self) {
        self.measure();
    }

    fn latencies(&self) -> Option<Vec<Histogram>> {
        self.latencies()
    }

    fn stalls(&self) -> Vec<Stall> {
        self.stalls()
    }

    fn resize(&self, size: u64) -> Result<DeviceInfo, Error> {
        self.resize(size)
    }

    fn throttle(&self, limits: &ThrottleLimits) -> Result<(), Error> {
        self.throttle(limits)
    }

    fn snapshot(&self, file: Option<PathBuf>, children: Vec<PathBuf>) -> Result<Snapshot, Error> {
        self.snapshot(file, children)
    }

    fn frozen(&self) -> Result<Option<Frozen>, Error> {
        self.frozen()
    }

    fn flatten(&self, prunes: bool, progress: &Progress) -> Result<Merged, Error> {
        self.flatten(prunes, progress)
    }

    fn quiesce(&self) -> Result<(), Error> {
        self.quiesce()
    }

    fn share(&self, fd: RawFd, access: Access) -> Result<u16, Error> {
        self.share(fd, access)
    }

    fn unshare(&self, index: u16) -> Result<(), Error> {
        self.unshare(index)
    }

    fn unanswered(&self) -> u32 {
        self.unanswered()
    }

    fn part(&self) -> Result<(), Error> {
        self.part()
    }

    fn release(&self) -> Result<(), Error> {
        self.release()
    }

    fn close(&self) -> Result<(), Error> {
        self.close()
    }

    fn on_end(&self, listener: Box<dyn FnOnce(End) + Send>) {
        self.on_end(listener);
    }
}
