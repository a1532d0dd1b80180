//! A ring for whoever comes.

use std::io;

use io_uring::IoUring;
use io_uring::squeue::Entry;

use crate::driver::Errands;

/// How often a command is tried again that the kernel has no memory for, or that a signal interrupts.
const MAX_ATTEMPTS: u32 = 16;

/// An io_uring without `SINGLE_ISSUER`.
pub(super) struct LinuxErrands {
    ring: IoUring,
}

impl std::fmt::Debug for LinuxErrands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxErrands").finish_non_exhaustive()
    }
}

impl LinuxErrands {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { ring: IoUring::builder().dontfork().build(1)? })
    }
}

impl Errands for LinuxErrands {
    unsafe fn run(&mut self, entry: &Entry) -> io::Result<i32> {
        // SAFETY: passed on to our caller.
        unsafe { self.ring.submission().push(entry) }.map_err(io::Error::other)?;
        let mut failed = Ok(0);
        for _ in 0..MAX_ATTEMPTS {
            let entered = self.ring.submit_and_wait(1);
            if let Some(completion) = self.ring.completion().next() {
                return Ok(completion.result());
            }
            failed = entered;
        }
        Err(failed.err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EINTR)))
    }
}
