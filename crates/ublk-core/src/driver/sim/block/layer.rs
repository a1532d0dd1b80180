//! The block layer above the driver: requests, tags, completion.

use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_VOLATILE_CACHE, UBLK_IO_F_FUA, UBLK_IO_OP_FLUSH, UBLK_IO_OP_READ,
    UBLK_IO_OP_REPORT_ZONES, UBLK_IO_OP_WRITE, UBLK_IO_OP_ZONE_APPEND,
};

use crate::driver::sim::users::client::Done;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

use crate::driver::sim::block::protection;
use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::device::Stop;
use crate::driver::sim::ublk_drv::shared::Span;
use crate::driver::sim::uring::ring::Work;

/// The pages of a read hold this byte until the server fills the pages.
pub const POISON: u8 = 0xa5;

/// One block request.
#[derive(Debug)]
pub(crate) struct BlockRequest {
    pub(crate) device: usize,
    pub(crate) queue: u16,
    pub(crate) tag: Option<Tag>,
    pub(crate) op: u8,
    pub(crate) flags: u32,
    /// Offset of the remainder of the request, in bytes.
    pub(crate) offset: u64,
    /// Length of the remainder of the request, in bytes.
    pub(crate) left: u32,
    /// Bytes that copy mode has completed.
    pub(crate) done: usize,
    pub(crate) data: Vec<u8>,
    /// Metadata of a device with integrity.
    pub(crate) metadata: Vec<u8>,
    /// Sector of the append, from the server's commit.
    pub(crate) landed: Option<u64>,
    /// Bytes at the end of a write that the server never gets, and that the driver reports as written.
    pub(crate) lost: u32,
    /// The pages of a request in shared memory, instead of `data`.
    pub(crate) memory: Option<Span>,
    /// Index of the shared buffer that holds the pages, and the offset in the buffer.
    pub(crate) place: Option<(u16, u32)>,
    pub(crate) started: bool,
    /// RQF_IO_STAT: the request counts as in flight.
    pub(crate) counted: bool,
    /// Start of the request; kept when the request is requeued or ends.
    pub(crate) since: Option<Instant>,
    /// A flush follows the write: the device has a volatile cache and no FUA.
    pub(crate) flush_after: bool,
    pub(crate) outcome: Option<Result<(), i32>>,
    /// The kernel made the request, for example to find partitions: no client gets the result.
    pub(crate) unasked: bool,
}

impl BlockRequest {
    pub(crate) fn has_data(&self) -> bool {
        self.reads() || matches!(self.op, UBLK_IO_OP_WRITE | UBLK_IO_OP_ZONE_APPEND)
    }

    /// Whether the request transfers data to the client.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.op, UBLK_IO_OP_READ | UBLK_IO_OP_REPORT_ZONES)
    }

    /// The data of a read.
    pub(crate) fn into_read(self) -> Vec<u8> {
        match (self.reads(), self.memory) {
            (true, Some(mut memory)) => memory.bytes().to_vec(),
            (true, None) => self.data,
            _ => Vec::new(),
        }
    }

    /// The result that the client gets.
    pub(crate) fn into_done(mut self, ticket: u64) -> Done {
        let result = self.outcome.unwrap_or(Err(libc::EIO));
        let metadata = std::mem::take(&mut self.metadata);
        let metadata = if self.reads() { metadata } else { Vec::new() };
        let landed = self.landed.map(|sector| sector << 9);
        Done { ticket, result, metadata, landed, lost: self.lost, data: self.into_read() }
    }

    /// The pages of the remainder of the request.
    pub(crate) fn pages(&mut self) -> &mut [u8] {
        match &mut self.memory {
            Some(memory) => &mut memory.bytes()[self.done..],
            None => &mut self.data[self.done..],
        }
    }
}

