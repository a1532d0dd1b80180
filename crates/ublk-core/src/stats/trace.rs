//! The completion of each request, for watchers: records that the reactor writes and a watcher takes in
//! batches. While no device of the process has a watcher, a pass reads one word and no clock.

use std::mem;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::Counters;
use super::latencies::Latencies;
use super::ring::TraceRing;
use crate::tag::Tag;
use crate::targets::Request;

/// The number of queues of the process with watchers or a guard.
static WATCHED: AtomicU32 = AtomicU32::new(0);

/// Bits of [`Trace::on`]: watchers take completions, which need the time.
const WATCHERS: u8 = 1;
/// Latencies are measured, which need the time too.
const MEASURED: u8 = 4;
/// A [`Guard`](super::Guard) looks for requests that do not end.
const GUARDED: u8 = 2;

/// Whether any queue has a watcher or a guard.
#[inline]
pub(crate) fn is_anybody_watching() -> bool {
    // Relaxed: a queue's own flag orders what belongs to it.
    WATCHED.load(Ordering::Relaxed) != 0
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The time of the answer, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// How long the server had the request, in nanoseconds.
    pub latency: u64,
    /// The request.
    pub request: Request,
    /// The length of the request, or a negative errno.
    pub result: i32,
    /// The tag of the request.
    pub tag: Tag,
}

/// The watchers and the guard of one queue.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    on: AtomicU8,
    /// Watchers hear of no request that began before.
    since: AtomicU64,
    /// When the request of each tag began.
    begun: OnceLock<Box<[AtomicU64]>>,
    rings: Mutex<Vec<Arc<TraceRing>>>,
    /// Once somebody has asked for them.
    latencies: OnceLock<Box<Latencies>>,
    /// The number of the last look.
    look: AtomicU32,
    /// The last look before the request of each tag began; 0: none is in flight.
    stamps: OnceLock<Box<[AtomicU32]>>,
}

