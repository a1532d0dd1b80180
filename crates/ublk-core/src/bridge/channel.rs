//! What the two sides of one queue have in common.

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

/// How many ticks requests may lie there before the peer counts as blocked.
const BLOCKED_AFTER: u32 = 2;

/// The way between the reactor of one queue and whoever answers its requests.
pub struct Channel {
    queue: u16,
    depth: u16,
    layout: Layout,
    memory: Arc<Region>,
    /// Each tag's buffer, where requests' data is copied to memory of ours.
    buffers: Mutex<Box<[Arc<Region>]>>,
    pub(super) shared: Arc<Shared>,
    reactor: OnceLock<Bell>,
    peer: Mutex<Option<Bell>>,
    /// The peer is gone for good.
    abandoned: AtomicBool,
    /// The reactor is to look for requests that are overdue.
    look: AtomicBool,
    /// Requests that wait for the peer; the reactor's.
    pub(super) waiting: AtomicU32,
    pub(super) bypass: Bypass,
    pace: Mutex<Pace>,
}

/// How the peer gets on, as the watchdog sees it.
#[derive(Debug, Default)]
struct Pace {
    head: u32,
    /// Since when requests lie there and none is taken, in ticks.
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

    /// Its tags.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// Where things are in [`memory`](Self::memory).
    pub fn places(&self) -> Places {
        self.layout.places()
    }

    /// What both sides see.
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

    /// The buffer of `tag`; absent where the requests' data never comes to memory of ours.
    pub fn buffer(&self, tag: u16) -> Option<Arc<Region>> {
        lock(&self.buffers).get(usize::from(tag)).map(Arc::clone)
    }

    /// Makes a buffer of `bytes` for each tag.
    pub(crate) fn make_buffers(&self, bytes: u32) -> io::Result<Box<[Arc<Region>]>> {
        let region = |_| Region::new(bytes as usize).map(Arc::new);
        let buffers: Box<[_]> = (0..self.depth).map(region).collect::<io::Result<_>>()?;
        buffers.clone_into(&mut lock(&self.buffers));
        Ok(buffers)
    }

    /// Gives `tag` another buffer, since somebody may still write to the one that it had. Without
    /// memory for another it keeps the old one.
    pub(super) fn renew_buffer(&self, tag: u16) {
        if let Some(buffer) = lock(&self.buffers).get_mut(usize::from(tag))
            && let Ok(another) = Region::new(buffer.size())
        {
            *buffer = Arc::new(another);
        }
    }

    /// Who wakes the peer when it sleeps in its event loop. Called by the reactor's thread.
    pub fn attach_peer(&self, bell: Bell) {
        *lock(&self.peer) = Some(bell);
        if self.abandoned.load(Ordering::Acquire) {
            self.abandon();
        }
    }

    pub(super) fn attach_reactor(&self, bell: Bell) {
        // A queue is served once; a second reactor would be a defect, and would not be woken.
        let attached = self.reactor.set(bell);
        debug_assert!(attached.is_ok(), "a channel has one reactor");
    }

    /// From now on nobody answers this queue's requests: see [`Bridge::abandon`](super::Bridge::abandon).
    /// When this has returned, the peer's bell is rung no more.
    pub fn abandon(&self) {
        // Release: seen by the reactor together with all that the peer has answered.
        self.abandoned.store(true, Ordering::Release);
        *lock(&self.peer) = None;
        self.wake_reactor();
    }

    /// Whether nobody answers any more.
    #[inline]
    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Whether the reactor fails what nobody answers, rather than keep it for the next server.
    #[inline]
    pub(super) fn is_given_up(&self) -> bool {
        self.is_abandoned() && !self.shared.outlives()
    }

    /// Wakes the reactor, which has been seen to sleep.
    pub fn wake_reactor(&self) {
        if let Some(bell) = self.reactor.get() {
            bell();
        }
    }

