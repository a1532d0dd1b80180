//! Limits of the requests and bytes per second of a device, which all of the device's queues share.
//!
//! Each limit is a leaky bucket in the form of the generic cell rate algorithm (GCRA): one number, the
//! time at which the bucket has leaked empty. A request moves that time on by the request's cost, and
//! may begin once the time is at most a burst ahead.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Code, Error, Result};

/// Limits of one class of requests, per second. Absent: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Requests per second.
    pub iops: Option<u64>,
    /// Bytes of reads and writes per second.
    pub bytes: Option<u64>,
}

/// The limits of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Of reads, writes, discards and write-zeroes together.
    pub all: Rates,
    /// Of reads.
    pub read: Rates,
    /// Of writes, zone appends, discards and write-zeroes.
    pub write: Rates,
    /// How much of a limit an idle device may use at once: what the limit allows in this time.
    pub burst: Duration,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        let none = Rates::default();
        Self { all: none, read: none, write: none, burst: Duration::from_millis(100) }
    }
}

impl ThrottleLimits {
    /// Whether no limit is set.
    pub fn is_none(&self) -> bool {
        [self.all, self.read, self.write].iter().all(|rates| *rates == Rates::default())
    }

    /// # Errors
    /// [`Code::InvalidArgument`] for a limit of 0, which would end no request, and for a burst over an hour.
    pub fn validate(&self) -> Result<()> {
        let rates = [self.all, self.read, self.write];
        if rates.iter().any(|rates| rates.iops == Some(0) || rates.bytes == Some(0)) {
            let message = "a limit of 0 would end no request; it must be at least 1 per second";
            return Err(Error::new(Code::InvalidArgument, message));
        }
        if self.burst > Duration::from_secs(3600) {
            let message = "burst is over 3600 s";
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Ok(())
    }
}

/// The class of a request that limits hold back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    Write,
}

impl Class {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Read => Self::Write,
            Self::Write => Self::Read,
        }
    }
}

/// The limits of a device, and what of the limits is used.
#[derive(Debug)]
pub struct Throttle {
    is_on: AtomicBool,
    since: Instant,
    /// Nanoseconds.
    burst: AtomicU64,
    /// Requests and bytes of all classes together.
    all: [Bucket; 2],
    /// The same of each class.
    each: [[Bucket; 2]; 2],
}

/// A limit.
#[derive(Debug, Default)]
struct Bucket {
    /// Units per second; 0: no limit.
    rate: AtomicU64,
    /// When the bucket has leaked empty, in nanoseconds since the start of the throttle.
    empty: AtomicU64,
}

const SECOND: u64 = 1_000_000_000;

impl Bucket {
    /// How long a request of this bucket must wait, in nanoseconds.
    fn wait(&self, now: u64, burst: u64) -> u64 {
        match self.rate.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.empty.load(Ordering::Relaxed).saturating_sub(now.saturating_add(burst)),
        }
    }

    fn take(&self, now: u64, units: u64) {
        let Some(cost) = (units * SECOND).checked_div(self.rate.load(Ordering::Relaxed)) else {
            return;
        };
        // Nobody but the buckets depends on the numbers.
        let order = Ordering::Relaxed;
        let later = |empty: u64| Some(empty.max(now).saturating_add(cost));
        let _before = self.empty.fetch_update(order, order, later);
    }

    fn set(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
        self.empty.store(0, Ordering::Relaxed);
    }
}

impl Throttle {
    /// A throttle with these limits.
    pub fn new(limits: &ThrottleLimits) -> Self {
        let this = Self {
            is_on: AtomicBool::new(false),
            since: Instant::now(),
            burst: AtomicU64::new(0),
            all: Default::default(),
            each: Default::default(),
        };
        this.set(limits);
        this
    }

    /// Changes the limits; requests that wait notice within a tenth of a second.
    pub fn set(&self, limits: &ThrottleLimits) {
        let burst = u64::try_from(limits.burst.as_nanos()).unwrap_or(u64::MAX);
        self.burst.store(burst, Ordering::Relaxed);
        let [reads, writes] = &self.each;
        let limits_of = [(&self.all, limits.all), (reads, limits.read), (writes, limits.write)];
        for ([requests, volume], rates) in limits_of {
            requests.set(rates.iops);
            volume.set(rates.bytes);
        }
        self.restore();
    }

    /// Suspends the limits: requests that wait go on within a tenth of a second.
    pub fn lift(&self) {
        self.is_on.store(false, Ordering::Relaxed);
    }

