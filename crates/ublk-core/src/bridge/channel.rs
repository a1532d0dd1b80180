//! The shared state of a queue's reactor and the queue's peer.

use std::fmt;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::bypass::Bypass;
use super::layout::{
    self, ANSWERS_HEAD, ANSWERS_TAIL, AWAKE, IN_CALL, IN_EVENT_LOOP, Layout, PEER_WAITS, Places,
    REACTOR_SLEEPS, REQUESTS_HEAD, REQUESTS_TAIL,
};
use super::report::{Report, ReportKind};
use super::{Bell, Shared, TICK, lock};
use crate::memory::Region;
use crate::tag::Tag;

/// Ticks with untaken requests before the peer counts as blocked.
const BLOCKED_AFTER: u32 = 2;

/// Connects the reactor of a queue with the peer, the thread that answers the queue's requests.
pub struct Channel {
    queue: u16,
    depth: u16,
    layout: Layout,
    memory: Arc<Region>,
    /// The buffer of each tag; empty if requests' data is never copied to the server's memory.
    buffers: Mutex<Box<[Arc<Region>]>>,
    pub(super) shared: Arc<Shared>,
    reactor: OnceLock<Bell>,
    peer: Mutex<Option<Bell>>,
    /// Set when the peer has ended; never cleared.
    abandoned: AtomicBool,
    /// Set to make the reactor look for overdue and refused requests.
    look: AtomicBool,
    /// Number of requests that wait for the peer; stored by the reactor.
    pub(super) waiting: AtomicU32,
    pub(super) bypass: Bypass,
    pace: Mutex<Pace>,
}

/// The peer's progress, as seen by the watchdog.
#[derive(Debug, Default)]
struct Pace {
    head: u32,
    /// The last tick at which the peer had made progress or the request ring was empty.
    since: u32,
    told: bool,
}

impl Channel {
    pub(super) fn new(
        queue: u16,
        depth: u16,
        max_pieces: u8,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let layout = Layout::new(depth, max_pieces);
        Ok(Self {
            queue,
            depth,
            memory: Arc::new(Region::new(layout.bytes())?),
            layout,
            buffers: Mutex::default(),
            shared,
            reactor: OnceLock::new(),
            peer: Mutex::default(),
            abandoned: AtomicBool::new(false),
            look: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            bypass: Bypass::new(depth),
            pace: Mutex::default(),
        })
    }

    /// The queue's number.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    /// The number of the queue's tags.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// The places of the rings and pieces in [`memory`](Self::memory).
    pub fn places(&self) -> Places {
        self.layout.places()
    }

    /// The memory shared by the reactor and the peer.
    pub fn memory(&self) -> &Arc<Region> {
        &self.memory
    }

    #[inline]
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    #[inline]
    pub(super) fn words(&self) -> &[AtomicU32] {
        self.memory.words()
    }

    /// The buffer of `tag`; `None` if requests' data is never copied to the server's memory.
    pub fn buffer(&self, tag: Tag) -> Option<Arc<Region>> {
        lock(&self.buffers).get(tag.index()).map(Arc::clone)
    }

    /// Makes a buffer of `bytes` for each tag.
    pub(crate) fn make_buffers(&self, bytes: u32) -> io::Result<Box<[Arc<Region>]>> {
        let region = |_| Region::new(bytes as usize).map(Arc::new);
        let buffers: Box<[_]> = (0..self.depth).map(region).collect::<io::Result<_>>()?;
        buffers.clone_into(&mut lock(&self.buffers));
        Ok(buffers)
    }

    /// Gives `tag` a new buffer, because the old buffer may still be written to. If no memory is
    /// available, `tag` keeps the old buffer.
    pub(super) fn renew_buffer(&self, tag: Tag) {
        if let Some(buffer) = lock(&self.buffers).get_mut(tag.index())
            && let Ok(another) = Region::new(buffer.size())
        {
            *buffer = Arc::new(another);
        }
    }

