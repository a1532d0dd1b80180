//! `/sys/block/ublkbN/queue`: settings are kept, and change nothing but what is counted and how many
//! tags are given out.

use std::io;

use crate::driver::sim::Sim;
use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::device::Device;

const SETTINGS: [&str; 8] = [
    "scheduler",
    "wbt_lat_usec",
    "nomerges",
    "iostats",
    "rq_affinity",
    "read_ahead_kb",
    "max_sectors_kb",
    "nr_requests",
];
/// BLKDEV_MIN_RQ.
const FEWEST_REQUESTS: u16 = 4;
const SCHEDULERS: [&str; 2] = ["none", "mq-deadline"];

impl Device {
    /// blk_queue_io_stat.
    pub(crate) fn counts_requests(&self) -> bool {
        self.queue_settings.get("iostats").is_none_or(|value| value != "0")
    }

    /// How many tags of each queue requests may have.
    pub(crate) fn tags_in_use(&self) -> usize {
        let depth = self.info.queue_depth;
        let limit = self.queue_settings.get("nr_requests").and_then(|value| value.parse().ok());
        limit.unwrap_or(depth).into()
    }
}

impl Model {
    pub(crate) fn set_queue(&mut self, id: u32, name: &str, value: &str) -> io::Result<()> {
        let device = self.find_device(id).filter(|&device| self.devices[device].has_node());
        let known =
            SETTINGS.contains(&name) && (name != "wbt_lat_usec" || self.config.kernel.throttling);
        let Some(device) = device.filter(|_| known) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        if name == "scheduler" && !SCHEDULERS.contains(&value) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let mut value = value.to_owned();
        if name == "nr_requests" {
            let depth = self.devices[device].info.queue_depth;
            let wanted = value.parse().unwrap_or(0).max(FEWEST_REQUESTS);
            if wanted > depth {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            value = wanted.to_string();
        }
        self.devices[device].queue_settings.insert(name.into(), value);
        Ok(())
    }
}

impl Sim {
    /// A client makes a plain file of `/dev/ublkbN`, or removes what it has made.
    pub fn put_file_in_place_of(&self, id: u32, there: bool) {
        let files = &mut self.lock().files_in_dev;
        if there {
            files.insert(id)
        } else {
            files.remove(&id)
        };
    }

    /// From now on nothing makes nodes in `/dev`.
    pub fn make_no_nodes(&self) {
        self.lock().without_nodes = true;
    }

    /// What was written to a setting of a device's queue.
    pub fn queue_setting(&self, id: u32, name: &str) -> Option<String> {
        let model = self.lock();
        model.devices[model.find_device(id)?].queue_settings.get(name).cloned()
    }
}
