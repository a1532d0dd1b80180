//! The way from a reactor to somebody who answers requests in another thread, and back: a handler
//! in JavaScript.
//!
//! Each queue has a [`Channel`]: a page of words that both sides see, with a ring of requests that
//! go out, a ring of answers that come back, and a word for each side that says whether it sleeps.
//! A side is woken only when it does, so a batch costs one wake-up and a busy pair none at all.
//! The reactor's end is a [`Port`], the answering end a [`Peer`] (JavaScript has its own, which
//! reads the same words by the numbers of [`layout`]).
//!
//! Nobody waits for an answer for ever: a [`Bridge`] has a clock that its watchdog moves, and a
//! request that is not answered in time is ended by the reactor. Each request of a tag has a
//! generation, and an answer that carries another one is reported and dropped.

mod bypass;
mod channel;
pub mod layout;
mod peer;
mod pieces;
mod port;
mod report;
mod ring;
mod sleeper;
#[cfg(test)]
mod tests;
mod watchdog;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use crate::memory::Region;
pub(crate) use bypass::Commit;
pub use channel::Channel;
pub use peer::{Asked, Peer};
pub use pieces::{Misfit, Piece, Pieces};
pub(crate) use port::{Ask, Body, Port};
pub use report::{Report, ReportKind};
pub use sleeper::Sleeper;

/// Calls somebody who sleeps in another thread; cheap, and never waits.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// Hears what goes wrong, on the watchdog's thread.
pub type Listener = Box<dyn Fn(Report) + Send + Sync>;

/// How far the clock moves at once.
pub const TICK: Duration = Duration::from_millis(250);

/// How long counters may be waited for.
const CATCH_UP: Duration = Duration::from_millis(5);

/// What a bridge is made for.
#[derive(Clone, Copy, Debug)]
pub struct BridgeOptions {
    /// Hardware queues.
    pub queues: u16,
    /// Requests of one queue in flight at once.
    pub depth: u16,
    /// The most pieces of a plan; 0 where nothing can be planned.
    pub max_pieces: u8,
    /// How long a request may stay unanswered, counted from when the peer is asked first; also while
    /// the device is being closed.
    pub timeout: Duration,
}

/// The channels of a device's queues, with the clock that their requests are timed by.
pub struct Bridge {
    options: BridgeOptions,
    channels: Box<[Arc<Channel>]>,
    shared: Arc<Shared>,
    listener: Mutex<Option<Listener>>,
}

/// What a bridge's channels have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// In ticks.
    pub(crate) clock: AtomicU32,
    timeout: u32,
    /// The device outlives its server: see [`Bridge::outlive`].
    outlives: AtomicBool,
    /// See [`Bridge::end`].
    ended: AtomicBool,
    /// Requests that failed since nobody answers any more.
    unanswered: AtomicU32,
    reports: Mutex<Vec<Report>>,
}

/// Reports that wait to be told; more than these are dropped.
const MAX_REPORTS: usize = 256;

impl Bridge {
    /// Makes the channels and starts their watchdog.
    ///
    /// # Errors
    /// When there is no memory, or no thread.
    pub fn new(options: &BridgeOptions) -> io::Result<Arc<Self>> {
        let bridge = Arc::new(Self::unwatched(options)?);
        watchdog::watch(&bridge)?;
        Ok(bridge)
    }

