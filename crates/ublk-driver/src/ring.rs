//! An io_uring as used by a reactor: the seam of submissions and completions.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

use io_uring::squeue::Entry;

use crate::capacity::capacity;

/// How large a reactor's ring is.
#[derive(Clone, Copy, Debug)]
pub struct RingSize {
    /// Submission entries, a power of two.
    pub submissions: u32,
    /// Completion entries, a power of two; at least the number of operations in flight at once.
    pub completions: u32,
    /// Whether [`Ring::has_work`] will be asked (`IORING_SETUP_TASKRUN_FLAG`, Linux 5.19).
    pub tells_of_work: bool,
}

/// One completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The `user_data` of the submission.
    pub user_data: u64,
    /// The operation's result, or a negative errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

/// A bit of `user_data` reserved for the driver.
///
/// Short of memory, the kernel takes only some of the pushed entries. A chain of links ends at the
/// last entry taken: the remaining entries would run as if nothing had come before. A ring
/// withdraws the remaining entries before the next submit, and reports the withdrawal by a
/// completion with the `user_data` of the last entry taken and this bit.
pub const SEVERED: u64 = 1 << 31;

/// An io_uring with a file table and a buffer table, used by a single thread.
pub trait Ring {
    /// Makes a file table of `count` empty places.
    ///
    /// # Errors
    /// The errno of io_uring_register(2): `EMFILE` beyond `RLIMIT_NOFILE`.
    fn register_files_sparse(&mut self, count: u32) -> io::Result<()>;

    /// Puts `fds` into the file table, from place `first` on. -1 empties a place; the place's file
    /// closes as soon as no operation uses the file.
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    fn update_files(&mut self, first: u32, fds: &[RawFd]) -> io::Result<()>;

    /// Empties places of the file table, so that closing the descriptors really closes the files
    /// (trap 30). To unregister the table could wait for ever (trap 64).
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    fn empty_files(&mut self, places: Range<u32>) -> io::Result<()> {
        self.update_files(places.start, &vec![-1; places.len()])
    }

    /// Makes a buffer table of `count` empty slots.
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()>;

    /// Registers `ring`, an `io_uring_buf_ring` of `entries` entries, as the buffers of `group`:
    /// the memory for the answers of multishot commands.
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    ///
    /// # Safety
    /// `ring`, page-aligned and `16 * entries` bytes long, and the buffers named in `ring` must
    /// outlive this ring, or the group.
    unsafe fn register_buffer_ring(
        &mut self,
        ring: *mut u8,
        entries: u16,
        group: u16,
    ) -> io::Result<()>;

    /// Unregisters the buffers of `group`.
    ///
    /// # Errors
    /// The errno of io_uring_register(2).
    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()>;

    /// Submission entries that can be pushed before the next submit.
    fn space(&mut self) -> usize;

    /// Queues one entry. The caller has made sure of [`space`](Ring::space).
    ///
    /// # Safety
    /// Memory used by the entry must stay valid until the entry's last completion.
    unsafe fn push(&mut self, entry: &Entry);

    /// Submits all pushed entries, without waiting, unless the kernel is too short of memory to
    /// take any.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2); `EINTR` is no error here.
    fn submit(&mut self) -> io::Result<()>;

    /// Whether pushed entries still wait for a submit.
    fn has_queued(&mut self) -> bool;

    /// Submits all pushed entries and waits until at least `count` completions are available. May
    /// return with fewer after a signal.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2); `EINTR` is no error here.
    fn submit_and_wait(&mut self, count: u32) -> io::Result<()>;

    /// Submits all pushed entries and lets the kernel do postponed work for this ring, without
    /// waiting.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2); `EINTR` is no error here.
    fn poll(&mut self) -> io::Result<()>;

    /// Whether the kernel has postponed work for this ring; the check needs no system call.
    fn has_work(&mut self) -> bool;

    /// Completions that can be taken now.
    fn ready(&mut self) -> usize;

    /// Takes the next completion.
    fn pop(&mut self) -> Option<Completion>;

    /// The present size of a block device in bytes, 0 once the disk is gone; none for other files.
    /// Costs system calls: only for failed requests.
    fn capacity(&self, file: RawFd) -> Option<u64> {
        capacity(file)
    }
}
