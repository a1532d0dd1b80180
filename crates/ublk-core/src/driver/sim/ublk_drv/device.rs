//! The state of a ublk device, with the kernel's names where these names help to compare.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_F_AUTO_BUF_REG, UBLK_F_BATCH_IO, UBLK_F_INTEGRITY, UBLK_F_NEED_GET_DATA, UBLK_F_SHMEM_ZC,
    UBLK_F_SUPPORT_ZERO_COPY, UBLK_F_UNPRIVILEGED_DEV, UBLK_F_USER_COPY, UBLK_F_ZONED, ublk_params,
    ublksrv_ctrl_dev_info, ublksrv_io_desc,
};

use crate::driver::sim::model::Task;
use crate::driver::sim::ublk_drv::events::Events;
use crate::driver::sim::ublk_drv::shared::SharedBuffer;
use crate::tag::Tag;

/// References taken by dispatch; the commit gives the references back.
pub(crate) const REFCOUNT_INIT: u32 = 0x3fff_ffff;

/// Waits for the driver: the command of the tag is pending.
pub(crate) const ACTIVE: u8 = 1;
/// The server has the request.
pub(crate) const OWNED_BY_SRV: u8 = 2;
/// The server must ask for a write's data.
pub(crate) const WANTS_GET_DATA: u8 = 4;
/// The request's buffer was registered at dispatch.
pub(crate) const AUTO_REGISTERED: u8 = 8;
/// The pending command was taken away by a cancel.
pub(crate) const CANCELED: u8 = 16;

/// A pending command: the ring, and the ring's operation.
pub(crate) type Cmd = (usize, usize);

/// `struct ublk_io`: a tag.
#[derive(Debug, Default)]
pub(crate) struct Io {
    /// The copy buffer's address, or the packed automatic registration.
    pub(crate) buf: u64,
    pub(crate) flags: u8,
    pub(crate) res: i32,
    pub(crate) cmd: Option<Cmd>,
    pub(crate) request: Option<u64>,
    pub(crate) task: Option<Task>,
    pub(crate) refs: u32,
    pub(crate) task_registered: u32,
    pub(crate) ring_of_buffer: Option<usize>,
}

/// `struct ublk_queue`, with the queue's blk-mq tags.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) ios: Vec<Io>,
    pub(crate) area: Arc<Area>,
    pub(crate) canceling: bool,
    pub(crate) ready: usize,
    /// The request of each tag.
    pub(crate) tags: Vec<Option<u64>>,
    /// Requests without a tag, in the order of their arrival.
    pub(crate) waiting: VecDeque<u64>,
    /// Requests with a tag, put back because no server could take the requests: a kick sends these
    /// requests out again.
    pub(crate) requeued: VecDeque<u64>,
    /// Requests fail until there is a new server.
    pub(crate) fail_io: bool,
    pub(crate) events: Events,
}

/// The progress of a stop that waits for requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    No,
    /// The queues of a device whose requests wait for servers are quiesced until no request is started.
    Quiesced,
    /// `del_gendisk` waits for the requests in flight.
    Draining,
}

/// The event awaited by a START_DEV that holds the device's mutex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starting {
    No,
    /// The server's report of all zones. `/dev/ublkbN` does not exist yet.
    Zones,
    /// The read of the partition scan.
    Partitions,
}

