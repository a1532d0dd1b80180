//! The threads that reactors run on.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use crate::driver::Driver;
use crate::locked;
use crate::reactor::{Capacity, Mailbox, Reactor, Service, Turn};
use crate::signals;
use crate::targets::Target;

/// How a reactor's thread is called, and where it runs.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: String,
    /// The CPUs to be bound to, as a bit mask.
    pub(super) affinity: Option<Box<[u8]>>,
}

/// Serves these on a thread of their own until the last of them ends, whatever ends them.
pub(super) fn spawn_for<D: Driver, T: Target>(
    driver: D,
    place: Place,
    mailbox: Mailbox<T>,
    services: Vec<Service<T>>,
) -> io::Result<JoinHandle<()>> {
    place.spawn(move || {
        // What went wrong, the queues' listeners have heard.
        if let Ok(reactor) = Reactor::of(&driver, mailbox, services) {
            run(reactor);
        }
    })
}

/// Serves what arrives in the mailbox until its waker says quit.
pub(super) fn spawn<D: Driver, T: Target>(
    driver: D,
    place: Place,
    mailbox: Mailbox<T>,
    capacity: Capacity,
    ready: impl FnOnce(io::Result<()>) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    place.spawn(move || match Reactor::new(&driver, capacity, mailbox) {
        Ok(reactor) => {
            ready(Ok(()));
            run(reactor);
        }
        Err(error) => ready(Err(error)),
    })
}

impl Place {
    fn spawn(self, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let Self { name, affinity } = self;
        thread::Builder::new().name(name).spawn(move || {
            signals::block();
            become_io_flusher();
            lock_memory();
            affinity.iter().for_each(|mask| bind(mask));
            body();
        })
    }
}

fn run<D: Driver, T: Target>(mut reactor: Reactor<D, T>) {
    let served = catch_unwind(AssertUnwindSafe(|| {
        while reactor.turn()? == Turn::Serving {}
        Ok(())
    }));
    reactor.end(&served.unwrap_or_else(|panic| Err(io::Error::other(words(&*panic)))));
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the queue's thread panicked: {}", text.unwrap_or("no message"))
}

/// A thread whose memory cannot be locked, because memory is short, serves all the same: the right to lock
/// has been looked at before.
fn lock_memory() {
    let _unlocked = locked::lock_thread();
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
