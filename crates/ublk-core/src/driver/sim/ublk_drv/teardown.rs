//! The ends: stop, delete, the release of `/dev/ublkcN`, the exit of a ring.

use ublk_sys::{UBLK_IO_RES_ABORT, UBLK_S_DEV_DEAD};

use crate::driver::sim::model::Model;
use crate::driver::sim::storage::files::FileRef;
use crate::driver::sim::ublk_drv::control::{Answer, Pending};
use crate::driver::sim::ublk_drv::device::{
    ACTIVE, CANCELED, Device, OWNED_BY_SRV, Queue, REFCOUNT_INIT, Starting, Stop,
};
use crate::driver::sim::uring::ring::Work;
use crate::driver::sim::violation::Rule;
use crate::tag::Tag;

impl Device {
    /// UB_STATE_USED: the disk exists, or somebody still has the one that was.
    pub(crate) fn in_use(&self) -> bool {
        self.disk || self.openers > 0
    }
}

impl Model {
    /// ublk_stop_dev. Goes on by itself when it has to wait.
    pub(crate) fn stop(&mut self, device: usize) -> Answer {
        let waits = self.devices[device].queues_without_server();
        self.devices[device].stop = if waits { Stop::Quiesced } else { Stop::Draining };
        self.advance_stop(device);
        Answer::Later(Pending::Stop { device })
    }

    pub(crate) fn has_stopped(&self, device: usize) -> bool {
        self.devices[device].stop == Stop::No
    }

    /// Ends a stop as soon as no request is in flight.
    pub(crate) fn advance_stop(&mut self, device: usize) {
        if self.devices[device].stop == Stop::Quiesced {
            if self.has_started_requests(device) {
                return;
            }
            // ublk_force_abort_dev: what waits for a server that will not come fails now.
            self.devices[device].stop = Stop::Draining;
            self.force_abort(device);
        }
        let found = &self.devices[device];
        if found.stop == Stop::No || found.busy() {
            return;
        }
        self.detach_disk(device);
        let found = &mut self.devices[device];
        if found.open && !found.releasing {
            found.stopping = true;
            self.cancel_commands(device);
        }
        self.finish_delete(device);
    }

    /// !ublk_wait_tagset_rqs_idle.
    fn has_started_requests(&self, device: usize) -> bool {
        let mut all = self.devices[device].queues.iter().flat_map(|queue| &queue.tags).flatten();
        all.any(|id| self.requests.get(id).is_some_and(|request| request.started))
    }

    /// ublk_cancel_dev.
    pub(crate) fn cancel_commands(&mut self, device: usize) {
        if self.devices[device].batches() {
            for queue in 0..self.devices[device].info.nr_hw_queues {
                self.cancel_fetches(device, queue);
            }
            return;
        }
        for (queue, tag) in self.devices[device].tags() {
            self.cancel_cmd(device, queue, tag);
        }
    }

    /// del_gendisk and ublk_detach_disk.
    pub(crate) fn detach_disk(&mut self, device: usize) {
        self.note(|| format!("device {device} is stopped"));
        let found = &mut self.devices[device];
        found.stop = Stop::No;
        found.disk = false;
        found.info.state = UBLK_S_DEV_DEAD;
        found.info.ublksrv_pid = -1;
    }

    /// ublk_cancel_cmd.
    fn cancel_cmd(&mut self, device: usize, queue: u16, tag: Tag) {
        let request = self.devices[device].queues[usize::from(queue)].tags[tag.index()];
        let started = request.is_some_and(|id| self.request(id).started);
        let io = self.io(device, queue, tag);
        if io.flags & ACTIVE == 0 || started || io.flags & CANCELED != 0 {
            return;
        }
        io.flags |= CANCELED;
        if let Some((ring, operation)) = io.cmd.take() {
            self.ring(ring).work.push_back(Work::Complete(operation, UBLK_IO_RES_ABORT));
        }
    }

