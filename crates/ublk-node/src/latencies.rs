//! Histograms of latencies for JavaScript.

use napi_derive::napi;
use ublk_core::stats::{self, Histogram};

/// The histogram of one kind of requests.
#[derive(Debug)]
#[napi(object, object_from_js = false)]
pub struct NativeHistogram {
    /// How many requests ended in each bucket of [`latency_bounds`].
    pub buckets: Vec<f64>,
    /// All latencies together, in nanoseconds.
    pub sum: f64,
}

impl From<Histogram> for NativeHistogram {
    // A double is exact up to 2^53: 104 days of latencies, or so many requests.
    #[expect(clippy::cast_precision_loss)]
    fn from(Histogram { buckets, sum }: Histogram) -> Self {
        Self { buckets: buckets.iter().map(|&count| count as f64).collect(), sum: sum as f64 }
    }
}

/// The upper bounds of the buckets of each histogram, in nanoseconds.
#[napi(catch_unwind)]
pub fn latency_bounds() -> Vec<f64> {
    (0..stats::BUCKETS).map(|index| stats::bound(index) as f64).collect()
}

/// The kinds of requests, in the order of a device's histograms.
#[napi(catch_unwind, ts_return_type = "('read' | 'write' | 'flush' | 'discard' | 'writeZeroes')[]")]
pub fn latency_kinds() -> Vec<&'static str> {
    stats::KINDS.to_vec()
}
