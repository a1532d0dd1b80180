//! What a device is asked to be, and what it became.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::affinity;
pub use super::buffering::{BufferMode, Buffering};
use super::exclusions::Choices;
use super::limits::Limits;
use super::queue_settings::QueueSettings;
use crate::error::{Code, Error, Result};
pub use crate::reactor::ExchangeMode;
use crate::reactor::ThrottleLimits;

/// What becomes of a device whose server dies, or leaves it with
/// [`Device::quiesce`](super::Device::quiesce). Without any of these it is stopped: all requests
/// fail, and nothing but its deletion is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Requests wait for the next server; those that the dead one had taken fail with `EIO`
    /// (`UBLK_F_USER_RECOVERY`, Linux 6.1). No request is executed twice.
    Queue,
    /// Requests wait for the next server, and those that the dead one had taken are given to it
    /// again: clients notice a pause and nothing else. A write may be executed twice, which no
    /// target minds that writes in place (`…_RECOVERY_REISSUE`, Linux 6.1).
    Reissue,
    /// Requests fail until there is a next server (`…_RECOVERY_FAIL_IO`, Linux 6.13).
    Fail,
}

/// A function that [`Device::create`](super::Device::create) calls once the device has its number and
/// its parameters, before `START_DEV`: no client can have used the device yet. For what the device's next
/// server must find, should this one be killed at any time from now on.
#[derive(Clone)]
pub struct BeforeStart(Arc<dyn Fn(&DeviceInfo) + Send + Sync>);

impl BeforeStart {
    /// Calls `call` with the device as the kernel has it then, in state [`DeviceState::Dead`].
    pub fn new(call: impl Fn(&DeviceInfo) + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    pub(super) fn call(&self, info: &DeviceInfo) {
        (self.0)(info);
    }
}

impl fmt::Debug for BeforeStart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BeforeStart")
    }
}

