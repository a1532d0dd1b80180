//! How far a long piece of work is, and whether and how fast the work is to go on.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long paced work may sleep before it hears of a cancellation.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The progress of long work, for another thread. All counts are in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
    /// The most bytes per second; 0: no limit.
    pace: AtomicU64,
}

impl Progress {
    /// Bytes that are done, and all bytes; zeros until the verb has opened the disk.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Limits the work to so many bytes per second, from the next piece of work on; 0: no limit.
    pub fn set_pace(&self, bytes_per_second: u64) {
        self.pace.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Ends the work at the next piece: the work fails with `ECANCELED`, and has changed nothing. Work
    /// that is about to put its result in place ends well.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn begin(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts bytes as done. Sleeps as long as these bytes take at the pace.
    ///
    /// # Errors
    /// `ECANCELED` after [`cancel`](Self::cancel).
    pub(super) fn advance(&self, bytes: u64) -> io::Result<()> {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        let begin = Instant::now();
        while !self.cancelled.load(Ordering::Relaxed) {
            let pace = self.pace.load(Ordering::Relaxed);
            let whole = bytes.saturating_mul(1_000_000).checked_div(pace).unwrap_or(0);
            let left = Duration::from_micros(whole).saturating_sub(begin.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(LONGEST_SLEEP));
        }
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    }
}
