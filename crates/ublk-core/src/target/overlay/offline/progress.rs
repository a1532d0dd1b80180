//! How far a verb is, and whether the verb is to go on.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The progress of a verb, for another thread. All counts are in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Bytes that are done, and all bytes; zeros until the verb has opened the disk.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Ends the verb at the next piece of work: the verb fails with `ECANCELED`, and has changed nothing.
    /// A verb that is about to put its result in place ends well.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts bytes as done.
    ///
    /// # Errors
    /// `ECANCELED` after [`cancel`](Self::cancel).
    pub(super) fn advance(&self, bytes: u64) -> io::Result<()> {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
            false => Ok(()),
        }
    }
}
