//! A file with metadata beside it (`UBLK_F_INTEGRITY`, Linux 7.0): protection information of T10 or
//! NVMe, made and checked by the kernel or by whoever uses the device, and kept here as it is.
//!
//! The data goes the way of any file's. The metadata, which no buffer table knows, is copied: it
//! comes from the kernel while the data is written, and goes to a file of its own; a read brings
//! it back. So a write whose server dies between the two leaves data that does not match, which
//! the next read of it reports.

use std::fs;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use super::file::{File, FileOptions};
use super::state::{self, Data, HEADER, Wanted};
use super::{Durability, Errno, Geometry, Op, Plan, Request, Step, StepKind, Target};
use crate::error::{Code, Error, Result};

mod format;
mod kept;

pub use format::{Checksum, FormatError, IntegrityFormat};
use kept::Kept;

/// What metadata a file has, and where.
#[derive(Clone, Debug, Default)]
pub struct IntegrityOptions {
    /// What it holds; an interval of 0 is the logical block size.
    pub format: IntegrityFormat,
    /// The file that keeps it; absent: beside the data, with `.metadata` behind its name. It is
    /// made, of all ones, which the kernel does not check, if it is missing and the data is empty.
    pub path: Option<PathBuf>,
    /// A file that is missing is made although the data is not empty: nothing that the data holds
    /// is checked then, until it is written again.
    pub create: bool,
}

/// A file with metadata.
#[derive(Debug)]
pub struct Integrity {
    data: File,
    format: IntegrityFormat,
    geometry: Geometry,
    files: [RawFd; 2],
    durability: Durability,
    _metadata: Option<fs::File>,
}

const DATA: u16 = 0;
const METADATA: u16 = 1;

impl Integrity {
    /// Opens and locks both files.
    ///
    /// # Errors
    /// As [`File::open`]; `InvalidArgument` for metadata that cannot be; `BadBackend` when the file
    /// of metadata is that of other data, or would not outlive a reboot; `NoBackend` when it is
    /// missing; `Busy` when another target has it.
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
        let fd = metadata.as_raw_fd();
        Ok(Self { _metadata: Some(metadata), ..Self::new(data, fd, format) })
    }

    /// Files that somebody else opened and keeps open; the metadata begins after a header of 4096
    /// bytes.
    pub fn borrowed(data: File, metadata: RawFd, format: IntegrityFormat) -> Self {
        Self::new(data, metadata, format)
    }

    fn new(data: File, metadata: RawFd, format: IntegrityFormat) -> Self {
        let files = [data.files()[0], metadata];
        // What is discarded or zeroed comes without metadata, and would not match the old; the
        // kernel writes zeros as data instead.
        let geometry = Geometry { integrity: Some(format), discard: None, ..*data.geometry() };
        Self { data, format, geometry, files, durability: Durability::of(2), _metadata: None }
    }

    fn metadata(&self, kind: StepKind, stage: u8, request: &Request) -> Step {
        let length = self.format.metadata_of(request.length.into());
        // Fits: at most 255 bytes to each 512 of a request of 32 MiB.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let offset = HEADER + self.format.metadata_of(request.offset);
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

    fn durability(&self) -> &Durability {
        &self.durability
    }

    fn layout(&self) -> Option<String> {
        Some("integrity".into())
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

#[cfg(test)]
mod tests;
