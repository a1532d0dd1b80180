//! An io_uring as a reactor uses it: the seam of submissions and completions.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

use io_uring::squeue::Entry;

use super::linux;

/// How large a reactor's ring is.
#[derive(Clone, Copy, Debug)]
pub struct RingSize {
    /// Submission entries, a power of two.
    pub submissions: u32,
    /// Completion entries, a power of two; at least what can be in flight at once.
    pub completions: u32,
    /// Whether [`Ring::has_work`] will be asked (`IORING_SETUP_TASKRUN_FLAG`, Linux 5.19).
    pub tells_of_work: bool,
}

/// One completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the submission carried.
    pub user_data: u64,
    /// The operation's result, or a negative errno.
    pub result: i32,
    /// `IORING_CQE_F_*`.
    pub flags: u32,
}

/// A bit of `user_data` that is the driver's.
///
/// Short of memory, the kernel takes only some of the entries that were pushed, and a chain of links ends
/// with what it takes: the rest would run as if nothing had come before. A ring withdraws such a rest
/// before it submits again, and a completion with the `user_data` of the last entry that was taken, and
/// this bit, says so.
pub const SEVERED: u64 = 1 << 31;

/// One io_uring with its file and buffer tables, used by one thread.
pub trait Ring {
    /// Makes a file table of `count` empty places.
    ///
    /// # Errors
    /// What io_uring_register(2) says: `EMFILE` beyond `RLIMIT_NOFILE`.
    fn register_files_sparse(&mut self, count: u32) -> io::Result<()>;

    /// Puts `fds` into the file table, from place `first` on; -1 empties a place, and its file
    /// closes as soon as nothing uses it.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    fn update_files(&mut self, first: u32, fds: &[RawFd]) -> io::Result<()>;

    /// Empties places of the file table, so that their files really close when their descriptors do
    /// (trap 30). To unregister the table could wait for ever (trap 64).
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    fn empty_files(&mut self, places: Range<u32>) -> io::Result<()> {
        self.update_files(places.start, &vec![-1; places.len()])
    }

    /// Makes a buffer table of `count` empty slots.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    fn register_buffers_sparse(&mut self, count: u32) -> io::Result<()>;

    /// Registers `ring`, an `io_uring_buf_ring` of `entries` entries, as the buffers of `group`,
    /// from which multishot commands take what they answer in.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    ///
    /// # Safety
    /// `ring`, page-aligned and `16 * entries` bytes long, and the buffers that it names must
    /// outlive this ring, or the group.
    unsafe fn register_buffer_ring(
        &mut self,
        ring: *mut u8,
        entries: u16,
        group: u16,
    ) -> io::Result<()>;

    /// Lets go of the buffers of `group`.
    ///
    /// # Errors
    /// What io_uring_register(2) says.
    fn unregister_buffer_ring(&mut self, group: u16) -> io::Result<()>;

    /// Submission entries that can be pushed before the next submit.
    fn space(&mut self) -> usize;

    /// Queues one entry. The caller has made sure of [`space`](Ring::space).
    ///
    /// # Safety
    /// Memory that the entry points to must stay valid until its last completion.
    unsafe fn push(&mut self, entry: &Entry);

    /// Submits what was pushed, without waiting: all of it, unless the kernel is so short of memory that
    /// it takes nothing.
    ///
    /// # Errors
    /// What io_uring_enter(2) says; `EINTR` is no error here.
    fn submit(&mut self) -> io::Result<()>;

    /// Whether entries that were pushed are still to be submitted.
    fn has_queued(&mut self) -> bool;

    /// Submits what was pushed and waits until at least `count` completions are there.
    /// May return with fewer after a signal.
    ///
    /// # Errors
    /// What io_uring_enter(2) says; `EINTR` is no error here.
    fn submit_and_wait(&mut self, count: u32) -> io::Result<()>;

    /// Submits what was pushed and lets the kernel do what it has put off for us, without
    /// waiting.
    ///
    /// # Errors
    /// What io_uring_enter(2) says; `EINTR` is no error here.
    fn poll(&mut self) -> io::Result<()>;

    /// Whether the kernel has put off something for us; no call is needed to tell.
    fn has_work(&mut self) -> bool;

    /// Completions that can be taken now.
    fn ready(&mut self) -> usize;

    /// Takes the next completion.
    fn pop(&mut self) -> Option<Completion>;

    /// How many bytes a block device holds at this moment, 0 once its disk is gone; none for a file that
    /// is no block device. It takes system calls, and is for requests that have failed.
    fn capacity(&self, file: RawFd) -> Option<u64> {
        linux::capacity(file)
    }
}
