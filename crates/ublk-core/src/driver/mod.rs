//! The seam between what serves requests and what it is served by.
//!
//! Everything above speaks io_uring: 64-byte submission entries go in, completions come out.
//! [`linux`] hands them to the kernel; [`sim`] to an in-process model of ublk_drv and io_uring
//! that is strict about the protocol and injects faults. The code above cannot tell them apart.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use ublk_sys::{ublksrv_ctrl_cmd, ublksrv_io_desc};

use crate::memory::Region;

pub mod linux;
pub mod sim;
mod users;

pub use users::{User, Users};

/// What a device, its control plane and its reactors need from the system below them.
pub trait Driver: Clone + Send + Sync + 'static {
    /// The io_uring of one reactor.
    type Ring: Ring;

    /// Sends one control command (`UBLK_U_CMD_*`) and waits at most `limit` for its answer;
    /// `STOP_DEV`, which writes back what clients have written, as long as requests end within it.
    ///
    /// `buffer` is what `command.addr` and `command.len` are set to, if given; it is owned by the
    /// driver until the kernel has answered, however long that takes, and comes back filled.
    ///
    /// # Errors
    /// The command's errno; `ETIMEDOUT` when no answer came within `limit`.
    fn control(
        &self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer>;

    /// The numbers of all devices that there are, started or not, in their order.
    fn devices(&self) -> Vec<u32> {
        Vec::new()
    }

    /// What tells the device that has a number now from every other that had it or will have it: as
    /// soon as a device is added, and until it is deleted. None without such a device, or where the
    /// system does not tell.
    fn device_identity(&self, _id: u32) -> Option<Identity> {
        None
    }

    /// The disk of a started device, as far as the system tells without waiting for anybody; none
    /// where there is none.
    fn disk(&self, _id: u32) -> Option<DiskFacts> {
        None
    }

    /// Opens `/dev/ublkcN`. The kernel allows one opener at a time.
    ///
    /// # Errors
    /// `EBUSY` while another process (often udev) has it open; whatever open(2) says otherwise.
    fn open_char(&self, id: u32) -> io::Result<OpenFile>;

    /// Maps the descriptors of one queue: `depth` descriptors, `stride` bytes apart.
    ///
    /// # Errors
    /// What mmap(2) says.
    fn map_descriptors(
        &self,
        char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors>;

    /// Opens a regular file or a block device once more, as `fd` is open. The kernel reports what a sync
    /// could not store once to each open file, so each queue has its own.
    ///
    /// # Errors
    /// What open(2) says; `EINVAL` for other files.
    fn reopen(&self, fd: RawFd) -> io::Result<OpenFile> {
        linux::reopen(fd)
    }

    /// Steps of a queue are going to use this memory of its target. For a model of the kernel, which takes
    /// other memory than the requests' for a mistake; the kernel does not ask.
    fn expect_memory(&self, memory: &Arc<Region>) {
        let _ = memory;
    }

    /// Opens a file that reads as zeros for ever, whatever the offset: what a read beyond the end
    /// of a backing file is filled from.
    ///
    /// # Errors
    /// What open(2) says.
    fn open_zeros(&self) -> io::Result<OpenFile>;

    /// Maps all of a file of shared memory (a memfd, a file of a tmpfs or hugetlbfs), for reading
    /// only unless `writable`.
    ///
    /// # Errors
    /// What mmap(2) says; `EINVAL` for an empty file.
    fn map_memory(&self, fd: RawFd, writable: bool) -> io::Result<MemoryMap>;

    /// What is at the place of the block device of a started device. Where nothing else makes the node,
    /// this does. Does not wait for requests.
    fn block_node(&self, id: u32) -> BlockNode;

    /// Removes the nodes that were made for a device that is gone.
    fn remove_nodes(&self, id: u32) {
        let _ = id;
    }

    /// Whether [`requests_in_flight`](Self::requests_in_flight) counts: somebody may have turned it
    /// off (`/sys/block/ublkbN/queue/iostats`).
    fn counts_requests(&self, id: u32) -> bool {
        let _ = id;
        true
    }

    /// Writes a setting of the queue of a started device, `/sys/block/ublkbN/queue/NAME`. The kernel
    /// waits for requests in flight before it changes some of them.
    ///
    /// # Errors
    /// `ENOENT` where the kernel has no such setting, `EINVAL` for a value that it refuses; what
    /// open(2) says.
    fn set_queue(&self, id: u32, name: &str, value: &str) -> io::Result<()>;

    /// Requests of a started device that its server has and has not answered, as far as the kernel
    /// counts them (`/sys/block/ublkbN/inflight`); 0 where it does not.
    fn requests_in_flight(&self, id: u32) -> u32;

    /// What tells an open file from every other, absent where the system does not tell.
    fn identity(&self, fd: RawFd) -> Option<String> {
        let _ = fd;
        None
    }

    /// The text that was last kept for the device, by whichever process.
    ///
    /// # Errors
    /// What read(2) says.
    fn record(&self, id: u32) -> io::Result<Option<String>> {
        let _ = id;
        Ok(None)
    }

    /// Keeps a text for the device, in place of the text before: all of it or nothing.
    ///
    /// # Errors
    /// What mkdir(2), open(2), write(2) and rename(2) say.
    fn keep_record(&self, id: u32, text: &str) -> io::Result<()> {
        let _ = (id, text);
        Ok(())
    }

    /// Removes the text that is kept for the device.
    fn forget_record(&self, id: u32) {
        let _ = id;
    }

    /// Whether somebody has claimed the block device for themselves: mounted it, or made another
    /// device of it. Mere openers are not seen.
    fn block_device_is_held(&self, id: u32) -> bool;

    /// The mounts, devices, swap areas and processes that use the block device, as far as this
    /// process may see them. Waits for no request; a search of many processes takes a while.
    fn users(&self, id: u32) -> Users;

    /// Makes the ring of the calling thread; no other thread may use it (`SINGLE_ISSUER`).
    ///
    /// # Errors
    /// What io_uring_setup(2) says: `EPERM` when io_uring is disabled by sysctl.
    fn ring(&self, entries: RingSize) -> io::Result<Self::Ring>;

    /// What runs single commands in whichever thread it is called.
    ///
    /// # Errors
    /// What io_uring_setup(2) says.
    fn errands(&self) -> io::Result<Box<dyn Errands>>;
}

/// Runs single commands, in any thread, one at a time.
pub trait Errands: Send + std::fmt::Debug {
    /// Runs a command that the kernel does at once, and answers its result.
    ///
    /// # Errors
    /// What io_uring_enter(2) says. The command may be done later or never: nothing else can be run.
    ///
    /// # Safety
    /// Memory that the entry points to must stay valid until this returns, and where it fails, as
    /// long as this lives.
    unsafe fn run(&mut self, entry: &Entry) -> io::Result<i32>;
}

/// Tells one device from all others, also from those that have or had the same number. As a text it goes
/// to other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// When the system began.
    pub(crate) boot: u128,
    /// Of all devices since then this one's alone.
    pub(crate) number: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}/{}", self.boot, self.number)
    }
}

