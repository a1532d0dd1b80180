//! Where things lie in the file of metadata.
//!
//! The header of the file, the metadata of the data in its order, then the journal: a record's header
//! for each slot in a page of its own, room for the data of each slot, room for the metadata of each.

use super::super::state::HEADER;
use super::format::IntegrityFormat;

/// How many requests can be in the journal at once.
pub(super) const SLOTS: u16 = 16;
/// The longest slot. A write is at most 32 MiB long, which all slots hold together.
const LONGEST: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// The places for the metadata of so many bytes of data.
#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    format: IntegrityFormat,
    size: u64,
    /// Bytes of data that a slot holds: whole logical blocks.
    slot: u64,
}

impl Area {
    pub(super) fn new(format: IntegrityFormat, size: u64) -> Self {
        let slot = size.div_ceil(SLOTS.into()).next_multiple_of(PAGE).min(LONGEST);
        Self { format, size, slot }
    }

    /// The place of the metadata of the data at `offset`.
    pub(super) fn metadata(&self, offset: u64) -> u64 {
        HEADER + self.format.metadata_of(offset)
    }

    /// How many slots the journal takes for a write of `length` bytes.
    pub(super) fn slots(&self, length: u32) -> u16 {
        u16::try_from(u64::from(length).div_ceil(self.slot)).unwrap_or(u16::MAX)
    }

    /// The place of the header of the record that begins in this slot.
    pub(super) fn header(&self, slot: u16) -> u64 {
        self.journal() + u64::from(slot) * PAGE
    }

    /// The place of the data of the record that begins in this slot.
    pub(super) fn slot(&self, slot: u16) -> u64 {
        self.header(SLOTS) + u64::from(slot) * self.slot
    }

    /// The place of the metadata of the record that begins in this slot.
    pub(super) fn slot_metadata(&self, slot: u16) -> u64 {
        let stride = self.format.metadata_of(self.slot).next_multiple_of(PAGE);
        self.slot(SLOTS) + u64::from(slot) * stride
    }

    /// Where the journal begins.
    pub(super) fn journal(&self) -> u64 {
        self.older_length().next_multiple_of(PAGE)
    }

    /// Where the whole file ends.
    pub(super) fn length(&self) -> u64 {
        self.slot_metadata(SLOTS)
    }

    /// Where a file ended when there was no journal.
    pub(super) fn older_length(&self) -> u64 {
        self.metadata(self.size)
    }

    /// Whether a record may begin in this slot and be about this range of the data.
    pub(super) fn holds(&self, slot: u16, offset: u64, length: u32) -> bool {
        let interval = u64::from(self.format.interval);
        let end = offset.checked_add(length.into());
        let whole = offset.is_multiple_of(interval) && u64::from(length).is_multiple_of(interval);
        let fits = u32::from(slot) + u32::from(self.slots(length)) <= u32::from(SLOTS);
        whole && fits && length > 0 && end.is_some_and(|end| end <= self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(size: u64, metadata_size: u8) -> Area {
        Area::new(IntegrityFormat { interval: 512, metadata_size, ..Default::default() }, size)
    }

    #[test]
    fn the_journal_holds_the_longest_write_of_every_device() {
        const MOST: u64 = 32 << 20;
        for size in [512, 4096, 5120, 1 << 20, (1 << 20) + 512, 100 << 20, 1 << 40] {
            for metadata_size in [1, 8, 255] {
                let area = area(size, metadata_size);
                let longest = u32::try_from(size.min(MOST)).unwrap();
                assert!(area.slots(longest) <= SLOTS, "{area:?}");
                assert!(area.holds(0, 0, longest), "{area:?}");
                assert!(!area.holds(1, size - 512, 1024), "{area:?}");
                assert!(area.length() - area.journal() <= MOST + (17 << 20) + (1 << 20));
            }
        }
    }

    #[test]
    fn nothing_lies_on_anything_else() {
        for (size, metadata_size) in [(512, 1), (5120, 8), (1 << 20, 255), (100 << 20, 16)] {
            let area = area(size, metadata_size);
            let mut places = vec![(0, HEADER), (area.metadata(0), area.metadata(size))];
            for slot in 0..SLOTS {
                places.push((area.header(slot), area.header(slot) + PAGE));
            }
            for slot in 0..SLOTS {
                places.push((area.slot(slot), area.slot(slot) + area.slot));
            }
            for slot in 0..SLOTS {
                let start = area.slot_metadata(slot);
                places.push((start, start + area.format.metadata_of(area.slot)));
            }
            assert!(places.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{places:?}");
            assert!(places.last().unwrap().1 <= area.length());
        }
    }
}
