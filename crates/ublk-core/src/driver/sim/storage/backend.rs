//! A disk of the model: the written bytes, and the bytes that would survive a power cut.

use std::collections::BTreeSet;

use crate::driver::sim::rng::Rng;

pub(crate) const SECTOR: usize = 512;

/// How a disk misbehaves for a test.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Every read fails with this errno.
    pub reads: Option<i32>,
    /// Every write fails with this errno and changes nothing.
    pub writes: Option<i32>,
    /// Every sync fails with this errno, and drops some of the undurable bytes: reads go on to see the bytes, no
    /// later sync stores them.
    pub syncs: Option<i32>,
    /// Writes that reach this offset fail with `ENOSPC`.
    pub full_from: Option<u64>,
    /// A block device has shrunk to so many bytes; 0: the disk has been pulled. Bytes beyond are kept, and come back
    /// with the capacity.
    pub capacity: Option<u64>,
    /// `FALLOC_FL_ZERO_RANGE` fails with `EOPNOTSUPP`.
    pub no_zero_range: bool,
    /// `FALLOC_FL_PUNCH_HOLE` and discards fail with `EOPNOTSUPP`.
    pub no_punch: bool,
    /// The unit of offsets and lengths, 0 for any: others fail with `EINVAL`, as with direct I/O. Short results are
    /// multiples of the unit.
    pub alignment: u32,
}

#[derive(Debug)]
pub(crate) struct Disk {
    /// The bytes for readers.
    pub(crate) contents: Vec<u8>,
    /// The bytes after a power cut, except for sectors in `dirty`.
    pub(crate) durable: Vec<u8>,
    /// Sectors written and not synced since: the old or the new bytes remain after a power cut.
    dirty: BTreeSet<usize>,
    pub(crate) trouble: Trouble,
    /// Syncs that have failed, each of which every open file reports once (`errseq_t`).
    pub(crate) failures: u64,
    /// A block device: takes discards, and has a fixed size.
    pub(crate) is_block_device: bool,
}

impl Disk {
    pub(crate) fn new(size: usize, is_block_device: bool) -> Self {
        Self {
            contents: vec![0; size],
            durable: vec![0; size],
            dirty: BTreeSet::new(),
            trouble: Trouble::default(),
            failures: 0,
            is_block_device,
        }
    }

    /// The capacity of a block device; none for a file.
    pub(crate) fn capacity(&self) -> Option<u64> {
        let capacity = (self.contents.len() as u64).min(self.trouble.capacity.unwrap_or(u64::MAX));
        self.is_block_device.then_some(capacity)
    }

    /// How far reads reach.
    fn end(&self) -> usize {
        let capacity = self.capacity().and_then(|capacity| usize::try_from(capacity).ok());
        capacity.unwrap_or(self.contents.len())
    }

    /// Whether a block device ends before the end of this range.
    pub(crate) fn ends_before(&self, offset: u64, length: u64) -> bool {
        self.capacity().is_some_and(|size| offset.checked_add(length).is_none_or(|end| end > size))
    }

    pub(crate) fn misaligned(&self, offset: u64, length: u64) -> bool {
        let unit = u64::from(self.trouble.alignment.max(1));
        !offset.is_multiple_of(unit) || !length.is_multiple_of(unit)
    }

    /// The bytes of a range: fewer at the end of the file.
    pub(crate) fn read(&self, offset: u64, length: usize) -> &[u8] {
        let size = self.end();
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(size);
        &self.contents[start..start.saturating_add(length).min(size)]
    }

    /// Writes, growing a file where needed. The range must be within what [`room`](Self::room)
    /// has allowed.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8], durably: bool) {
        if bytes.is_empty() {
            return;
        }
        let start = usize::try_from(offset).expect("a simulated disk fits in memory");
        let end = start + bytes.len();
        if end > self.contents.len() {
            self.resize(end);
        }
        self.contents[start..end].copy_from_slice(bytes);
        self.dirty.extend(start / SECTOR..end.div_ceil(SECTOR));
        if durably {
            self.sync_range(start, end);
        }
    }

    /// How many of `length` bytes can be written at `offset`.
    ///
    /// # Errors
    /// `ENOSPC` when no byte can.
    pub(crate) fn room(&self, offset: u64, length: u64) -> Result<u64, i32> {
        let end = [self.trouble.full_from, self.capacity()].into_iter().flatten().min();
        let room = end.map_or(length, |end| end.saturating_sub(offset).min(length));
        if room == 0 && length > 0 { Err(libc::ENOSPC) } else { Ok(room) }
    }

    pub(crate) fn resize(&mut self, size: usize) {
        self.contents.resize(size, 0);
        self.durable.resize(size, 0);
        self.dirty.retain(|sector| sector * SECTOR < size);
    }

    pub(crate) fn sync(&mut self) {
        self.sync_range(0, self.contents.len());
    }

    /// A sync fails: some sectors become durable, and the others never will unless written again.
    pub(crate) fn fail_sync(&mut self, rng: &mut Rng) {
        self.store_some(rng);
        self.failures += 1;
    }

    fn store_some(&mut self, rng: &mut Rng) {
        for sector in std::mem::take(&mut self.dirty) {
            if rng.chance(500) {
                let end = ((sector + 1) * SECTOR).min(self.contents.len());
                let whole = sector * SECTOR..end;
                self.durable[whole.clone()].copy_from_slice(&self.contents[whole]);
            }
        }
    }

    fn sync_range(&mut self, start: usize, end: usize) {
        let sectors: Vec<usize> =
            self.dirty.range(start / SECTOR..end.div_ceil(SECTOR)).copied().collect();
        for sector in sectors {
            let whole = sector * SECTOR..((sector + 1) * SECTOR).min(self.contents.len());
            self.durable[whole.clone()].copy_from_slice(&self.contents[whole.clone()]);
            if whole.start >= start && whole.end <= end {
                self.dirty.remove(&sector);
            }
        }
    }

    /// Cuts the power: of each unsynced sector, the old or the new bytes remain.
    pub(crate) fn cut_power(&mut self, rng: &mut Rng) {
        self.store_some(rng);
        self.contents.clone_from(&self.durable);
    }
}
