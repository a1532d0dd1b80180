//! Commands on `/dev/ublkcN` of a batch device: ublk_ch_batch_io_uring_cmd and what it calls.

use ublk_sys::{
    IORING_URING_CMD_MULTISHOT, UBLK_AUTO_BUF_REG_FALLBACK, UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK,
    UBLK_BATCH_F_HAS_BUF_ADDR, UBLK_BATCH_F_HAS_ZONE_LBA, UBLK_U_IO_COMMIT_IO_CMDS,
    UBLK_U_IO_FETCH_IO_CMDS, UBLK_U_IO_PREP_IO_CMDS, UBLK_U_IO_REGISTER_IO_BUF,
    UBLK_U_IO_UNREGISTER_IO_BUF, ublk_auto_buf_reg, ublk_auto_buf_reg_to_sqe_addr, ublk_batch_io,
    ublk_elem_header, ublk_sqe_addr_to_auto_buf_reg,
};

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::memory;
use crate::driver::sim::ublk_drv::chan::Call;
use crate::driver::sim::ublk_drv::device::{ACTIVE, AUTO_REGISTERED, OWNED_BY_SRV};
use crate::driver::sim::uring::ops::Issued;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

const HEADER: usize = size_of::<ublk_elem_header>();
const ADDRESS: usize = size_of::<u64>();

/// One element of a PREP or COMMIT.
struct Element {
    tag: Tag,
    result: i32,
    /// What [`Io::buf`](crate::driver::sim::ublk_drv::device::Io::buf) becomes.
    buf: u64,
    /// Where an append went, in sectors.
    landed: u64,
}

impl Model {
    pub(crate) fn batch_cmd(&mut self, op: u32, call: &Call) -> Issued {
        let batch = self.ring(call.ring).ops[call.operation].sqe.batch_io();
        let result = match op {
            UBLK_U_IO_PREP_IO_CMDS => self.prep(call, &batch),
            UBLK_U_IO_COMMIT_IO_CMDS => self.commit_batch(call, &batch),
            UBLK_U_IO_FETCH_IO_CMDS => match self.check_fetch(call, &batch) {
                Ok(()) => return self.attach(call.device, batch.q_id, call.pending()),
                Err(errno) => Err(errno),
            },
            _ => return self.non_batch_cmd(op, call),
        };
        match result {
            Ok(done) => Issued::Done(done),
            Err(errno) => {
                // Nothing the server could know: the device stops, or the model wanted it so.
                if !matches!(errno, libc::ENODEV | libc::EFAULT) {
                    let rule =
                        if op == UBLK_U_IO_COMMIT_IO_CMDS { Rule::Commit } else { Rule::Fetch };
                    self.violate(rule, format!("{op:#x} {batch:?}: errno {errno}"));
                }
                Issued::Failed(errno)
            }
        }
    }

    /// ublk_handle_non_batch_cmd.
    fn non_batch_cmd(&mut self, op: u32, call: &Call) -> Issued {
        if op == UBLK_U_IO_UNREGISTER_IO_BUF {
            return self.unregister(op, call);
        }
        let info = &self.devices[call.device].info;
        if call.cmd.q_id >= info.nr_hw_queues || call.cmd.tag >= info.queue_depth {
            return self.refuse(op, call, libc::EINVAL);
        }
        if op == UBLK_U_IO_REGISTER_IO_BUF {
            return self.register(call, false);
        }
        self.refuse(op, call, libc::EOPNOTSUPP)
    }

