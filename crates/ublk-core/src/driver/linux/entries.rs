//! The submission entries as the kernel sees them: to change those that it has not taken.

use std::io;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use io_uring::opcode::Nop;
use io_uring::squeue::{Entry, Flags};

use crate::driver::SEVERED;

const IORING_OFF_SQES: libc::off_t = 0x1000_0000;
/// Where the flags are in `struct io_uring_sqe`.
const FLAGS: usize = 1;

/// A second mapping of a ring's entries; the first is the io-uring crate's, which shows none of it.
#[derive(Debug)]
pub(super) struct Entries {
    base: NonNull<Entry>,
    count: u32,
}

impl Entries {
    /// Maps the `count` entries of a ring, a power of two.
    pub(super) fn map(ring: RawFd, count: u32) -> io::Result<Self> {
        let length = count as usize * size_of::<Entry>();
        // SAFETY: a new mapping at a place of the kernel's choice.
        let base = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), length, protection, libc::MAP_SHARED, ring, IORING_OFF_SQES)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made; children need none of it.
        unsafe { libc::madvise(base, length, libc::MADV_DONTFORK) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, count })
    }

    /// The kernel has taken all entries before `head`, and of those behind it `queued` wait. Where the
    /// last one was linked to the first of these, the rest of that chain is withdrawn.
    #[cold]
    pub(super) fn mend(&mut self, head: u32, queued: u32) {
        let last = self.at(head.wrapping_sub(1));
        if !self.links(last) {
            return;
        }
        // SAFETY: a place of the mapping; the kernel reads entries only while we call it.
        let severed = unsafe { last.as_ref() }.get_user_data() | SEVERED;
        let mut entry = Nop::new().build().user_data(severed);
        for waiting in 0..queued {
            let place = self.at(head.wrapping_add(waiting));
            let links = self.links(place);
            // SAFETY: as above.
            unsafe { place.write(entry) };
            if !links {
                return;
            }
            entry = Nop::new().build().flags(Flags::SKIP_SUCCESS);
        }
    }

    fn at(&self, position: u32) -> NonNull<Entry> {
        // SAFETY: below `count`, a power of two.
        unsafe { self.base.add((position & (self.count - 1)) as usize) }
    }

    fn links(&self, entry: NonNull<Entry>) -> bool {
        let both = (Flags::IO_LINK | Flags::IO_HARDLINK).bits();
        // SAFETY: a place of the mapping, of 64 plain bytes.
        let flags = unsafe { entry.cast::<u8>().add(FLAGS).read() };
        flags & both != 0
    }
}

impl Drop for Entries {
    fn drop(&mut self) {
        let length = self.count as usize * size_of::<Entry>();
        // SAFETY: mapped by `map`, and nobody else has an address in it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), length) };
    }
}
