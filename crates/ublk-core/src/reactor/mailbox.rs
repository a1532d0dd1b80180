//! Reaching a reactor from another thread.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, mem};

use super::Service;

/// Wakes a reactor, or tells it to end without the kernel's help; clones name the same reactor.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: OwnedFd,
    quit: AtomicBool,
}

/// Where a reactor finds what others want of it; clones name the same reactor.
#[derive(Debug)]
pub struct Mailbox<T> {
    waker: Waker,
    /// Nobody looks into it any more: none.
    arrivals: Arc<Mutex<Option<Vec<Service<T>>>>>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: makes a new descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new, valid, and owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Inner { event, quit: AtomicBool::new(false) })))
    }

    /// Makes the reactor end as soon as its requests in flight have.
    pub fn quit(&self) {
        // Release: the reactor's Acquire load in `should_quit` comes after its read of the event.
        self.0.quit.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight bytes from `one`. It can only fail with EAGAIN, when the counter is
        // full and the reactor is being woken anyway.
        unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(super) fn should_quit(&self) -> bool {
        self.0.quit.load(Ordering::Acquire)
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    /// Empties the event, so that polling it waits again.
    pub(super) fn drain(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: reads at most eight bytes into `count`; EAGAIN when nobody has woken us.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl<T> Mailbox<T> {
    /// The mailbox of a reactor to be.
    ///
    /// # Errors
    /// What eventfd(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { waker: Waker::new()?, arrivals: Arc::new(Mutex::new(Some(Vec::new()))) })
    }

    /// What wakes and ends the reactor.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Asks the reactor to serve a queue; its listener hears what becomes of it.
    pub fn send(&self, service: Service<T>) {
        if let Some(arrivals) = &mut *self.lock() {
            arrivals.push(service);
        }
        self.waker.wake();
    }

    pub(super) fn take(&self) -> Vec<Service<T>> {
        self.lock().as_mut().map(mem::take).unwrap_or_default()
    }

    /// Whether the reactor is there.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().is_some()
    }

    /// The reactor is gone: whoever has been waiting is told so, and whoever comes.
    pub(super) fn close(&self) {
        let unserved = self.lock().take();
        drop(unserved);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Service<T>>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { waker: self.waker.clone(), arrivals: Arc::clone(&self.arrivals) }
    }
}
