//! Commands on `/dev/ublkcN`: ublk_ch_uring_cmd_local and what it calls.

use ublk_sys::{
    UBLK_AUTO_BUF_REG_F_MASK, UBLK_F_CMD_IOCTL_ENCODE, UBLK_IO_OP_READ, UBLK_IO_OP_ZONE_APPEND,
    UBLK_IO_RES_OK, UBLK_U_IO_COMMIT_AND_FETCH_REQ, UBLK_U_IO_COMMIT_IO_CMDS,
    UBLK_U_IO_FETCH_IO_CMDS, UBLK_U_IO_FETCH_REQ, UBLK_U_IO_NEED_GET_DATA, UBLK_U_IO_PREP_IO_CMDS,
    UBLK_U_IO_REGISTER_IO_BUF, UBLK_U_IO_UNREGISTER_IO_BUF, ublk_sqe_addr_to_auto_buf_reg,
    ublksrv_io_cmd,
};

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::device::{
    ACTIVE, AUTO_REGISTERED, CANCELED, Cmd, OWNED_BY_SRV, REFCOUNT_INIT, WANTS_GET_DATA,
};
use crate::driver::sim::uring::ops::Issued;
use crate::driver::sim::uring::ring::Work;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

/// `_IOC_NR`: the driver tells its commands apart by this byte alone.
const fn number(command: u32) -> u8 {
    command.to_le_bytes()[0]
}

/// `_IOC_TYPE`.
const fn kind(command: u32) -> u8 {
    command.to_le_bytes()[1]
}

const FETCH: u8 = number(UBLK_U_IO_FETCH_REQ);
const COMMIT: u8 = number(UBLK_U_IO_COMMIT_AND_FETCH_REQ);
const GET_DATA: u8 = number(UBLK_U_IO_NEED_GET_DATA);
const REGISTER: u8 = number(UBLK_U_IO_REGISTER_IO_BUF);
const UNREGISTER: u8 = number(UBLK_U_IO_UNREGISTER_IO_BUF);
const PREP_BATCH: u8 = number(UBLK_U_IO_PREP_IO_CMDS);
const COMMIT_BATCH: u8 = number(UBLK_U_IO_COMMIT_IO_CMDS);
const FETCH_BATCH: u8 = number(UBLK_U_IO_FETCH_IO_CMDS);

/// Whether a submission unregisters a buffer.
pub(crate) fn is_unregister(command: u32) -> bool {
    number(command) == UNREGISTER
}

/// Whether the model may fail a submission for want of memory.
pub(crate) fn may_be_refused(command: u32) -> bool {
    matches!(number(command), COMMIT | COMMIT_BATCH | FETCH_BATCH)
}

/// A command and where it came from.
pub(crate) struct Call {
    pub(crate) device: usize,
    pub(crate) ring: usize,
    pub(crate) operation: usize,
    pub(crate) cmd: ublksrv_io_cmd,
    /// The packed automatic registration, or where a batch has its elements.
    pub(crate) sqe_addr: u64,
}

impl Call {
    pub(crate) fn pending(&self) -> Cmd {
        (self.ring, self.operation)
    }

    /// The tag; of the queue, once the command has been found valid.
    fn tag(&self) -> Tag {
        Tag::new(self.cmd.tag)
    }
}

impl Model {
    pub(crate) fn ublk_cmd(&mut self, ring: usize, operation: usize, device: usize) -> Issued {
        let sqe = self.ring(ring).ops[operation].sqe;
        let (op, cmd) = (sqe.cmd_op().0, sqe.io_cmd());
        let call = Call { device, ring, operation, cmd, sqe_addr: sqe.addr };
        let name = command_name(number(op));
        if self.devices[device].batches() {
            let issued = self.batch_cmd(op, &call);
            // The addresses of elements differ from run to run: a trace does not name them.
            self.note(|| format!("ring {ring}: {name} {:?} -> {issued:?}", sqe.batch_io()));
            return issued;
        }
        let issued = self.ublk_cmd_local(op, &call);
        self.note(|| format!("ring {ring}: {name} {cmd:?} {:#x} -> {issued:?}", sqe.addr));
        issued
    }

