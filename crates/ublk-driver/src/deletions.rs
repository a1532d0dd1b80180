//! How many deletions of this process are in the driver at a time.
//!
//! `DEL_DEV` holds the driver's mutex until the device is freed, which takes tens of milliseconds
//! (`srcu_barrier` in `blk_mq_free_tag_set`). When a process closes 1,000 devices at once, the last
//! deletion would spend its time limit behind the others, and `ADD_DEV`, which takes the same mutex,
//! would wait behind all of them.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One deletion holds the mutex, and the next is there when the mutex is free.
const MOST: usize = 2;

/// The places for deletions in the driver.
#[derive(Debug)]
pub struct Deletions {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug)]
struct State {
    inside: usize,
    /// The number of deletions that have left.
    ended: u64,
}

/// A deletion's place; the next deletion has the place when this is dropped.
#[derive(Debug)]
pub struct Place<'a>(&'a Deletions);

impl Deletions {
    /// No deletion is in the driver.
    pub const fn new() -> Self {
        Self { state: Mutex::new(State { inside: 0, ended: 0 }), left: Condvar::new() }
    }

    /// Waits for a place, as long as a deletion ends within each `limit`. Where none does, the driver
    /// is held up by others, and the deletion gets a place beyond the bound: the kernel deletes the
    /// device even after the server has stopped waiting for the answer.
    pub fn enter(&self, limit: Duration) -> Place<'_> {
        let mut state = self.lock();
        loop {
            let ended = state.ended;
            let full = |state: &mut State| state.inside >= MOST;
            let waited = self.left.wait_timeout_while(state, limit, full);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.inside < MOST || state.ended == ended {
                state.inside += 1;
                return Place(self);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Deletions {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        state.ended += 1;
        drop(state);
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_deletion_waits_while_the_driver_has_as_many_as_may_be() {
        let deletions = Deletions::new();
        let mut places: Vec<_> = (0..MOST).map(|_| deletions.enter(LONG)).collect();
        let (tell, told) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let place = deletions.enter(LONG);
                tell.send(deletions.lock().ended).unwrap();
                drop(place);
            });
            places.pop();
            assert_eq!(told.recv_timeout(LONG), Ok(1), "it entered before a place was free");
        });
    }

    #[test]
    fn a_deletion_waits_no_longer_where_none_ends() {
        let deletions = Deletions::new();
        let _places: Vec<_> = (0..MOST).map(|_| deletions.enter(LONG)).collect();
        let late = deletions.enter(Duration::from_millis(1));
        assert_eq!(deletions.lock().inside, MOST + 1);
        drop(late);
    }
}
