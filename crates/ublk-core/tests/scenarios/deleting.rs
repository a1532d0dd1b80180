//! Other programs' DEL_DEV and ADD_DEV beside a server: commands that time out and are executed later, and
//! a device number that is handed out again.

use std::time::Duration;

use ublk_core::control::Control;
use ublk_core::driver::Driver;
use ublk_core::driver::sim::Sim;
use ublk_core::error::{Code, Result};
use ublk_sys::ublksrv_ctrl_dev_info;

use crate::server::{Outcome, Reactors, end};

/// A device that is being deleted, and a device that takes the number.
pub(crate) struct Deleted {
    sim: Sim,
    /// Of the server, bound to the device that is deleted.
    control: Control<Sim>,
    id: u32,
}

impl Deleted {
    /// Deletes the device and adds another device, with the same number or with any.
    pub(crate) fn begin(sim: &Sim, id: u32, same: bool) -> Self {
        let control = Control::new(sim.clone()).bound_to(id);
        let deleted = control.delete(id, Duration::ZERO);
        let waits = deleted.is_err_and(|error| error.code == Code::Timeout);
        let added = add(sim, if same { id } else { u32::MAX });
        assert_eq!(added.is_err_and(|error| error.code == Code::Timeout), waits);
        Self { sim: sim.clone(), control, id }
    }

    /// Lets the server see the end of the device. No command of the server may reach the device that has
    /// the number then.
    pub(crate) fn finish(&self, reactors: &mut Reactors, patience: u32) -> Outcome {
        end(&self.sim, reactors, patience)?;
        if self.sim.devices().is_empty() {
            // The device still had the number when the late ADD_DEV was executed.
            add(&self.sim, self.id).map_err(|error| error.to_string())?;
        }
        let answers = [
            self.control.stop(self.id, Duration::ZERO),
            self.control.delete(self.id, Duration::ZERO),
        ];
        for answer in answers {
            if answer.as_ref().err().map(|error| error.code) != Some(Code::NoDevice) {
                return Err(format!(
                    "a command reaches the device that has the number: {answer:?}"
                ));
            }
        }
        let [added] = self.sim.devices()[..] else {
            return Err(format!("there should be one device: {:?}", self.sim.devices()));
        };
        let other = Control::new(self.sim.clone());
        other.delete(added, Duration::ZERO).map_err(|error| error.to_string())
    }
}

/// Adds a device that nobody serves.
fn add(sim: &Sim, id: u32) -> Result<ublksrv_ctrl_dev_info> {
    let wanted = ublksrv_ctrl_dev_info {
        nr_hw_queues: 1,
        queue_depth: 1,
        max_io_buf_bytes: 4096,
        dev_id: id,
        ..Default::default()
    };
    Control::new(sim.clone()).add(&wanted)
}
