//! A control command on its way: the mutexes that it waits for, and what becomes of a command whose
//! sender has given up.
//!
//! The driver has one mutex (`ublk_ctl_mutex`), each device another (`ub->mutex`). A command that
//! waits for a mutex, for requests that end, or for a frozen queue cannot be interrupted: after its
//! sender's time-out the kernel executes the command all the same. Only the waits for fetches and
//! for the last user of a number end with the sender.

use ublk_sys::{
    UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_GET_PARAMS,
    UBLK_U_CMD_QUIESCE_DEV, UBLK_U_CMD_REG_BUF, UBLK_U_CMD_SET_PARAMS,
    UBLK_U_CMD_START_USER_RECOVERY, UBLK_U_CMD_STOP_DEV, UBLK_U_CMD_TRY_STOP_DEV,
    UBLK_U_CMD_UNREG_BUF, UBLK_U_CMD_UPDATE_SIZE, ublksrv_ctrl_cmd,
};

use crate::driver::sim::model::Model;
use crate::driver::sim::ublk_drv::control::{Answer, Pending};
use crate::driver::sim::ublk_drv::device::{Device, Starting, Stop};

/// A command that the kernel has taken and not answered.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) operation: u32,
    pub(crate) command: ublksrv_ctrl_cmd,
    pub(crate) buffer: Box<[u8]>,
    /// The device that had the number when the command began.
    pub(crate) device: Option<usize>,
    pub(crate) pending: Option<Pending>,
    /// The place in the queue for the driver's mutex.
    pub(crate) turn: Option<u64>,
}

impl Call {
    pub(crate) fn new(
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
    ) -> Self {
        let buffer = buffer.unwrap_or_default();
        Self { operation, command, buffer, device: None, pending: None, turn: None }
    }
}

impl Device {
    /// Whether somebody holds `ub->mutex`: a stop that waits for requests, a command that waits for
    /// the frozen queue, a start that reads, or a command of another process.
    pub(crate) fn is_locked(&self) -> bool {
        self.stop != Stop::No || self.frozen || self.starting != Starting::No || self.locked
    }
}

impl Model {
    /// Carries a command on as far as it gets; none, while it waits.
    pub(crate) fn advance(&mut self, call: &mut Call) -> Option<Result<i32, i32>> {
        if call.pending.is_none() {
            match self.control(call) {
                Ok(Answer::Now(result)) => return Some(Ok(result)),
                Ok(Answer::Later(pending)) => call.pending = Some(pending),
                Ok(Answer::Blocked) => return None,
                Err(errno) => {
                    call.turn.map(|turn| self.driver_turns.remove(&turn));
                    return Some(Err(errno));
                }
            }
        }
        call.pending.as_mut().and_then(|pending| self.answer(pending))
    }

    /// The sender of a command gives up.
    pub(crate) fn abandon(&mut self, call: Call) {
        let interrupted = match call.pending {
            Some(Pending::Start { device, .. } | Pending::Recovery { device, .. }) => {
                !self.devices[device].ready()
            }
            Some(Pending::Delete { device, .. }) => !self.devices[device].removing,
            Some(Pending::Quiesce { .. }) => true,
            _ => false,
        };
        if !interrupted {
            self.late.push(call);
        }
    }

    /// Carries on the commands whose senders have given up, in their order.
    pub(crate) fn run_late(&mut self) {
        self.run_closed_rings();
        if self.late.is_empty() {
            return;
        }
        let mut late = std::mem::take(&mut self.late);
        late.retain_mut(|call| self.advance(call).is_none());
        self.late.append(&mut late);
    }

    /// Whether a command has to wait for the driver's mutex, which commands get in their order. Deleting
    /// a device keeps the mutex until the device is stopped and freed.
    pub(crate) fn waits_for_driver(&mut self, operation: u32, turn: &mut Option<u64>) -> bool {
        let takes =
            [UBLK_U_CMD_ADD_DEV, UBLK_U_CMD_DEL_DEV, UBLK_U_CMD_DEL_DEV_ASYNC].contains(&operation);
        if !takes {
            return false;
        }
        let turn = *turn.get_or_insert_with(|| {
            self.next_turn += 1;
            self.driver_turns.insert(self.next_turn);
            self.next_turn
        });
        if self.devices.iter().any(|device| device.removing)
            || self.driver_turns.first().is_some_and(|&first| first < turn)
        {
            return true;
        }
        self.driver_turns.remove(&turn);
        false
    }

    /// Whether a command has to wait for the device's mutex before it begins.
    pub(crate) fn waits_for_device(&self, operation: u32, device: usize) -> bool {
        const TAKES: [u32; 9] = [
            UBLK_U_CMD_GET_PARAMS,
            UBLK_U_CMD_SET_PARAMS,
            UBLK_U_CMD_STOP_DEV,
            UBLK_U_CMD_TRY_STOP_DEV,
            UBLK_U_CMD_UPDATE_SIZE,
            UBLK_U_CMD_START_USER_RECOVERY,
            UBLK_U_CMD_QUIESCE_DEV,
            UBLK_U_CMD_REG_BUF,
            UBLK_U_CMD_UNREG_BUF,
        ];
        TAKES.contains(&operation) && self.devices[device].is_locked()
    }
}
