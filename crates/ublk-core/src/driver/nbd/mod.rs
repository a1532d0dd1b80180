//! A driver whose clients speak NBD: exports of targets, without a ublk device.
//!
//! To the code above, [`Nbd`] is a ublk driver with one device in copy mode. The process answers the
//! control commands. The ring is the kernel's io_uring, except that [`ring`] carries out ublk's own
//! commands: a fetch parks a tag, a client's request takes a parked tag and completes the fetch, and a
//! commit sends the reply. Sockets are received and sent on the same ring by the same thread.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ublk_sys::{ublksrv_ctrl_cmd, ublksrv_io_desc};

use super::linux::Linux;
use super::{
    BlockNode, ControlAnswer, Deletions, Descriptors, DiskFacts, Driver, Errands, Identity,
    MemoryMap, OpenFile, RingSize, Users,
};
use crate::allocation::FindAllocation;
use crate::error::Result;

mod address;
mod area;
mod connection;
mod control;
mod door;
mod facts;
mod hello;
mod intake;
mod jobs;
mod listener;
mod outbox;
mod receiving;
mod replies;
mod ring;
mod server;
mod sockets;
mod state;
mod status;
mod tags;

pub use address::Address;
pub use ring::NbdRing;

use state::Shared;

/// The most connections of an export.
pub const MAX_CONNECTIONS: u16 = 128;

/// A driver with one device, whose users are clients of an export. Clones name the same device.
#[derive(Clone, Debug)]
pub struct Nbd(Arc<Shared>);

/// An export: the address, and the facts that the server reports to clients.
#[derive(Clone, Debug)]
pub struct Export {
    /// Where clients connect to.
    pub address: Address,
    /// The name, at most 4096 bytes; clients may leave the name out.
    pub name: String,
    /// A description for people, at most 4096 bytes.
    pub description: String,
    /// Whether writes are refused even if the target takes writes.
    pub read_only: bool,
    /// The most connections at once, at most [`MAX_CONNECTIONS`].
    pub connections: u16,
    /// Clients must use TLS; at a TCP address only.
    pub tls: Option<Tls>,
}

/// TLS of an export.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The folder with `ca-cert.pem`, `server-cert.pem` and `server-key.pem`.
    pub certificates: PathBuf,
    /// Whether clients may come without a certificate of the authority in `ca-cert.pem`.
    pub anyone: bool,
}

impl Nbd {
    /// Binds the address for a driver without a device. Clients can connect from `START_DEV` on.
    ///
    /// # Errors
    /// `Busy` for an address in use by another server. `InvalidArgument` for an address that this
    /// machine does not have, for a name, a description or a number out of range, and for certificates that
    /// cannot be used. `Unsupported` for TLS where the kernel has none.
    pub fn bind(export: Export) -> Result<Self> {
        Ok(Self(Arc::new(Shared::new(export)?)))
    }
}

impl Driver for Nbd {
    type Ring = NbdRing;

    fn control(
        &self,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer> {
        self.0.carry_out(operation, command, buffer, limit)
    }

    fn deletions(&self) -> &Deletions {
        &self.0.deletions
    }

    fn devices(&self) -> Vec<u32> {
        self.0.devices()
    }

    fn device_identity(&self, id: u32) -> Option<Identity> {
        self.0.identity(id)
    }

    fn disk(&self, _id: u32) -> Option<DiskFacts> {
        None
    }

    fn open_char(&self, _id: u32) -> io::Result<OpenFile> {
        // No command with this file reaches the kernel, but the file table needs a file.
        let file = std::fs::File::open("/dev/null")?;
        Ok(OpenFile::new(file.as_raw_fd(), Arc::new(file)))
    }

    fn map_descriptors(
        &self,
        _char_device: &OpenFile,
        queue: u16,
        depth: u16,
        stride: usize,
    ) -> io::Result<Descriptors> {
        let door = self.0.door(queue).ok_or(io::ErrorKind::InvalidInput)?;
        let area = door.area();
        if area.depth() != depth || stride != size_of::<ublksrv_io_desc>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the area has `depth` descriptors without gaps, which change only by atomic stores;
        // the owner keeps the area.
        Ok(unsafe { Descriptors::new(area.base(), stride, depth, Box::new(Arc::clone(area))) })
    }

    fn open_zeros(&self) -> io::Result<OpenFile> {
        Linux.open_zeros()
    }

    fn map_memory(&self, fd: RawFd, writable: bool) -> io::Result<MemoryMap> {
        Linux.map_memory(fd, writable)
    }

    fn block_node(&self, _id: u32) -> BlockNode {
        BlockNode::Ready
    }

    fn set_queue(&self, _id: u32, _name: &str, _value: &str) -> io::Result<()> {
        Ok(())
    }

    fn requests_in_flight(&self, _id: u32) -> u32 {
        self.0.requests_in_flight()
    }

    fn block_device_is_held(&self, _id: u32) -> bool {
        false
    }

    fn users(&self, _id: u32) -> Users {
        Users { found: Vec::new(), complete: true }
    }

    fn address(&self) -> Option<String> {
        Some(self.0.address())
    }

    fn ask_allocation(&self, find: Arc<FindAllocation>, tells_changes: bool) {
        self.0.ask_allocation(find, tells_changes);
    }

    fn ring(&self, entries: RingSize) -> io::Result<NbdRing> {
        NbdRing::new(entries, Arc::clone(&self.0))
    }

    fn errands(&self) -> io::Result<Box<dyn Errands>> {
        Linux.errands()
    }
}

/// The buffer of a tag, as the exchange has named the buffer.
fn buffer(address: u64) -> *mut u8 {
    #[expect(clippy::cast_possible_truncation, reason = "an address")]
    std::ptr::with_exposed_provenance_mut(address as usize)
}
