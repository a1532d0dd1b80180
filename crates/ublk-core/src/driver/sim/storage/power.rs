//! The power of the disks, and the contents of the disks after a power cut.

use std::mem;

use crate::driver::sim::Sim;
use crate::driver::sim::model::Model;

/// Whether the disks have power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// The disks have power.
    On,
    /// The power ends after this number of moves, or when nothing moves any more.
    Failing(u64),
    /// I/O on the disks fails with `EIO` and changes nothing.
    Off,
}

impl Sim {
    /// Waits until the power cut that [`Client::begin`](crate::driver::sim::Client::begin) began is over. Each sector that
    /// was written and not synced has old or new data, and a write in flight has written some sectors. From
    /// then on I/O on the disks fails, and so do requests of clients.
    pub fn wait_for_darkness(&self) {
        let mut model = self.lock();
        while let Power::Failing(_) = model.power {
            if model.is_quiet() {
                model.go_dark();
                break;
            }
            model = self.sleep(model);
        }
        drop(model);
        self.wake();
    }

    /// Turns the power of the disks on.
    pub fn restore_power(&self) {
        self.lock().power = Power::On;
    }

    /// Makes all writes durable, as an orderly shutdown does.
    ///
    /// # Errors
    /// The errno of the real file that could not be written.
    pub fn write_back(&self) -> Result<(), i32> {
        let mut model = self.lock();
        model.disks.iter_mut().for_each(crate::driver::sim::storage::backend::Disk::sync);
        model.storages.iter_mut().try_for_each(crate::driver::sim::storage::cache::CachedFile::sync)
    }
}

impl Model {
    /// Whether no ring has work.
    pub(crate) fn is_quiet(&self) -> bool {
        self.rings.iter().flatten().all(crate::driver::sim::uring::ring::Uring::is_quiet)
    }

    /// Cuts the power in the middle of operations, at a random moment.
    pub(crate) fn begin_power_cut(&mut self) {
        /// About the number of moves that one request takes from dispatch to end.
        const MOVES_PER_REQUEST: u64 = 5;
        let open = self.requests.values().filter(|request| request.outcome.is_none()).count();
        self.power = Power::Failing(self.rng.below(open as u64 * MOVES_PER_REQUEST + 1));
    }

    /// Called before each move.
    pub(crate) fn count_down(&mut self) {
        match &mut self.power {
            Power::Failing(0) => self.go_dark(),
            Power::Failing(moves) => *moves -= 1,
            Power::On | Power::Off => {}
        }
    }

    fn go_dark(&mut self) {
        self.note(|| "the power is cut".into());
        self.tear_writes_under_way();
        let mut rng = self.rng.clone();
        for disk in &mut self.disks {
            disk.cut_power(&mut rng);
        }
        for storage in &mut self.storages {
            // A real file that cannot be written keeps old data, which is allowed.
            let _lost = storage.cut_power(&mut rng);
        }
        self.rng = rng;
        self.power = Power::Off;
    }

    fn tear_writes_under_way(&mut self) {
        for ring in 0..self.rings.len() {
            let Some(uring) = &mut self.rings[ring] else { continue };
            let in_flight = mem::take(&mut uring.in_flight);
            for &operation in &in_flight {
                let op = &self.ring(ring).ops[operation];
                let (sqe, file) = (op.sqe, op.file.clone());
                if let Some(file) = file.filter(|_| sqe.moves_data()) {
                    self.tear(ring, operation, &file, &sqe);
                }
            }
            self.ring(ring).in_flight = in_flight;
        }
    }
}
