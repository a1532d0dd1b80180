//! Memory of this process, and mapped files.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

use crate::driver::TargetMemory;
use crate::locked;

const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Bytes that stay mapped until the value is dropped. Other threads and processes may write to the bytes at
/// any time, so no Rust reference to the bytes exists.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: an address, and the right to unmap the bytes; the users of the address know which thread may
// touch the bytes when.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that takes space only when touched.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let this = Self::map(length, WRITABLE, flags, -1, 0)?;
        // With huge pages, a first byte would make two megabytes resident: 128 MiB for a queue that
        // serves only requests of 4 KiB. A kernel without huge pages refuses, which changes nothing.
        // SAFETY: exactly what was just mapped; no byte of it changes.
        unsafe { libc::madvise(this.base().cast(), length, libc::MADV_NOHUGEPAGE) };
        Ok(this)
    }

    /// The first `length` bytes of a file, shared with all who map or write the file.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub(crate) fn shared(fd: RawFd, length: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { WRITABLE } else { libc::PROT_READ };
        Self::map(length, protection, libc::MAP_SHARED, fd, 0)
    }

    /// `length` bytes of a file from `offset` on, read-only, with all pages present from the beginning.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub(crate) fn window(fd: RawFd, offset: libc::off_t, length: usize) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::map(length, libc::PROT_READ, flags, fd, offset)
    }

    fn map(
        length: usize,
        protection: i32,
        flags: i32,
        fd: RawFd,
        offset: libc::off_t,
    ) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, fd, offset) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // No part of a child process: a mapping of a child keeps the file open, and with the file the
        // device (trap 34) or the lock of a state file.
        // SAFETY: exactly what was just mapped; no byte of it changes.
        unsafe { libc::madvise(base, length, libc::MADV_DONTFORK) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let this = Self { base, length };
        if locked::is_on() {
            locked::lock(this.base(), length)?;
        }
        Ok(this)
    }

    /// The address of the first byte.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The number of bytes.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned; the users of the address have dropped their handles.
        unsafe { libc::munmap(self.base().cast(), self.length) };
    }
}

/// Memory that two threads, one of them JavaScript's, use at once: zeroed, page-aligned, and without space
/// until touched. Code that gives the address away keeps an `Arc` of the region as long as the receiver may
/// use the address.
#[derive(Debug)]
pub struct Region(Mapping);

impl Region {
    /// `length` bytes, at least one.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn new(length: usize) -> io::Result<Self> {
        Mapping::anonymous(length).map(Self)
    }

    /// The address of the first byte. Other threads may write at any time, so no Rust reference to the memory
    /// exists.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.0.base()
    }

    /// The size in bytes.
    pub fn size(&self) -> usize {
        self.0.length()
    }

    /// The memory as words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: inside the mapping and page-aligned; zeros are valid, and every writer of words writes
        // atomically (JavaScript's plain stores of aligned words are atomic).
        unsafe {
            std::slice::from_raw_parts(
                self.base().cast_const().cast(),
                self.size() / size_of::<AtomicU32>(),
            )
        }
    }
}

impl TargetMemory for Region {
    fn addresses(&self) -> Range<usize> {
        let begin = self.base() as usize;
        begin..begin + self.size()
    }
}
