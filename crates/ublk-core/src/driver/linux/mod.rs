//! The real thing: the kernel's ublk_drv and io_uring.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ublk_sys::{UBLK_CMD_START_DEV, UBLK_CMD_STOP_DEV, ublksrv_ctrl_cmd};

use super::{
    BlockNode, ControlAnswer, Deletions, Descriptors, DiskFacts, Driver, Errands, Identity,
    MemoryMap, OpenFile, RingSize, Users,
};

mod apart;
mod char_device;
mod child;
mod control;
mod entries;
mod errands;
mod memory;
mod nodes;
mod queue;
mod records;
mod ring;
mod spare;
mod sysfs;
mod time_limit;
mod turn;
mod users;

use apart::Order;
pub use ring::LinuxRing;

/// The running kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Linux;

impl Linux {
    /// Touches nothing.
    pub fn new() -> Self {
        Self
    }
}

/// The number of a command is the same, encoded as an ioctl or not.
const START: u32 = UBLK_CMD_START_DEV as u32;
const STOP: u32 = UBLK_CMD_STOP_DEV as u32;

impl Driver for Linux {
    type Ring = LinuxRing;

    fn control(
        &self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer> {
        let is_ours = || char_device::is_open(command.dev_id);
        match operation & 0xff {
            START => apart::start(Order { operation, command, buffer, limit }),
            STOP if is_ours() => apart::stop(Order { operation, command, buffer, limit }),
            _ => control::send(operation, command, buffer, limit),
        }
    }

    fn deletions(&self) -> &Deletions {
        static DELETIONS: Deletions = Deletions::new();
        &DELETIONS
    }

    fn devices(&self) -> Vec<u32> {
        sysfs::devices()
    }

    fn device_identity(&self, id: u32) -> Option<Identity> {
        sysfs::identity(id)
    }

    fn disk(&self, id: u32) -> Option<DiskFacts> {
        sysfs::disk(id)
    }

    fn open_char(&self, id: u32) -> io::Result<OpenFile> {
        char_device::open(id)
    }

    fn block_node(&self, id: u32) -> BlockNode {
        nodes::look_at_block(id)
    }

    fn remove_nodes(&self, id: u32) {
        nodes::remove(id);
    }

    fn counts_requests(&self, id: u32) -> bool {
        let counts = std::fs::read_to_string(format!("/sys/block/ublkb{id}/queue/iostats"));
        !counts.is_ok_and(|counts| counts.trim() == "0")
    }

    fn set_queue(&self, id: u32, name: &str, value: &str) -> io::Result<()> {
        queue::write(id, name, value)
    }

    fn set_queue_soon(&self, id: u32, name: &str, value: &str) -> io::Result<()> {
        queue::write_soon(id, name, value)
    }

    fn requests_in_flight(&self, id: u32) -> u32 {
        sysfs::requests_in_flight(id)
    }

    fn identity(&self, fd: RawFd) -> Option<String> {
        records::identity(fd)
    }

    fn record(&self, id: u32) -> io::Result<Option<String>> {
        records::read(records::FOLDER.as_ref(), id)
    }

    fn keep_record(&self, id: u32, text: &str) -> io::Result<()> {
        records::keep(records::FOLDER.as_ref(), id, text)
    }

    fn forget_record(&self, id: u32) {
        records::forget(records::FOLDER.as_ref(), id);
    }

    fn block_device_is_held(&self, id: u32) -> bool {
        let mut exclusively = OpenOptions::new();
        exclusively.read(true).custom_flags(libc::O_EXCL);
        let opened = exclusively.open(format!("/dev/ublkb{id}"));
        opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY))
    }

    fn users(&self, id: u32) -> Users {
        users::find(Path::new("/"), id)
    }

    fn open_zeros(&self) -> io::Result<OpenFile> {
        let file = std::fs::File::open("/dev/zero")?;
        Ok(OpenFile::new(file.as_raw_fd(), Arc::new(file)))
    }

    fn map_descriptors(
        &self,
        char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors> {
        char_device::map_descriptors(char_device, queue, depth, stride)
    }

    fn map_memory(&self, fd: RawFd, writable: bool) -> io::Result<MemoryMap> {
        memory::map(fd, writable)
    }

    fn ring(&self, entries: RingSize) -> io::Result<LinuxRing> {
        LinuxRing::new(entries)
    }

    fn errands(&self) -> io::Result<Box<dyn Errands>> {
        Ok(Box::new(errands::LinuxErrands::new()?))
    }
}