/// `struct ublk_device`.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) info: ublksrv_ctrl_dev_info,
    pub(crate) params: ublk_params,
    pub(crate) queues: Vec<Queue>,
    pub(crate) queues_ready: usize,
    /// `ub_disk`: requests can be submitted.
    pub(crate) disk: bool,
    /// How many have `/dev/ublkbN` open.
    pub(crate) openers: u32,
    pub(crate) stop: Stop,
    /// UB_STATE_OPEN.
    pub(crate) open: bool,
    /// UB_STATE_DELETED.
    pub(crate) deleted: bool,
    /// A DEL_DEV holds the driver's mutex.
    pub(crate) removing: bool,
    /// When that DEL_DEV began to free the device.
    pub(crate) freed_since: Option<Duration>,
    /// How many ADD_DEVs still find the number taken, once the device is gone.
    pub(crate) lingers: u32,
    /// UB_STATE_STOPPING.
    pub(crate) stopping: bool,
    pub(crate) canceling: bool,
    /// A QUIESCE_DEV waits, and has the mutex.
    pub(crate) quiesced_since: Option<Instant>,
    /// Open descriptors, fixed files, mappings and pending commands of `/dev/ublkcN`.
    pub(crate) files: u32,
    /// The last of these is gone, and the requests' buffers are not yet.
    pub(crate) releasing: bool,
    pub(crate) server: i32,
    /// The number is free again: the device is gone.
    pub(crate) gone: bool,
    /// Memory registered with REG_BUF, by index.
    pub(crate) shared: BTreeMap<u16, SharedBuffer>,
    /// `/sys/block/ublkbN/queue`, as far as settings have been written.
    pub(crate) queue_settings: BTreeMap<String, String>,
    /// blk_mq_freeze_queue: requests get no tags.
    pub(crate) frozen: bool,
    /// A command of somebody else's has the mutex.
    pub(crate) locked: bool,
    pub(crate) starting: Starting,
}

impl Device {
    pub(crate) fn new(info: ublksrv_ctrl_dev_info) -> Self {
        let depth = usize::from(info.queue_depth);
        let stride = stride(&info);
        Self {
            queues: (0..info.nr_hw_queues).map(|_| Queue::new(depth, stride)).collect(),
            info,
            params: ublk_params::default(),
            queues_ready: 0,
            disk: false,
            openers: 0,
            stop: Stop::No,
            open: false,
            deleted: false,
            removing: false,
            freed_since: None,
            lingers: 0,
            stopping: false,
            canceling: false,
            quiesced_since: None,
            files: 0,
            releasing: false,
            server: -1,
            gone: false,
            shared: BTreeMap::new(),
            queue_settings: BTreeMap::new(),
            frozen: false,
            locked: false,
            starting: Starting::No,
        }
    }

    /// Whether the disk has been added: `/dev/ublkbN` exists.
    pub(crate) fn has_node(&self) -> bool {
        self.disk && self.starting != Starting::Zones
    }

    /// The distance between descriptors, in bytes.
    pub(crate) fn stride(&self) -> usize {
        stride(&self.info)
    }

    fn has(&self, flags: u64) -> bool {
        self.info.flags & flags != 0
    }

    pub(crate) fn is_unprivileged(&self) -> bool {
        self.has(UBLK_F_UNPRIVILEGED_DEV)
    }

    pub(crate) fn zero_copy(&self) -> bool {
        self.has(UBLK_F_SUPPORT_ZERO_COPY)
    }

    pub(crate) fn auto_registers(&self) -> bool {
        self.has(UBLK_F_AUTO_BUF_REG)
    }

    /// ublk_dev_support_batch_io.
    pub(crate) fn batches(&self) -> bool {
        self.has(UBLK_F_BATCH_IO)
    }

    pub(crate) fn needs_get_data(&self) -> bool {
        self.has(UBLK_F_NEED_GET_DATA)
    }

    pub(crate) fn user_copies(&self) -> bool {
        self.has(UBLK_F_USER_COPY)
    }

    pub(crate) fn shares(&self) -> bool {
        self.has(UBLK_F_SHMEM_ZC)
    }

    pub(crate) fn is_zoned(&self) -> bool {
        self.has(UBLK_F_ZONED)
    }

    pub(crate) fn has_integrity(&self) -> bool {
        self.has(UBLK_F_INTEGRITY)
    }

    /// The metadata of this many bytes of data, in bytes.
    pub(crate) fn metadata_of(&self, bytes: u32) -> usize {
        let format = &self.params.integrity;
        let intervals = bytes >> if self.has_integrity() { format.interval_exp } else { 31 };
        intervals as usize * usize::from(format.metadata_size)
    }

