//! Closed rings with operations in flight: after the close of a ring the kernel completes the
//! operations in flight and then frees the tables of the ring (`io_ring_exit_work`).

use crate::driver::sim::Waiting;
use crate::driver::sim::model::Model;

impl Model {
    /// Frees a closed ring without operations in flight; keeps a closed ring with such operations.
    pub(crate) fn end_when_idle(&mut self, ring: usize) {
        // With real threads only the thread of a ring makes moves of the ring, and that thread is gone.
        while self.config.waiting == Waiting::Blocking && !self.ring(ring).in_flight.is_empty() {
            self.end_one(ring);
        }
        if self.ring(ring).in_flight.is_empty() {
            self.free_ring(ring);
        } else {
            self.closed_rings.push(ring);
        }
    }

    /// Completes some of the operations of closed rings.
    pub(crate) fn run_closed_rings(&mut self) {
        for ring in std::mem::take(&mut self.closed_rings) {
            // Waiting counts as a move: a scenario is not at rest while a closed ring has operations.
            self.moves += 1;
            if self.rng.chance(300) {
                self.end_one(ring);
            }
            self.end_when_idle(ring);
        }
    }

    fn end_one(&mut self, ring: usize) {
        let operation = self.take_in_flight(ring);
        self.in_worker = true;
        self.perform(ring, operation);
        self.in_worker = false;
        self.drop_operation(ring, operation);
    }
}