impl Trace {
    /// Whether the queue has a watcher or a guard.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        // Acquire: `begun` and `since` were set before.
        self.on.load(Ordering::Acquire) != 0
    }

    /// The reactor has taken a request in.
    pub(crate) fn begin(&self, tag: Tag) {
        // Relaxed: `is_on` has come before.
        let on = self.on.load(Ordering::Relaxed);
        if on & (WATCHERS | MEASURED) != 0
            && let Some(begun) = self.begun.get()
        {
            begun[tag.index()].store(now(), Ordering::Relaxed);
        }
        if on & GUARDED != 0
            && let Some(stamps) = self.stamps.get()
        {
            stamps[tag.index()].store(self.look.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// The reactor has answered the request.
    pub(crate) fn end(&self, tag: Tag, request: Request, result: i32) {
        if let Some(stamps) = self.stamps.get() {
            stamps[tag.index()].store(0, Ordering::Relaxed);
        }
        let Some(begun) = self.begun.get() else { return };
        let began = begun[tag.index()].swap(0, Ordering::Relaxed);
        if began < self.since.load(Ordering::Relaxed) {
            return;
        }
        let time = now();
        let latency = time.saturating_sub(began);
        let on = self.on.load(Ordering::Relaxed);
        if on & MEASURED != 0
            && let Some(latencies) = self.latencies.get()
        {
            latencies.count(request.op, latency);
        }
        if on & WATCHERS == 0 {
            return;
        }
        let completion = Completion { time, latency, request, result, tag };
        // Other threads hold the lock only while a watcher comes or goes.
        self.rings().iter().for_each(|ring| ring.push(&completion));
    }

    fn add(&self, depth: u16, ring: Arc<TraceRing>) {
        let mut rings = self.rings();
        rings.push(ring);
        if rings.len() == 1 {
            self.time(depth, WATCHERS);
        }
    }

    /// Reads the clock for each request of `depth` tags that begins from now on, for `what`.
    fn time(&self, depth: u16, what: u8) {
        self.begun.get_or_init(|| (0..depth).map(|_| AtomicU64::new(0)).collect());
        // What began untimed has no time of its own, but maybe that of the tag's last timed request.
        if self.on.load(Ordering::Relaxed) & (WATCHERS | MEASURED) == 0 {
            self.since.store(now(), Ordering::Relaxed);
        }
        // Release: a reactor that sees it sees the above.
        self.on.fetch_or(what, Ordering::Release);
        WATCHED.fetch_add(1, Ordering::Relaxed);
    }

    /// Measures each request of `depth` tags that begins from now on. One measurement at a time.
    pub(super) fn measure(&self, depth: u16) {
        self.latencies.get_or_init(|| Box::new(Latencies::new()));
        let _order = self.rings();
        self.time(depth, MEASURED);
    }

    pub(super) fn measure_no_more(&self) {
        let _order = self.rings();
        self.on.fetch_and(!MEASURED, Ordering::Relaxed);
        WATCHED.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn latencies(&self) -> Option<&Latencies> {
        self.latencies.get().map(|latencies| &**latencies)
    }

    fn remove(&self, ring: &Arc<TraceRing>) {
        let mut rings = self.rings();
        rings.retain(|other| !Arc::ptr_eq(ring, other));
        if rings.is_empty() {
            self.on.fetch_and(!WATCHERS, Ordering::Relaxed);
            WATCHED.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Stamps each request of `depth` tags that begins from now on. One guard at a time.
    pub(super) fn guard(&self, depth: u16) {
        let stamps = self.stamps.get_or_init(|| (0..depth).map(|_| AtomicU32::new(0)).collect());
        stamps.iter().for_each(|stamp| stamp.store(0, Ordering::Relaxed));
        self.look.store(1, Ordering::Relaxed);
        // Release: a reactor that sees it sees the above.
        self.on.fetch_or(GUARDED, Ordering::Release);
        WATCHED.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave_unguarded(&self) {
        self.on.fetch_and(!GUARDED, Ordering::Relaxed);
        WATCHED.fetch_sub(1, Ordering::Relaxed);
    }

    /// The stamps of all tags; requests that begin from now on are stamped with `look`.
    pub(super) fn stamps(&self, look: u32) -> impl Iterator<Item = u32> {
        self.look.store(look, Ordering::Relaxed);
        let stamps = self.stamps.get().map_or(&[][..], |stamps| stamps);
        stamps.iter().map(|stamp| stamp.load(Ordering::Relaxed))
    }

    /// The stamp of one tag.
    pub(super) fn stamp(&self, tag: Tag) -> u32 {
        let stamps = self.stamps.get().map_or(&[][..], |stamps| stamps);
        stamps.get(tag.index()).map_or(0, |stamp| stamp.load(Ordering::Relaxed))
    }

    fn rings(&self) -> MutexGuard<'_, Vec<Arc<TraceRing>>> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches the queues of a device until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watched: Vec<(u16, Arc<Counters>, Arc<TraceRing>)>,
}

impl Watch {
    /// Watches these queues of `depth` tags, with room for `capacity` completions of each queue and
    /// reactor.
    pub(crate) fn new(tally: &[(u16, Arc<Counters>)], depth: u16, capacity: u32) -> Self {
        let watch = |(queue, counters): &(u16, Arc<Counters>)| {
            let ring = Arc::new(TraceRing::new(capacity));
            counters.trace.add(depth, Arc::clone(&ring));
            (*queue, Arc::clone(counters), ring)
        };
        Self { watched: tally.iter().map(watch).collect() }
    }

    /// Gives `each` the completions since the last call, with the number of the queue, reactor by reactor.
    /// Returns how many completions had no room in the meantime.
    ///
    /// One thread at a time.
    pub fn take(&mut self, mut each: impl FnMut(u16, Completion)) -> u64 {
        let mut dropped = 0;
        for (queue, _, ring) in &self.watched {
            ring.take(|completion| each(*queue, completion));
            dropped += ring.take_dropped();
        }
        dropped
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (_, counters, ring) in mem::take(&mut self.watched) {
            counters.trace.remove(&ring);
        }
    }
}

fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime fills a struct of this frame.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000) + time.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::targets::{Op, RequestFlags};

    fn request(offset: u64) -> Request {
        Request { op: Op::Read, flags: RequestFlags(0), offset, length: 4096 }
    }

    /// The completions of a watch: queue, offset and result of each, and how many were dropped.
    fn taken(watch: &mut Watch) -> (Vec<(u16, u64, i32)>, u64) {
        let mut seen = Vec::new();
        let dropped = watch.take(|queue, one| seen.push((queue, one.request.offset, one.result)));
        (seen, dropped)
    }

    fn serve(counters: &Counters, tag: Tag, offset: u64, result: i32) {
        counters.trace.begin(tag);
        counters.trace.end(tag, request(offset), result);
    }

    #[test]
    fn what_ends_while_somebody_watches_is_told_once() {
        let queues = [(0, Arc::default()), (1, Arc::default())];
        serve(&queues[0].1, Tag::new(0), 1, 0);
        let mut watch = Watch::new(&queues, 4, 8);
        assert!(is_anybody_watching() && queues[0].1.trace.is_on());
        serve(&queues[1].1, Tag::new(3), 2, 4096);
        serve(&queues[0].1, Tag::new(0), 3, -5);
        assert_eq!(taken(&mut watch), (vec![(0, 3, -5), (1, 2, 4096)], 0));
        assert_eq!(taken(&mut watch), (vec![], 0));
        drop(watch);
        assert!(!queues[0].1.trace.is_on());
    }

    #[test]
    fn what_began_before_anybody_watched_is_not_told() {
        let queues = [(0, Arc::<Counters>::default())];
        drop(Watch::new(&queues, 4, 8));
        queues[0].1.trace.begin(Tag::new(1));
        let mut watch = Watch::new(&queues, 4, 8);
        queues[0].1.trace.end(Tag::new(1), request(1), 0);
        queues[0].1.trace.end(Tag::new(2), request(2), 0);
        assert_eq!(taken(&mut watch), (vec![], 0));
    }

    #[test]
    fn what_finds_no_room_is_counted_by_each_watcher_for_itself() {
        let queues = [(0, Arc::<Counters>::default())];
        let mut slow = Watch::new(&queues, 1, 2);
        let mut quick = Watch::new(&queues, 1, 2);
        let mut seen = Vec::new();
        for offset in 0..5 {
            serve(&queues[0].1, Tag::new(0), offset, 0);
            seen.extend(taken(&mut quick).0);
        }
        assert_eq!(seen.len(), 5);
        assert_eq!(taken(&mut slow), (vec![(0, 0, 0), (0, 1, 0)], 3));
        serve(&queues[0].1, Tag::new(0), 9, 0);
        assert_eq!(taken(&mut slow), (vec![(0, 9, 0)], 0));
    }

    #[test]
    fn a_reader_sees_whole_records_in_order_beside_the_writer() {
        const COUNT: u64 = 20_000;
        let queues = [(0, Arc::<Counters>::default())];
        let mut watch = Watch::new(&queues, 1, 64);
        thread::scope(|scope| {
            scope.spawn(|| {
                for offset in 1..=COUNT {
                    serve(&queues[0].1, Tag::new(0), offset, i32::try_from(offset).unwrap());
                }
            });
            let (mut last, mut count) = (0, 0);
            while count < COUNT {
                count += watch.take(|_, one| {
                    assert_eq!(u64::try_from(one.result).unwrap(), one.request.offset);
                    assert!(one.request.offset > last && one.time > 0);
                    last = one.request.offset;
                    count += 1;
                });
                thread::yield_now();
            }
        });
    }
}
