//! Commands for any device of this machine, of whatever server.

use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_ATTR_READ_ONLY, UBLK_F_SAFE_STOP_DEV, UBLK_PARAM_TYPE_BASIC, UBLK_S_DEV_FAIL_IO,
    UBLK_S_DEV_LIVE, UBLK_S_DEV_QUIESCED, ublk_params, ublksrv_ctrl_dev_info,
};

use super::layout;
use super::options::{DeviceInfo, DeviceState, Recovery};
use crate::control::Control;
use crate::driver::{Driver, Users};
use crate::error::{Code, Error, Result};

/// How long the stop or the deletion of another server's device may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a list of devices waits for the parameters of all devices that the kernel is busy with.
const PATIENCE: Duration = Duration::from_secs(1);
/// The least such wait for each device.
const LEAST_PATIENCE: Duration = Duration::from_millis(20);

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
    describe(&Control::new(driver).bound_to(id), id)
}

/// All devices that this user may see, also devices without a server.
///
/// # Errors
/// [`Code::NoDriver`], [`Code::Permission`] and others; a device that goes away meanwhile is no error.
pub fn list<D: Driver>(driver: D) -> Result<Vec<DeviceInfo>> {
    let control = Control::new(driver);
    control.features()?;
    let ids = control.driver().devices();
    let deadline = Instant::now() + PATIENCE;
    let mut devices = Vec::with_capacity(ids.len());
    for id in ids {
        match describe_until(&control.bound_to(id), id, deadline) {
            Ok(device) => devices.push(device),
            // The device has gone meanwhile, or is another user's.
            Err(Error { code: Code::NoDevice | Code::Permission, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(devices)
}

/// What was checked before the stop of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCheck {
    /// The kernel made sure that nobody had the device open (Linux 7.0).
    Openers,
    /// `/proc` and `/sys` named no user, and no process had claimed the device (older kernels). The check
    /// misses a process that this user cannot see, or that opened the device meanwhile.
    Holders,
    /// Nothing.
    Nothing,
}

/// The users of a device.
///
/// # Errors
/// [`Code::NoDevice`] and others.
pub fn users<D: Driver>(driver: &D, id: u32) -> Result<Users> {
    Control::new(driver.clone()).info(id)?;
    Ok(driver.users(id))
}

/// Stops a device: the server answers the requests in flight, and sees the device end. Without `force`
/// only a device that nobody uses.
///
/// # Errors
/// [`Code::Busy`] while somebody uses the device; [`Code::NoDevice`], [`Code::Timeout`] and others.
pub fn stop<D: Driver>(driver: &D, id: u32, force: bool) -> Result<StopCheck> {
    stop_unless_used(driver, &Control::new(driver.clone()).bound_to(id), id, force, "stop")
}

/// `verb` is the command of `ublk` that stops the device by force.
fn stop_unless_used<D: Driver>(
    driver: &D,
    control: &Control<D>,
    id: u32,
    force: bool,
    verb: &str,
) -> Result<StopCheck> {
    if force {
        return stop_in_time(control, id).map(|()| StopCheck::Nothing);
    }
    let is_live = control.info(id)?.state == UBLK_S_DEV_LIVE;
    let kernel_looks = control.features().is_ok_and(|flags| flags & UBLK_F_SAFE_STOP_DEV != 0);
    if kernel_looks {
        match try_stop(control, id) {
            // Without a disk, nobody has the device open.
            Err(Error { code: Code::NoDevice, .. }) if !is_live => {}
            Err(Error { code: Code::Busy, .. }) => return Err(in_use(id, &driver.users(id), verb)),
            // The kernel waits for `open_mutex` before it counts who has the disk open (trap 69).
            Err(error) if error.code == Code::Timeout && !is_live => {
                return Err(error.hint(format!(
                    "whoever opens the disk, or the kernel that reads its partition table, waits for a \
                     server: ublk recover {id}, or ublk {verb} {id} --force"
                )));
            }
            result => return result.map(|()| StopCheck::Openers),
        }
    } else {
        let users = driver.users(id);
        if !users.found.is_empty() || driver.block_device_is_held(id) {
            return Err(in_use(id, &users, verb));
        }
    }
    stop_in_time(control, id)?;
    Ok(if kernel_looks { StopCheck::Openers } else { StopCheck::Holders })
}

/// Stops a device, and waits as long as requests end: the kernel counts the requests, unless `iostats` is 0.
fn stop_in_time<D: Driver>(control: &Control<D>, id: u32) -> Result<()> {
    let counted = control.driver().counts_requests(id);
    control.stop(id, LIMIT).map_err(|error| match error.code {
        Code::Timeout if !counted => error.hint(format!(
            "its clients' data may still be being written back: the kernel does not tell, since \
             /sys/block/ublkb{id}/queue/iostats is 0; write 1 to it, and try again"
        )),
        _ => error,
    })
}

fn in_use(id: u32, users: &Users, verb: &str) -> Error {
    let message = format!("ublk device {id} is in use: {users}");
    Error::new(Code::Busy, message).hint(format!(
        "`ublk {verb} --force {id}` takes the device away all the same: its users see errors from \
         then on"
    ))
}

/// udev opens devices for a moment when they appear and whenever somebody has written to them.
fn try_stop<D: Driver>(control: &Control<D>, id: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match control.try_stop(id, LIMIT) {
            Err(Error { code: Code::Busy, .. }) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

/// Stops and deletes a device; without `force` only a device that nobody uses.
///
/// # Errors
/// [`Code::Busy`] while somebody uses the device; by force, when somebody still has the device open after
/// 30 s: the device then goes with the last close. [`Code::NoDevice`] and others.
pub fn delete<D: Driver>(driver: &D, id: u32, force: bool) -> Result<()> {
    let control = Control::new(driver.clone()).bound_to(id);
    stop_unless_used(driver, &control, id, force, "delete")?;
    delete_and_wait(&control, id, LIMIT)
}

/// Deletes the device that `control` is bound to, and waits until no command reaches the device.
pub(super) fn delete_and_wait<D: Driver>(
    control: &Control<D>,
    id: u32,
    limit: Duration,
) -> Result<()> {
    if control.is_gone(id).is_ok_and(|gone| !gone) {
        layout::forget(control.driver(), id);
    }
    match control.delete(id, limit) {
        // The server deletes the device too, and was quicker.
        Err(Error { code: Code::NoDevice, .. }) => return Ok(()),
        result => result?,
    }
    wait_until_gone(control, id, limit)?;
    control.driver().remove_nodes(id);
    Ok(())
}

fn wait_until_gone<D: Driver>(control: &Control<D>, id: u32, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        match control.is_gone(id)? {
            true => return Ok(()),
            false if Instant::now() >= deadline => {
                let message = format!("ublk device {id} is deleted, but still in use");
                return Err(Error::new(Code::Busy, message).hint(format!(
                    "it goes when the last user does: umount it, or see `fuser -vm /dev/ublkb{id}`"
                )));
            }
            false => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

pub(super) fn describe<D: Driver>(control: &Control<D>, id: u32) -> Result<DeviceInfo> {
    describe_until(control, id, Instant::now() + PATIENCE)
}

/// GET_PARAMS waits for the end of a stop. Where there is a disk, the block layer answers in place of
/// GET_PARAMS; values without an answer in time stay unknown.
fn describe_until<D: Driver>(
    control: &Control<D>,
    id: u32,
    deadline: Instant,
) -> Result<DeviceInfo> {
    let info = control.info(id)?;
    if let Some(disk) = control.driver().disk(id) {
        return Ok(DeviceInfo {
            size: (disk.size > 0).then_some(disk.size),
            logical_block: Some(disk.logical_block),
            read_only: Some(disk.read_only),
            ..DeviceInfo::new(&info, &ublk_params::default())
        });
    }
    let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_PATIENCE);
    // The kernel refuses only a device without parameters.
    let params = control.params_within(id, left).unwrap_or_default();
    Ok(DeviceInfo::new(&info, &params))
}

impl From<u16> for DeviceState {
    fn from(state: u16) -> Self {
        match state {
            UBLK_S_DEV_LIVE => Self::Live,
            UBLK_S_DEV_QUIESCED => Self::Quiesced,
            UBLK_S_DEV_FAIL_IO => Self::FailIo,
            _ => Self::Dead,
        }
    }
}

impl DeviceInfo {
    pub(super) fn new(info: &ublksrv_ctrl_dev_info, params: &ublk_params) -> Self {
        let basic = (params.types & UBLK_PARAM_TYPE_BASIC != 0).then_some(params.basic);
        Self {
            id: info.dev_id,
            state: info.state.into(),
            queues: info.nr_hw_queues,
            depth: info.queue_depth,
            max_io_bytes: info.max_io_buf_bytes,
            // A server that has left the device may live on.
            server_pid: u32::try_from(info.ublksrv_pid)
                .ok()
                .filter(|&pid| pid > 0 && info.state == UBLK_S_DEV_LIVE),
            flags: info.flags,
            size: basic.map(|basic| basic.dev_sectors << 9),
            logical_block: basic.map(|basic| 1 << basic.logical_bs_shift),
            read_only: basic.map(|basic| basic.attrs & UBLK_ATTR_READ_ONLY != 0),
            owner_uid: info.owner_uid,
            owner_gid: info.owner_gid,
            recovery: Recovery::of(info.flags),
        }
    }
}
