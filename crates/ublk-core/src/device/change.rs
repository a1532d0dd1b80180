//! Changing a device while it lives: its size, its server.

use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_F_QUIESCE, UBLK_F_UPDATE_SIZE, UBLK_F_USER_RECOVERY, UBLK_PARAM_TYPE_ZONED, ublk_params,
};

use super::admin;
use super::options::{DeviceInfo, DeviceState};
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};

const LIMIT: Duration = Duration::from_secs(30);
/// How long a server may take to leave before it is told again, at first: the kernel takes back
/// only the fetches that it finds, and each request that ends meanwhile makes a new one.
const PATIENCE: Duration = Duration::from_millis(2);
const MOST_PATIENCE: Duration = Duration::from_millis(200);

/// Takes a device's requests away from its server, which ends what it has begun and leaves; the
/// device waits for [`Device::recover`](super::Device::recover) (Linux 6.16).
///
/// # Errors
/// [`Code::InvalidArgument`] for a device without recovery; [`Code::Unsupported`] before 6.16;
/// [`Code::Timeout`] when the server does not leave; [`Code::NoDevice`] and others.
pub fn quiesce<D: Driver>(driver: D, id: u32) -> Result<()> {
    quiesce_and_wait(&Control::new(driver), id, LIMIT)
}

pub(super) fn quiesce_and_wait<D: Driver>(
    control: &Control<D>,
    id: u32,
    limit: Duration,
) -> Result<()> {
    check_quiesce(control, id)?;
    let deadline = Instant::now() + limit;
    let mut patience = PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        take_away(control, id)?;
        let state = until_left(control, id, patience.min(left))?;
        patience = (patience * 2).min(MOST_PATIENCE);
        match state {
            DeviceState::Quiesced | DeviceState::FailIo => return Ok(()),
            DeviceState::Dead => {
                let message = format!("ublk device {id} was stopped meanwhile");
                return Err(Error::new(Code::Closed, message));
            }
            DeviceState::Live if Instant::now() < deadline => {}
            DeviceState::Live => {
                let message = format!("the server of ublk device {id} does not leave it");
                return Err(Error::new(Code::Timeout, message)
                    .hint("kill it, and the device can be recovered"));
            }
        }
    }
}

/// Whether a device can be taken from its server.
pub(super) fn check_quiesce<D: Driver>(control: &Control<D>, id: u32) -> Result<()> {
    let flags = control.info(id)?.flags;
    if flags & UBLK_F_USER_RECOVERY == 0 {
        let message = format!("ublk device {id} was created without recovery");
        return Err(Error::new(Code::InvalidArgument, message)
            .hint("nobody could serve it again: stop it instead, or create it with recovery"));
    }
    if flags & UBLK_F_QUIESCE == 0 {
        let message = format!("ublk device {id} cannot be quiesced: the kernel lacks QUIESCE");
        return Err(Error::new(Code::Unsupported, message).hint(
            "it needs Linux 6.16; before, end the server's process: the next server recovers the \
             device",
        ));
    }
    Ok(())
}

/// Makes new requests wait, or fail, and takes fetches back as far as the kernel meets them: none
/// while all tags of a queue are taken by requests that wait.
pub(super) fn take_away<D: Driver>(control: &Control<D>, id: u32) -> Result<()> {
    match control.quiesce(id, Duration::from_millis(20)) {
        Err(Error { code: Code::Busy, .. }) => Ok(()),
        result => result,
    }
}

/// Waits until the server has answered all requests that it has.
pub(super) fn until_idle<D: Driver>(control: &Control<D>, id: u32, limit: Duration) {
    let deadline = Instant::now() + limit;
    while control.driver().requests_in_flight(id) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_micros(500));
    }
}

/// Waits a while for a device's server to leave; answers the device's state then.
pub(super) fn until_left<D: Driver>(
    control: &Control<D>,
    id: u32,
    limit: Duration,
) -> Result<DeviceState> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        let state = DeviceState::from(control.info(id)?.state);
        if state != DeviceState::Live || Instant::now() >= deadline {
            return Ok(state);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Changes the size of a device that is being served (Linux 6.16). Whether what lies behind it
/// holds as much is for its server to know, so it only grows with `force`;
/// [`Device::resize`](super::Device::resize) asks the server.
///
/// # Errors
/// [`Code::InvalidArgument`] for a size that the device cannot have, and to grow without `force`;
/// [`Code::Unsupported`] before 6.16 and for zoned devices; [`Code::Closed`] for a device that is
/// not live; [`Code::NoDevice`] and others.
pub fn resize<D: Driver>(driver: D, id: u32, size: u64, force: bool) -> Result<DeviceInfo> {
    let control = Control::new(driver);
    let check = |size| if force { Ok(()) } else { refuse_to_grow(&control, id, size) };
    resize_with(&control, id, size, check)
}

fn refuse_to_grow<D: Driver>(control: &Control<D>, id: u32, size: u64) -> Result<()> {
    let now = control.params(id)?.basic.dev_sectors << 9;
    if size <= now {
        return Ok(());
    }
    let server = control.info(id)?.ublksrv_pid;
    let message = format!(
        "only its server, process {server}, knows whether what lies behind ublk device {id} holds \
         {size} bytes; the device has {now}"
    );
    Err(Error::new(Code::InvalidArgument, message).hint(
        "let the server resize it, which looks first; or grow what lies behind it and use force \
         (ublk resize --force)",
    ))
}

pub(super) fn resize_with<D: Driver>(
    control: &Control<D>,
    id: u32,
    size: u64,
    check_target: impl FnOnce(u64) -> Result<()>,
) -> Result<DeviceInfo> {
    let info = control.info(id)?;
    if control.features()? & UBLK_F_UPDATE_SIZE == 0 {
        let message = "this kernel's ublk driver lacks UPDATE_SIZE";
        return Err(Error::new(Code::Unsupported, message)
            .hint("it needs Linux 6.16; before, close the device and create it anew"));
    }
    // The kernel looks at nothing, and some follow a null pointer (trap 59).
    if DeviceState::from(info.state) != DeviceState::Live {
        let message = format!("ublk device {id} is not live, so its size cannot change");
        return Err(Error::new(Code::Closed, message));
    }
    check_size(&control.params(id)?, id, size)?;
    check_target(size)?;
    control.update_size(id, size >> 9)?;
    admin::describe(control, id)
}

fn check_size(params: &ublk_params, id: u32, size: u64) -> Result<()> {
    if params.types & UBLK_PARAM_TYPE_ZONED != 0 {
        let message =
            format!("ublk device {id} is zoned: its zones are counted once, at its start");
        return Err(Error::new(Code::Unsupported, message));
    }
    let block = 1_u64 << params.basic.logical_bs_shift.min(63);
    if size < block || !size.is_multiple_of(block) {
        let message = format!(
            "the size is {size} bytes; it must be a multiple of the logical block of {block}"
        );
        return Err(Error::new(Code::InvalidArgument, message));
    }
    Ok(())
}
