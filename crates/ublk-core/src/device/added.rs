//! A device between `ADD_DEV` and `START_DEV`.

use std::time::Duration;

use ublk_sys::ublksrv_ctrl_dev_info;

use super::admin;
use crate::control::Control;
use crate::driver::Driver;

/// How long the deletion of a device may take whose creation has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// A device that is deleted again unless the device is kept.
pub(super) struct Added<D: Driver> {
    pub(super) info: ublksrv_ctrl_dev_info,
    /// Bound to this device: see [`Control::bound_to`].
    pub(super) control: Control<D>,
    keep: bool,
}

impl<D: Driver> Added<D> {
    /// The device that the kernel has just added.
    pub(super) fn new(control: &Control<D>, info: ublksrv_ctrl_dev_info) -> Self {
        Self { control: control.bound_to(info.dev_id), info, keep: false }
    }

    /// The device has started.
    pub(super) fn keep(mut self) {
        self.keep = true;
    }
}

impl<D: Driver> Drop for Added<D> {
    fn drop(&mut self) {
        if !self.keep {
            // The caller reports the error of the creation.
            let _later = admin::delete_and_wait(&self.control, self.info.dev_id, LIMIT);
        }
    }
}
