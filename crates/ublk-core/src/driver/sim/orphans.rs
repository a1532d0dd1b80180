//! Rings that have been closed and not ended: the kernel carries out what has begun behind its
//! server's back, and lets go of the ring's tables only then (`io_ring_exit_work`).

use super::Waiting;
use super::model::Model;

impl Model {
    /// The end of a closed ring, as far as its operations let it end.
    pub(super) fn leave_ring(&mut self, ring: usize) {
        // Real threads: none is left that would make these moves.
        while self.config.waiting == Waiting::Blocking && !self.ring(ring).in_flight.is_empty() {
            self.move_orphan(ring);
        }
        if self.ring(ring).in_flight.is_empty() {
            self.free_ring(ring);
        } else {
            self.orphans.push(ring);
        }
    }

    /// Some of what closed rings have begun ends.
    pub(super) fn run_orphans(&mut self) {
        for ring in self.orphans.clone() {
            // Something moves, also when it is time only.
            self.moves += 1;
            if self.rng.chance(300) {
                self.move_orphan(ring);
            }
            if self.ring(ring).in_flight.is_empty() {
                self.orphans.retain(|&other| other != ring);
                self.free_ring(ring);
            }
        }
    }

    fn move_orphan(&mut self, ring: usize) {
        let count = self.ring(ring).in_flight.len();
        let at = self.rng.index(count);
        let operation = self.ring(ring).in_flight.swap_remove(at);
        self.in_worker = true;
        self.perform(ring, operation);
        self.in_worker = false;
        self.drop_operation(ring, operation);
    }
}
