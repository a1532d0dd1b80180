//! What TypeScript asks for, as the core takes it. `src/create.ts` has checked it; what slips
//! through is refused by the core, or here if the core's types cannot even say it.

use std::time::Duration;

use napi_derive::napi;
use ublk_core::device::{BufferMode, DeviceOptions, ExchangeMode, Limits, QueueSettings, Recovery};
use ublk_core::error::{Code, Error, Result};

use crate::targets::NativeTarget;
use crate::throttle::NativeThrottle;

/// A device, as `src/create.ts` asks for it; what is absent is the core's default.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeDeviceOptions {
    /// What answers its requests.
    pub target: NativeTarget,
    /// The number N of `/dev/ublkbN`.
    pub id: Option<u32>,
    /// Hardware queues.
    pub queues: Option<u16>,
    /// Requests of one queue in flight at once.
    pub depth: Option<u16>,
    /// The largest request, in bytes.
    pub max_io_bytes: Option<u32>,
    /// Of which the best that the kernel has is taken.
    #[napi(
        ts_type = "readonly ('auto' | 'register' | 'user-copy' | 'get-data' | 'copy' | 'shared')[]"
    )]
    pub buffers: Option<Vec<String>>,
    /// How requests come; absent: the best that the kernel has.
    #[napi(ts_type = "'per-io' | 'batch'")]
    pub exchange: Option<String>,
    /// Register, I/O and unregister each in an enter of its own.
    pub split_register: Option<bool>,
    /// Slots of the buffer table take turns.
    pub rotate_slots: Option<bool>,
    /// How many threads share the tags of all queues.
    pub threads: Option<u16>,
    /// Whether one thread fetches and commits while another does the I/O.
    pub rings_apart: Option<bool>,
    /// Whether threads stay on their queue's CPUs.
    pub pin: Option<bool>,
    /// How long threads look for work before they sleep, in microseconds.
    pub spin_usec: Option<u32>,
    /// What of the device's queue differs from the kernel's default.
    pub queue: Option<NativeQueueSettings>,
    /// What of the device's limits is narrower than its target needs.
    pub limits: Option<NativeLimits>,
    /// The CPUs that threads are bound to instead.
    #[napi(ts_type = "readonly number[]")]
    pub affinity: Option<Vec<u16>>,
    /// What becomes of requests without a server; absent: the device ends with the server.
    #[napi(ts_type = "'queue' | 'reissue' | 'fail'")]
    pub recovery: Option<String>,
    /// Whether the kernel looks for partitions.
    pub part_scan: Option<bool>,
    /// For a user who is not root.
    pub unprivileged: Option<bool>,
    /// How far apart descriptors are, in bytes.
    pub io_desc_size: Option<u16>,
    /// How long the kernel may take.
    pub timeout_ms: Option<u32>,
    /// Limits per second.
    pub throttle: Option<NativeThrottle>,
    /// Looks for requests that do not end.
    pub watchdog: Option<NativeWatchdog>,
}

/// The watchdog of a device; `src/watchdog.ts` knows what is done about a stall.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeWatchdog {
    /// After how long a request counts as stalled, in milliseconds.
    pub after_ms: u32,
}