    /// Sets the bell that wakes a peer asleep in an event loop. The reactor's thread and the watchdog's
    /// thread call `bell`.
    pub fn attach_peer(&self, bell: Bell) {
        *lock(&self.peer) = Some(bell);
        if self.abandoned.load(Ordering::Acquire) {
            self.abandon();
        }
    }

    pub(super) fn attach_reactor(&self, bell: Bell) {
        // A queue is served once; a second reactor would be a defect and would never be woken.
        let attached = self.reactor.set(bell);
        debug_assert!(attached.is_ok(), "a channel has one reactor");
    }

    /// Records that the peer no longer answers this queue's requests: see
    /// [`Bridge::abandon`](super::Bridge::abandon). The peer's bell is not rung after `abandon` has
    /// returned.
    pub fn abandon(&self) {
        // Release: a reactor that sees the flag also sees all answers of the peer.
        self.abandoned.store(true, Ordering::Release);
        *lock(&self.peer) = None;
        self.wake_reactor();
    }

    /// Whether the peer no longer answers.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Whether the reactor fails unanswered requests instead of keeping the requests for the next
    /// server.
    #[inline]
    pub(super) fn is_given_up(&self) -> bool {
        self.is_abandoned() && !self.shared.outlives()
    }

    /// Wakes the reactor, without a check whether the reactor sleeps.
    pub fn wake_reactor(&self) {
        if let Some(bell) = self.reactor.get() {
            bell();
        }
    }

    /// Wakes the peer if the peer sleeps. The caller has published the requests before.
    #[inline]
    pub(super) fn wake_peer(&self) {
        let waits = &self.words()[PEER_WAITS as usize];
        // Sequentially consistent: the reactor stores the tail, then loads this word; the peer stores
        // this word, then loads the tail. So the reactor sees the sleeping peer, or the peer sees the
        // tail.
        if waits.load(Ordering::SeqCst) == AWAKE {
            return;
        }
        self.ring_peer(waits.swap(AWAKE, Ordering::SeqCst));
    }

    fn ring_peer(&self, state: u32) {
        match state {
            IN_EVENT_LOOP => {
                if let Some(bell) = &*lock(&self.peer) {
                    bell();
                }
            }
            IN_CALL => futex_wake(&self.words()[PEER_WAITS as usize]),
            _ => {}
        }
    }

    /// Called by the peer: sleeps until requests arrive, at most for `limit`. Returns whether requests
    /// wait to be taken.
    pub fn wait(&self, limit: Duration) -> bool {
        let waits = &self.words()[PEER_WAITS as usize];
        // Sequentially consistent: the store precedes the next load of the tail; see `wake_peer`.
        waits.store(IN_CALL, Ordering::SeqCst);
        if !self.has_requests() && !self.is_abandoned() {
            futex_wait(waits, IN_CALL, limit);
        }
        waits.store(AWAKE, Ordering::SeqCst);
        self.has_requests()
    }

    /// Whether the ring holds requests not yet taken by the peer.
    #[inline]
    pub(super) fn has_requests(&self) -> bool {
        let words = self.words();
        let head = words[REQUESTS_HEAD as usize].load(Ordering::Relaxed);
        // Sequentially consistent: a peer about to sleep has stored `PEER_WAITS` before this load.
        words[REQUESTS_TAIL as usize].load(Ordering::SeqCst) != head
    }

    /// Announces that the reactor is about to sleep: the peer wakes the reactor for new answers.
    #[inline]
    pub(super) fn reactor_sleeps(&self) {
        // Sequentially consistent: the store precedes the next load of the answers' tail.
        self.words()[REACTOR_SLEEPS as usize].store(1, Ordering::SeqCst);
    }

    /// Announces that the reactor is awake.
    #[inline]
    pub(super) fn reactor_is_awake(&self) {
        // Relaxed: a peer that still sees a sleeping reactor causes a superfluous wake-up, no harm.
        self.words()[REACTOR_SLEEPS as usize].store(0, Ordering::Relaxed);
    }

