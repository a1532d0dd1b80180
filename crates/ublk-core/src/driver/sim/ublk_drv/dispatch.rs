//! From the block layer to the server, and the end of a request: ublk_dispatch_req,
//! __ublk_complete_rq and the references that keep a request alive.

use ublk_sys::{
    UBLK_AUTO_BUF_REG_FALLBACK, UBLK_IO_F_INTEGRITY, UBLK_IO_F_NEED_REG_BUF, UBLK_IO_F_SHMEM_ZC,
    UBLK_IO_OP_READ, UBLK_IO_OP_REPORT_ZONES, UBLK_IO_OP_WRITE, UBLK_IO_OP_ZONE_APPEND,
    UBLK_IO_RES_NEED_GET_DATA, UBLK_IO_RES_OK, blk_zone, ublk_shmem_zc_addr,
    ublk_sqe_addr_to_auto_buf_reg, ublksrv_io_desc,
};

use crate::driver::sim::block::layer::{POISON, errno_to_client};
use crate::driver::sim::model::Model;
use crate::driver::sim::storage::memory;
use crate::driver::sim::ublk_drv::device::{
    ACTIVE, AUTO_REGISTERED, OWNED_BY_SRV, REFCOUNT_INIT, WANTS_GET_DATA,
};
use crate::driver::sim::uring::ring::Work;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

/// What the driver copies to or from at once, in bytes.
const PAGE: usize = 4096;

impl Model {
    /// Hands a started request to the server, in the context of the ring that waits for it.
    pub(crate) fn dispatch(&mut self, ring: usize, id: u64) {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let is_write = request.op == UBLK_IO_OP_WRITE;
        self.set_up(id);
        if self.current(ring) != self.io(device, queue, tag).task {
            self.abort_request(id);
            return;
        }
        self.note(|| format!("ring {ring}: request {id} goes to the server as {queue}/{tag}"));
        if self.devices[device].needs_get_data() && is_write {
            self.io(device, queue, tag).flags |= WANTS_GET_DATA;
            self.complete_fetch(id, UBLK_IO_RES_NEED_GET_DATA);
            return;
        }
        if self.lend(ring, id) {
            self.complete_fetch(id, UBLK_IO_RES_OK);
        }
    }

    /// ublk_start_io, ublk_auto_buf_register and ublk_init_req_ref: makes the request's data
    /// reachable; false if the request failed or comes again.
    pub(crate) fn lend(&mut self, ring: usize, id: u64) -> bool {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let has_data = request.has_data();
        if self.devices[device].copies() && !self.fill_copy_buffer(id) {
            self.put_back(id);
            self.ring(ring).work.push_back(Work::Kick(device));
            return false;
        }
        if self.devices[device].auto_registers() && has_data && !self.auto_register(ring, id) {
            return false;
        }
        if self.devices[device].counts_references() {
            self.io(device, queue, tag).refs = REFCOUNT_INIT;
        }
        true
    }

    pub(crate) fn write_descriptor(&mut self, id: u64, more_flags: u32) {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let place = request.place;
        let shared = if place.is_some() { UBLK_IO_F_SHMEM_ZC } else { 0 };
        let integrity = if request.metadata.is_empty() { 0 } else { UBLK_IO_F_INTEGRITY };
        // Of a report it is the number of zones.
        let unit = match request.op {
            UBLK_IO_OP_REPORT_ZONES => u32::try_from(size_of::<blk_zone>()).unwrap_or(u32::MAX),
            _ => 512,
        };
        let mut descriptor = ublksrv_io_desc {
            op_flags: u32::from(request.op) | request.flags | more_flags | shared | integrity,
            nr_sectors: request.left / unit,
            start_sector: request.offset >> 9,
            addr: 0,
        };
        descriptor.addr = match place {
            Some((index, offset)) => ublk_shmem_zc_addr(index, offset),
            None => self.io(device, queue, tag).buf,
        };
        self.devices[device].queues[usize::from(queue)].area.write(tag, &descriptor);
    }

    /// Tells the server by completing the tag's pending command.
    pub(crate) fn complete_fetch(&mut self, id: u64, result: i32) {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let cmd = self.io(device, queue, tag).cmd.take();
        self.give(id);
        if let Some((ring, operation)) = cmd {
            self.finish(ring, operation, result);
        }
    }

    /// __ublk_prep_compl_io_cmd: from now on the request is the server's.
    pub(crate) fn give(&mut self, id: u64) {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let io = self.io(device, queue, tag);
        io.flags = (io.flags | OWNED_BY_SRV) & !ACTIVE;
        io.request = Some(id);
    }

    /// ublk_auto_buf_register: false if the request failed and the server hears nothing of it.
    fn auto_register(&mut self, ring: usize, id: u64) -> bool {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let wanted = ublk_sqe_addr_to_auto_buf_reg(self.io(device, queue, tag).buf);
        let slot = u32::from(wanted.index);
        let result = if self.rng.chance(self.config.faults.auto_register) {
            self.injected.auto_register += 1;
            self.note(|| format!("injected: auto registration of {queue}/{tag} fails"));
            Err(libc::EBUSY)
        } else {
            let result = self.register_node(ring, id, slot);
            if let Err(errno) = result {
                let what = format!("auto registration of {queue}/{tag} in {slot}: errno {errno}");
                self.violate(Rule::Register, what);
            }
            result
        };
        let io = self.io(device, queue, tag);
        match result {
            Ok(()) => {
                io.task_registered = 1;
                io.ring_of_buffer = Some(ring);
                io.flags |= AUTO_REGISTERED;
                true
            }
            Err(_) if wanted.flags & UBLK_AUTO_BUF_REG_FALLBACK != 0 => {
                self.write_descriptor(id, UBLK_IO_F_NEED_REG_BUF);
                true
            }
            // The command stays pending for the tag's next request.
            Err(_) => {
                self.end_request(id, Err(libc::EIO));
                false
            }
        }
    }

