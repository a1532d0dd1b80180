//! Connects again, in a thread for work that may block, and hands the connection to the session.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Nbd;
use super::socket::Socket;
use crate::aside;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The first pause after an attempt that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// From a connector to its session.
#[derive(Debug)]
pub(super) struct Line {
    /// Readable when there is news.
    event: OwnedFd,
    state: Mutex<State>,
    /// Notified when the session wants no connection any more.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    socket: Option<Socket>,
    expired: bool,
    ended: bool,
}

/// What a session hears.
#[derive(Debug, Default)]
pub(super) struct News {
    /// A connection, ready for requests.
    pub(super) socket: Option<Socket>,
    /// Requests have waited for long enough; attempts go on.
    pub(super) expired: bool,
}

impl Line {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        // SAFETY: makes a new descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: new, valid, and owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Arc::new(Self { event, state: Mutex::default(), ended: Condvar::new() }))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    /// Takes the news, and makes the event quiet.
    pub(super) fn take(&self) -> News {
        let mut count = [0_u8; 8];
        // SAFETY: reads at most eight bytes into `count`; EAGAIN when there is no news.
        unsafe { libc::read(self.fd(), count.as_mut_ptr().cast(), count.len()) };
        let mut state = self.lock();
        News { socket: state.socket.take(), expired: mem::take(&mut state.expired) }
    }

    /// The session wants no connection any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.ended.notify_all();
        self.ring();
    }

    fn ring(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: writes eight bytes from `one`. Can only fail with EAGAIN, when the counter is full and
        // the event is readable anyway.
        unsafe { libc::write(self.fd(), one.as_ptr().cast(), one.len()) };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; false when the session wants no connection any more.
    fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        let waited = self.ended.wait_timeout_while(state, pause, |state| !state.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }
}

/// Lets a thread connect, after `pause`, until there is a connection or the session ends. At `deadline`
/// the session hears that requests have waited for long enough.
pub(super) fn start(
    line: &Arc<Line>,
    remote: &Arc<Nbd>,
    pause: Duration,
    deadline: Instant,
) -> io::Result<()> {
    let (line, remote) = (Arc::clone(line), Arc::clone(remote));
    aside::run(move || run(&line, &remote, pause, deadline))
}

/// The pause after `pause`.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

fn run(line: &Line, remote: &Nbd, mut pause: Duration, deadline: Instant) {
    let mut expired = false;
    while line.pause(pause) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() && !expired {
            expired = true;
            line.lock().expired = true;
            line.ring();
        }
        let limit = remote.options.connect_timeout;
        // An attempt that hangs must not keep requests beyond the deadline.
        let limit = if expired { limit } else { limit.min(left) };
        if let Ok(socket) = remote.connect_again(limit) {
            line.lock().socket = Some(socket);
            line.ring();
            return;
        }
        pause = longer(pause);
    }
}