    /// ublk_dev_need_map_io: the driver copies.
    pub(crate) fn copies(&self) -> bool {
        !self.counts_references()
    }

    /// ublk_dev_need_req_ref.
    pub(crate) fn counts_references(&self) -> bool {
        self.has(UBLK_F_SUPPORT_ZERO_COPY | UBLK_F_AUTO_BUF_REG | UBLK_F_USER_COPY)
    }

    pub(crate) fn ready(&self) -> bool {
        self.queues_ready == self.queues.len()
    }

    /// Whether any request has a tag.
    pub(crate) fn has_tagged(&self) -> bool {
        self.queues.iter().any(|queue| queue.tags.iter().any(Option::is_some))
    }

    /// Whether any request has a tag or waits for a tag.
    pub(crate) fn busy(&self) -> bool {
        self.queues.iter().any(|q| !q.waiting.is_empty() || q.tags.iter().any(Option::is_some))
    }

    pub(crate) fn set_canceling(&mut self) {
        self.canceling = true;
        self.queues.iter_mut().for_each(|queue| queue.canceling = true);
    }

    /// Every tag of every queue, as `(queue, tag)`.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (u16, Tag)> + use<> {
        let depth = self.info.queue_depth;
        (0..self.info.nr_hw_queues)
            .flat_map(move |queue| Tag::all(depth).map(move |tag| (queue, tag)))
    }
}

/// Kernels before 7.3 report none.
fn stride(info: &ublksrv_ctrl_dev_info) -> usize {
    usize::from(info.io_desc_size).max(size_of::<ublksrv_io_desc>())
}

impl Queue {
    fn new(depth: usize, stride: usize) -> Self {
        Self {
            ios: (0..depth).map(|_| Io::default()).collect(),
            area: Arc::new(Area::new(depth, stride)),
            canceling: false,
            ready: 0,
            tags: vec![None; depth],
            waiting: VecDeque::new(),
            requeued: VecDeque::new(),
            fail_io: false,
            events: Events::default(),
        }
    }
}

/// The descriptors of a queue, shared with the server that mapped the descriptors.
#[derive(Debug)]
pub(crate) struct Area {
    words: Box<[AtomicU64]>,
    stride: usize,
}

impl Area {
    fn new(depth: usize, stride: usize) -> Self {
        let words = (0..depth * stride / 8).map(|_| AtomicU64::new(0)).collect();
        Self { words, stride: stride / 8 }
    }

    pub(crate) fn base(&self) -> *const u8 {
        self.words.as_ptr().cast()
    }

    /// Changes the address in a tag's descriptor.
    pub(crate) fn set_address(&self, tag: Tag, address: u64) {
        self.words[tag.index() * self.stride + 2].store(address, Ordering::Relaxed);
    }

    /// Changes the length in a tag's descriptor, in sectors.
    pub(crate) fn set_sectors(&self, tag: Tag, sectors: u32) {
        let word = &self.words[tag.index() * self.stride];
        let [a, b, c, d, ..] = word.load(Ordering::Relaxed).to_ne_bytes();
        let [e, f, g, h] = sectors.to_ne_bytes();
        word.store(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), Ordering::Relaxed);
    }

    pub(crate) fn write(&self, tag: Tag, descriptor: &ublksrv_io_desc) {
        let at = tag.index() * self.stride;
        let low = descriptor.op_flags.to_ne_bytes();
        let high = descriptor.nr_sectors.to_ne_bytes();
        let first = [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]];
        let words = [u64::from_ne_bytes(first), descriptor.start_sector, descriptor.addr];
        for (slot, word) in self.words[at..].iter().zip(words) {
            // Relaxed: the lock of the model orders the store before the completion that announces
            // the request.
            slot.store(word, Ordering::Relaxed);
        }
    }
}
