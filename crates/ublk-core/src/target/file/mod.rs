//! A regular file or a block device as the device's contents.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::{
    Durability, Ended, Errno, Geometry, Next, Op, Plan, Remap, Request, Step, StepKind, Target,
};
use crate::error::{Code, Error, Result};

mod atime;
mod limits;
mod lock;
mod open;

pub(super) use lock::{holder, take as lock};

/// Whether the page cache is passed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direct {
    /// Direct I/O where the backing store can, buffered otherwise.
    #[default]
    Auto,
    /// Direct I/O or an error.
    Yes,
    /// Through the page cache.
    No,
}

/// How to open what lies behind a [`File`].
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    /// Whether the page cache is passed by.
    pub direct: Direct,
    /// Refuse writes, and open without permission to write.
    pub read_only: bool,
    /// The logical block size in bytes, through the page cache where direct I/O needs larger blocks;
    /// absent: the smallest that the backing store can do.
    pub logical_block: Option<u32>,
    /// Serve only the first bytes; absent: all.
    pub size: Option<u64>,
    /// Open it although another server has it, and let others: whoever serves it twice sees to it
    /// that only one writes.
    pub unlocked: bool,
    /// What clients know of a device that the file serves again; absent for a new device. The
    /// file is served through the page cache where direct I/O needs more than that.
    pub promised: Option<Promised>,
}

/// What clients have been told of a device when it was created, and what must therefore hold on,
/// whatever the backing store needs by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promised {
    /// The logical block size in bytes: clients may send requests as small.
    pub logical_block: u32,
    /// What the memory of requests is aligned to, as a mask.
    pub dma_alignment: u32,
}

/// A regular file or a block device. Flush is fdatasync, FUA is `RWF_DSYNC`.
#[derive(Debug)]
pub struct File {
    geometry: Geometry,
    files: [RawFd; 1],
    discard: StepKind,
    /// What discards must be aligned to, in bytes.
    unit: u32,
    direct: bool,
    durability: Durability,
    owner: Option<OwnedFd>,
}

const BACKING: u16 = 0;

impl File {
    /// Opens and locks `path`.
    ///
    /// # Errors
    /// `NoBackend` when it is missing; `BadBackend` when it is neither a regular file nor a block
    /// device, or its size is no multiple of the block size; `Busy` when another server has it
    /// or it is mounted; `Permission`.
    pub fn open(path: &Path, options: &FileOptions) -> Result<Self> {
        let opened = open::open(path, options)?;
        let is_block = opened.kind == open::Kind::Block;
        Ok(Self {
            geometry: opened.geometry,
            files: [opened.fd.as_raw_fd()],
            discard: if is_block { StepKind::Discard } else { StepKind::PunchHole },
            unit: opened.unit,
            direct: opened.direct,
            durability: Durability::of(1),
            owner: Some(opened.fd),
        })
    }

    /// A file that somebody else opened and keeps open, with a geometry that they know: how the
    /// simulated driver's files are served.
    pub fn borrowed(fd: RawFd, geometry: Geometry) -> Self {
        Self {
            geometry,
            files: [fd],
            discard: StepKind::PunchHole,
            unit: 1,
            direct: false,
            durability: Durability::of(1),
            owner: None,
        }
    }

