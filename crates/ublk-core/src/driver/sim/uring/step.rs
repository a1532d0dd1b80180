//! What moves while a ring's thread waits.

use crate::driver::sim::model::Model;
use crate::driver::sim::uring::ring::Work;

/// The kinds of moves that are possible.
#[derive(Clone, Copy)]
enum Move {
    Work,
    Backend,
    Worker,
    Ready(usize),
}

impl Model {
    /// Moves until `count` completions are there and chance says stop, or until nothing can move.
    pub(crate) fn step_until_idle(&mut self, ring: usize, count: u32) {
        loop {
            let told = self.ring(ring).has_completions(count);
            if told && self.rng.chance(200) {
                return;
            }
            if !self.step(ring) {
                // No clock runs here: a time comes when nothing else is left to happen.
                match self.next_timeout(ring, true) {
                    Some(operation) if !told => self.expire(ring, operation),
                    _ => return,
                }
            }
        }
    }

    /// Makes one move; false if there is none.
    pub(crate) fn step(&mut self, ring: usize) -> bool {
        self.run_late();
        let uring = self.ring(ring);
        let mut moves = Vec::with_capacity(4);
        if !uring.work.is_empty() {
            moves.push(Move::Work);
        }
        if !uring.in_flight.is_empty() {
            moves.push(Move::Backend);
        }
        if !uring.workers.is_empty() {
            moves.push(Move::Worker);
        }
        // Asking the real system is dear: now and then is often enough while other things move.
        if moves.is_empty() || self.rng.chance(100) {
            moves.extend(self.ready_waits(ring).first().copied().map(Move::Ready));
        }
        if moves.is_empty() {
            return false;
        }
        let choice = moves[self.rng.index(moves.len())];
        self.moves += 1;
        self.count_down();
        self.make(ring, choice);
        self.flush(ring);
        true
    }

    /// io_run_local_work: what has been put off until the ring is entered for its completions.
    pub(crate) fn run_task_work(&mut self, ring: usize) {
        for _ in 0..self.ring(ring).work.len() {
            self.moves += 1;
            self.make(ring, Move::Work);
            self.flush(ring);
        }
    }

    fn make(&mut self, ring: usize, choice: Move) {
        match choice {
            Move::Work => {
                // Task work runs in the order it came.
                if let Some(work) = self.ring(ring).work.pop_front() {
                    self.run(ring, &work);
                }
            }
            Move::Backend => {
                let operation = self.take_in_flight(ring);
                let issued = self.perform(ring, operation);
                self.settle(ring, operation, &issued);
            }
            Move::Worker => {
                let count = self.ring(ring).workers.len();
                let at = self.rng.index(count);
                let operation = self.ring(ring).workers.swap_remove(at);
                let issued = self.issue(ring, operation, false);
                self.settle(ring, operation, &issued);
            }
            Move::Ready(operation) => self.end_wait(ring, operation),
        }
    }

    /// One of the backend operations that are under way, any of them.
    pub(crate) fn take_in_flight(&mut self, ring: usize) -> usize {
        let count = self.ring(ring).in_flight.len();
        let at = self.rng.index(count);
        self.ring(ring).in_flight.swap_remove(at)
    }

    fn run(&mut self, ring: usize, work: &Work) {
        match *work {
            Work::Dispatch(id) => self.dispatch(ring, id),
            Work::Kick(device) => self.kick_later(device),
            Work::Events(device, queue) => self.dispatch_events(device, queue),
            Work::Issue(operation) => self.queue(ring, operation),
            Work::Command(operation, device) => {
                let issued = self.ublk_cmd(ring, operation, device);
                self.settle(ring, operation, &issued);
            }
            Work::FailChain(operation) => self.fail_chain(ring, operation),
            Work::Complete(operation, result) => self.finish(ring, operation, result),
        }
    }
}
