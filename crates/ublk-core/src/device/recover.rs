//! Serving a device that its server has left.

use std::thread;
use std::time::{Duration, Instant};

use ublk_sys::{
    UBLK_ATTR_FUA, UBLK_ATTR_READ_ONLY, UBLK_ATTR_VOLATILE_CACHE, UBLK_PARAM_TYPE_DISCARD,
    UBLK_PARAM_TYPE_DMA_ALIGN, UBLK_PARAM_TYPE_INTEGRITY, UBLK_PARAM_TYPE_ZONED, ublk_params,
    ublksrv_ctrl_dev_info,
};

use super::abilities::recovers;
use super::create::{Begin, Launch};
use super::options::{DeviceOptions, DeviceState};
use super::pool::Pool;
use super::{Device, needs, negotiate, params};
use crate::control::Control;
use crate::driver::Driver;
use crate::error::{Code, Error, Result};
use crate::target::Target;

pub(super) fn recover<D: Driver, T: Target>(
    driver: &D,
    id: u32,
    target: T,
    options: DeviceOptions,
    pool: Option<&Pool<T>>,
) -> Result<Device<D>> {
    options.validate()?;
    let geometry = *target.geometry();
    geometry.validate()?;
    let control = Control::new(driver.clone());
    let before = control.info(id)?;
    if !recovers(before.flags) {
        let message = format!("ublk device {id} cannot be recovered: it was created without");
        return Err(Error::new(Code::InvalidArgument, message)
            .hint("create devices with the option recovery, and they outlive their server"));
    }
    needs::check_threads(&options, &target, pool.is_some())?;
    negotiate::check_threads(&options, before.flags)?;
    let modes = negotiate::in_force(before.flags);
    if modes.0.shared {
        let message = format!("ublk device {id} cannot be recovered: it shares memory");
        return Err(Error::new(Code::InvalidArgument, message).hint(
            "the driver goes on to name memory that only the server that registered it has: \
             delete the device, and create it again",
        ));
    }
    let served = params::of(&geometry, modes.0, before.max_io_buf_bytes);
    check(id, &control.params(id)?, &served)?;
    let info = take_over(&control, &before, options.limit)?;
    // The old server may have changed its size until it left.
    let params = control.params(id)?;
    check(id, &params, &served)?;
    let begin = Begin::Recover;
    Launch { driver, control: &control, info: &info, modes, begin }
        .run(target, &params, options, pool)
}

