//! The way of completions from a reactor to a watcher.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Completion;
use crate::tag::Tag;
use crate::targets::{Op, Request, RequestFlags};

/// A ring with one writer and one reader. A record without room is counted and lost.
#[derive(Debug)]
pub(super) struct TraceRing {
    records: Box<[UnsafeCell<Completion>]>,
    /// The number of records written; the reactor writes.
    tail: Line,
    /// The number of records taken; the watcher writes.
    head: Line,
    dropped: AtomicU64,
}

/// A word alone in a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

// SAFETY: a record belongs to the writer from the moment the reader gives the record back until the writer
// publishes the record, and to the reader otherwise: see `push` and `take`.
unsafe impl Sync for TraceRing {}

impl TraceRing {
    pub(super) fn new(capacity: u32) -> Self {
        let records = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(NOTHING)).collect();
        Self { records, tail: Line::default(), head: Line::default(), dropped: AtomicU64::new(0) }
    }

    /// By one thread at a time.
    pub(super) fn push(&self, completion: &Completion) {
        let tail = self.tail.0.load(Ordering::Relaxed);
        // Acquire: the reader is done with the record that is about to be overwritten.
        if tail - self.head.0.load(Ordering::Acquire) == self.records.len() as u64 {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // SAFETY: the only writer; the reader has given the record back, and does not read the record
        // before the tail has passed.
        unsafe { *self.record(tail) = *completion };
        // Release: the record is whole before the tail counts the record.
        self.tail.0.store(tail + 1, Ordering::Release);
    }

    /// By one thread at a time.
    pub(super) fn take(&self, mut each: impl FnMut(Completion)) {
        // Acquire: the records before the tail are whole.
        let tail = self.tail.0.load(Ordering::Acquire);
        let head = self.head.0.load(Ordering::Relaxed);
        for at in head..tail {
            // SAFETY: published, and the writer does not touch a record before the reader gives the
            // record back.
            each(unsafe { *self.record(at) });
        }
        // Release: the reader has read the records before the head gives the records back.
        self.head.0.store(tail, Ordering::Release);
    }

    /// How many records had no room since the last call.
    pub(super) fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    fn record(&self, at: u64) -> *mut Completion {
        let mask = self.records.len() as u64 - 1;
        self.records[usize::try_from(at & mask).unwrap_or(0)].get()
    }
}

const NOTHING: Completion = Completion {
    time: 0,
    latency: 0,
    request: Request { op: Op::Flush, flags: RequestFlags(0), offset: 0, length: 0 },
    result: 0,
    tag: Tag::new(0),
};