impl Model {
    /// `submit_bio`: the client submits a request.
    pub(crate) fn submit_request(&mut self, mut request: BlockRequest) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let device = &mut self.devices[request.device];
        let attributes = device.params.basic.attrs;
        let cache = attributes & UBLK_ATTR_VOLATILE_CACHE != 0;
        if request.flags & UBLK_IO_F_FUA != 0 && !(cache && attributes & UBLK_ATTR_FUA != 0) {
            request.flags &= !UBLK_IO_F_FUA;
            request.flush_after = cache;
        }
        if request.outcome.is_some() {
            // The block layer refused the request.
        } else if !device.disk || device.stop != Stop::No {
            request.outcome = Some(Err(libc::EIO));
        } else if request.op == UBLK_IO_OP_FLUSH && !cache {
            request.outcome = Some(Ok(()));
        } else {
            device.queues[usize::from(request.queue)].waiting.push_back(id);
        }
        let (device, queue) = (request.device, request.queue);
        self.requests.insert(id, request);
        self.pump(device, queue);
        id
    }

    /// Gives free tags to waiting requests.
    pub(crate) fn pump(&mut self, device: usize, queue: u16) {
        loop {
            if self.devices[device].frozen || self.devices[device].stop == Stop::Quiesced {
                return;
            }
            let usable = self.devices[device].tags_in_use();
            let q = &mut self.devices[device].queues[usize::from(queue)];
            let free: Vec<usize> = (0..usable).filter(|&t| q.tags[t].is_none()).collect();
            if free.is_empty() {
                return;
            }
            let Some(id) = q.waiting.pop_front() else { return };
            // sbitmap spreads tags by CPU: the order means nothing to a server.
            let tag = free[self.rng.index(free.len())];
            let q = &mut self.devices[device].queues[usize::from(queue)];
            q.tags[tag] = Some(id);
            let tag = u16::try_from(tag).unwrap_or(u16::MAX);
            self.request(id).tag = Some(Tag::new(tag));
            if let Err(errno) = self.queue_rq(id) {
                self.close_request(id, Err(errno));
            }
        }
    }

    pub(crate) fn request(&mut self, id: u64) -> &mut BlockRequest {
        self.requests.get_mut(&id).expect("a request is used only while it exists")
    }

    /// ublk_queue_rq: starts a request that has a tag, or returns the errno of a request that fails at once.
    pub(crate) fn queue_rq(&mut self, id: u64) -> Result<(), i32> {
        let device = self.request(id).device;
        let counted = self.devices[device].counts_requests();
        let request = self.request(id);
        (request.started, request.counted) = (true, counted);
        request.since = Some(Instant::now());
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let found = &self.devices[device].queues[usize::from(queue)];
        if found.fail_io {
            // BLK_STS_TARGET.
            return Err(libc::EREMOTEIO);
        }
        let queues_without_server = self.devices[device].queues_without_server();
        if queues_without_server && found.events.force_abort {
            return Err(libc::EIO);
        }
        if found.canceling {
            if queues_without_server {
                self.put_back(id);
                return Ok(());
            }
            return Err(libc::EIO);
        }
        if self.devices[device].batches() {
            self.queue_event(device, queue, tag);
            return Ok(());
        }
        let Some((ring, _)) = self.io(device, queue, tag).cmd else { return Err(libc::EIO) };
        self.ring(ring).work.push_back(Work::Dispatch(id));
        Ok(())
    }

    /// Ends a request and gives the tag to the next waiting request.
    pub(crate) fn end_request(&mut self, id: u64, result: Result<(), i32>) {
        let request = self.request(id);
        let (device, queue) = (request.device, request.queue);
        self.close_request(id, result);
        self.pump(device, queue);
        self.advance_stop(device);
    }

    fn close_request(&mut self, id: u64, result: Result<(), i32>) {
        self.check_age(id);
        let result = result.and_then(|()| self.verify(id));
        let request = self.request(id);
        let (device, queue) = (request.device, usize::from(request.queue));
        let tag = request.tag.take();
        request.started = false;
        let again = request.flush_after && result.is_ok();
        if again {
            request.flush_after = false;
            request.op = UBLK_IO_OP_FLUSH;
            request.offset = 0;
            request.left = 0;
        } else {
            request.outcome = Some(result);
        }
        let q = &mut self.devices[device].queues[queue];
        if let Some(tag) = tag {
            q.tags[tag.index()] = None;
        }
        if again {
            q.waiting.push_front(id);
        }
        self.note(|| format!("request {id} ends with {result:?}"));
    }

    /// bio_integrity_verify_fn: fails a read whose data and metadata do not match.
    fn verify(&mut self, id: u64) -> Result<(), i32> {
        let device = &self.devices[self.requests[&id].device];
        let (format, has_integrity) = (device.params.integrity, device.has_integrity());
        let request = self.request(id);
        if request.op != UBLK_IO_OP_READ || !has_integrity {
            return Ok(());
        }
        let (offset, metadata) = (request.offset, std::mem::take(&mut request.metadata));
        let verified = protection::verify(&format, offset, request.pages(), &metadata);
        request.metadata = metadata;
        verified
    }

    /// ublk_timeout: sends SIGKILL to the server of an unprivileged device when a request is older than
    /// `BLK_MQ_RQ_TIMEOUT`.
    fn check_age(&mut self, id: u64) {
        const OLDEST: Duration = Duration::from_secs(30);
        let speed = self.config.kernel.speed;
        let request = self.request(id);
        let (device, started) = (request.device, request.started);
        let age = request.since.map_or(Duration::ZERO, |since| since.elapsed() * speed);
        if started && age >= OLDEST && self.devices[device].is_unprivileged() {
            self.violate(Rule::Age, format!("request {id} of device {device} was {age:?} old"));
        }
    }

    /// blk_mq_requeue_request for the remainder of a request; the request keeps the tag.
    pub(crate) fn requeue(&mut self, id: u64, done: u32) {
        let request = self.request(id);
        request.done += done as usize;
        request.offset += u64::from(done);
        request.left -= done;
        request.started = false;
        if let Err(errno) = self.queue_rq(id) {
            self.end_request(id, Err(errno));
        }
    }
}

/// errno_to_blk_status and back: the errno that the client gets for an errno of the server.
pub(crate) fn errno_to_client(errno: i32) -> i32 {
    const KNOWN: [i32; 16] = [
        libc::EOPNOTSUPP,
        libc::ETIMEDOUT,
        libc::ENOSPC,
        libc::ENOLINK,
        libc::EREMOTEIO,
        libc::EBADE,
        libc::ENODATA,
        libc::EILSEQ,
        libc::ENOMEM,
        libc::EBUSY,
        libc::EAGAIN,
        libc::ENODEV,
        libc::ETIME,
        libc::EINVAL,
        // Too many open or active zones.
        libc::ETOOMANYREFS,
        libc::EOVERFLOW,
    ];
    if KNOWN.contains(&errno) { errno } else { libc::EIO }
}
