//! The seam between what serves requests and what it is served by.
//!
//! Everything above speaks io_uring: 64-byte submission entries go in, completions come out.
//! [`linux`] hands them to the kernel; [`sim`] to an in-process model of ublk_drv and io_uring
//! that is strict about the protocol and injects faults. The code above cannot tell them apart.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use ublk_sys::ublksrv_ctrl_cmd;

use crate::memory::Region;

mod handles;
pub mod linux;
mod ring;
pub mod sim;
mod users;

pub use handles::{AnyDebug, Descriptors, MemoryMap, OpenFile};
pub use ring::{Completion, Ring, RingSize, SEVERED};
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

    /// Lets system calls see what rings have written to files.
    ///
    /// # Errors
    /// What write(2) says, where a model of the kernel has a cache of its own.
    fn write_back(&self) -> io::Result<()> {
        Ok(())
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
