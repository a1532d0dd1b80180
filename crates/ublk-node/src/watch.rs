//! A device's completions on their way to `src/completions.ts`.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use ublk_core::stats::{Completion, Watch};

/// Bytes of a record: time, latency and offset as f64; length u32, result i32; tag and queue u16,
/// op u8, flags u8, two bytes of nothing. `src/completions.ts` has the same places.
const RECORD: usize = 40;
const FUA: u8 = 1;

/// What has ended since the last time.
#[napi(object, object_from_js = false)]
pub struct NativeCompletions {
    /// Records of [`RECORD`] bytes, in this machine's byte order.
    pub records: Buffer,
    /// How many found no room.
    pub dropped: f64,
}

/// Somebody who watches a device.
#[napi]
pub struct NativeWatch {
    watch: Option<Watch>,
}

impl NativeWatch {
    pub(crate) fn new(watch: Watch) -> Self {
        Self { watch: Some(watch) }
    }
}

#[napi]
impl NativeWatch {
    /// Takes what there is.
    #[napi(catch_unwind)]
    pub fn take(&mut self) -> NativeCompletions {
        let mut records = Vec::new();
        let mut dropped = 0;
        if let Some(watch) = &mut self.watch {
            dropped = watch.take(|queue, completion| {
                records.extend_from_slice(&pack(queue, &completion));
            });
        }
        NativeCompletions { records: records.into(), dropped: number(dropped) }
    }

    /// Stops watching.
    #[napi(catch_unwind)]
    pub fn end(&mut self) {
        self.watch = None;
    }
}

fn pack(queue: u16, completion: &Completion) -> [u8; RECORD] {
    let Completion { time, latency, request, result, tag } = *completion;
    let mut record = [0; RECORD];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &number(time).to_ne_bytes());
    put(8, &number(latency).to_ne_bytes());
    put(16, &number(request.offset).to_ne_bytes());
    put(24, &request.length.to_ne_bytes());
    put(28, &result.to_ne_bytes());
    put(32, &tag.number().to_ne_bytes());
    put(34, &queue.to_ne_bytes());
    put(36, &[ublk_sys::op(request.flags.0), if request.flags.fua() { FUA } else { 0 }]);
    record
}

/// Exact up to 2^53: 104 days of uptime, and any disk.
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 nobody counts nanoseconds")]
fn number(value: u64) -> f64 {
    value as f64
}
