//! A file with metadata in a second file (`UBLK_F_INTEGRITY`, Linux 7.0): protection information of
//! T10 or NVMe, made and checked by the kernel or by the device's user, and kept here unchanged.
//!
//! Data and metadata lie in two files. A sector and the sector's metadata are a pair: both are
//! always of the same write. Requests for a common sector take [turns](turns), and each write goes
//! through a [journal] before the write changes anything. So every write is durable when the
//! request completes, with FUA or without. A write costs twice the data and four syncs.
//!
//! No buffer table knows the metadata, so steps copy the metadata: from the kernel into a room of the
//! request's tag, and from the room into the file; for a read the other way.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{File, FileOptions};
use super::state::{self, Data, Wanted};
use super::{Durability, Ended, Errno, Geometry, Next, Op, Plan, Request, Target};
use crate::error::{Code, Error, Result};
use crate::memory::Region;

mod area;
mod format;
mod journal;
mod kept;
mod plans;
mod turns;

use area::Area;
pub use format::{Checksum, FormatError, IntegrityFormat};
use journal::Headers;
pub use journal::Medium;
use kept::Kept;
use plans::sync;
use turns::Turns;

/// The format and the place of a file's metadata.
#[derive(Clone, Debug, Default)]
pub struct IntegrityOptions {
    /// The format of the metadata; an interval of 0 is the logical block size.
    pub format: IntegrityFormat,
    /// The file with the metadata; absent: next to the data, with the suffix `.metadata`. A missing
    /// file is made if the data is empty: all ones, a value that the kernel does not check.
    pub path: Option<PathBuf>,
    /// Make a missing file although the data is not empty: the kernel does not check the present
    /// data then, until the next write of the data.
    pub create: bool,
}

/// A file with metadata.
#[derive(Debug)]
pub struct Integrity {
    data: File,
    area: Area,
    format: IntegrityFormat,
    geometry: Geometry,
    files: [RawFd; 2],
    durability: Durability,
    turns: Turns,
    headers: Headers,
    _metadata: Option<fs::File>,
}

const DATA: u16 = 0;
const METADATA: u16 = 1;

/// How many bytes the file of metadata has for `size` bytes of data.
pub fn length_of_metadata(format: IntegrityFormat, size: u64) -> u64 {
    Area::new(format, size).length()
}

/// Completes writes left half done by servers of [borrowed](Integrity::borrowed) files, as
/// [`Integrity::open`] does. Returns the number of these writes.
///
/// # Errors
/// The errno of the read or write.
pub fn restore(
    format: IntegrityFormat,
    size: u64,
    data: &impl Medium,
    metadata: &impl Medium,
) -> io::Result<usize> {
    let area = Area::new(format, size);
    let left = journal::inspect(&area, metadata)?;
    journal::replay(&area, &left, data, metadata)?;
    Ok(left.records())
}

impl Integrity {
    /// Opens and locks both files, and completes the writes that the last server left half done.
    ///
    /// # Errors
    /// As [`File::open`]; `InvalidArgument` for impossible metadata; `BadBackend` when the file of
    /// metadata belongs to other data, would not outlive a reboot, or has a half-done write that
    /// cannot be completed; `NoBackend` when the file of metadata is missing; `Busy` when another
    /// target has the file.
    pub fn open(path: &Path, file: &FileOptions, options: &IntegrityOptions) -> Result<Self> {
        let data = File::open(path, file)?;
        let Geometry { logical_block, size, .. } = *data.geometry();
        let interval = match options.format.interval {
            0 => logical_block,
            interval => interval,
        };
        let format = IntegrityFormat { interval, ..options.format };
        format
            .validate(logical_block)
            .map_err(|error| Error::new(Code::InvalidArgument, error.to_string()))?;
        let place = options.path.clone().unwrap_or_else(|| state::beside(path, ".metadata"));
        let wanted = Wanted { create: options.create, read_only: file.read_only };
        let kept = Kept { format, size };
        let metadata = state::open(&place, &kept, Data { path, size }, wanted)?;
        let failed = |error| {
            let tried = format!("cannot take over the journal of {}", place.display());
            Error::os(Code::BadBackend, tried, "write", &error)
        };
        take_over(&kept, &data, &metadata, file.read_only)
            .map_err(failed)?
            .map_err(|writes| {
                let message = format!(
                    "the last server has left {writes} writes half done in {}, and the target is read-only",
                    place.display()
                );
                Error::new(Code::BadBackend, message)
                    .hint("serve the file once for writing: the writes are done then")
            })?;
        let fd = metadata.as_raw_fd();
        let this = Self::new(data, fd, format).map_err(|error| {
            Error::os(Code::Kernel, "cannot make memory for metadata", "mmap", &error)
        })?;
        Ok(Self { _metadata: Some(metadata), ..this })
    }

