//! Histograms of latencies: one per kind of request, in log-linear buckets, four to each power of two, so
//! that a bucket is at most a quarter wider than its lower bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Counters, Tally};
use crate::targets::{Op, ZoneOp};

/// The kinds of requests with a histogram each, in the order of [`Measure::take`].
pub const KINDS: [&str; 5] = ["read", "write", "flush", "discard", "writeZeroes"];

/// Buckets of a histogram.
pub const BUCKETS: usize = OCTAVES * PARTS;
/// From 2^10 ns (a microsecond) to 2^37 ns (137 s): shorter latencies count in the first bucket, longer ones
/// in the last.
const OCTAVES: usize = 27;
const FIRST: u32 = 10;
/// Buckets of each power of two.
const PARTS: usize = 4;

/// The histogram of one kind of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// How many requests ended in each bucket; see [`bound`].
    pub buckets: Box<[u64]>,
    /// All latencies together, in nanoseconds.
    pub sum: u64,
}

/// The latency in nanoseconds below which all requests of bucket `index` and of the buckets before ended.
pub fn bound(index: usize) -> u64 {
    let (octave, part) = (index / PARTS, index % PARTS);
    ((PARTS + part + 1) as u64) << (FIRST as usize + octave - 2)
}

fn bucket(latency: u64) -> usize {
    let latency = latency.max(1 << FIRST);
    let octave = latency.ilog2();
    let part = (latency >> (octave - 2)) & 3;
    let index = u64::from(octave - FIRST) * PARTS as u64 + part;
    usize::try_from(index).map_or(BUCKETS - 1, |index| index.min(BUCKETS - 1))
}

/// The histograms that one reactor writes of one queue.
#[derive(Debug)]
pub(super) struct Latencies([Kind; KINDS.len()]);

#[derive(Debug)]
struct Kind {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        let kind = |_| Kind {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            sum: AtomicU64::new(0),
        };
        Self(std::array::from_fn(kind))
    }

    /// Counts a request. By the reactor alone, so that a load and a store do.
    pub(super) fn count(&self, op: Op, latency: u64) {
        let kind = match op {
            Op::Read => 0,
            Op::Write | Op::Zone(ZoneOp::Append) => 1,
            Op::Flush => 2,
            Op::Discard => 3,
            Op::WriteZeroes => 4,
            Op::Zone(_) => return,
        };
        let Kind { buckets, sum } = &self.0[kind];
        for (counter, more) in [(&buckets[bucket(latency)], 1), (sum, latency)] {
            counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
        }
    }
}

/// Measures the latencies of a device's requests until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Measure {
    counters: Vec<Arc<Counters>>,
    is_on: bool,
}

impl Measure {
    /// Measures requests of these queues of `depth` tags that begin from now on.
    pub(crate) fn new(tally: &Tally, depth: u16) -> Self {
        let measure = |(_, counters): &(u16, Arc<Counters>)| {
            counters.trace.measure(depth);
            Arc::clone(counters)
        };
        Self { counters: tally.iter().map(measure).collect(), is_on: true }
    }

    /// Measures no more; the histograms stay.
    pub(crate) fn stop(&mut self) {
        if std::mem::take(&mut self.is_on) {
            self.counters.iter().for_each(|counters| counters.trace.measure_no_more());
        }
    }

    /// The histograms of all requests so far, in the order of [`KINDS`].
    pub(crate) fn take(&self) -> Vec<Histogram> {
        let mut all = vec![Histogram { buckets: vec![0; BUCKETS].into(), sum: 0 }; KINDS.len()];
        for latencies in self.counters.iter().filter_map(|counters| counters.trace.latencies()) {
            for (total, kind) in all.iter_mut().zip(&latencies.0) {
                total.sum += kind.sum.load(Ordering::Relaxed);
                for (sum, one) in total.buckets.iter_mut().zip(&kind.buckets) {
                    *sum += one.load(Ordering::Relaxed);
                }
            }
        }
        all
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tag::Tag;

    use crate::targets::{Request, RequestFlags};

    #[test]
    fn a_latency_is_in_the_bucket_whose_bounds_hold_it() {
        for latency in [0, 1, 1023, 1024, 1279, 1280, 4095, 4096, 999_999, 1 << 36, (1 << 37) - 1] {
            let index = bucket(latency);
            assert!(latency < bound(index), "{latency} in {index}");
            assert!(index == 0 || latency >= bound(index - 1), "{latency} in {index}");
        }
        assert_eq!([bucket(1 << 37), bucket(u64::MAX)], [BUCKETS - 1; 2]);
        let widest = (1..BUCKETS).map(|index| bound(index) as f64 / bound(index - 1) as f64);
        assert!(widest.fold(0.0, f64::max) <= 1.25);
    }

    #[test]
    fn requests_are_measured_as_long_as_somebody_asks() {
        let tally: Tally = [(0, Arc::default()), (1, Arc::default())].into();
        let serve = |queue: usize, op| {
            let trace = &tally[queue].1.trace;
            let request = Request { op, flags: RequestFlags(0), offset: 0, length: 512 };
            if trace.is_on() {
                trace.begin(Tag::new(2));
                trace.end(Tag::new(2), request, 512);
            }
        };
        let count = |measure: &Measure| -> Vec<u64> {
            measure.take().iter().map(|one| one.buckets.iter().sum()).collect()
        };
        serve(0, Op::Read);
        let measure = Measure::new(&tally, 4);
        serve(0, Op::Read);
        serve(1, Op::Read);
        serve(1, Op::Flush);
        serve(1, Op::Zone(ZoneOp::Reset));
        assert_eq!(count(&measure), [2, 0, 1, 0, 0]);
        let watch = super::super::Watch::new(&tally, 4, 8);
        serve(0, Op::Write);
        drop(watch);
        serve(0, Op::Write);
        assert_eq!(count(&measure), [2, 2, 1, 0, 0]);
        drop(measure);
        assert!(!tally[0].1.trace.is_on());
    }
}
