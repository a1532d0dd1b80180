//! Snapshots of a device's target, and the files that the device's reactors are given for them.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Device;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::reactor::{Mailbox, NewFile, WeakMailbox};
use crate::target::{Queues, Snapshot, SnapshotOptions, Target};

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
    /// [`Overlay::take_snapshot`](crate::target::overlay::Overlay::take_snapshot). The disk stays
    /// in service after an error.
    pub fn snapshot(&self, file: Option<PathBuf>, children: Vec<PathBuf>) -> Result<Snapshot> {
        self.lives()?;
        let options = SnapshotOptions { file, children, limit: self.shared.options.limit };
        self.shared.snapshots.take(&options)
    }
}

type Take = dyn Fn(&SnapshotOptions) -> Result<Snapshot> + Send + Sync;

/// Takes snapshots of the target, as long as there is a target.
pub(super) struct Snapshots(Box<Take>);

impl Snapshots {
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
        Self(Box::new(move |options| match reach.target.upgrade() {
            Some(target) => target.snapshot(options, &reach),
            None => Err(Error::new(Code::Closed, "the device has ended")),
        }))
    }

    pub(super) fn take(&self, options: &SnapshotOptions) -> Result<Snapshot> {
        self.0(options)
    }
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Snapshots")
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
