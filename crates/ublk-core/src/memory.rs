//! Memory of our own, and files that are mapped.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

const WRITABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Bytes that are mapped until this is dropped. Others may write to them at any time, so no
/// reference is ever made of them.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: an address, and the right to unmap what is there; who may touch the bytes when is for the
// users of the address to know.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Zeroed memory that takes space only once touched.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn anonymous(length: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let this = Self::map(length, WRITABLE, flags, -1, 0)?;
        // With huge pages, a first byte would make two megabytes resident: 128 MiB for a queue that
        // serves nothing but 4 KiB requests. A kernel that was built without refuses, and is right.
        // SAFETY: exactly what was just mapped; no byte of it changes.
        unsafe { libc::madvise(this.base().cast(), length, libc::MADV_NOHUGEPAGE) };
        Ok(this)
    }

    /// The first `length` bytes of a file, shared with whoever else has it.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn shared(fd: RawFd, length: usize, writable: bool) -> io::Result<Self> {
        let protection = if writable { WRITABLE } else { libc::PROT_READ };
        Self::map(length, protection, libc::MAP_SHARED, fd, 0)
    }

    /// `length` bytes of a file from `offset` on, to be read, all there from the beginning.
    ///
    /// # Errors
    /// What mmap(2) says.
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
        // A child process has no part in it: what the child maps of a file keeps that file open, and
        // with it the device (trap 34) or the lock of a state file.
        // SAFETY: exactly what was just mapped; no byte of it changes.
        unsafe { libc::madvise(base, length, libc::MADV_DONTFORK) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    /// Where they begin.
    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// How many there are.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned; whoever could use it has let go of us.
        unsafe { libc::munmap(self.base().cast(), self.length) };
    }
}

/// Memory that two threads, one of them JavaScript's, use at once: zeroed, page-aligned, and taking
/// space only once touched. Whoever shows it to somebody keeps an `Arc` of it as long as they can
/// look.
#[derive(Debug)]
pub struct Region(Mapping);

impl Region {
    /// `length` bytes, at least one.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(length: usize) -> io::Result<Self> {
        Mapping::anonymous(length).map(Self)
    }

    /// Where it begins. Others may write to it at any time, so no reference is ever made of it.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.0.base()
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.0.length()
    }

    /// It as words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: inside the mapping and page-aligned; zeros are valid, and everybody who writes
        // words does so atomically (JavaScript's plain stores of aligned words are).
        unsafe {
            std::slice::from_raw_parts(
                self.base().cast_const().cast(),
                self.size() / size_of::<AtomicU32>(),
            )
        }
    }
}
