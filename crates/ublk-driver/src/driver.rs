//! What a driver offers to a server.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::squeue::Entry;
use ublk_sys::ublksrv_ctrl_cmd;

use crate::allocation::FindAllocation;
use crate::answers::{BlockNode, ControlAnswer, DiskFacts, Identity};
use crate::deletions::Deletions;
use crate::handles::{Descriptors, MemoryMap, OpenFile, TargetMemory};
use crate::reopen::reopen;
use crate::ring::{Ring, RingSize};
use crate::users::Users;

/// The services of the system below, for a device, the control plane and the reactors.
pub trait Driver: Clone + Send + Sync + 'static {
    /// The io_uring of one reactor.
    type Ring: Ring;

    /// Sends one control command (`UBLK_U_CMD_*`) and waits at most `limit` for the answer.
    /// `STOP_DEV` writes back the clients' dirty pages: the wait for `STOP_DEV` lasts as long as a
    /// request ends within each `limit`.
    ///
    /// The driver sets `command.addr` and `command.len` to `buffer`, if given. The driver owns
    /// `buffer` until the kernel has answered, however long the kernel takes, and returns `buffer`
    /// filled.
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

    /// The places for this process's `DEL_DEV_ASYNC` in the driver.
    fn deletions(&self) -> &Deletions;

    /// The numbers of all existing devices, started or not, in ascending order.
    fn devices(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Tells the present device with this number from every earlier and later device with the
    /// number. Known from the addition of the device until the deletion. None without such a
    /// device, or where the system has no identities.
    fn device_identity(&self, _id: u32) -> Option<Identity> {
        None
    }

    /// The disk of a started device, as far as the system knows without waiting for others; none
    /// without a disk.
    fn disk(&self, _id: u32) -> Option<DiskFacts> {
        None
    }

    /// Opens `/dev/ublkcN`. The kernel allows one opener at a time.
    ///
    /// # Errors
    /// `EBUSY` while another process (often udev) has the device open; otherwise the errno of
    /// open(2).
    fn open_char(&self, id: u32) -> io::Result<OpenFile>;

    /// Maps the descriptors of one queue: `depth` descriptors, `stride` bytes apart.
    ///
    /// # Errors
    /// The errno of mmap(2).
    fn map_descriptors(
        &self,
        char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors>;

    /// Opens a regular file or a block device once more, in the mode of `fd`. The kernel reports
    /// data lost by a sync once to each open file, so each queue has a separate open file.
    ///
    /// # Errors
    /// The errno of open(2); `EINVAL` for other files.
    fn reopen(&self, fd: RawFd) -> io::Result<OpenFile> {
        reopen(fd)
    }

    /// Makes writes of rings to files visible to system calls.
    ///
    /// # Errors
    /// The errno of write(2), where a model of the kernel has a cache.
    fn write_back(&self) -> io::Result<()> {
        Ok(())
    }

    /// Announces that steps of a queue are going to use this memory of the target. Only a model of
    /// the kernel needs this: to the model, memory other than the requests' is a mistake.
    fn expect_memory(&self, memory: Arc<dyn TargetMemory>) {
        let _ = memory;
    }

    /// Opens a file with zeros at every offset: the source of reads beyond the end of a backing
    /// file.
    ///
    /// # Errors
    /// The errno of open(2).
    fn open_zeros(&self) -> io::Result<OpenFile>;

    /// Maps all of a file of shared memory (a memfd, a file of a tmpfs or hugetlbfs), for reading
    /// only unless `writable`.
    ///
    /// # Errors
    /// The errno of mmap(2); `EINVAL` for an empty file.
    fn map_memory(&self, fd: RawFd, writable: bool) -> io::Result<MemoryMap>;

    /// Looks at the path of a started device's block device; makes the node where nothing else
    /// makes nodes. Does not wait for requests.
    fn block_node(&self, id: u32) -> BlockNode;

    /// Removes the nodes made for a device, after the end of the device.
    fn remove_nodes(&self, id: u32) {
        let _ = id;
    }

    /// Whether [`requests_in_flight`](Self::requests_in_flight) counts: an administrator may have
    /// turned counting off (`/sys/block/ublkbN/queue/iostats`).
    fn counts_requests(&self, id: u32) -> bool {
        let _ = id;
        true
    }

    /// Writes a setting of the queue of a started device, `/sys/block/ublkbN/queue/NAME`. For most
    /// settings the kernel waits for the requests in flight. No thread of the process waits with it in
    /// the kernel: a killed server ends.
    ///
    /// # Errors
    /// `ENOENT` where the kernel lacks the setting, `EINVAL` for a refused value, `ETIMEDOUT` if requests
    /// in flight are not answered; other errnos of open(2) and of the start of a process.
    fn set_queue(&self, id: u32, name: &str, value: &str) -> io::Result<()>;

    /// The same, without a wait for the kernel: nobody hears whether it takes the value.
    ///
    /// # Errors
    /// Those of open(2) and of the start of a process.
    fn set_queue_soon(&self, id: u32, name: &str, value: &str) -> io::Result<()> {
        self.set_queue(id, name, value)
    }

    /// The number of requests that the server of a started device has not answered yet, as the
    /// kernel counts requests (`/sys/block/ublkbN/inflight`); 0 where the kernel does not count.
    fn requests_in_flight(&self, id: u32) -> u32;

    /// A text unlike the text of every other open file; absent where the system has no such text.
    fn identity(&self, fd: RawFd) -> Option<String> {
        let _ = fd;
        None
    }

    /// The text last kept for the device, by this or another process.
    ///
    /// # Errors
    /// The errno of read(2).
    fn record(&self, id: u32) -> io::Result<Option<String>> {
        let _ = id;
        Ok(None)
    }

    /// Keeps a text for the device, replacing the text before: all of the text or nothing.
    ///
    /// # Errors
    /// The errno of mkdir(2), open(2), write(2) or rename(2).
    fn keep_record(&self, id: u32, text: &str) -> io::Result<()> {
        let _ = (id, text);
        Ok(())
    }

    /// Removes the text kept for the device.
    fn forget_record(&self, id: u32) {
        let _ = id;
    }

    /// Whether the block device has an exclusive user: a mount, or another device on top. Mere
    /// openers do not count.
    fn block_device_is_held(&self, id: u32) -> bool;

    /// The mounts, devices, swap areas and processes that use the block device, as far as this
    /// process may see users. Waits for no request; a search of many processes takes a while.
    fn users(&self, id: u32) -> Users;

    /// Where clients of the device connect to, as `host:port` or a path; none for a block device.
    fn address(&self) -> Option<String> {
        None
    }

    /// Lets the driver ask the target which ranges take space, and, where `tells_changes`, which ranges differ
    /// from a base. The kernel never asks.
    fn ask_allocation(&self, find: Arc<FindAllocation>, tells_changes: bool) {
        let _ = (find, tells_changes);
    }

    /// Makes the ring of the calling thread; no other thread may use the ring (`SINGLE_ISSUER`).
    ///
    /// # Errors
    /// The errno of io_uring_setup(2): `EPERM` when sysctl disables io_uring.
    fn ring(&self, entries: RingSize) -> io::Result<Self::Ring>;

    /// Makes a runner of single commands, for any thread.
    ///
    /// # Errors
    /// The errno of io_uring_setup(2).
    fn errands(&self) -> io::Result<Box<dyn Errands>>;
}

/// Runs single commands, in any thread, one at a time.
pub trait Errands: Send + std::fmt::Debug {
    /// Runs a command that the kernel completes at once, and returns the result.
    ///
    /// # Errors
    /// The errno of io_uring_enter(2). The kernel may run the command later or never: no other
    /// command can follow.
    ///
    /// # Safety
    /// Memory used by the entry must stay valid until this function returns, and after an error as
    /// long as `self` lives.
    unsafe fn run(&mut self, entry: &Entry) -> io::Result<i32>;
}