    /// Memory of `size` bytes that reads as zeros, gone with the target.
    ///
    /// # Errors
    /// What memfd_create(2) and ftruncate(2) say.
    pub fn in_memory(size: u64) -> io::Result<Self> {
        // SAFETY: plain arguments.
        let fd = unsafe { libc::memfd_create(c"ublk".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else has.
        let file = unsafe { std::fs::File::from_raw_fd(fd) };
        file.set_len(size)?;
        let geometry = Geometry { dma_alignment: 3, ..Geometry::new(size) };
        Ok(Self { owner: Some(file.into()), ..Self::borrowed(fd, geometry) })
    }

    /// The step that gives a range back.
    pub(super) fn discard_step(&self) -> StepKind {
        self.discard
    }

    /// The file, opened by [`open`](Self::open), for whoever must read and write it before it is
    /// served. With direct I/O, offsets, lengths and memory must be aligned.
    ///
    /// # Errors
    /// What dup(2) says; `Unsupported` for a file that somebody else opened.
    pub(super) fn backing(&self) -> io::Result<fs::File> {
        let owner = self.owner.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        owner.try_clone().map(fs::File::from)
    }

    /// Lets others have the file too: nobody writes to it any more.
    ///
    /// # Errors
    /// What flock(2) says.
    pub(super) fn share(&self) -> io::Result<()> {
        self.owner.as_ref().map_or(Ok(()), |owner| lock::share(owner.as_raw_fd()))
    }

    /// Whether the page cache is passed by.
    pub fn is_direct(&self) -> bool {
        self.direct
    }
}

impl File {
    /// Apart from reads and writes, so that those stay small in the queue loop.
    #[inline(never)]
    fn plan_no_transfer(
        &self,
        request: &Request,
        plan: &mut Plan<'_>,
    ) -> std::result::Result<(), Errno> {
        let kind = match request.op {
            Op::Flush => StepKind::Sync,
            Op::Discard => self.discard,
            Op::WriteZeroes if request.flags.no_unmap() => StepKind::ZeroRange,
            Op::WriteZeroes => StepKind::PunchHole,
            _ => return Err(Errno(libc::EOPNOTSUPP)),
        };
        let step = self.aligned(whole(request, kind));
        if request.op == Op::WriteZeroes && step.length < request.length {
            // The kernel writes zeros as data then.
            return Err(Errno(libc::EOPNOTSUPP));
        }
        if step.length > 0 || request.op == Op::Flush {
            plan.push(step);
        }
        Ok(())
    }

    /// What of a step the disk can do, which refuses to give back, or to zero, less than a block of
    /// its own; the device may have smaller ones.
    fn aligned(&self, step: Step) -> Step {
        let unit = u64::from(self.unit);
        let begin = step.offset.next_multiple_of(unit);
        let end = step.offset + u64::from(step.length);
        let length = (end - end % unit).saturating_sub(begin);
        // Fits: not longer than before.
        Step { offset: begin, length: u32::try_from(length).unwrap_or(0), ..step }
    }
}

impl Target for File {
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
        Some("file".into())
    }

    fn max_steps(&self) -> usize {
        1
    }

    #[inline(always)]
    fn plan(&self, request: &Request, plan: &mut Plan<'_>) -> std::result::Result<(), Errno> {
        let kind = match request.op {
            Op::Read => StepKind::Read,
            Op::Write => StepKind::Write { dsync: request.flags.fua() },
            _ => return self.plan_no_transfer(request, plan),
        };
        plan.push(whole(request, kind));
        Ok(())
    }

    #[inline(always)]
    fn remap(&self, request: &Request) -> Remap {
        Remap::To { file: BACKING, offset: request.offset }
    }

    fn check_size(&self, size: u64) -> Result<()> {
        // Whoever lent it knows how large it is.
        let Some(owner) = &self.owner else { return Ok(()) };
        let failed =
            |error| Error::os(Code::Kernel, "cannot tell the backing file's size", "fstat", &error);
        let holds = limits::size(owner.as_fd()).map_err(failed)?;
        if size <= holds {
            return Ok(());
        }
        let message = format!("what lies behind the device holds {holds} bytes, not {size}");
        let file = owner.try_clone().map(fs::File::from);
        let is_file = file.and_then(|file| file.metadata()).is_ok_and(|file| file.is_file());
        let hint = if is_file && !self.geometry.read_only {
            format!("grow the file first: truncate -s {size} FILE")
        } else {
            "grow what lies behind the device first".to_owned()
        };
        Err(Error::new(Code::BadBackend, message).hint(hint))
    }

    /// A block device without unmapping zeros, a file system without one of fallocate's modes, a
    /// kernel without the discard command (before 6.12): the next best way, if there is one.
    fn next(&self, request: &Request, ended: Ended, plan: &mut Plan<'_>) -> Next {
        let Err(errno) = ended.result else { return Next::Done };
        let kind = match (request.op, ended.round, errno.0) {
            (Op::WriteZeroes, 0, libc::EOPNOTSUPP) if !request.flags.no_unmap() => {
                StepKind::ZeroRange
            }
            (Op::Discard, 0, libc::EOPNOTSUPP | libc::EINVAL)
                if self.discard == StepKind::Discard =>
            {
                StepKind::PunchHole
            }
            _ => return Next::Fail(errno),
        };
        plan.push(self.aligned(whole(request, kind)));
        Next::Round
    }
}

fn whole(request: &Request, kind: StepKind) -> Step {
    let (length, offset) = (request.length, request.offset);
    Step { kind, file: BACKING, length, offset, ..Step::EMPTY }
}

#[cfg(test)]
mod tests {
    use super::super::testing::request;
    use super::*;

    #[test]
    fn a_disk_with_larger_blocks_than_the_device_discards_whole_ones_and_zeroes_nothing_else() {
        let disk = File { unit: 4096, ..File::borrowed(3, Geometry::new(1 << 20)) };
        let planned = |op, offset, length| {
            let mut steps = [Step::EMPTY; 1];
            let mut plan = Plan::new(&mut steps);
            disk.plan(&request(op, offset, length), &mut plan)?;
            Ok(plan.steps().first().map(|step| (step.offset, step.length)))
        };
        assert_eq!(planned(Op::Discard, 512, 8192), Ok(Some((4096, 4096))));
        assert_eq!(planned(Op::Discard, 512, 4096), Ok(None), "no whole block");
        assert_eq!(planned(Op::WriteZeroes, 4096, 8192), Ok(Some((4096, 8192))));
        assert_eq!(planned(Op::WriteZeroes, 512, 8192), Err(Errno(libc::EOPNOTSUPP)));
        assert_eq!(planned(Op::Flush, 0, 0), Ok(Some((0, 0))));
        assert_eq!(planned(Op::Read, 512, 512), Ok(Some((512, 512))));
    }
}
