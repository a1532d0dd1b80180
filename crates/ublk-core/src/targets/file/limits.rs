//! What the backing store can do: sizes and alignments, asked of the file and of its disk.

use std::alloc::{Layout, alloc, dealloc};
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode};

use super::open::Kind;
use crate::targets::SegmentLimits;

/// What direct I/O needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectLimits {
    /// Alignment of memory, in bytes.
    pub(super) memory: u32,
    /// Alignment of offsets and lengths, in bytes.
    pub(super) offset: u32,
}

pub(super) struct Limits {
    pub(super) size: u64,
    /// The smallest block that can be read and written as the file was opened.
    pub(super) logical_block: u32,
    /// What discards must be aligned to: the logical block of a disk; 1 for a regular file.
    pub(super) unit: u32,
    pub(super) physical_block: u32,
    pub(super) rotational: bool,
    pub(super) can_discard: bool,
    pub(super) can_write_zeroes: bool,
    pub(super) discard_granularity: u32,
    pub(super) virt_boundary: u64,
    pub(super) segments: Option<SegmentLimits>,
    pub(super) direct: Option<DirectLimits>,
}

pub(super) fn read(file: &File, kind: Kind, direct: Option<DirectLimits>) -> io::Result<Limits> {
    let metadata = file.metadata()?;
    let (size, device) = match kind {
        Kind::Regular => (metadata.len(), metadata.dev()),
        Kind::Block => (block_size(file)?, metadata.rdev()),
    };
    let disk = Disk::of(device);
    let disk_block = match kind {
        Kind::Block => disk.number("logical_block_size").unwrap_or(512),
        Kind::Regular => 512,
    };
    let physical = match kind {
        Kind::Block => disk.number("physical_block_size").unwrap_or(4096),
        Kind::Regular => u32::try_from(metadata.blksize()).unwrap_or(4096).clamp(512, 4096),
    };
    let logical_block = direct.map_or(disk_block, |direct| direct.offset.max(disk_block)).max(512);
    Ok(Limits {
        size,
        logical_block,
        unit: if kind == Kind::Block { disk_block } else { 1 },
        physical_block: physical.next_power_of_two(),
        rotational: disk.number("rotational").unwrap_or(0) != 0,
        can_discard: disk.big_number("discard_max_bytes").unwrap_or(0) != 0,
        can_write_zeroes: disk.big_number("write_zeroes_max_bytes").unwrap_or(0) != 0,
        discard_granularity: disk.number("discard_granularity").unwrap_or(0),
        virt_boundary: direct.and(disk.big_number("virt_boundary_mask")).unwrap_or(0),
        segments: direct.and_then(|_| disk.segments()),
        direct,
    })
}

/// What direct I/O on `file` needs, if it works at all.
pub(super) fn direct(file: &File) -> Option<DirectLimits> {
    candidates(statx_direct(file)).find(|limits| can_read(file, limits.offset).unwrap_or(false))
}

/// What may be tried, where statx(2) says so much. Alignments of 0 mean that the file system has no
/// direct I/O for the file, although an open with `O_DIRECT` may succeed (ext4 with data=journal).
fn candidates(told: Option<DirectLimits>) -> impl Iterator<Item = DirectLimits> {
    let largest = DirectLimits { memory: 4096, offset: 4096 };
    let candidates = match told {
        Some(DirectLimits { memory: 0, .. } | DirectLimits { offset: 0, .. }) => [None, None],
        Some(told) => [Some(told), Some(largest)],
        None => [Some(DirectLimits { memory: 512, offset: 512 }), Some(largest)],
    };
    candidates
        .into_iter()
        .flatten()
        .filter(|limits| limits.offset.is_power_of_two() && limits.memory.is_power_of_two())
        .filter(|limits| limits.offset <= 4096 && limits.memory <= 4096)
        .map(|limits| DirectLimits { memory: limits.memory.max(4), offset: limits.offset.max(512) })
}

