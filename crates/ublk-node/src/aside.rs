//! Threads for work that may block, and one that is kept for when no more can be made.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

type Work = Box<dyn FnOnce() + Send>;

static KEPT: Mutex<Option<Sender<Work>>> = Mutex::new(None);

/// Makes the thread that is kept: before there is a device, which must be closed also where as many
/// tasks are running by then as may be.
pub(crate) fn prepare() -> io::Result<()> {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.is_none() {
        let (work, inbox) = channel::<Work>();
        let serve = move || inbox.iter().for_each(|work| work());
        thread::Builder::new().name("ublk-kept".into()).spawn(serve)?;
        *kept = Some(work);
    }
    Ok(())
}

/// Runs `work` on a new thread; on the one that is kept, in its turn, where none can be made.
pub(crate) fn run(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    // A thread that cannot be made keeps nothing of what it was made for.
    let work = Arc::new(Mutex::new(Some(work)));
    let perform = {
        let work = Arc::clone(&work);
        move || {
            let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
            work.into_iter().for_each(|work| work());
        }
    };
    let Err(error) = thread::Builder::new().name(name.into()).spawn(perform.clone()) else {
        return Ok(());
    };
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).clone().ok_or(error)?;
    kept.send(Box::new(perform)).map_err(|_| io::ErrorKind::BrokenPipe.into())
}
