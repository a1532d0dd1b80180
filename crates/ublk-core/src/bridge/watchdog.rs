//! The thread that moves the clocks of all bridges; it lives as long as there are any.

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use super::{Bridge, TICK, lock};

/// The bridges that are being watched; the thread runs while there are any.
static WATCHED: Mutex<Vec<Weak<Bridge>>> = Mutex::new(Vec::new());

pub(super) fn watch(bridge: &Arc<Bridge>) -> io::Result<()> {
    let mut watched = lock(&WATCHED);
    if watched.is_empty() {
        thread::Builder::new().name("ublk-watch".into()).spawn(run)?;
    }
    watched.push(Arc::downgrade(bridge));
    Ok(())
}

fn run() {
    loop {
        thread::sleep(TICK);
        let bridges: Vec<_> = {
            let mut watched = lock(&WATCHED);
            watched.retain(|bridge| bridge.strong_count() > 0);
            if watched.is_empty() {
                return;
            }
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        bridges.iter().for_each(|bridge| bridge.tick());
    }
}
