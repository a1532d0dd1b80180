//! An in-process model of ublk_drv and of the io_uring operations used by a server.
//!
//! The model is as strict about the protocol as Linux 7.3 and knows the life of a registered
//! buffer: a node in the ring's table, looked up when a fixed operation is issued, alive until the
//! last user is done; the block request ends only then. Where the kernel lets a server hurt itself
//! (a short result committed as success, another request's buffer unregistered), so does the model.
//! The model collects everything that no correct server does as [`Violation`]s.
//!
//! The pages of a request are one piece of memory in the model, where the kernel has segments: a server
//! reaches the bytes of a request by offset only (in registered buffer, user copy or copy buffer), so no
//! server sees the border of a segment, apart from the alignment of the pages, which limits direct I/O
//! (trap 14). Steps may begin and end inside of a segment (`tests/segments.rs`). The model cuts user copies
//! short at any byte, copies of the driver at pages, and backend I/O at sectors or pages.
//!
//! All chance (the order of completions, short transfers, failures) follows from a single seed.
//!
//! * `ublk_drv`: drivers/block/ublk_drv.c; `block`: the block layer above the driver
//! * `uring`: io_uring; `storage`: the objects of operations, and the power cut
//! * `users`: the device's users; `seam`: the server's view of the model

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ublk_sys::{UBLK_U_CMD_STOP_DEV, ublksrv_ctrl_cmd};

use super::{ControlAnswer, Deletions};
use model::Model;
use ublk_drv::call::Call;

mod block;
mod config;
mod errands;
mod model;
mod rng;
mod seam;
mod slab;
mod storage;
mod ublk_drv;
mod uring;
mod users;
mod violation;

#[cfg(test)]
mod tests;

pub use block::layer::POISON;
pub use config::{Faults, Kernel, SimConfig, Waiting};
pub use model::Injected;
pub use rng::Rng;
pub use storage::backend::Trouble;
pub use storage::disk::SimDisk;
pub use ublk_drv::shared::SimMemory;
pub use uring::ring::SimRing;
pub use users::client::{Client, Done};
pub use users::op::{ClientOp, ZoneAction};
pub use users::transfer::{Outcome, Transfer};
pub use violation::{Rule, Violation};

/// The time that a sleeper sleeps before looking at descriptors and the clock again: each nap is
/// longer than the nap before.
const SHORTEST_NAP: Duration = Duration::from_micros(20);
const LONGEST_NAP: Duration = Duration::from_millis(1);

/// A simulated system; clones are handles of the same system.
#[derive(Clone, Debug)]
pub struct Sim(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    model: Mutex<Model>,
    moved: Condvar,
    waiting: Waiting,
    deletions: Deletions,
}

impl Sim {
    /// A system without devices.
    pub fn new(config: SimConfig) -> Self {
        let waiting = config.waiting;
        Self(Arc::new(Shared {
            model: Mutex::new(Model::new(config)),
            moved: Condvar::new(),
            waiting,
            deletions: Deletions::new(),
        }))
    }