    fn ublk_cmd_local(&mut self, op: u32, call: &Call) -> Issued {
        let (device, cmd) = (call.device, &call.cmd);
        let encoded = self.config.kernel.features & UBLK_F_CMD_IOCTL_ENCODE != 0;
        if kind(op) != if encoded { b'u' } else { 0 } {
            return self.refuse(op, call, libc::EOPNOTSUPP);
        }
        let number = number(op);
        if number == UNREGISTER {
            return self.unregister(op, call);
        }
        let info = &self.devices[device].info;
        if cmd.q_id >= info.nr_hw_queues || cmd.tag >= info.queue_depth {
            return self.refuse(op, call, libc::EINVAL);
        }
        if number == FETCH {
            return match self.fetch(call) {
                Ok(()) => Issued::Pending,
                // The device stops: nothing the server could know.
                Err(libc::ENODEV) => Issued::Failed(libc::ENODEV),
                Err(errno) => self.refuse(op, call, errno),
            };
        }
        let current = self.current(call.ring);
        if self.io(device, cmd.q_id, call.tag()).task != current {
            if number == REGISTER {
                return self.register(call, false);
            }
            return self.refuse(op, call, libc::EINVAL);
        }
        let flags = self.io(device, cmd.q_id, call.tag()).flags;
        if flags & OWNED_BY_SRV == 0 {
            // A server that has lost a ring, and with it what it knew, may ask. The close of a ring
            // marks no queue of a device that has been stopped (`ublk_start_cancel`).
            let found = &self.devices[device];
            if found.queues[usize::from(cmd.q_id)].canceling || !found.disk {
                return Issued::Failed(libc::EBUSY);
            }
            return self.refuse(op, call, libc::EBUSY);
        }
        if (flags & WANTS_GET_DATA != 0) != (number == GET_DATA) {
            return self.refuse(op, call, libc::EINVAL);
        }
        match number {
            REGISTER => self.register(call, true),
            COMMIT => match self.commit(call) {
                Ok(()) => Issued::Pending,
                Err(errno) => self.refuse(op, call, errno),
            },
            GET_DATA => self.get_data(call),
            _ => self.refuse(op, call, libc::EINVAL),
        }
    }

    /// ublk_unregister_io_buf.
    pub(crate) fn unregister(&mut self, op: u32, call: &Call) -> Issued {
        if !self.devices[call.device].zero_copy() {
            return self.refuse(op, call, libc::EINVAL);
        }
        Issued::from(self.unregister_node(call.ring, call.cmd.addr, Some(&call.cmd)))
    }

    pub(crate) fn refuse(&mut self, op: u32, call: &Call, errno: i32) -> Issued {
        let rule = match number(op) {
            FETCH => Rule::Fetch,
            REGISTER => Rule::Register,
            UNREGISTER => Rule::Unregister,
            _ => Rule::Commit,
        };
        let what = format!("{} {:?}: errno {errno}", command_name(number(op)), call.cmd);
        self.violate(rule, what);
        Issued::Failed(errno)
    }

    /// ublk_check_fetch_buf and ublk_fetch.
    fn fetch(&mut self, call: &Call) -> Result<(), i32> {
        let (device, cmd) = (&self.devices[call.device], &call.cmd);
        if device.copies() {
            if cmd.addr == 0 && !device.needs_get_data() {
                return Err(libc::EINVAL);
            }
        } else if cmd.addr != 0 {
            return Err(libc::EINVAL);
        }
        self.validate_auto_registration(call)?;
        if self.devices[call.device].stopping {
            // UBLK_IO_RES_ABORT.
            return Err(libc::ENODEV);
        }
        if self.devices[call.device].ready() {
            return Err(libc::EBUSY);
        }
        if self.io(call.device, cmd.q_id, call.tag()).flags & ACTIVE != 0 {
            return Err(libc::EINVAL);
        }
        let task = self.current(call.ring);
        self.io(call.device, cmd.q_id, call.tag()).task = task;
        self.arm(call);
        self.mark_ready(call.device, cmd.q_id, call.tag());
        Ok(())
    }

