//! Limits of a device's requests, as `src/throttle.ts` has them.

use std::time::Duration;

use napi_derive::napi;
use ublk_core::device::{Rates, ThrottleLimits};

/// Limits of a class of requests per second, as far as JavaScript's numbers are exact.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeRates {
    /// Requests.
    pub iops: Option<i64>,
    /// Bytes.
    pub bytes: Option<i64>,
}

/// Limits of a device.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeThrottle {
    /// Of all classes together.
    pub all: NativeRates,
    /// Of reads.
    pub read: NativeRates,
    /// Of writes.
    pub write: NativeRates,
    /// In seconds.
    pub burst: Option<f64>,
}

impl NativeThrottle {
    /// What is no number of requests becomes a limit of 0, which the core refuses.
    pub(crate) fn convert(self) -> ThrottleLimits {
        let default = ThrottleLimits::default();
        let burst = self.burst.map(Duration::try_from_secs_f64);
        ThrottleLimits {
            all: self.all.convert(),
            read: self.read.convert(),
            write: self.write.convert(),
            burst: burst.map_or(default.burst, |burst| burst.unwrap_or(Duration::MAX)),
        }
    }
}

impl NativeRates {
    fn convert(self) -> Rates {
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Rates { iops: self.iops.map(count), bytes: self.bytes.map(count) }
    }
}
