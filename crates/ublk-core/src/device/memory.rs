//! Memory that clients share with a device: registered and taken back while it serves.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    map: Arc<SharedMemory>,
    /// Locked by the only one who registers or takes back.
    doubts: Arc<Mutex<Doubts>>,
}

/// The pieces of which the kernel has not said whether they are registered. Their memory stays, since
/// requests may name it; and no other piece comes or goes meanwhile, since the kernel gives out the
/// lowest free index.
type Doubts = BTreeMap<u16, Doubt>;

/// What the kernel was asked for and has not answered in time.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// To register; to take back otherwise.
    registers: bool,
    /// Somebody waits for the answer, and settles the doubt. Otherwise the kernel is asked again.
    answer_comes: bool,
}

/// The device whose memory it is, and how long its commands may take.
type Of<'a, D> = (&'a Control<D>, u32, Duration);

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

    fn lock(&self) -> MutexGuard<'_, Doubts> {
        self.doubts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share<D: Driver>(&self, device: Of<'_, D>, fd: RawFd, access: Access) -> Result<u16> {
        let (control, id, limit) = device;
        let mut doubts = self.lock();
        self.settle(device, &mut doubts)?;
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
        let (memory, control) = (self.clone(), control.clone());
        let late = move |answer| memory.registered_late((&control, id, limit), expected, answer);
        let index = match device.0.register_memory(id, &wanted, limit, late) {
            Ok(Some(index)) => index,
            Ok(None) => {
                doubts.insert(expected, Doubt { registers: true, answer_comes: true });
                return Err(Control::<D>::memory_unanswered(id, true, limit));
            }
            Err(error) => {
                self.not_registered(&mut doubts, expected, &error);
                return Err(error);
            }
        };
        if index == expected {
            return Ok(index);
        }
        // Another process has registered memory with our device. The kernel goes on to name ours by
        // this index until it has taken it back.
        self.map.rename(expected, index);
        self.take_back(device, index, &mut doubts)?;
        let message = format!("somebody else shares memory with ublk device {id}");
        Err(Error::new(Code::Busy, message)
            .hint("only the server of a device can use what is registered with it"))
    }

    fn unshare<D: Driver>(&self, device: Of<'_, D>, index: u16) -> Result<()> {
        let mut doubts = self.lock();
        let in_doubt = doubts.contains_key(&index);
        self.settle(device, &mut doubts)?;
        match self.map.has(index) {
            true => self.take_back(device, index, &mut doubts),
            false if in_doubt => Ok(()),
            false => {
                let message = format!("ublk device {} shares no memory {index}", device.1);
                Err(Error::new(Code::InvalidArgument, message))
            }
        }
    }

    /// Asks the kernel to take a piece back. Waits for the requests that are on it.
    fn take_back<D: Driver>(
        &self,
        (control, id, limit): Of<'_, D>,
        index: u16,
        doubts: &mut Doubts,
    ) -> Result<()> {
        let memory = self.clone();
        let late = move |answer| drop(memory.taken_back(&mut memory.lock(), index, answer));
        match control.unregister_memory(id, index, limit, late) {
            Ok(Some(())) => self.taken_back(doubts, index, Ok(())),
            Ok(None) => {
                let registers = doubts.get(&index).is_some_and(|doubt| doubt.registers);
                doubts.insert(index, Doubt { registers, answer_comes: true });
                Err(Control::<D>::memory_unanswered(id, false, limit))
            }
            Err(error) => self.taken_back(doubts, index, Err(error)),
        }
    }

    /// Settles what can be settled by asking; an error while there are doubts left.
    fn settle<D: Driver>(&self, device: Of<'_, D>, doubts: &mut Doubts) -> Result<()> {
        let open = |(&index, doubt): (&u16, &Doubt)| (!doubt.answer_comes).then_some(index);
        for index in doubts.iter().filter_map(open).collect::<Vec<_>>() {
            self.take_back(device, index, doubts)?;
        }
        let Some((index, doubt)) = doubts.first_key_value() else { return Ok(()) };
        let asked = if doubt.registers { "registers" } else { "takes back" };
        let message = format!(
            "the kernel has not answered yet whether it {asked} shared memory {index} of ublk device \
             {}",
            device.1
        );
        Err(Error::new(Code::Busy, message)
            .hint("requests in flight do not end, or the device is being stopped"))
    }

    /// The kernel has refused to register a piece, or has not said.
    fn not_registered(&self, doubts: &mut Doubts, index: u16, error: &Error) {
        if error.code == Code::Timeout {
            doubts.insert(index, Doubt { registers: true, answer_comes: false });
        } else {
            doubts.remove(&index);
            self.map.remove(index);
        }
    }

    /// An answer that whoever shared a piece has not waited for: what is registered is taken back.
    fn registered_late<D: Driver>(&self, device: Of<'_, D>, expected: u16, answer: Result<u16>) {
        let mut doubts = self.lock();
        match answer {
            Ok(index) => {
                if index != expected {
                    self.map.rename(expected, index);
                }
                doubts.remove(&expected);
                doubts.insert(index, Doubt { registers: false, answer_comes: false });
                // What is not settled now is asked for again before the next piece.
                let _in_doubt = self.take_back(device, index, &mut doubts);
            }
            Err(error) => self.not_registered(&mut doubts, expected, &error),
        }
    }

    /// What the kernel has answered to whoever takes a piece back. That it has none counts only if it
    /// can register none any more.
    fn taken_back(&self, doubts: &mut Doubts, index: u16, answer: Result<()>) -> Result<()> {
        let registers = doubts.get(&index).is_some_and(|doubt| doubt.registers);
        let Err(error) = answer else {
            doubts.remove(&index);
            self.map.remove(index);
            return Ok(());
        };
        match error.errno {
            Some(libc::ENOENT) if !registers => {
                doubts.remove(&index);
                self.map.remove(index);
                return Ok(());
            }
            _ if registers || error.code == Code::Timeout => {
                doubts.insert(index, Doubt { registers, answer_comes: false });
            }
            // Refused: it is registered as before.
            _ => drop(doubts.remove(&index)),
        }
        Err(error)
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
    /// length must be a multiple of the page size, at most 4 GiB; [`Code::Timeout`] when the kernel
    /// does not answer in time, and [`Code::Busy`] as long as it has not: a registration that it
    /// answers later is undone.
    pub fn share(&self, fd: RawFd, access: Access) -> Result<u16> {
        self.lives()?;
        self.memory()?.share(self.of(), fd, access)
    }

    /// Takes shared memory back.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] for a number that [`share`](Self::share) has not answered;
    /// [`Code::Timeout`] and [`Code::Busy`] as [`share`](Self::share); [`Code::Closed`] when the
    /// device has ended.
    pub fn unshare(&self, index: u16) -> Result<()> {
        self.lives()?;
        self.memory()?.unshare(self.of(), index)
    }

    fn of(&self) -> Of<'_, D> {
        let shared = &self.shared;
        (&shared.control, shared.info.id, shared.options.limit)
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
