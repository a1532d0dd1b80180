//! A device between two servers: UBLK_F_USER_RECOVERY and its two kinds, QUIESCE_DEV.

use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_F_QUIESCE, UBLK_F_USER_RECOVERY, UBLK_F_USER_RECOVERY_FAIL_IO,
    UBLK_F_USER_RECOVERY_REISSUE, UBLK_S_DEV_DEAD, UBLK_S_DEV_FAIL_IO, UBLK_S_DEV_LIVE,
    UBLK_S_DEV_QUIESCED,
};

use crate::driver::sim::config::Waiting;
use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::device::{Device, Stop};

/// How long `blk_mq_quiesce_queue` waits for other CPUs. Requests that the server has may end
/// meanwhile, and those that get their tags wait for a server.
const GRACE: Duration = Duration::from_millis(1);

impl Device {
    /// !ublk_nosrv_should_stop_dev.
    fn outlives_server(&self) -> bool {
        self.info.flags & UBLK_F_USER_RECOVERY != 0
    }

    /// ublk_nosrv_dev_should_queue_io.
    pub(crate) fn queues_without_server(&self) -> bool {
        self.outlives_server() && self.info.flags & UBLK_F_USER_RECOVERY_FAIL_IO == 0
    }

    /// ublk_nosrv_should_reissue_outstanding.
    fn reissues(&self) -> bool {
        self.outlives_server() && self.info.flags & UBLK_F_USER_RECOVERY_REISSUE != 0
    }

    /// ublk_dev_in_recoverable_state.
    pub(crate) fn recoverable(&self) -> bool {
        matches!(self.info.state, UBLK_S_DEV_QUIESCED | UBLK_S_DEV_FAIL_IO)
    }
}

impl Model {
    /// blk_mq_requeue_request: it keeps its tag and waits for a kick.
    pub(crate) fn put_back(&mut self, id: u64) {
        let request = self.request(id);
        request.started = false;
        // The next server gets the data anew.
        request.lost = 0;
        let (device, queue) = (request.device, usize::from(request.queue));
        self.devices[device].queues[queue].requeued.push_back(id);
        self.note(|| format!("request {id} is put back"));
    }

    /// __ublk_abort_rq: no server has heard of it.
    pub(crate) fn abort_request(&mut self, id: u64) {
        let device = self.request(id).device;
        if self.devices[device].queues_without_server() {
            self.put_back(id);
        } else {
            self.end_request(id, Err(libc::EIO));
        }
    }

    /// __ublk_fail_req: a server had it, and is gone.
    pub(crate) fn fail_request(&mut self, id: u64) {
        let device = self.request(id).device;
        if self.devices[device].reissues() {
            self.put_back(id);
        } else {
            self.end_request(id, Err(libc::EIO));
        }
    }

    /// blk_mq_kick_requeue_list.
    fn kick(&mut self, device: usize) {
        for queue in 0..self.devices[device].info.nr_hw_queues {
            let found = &mut self.devices[device].queues[usize::from(queue)];
            for id in std::mem::take(&mut found.requeued) {
                if let Err(errno) = self.queue_rq(id) {
                    self.end_request(id, Err(errno));
                }
            }
        }
    }

    /// blk_mq_delay_kick_requeue_list, when its time has come.
    pub(crate) fn kick_later(&mut self, device: usize) {
        // A quiesced queue starts nothing; the stop kicks it.
        if self.devices[device].stop != Stop::Quiesced {
            self.kick(device);
        }
    }

    /// ublk_force_abort_dev.
    pub(crate) fn force_abort(&mut self, device: usize) {
        let found = &mut self.devices[device];
        found.queues.iter_mut().for_each(|queue| queue.events.force_abort = true);
        self.kick(device);
        for queue in 0..self.devices[device].info.nr_hw_queues {
            self.pump(device, queue);
        }
    }

    /// The end of ublk_ch_release_work_fn: what becomes of a device whose server is gone.
    pub(crate) fn lose_server(&mut self, device: usize) {
        let found = &mut self.devices[device];
        if !found.outlives_server() {
            found.stop = Stop::Draining;
            self.advance_stop(device);
        } else if found.queues_without_server() {
            found.info.state = UBLK_S_DEV_QUIESCED;
        } else {
            found.info.state = UBLK_S_DEV_FAIL_IO;
            found.queues.iter_mut().for_each(|queue| queue.fail_io = true);
        }
        // A stop that was waiting for the server waits no longer.
        if self.devices[device].stop != Stop::No {
            self.force_abort(device);
            self.advance_stop(device);
        }
    }

    /// ublk_ctrl_start_recovery.
    pub(crate) fn start_recovery(&self, device: usize) -> Result<i32, i32> {
        let found = &self.devices[device];
        if !found.outlives_server() {
            return Err(libc::EINVAL);
        }
        if found.open || !found.recoverable() { Err(libc::EBUSY) } else { Ok(0) }
    }

    /// ublk_ctrl_end_recovery.
    pub(crate) fn end_recovery(&mut self, device: usize, server: i32) -> Option<Result<i32, i32>> {
        let found = &mut self.devices[device];
        if !found.ready() && !found.stopping || found.is_locked() {
            return None;
        }
        if found.server != server || !found.outlives_server() {
            return Some(Err(libc::EINVAL));
        }
        if !found.recoverable() {
            return Some(Err(libc::EBUSY));
        }
        found.info.state = UBLK_S_DEV_LIVE;
        found.info.ublksrv_pid = server;
        self.note(|| format!("device {device} is recovered"));
        self.kick(device);
        Some(Ok(0))
    }

    /// ublk_ctrl_quiesce_dev: none, while it waits for a stop that has the device's mutex, for the
    /// queues to be quiesced, or for idle tags. Where nobody sleeps both limits are over at once.
    pub(crate) fn quiesce(&mut self, device: usize, limit: Duration) -> Option<Result<i32, i32>> {
        let sleeps = self.config.waiting == Waiting::Blocking;
        let found = &mut self.devices[device];
        if found.info.flags & UBLK_F_QUIESCE == 0 {
            return Some(Err(libc::EOPNOTSUPP));
        }
        if found.stop != Stop::No {
            return None;
        }
        if !found.disk || found.info.state == UBLK_S_DEV_DEAD {
            return Some(Err(libc::ENODEV));
        }
        if found.info.state != UBLK_S_DEV_LIVE {
            return Some(Ok(0));
        }
        found.set_canceling();
        let waited = found.quiesced_since.get_or_insert_with(Instant::now).elapsed();
        if sleeps && waited < GRACE {
            return None;
        }
        if found.batches() || self.has_idle_tags(device) {
            self.devices[device].quiesced_since = None;
            self.cancel_commands(device);
            return Some(Ok(0));
        }
        if sleeps && waited < GRACE + limit {
            return None;
        }
        self.devices[device].quiesced_since = None;
        Some(Err(libc::EBUSY))
    }

    /// ublk_wait_for_idle_io: the kernel counts the requests that are not started as busy.
    fn has_idle_tags(&self, device: usize) -> bool {
        let idle = |tag: &Option<u64>| {
            tag.is_none_or(|id| self.requests.get(&id).is_some_and(|request| request.started))
        };
        self.devices[device].queues.iter().all(|queue| queue.tags.iter().any(idle))
    }
}
