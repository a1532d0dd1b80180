//! Memory that clients share with a device: registered and taken back while it serves.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};

use ublk_sys::{UBLK_SHMEM_BUF_READ_ONLY, ublk_shmem_buf_reg};

use super::Device;
use crate::buffers::SharedMemory;
use crate::control::Control;
use crate::driver::{Driver, MemoryMap};
use crate::error::{Code, Error, Result};

/// The driver's limit of one piece.
const MAX_BYTES: usize = 1 << 32;
const PAGE: usize = 4096;

/// What the clients of one device have registered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    map: Arc<SharedMemory>,
    /// Held by the only one who registers or takes back.
    turn: Mutex<()>,
}

/// What may be done with shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads and writes of the device use it.
    ReadWrite,
    /// Only writes do: the server never changes it, and a memfd sealed against writing will do.
    ReadOnly,
}

impl Memory {
    /// Where the queues find it.
    pub(super) fn map(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.map)
    }

    fn share<D: Driver>(
        &self,
        (control, id): (&Control<D>, u32),
        fd: RawFd,
        access: Access,
    ) -> Result<u16> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(expected) = self.map.vacant() else {
            let message = "as much memory is shared as can be: 256 pieces";
            return Err(Error::new(Code::InvalidArgument, message).hint("take some back first"));
        };
        let writable = access == Access::ReadWrite;
        let piece =
            control.driver().map_memory(fd, writable).map_err(|error| cannot_map(&error))?;
        check(&piece)?;
        let wanted = ublk_shmem_buf_reg {
            addr: piece.base() as u64,
            len: piece.length() as u64,
            flags: if writable { 0 } else { UBLK_SHMEM_BUF_READ_ONLY },
            reserved: 0,
        };
        // Before the driver can name it: a request may come before the command has answered.
        self.map.insert(expected, piece);
        let index = control.register_memory(id, &wanted).inspect_err(|_| {
            self.map.remove(expected);
        })?;
        if index != expected {
            // Another process has registered memory with our device.
            self.map.remove(expected);
            control.unregister_memory(id, index)?;
            let message = format!("somebody else shares memory with ublk device {id}");
            return Err(Error::new(Code::Busy, message)
                .hint("only the server of a device can use what is registered with it"));
        }
        Ok(index)
    }

    fn unshare<D: Driver>(&self, (control, id): (&Control<D>, u32), index: u16) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.map.has(index) {
            let message = format!("ublk device {id} shares no memory {index}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        // Waits for the requests that are on it.
        control.unregister_memory(id, index)?;
        self.map.remove(index);
        Ok(())
    }
}

impl<D: Driver> Device<D> {
    /// Lets clients share all of a file of memory (a memfd, a file of a tmpfs or hugetlbfs):
    /// requests with direct I/O on pages of it that follow each other are served without a copy,
    /// in any buffer mode. The pages stay pinned until [`unshare`](Self::unshare) or the end of
    /// the device; `fd` is not needed any longer. Answers the number that `unshare` takes.
    ///
    /// Waits until no request is in flight, and keeps new ones waiting: not to be called from a
    /// thread whose I/O the device serves. Needs [`BufferMode::Shared`](super::BufferMode::Shared)
    /// (Linux 7.1).
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a device without that mode, and for what is no memory: its
    /// length must be a multiple of the page size, at most 4 GiB.
    pub fn share(&self, fd: RawFd, access: Access) -> Result<u16> {
        self.memory()?.share((&self.shared.control, self.shared.info.id), fd, access)
    }

    /// Takes shared memory back.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a number that [`share`](Self::share) has not answered;
    /// [`Code::NoDevice`] when the device is gone.
    pub fn unshare(&self, index: u16) -> Result<()> {
        self.memory()?.unshare((&self.shared.control, self.shared.info.id), index)
    }

    fn memory(&self) -> Result<&Memory> {
        self.shared.memory.as_ref().ok_or_else(|| {
            let message = format!("ublk device {} shares no memory", self.shared.info.id);
            Error::new(Code::InvalidArgument, message)
                .hint("create it with 'shared' among its buffers")
        })
    }
}

fn check(piece: &MemoryMap) -> Result<()> {
    let length = piece.length();
    if length.is_multiple_of(PAGE) && length <= MAX_BYTES {
        return Ok(());
    }
    let message = format!("memory of {length} bytes cannot be shared");
    Err(Error::new(Code::InvalidArgument, message)
        .hint("its length must be a multiple of 4096, at most 4 GiB"))
}

fn cannot_map(error: &std::io::Error) -> Error {
    Error::os(Code::InvalidArgument, "cannot map the memory to be shared", "mmap", error).hint(
        "it must be a memfd, or a file of a tmpfs or hugetlbfs, not empty and open for writing",
    )
}
