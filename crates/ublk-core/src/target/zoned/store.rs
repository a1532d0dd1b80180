//! Zones on disk: a file that holds what a report is made of, so that a report is a read of it, and
//! the next server finds the zones as the last one left them.
//!
//! A page that says what the zones are, then one `struct blk_zone` after another. The file is
//! mapped; the page cache keeps what a killed server has stored.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{Ordering, compiler_fence};

use ublk_sys::blk_zone;

use super::super::state::{self, Format, HEADER, Header};
use super::table::{Records, Shape, Zone};
use crate::memory::Mapping;

/// Where the zones begin.
const PAGE: usize = 4096;
const RECORD: usize = size_of::<blk_zone>();

/// The file, mapped.
#[derive(Debug)]
pub(super) struct Store {
    mapping: Mapping,
    file: OwnedFd,
}

/// Why zones cannot be taken from a file.
#[derive(Debug)]
pub(super) enum Unfit {
    Io(io::Error),
    /// A zone is in no condition that there is.
    Damaged(u32),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Format for Shape {
    fn what(&self) -> &'static str {
        "the state of zones"
    }

    fn option(&self) -> &'static str {
        "state"
    }

    fn header(&self) -> Vec<u8> {
        let Self { zone_size, capacity, count, conventional, .. } = *self;
        let mut header = b"ublk zone state\n".to_vec();
        for number in [zone_size, capacity, count.into(), conventional.into()] {
            header.extend(number.to_le_bytes());
        }
        header
    }

    fn length(&self) -> u64 {
        HEADER + u64::from(self.count) * RECORD as u64
    }

    fn fresh(&self, offset: u64, bytes: &mut [u8]) {
        let first = (offset - HEADER) / RECORD as u64;
        for (index, bytes) in (first..).zip(bytes.chunks_exact_mut(RECORD)) {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            bytes.copy_from_slice(&self.record(index, self.fresh(index)).to_bytes());
        }
    }

    fn check(&self, header: &Header, length: u64) -> Result<(), state::Unfit> {
        if !header.starts_with(&self.header()) {
            let hint = "ask for the zones that it was made for, or remove it with the data";
            return Err(("is the state of zones of another shape".into(), hint));
        }
        if length != self.length() {
            let hint = "it was cut or extended: take the file from a backup";
            return Err((format!("has {length} bytes, not {}", self.length()), hint));
        }
        Ok(())
    }
}

impl Store {
    /// The zones of a whole file.
    pub(super) fn open(file: File, shape: &Shape) -> Result<(Self, Vec<Zone>), Unfit> {
        let length = usize::try_from(shape.length()).map_err(io::Error::other)?;
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

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd;
    use std::os::unix::fs::FileExt;

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
        let file =
            unsafe { File::from_raw_fd(libc::memfd_create(c"zones".as_ptr(), libc::MFD_CLOEXEC)) };
        state::fill(&file, &SHAPE).unwrap();
        file
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
        let file = file();
        let (store, zones) = Store::open(file.try_clone().unwrap(), &SHAPE).unwrap();
        let mut table = Table::new(SHAPE, zones, store);
        table.write(7 << 20, 512).unwrap();
        let mut bytes = [0; RECORD];
        file.read_exact_at(&mut bytes, Store::place(7)).unwrap();
        let written = Zone { condition: Condition::ImplicitlyOpen, written: 512 };
        assert_eq!(bytes, SHAPE.record(7, written).to_bytes());
    }
}