    /// ublk_ctrl_del_dev, with the driver's mutex: waits until the device is stopped and freed, then
    /// without the mutex, if `wait`, until the number is free.
    pub(crate) fn delete(&mut self, device: usize, wait: bool) -> Option<Result<i32, i32>> {
        if self.devices[device].removing {
            if self.devices[device].is_locked() {
                return None;
            }
            if !self.devices[device].deleted {
                self.stop(device);
            }
            if !self.has_stopped(device) {
                return None;
            }
            self.devices[device].deleted = true;
            let now = self.now();
            let since = *self.devices[device].freed_since.get_or_insert(now);
            if now - since < self.config.kernel.freeing {
                return None;
            }
            self.devices[device].removing = false;
            self.finish_delete(device);
        }
        (!wait || self.devices[device].gone).then_some(Ok(0))
    }

    /// The number is free when nobody holds the device any more.
    fn finish_delete(&mut self, device: usize) {
        let found = &mut self.devices[device];
        let held = found.open || found.files > 0 || found.stop != Stop::No;
        if found.deleted && !held && !found.gone {
            (found.gone, found.lingers) = (true, self.config.kernel.lingering);
        }
    }

    /// ublk_ch_release_work_fn: once no buffer of a request is registered anywhere.
    pub(crate) fn release_char(&mut self, device: usize) {
        let found = &self.devices[device];
        if !found.releasing || found.counts_references() && found.has_active_references() {
            return;
        }
        self.note(|| format!("the server of device {device} is gone"));
        for (queue, tag) in self.devices[device].tags() {
            let io = self.io(device, queue, tag);
            (io.refs, io.task_registered) = (0, 0);
        }
        if self.devices[device].disk {
            self.devices[device].set_canceling();
            self.abort_requests(device);
            if self.devices[device].starting != Starting::No {
                // The worker waits for the device's mutex, which START_DEV holds.
                return;
            }
            self.lose_server(device);
        }
        self.devices[device].reset();
        self.finish_delete(device);
    }

    /// ublk_abort_queue: what the server had and never answered fails, or will be issued again.
    fn abort_requests(&mut self, device: usize) {
        for (queue, tag) in self.devices[device].tags() {
            let io = self.io(device, queue, tag);
            if io.flags & OWNED_BY_SRV != 0 {
                io.flags &= !OWNED_BY_SRV;
                if let Some(id) = io.request.take() {
                    self.fail_request(id);
                }
            }
        }
        for queue in 0..self.devices[device].info.nr_hw_queues {
            let found = &mut self.devices[device].queues[usize::from(queue)];
            let unheard: Vec<u64> =
                found.events.drain().iter().filter_map(|&t| found.tags[t.index()]).collect();
            for id in unheard {
                self.fail_request(id);
            }
            self.pump(device, queue);
        }
    }

    /// Releases that had to wait for a buffer.
    pub(crate) fn retry_releases(&mut self) {
        for device in 0..self.devices.len() {
            self.release_char(device);
        }
    }

    /// The exit of a ring with everything that is left in it, as when its process dies.
    pub(crate) fn exit_ring(&mut self, ring: usize) {
        self.in_worker = true;
        self.note(|| format!("ring {ring} exits"));
        let pending = self.pending_commands(ring);
        for &(device, ..) in &pending {
            // ublk_start_cancel
            self.devices[device].set_canceling();
        }
        for device in &mut self.devices {
            let of_ring = |queue: &mut Queue| queue.events.forget(ring);
            // Every queue forgets: no short cut.
            if device.queues.iter_mut().map(of_ring).fold(false, |any, one| any | one) {
                device.set_canceling();
            }
        }
        while let Some(work) = self.ring(ring).work.pop_front() {
            if let Work::Dispatch(id) = work {
                self.abort_request(id);
            }
        }
        for (device, queue, tag) in pending {
            let io = self.io(device, queue, tag);
            io.flags |= CANCELED;
            io.cmd = None;
        }
        // What has not been issued yet is cancelled; the rest cannot be.
        let mut begun = std::mem::take(&mut self.ring(ring).in_flight);
        begun.retain(|_| self.rng.chance(500));
        let left: Vec<usize> = self.ring(ring).ops.iter().map(|(operation, _)| operation).collect();
        for operation in left {
            if !begun.contains(&operation) {
                self.drop_operation(ring, operation);
            }
        }
        self.ring(ring).in_flight = begun;
        self.in_worker = false;
        self.end_when_idle(ring);
    }