    /// Files opened and [restored](restore) by the caller, who keeps the files open. The file of
    /// metadata has [this length](length_of_metadata); the metadata begins after a header of 4096
    /// bytes.
    ///
    /// # Errors
    /// The errno of mmap(2).
    pub fn borrowed(data: File, metadata: RawFd, format: IntegrityFormat) -> io::Result<Self> {
        Self::new(data, metadata, format)
    }

    fn new(data: File, metadata: RawFd, format: IntegrityFormat) -> io::Result<Self> {
        let files = [data.files()[0], metadata];
        // Discards and zeroes come without metadata, and the old metadata would not match the new
        // data; the kernel writes zeros as data instead.
        let geometry = Geometry { integrity: Some(format), discard: None, ..*data.geometry() };
        let (area, durability) = (Area::new(format, geometry.size), Durability::of(2));
        let (turns, headers) = (Turns::default(), Headers::new()?);
        let _metadata = None;
        Ok(Self { data, area, format, geometry, files, durability, turns, headers, _metadata })
    }
}

impl Target for Integrity {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn layout(&self) -> Option<String> {
        Some("integrity".into())
    }

    fn max_steps(&self) -> usize {
        8
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Flush => {
                plan.push(sync(DATA));
                plan.push(sync(METADATA));
                Ok(())
            }
            Op::Read if !request.flags.has_metadata() => self.data.plan(request, plan),
            Op::Read | Op::Write => self.announce(request, plan),
            Op::Discard | Op::WriteZeroes | Op::Zone(_) => Err(Errno(libc::EOPNOTSUPP)),
        }
    }

    fn memory(&self) -> Option<&Arc<Region>> {
        Some(self.headers.memory())
    }

    fn takes_rounds(&self) -> bool {
        true
    }

    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let Ended { result, ticket, round } = ended;
        if let Err(errno) = result {
            self.turns.fail(ticket);
            return Next::Fail(errno);
        }
        match round {
            0 => self.begin(request, ticket, plan),
            _ => self.go_on(request, (ticket, round), plan),
        }
    }

    fn failed(&self, _request: &Request, ticket: u64) {
        self.turns.fail(ticket);
    }

    fn deserted(&self) {
        self.turns.desert();
    }
}

/// Readies a file for this server: completes the writes left half done by the last server. For a
/// read-only file, returns the number of such writes instead.
fn take_over(
    kept: &Kept,
    data: &File,
    metadata: &fs::File,
    read_only: bool,
) -> io::Result<std::result::Result<(), usize>> {
    if !Kept::has_journal(metadata)? {
        return if read_only { Ok(Ok(())) } else { kept.add_journal(metadata).map(Ok) };
    }
    let area = kept.area();
    let left = journal::inspect(&area, metadata)?;
    if read_only {
        return Ok(if left.records() == 0 { Ok(()) } else { Err(left.records()) });
    }
    journal::replay(&area, &left, &data.backing()?, metadata).map(Ok)
}

#[cfg(test)]
mod tests;
