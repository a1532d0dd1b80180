//! A regular file or a block device as the device's contents.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::{
    Durability, Ended, Errno, Geometry, Next, Op, Plan, Remap, Request, Step, StepKind, Target,
};
use crate::allocation::Allocation;
use crate::error::{Code, Error, Result};

mod atime;
mod holes;
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

/// How to open the backing store of a [`File`].
#[derive(Clone, Debug, Default)]
pub struct FileOptions {
    /// Whether the page cache is passed by.
    pub direct: Direct,
    /// Refuse writes, and open without permission to write.
    pub read_only: bool,
    /// The logical block size in bytes, through the page cache where direct I/O needs larger
    /// blocks; absent: the smallest block size of the backing store.
    pub logical_block: Option<u32>,
    /// Serve only the first bytes; absent: all.
    pub size: Option<u64>,
    /// Open the file although another server has the file, and allow other servers: the caller must
    /// make sure of a single writer.
    pub unlocked: bool,
    /// The properties promised to clients of a device that the file serves again; absent for a new
    /// device. Where direct I/O cannot keep the promise, the file is served through the page cache.
    pub promised: Option<Promised>,
}

/// Properties of a device that clients learned at creation. These properties stay valid, whatever
/// the backing store needs by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promised {
    /// The logical block size in bytes: clients may send requests as small.
    pub logical_block: u32,
    /// The alignment of requests' memory, as a mask.
    pub dma_alignment: u32,
}

/// A regular file or a block device. Flush is fdatasync, FUA is `RWF_DSYNC`.
#[derive(Debug)]
pub struct File {
    geometry: Geometry,
    files: [RawFd; 1],
    discard: StepKind,
    /// The alignment of discards, in bytes.
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
    /// `NoBackend` when the path is missing; `BadBackend` for something else than a regular file or
    /// a block device, or a size that is no multiple of the block size; `Busy` for a file or device
    /// that another server has or that is mounted; `Permission`.
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

    /// A file opened by the caller, who keeps the file open, with a known geometry: a file of the
    /// simulated driver.
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

    /// Memory of `size` bytes, all zeros at first, freed with the target.
    ///
    /// # Errors
    /// The errno of memfd_create(2) or ftruncate(2).
    pub fn in_memory(size: u64) -> io::Result<Self> {
        // SAFETY: plain arguments.
        let fd = unsafe { libc::memfd_create(c"ublk".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor without another owner.
        let file = unsafe { std::fs::File::from_raw_fd(fd) };
        file.set_len(size)?;
        let geometry = Geometry { dma_alignment: 3, ..Geometry::new(size) };
        Ok(Self { owner: Some(file.into()), ..Self::borrowed(fd, geometry) })
    }

    /// The kind of step for a discard.
    pub(super) fn discard_step(&self) -> StepKind {
        self.discard
    }

    /// The file opened by [`open`](Self::open), for reads and writes before the target is served.
    /// With direct I/O, offsets, lengths and memory must be aligned.
    ///
    /// # Errors
    /// The errno of dup(2); `Unsupported` for a [borrowed](Self::borrowed) file.
    pub(super) fn backing(&self) -> io::Result<fs::File> {
        let owner = self.owner.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        owner.try_clone().map(fs::File::from)
    }

    /// Lets other servers open the file too: this target writes no more.
    ///
    /// # Errors
    /// The errno of flock(2).
    pub(super) fn share(&self) -> io::Result<()> {
        self.owner.as_ref().map_or(Ok(()), |owner| lock::share(owner.as_raw_fd()))
    }

    /// Closes the file of a target that nobody asks any more, and gives up the lock. The descriptor, which
    /// others may still name, is one of `other` from now on.
    ///
    /// # Errors
    /// The errno of flock(2) or dup3(2).
    pub(super) fn close_for(&self, other: &fs::File) -> io::Result<()> {
        let Some(own) = &self.owner else { return Ok(()) };
        // Queues may have copies of the descriptor for a moment.
        lock::give_up(own.as_raw_fd())?;
        // SAFETY: two descriptors of owners that live; ours stays ours.
        match unsafe { libc::dup3(other.as_raw_fd(), own.as_raw_fd(), libc::O_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Whether the page cache is passed by.
    pub fn is_direct(&self) -> bool {
        self.direct
    }
}

impl File {
    /// Separate from reads and writes, to keep the queue loop's code small.
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

    /// Cuts a step to whole blocks of the disk: a disk refuses to give back, or to zero, less than
    /// a block. The device may have smaller blocks than the disk.
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

    fn allocation(&self, offset: u64, length: u64) -> io::Result<Allocation> {
        holes::find(self.files[0], offset, length)
    }

    fn check_size(&self, size: u64) -> Result<()> {
        // The lender of a borrowed file knows the size.
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

    /// The fallback, if any, for a block device without unmapping zeros, a file system without a
    /// mode of fallocate, a kernel without the discard command (before 6.12).
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