/// `STATX_DIOALIGN` (Linux 6.1): 0 means that the file cannot.
fn statx_direct(file: &File) -> Option<DirectLimits> {
    const STATX_DIOALIGN: u32 = 0x2000;
    let mut answer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: an empty path with AT_EMPTY_PATH names `file`; `answer` is a statx to be filled.
    let done = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            STATX_DIOALIGN,
            answer.as_mut_ptr(),
        )
    };
    // SAFETY: zeroed before, so initialised whatever the kernel filled.
    let answer = unsafe { answer.assume_init() };
    (done == 0 && answer.stx_mask & STATX_DIOALIGN != 0).then_some(DirectLimits {
        memory: answer.stx_dio_mem_align,
        offset: answer.stx_dio_offset_align,
    })
}

/// Reads the first block the way requests will be.
fn can_read(file: &File, block: u32) -> io::Result<bool> {
    let layout = Layout::from_size_align(block as usize, 4096).map_err(io::Error::other)?;
    let mut ring = IoUring::new(2)?;
    // SAFETY: the layout has a size; the pointer is checked.
    let memory = unsafe { alloc(layout) };
    if memory.is_null() {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let entry = opcode::Read::new(Fd(file.as_raw_fd()), memory, block).offset(0).build();
    // SAFETY: `memory` lives until the completion was seen, below.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    let result = loop {
        let _interrupted = ring.submit_and_wait(1);
        if let Some(completion) = ring.completion().next() {
            break completion.result();
        }
    };
    // SAFETY: allocated above with this layout; the read has ended.
    unsafe { dealloc(memory, layout) };
    Ok(result >= 0)
}

/// Whether the kernel refuses writes to an open block device.
pub(super) fn is_read_only(file: &File) -> io::Result<bool> {
    const BLKROGET: libc::Ioctl = 0x125e;
    let mut read_only: libc::c_int = 0;
    // SAFETY: BLKROGET stores an int.
    if unsafe { libc::ioctl(file.as_raw_fd(), BLKROGET, &raw mut read_only) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(read_only != 0)
}

/// How much an open file or block device holds, in bytes.
pub(super) fn size(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let file = File::from(fd.try_clone_to_owned()?);
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() { block_size(&file) } else { Ok(metadata.len()) }
}

fn block_size(file: &File) -> io::Result<u64> {
    const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
    let mut size = 0_u64;
    // SAFETY: BLKGETSIZE64 stores a u64.
    if unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut size) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(size)
}

/// The queue of a disk, or of the disk that a partition is part of, in sysfs.
struct Disk {
    queue: PathBuf,
}

impl Disk {
    fn of(device: u64) -> Self {
        let (major, minor) = (libc::major(device), libc::minor(device));
        let base = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let own = base.join("queue");
        Self { queue: if own.exists() { own } else { base.join("../queue") } }
    }

    fn big_number(&self, name: &str) -> Option<u64> {
        fs::read_to_string(self.queue.join(name)).ok()?.trim().parse().ok()
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.big_number(name).and_then(|number| u32::try_from(number).ok())
    }

    fn segments(&self) -> Option<SegmentLimits> {
        /// `BLK_SEG_BOUNDARY_MASK`, the block layer's default; sysfs does not tell.
        const BOUNDARY_MASK: u64 = 0xffff_ffff;
        Some(SegmentLimits {
            boundary_mask: BOUNDARY_MASK,
            max_size: self.number("max_segment_size").filter(|&size| size >= 4096)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_direct_io_is_not_tried_with_larger_blocks() {
        let offsets = |memory, offset| {
            let told = Some(DirectLimits { memory, offset });
            candidates(told).map(|limits| limits.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(0, 0), [0; 0]);
        assert_eq!(offsets(4, 0), [0; 0]);
        assert_eq!(offsets(4, 512), [512, 4096]);
        assert_eq!(offsets(512, 1), [512, 4096]);
        assert_eq!(offsets(4, 65536), [4096], "larger than any device's");
        let offsets = candidates(None).map(|limits| limits.offset).collect::<Vec<_>>();
        assert_eq!(offsets, [512, 4096], "the kernel says nothing before 6.1");
    }
}
