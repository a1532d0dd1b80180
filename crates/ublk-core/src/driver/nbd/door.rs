//! Where other threads reach the ring of a queue.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use std::{io, mem};

use ublk_nbd::Headers;
use ublk_nbd::server::negotiation::Contexts;

use super::area::Area;
use crate::allocation::Allocation;
use crate::bell::Bell;

/// A client whose negotiation has ended.
#[derive(Debug)]
pub(super) struct Guest {
    /// The connection.
    pub(super) socket: OwnedFd,
    /// Whether the kernel encrypts and decrypts.
    pub(super) tls: bool,
    /// The headers that the client has asked for.
    pub(super) headers: Headers,
    /// The contexts chosen by the client.
    pub(super) contexts: Contexts,
    /// Given back when the connection has ended.
    pub(super) permit: Permit,
}

/// The place of a connection among those of an export.
#[derive(Debug)]
pub(super) struct Permit(Arc<AtomicU32>);

impl Permit {
    /// A place, if fewer than `most` are taken.
    pub(super) fn take(taken: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        // Relaxed: a mere count.
        let more = |now: u32| (now < most).then_some(now + 1);
        let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.is_ok().then(|| Self(Arc::clone(taken)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The answer to a `BLOCK_STATUS`, found by another thread.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) job: u32,
    pub(super) extents: io::Result<Vec<Allocation>>,
}

/// Messages for a ring.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) guests: Vec<Guest>,
    pub(super) found: Vec<Found>,
    /// No request is accepted any more; the queue ends when all have been answered.
    pub(super) stop: bool,
    /// Connections end without waiting for their clients to take replies.
    pub(super) cut: bool,
}

#[derive(Debug, Default)]
struct State {
    mail: Mail,
    /// The ring serves the queue no more.
    ended: bool,
    /// A ring has begun to serve the queue.
    begun: bool,
}

/// The way to the ring of a queue.
#[derive(Debug)]
pub(super) struct Door {
    bell: Bell,
    state: Mutex<State>,
    changed: Condvar,
    area: Arc<Area>,
    /// Requests of the device that have begun and not ended.
    pub(super) in_flight: AtomicU32,
}

impl Door {
    pub(super) fn new(depth: u16) -> io::Result<Self> {
        Ok(Self {
            bell: Bell::new()?,
            state: Mutex::default(),
            changed: Condvar::new(),
            area: Arc::new(Area::new(depth)),
            in_flight: AtomicU32::new(0),
        })
    }

    pub(super) fn area(&self) -> &Arc<Area> {
        &self.area
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Sends a message; without a ring that serves the queue, drops the message.
    pub(super) fn send(&self, write: impl FnOnce(&mut Mail)) {
        let mut state = self.lock();
        if !state.ended {
            write(&mut state.mail);
            self.bell.ring();
        }
    }

    /// Takes the messages so far.
    pub(super) fn take(&self) -> Mail {
        self.bell.silence();
        mem::take(&mut self.lock().mail)
    }

    /// A ring serves the queue from now on.
    pub(super) fn begin(&self) {
        self.lock().begun = true;
    }

    /// No ring serves the queue any more: closes the connections that are still waiting.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let left = mem::take(&mut state.mail);
        drop(state);
        self.changed.notify_all();
        drop(left);
    }

    /// Waits until no ring serves the queue. Returns whether that was before the deadline.
    pub(super) fn wait_for_end(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while state.begun && !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a connection in the given direction; the peer and operations in flight notice.
pub(super) fn shut_down(socket: &OwnedFd, how: i32) {
    // SAFETY: plain numbers. The call fails only where the connection has ended.
    unsafe { libc::shutdown(socket.as_raw_fd(), how) };
}
