//! Open files and mappings of a driver. Each lives as long as the owner that the driver gives.

use std::any::Any;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;

use ublk_sys::ublksrv_io_desc;

use crate::tag::Tag;

/// An open file; closes when the last clone goes.
#[derive(Clone, Debug)]
pub struct OpenFile {
    fd: RawFd,
    _owner: Arc<dyn AnyDebug>,
}

/// An owner that is kept for its drop alone.
pub trait AnyDebug: Any + std::fmt::Debug + Send + Sync {}
impl<T: Any + std::fmt::Debug + Send + Sync> AnyDebug for T {}

impl OpenFile {
    /// `fd` stays open as long as `owner` lives.
    pub fn new(fd: RawFd, owner: Arc<dyn AnyDebug>) -> Self {
        Self { fd, _owner: owner }
    }

    /// The descriptor, for a ring's file table.
    #[inline]
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

/// Memory of a target, which steps of the target's plans may name.
pub trait TargetMemory: std::fmt::Debug + Send + Sync {
    /// The addresses of the bytes, as long as the value lives.
    fn addresses(&self) -> Range<usize>;
}

/// Memory that other processes write to as well, and that no reference may point to.
#[derive(Debug)]
pub struct MemoryMap {
    base: *mut u8,
    length: usize,
    _owner: Box<dyn AnyDebug>,
}

// SAFETY: an address and its owner, which is Send; who may touch the bytes when is for the users
// of the address to know.
unsafe impl Send for MemoryMap {}
// SAFETY: as above; the address is all that is read through a shared reference.
unsafe impl Sync for MemoryMap {}

impl MemoryMap {
    /// # Safety
    /// `base` must point to `length` bytes that stay mapped as long as `owner` lives.
    pub unsafe fn new(base: *mut u8, length: usize, owner: Box<dyn AnyDebug>) -> Self {
        Self { base, length, _owner: owner }
    }

    /// The first byte's address.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// The length in bytes.
    #[inline]
    pub fn length(&self) -> usize {
        self.length
    }
}

/// The request descriptors of one queue, in memory that the kernel writes.
#[derive(Debug)]
pub struct Descriptors {
    base: *const u8,
    stride: usize,
    depth: u16,
    _owner: Box<dyn AnyDebug>,
}

// SAFETY: the memory is read-only to us and belongs to `_owner`, which is Send; reading it from
// another thread is what io_uring's completion ordering is for.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// # Safety
    /// `base` must point to `depth` descriptors, `stride` bytes apart and aligned for
    /// `ublksrv_io_desc`, readable as long as `owner` lives.
    pub unsafe fn new(
        base: *const u8,
        stride: usize,
        depth: u16,
        owner: Box<dyn AnyDebug>,
    ) -> Self {
        Self { base, stride, depth, _owner: owner }
    }

    /// A copy of the descriptor of `tag`. The kernel may write the slot again as soon as the tag's commit
    /// is submitted (trap 20), so callers keep the copy and never come back.
    #[inline]
    pub fn read(&self, tag: Tag) -> ublksrv_io_desc {
        assert!(tag.number() < self.depth, "tag {tag} of a queue of depth {}", self.depth);
        // SAFETY: in bounds and aligned by `new`'s contract; volatile, since another party
        // writes it (never while the tag is ours).
        unsafe {
            self.base.add(tag.index() * self.stride).cast::<ublksrv_io_desc>().read_volatile()
        }
    }
}
