//! START_DEV: waits for fetches, checks the device, has its zones reported, and starts the partition
//! scan.

use ublk_sys::{UBLK_F_NO_AUTO_PART_SCAN, UBLK_F_UNPRIVILEGED_DEV, UBLK_S_DEV_LIVE};

use crate::driver::sim::block::layer::POISON;
use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::control::Pending;
use crate::driver::sim::ublk_drv::device::{Device, Starting};
use crate::driver::sim::ublk_drv::params::validate_limits;
use crate::driver::sim::users::op::ClientOp;

/// Length of the read of the partition scan: a page, in bytes.
const LOOKED_AT: u64 = 4096;

/// How a stage of START_DEV ends.
pub(crate) enum Stage {
    /// The command waits for something else.
    Next(Pending),
    /// The command is answered.
    End(Result<i32, i32>),
}

impl Stage {
    /// The answer, if `pending` is over.
    pub(crate) fn go_on(self, pending: &mut Pending) -> Option<Result<i32, i32>> {
        match self {
            Self::Next(next) => {
                *pending = next;
                None
            }
            Self::End(result) => Some(result),
        }
    }
}

impl Device {
    /// Whether the kernel scans the disk for partitions (`GD_SUPPRESS_PART_SCAN` is not set).
    fn has_partitions(&self) -> bool {
        self.info.flags & (UBLK_F_UNPRIVILEGED_DEV | UBLK_F_NO_AUTO_PART_SCAN) == 0
    }
}

impl Model {
    /// ublk_ctrl_start_dev, up to the first request to the server; none while the command waits.
    pub(crate) fn start(&mut self, device: usize, server: i32) -> Option<Stage> {
        let found = &mut self.devices[device];
        if !found.ready() && !found.stopping || found.is_locked() {
            return None;
        }
        let refusal = if found.server != server {
            Err(libc::EINVAL)
        } else if found.in_use() {
            Err(libc::EEXIST)
        } else if found.stopping {
            Err(libc::EBUSY)
        } else {
            validate_limits(&found.params)
        };
        if let Err(errno) = refusal {
            return Some(Stage::End(Err(errno)));
        }
        found.disk = true;
        found.info.state = UBLK_S_DEV_LIVE;
        found.info.ublksrv_pid = server;
        Some(if found.is_zoned() { self.revalidate_zones(device) } else { self.add_disk(device) })
    }

    /// add_disk: `/dev/ublkbN` appears, and the kernel looks for partitions.
    pub(crate) fn add_disk(&mut self, device: usize) -> Stage {
        if !self.config.partition_scan || !self.devices[device].has_partitions() {
            self.end_start(device);
            return Stage::End(Ok(0));
        }
        let request = self.look_for_partitions(device);
        if !self.config.kernel.start_reads {
            self.end_start(device);
            return Stage::End(Ok(0));
        }
        self.devices[device].starting = Starting::Partitions;
        Stage::Next(Pending::Scan { device, request })
    }

    /// START_DEV releases the device's mutex. A server that has gone meanwhile is noticed now.
    pub(crate) fn end_start(&mut self, device: usize) {
        self.devices[device].starting = Starting::No;
        if self.devices[device].releasing {
            self.release_char(device);
        }
    }

    /// The end of a START_DEV with a partition scan; none while the read is in flight.
    pub(crate) fn scanned(&mut self, device: usize, request: u64) -> Option<Result<i32, i32>> {
        if self.requests.get(&request).is_some_and(|read| read.outcome.is_none()) {
            return None;
        }
        // A failed read does not fail START_DEV.
        self.requests.remove(&request);
        self.end_start(device);
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
