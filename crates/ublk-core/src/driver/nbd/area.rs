//! The descriptors of a queue.

use crate::tag::Tag;
use std::sync::atomic::{AtomicU64, Ordering};

use ublk_sys::ublksrv_io_desc;

const WORDS: usize = size_of::<ublksrv_io_desc>() / 8;

/// A descriptor for each tag, as the kernel's driver maps descriptors.
#[derive(Debug)]
pub(super) struct Area(Box<[AtomicU64]>);

impl Area {
    pub(super) fn new(depth: u16) -> Self {
        Self((0..usize::from(depth) * WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    pub(super) fn base(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    #[expect(clippy::cast_possible_truncation, reason = "made for a depth of 16 bits")]
    pub(super) fn depth(&self) -> u16 {
        (self.0.len() / WORDS) as u16
    }

    pub(super) fn write(&self, tag: Tag, descriptor: &ublksrv_io_desc) {
        let low = descriptor.op_flags.to_ne_bytes();
        let high = descriptor.nr_sectors.to_ne_bytes();
        let first = [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]];
        let words = [u64::from_ne_bytes(first), descriptor.start_sector, descriptor.addr];
        let at = tag.index() * WORDS;
        for (place, word) in self.0[at..at + WORDS].iter().zip(words) {
            // Relaxed: the reactor reads on the thread that stores.
            place.store(word, Ordering::Relaxed);
        }
    }
}
