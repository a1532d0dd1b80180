//! The thread that moves the clocks of all bridges; it lives as long as a bridge's device has not ended.

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
            watched.retain(|bridge| bridge.upgrade().is_some_and(|bridge| !bridge.has_ended()));
            if watched.is_empty() {
                return;
            }
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        bridges.iter().for_each(|bridge| bridge.tick());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::BridgeOptions;
    use super::*;

    #[test]
    fn a_bridge_whose_device_has_ended_is_watched_no_more_whoever_holds_it() {
        let timeout = TICK * 4;
        let options = BridgeOptions { queues: 1, depth: 1, max_pieces: 0, timeout };
        let [ended, other] = [(); 2].map(|()| Bridge::new(&options).unwrap());
        let is_watched = |bridge: &Arc<Bridge>| {
            lock(&WATCHED).iter().any(|one| one.as_ptr() == Arc::as_ptr(bridge))
        };
        ended.end();
        let begin = Instant::now();
        while is_watched(&ended) && begin.elapsed() < Duration::from_secs(20) {
            thread::sleep(TICK / 10);
        }
        assert_eq!([is_watched(&ended), is_watched(&other)], [false, true]);
    }
}