    /// ublk_check_batch_cmd.
    fn check_batch(&self, call: &Call, batch: &ublk_batch_io) -> Result<(), i32> {
        const KNOWN: u16 = UBLK_BATCH_F_HAS_ZONE_LBA
            | UBLK_BATCH_F_HAS_BUF_ADDR
            | UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK;
        let device = &self.devices[call.device];
        if batch.q_id >= device.info.nr_hw_queues {
            return Err(libc::EINVAL);
        }
        if batch.nr_elem > device.info.queue_depth {
            return Err(libc::E2BIG);
        }
        let has = |flag: u16| batch.flags & flag != 0;
        let addresses = has(UBLK_BATCH_F_HAS_BUF_ADDR);
        let fallback = has(UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK);
        let landings = has(UBLK_BATCH_F_HAS_ZONE_LBA);
        let bytes = HEADER + ADDRESS * (usize::from(addresses) + usize::from(landings));
        let wrong = landings && !device.is_zoned()
            || addresses && (!device.copies() || fallback)
            || fallback && !device.auto_registers()
            || batch.flags & !KNOWN != 0
            || usize::from(batch.elem_bytes) != bytes;
        if wrong { Err(libc::EINVAL) } else { Ok(()) }
    }

    /// ublk_validate_batch_fetch_cmd.
    fn check_fetch(&mut self, call: &Call, batch: &ublk_batch_io) -> Result<(), i32> {
        let sqe = self.ring(call.ring).ops[call.operation].sqe;
        let valid = batch.q_id < self.devices[call.device].info.nr_hw_queues
            && sqe.op_flags & IORING_URING_CMD_MULTISHOT != 0
            && usize::from(batch.elem_bytes) == size_of::<u16>()
            && batch.flags == 0;
        if valid { Ok(()) } else { Err(libc::EINVAL) }
    }

    /// ublk_walk_cmd_buf, all at once.
    fn elements(&mut self, call: &Call, batch: &ublk_batch_io) -> Result<Vec<Element>, i32> {
        let size = usize::from(batch.elem_bytes);
        let mut bytes = vec![0; usize::from(batch.nr_elem) * size];
        if call.sqe_addr == 0 && !bytes.is_empty() {
            self.violate(Rule::Memory, format!("no elements at all: {batch:?}"));
            return Err(libc::EFAULT);
        }
        memory::load(call.sqe_addr, &mut bytes);
        let auto = self.devices[call.device].auto_registers();
        Ok(bytes.chunks_exact(size).map(|bytes| Element::parse(bytes, batch, auto)).collect())
    }

    /// ublk_handle_batch_prep_cmd: all or nothing.
    fn prep(&mut self, call: &Call, batch: &ublk_batch_io) -> Result<i32, i32> {
        self.check_batch(call, batch)?;
        let elements = self.elements(call, batch)?;
        for (at, element) in elements.iter().enumerate() {
            if let Err(errno) = self.prep_io(call.device, batch.q_id, element) {
                for element in &elements[..at] {
                    self.unprep_io(call.device, batch.q_id, element.tag);
                }
                return Err(errno);
            }
        }
        Ok(0)
    }

    /// ublk_batch_prep_io.
    fn prep_io(&mut self, device: usize, queue: u16, element: &Element) -> Result<(), i32> {
        let found = &self.devices[device];
        if element.tag.number() >= found.info.queue_depth || found.copies() && element.buf == 0 {
            return Err(libc::EINVAL);
        }
        if found.stopping {
            // UBLK_IO_RES_ABORT.
            return Err(libc::ENODEV);
        }
        if found.ready() {
            return Err(libc::EBUSY);
        }
        let io = self.io(device, queue, element.tag);
        if io.flags & ACTIVE != 0 {
            return Err(libc::EINVAL);
        }
        io.flags = (io.flags | ACTIVE) & !OWNED_BY_SRV;
        io.buf = element.buf;
        self.mark_ready(device, queue, element.tag);
        Ok(())
    }

    /// ublk_batch_unprep_io.
    fn unprep_io(&mut self, device: usize, queue: u16, tag: Tag) {
        self.io(device, queue, tag).flags = 0;
        let device = &mut self.devices[device];
        let queue = &mut device.queues[usize::from(queue)];
        if queue.ready == queue.ios.len() {
            device.queues_ready -= 1;
            queue.canceling = true;
        }
        queue.ready -= 1;
    }

