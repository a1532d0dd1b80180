//! Memory that the client shares with the server: one piece for good, one that comes and goes. A command
//! that meets requests in flight times out, and the kernel executes the command later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{Rng, Sim, SimMemory};
use ublk_core::error::Code;
use ublk_core::reactor::SharedMemory;
use ublk_sys::{UBLK_SHMEM_BUF_READ_ONLY, ublk_shmem_buf_reg};

use crate::scenario::{SECTOR, Scenario};

const PIECES: usize = 2;
/// Has no effect: a control command does not sleep in a model that is stepped.
const LIMIT: Duration = Duration::from_secs(20);
/// Requests that one piece has room for.
const ROOMS: usize = 24;

/// A command that the kernel has not executed yet. Requests may name the piece from any moment on, or
/// until then.
#[derive(Clone, Copy)]
struct Doubt {
    piece: usize,
    registers: bool,
}

pub(crate) struct Memory {
    pieces: Vec<SimMemory>,
    map: Arc<SharedMemory>,
    /// The driver's index of each piece, while the piece is registered or may be.
    registered: [Option<u16>; PIECES],
    /// The piece whose last command has timed out.
    doubt: Option<Doubt>,
    /// (piece, room) that no request is in.
    free: Vec<(usize, usize)>,
    busy: BTreeMap<u64, (usize, usize)>,
    room: usize,
}

impl Memory {
    pub(crate) fn new(scenario: &Scenario, sim: &Sim) -> Self {
        // A page more, so that requests need not begin at a page.
        let room = scenario.max_io_bytes as usize + 4096;
        let rooms = |piece| (0..ROOMS).map(move |room| (piece, room));
        Self {
            pieces: (0..PIECES).map(|_| sim.memory(room * ROOMS)).collect(),
            map: Arc::default(),
            registered: [None; PIECES],
            doubt: None,
            free: (0..PIECES).flat_map(rooms).collect(),
            busy: BTreeMap::new(),
            room,
        }
    }

    pub(crate) fn map(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.map)
    }

    /// Registers a piece, or takes the piece back, unless an earlier command is in doubt.
    pub(crate) fn toggle(&mut self, sim: &Sim, device: u32, piece: usize, read_only: bool) {
        self.settle(sim);
        if self.doubt.is_some() {
            return;
        }
        match self.registered[piece] {
            Some(index) => self.take_back(sim, device, (piece, index)),
            None => self.register(sim, device, piece, read_only),
        }
    }

    /// Notes that the kernel has executed a late command. `Device::share` waits for late answers on a
    /// thread; a scenario has one thread, since a seed must repeat the run.
    fn settle(&mut self, sim: &Sim) {
        let executed = self.doubt.take_if(|_| sim.unanswered() == 0);
        if let Some(Doubt { piece, registers: false }) = executed {
            self.forget(piece);
        }
    }

    fn take_back(&mut self, sim: &Sim, device: u32, (piece, index): (usize, u16)) {
        match Control::new(sim.clone()).unregister_memory(device, index, LIMIT, drop) {
            Err(error) if error.code == Code::Timeout => {
                self.doubt = Some(Doubt { piece, registers: false });
            }
            answer => {
                answer.unwrap();
                self.forget(piece);
            }
        }
    }

    fn register(&mut self, sim: &Sim, device: u32, piece: usize, read_only: bool) {
        let map = sim.map_memory(self.pieces[piece].fd(), !read_only).unwrap();
        let wanted = ublk_shmem_buf_reg {
            addr: map.base() as u64,
            len: map.length() as u64,
            flags: if read_only { UBLK_SHMEM_BUF_READ_ONLY } else { 0 },
            reserved: 0,
        };
        // Known before the driver can name the piece.
        let index = (0..).find(|&index| !self.registered.contains(&Some(index))).unwrap();
        self.map.insert(index, map);
        self.registered[piece] = Some(index);
        match Control::new(sim.clone()).register_memory(device, &wanted, LIMIT, drop) {
            Err(error) if error.code == Code::Timeout => {
                self.doubt = Some(Doubt { piece, registers: true });
            }
            answer => assert_eq!(answer.unwrap(), Some(index)),
        }
    }

    fn forget(&mut self, piece: usize) {
        if let Some(index) = self.registered[piece].take() {
            self.map.remove(index);
        }
    }

    /// Room for a request of so many bytes; sometimes none, as for a client that knows nothing of
    /// sharing.
    pub(crate) fn draw(&mut self, rng: &mut Rng, length: usize) -> Option<(&SimMemory, usize)> {
        if self.free.is_empty() || rng.chance(200) {
            return None;
        }
        let at = rng.index(self.free.len());
        let (piece, room) = self.free.swap_remove(at);
        self.busy.insert(u64::MAX, (piece, room));
        let first = rng.index((self.room - length) / SECTOR + 1) * SECTOR;
        Some((&self.pieces[piece], room * self.room + first))
    }

    /// The request that was given room is this.
    pub(crate) fn is_for(&mut self, ticket: u64) {
        if let Some(place) = self.busy.remove(&u64::MAX) {
            self.busy.insert(ticket, place);
        }
    }

    pub(crate) fn ended(&mut self, ticket: u64) {
        self.free.extend(self.busy.remove(&ticket));
    }
}