    /// Whether the reactor has announced sleep: a hint, since the reactor may have woken meanwhile.
    pub fn reactor_seems_asleep(&self) -> bool {
        // Relaxed: correctness does not depend on the hint.
        self.words()[REACTOR_SLEEPS as usize].load(Ordering::Relaxed) != 0
    }

    /// Wakes the reactor if the reactor has announced sleep.
    pub(super) fn wake_sleeping_reactor(&self) {
        let sleeps = &self.words()[REACTOR_SLEEPS as usize];
        // Sequentially consistent, as in `wake_peer`, with the answers' tail.
        if sleeps.load(Ordering::SeqCst) != 0 && sleeps.swap(0, Ordering::SeqCst) != 0 {
            self.wake_reactor();
        }
    }

    /// Whether the reactor should look for overdue and refused requests.
    #[inline]
    pub(super) fn is_asked_to_look(&self) -> bool {
        self.look.load(Ordering::Relaxed)
    }

    /// Returns whether the reactor should look for overdue and refused requests, and clears the flag.
    pub(super) fn take_look(&self) -> bool {
        self.look.swap(false, Ordering::AcqRel)
    }

    pub(super) fn tick(&self, now: u32) {
        // The loss of a peer was reported; the requests of a lost peer are not late.
        if !self.is_abandoned() {
            self.watch_peer(now);
        }
        let due = now.is_multiple_of(self.shared.pace());
        if due && self.waiting.load(Ordering::Relaxed) > 0 {
            self.ask_to_look();
        } else if self.has_answers() {
            // The reactor has yet to count the requests committed by bypass.
            self.wake_sleeping_reactor();
        }
    }

    /// Makes the reactor look for overdue and refused requests.
    pub(super) fn ask_to_look(&self) {
        // Release: the clock and the flags read by the reactor were stored before.
        self.look.store(true, Ordering::Release);
        self.wake_reactor();
    }

    /// Whether the ring holds answers not yet taken by the reactor.
    pub(super) fn has_answers(&self) -> bool {
        // Acquire: the reactor updated the counters before the head.
        let word = |at: u32| self.words()[at as usize].load(Ordering::Acquire);
        word(ANSWERS_TAIL) != word(ANSWERS_HEAD)
    }

    /// Reports a peer that takes no requests while the clock moves: the peer's thread is busy with other
    /// work. Also reports the end of the blockage.
    fn watch_peer(&self, now: u32) {
        let words = self.words();
        let head = words[REQUESTS_HEAD as usize].load(Ordering::Relaxed);
        let idle = words[REQUESTS_TAIL as usize].load(Ordering::Relaxed) == head;
        let mut pace = lock(&self.pace);
        if idle || head != pace.head {
            if pace.told {
                let ticks = now.wrapping_sub(pace.since);
                let tick = u32::try_from(TICK.as_millis()).unwrap_or_default();
                self.tell(ReportKind::Unblocked(ticks.saturating_mul(tick)));
            }
            *pace = Pace { head, since: now, told: false };
        } else if !pace.told && now.wrapping_sub(pace.since) >= BLOCKED_AFTER {
            pace.told = true;
            self.tell(ReportKind::Blocked);
            // Makes up for a lost wake-up.
            self.ring_peer(words[PEER_WAITS as usize].swap(AWAKE, Ordering::SeqCst));
        }
    }

    fn tell(&self, kind: ReportKind) {
        let queue = self.queue;
        self.shared.report(Report {
            kind,
            queue,
            tag: Tag::default(),
            op: 0,
            offset: 0,
            length: 0,
        });
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("queue", &self.queue).finish_non_exhaustive()
    }
}

fn futex_wait(word: &AtomicU32, expected: u32, limit: Duration) {
    let timeout = libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    // SAFETY: the word and the timeout live until the call returns.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            &raw const timeout,
        )
    };
    // Orders the caller's next loads after the change of the word, for any thread that changes the word.
    fence(Ordering::SeqCst);
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: FUTEX_WAKE uses the address only as a key.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
            ptr::null::<libc::timespec>(),
        )
    };
}

const _: () = assert!(layout::CONTROL_WORDS > REACTOR_SLEEPS);
