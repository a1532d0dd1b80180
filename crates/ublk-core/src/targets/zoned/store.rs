//! Where zones are written down.
//!
//! Three copies, each for a purpose:
//!
//! * the **reports**, in memory: what a report is a read of, one `struct blk_zone` after another;
//! * in the state file the same **records**, written as zones change. They stay in the page cache when
//!   the server is killed, and count for as long as the machine's boot lasts: the file names it;
//! * in the state file a **word** for each zone, which no power cut finds ahead of the data: see
//!   [`Durable`].
//!
//! The file: a header, the records, the words from the next page on. Nothing of it is mapped: a file
//! that somebody cuts is an error, and no SIGBUS.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

use ublk_sys::blk_zone;

use super::super::Boot;
use super::super::state::{self, Format, HEADER, Header};
use super::durable::{Durable, WORD};
use super::table::{Records, Shape, Zone};

const RECORD: u64 = size_of::<blk_zone>() as u64;
const PAGE: u64 = 4096;
/// Where the header says which version it is (0 knew of no words), and which boot the records are of.
const VERSION: usize = 48;
const BOOT: usize = 64;
const BOOT_LENGTH: usize = 16;

#[derive(Debug)]
pub(super) struct Store {
    shape: Shape,
    reports: File,
    /// The state file; zones in memory have none.
    file: Option<File>,
    pub(super) durable: Durable,
    /// A record could not be written: what the next server would find is not known.
    failed: bool,
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
        let mut header = description(self);
        header.push(1);
        header
    }

    fn length(&self) -> u64 {
        words(self) + u64::from(self.count) * WORD as u64
    }

    fn fresh(&self, offset: u64, bytes: &mut [u8]) {
        bytes.fill(0);
        let mut put = |at: u64, piece: &[u8]| {
            let place = at.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
            let place = place.and_then(|at| bytes.get_mut(at..at + piece.len()));
            place.into_iter().for_each(|place| place.copy_from_slice(piece));
        };
        for index in 0..self.count {
            let zone = self.fresh(index);
            let place = u64::from(index);
            put(HEADER + place * RECORD, &self.record(index, zone).to_bytes());
            put(words(self) + place * WORD as u64, &zone.word().to_le_bytes());
        }
    }

    fn check(&self, header: &Header, length: u64) -> Result<(), state::Unfit> {
        if !header.starts_with(&description(self)) {
            let hint = "ask for the zones that it was made for, or remove it with the data";
            return Err(("is the state of zones of another shape".into(), hint));
        }
        let fits = match header[VERSION] {
            0 => length == older_length(self) || length == self.length(),
            1 => length == self.length(),
            version => {
                let wrong = format!("is the state of zones in version {version} of its layout");
                return Err((wrong, "a later release of this package has made it: use that one"));
            }
        };
        if !fits {
            let hint = "it was cut or extended: take the file from a backup";
            return Err((format!("has {length} bytes, not {}", self.length()), hint));
        }
        Ok(())
    }
}

/// What zones the file is of: the header up to its version.
fn description(shape: &Shape) -> Vec<u8> {
    let Shape { zone_size, capacity, count, conventional, .. } = *shape;
    let mut header = b"ublk zone state\n".to_vec();
    for number in [zone_size, capacity, count.into(), conventional.into()] {
        header.extend(number.to_le_bytes());
    }
    header
}

/// Where the words begin.
fn words(shape: &Shape) -> u64 {
    older_length(shape).next_multiple_of(PAGE)
}

/// A file of version 0 ends with its records.
fn older_length(shape: &Shape) -> u64 {
    HEADER + u64::from(shape.count) * RECORD
}

impl Store {
    /// The zones of a whole state file, as the last server of this boot has left them, or as they are
    /// certain to be after the end of another; without a file, empty zones.
    pub(super) fn open(
        file: Option<(File, &Boot)>,
        shape: &Shape,
    ) -> Result<(Self, Vec<Zone>), Unfit> {
        let Found { zones, words, same_boot } = match &file {
            Some((file, boot)) => read(file, shape, boot)?,
            None => {
                let zones: Vec<_> = (0..shape.count).map(|index| shape.fresh(index)).collect();
                let words = zones.iter().map(|zone| zone.word()).collect();
                Found { zones, words, same_boot: false }
            }
        };
        let reports = in_memory()?;
        reports.write_all_at(&records(shape, &zones), 0)?;
        let mut durable = Durable::new(&words)?;
        for (index, zone) in (0..).zip(&zones) {
            durable.change(index, zone.word());
        }
        if same_boot {
            durable.doubt();
        }
        let file = file.map(|(file, _)| file);
        Ok((Self { shape: *shape, reports, file, durable, failed: false }, zones))
    }