/// What is at the place of a block device, `/dev/ublkbN`.
#[derive(Debug)]
pub enum BlockNode {
    /// The node of the device, which may be opened.
    Ready,
    /// Nothing that may be opened; udev may still be making it (trap 42).
    NotYet,
    /// Something else, in words, that stays there.
    Occupied(String),
    /// Nothing, and the node cannot be made.
    Missing(io::Error),
}

/// What the block layer says about a device's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFacts {
    /// In bytes; 0 while the disk goes away.
    pub size: u64,
    /// In bytes.
    pub logical_block: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// The answer to a control command.
#[derive(Debug)]
pub struct ControlAnswer {
    /// The command's non-negative result.
    pub result: i32,
    /// The buffer that went with the command, as the kernel left it.
    pub buffer: Option<Box<[u8]>>,
}

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

/// An open file; closes when the last clone goes.
#[derive(Clone, Debug)]
pub struct OpenFile {
    fd: RawFd,
    _owner: Arc<dyn AnyDebug>,
}

/// An owner of something whose value nobody needs, only its drop.
pub trait AnyDebug: Any + std::fmt::Debug + Send + Sync {}
impl<T: Any + std::fmt::Debug + Send + Sync> AnyDebug for T {}

impl OpenFile {
    /// `fd` stays open as long as `owner` lives.
    pub fn new(fd: RawFd, owner: Arc<dyn AnyDebug>) -> Self {
        Self { fd, _owner: owner }
    }

    /// The descriptor, for a ring's file table.
    pub fn fd(&self) -> RawFd {
        self.fd
    }
}

/// Memory that other processes write to as well; never to be looked at through a reference.
#[derive(Debug)]
pub struct MemoryMap {
    base: *mut u8,
    length: usize,
    _owner: Box<dyn AnyDebug>,
}

// SAFETY: an address and its owner, which is Send; who may touch the bytes when is for the users
// of the address to know.
unsafe impl Send for MemoryMap {}
// SAFETY: as above; the address is all that is read through a shared reference.
unsafe impl Sync for MemoryMap {}

impl MemoryMap {
    /// # Safety
    /// `base` must point to `length` bytes that stay mapped as long as `owner` lives.
    pub unsafe fn new(base: *mut u8, length: usize, owner: Box<dyn AnyDebug>) -> Self {
        Self { base, length, _owner: owner }
    }

    /// Where it begins.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// The request descriptors of one queue, in memory that the kernel writes.
#[derive(Debug)]
pub struct Descriptors {
    base: *const u8,
    stride: usize,
    depth: u16,
    _owner: Box<dyn AnyDebug>,
}

// SAFETY: the memory is read-only to us and belongs to `_owner`, which is Send; reading it from
// another thread is what io_uring's completion ordering is for.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// # Safety
    /// `base` must point to `depth` descriptors, `stride` bytes apart and aligned for
    /// `ublksrv_io_desc`, readable as long as `owner` lives.
    pub unsafe fn new(
        base: *const u8,
        stride: usize,
        depth: u16,
        owner: Box<dyn AnyDebug>,
    ) -> Self {
        Self { base, stride, depth, _owner: owner }
    }

    /// A copy of the descriptor of `tag`. Its slot may be rewritten as soon as the tag's commit
    /// is submitted (trap 20), so callers keep the copy and never come back.
    #[inline]
    pub fn read(&self, tag: u16) -> ublksrv_io_desc {
        assert!(tag < self.depth, "tag {tag} of a queue of depth {}", self.depth);
        // SAFETY: in bounds and aligned by `new`'s contract; volatile, since another party
        // writes it (never while the tag is ours).
        unsafe {
            self.base.add(usize::from(tag) * self.stride).cast::<ublksrv_io_desc>().read_volatile()
        }
    }
}
