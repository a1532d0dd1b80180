//! What sysfs tells: the class of ublkcN, which are there from ADD_DEV to DEL_DEV, and the disks.

use std::io;

use ublk_sys::UBLK_ATTR_READ_ONLY;

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::device::Stop;
use crate::driver::{BlockNode, DiskFacts, Identity};

impl Model {
    pub(crate) fn listed(&self) -> Vec<u32> {
        let there = self.devices.iter().filter(|device| !device.gone && !device.deleted);
        let mut ids: Vec<u32> = there.map(|device| device.info.dev_id).collect();
        ids.sort_unstable();
        ids
    }

    /// Its place in the model, which no other device ever has.
    pub(crate) fn identity(&self, id: u32) -> Option<Identity> {
        let device = self.find_device(id).filter(|&device| !self.devices[device].deleted)?;
        Some(Identity { boot: 0, number: device as u64 })
    }

    pub(crate) fn disk(&self, id: u32) -> Option<DiskFacts> {
        let device = &self.devices[self.find_device(id)?];
        let basic = &device.params.basic;
        device.has_node().then(|| DiskFacts {
            // A disk that goes is marked dead before its requests are waited for.
            size: if device.stop == Stop::No { basic.dev_sectors << 9 } else { 0 },
            logical_block: 1 << basic.logical_bs_shift,
            read_only: basic.attrs & UBLK_ATTR_READ_ONLY != 0,
        })
    }

    pub(crate) fn block_node(&self, id: u32) -> BlockNode {
        match self.find_device(id) {
            _ if self.files_in_dev.contains(&id) => BlockNode::Occupied("a plain file".into()),
            Some(device) if !self.devices[device].has_node() => BlockNode::NotYet,
            Some(_) if self.without_nodes => {
                BlockNode::Missing(io::Error::from_raw_os_error(libc::EPERM))
            }
            Some(_) => BlockNode::Ready,
            None => BlockNode::NotYet,
        }
    }
}
