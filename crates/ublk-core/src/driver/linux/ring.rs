//! A reactor's io_uring.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::{self, NonNull};

use io_uring::squeue::Entry;
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter};

use super::entries::Entries;
use crate::driver::{Completion, Ring, RingSize};

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// An io_uring, for the thread that made the ring.
///
/// The queues are borrowed from the ring once and for ever. So pushing and popping touch only this
/// struct's copies of the heads and tails; `enter` and `ready` exchange the copies with the kernel.
pub struct LinuxRing {
    submissions: ManuallyDrop<SubmissionQueue<'static>>,
    completions: ManuallyDrop<CompletionQueue<'static>>,
    submitter: Submitter<'static>,
    /// Owns the memory borrowed by the other fields; dropped last, by hand.
    ring: NonNull<IoUring>,
    /// The ring argument of io_uring_enter(2): the ring's registered index, or the descriptor.
    enter_fd: i32,
    enter_flags: u32,
    /// Pushed and not yet submitted.
    queued: u32,
    /// The number of entries taken by the kernel so far, wrapping: the kernel's head.
    taken: u32,
    entries: Entries,
}

impl std::fmt::Debug for LinuxRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinuxRing").field("enter_fd", &self.enter_fd).finish_non_exhaustive()
    }
}

impl LinuxRing {
    pub(super) fn new(entries: RingSize) -> io::Result<Self> {
        let ring = NonNull::from(Box::leak(Box::new(build(entries)?)));
        // SAFETY: the only reference to the leaked ring, which lives until `drop` takes the ring
        // back, after the queues.
        let (submitter, submissions, completions) = unsafe { &mut *ring.as_ptr() }.split();
        // SAFETY: only reads the descriptor, which no queue changes.
        let fd = unsafe { ring.as_ref() }.as_raw_fd();
        // SAFETY: as above.
        let count = unsafe { ring.as_ref() }.params().sq_entries();
        let mut this = Self {
            entries: Entries::map(fd, count).inspect_err(|_| {
                // SAFETY: leaked above; the queues borrowed from the ring have no destructor.
                drop(unsafe { Box::from_raw(ring.as_ptr()) });
            })?,
            taken: 0,
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            submitter,
            ring,
            enter_fd: fd,
            enter_flags: 0,
            queued: 0,
        };
        if let Ok(index) = update_ring_fd(fd, REGISTER_RING_FDS, u32::MAX) {
            this.enter_fd = index;
            this.enter_flags = ENTER_REGISTERED_RING;
        }
        Ok(this)
    }

    fn enter(&mut self, wanted: u32, flags: u32) -> io::Result<()> {
        self.completions.sync();
        self.submissions.sync();
        // SAFETY: plain numbers, no signal mask. By `push`'s contract, the memory used by queued
        // entries is alive.
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
        self.submissions.sync();
        self.completions.sync();
        if submitted < 0 {
            let error = io::Error::last_os_error();
            // EBUSY: the caller must first take completions, and then comes back.
            return match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            };
        }
        let submitted = u32::try_from(submitted).unwrap_or(self.queued).min(self.queued);
        self.queued -= submitted;
        self.taken = self.taken.wrapping_add(submitted);
        if self.queued > 0 && submitted > 0 {
            self.entries.mend(self.taken, self.queued);
        }
        Ok(())
    }
}

/// Registers a ring's descriptor with the ring's thread, or unregisters the descriptor. The
/// registration saves a lookup at each enter (Linux 5.18). Returns the index.
fn update_ring_fd(fd: RawFd, operation: u32, offset: u32) -> io::Result<i32> {
    let mut update = RsrcUpdate { offset, resv: 0, data: u64::from(fd.cast_unsigned()) };
    // SAFETY: `update` is an io_uring_rsrc_update and lives through the call.
    let done = unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd, operation, ptr::from_mut(&mut update), 1)
    };
    if done != 1 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(update.offset).map_err(io::Error::other)
}

#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

/// `DEFER_TASKRUN` keeps the kernel from interrupting the thread; an older kernel can do without
/// `NO_SQARRAY` (6.6) and `SUBMIT_ALL` (5.18).
fn build(entries: RingSize) -> io::Result<IoUring> {
    let attempt = |no_sqarray: bool| {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(entries.completions)
            .dontfork();
        if entries.tells_of_work {
            builder.setup_taskrun_flag();
        }
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
    fn register_files_sparse(&mut self, count: u32) -> io::Result<()> {
        self.submitter.register_files_sparse(count)
    }

    fn update_files(&mut self, first: u32, fds: &[RawFd]) -> io::Result<()> {
        match self.submitter.register_files_update(first, fds)? {
            done if done == fds.len() => Ok(()),
            done => Err(io::Error::other(format!("{done} of {} files registered", fds.len()))),
        }
    }

    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()> {
        self.submitter.register_buffers_sparse(count)
    }

    unsafe fn register_buffer_ring(
        &mut self,
        ring: *mut u8,
        entries: u16,
        group: u16,
    ) -> io::Result<()> {
        // SAFETY: passed on to our caller.
        unsafe { self.submitter.register_buf_ring_with_flags(ring as u64, entries, group, 0) }
    }

    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()> {
        self.submitter.unregister_buf_ring(group)
    }

    #[inline]
    fn space(&mut self) -> usize {
        self.submissions.capacity() - self.submissions.len()
    }

    #[inline]
    unsafe fn push(&mut self, entry: &Entry) {
        // SAFETY: passed on to our caller.
        let pushed = unsafe { self.submissions.push(entry) };
        assert!(pushed.is_ok(), "the submission queue is full: space() was not asked");
        self.queued += 1;
    }

    fn submit(&mut self) -> io::Result<()> {
        loop {
            let before = self.queued;
            self.enter(0, 0)?;
            if self.queued == 0 || self.queued == before {
                return Ok(());
            }
        }
    }

    fn has_queued(&mut self) -> bool {
        self.queued > 0
    }

    #[inline]
    fn submit_and_wait(&mut self, count: u32) -> io::Result<()> {
        self.enter(count, ENTER_GETEVENTS)
    }

    fn poll(&mut self) -> io::Result<()> {
        self.enter(0, ENTER_GETEVENTS)
    }

    #[inline]
    fn has_work(&mut self) -> bool {
        self.submissions.taskrun()
    }

    #[inline]
    fn ready(&mut self) -> usize {
        self.completions.len()
    }

    #[inline]
    fn pop(&mut self) -> Option<Completion> {
        let entry = self.completions.next()?;
        Some(Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        })
    }
}

impl Drop for LinuxRing {
    fn drop(&mut self) {
        // SAFETY: only reads the descriptor.
        let fd = unsafe { self.ring.as_ref() }.as_raw_fd();
        if self.enter_flags & ENTER_REGISTERED_RING != 0 {
            let index = u32::try_from(self.enter_fd).unwrap_or_default();
            // The registration would keep the ring, with all the ring's resources, until the thread
            // ends.
            let _ = update_ring_fd(fd, UNREGISTER_RING_FDS, index);
        }
        // SAFETY: the queues go before the ring from which the queues are borrowed; nothing uses
        // the queues or the ring again, since `submitter` has no destructor; the ring was leaked in
        // `new`.
        unsafe {
            ManuallyDrop::drop(&mut self.submissions);
            ManuallyDrop::drop(&mut self.completions);
            drop(Box::from_raw(self.ring.as_ptr()));
        }
    }
}
