//! What can be done to any device of this machine, whoever serves it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_ATTR_READ_ONLY, UBLK_PARAM_TYPE_BASIC, UBLK_S_DEV_FAIL_IO, UBLK_S_DEV_LIVE,
    UBLK_S_DEV_QUIESCED, ublk_params, ublksrv_ctrl_dev_info,
};

use super::options::{DeviceInfo, DeviceState};
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};

/// How long stopping or deleting somebody else's device may take.
const LIMIT: Duration = Duration::from_secs(30);

/// `UBLK_F_*` that the kernel knows.
///
/// # Errors
/// [`Code::NoDriver`], [`Code::Permission`].
pub fn features<D: Driver>(driver: D) -> Result<u64> {
    Control::new(driver).features()
}

/// One device.
///
/// # Errors
/// [`Code::NoDevice`] and others.
pub fn info<D: Driver>(driver: D, id: u32) -> Result<DeviceInfo> {
    describe(&Control::new(driver), id)
}

/// All devices, by their character devices in `/dev`, those included whose server is gone.
///
/// # Errors
/// [`Code::NoDriver`], [`Code::Permission`] and others; a device that goes away meanwhile is none.
pub fn list<D: Driver>(driver: D) -> Result<Vec<DeviceInfo>> {
    let control = Control::new(driver);
    control.features()?;
    let mut ids: Vec<u32> = fs::read_dir("/sys/class/ublk-char")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("ublkc")?.parse().ok())
        .collect();
    ids.sort_unstable();
    let mut devices = Vec::with_capacity(ids.len());
    for id in ids {
        match describe(&control, id) {
            Ok(device) => devices.push(device),
            Err(Error { code: Code::NoDevice, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(devices)
}

/// Stops a device: its server answers what is in flight, and sees it end.
///
/// # Errors
/// [`Code::NoDevice`], [`Code::Timeout`] and others.
pub fn stop<D: Driver>(driver: D, id: u32) -> Result<()> {
    Control::new(driver).stop(id, LIMIT)
}

/// Stops a device and deletes it.
///
/// # Errors
/// [`Code::NoDevice`]; [`Code::Busy`] when somebody still has it open after `30 s`: it goes when
/// they let go.
pub fn delete<D: Driver>(driver: D, id: u32) -> Result<()> {
    let control = Control::new(driver);
    control.stop(id, LIMIT)?;
    delete_and_wait(&control, id, LIMIT)
}

pub(super) fn delete_and_wait<D: Driver>(
    control: &Control<D>,
    id: u32,
    limit: Duration,
) -> Result<()> {
    match control.delete(id, limit) {
        // The server deletes it too, and was quicker.
        Err(Error { code: Code::NoDevice, .. }) => return Ok(()),
        result => result?,
    }
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        match control.info(id) {
            Err(Error { code: Code::NoDevice, .. }) => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) if Instant::now() >= deadline => {
                let message = format!("ublk device {id} is deleted, but still in use");
                return Err(Error::new(Code::Busy, message).hint(format!(
                    "it goes when the last user does: umount it, or see `fuser -vm /dev/ublkb{id}`"
                )));
            }
            Ok(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn describe<D: Driver>(control: &Control<D>, id: u32) -> Result<DeviceInfo> {
    let info = control.info(id)?;
    // Refused only while there is nothing to tell.
    let params = control.params(id).unwrap_or_default();
    Ok(DeviceInfo::new(&info, &params))
}

impl DeviceInfo {
    pub(super) fn new(info: &ublksrv_ctrl_dev_info, params: &ublk_params) -> Self {
        let basic = (params.types & UBLK_PARAM_TYPE_BASIC != 0).then_some(params.basic);
        Self {
            id: info.dev_id,
            state: match info.state {
                UBLK_S_DEV_LIVE => DeviceState::Live,
                UBLK_S_DEV_QUIESCED => DeviceState::Quiesced,
                UBLK_S_DEV_FAIL_IO => DeviceState::FailIo,
                _ => DeviceState::Dead,
            },
            queues: info.nr_hw_queues,
            depth: info.queue_depth,
            max_io_bytes: info.max_io_buf_bytes,
            server_pid: u32::try_from(info.ublksrv_pid).ok().filter(|&pid| pid > 0),
            flags: info.flags,
            size: basic.map(|basic| basic.dev_sectors << 9),
            logical_block: basic.map(|basic| 1 << basic.logical_bs_shift),
            read_only: basic.is_some_and(|basic| basic.attrs & UBLK_ATTR_READ_ONLY != 0),
            owner_uid: info.owner_uid,
        }
    }
}