    /// Puts the limits into force again.
    pub fn restore(&self) {
        let mut buckets = self.each.iter().flatten().chain(&self.all);
        let is_on = buckets.any(|bucket| bucket.rate.load(Ordering::Relaxed) > 0);
        // Relaxed: a reactor that sees the flag and not yet the rates lets a request more through.
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Whether there is a limit.
    #[inline(always)]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Counts a request that may begin now.
    ///
    /// # Errors
    /// How long the request must wait before it asks again. Queues that ask at the same moment may let one
    /// request more through each; the buckets make up for it afterwards.
    pub(super) fn admit(&self, class: Class, bytes: u64) -> std::result::Result<(), Duration> {
        if !self.is_on() {
            return Ok(());
        }
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.admit_at(now, class, bytes)
    }

    fn admit_at(&self, now: u64, class: Class, bytes: u64) -> std::result::Result<(), Duration> {
        let burst = self.burst.load(Ordering::Relaxed);
        let kinds = [&self.all, &self.each[class as usize]];
        let waits = kinds.iter().flat_map(|kind| kind.iter()).map(|one| one.wait(now, burst));
        match waits.max().unwrap_or(0) {
            0 => {
                for [requests, volume] in kinds {
                    requests.take(now, 1);
                    volume.take(now, bytes);
                }
                Ok(())
            }
            wait => Err(Duration::from_nanos(wait)),
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new(&ThrottleLimits::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn rates(iops: Option<u64>, bytes: Option<u64>) -> Rates {
        Rates { iops, bytes }
    }

    /// How many requests of `bytes` each a client that never rests gets through until `end`.
    fn passed(throttle: &Throttle, class: Class, bytes: u64, end: u64) -> u64 {
        let (mut now, mut count) = (0, 0);
        while now < end {
            match throttle.admit_at(now, class, bytes) {
                Ok(()) => count += 1,
                Err(wait) => now += u64::try_from(wait.as_nanos()).unwrap(),
            }
        }
        count
    }

    #[test]
    fn each_limit_lets_its_rate_and_one_burst_through() {
        let burst = Duration::from_millis(100);
        let of = |all, read, write| Throttle::new(&ThrottleLimits { all, read, write, burst });
        let none = Rates::default();
        let iops = rates(Some(1000), None);
        let bytes = rates(None, Some(4096 * 1000));
        for (throttle, class) in [
            (of(iops, none, none), Class::Read),
            (of(none, iops, none), Class::Read),
            (of(none, none, iops), Class::Write),
            (of(bytes, none, none), Class::Write),
            (of(bytes, iops, none), Class::Read),
        ] {
            let count = passed(&throttle, class, 4096, 10_000 * MS);
            assert!((10_100..=10_102).contains(&count), "{count}");
        }
        let reads_only = of(none, iops, none);
        for _ in 0..100_000 {
            reads_only.admit_at(0, Class::Write, 4096).unwrap();
        }
    }

    #[test]
    fn a_request_larger_than_the_burst_passes_and_the_next_one_pays() {
        let all = rates(None, Some(1 << 20));
        let throttle =
            Throttle::new(&ThrottleLimits { all, burst: Duration::ZERO, ..Default::default() });
        throttle.admit_at(0, Class::Read, 32 << 20).unwrap();
        let wait = throttle.admit_at(0, Class::Read, 512).unwrap_err();
        assert_eq!(wait, Duration::from_secs(32));
        throttle.admit_at(32 * SECOND, Class::Read, 512).unwrap();
    }

    #[test]
    fn a_change_forgets_what_was_used() {
        let throttle = Throttle::default();
        let all = rates(Some(1), None);
        throttle.set(&ThrottleLimits { all, burst: Duration::ZERO, ..Default::default() });
        throttle.admit_at(5, Class::Write, 0).unwrap();
        assert!(throttle.admit_at(5, Class::Write, 0).is_err());
        throttle.set(&ThrottleLimits { all: rates(Some(2), None), ..Default::default() });
        throttle.admit_at(5, Class::Write, 0).unwrap();
        throttle.set(&ThrottleLimits::default());
        assert!(!throttle.is_on());
    }

    #[test]
    fn limits_that_end_no_request_are_refused() {
        let none = Rates::default();
        for wrong in [rates(Some(0), None), rates(None, Some(0))] {
            for (all, read, write) in
                [(wrong, none, none), (none, wrong, none), (none, none, wrong)]
            {
                let limits = ThrottleLimits { all, read, write, ..Default::default() };
                assert_eq!(limits.validate().unwrap_err().code, Code::InvalidArgument);
            }
        }
        ThrottleLimits { all: rates(Some(1), Some(1)), ..Default::default() }.validate().unwrap();
    }
}
