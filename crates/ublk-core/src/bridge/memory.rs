//! Memory that two threads, one of them JavaScript's, use at once.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU32;

/// Zeroed, page-aligned memory that takes space only once touched. Whoever shows it to somebody
/// keeps an `Arc` of it as long as they can look.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the region owns its memory, which is only ever reached through raw pointers and atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// `length` bytes, at least one.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(length: usize) -> io::Result<Self> {
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
        // With huge pages, a first byte would make two megabytes resident; of those, a queue's
        // buffers are many. A kernel that was built without refuses, and is right.
        // SAFETY: exactly what was just mapped; no byte of it changes.
        unsafe { libc::madvise(base, length, libc::MADV_NOHUGEPAGE) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    /// Where it begins. Others may write to it at any time, so no reference is ever made of it.
    #[inline]
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.length
    }

    /// It as words.
    #[inline]
    pub(crate) fn words(&self) -> &[AtomicU32] {
        // SAFETY: inside the mapping and page-aligned; zeros are valid, and everybody who writes
        // words does so atomically (JavaScript's plain stores of aligned words are).
        unsafe {
            std::slice::from_raw_parts(
                self.base.as_ptr().cast_const().cast(),
                self.length / size_of::<AtomicU32>(),
            )
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned; whoever could use it has let go of its `Arc`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}
