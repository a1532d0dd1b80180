//! What one queue does: the reactor of the queue counts and traces, any thread reads.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

mod guard;
mod latencies;
mod ring;
mod trace;

pub(crate) use guard::{Guard, Old};
pub(crate) use latencies::Measure;
pub use latencies::{BUCKETS, Histogram, KINDS, bound};
use trace::Trace;
pub(crate) use trace::is_anybody_watching;
pub use trace::{Completion, Watch};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The live counters of one queue, or of the tags of one queue that one reactor serves.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
            /// The watchers of each request.
            pub(crate) trace: Trace,
        }

        /// The values of one queue's counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct QueueStats {
            $($(#[$doc])* pub $name: u64,)*
            /// Bytes between client and backend that ublk did not copy: the difference of the other
            /// counters, since a counter of these bytes would cost each request.
            pub zero_copy_bytes: u64,
        }

        impl AddAssign for QueueStats {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
                self.zero_copy_bytes += other.zero_copy_bytes;
            }
        }

        impl Counters {
            /// A copy; the reactor counts on meanwhile, so the values may be of different instants.
            pub fn snapshot(&self) -> QueueStats {
                // First, so that bytes copied meanwhile do not count as bytes without a copy.
                let copied_bytes = self.copied_bytes.get();
                let stats = QueueStats { $($name: self.$name.get(),)* zero_copy_bytes: 0 };
                let bytes = stats.read_bytes + stats.write_bytes;
                let zero_copy_bytes = bytes.saturating_sub(copied_bytes);
                QueueStats { copied_bytes, zero_copy_bytes, ..stats }
            }
        }
    };
}

counters! {
    /// Reads completed.
    reads,
    /// Writes completed.
    writes,
    /// Flushes completed.
    flushes,
    /// Discards completed.
    discards,
    /// Writes of zeros completed.
    write_zeroes,
    /// Bytes read by clients.
    read_bytes,
    /// Bytes written by clients.
    write_bytes,
    /// Bytes that the kernel copied between client and server.
    copied_bytes,
    /// Requests that failed.
    errors,
    /// Backend operations that did less than asked and were continued.
    short_results,
    /// Bytes read as zeros because the backend had ended.
    zero_filled_bytes,
    /// Buffers registered by the server itself.
    registrations,
    /// Requests whose automatic registration failed and was done by hand.
    fallbacks,
    /// Calls of io_uring_enter(2).
    enters,
}

/// The counters of a device: for each queue and reactor, with the number of the queue.
pub(crate) type Tally = Vec<(u16, Arc<Counters>)>;

/// The sums of each of so many queues.
pub(crate) fn by_queue(tally: &Tally, queues: u16) -> Vec<QueueStats> {
    let mut all = vec![QueueStats::default(); queues.into()];
    for (queue, counters) in tally {
        all[usize::from(*queue)] += counters.snapshot();
    }
    all
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds without a locked instruction: only the queue's reactor writes.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
