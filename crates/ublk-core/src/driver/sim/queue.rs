//! `/sys/block/ublkbN/queue`: settings are kept and change nothing.

use std::io;

use super::Sim;
use super::model::Model;

const SETTINGS: [&str; 7] = [
    "scheduler",
    "wbt_lat_usec",
    "nomerges",
    "iostats",
    "rq_affinity",
    "read_ahead_kb",
    "max_sectors_kb",
];
const SCHEDULERS: [&str; 2] = ["none", "mq-deadline"];

impl Model {
    pub(super) fn set_queue(&mut self, id: u32, name: &str, value: &str) -> io::Result<()> {
        let device = self.find_device(id).filter(|&device| self.devices[device].disk);
        let known =
            SETTINGS.contains(&name) && (name != "wbt_lat_usec" || self.config.kernel.throttling);
        let Some(device) = device.filter(|_| known) else {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        };
        if name == "scheduler" && !SCHEDULERS.contains(&value) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        self.devices[device].queue_settings.insert(name.into(), value.into());
        Ok(())
    }
}

impl Sim {
    /// What was written to a setting of a device's queue.
    pub fn queue_setting(&self, id: u32, name: &str) -> Option<String> {
        let model = self.lock();
        model.devices[model.find_device(id)?].queue_settings.get(name).cloned()
    }
}
