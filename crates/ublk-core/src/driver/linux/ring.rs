//! A reactor's io_uring.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use io_uring::IoUring;
use io_uring::squeue::Entry;

use crate::driver::{Completion, Ring, RingSize};

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// An io_uring used by the thread that made it.
pub struct LinuxRing {
    ring: IoUring,
    /// What io_uring_enter(2) is called with: the ring's registered index, or its descriptor.
    enter_fd: i32,
    enter_flags: u32,
    /// Pushed and not yet submitted.
    queued: u32,
}

impl std::fmt::Debug for LinuxRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxRing").field("enter_fd", &self.enter_fd).finish_non_exhaustive()
    }
}

impl LinuxRing {
    pub(super) fn new(entries: RingSize) -> io::Result<Self> {
        let ring = build(entries)?;
        let mut this = Self { enter_fd: ring.as_raw_fd(), enter_flags: 0, queued: 0, ring };
        if let Ok(index) = this.update_ring_fd(REGISTER_RING_FDS, u32::MAX) {
            this.enter_fd = index;
            this.enter_flags = ENTER_REGISTERED_RING;
        }
        Ok(this)
    }

    /// (Un)registers this ring's descriptor with its thread, which saves looking it up at each
    /// enter (Linux 5.18). Answers the index.
    fn update_ring_fd(&self, operation: u32, offset: u32) -> io::Result<i32> {
        let mut update =
            RsrcUpdate { offset, resv: 0, data: u64::from(self.ring.as_raw_fd().cast_unsigned()) };
        // SAFETY: `update` is an io_uring_rsrc_update that lives through the call.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                self.ring.as_raw_fd(),
                operation,
                ptr::from_mut(&mut update),
                1,
            )
        };
        if done != 1 {
            return Err(io::Error::last_os_error());
        }
        i32::try_from(update.offset).map_err(io::Error::other)
    }

    fn enter(&mut self, wanted: u32, flags: u32) -> io::Result<()> {
        // SAFETY: plain numbers, no signal mask. What the queued entries point to is alive by
        // `push`'s contract.
        let submitted = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                self.queued,
                wanted,
                flags | self.enter_flags,
                ptr::null::<libc::c_void>(),
                0,
            )
        };
        if submitted < 0 {
            let error = io::Error::last_os_error();
            // EBUSY: completions wait to be taken first; the caller takes them and comes back.
            return match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            };
        }
        self.queued -= u32::try_from(submitted).unwrap_or(self.queued).min(self.queued);
        Ok(())
    }
}

#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `DEFER_TASKRUN` keeps the kernel from interrupting us; `NO_SQARRAY` (6.6) and `SUBMIT_ALL`
/// (5.18) are what an older kernel can do without.
fn build(entries: RingSize) -> io::Result<IoUring> {
    let attempt = |no_sqarray: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(entries.completions)
            .dontfork();
        if no_sqarray {
            builder.setup_no_sqarray();
        }
        builder.build(entries.submissions)
    };
    match attempt(true) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => attempt(false),
        result => result,
    }
}

impl Ring for LinuxRing {
    fn register_files(&mut self, fds: &[RawFd]) -> io::Result<()> {
        self.ring.submitter().register_files(fds)
    }

    fn unregister_files(&mut self) -> io::Result<()> {
        self.ring.submitter().unregister_files()
    }

    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()> {
        self.ring.submitter().register_buffers_sparse(count)
    }

    unsafe fn register_buffer_ring(
        &mut self,
        ring: *mut u8,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: passed on to our caller.
        unsafe {
            self.ring.submitter().register_buf_ring_with_flags(ring as u64, entries, group, 0)
        }
    }

    #[inline]
    fn space(&mut self) -> usize {
        let submission = self.ring.submission();
        submission.capacity() - submission.len()
    }

    #[inline]
    unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: passed on to our caller.
        let pushed = unsafe { self.ring.submission().push(entry) };
        assert!(pushed.is_ok(), "the submission queue is full: space() was not asked");
        self.queued += 1;
    }

    fn submit(&mut self) -> io::Result<()> {
        self.enter(0, 0)
    }

    #[inline]
    fn submit_and_wait(&mut self, count: u32) -> io::Result<()> {
        self.enter(count, ENTER_GETEVENTS)
    }

    #[inline]
    fn ready(&mut self) -> usize {
        self.ring.completion().len()
    }

    #[inline]
    fn pop(&mut self) -> Option<Completion> {
        let entry = self.ring.completion().next()?;
        Some(Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        })
    }
}

impl Drop for LinuxRing {
    fn drop(&mut self) {
        if self.enter_flags & ENTER_REGISTERED_RING != 0 {
            let index = u32::try_from(self.enter_fd).unwrap_or_default();
            // The registration would keep the ring, and all it holds, until the thread ends.
            let _ = self.update_ring_fd(UNREGISTER_RING_FDS, index);
        }
    }
}