/// What [`Device::create`](super::Device::create) is asked for.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The number N of `/dev/ublkbN`; the kernel's choice if absent.
    pub id: Option<u32>,
    /// Hardware queues, from 1; the kernel cuts it to the number of CPUs.
    pub queues: u16,
    /// Requests of one queue in flight at once, 1 to 4096.
    pub depth: u16,
    /// The largest request, in bytes: a multiple of 4096, up to 32 MiB.
    pub max_io_bytes: u32,
    /// The buffer mode; none: the best that the kernel offers. Beside one of the modes, or none,
    /// there can be [`BufferMode::Shared`], and beside the zero-copy modes
    /// [`BufferMode::UserCopy`].
    pub buffers: Vec<BufferMode>,
    /// How requests come and results go; absent: batches where the kernel has them (Linux 7.0) and
    /// the buffer mode comes out as [`BufferMode::Auto`], or as [`BufferMode::Copy`] of a target that
    /// answers elsewhere; per-io for devices of a [`Pool`](super::Pool), of depth 1, with `recovery`,
    /// `threads` or `rings_apart`, and zoned ones. Measured over null_blk, 4 KiB random reads: batches
    /// save 600 instructions of 18,000 per request at depth 32, and cost 1,170 more than 35,330 at
    /// depth 1. Of a target that answers elsewhere, its data copied, they save 5,600 of 63,650 there,
    /// since whoever answers can commit.
    pub exchange: Option<ExchangeMode>,
    /// With [`BufferMode::Register`]: register, I/O and unregister each in an `io_uring_enter` of
    /// its own instead of all in one.
    pub split_register: bool,
    /// With [`BufferMode::Register`], which it chooses where no mode is asked for: two threads for
    /// each queue, or each share of the queues (`threads`). One fetches and commits; the other
    /// registers each request's buffer with a ring of its own, does the I/O, and unregisters
    /// (`UBLK_F_BUF_REG_OFF_DAEMON`, Linux 6.17). Not for zoned targets or targets that answer
    /// elsewhere, nor in a [`Pool`](super::Pool).
    pub rings_apart: bool,
    /// For finding defects of the server: a tag's requests take turns at two slots, and slots that
    /// are given back wait longest, so that a stale index finds an empty slot (`EFAULT`) and not
    /// another request's data. Zero copy only; costs a little for each request.
    pub rotate_slots: bool,
    /// Whether each queue's thread is bound to the CPUs that the kernel maps to the queue.
    pub pin: bool,
    /// What of the kernel's queue above the device differs from the kernel's default.
    pub queue: QueueSettings,
    /// What of the device's limits is narrower than its target needs.
    pub limits: Limits,
    /// The CPUs that every thread of the device is bound to instead, by number, whatever `pin` says.
    pub affinity: Option<Vec<u16>>,
    /// Whether the device outlives its server, and how; absent: it ends with it.
    pub recovery: Option<Recovery>,
    /// Limits of the device's requests and bytes per second; see [`Device::throttle`](super::Device::throttle).
    pub throttle: ThrottleLimits,
    /// After how long a request in flight, or a reactor without an answer, counts as stalled, 0.1 s to an
    /// hour: see [`Device::stalls`](super::Device::stalls); absent: nothing is looked at. A device with this
    /// option links no step to a commit, which costs a lone request a system call more, and no handler's
    /// thread commits a request by itself.
    pub watchdog: Option<Duration>,
    /// Called before the device starts; [`Device::recover`](super::Device::recover) ignores it.
    pub before_start: Option<BeforeStart>,
    /// Whether the kernel looks for partitions when the device starts (not looking: Linux 7.0).
    pub part_scan: bool,
    /// A device for a user who is not root, and nobody else may open (Linux 6.3). It copies, and
    /// has no recovery.
    pub unprivileged: bool,
    /// How far apart the descriptors are that the kernel shares with the server, in bytes: 24 to
    /// 256, a multiple of 8 (Linux 7.3); absent: the kernel's own 24.
    pub io_desc_size: Option<u16>,
    /// How many threads the tags of all queues are dealt out to, one tag after another, 1 to 1024: a
    /// client on one CPU then keeps all of them busy (`UBLK_F_PER_IO_DAEMON`, Linux 6.16, unless it
    /// is 1). A thread for which there is no tag is not started. Absent: each queue has a thread of
    /// its own. In a [`Pool`](super::Pool), into so many parts the queues are divided, which go to
    /// its reactors. Not with [`ExchangeMode::Batch`] or targets that answer elsewhere.
    pub threads: Option<u16>,
    /// How long a queue's thread looks for work before it sleeps, at most a second; 0: not at all.
    /// Saves most of what a wake-up costs at low depth, and keeps a CPU busy meanwhile; a thread
    /// that looks in vain several times stops, and tries again after 256 waits. One that looks lets
    /// others have its CPU. Ignored in a [`Pool`](super::Pool), which has a limit of its own.
    pub spin: Duration,
    /// How long the kernel may take to start, stop or delete the device.
    pub limit: Duration,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            id: None,
            queues: 1,
            depth: 128,
            max_io_bytes: 1 << 20,
            buffers: Vec::new(),
            exchange: None,
            split_register: false,
            rings_apart: false,
            rotate_slots: false,
            pin: true,
            queue: QueueSettings::default(),
            limits: Limits::default(),
            affinity: None,
            recovery: None,
            throttle: ThrottleLimits::default(),
            watchdog: None,
            before_start: None,
            part_scan: true,
            unprivileged: false,
            io_desc_size: None,
            threads: None,
            spin: Duration::ZERO,
            limit: Duration::from_secs(30),
        }
    }
}