    /// ublk_handle_batch_commit_cmd: the bytes of the elements that were taken; an error if none
    /// was.
    fn commit_batch(&mut self, call: &Call, batch: &ublk_batch_io) -> Result<i32, i32> {
        self.check_batch(call, batch)?;
        let elements = self.elements(call, batch)?;
        let mut taken = elements.len();
        if taken > 0 && self.rng.chance(self.config.faults.partial) {
            self.injected.partial += 1;
            taken = self.rng.index(taken);
            self.note(|| format!("injected: {taken} of {} are committed", elements.len()));
        }
        let bytes = |count: usize| i32::try_from(count * usize::from(batch.elem_bytes));
        for (at, element) in elements.iter().enumerate() {
            let result = if at == taken {
                Err(libc::EFAULT)
            } else {
                self.commit_io(call, batch.q_id, element)
            };
            match result {
                Ok(()) => {}
                Err(errno) if at == 0 => return Err(errno),
                Err(errno) => {
                    if at != taken {
                        let what = format!("element {at} of {batch:?}: errno {errno}");
                        self.violate(Rule::Commit, what);
                    }
                    return bytes(at).map_err(|_| libc::EINVAL);
                }
            }
        }
        bytes(elements.len()).map_err(|_| libc::EINVAL)
    }

    /// ublk_batch_commit_io.
    fn commit_io(&mut self, call: &Call, queue: u16, element: &Element) -> Result<(), i32> {
        let (device, tag) = (call.device, element.tag);
        if tag.number() >= self.devices[device].info.queue_depth {
            return Err(libc::EINVAL);
        }
        let io = self.io(device, queue, tag);
        if io.flags & OWNED_BY_SRV == 0 {
            return Err(libc::EBUSY);
        }
        if self.devices[device].copies() && element.buf == 0 {
            return Err(libc::EINVAL);
        }
        let io = self.io(device, queue, tag);
        let id = io.request.take().ok_or(libc::EBUSY)?;
        let registered = io.flags & AUTO_REGISTERED != 0 && io.ring_of_buffer == Some(call.ring);
        let slot = ublk_sqe_addr_to_auto_buf_reg(io.buf).index;
        io.res = element.result;
        io.flags = (io.flags | ACTIVE) & !(OWNED_BY_SRV | AUTO_REGISTERED);
        io.buf = element.buf;
        self.check_result(id, element.result);
        let last = !self.devices[device].counts_references()
            || self.drop_dispatch_references(device, queue, tag);
        if registered {
            // Its result means nothing to the commit.
            let _ = self.unregister_node(call.ring, u64::from(slot), None);
        }
        self.land(id, element.landed);
        if last {
            self.complete_rq(device, queue, tag, id);
        }
        Ok(())
    }
}

impl Element {
    fn parse(bytes: &[u8], batch: &ublk_batch_io, auto: bool) -> Self {
        let fallback = batch.flags & UBLK_BATCH_F_AUTO_BUF_REG_FALLBACK != 0;
        let registration = ublk_auto_buf_reg {
            index: u16::from_ne_bytes([bytes[2], bytes[3]]),
            flags: if fallback { UBLK_AUTO_BUF_REG_FALLBACK } else { 0 },
            ..Default::default()
        };
        let word = |at: usize| match bytes[HEADER + at * ADDRESS..].first_chunk::<ADDRESS>() {
            Some(&word) => u64::from_ne_bytes(word),
            None => 0,
        };
        let addresses = usize::from(batch.flags & UBLK_BATCH_F_HAS_BUF_ADDR != 0);
        let address = if addresses == 1 { word(0) } else { 0 };
        let landings = batch.flags & UBLK_BATCH_F_HAS_ZONE_LBA != 0;
        Self {
            landed: if landings { word(addresses) } else { u64::MAX },
            tag: Tag::new(u16::from_ne_bytes([bytes[0], bytes[1]])),
            result: i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            buf: if auto { ublk_auto_buf_reg_to_sqe_addr(&registration) } else { address },
        }
    }
}
