//! The control commands of an export, answered in the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_CMD_ADD_DEV, UBLK_CMD_DEL_DEV, UBLK_CMD_GET_DEV_INFO, UBLK_CMD_GET_DEV_INFO2,
    UBLK_CMD_GET_PARAMS, UBLK_CMD_SET_PARAMS, UBLK_CMD_START_DEV, UBLK_CMD_STOP_DEV,
    UBLK_F_CMD_IOCTL_ENCODE, UBLK_F_UPDATE_SIZE, UBLK_S_DEV_DEAD, UBLK_S_DEV_LIVE,
    UBLK_U_CMD_DEL_DEV_ASYNC, UBLK_U_CMD_GET_FEATURES, UBLK_U_CMD_UPDATE_SIZE, ublk_params,
    ublksrv_ctrl_cmd, ublksrv_ctrl_dev_info, ublksrv_io_desc,
};

use super::door::Door;
use super::listener;
use super::state::Shared;
use crate::driver::{ControlAnswer, Plain};

/// How long clients have to take the replies of an export that ends.
const GRACE: Duration = Duration::from_secs(2);

const ADD: u32 = UBLK_CMD_ADD_DEV as u32;
const DELETE: u32 = UBLK_CMD_DEL_DEV as u32;
const DELETE_SOON: u32 = UBLK_U_CMD_DEL_DEV_ASYNC & 0xff;
const FEATURES: u32 = UBLK_U_CMD_GET_FEATURES & 0xff;
const INFO: u32 = UBLK_CMD_GET_DEV_INFO as u32;
const INFO2: u32 = UBLK_CMD_GET_DEV_INFO2 as u32;
const PARAMS: u32 = UBLK_CMD_GET_PARAMS as u32;
const SET_PARAMS: u32 = UBLK_CMD_SET_PARAMS as u32;
const START: u32 = UBLK_CMD_START_DEV as u32;
const STOP: u32 = UBLK_CMD_STOP_DEV as u32;
const RESIZE: u32 = UBLK_U_CMD_UPDATE_SIZE & 0xff;

/// What an export can do.
const ABILITIES: u64 = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_UPDATE_SIZE;

impl Shared {
    pub(super) fn carry_out(
        self: &Arc<Self>,
        operation: u32,
        command: ublksrv_ctrl_cmd,
        buffer: Option<Box<[u8]>>,
        limit: Duration,
    ) -> io::Result<ControlAnswer> {
        let number = operation & 0xff;
        if number == FEATURES {
            return Ok(filled(buffer, &ABILITIES.to_ne_bytes()));
        }
        if number == ADD {
            return self.add(buffer);
        }
        if command.dev_id != self.id || self.lock().info.is_none() {
            return Err(errno(libc::ENODEV));
        }
        match number {
            INFO | INFO2 => {
                let info = self.lock().info.unwrap_or_default();
                Ok(filled(buffer, &info.to_buffer()))
            }
            PARAMS => {
                let params = self.lock().params;
                Ok(filled(buffer, &params.to_buffer()))
            }
            SET_PARAMS => {
                let params = ublk_params::parse(buffer.as_deref().unwrap_or_default());
                self.size.store(params.basic.dev_sectors << 9, Ordering::Relaxed);
                self.lock().params = params;
                Ok(done(buffer))
            }
            START => {
                listener::start(self)?;
                self.set_state(UBLK_S_DEV_LIVE, i32::try_from(command.data[0]).unwrap_or(0));
                Ok(done(buffer))
            }
            STOP => {
                self.stop(limit)?;
                Ok(done(buffer))
            }
            RESIZE => {
                // Requests are checked against the size of their time.
                let sectors = command.data[0];
                self.lock().params.basic.dev_sectors = sectors;
                self.size.store(sectors << 9, Ordering::Relaxed);
                Ok(done(buffer))
            }
            DELETE | DELETE_SOON => {
                self.stop(limit)?;
                let mut state = self.lock();
                state.info = None;
                state.doors.clear();
                Ok(done(buffer))
            }
            _ => Err(errno(libc::EOPNOTSUPP)),
        }
    }

    fn add(&self, buffer: Option<Box<[u8]>>) -> io::Result<ControlAnswer> {
        let asked = ublksrv_ctrl_dev_info::parse(buffer.as_deref().unwrap_or_default());
        let mut state = self.lock();
        if state.info.is_some() {
            return Err(errno(libc::EEXIST));
        }
        let door = |_| Door::new(asked.queue_depth).map(Arc::new);
        state.doors = (0..asked.nr_hw_queues).map(door).collect::<io::Result<_>>()?;
        let info = ublksrv_ctrl_dev_info {
            dev_id: self.id,
            state: UBLK_S_DEV_DEAD,
            flags: asked.flags & ABILITIES,
            io_desc_size: u16::try_from(size_of::<ublksrv_io_desc>()).unwrap_or_default(),
            ..asked
        };
        state.info = Some(info);
        Ok(filled(buffer, &info.to_buffer()))
    }

    fn set_state(&self, device_state: u16, pid: i32) {
        if let Some(info) = &mut self.lock().info {
            info.state = device_state;
            info.ublksrv_pid = pid;
        }
    }

    /// Lets the requests under way end, and the clients take the replies; then ends the queues.
    fn stop(&self, limit: Duration) -> io::Result<()> {
        self.listener.stop();
        let doors = self.lock().doors.clone();
        doors.iter().for_each(|door| door.send(|mail| mail.stop = true));
        let begin = Instant::now();
        let ended = |deadline| doors.iter().all(|door| door.wait_for_end(deadline));
        if !ended(begin + GRACE.min(limit)) {
            doors.iter().for_each(|door| door.send(|mail| mail.cut = true));
            if !ended(begin + limit) {
                return Err(errno(libc::ETIMEDOUT));
            }
        }
        self.set_state(UBLK_S_DEV_DEAD, 0);
        Ok(())
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

fn done(buffer: Option<Box<[u8]>>) -> ControlAnswer {
    ControlAnswer { result: 0, buffer }
}

/// An answer in the buffer of the command, as far as there is room.
fn filled(buffer: Option<Box<[u8]>>, answer: &[u8]) -> ControlAnswer {
    let mut buffer = buffer.unwrap_or_default();
    let length = buffer.len().min(answer.len());
    buffer[..length].copy_from_slice(&answer[..length]);
    ControlAnswer { result: 0, buffer: Some(buffer) }
}