    /// Opens `/dev/ublkbN`.
    ///
    /// # Errors
    /// `ENOENT` without such a disk.
    pub fn client(&self, id: u32) -> io::Result<Client> {
        let device = {
            let model = self.lock();
            model.find_device(id).filter(|&device| model.devices[device].has_node())
        };
        match device {
            Some(device) => Ok(Client::new(self.clone(), device)),
            None => Err(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    /// A file of `size` zeros on a separate disk.
    pub fn file(&self, size: usize) -> SimDisk {
        SimDisk::new(self.clone(), size, false)
    }

    /// A block device of `size` bytes: the device takes discards and does not grow.
    pub fn block_device(&self, size: usize) -> SimDisk {
        SimDisk::new(self.clone(), size, true)
    }

    /// `length` bytes of memory that a client can share with a server, like a memfd of the client.
    pub fn memory(&self, length: usize) -> SimMemory {
        SimMemory::new(self.clone(), length)
    }

    /// Begins to stop a device without waiting for the end, as a STOP_DEV of another thread would.
    ///
    /// # Errors
    /// `ENODEV` without such a device.
    pub fn begin_stop(&self, id: u32) -> io::Result<()> {
        let command = ublksrv_ctrl_cmd { dev_id: id, queue_id: u16::MAX, ..Default::default() };
        let mut call = Call::new(UBLK_U_CMD_STOP_DEV, command, None);
        let mut model = self.lock();
        let answer = model.advance(&mut call);
        if answer.is_none() {
            model.abandon(call);
        }
        drop(model);
        self.wake();
        answer.map_or(Ok(()), |result| result.map(drop).map_err(io::Error::from_raw_os_error))
    }

    /// How many control commands have timed out and are still to be executed.
    pub fn unanswered(&self) -> usize {
        self.lock().late.len()
    }

    /// How many devices have been added so far.
    pub fn added(&self) -> usize {
        self.lock().devices.len()
    }

    /// Whether a stop of the device waits for requests.
    pub fn is_stopping(&self, id: u32) -> bool {
        let model = self.lock();
        model.find_device(id).is_some_and(|device| !model.has_stopped(device))
    }

    /// Another process's command takes the mutex of the device, or lets go of the mutex.
    ///
    /// # Panics
    /// If there is no such device.
    pub fn lock_device(&self, id: u32, locked: bool) {
        let mut model = self.lock();
        let device = model.find_device(id).expect("a device");
        model.devices[device].locked = locked;
        drop(model);
        self.wake();
    }

    /// Changes the faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().config.faults = faults;
    }

    /// While stalled, rings take no entry and submit none, as when the kernel is short of memory
    /// for long.
    pub fn stall(&self, stalled: bool) {
        self.lock().stalled = stalled;
    }

    /// The faults injected so far.
    pub fn injected(&self) -> Injected {
        self.lock().injected
    }

    /// The number of moves so far. When a turn of every ring leaves the number unchanged, nothing
    /// can move any more.
    pub fn moves(&self) -> u64 {
        self.lock().moves
    }

    /// The number of closed rings with unfinished operations. A device in the file table of such a
    /// ring cannot be recovered.
    pub fn closed_rings(&self) -> usize {
        self.lock().closed_rings.len()
    }

    /// The violations so far.
    pub fn violations(&self) -> Vec<Violation> {
        self.lock().violations.clone()
    }

    /// Looks for leftovers of a server at rest: requests without an answer, registered buffers.
    /// Leftovers join the [`violations`](Self::violations).
    pub fn audit(&self) {
        self.lock().audit();
    }

    /// Takes the events since the last time, if the configuration asked for them.
    pub fn trace(&self) -> Vec<String> {
        self.lock().take_log()
    }

    fn lock(&self) -> MutexGuard<'_, Model> {
        // A second panic must not hide the first panic of a test's thread.
        self.0.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Waiting {
        self.0.waiting
    }

    fn wake(&self) {
        self.0.moved.notify_all();
    }

    fn sleep<'a>(&self, model: MutexGuard<'a, Model>) -> MutexGuard<'a, Model> {
        self.nap(model, LONGEST_NAP)
    }

    fn nap<'a>(&self, model: MutexGuard<'a, Model>, nap: Duration) -> MutexGuard<'a, Model> {
        let slept = self.0.moved.wait_timeout(model, nap);
        slept.unwrap_or_else(PoisonError::into_inner).0
    }

    /// `submit_and_wait` of a real thread.
    fn block_on(&self, ring: usize, count: u32) {
        let mut model = self.lock();
        let mut nap = SHORTEST_NAP;
        loop {
            while model.step(ring) {}
            if let Some(operation) = model.next_timeout(ring, false) {
                model.expire(ring, operation);
                continue;
            }
            if model.ring(ring).has_completions(count) {
                return;
            }
            model.ring(ring).asleep = true;
            self.wake();
            model = self.nap(model, nap);
            model.ring(ring).asleep = false;
            nap = (nap * 2).min(LONGEST_NAP);
        }
    }

    /// Executes a control command until the answer, or until time is up.
    fn carry_out(&self, mut call: Call, limit: Duration) -> io::Result<ControlAnswer> {
        let deadline = Instant::now() + limit;
        let mut model = self.lock();
        let mut told = false;
        loop {
            model.run_late();
            if let Some(answer) = model.advance(&mut call) {
                let result = answer.map_err(io::Error::from_raw_os_error)?;
                return Ok(ControlAnswer { result, buffer: Some(call.buffer) });
            }
            if self.waiting() == Waiting::Stepping || Instant::now() >= deadline {
                model.abandon(call);
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            if !std::mem::replace(&mut told, true) {
                self.wake();
            }
            model = self.sleep(model);
        }
    }
}
