//! The journal: data and metadata of each write are stored here first.
//!
//! A write passes these states, each durable before the next state begins:
//!
//! 1. The slots of the write hold the data and the metadata.
//! 2. The header of the first slot names both: the write is a record, which [`replay`] does again.
//! 3. Data and metadata are in their places.
//! 4. The header is zeros, and other writes may have the slots.
//!
//! So the next server finds of each sector the old pair of data and metadata, or the new pair. Records
//! never overlap, since a write waits for earlier writes of the same sectors, so the order in which
//! records are replayed means nothing.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::area::{Area, SLOTS};
use crate::memory::Region;

/// Bytes of a record's header: what every disk writes as a whole.
const HEADER: usize = 512;
const MAGIC: [u8; 16] = *b"ublk pair record";

/// A write that the next server does again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it goes, in bytes of the data.
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Record {
    pub(super) fn header(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..16].copy_from_slice(&MAGIC);
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        let sum = sum(&bytes[..HEADER - 8]);
        bytes[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The record of a header; none if the header was not written as a whole.
    fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let number =
            |range| u64::from_le_bytes(<[u8; 8]>::try_from(&bytes[range]).unwrap_or([0; 8]));
        let length = u32::try_from(number(24..32)).ok()?;
        let record = Self { offset: number(16..24), length };
        (record.header() == *bytes).then_some(record)
    }
}

/// FNV-1a.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Memory from which plans write headers: one for each slot, and one of zeros.
#[derive(Debug)]
pub(super) struct Headers(Arc<Region>);

impl Headers {
    pub(super) fn new() -> io::Result<Self> {
        Region::new((usize::from(SLOTS) + 1) * HEADER).map(Arc::new).map(Self)
    }

    pub(super) fn memory(&self) -> &Arc<Region> {
        &self.0
    }

    /// Puts a record's header into the memory of the slot. No step may read that memory meanwhile.
    pub(super) fn put(&self, slot: u16, record: Record) {
        assert!(slot < SLOTS);
        let words = record.header();
        for (at, word) in words.as_chunks::<8>().0.iter().enumerate() {
            let place = usize::from(slot) * HEADER + at * 8;
            // SAFETY: inside the region, which has room for all slots, and aligned, as the region is to
            // pages; only atomic stores change it, and the kernel reads it as bytes.
            let place = unsafe { &*self.0.base().add(place).cast::<AtomicU64>() };
            place.store(u64::from_ne_bytes(*word), Ordering::Relaxed);
        }
    }

    /// Where the memory has the slot's header, in bytes.
    pub(super) fn at(slot: u16) -> u32 {
        u32::from(slot) * u32::try_from(HEADER).unwrap_or(u32::MAX)
    }

    /// Where the memory has zeros.
    pub(super) fn zeros() -> u32 {
        Self::at(SLOTS)
    }
}

/// A file with data or metadata, or the disk of a test that stands for a file.
pub trait Medium {
    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()>;

    /// Stores `bytes` from `offset` on.
    ///
    /// # Errors
    /// What the system says.
    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes durable all that was written.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> io::Result<()>;
}

impl Medium for std::fs::File {
    fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(bytes, offset)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What the last server has left in the journal, by the slots.
#[derive(Debug)]
pub(super) struct Left {
    records: Vec<(u16, Record)>,
}

impl Left {
    /// How many writes are to be done again.
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }
}

/// Reads which writes the last server has left half done.
///
/// # Errors
/// What the system says; `InvalidData` for a record of something that is not there.
pub(super) fn inspect(area: &Area, metadata: &impl Medium) -> io::Result<Left> {
    let mut left = Left { records: Vec::new() };
    for slot in 0..SLOTS {
        let mut header = [0; HEADER];
        metadata.read(&mut header, area.header(slot))?;
        match Record::read(&header) {
            Some(record) if area.holds(slot, record.offset, record.length) => {
                left.records.push((slot, record));
            }
            Some(record) => {
                let wrong = format!("its journal has a record of {record:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, wrong));
            }
            // Empty, or torn: its write has not begun.
            None => {}
        }
    }
    Ok(left)
}

/// Does the writes again that the last server has left half done, and empties the journal. All of it: an
/// empty header may be in the page cache alone, where a sync of the last server has failed, and the record
/// before it still on the disk. A power cut would bring the record back, with the data of a later write.
///
/// # Errors
/// What the system says. The journal is as it was then, and can be replayed once more.
pub(super) fn replay(
    area: &Area,
    left: &Left,
    data: &impl Medium,
    metadata: &impl Medium,
) -> io::Result<()> {
    for &(slot, Record { offset, length }) in &left.records {
        let of = area.metadata(offset)..area.metadata(offset + u64::from(length));
        copy((metadata, area.slot(slot)), (data, offset), length.into())?;
        let places = (area.slot_metadata(slot), of.start);
        copy((metadata, places.0), (metadata, places.1), of.end - of.start)?;
    }
    data.sync()?;
    metadata.sync()?;
    for slot in 0..SLOTS {
        metadata.write(&[0; HEADER], area.header(slot))?;
    }
    metadata.sync()
}

fn copy(
    (from, mut source): (&impl Medium, u64),
    (to, mut place): (&impl Medium, u64),
    length: u64,
) -> io::Result<()> {
    const PIECE: usize = 1 << 20;
    // Aligned to pages, as direct I/O wants its memory.
    let memory = Region::new(PIECE)?;
    // SAFETY: mapped, initialised (anonymous memory is zeros), and nobody else's.
    let buffer = unsafe { std::slice::from_raw_parts_mut(memory.base(), PIECE) };
    let mut left = length;
    while left > 0 {
        let piece = &mut buffer[..usize::try_from(left).unwrap_or(PIECE).min(PIECE)];
        from.read(piece, source)?;
        to.write(piece, place)?;
        let done = piece.len() as u64;
        (source, place, left) = (source + done, place + done, left - done);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_is_not_whole_is_none() {
        let record = Record { offset: 8192, length: 4096 };
        let header = record.header();
        assert_eq!(Record::read(&header), Some(record));
        assert_eq!(Record::read(&[0; HEADER]), None);
        for at in 0..HEADER {
            let mut torn = header;
            torn[at] ^= 4;
            assert_eq!(Record::read(&torn), None, "byte {at}");
        }
    }

    #[test]
    fn plans_write_what_was_put() {
        let headers = Headers::new().unwrap();
        let record = Record { offset: 512, length: 1024 };
        headers.put(3, record);
        let at = |place: u32| {
            let mut bytes = [0; HEADER];
            // SAFETY: inside the region, which nobody else has.
            unsafe {
                let place = headers.memory().base().add(place as usize);
                std::ptr::copy_nonoverlapping(place, bytes.as_mut_ptr(), HEADER);
            }
            bytes
        };
        assert_eq!(at(Headers::at(3)), record.header());
        assert_eq!(at(Headers::zeros()), [0; HEADER]);
    }
}
