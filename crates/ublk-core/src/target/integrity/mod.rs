//! A file with metadata beside it (`UBLK_F_INTEGRITY`, Linux 7.0): protection information of T10 or
//! NVMe, made and checked by the kernel or by whoever uses the device, and kept here as it is.
//!
//! The data goes the way of any file's. The metadata, which no buffer table knows, is copied: it
//! comes from the kernel while the data is written, and goes to a file of its own; a read brings
//! it back. So a write whose server dies between the two leaves data that does not match, which
//! the next read of it reports.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::file::{File, FileOptions};
use super::{Errno, Geometry, Op, Plan, Request, Step, StepKind, Target};
use crate::error::{Code, Error, Result};

mod format;

pub use format::{Checksum, FormatError, IntegrityFormat};

/// What metadata a file has, and where.
#[derive(Clone, Debug, Default)]
pub struct IntegrityOptions {
    /// What it holds; an interval of 0 is the logical block size.
    pub format: IntegrityFormat,
    /// The file that keeps it; absent: beside the data, with `.metadata` behind its name. One that
    /// is not there is made, of all ones, which the kernel does not check.
    pub path: Option<PathBuf>,
}

/// A file with metadata.
#[derive(Debug)]
pub struct Integrity {
    data: File,
    format: IntegrityFormat,
    geometry: Geometry,
    files: [RawFd; 2],
    _metadata: Option<OwnedFd>,
}

const DATA: u16 = 0;
const METADATA: u16 = 1;

impl Integrity {
    /// Opens and locks both files.
    ///
    /// # Errors
    /// As [`File::open`]; `InvalidArgument` for metadata that cannot be; `BadBackend` when the file
    /// of metadata is too short for the data.
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
        let beside = || {
            let mut name = path.as_os_str().to_owned();
            name.push(".metadata");
            PathBuf::from(name)
        };
        let beside = options.path.clone().unwrap_or_else(beside);
        let metadata = open_metadata(&beside, format.metadata_of(size), file.read_only)?;
        let fd = metadata.as_raw_fd();
        Ok(Self { _metadata: Some(metadata), ..Self::new(data, fd, format) })
    }

    /// Files that somebody else opened and keeps open.
    pub fn borrowed(data: File, metadata: RawFd, format: IntegrityFormat) -> Self {
        Self::new(data, metadata, format)
    }

    fn new(data: File, metadata: RawFd, format: IntegrityFormat) -> Self {
        let files = [data.files()[0], metadata];
        // What is discarded or zeroed comes without metadata, and would not match the old; the
        // kernel writes zeros as data instead.
        let geometry = Geometry { integrity: Some(format), discard: None, ..*data.geometry() };
        Self { data, format, geometry, files, _metadata: None }
    }

    fn metadata(&self, kind: StepKind, stage: u8, request: &Request) -> Step {
        let length = self.format.metadata_of(request.length.into());
        // Fits: at most 255 bytes to each 512 of a request of 32 MiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let offset = self.format.metadata_of(request.offset);
        Step { kind, stage, file: METADATA, length, offset, ..Step::EMPTY }
    }
}

impl Target for Integrity {
    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn files(&self) -> &[RawFd] {
        &self.files
    }

    fn max_steps(&self) -> usize {
        3
    }

    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        match request.op {
            Op::Flush => {
                for file in [DATA, METADATA] {
                    plan.push(Step { file, ..self.metadata(StepKind::Sync, 0, request) });
                }
                return Ok(());
            }
            Op::Read | Op::Write => self.data.plan(request, plan)?,
            Op::Discard | Op::WriteZeroes | Op::Zone(_) => return Err(Errno(libc::EOPNOTSUPP)),
        }
        if !request.flags.has_metadata() {
            return Ok(());
        }
        let dsync = request.flags.fua();
        let [first, second] = match request.op {
            Op::Read => [StepKind::ReadMetadata, StepKind::StoreMetadata],
            _ => [StepKind::FetchMetadata, StepKind::WriteMetadata { dsync }],
        };
        plan.push(self.metadata(first, 0, request));
        plan.push(self.metadata(second, 1, request));
        Ok(())
    }
}

/// Opens and locks the file of metadata; makes it if it is not there or empty.
fn open_metadata(path: &Path, length: u64, read_only: bool) -> Result<OwnedFd> {
    let failed = |tried: &str, syscall, error: &io::Error| {
        let code = match error.kind() {
            io::ErrorKind::PermissionDenied => Code::Permission,
            io::ErrorKind::WouldBlock => Code::Busy,
            _ => Code::BadBackend,
        };
        Error::os(code, format!("cannot {tried} the metadata {}", path.display()), syscall, error)
    };
    let mut how = OpenOptions::new();
    how.read(true).write(!read_only).create(!read_only).truncate(false);
    let mut file = how.open(path).map_err(|error| failed("open", "open", &error))?;
    lock(&file, read_only).map_err(|error| failed("lock", "flock", &error))?;
    let mut found = file.metadata().map_err(|error| failed("open", "fstat", &error))?.len();
    if found == 0 && !read_only {
        fill(&mut file, length).map_err(|error| failed("make", "write", &error))?;
        found = length;
    }
    if found < length {
        let message = format!("{} has {found} bytes; the metadata takes {length}", path.display());
        return Err(Error::new(Code::BadBackend, message)
            .hint("was it made for a smaller device, or another metadataSize?"));
    }
    Ok(file.into())
}

fn lock(file: &fs::File, read_only: bool) -> io::Result<()> {
    let operation = if read_only { libc::LOCK_SH } else { libc::LOCK_EX };
    // SAFETY: flock on a descriptor that we own.
    if unsafe { libc::flock(file.as_raw_fd(), operation | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // Some network file systems have no locks.
    if error.kind() == io::ErrorKind::WouldBlock { Err(error) } else { Ok(()) }
}

/// An application tag of all ones, and a reference tag, say that a block was never written: the
/// kernel then checks nothing.
fn fill(file: &mut fs::File, length: u64) -> io::Result<()> {
    let ones = vec![0xff; 1 << 20];
    let mut left = length;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(ones.len());
        file.write_all(&ones[..count])?;
        left -= count as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests;
