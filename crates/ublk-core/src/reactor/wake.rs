//! Waking a reactor from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells a reactor to end without the kernel's help; clones name the same reactor.
#[derive(Clone, Debug)]
pub struct Waker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: OwnedFd,
    quit: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
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
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight bytes from `one`. It can only fail with EAGAIN, when the counter is
        // full and the reactor is being woken anyway.
        unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    pub(crate) fn should_quit(&self) -> bool {
        self.0.quit.load(Ordering::Acquire)
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    /// Empties the event, so that polling it waits again.
    pub(crate) fn drain(&self) {
        let mut count = [0_u8; 8];
        // SAFETY: reads at most eight bytes into `count`; EAGAIN when nobody has woken us.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}
