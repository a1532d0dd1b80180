//! Snapshots and merges of a device's target, and the files that the device's reactors are given for these.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Device;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::{Mailbox, NewFile, WeakMailbox};
use crate::targets::{
    FlattenOptions, Frozen, Merged, Progress, Queues, Snapshot, SnapshotOptions, Target,
};

impl<D: Driver> Device<D> {
    /// Freezes the present contents of the disk in a separate file, a possible base of other disks.
    /// The device stays in service and no request fails because of the snapshot. Requests other
    /// than reads wait until earlier requests have ended, at most for the device's `limit`, and
    /// their writes are durable. `file` is the new name, in the folder of the disk's file; absent:
    /// the name of the disk's file, a dot, and a number. `children` are the files of new disks with
    /// the same contents, in the same folder.
    ///
    /// # Errors
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) for a target that is no overlay;
    /// [`Code::Timeout`](crate::error::Code::Timeout) when requests do not end;
    /// [`Code::Closed`](crate::error::Code::Closed) when the device has ended; the errors of
    /// [`Overlay::take_snapshot`](crate::targets::overlay::Overlay::take_snapshot). The disk stays
    /// in service after an error.
    pub fn snapshot(&self, file: Option<PathBuf>, children: Vec<PathBuf>) -> Result<Snapshot> {
        self.lives()?;
        let options = SnapshotOptions { file, children, limit: self.shared.options.limit };
        self.shared.layers.snapshot(&options)
    }

    /// The frozen layers below the disk; none for a target without layers.
    ///
    /// # Errors
    /// [`Code::Closed`](crate::error::Code::Closed) when the device has ended;
    /// [`Code::BadBackend`](crate::error::Code::BadBackend) for a file that cannot be looked at.
    pub fn frozen(&self) -> Result<Option<Frozen>> {
        self.shared.layers.0.frozen()
    }

    /// Merges the frozen layers of the disk into one. The device stays in service, and no request waits for
    /// the copying. `prunes`: removes the files of merged layers on which no other layer stands, unless
    /// requests that may know these files take longer than the device's `limit`. Blocks.
    ///
    /// # Errors
    /// [`Code::Unsupported`](crate::error::Code::Unsupported) for a target that is no overlay;
    /// [`Code::Closed`](crate::error::Code::Closed) when the device has ended; the errors of
    /// [`Overlay::flatten_below`](crate::targets::overlay::Overlay::flatten_below). The disk stays in
    /// service after an error.
    pub fn flatten(&self, prunes: bool, progress: &Progress) -> Result<Merged> {
        self.lives()?;
        let options = FlattenOptions { prunes, limit: self.shared.options.limit };
        self.shared.layers.flatten(&options, progress)
    }
}

/// What is done with the layers of a target while the target is served.
trait Layered: Send + Sync {
    fn snapshot(&self, options: &SnapshotOptions) -> Result<Snapshot>;
    fn frozen(&self) -> Result<Option<Frozen>>;
    fn flatten(&self, options: &FlattenOptions, progress: &Progress) -> Result<Merged>;
}

/// The layers of the target, as long as there is a target.
pub(super) struct Layers(Box<dyn Layered>);

impl Layers {
    /// Of a target whose queues the reactors of these mailboxes serve; each of them answers within `limit`.
    pub(super) fn of<D: Driver, T: Target>(
        driver: &D,
        target: &Arc<T>,
        reactors: &[Mailbox<T>],
        limit: Duration,
    ) -> Self {
        let (driver, target) = (driver.clone(), Arc::downgrade(target));
        let reactors = reactors.iter().map(Mailbox::downgrade).collect();
        let reach = Reach { driver, target, reactors, limit };
        Self(Box::new(reach))
    }

    fn snapshot(&self, options: &SnapshotOptions) -> Result<Snapshot> {
        self.0.snapshot(options)
    }

    fn flatten(&self, options: &FlattenOptions, progress: &Progress) -> Result<Merged> {
        self.0.flatten(options, progress)
    }
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layers")
    }
}

/// The reactors that serve a target, on a driver.
struct Reach<D, T> {
    driver: D,
    target: Weak<T>,
    /// Weak: a device that has ended stays in memory until its last holder drops the device, in Node.js
    /// until a garbage collection.
    reactors: Vec<WeakMailbox<T>>,
    limit: Duration,
}

impl<D: Driver, T: Target> Reach<D, T> {
    fn target(&self) -> Result<Arc<T>> {
        self.target.upgrade().ok_or_else(|| Error::new(Code::Closed, "the device has ended"))
    }
}

impl<D: Driver, T: Target> Layered for Reach<D, T> {
    fn snapshot(&self, options: &SnapshotOptions) -> Result<Snapshot> {
        self.target()?.snapshot(options, self)
    }

    fn frozen(&self) -> Result<Option<Frozen>> {
        self.target()?.frozen().map_err(|error| {
            Error::os(Code::BadBackend, "cannot look at the layers of the device", "fstat", &error)
        })
    }

    fn flatten(&self, options: &FlattenOptions, progress: &Progress) -> Result<Merged> {
        self.target()?.flatten(options, self, progress)
    }
}

impl<D: Driver, T: Target> Queues for Reach<D, T> {
    fn add_file(&self, place: u16, file: BorrowedFd<'_>) -> Result<()> {
        let failed = |why: &str| {
            Error::new(Code::Closed, format!("a file cannot reach the queues of the device: {why}"))
        };
        let Some(target) = self.target.upgrade() else { return Err(failed("it has ended")) };
        let again = file.try_clone_to_owned().map_err(|error| {
            Error::os(Code::Resources, "cannot open a file once more", "dup", &error)
        })?;
        let (file, (told, answers)) = (Arc::new(again), channel());
        for reactor in &self.reactors {
            let (target, file, told) = (Arc::clone(&target), Arc::clone(&file), told.clone());
            let reactor = reactor.upgrade().ok_or_else(|| failed("a reactor is gone"))?;
            reactor.give(NewFile { target, place, file, told });
        }
        drop(told);
        let deadline = Instant::now() + self.limit;
        for _ in &self.reactors {
            let left = deadline.saturating_duration_since(Instant::now());
            match answers.recv_timeout(left) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    let message = "cannot put a file into the file table of a queue";
                    return Err(Error::os(Code::Resources, message, "io_uring_register", &error));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(failed("a reactor is gone")),
                Err(RecvTimeoutError::Timeout) => {
                    let message = "a thread that serves the device does not answer";
                    return Err(Error::new(Code::Timeout, message));
                }
            }
        }
        Ok(())
    }

    fn write_back(&self) -> Result<()> {
        self.driver.write_back().map_err(|error| {
            Error::os(Code::BadBackend, "cannot write to a target's file", "write", &error)
        })
    }
}