impl NativeDeviceOptions {
    /// The core's options, and what to serve.
    pub(crate) fn convert(self) -> Result<(DeviceOptions, NativeTarget)> {
        let default = DeviceOptions::default();
        let options = DeviceOptions {
            id: self.id,
            queues: self.queues.unwrap_or(default.queues),
            depth: self.depth.unwrap_or(default.depth),
            max_io_bytes: self.max_io_bytes.unwrap_or(default.max_io_bytes),
            buffers: buffer_modes(self.buffers.as_deref().unwrap_or_default())?,
            exchange: self.exchange.as_deref().map(exchange_mode).transpose()?,
            split_register: self.split_register.unwrap_or(default.split_register),
            rotate_slots: self.rotate_slots.unwrap_or(default.rotate_slots),
            threads: self.threads,
            rings_apart: self.rings_apart.unwrap_or(default.rings_apart),
            pin: self.pin.unwrap_or(default.pin),
            spin: Duration::from_micros(self.spin_usec.unwrap_or(0).into()),
            queue: self.queue.map(NativeQueueSettings::convert).unwrap_or_default(),
            limits: self.limits.map(NativeLimits::convert).transpose()?.unwrap_or_default(),
            affinity: self.affinity,
            recovery: self.recovery.as_deref().map(recovery).transpose()?,
            throttle: self.throttle.map(NativeThrottle::convert).unwrap_or_default(),
            watchdog: self.watchdog.map(|one| Duration::from_millis(one.after_ms.into())),
            before_start: None,
            part_scan: self.part_scan.unwrap_or(default.part_scan),
            unprivileged: self.unprivileged.unwrap_or(default.unprivileged),
            io_desc_size: self.io_desc_size,
            limit: self
                .timeout_ms
                .map_or(default.limit, |limit| Duration::from_millis(limit.into())),
        };
        Ok((options, self.target))
    }
}

/// Settings of a device's queue, by the kernel's names.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeQueueSettings {
    /// `scheduler`
    pub scheduler: Option<String>,
    /// `wbt_lat_usec`
    pub wbt_lat_usec: Option<i64>,
    /// `nomerges`
    pub nomerges: Option<u8>,
    /// `iostats`
    pub iostats: Option<bool>,
    /// `rq_affinity`
    pub rq_affinity: Option<u8>,
    /// `read_ahead_kb`
    pub read_ahead_kb: Option<u32>,
    /// `max_sectors_kb`
    pub max_sectors_kb: Option<u32>,
}

impl NativeQueueSettings {
    fn convert(self) -> QueueSettings {
        QueueSettings {
            scheduler: self.scheduler,
            wbt_lat_usec: self.wbt_lat_usec,
            nomerges: self.nomerges,
            iostats: self.iostats,
            rq_affinity: self.rq_affinity,
            read_ahead_kb: self.read_ahead_kb,
            max_sectors_kb: self.max_sectors_kb,
        }
    }
}

/// Limits of a device; sizes in bytes, as far as JavaScript's numbers are exact.
#[derive(Debug)]
#[napi(object, object_to_js = false)]
pub struct NativeLimits {
    /// What memory must be aligned to.
    pub dma_alignment: Option<u32>,
    /// Most segments of a request.
    pub max_segments: Option<u16>,
    /// The longest segment.
    pub max_segment_size: Option<u32>,
    /// What no segment crosses a multiple of.
    pub segment_boundary: Option<i64>,
}

impl NativeLimits {
    fn convert(self) -> Result<Limits> {
        let boundary = self.segment_boundary.map(|bytes| {
            u64::try_from(bytes).map_err(|_| refused(format!("limits.segmentBoundary is {bytes}")))
        });
        Ok(Limits {
            dma_alignment: self.dma_alignment,
            max_segments: self.max_segments,
            max_segment_size: self.max_segment_size,
            segment_boundary: boundary.transpose()?,
        })
    }
}

fn buffer_modes(names: &[String]) -> Result<Vec<BufferMode>> {
    let mode =
        |name: &String| BufferMode::from_name(name).ok_or_else(|| unknown("buffer mode", name));
    names.iter().map(mode).collect()
}

fn exchange_mode(name: &str) -> Result<ExchangeMode> {
    match name {
        "per-io" => Ok(ExchangeMode::PerIo),
        "batch" => Ok(ExchangeMode::Batch),
        _ => Err(unknown("exchange", name)),
    }
}

fn recovery(name: &str) -> Result<Recovery> {
    match name {
        "queue" => Ok(Recovery::Queue),
        "reissue" => Ok(Recovery::Reissue),
        "fail" => Ok(Recovery::Fail),
        _ => Err(unknown("kind of recovery", name)),
    }
}

pub(crate) fn unknown(what: &str, name: &str) -> Error {
    refused(format!("there is no {what} '{name}'"))
}

pub(crate) fn refused(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}
