//! Memory of our own for requests that the kernel copies.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::bridge::{Channel, Region};

/// A buffer of our own for each tag.
#[derive(Debug)]
pub(crate) struct Pool {
    base: NonNull<u8>,
    stride: usize,
    length: usize,
    /// The tags' buffers, where somebody else sees them too: then nothing of ours is mapped.
    lent: Box<[Arc<Region>]>,
}

// SAFETY: the pool owns its memory; whoever has it may use it from any thread.
unsafe impl Send for Pool {}

impl Pool {
    /// `count` page-aligned buffers of `stride` bytes, zeroed, taking memory only once touched.
    pub(crate) fn new(count: u16, stride: u32) -> io::Result<Self> {
        let stride = stride as usize;
        let length = usize::from(count) * stride;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // With huge pages, the first byte of each buffer would make most of the pool resident:
        // 128 MiB for a queue that serves nothing but 4 KiB requests. A kernel that was built
        // without huge pages refuses, and is right.
        // SAFETY: exactly what was just mapped; no byte of it changes.
        unsafe { libc::madvise(base, length, libc::MADV_NOHUGEPAGE) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, stride, length, lent: Box::default() })
    }

    /// Buffers of `stride` bytes that a channel's peer sees too.
    pub(crate) fn lent(channel: &Channel, stride: u32) -> io::Result<Self> {
        let lent = channel.make_buffers(stride)?;
        Ok(Self { base: NonNull::dangling(), stride: stride as usize, length: 0, lent })
    }

    /// Another buffer for a tag.
    pub(crate) fn lend(&mut self, tag: u16, buffer: Arc<Region>) {
        self.lent[usize::from(tag)] = buffer;
    }

    /// Where the buffer of `tag` is, plus `offset` bytes.
    #[inline]
    pub(crate) fn at(&self, tag: u16, offset: u32) -> *mut u8 {
        if !self.lent.is_empty() {
            return self.lent_at(tag, offset);
        }
        let offset = usize::from(tag) * self.stride + offset as usize;
        assert!(offset < self.length);
        // SAFETY: inside the mapping, just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }

    #[inline(never)]
    fn lent_at(&self, tag: u16, offset: u32) -> *mut u8 {
        let region = &self.lent[usize::from(tag)];
        assert!((offset as usize) < region.size());
        // SAFETY: inside the region, just checked.
        unsafe { region.base().add(offset as usize) }
    }

    /// Which buffer an address is in.
    pub(crate) fn index(&self, address: *mut u8) -> u16 {
        let offset = address as usize - self.base.as_ptr() as usize;
        assert!(offset < self.length);
        #[expect(clippy::cast_possible_truncation, reason = "there are at most 65,535")]
        {
            (offset / self.stride) as u16
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if self.length == 0 {
            return;
        }
        // SAFETY: exactly what mmap returned; the reactor drops us after its last completion.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
