//! The thread of one reactor.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use crate::driver::{Driver, OpenFile};
use crate::reactor::{QueueConfig, Reactor, Turn, Waker};
use crate::stats::Counters;
use crate::target::Target;

/// What a reactor's thread, or the thread that starts the device, tells its maker.
#[derive(Debug)]
pub(super) enum Event {
    /// A queue is being fetched from, and this ends it.
    Ready(Waker),
    /// `START_DEV` has answered.
    Started(crate::error::Result<()>),
    /// A queue is served no more.
    Ended(io::Result<()>),
}

/// All that a reactor's thread needs.
pub(super) struct Server<D, T> {
    pub(super) driver: D,
    pub(super) id: u32,
    pub(super) char_device: OpenFile,
    pub(super) zeros: OpenFile,
    pub(super) config: QueueConfig,
    pub(super) target: Arc<T>,
    pub(super) counters: Arc<Counters>,
    /// The CPUs to be bound to, as a bit mask.
    pub(super) affinity: Option<Box<[u8]>>,
}

impl<D: Driver, T: Target> Server<D, T> {
    /// Serves the queue on a thread of its own until it ends, whatever ends it.
    pub(super) fn spawn(self, events: Sender<Event>) -> io::Result<JoinHandle<()>> {
        let name = format!("ublk{}q{}", self.id, self.config.queue);
        thread::Builder::new().name(name).spawn(move || {
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(&events)));
            let result = served.unwrap_or_else(|panic| Err(io::Error::other(words(&*panic))));
            // Nobody listens when the device was given up.
            let _unheard = events.send(Event::Ended(result));
        })
    }

    fn serve(self, events: &Sender<Event>) -> io::Result<()> {
        block_signals();
        become_io_flusher();
        if let Some(mask) = &self.affinity {
            bind(mask);
        }
        let mut reactor = Reactor::new(
            &self.driver,
            self.char_device,
            self.zeros,
            self.config,
            self.target,
            self.counters,
        )?;
        let _unheard = events.send(Event::Ready(reactor.waker()));
        while reactor.turn()? == Turn::Serving {}
        Ok(())
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the queue's thread panicked: {}", text.unwrap_or("no message"))
}

/// Signals are for the program's own threads.
fn block_signals() {
    // SAFETY: an all-zero sigset_t is a valid one to fill, and only this thread's mask changes.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

/// Keeps this thread's memory allocations from waiting for writeback that waits for this thread
/// (trap 55). Needs `CAP_SYS_RESOURCE`; without it the device must not be swapped to.
fn become_io_flusher() {
    /// From linux/prctl.h; Linux 5.6.
    const PR_SET_IO_FLUSHER: libc::c_int = 57;
    const ON: libc::c_ulong = 1;
    const UNUSED: libc::c_ulong = 0;
    // SAFETY: changes a flag of this thread only.
    unsafe { libc::prctl(PR_SET_IO_FLUSHER, ON, UNUSED, UNUSED, UNUSED) };
}

/// Serving from elsewhere is slower and nothing worse, so a refusal is none of our errors.
fn bind(mask: &[u8]) {
    if mask.iter().all(|&byte| byte == 0) {
        return;
    }
    // SAFETY: the kernel reads `mask.len()` bytes.
    unsafe { libc::sched_setaffinity(0, mask.len(), mask.as_ptr().cast()) };
}