    /// ublk_init_iod.
    pub(crate) fn set_up(&mut self, id: u64) {
        self.match_shared(id);
        self.write_descriptor(id, 0);
    }

    /// ublk_start_io and ublk_map_io: a write's data goes into the server's buffer; false if nothing of the
    /// data does. A read's buffer is spoilt, so that bytes which the server never supplied are known as such.
    pub(crate) fn fill_copy_buffer(&mut self, id: u64) -> bool {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let (op, shared, pages) = (request.op, request.place.is_some(), request.pages().to_vec());
        // With get-data, a read's buffer comes with its commit: what is known now was the last
        // request's, and may be anybody's.
        let known = !self.devices[device].needs_get_data();
        let address = self.io(device, queue, tag).buf;
        match op {
            _ if shared => {}
            UBLK_IO_OP_WRITE => {
                let copied = self.draw_copied(pages.len());
                memory::store(address, &pages[..copied]);
                return copied == pages.len() || copied > 0 && self.shorten(id, copied);
            }
            UBLK_IO_OP_READ if known => memory::store(address, &vec![POISON; pages.len()]),
            _ => {}
        }
        true
    }

    /// Tells the server of a part of a write; true.
    fn shorten(&mut self, id: u64, copied: usize) -> bool {
        let loses = !self.config.kernel.rest_of_writes;
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let copied = u32::try_from(copied).unwrap_or(u32::MAX);
        request.lost = if loses { request.left - copied } else { 0 };
        self.devices[device].queues[usize::from(queue)].area.set_sectors(tag, copied >> 9);
        true
    }

    /// How many of so many bytes ublk_copy_user_pages copies: all, unless a page of the server's buffer
    /// is missing. The buffer begins at a page.
    fn draw_copied(&mut self, length: usize) -> usize {
        if length == 0 || !self.rng.chance(self.config.faults.copied) {
            return length;
        }
        self.injected.copied += 1;
        let copied = self.rng.index(length.div_ceil(PAGE)) * PAGE;
        self.note(|| format!("injected: {copied} of {length} bytes are copied"));
        copied
    }

    /// __ublk_complete_rq.
    pub(crate) fn complete_rq(&mut self, device: usize, queue: u16, tag: Tag, id: u64) {
        let (copies, rest) = (self.devices[device].copies(), self.config.kernel.rest_of_writes);
        let io = self.io(device, queue, tag);
        let (res, address) = (io.res, io.buf);
        let request = self.request(id);
        let (is_read, is_write) = (request.op == UBLK_IO_OP_READ, request.op == UBLK_IO_OP_WRITE);
        let res = if res == 0 && is_read { -libc::EIO } else { res };
        let Ok(length) = u32::try_from(res) else {
            self.end_request(id, Err(errno_to_client(-res)));
            return;
        };
        let length = length.min(request.left);
        let whole = length == request.left;
        let moves = copies && request.place.is_none();
        if moves && is_write && rest && !whole {
            self.requeue(id, length);
            return;
        }
        if !moves || !is_read {
            // Zero copy takes whatever was moved for the whole request (trap 1).
            self.end_request(id, Ok(()));
            return;
        }
        let copied = self.draw_copied(length as usize);
        memory::load(address, &mut self.request(id).pages()[..copied]);
        if copied == 0 {
            self.end_request(id, Err(libc::EIO));
        } else if whole && copied == length as usize {
            self.end_request(id, Ok(()));
        } else {
            self.requeue(id, u32::try_from(copied).unwrap_or(length));
        }
    }

    /// `req->__sector` of an append, as its commit says. Too late for one that has ended already.
    pub(crate) fn land(&mut self, id: u64, sector: u64) {
        let request = self.request(id);
        if request.op == UBLK_IO_OP_ZONE_APPEND && request.outcome.is_none() {
            request.landed = Some(sector);
        }
    }

    /// ublk_io_release: a buffer of the request, registered with this ring, is gone.
    pub(crate) fn release_buffer(&mut self, ring: usize, id: u64) {
        let request = self.request(id);
        let (device, queue, tag) = (request.device, request.queue, request.tag.unwrap_or_default());
        let current = self.current(ring);
        let io = self.io(device, queue, tag);
        if current.is_some() && current == io.task && io.task_registered > 0 {
            io.task_registered -= 1;
        } else {
            self.put_reference(device, queue, tag, id);
        }
    }

    /// ublk_put_req_ref.
    pub(crate) fn put_reference(&mut self, device: usize, queue: u16, tag: Tag, id: u64) {
        let io = self.io(device, queue, tag);
        io.refs -= 1;
        if io.refs == 0 {
            self.complete_rq(device, queue, tag, id);
        }
    }
}
