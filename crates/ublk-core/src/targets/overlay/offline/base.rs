//! Reading a base without a reactor.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;

use super::super::checks::{blocks, check_base, check_same_base};
use super::disk::{Part, contains};
use crate::error::{Code, Error, Result};
use crate::targets::native::Native;
use crate::targets::{Op, Place, Plan, Request, RequestFlags, Step, StepKind, Target};

/// The base of a disk without a server.
pub(super) struct Base<'a> {
    target: &'a Native,
    /// The target's files, through the page cache.
    files: Vec<fs::File>,
    steps: Vec<Step>,
}

impl<'a> Base<'a> {
    /// Opens the base of the disk with the layer `highest`.
    ///
    /// # Errors
    /// `InvalidArgument` for an unsuitable base; `BadBackend` for a base other than that of the layer.
    pub(super) fn of(target: &'a Native, highest: &Part) -> Result<Self> {
        let found = (blocks(target)?, check_base(target)?);
        check_same_base(&highest.path, &highest.superblock, found)?;
        Self::open(target)
    }

    /// Opens a base.
    ///
    /// # Errors
    /// `Unsupported` for a base on a server.
    pub(super) fn open(target: &'a Native) -> Result<Self> {
        if !target.remotes().is_empty() {
            let message = "the disk has a base on a server, which only a device reads";
            return Err(Error::new(Code::Unsupported, message)
                .hint("serve the disk, and copy the device to a file"));
        }
        let reopened = |fd: &RawFd| fs::File::open(format!("/proc/self/fd/{fd}"));
        let files = target.files().iter().map(reopened).collect::<io::Result<Vec<_>>>();
        let files = files
            .map_err(|error| Error::os(Code::Kernel, "cannot open the base", "open", &error))?;
        Ok(Self { target, files, steps: vec![Step::EMPTY; target.max_steps()] })
    }

    /// Reads bytes of the base.
    pub(super) fn read(&mut self, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        let chunk = self.target.geometry().chunk;
        while !bytes.is_empty() {
            let rest = bytes.len() as u64;
            let now = if chunk == 0 { rest } else { rest.min(chunk - offset % chunk) };
            let (piece, behind) =
                bytes.split_at_mut(usize::try_from(now).map_err(io::Error::other)?);
            self.read_piece(offset, piece)?;
            (offset, bytes) = (offset + now, behind);
        }
        Ok(())
    }

    fn read_piece(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
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

    /// The first byte from `from` on and before `to` that may be other than zero; none if there is none.
    pub(super) fn data_from(&self, mut from: u64, to: u64) -> Option<u64> {
        while from < to {
            match self.target.allocation(from, to - from) {
                Ok(found) if found.hole => from += found.length,
                _ => return Some(from),
            }
        }
        None
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
