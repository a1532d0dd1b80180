//! Signs of life: which reactors of this process still take completions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use super::Waker;

/// The pulses of the process's reactors; a reactor that has ended has dropped its pulse.
static REACTORS: Mutex<Vec<Weak<Pulse>>> = Mutex::new(Vec::new());

/// A flag that a caller sets and the reactor clears as soon as the reactor takes its mail.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The name of the reactor's thread.
    name: String,
    waker: Waker,
    asked: AtomicBool,
}

impl Pulse {
    /// The pulse of a reactor that runs on this thread and that `waker` wakes.
    pub(super) fn new(waker: &Waker) -> Arc<Self> {
        let name = thread::current().name().unwrap_or("a reactor").to_owned();
        let asked = AtomicBool::new(false);
        let pulse = Arc::new(Self { name, waker: waker.clone(), asked });
        let mut reactors = REACTORS.lock().unwrap_or_else(PoisonError::into_inner);
        reactors.retain(|one| one.strong_count() > 0);
        reactors.push(Arc::downgrade(&pulse));
        pulse
    }

    /// The reactor has drained its waker.
    pub(super) fn beat(&self) {
        // A caller that sets the flag after the store wakes the reactor after the store too, so the
        // reactor comes here again. The flag guards no other memory.
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Asks the reactor for a sign of life; whether the reactor owes one since the last call.
    fn ask(&self) -> bool {
        let owes = self.asked.swap(true, Ordering::Relaxed);
        self.waker.wake();
        owes
    }
}

/// Asks each reactor of this process for a sign of life, and answers the names of the threads of those
/// reactors that have given none since the last call. A reactor that sleeps is woken for it. Callers call
/// this at an interval that is long for a reactor's pass: a few hundred milliseconds or more.
pub fn silent_reactors() -> Vec<String> {
    let living: Vec<_> = {
        let reactors = REACTORS.lock().unwrap_or_else(PoisonError::into_inner);
        reactors.iter().filter_map(Weak::upgrade).collect()
    };
    living.iter().filter(|pulse| pulse.ask()).map(|pulse| pulse.name.clone()).collect()
}
