//! Reaching a reactor from another thread.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{io, mem};

use super::{Look, Service};

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
    mail: Arc<Mutex<Option<Vec<Mail<T>>>>>,
}

/// A mailbox that keeps nothing of a reactor that has ended, neither memory nor the descriptor.
#[derive(Debug)]
pub(crate) struct WeakMailbox<T> {
    waker: Weak<Inner>,
    mail: Weak<Mutex<Option<Vec<Mail<T>>>>>,
}

impl<T> WeakMailbox<T> {
    /// The mailbox, unless the reactor has ended.
    pub(crate) fn upgrade(&self) -> Option<Mailbox<T>> {
        Some(Mailbox { waker: Waker(self.waker.upgrade()?), mail: self.mail.upgrade()? })
    }
}

/// What a reactor is asked for.
#[derive(Debug)]
pub(super) enum Mail<T> {
    /// To serve a queue.
    Queue(Service<T>),
    /// To give a file to queues that it serves.
    File(NewFile<T>),
    /// To say what requests wait for.
    Look(Look),
}

/// A file for all queues of a reactor that `target` answers, at a spare place of the target's.
#[derive(Debug)]
pub struct NewFile<T> {
    /// The target, [by identity](Arc::ptr_eq).
    pub target: Arc<T>,
    /// The place among the target's files.
    pub place: u16,
    /// The file.
    pub file: Arc<OwnedFd>,
    /// Hears when all these queues have the file; is dropped when the reactor is gone.
    pub told: Sender<io::Result<()>>,
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
        Ok(Self { waker: Waker::new()?, mail: Arc::new(Mutex::new(Some(Vec::new()))) })
    }

    /// What wakes and ends the reactor.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Asks the reactor to serve a queue; its listener hears what becomes of it.
    pub fn send(&self, service: Service<T>) {
        self.post(Mail::Queue(service));
    }

    /// Gives the reactor's queues a file.
    pub fn give(&self, file: NewFile<T>) {
        self.post(Mail::File(file));
    }

    /// Asks the reactor what requests wait for.
    pub(crate) fn ask(&self, look: Look) {
        self.post(Mail::Look(look));
    }

    /// The same mailbox for a holder that may outlive the reactor.
    pub(crate) fn downgrade(&self) -> WeakMailbox<T> {
        WeakMailbox { waker: Arc::downgrade(&self.waker.0), mail: Arc::downgrade(&self.mail) }
    }

    fn post(&self, mail: Mail<T>) {
        if let Some(waiting) = &mut *self.lock() {
            waiting.push(mail);
        }
        self.waker.wake();
    }

    pub(super) fn take(&self) -> Vec<Mail<T>> {
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

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Mail<T>>>> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { waker: self.waker.clone(), mail: Arc::clone(&self.mail) }
    }
}