    /// What a report reads, and the state file.
    pub(super) fn files(&self) -> (RawFd, Option<RawFd>) {
        (self.reports.as_raw_fd(), self.file.as_ref().map(AsRawFd::as_raw_fd))
    }

    /// Where the reports have the zone.
    pub(super) fn place(index: u64) -> u64 {
        index * RECORD
    }

    /// Where the state file has the zone's word.
    pub(super) fn place_of_word(&self, index: u32) -> u64 {
        words(&self.shape) + u64::from(index) * WORD as u64
    }

    /// Whether a record could not be written.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Makes durable what the zones are now; all of their data is.
    pub(super) fn close(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(&self.durable.all(), words(&self.shape))?;
        file.sync_data()
    }
}

impl Records for Store {
    fn put(&mut self, index: u32, zone: Zone) {
        let record = self.shape.record(index, zone).to_bytes();
        let place = Self::place(index.into());
        let shown = self.reports.write_all_at(&record, place);
        let kept = self.file.as_ref().map(|file| file.write_all_at(&record, HEADER + place));
        self.failed |= shown.is_err() || kept.is_some_and(|kept| kept.is_err());
        self.durable.change(index, zone.word());
    }
}

/// What a state file holds.
struct Found {
    zones: Vec<Zone>,
    words: Vec<u64>,
    /// The last server was one of this boot, so what was read may be in the page cache alone.
    same_boot: bool,
}

fn read(file: &File, shape: &Shape, boot: &Boot) -> Result<Found, Unfit> {
    let mut header = [0; BOOT + BOOT_LENGTH];
    file.read_exact_at(&mut header, 0)?;
    if header[VERSION] == 0 {
        upgrade(file, shape)?;
    }
    let mut bytes = vec![0; shape.count as usize * WORD];
    file.read_exact_at(&mut bytes, words(shape))?;
    let words: Vec<_> = bytes.chunks_exact(WORD).map(word).collect();
    if header[BOOT..] == boot.id() {
        return Ok(Found { zones: recorded(file, shape)?, words, same_boot: true });
    }
    let zone = |(index, &word)| shape.zone_of_word(index, word).ok_or(Unfit::Damaged(index));
    let zones: Vec<_> = (0..).zip(&words).map(zone).collect::<Result<_, _>>()?;
    file.write_all_at(&records(shape, &zones), HEADER)?;
    // Once the records are those of this boot.
    file.write_all_at(&boot.id(), BOOT as u64)?;
    Ok(Found { zones, words, same_boot: false })
}

/// A file that knows of no words is as durable as it says.
fn upgrade(file: &File, shape: &Shape) -> Result<(), Unfit> {
    let zones = recorded(file, shape)?;
    let bytes: Vec<_> = zones.iter().flat_map(|zone| zone.word().to_le_bytes()).collect();
    file.set_len(shape.length())?;
    file.write_all_at(&bytes, words(shape))?;
    file.sync_all()?;
    file.write_all_at(&[1], VERSION as u64)?;
    Ok(file.sync_all()?)
}

fn recorded(file: &File, shape: &Shape) -> Result<Vec<Zone>, Unfit> {
    const RECORD: usize = size_of::<blk_zone>();
    let mut bytes = vec![0; shape.count as usize * RECORD];
    file.read_exact_at(&mut bytes, HEADER)?;
    let zone = |(index, record): (u32, &[u8])| {
        let cond = record[offset_of!(blk_zone, cond)];
        let wp = word(&record[offset_of!(blk_zone, wp)..][..WORD]);
        let record =
            blk_zone { cond, wp: u64::from_ne_bytes(wp.to_le_bytes()), ..blk_zone::default() };
        shape.zone(index, &record).ok_or(Unfit::Damaged(index))
    };
    (0..).zip(bytes.chunks_exact(RECORD)).map(zone).collect()
}

fn records(shape: &Shape, zones: &[Zone]) -> Vec<u8> {
    (0..).zip(zones).flat_map(|(index, &zone)| shape.record(index, zone).to_bytes()).collect()
}

fn word(bytes: &[u8]) -> u64 {
    let mut array = [0; WORD];
    array.copy_from_slice(bytes);
    u64::from_le_bytes(array)
}

fn in_memory() -> io::Result<File> {
    // SAFETY: plain arguments.
    let fd = unsafe { libc::memfd_create(c"ublk-zones".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests;