    /// io_ring_ctx_free.
    pub(crate) fn free_ring(&mut self, ring: usize) {
        self.in_worker = true;
        let slots = std::mem::take(&mut self.ring(ring).table);
        for node in slots.iter().filter_map(|slot| slot.node) {
            self.put_node(ring, node);
        }
        let files = self.ring(ring).fixed_files.take();
        for file in files.into_iter().flatten().flatten() {
            self.put_file(&file);
        }
        self.rings[ring] = None;
        self.retry_releases();
        self.in_worker = false;
    }

    pub(crate) fn drop_operation(&mut self, ring: usize, operation: usize) {
        let op = self.ring(ring).ops.remove(operation);
        if let Some(node) = op.node {
            self.put_node(ring, node);
        }
        if let Some(file) = op.file {
            self.put_file(&file);
        }
    }

    /// The tags whose command is pending on a ring.
    fn pending_commands(&self, ring: usize) -> Vec<(usize, u16, Tag)> {
        let mut found = Vec::new();
        for (at, device) in self.devices.iter().enumerate() {
            for (queue, tag) in device.tags() {
                let io = &device.queues[usize::from(queue)].ios[tag.index()];
                if io.cmd.is_some_and(|(of, _)| of == ring) {
                    found.push((at, queue, tag));
                }
            }
        }
        found
    }

    /// What a server that has come to rest must not have left.
    pub(crate) fn audit(&mut self) {
        for ring in 0..self.rings.len() {
            let Some(uring) = &self.rings[ring] else { continue };
            let left = uring.table.iter().filter(|slot| slot.node.is_some()).count();
            if left > 0 {
                self.violate(Rule::BufferLeft, format!("ring {ring}: {left} slots are taken"));
            }
        }
        for device in 0..self.devices.len() {
            for (queue, tag) in self.devices[device].tags() {
                let id = self.devices[device].queues[usize::from(queue)].tags[tag.index()];
                if let Some(id) = id {
                    let what = format!("request {id} as {queue}/{tag} of device {device}");
                    self.violate(Rule::Unanswered, what);
                }
            }
        }
    }

    /// Opens `/dev/ublkcN`.
    pub(crate) fn open_char(&mut self, id: u32, server: i32) -> Result<i32, i32> {
        let device = self.find_device(id).filter(|&device| !self.devices[device].deleted);
        let device = device.ok_or(libc::ENOENT)?;
        let found = &mut self.devices[device];
        if found.open {
            return Err(libc::EBUSY);
        }
        found.open = true;
        found.server = server;
        Ok(self.install(FileRef::Char(device)))
    }
}

impl Device {
    /// ublk_check_and_reset_active_ref.
    fn has_active_references(&self) -> bool {
        self.queues.iter().flat_map(|queue| &queue.ios).any(|io| {
            let references = io.refs + io.task_registered;
            references != 0 && references != REFCOUNT_INIT
        })
    }

    /// ublk_reset_ch_dev: ready for a new server.
    fn reset(&mut self) {
        for queue in &mut self.queues {
            queue.ready = 0;
            queue.events.drain();
            for io in &mut queue.ios {
                io.flags &= CANCELED;
                io.cmd = None;
                io.request = None;
                io.buf = 0;
                io.task = None;
            }
        }
        self.queues_ready = 0;
        self.canceling = false;
        self.stopping = false;
        self.open = false;
        self.releasing = false;
        self.server = -1;
    }
}