    /// One whose clock is moved by [`tick`](Self::tick) alone, for tests.
    ///
    /// # Errors
    /// When there is no memory.
    pub fn unwatched(options: &BridgeOptions) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            clock: AtomicU32::new(0),
            timeout: ticks(options.timeout),
            outlives: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            unanswered: AtomicU32::new(0),
            reports: Mutex::default(),
        });
        let channels = (0..options.queues)
            .map(|queue| {
                let (depth, pieces) = (options.depth, options.max_pieces);
                Channel::new(queue, depth, pieces, Arc::clone(&shared)).map(Arc::new)
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { options: *options, channels, shared, listener: Mutex::default() })
    }

    /// What it was made for.
    pub fn options(&self) -> &BridgeOptions {
        &self.options
    }

    /// The channel of a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn channel(&self, queue: u16) -> &Arc<Channel> {
        &self.channels[usize::from(queue)]
    }

    /// All channels, by queue.
    pub fn channels(&self) -> &[Arc<Channel>] {
        &self.channels
    }

    /// Who hears what goes wrong from now on; called by the watchdog's thread.
    pub fn listen(&self, listener: Listener) {
        *lock(&self.listener) = Some(listener);
    }

    /// How long a request can take, with all that the clock and the watchdog add to the time-out.
    pub(crate) fn longest(&self) -> Duration {
        let Shared { timeout, .. } = *self.shared;
        TICK * (timeout + self.shared.pace() + 2)
    }

    /// Whether the device outlives its server (`recovery`, and nobody has closed the device): then
    /// requests that an abandoned channel holds are the next server's, and none fails before its
    /// time limit.
    pub(crate) fn outlive(&self, outlives: bool) {
        // Release: a reactor that is woken sees it.
        self.shared.outlives.store(outlives, Ordering::Release);
        let forsaken = self.channels.iter().filter(|channel| channel.is_abandoned());
        forsaken.for_each(|channel| channel.wake_reactor());
    }

    /// Requests that failed since their channel was abandoned.
    pub(crate) fn unanswered(&self) -> u32 {
        self.shared.unanswered.load(Ordering::Relaxed)
    }

    /// Whether requests of some queue are answered by nobody.
    pub(crate) fn is_forsaken(&self) -> bool {
        self.channels.iter().any(|channel| channel.is_abandoned())
    }

    /// From now on nobody answers: the reactors fail the requests in flight and all later ones at
    /// once, unless the device outlives its server; then the next server answers them. When this
    /// has returned, nobody is called any more.
    pub fn abandon(&self) {
        *lock(&self.listener) = None;
        self.channels.iter().for_each(|channel| channel.abandon());
    }

    /// Waits, a few milliseconds at most, until the reactors have taken all answers: what was
    /// committed past them they have still to count.
    pub(crate) fn catch_up(&self) {
        let deadline = Instant::now() + CATCH_UP;
        for channel in &self.channels {
            while channel.has_answers() && Instant::now() < deadline {
                channel.wake_sleeping_reactor();
                thread::yield_now();
            }
        }
    }

    /// Moves the clock, looks for requests that are overdue and for peers that do not come, and
    /// tells what there is to tell.
    pub fn tick(&self) {
        let now = self.shared.clock.load(Ordering::Relaxed).wrapping_add(1);
        self.shared.clock.store(now, Ordering::Relaxed);
        self.channels.iter().for_each(|channel| channel.tick(now));
        self.tell();
    }

    /// The device has ended: no request needs the clock any more. The bridge itself lives as long as somebody
    /// holds the device, in Node.js until a garbage collection.
    pub(crate) fn end(&self) {
        self.tell();
        self.shared.ended.store(true, Ordering::Relaxed);
    }

    /// Whether the device has ended.
    fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }

    fn tell(&self) {
        let reports = std::mem::take(&mut *lock(&self.shared.reports));
        if let Some(listener) = &*lock(&self.listener) {
            reports.into_iter().for_each(listener);
        }
    }
}

impl Shared {
    /// Whether a request has waited for longer than the time-out that the peer has been asked for at
    /// `since`. The clock's next tick may have followed at once, so that one is not counted.
    pub(crate) fn is_overdue(&self, since: u32) -> bool {
        self.clock.load(Ordering::Relaxed).wrapping_sub(since) > self.timeout
    }

    /// How many ticks pass between two looks for requests that are overdue: they end late by an
    /// eighth at most, and no reactor is woken more often than that pays.
    pub(crate) fn pace(&self) -> u32 {
        (self.timeout / 8).max(1)
    }

    /// A request fails since nobody answers any more.
    #[cold]
    pub(crate) fn gave_up(&self) {
        self.unanswered.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn outlives(&self) -> bool {
        self.outlives.load(Ordering::Acquire)
    }

    pub(crate) fn report(&self, report: Report) {
        let mut reports = lock(&self.reports);
        if reports.len() < MAX_REPORTS {
            reports.push(report);
        }
    }
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("channels", &self.channels).finish_non_exhaustive()
    }
}

/// At least one; a year at most, so that differences of ticks never wrap.
fn ticks(time: Duration) -> u32 {
    const YEAR: u128 = 365 * 24 * 3600 * 4;
    let ticks = time.as_millis().div_ceil(TICK.as_millis()).clamp(1, YEAR);
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// What a panic left half done here is a list or a callback, as good as before.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
