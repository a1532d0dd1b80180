//! What can be asked of, and done to, the devices of this machine, whoever serves them.

use napi::Env;
use napi::bindgen_prelude::Object;
use napi_derive::napi;
use ublk_core::device::{self, StopCheck};
use ublk_core::driver::linux::Linux;

use crate::describe::{self, DeviceInfo, DeviceUsers};
use crate::{targets, task};

/// All ublk devices.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo[]>>")]
pub fn list_devices(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, || {
        let devices = device::list(Linux::new())?;
        Ok(devices.iter().map(DeviceInfo::from).collect::<Vec<_>>())
    })
}

/// One device.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo>>")]
pub fn device_info(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::info(Linux::new(), id).map(|info| DeviceInfo::from(&info)))
}

/// Stops a device, with `force` whoever uses it; answers what was looked at before.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<'openers' | 'holders' | 'nothing'>>")]
pub fn stop_device(env: &Env, id: u32, force: bool) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        Ok(match device::stop(&Linux::new(), id, force)? {
            StopCheck::Openers => "openers",
            StopCheck::Holders => "holders",
            StopCheck::Nothing => "nothing",
        })
    })
}

/// Takes a device away from its server, for the next one.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn quiesce_device(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::quiesce(Linux::new(), id))
}

/// Changes a device's size, in bytes; it grows by force only.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceInfo>>")]
pub fn resize_device(env: &Env, id: u32, size: i64, force: bool) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let size = targets::bytes(size)?;
        device::resize(Linux::new(), id, size, force).map(|info| DeviceInfo::from(&info))
    })
}

/// Moves the threads that serve a device; answers how many there are.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<number>>")]
pub fn set_device_affinity(
    env: &Env,
    id: u32,
    #[napi(ts_arg_type = "readonly number[]")] cpus: Vec<u16>,
) -> napi::Result<Object<'_>> {
    task::promise(env, move || {
        let moved = device::set_affinity(Linux::new(), id, &cpus)?;
        Ok(u32::try_from(moved).unwrap_or(u32::MAX))
    })
}

/// Stops a device and removes it, with `force` whoever uses it.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<void>>")]
pub fn delete_device(env: &Env, id: u32, force: bool) -> napi::Result<Object<'_>> {
    task::promise(env, move || device::delete(&Linux::new(), id, force))
}

/// Who uses a device.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<DeviceUsers>>")]
pub fn device_users(env: &Env, id: u32) -> napi::Result<Object<'_>> {
    task::promise(env, move || Ok(DeviceUsers::from(device::users(&Linux::new(), id)?)))
}

/// The driver's features.
#[napi(catch_unwind, ts_return_type = "Promise<Outcome<Feature[]>>")]
pub fn features(env: &Env) -> napi::Result<Object<'_>> {
    task::promise(env, || {
        let flags = device::features(Linux::new())?;
        Ok(describe::features(flags).collect::<Vec<_>>())
    })
}
