//! START_DEV: waits for fetches, checks the device, and starts the partition scan.

use ublk_sys::{UBLK_F_NO_AUTO_PART_SCAN, UBLK_F_UNPRIVILEGED_DEV, UBLK_S_DEV_LIVE};

use super::block::POISON;
use super::device::Device;
use super::model::Model;
use super::op::ClientOp;
use super::params::validate_limits;

/// Length of the read of the partition scan: a page, in bytes.
const LOOKED_AT: u64 = 4096;

impl Device {
    /// Whether the kernel scans the disk for partitions (`GD_SUPPRESS_PART_SCAN` is not set).
    fn has_partitions(&self) -> bool {
        self.info.flags & (UBLK_F_UNPRIVILEGED_DEV | UBLK_F_NO_AUTO_PART_SCAN) == 0
    }
}

impl Model {
    /// ublk_ctrl_start_dev; none while the command waits. Returns the request of the partition scan if
    /// the command waits for the scan.
    pub(super) fn start(&mut self, device: usize, server: i32) -> Option<Result<Option<u64>, i32>> {
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
            return Some(Ok(None));
        }
        let request = self.look_for_partitions(device);
        self.devices[device].scanning = self.config.kernel.start_reads;
        Some(Ok(self.config.kernel.start_reads.then_some(request)))
    }

    /// The end of a START_DEV with a partition scan; none while the read is in flight.
    pub(super) fn scanned(&mut self, device: usize, request: u64) -> Option<Result<i32, i32>> {
        if self.requests.get(&request).is_some_and(|read| read.outcome.is_none()) {
            return None;
        }
        // A failed read does not fail START_DEV.
        self.requests.remove(&request);
        self.devices[device].scanning = false;
        Some(Ok(0))
    }

    /// disk_scan_partitions: submits a read of the kernel's.
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