/// Waits for the old server to let go of the device.
fn take_over<D: Driver>(
    control: &Control<D>,
    before: &ublksrv_ctrl_dev_info,
    limit: Duration,
) -> Result<ublksrv_ctrl_dev_info> {
    let id = before.dev_id;
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(100);
    loop {
        match control.start_recovery(id) {
            Ok(()) => return control.info(id),
            Err(Error { code: Code::Busy, .. }) if Instant::now() < deadline => {}
            Err(error) if error.code == Code::Busy => return Err(still_served(control, id, error)),
            Err(error) => return Err(error),
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn still_served<D: Driver>(control: &Control<D>, id: u32, error: Error) -> Error {
    let Ok(info) = control.info(id) else { return error };
    match DeviceState::from(info.state) {
        DeviceState::Live => error
            .hint(format!("process {} serves it: `ublk quiesce {id}` ends that", info.ublksrv_pid)),
        DeviceState::Dead => error.hint("it was stopped: delete it, and create it again"),
        _ => error,
    }
}

/// Compares a target with the device that it shall be: what clients have been told must hold.
fn check(id: u32, device: &ublk_params, target: &ublk_params) -> Result<()> {
    let differences = differences(device, target);
    if differences.is_empty() {
        return Ok(());
    }
    let message = format!(
        "the target is not what ublk device {id} was created with: {}",
        differences.join("; ")
    );
    Err(Error::new(Code::BadBackend, message).hint("recover it with the target that it had"))
}

fn differences(device: &ublk_params, target: &ublk_params) -> Vec<String> {
    let mut found = Vec::new();
    let mut same = |what: &str, device: u64, target: u64| {
        if device != target {
            found.push(format!("{what} was {device} and is {target}"));
        }
    };
    same("size", device.basic.dev_sectors << 9, target.basic.dev_sectors << 9);
    let block = |params: &ublk_params| 1_u64 << params.basic.logical_bs_shift.min(63);
    same("logical block", block(device), block(target));
    let has = |params: &ublk_params, kind: u32| params.types & kind != 0;
    for (what, kind) in [("zoned", UBLK_PARAM_TYPE_ZONED), ("integrity", UBLK_PARAM_TYPE_INTEGRITY)]
    {
        same(what, has(device, kind).into(), has(target, kind).into());
    }
    let attr = |params: &ublk_params, attr: u32| params.basic.attrs & attr != 0;
    let read_only = |params| u64::from(attr(params, UBLK_ATTR_READ_ONLY));
    same("read-only", read_only(device), read_only(target));

    let mut lost = |gone: bool, what: &str| {
        if gone {
            found.push(what.to_owned());
        }
    };
    let only =
        |one: &ublk_params, other: &ublk_params, bit: u32| attr(one, bit) && !attr(other, bit);
    lost(
        only(target, device, UBLK_ATTR_VOLATILE_CACHE),
        "it has a cache now, and the kernel would never flush it",
    );
    lost(only(device, target, UBLK_ATTR_FUA), "it cannot make single writes durable (FUA)");
    let discards = |params: &ublk_params| match has(params, UBLK_PARAM_TYPE_DISCARD) {
        true => (params.discard.max_discard_sectors, params.discard.max_write_zeroes_sectors),
        false => (0, 0),
    };
    let ((before, zeroes_before), (now, zeroes_now)) = (discards(device), discards(target));
    lost(before > now, "it discards less");
    lost(zeroes_before > zeroes_now, "it writes zeroes less");
    let alignment = |params: &ublk_params| match has(params, UBLK_PARAM_TYPE_DMA_ALIGN) {
        true => params.dma.alignment,
        false => 0,
    };
    lost(alignment(target) > alignment(device), "it needs memory that is aligned more");
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{BufferMode, Buffering};
    use crate::target::{DiscardLimits, Geometry};

    fn of(geometry: &Geometry) -> ublk_params {
        let buffers = Buffering { mode: BufferMode::Auto, user_copy: false, shared: false };
        params::of(geometry, buffers, 1 << 20)
    }

    #[test]
    fn a_target_must_keep_what_the_device_has_promised() {
        let discard = DiscardLimits { granularity: 512, max_discard: 4096, max_write_zeroes: 4096 };
        let had = Geometry {
            volatile_cache: true,
            fua: true,
            discard: Some(discard),
            ..Geometry::new(1 << 20)
        };
        let device = of(&had);
        assert_eq!(differences(&device, &device), [""; 0]);
        type Change = fn(&mut Geometry);
        let changes: [(Change, &str); 7] = [
            (|g| g.size = 1 << 21, "size was 1048576 and is 2097152"),
            (|g| g.logical_block = 4096, "logical block was 512 and is 4096"),
            (|g| g.read_only = true, "read-only was 0 and is 1"),
            (|g| g.fua = false, "it cannot make single writes durable (FUA)"),
            (|g| g.discard = None, "it discards less; it writes zeroes less"),
            (|g| g.dma_alignment = 4095, "it needs memory that is aligned more"),
            (|g| g.dma_alignment = 3, ""),
        ];
        for (change, said) in changes {
            let mut geometry = had;
            change(&mut geometry);
            assert_eq!(differences(&device, &of(&geometry)).join("; "), said);
        }
        let without = of(&Geometry { volatile_cache: false, fua: false, ..had });
        assert_eq!(differences(&without, &device).len(), 1);
    }
}
