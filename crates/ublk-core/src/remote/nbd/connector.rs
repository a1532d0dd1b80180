//! Connects again, in a thread for work that may block, and hands the connection to the session.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Nbd;
use super::socket::Socket;
use crate::aside;
use crate::bell::Bell;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The first pause after an attempt that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// From a connector to its session.
#[derive(Debug)]
pub(super) struct Line {
    /// Rings when there is news.
    bell: Bell,
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
        let (state, ended) = (Mutex::default(), Condvar::new());
        Ok(Arc::new(Self { bell: Bell::new()?, state, ended }))
    }

    pub(super) fn fd(&self) -> RawFd {
        self.bell.fd()
    }

    /// Takes the news, and silences the bell.
    pub(super) fn take(&self) -> News {
        self.bell.silence();
        let mut state = self.lock();
        News { socket: state.socket.take(), expired: mem::take(&mut state.expired) }
    }

    /// The session wants no connection any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.ended.notify_all();
        self.bell.ring();
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
            line.bell.ring();
        }
        let limit = remote.options.connect_timeout;
        // An attempt that hangs must not keep requests beyond the deadline.
        let limit = if expired { limit } else { limit.min(left) };
        if let Ok(socket) = remote.connect_again(limit) {
            line.lock().socket = Some(socket);
            line.bell.ring();
            return;
        }
        pause = longer(pause);
    }
}
