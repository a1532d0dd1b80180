//! Whoever uses `/dev/ublkbN`: submits block requests and sees what becomes of them.

use ublk_sys::{
    UBLK_IO_F_FUA, UBLK_IO_F_NOUNMAP, UBLK_IO_OP_DISCARD, UBLK_IO_OP_FLUSH, UBLK_IO_OP_READ,
    UBLK_IO_OP_WRITE, UBLK_IO_OP_WRITE_ZEROES,
};

use super::block::{BlockRequest, POISON};
use super::model::Model;
use super::power::Power;
use super::{Sim, SimMemory};

/// A block request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOp {
    /// Reads this many bytes.
    Read {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// Writes these bytes.
    Write {
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Vec<u8>,
        /// Durable before it completes.
        fua: bool,
    },
    /// Makes everything that has completed durable.
    Flush,
    /// Gives a range up.
    Discard {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
    },
    /// Makes a range read as zeros.
    WriteZeroes {
        /// Where, in bytes.
        offset: u64,
        /// How many bytes.
        length: u32,
        /// The range must keep its space.
        no_unmap: bool,
    },
}

/// A request that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What [`Client::submit`] answered.
    pub ticket: u64,
    /// Success, or the errno that the client sees.
    pub result: Result<(), i32>,
    /// A read's pages, whatever is in them: [`POISON`] where nobody wrote.
    pub data: Vec<u8>,
}

/// An opener of `/dev/ublkbN`.
#[derive(Debug)]
pub struct Client {
    pub(super) sim: Sim,
    pub(super) device: usize,
}

impl Client {
    pub(super) fn new(sim: Sim, device: usize) -> Self {
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

    pub(super) fn enter(
        &self,
        model: &mut Model,
        op: &ClientOp,
        queue: Option<u16>,
        memory: Option<(&SimMemory, usize)>,
    ) -> u64 {
        let queues = model.devices[self.device].info.nr_hw_queues;
        let any = u16::try_from(model.rng.below(u64::from(queues))).unwrap_or(0);
        let mut request = op.to_request(self.device, queue.unwrap_or(any));
        if let Some((memory, at)) = memory {
            let mut span = memory.span(at, request.data.len());
            span.bytes().copy_from_slice(&request.data);
            request.memory = Some(span);
        }
        let device = &model.devices[self.device];
        let params = &device.params;
        let end = request.offset + u64::from(request.left);
        let block = 1 << params.basic.logical_bs_shift;
        assert!(request.offset.is_multiple_of(block) && end.is_multiple_of(block), "{op:?}");
        let limit = match request.op {
            UBLK_IO_OP_DISCARD => params.discard.max_discard_sectors,
            UBLK_IO_OP_WRITE_ZEROES => params.discard.max_write_zeroes_sectors,
            _ => params.basic.max_sectors,
        };
        if end > params.basic.dev_sectors << 9 || model.power == Power::Off {
            request.outcome = Some(Err(libc::EIO));
        } else if limit == 0 {
            request.outcome = Some(Err(libc::EOPNOTSUPP));
        } else {
            assert!(request.left >> 9 <= limit, "{op:?} is longer than {limit} sectors");
        }
        let next = model.next_request;
        model.note(|| format!("client: request {next} is {}", op.describe()));
        model.submit_request(request)
    }

    /// Takes the requests of this device that have ended since the last time.
    pub fn take(&self) -> Vec<Done> {
        let mut model = self.sim.lock();
        let ended =
            |request: &BlockRequest| request.device == self.device && request.outcome.is_some();
        let tickets: Vec<u64> =
            model.requests.iter().filter(|(_, r)| ended(r)).map(|(&ticket, _)| ticket).collect();
        let take = |ticket: u64| {
            let request = model.requests.remove(&ticket)?;
            let (result, data) = (request.outcome?, request.into_read());
            Some(Done { ticket, result, data })
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
    /// [`Waiting::Blocking`]: super::Waiting::Blocking
    pub fn run(&self, op: &ClientOp) -> Done {
        let ticket = self.submit(op, None);
        let mut model = self.sim.lock();
        loop {
            if model.requests.get(&ticket).is_none_or(|request| request.outcome.is_some()) {
                break;
            }
            model = self.sim.sleep(model);
        }
        let request = model.requests.remove(&ticket);
        let result = request.as_ref().and_then(|r| r.outcome).unwrap_or(Err(libc::EIO));
        Done { ticket, result, data: request.map(BlockRequest::into_read).unwrap_or_default() }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.sim.lock().devices[self.device].openers -= 1;
    }
}

impl ClientOp {
    fn to_request(&self, device: usize, queue: u16) -> BlockRequest {
        let (op, flags, offset, left, data) = match self {
            Self::Read { offset, length } => {
                (UBLK_IO_OP_READ, 0, *offset, *length, vec![POISON; *length as usize])
            }
            Self::Write { offset, data, fua } => {
                let length = u32::try_from(data.len()).expect("within the device's limits");
                let flags = if *fua { UBLK_IO_F_FUA } else { 0 };
                (UBLK_IO_OP_WRITE, flags, *offset, length, data.clone())
            }
            Self::Flush => (UBLK_IO_OP_FLUSH, 0, 0, 0, Vec::new()),
            Self::Discard { offset, length } => {
                (UBLK_IO_OP_DISCARD, 0, *offset, *length, Vec::new())
            }
            Self::WriteZeroes { offset, length, no_unmap } => {
                let flags = if *no_unmap { UBLK_IO_F_NOUNMAP } else { 0 };
                (UBLK_IO_OP_WRITE_ZEROES, flags, *offset, *length, Vec::new())
            }
        };
        BlockRequest {
            device,
            queue,
            tag: None,
            op,
            flags,
            offset,
            left,
            done: 0,
            data,
            memory: None,
            place: None,
            started: false,
            flush_after: false,
            outcome: None,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::Write { offset, data, fua } => {
                format!("Write {{ offset: {offset}, {} bytes, fua: {fua} }}", data.len())
            }
            other => format!("{other:?}"),
        }
    }
}
