//! Zones on disk: a file that holds what a report is made of, so that a report is a read of it, and
//! the next server finds the zones as the last one left them.
//!
//! A page that says what the zones are, then one `struct blk_zone` after another. The file is
//! mapped; the page cache keeps what a killed server has stored.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, compiler_fence};

use ublk_sys::blk_zone;

use super::table::{Records, Shape, Zone};
use crate::memory::Mapping;

/// Where the zones begin.
const PAGE: usize = 4096;
const HEADER: u64 = PAGE as u64;
const MAGIC: &[u8; 16] = b"ublk zone state\n";
const RECORD: usize = size_of::<blk_zone>();

/// The file, mapped.
#[derive(Debug)]
pub(super) struct Store {
    mapping: Mapping,
    file: OwnedFd,
}

/// What is wrong with a file of zones.
#[derive(Debug)]
pub(super) enum Unfit {
    Io(io::Error),
    /// It is something else.
    Foreign,
    /// It is of zones of another shape.
    OtherShape,
    /// A zone is in no condition that there is.
    Damaged(u32),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Store {
    /// Takes over what `file` holds, or fills it if it is empty.
    pub(super) fn open(mut file: File, shape: &Shape) -> Result<(Self, Vec<Zone>), Unfit> {
        let length = HEADER + u64::from(shape.count) * RECORD as u64;
        let header = header(shape);
        let mut found = Vec::new();
        file.seek(SeekFrom::Start(0))?;
        Read::take(&mut file, length).read_to_end(&mut found)?;
        let made = found.get(..header.len()).is_some_and(|found| *found == header);
        if !made {
            // The header is written last: without it, a server died before the file was made.
            match found.iter().take(MAGIC.len()).all(|&byte| byte == 0) {
                true => create(&mut file, shape, length)?,
                false if found.starts_with(MAGIC) => return Err(Unfit::OtherShape),
                false => return Err(Unfit::Foreign),
            }
        } else if found.len() as u64 != length {
            return Err(Unfit::Foreign);
        }
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let mapping = Mapping::shared(file.as_raw_fd(), length, true)?;
        let store = Self { mapping, file: file.into() };
        let zone = |index| shape.zone(index, &store.get(index)).ok_or(Unfit::Damaged(index));
        let zones = (0..shape.count).map(zone).collect::<Result<_, _>>()?;
        Ok((store, zones))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Where the file has the zone.
    pub(super) fn place(index: u64) -> u64 {
        HEADER + index * RECORD as u64
    }

    fn record(&self, index: u32) -> *mut blk_zone {
        let at = PAGE + index as usize * RECORD;
        assert!(at + RECORD <= self.mapping.length());
        // SAFETY: inside the mapping, just checked, and aligned to 64 bytes.
        unsafe { self.mapping.base().add(at).cast() }
    }

    fn get(&self, index: u32) -> blk_zone {
        // SAFETY: in bounds and aligned; any bytes are a blk_zone.
        unsafe { self.record(index).read_volatile() }
    }
}

impl Records for Store {
    fn put(&mut self, index: u32, zone: &blk_zone) {
        let record = self.record(index);
        // SAFETY: in bounds and aligned; the store is the only one that writes here, and the kernel
        // reads the page as bytes, through a read of the file.
        unsafe {
            (&raw mut (*record).cond).write_volatile(zone.cond);
            // The condition first: a server that dies here has said no more than it may.
            compiler_fence(Ordering::Release);
            (&raw mut (*record).wp).write_volatile(zone.wp);
        }
    }
}

fn header(shape: &Shape) -> Vec<u8> {
    let Shape { zone_size, capacity, count, conventional, .. } = *shape;
    let mut header = MAGIC.to_vec();
    for number in [zone_size, capacity, count.into(), conventional.into()] {
        header.extend(number.to_le_bytes());
    }
    header
}

fn create(file: &mut File, shape: &Shape, length: u64) -> io::Result<()> {
    file.set_len(0)?;
    file.set_len(length)?;
    file.seek(SeekFrom::Start(HEADER))?;
    let records = (0..shape.count).map(|index| shape.record(index, shape.fresh(index)).to_bytes());
    file.write_all(&records.flatten().collect::<Vec<u8>>())?;
    file.sync_all()?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(shape))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;

    use super::super::table::{Condition, Table};
    use super::*;

    const SHAPE: Shape = Shape {
        zone_size: 1 << 20,
        capacity: 1 << 20,
        count: 100,
        conventional: 2,
        max_open: 0,
        max_active: 0,
    };

    fn file() -> File {
        // SAFETY: a new descriptor that nobody else has.
        unsafe { File::from_raw_fd(libc::memfd_create(c"zones".as_ptr(), libc::MFD_CLOEXEC)) }
    }

    #[test]
    fn the_next_server_finds_the_zones_as_the_last_one_left_them() {
        let file = file();
        let (store, zones) = Store::open(file.try_clone().unwrap(), &SHAPE).unwrap();
        assert_eq!(zones[1].condition, Condition::Conventional);
        let mut table = Table::new(SHAPE, zones, store);
        table.write(50 << 20, 4096).unwrap();
        table.finish(99 << 20).unwrap();
        drop(table);
        let (_, zones) = Store::open(file, &SHAPE).unwrap();
        assert_eq!(zones[50], Zone { condition: Condition::ImplicitlyOpen, written: 4096 });
        assert_eq!(zones[99].condition, Condition::Full);
        assert_eq!(zones[2], SHAPE.fresh(2));
    }

    #[test]
    fn a_report_is_what_the_file_holds() {
        let mut file = file();
        let (store, zones) = Store::open(file.try_clone().unwrap(), &SHAPE).unwrap();
        let mut table = Table::new(SHAPE, zones, store);
        table.write(7 << 20, 512).unwrap();
        file.seek(SeekFrom::Start(Store::place(7))).unwrap();
        let mut bytes = [0; RECORD];
        file.read_exact(&mut bytes).unwrap();
        let written = Zone { condition: Condition::ImplicitlyOpen, written: 512 };
        assert_eq!(bytes, SHAPE.record(7, written).to_bytes());
    }

    #[test]
    fn files_of_something_else_are_refused_and_kept() {
        let mut foreign = file();
        foreign.write_all(b"somebody's data, by no means zones").unwrap();
        assert!(matches!(Store::open(foreign.try_clone().unwrap(), &SHAPE), Err(Unfit::Foreign)));
        assert_eq!(foreign.metadata().unwrap().len(), 34);

        let other = file();
        drop(Store::open(other.try_clone().unwrap(), &SHAPE).unwrap());
        let larger = Shape { zone_size: 2 << 20, ..SHAPE };
        assert!(matches!(Store::open(other, &larger), Err(Unfit::OtherShape)));
    }

    #[test]
    fn a_file_whose_making_was_interrupted_is_made_again() {
        let half = file();
        half.set_len(HEADER + 100).unwrap();
        let (_, zones) = Store::open(half, &SHAPE).unwrap();
        assert_eq!(zones.len(), 100);
    }
}