    /// Wakes the peer if it sleeps. What it is woken for has been published.
    #[inline]
    pub(super) fn wake_peer(&self) {
        let waits = &self.words()[PEER_WAITS as usize];
        // Sequentially consistent: after the tail was stored. A peer that says that it sleeps
        // looks at the tail afterwards, so one of the two sees the other.
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

    /// The peer's: sleeps until there are requests, or for `limit`. Whether there are any.
    pub fn wait(&self, limit: Duration) -> bool {
        let waits = &self.words()[PEER_WAITS as usize];
        // Sequentially consistent: before the tail is looked at once more; see `wake_peer`.
        waits.store(IN_CALL, Ordering::SeqCst);
        if !self.has_requests() && !self.is_abandoned() {
            futex_wait(waits, IN_CALL, limit);
        }
        waits.store(AWAKE, Ordering::SeqCst);
        self.has_requests()
    }

    /// Whether there are requests that the peer has not taken.
    #[inline]
    pub(super) fn has_requests(&self) -> bool {
        let words = self.words();
        let head = words[REQUESTS_HEAD as usize].load(Ordering::Relaxed);
        // Sequentially consistent, for a peer that has just said that it sleeps.
        words[REQUESTS_TAIL as usize].load(Ordering::SeqCst) != head
    }

    /// Says that the reactor is about to sleep: from now on it is woken for answers.
    #[inline]
    pub(super) fn reactor_sleeps(&self) {
        // Sequentially consistent: before the answers' tail is looked at once more.
        self.words()[REACTOR_SLEEPS as usize].store(1, Ordering::SeqCst);
    }

    /// Says that it is awake.
    #[inline]
    pub(super) fn reactor_is_awake(&self) {
        // Relaxed: a peer that still sees it asleep wakes it once too often, no more.
        self.words()[REACTOR_SLEEPS as usize].store(0, Ordering::Relaxed);
    }

    /// Whether it says that it sleeps.
    pub(super) fn reactor_seems_asleep(&self) -> bool {
        // Relaxed: a guess, which nothing depends on.
        self.words()[REACTOR_SLEEPS as usize].load(Ordering::Relaxed) != 0
    }

    /// Wakes the reactor if it says that it sleeps.
    pub(super) fn wake_sleeping_reactor(&self) {
        let sleeps = &self.words()[REACTOR_SLEEPS as usize];
        // Sequentially consistent, as in `wake_peer`.
        if sleeps.load(Ordering::SeqCst) != 0 && sleeps.swap(0, Ordering::SeqCst) != 0 {
            self.wake_reactor();
        }
    }

    /// Whether the reactor is to look for requests that are overdue.
    #[inline]
    pub(super) fn is_asked_to_look(&self) -> bool {
        self.look.load(Ordering::Relaxed)
    }

    /// As much, and it is being done.
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
            // What was committed past the reactor it has still to count.
            self.wake_sleeping_reactor();
        }
    }

    /// Lets the reactor look for requests that are overdue or refused.
    pub(super) fn ask_to_look(&self) {
        // Release: the clock and the flags that it is to look at come before.
        self.look.store(true, Ordering::Release);
        self.wake_reactor();
    }

    /// Whether there are answers that the reactor has not taken.
    pub(super) fn has_answers(&self) -> bool {
        // Acquire: what it has counted comes before the head.
        let word = |at: u32| self.words()[at as usize].load(Ordering::Acquire);
        word(ANSWERS_TAIL) != word(ANSWERS_HEAD)
    }

    /// Requests that nobody takes while the clock moves mean that the peer's thread is busy with
    /// something else.
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
            // Should a wake-up ever be lost, this one is not.
            self.ring_peer(words[PEER_WAITS as usize].swap(AWAKE, Ordering::SeqCst));
        }
    }

    fn tell(&self, kind: ReportKind) {
        let queue = self.queue;
        self.shared.report(Report { kind, queue, tag: 0, op: 0, offset: 0, length: 0 });
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
    // SAFETY: the word lives through the call, and so does the time.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            expected,
            &raw const timeout,
        )
    };
    // Orders what is read next after the word has changed, whoever changed it.
    fence(Ordering::SeqCst);
}

fn futex_wake(word: &AtomicU32) {
    // SAFETY: the address is only a key here.
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
