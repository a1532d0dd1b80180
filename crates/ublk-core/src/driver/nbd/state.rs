//! The state of an export, shared by all threads of the export.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use ublk_sys::{ublk_params, ublksrv_ctrl_dev_info};

use super::Export;
use super::door::{Door, Guest};
use super::facts::Facts;
use super::listener::Listener;
use crate::allocation::FindAllocation;
use crate::driver::{Deletions, Identity};
use crate::error::Result;

/// The first device number of exports. Device numbers of the kernel end at 2^20.
const FIRST: u32 = 10_000_000;
static NEXT: AtomicU32 = AtomicU32::new(FIRST);

/// The state of the driver, including the only device.
pub(super) struct Shared {
    pub(super) deletions: Deletions,
    pub(super) id: u32,
    pub(super) listener: Listener,
    allocation: OnceLock<(Arc<FindAllocation>, bool)>,
    /// The size of the disk in bytes.
    pub(super) size: AtomicU64,
    pub(super) state: Mutex<State>,
    /// The number of clients so far. Clients are assigned to the queues in turn.
    clients: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Absent before `ADD_DEV` and after `DEL_DEV`.
    pub(super) info: Option<ublksrv_ctrl_dev_info>,
    pub(super) params: ublk_params,
    /// One for each queue.
    pub(super) doors: Vec<Arc<Door>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(export: Export) -> Result<Self> {
        Ok(Self {
            deletions: Deletions::new(),
            // Relaxed: the number only has to be unique. A number of eight digits leaves room for the
            // queue in the name of a thread.
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            listener: Listener::bind(export)?,
            allocation: OnceLock::new(),
            size: AtomicU64::new(0),
            state: Mutex::default(),
            clients: AtomicUsize::new(0),
        })
    }

    pub(super) fn address(&self) -> String {
        self.listener.address()
    }

    pub(super) fn find_allocation(&self) -> Option<Arc<FindAllocation>> {
        self.allocation.get().map(|(find, _)| Arc::clone(find))
    }

    /// Whether the target reports the ranges changed since a base.
    pub(super) fn tells_diff(&self) -> bool {
        self.allocation.get().is_some_and(|(_, tells)| *tells)
    }

    pub(super) fn ask_allocation(&self, find: Arc<FindAllocation>, tells_changes: bool) {
        // The device has one target: a second call is ignored.
        let _second = self.allocation.set((find, tells_changes));
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn facts(&self) -> Facts {
        let state = self.lock();
        let max_io = state.info.map_or(0, |info| info.max_io_buf_bytes);
        let facts = Facts::of(&state.params, max_io);
        Facts { read_only: facts.read_only || self.listener.export.read_only, ..facts }
    }

    pub(super) fn devices(&self) -> Vec<u32> {
        self.lock().info.map(|info| info.dev_id).into_iter().collect()
    }

    pub(super) fn identity(&self, id: u32) -> Option<Identity> {
        let exists = id == self.id && self.lock().info.is_some();
        exists.then(|| Identity { boot: 0, number: self.id.into() })
    }

    pub(super) fn door(&self, queue: u16) -> Option<Arc<Door>> {
        self.lock().doors.get(usize::from(queue)).cloned()
    }

    pub(super) fn requests_in_flight(&self) -> u32 {
        let state = self.lock();
        state.doors.iter().map(|door| door.in_flight.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn admit(&self, guest: Guest) {
        let state = self.lock();
        if state.doors.is_empty() {
            return;
        }
        let turn = self.clients.fetch_add(1, Ordering::Relaxed) % state.doors.len();
        state.doors[turn].send(|mail| mail.guests.push(guest));
    }
}
