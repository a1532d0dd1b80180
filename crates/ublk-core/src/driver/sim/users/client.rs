//! Whoever uses `/dev/ublkbN`: submits block requests and sees what becomes of them.

use std::time::{Duration, Instant};

use crate::driver::sim::block::layer::{BlockRequest, POISON};
use crate::driver::sim::block::protection;
use crate::driver::sim::model::Model;
use crate::driver::sim::storage::power::Power;
use crate::driver::sim::users::op::ClientOp;
use crate::driver::sim::{Sim, SimMemory};

/// How long [`Client::run`] waits.
const LONGEST_RUN: Duration = Duration::from_secs(60);

/// A request that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What [`Client::submit`] answered.
    pub ticket: u64,
    /// Success, or the errno that the client sees.
    pub result: Result<(), i32>,
    /// A read's pages, whatever is in them: [`POISON`] where nobody wrote.
    pub data: Vec<u8>,
    /// A read's metadata, on a device that has such.
    pub metadata: Vec<u8>,
    /// Where an append went, in bytes, as the server has said.
    pub landed: Option<u64>,
    /// Bytes at the end of a write that the driver has lost, although it reports success (trap 63).
    pub lost: u32,
}

/// An opener of `/dev/ublkbN`.
#[derive(Debug)]
pub struct Client {
    pub(crate) sim: Sim,
    pub(crate) device: usize,
}

impl Client {
    pub(crate) fn new(sim: Sim, device: usize) -> Self {
        sim.lock().devices[device].openers += 1;
        Self { sim, device }
    }

    /// Submits a request to a queue, or to any.
    ///
    /// What the block layer would split is not taken.
    ///
    /// # Panics
    /// When the request is longer than the device's limits or not aligned to its blocks.
    pub fn submit(&self, op: &ClientOp, queue: Option<u16>) -> u64 {
        self.submit_in(op, queue, None)
    }

    /// The same, on memory at an offset of its own if given: that is where the data of a write is
    /// put first, and where a read's comes. It must not be touched before the request has ended.
    ///
    /// # Panics
    /// As [`submit`](Self::submit), and beyond the memory's end.
    pub fn submit_in(
        &self,
        op: &ClientOp,
        queue: Option<u16>,
        memory: Option<(&SimMemory, usize)>,
    ) -> u64 {
        let mut model = self.sim.lock();
        let ticket = self.enter(&mut model, op, queue, memory);
        drop(model);
        self.sim.wake();
        ticket
    }

    /// A write whose metadata the client has made, on a device with integrity; of other writes the block
    /// layer makes it.
    ///
    /// # Panics
    /// As [`submit`](Self::submit).
    pub fn submit_with(&self, op: &ClientOp, metadata: Vec<u8>) -> u64 {
        let mut model = self.sim.lock();
        let queue = self.any_queue(&mut model);
        let request = BlockRequest { metadata, ..op.to_request(self.device, queue) };
        let ticket = self.enter_request(&mut model, op, request);
        drop(model);
        self.sim.wake();
        ticket
    }

    fn any_queue(&self, model: &mut Model) -> u16 {
        let queues = model.devices[self.device].info.nr_hw_queues;
        u16::try_from(model.rng.below(u64::from(queues))).unwrap_or(0)
    }

    pub(crate) fn enter(
        &self,
        model: &mut Model,
        op: &ClientOp,
        queue: Option<u16>,
        memory: Option<(&SimMemory, usize)>,
    ) -> u64 {
        let any = self.any_queue(model);
        let mut request = op.to_request(self.device, queue.unwrap_or(any));
        if let Some((memory, at)) = memory {
            let mut span = memory.span(at, request.data.len());
            span.bytes().copy_from_slice(&request.data);
            request.memory = Some(span);
        }
        self.enter_request(model, op, request)
    }

    fn enter_request(&self, model: &mut Model, op: &ClientOp, mut request: BlockRequest) -> u64 {
        let device = &model.devices[self.device];
        let params = &device.params;
        let reach = if let ClientOp::ReportZones { .. } = op { 0 } else { request.left };
        let end = request.offset + u64::from(reach);
        let block = 1 << params.basic.logical_bs_shift;
        assert!(request.offset.is_multiple_of(block) && end.is_multiple_of(block), "{op:?}");
        if end > params.basic.dev_sectors << 9 || model.power == Power::Off {
            request.outcome = Some(Err(libc::EIO));
        }
        match op.limit(params) {
            Some(0) => {
                request.outcome = request.outcome.or(Some(Err(libc::EOPNOTSUPP)));
            }
            Some(limit) => {
                assert!(request.left >> 9 <= limit, "{op:?} is longer than {limit} sectors");
            }
            None => {}
        }
        match op {
            ClientOp::Read { .. } => {
                request.metadata = vec![POISON; device.metadata_of(request.left)];
            }
            ClientOp::Write { .. } if device.has_integrity() && request.metadata.is_empty() => {
                let offset = request.offset;
                let made = protection::generate(&params.integrity, offset, request.pages());
                request.metadata = made;
            }
            _ => {}
        }
        let next = model.next_request;
        model.note(|| format!("client: request {next} is {}", op.describe()));
        model.submit_request(request)
    }

    /// Takes the requests of this device that have ended since the last time.
    pub fn take(&self) -> Vec<Done> {
        let mut model = self.sim.lock();
        // The kernel executes late commands, and ends closed rings, without any ring of a server.
        model.run_late();
        let ended = |r: &BlockRequest| r.device == self.device && r.outcome.is_some() && !r.unasked;
        let tickets: Vec<u64> =
            model.requests.iter().filter(|(_, r)| ended(r)).map(|(&ticket, _)| ticket).collect();
        let take = |ticket: u64| {
            let request = model.requests.remove(&ticket)?;
            Some(request.into_done(ticket))
        };
        tickets.into_iter().filter_map(take).collect()
    }

    /// How many requests have not ended.
    pub fn in_flight(&self) -> usize {
        let model = self.sim.lock();
        let open = |r: &&BlockRequest| r.device == self.device && r.outcome.is_none();
        model.requests.values().filter(open).count()
    }

    /// Submits a request and sleeps until it has ended; for [`Waiting::Blocking`] only.
    ///
    /// [`Waiting::Blocking`]: crate::driver::sim::Waiting::Blocking
    ///
    /// # Panics
    /// When it has not ended after a minute: whoever serves the device has lost it.
    pub fn run(&self, op: &ClientOp) -> Done {
        let ticket = self.submit(op, None);
        let deadline = Instant::now() + LONGEST_RUN;
        let mut model = self.sim.lock();
        loop {
            if model.requests.get(&ticket).is_none_or(|request| request.outcome.is_some()) {
                break;
            }
            if Instant::now() >= deadline {
                // Others use the model while this thread unwinds.
                drop(model);
                panic!("no answer to {op:?} after {LONGEST_RUN:?}");
            }
            model = self.sim.sleep(model);
        }
        match model.requests.remove(&ticket) {
            Some(request) => request.into_done(ticket),
            None => Done {
                ticket,
                result: Err(libc::EIO),
                data: Vec::new(),
                metadata: Vec::new(),
                landed: None,
                lost: 0,
            },
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.sim.lock().devices[self.device].openers -= 1;
    }
}
