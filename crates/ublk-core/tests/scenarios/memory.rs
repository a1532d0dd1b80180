//! Memory that the client shares with the server: one piece for good, one that comes and goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::driver::Driver;
use ublk_core::driver::sim::{Rng, Sim, SimMemory};
use ublk_core::reactor::SharedMemory;
use ublk_sys::{UBLK_SHMEM_BUF_READ_ONLY, ublk_shmem_buf_reg};

use crate::scenario::{SECTOR, Scenario};

const PIECES: usize = 2;
/// Nobody sleeps in a model that is stepped.
const LIMIT: Duration = Duration::from_secs(20);
/// Requests that one piece has room for.
const ROOMS: usize = 24;

pub(crate) struct Memory {
    pieces: Vec<SimMemory>,
    map: Arc<SharedMemory>,
    /// The driver's number of each piece, while it is registered.
    registered: [Option<u16>; PIECES],
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
            free: (0..PIECES).flat_map(rooms).collect(),
            busy: BTreeMap::new(),
            room,
        }
    }

    pub(crate) fn map(&self) -> Arc<SharedMemory> {
        Arc::clone(&self.map)
    }

    /// Registers a piece, or takes it back; no request may be under way.
    pub(crate) fn toggle(&mut self, sim: &Sim, device: u32, piece: usize, read_only: bool) {
        let control = Control::new(sim.clone());
        if let Some(index) = self.registered[piece].take() {
            control.unregister_memory(device, index, LIMIT, drop).unwrap();
            self.map.remove(index);
            return;
        }
        let map = sim.map_memory(self.pieces[piece].fd(), !read_only).unwrap();
        let wanted = ublk_shmem_buf_reg {
            addr: map.base() as u64,
            len: map.length() as u64,
            flags: if read_only { UBLK_SHMEM_BUF_READ_ONLY } else { 0 },
            reserved: 0,
        };
        let index = control.register_memory(device, &wanted, LIMIT, drop).unwrap().unwrap();
        self.map.insert(index, map);
        self.registered[piece] = Some(index);
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