impl DeviceOptions {
    /// Checks what can be checked without the kernel.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`], naming the option, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |message: String| Err(Error::new(Code::InvalidArgument, message));
        if !(1..=ublk_sys::UBLK_MAX_QUEUE_DEPTH).contains(&self.depth) {
            return refuse(format!("depth is {}; it must be from 1 to 4096", self.depth));
        }
        if !(1..=4096).contains(&self.queues) {
            return refuse(format!("queues is {}; it must be from 1 to 4096", self.queues));
        }
        if self.max_io_bytes < 4096
            || self.max_io_bytes > 32 << 20
            || !self.max_io_bytes.is_multiple_of(4096)
        {
            return refuse(format!(
                "maxIoBytes is {}; it must be a multiple of 4096 from 4096 to 33554432",
                self.max_io_bytes
            ));
        }
        if let Some(threads) = self.threads.filter(|threads| !(1..=1024).contains(threads)) {
            return refuse(format!("threads is {threads}; it must be from 1 to 1024"));
        }
        validate_spin(self.spin)?;
        if let Some(after) = self.watchdog.filter(|after| !WATCHDOG.contains(after)) {
            let after = after.as_millis();
            return refuse(format!("watchdog.afterMs is {after}; it must be from 100 to 3600000"));
        }
        self.queue.validate(self.max_io_bytes)?;
        self.limits.validate()?;
        self.throttle.validate()?;
        if let Some(size) =
            self.io_desc_size.filter(|size| !(24..=256).contains(size) || size % 8 != 0)
        {
            return refuse(format!(
                "ioDescSize is {size}; it must be a multiple of 8 from 24 to 256"
            ));
        }
        self.affinity.as_deref().map_or(Ok(()), affinity::validate)?;
        Choices::of(self).check()
    }

    /// Whether one queue's tags have several threads.
    pub(super) fn spreads(&self) -> bool {
        self.threads.is_some_and(|threads| threads > 1)
    }

    /// The mode that every request is served with, if one was asked for.
    pub(super) fn base(&self) -> Option<BufferMode> {
        let zero_copy = self.buffers.iter().find(|mode| mode.is_zero_copy());
        let any = self.buffers.iter().find(|&&mode| mode != BufferMode::Shared);
        zero_copy.or(any).copied()
    }
}

/// The range of the watchdog's patience.
const WATCHDOG: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// Longer than that is no looking but staring.
const MAX_SPIN: Duration = Duration::from_secs(1);

pub(super) fn validate_spin(spin: Duration) -> Result<()> {
    if spin <= MAX_SPIN {
        return Ok(());
    }
    let message = format!("spinUsec is {}; it must be from 0 to 1000000", spin.as_micros());
    Err(Error::new(Code::InvalidArgument, message))
}

/// The state of a device, `UBLK_S_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Added but not started, or its server is gone.
    Dead,
    /// Serving.
    Live,
    /// Its server is gone; requests wait for a new one.
    Quiesced,
    /// Its server is gone; requests fail until there is a new one.
    FailIo,
}

/// A device as the kernel describes it now.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The number N of `/dev/ublkbN`.
    pub id: u32,
    /// Its state.
    pub state: DeviceState,
    /// Hardware queues.
    pub queues: u16,
    /// Requests of one queue in flight at once.
    pub depth: u16,
    /// The largest request, in bytes.
    pub max_io_bytes: u32,
    /// The process that serves it; absent while none does.
    pub server_pid: Option<u32>,
    /// `UBLK_F_*` in force.
    pub flags: u64,
    /// Its size in bytes; absent before its parameters are set, and while it is not known because
    /// the kernel is busy with the device (it stops, for example).
    pub size: Option<u64>,
    /// Its logical block size in bytes; absent as `size` is.
    pub logical_block: Option<u32>,
    /// Whether writes are refused; absent as `size` is.
    pub read_only: Option<bool>,
    /// Who created it.
    pub owner_uid: u32,
    /// Their group.
    pub owner_gid: u32,
    /// Whether it outlives its server, and how.
    pub recovery: Option<Recovery>,
}
