//! START_DEV: what it waits for, what it refuses, and what it reads.

use ublk_sys::{UBLK_F_NO_AUTO_PART_SCAN, UBLK_F_UNPRIVILEGED_DEV, UBLK_S_DEV_LIVE};

use super::block::POISON;
use super::device::Device;
use super::model::Model;
use super::op::ClientOp;
use super::params::validate_limits;

/// What the page cache reads of a disk to find its partitions.
const LOOKED_AT: u64 = 4096;

impl Device {
    /// GD_SUPPRESS_PART_SCAN is not set.
    fn has_partitions(&self) -> bool {
        self.info.flags & (UBLK_F_UNPRIVILEGED_DEV | UBLK_F_NO_AUTO_PART_SCAN) == 0
    }
}

impl Model {
    /// ublk_ctrl_start_dev; none, while it waits.
    pub(super) fn start(&mut self, device: usize, server: i32) -> Option<Result<i32, i32>> {
        if let Some(read) = self.devices[device].scan {
            self.requests.get(&read).is_none_or(|request| request.outcome.is_some()).then(|| {
                // What it has read changes nothing, nor does a read that failed.
                self.requests.remove(&read);
                self.devices[device].scan = None;
                Ok(0)
            })
        } else {
            self.go_live(device, server)
        }
    }

    fn go_live(&mut self, device: usize, server: i32) -> Option<Result<i32, i32>> {
        let found = &mut self.devices[device];
        if !found.ready() && !found.stopping || found.is_locked() {
            return None;
        }
        if found.server != server {
            return Some(Err(libc::EINVAL));
        }
        if found.in_use() {
            return Some(Err(libc::EEXIST));
        }
        if found.stopping {
            return Some(Err(libc::EBUSY));
        }
        if let Err(errno) = validate_limits(&found.params) {
            return Some(Err(errno));
        }
        found.disk = true;
        found.info.state = UBLK_S_DEV_LIVE;
        found.info.ublksrv_pid = server;
        if !self.config.partition_scan || !self.devices[device].has_partitions() {
            return Some(Ok(0));
        }
        let read = self.look_for_partitions(device);
        if self.config.kernel.start_reads {
            self.devices[device].scan = Some(read);
            return self.start(device, server);
        }
        Some(Ok(0))
    }

    /// disk_scan_partitions: a read that no client has asked for.
    fn look_for_partitions(&mut self, device: usize) -> u64 {
        let size = self.devices[device].params.basic.dev_sectors << 9;
        let length = u32::try_from(size.min(LOOKED_AT)).unwrap_or(0);
        let mut request = ClientOp::Read { offset: 0, length }.to_request(device, 0);
        request.metadata = vec![POISON; self.devices[device].metadata_of(length)];
        request.unasked = true;
        let next = self.next_request;
        self.note(|| format!("kernel: request {next} looks for partitions"));
        self.submit_request(request)
    }
}
