//! The tables of an image: which sectors are where.

use std::collections::HashSet;
use std::io;

use crate::header::Header;
use crate::{SECTOR, Unfit, be64};

/// The bits of an entry that name a place in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The entry is the only one that names its place; readers pass it over.
const COPIED: u64 = 1 << 63;
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros (version 3).
const ZEROS: u64 = 1;

/// The place of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the sectors read as zeros.
    Zeros,
    /// In the file, from this byte on; a multiple of [`SECTOR`].
    At(u64),
}

/// Sectors of the disk that the image has, not the backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first sector.
    pub sector: u64,
    /// The number of sectors.
    pub count: u64,
    /// Where the sectors are.
    pub place: Place,
}

impl Run {
    /// This run and the next one as one, if they adjoin on the disk and in the file.
    fn joined(self, next: Self) -> Option<Self> {
        let continues = match (self.place, next.place) {
            (Place::Zeros, Place::Zeros) => true,
            (Place::At(a), Place::At(b)) => a + self.count * SECTOR == b,
            _ => false,
        };
        (continues && self.sector + self.count == next.sector)
            .then(|| Self { count: self.count + next.count, ..self })
    }
}

/// Reads all tables of an image in a file of `length` bytes, and answers the runs of the image in the order of
/// the disk, each as long as it can be. No run leaves the disk, or the file beyond its last sector. `read`
/// fills a slice with bytes of the file from an offset on.
///
/// # Errors
/// When the file cannot be read, when the tables are damaged or name compressed clusters, and those of `emit`.
pub fn runs(
    header: &Header,
    length: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
    mut emit: impl FnMut(Run) -> Result<(), Unfit>,
) -> Result<(), Unfit> {
    let mut reader = Reader { header, length, last: None, emit: &mut emit };
    let mut l1 = vec![0; usize::try_from(header.l1_entries() * 8).map_err(io::Error::other)?];
    read(header.l1, &mut l1)?;
    let mut l2 = vec![0; usize::try_from(header.cluster()).map_err(io::Error::other)?];
    let mut known = HashSet::new();
    for (number, entry) in (0..).zip(l1.chunks_exact(8)) {
        let (entry, at) = (be64(entry, 0), header.l1 + number * 8);
        if entry & !(OFFSET | COPIED) != 0 {
            return Err(Unfit::damaged(at, format!("the entry {entry:#x} of the L1 table")));
        }
        let table = entry & OFFSET;
        if table == 0 {
            continue;
        }
        let ends = table + header.cluster();
        if !header.is_aligned(table) || ends > length {
            return Err(Unfit::damaged(at, format!("an L2 table at byte {table}")));
        }
        if !known.insert(table) {
            return Err(Unfit::damaged(
                at,
                format!("a second use of the L2 table at byte {table}"),
            ));
        }
        read(table, &mut l2)?;
        reader.table(table, number * header.below_l2(), &l2)?;
    }
    reader.end()
}

struct Reader<'a> {
    header: &'a Header,
    length: u64,
    /// The run that the next one may continue.
    last: Option<Run>,
    emit: &'a mut dyn FnMut(Run) -> Result<(), Unfit>,
}

impl Reader<'_> {
    /// An L2 table at byte `table` of the file, for the disk from byte `offset` on.
    fn table(&mut self, table: u64, mut offset: u64, entries: &[u8]) -> Result<(), Unfit> {
        let stride = usize::try_from(self.header.l2_entry()).map_err(io::Error::other)?;
        for (at, entry) in (table..).step_by(stride).zip(entries.chunks_exact(stride)) {
            if offset >= self.header.size {
                break;
            }
            let states = if self.header.extended { Some(be64(entry, 8)) } else { None };
            self.cluster(at, offset, be64(entry, 0), states)?;
            offset += self.header.cluster();
        }
        Ok(())
    }

    /// An entry at byte `at` of the file; `states` of the parts of the cluster.
    fn cluster(
        &mut self,
        at: u64,
        offset: u64,
        entry: u64,
        states: Option<u64>,
    ) -> Result<(), Unfit> {
        if entry & COMPRESSED != 0 {
            return Err(Unfit::unsupported(format!(
                "a compressed cluster at byte {offset} of the disk"
            )));
        }
        let place = entry & OFFSET;
        let flags = if self.header.version > 2 && states.is_none() { ZEROS } else { 0 };
        if entry & !(OFFSET | COPIED | flags) != 0 {
            return Err(Unfit::damaged(at, format!("the entry {entry:#x} of an L2 table")));
        }
        if !self.header.is_aligned(place) || place >= self.length {
            return Err(Unfit::damaged(at, format!("a cluster at byte {place}")));
        }
        let cluster = self.header.cluster();
        let Some(states) = states else {
            match (entry & flags, place) {
                (0, 0) => return Ok(()),
                (0, place) => return self.put(offset, cluster, Place::At(place)),
                _ => return self.put(offset, cluster, Place::Zeros),
            }
        };
        let part = cluster / 32;
        for number in 0..32 {
            let (is_stored, is_zero) =
                (states >> number & 1 != 0, states >> (32 + number) & 1 != 0);
            let (offset, place) = (offset + number * part, place + number * part);
            match (is_stored, is_zero) {
                (false, false) => {}
                (false, true) => self.put(offset, part, Place::Zeros)?,
                (true, false) if entry & OFFSET != 0 => self.put(offset, part, Place::At(place))?,
                _ => {
                    let what = format!("the states {states:#x} of the parts of a cluster");
                    return Err(Unfit::damaged(at + 8, what));
                }
            }
        }
        Ok(())
    }

    /// Bytes of the disk: those inside of the disk, and zeros for those behind the end of the file.
    fn put(&mut self, offset: u64, bytes: u64, place: Place) -> Result<(), Unfit> {
        let end = (offset + bytes).min(self.header.size);
        let Some(count) = end.checked_sub(offset).map(|bytes| bytes / SECTOR) else {
            return Ok(());
        };
        let sector = offset / SECTOR;
        let stored = match place {
            Place::Zeros => 0,
            Place::At(at) => self.length.saturating_sub(at).div_ceil(SECTOR).min(count),
        };
        self.push(Run { sector, count: stored, place })?;
        self.push(Run { sector: sector + stored, count: count - stored, place: Place::Zeros })
    }

    fn push(&mut self, run: Run) -> Result<(), Unfit> {
        if run.count == 0 {
            return Ok(());
        }
        let joined = self.last.and_then(|last| last.joined(run));
        let ended = if joined.is_none() { self.last } else { None };
        self.last = joined.or(Some(run));
        ended.map_or(Ok(()), &mut *self.emit)
    }

    fn end(&mut self) -> Result<(), Unfit> {
        self.last.take().map_or(Ok(()), &mut *self.emit)
    }
}