    fn validate_auto_registration(&self, call: &Call) -> Result<(), i32> {
        if !self.devices[call.device].auto_registers() {
            return Ok(());
        }
        let wanted = ublk_sqe_addr_to_auto_buf_reg(call.sqe_addr);
        let reserved = wanted.reserved0 != 0 || wanted.reserved1 != 0;
        if reserved || wanted.flags & !UBLK_AUTO_BUF_REG_F_MASK != 0 {
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    /// ublk_fill_io_cmd and ublk_apply_io_buf: the tag waits for its next request.
    fn arm(&mut self, call: &Call) {
        let auto = self.devices[call.device].auto_registers();
        let buf = if auto { call.sqe_addr } else { call.cmd.addr };
        let pending = call.pending();
        let io = self.io(call.device, call.cmd.q_id, call.tag());
        io.cmd = Some(pending);
        io.flags = (io.flags | ACTIVE) & !OWNED_BY_SRV;
        io.buf = buf;
    }

    /// ublk_mark_io_ready.
    pub(crate) fn mark_ready(&mut self, device: usize, queue: u16, tag: Tag) {
        self.io(device, queue, tag).flags &= !CANCELED;
        let device = &mut self.devices[device];
        let canceling = device.canceling;
        let queue = &mut device.queues[usize::from(queue)];
        queue.ready += 1;
        if queue.ready == queue.ios.len() {
            device.queues_ready += 1;
            queue.canceling = canceling;
            queue.fail_io = false;
            queue.events.force_abort = false;
        }
    }

    /// ublk_daemon_register_io_buf on the tag's own thread, ublk_register_io_buf elsewhere.
    pub(crate) fn register(&mut self, call: &Call, on_task: bool) -> Issued {
        let (device, cmd) = (call.device, &call.cmd);
        let op = UBLK_U_IO_REGISTER_IO_BUF;
        let id = self.devices[device].queues[usize::from(cmd.q_id)].tags[call.tag().index()];
        let owned = on_task || self.io(device, cmd.q_id, call.tag()).refs > 0;
        let Some(id) = id.filter(|_| owned && self.devices[device].zero_copy()) else {
            return self.refuse(op, call, libc::EINVAL);
        };
        if !self.request(id).started || !self.request(id).has_data() {
            return self.refuse(op, call, libc::EINVAL);
        }
        let index = u32::try_from(cmd.addr).unwrap_or(u32::MAX);
        if self.rng.chance(self.config.faults.register) {
            self.injected.register += 1;
            if let Some(slot) = self.ring(call.ring).table.get_mut(index as usize) {
                slot.spoilt = true;
            }
            return Issued::Failed(libc::ENOMEM);
        }
        if let Err(errno) = self.register_node(call.ring, id, index) {
            return self.refuse(op, call, errno);
        }
        let io = self.io(device, cmd.q_id, call.tag());
        if on_task {
            io.task_registered += 1;
        } else {
            io.refs += 1;
        }
        Issued::Done(0)
    }

    fn commit(&mut self, call: &Call) -> Result<(), i32> {
        let (device, cmd) = (call.device, &call.cmd);
        let id = self.io(device, cmd.q_id, call.tag()).request.ok_or(libc::EBUSY)?;
        let op = self.request(id).op;
        let copies = self.devices[device].copies();
        if copies {
            let may_be_absent = self.devices[device].needs_get_data() && op != UBLK_IO_OP_READ;
            if cmd.addr == 0 && !may_be_absent {
                return Err(libc::EINVAL);
            }
        } else if cmd.addr != 0 && op != UBLK_IO_OP_ZONE_APPEND {
            return Err(libc::EINVAL);
        }
        self.validate_auto_registration(call)?;
        self.check_result(id, cmd.result);
        let io = self.io(device, cmd.q_id, call.tag());
        io.res = cmd.result;
        io.request = None;
        let registered = io.flags & AUTO_REGISTERED != 0 && io.ring_of_buffer == Some(call.ring);
        let slot = ublk_sqe_addr_to_auto_buf_reg(io.buf).index;
        io.flags &= !AUTO_REGISTERED;
        self.arm(call);
        if registered {
            // Its result means nothing to the commit.
            let _ = self.unregister_node(call.ring, u64::from(slot), None);
        }
        self.land(id, cmd.addr);
        if !self.devices[device].counts_references()
            || self.drop_dispatch_references(device, cmd.q_id, call.tag())
        {
            self.complete_rq(device, cmd.q_id, call.tag(), id);
        }
        Ok(())
    }

    pub(crate) fn check_result(&mut self, id: u64, result: i32) {
        let left = self.request(id).left;
        if i64::from(result) > i64::from(left) {
            self.violate(Rule::Commit, format!("{result} for a request of {left} bytes"));
        }
    }

    /// ublk_sub_req_ref: true if no buffer keeps the request alive.
    pub(crate) fn drop_dispatch_references(&mut self, device: usize, queue: u16, tag: Tag) -> bool {
        let io = self.io(device, queue, tag);
        io.refs -= REFCOUNT_INIT - io.task_registered;
        io.task_registered = 0;
        io.refs == 0
    }

    fn get_data(&mut self, call: &Call) -> Issued {
        let io = self.io(call.device, call.cmd.q_id, call.tag());
        io.flags &= !WANTS_GET_DATA;
        io.buf = call.cmd.addr;
        let Some(id) = io.request else { return Issued::Failed(libc::EBUSY) };
        if call.cmd.addr == 0 && self.request(id).place.is_none() {
            return self.refuse(UBLK_U_IO_NEED_GET_DATA, call, libc::EFAULT);
        }
        let queue = &self.devices[call.device].queues[usize::from(call.cmd.q_id)];
        queue.area.set_address(call.tag(), call.cmd.addr);
        if self.fill_copy_buffer(id) {
            return Issued::Done(UBLK_IO_RES_OK);
        }
        // The command stays, and announces the write once more.
        self.arm(call);
        self.io(call.device, call.cmd.q_id, call.tag()).request = None;
        self.put_back(id);
        self.ring(call.ring).work.push_back(Work::Kick(call.device));
        Issued::Pending
    }
}

fn command_name(number: u8) -> &'static str {
    match number {
        FETCH => "FETCH_REQ",
        COMMIT => "COMMIT_AND_FETCH_REQ",
        GET_DATA => "NEED_GET_DATA",
        REGISTER => "REGISTER_IO_BUF",
        UNREGISTER => "UNREGISTER_IO_BUF",
        PREP_BATCH => "PREP_IO_CMDS",
        COMMIT_BATCH => "COMMIT_IO_CMDS",
        FETCH_BATCH => "FETCH_IO_CMDS",
        _ => "unknown command",
    }
}
