//! Reading a base without a reactor.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;

use super::super::open::{blocks, check_base, check_same_base};
use super::disk::{Part, contains};
use crate::error::{Code, Error, Result};
use crate::target::native::Native;
use crate::target::{Op, Place, Plan, Request, RequestFlags, Step, StepKind, Target};

/// The base of a disk without a server.
pub(super) struct Base<'a> {
    target: &'a Native,
    /// The target's files, through the page cache.
    files: Vec<fs::File>,
    steps: Vec<Step>,
}

impl<'a> Base<'a> {
    /// Opens the base of the layer `lowest`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unsuitable base; `BadBackend` for a base other than that of the layer.
    pub(super) fn open(target: &'a Native, lowest: &Part) -> Result<Self> {
        if !target.remotes().is_empty() {
            let message = "the disk has a base on a server, which only a device reads";
            return Err(Error::new(Code::Unsupported, message)
                .hint("serve the disk, and copy the device to a file"));
        }
        let found = (blocks(target)?, check_base(target)?);
        check_same_base(&lowest.path, &lowest.superblock, found)?;
        let reopened = |fd: &RawFd| fs::File::open(format!("/proc/self/fd/{fd}"));
        let files = target.files().iter().map(reopened).collect::<io::Result<Vec<_>>>();
        let files = files
            .map_err(|error| Error::os(Code::Kernel, "cannot open the base", "open", &error))?;
        Ok(Self { target, files, steps: vec![Step::EMPTY; target.max_steps()] })
    }

    /// Reads bytes of the base.
    pub(super) fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let request = Request { op: Op::Read, flags: RequestFlags::default(), offset, length };
        let mut plan = Plan::new(&mut self.steps);
        let planned = self.target.plan(&request, &mut plan);
        planned.map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        for step in plan.steps() {
            let range = step.at as usize..step.at as usize + step.length as usize;
            match (step.kind, step.place) {
                (StepKind::Read, Place::Request) => {
                    read_to_end(
                        &self.files[usize::from(step.file)],
                        step.offset,
                        &mut bytes[range],
                    )?;
                }
                (StepKind::Zeros | StepKind::Wait, _) => {}
                _ => return Err(io::ErrorKind::Unsupported.into()),
            }
        }
        Ok(())
    }

    /// Whether the file is one of the base's.
    pub(super) fn has(&self, other: &fs::Metadata) -> io::Result<bool> {
        contains(&self.files, other)
    }

    /// The first byte at or behind `offset` that may be other than zero; none if there is none.
    pub(super) fn data_from(&self, offset: u64) -> Option<u64> {
        let (Native::File(_), Some(file), Ok(at)) =
            (self.target, self.files.first(), libc::off_t::try_from(offset))
        else {
            return Some(offset);
        };
        // SAFETY: lseek of a descriptor that we own.
        let found = unsafe { libc::lseek(file.as_raw_fd(), at, libc::SEEK_DATA) };
        match u64::try_from(found) {
            Ok(found) => Some(found),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENXIO) => None,
            Err(_) => Some(offset),
        }
    }
}

/// Reads up to the end of the file; what is behind is left as it is.
fn read_to_end(file: &fs::File, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Ok(()),
            Ok(read) => {
                bytes = &mut bytes[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
