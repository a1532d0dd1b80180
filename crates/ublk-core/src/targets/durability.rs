//! Whether what was written to a target's files can still be made durable.

use std::sync::atomic::{AtomicBool, Ordering};

/// Which of a target's files have failed to store what was written to them.
///
/// The kernel reports a failed sync once to each open file, and drops what could not be stored: a later
/// sync succeeds without it. A disk that has lost its cache answers its next flush alike. So a failed
/// sync is final: every later one of the same file fails too, in all queues, until the file is opened
/// anew, as the next server of the device does.
#[derive(Debug, Default)]
pub struct Durability {
    lost: Vec<AtomicBool>,
}

impl Durability {
    /// Of no file.
    pub const NONE: &Self = &Self { lost: Vec::new() };

    /// Of so many files, which have failed nothing yet.
    pub fn of(files: usize) -> Self {
        Self { lost: (0..files).map(|_| AtomicBool::new(false)).collect() }
    }

    /// Whether a sync of the file at this place has failed.
    #[inline]
    pub fn is_lost(&self, file: u16) -> bool {
        // Acquire and release: whoever begins after a failure was noted sees it.
        self.lost.get(usize::from(file)).is_some_and(|lost| lost.load(Ordering::Acquire))
    }

    /// A sync of the file at this place has failed.
    #[cold]
    pub fn lose(&self, file: u16) {
        if let Some(lost) = self.lost.get(usize::from(file)) {
            lost.store(true, Ordering::Release);
        }
    }
}
