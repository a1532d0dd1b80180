//! Changing a device while it lives: its size, its server.

use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_F_QUIESCE, UBLK_F_UPDATE_SIZE, UBLK_F_USER_RECOVERY, UBLK_PARAM_TYPE_ZONED, ublk_params,
    ublksrv_ctrl_dev_info,
};

use super::options::{DeviceInfo, DeviceState, ExchangeMode};
use super::{admin, negotiate};
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
/// [`Code::InvalidArgument`] for a device without recovery; [`Code::Unsupported`] before 6.16, for a
/// device with batches, and while the kernel does not count its requests; [`Code::Timeout`] when the server does not leave; [`Code::NoDevice`] and others.
pub fn quiesce<D: Driver>(driver: D, id: u32) -> Result<()> {
    quiesce_and_wait(&Control::new(driver).bound_to(id), id, LIMIT)
}

pub(super) fn quiesce_and_wait<D: Driver>(
    control: &Control<D>,
    id: u32,
    limit: Duration,
) -> Result<()> {
    check_quiesce(control, id)?;
    let info = control.info(id)?;
    if DeviceState::from(info.state) == DeviceState::Live {
        check_from_outside(control, &info)?;
    }
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
        return Err(no_recovery(id));
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

/// Whether `QUIESCE_DEV` leaves all requests of a device that is served to somebody who ends them.
fn check_from_outside<D: Driver>(control: &Control<D>, info: &ublksrv_ctrl_dev_info) -> Result<()> {
    let (id, server) = (info.dev_id, info.ublksrv_pid);
    // The kernel (7.3) fails each request of a batch device from QUIESCE_DEV until the next server:
    // `ublk_batch_cancel_queue` marks its queues as those of a device that is being stopped.
    if negotiate::in_force(info.flags).1 == ExchangeMode::Batch {
        let message = format!(
            "ublk device {id} cannot be quiesced: it has exchange 'batch', so the kernel would fail \
             the requests of its clients until the next server"
        );
        return Err(Error::new(Code::Unsupported, message).hint(format!(
            "end its server, process {server}: the device waits for the next one; a server with \
             reactors of its own can leave the device too (device.quiesce())"
        )));
    }
    if !control.driver().counts_requests(id) {
        return Err(uncounted(id));
    }
    Ok(())
}

/// Nobody can tell whether the server still has requests.
pub(super) fn uncounted(id: u32) -> Error {
    let message = format!(
        "ublk device {id} cannot be quiesced: the kernel does not count its requests in flight, so \
         its server cannot tell when they have ended"
    );
    Error::new(Code::Unsupported, message)
        .hint(format!("echo 1 > /sys/block/ublkb{id}/queue/iostats, and try again"))
}

/// Some of the requests that the server has begun do not end.
pub(super) fn does_not_end(id: u32, server: u32) -> Error {
    let message = format!("requests of ublk device {id} do not end, so its server has not left it");
    Error::new(Code::Timeout, message).hint(format!(
        "the server leaves when they have ended, and new requests wait; if process {server} is \
         killed, the device can be recovered at once"
    ))
}

pub(super) fn no_recovery(id: u32) -> Error {
    let message = format!("ublk device {id} was created without recovery");
    Error::new(Code::InvalidArgument, message)
        .hint("nobody could serve it again: stop it instead, or create it with recovery")
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
    let control = Control::new(driver).bound_to(id);
    let check = |size| if force { Ok(()) } else { refuse_to_grow(&control, id, size) };
    resize_with(&control, id, size, LIMIT, check)
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
    limit: Duration,
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
    check_size(&control.params_within(id, limit)?, id, size)?;
    check_target(size)?;
    control.update_size(id, size >> 9, limit)?;
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
